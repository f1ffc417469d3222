//! What a site holds, as reconciliation walks through it: in order, at any size, with a copy for each session that costs
//! next to nothing.

use std::sync::Arc;

use negentropy::{Bound, Error, Id, Item, NegentropyStorageBase};

use super::message::Summary;
use super::name::ShortId;
use super::sketch::{MAX_SYMBOLS, Sketch};
use super::symbol::{Side, Symbol};
use crate::UnixSeconds;
use crate::ids::Hash;

/// Items of a run where it is cut in two.
const MAX_RUN: usize = 1_024;
/// Items of a run that is made at once, so that there is room for more.
const NEW_RUN: usize = 768;

/// Sync ids and the times of their records, in order. A clone shares everything with the original; what changes in either
/// afterwards is copied by runs of at most 1,024. 40 bytes an item, and up to 0.8 MB of coded symbols.
#[derive(Debug, Clone, Default)]
pub struct SyncSet {
    runs: Arc<Vec<Run>>,
    length: usize,
    sketch: Sketch,
}

/// Items that follow each other; never none.
#[derive(Debug, Clone)]
struct Run {
    /// How many there are before it.
    start: usize,
    items: Arc<Vec<Item>>,
}

impl SyncSet {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The time and sync id of each, in order.
    pub fn iter(&self) -> impl Iterator<Item = (UnixSeconds, Hash)> {
        self.walk_from(0).map(|item| (item.timestamp, Hash(*item.id)))
    }

    /// What all of it comes to.
    pub fn summary(&self) -> Summary {
        // Nobody has more records than this.
        let count = u32::try_from(self.length).unwrap_or(u32::MAX);
        Summary { count, digest: self.sketch.digest().summary() }
    }

    /// Sees to it that there are so many symbols, or as many as there can be.
    pub(super) fn keep_symbols(&mut self, symbols: usize) {
        let runs = Arc::clone(&self.runs);
        let ids = runs.iter().flat_map(|run| run.items.iter()).map(short_id);
        self.sketch.extend(symbols.next_power_of_two().min(MAX_SYMBOLS), ids);
    }

    /// The coded symbols from this one on.
    pub(super) fn symbols_from(&self, first: usize) -> impl Iterator<Item = &Symbol> {
        self.sketch.symbols_from(first)
    }

    /// Whether a set with what is theirs of this, and without what is ours, comes to that.
    pub(super) fn differs_by(&self, theirs: &Summary, differences: &[(Side, ShortId)]) -> bool {
        let (mut digest, mut count) = (self.sketch.digest().clone(), self.length);
        for (side, id) in differences {
            match side {
                Side::Theirs => {
                    digest.add(id);
                    count += 1;
                }
                Side::Ours => {
                    digest.subtract(id);
                    count = count.wrapping_sub(1);
                }
            }
        }
        count == theirs.count as usize && digest.summary() == theirs.digest
    }

    /// Puts a version of a record in: its `issued` and its sync id. Says whether it was not there before.
    pub fn insert(&mut self, issued: UnixSeconds, id: Hash) -> bool {
        let item = item(issued, id);
        let at = self.run_of(&item);
        let runs = Arc::make_mut(&mut self.runs);
        let Some(run) = runs.get_mut(at) else {
            runs.push(Run { start: 0, items: Arc::new(vec![item]) });
            self.length = 1;
            self.came(&item);
            return true;
        };
        let Err(place) = run.items.binary_search(&item) else { return false };
        let items = Arc::make_mut(&mut run.items);
        items.insert(place, item);
        let cut = (items.len() > MAX_RUN).then(|| {
            // At the end things are put behind each other, as they come: what is full there stays full.
            let middle = if place + 1 == items.len() { NEW_RUN } else { items.len() / 2 };
            let rest = items.split_off(middle);
            Run { start: run.start + middle, items: Arc::new(rest) }
        });
        if let Some(rest) = cut {
            runs.insert(at + 1, rest);
        }
        self.count_from(at);
        self.came(&item);
        true
    }

    /// Takes a version of a record out. Says whether it was there.
    pub fn remove(&mut self, issued: UnixSeconds, id: Hash) -> bool {
        let item = item(issued, id);
        let at = self.run_of(&item);
        let Some(Ok(place)) = self.runs.get(at).map(|run| run.items.binary_search(&item)) else { return false };
        let runs = Arc::make_mut(&mut self.runs);
        let items = Arc::make_mut(&mut runs[at].items);
        items.remove(place);
        if items.is_empty() {
            runs.remove(at);
        }
        self.count_from(at);
        self.sketch.remove(&short_id(&item));
        true
    }

    /// Sums up what was put in.
    fn came(&mut self, item: &Item) {
        self.sketch.insert(&short_id(item));
        let symbols = Sketch::symbols_for(self.length);
        if symbols > self.sketch.len() {
            self.keep_symbols(symbols);
        }
    }

    /// The run that this item is in, or would be put into.
    fn run_of(&self, item: &Item) -> usize {
        self.runs.partition_point(|run| run.items.first() <= Some(item)).saturating_sub(1)
    }

    /// Counts again, from this run on.
    fn count_from(&mut self, at: usize) {
        let runs = Arc::make_mut(&mut self.runs);
        let mut start = at.checked_sub(1).and_then(|before| runs.get(before)).map_or(0, Run::end);
        for run in runs.iter_mut().skip(at) {
            run.start = start;
            start = run.end();
        }
        self.length = start;
    }

    /// The item at a place, and those behind it.
    fn walk_from(&self, place: usize) -> impl Iterator<Item = &Item> {
        let at = self.runs.partition_point(|run| run.end() <= place);
        let skipped = self.runs.get(at).map_or(0, |run| place.saturating_sub(run.start));
        self.runs.iter().skip(at).flat_map(|run| run.items.iter()).skip(skipped)
    }
}

impl Run {
    fn end(&self) -> usize {
        self.start + self.items.len()
    }
}

fn short_id(item: &Item) -> ShortId {
    ShortId::from(&Hash(*item.id))
}

/// The largest time means 'no bound' on the wire.
fn item(issued: UnixSeconds, id: Hash) -> Item {
    Item::with_timestamp_and_id(issued.min(UnixSeconds::MAX - 1), Id::from_byte_array(id.0))
}

impl FromIterator<(UnixSeconds, Hash)> for SyncSet {
    /// Takes each record's `issued` and sync id, in any order.
    fn from_iter<I: IntoIterator<Item = (UnixSeconds, Hash)>>(items: I) -> Self {
        let mut items: Vec<Item> = items.into_iter().map(|(issued, id)| item(issued, id)).collect();
        items.sort_unstable();
        items.dedup();
        let mut sketch = Sketch::default();
        sketch.extend(Sketch::symbols_for(items.len()), std::iter::empty());
        items.iter().for_each(|item| sketch.insert(&short_id(item)));
        let runs = items.chunks(NEW_RUN).zip((0..).step_by(NEW_RUN));
        let runs = runs.map(|(items, start)| Run { start, items: Arc::new(items.to_vec()) });
        Self { runs: Arc::new(runs.collect()), length: items.len(), sketch }
    }
}

impl NegentropyStorageBase for SyncSet {
    fn size(&self) -> Result<usize, Error> {
        Ok(self.length)
    }

    fn get_item(&self, i: usize) -> Result<Option<Item>, Error> {
        Ok(self.walk_from(i).next().copied())
    }

    fn iterate(
        &self,
        begin: usize,
        end: usize,
        each: &mut dyn FnMut(Item, usize) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        if begin > end || end > self.length {
            return Err(Error::BadRange);
        }
        for (item, place) in self.walk_from(begin).zip(begin..end) {
            if !each(*item, place)? {
                break;
            }
        }
        Ok(())
    }

    fn find_lower_bound(&self, first: usize, last: usize, value: &Bound) -> usize {
        let before = |item: &Item| *item < value.item;
        let run = self.runs.partition_point(|run| run.items.last().is_some_and(before));
        let found = self.runs.get(run).map_or(self.length, |run| run.start + run.items.partition_point(before));
        found.clamp(first, last.max(first))
    }
}

#[cfg(test)]
mod tests {
    use negentropy::NegentropyStorageVector;
    use proptest::prelude::*;

    use super::*;

    fn id(number: u16) -> Hash {
        Hash::of(&number.to_be_bytes())
    }

    /// The same items, as the crate keeps them itself.
    fn reference(items: &std::collections::BTreeSet<(u64, u16)>) -> NegentropyStorageVector {
        let mut vector = NegentropyStorageVector::new();
        for (issued, number) in items {
            vector.insert(*issued, Id::from_byte_array(id(*number).0)).unwrap();
        }
        vector.seal().unwrap();
        vector
    }

    fn walk(storage: &impl NegentropyStorageBase, begin: usize, end: usize, most: usize) -> Vec<(Item, usize)> {
        let mut seen = Vec::new();
        storage
            .iterate(begin, end, &mut |item, place| {
                seen.push((item, place));
                Ok(seen.len() < most)
            })
            .unwrap();
        seen
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// However items come and go, in ascending order or not, a session sees what the crate's own storage would show.
        #[test]
        fn it_is_what_the_plain_storage_is(
            first in prop::collection::btree_set((0u64..40, any::<u16>()), 0..3_000),
            // Many behind each other, as they come while a node runs.
            ascending in 0u64..3_000,
            commands in prop::collection::vec((any::<bool>(), 0u64..40, any::<u16>()), 0..400),
            questions in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u64..50), 1..20),
        ) {
            let mut model = first;
            let mut set: SyncSet = model.iter().map(|(issued, number)| (*issued, id(*number))).collect();
            let untouched = set.clone();
            let before = model.clone();
            for number in 0..ascending {
                let item = (40 + number / 3, number as u16);
                prop_assert_eq!(set.insert(item.0, id(item.1)), model.insert(item));
            }
            let mut commands = commands;
            // Some of what is there goes, too.
            commands.extend(before.iter().step_by(3).map(|(issued, number)| (false, *issued, *number)));
            for (comes, issued, number) in commands {
                if comes {
                    prop_assert_eq!(set.insert(issued, id(number)), model.insert((issued, number)));
                } else {
                    prop_assert_eq!(set.remove(issued, id(number)), model.remove(&(issued, number)));
                }
            }
            for (set, model) in [(&set, &model), (&untouched, &before)] {
                let reference = reference(model);
                prop_assert_eq!(set.len(), model.len());
                // What is kept up to date is what is made at once.
                let made: SyncSet = model.iter().map(|(issued, number)| (*issued, id(*number))).collect();
                prop_assert_eq!(set.summary(), made.summary());
                prop_assert!(set.sketch.len() >= made.sketch.len() && made.sketch.len() >= made.len().min(MAX_SYMBOLS));
                prop_assert!(set.symbols_from(0).zip(made.symbols_from(0)).all(|(one, other)| one == other));
                let places = [0, 1, 511, 512, 700, set.sketch.len()];
                let left = |place: &usize| set.sketch.len().saturating_sub(*place);
                prop_assert!(places.iter().all(|place| set.symbols_from(*place).count() == left(place)));
                prop_assert!(set.runs.iter().all(|run| (1..=MAX_RUN).contains(&run.items.len())));
                prop_assert_eq!(walk(set, 0, set.len(), usize::MAX), walk(&reference, 0, set.len(), usize::MAX));
                for (one, other, issued) in &questions {
                    let (one, other) = (one.index(set.len() + 1), other.index(set.len() + 1));
                    let (begin, end) = (one.min(other), one.max(other));
                    prop_assert_eq!(walk(set, begin, end, 7), walk(&reference, begin, end, 7));
                    prop_assert_eq!(set.get_item(begin).unwrap(), reference.get_item(begin).unwrap());
                    prop_assert_eq!(
                        set.fingerprint(begin, end).unwrap().to_bytes(), reference.fingerprint(begin, end).unwrap().to_bytes()
                    );
                    for bound in [
                        Bound::with_timestamp(*issued),
                        Bound::with_timestamp_and_id(*issued, [*issued as u8 * 5, 9]).unwrap(),
                    ] {
                        prop_assert_eq!(
                            set.find_lower_bound(begin, end, &bound), reference.find_lower_bound(begin, end, &bound)
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_range_that_is_none_is_refused() {
        let set: SyncSet = [(1, id(1))].into_iter().collect();
        for (begin, end) in [(1, 0), (0, 2)] {
            assert!(set.iterate(begin, end, &mut |_, _| Ok(true)).is_err());
        }
    }
}
