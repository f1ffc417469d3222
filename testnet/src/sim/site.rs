//! A simulated site: the records it holds, in memory, under the same rules as a node's catalog.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rialto_protocol::ids::{Hash, PublicKey, RecordId};
use rialto_protocol::record::Record;
use rialto_protocol::signed::Verified;
use rialto_protocol::sync::SyncSet;

/// Records of signers that a site does not name, at most. A node counts bytes; the rule is the same.
const UNNAMED_RECORDS: usize = 40;
/// Lies after which a peer is not listened to any more.
const MAX_LIES: u32 = 3;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inserted {
    New,
    Merged,
    Duplicate,
    Evicted,
}

/// A site.
#[derive(Debug)]
pub(super) struct Site {
    /// The signers that its policy names.
    named: BTreeSet<PublicKey>,
    /// Whether it corrupts what it sends.
    pub(super) is_liar: bool,
    /// The sites that it has links to.
    pub(super) peers: Vec<usize>,
    records: BTreeMap<RecordId, Arc<Verified<Record>>>,
    /// Every version ever held, by sync id.
    versions: BTreeMap<Hash, RecordId>,
    /// Records of signers that are not named, by arrival.
    unnamed: BTreeMap<u64, RecordId>,
    /// Versions evicted, and who had signed them.
    evicted: BTreeMap<Hash, Vec<PublicKey>>,
    /// Gossip messages that came before.
    seen: BTreeSet<Hash>,
    lies: BTreeMap<usize, u32>,
    arrivals: u64,
}

impl Site {
    pub(super) fn new(named: BTreeSet<PublicKey>, is_liar: bool) -> Self {
        Self {
            named,
            is_liar,
            peers: Vec::new(),
            records: BTreeMap::new(),
            versions: BTreeMap::new(),
            unnamed: BTreeMap::new(),
            evicted: BTreeMap::new(),
            seen: BTreeSet::new(),
            lies: BTreeMap::new(),
            arrivals: 0,
        }
    }

    /// Whether its policy names this signer.
    pub(super) fn names(&self, key: &PublicKey) -> bool {
        self.named.contains(key)
    }

    /// Names a signer from now on: what was evicted of it is wanted again.
    pub(super) fn name(&mut self, key: PublicKey) {
        if self.named.insert(key) {
            self.evicted.retain(|_, signers| !signers.contains(&key));
        }
    }

    /// Notes a gossip message; `false` where it came before.
    pub(super) fn sees(&mut self, message: Hash) -> bool {
        self.seen.insert(message)
    }

    /// Holds a lie against a peer.
    pub(super) fn caught(&mut self, peer: usize) {
        *self.lies.entry(peer).or_default() += 1;
    }

    /// Whether this peer is still listened to.
    pub(super) fn trusts(&self, peer: usize) -> bool {
        self.lies.get(&peer).is_none_or(|lies| *lies < MAX_LIES)
    }

    /// Takes a verified record in, and counts what had to go for it.
    pub(super) fn insert(&mut self, record: Arc<Verified<Record>>) -> (Inserted, u64) {
        let (id, sync_id) = (record.id, record.sync_id());
        if self.evicted.contains_key(&sync_id) {
            return (Inserted::Evicted, 0);
        }
        let (record, outcome) = match self.records.get(&id) {
            None => (record, Inserted::New),
            Some(held) => match held.merge(&record) {
                Ok(Some(merged)) => (Arc::new(merged), Inserted::Merged),
                _ => {
                    self.versions.insert(sync_id, id);
                    return (Inserted::Duplicate, 0);
                }
            },
        };
        self.versions.insert(sync_id, id);
        self.versions.insert(record.sync_id(), id);
        if outcome == Inserted::New && !self.names_a_signer_of(&record) {
            self.unnamed.insert(self.arrivals, id);
        }
        self.arrivals += 1;
        self.records.insert(id, record);
        (outcome, self.evict())
    }

    fn evict(&mut self) -> u64 {
        let mut evicted = 0;
        while self.unnamed.len() > UNNAMED_RECORDS {
            let Some((_, id)) = self.unnamed.pop_first() else { break };
            // A named signer may have added a signature meanwhile.
            if self.records.get(&id).is_some_and(|record| self.names_a_signer_of(record)) {
                continue;
            }
            if let Some(record) = self.records.remove(&id) {
                self.evicted.insert(record.sync_id(), record.signers().copied().collect());
                self.versions.retain(|_, of| *of != id);
                evicted += 1;
            }
        }
        evicted
    }

    fn names_a_signer_of(&self, record: &Verified<Record>) -> bool {
        record.signers().any(|key| self.named.contains(key))
    }

    pub(super) fn get(&self, id: &RecordId) -> Option<&Arc<Verified<Record>>> {
        self.records.get(id)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Arc<Verified<Record>>> {
        self.records.values()
    }

    /// What there is to reconcile.
    pub(super) fn sync_set(&self) -> SyncSet {
        self.records.values().map(|record| (record.header.issued, record.sync_id())).collect()
    }

    /// The envelope behind a sync id.
    pub(super) fn envelope(&self, sync_id: &Hash) -> Option<Vec<u8>> {
        let record = self.versions.get(sync_id).and_then(|id| self.records.get(id))?;
        Some(record.envelope().encode())
    }

    /// Whether this version is lacking and would be taken.
    pub(super) fn is_wanted(&self, sync_id: &Hash) -> bool {
        !self.versions.contains_key(sync_id) && !self.evicted.contains_key(sync_id)
    }
}
