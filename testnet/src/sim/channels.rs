//! Heads of channels at a simulated site: the rules of the node's catalog, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use rialto_protocol::channel::{ChannelName, Heads, Position, rightful};
use rialto_protocol::ids::RecordId;
use rialto_protocol::record::Record;
use rialto_protocol::signed::Verified;

use super::site::Known;

/// The heads that a site keeps, and those that it has seen below them.
#[derive(Debug, Default)]
pub(super) struct Channels {
    heads: BTreeMap<ChannelName, Heads>,
    below: BTreeMap<(ChannelName, Position), BTreeMap<RecordId, Arc<Known>>>,
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

/// The channel of a head, and its place in it, where its publisher signed it. Nobody delegates here.
pub(super) fn place(record: &Verified<Record>) -> Option<(ChannelName, Position)> {
    let channel = ChannelName::from(record.body.channel()?);
    let no_delegations: [&Verified<Record>; 0] = [];
    Some((channel, rightful(record, &no_delegations).ok()?))
}

impl Channels {
    /// Looks at a head that is not held yet.
    pub(super) fn arrive(&mut self, known: &Arc<Known>) -> Arrival {
        let Some((channel, position)) = place(&known.record) else { return Arrival::Taken };
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
        let places: Vec<_> = taken.iter().filter_map(|known| Some((place(&known.record)?, known.record.id))).collect();
        // Those that are taken in together are in one place.
        let Some(((channel, _), _)) = places.first() else { return Vec::new() };
        let heads = self.heads.entry(channel.clone()).or_default();
        heads.put_together(places.iter().map(|((_, position), id)| (*position, *id)))
    }

    /// Remembers a head that was superseded.
    pub(super) fn supersede(&mut self, known: Arc<Known>) {
        if let Some(place) = place(&known.record) {
            self.below.entry(place).or_default().insert(known.record.id, known);
        }
    }

    /// Forgets a head that was evicted.
    pub(super) fn evict(&mut self, record: &Verified<Record>) {
        if let Some((channel, _)) = place(record)
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
