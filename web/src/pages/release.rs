//! One release: what it is, who stands behind it, why the verdict is what it is, and what can be done with it.

use maud::{Markup, html};
use rialto_protocol::record::PREDICATE_TESTED;

use super::{Place, forms, frame, jobs, sentence, text};
use crate::api::{
    Backend, BearingShown, ChannelShown, ChannelWorth, ContextInputShown, EndorsementShown, Explanation, HistoryEvent,
    HistoryKind, ReleaseDetails, RevocationShown, StatementShown, Status, VerdictKind,
};
use crate::reply::{Refusal, Response};

/// Rows for published ports in a form used without scripts; the script adds more.
const PORT_ROWS: usize = 2;

/// `/releases/{release}`
pub(super) async fn page(status: &Status, release: &str, backend: &dyn Backend) -> Result<Response, Refusal> {
    let details = backend.release(release).await?;
    let summary = &details.summary;
    let title =
        format!("{}/{} {}", text::line(&summary.publisher), text::line(&summary.name), text::line(&summary.version));
    let main = html! {
        p.crumbs { a href="/" { "Catalog" } }
        div.release {
            div.lead {
                h1 {
                    (frame::signer_name(&summary.publisher, summary.publisher_is_known))
                    span.slash { "/" } bdi.name { (text::line(&summary.name)) }
                    " " span.version { (text::line(&summary.version)) }
                }
                @if !summary.summary.is_empty() { p.about { bdi { (text::line(&summary.summary)) } } }
                ul.facts { @for tag in &summary.tags { li.tag { bdi { (text::line(tag)) } } } }
            }
            section.verdict.panel id="verdict" data-live="catalog policy" aria-labelledby="verdict-title" { (verdict(&details.explanation)) }
            aside aria-label="What you can do" {
                (actions(&details))
                div id="facts" data-live="catalog store peers" { (facts(&details)) }
            }
            div.rest {
                div id="channels" data-live="catalog policy" { (channels(&details)) }
                div id="voices" data-live="catalog policy" { (voices(&details)) }
                div id="images" data-live="catalog store" { (images(&details)) }
                @if let Some(description) = &details.description {
                    section.panel { h2 { "Description" } div.prose { bdi { (text::block(description)) } } }
                }
                div id="history" data-live="catalog policy" { (history(&details)) }
                section.panel { h2 { "Names" } (names(&details)) }
            }
        }
        (jobs::template())
    };
    super::page(status, Place::Catalog, &title, main)
}

fn verdict(explanation: &Explanation) -> Markup {
    html! {
        div.heading {
            h2 id="verdict-title" { "Verdict" }
            (frame::badge(explanation.verdict))
        }
        p { (frame::said(&explanation.because)) }
        @if let Some(decided) = decided_by(explanation) { p.quiet { (decided) } }
        @if !explanation.requirements.is_empty() {
            ul.requirements {
                @for requirement in &explanation.requirements {
                    li class=(if requirement.met { "met" } else { "unmet" }) {
                        span.sign aria-hidden="true" { (if requirement.met { "✓" } else { "✕" }) }
                        div {
                            p { code { (text::line(&requirement.name)) } " " strong { (if requirement.met { "met" } else { "not met" }) } }
                            p.quiet { (frame::said(&requirement.because)) }
                        }
                    }
                }
            }
        }
    }
}

/// What decided, where the sentence before does not say it.
fn decided_by(explanation: &Explanation) -> Option<Markup> {
    match explanation.rule.as_str() {
        "revocation" => Some(html! { "A revocation counts before any rule of this site's policy." }),
        rule if explanation.because.contains(rule) => None,
        rule => Some(html! { "Decided by the rule “" bdi { (text::line(rule)) } "” of this site's policy." }),
    }
}

fn actions(details: &ReleaseDetails) -> Markup {
    let release = &details.summary.release;
    let verdict = details.explanation.verdict;
    let is_accepted = verdict == VerdictKind::Accept;
    html! {
        section.panel.actions aria-labelledby="actions-title" data-jobs=(release) {
            // Another form only under another verdict: somebody may be filling it in.
            div id="offer" data-live="catalog policy" data-when=(verdict.as_str()) {
                h2 id="actions-title" { (if is_accepted { "Deploy" } else { "Images here" }) }
                @if is_accepted { (deploy_form(details)) }
            }
            div id="fetching" data-live="catalog policy store" {
                @if details.summary.is_fetched {
                    p.fetched { span aria-hidden="true" { "↓ " } "All images are in this node's store." }
                } @else if verdict != VerdictKind::Reject {
                    form method="post" action={ "/releases/" (release) "/fetch" } data-job {
                        @if !is_accepted { input type="hidden" name="held" value="true"; }
                        button.plain type="submit" id="fetch" {
                            (if is_accepted { "Fetch only" } else { "Fetch for review" }) " (" (text::size(details.summary.bytes)) ")"
                        }
                    }
                }
                @match verdict {
                    VerdictKind::Accept => {}
                    VerdictKind::Hold if details.summary.is_fetched => p.quiet { "Policy holds this release: it can be looked at, but not deployed." }
                    VerdictKind::Hold => p.quiet { "Policy holds this release: it can be fetched and looked at, but not deployed." }
                    VerdictKind::Reject if details.summary.is_fetched => p.quiet { "Policy rejects this release: it is not deployed." }
                    VerdictKind::Reject => p.quiet { "Policy rejects this release: it is neither fetched nor deployed." }
                }
            }
            div.jobs {}
        }
    }
}

fn deploy_form(details: &ReleaseDetails) -> Markup {
    html! {
        form.deploy method="post" action={ "/releases/" (details.summary.release) "/deploy" } data-job {
            @for (at, input) in details.context.iter().enumerate() { (field(at, input)) }
            fieldset {
                legend { "Published ports" }
                p.help { "A port of the guest is reached on a port of this machine; host port 0, or none, takes a free one." }
                @for row in 1..=PORT_ROWS { (port_row(row)) }
                button.plain.small type="button" data-add-port hidden { "Another port" }
            }
            button.primary type="submit" id="deploy" { "Deploy" }
            @if !details.summary.is_fetched { p.help { "What is missing is fetched first (" (text::size(details.summary.bytes)) " at most)." } }
        }
    }
}

fn port_row(row: usize) -> Markup {
    html! {
        div.ports {
            label { "Guest" span.unseen { " port " (row) } input name="publish.guest" type="number" min="1" max="65535" inputmode="numeric" placeholder="80"; }
            span aria-hidden="true" { "→" }
            label { "Host" span.unseen { " port " (row) } input name="publish.host" type="number" min="0" max="65535" inputmode="numeric" placeholder="any"; }
        }
    }
}

/// One input of the context schema as a labelled field. `at` makes its id: names come from gossip.
fn field(at: usize, input: &ContextInputShown) -> Markup {
    let id = format!("input-{at}");
    let help = format!("{id}-help");
    let name = forms::input_field(&input.name);
    let is_needed = input.required && input.default.is_none();
    let default = input.default.as_deref().filter(|_| !input.secret);
    let is_long = default.is_some_and(|value| value.len() > 60 || value.contains('\n'));
    html! {
        div.field {
            label for=(id) {
                bdi { (text::line(&input.name)) }
                @if is_needed { span.required { " required" } } @else { span.quiet { " optional" } }
            }
            @if input.kind == "boolean" {
                select id=(id) name=(name) required[is_needed] aria-describedby=(help) {
                    option value="" { @match default { Some(value) => { "as published (" (text::line(value)) ")" } None => { "choose…" } } }
                    option value="true" { "true" }
                    option value="false" { "false" }
                }
            } @else if input.secret {
                input id=(id) name=(name) type="password" autocomplete="new-password" required[is_needed] aria-describedby=(help);
            } @else if is_long {
                textarea id=(id) name=(name) rows="4" required[is_needed] aria-describedby=(help) spellcheck="false" {}
            } @else if input.kind == "integer" {
                input id=(id) name=(name) type="text" inputmode="numeric" pattern="-?[0-9]+" title="A whole number" required[is_needed]
                    placeholder=[default.map(text::line)] autocomplete="off" aria-describedby=(help);
            } @else {
                input id=(id) name=(name) type="text" required[is_needed] placeholder=[default.map(text::line)] autocomplete="off" aria-describedby=(help);
            }
            p.help id=(help) {
                @if let Some(description) = &input.description { (sentence(&text::line(description))) " " }
                @match (input.secret, default) {
                    (false, Some(_)) if input.kind == "boolean" => {}
                    (true, _) if input.default.is_some() => "Has a default, which is not shown.",
                    (true, _) => "Not shown in listings.",
                    (_, Some(value)) if !is_long => { "Where left empty: " code { (text::line(value)) } }
                    (_, Some(value)) => { "Where left empty:" pre { (text::block(value)) } }
                    (_, None) => {}
                }
            }
        }
    }
}

fn facts(details: &ReleaseDetails) -> Markup {
    let summary = &details.summary;
    let held = match details.sites_holding {
        0 => "no site that answers".to_owned(),
        1 if summary.is_fetched => "this site only".to_owned(),
        number => text::count(number, "site", "sites"),
    };
    html! {
        section.panel {
            h2.unseen { "Facts" }
            dl {
                dt { "Published" } dd { (frame::time(&summary.issued)) " (" (text::age(summary.age_days)) ")" }
                @if let Some(expires) = &details.expires { dt { "Expires" } dd { (frame::time(expires)) } }
                dt { "Stored at" } dd { (held) @if summary.is_fetched && details.sites_holding > 1 { ", this one included" } }
                dt { "Size" } dd { (text::size(summary.bytes)) }
                dt { "Architecture" } dd { (text::line(&summary.arch)) }
                dt { "Boots by" } dd { (text::line(&details.boot)) }
                dt { "Needs" } dd { (text::count(details.vcpus.into(), "processor", "processors")) ", " (text::size(details.memory_bytes)) " of memory" }
                @if let Some(licence) = &details.licence { dt { "Licence" } dd { bdi { (text::line(licence)) } } }
                @if let Some(homepage) = &details.homepage { dt { "Home page" } dd { bdi { (text::line(homepage)) } } }
            }
        }
    }
}

fn voices(details: &ReleaseDetails) -> Markup {
    html! {
        @if !details.revocations.is_empty() {
            section.panel.is-bad {
                h2 { "Revocations" }
                ul.voices { @for revocation in &details.revocations { li { (revocation_line(revocation)) } } }
            }
        }
        @if !details.advisories.is_empty() {
            section.panel.is-bad {
                h2 { "Advisories on what is inside" }
                ul.voices { @for bearing in &details.advisories { li { (bearing_line(bearing)) } } }
            }
        }
        section.panel {
            h2 { "Signed and endorsed" }
            p { "Signed by " (frame::signers(&details.signed_by)) "." }
            @if details.endorsements.is_empty() {
                p.quiet { "Nobody has endorsed it yet. An endorsement comes from whoever tested, scanned or rebuilt it: " code { "rialto endorse" } "." }
            } @else {
                ul.voices { @for endorsement in &details.endorsements { li { (endorsement_line(endorsement)) } } }
            }
        }
    }
}

/// What became of it, the latest first.
fn history(details: &ReleaseDetails) -> Markup {
    html! {
        @if !details.history.is_empty() {
            section.panel {
                h2 { "History" }
                ul.voices { @for event in details.history.iter().rev() { li { (history_line(event)) } } }
            }
        }
    }
}

fn history_line(event: &HistoryEvent) -> Markup {
    let word = match event.kind {
        HistoryKind::Signed => "Signed",
        HistoryKind::CoSigned => "Signed too",
        HistoryKind::Endorsed => "Endorsed",
        HistoryKind::Revoked => "Withdrawn",
        HistoryKind::Channel => "Put into a channel",
    };
    html! {
        p {
            strong { (word) } " by " (frame::signers(&event.signed_by))
            @if !event.what.is_empty() { ": " bdi { (text::line(&event.what)) } }
        }
        p.quiet {
            @match &event.arrived {
                Some(arrived) => { "Known here since " (frame::time(arrived)) }
                None => "Known here since before this was written down",
            }
            @match event.from.as_deref() {
                None => ", made by this site",
                Some("?") => {}
                Some(peer) => { ", from " (frame::id(&text::line(peer))) }
            }
            "; issued " (frame::time(&event.issued)) " · " (frame::id(&event.record.to_string()))
        }
    }
}

fn channels(details: &ReleaseDetails) -> Markup {
    html! {
        @if !details.channels.is_empty() {
            section.panel {
                h2 { "Channels that point at it" }
                ul.voices { @for channel in &details.channels { li { (channel_line(channel)) } } }
            }
        }
    }
}

fn channel_line(channel: &ChannelShown) -> Markup {
    html! {
        p {
            bdi.mono { (text::line(&channel.channel)) } " "
            @match (channel.state, channel.frozen_seconds) {
                (ChannelWorth::Fresh, _) => span.yes { "✓ fresh" },
                (ChannelWorth::Frozen, Some(seconds)) => strong { "frozen for " (text::span(seconds)) },
                (ChannelWorth::Frozen, None) => strong { "frozen" },
                (ChannelWorth::Refused, _) => strong { "does not count" },
            }
            @if let (ChannelWorth::Fresh, Some(expires)) = (channel.state, &channel.expires) { " until " (frame::time(expires)) }
        }
        @for because in &channel.because { p.quiet { (frame::said(because)) } }
        p.quiet {
            "Signed by " (frame::signers(&channel.signed_by))
            @if let Some(issued) = &channel.issued { ", " (frame::time(issued)) }
            @if let Some(record) = &channel.record { " · " (frame::id(&record.to_string())) }
        }
    }
}

fn bearing_line(bearing: &BearingShown) -> Markup {
    let advisory = &bearing.advisory;
    html! {
        p {
            strong { (text::line(&advisory.id)) } " (" (advisory.severity.as_str()) ") "
            @if bearing.doubt.is_some() { "may bear" } @else { "bears" }
            " on " bdi.mono { (text::line(&bearing.package)) } ", says " (frame::signers(&advisory.signed_by)) ". "
            @match &advisory.fixed {
                Some(fixed) => { "Mended in " bdi.mono { (text::line(fixed)) } "." }
                None => "No version is without it yet.",
            }
        }
        @if let Some(doubt) = &bearing.doubt { p { "Not sure: " (frame::said(doubt)) } }
        @if let Some(summary) = &advisory.summary { blockquote { bdi { (text::block(summary)) } } }
        p.quiet { (frame::time(&advisory.issued)) " · " (frame::id(&advisory.record.to_string())) }
    }
}

fn endorsement_line(endorsement: &EndorsementShown) -> Markup {
    html! {
        p class=[endorsement.is_void.then_some("void")] {
            @match &endorsement.statement {
                Some(_) if endorsement.signed_by.is_empty() => { "Somebody whom this site does not know says " }
                _ => { (frame::signers(&endorsement.signed_by)) " says " }
            }
            @if let Some(title) = endorsement.statement.as_ref().and_then(|statement| statement.title.as_ref()) {
                strong title=(text::line(&endorsement.predicate)) { (text::line(title)) }
            } @else if endorsement.predicate == PREDICATE_TESTED {
                strong title=(PREDICATE_TESTED) { "it is tested" }
            } @else {
                bdi.mono { (text::line(&endorsement.predicate)) }
            }
            @if endorsement.is_void { " " strong { "(void: revoked or expired)" } }
        }
        @if let Some(statement) = &endorsement.statement { (statement_block(statement)) }
        @if let Some(note) = &endorsement.note { blockquote { bdi { (text::block(note)) } } }
        p.quiet { (frame::time(&endorsement.issued)) " · " (frame::id(&endorsement.record.to_string())) }
    }
}

fn statement_block(statement: &StatementShown) -> Markup {
    html! {
        @if let Some(problem) = &statement.problem { p { strong { "Counts for nothing: " } (frame::said(problem)) } }
        @if !statement.fields.is_empty() {
            blockquote {
                @for field in &statement.fields { p { (text::line(&field.name)) ": " bdi.mono { (text::line(&field.value)) } } }
            }
        }
        p.quiet {
            "An in-toto statement"
            @if let Some(time) = &statement.time { " of " (frame::time(time)) }
            ", brought here by " (frame::signers(&statement.brought_by)) ", which counts for nothing"
        }
    }
}

fn revocation_line(revocation: &RevocationShown) -> Markup {
    html! {
        p {
            strong { (if revocation.counts { "Revoked" } else { "Opinion" }) } " by " (frame::signers(&revocation.signed_by))
            @if !revocation.counts { span.quiet { " (does not count under this site's policy)" } }
        }
        blockquote { bdi { (text::block(&revocation.reason)) } }
        p.quiet { (frame::time(&revocation.issued)) " · " (frame::id(&revocation.record.to_string())) }
    }
}

fn images(details: &ReleaseDetails) -> Markup {
    html! {
        section.panel {
            h2 { "Images" }
            table {
                thead { tr { th scope="col" { "For" } th scope="col" { "Image" } th.number scope="col" { "Size" } th scope="col" { "Here" } } }
                tbody {
                    @for image in &details.images {
                        tr {
                            th scope="row" { (text::line(&image.role)) }
                            td data-label="Image" { (frame::id(&image.image.to_string())) }
                            td.number data-label="Size" { (image.bytes.map_or_else(|| "unknown".to_owned(), text::size)) }
                            td data-label="Here" { @if image.is_complete { span.yes { "✓ complete" } } @else { span.quiet { "not yet" } } }
                        }
                    }
                }
            }
        }
    }
}

fn names(details: &ReleaseDetails) -> Markup {
    html! {
        dl.wide {
            dt { "Release" } dd { code.whole { (details.summary.release) } }
            dt { "Sequence" } dd { (details.sequence) }
            dt { "Publisher's key" } dd { code.whole { (text::line(&details.publisher_key)) } }
            @if let Some(policy) = &details.explanation.policy { dt { "Policy" } dd { code.whole { (text::line(policy)) } } }
        }
    }
}
