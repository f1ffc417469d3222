//! `rialto status`: the node at a glance.

use rialto_web::api::{ScrubStatus, Status};

use super::output::{Cell, Face, Outcome, Page, Tone, age, count, span};
use crate::client::Client;
use crate::units::ByteSize;

pub(super) async fn run(face: &Face, client: &Client) -> Outcome {
    let status: Status = client.get("status").await?;
    face.print(&status, |page| describe(page, &status))
}

fn describe(page: &mut Page, status: &Status) {
    let policy = match (&status.policy.error, &status.policy.hash) {
        (Some(error), _) => Cell::new(format!("nothing is accepted: {error}"), Tone::Bad),
        (None, Some(hash)) => {
            Cell::new(format!("in force ({})", hash.chars().take(12).collect::<String>()), Tone::Good)
        }
        (None, None) => Cell::new("none in force: nothing is accepted", Tone::Bad),
    };
    page.fields([
        ("site", Cell::new(format!("{} in {}", status.name, status.federation), Tone::Strong)),
        ("peer id", (&status.peer_id).into()),
        ("peers", status.peers.to_string().into()),
        ("policy", policy),
        ("records", status.records.to_string().into()),
        ("images", status.images.to_string().into()),
        ("store", store(status).into()),
        ("moved", format!("{} sent, {} received", ByteSize(status.sent_bytes), ByteSize(status.received_bytes)).into()),
        ("checked", scrub(&status.scrub).into()),
        ("web", status.web.clone().unwrap_or_default().into()),
        ("up for", span(status.seconds as i64).into()),
        ("version", (&status.version).into()),
    ]);
    page.heading("reachable at");
    for address in &status.listen {
        page.paragraph(address);
    }
    if !status.warnings.is_empty() {
        page.heading("look at this");
        for warning in &status.warnings {
            page.line(Cell::new(format!("  {warning}"), Tone::Warn));
        }
    }
}

fn store(status: &Status) -> String {
    let used = ByteSize(status.store_bytes);
    let of = status.quota_bytes.map(|quota| format!(" of {}", ByteSize(quota))).unwrap_or_default();
    let aside = match status.reserved_bytes {
        0 => String::new(),
        bytes => format!(", {} set aside for fetches", ByteSize(bytes)),
    };
    format!("{used}{of} used, {} free{aside}", ByteSize(status.free_bytes))
}

fn scrub(scrub: &ScrubStatus) -> String {
    let last =
        scrub.finished.as_deref().map_or("not yet to the end".into(), |time| format!("to the end {} ago", age(time)));
    let now = if scrub.is_running { ", being checked" } else { "" };
    let damaged = match scrub.damaged_chunks {
        0 => String::new(),
        chunks => format!(", {} damaged", count(chunks, "chunk")),
    };
    format!("{last}{now}{damaged}")
}
