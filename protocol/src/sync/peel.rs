//! Reads off, from coded symbols of two sets, what is in one of them only.

use std::collections::BTreeSet;

use super::name::ShortId;
use super::symbol::{Item, Places, Side, Symbol};

/// Symbols that the number of differences is estimated from: beyond, most hold none.
const ESTIMATED_FROM: usize = 512;

/// The symbols of the peer less our own, with what was read off them so far.
///
/// What it costs is bounded by the symbols: each gives one item at most, and an item is in about 2 log₂ of them.
#[derive(Debug, Default)]
pub(super) struct Peeler {
    symbols: Vec<Symbol>,
    found: Vec<Found>,
    /// What was found, to notice where it comes again.
    seen: BTreeSet<ShortId>,
    is_garbled: bool,
    /// What the peer has more than we, in all.
    net: i32,
    /// Of the first symbols, the squares of how far they are from their share of `net`, each by what one difference adds.
    spread: f64,
}

#[derive(Debug)]
struct Found {
    side: Side,
    item: Item,
    /// The symbols that it was not taken out of, because they have not come yet.
    places: Places,
}

impl Peeler {
    /// Number of symbols that came.
    pub(super) fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Takes the next symbols of each side, and reads off what they give.
    pub(super) fn extend(&mut self, symbols: impl Iterator<Item = (Symbol, Symbol)>) {
        let first = self.symbols.len();
        for (theirs, ours) in symbols {
            self.push(theirs.minus(&ours));
        }
        for found in &mut self.found {
            while let Some(place) = found.places.next_below(self.symbols.len()) {
                take_out(&mut self.symbols[place], found.side, &found.item);
            }
        }
        self.peel((first..self.symbols.len()).rev().collect());
    }

    /// Whether everything was read off.
    pub(super) fn is_done(&self) -> bool {
        !self.is_garbled && self.symbols.first().is_some_and(Symbol::is_empty)
    }

    /// Whether these are no symbols of a set, or of one that was made to garble them.
    pub(super) fn is_garbled(&self) -> bool {
        self.is_garbled
    }

    /// What was found, in no order.
    pub(super) fn found(&self) -> impl Iterator<Item = (Side, ShortId)> {
        self.found.iter().map(|found| (found.side, found.item.id()))
    }

    /// About how many differences there are, from the symbols as they came: exactly as many where all are on one side, and
    /// otherwise with a deviation of a factor of √(2 / symbols).
    pub(super) fn estimate(&self) -> usize {
        let net = self.net.unsigned_abs() as usize;
        let terms = self.symbols.len().min(ESTIMATED_FROM).saturating_sub(1);
        // Below, saturating: a liar's count may be anything.
        let spread = if terms == 0 { 0 } else { (self.spread / terms as f64).ceil() as usize };
        net.max(spread).max(self.found.len())
    }

    fn push(&mut self, symbol: Symbol) {
        let number = self.symbols.len();
        if number == 0 {
            self.net = symbol.count();
        } else if number < ESTIMATED_FROM {
            // A difference is in it with this probability: a variance of p (1 - p).
            let probability = 2.0 / (number as f64 + 2.0);
            let beside = f64::from(symbol.count()) - f64::from(self.net) * probability;
            self.spread += beside * beside / (probability * (1.0 - probability));
        }
        self.symbols.push(symbol);
    }

    /// Reads off what is alone in one of these symbols, and then in those that it is taken out of.
    fn peel(&mut self, mut candidates: Vec<usize>) {
        while let Some(candidate) = candidates.pop() {
            let Some((side, item)) = self.symbols[candidate].single() else { continue };
            // Of the symbols of two sets, each item is read off once, and each symbol is used up by one.
            if !self.seen.insert(item.id()) || self.seen.len() > self.symbols.len() {
                self.is_garbled = true;
                return;
            }
            let mut places = item.places();
            while let Some(place) = places.next_below(self.symbols.len()) {
                take_out(&mut self.symbols[place], side, &item);
                candidates.push(place);
            }
            self.found.push(Found { side, item, places });
        }
    }
}

fn take_out(symbol: &mut Symbol, side: Side, item: &Item) {
    match side {
        Side::Theirs => symbol.remove(item),
        // It counts down there.
        Side::Ours => symbol.add(item),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Hash;
    use crate::sync::SyncSet;
    use crate::sync::sketch::MAX_SYMBOLS;

    fn id(number: u32) -> Hash {
        Hash::of(&number.to_be_bytes())
    }

    fn set(numbers: impl Iterator<Item = u32>) -> SyncSet {
        let mut set: SyncSet = numbers.map(|number| (1, id(number))).collect();
        set.keep_symbols(MAX_SYMBOLS);
        set
    }

    /// Reads off these many symbols, in batches of some size.
    fn peeled(theirs: &SyncSet, ours: &SyncSet, symbols: usize, batch: usize) -> Peeler {
        let mut peeler = Peeler::default();
        let mut pairs = theirs.symbols_from(0).copied().zip(ours.symbols_from(0).copied()).take(symbols);
        while peeler.len() < symbols {
            peeler.extend(pairs.by_ref().take(batch));
        }
        peeler
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Twice the symbols that it takes on average, and some more for few differences: hardly ever too few.
        #[test]
        fn what_is_in_one_set_only_is_found(
            common in 0u32..3_000, ours in 0u32..400, theirs in 0u32..400, batch in 1usize..2_000,
        ) {
            let only_theirs = common + ours..common + ours + theirs;
            let differences = (ours + theirs) as usize;
            let our_set = set(0..common + ours);
            let their_set = set((0..common).chain(only_theirs.clone()));
            let peeler = peeled(&their_set, &our_set, 3 * differences + 100, batch);
            prop_assert!(peeler.is_done() && !peeler.is_garbled());
            let mut found: Vec<_> = peeler.found().collect();
            found.sort_by_key(|(_, id)| *id);
            let of = |numbers: std::ops::Range<u32>, side| numbers.map(move |number| (side, ShortId::from(&id(number))));
            let mut expected: Vec<_> = of(common..common + ours, Side::Ours).chain(of(only_theirs, Side::Theirs)).collect();
            expected.sort_by_key(|(_, id)| *id);
            prop_assert_eq!(&found, &expected);
            prop_assert!(our_set.differs_by(&their_set.summary(), &found));
            if let Some((_, all_but_one)) = found.split_first() {
                prop_assert!(!our_set.differs_by(&their_set.summary(), all_but_one));
            }
        }

        /// Whatever symbols say, each gives one item at most.
        #[test]
        fn symbols_of_no_set_cost_no_more_than_there_are(numbers in prop::collection::vec((any::<u32>(), 0u32..3), 1..400)) {
            let mut peeler = Peeler::default();
            // Symbols of one item each, which is in others, too, or is not.
            let symbol = |(number, times): (u32, u32)| {
                let item = Item::new(&ShortId::from(&id(number % 50)));
                let mut symbol = Symbol::default();
                (0..times).for_each(|_| symbol.add(&item));
                (symbol, Symbol::default())
            };
            peeler.extend(numbers.iter().copied().map(symbol));
            prop_assert!(peeler.found().count() <= peeler.len());
            prop_assert!(peeler.estimate() < 1 << 20);
        }
    }

    #[test]
    fn differences_are_estimated_from_few_symbols() {
        for (ours, theirs) in [(0, 1), (0, 1_000), (20_000, 0), (500, 500), (3_000, 1_000)] {
            let (common, differences) = (5_000, f64::from(ours + theirs));
            let our_set = set(0..common + ours);
            let their_set = set((0..common).chain(common + ours..common + ours + theirs));
            let estimate = peeled(&their_set, &our_set, 32, 32).estimate() as f64;
            let is_one_sided = ours == 0 || theirs == 0;
            assert!(!is_one_sided || estimate >= differences, "{estimate} of {differences}");
            assert!((0.5..2.0).contains(&(estimate / differences)), "{estimate} of {differences}");
        }
    }
}
