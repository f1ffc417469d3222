//! The heads of one channel that are worth keeping: the highest, and a proof where two contradict each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::RecordId;

/// A head's place among those of its channel. A later epoch is above every sequence of the ones before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The sequence of the delegation that it is signed under; 0 for the publisher's own key.
    pub epoch: u64,
    /// Order within the epoch.
    pub sequence: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}

/// The rightful heads of one channel, at most three: the highest one, and of the highest place where two rightful heads
/// say different things, the two with the lowest ids.
///
/// Two heads in one place are a contradiction: whoever signed them lied, or lost the keys. The proof is kept whatever comes
/// after, and every site that has seen the same heads keeps the same two, however they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heads(BTreeMap<Position, BTreeSet<RecordId>>);

impl Heads {
    /// The place of the highest head.
    pub fn highest(&self) -> Option<Position> {
        self.0.last_key_value().map(|(position, _)| *position)
    }

    /// The highest head; `None` where there is none, or two contradict each other there.
    pub fn head(&self) -> Option<RecordId> {
        let (_, heads) = self.0.last_key_value()?;
        heads.first().copied().filter(|_| heads.len() == 1)
    }

    /// The contradiction in the highest place that has one.
    pub fn proof(&self) -> Option<(Position, [RecordId; 2])> {
        self.0.iter().rev().find_map(|(position, heads)| {
            let mut heads = heads.iter();
            Some((*position, [*heads.next()?, *heads.next()?]))
        })
    }

    /// All that is kept, the lowest place first.
    pub fn iter(&self) -> impl Iterator<Item = (Position, RecordId)> {
        self.0.iter().flat_map(|(position, heads)| heads.iter().map(|head| (*position, *head)))
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a head there would be kept.
    pub fn has_room_for(&self, position: Position, id: RecordId) -> bool {
        let mut then = self.clone();
        !then.put(position, id).contains(&id)
    }

    /// Puts a rightful head in; gives those that leave for it, which may be itself.
    pub fn put(&mut self, position: Position, id: RecordId) -> Vec<RecordId> {
        self.put_together([(position, id)])
    }

    /// Puts several in at once, so that two that contradict each other are seen together also where a higher head is
    /// known; gives those that leave.
    pub fn put_together(&mut self, heads: impl IntoIterator<Item = (Position, RecordId)>) -> Vec<RecordId> {
        for (position, id) in heads {
            self.0.entry(position).or_default().insert(id);
        }
        self.settle()
    }

    /// Takes a head out, where it is there.
    pub fn take(&mut self, id: &RecordId) {
        self.0.retain(|_, heads| {
            heads.remove(id);
            !heads.is_empty()
        });
    }

    fn settle(&mut self) -> Vec<RecordId> {
        let mut left = Vec::new();
        let highest = self.highest();
        let proof = self.proof().map(|(position, _)| position);
        self.0.retain(|position, heads| {
            let kept = match () {
                () if proof == Some(*position) => 2,
                () if highest == Some(*position) => 1,
                () => 0,
            };
            while heads.len() > kept {
                left.extend(heads.pop_last());
            }
            !heads.is_empty()
        });
        left
    }
}
