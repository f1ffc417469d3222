//! Long work: follows a job to its end, with a progress bar on a terminal, and stops it on Ctrl-C.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rialto_web::api::{ApiError, JobEvent, JobStarted};
use serde_json::Value;

use super::output::{Face, Outcome, plain};
use crate::client::{Client, segment};

/// How often a bar without news moves, so that one sees that it lives.
const TICK: Duration = Duration::from_millis(120);
const BAR: &str = "{msg:12} {bar:32} {binary_bytes:>11} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
const SPINNER: &str = "{msg:12} {spinner} {binary_bytes:>11}";

/// Waits for the end of a job and returns its result. Ctrl-C cancels it; `what_stays` then tells what is left of it.
pub(super) async fn follow(face: &Face, client: &Client, started: JobStarted, what_stays: &str) -> Outcome<Value> {
    let mut events = client.job_events(&started.job).await?;
    let progress = Progress::new();
    let mut is_cancelled = false;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = tokio::signal::ctrl_c() => {
                if is_cancelled {
                    return Err(cancelled(what_stays));
                }
                is_cancelled = true;
                progress.bar.suspend(|| face.note("cancelling …"));
                client.delete::<Value>(&format!("jobs/{}", segment(&started.job))).await?;
                continue;
            }
        };
        match event? {
            JobEvent::Progress { stage, done, total } => progress.show(&stage, done, total),
            JobEvent::Done { result } => return Ok(result),
            JobEvent::Failed { .. } if is_cancelled => return Err(cancelled(what_stays)),
            JobEvent::Failed { error } => return Err(error),
        }
    }
}

fn cancelled(what_stays: &str) -> ApiError {
    ApiError::failed(format!("cancelled; {what_stays}"))
}

/// A bar on stderr where that is a terminal, nothing elsewhere; it is wiped when the work ends.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new() -> Self {
        Self { bar: ProgressBar::hidden() }
    }

    fn show(&self, stage: &str, done: u64, total: u64) {
        let (template, length) = if total == 0 { (SPINNER, None) } else { (BAR, Some(total)) };
        let is_first = self.bar.is_hidden();
        if self.bar.length() != length || is_first {
            // The templates are constants; a bar of the default style is no worse than an error.
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style);
            }
            match length {
                Some(length) => self.bar.set_length(length),
                None => self.bar.unset_length(),
            }
        }
        // What comes after the last byte (syncing to disk) takes its time too.
        let is_at_end = total > 0 && done >= total;
        self.bar.set_message(if is_at_end { "finishing".to_owned() } else { plain(stage).into_owned() });
        self.bar.set_position(done);
        // Only now is there something to see. Where stderr is no terminal, the bar stays hidden.
        if is_first && io::stderr().is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(TICK);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use rialto_web::api::ErrorCode;

    use super::*;
    use crate::client::fake::FakeNode;

    async fn followed(events: &str) -> Outcome<Value> {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{events}");
        let node = FakeNode::answering(&[&answer]);
        follow(&Face::new(true), &node.client, JobStarted { job: "1".into() }, "nothing is left").await
    }

    const PROGRESS: &str = "data: {\"event\":\"progress\",\"stage\":\"reading\\u001b[2J\",\"done\":1,\"total\":2}\n\n\
        data: {\"event\":\"progress\",\"stage\":\"reading\",\"done\":9,\"total\":0}\n\n";

    #[tokio::test]
    async fn a_job_ends_with_its_result_or_its_error() {
        let done =
            followed(&format!("{PROGRESS}data: {{\"event\":\"done\",\"result\":{{\"bytes\":7}}}}\n\n")).await.unwrap();
        assert_eq!(done["bytes"], 7);
        let failed = "data: {\"event\":\"failed\",\"error\":{\"code\":\"refused\",\"message\":\"held\"}}\n\n";
        assert_eq!(followed(failed).await.unwrap_err(), ApiError::refused("held"));
    }

    #[tokio::test]
    async fn a_node_that_dies_within_a_job_is_not_running() {
        assert_eq!(followed(PROGRESS).await.unwrap_err().code, ErrorCode::NotRunning);
    }
}
