//! Records, live: what comes by gossip is checked, taken into the catalog and then relayed, in that order.
//!
//! Checking and storing happen off the async threads, in batches: one fsync for all that came meanwhile.

use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::gossipsub::MessageAcceptance;
use rialto_protocol::sync::{Beginning, SyncSet};
use tokio::sync::mpsc;

use super::bans::Offence;
use super::{Gossip, Net};

/// How long a bad message is shown; its weight in the peer's score is gone well before.
const HELD_AGAINST: Duration = Duration::from_secs(600);
/// Messages checked and stored in one go.
const MAX_BATCH: usize = 128;

/// The records of this site, as the network needs them. Methods may block: they are called off the async threads.
pub trait Records: Send + Sync + 'static {
    /// Checks envelopes that a peer sent and takes in those that are news; the answers are in the same order.
    fn take(&self, envelopes: Vec<Vec<u8>>, from: Option<PeerId>) -> Vec<Taken>;
    /// What catch-up reconciles.
    fn sync_set(&self) -> SyncSet;
    /// The envelope whose sync id begins so, encoded.
    fn envelope(&self, id: Beginning) -> Option<Vec<u8>>;
    /// Whether this site lacks every record whose sync id begins so, and would take it.
    fn is_wanted(&self, id: Beginning) -> bool;
}

/// What became of an envelope. It depends on form and signatures alone, never on the site's policy: a relay is not a judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// News, and relayed.
    New,
    /// Well-formed, signed and not kept here, for want of room: relayed all the same, for others may want it.
    NotKept,
    /// Known, stale or too far in the future: not relayed, and nobody's fault.
    Ignored,
    /// Malformed or badly signed: whoever relayed it did not check it.
    Refused(String),
}

impl Taken {
    fn acceptance(&self) -> MessageAcceptance {
        match self {
            Self::New | Self::NotKept => MessageAcceptance::Accept,
            Self::Ignored => MessageAcceptance::Ignore,
            Self::Refused(_) => MessageAcceptance::Reject,
        }
    }
}

/// Checks and stores gossip until the network ends.
pub async fn run(net: Net, records: Arc<dyn Records>, mut incoming: mpsc::Receiver<Gossip>) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while incoming.recv_many(&mut batch, MAX_BATCH).await > 0 {
        // A batch is stored by peer, because the catalog's budget is charged to whoever brought a record first.
        batch.sort_by_key(|gossip| gossip.from);
        for of_one_peer in batch.chunk_by(|a, b| a.from == b.from) {
            let from = of_one_peer[0].from;
            let envelopes = of_one_peer.iter().map(|gossip| gossip.bytes.clone()).collect();
            let records = Arc::clone(&records);
            // A panic, which the log tells of, must not end gossip: catch-up brings what it cost.
            let taken = tokio::task::spawn_blocking(move || records.take(envelopes, Some(from)))
                .await
                .unwrap_or_else(|_| vec![Taken::Ignored; of_one_peer.len()]);
            for (gossip, taken) in of_one_peer.iter().zip(taken) {
                if let Taken::Refused(reason) = &taken {
                    tracing::warn!(peer = %from, reason, "a gossiped record is refused");
                    net.bans().ban(
                        from,
                        Offence::Gossip,
                        &format!("it relayed a record that is refused: {reason}"),
                        HELD_AGAINST,
                    );
                }
                if net.verdict(gossip.id.clone(), from, taken.acceptance()).await.is_err() {
                    return;
                }
            }
        }
        batch.clear();
    }
}
