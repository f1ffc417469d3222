//! `rialto peers`: the sites this node is connected to.

use rialto_web::api::Peer;

use super::output::{Cell, Face, Outcome};
use crate::client::Client;
use crate::units::ByteSize;

pub(super) async fn run(face: &Face, client: &Client) -> Outcome {
    let peers: Vec<Peer> = client.get("peers").await?;
    face.print(&peers, |page| {
        if peers.is_empty() {
            return page.line("no peers; rialto doctor tries the addresses that config.toml names as bootstrap");
        }
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
    })
}
