//! What all pages share: head, header, banner, footer, and the small signs that mean the same everywhere.

use maud::{DOCTYPE, Markup, html};

use super::{Place, ok, sentence, text};
use crate::api::{SignerShown, Status, VerdictKind};
use crate::assets;
use crate::reply::Response;

/// A page around its main part.
pub(super) fn page(status: &Status, place: Place, title: &str, main: Markup) -> Response {
    let link = |to: Place, href: &str, word: &str| {
        html! { a href=(href) aria-current=[(to == place).then_some("page")] { (word) } }
    };
    ok(document(
        &format!("{title} · {}", text::line(&status.name)),
        html! {
            a.skip href="#main" { "Skip to the content" }
            header.top {
                div.inner {
                    a.brand href="/" {
                        img src=(assets::address("bridge.svg")) alt="" width="44" height="33";
                        span.wordmark { "Rialto" }
                    }
                    nav aria-label="Pages" {
                        (link(Place::Catalog, "/", "Catalog"))
                        (link(Place::Instances, "/instances", "Instances"))
                        (link(Place::Node, "/node", "Node"))
                    }
                    p.site { bdi { (text::line(&status.name)) } span.quiet { " in " bdi { (text::line(&status.federation)) } } }
                }
            }
            (banner(status))
            main id="main" tabindex="-1" { (main) }
            footer.bottom { div.inner {
                p { "Rialto " (text::line(&status.version)) }
                p.quiet { "Press " kbd { "/" } " to search" }
            } }
        },
    ))
}

/// A page without header or navigation, for those who are not let in and for errors.
pub(super) fn bare(title: &str, main: Markup) -> Response {
    ok(document(&format!("{title} · Rialto"), main))
}

fn document(title: &str, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" type="image/svg+xml" href=(assets::address("bridge.svg"));
                link rel="stylesheet" href=(assets::address("rialto.css"));
                script type="module" src=(assets::address("rialto.js")) {}
            }
            body { (body) }
        }
    }
}

/// What the administrator must see on every page: nothing is accepted while the policy cannot be read.
fn banner(status: &Status) -> Markup {
    // The policy's error is among the warnings for those who read only these; here it has a place of its own.
    let is_new = |warning: &&String| status.policy.error.as_ref().is_none_or(|error| !warning.contains(error.as_str()));
    let warnings: Vec<&String> = status.warnings.iter().filter(is_new).collect();
    html! {
        div id="banner" data-live="policy peers store catalog instances" {
            @if let Some(error) = &status.policy.error {
                div.banner.is-bad role="alert" { div.inner {
                    p { strong { "The policy file cannot be read, so nothing is accepted." } }
                    p.mono { (text::line(error)) }
                    p { "Correct it with an editor; " code { "rialto policy check" } " says when it is right. It is in force within two seconds." }
                } }
            }
            @match warnings.as_slice() {
                [] => {}
                [warning] => div.banner.is-warning role="status" { div.inner { p { (said(warning)) } } },
                warnings => div.banner.is-warning role="status" { div.inner { ul {
                    @for warning in warnings { li { (said(warning)) } }
                } } },
            }
        }
    }
}

/// A verdict as colour, sign and word.
pub(super) fn badge(verdict: VerdictKind) -> Markup {
    let (sign, word, class) = match verdict {
        VerdictKind::Accept => ("✓", "Accepted", "badge accept"),
        VerdictKind::Hold => ("‖", "Held", "badge hold"),
        VerdictKind::Reject => ("✕", "Rejected", "badge reject"),
    };
    html! { span class=(class) { span.sign aria-hidden="true" { (sign) } " " (word) } }
}

/// A name that this site gave is set apart from a fingerprint, which nobody vouches for.
pub(super) fn signer_name(name: &str, is_known: bool) -> Markup {
    html! {
        @if is_known {
            bdi.petname { (text::line(name)) }
        } @else {
            bdi.fingerprint title="This site's policy has no name for this key" { (text::line(name)) }
        }
    }
}

/// Signers, each with the full key at hand.
pub(super) fn signers(signers: &[SignerShown]) -> Markup {
    html! {
        @if signers.is_empty() { span.quiet { "nobody" } }
        @for (at, signer) in signers.iter().enumerate() {
            @if at > 0 { ", " }
            span title=(text::line(&signer.key)) { (signer_name(&signer.name, signer.is_known)) }
        }
    }
}

/// A message as a sentence, with what stands in backticks as code.
pub(super) fn said(message: &str) -> Markup {
    let sentence = sentence(&text::line(message));
    html! {
        @for (at, piece) in sentence.split('`').enumerate() {
            @if at % 2 == 1 { code { (piece) } } @else { (piece) }
        }
    }
}

/// A time, readable and exact.
pub(super) fn time(at: &str) -> Markup {
    html! { time datetime=(text::line(at)) { (text::time(at)) } }
}

/// A long id, of which the beginning is enough to tell it from others.
pub(super) fn id(full: &str) -> Markup {
    html! { code.id title=(full) { (full.chars().take(16).collect::<String>()) "…" } }
}
