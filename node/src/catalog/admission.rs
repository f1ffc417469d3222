//! What becomes of a record that arrives: kept, charged to the evictable part, merged, or not taken.
//!
//! Everything here happens in memory; the frames that make it durable are collected, and every step can be undone
//! should they not reach the disk.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::Name;
use rialto_protocol::ids::{Hash, PublicKey, RecordId};
use rialto_protocol::record::{Body, MAX_AHEAD_SECONDS, Record, RevocationSubject};
use rialto_protocol::signed::{Envelope, Verified};

use super::Outcome;
use super::budget::{Budget, Charge, Evicted, Payer};
use super::gossip::{Ignored, unfit};
use super::index::{Held, Index};
use super::log::Frame;

/// Ids of versions that a version with more signatures replaced, and ids not taken for now; the oldest are forgotten first.
const MAX_REMEMBERED: usize = 16_384;

/// The catalog in memory.
#[derive(Debug)]
pub(super) struct Holdings {
    pub(super) federation: Name,
    pub(super) index: Index,
    pub(super) budget: Budget,
    pub(super) evicted: Evicted,
    /// Versions that we merged into a later one: a peer that still has one is not asked for it.
    superseded: Remembered<RecordId>,
    /// Versions that were not taken, and when they may be asked for again.
    refused: Remembered<UnixSeconds>,
    /// The keys that policy names; `None` until a policy was read, and until then nothing is evicted.
    named: Option<BTreeSet<PublicKey>>,
    next_arrival: u64,
}

/// What a batch did, so that it can be made durable or undone.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Frames for the log.
    pub(super) frames: Vec<u8>,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Put { id: RecordId, before: Option<Held> },
    Evicted { held: Held },
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl Holdings {
    pub(super) fn new(federation: Name, budget_bytes: u64) -> Self {
        Self {
            federation,
            index: Index::default(),
            budget: Budget::new(budget_bytes),
            evicted: Evicted::default(),
            superseded: Remembered::default(),
            refused: Remembered::default(),
            named: None,
            next_arrival: 0,
        }
    }

    /// Takes a record in, where it may come in.
    pub(super) fn admit(
        &mut self,
        record: Verified<Record>,
        source: Option<&Arc<str>>,
        now: UnixSeconds,
        changes: &mut Changes,
    ) -> Outcome {
        if let Some(reason) = unfit(&record, &self.federation, now) {
            let again = match reason {
                Ignored::TooFarAhead => record.header.issued.saturating_sub(MAX_AHEAD_SECONDS),
                _ => UnixSeconds::MAX,
            };
            self.refused.insert(record.sync_id(), again);
            return Outcome::Ignored(reason);
        }
        let id = record.id;
        let (held, outcome) = match self.index.get(&id) {
            // Records of one id have one payload: merging them cannot fail.
            Some(before) => match before.record.merge(&record).ok().flatten() {
                Some(merged) => (self.hold(merged, before.source.clone(), Some(before.arrival)), Outcome::Merged),
                // Our own from now on, whoever brought it back to us.
                None if source.is_none() && before.source.is_some() => {
                    let record = Verified::clone(&before.record);
                    (self.hold(record, None, Some(before.arrival)), Outcome::Duplicate)
                }
                None => {
                    let sync_id = record.sync_id();
                    if sync_id != before.sync_id {
                        self.superseded.insert(sync_id, id);
                    }
                    return Outcome::Duplicate;
                }
            },
            None if source.is_some() && self.evicted.contains(&record.sync_id()) => {
                return Outcome::Ignored(Ignored::Evicted);
            }
            None => (self.hold(record, source.cloned(), None), Outcome::New),
        };
        let payers = held.charge.as_ref().map_or_else(Vec::new, |charge| charge.payers.clone());
        self.put(held, changes);
        for payer in &payers {
            while self.budget.is_over(payer) {
                // Until a policy was read, nobody knows whose records are to be kept: the newcomer goes.
                let victim = match self.named {
                    Some(_) => self.victim(payer).unwrap_or(id),
                    None => id,
                };
                self.evict(&victim, changes);
                if self.index.get(&id).is_none() {
                    return Outcome::Ignored(Ignored::NoRoom);
                }
            }
        }
        outcome
    }

    /// Puts in what the log says, without a question: it was admitted when it was written.
    pub(super) fn replay(&mut self, record: Verified<Record>, source: Option<String>) {
        let source = source.map(Arc::from);
        let held = match self.index.get(&record.id) {
            Some(before) => {
                let merged = before.record.merge(&record).ok().flatten();
                let record = merged.unwrap_or_else(|| Verified::clone(&before.record));
                self.hold(record, source, Some(before.arrival))
            }
            None => self.hold(record, source, None),
        };
        self.put(held, &mut Changes::default());
    }

    /// Takes out what the log says was evicted.
    pub(super) fn replay_evicted(&mut self, sync_id: Hash, signers: Vec<PublicKey>) {
        if let Some(id) = self.index.by_sync_id(&sync_id).map(|held| held.record.id) {
            self.remove(&id);
        }
        self.evicted.insert(sync_id, signers);
    }

    /// Takes the keys that policy names now. Their records are kept from here on; those of others may have to go.
    pub(super) fn set_named(&mut self, named: BTreeSet<PublicKey>, changes: &mut Changes) {
        self.evicted.forgive(&named);
        self.named = Some(named);
        let all: Vec<Held> = self.index.iter().cloned().collect();
        for held in all {
            let (is_kept, was_kept) = (self.is_kept(&held.record, held.source.as_ref()), held.charge.is_none());
            if is_kept != was_kept {
                let again = self.hold(Verified::clone(&held.record), held.source.clone(), Some(held.arrival));
                self.replace(again);
            }
        }
        while let Some(payer) = self.budget.any_over() {
            let Some(victim) = self.victim(&payer) else { break };
            self.evict(&victim, changes);
        }
    }

    /// The record behind a sync id: the version that it names, or one that has its signatures and more.
    pub(super) fn behind(&self, sync_id: &Hash) -> Option<&Held> {
        let current = self.index.by_sync_id(sync_id);
        current.or_else(|| self.superseded.get(sync_id).and_then(|id| self.index.get(id)))
    }

    /// Whether we lack this version, and would take it.
    pub(super) fn is_wanted(&self, sync_id: &Hash, now: UnixSeconds) -> bool {
        self.behind(sync_id).is_none()
            && !self.evicted.contains(sync_id)
            && self.refused.get(sync_id).is_none_or(|again| *again <= now)
    }

    /// Reverses what a batch did, last step first.
    pub(super) fn undo(&mut self, changes: Changes) {
        for step in changes.steps.into_iter().rev() {
            match step {
                Step::Put { id, before } => {
                    self.remove(&id);
                    if let Some(before) = before {
                        self.replace(before);
                    }
                }
                Step::Evicted { held } => {
                    self.evicted.remove(&held.sync_id);
                    self.replace(held);
                }
            }
        }
    }

    /// The frames of a log that holds nothing but what is present, in order of arrival, and what was evicted.
    pub(super) fn frames(&self) -> impl Iterator<Item = Frame> {
        let mut present: Vec<&Held> = self.index.iter().collect();
        present.sort_unstable_by_key(|held| held.arrival);
        let evicted = self
            .evicted
            .iter()
            .map(|(sync_id, signers)| Frame::Evicted { sync_id, signers: signers.clone() })
            .collect::<Vec<_>>();
        let records = present.into_iter().map(|held| Frame::Record {
            source: held.source.as_deref().map(str::to_owned),
            envelope: held.record.envelope().encode(),
        });
        evicted.into_iter().chain(records)
    }

    fn hold(&self, record: Verified<Record>, source: Option<Arc<str>>, arrival: Option<u64>) -> Held {
        let arrival = arrival.unwrap_or(self.next_arrival);
        let envelope = record.envelope().encode();
        let charge = (!self.is_kept(&record, source.as_ref()))
            .then(|| Charge::new(record.id, arrival, envelope.len() as u64, record.signers(), source.as_ref()));
        let frame_bytes = Frame::encode_record(source.as_deref(), &envelope, &mut Vec::new());
        Held { sync_id: record.sync_id(), record: Arc::new(record), source, arrival, frame_bytes, charge }
    }

    /// Whether a record is outside the evictable part: this site's own, or of a known kind and by a named signer.
    fn is_kept(&self, record: &Verified<Record>, source: Option<&Arc<str>>) -> bool {
        let is_named = |key: &PublicKey| self.named.as_ref().is_some_and(|named| named.contains(key));
        source.is_none() || (record.body != Body::Opaque && record.signers().any(is_named))
    }

    fn put(&mut self, held: Held, changes: &mut Changes) {
        let (id, sync_id) = (held.record.id, held.sync_id);
        Frame::encode_record(held.source.as_deref(), &held.record.envelope().encode(), &mut changes.frames);
        let before = self.replace(held);
        if let Some(before) = before.as_ref().filter(|before| before.sync_id != sync_id) {
            self.superseded.insert(before.sync_id, id);
        }
        self.evicted.remove(&sync_id);
        changes.steps.push(Step::Put { id, before });
    }

    fn evict(&mut self, id: &RecordId, changes: &mut Changes) {
        let Some(held) = self.remove(id) else { return };
        let signers: Vec<_> = held.record.signers().copied().collect();
        Frame::Evicted { sync_id: held.sync_id, signers: signers.clone() }.encode(&mut changes.frames);
        self.evicted.insert(held.sync_id, signers);
        changes.steps.push(Step::Evicted { held });
    }

    fn replace(&mut self, held: Held) -> Option<Held> {
        self.next_arrival = self.next_arrival.max(held.arrival + 1);
        let before = self.remove(&held.record.id);
        if let Some(charge) = &held.charge {
            self.budget.charge(charge);
        }
        self.index.put(held);
        before
    }

    fn remove(&mut self, id: &RecordId) -> Option<Held> {
        let held = self.index.take(id)?;
        if let Some(charge) = &held.charge {
            self.budget.refund(charge);
        }
        Some(held)
    }

    /// What goes first of what is charged to this payer: the oldest, but no revocation before its subject.
    fn victim(&self, payer: &Payer) -> Option<RecordId> {
        self.budget.records(payer).find_map(|id| {
            let held = self.index.get(&id)?;
            match self.stands_over(held) {
                Stand::Nothing => Some(id),
                Stand::Evictable(subject) => Some(subject),
                Stand::Kept => None,
            }
        })
    }

    /// What a revocation withdraws as a fact, where that is still here. Only the first such revocation of each subject
    /// is protected, so that no signer can fill the catalog with revocations of its own.
    fn stands_over(&self, held: &Held) -> Stand {
        let Some(revocation) = held.record.body.revocation() else { return Stand::Nothing };
        let is_fact = |held: &Held| match &revocation.subject {
            RevocationSubject::Key(key) => held.record.is_signed_by(key),
            RevocationSubject::Release(id) | RevocationSubject::Endorsement(id) => self
                .index
                .get(id)
                .is_some_and(|subject| held.record.signers().any(|key| subject.record.is_signed_by(key))),
        };
        let first =
            self.index.revocations(&revocation.subject).filter(|held| is_fact(held)).map(|held| held.arrival).min();
        if first != Some(held.arrival) {
            return Stand::Nothing;
        }
        match revocation.subject {
            RevocationSubject::Key(key) if self.index.keeps_of(&key) => Stand::Kept,
            RevocationSubject::Key(key) => {
                let payer = Payer::Key(key);
                let other = self.budget.records(&payer).find(|id| *id != held.record.id);
                other.map_or(Stand::Nothing, Stand::Evictable)
            }
            RevocationSubject::Release(id) | RevocationSubject::Endorsement(id) => match self.index.get(&id) {
                Some(subject) if subject.charge.is_none() => Stand::Kept,
                Some(_) => Stand::Evictable(id),
                None => Stand::Nothing,
            },
        }
    }
}

/// What keeps a revocation in the catalog.
enum Stand {
    /// Nothing: it can go.
    Nothing,
    /// Its subject, which can go before it.
    Evictable(RecordId),
    /// Its subject, which is kept.
    Kept,
}

/// A bounded memory of ids; the oldest are forgotten first.
#[derive(Debug)]
struct Remembered<T> {
    values: HashMap<Hash, T>,
    order: VecDeque<Hash>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { values: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Remembered<T> {
    fn get(&self, id: &Hash) -> Option<&T> {
        self.values.get(id)
    }

    fn insert(&mut self, id: Hash, value: T) {
        if self.values.insert(id, value).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > MAX_REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.values.remove(&oldest);
            }
        }
    }
}

/// Reads and checks envelopes, on as many threads as the machine has where there are many.
pub(super) fn verify_all<B: AsRef<[u8]> + Sync>(
    envelopes: &[B],
) -> Vec<Result<Verified<Record>, rialto_protocol::signed::EnvelopeError>> {
    /// Below this, starting threads costs more than it saves.
    const WORTH_A_THREAD: usize = 64;
    let verify = |bytes: &B| Envelope::decode(bytes.as_ref()).and_then(Envelope::verify);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(envelopes.len() / WORTH_A_THREAD);
    if threads < 2 {
        return envelopes.iter().map(verify).collect();
    }
    let share = envelopes.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let verify = &verify;
        let workers: Vec<_> = envelopes
            .chunks(share)
            .map(|part| (part, scope.spawn(move || part.iter().map(verify).collect::<Vec<_>>())))
            .collect();
        // A worker that panicked is done again here, where the panic reaches the caller.
        let finish = |(part, worker): (&[B], std::thread::ScopedJoinHandle<'_, Vec<_>>)| {
            worker.join().unwrap_or_else(|_| part.iter().map(verify).collect())
        };
        workers.into_iter().flat_map(finish).collect()
    })
}
