//! The pages: HTML that works without scripts, and keeps itself up to date where they run.
//!
//! Parts that can change carry an `id` and `data-live="…"` with the kinds of [`crate::api::Change`] they follow; the script
//! asks for the page again and swaps those parts only. What somebody is typing is never inside such a part.

mod catalog;
mod forms;
mod frame;
mod instances;
mod jobs;
mod node;
mod release;
mod text;

use bytes::Bytes;
use maud::html;
use warp::http::{HeaderMap, Method, StatusCode, header};

use crate::api::{ApiError, Backend, Status};
use crate::reply::{self, Refusal, Response};

/// A request for a page, or a form sent from one. It has passed the gate.
pub(crate) struct Visit<'a> {
    pub(crate) method: &'a Method,
    pub(crate) segments: &'a [String],
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: Bytes,
    /// The loopback name and port under which the browser knows us; `None` on the UNIX socket.
    pub(crate) own_host: Option<&'a str>,
}

/// Where a page stands in the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Catalog,
    Instances,
    Node,
}

/// Answers with a page, or with what a form led to.
pub(crate) async fn answer(visit: Visit<'_>, backend: &dyn Backend) -> Result<Response, Refusal> {
    let segments: Vec<&str> = visit.segments.iter().map(String::as_str).collect();
    match (visit.method.as_str(), segments.as_slice()) {
        ("GET" | "HEAD", path) => {
            let status = backend.status().await?;
            match path {
                [""] => catalog::page(&status, visit.query, backend).await,
                ["releases", release] => release::page(&status, release, backend).await,
                ["instances"] => instances::page(&status, visit.own_host, backend).await,
                ["instances", instance] => instances::log_page(&status, instance, visit.own_host, backend).await,
                ["jobs", job] => jobs::page(&status, job, visit.query, backend).await,
                ["node"] => node::page(&status, backend).await,
                _ => Err(nowhere()),
            }
        }
        ("POST", ["releases", release, "fetch"]) => forms::fetch(&visit, release, backend).await,
        ("POST", ["releases", release, "deploy"]) => forms::deploy(&visit, release, backend).await,
        ("POST", ["instances", instance, "stop"]) => forms::stop(&visit, instance, backend).await,
        ("POST", ["instances", instance, "suspend"]) => forms::suspend(&visit, instance, backend).await,
        ("POST", ["instances", instance, "resume"]) => forms::resume(&visit, instance, backend).await,
        ("POST", ["instances", instance, "remove"]) => forms::remove(&visit, instance, backend).await,
        ("POST", ["jobs", job, "cancel"]) => forms::cancel(&visit, job, backend).await,
        (_, ["releases" | "instances" | "jobs" | "node" | "", ..]) => Err(Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ApiError::usage("this page does not take that kind of request"),
        )),
        _ => Err(nowhere()),
    }
}

/// What people see instead of a page.
pub(crate) fn refusal(refusal: Refusal) -> Response {
    let title = match refusal.status {
        StatusCode::UNAUTHORIZED => "Not let in yet",
        StatusCode::NOT_FOUND => "Nothing here",
        StatusCode::SERVICE_UNAVAILABLE => "The node is not ready",
        status if status.is_server_error() => "That did not work",
        _ => "Not done",
    };
    let is_locked = refusal.status == StatusCode::UNAUTHORIZED;
    let error = &refusal.error;
    let body = html! {
        main id="main" class="notice" {
            img src=(crate::assets::address("bridge.svg")) alt="" width="96" height="72";
            h1 { (title) }
            p { (frame::said(&error.message)) }
            @if let Some(hint) = &error.hint { p { (frame::said(hint)) } }
            @if is_locked {
                p.quiet { "If you have just opened such a link, " a href="/" { "go on to the catalog" } "." }
            } @else {
                p { a href="/" { "Back to the catalog" } }
            }
        }
    };
    let mut response = frame::bare(title, body);
    *response.status_mut() = refusal.status;
    response
}

fn nowhere() -> Refusal {
    ApiError::not_found("no page is at this address").into()
}

/// Whether the script asks, which wants JSON and stays on its page.
fn wants_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.starts_with("application/json"))
}

/// An error's text as a sentence: messages begin in lower case and have no full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return String::new() };
    let stop = if text.ends_with(['.', '!', '?', ':']) { "" } else { "." };
    format!("{}{}{stop}", first.to_uppercase(), chars.as_str())
}

fn page(status: &Status, place: Place, title: &str, main: maud::Markup) -> Result<Response, Refusal> {
    Ok(frame::page(status, place, title, main))
}

fn ok(markup: maud::Markup) -> Response {
    reply::with_type(StatusCode::OK, "text/html; charset=utf-8", markup.into_string())
}
