//! What becomes of a record that arrives: kept, charged to the evictable part, merged, or not taken.
//!
//! Everything here happens in memory; the frames that make it durable are collected, and every step can be undone
//! should they not reach the disk.

mod replay;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::Name;
use rialto_protocol::channel::{ChannelName, Position, is_delegation, is_lent};
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{Body, DelegatedRole, Delegation, MAX_AHEAD_SECONDS, Record, RevocationSubject};
use rialto_protocol::signed::{KnownKeys, Verified};
use rialto_protocol::sync::Beginning;

use super::arrival::Arrival;
use super::budget::{Budget, Evicted, Payer};
use super::found::{Address, AtHand, Found};
use super::gossip::{Ignored, unfit};
use super::index::{Held, Index, Kind, Slot, Taken};
use super::log::{Frame, Place, Reader};
use super::remembered::{Below, Remains, Remembered};
use super::search::Query;
use super::{Outcome, SharedRecord};

pub(super) use replay::replay;

/// Delegations of one publisher with one sequence, where policy does not name it: an honest one makes one, and two prove the
/// contradiction.
const MAX_SAME_DELEGATIONS: usize = 4;
/// Heads in the evictable part that name one delegation. Each is looked at again whenever that comes or goes.
const MAX_HEADS_UNDER: usize = 1_024;

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
    /// Whether what there is was charged to its payers: not while the log is read.
    is_charging: bool,
    next_arrival: u64,
    /// Where records are read from.
    pub(super) reader: Option<Reader>,
    /// What is put in and not in the log yet.
    pending: HashMap<RecordId, AtHand>,
}

/// What a batch did, so that it can be made durable or undone.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Where the log ends: there the frames will lie.
    base: u64,
    /// Frames for the log.
    pub(super) frames: Vec<u8>,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Put { id: RecordId, before: Option<Taken> },
    Evicted { taken: Taken },
    Superseded { taken: Taken },
}

impl Changes {
    /// Of a batch whose frames will lie at the end of the log.
    pub(super) fn at(base: u64) -> Self {
        Self { base, ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.frames.is_empty()
    }
}

/// A record that is put in.
struct Coming {
    at_hand: AtHand,
    source: Option<Arc<str>>,
    /// Its place in the order, where it has one.
    arrival: Option<u64>,
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
            is_charging: false,
            next_arrival: 0,
            reader: None,
            pending: HashMap::new(),
        }
    }

    /// Where the record in a slot can be had.
    pub(super) fn found(&self, slot: Slot) -> Option<Found> {
        let held = self.index.held(slot)?;
        if let Some(at_hand) = self.pending.get(&held.id) {
            return Some(Found::AtHand(at_hand.clone()));
        }
        let reader = self.reader.clone()?;
        Some(Found::InLog(Address { sync_id: held.sync_id, reader, place: held.place }))
    }

    /// The record in a slot. Reads it where it is not at hand.
    fn read(&self, slot: Slot) -> Option<AtHand> {
        match self.found(slot)? {
            Found::AtHand(at_hand) => Some(at_hand),
            Found::InLog(address) => address.read(&KnownKeys::default()),
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
        if !self.is_charging {
            self.charge_all();
        }
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
        if source.is_some() && self.is_one_too_many(&record) {
            let signers: Vec<PublicKey> = record.signers().copied().collect();
            Frame::Evicted { sync_id: record.sync_id(), signers: signers.clone() }.encode(&mut changes.frames);
            self.evicted.insert(record.sync_id(), Arc::from(signers));
            return Outcome::Ignored(Ignored::NoRoom);
        }
        let is_of_channels = matches!(record.body, Body::Channel(_) | Body::Delegation(_));
        let outcome = self.take_in(record, source, now, changes);
        if !is_of_channels || !outcome.is_change() {
            return outcome;
        }
        self.settle_after(&id, changes);
        if self.index.slot(&id).is_none() {
            return Outcome::Ignored(Ignored::Superseded);
        }
        self.thin_out(&id, changes);
        match self.index.slot(&id) {
            Some(_) => outcome,
            None => Outcome::Ignored(Ignored::NoRoom),
        }
    }

    /// Whether it is one more delegation with the same sequence by somebody whom policy does not name.
    fn is_one_too_many(&self, record: &Verified<Record>) -> bool {
        let (Some(delegation), Some(named)) = (is_delegation(record), &self.named) else { return false };
        self.index.channels.count_delegations(delegation.publisher(), delegation.sequence()) >= MAX_SAME_DELEGATIONS
            && self.index.slot(&record.id).is_none()
            && !record.signers().any(|key| named.contains(key))
    }

    /// Makes room among the heads that name the same delegation as a new one, and are not kept in full: first goes one that
    /// none of its keys has signed, so that whoever only claims to be under it displaces nobody.
    fn thin_out(&mut self, id: &RecordId, changes: &mut Changes) {
        let head =
            self.index.slot(id).and_then(|slot| self.index.decoded(slot)).and_then(|record| record.body.channel());
        let Some((publisher, epoch)) = head.filter(|head| head.epoch > 0).map(|head| (head.publisher, head.epoch))
        else {
            return;
        };
        if self.named.is_none() || self.index.channels.count_under(&publisher, epoch) <= MAX_HEADS_UNDER {
            return;
        }
        let charged = self.index.channels.under(&publisher, epoch).filter_map(|head| {
            let slot =
                self.index.slot(&head.id).filter(|slot| self.index.held(*slot).is_some_and(|held| held.is_charged));
            slot.map(|slot| (slot, self.index.channels.has_a_place(head)))
        });
        let charged: Vec<(Slot, bool)> = charged.collect();
        if charged.len() > MAX_HEADS_UNDER {
            let idle = charged.iter().find(|(_, has_a_place)| !has_a_place).map(|(slot, _)| *slot);
            if let Some(victim) = idle.or_else(|| self.index.slot(id)) {
                self.evict(victim, changes);
            }
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
        let arrives = |keys| Arrival { at: Some(now), from: source.cloned(), keys };
        let known = self.index.slot(&id).and_then(|slot| Some((slot, self.index.held(slot)?.clone())));
        let (coming, outcome) = match known {
            Some((slot, before)) => {
                let added: Vec<PublicKey> = record.signers().filter(|key| !before.is_signed_by(key)).copied().collect();
                // Our own from now on, whoever brought it back to us.
                let becomes_own = source.is_none() && before.source.is_some();
                if added.is_empty() && !becomes_own {
                    let sync_id = record.sync_id();
                    if sync_id != before.sync_id {
                        self.superseded.insert(sync_id, id);
                    }
                    return Outcome::Duplicate;
                }
                let outcome = if added.is_empty() { Outcome::Duplicate } else { Outcome::Merged };
                let at_hand = match self.read(slot) {
                    // Records of one id have one payload: merging them cannot fail.
                    Some(at_hand) => match at_hand.record.merge(&record).ok().flatten() {
                        Some(merged) => AtHand {
                            record: Arc::new(merged),
                            arrivals: at_hand.arrivals.iter().cloned().chain([arrives(added)]).collect(),
                        },
                        None => at_hand,
                    },
                    // Damaged: what comes now is what there is.
                    None => {
                        let arrivals = Arc::new([arrives(record.signers().copied().collect())]);
                        AtHand { record: Arc::new(record), arrivals }
                    }
                };
                let source = if becomes_own && outcome == Outcome::Duplicate { None } else { before.source };
                (Coming { at_hand, source, arrival: Some(before.arrival) }, outcome)
            }
            None if source.is_some() && self.evicted.contains(&(&record.sync_id()).into()) => {
                return Outcome::Ignored(Ignored::Evicted);
            }
            None => {
                let arrivals = Arc::new([arrives(record.signers().copied().collect())]);
                let at_hand = AtHand { record: Arc::new(record), arrivals };
                (Coming { at_hand, source: source.cloned(), arrival: None }, Outcome::New)
            }
        };
        let slot = self.put(coming, changes);
        let payers = match self.index.held(slot) {
            Some(held) if held.is_charged => Payer::of(held),
            _ => Vec::new(),
        };
        for payer in &payers {
            while self.budget.is_over(payer) {
                // Until a policy was read, nobody knows whose records are to be kept: the newcomer goes.
                let victim = match self.named {
                    Some(_) => self.victim(payer).or_else(|| self.index.slot(&id)),
                    None => self.index.slot(&id),
                };
                let Some(victim) = victim else { break };
                self.evict(victim, changes);
                if self.index.slot(&id).is_none() {
                    return Outcome::Ignored(Ignored::NoRoom);
                }
            }
        }
        outcome
    }

    /// What a record changes about channels: a head supersedes others, a delegation makes heads rightful, whose signers
    /// policy need not name for them to be kept.
    fn settle_after(&mut self, id: &RecordId, changes: &mut Changes) {
        let decoded = self.index.slot(id).and_then(|slot| self.index.decoded(slot)).map(Arc::clone);
        let Some(record) = decoded else { return };
        if let Some(head) = record.body.channel() {
            // A superseded proof may contradict no longer what it did.
            self.supersede(&head.into(), changes);
        } else if let Some(delegation) = is_delegation(&record) {
            self.prove_releases(delegation);
            // Heads that these keys signed may have come before it, and been evicted as a stranger's.
            if self.named.as_ref().is_some_and(|named| named.contains(delegation.publisher())) {
                self.evicted.forgive(&delegation.keys().iter().copied().collect());
            }
            let under = self.index.channels.under(delegation.publisher(), delegation.sequence());
            let under: Vec<SharedRecord> = under.cloned().collect();
            for head in &under {
                if let Some(slot) = self.index.slot(&head.id) {
                    self.charge_again(slot);
                }
            }
            let channels: BTreeSet<ChannelName> =
                under.iter().filter_map(|head| head.body.channel()).map(ChannelName::from).collect();
            for channel in channels {
                self.supersede(&channel, changes);
            }
        }
    }

    /// Finds releases that came before the delegation that their keys sign under.
    fn prove_releases(&mut self, delegation: &Delegation) {
        if delegation.role() != DelegatedRole::Release {
            return;
        }
        let publisher = delegation.publisher();
        // By what is in force: one that a later one replaced may come after that.
        let is_proven = |slot: Slot, name: &Name| {
            self.index.held(slot).is_some_and(|held| {
                is_lent(publisher, name, &held.signers, delegation)
                    && self.index.channels.is_lent(publisher, name, &held.signers)
            })
        };
        let proven = self.index.unproven(publisher).filter(|(slot, name)| is_proven(*slot, name));
        let proven: Vec<Slot> = proven.map(|(slot, _)| slot).collect();
        for slot in proven {
            let Some(AtHand { record, .. }) = self.read(slot) else { continue };
            let Some(mut held) = self.index.take(slot).map(|taken| taken.held) else { continue };
            if self.is_charging {
                if held.is_charged {
                    self.budget.refund(&held);
                }
                held.is_charged = false;
            }
            let slot = self.index.put(held, &record.body, Some(&record), None);
            if self.is_charging {
                self.charge_again(slot);
            }
        }
    }

    /// The same for all delegations, once the log is read.
    pub(super) fn prove_all_releases(&mut self) {
        let all: Vec<SharedRecord> = self.index.channels.every_delegation().cloned().collect();
        for delegation in all.iter().filter_map(|record| is_delegation(record)) {
            self.prove_releases(delegation);
        }
    }

    /// Takes out the heads of a channel that are not worth keeping.
    fn supersede(&mut self, channel: &ChannelName, changes: &mut Changes) {
        let (_, superseded) = self.index.channels.settled(channel);
        for id in superseded {
            let Some(taken) = self.index.slot(&id).and_then(|slot| self.remove(slot)) else { continue };
            // Nobody is named as its signer: no policy makes it wanted again.
            Frame::Evicted { sync_id: taken.held.sync_id, signers: Vec::new() }.encode(&mut changes.frames);
            self.refused.insert(taken.held.sync_id, UnixSeconds::MAX);
            if let Some(record) = taken.decoded()
                && let Some(head) = record.body.channel()
            {
                let position = Position { epoch: head.epoch, sequence: head.sequence };
                self.below.insert(channel.clone(), position, Remains::of(record));
            }
            changes.steps.push(Step::Superseded { taken });
        }
    }

    /// Charges a record anew, or keeps it, as what is known says now.
    fn charge_again(&mut self, slot: Slot) {
        let Some(held) = self.index.held(slot) else { return };
        let (is_charged, held) = (!self.is_kept(slot, held), held.clone());
        if is_charged == held.is_charged {
            return;
        }
        match is_charged {
            true => self.budget.charge(slot, &held),
            false => self.budget.refund(&held),
        }
        self.index.charge(slot, is_charged);
    }

    /// Charges everything anew, the first that came first.
    fn charge_all(&mut self) {
        self.is_charging = true;
        self.budget = self.budget.cleared();
        let mut charged = Vec::new();
        let slots: Vec<Slot> = self.index.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let Some(held) = self.index.held(slot) else { continue };
            let (arrival, is_charged) = (held.arrival, !self.is_kept(slot, held));
            self.index.charge(slot, is_charged);
            if is_charged {
                charged.push((arrival, slot));
            }
        }
        charged.sort_unstable();
        for (_, slot) in charged {
            if let Some(held) = self.index.held(slot) {
                self.budget.charge(slot, held);
            }
        }
    }

    /// Takes the keys that policy names now. Their records are kept from here on; those of others may have to go.
    pub(super) fn set_named(&mut self, named: BTreeSet<PublicKey>, changes: &mut Changes) {
        let lent = named.iter().flat_map(|publisher| self.index.channels.all_delegations(publisher));
        let lent = lent.filter_map(|record| is_delegation(record)).flat_map(|delegation| delegation.keys());
        let wanted: BTreeSet<PublicKey> = named.iter().chain(lent).copied().collect();
        self.evicted.forgive(&wanted);
        self.named = Some(named);
        self.charge_all();
        // A log of a version that did not read heads holds them all.
        let channels: Vec<ChannelName> = self.index.channels.names().cloned().collect();
        for channel in &channels {
            self.supersede(channel, changes);
        }
        while let Some(payer) = self.budget.any_over() {
            let Some(victim) = self.victim(&payer) else { break };
            self.evict(victim, changes);
        }
    }

    /// The record behind a sync id that begins so: the version that it names, or one that has its signatures and more.
    pub(super) fn behind(&self, sync_id: &Beginning) -> Option<Slot> {
        let current = self.index.by_sync_id(sync_id);
        current.or_else(|| self.superseded.fitting(sync_id).find_map(|id| self.index.slot(id)))
    }

    /// Whether we lack every version whose sync id begins so, and would take it.
    pub(super) fn is_wanted(&self, sync_id: &Beginning, now: UnixSeconds) -> bool {
        self.behind(sync_id).is_none()
            && !self.evicted.contains(sync_id)
            && self.refused.fitting(sync_id).all(|again| *again <= now)
    }

    /// Everything of the batch is in the log.
    pub(super) fn written(&mut self) {
        self.pending = HashMap::new();
    }

    /// Reverses what a batch did, last step first.
    pub(super) fn undo(&mut self, changes: Changes) {
        self.pending = HashMap::new();
        for step in changes.steps.into_iter().rev() {
            match step {
                Step::Put { id, before } => {
                    if let Some(slot) = self.index.slot(&id) {
                        self.remove(slot);
                    }
                    if let Some(before) = before {
                        self.put_back(before);
                    }
                }
                Step::Evicted { taken } => {
                    self.evicted.remove(&taken.held.sync_id);
                    self.put_back(taken);
                }
                Step::Superseded { taken } => {
                    self.refused.remove(&taken.held.sync_id);
                    self.put_back(taken);
                }
            }
        }
    }

    /// The ids of the releases that fit, newest first.
    pub(super) fn newest(&self, query: &Query<'_>) -> Vec<RecordId> {
        let search = &self.index.search;
        let rows = search.find(query);
        let slots = search.newest_first(&rows).filter_map(|row| Some(search.row(row)?.slot));
        slots.filter_map(|slot| Some(self.index.held(slot)?.id)).collect()
    }

    /// Bytes of the log that are not garbage.
    pub(super) fn live_bytes(&self) -> u64 {
        self.index.live_bytes() + self.below.bytes() + self.evicted.bytes()
    }

    /// Frames of what was evicted, and of superseded heads.
    pub(super) fn remembered_frames(&self) -> Vec<u8> {
        let mut frames = Vec::new();
        for (sync_id, signers) in self.evicted.iter() {
            Frame::Evicted { sync_id, signers: signers.to_vec() }.encode(&mut frames);
        }
        for remains in self.below.iter() {
            remains.encode(&mut frames);
        }
        frames
    }

    /// The records in order of arrival, with their frames.
    pub(super) fn in_order(&self) -> Vec<(Slot, Place)> {
        let mut present: Vec<(u64, Slot, Place)> =
            self.index.iter().map(|(slot, held)| (held.arrival, slot, held.place)).collect();
        present.sort_unstable_by_key(|(arrival, ..)| *arrival);
        present.into_iter().map(|(_, slot, place)| (slot, place)).collect()
    }

    /// Whether a record is outside the evictable part: this site's own, or of a known kind and by a named signer.
    fn is_kept(&self, slot: Slot, held: &Held) -> bool {
        let is_named = |key: &PublicKey| self.named.as_ref().is_some_and(|named| named.contains(key));
        match held.kind {
            _ if held.source.is_none() => true,
            Kind::Opaque => false,
            // Who moves a channel for a named publisher need not be named itself; who only claims to is nobody.
            Kind::Head => self.index.decoded(slot).is_some_and(|record| {
                let is_of_named = record.body.channel().is_some_and(|head| is_named(&head.publisher));
                is_of_named && self.index.channels.place(record).is_some()
            }),
            // As with heads: whoever signs a named publisher's releases for it need not be named.
            Kind::Release(_) if self.index.lent_by(slot).is_some_and(is_named) => true,
            _ => held.signers.iter().any(is_named),
        }
    }

    fn put(&mut self, coming: Coming, changes: &mut Changes) -> Slot {
        let Coming { at_hand, source, arrival } = coming;
        let (record, arrival) = (&at_hand.record, arrival.unwrap_or(self.next_arrival));
        let envelope = record.envelope().encoded();
        let at = changes.base + changes.frames.len() as u64;
        let bytes = Frame::encode_record(source.as_deref(), &at_hand.arrivals, envelope, &mut changes.frames);
        let (id, sync_id) = (record.id, record.sync_id());
        let held = Held {
            id,
            sync_id,
            issued: record.header.issued,
            arrival,
            // Frames and envelopes are bounded, far below 4 GiB.
            place: Place { at, bytes: bytes as u32 },
            source,
            signers: record.signers().copied().collect(),
            cost: envelope.len() as u32,
            is_charged: false,
            kind: Kind::Other,
        };
        self.next_arrival = self.next_arrival.max(arrival + 1);
        let before = self.index.slot(&id).and_then(|slot| self.remove(slot));
        let slot = self.index.put(held, &record.body, Some(record), before.as_ref());
        self.charge_again(slot);
        self.pending.insert(id, at_hand);
        if let Some(before) = before.as_ref().filter(|before| before.held.sync_id != sync_id) {
            self.superseded.insert(before.held.sync_id, id);
        }
        self.evicted.remove(&sync_id);
        changes.steps.push(Step::Put { id, before });
        slot
    }

    fn evict(&mut self, slot: Slot, changes: &mut Changes) {
        let Some(taken) = self.remove(slot) else { return };
        let Held { sync_id, signers, .. } = &taken.held;
        Frame::Evicted { sync_id: *sync_id, signers: signers.to_vec() }.encode(&mut changes.frames);
        self.evicted.insert(*sync_id, Arc::clone(signers));
        changes.steps.push(Step::Evicted { taken });
    }

    fn put_back(&mut self, taken: Taken) {
        let slot = self.index.put_back(taken);
        if let Some(held) = self.index.held(slot).filter(|held| held.is_charged) {
            self.budget.charge(slot, held);
        }
    }

    fn remove(&mut self, slot: Slot) -> Option<Taken> {
        let taken = self.index.take(slot)?;
        if taken.held.is_charged {
            self.budget.refund(&taken.held);
        }
        self.pending.remove(&taken.held.id);
        Some(taken)
    }

    /// What goes first of what is charged to this payer, but no revocation before its subject.
    fn victim(&self, payer: &Payer) -> Option<Slot> {
        self.budget.records(payer).find_map(|slot| {
            let held = self.index.held(slot)?;
            match self.stands_over(slot, held) {
                Stand::Nothing => Some(slot),
                Stand::Evictable(subject) => Some(subject),
                Stand::Kept => None,
            }
        })
    }

    /// What a revocation withdraws as a fact, where that is still here. Only the first such revocation of each subject
    /// is protected, so that no signer can fill the catalog with revocations of its own.
    fn stands_over(&self, slot: Slot, held: &Held) -> Stand {
        let Some(subject) = self.index.subject(slot) else { return Stand::Nothing };
        let is_fact = |held: &Held| match subject {
            RevocationSubject::Key(key) => held.is_signed_by(key),
            RevocationSubject::Release(id) | RevocationSubject::Endorsement(id) | RevocationSubject::Advisory(id) => {
                self.index.get(id).is_some_and(|of| held.signers.iter().any(|key| of.is_signed_by(key)))
            }
        };
        let all = self.index.revocations(subject).filter_map(|slot| self.index.held(slot));
        let first = all.filter(|held| is_fact(held)).map(|held| held.arrival).min();
        if first != Some(held.arrival) {
            return Stand::Nothing;
        }
        match subject {
            RevocationSubject::Key(key) if self.index.keeps_of(key) => Stand::Kept,
            RevocationSubject::Key(key) => {
                let other = self.budget.records(&Payer::Key(*key)).find(|other| *other != slot);
                other.map_or(Stand::Nothing, Stand::Evictable)
            }
            RevocationSubject::Release(id) | RevocationSubject::Endorsement(id) | RevocationSubject::Advisory(id) => {
                match self.index.slot(id) {
                    Some(of) if self.index.held(of).is_some_and(|held| !held.is_charged) => Stand::Kept,
                    Some(of) => Stand::Evictable(of),
                    None => Stand::Nothing,
                }
            }
        }
    }
}

/// What keeps a revocation in the catalog.
enum Stand {
    /// Nothing: it can go.
    Nothing,
    /// Its subject, which can go before it.
    Evictable(Slot),
    /// Its subject, which is kept.
    Kept,
}
