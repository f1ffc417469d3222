//! The catalog as the network needs it.

use libp2p::PeerId;
use rialto_protocol::ids::Hash;
use rialto_protocol::sync::SyncSet;

use super::Node;
use crate::catalog::Outcome;
use crate::net::gossip::{Records, Taken};

impl Records for Node {
    fn take(&self, envelopes: Vec<Vec<u8>>, from: Option<PeerId>) -> Vec<Taken> {
        let source = from.map(|peer| peer.to_string());
        match self.catalog.insert_batch(&envelopes, source.as_deref(), self.now()) {
            Ok(outcomes) => outcomes.into_iter().map(taken).collect(),
            Err(error) => {
                // Nobody's fault but ours: catch-up brings them again once the disk works.
                tracing::error!(%error, records = envelopes.len(), "records cannot be stored");
                vec![Taken::Ignored; envelopes.len()]
            }
        }
    }

    fn sync_set(&self) -> SyncSet {
        self.catalog.sync_set()
    }

    fn envelope(&self, id: &Hash) -> Option<Vec<u8>> {
        self.catalog.envelope(id)
    }

    fn is_wanted(&self, id: &Hash) -> bool {
        self.catalog.is_wanted(id, self.now())
    }
}

fn taken(outcome: Outcome) -> Taken {
    match outcome {
        Outcome::New | Outcome::Merged => Taken::New,
        Outcome::Duplicate | Outcome::Ignored(_) => Taken::Ignored,
        Outcome::Refused(error) => Taken::Refused(error.to_string()),
    }
}
