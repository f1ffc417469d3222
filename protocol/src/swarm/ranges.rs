//! Sets of chunk indices as ranges: how a holder says what it has, and a fetcher what it wants.

use serde::{Deserialize, Serialize};

use crate::bounded::List;

/// Ranges in one message: 4,096 of them fit a frame of 64 KiB in any case.
pub const MAX_RANGES: usize = 4096;

/// Chunk indices as ascending, separate, non-empty ranges `(first, count)`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "List<(u32, u32), MAX_RANGES>", into = "List<(u32, u32), MAX_RANGES>")]
pub struct Ranges(Vec<(u32, u32)>);

/// Why a list of ranges is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangesError {
    /// Empty, overlapping, touching, descending, or past the last index there can be.
    #[error("chunk ranges that are empty, overlap, touch, descend or overflow")]
    Disorder,
}

impl Ranges {
    /// The fewest ranges that hold these indices, which must ascend; in pieces of at most [`MAX_RANGES`].
    pub fn pieces(ascending: impl IntoIterator<Item = u32>) -> Vec<Ranges> {
        let mut pieces = Vec::new();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for index in ascending {
            match ranges.last_mut() {
                Some((first, count)) if first.checked_add(*count) == Some(index) => *count += 1,
                _ => {
                    if ranges.len() == MAX_RANGES {
                        pieces.push(Ranges(std::mem::take(&mut ranges)));
                    }
                    ranges.push((index, 1));
                }
            }
        }
        if !ranges.is_empty() {
            pieces.push(Ranges(ranges));
        }
        pieces
    }

    /// Number of indices.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|&(_, count)| u64::from(count)).sum()
    }

    /// Number of ranges: what they cost to keep.
    pub fn range_count(&self) -> usize {
        self.0.len()
    }

    /// Whether the index is in one of them.
    pub fn contains(&self, index: u32) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= index);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|&(first, count)| index - first < count)
    }

    /// The indices, ascending, those from `end` on left out. Costs nothing for indices beyond `end`, however many are claimed.
    pub fn indices_below(&self, end: u32) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(move |&(first, count)| first.min(end)..first.saturating_add(count).min(end))
    }
}

impl TryFrom<List<(u32, u32), MAX_RANGES>> for Ranges {
    type Error = RangesError;

    fn try_from(list: List<(u32, u32), MAX_RANGES>) -> Result<Self, RangesError> {
        let mut next_free = Some(0u32);
        for (position, &(first, count)) in list.iter().enumerate() {
            let is_in_order =
                count > 0 && next_free.is_some_and(|free| if position == 0 { first >= free } else { first > free });
            if !is_in_order {
                return Err(RangesError::Disorder);
            }
            next_free = first.checked_add(count);
            if next_free.is_none() {
                return Err(RangesError::Disorder);
            }
        }
        Ok(Self(list.into_vec()))
    }
}

impl From<Ranges> for List<(u32, u32), MAX_RANGES> {
    fn from(ranges: Ranges) -> Self {
        // Every constructor keeps to the bound.
        List::try_from(ranges.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn indices_come_back(indices in prop::collection::btree_set(0u32..10_000, 0..3000)) {
            let mut back = Vec::new();
            for piece in Ranges::pieces(indices.iter().copied()) {
                let bytes = codec::encode(&piece).unwrap();
                let piece: Ranges = codec::decode(&bytes, 1 << 16).unwrap();
                let told: std::collections::BTreeSet<u32> = piece.indices_below(u32::MAX).collect();
                prop_assert!((0..10_000).step_by(7).all(|index| piece.contains(index) == told.contains(&index)));
                back.extend(piece.indices_below(u32::MAX));
            }
            prop_assert_eq!(back, indices.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn hostile_ranges_never_panic(list in prop::collection::vec((any::<u32>(), any::<u32>()), 0..20), end in any::<u16>()) {
            if let Ok(ranges) = Ranges::try_from(List::try_from(list).unwrap()) {
                prop_assert!(ranges.indices_below(end.into()).count() <= end.into());
            }
        }
    }

    #[test]
    fn disorder_is_refused() {
        for bad in [vec![(0, 0)], vec![(5, 2), (3, 1)], vec![(0, 2), (2, 1)], vec![(0, 3), (1, 1)], vec![(u32::MAX, 1)]]
        {
            assert!(Ranges::try_from(List::try_from(bad.clone()).unwrap()).is_err(), "{bad:?}");
        }
        assert!(Ranges::try_from(List::try_from(vec![(0, 2), (3, 1)]).unwrap()).is_ok());
    }
}
