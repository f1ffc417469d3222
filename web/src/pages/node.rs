//! The node: its names and addresses, its peers, its policy, its store.

use maud::{Markup, html};

use super::{Place, frame, text};
use crate::api::{Backend, Ban, ImageSummary, Peer, Status};
use crate::reply::{Refusal, Response};

/// `/node`
pub(super) async fn page(status: &Status, backend: &dyn Backend) -> Result<Response, Refusal> {
    let (peers, bans, images) = futures::future::try_join3(backend.peers(), backend.bans(), backend.images()).await?;
    let main = html! {
        h1 { "Node" }
        div.columns {
            section.panel id="status" data-live="catalog store peers policy" aria-labelledby="status-title" { (glance(status)) }
            section.panel id="policy" data-live="policy" aria-labelledby="policy-title" { (policy(status)) }
        }
        section.panel id="peers" data-live="peers" aria-labelledby="peers-title" { (peer_table(&peers)) (ban_table(&bans)) }
        section.panel id="store" data-live="store catalog" aria-labelledby="store-title" { (store(status, &images)) }
    };
    super::page(status, Place::Node, "Node", main)
}

fn glance(status: &Status) -> Markup {
    html! {
        h2 id="status-title" { "At a glance" }
        dl {
            dt { "Site" } dd { bdi { (text::line(&status.name)) } }
            dt { "Federation" } dd { bdi { (text::line(&status.federation)) } }
            dt { "Up for" } dd { (text::duration(status.seconds)) }
            dt { "Peers" } dd { (status.peers) }
            dt { "Records" } dd { (status.records) }
            dt { "Images" } dd { (status.images) " complete" }
            dt { "Site key" } dd { code.whole { (text::line(&status.peer_id)) } }
            dt { "Listens on" } dd { @if status.listen.is_empty() { "nothing" } @for address in &status.listen { code.whole.block { (text::line(address)) } } }
        }
    }
}

fn policy(status: &Status) -> Markup {
    html! {
        h2 id="policy-title" { "Policy" }
        @match (&status.policy.error, &status.policy.hash) {
            (Some(error), _) => {
                p.bad { strong { "✕ Cannot be read: nothing is accepted." } }
                p.mono { (text::line(error)) }
            }
            (None, Some(hash)) => {
                p.yes { "✓ In force" }
                dl { dt { "Hash" } dd { code.whole { (text::line(hash)) } } }
            }
            (None, None) => p { "There is no policy file yet: everything is held." }
        }
        p.quiet { "The rules are in " code { "policy.toml" } " in the node's directory. Find the mistakes of a new one before it is in force: " code { "rialto policy check FILE" } "." }
    }
}

fn peer_table(peers: &[Peer]) -> Markup {
    html! {
        h2 id="peers-title" { "Peers" }
        @if peers.is_empty() {
            p { "No other site is connected. Join a federation through a site that you know:" }
            pre { code { "rialto join ADDRESS" } }
        } @else {
            table {
                thead { tr { th scope="col" { "Peer" } th scope="col" { "Address" } th scope="col" { "Runs" } th.number scope="col" { "Round trip" } } }
                tbody {
                    @for peer in peers {
                        tr {
                            th scope="row" { (short(&peer.peer_id)) }
                            td data-label="Address" { code.whole { (text::line(dialled(peer))) } }
                            td data-label="Runs" { bdi { (peer.agent.as_deref().map_or_else(|| "unknown".to_owned(), text::line)) } }
                            td.number data-label="Round trip" { @match peer.rtt_ms { Some(rtt) => { (format!("{rtt:.1} ms")) } None => { "not measured" } } }
                        }
                    }
                }
            }
        }
    }
}

fn ban_table(bans: &[Ban]) -> Markup {
    html! {
        @if !bans.is_empty() {
            h3 { "Kept away from" }
            table {
                thead { tr { th scope="col" { "Peer" } th scope="col" { "In" } th scope="col" { "Why" } th scope="col" { "Until" } } }
                tbody {
                    @for ban in bans {
                        tr {
                            th scope="row" { (short(&ban.peer_id)) }
                            td data-label="In" { (text::line(&ban.offence)) @if let Some(image) = &ban.image { " of " (frame::id(&image.to_string())) } }
                            td data-label="Why" { bdi { (text::line(&ban.why)) } @if ban.times > 1 { " (" (ban.times) " times)" } }
                            td data-label="Until" { (frame::time(&ban.until)) }
                        }
                    }
                }
            }
            p.quiet { "Forgive one with: " code { "rialto peers lift PEER" } }
        }
    }
}

fn store(status: &Status, images: &[ImageSummary]) -> Markup {
    html! {
        h2 id="store-title" { "Store" }
        p {
            (text::size(status.store_bytes)) " used"
            @if let Some(quota) = status.quota_bytes { " of " (text::size(quota)) }
            ", " (text::size(status.free_bytes)) " free on its file system."
            @if status.reserved_bytes > 0 { " " (text::size(status.reserved_bytes)) " are set aside for fetches." }
        }
        @if images.is_empty() {
            p { "No image is here yet. Fetch a release, or add a disk of your own:" }
            pre { code { "rialto image add disk.raw" } }
        } @else {
            table {
                thead { tr { th scope="col" { "Image" } th scope="col" { "Used by" } th.number scope="col" { "Size" } th.number scope="col" { "On disk" } th scope="col" { "Here" } } }
                tbody {
                    @for image in images {
                        tr {
                            th scope="row" { (frame::id(&image.image.to_string())) @if image.is_pinned { " " span.tag { "pinned" } } }
                            td data-label="Used by" {
                                @if image.used_by.is_empty() { span.quiet { "nothing" } }
                                @for (at, name) in image.used_by.iter().enumerate() { @if at > 0 { ", " } bdi { (text::line(name)) } }
                            }
                            td.number data-label="Size" { (text::size(image.bytes)) @if image.data_bytes < image.bytes { " " br; span.quiet { (text::size(image.data_bytes)) " of data" } } }
                            td.number data-label="On disk" { (text::size(image.own_bytes)) @if image.shared_bytes > 0 { " " br; span.quiet { (text::size(image.shared_bytes)) " shared" } } }
                            td data-label="Here" { (completeness(image)) }
                        }
                    }
                }
            }
        }
    }
}

fn completeness(image: &ImageSummary) -> Markup {
    let here = image.chunks.saturating_sub(image.missing_chunks);
    html! {
        @if image.missing_chunks == 0 { span.yes { "✓ complete" } } @else {
            progress value=(here) max=(image.chunks) aria-label="Chunks here" {}
            br; span.quiet { (here) " of " (image.chunks) " chunks" }
        }
    }
}

/// Where a peer was reached; its id, which some addresses end in, stands beside it.
fn dialled(peer: &Peer) -> &str {
    peer.address.split("/p2p/").next().unwrap_or(&peer.address)
}

/// The end of a peer id tells peers apart; all begin alike.
fn short(peer_id: &str) -> Markup {
    let chars: Vec<char> = peer_id.chars().collect();
    let end: String = chars[chars.len().saturating_sub(10)..].iter().collect();
    html! { code title=(text::line(peer_id)) { "…" (text::line(&end)) } }
}
