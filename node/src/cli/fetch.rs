//! `rialto fetch IMAGE|RELEASE [--held]`

use clap::Args;
use rialto_web::api::{FetchRequest, Fetched};

use super::job;
use super::output::{Cell, Face, Outcome, rate};
use crate::client::Client;
use crate::units::ByteSize;

/// What to fetch.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// An image id; or a release: a record id, a unique beginning of at least 12 characters, PUBLISHER/NAME@VERSION or PUBLISHER/NAME:CHANNEL
    #[arg(value_name = "IMAGE|RELEASE")]
    target: String,
    /// Fetch a release that policy does not accept: it is stored, never deployed
    #[arg(long)]
    held: bool,
}

pub(super) async fn run(face: &Face, client: &Client, arguments: Arguments) -> Outcome {
    let request = FetchRequest { target: arguments.target, held: arguments.held };
    let started = client.post("fetch", &request).await?;
    let result =
        job::follow(face, client, started, "what was stored stays, and the same fetch goes on from there").await?;
    face.print_result(&result, |page, fetched: Fetched| {
        for image in &fetched.images {
            page.line(image.to_string());
        }
        let received = format!(
            "{}, {} of it twice or thrown away",
            ByteSize(fetched.wire_bytes),
            ByteSize(fetched.duplicate_bytes)
        );
        page.fields([
            ("length", ByteSize(fetched.bytes).to_string().into()),
            ("received", received.into()),
            ("took", format!("{:.1} s  {}", fetched.seconds, rate(fetched.wire_bytes, fetched.seconds)).into()),
        ]);
        if !fetched.peers.is_empty() {
            page.heading("from");
            page.table(
                ["PEER", "BYTES"],
                fetched.peers.iter().map(|(peer, bytes)| [peer.into(), Cell::size(*bytes)]).collect(),
            );
        }
    })
}
