//! Who may fill the catalog: signers that policy names without bound, everyone else inside an evictable part.
//!
//! The evictable part has a size, and no verified key and no peer (the one that first brought a record) may take more
//! than a sixteenth of it. Where something has to go, it goes from whoever has most, so that a flood drives out itself:
//!
//! - of everything, a peer pays, and of what a peer brought, a signer. Both are *settled* or *passing*. Who came while the
//!   settled ones had less than half of the whole is settled; the others pass through what is left, the largest first, and
//!   then the oldest. Who is settled and has at most 1/64 of the whole loses nothing to passing ones. So whoever was there
//!   before a flood stays, however many keys and peers it has, and whoever comes during one is taken in, and stays for a
//!   while;
//! - of a key, the oldest arrival goes: `issued` is a claim that its signer can choose.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rialto_protocol::ids::{Hash, PublicKey};
use rialto_protocol::sync::Beginning;

use super::index::{Held, Slot};
use super::log::Frame;

/// A key or a peer has at most one part in this many of the budget.
const SHARES: u64 = 16;
/// Who is settled and has at most one part in this many of the whole loses nothing to passing ones.
const SETTLED_SHARES: u64 = 64;
/// Who differs by less than this has the same, in bytes.
const ALIKE_BYTES: u64 = 4_096;
/// What a record costs beside its envelope: its place in the indexes.
const OVERHEAD_BYTES: u64 = 512;
/// Evicted ids that are remembered, about 120 bytes each; the oldest are forgotten first, and may then be fetched and
/// evicted once more.
const MAX_EVICTED: usize = 262_144;

/// Whom a record is charged to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Payer {
    Everyone,
    Key(PublicKey),
    Peer(Arc<str>),
}

impl Payer {
    /// Whoever pays for a record.
    pub(super) fn of(held: &Held) -> Vec<Self> {
        let keys = held.signers.iter().copied().map(Self::Key);
        keys.chain(held.source.clone().map(Self::Peer)).chain([Self::Everyone]).collect()
    }
}

/// The accounts of the evictable part.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: u64,
    used: u64,
    keys: HashMap<PublicKey, Account>,
    peers: HashMap<Arc<str>, Peer>,
    /// In this order peers pay, the last first.
    order: BTreeSet<(Turn, Arc<str>)>,
    /// Bytes that settled peers brought.
    settled_bytes: u64,
}

/// What is charged to a key, by arrival.
#[derive(Debug, Default)]
struct Account {
    bytes: u64,
    records: BTreeMap<u64, Slot>,
}

/// What a peer brought.
#[derive(Debug, Default)]
struct Peer {
    bytes: u64,
    is_settled: bool,
    /// When its first record arrived.
    first: u64,
    /// Bytes of settled signers.
    settled_bytes: u64,
    signers: HashMap<PublicKey, Signer>,
    /// In this order they pay, the last first.
    order: BTreeSet<(Turn, PublicKey)>,
}

/// When somebody's turn to pay comes: passing before settled, the larger before the smaller; of the passing the older before
/// the younger, of the settled the younger before the older.
type Turn = (bool, u64, u64);

#[derive(Debug, Default)]
struct Signer {
    account: Account,
    is_settled: bool,
}

impl Signer {
    fn turn(&self, whole: u64) -> Turn {
        let first = self.account.records.first_key_value().map_or(0, |(arrival, _)| *arrival);
        turn(self.is_settled, self.account.bytes, first, whole)
    }
}

fn turn(is_settled: bool, bytes: u64, first: u64, whole: u64) -> Turn {
    let is_passing = !is_settled || bytes > whole / SETTLED_SHARES;
    (is_passing, bytes / ALIKE_BYTES, if is_passing { u64::MAX - first } else { first })
}

impl Account {
    fn add(&mut self, bytes: u64, arrival: u64, slot: Slot) {
        self.bytes += bytes;
        self.records.insert(arrival, slot);
    }

    fn remove(&mut self, bytes: u64, arrival: u64) {
        if self.records.remove(&arrival).is_some() {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes, used: 0, keys: HashMap::new(), peers: HashMap::new(), order: BTreeSet::new(), settled_bytes: 0 }
    }

    /// Without any charge.
    pub(super) fn cleared(&self) -> Self {
        Self::new(self.bytes)
    }

    pub(super) fn charge(&mut self, slot: Slot, held: &Held) {
        let bytes = cost(held);
        self.used += bytes;
        for key in held.signers.iter() {
            self.keys.entry(*key).or_default().add(bytes, held.arrival, slot);
        }
        let Some(name) = &held.source else { return };
        let is_free = self.settled_bytes + bytes <= self.bytes / 2;
        self.change(name, |peer, share| {
            if peer.signers.is_empty() {
                (peer.is_settled, peer.first) = (is_free, held.arrival);
            }
            peer.bytes += bytes;
            for key in held.signers.iter() {
                let is_free = peer.settled_bytes + bytes <= share / 2;
                peer.change(key, share, |signer| {
                    if signer.account.records.is_empty() {
                        signer.is_settled = is_free;
                    }
                    signer.account.add(bytes, held.arrival, slot);
                });
            }
        });
    }

    pub(super) fn refund(&mut self, held: &Held) {
        let bytes = cost(held);
        self.used = self.used.saturating_sub(bytes);
        for key in held.signers.iter() {
            let Some(account) = self.keys.get_mut(key) else { continue };
            account.remove(bytes, held.arrival);
            if account.records.is_empty() {
                self.keys.remove(key);
            }
        }
        let Some(name) = &held.source else { return };
        self.change(name, |peer, share| {
            peer.bytes = peer.bytes.saturating_sub(bytes);
            for key in held.signers.iter() {
                peer.change(key, share, |signer| signer.account.remove(bytes, held.arrival));
            }
        });
    }

    /// Changes what is charged to a peer, whose turn may be another one then.
    fn change(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Peer, u64)) {
        let (whole, share) = (self.bytes, self.share());
        let settled = |peer: &Peer| if peer.is_settled { peer.bytes } else { 0 };
        let peer = self.peers.entry(Arc::clone(name)).or_default();
        self.order.remove(&(peer.turn(whole), Arc::clone(name)));
        let before = settled(peer);
        change(peer, share);
        self.settled_bytes = (self.settled_bytes + settled(peer)).saturating_sub(before);
        if peer.signers.is_empty() {
            self.peers.remove(name);
        } else {
            self.order.insert((peer.turn(whole), Arc::clone(name)));
        }
    }

    fn share(&self) -> u64 {
        self.bytes / SHARES
    }

    /// Whether this payer has more than its share.
    pub(super) fn is_over(&self, payer: &Payer) -> bool {
        match payer {
            Payer::Everyone => self.used > self.bytes,
            Payer::Key(key) => self.keys.get(key).is_some_and(|account| account.bytes > self.share()),
            Payer::Peer(name) => self.peers.get(name).is_some_and(|peer| peer.bytes > self.share()),
        }
    }

    /// A payer that has more than its share.
    pub(super) fn any_over(&self) -> Option<Payer> {
        let keys = self.keys.keys().copied().map(Payer::Key);
        let peers = self.peers.keys().map(|name| Payer::Peer(Arc::clone(name)));
        keys.chain(peers).chain([Payer::Everyone]).find(|payer| self.is_over(payer))
    }

    /// What is charged to this payer, in the order in which it goes.
    pub(super) fn records<'a>(&'a self, payer: &Payer) -> Box<dyn Iterator<Item = Slot> + 'a> {
        match payer {
            Payer::Everyone => {
                let in_turn = self.order.iter().rev().filter_map(|(_, name)| self.peers.get(name));
                Box::new(in_turn.flat_map(Peer::records))
            }
            Payer::Key(key) => {
                Box::new(self.keys.get(key).into_iter().flat_map(|account| account.records.values().copied()))
            }
            Payer::Peer(name) => Box::new(self.peers.get(name).into_iter().flat_map(Peer::records)),
        }
    }

    /// Bytes charged in all.
    pub(super) fn used_bytes(&self) -> u64 {
        self.used
    }
}

impl Peer {
    fn records(&self) -> impl Iterator<Item = Slot> + '_ {
        let signers = self.order.iter().rev().filter_map(|(_, key)| self.signers.get(key));
        signers.flat_map(|signer| signer.account.records.values().copied())
    }

    fn turn(&self, whole: u64) -> Turn {
        turn(self.is_settled, self.bytes, self.first, whole)
    }

    fn change(&mut self, key: &PublicKey, whole: u64, change: impl FnOnce(&mut Signer)) {
        let signer = self.signers.entry(*key).or_default();
        self.order.remove(&(signer.turn(whole), *key));
        let settled = |signer: &Signer| if signer.is_settled { signer.account.bytes } else { 0 };
        let before = settled(signer);
        change(signer);
        self.settled_bytes = (self.settled_bytes + settled(signer)).saturating_sub(before);
        if signer.account.records.is_empty() {
            self.signers.remove(key);
        } else {
            self.order.insert((signer.turn(whole), *key));
        }
    }
}

fn cost(held: &Held) -> u64 {
    u64::from(held.cost) + OVERHEAD_BYTES
}

/// Versions of records that were evicted: not taken again until policy names one of their signers.
#[derive(Debug, Default)]
pub(super) struct Evicted {
    versions: BTreeMap<Hash, (u64, Arc<[PublicKey]>)>,
    order: BTreeMap<u64, Hash>,
    next: u64,
    /// Bytes that they take in a log.
    bytes: u64,
}

impl Evicted {
    pub(super) fn insert(&mut self, sync_id: Hash, signers: Arc<[PublicKey]>) {
        self.remove(&sync_id);
        self.bytes += Frame::evicted_bytes(signers.len());
        self.versions.insert(sync_id, (self.next, signers));
        self.order.insert(self.next, sync_id);
        self.next += 1;
        while self.order.len() > MAX_EVICTED
            && let Some(oldest) = self.order.first_key_value().map(|(_, oldest)| *oldest)
        {
            self.remove(&oldest);
        }
    }

    /// Whether one of those is there that begin so.
    pub(super) fn contains(&self, sync_id: &Beginning) -> bool {
        self.versions.range(sync_id.range()).next().is_some()
    }

    pub(super) fn remove(&mut self, sync_id: &Hash) {
        if let Some((number, signers)) = self.versions.remove(sync_id) {
            self.order.remove(&number);
            self.bytes -= Frame::evicted_bytes(signers.len());
        }
    }

    /// Bytes that they take in a log.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Forgets those signed by a named key.
    pub(super) fn forgive(&mut self, named: &BTreeSet<PublicKey>) {
        self.versions.retain(|_, (_, signers)| !signers.iter().any(|key| named.contains(key)));
        self.order.retain(|_, sync_id| self.versions.contains_key(sync_id));
        self.bytes = self.versions.values().map(|(_, signers)| Frame::evicted_bytes(signers.len())).sum();
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Hash, &Arc<[PublicKey]>)> {
        self.order.values().filter_map(|sync_id| self.versions.get(sync_id).map(|(_, signers)| (*sync_id, signers)))
    }
}
