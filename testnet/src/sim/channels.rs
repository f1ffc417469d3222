//! Heads of channels at a simulated site: the rules of the node's catalog, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rialto_protocol::channel::{ChannelName, Floor, Heads, Position, is_delegation, rightful};
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::Record;
use rialto_protocol::signed::Verified;

use super::site::Known;

/// The heads that a site keeps, and those that it has seen below them.
#[derive(Debug, Default)]
pub(super) struct Channels {
    heads: BTreeMap<ChannelName, Heads>,
    below: BTreeMap<(ChannelName, Position), BTreeMap<RecordId, Arc<Known>>>,
    /// Delegations that their publisher signed, by sequence.
    delegations: BTreeMap<(PublicKey, u64), BTreeMap<RecordId, Arc<Known>>>,
    /// Heads that name a delegation, rightful or not.
    by_epoch: BTreeMap<(PublicKey, u64), BTreeSet<RecordId>>,
    /// What was seen of each channel, and never goes down.
    floors: Floors,
}

/// What a site never goes below, also where it lost everything else.
#[derive(Debug, Clone, Default)]
pub(super) struct Floors {
    heads: BTreeMap<ChannelName, Position>,
    delegations: BTreeMap<PublicKey, u64>,
}

impl Floors {
    /// The floor of a channel. Delegations are for all names here.
    pub(super) fn of(&self, channel: &ChannelName) -> Floor {
        let delegation = self.delegations.get(&channel.publisher).copied().unwrap_or(0);
        Floor { head: self.heads.get(channel).copied(), delegation }
    }
}

/// What is to be done with a rightful head.
pub(super) enum Arrival {
    /// It is taken in.
    Taken,
    /// It is taken in with another one in its place, which was passed over before: the two contradict each other.
    With(Arc<Known>),
    /// A higher one is known.
    PassedOver,
}

impl Channels {
    /// What is known of no channel but what was seen before.
    pub(super) fn with_floors(floors: Floors) -> Self {
        Self { floors, ..Self::default() }
    }

    pub(super) fn floors(&self) -> &Floors {
        &self.floors
    }

    /// The channel of a head, and its place in it, where it has a right to one by the delegations known here.
    pub(super) fn place(&self, record: &Verified<Record>) -> Option<(ChannelName, Position)> {
        let head = record.body.channel()?;
        let under = self.delegations.get(&(head.publisher, head.epoch)).into_iter().flat_map(BTreeMap::values);
        let under: Vec<&Verified<Record>> = under.map(|known| &known.record).collect();
        Some((head.into(), rightful(record, &under).ok()?))
    }

    /// Takes a delegation in; gives the heads that name it, which may be rightful now.
    pub(super) fn delegate(&mut self, known: &Arc<Known>) -> BTreeSet<RecordId> {
        let Some(delegation) = is_delegation(&known.record) else { return BTreeSet::new() };
        let key = (*delegation.publisher(), delegation.sequence());
        self.delegations.entry(key).or_default().insert(known.record.id, Arc::clone(known));
        let floor = self.floors.delegations.entry(key.0).or_default();
        *floor = key.1.max(*floor);
        self.by_epoch.get(&key).cloned().unwrap_or_default()
    }

    /// Notes a head that is held, rightful or not.
    pub(super) fn note(&mut self, record: &Verified<Record>) {
        if let Some(head) = record.body.channel().filter(|head| head.epoch > 0) {
            self.by_epoch.entry((head.publisher, head.epoch)).or_default().insert(record.id);
        }
    }

    /// The delegations of a publisher.
    pub(super) fn delegations(&self, publisher: &PublicKey) -> impl Iterator<Item = &Verified<Record>> {
        let of_it = self.delegations.range((*publisher, 0)..=(*publisher, u64::MAX));
        of_it.flat_map(|(_, same)| same.values().map(|known| &known.record))
    }

    /// The channels of a publisher.
    pub(super) fn of_publisher(&self, publisher: &PublicKey) -> impl Iterator<Item = &ChannelName> {
        self.heads.keys().filter(move |channel| channel.publisher == *publisher)
    }

    /// The heads of a channel that are kept.
    pub(super) fn heads(&self, channel: &ChannelName) -> impl Iterator<Item = RecordId> {
        self.heads.get(channel).into_iter().flat_map(|heads| heads.iter().map(|(_, id)| id))
    }

    /// Looks at a head that is not held yet.
    pub(super) fn arrive(&mut self, known: &Arc<Known>) -> Arrival {
        let Some((channel, position)) = self.place(&known.record) else { return Arrival::Taken };
        let id = known.record.id;
        let heads = self.heads.entry(channel.clone()).or_default();
        if heads.has_room_for(position, id) {
            return Arrival::Taken;
        }
        let there = self.below.entry((channel, position)).or_default();
        let other = there.iter().find(|(other, _)| **other != id).map(|(_, other)| Arc::clone(other));
        if let Some(other) = other {
            let left = heads.clone().put_together([(position, id), (position, other.record.id)]);
            if !left.contains(&id) {
                return Arrival::With(other);
            }
        }
        there.insert(id, Arc::clone(known));
        Arrival::PassedOver
    }

    /// Puts heads in that were taken in together; gives those that are superseded, each to be removed and remembered.
    pub(super) fn put(&mut self, taken: &[Arc<Known>]) -> Vec<RecordId> {
        let places: Vec<_> =
            taken.iter().filter_map(|known| Some((self.place(&known.record)?, known.record.id))).collect();
        // Those that are taken in together are in one place.
        let Some(((channel, position), _)) = places.first() else { return Vec::new() };
        let floor = self.floors.heads.entry(channel.clone()).or_insert(*position);
        *floor = (*floor).max(*position);
        let heads = self.heads.entry(channel.clone()).or_default();
        heads.put_together(places.iter().map(|((_, position), id)| (*position, *id)))
    }

    /// Remembers a head that was superseded.
    pub(super) fn supersede(&mut self, known: Arc<Known>) {
        if let Some(place) = self.place(&known.record) {
            self.below.entry(place).or_default().insert(known.record.id, known);
        }
    }

    /// Forgets a head or a delegation that was evicted.
    pub(super) fn evict(&mut self, record: &Verified<Record>) {
        if let Some(head) = record.body.channel()
            && let Some(heads) = self.by_epoch.get_mut(&(head.publisher, head.epoch))
        {
            heads.remove(&record.id);
        }
        if let Some(delegation) = is_delegation(record)
            && let Some(same) = self.delegations.get_mut(&(*delegation.publisher(), delegation.sequence()))
        {
            same.remove(&record.id);
        }
        if let Some((channel, _)) = self.place(record)
            && let Some(heads) = self.heads.get_mut(&channel)
        {
            heads.take(&record.id);
        }
    }

    /// Channels that contradict themselves.
    pub(super) fn contradictions(&self) -> u64 {
        self.heads.values().filter(|heads| heads.proof().is_some()).count() as u64
    }

    /// The channels of an appliance, with the heads that are kept.
    pub(super) fn of_appliance<'a>(
        &'a self,
        release: &'a rialto_protocol::record::Release,
    ) -> impl Iterator<Item = (&'a ChannelName, impl Iterator<Item = RecordId>)> {
        let channels = self.heads.iter();
        let of_it =
            channels.filter(|(channel, _)| channel.publisher == release.publisher && channel.name == release.name);
        of_it.map(|(channel, heads)| (channel, heads.iter().map(|(_, id)| id)))
    }
}
