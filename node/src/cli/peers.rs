//! `rialto peers`: the sites this node is connected to, and those that it keeps away from.

use clap::{Args, Subcommand};
use rialto_web::api::{Ban, BansLifted, Peer};

use super::output::{Cell, Face, Outcome, Page, Tone};
use crate::client::{Client, segment};
use crate::units::ByteSize;

/// What to do with peers.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List peers that this node keeps away from, connected or not: in what, why and until when
    Bans,
    /// Forgive a peer everything: from now on it is treated as one that is new
    Lift {
        /// Its peer id, or its site key
        peer: String,
    },
}

pub(super) async fn run(face: &Face, client: &Client, arguments: Arguments) -> Outcome {
    match arguments.command {
        None => list(face, client).await,
        Some(Command::Bans) => {
            let bans: Vec<Ban> = client.get("peers/bans").await?;
            face.print(&bans, |page| match bans.is_empty() {
                true => page.line("this node keeps away from nobody"),
                false => describe(page, &bans),
            })
        }
        Some(Command::Lift { peer }) => {
            let lifted: BansLifted = client.post_empty(&format!("peers/{}/lift", segment(&peer))).await?;
            face.print(&lifted, |page| match lifted.lifted {
                0 => page.line(format!("nothing was held against {}", lifted.peer_id)),
                _ => page.line(format!("{} is treated as one that is new", lifted.peer_id)),
            })
        }
    }
}

async fn list(face: &Face, client: &Client) -> Outcome {
    let peers: Vec<Peer> = client.get("peers").await?;
    // People see everything at once; scripts have `peers bans`.
    let bans: Vec<Ban> = if face.is_json { Vec::new() } else { client.get("peers/bans").await? };
    face.print(&peers, |page| {
        if peers.is_empty() {
            page.line("no peers; rialto doctor tries the addresses that config.toml names as bootstrap");
        } else {
            let rows = peers.iter().map(|peer| {
                let rtt = peer.rtt_ms.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms"));
                [
                    (&peer.peer_id).into(),
                    Cell::number(rtt),
                    Cell::number(ByteSize(peer.sent_bytes).to_string()),
                    Cell::number(ByteSize(peer.received_bytes).to_string()),
                    (&peer.address).into(),
                    peer.agent.clone().unwrap_or_default().into(),
                ]
            });
            page.table(["PEER", "RTT", "SENT", "RECEIVED", "ADDRESS", "RUNS"], rows.collect());
        }
        if !bans.is_empty() {
            page.heading("kept away from (rialto peers lift PEER forgives one)");
            describe(page, &bans);
        }
    })
}

fn describe(page: &mut Page, bans: &[Ban]) {
    let rows = bans.iter().map(|ban| {
        let what = ban.image.map_or_else(|| ban.offence.clone(), |image| format!("{} of {image}", ban.offence));
        [
            Cell::new(&ban.peer_id, Tone::Strong),
            what.into(),
            Cell::number(ban.times),
            (&ban.until).into(),
            Cell::new(&ban.why, Tone::Warn),
        ]
    });
    page.table(["PEER", "IN", "TIMES", "UNTIL", "WHY"], rows.collect());
}
