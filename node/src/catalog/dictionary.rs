//! The words that releases are found by, each with the rows that have it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::search::RowNumber;

/// Words that one word of a question can stand for. The others are passed over: a question that so many words answer
/// should have a second word.
const MAX_EXPANDED: usize = 16_384;
/// Rows of a word up to which they are a list. As a bitmap they would take five times the memory, and longer to go through.
const FEW_ROWS: usize = 32;

/// Rows by word. Most words are those of one release only: the others, which are looked up most, are by themselves.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    of_one: BTreeMap<Box<str>, RowNumber>,
    of_many: BTreeMap<Arc<str>, u32>,
    /// The same, found faster: a release has dozens of words.
    numbers: HashMap<Arc<str>, u32>,
    rows: Vec<Rows>,
}

/// The rows of a word.
#[derive(Debug)]
enum Rows {
    /// In ascending order.
    Few(Vec<RowNumber>),
    Many(RoaringBitmap),
}

impl Default for Rows {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Rows {
    /// Of rows in ascending order.
    fn new(mut rows: Vec<RowNumber>) -> Self {
        if rows.len() > FEW_ROWS {
            return Self::Many(rows.into_iter().collect());
        }
        rows.shrink_to_fit();
        Self::Few(rows)
    }

    fn last(&self) -> Option<RowNumber> {
        match self {
            Self::Few(rows) => rows.last().copied(),
            Self::Many(rows) => rows.max(),
        }
    }

    /// Adds a row; none that is there has a higher number. Says whether it was not there.
    fn push(&mut self, row: RowNumber) -> bool {
        debug_assert!(self.last().is_none_or(|last| last <= row), "rows come in order");
        match self {
            Self::Few(rows) if rows.last() == Some(&row) => false,
            Self::Few(rows) => {
                rows.push(row);
                if rows.len() > FEW_ROWS {
                    *self = Self::new(std::mem::take(rows));
                }
                true
            }
            Self::Many(rows) => rows.insert(row),
        }
    }
}

impl Dictionary {
    /// Adds a row to a word; no row that is here has a higher number. Says whether the word did not have it.
    pub(super) fn add(&mut self, word: &str, row: RowNumber) -> bool {
        if let Some(number) = self.numbers.get(word) {
            return self.rows[*number as usize].push(row);
        }
        match self.of_one.entry(word.into()) {
            Entry::Vacant(entry) => drop(entry.insert(row)),
            Entry::Occupied(entry) if *entry.get() == row => return false,
            Entry::Occupied(entry) => {
                let (word, first) = entry.remove_entry();
                self.insert_many(&word, Rows::new(vec![first, row]));
            }
        }
        true
    }

    fn insert_many(&mut self, word: &str, rows: Rows) {
        let word: Arc<str> = word.into();
        let number = self.rows.len() as u32;
        self.of_many.insert(Arc::clone(&word), number);
        self.numbers.insert(word, number);
        self.rows.push(rows);
    }

    /// The rows in which a word begins like this, of as many as there are rows.
    pub(super) fn beginning_with(&self, start: &str, rows: usize) -> RoaringBitmap {
        let behind = behind(start);
        // One letter begins too much: it is a word of its own.
        let last = match start.chars().nth(1) {
            None => Bound::Included(start),
            Some(_) => behind.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
        };
        let range = (Bound::Included(start), last);
        // A bit for each row: words of few rows are many words, whose rows are in no order.
        let (mut few, mut many, mut room) = (vec![0; rows.div_ceil(8)], RoaringBitmap::new(), MAX_EXPANDED);
        let mut set = |row: RowNumber| {
            if let Some(byte) = few.get_mut(row as usize / 8) {
                *byte |= 1 << (row % 8);
            }
        };
        for (_, number) in self.of_many.range::<str, _>(range).take(MAX_EXPANDED) {
            room -= 1;
            match &self.rows[*number as usize] {
                Rows::Few(rows) => rows.iter().copied().for_each(&mut set),
                Rows::Many(rows) => many |= rows,
            }
        }
        self.of_one.range::<str, _>(range).take(room).for_each(|(_, row)| set(*row));
        many | RoaringBitmap::from_lsb0_bytes(0, &few)
    }

    /// The same words of the rows where `places` puts them; those in none are forgotten. What is moved is let go of as it is.
    pub(super) fn moved(self, places: &[RowNumber]) -> Self {
        let place = |row: RowNumber| places.get(row as usize).copied().filter(|place| *place != RowNumber::MAX);
        let Self { of_one, of_many, numbers, rows: mut before } = self;
        drop(numbers);
        let mut of_one: Vec<(Box<str>, RowNumber)> =
            of_one.into_iter().filter_map(|(word, row)| Some((word, place(row)?))).collect();
        let mut moved = Self::default();
        for (word, number) in of_many {
            let mut rows: Vec<RowNumber> = match std::mem::take(&mut before[number as usize]) {
                Rows::Few(rows) => rows.into_iter().filter_map(place).collect(),
                Rows::Many(rows) => rows.into_iter().filter_map(place).collect(),
            };
            rows.sort_unstable();
            match rows[..] {
                [] => {}
                [row] => of_one.push((word.as_ref().into(), row)),
                _ => moved.insert_many(&word, Rows::new(rows)),
            }
        }
        moved.of_one = of_one.into_iter().collect();
        moved
    }
}

/// The first text behind all that begin with this; `None` where there is none.
fn behind(start: &str) -> Option<String> {
    let mut kept = start.chars();
    while let Some(last) = kept.next_back() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            return Some(format!("{}{next}", kept.as_str()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn behind_a_text_is_the_next() {
        assert_eq!(behind("ab").as_deref(), Some("ac"));
        assert_eq!(behind("a\u{d7ff}").as_deref(), Some("a\u{e000}"), "no character lies between");
        assert_eq!(behind("a\u{10ffff}\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(behind("\u{10ffff}"), None);
    }

    proptest! {
        /// Words of one row, of few and of many; numbered anew or not.
        #[test]
        fn what_begins_so_is_what_a_look_through_all_words_finds(
            said in prop::collection::vec(prop::collection::btree_set("[ab]{1,3}|[a\u{10ffff}ü]{1,3}", 0..4), 1..120),
            starts in prop::collection::vec("[ab]{1,3}|[a\u{10ffff}ü]{1,2}", 1..8),
            places in prop::option::of(any::<u64>()),
        ) {
            let mut dictionary = Dictionary::default();
            for (row, words) in (0..).zip(&said) {
                words.iter().for_each(|word| assert!(dictionary.add(word, row) && !dictionary.add(word, row)));
            }
            let mut rows: Vec<RowNumber> = (0..said.len() as RowNumber).collect();
            if let Some(seed) = places {
                // Some rows are gone, and the others change their places.
                let place = |row: RowNumber| (u64::from(row) * 7 + seed) % said.len() as u64;
                let mut kept: Vec<RowNumber> = rows.iter().copied().filter(|row| place(*row) % 3 != 0).collect();
                kept.sort_by_key(|row| (place(*row), *row));
                rows = vec![RowNumber::MAX; said.len()];
                (0..).zip(kept).for_each(|(place, row)| rows[row as usize] = place);
                dictionary = dictionary.moved(&rows);
            }
            for start in &starts {
                let fits = |word: &String| if start.chars().nth(1).is_some() { word.starts_with(start) } else { word == start };
                let expected: RoaringBitmap = said
                    .iter()
                    .zip(&rows)
                    .filter(|(words, row)| **row != RowNumber::MAX && words.iter().any(fits))
                    .map(|(_, row)| *row)
                    .collect();
                prop_assert_eq!(dictionary.beginning_with(start, said.len()), expected, "{:?}", start);
            }
        }
    }
}
