//! Bounded memories of what is not in the catalog: versions that were merged or refused, and superseded heads.

use std::collections::{BTreeMap, VecDeque};

use rialto_protocol::channel::{ChannelName, Position};
use rialto_protocol::ids::{Hash, RecordId};
use rialto_protocol::record::Record;
use rialto_protocol::signed::Verified;
use rialto_protocol::sync::Beginning;

use super::log::Frame;

/// Ids of versions that a version with more signatures replaced, and ids not taken for now; the oldest are forgotten first.
const MAX_REMEMBERED: usize = 16_384;
/// Superseded heads that are remembered, so that one that contradicts such a head is noticed; the oldest are forgotten
/// first. A head has about 600 bytes.
const MAX_SUPERSEDED_HEADS: usize = 4_096;
/// A head with more signatures than this takes is not worth remembering.
const MAX_SUPERSEDED_BYTES: usize = 4_096;

/// What is remembered of a superseded head: all of it, so that it can be put beside one that contradicts it.
#[derive(Debug, Clone)]
pub(super) struct Remains {
    record: Verified<Record>,
}

impl Remains {
    pub(super) fn of(record: &Verified<Record>) -> Self {
        Self { record: record.clone() }
    }

    /// Appends its frames: in the log, a head that comes and goes at once. Who brought it does not matter any more. Gives the
    /// number of their bytes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> u64 {
        let bytes = Frame::encode_record(Some("?"), &[], self.record.envelope().encoded(), out);
        bytes + Frame::Evicted { sync_id: self.record.sync_id(), signers: Vec::new() }.encode(out)
    }
}

/// A bounded memory of superseded heads, which the log keeps as well.
#[derive(Debug, Default)]
pub(super) struct Below {
    heads: BTreeMap<(ChannelName, Position), BTreeMap<RecordId, (Remains, u64)>>,
    order: VecDeque<(ChannelName, Position, RecordId)>,
    /// Bytes that they take in a log.
    bytes: u64,
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
        there.iter().find(|(other, _)| **other != id).map(|(_, (remains, _))| remains.record.clone())
    }

    /// Bytes that they take in a log.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All of them, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Remains> {
        let found = self.order.iter().filter_map(|(channel, position, id)| {
            self.heads.get(&(channel.clone(), *position)).and_then(|there| there.get(id))
        });
        found.map(|(remains, _)| remains)
    }

    /// Remembers a head; `false` where it is remembered already, or not worth it.
    pub(super) fn insert(&mut self, channel: ChannelName, position: Position, remains: Remains) -> bool {
        if remains.record.envelope().encoded().len() > MAX_SUPERSEDED_BYTES {
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
pub(super) struct Remembered<T> {
    values: BTreeMap<Hash, T>,
    order: VecDeque<Hash>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { values: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<T> Remembered<T> {
    /// What is remembered of the ids that begin so.
    pub(super) fn fitting(&self, id: &Beginning) -> impl Iterator<Item = &T> {
        self.values.range(id.range()).map(|(_, value)| value)
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
