//! What becomes of a record that arrives: kept, charged to the evictable part, merged, or not taken.
//!
//! Everything here happens in memory; the frames that make it durable are collected, and every step can be undone
//! should they not reach the disk.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::Name;
use rialto_protocol::channel::{ChannelName, Position, is_delegation};
use rialto_protocol::ids::{Hash, PublicKey, RecordId};
use rialto_protocol::record::{Body, MAX_AHEAD_SECONDS, Record, RevocationSubject};
use rialto_protocol::signed::{Envelope, Verified};

use super::Outcome;
use super::arrival::Arrival;
use super::budget::{Budget, Charge, Evicted, Payer};
use super::gossip::{Ignored, unfit};
use super::index::{Held, Index};
use super::log::Frame;

/// Ids of versions that a version with more signatures replaced, and ids not taken for now; the oldest are forgotten first.
const MAX_REMEMBERED: usize = 16_384;
/// Superseded heads that are remembered, so that one that contradicts such a head is noticed; the oldest are forgotten
/// first. A head has about 600 bytes.
const MAX_SUPERSEDED_HEADS: usize = 4_096;
/// A head with more signatures than this takes is not worth remembering.
const MAX_SUPERSEDED_BYTES: usize = 4_096;

/// The catalog in memory.
#[derive(Debug)]
pub(super) struct Holdings {
    pub(super) federation: Name,
    pub(super) index: Index,
    pub(super) budget: Budget,
    pub(super) evicted: Evicted,
    /// Versions that we merged into a later one: a peer that still has one is not asked for it.
    superseded: Remembered<RecordId>,
    /// Heads that a higher one superseded, by place: another one in the same place would contradict it.
    below: Below,
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
    Superseded { held: Held },
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.frames.is_empty()
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
            below: Below::default(),
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
        if let Some(outcome) = self.pass_over(&record, source, now, changes) {
            return outcome;
        }
        let id = record.id;
        let outcome = self.take_in(record, source, now, changes);
        if outcome.is_change() {
            self.settle_after(&id, changes);
        }
        match self.index.get(&id) {
            None if outcome.is_change() => Outcome::Ignored(Ignored::Superseded),
            _ => outcome,
        }
    }

    /// What becomes of a head that is below the highest of its channel: it is not taken in, unless it and another one in
    /// its place prove that whoever signed them contradicts itself.
    fn pass_over(
        &mut self,
        record: &Verified<Record>,
        source: Option<&Arc<str>>,
        now: UnixSeconds,
        changes: &mut Changes,
    ) -> Option<Outcome> {
        let position = self.index.channels.place(record)?;
        let channel = ChannelName::from(record.body.channel()?);
        let (heads, _) = self.index.channels.settled(&channel);
        if self.index.get(&record.id).is_some() || heads.has_room_for(position, record.id) {
            return None;
        }
        let other = self.below.contradicting(&channel, position, record.id);
        let mut with_both = heads;
        let left = other.as_ref().map(|other| with_both.put_together([(position, record.id), (position, other.id)]));
        if let (Some(other), Some(left)) = (other, left)
            && !left.contains(&record.id)
        {
            // The two are settled together, after the other one has come in.
            self.take_in(other, source, now, changes);
            return None;
        }
        self.refused.insert(record.sync_id(), UnixSeconds::MAX);
        if self.below.insert(channel, position, Remains::of(record)) {
            Remains::of(record).encode(&mut changes.frames);
        }
        Some(Outcome::Ignored(Ignored::Superseded))
    }

    fn take_in(
        &mut self,
        record: Verified<Record>,
        source: Option<&Arc<str>>,
        now: UnixSeconds,
        changes: &mut Changes,
    ) -> Outcome {
        let id = record.id;
        let (held, outcome) = match self.index.get(&id) {
            // Records of one id have one payload: merging them cannot fail.
            Some(before) => match before.record.merge(&record).ok().flatten() {
                Some(merged) => {
                    let added = record.signers().filter(|key| !before.record.is_signed_by(key)).copied().collect();
                    let added = Arrival { at: Some(now), from: source.cloned(), keys: added };
                    let arrivals = before.arrivals.iter().cloned().chain([added]).collect();
                    (self.hold(merged, before.source.clone(), Some(before.arrival), arrivals), Outcome::Merged)
                }
                // Our own from now on, whoever brought it back to us.
                None if source.is_none() && before.source.is_some() => {
                    let record = Verified::clone(&before.record);
                    (self.hold(record, None, Some(before.arrival), Arc::clone(&before.arrivals)), Outcome::Duplicate)
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
            None => {
                let arrival =
                    Arrival { at: Some(now), from: source.cloned(), keys: record.signers().copied().collect() };
                (self.hold(record, source.cloned(), None, Arc::new([arrival])), Outcome::New)
            }
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

    /// What a record changes about channels: a head supersedes others, a delegation makes heads rightful, whose signers
    /// policy need not name for them to be kept.
    fn settle_after(&mut self, id: &RecordId, changes: &mut Changes) {
        let Some(record) = self.index.get(id).map(|held| Arc::clone(&held.record)) else { return };
        if let Some(head) = record.body.channel() {
            // A superseded proof may contradict no longer what it did.
            self.supersede(&head.into(), changes);
        } else if let Some(delegation) = is_delegation(&record) {
            // Heads that these keys signed may have come before it, and been evicted as a stranger's.
            if self.named.as_ref().is_some_and(|named| named.contains(delegation.publisher())) {
                self.evicted.forgive(&delegation.keys().iter().copied().collect());
            }
            let under = self.index.channels.under(delegation.publisher(), delegation.sequence());
            let under: Vec<RecordId> = under.map(|record| record.id).collect();
            let mut channels = BTreeSet::new();
            for id in under {
                self.charge_again(&id);
                let held = self.index.get(&id);
                channels.extend(held.and_then(|held| held.record.body.channel()).map(ChannelName::from));
            }
            for channel in channels {
                self.supersede(&channel, changes);
            }
        }
    }

    /// Takes out the heads of a channel that are not worth keeping.
    fn supersede(&mut self, channel: &ChannelName, changes: &mut Changes) {
        let (_, superseded) = self.index.channels.settled(channel);
        for id in superseded {
            let Some(held) = self.remove(&id) else { continue };
            // Nobody is named as its signer: no policy makes it wanted again.
            Frame::Evicted { sync_id: held.sync_id, signers: Vec::new() }.encode(&mut changes.frames);
            self.refused.insert(held.sync_id, UnixSeconds::MAX);
            if let Some(head) = held.record.body.channel() {
                let position = Position { epoch: head.epoch, sequence: head.sequence };
                self.below.insert(channel.clone(), position, Remains::of(&held.record));
            }
            changes.steps.push(Step::Superseded { held });
        }
    }

    /// Charges a record anew, or keeps it, as what is known says now.
    fn charge_again(&mut self, id: &RecordId) {
        let Some(held) = self.index.get(id) else { return };
        let (is_kept, was_kept) = (self.is_kept(&held.record, held.source.as_ref()), held.charge.is_none());
        if is_kept != was_kept {
            let (record, arrivals) = (Verified::clone(&held.record), Arc::clone(&held.arrivals));
            let again = self.hold(record, held.source.clone(), Some(held.arrival), arrivals);
            self.replace(again);
        }
    }

    /// Puts in what the log says, without a question: it was admitted when it was written.
    pub(super) fn replay(&mut self, record: Verified<Record>, source: Option<String>, arrivals: Vec<Arrival>) {
        let source: Option<Arc<str>> = source.map(Arc::from);
        let held = match self.index.get(&record.id) {
            Some(before) => {
                let merged = before.record.merge(&record).ok().flatten();
                let record = merged.unwrap_or_else(|| Verified::clone(&before.record));
                // The later frame has all of them, where arrivals are kept at all.
                let arrivals = if arrivals.is_empty() { Arc::clone(&before.arrivals) } else { Arc::from(arrivals) };
                self.hold(record, source, Some(before.arrival), arrivals)
            }
            None if arrivals.is_empty() => {
                let keys = record.signers().copied().collect();
                let arrival = Arrival { at: None, from: source.clone(), keys };
                self.hold(record, source, None, Arc::new([arrival]))
            }
            None => self.hold(record, source, None, Arc::from(arrivals)),
        };
        self.put(held, &mut Changes::default());
    }

    /// Takes out what the log says was evicted.
    pub(super) fn replay_evicted(&mut self, sync_id: Hash, signers: Vec<PublicKey>) {
        let held = self.index.by_sync_id(&sync_id).map(|held| held.record.id).and_then(|id| self.remove(&id));
        if !signers.is_empty() {
            self.evicted.insert(sync_id, signers);
        } else if let Some(held) = held
            && let Some(head) = held.record.body.channel()
        {
            // Superseded, and remembered as before.
            self.refused.insert(sync_id, UnixSeconds::MAX);
            let position = Position { epoch: head.epoch, sequence: head.sequence };
            self.below.insert(head.into(), position, Remains::of(&held.record));
        }
    }

    /// Takes the keys that policy names now. Their records are kept from here on; those of others may have to go.
    pub(super) fn set_named(&mut self, named: BTreeSet<PublicKey>, changes: &mut Changes) {
        let lent = named.iter().flat_map(|publisher| self.index.channels.all_delegations(publisher));
        let lent = lent.filter_map(|record| is_delegation(record)).flat_map(|delegation| delegation.keys());
        let wanted: BTreeSet<PublicKey> = named.iter().chain(lent).copied().collect();
        self.evicted.forgive(&wanted);
        self.named = Some(named);
        let all: Vec<RecordId> = self.index.iter().map(|held| held.record.id).collect();
        for id in &all {
            self.charge_again(id);
        }
        // A log of a version that did not read heads holds them all.
        let channels: Vec<ChannelName> = self.index.channels.names().cloned().collect();
        for channel in &channels {
            self.supersede(channel, changes);
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
                Step::Superseded { held } => {
                    self.refused.remove(&held.sync_id);
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
            arrivals: held.arrivals.to_vec(),
            envelope: held.record.envelope().encode(),
        });
        evicted.into_iter().chain(self.below.iter().flat_map(Remains::frames)).chain(records)
    }

    /// Bytes of the log that are not garbage.
    pub(super) fn live_bytes(&self) -> u64 {
        self.index.live_bytes() + self.below.bytes
    }

    fn hold(
        &self,
        record: Verified<Record>,
        source: Option<Arc<str>>,
        arrival: Option<u64>,
        arrivals: Arc<[Arrival]>,
    ) -> Held {
        let arrival = arrival.unwrap_or(self.next_arrival);
        let envelope = record.envelope().encode();
        let charge = (!self.is_kept(&record, source.as_ref()))
            .then(|| Charge::new(record.id, arrival, envelope.len() as u64, record.signers(), source.as_ref()));
        let frame_bytes = Frame::encode_record(source.as_deref(), &arrivals, &envelope, &mut Vec::new());
        Held { sync_id: record.sync_id(), record: Arc::new(record), source, arrival, arrivals, frame_bytes, charge }
    }

    /// Whether a record is outside the evictable part: this site's own, or of a known kind and by a named signer.
    fn is_kept(&self, record: &Verified<Record>, source: Option<&Arc<str>>) -> bool {
        let is_named = |key: &PublicKey| self.named.as_ref().is_some_and(|named| named.contains(key));
        match &record.body {
            _ if source.is_none() => true,
            Body::Opaque => false,
            // Who moves a channel for a named publisher need not be named itself; who only claims to is nobody.
            Body::Channel(head) => is_named(&head.publisher) && self.index.channels.place(record).is_some(),
            _ => record.signers().any(is_named),
        }
    }

    fn put(&mut self, held: Held, changes: &mut Changes) {
        let (id, sync_id) = (held.record.id, held.sync_id);
        let envelope = held.record.envelope().encode();
        Frame::encode_record(held.source.as_deref(), &held.arrivals, &envelope, &mut changes.frames);
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

/// What is remembered of a superseded head: all of it, so that it can be put beside one that contradicts it.
#[derive(Debug, Clone)]
struct Remains {
    record: Verified<Record>,
}

impl Remains {
    fn of(record: &Verified<Record>) -> Self {
        Self { record: record.clone() }
    }

    /// In the log, a head that comes and goes at once. Who brought it does not matter any more.
    fn frames(&self) -> [Frame; 2] {
        let envelope = self.record.envelope().encode();
        let gone = Frame::Evicted { sync_id: self.record.sync_id(), signers: Vec::new() };
        [Frame::Record { source: Some("?".to_owned()), arrivals: Vec::new(), envelope }, gone]
    }

    /// Appends its frames; gives the number of their bytes.
    fn encode(&self, out: &mut Vec<u8>) -> u64 {
        self.frames().iter().map(|frame| frame.encode(out)).sum()
    }
}

/// A bounded memory of superseded heads, which the log keeps as well.
#[derive(Debug, Default)]
struct Below {
    heads: BTreeMap<(ChannelName, Position), BTreeMap<RecordId, (Remains, u64)>>,
    order: VecDeque<(ChannelName, Position, RecordId)>,
    /// Bytes that they take in a log.
    bytes: u64,
}

impl Below {
    /// A remembered head in this place that is another one.
    fn contradicting(&self, channel: &ChannelName, position: Position, id: RecordId) -> Option<Verified<Record>> {
        let there = self.heads.get(&(channel.clone(), position))?;
        there.iter().find(|(other, _)| **other != id).map(|(_, (remains, _))| remains.record.clone())
    }

    /// All of them, the oldest first.
    fn iter(&self) -> impl Iterator<Item = &Remains> {
        let found = self.order.iter().filter_map(|(channel, position, id)| {
            self.heads.get(&(channel.clone(), *position)).and_then(|there| there.get(id))
        });
        found.map(|(remains, _)| remains)
    }

    /// Remembers a head; `false` where it is remembered already, or not worth it.
    fn insert(&mut self, channel: ChannelName, position: Position, remains: Remains) -> bool {
        if remains.record.envelope().encode().len() > MAX_SUPERSEDED_BYTES {
            return false;
        }
        let (id, place) = (remains.record.id, (channel, position));
        let there = self.heads.entry(place.clone()).or_default();
        if there.contains_key(&id) {
            return false;
        }
        let bytes = remains.encode(&mut Vec::new());
        there.insert(id, (remains, bytes));
        self.bytes += bytes;
        self.order.push_back((place.0, place.1, id));
        while self.order.len() > MAX_SUPERSEDED_HEADS {
            let Some((channel, position, id)) = self.order.pop_front() else { break };
            let place = (channel, position);
            if let Some(there) = self.heads.get_mut(&place) {
                if let Some((_, bytes)) = there.remove(&id) {
                    self.bytes -= bytes;
                }
                if there.is_empty() {
                    self.heads.remove(&place);
                }
            }
        }
        true
    }
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

    fn remove(&mut self, id: &Hash) {
        if self.values.remove(id).is_some() {
            self.order.retain(|other| other != id);
        }
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
