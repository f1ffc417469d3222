//! A job's progress: a box that the script fills on any page, and a page of its own for browsers without scripts.

use std::time::Duration;

use futures::StreamExt;
use maud::{Markup, html};
use rialto_protocol::ids::RecordId;

use super::{Place, frame, sentence, text};
use crate::api::{Backend, JobEvent, Status};
use crate::reply::{Refusal, Response};

/// How long a page waits for the first word of a job; it comes at once from one that lives.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// The box as the script clones it.
pub(super) fn template() -> Markup {
    html! { template id="job-box" { (job_box(None)) } }
}

fn job_box(event: Option<&JobEvent>) -> Markup {
    let (stage, value, total) = match event {
        Some(JobEvent::Progress { stage, done, total }) => (sentence(&text::line(stage)), *done, *total),
        _ => ("Starting.".to_owned(), 0, 0),
    };
    html! {
        div.job {
            p.stage role="status" aria-live="polite" { (stage) }
            progress aria-label="Progress" value=[(total > 0).then_some(value)] max=[(total > 0).then_some(total)] {}
            p.amount.quiet { @if total > 0 { (text::size(value)) " of " (text::size(total)) } }
            button.plain.small type="button" data-cancel hidden { "Cancel" }
        }
    }
}

/// `/jobs/{job}`
pub(super) async fn page(status: &Status, job: &str, query: &str, backend: &dyn Backend) -> Result<Response, Refusal> {
    let mut events = backend.job_events(job).await?;
    let event = tokio::time::timeout(FIRST_WORD, events.next()).await.ok().flatten();
    // Only an id goes back into a link, never an address that somebody else wrote.
    let release = form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "release")
        .and_then(|(_, id)| id.parse::<RecordId>().ok());
    let main = html! {
        p.crumbs {
            a href="/" { "Catalog" }
            @if let Some(release) = release { " / " a href={ "/releases/" (release) } { "Release" } }
        }
        h1 { "Under way" }
        section.panel {
            @match &event {
                Some(JobEvent::Done { result }) => (done(result)),
                Some(JobEvent::Failed { error }) => {
                    p { strong { "It did not work. " } (frame::said(&error.message)) }
                    @if let Some(hint) = &error.hint { p { (frame::said(hint)) } }
                }
                other => {
                    (job_box(other.as_ref()))
                    form method="post" action=(cancel_address(job)) { button.plain type="submit" { "Cancel" } }
                    p.quiet { "This page asks again every two seconds. " a href="" { "Ask now" } }
                }
            }
        }
    };
    let is_over = matches!(event, Some(JobEvent::Done { .. } | JobEvent::Failed { .. }));
    let mut response = frame::page(status, Place::Catalog, "Job", main);
    if !is_over {
        // As a header, because the template has no place for it; browsers honour it like the meta element.
        response.headers_mut().insert("refresh", warp::http::HeaderValue::from_static("2"));
    }
    Ok(response)
}

fn done(result: &serde_json::Value) -> Markup {
    html! {
        p { strong { "Done." } }
        @if let Some(instance) = result.get("instance").and_then(|id| id.as_str()) {
            p { a href={ "/instances/" (encoded(instance)) } { "Instance " (text::line(instance)) } " has been started." }
        }
        p { a href="/instances" { "Instances" } }
    }
}

fn cancel_address(job: &str) -> String {
    format!("/jobs/{}/cancel", encoded(job))
}

/// Text as one segment of a path.
pub(super) fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
