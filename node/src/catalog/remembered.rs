//! Bounded memories of what is not in the catalog: versions that were merged or refused, and superseded heads.

use std::collections::{BTreeMap, HashMap, VecDeque};

use rialto_protocol::channel::{ChannelName, Position};
use rialto_protocol::ids::{Hash, RecordId};
use rialto_protocol::record::Record;
use rialto_protocol::signed::Verified;

/// Ids of versions that a version with more signatures replaced, and ids not taken for now; the oldest are forgotten first.
const MAX_REMEMBERED: usize = 16_384;
/// Superseded heads that are remembered, so that one that contradicts such a head is noticed; the oldest are forgotten
/// first. A head has about 600 bytes.
const MAX_SUPERSEDED_HEADS: usize = 4_096;
/// A head with more signatures than this takes is not worth remembering.
const MAX_SUPERSEDED_BYTES: usize = 4_096;

/// A bounded memory of superseded heads.
#[derive(Debug, Default)]
pub(super) struct Below {
    heads: BTreeMap<(ChannelName, Position), BTreeMap<RecordId, Verified<Record>>>,
    order: VecDeque<(ChannelName, Position, RecordId)>,
}

impl Below {
    /// A remembered head in this place that is another one.
    pub(super) fn contradicting(
        &self,
        channel: &ChannelName,
        position: Position,
        id: RecordId,
    ) -> Option<Verified<Record>> {
        let there = self.heads.get(&(channel.clone(), position))?;
        there.iter().find(|(other, _)| **other != id).map(|(_, record)| record.clone())
    }

    pub(super) fn insert(&mut self, channel: ChannelName, position: Position, record: Verified<Record>) {
        if record.envelope().encode().len() > MAX_SUPERSEDED_BYTES {
            return;
        }
        let (id, place) = (record.id, (channel, position));
        if self.heads.entry(place.clone()).or_default().insert(id, record).is_none() {
            self.order.push_back((place.0, place.1, id));
        }
        while self.order.len() > MAX_SUPERSEDED_HEADS {
            let Some((channel, position, id)) = self.order.pop_front() else { break };
            let place = (channel, position);
            if let Some(there) = self.heads.get_mut(&place) {
                there.remove(&id);
                if there.is_empty() {
                    self.heads.remove(&place);
                }
            }
        }
    }
}

/// A bounded memory of ids; the oldest are forgotten first.
#[derive(Debug)]
pub(super) struct Remembered<T> {
    values: HashMap<Hash, T>,
    order: VecDeque<Hash>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { values: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Remembered<T> {
    pub(super) fn get(&self, id: &Hash) -> Option<&T> {
        self.values.get(id)
    }

    pub(super) fn remove(&mut self, id: &Hash) {
        if self.values.remove(id).is_some() {
            self.order.retain(|other| other != id);
        }
    }

    pub(super) fn insert(&mut self, id: Hash, value: T) {
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
