//! Instances: what runs here, where it is reached, what it says on its console.

use std::time::Duration;

use futures::StreamExt;
use maud::{Markup, html};

use super::{Place, frame, jobs::encoded, text};
use crate::api::{Backend, Instance, PortForward, Status};
use crate::reply::{Refusal, Response};

/// The end of a console that a page shows; with scripts, the whole of it streams in.
const TAIL_BYTES: usize = 64 * 1024;
/// How much of a console is read to find its end, and for how long.
const READ_BYTES: usize = 16 * 1024 * 1024;
const READ_TIME: Duration = Duration::from_secs(5);

/// `/instances`
pub(super) async fn page(status: &Status, own_host: Option<&str>, backend: &dyn Backend) -> Result<Response, Refusal> {
    let instances = backend.instances().await?;
    let main = html! {
        h1 { "Instances" }
        div id="instances" data-live="instances" {
            @if instances.is_empty() {
                div.empty {
                    h2 { "Nothing runs here" }
                    p { "Choose an accepted release in the " a href="/?verdict=accept" { "catalog" } " and deploy it." }
                }
            } @else {
                ul.instances { @for instance in &instances { li { (card(instance, own_host, Shown::InList)) } } }
            }
        }
    };
    super::page(status, Place::Instances, "Instances", main)
}

/// `/instances/{instance}`
pub(super) async fn log_page(
    status: &Status,
    wanted: &str,
    own_host: Option<&str>,
    backend: &dyn Backend,
) -> Result<Response, Refusal> {
    let instances = backend.instances().await?;
    let instance = instances.iter().find(|instance| instance.instance == wanted).ok_or_else(|| {
        crate::api::ApiError::not_found("no instance has this id; it may have been removed")
            .with_hint("look at the list of instances")
    })?;
    let console = tail(backend, wanted).await?;
    let main = html! {
        p.crumbs { a href="/instances" { "Instances" } }
        div id="instance" data-live="instances" { (card(instance, own_host, Shown::Alone)) }
        section.panel aria-labelledby="console-title" {
            div.heading {
                h2 id="console-title" { "Console" }
                label.follow hidden { input type="checkbox" checked data-follow; " Follow" }
            }
            pre.console id="console" tabindex="0" data-log={ "/api/v1/instances/" (encoded(wanted)) "/logs" } { (text::console(&console)) }
        }
    };
    super::page(status, Place::Instances, &format!("Instance {}", text::line(wanted)), main)
}

/// Where an instance's card stands: on its own page it is the title, and does not link to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    InList,
    Alone,
}

fn card(instance: &Instance, own_host: Option<&str>, shown: Shown) -> Markup {
    let id = encoded(&instance.instance);
    let (sign, class) = match instance.state.as_str() {
        "running" => ("●", "state running"),
        "failed" => ("✕", "state failed"),
        "stopped" | "suspended" => ("■", "state stopped"),
        _ => ("◌", "state moving"),
    };
    let is_over = matches!(instance.state.as_str(), "stopped" | "failed");
    html! {
        article.card {
            div.heading {
                @match shown {
                    Shown::InList => h2 { a href={ "/instances/" (id) } id={ "i-" (id) } { bdi { (text::line(&instance.title)) } } },
                    Shown::Alone => h1 { bdi { (text::line(&instance.title)) } },
                }
                span class=(class) { span aria-hidden="true" { (sign) " " } (text::line(&instance.state)) }
            }
            @if let Some(note) = &instance.note { p.note { (frame::said(note)) } }
            @if !instance.ports.is_empty() {
                ul.reach { @for port in &instance.ports { li { (port_link(*port, own_host, !is_over && instance.state != "suspended")) } } }
            }
            ul.facts {
                li { code { (text::line(&instance.instance)) } }
                li { (text::line(&instance.class)) }
                li { (text::count(instance.vcpus.into(), "processor", "processors")) }
                li { (text::size(instance.memory_bytes)) }
                li { (text::line(&instance.accelerator)) }
                li { "since " (frame::time(&instance.created)) }
                li { a href={ "/releases/" (instance.release) } { "its release" } }
            }
            div.doing {
                @if shown == Shown::InList { a href={ "/instances/" (id) } { "Console" } }
                @if instance.state == "running" {
                    form method="post" action={ "/instances/" (id) "/suspend" } data-once="Suspending…" { button type="submit" { "Suspend" } }
                }
                @if instance.state == "suspended" {
                    form method="post" action={ "/instances/" (id) "/resume" } data-once="Resuming…" { button type="submit" { "Resume" } }
                }
                @if is_over {
                    (confirmed(&format!("rm-{id}"), "Remove…", "This removes the instance and everything that its guest wrote.", html! {
                        form method="post" action={ "/instances/" (id) "/remove" } data-once="Removing…" { button.danger type="submit" { "Remove for good" } }
                    }))
                } @else if instance.state == "suspended" {
                    (confirmed(&format!("stop-{id}"), "Stop…", "What its guest has in memory is given up; what it wrote to its disks stays.", html! {
                        form method="post" action={ "/instances/" (id) "/stop" } data-once="Stopping…" { button.danger type="submit" { "Stop" } }
                    }))
                } @else {
                    (confirmed(&format!("stop-{id}"), "Stop…", "The guest is asked to shut down, and is cut off if it does not.", html! {
                        form method="post" action={ "/instances/" (id) "/stop" } data-once="Stopping…" {
                            label { input type="checkbox" name="force" value="true"; " cut it off at once" }
                            button.danger type="submit" { "Stop" }
                        }
                    }))
                }
            }
        }
    }
}

fn confirmed(id: &str, word: &str, consequence: &str, form: Markup) -> Markup {
    html! { details.confirm id=(id) { summary { (word) } p { (consequence) } (form) } }
}

/// A published port. Cookies know no ports, so a guest opened under the name by which the browser knows *us* would be
/// sent our session: its link goes to the other loopback name.
fn port_link(port: PortForward, own_host: Option<&str>, is_live: bool) -> Markup {
    let is_under_address = own_host.is_some_and(|host| host.starts_with("127.0.0.1"));
    let name = if is_under_address { "localhost" } else { "127.0.0.1" };
    let address = format!("http://{name}:{}", port.host);
    html! {
        @if is_live { a href={ (address) "/" } rel="noreferrer noopener" { (address) } } @else { span.quiet { (address) } }
        span.quiet { " → port " (port.guest) " of the guest" }
    }
}

/// The end of what a guest has written.
async fn tail(backend: &dyn Backend, instance: &str) -> Result<Vec<u8>, Refusal> {
    let mut log = backend.instance_logs(instance, false).await?;
    let mut end = Vec::new();
    let mut read = 0;
    let reading = async {
        while let Some(piece) = log.next().await {
            read += piece.len();
            end.extend_from_slice(&piece);
            if end.len() > 2 * TAIL_BYTES {
                end.drain(..end.len() - TAIL_BYTES);
            }
            if read > READ_BYTES {
                break;
            }
        }
    };
    // What was read in time is shown.
    let _ = tokio::time::timeout(READ_TIME, reading).await;
    let cut = end.len().saturating_sub(TAIL_BYTES);
    Ok(end.split_off(cut))
}
