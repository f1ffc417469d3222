//! Coded symbols of a set: an endless sequence, of which as many tell two sets apart as their differences take, times about
//! 1.4, however large the sets are (Yang, Gilad and Alizadeh, "Practical Rateless Set Reconciliation", SIGCOMM 2024).
//!
//! Symbol 0 sums up every item, and symbol `i` each with probability 1 / (1 + i/2). The symbols of two sets, subtracted, are
//! those of their difference; where only one item is left in a symbol, it can be read off, and taken out of the others.

use super::name::ShortId;

/// Some items of a set, summed up. 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Symbol {
    /// The items, combined by exclusive or.
    sum: [u64; 2],
    /// Their checksums, likewise: those of one item alone are the checksum of the sum.
    check: u32,
    /// How many there are, modulo 2³². In a difference, those of one side count up and those of the other down; on the
    /// wire, what is [expected](Symbol::less_expected) is taken off.
    count: i32,
}

/// Bytes of one symbol on the wire, at most.
pub(super) const MAX_SYMBOL_BYTES: usize = ShortId::BYTES + size_of::<u32>() + MAX_COUNT_BYTES;
/// Of a count: 7 bits each.
const MAX_COUNT_BYTES: usize = 5;

/// Which side of a difference an item is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Ours,
    Theirs,
}

impl Symbol {
    /// Puts an item in.
    pub(super) fn add(&mut self, item: &Item) {
        self.toggle(item, 1);
    }

    /// Takes an item out.
    pub(super) fn remove(&mut self, item: &Item) {
        self.toggle(item, -1);
    }

    fn toggle(&mut self, item: &Item, count: i32) {
        self.sum = [self.sum[0] ^ item.words[0], self.sum[1] ^ item.words[1]];
        self.check ^= item.check;
        self.count = self.count.wrapping_add(count);
    }

    /// The symbol of what is in this one and not in ours (counted up), and the other way round (counted down).
    pub(super) fn minus(&self, ours: &Self) -> Self {
        Self {
            sum: [self.sum[0] ^ ours.sum[0], self.sum[1] ^ ours.sum[1]],
            check: self.check ^ ours.check,
            count: self.count.wrapping_sub(ours.count),
        }
    }

    /// Whether nothing is left in it.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The only item in it, where it has one.
    pub(super) fn single(&self) -> Option<(Side, Item)> {
        let side = match self.count {
            1 => Side::Theirs,
            -1 => Side::Ours,
            _ => return None,
        };
        let item = Item::of_words(self.sum);
        (item.check == self.check).then_some((side, item))
    }

    /// How many there are.
    pub(super) fn count(&self) -> i32 {
        self.count
    }

    /// With what a set of `total` items has on average in the symbol of this number taken off its count, which is short on the
    /// wire then.
    pub(super) fn less_expected(self, total: u32, number: usize) -> Self {
        Self { count: self.count.wrapping_sub(expected(total, number)), ..self }
    }

    /// The reverse.
    pub(super) fn plus_expected(self, total: u32, number: usize) -> Self {
        Self { count: self.count.wrapping_add(expected(total, number)), ..self }
    }

    /// Sum, checksum, and the count in 7 bits a byte, small ones of either sign first.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sum[0].to_be_bytes());
        out.extend_from_slice(&self.sum[1].to_be_bytes());
        out.extend_from_slice(&self.check.to_be_bytes());
        let mut rest = (self.count << 1 ^ self.count >> 31) as u32;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }

    /// The symbol that begins here, and what follows it; `None` where there is none, or its count has a longer form than it
    /// needs.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (high, rest) = bytes.split_first_chunk()?;
        let (low, rest) = rest.split_first_chunk()?;
        let (check, mut rest) = rest.split_first_chunk()?;
        let mut number = 0u64;
        for place in 0..MAX_COUNT_BYTES {
            let (&byte, after) = rest.split_first()?;
            rest = after;
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                let is_shortest = byte > 0 || place == 0;
                let number = u32::try_from(number).ok().filter(|_| is_shortest)?;
                let count = (number >> 1) as i32 ^ -((number & 1) as i32);
                let sum = [u64::from_be_bytes(*high), u64::from_be_bytes(*low)];
                return Some((Self { sum, check: u32::from_be_bytes(*check), count }, rest));
            }
        }
        None
    }
}

/// Of so many items, how many the symbol of this number has on average.
fn expected(total: u32, number: usize) -> i32 {
    let divisor = number as u64 + 2;
    ((2 * u64::from(total) + divisor / 2) / divisor) as i32
}

/// An item of a set, with its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    words: [u64; 2],
    check: u32,
}

impl Item {
    pub(super) fn new(id: &ShortId) -> Self {
        let number = u128::from_be_bytes(id.0);
        Self::of_words([(number >> 64) as u64, number as u64])
    }

    fn of_words(words: [u64; 2]) -> Self {
        // Folded products of both halves: no checksum of a sum is the sum of the checksums.
        let fold = |one: u64, other: u64| {
            let product = u128::from(one) * u128::from(other);
            (product >> 64) as u64 ^ product as u64
        };
        let mixed = fold(words[0] ^ 0xa076_1d64_78bd_642f, words[1] ^ 0xe703_7ed1_a0b4_28db);
        Self { words, check: (fold(mixed ^ 0x8ebc_6af0_9c88_c6e3, words[0] ^ words[1].rotate_left(32)) >> 32) as u32 }
    }

    pub(super) fn id(&self) -> ShortId {
        ShortId((u128::from(self.words[0]) << 64 | u128::from(self.words[1])).to_be_bytes())
    }

    /// The numbers of the symbols that it is in.
    pub(super) fn places(&self) -> Places {
        Places { state: self.words[0], step: self.words[1] | 1, next: 0 }
    }
}

/// The numbers of the symbols that an item is in, ascending, from 0 on without end.
///
/// The next one after `i` is beyond `j` with probability (i+1)(i+2) / ((j+1)(j+2)), which is what leaving out each
/// symbol `n` between with probability n / (n+2) comes to; it is found from one random number each time (SplitMix64,
/// seeded with both halves of the item). Division and square root are exactly rounded by IEEE 754, so every machine
/// finds the same.
#[derive(Debug, Clone)]
pub(super) struct Places {
    state: u64,
    step: u64,
    next: usize,
}

impl Places {
    /// The next of them that is below this.
    pub(super) fn next_below(&mut self, end: usize) -> Option<usize> {
        if self.next >= end {
            return None;
        }
        let place = self.next;
        self.state = self.state.wrapping_add(self.step);
        let mut random = self.state;
        random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        random ^= random >> 31;
        // Above 0, and at most 1.
        let fraction = ((random >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let from = place as f64;
        let beyond = ((from + 1.0) * (from + 2.0) / fraction + 0.25).sqrt() - 1.5;
        self.next = (beyond as usize + 1).max(place + 1);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Hash;
    use proptest::prelude::*;

    fn item(number: u32) -> Item {
        Item::new(&ShortId::from(&Hash::of(&number.to_be_bytes())))
    }

    fn places(item: &Item, end: usize) -> Vec<usize> {
        let mut places = item.places();
        std::iter::from_fn(|| places.next_below(end)).collect()
    }

    proptest! {
        #[test]
        fn a_symbol_comes_back(sum in any::<[u64; 2]>(), check in any::<u32>(), count in any::<i32>(), total in any::<u32>(), number in 0usize..1 << 20) {
            let symbol = Symbol { sum, check, count };
            let mut bytes = Vec::new();
            symbol.encode(&mut bytes);
            prop_assert!(bytes.len() <= MAX_SYMBOL_BYTES);
            prop_assert_eq!(Symbol::decode(&bytes), Some((symbol, &[][..])));
            prop_assert_eq!(symbol.less_expected(total, number).plus_expected(total, number), symbol);
        }

        #[test]
        fn what_can_be_read_is_the_one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some((symbol, rest)) = Symbol::decode(&bytes) {
                let mut again = Vec::new();
                symbol.encode(&mut again);
                again.extend_from_slice(rest);
                prop_assert_eq!(again, bytes);
            }
        }

        #[test]
        fn an_item_alone_is_read_off_and_several_are_not(numbers in prop::collection::btree_set(any::<u32>(), 1..4)) {
            let (mut theirs, mut ours) = (Symbol::default(), Symbol::default());
            numbers.iter().for_each(|number| theirs.add(&item(*number)));
            let first = item(*numbers.first().unwrap());
            prop_assert_eq!(theirs.single(), (numbers.len() == 1).then_some((Side::Theirs, first)));
            let difference = ours.minus(&theirs);
            prop_assert_eq!(difference.single(), (numbers.len() == 1).then_some((Side::Ours, first)));
            prop_assert_eq!(first.id(), ShortId::from(&Hash::of(&numbers.first().unwrap().to_be_bytes())));
            numbers.iter().for_each(|number| ours.add(&item(*number)));
            prop_assert!(ours.minus(&theirs).is_empty());
            numbers.iter().for_each(|number| ours.remove(&item(*number)));
            prop_assert!(ours.is_empty());
        }
    }

    #[test]
    fn a_symbol_has_each_item_with_its_probability() {
        const ITEMS: u32 = 40_000;
        let mut counts = [0u32; 64];
        for number in 0..ITEMS {
            for place in places(&item(number), counts.len()) {
                counts[place] += 1;
            }
        }
        for (number, count) in counts.into_iter().enumerate() {
            let probability = 2.0 / (number as f64 + 2.0);
            let deviation = (f64::from(ITEMS) * probability * (1.0 - probability)).sqrt();
            let expected = f64::from(expected(ITEMS, number));
            assert!(
                (f64::from(count) - expected).abs() <= 5.0 * deviation,
                "symbol {number} has {count} of {expected}"
            );
        }
    }

    /// Sites that map otherwise do not understand each other: this never changes under one version of the protocol.
    #[test]
    fn an_item_is_in_the_same_symbols_for_ever() {
        let golden = [0, 1, 3, 9, 21, 139, 154, 165, 168, 211, 219, 595, 779, 3713, 4012, 5195, 5448, 17339, 22088];
        assert_eq!(places(&item(1), 1 << 15), golden);
        assert_eq!(item(1).check, 3_863_159_176);
    }
}
