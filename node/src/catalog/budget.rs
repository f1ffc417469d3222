//! Who may fill the catalog: signers that policy names without bound, everyone else inside an evictable part.
//!
//! The evictable part has a size, and no verified key and no peer (the one that first brought a record) may take more
//! than a sixteenth of it. What is over goes, oldest arrival first: `issued` is a claim that its signer can choose.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use rialto_protocol::ids::{Hash, PublicKey, RecordId};

/// A key or a peer has at most one part in this many of the budget.
const SHARES: u64 = 16;
/// What a record costs beside its envelope: its place in the indexes.
const OVERHEAD_BYTES: u64 = 512;
/// Evicted ids that are remembered; the oldest are forgotten first, and may then be fetched and evicted once more.
const MAX_EVICTED: usize = 32_768;

/// Whom a record is charged to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Payer {
    Everyone,
    Key(PublicKey),
    Peer(Arc<str>),
}

/// A record in the evictable part.
#[derive(Debug, Clone)]
pub(super) struct Charge {
    pub(super) id: RecordId,
    pub(super) arrival: u64,
    pub(super) bytes: u64,
    pub(super) payers: Vec<Payer>,
}

impl Charge {
    pub(super) fn new<'a>(
        id: RecordId,
        arrival: u64,
        envelope_bytes: u64,
        signers: impl Iterator<Item = &'a PublicKey>,
        source: Option<&Arc<str>>,
    ) -> Self {
        let payers = std::iter::once(Payer::Everyone)
            .chain(signers.copied().map(Payer::Key))
            .chain(source.cloned().map(Payer::Peer))
            .collect();
        Self { id, arrival, bytes: envelope_bytes + OVERHEAD_BYTES, payers }
    }
}

/// The accounts of the evictable part.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: u64,
    accounts: HashMap<Payer, Account>,
}

#[derive(Debug, Default)]
struct Account {
    bytes: u64,
    /// What is charged to it, by arrival.
    records: BTreeMap<u64, RecordId>,
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes, accounts: HashMap::new() }
    }

    pub(super) fn charge(&mut self, charge: &Charge) {
        for payer in &charge.payers {
            let account = self.accounts.entry(payer.clone()).or_default();
            account.bytes += charge.bytes;
            account.records.insert(charge.arrival, charge.id);
        }
    }

    pub(super) fn refund(&mut self, charge: &Charge) {
        for payer in &charge.payers {
            let Some(account) = self.accounts.get_mut(payer) else { continue };
            account.records.remove(&charge.arrival);
            account.bytes = account.bytes.saturating_sub(charge.bytes);
            if account.records.is_empty() {
                self.accounts.remove(payer);
            }
        }
    }

    /// Whether this payer has more than its share.
    pub(super) fn is_over(&self, payer: &Payer) -> bool {
        let allowed = match payer {
            Payer::Everyone => self.bytes,
            Payer::Key(_) | Payer::Peer(_) => self.bytes / SHARES,
        };
        self.accounts.get(payer).is_some_and(|account| account.bytes > allowed)
    }

    /// The first payer that has more than its share, in no particular order.
    pub(super) fn any_over(&self) -> Option<Payer> {
        self.accounts.keys().find(|payer| self.is_over(payer)).cloned()
    }

    /// What is charged to this payer, oldest arrival first.
    pub(super) fn records(&self, payer: &Payer) -> impl Iterator<Item = RecordId> {
        self.accounts.get(payer).into_iter().flat_map(|account| account.records.values().copied())
    }

    /// Bytes charged in all.
    pub(super) fn used_bytes(&self) -> u64 {
        self.accounts.get(&Payer::Everyone).map_or(0, |account| account.bytes)
    }
}

/// Versions of records that were evicted: not taken again until policy names one of their signers.
#[derive(Debug, Default)]
pub(super) struct Evicted {
    signers: HashMap<Hash, Vec<PublicKey>>,
    order: VecDeque<Hash>,
}

impl Evicted {
    pub(super) fn insert(&mut self, sync_id: Hash, signers: Vec<PublicKey>) {
        if self.signers.insert(sync_id, signers).is_none() {
            self.order.push_back(sync_id);
        }
        while self.order.len() > MAX_EVICTED {
            if let Some(oldest) = self.order.pop_front() {
                self.signers.remove(&oldest);
            }
        }
    }

    pub(super) fn contains(&self, sync_id: &Hash) -> bool {
        self.signers.contains_key(sync_id)
    }

    pub(super) fn remove(&mut self, sync_id: &Hash) {
        if self.signers.remove(sync_id).is_some() {
            self.order.retain(|other| other != sync_id);
        }
    }

    /// Forgets those signed by a named key.
    pub(super) fn forgive(&mut self, named: &BTreeSet<PublicKey>) {
        self.signers.retain(|_, signers| !signers.iter().any(|key| named.contains(key)));
        self.order.retain(|sync_id| self.signers.contains_key(sync_id));
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Hash, &Vec<PublicKey>)> {
        self.order.iter().filter_map(|sync_id| self.signers.get(sync_id).map(|signers| (*sync_id, signers)))
    }
}
