//! Heads of channels, and the delegations that they rest on, as the index finds them.
//!
//! A head stands in its channel only while it is rightful (see [`rialto_protocol::channel`]): what a stranger signs about
//! somebody else's channel is a record like any other, and no channel knows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::Name;
use rialto_protocol::channel::{ChannelName, Heads, Position, is_delegation, is_lent, rightful};
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{Channel, DelegatedRole, Record};
use rialto_protocol::signed::Verified;

use super::index::Slot;
use super::{Catalog, SharedRecord};

/// Heads by channel, and delegations by publisher.
#[derive(Debug, Default)]
pub(super) struct Channels {
    /// The rightful heads.
    heads: BTreeMap<ChannelName, BTreeMap<(Position, RecordId), SharedRecord>>,
    /// Heads that would be rightful with the signatures of more of the keys that may sign them.
    waiting: BTreeMap<ChannelName, BTreeMap<RecordId, SharedRecord>>,
    /// Every head that names a delegation, rightful or not.
    by_epoch: BTreeMap<(PublicKey, u64), BTreeMap<RecordId, SharedRecord>>,
    /// Delegations that their publisher signed, by sequence.
    delegations: BTreeMap<(PublicKey, u64), BTreeMap<RecordId, SharedRecord>>,
    /// Publishers about whom something came since it was asked last.
    moved: BTreeSet<PublicKey>,
}

impl Channels {
    /// The rightful heads of a channel: after superseded ones have gone, at most three.
    pub(super) fn heads(&self, channel: &ChannelName) -> impl Iterator<Item = &SharedRecord> {
        self.heads.get(channel).into_iter().flat_map(BTreeMap::values)
    }

    /// What of a channel's heads is kept, and what is superseded.
    pub(super) fn settled(&self, channel: &ChannelName) -> (Heads, Vec<RecordId>) {
        let mut heads = Heads::default();
        let all = self.heads.get(channel).into_iter().flat_map(BTreeMap::keys);
        let superseded = heads.put_together(all.copied());
        (heads, superseded)
    }

    /// Every channel that has a rightful head.
    pub(super) fn names(&self) -> impl Iterator<Item = &ChannelName> {
        self.heads.keys()
    }

    /// The channels of one appliance.
    pub(super) fn of_appliance(&self, publisher: &PublicKey, name: &Name) -> impl Iterator<Item = &ChannelName> {
        // No channel's name sorts before "0".
        let first = Name::try_from("0").ok();
        let first = first.map(|channel| ChannelName { publisher: *publisher, name: name.clone(), channel });
        let (publisher, name) = (*publisher, name.clone());
        let from = first.into_iter().flat_map(|first| self.heads.range(first..));
        from.map(|(channel, _)| channel).take_while(move |of| of.publisher == publisher && of.name == name)
    }

    /// The channels of one publisher.
    pub(super) fn of_publisher(&self, publisher: &PublicKey) -> impl Iterator<Item = &ChannelName> {
        // No name sorts before "0".
        let first = Name::try_from("0").ok();
        let first = first.map(|name| ChannelName { publisher: *publisher, channel: name.clone(), name });
        let from = first.into_iter().flat_map(|first| self.heads.range(first..));
        from.map(|(channel, _)| channel).take_while(move |channel| channel.publisher == *publisher)
    }

    /// The publishers about whom something came since this was asked last.
    pub(super) fn take_moved(&mut self) -> BTreeSet<PublicKey> {
        std::mem::take(&mut self.moved)
    }

    /// The delegations that bear on an appliance: the highest of each role that covers it, and those that the heads of
    /// its channels are signed under.
    pub(super) fn delegations(&self, publisher: &PublicKey, name: &Name) -> Vec<SharedRecord> {
        let covers = |record: &SharedRecord, role| {
            is_delegation(record).is_some_and(|delegation| delegation.role() == role && delegation.covers(name))
        };
        let mut found: BTreeMap<RecordId, SharedRecord> = BTreeMap::new();
        for role in [DelegatedRole::Channel, DelegatedRole::Release] {
            let of_publisher = self.delegations.range((*publisher, 0)..=(*publisher, u64::MAX)).rev();
            let highest =
                of_publisher.map(|(_, same)| same).find(|same| same.values().any(|record| covers(record, role)));
            found.extend(highest.into_iter().flatten().map(|(id, record)| (*id, Arc::clone(record))));
        }
        let epochs: BTreeSet<u64> = self
            .of_appliance(publisher, name)
            .flat_map(|channel| self.heads.get(channel).into_iter().flat_map(BTreeMap::keys))
            .map(|(position, _)| position.epoch)
            .collect();
        for epoch in epochs {
            let same = self.delegations.get(&(*publisher, epoch)).into_iter().flatten();
            found.extend(same.map(|(id, record)| (*id, Arc::clone(record))));
        }
        found.into_values().collect()
    }

    /// All delegations of a publisher, the highest sequence first.
    pub(super) fn all_delegations(&self, publisher: &PublicKey) -> impl Iterator<Item = &SharedRecord> {
        let range = (Bound::Included((*publisher, 0)), Bound::Included((*publisher, u64::MAX)));
        self.delegations.range(range).rev().flat_map(|(_, same)| same.values())
    }

    /// The delegations by which a publisher ever lent its releases of this name to one of these keys.
    pub(super) fn lent_once(&self, publisher: &PublicKey, name: &Name, keys: &[PublicKey]) -> Vec<SharedRecord> {
        let of_publisher = self.all_delegations(publisher);
        let has_lent = of_publisher.filter(|record| {
            is_delegation(record).is_some_and(|of| {
                // Names last: comparing them costs more.
                of.role() == DelegatedRole::Release && of.keys().iter().any(|key| keys.contains(key)) && of.covers(name)
            })
        });
        has_lent.cloned().collect()
    }

    /// Every delegation, whoever signed it.
    pub(super) fn every_delegation(&self) -> impl Iterator<Item = &SharedRecord> {
        self.delegations.values().flat_map(BTreeMap::values)
    }

    /// Whether enough of the keys that its publisher lends its releases of this name to are `signers`, by the highest
    /// delegation that is known: enough to find a release as that publisher's. A key that has it no more brings nothing in
    /// under its name; times, revocations and what was seen before are policy's question.
    pub(super) fn is_lent(&self, publisher: &PublicKey, name: &Name, signers: &[PublicKey]) -> bool {
        let of_publisher = self.all_delegations(publisher).filter_map(|record| is_delegation(record));
        let mut covering = of_publisher.filter(|of| of.role() == DelegatedRole::Release && of.covers(name)).peekable();
        let Some(highest) = covering.peek().map(|of| of.sequence()) else { return false };
        covering.take_while(|of| of.sequence() == highest).any(|of| is_lent(publisher, name, signers, of))
    }

    /// Where a head stands in its channel, where it is rightful by what is known.
    pub(super) fn place(&self, head: &Verified<Record>) -> Option<Position> {
        let channel = head.body.channel()?;
        let under = self.delegations.get(&(channel.publisher, channel.epoch));
        let under: Vec<&Verified<Record>> = under.into_iter().flatten().map(|(_, record)| &**record).collect();
        rightful(head, &under).ok()
    }

    /// Heads that name this delegation, rightful or not.
    pub(super) fn under(&self, publisher: &PublicKey, epoch: u64) -> impl Iterator<Item = &SharedRecord> {
        self.by_epoch.get(&(*publisher, epoch)).into_iter().flat_map(BTreeMap::values)
    }

    /// How many heads name this delegation.
    pub(super) fn count_under(&self, publisher: &PublicKey, epoch: u64) -> usize {
        self.by_epoch.get(&(*publisher, epoch)).map_or(0, BTreeMap::len)
    }

    /// How many delegations of a publisher have this sequence.
    pub(super) fn count_delegations(&self, publisher: &PublicKey, sequence: u64) -> usize {
        self.delegations.get(&(*publisher, sequence)).map_or(0, BTreeMap::len)
    }

    /// Whether a head is rightful, or waits for more signatures.
    pub(super) fn has_a_place(&self, record: &SharedRecord) -> bool {
        let Some(head) = record.body.channel() else { return false };
        let position = Position { epoch: head.epoch, sequence: head.sequence };
        let channel = head.into();
        self.heads.get(&channel).is_some_and(|heads| heads.contains_key(&(position, record.id)))
            || self.waiting.get(&channel).is_some_and(|waiting| waiting.contains_key(&record.id))
    }

    /// The heads of a channel that some of the keys of the delegation that they name have signed, and not enough of them.
    pub(super) fn waiting(&self, channel: &ChannelName) -> impl Iterator<Item = &SharedRecord> {
        self.waiting.get(channel).into_iter().flat_map(BTreeMap::values)
    }

    /// Every channel with such a head.
    pub(super) fn that_wait(&self) -> impl Iterator<Item = &ChannelName> {
        self.waiting.keys()
    }

    /// The channels with such a head, under a delegation to one of these keys.
    pub(super) fn that_wait_for(&self, keys: &BTreeSet<PublicKey>) -> impl Iterator<Item = &ChannelName> {
        let is_lent_to_one = |head: &SharedRecord| {
            let under = head.body.channel().and_then(|head| self.delegations.get(&(head.publisher, head.epoch)));
            let mut lent = under.into_iter().flat_map(BTreeMap::values).filter_map(|record| is_delegation(record));
            lent.any(|delegation| delegation.keys().iter().any(|key| keys.contains(key)))
        };
        self.waiting.iter().filter(move |(_, heads)| heads.values().any(is_lent_to_one)).map(|(channel, _)| channel)
    }

    /// Whether a head that is not rightful could become it.
    fn is_waiting(&self, record: &SharedRecord, head: &Channel) -> bool {
        let under = self.delegations.get(&(head.publisher, head.epoch)).into_iter().flatten();
        let mut lent = under.filter_map(|(_, record)| is_delegation(record)).filter(|of| of.covers(&head.name));
        lent.any(|delegation| delegation.keys().iter().any(|key| record.is_signed_by(key)))
    }

    pub(super) fn put(&mut self, record: &SharedRecord) {
        let Some(head) = record.body.channel() else { return };
        if head.epoch > 0 {
            self.by_epoch.entry((head.publisher, head.epoch)).or_default().insert(record.id, Arc::clone(record));
        }
        if let Some(position) = self.place(record) {
            self.moved.insert(head.publisher);
            self.heads.entry(head.into()).or_default().insert((position, record.id), Arc::clone(record));
        } else if self.is_waiting(record, head) {
            self.waiting.entry(head.into()).or_default().insert(record.id, Arc::clone(record));
        }
    }

    pub(super) fn take(&mut self, record: &SharedRecord) {
        let Some(head) = record.body.channel() else { return };
        remove(&mut self.by_epoch, &(head.publisher, head.epoch), &record.id);
        self.take_head(record, head);
    }

    pub(super) fn put_delegation(&mut self, record: &SharedRecord) {
        let Some(delegation) = is_delegation(record) else { return };
        let key = (*delegation.publisher(), delegation.sequence());
        self.delegations.entry(key).or_default().insert(record.id, Arc::clone(record));
        self.moved.insert(key.0);
        self.look_again(&key);
    }

    pub(super) fn take_delegation(&mut self, record: &SharedRecord) {
        let Some(delegation) = is_delegation(record) else { return };
        let key = (*delegation.publisher(), delegation.sequence());
        remove(&mut self.delegations, &key, &record.id);
        self.look_again(&key);
    }

    /// Which of the heads under a delegation are rightful, now that what is known of it has changed.
    fn look_again(&mut self, key: &(PublicKey, u64)) {
        let under: Vec<SharedRecord> = self.under(&key.0, key.1).cloned().collect();
        for record in &under {
            let Some(head) = record.body.channel() else { continue };
            self.take_head(record, head);
            self.put(record);
        }
    }

    fn take_head(&mut self, record: &SharedRecord, head: &Channel) {
        let position = Position { epoch: head.epoch, sequence: head.sequence };
        remove(&mut self.heads, &head.into(), &(position, record.id));
        remove(&mut self.waiting, &head.into(), &record.id);
    }
}

impl Catalog {
    /// The heads of a channel that some of the keys that must sign them have signed, and not enough.
    pub fn waiting_heads(&self, channel: &ChannelName) -> Vec<SharedRecord> {
        self.read().index.channels.waiting(channel).cloned().collect()
    }

    /// Every channel with a head that some of the keys that must sign it have signed, and not enough of them.
    pub fn channels_that_wait(&self) -> BTreeSet<ChannelName> {
        self.read().index.channels.that_wait().cloned().collect()
    }

    /// The channels, of those that were lent to one of these keys, with a head that not enough of the keys have signed.
    pub fn channels_that_wait_for(&self, keys: &BTreeSet<PublicKey>) -> BTreeSet<ChannelName> {
        self.read().index.channels.that_wait_for(keys).cloned().collect()
    }

    /// Advisories that one of their signers satisfies `is_by`, the latest issued first; at most `limit`. Looks at every
    /// advisory that is known, and reads those that it gives.
    pub fn advisories_by(&self, is_by: impl Fn(&PublicKey) -> bool, limit: usize) -> Vec<SharedRecord> {
        self.all(|holdings| {
            let theirs = holdings.index.all_advisories().filter(|(_, held)| held.signers.iter().any(&is_by));
            let mut found: Vec<(UnixSeconds, Slot)> = theirs.map(|(slot, held)| (held.issued, slot)).collect();
            found.sort_unstable_by(|a, b| b.cmp(a));
            found.into_iter().take(limit).map(|(_, slot)| slot).collect()
        })
    }
}

fn remove<K: Ord, I: Ord, T>(map: &mut BTreeMap<K, BTreeMap<I, T>>, key: &K, item: &I) {
    if let Some(items) = map.get_mut(key) {
        items.remove(item);
        if items.is_empty() {
            map.remove(key);
        }
    }
}
