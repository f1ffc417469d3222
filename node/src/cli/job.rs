//! Long work: follows a job to its end, with a progress bar on a terminal, and stops it on Ctrl-C.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
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
        Self { bar: ProgressBar::new_spinner() }
    }

    fn show(&self, stage: &str, done: u64, total: u64) {
        let (template, length) = if total == 0 { (SPINNER, None) } else { (BAR, Some(total)) };
        if self.bar.length() != length || self.bar.message().is_empty() {
            // The templates are constants; a bar of the default style is no worse than an error.
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style);
            }
            match length {
                Some(length) => self.bar.set_length(length),
                None => self.bar.unset_length(),
            }
            self.bar.enable_steady_tick(TICK);
        }
        self.bar.set_message(plain(stage).into_owned());
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
