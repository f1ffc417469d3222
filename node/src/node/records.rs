//! The catalog as the network needs it.

use libp2p::PeerId;
use rialto_protocol::sync::{Beginning, SyncSet};

use super::Node;
use crate::catalog::{Ignored, Outcome};
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

    fn envelope(&self, id: Beginning) -> Option<Vec<u8>> {
        self.catalog.envelope(id)
    }

    fn is_wanted(&self, id: Beginning) -> bool {
        self.catalog.is_wanted(id, self.now())
    }
}

fn taken(outcome: Outcome) -> Taken {
    match outcome {
        Outcome::New | Outcome::Merged => Taken::New,
        // A relay is not a judge: what this site has no room for, others may have room for.
        Outcome::Ignored(Ignored::NoRoom | Ignored::Evicted) => Taken::NotKept,
        Outcome::Duplicate
        | Outcome::Ignored(Ignored::TooFarAhead | Ignored::OtherFederation | Ignored::Superseded) => Taken::Ignored,
        Outcome::Refused(error) => Taken::Refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_finds_no_room_here_is_relayed_all_the_same() {
        for reason in [Ignored::NoRoom, Ignored::Evicted] {
            assert_eq!(taken(Outcome::Ignored(reason)), Taken::NotKept);
        }
        for reason in [Ignored::TooFarAhead, Ignored::OtherFederation, Ignored::Superseded] {
            assert_eq!(taken(Outcome::Ignored(reason)), Taken::Ignored);
        }
    }
}
