//! What a set comes to, kept up to date item by item: its first coded symbols, and a digest that two sets share only where they
//! are equal.

use std::sync::Arc;

use super::name::ShortId;
use super::symbol::{Item, Symbol};

/// Symbols that a site has of its records at most, in 0.8 MB: they find up to about 24,000 differences.
pub(super) const MAX_SYMBOLS: usize = 1 << 15;
/// Symbols of a small set.
const MIN_SYMBOLS: usize = 64;
/// Symbols that are kept for each item, where that is within these bounds: two sets differ by no more than both hold.
const SYMBOLS_PER_ITEM: usize = 4;
/// Symbols that are copied at once where two copies of a sketch begin to differ.
const RUN: usize = 512;

/// The sketch of a set. A clone shares everything with the original; what changes in either afterwards is copied by runs of
/// 512 symbols.
#[derive(Debug, Clone, Default)]
pub(super) struct Sketch {
    /// All of 512 symbols, but for the last.
    runs: Vec<Arc<Vec<Symbol>>>,
    digest: Digest,
}

impl Sketch {
    /// Symbols that should be kept of so many items.
    pub(super) fn symbols_for(items: usize) -> usize {
        items.saturating_mul(SYMBOLS_PER_ITEM).clamp(MIN_SYMBOLS, MAX_SYMBOLS).next_power_of_two()
    }

    /// Number of symbols.
    pub(super) fn len(&self) -> usize {
        self.runs.last().map_or(0, |last| (self.runs.len() - 1) * RUN + last.len())
    }

    /// The first symbols from this one on.
    pub(super) fn symbols_from(&self, first: usize) -> impl Iterator<Item = &Symbol> {
        self.runs.iter().skip(first / RUN).flat_map(|run| run.iter()).skip(first % RUN)
    }

    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(super) fn insert(&mut self, id: &ShortId) {
        self.digest.add(id);
        let end = self.len();
        self.each(id, 0..end, Symbol::add);
    }

    pub(super) fn remove(&mut self, id: &ShortId) {
        self.digest.subtract(id);
        let end = self.len();
        self.each(id, 0..end, Symbol::remove);
    }

    /// Makes more symbols, given all that was inserted.
    pub(super) fn extend(&mut self, to: usize, ids: impl Iterator<Item = ShortId>) {
        let from = self.len();
        if to <= from {
            return;
        }
        for start in (from / RUN * RUN..to).step_by(RUN) {
            if start / RUN == self.runs.len() {
                self.runs.push(Arc::default());
            }
            Arc::make_mut(&mut self.runs[start / RUN]).resize(RUN.min(to - start), Symbol::default());
        }
        ids.for_each(|id| self.each(&id, from..to, Symbol::add));
    }

    /// Changes the symbols that an item is in.
    fn each(&mut self, id: &ShortId, symbols: std::ops::Range<usize>, change: impl Fn(&mut Symbol, &Item)) {
        let item = Item::new(id);
        let mut places = item.places();
        let mut next = places.next_below(symbols.end);
        while next.is_some_and(|place| place < symbols.start) {
            next = places.next_below(symbols.end);
        }
        while let Some(first) = next {
            let number = first / RUN;
            let run = Arc::make_mut(&mut self.runs[number]);
            while let Some(place) = next.filter(|place| place / RUN == number) {
                change(&mut run[place % RUN], &item);
                next = places.next_below(symbols.end);
            }
        }
    }
}

/// The sum of a hash of each item, in 16 lanes modulo 2⁶⁴, as LtHash has it (Bellare and Micciancio, 1997). The symbols
/// alone are no proof: whoever makes a few hundred records finds some among them whose symbols cancel out. Here, with
/// the million of records that a site may hold, nobody finds two sets that have the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Digest([u64; Self::LANES]);

impl Digest {
    const LANES: usize = 16;

    pub(super) fn add(&mut self, id: &ShortId) {
        self.change(id, u64::wrapping_add);
    }

    pub(super) fn subtract(&mut self, id: &ShortId) {
        self.change(id, u64::wrapping_sub);
    }

    /// What stands for it: its hash.
    pub(super) fn summary(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        self.0.iter().for_each(|lane| {
            hasher.update(&lane.to_be_bytes());
        });
        *hasher.finalize().as_bytes()
    }

    fn change(&mut self, id: &ShortId, change: impl Fn(u64, u64) -> u64) {
        let mut bytes = [0; Self::LANES * size_of::<u64>()];
        blake3::Hasher::new().update(&id.0).finalize_xof().fill(&mut bytes);
        for (lane, bytes) in self.0.iter_mut().zip(bytes.as_chunks().0) {
            *lane = change(*lane, u64::from_be_bytes(*bytes));
        }
    }
}
