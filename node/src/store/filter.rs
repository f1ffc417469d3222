//! A set that may say "yes" of what it does not hold, and never "no" of what it holds: a blocked Bloom filter.
//!
//! Each key sets its bits in one line of 64 bytes, so a question costs one cache miss (Putze, Sanders, Singler: "Cache-,
//! Hash- and Space-Efficient Bloom Filters", 2007).

/// Words of a line.
const LINE_WORDS: usize = 8;
/// Bytes of a line.
pub(super) const LINE_BYTES: usize = LINE_WORDS * 8;
/// Bits that each key sets.
const PROBES: u32 = 6;

/// Made for a number of keys; more of them only make "yes" less certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    lines: Vec<[u64; LINE_WORDS]>,
}

impl Filter {
    /// For so many keys with so many bits each, and of at least one line. With 12 bits, about 1 in 120 questions for what
    /// is not held is answered wrongly, with 16 about 1 in 400.
    pub(super) fn new(keys: u64, bits_per_key: u64) -> Self {
        let lines = keys.saturating_mul(bits_per_key).div_ceil(LINE_BYTES as u64 * 8).max(1);
        Self { lines: vec![[0; LINE_WORDS]; lines as usize] }
    }

    /// Adds a key by eight evenly spread bytes of it.
    pub(super) fn insert(&mut self, print: u64) {
        let (line, bits) = self.place(print);
        let Some(line) = self.lines.get_mut(line) else { return };
        for bit in each(bits) {
            line[bit / 64] |= 1 << (bit % 64);
        }
    }

    /// Whether the key may have been added.
    pub(super) fn may_hold(&self, print: u64) -> bool {
        let (line, bits) = self.place(print);
        let Some(line) = self.lines.get(line) else { return true };
        each(bits).all(|bit| line[bit / 64] & 1 << (bit % 64) != 0)
    }

    /// Length of [`Filter::to_bytes`].
    pub(super) fn bytes(&self) -> usize {
        self.lines.len() * LINE_BYTES
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.lines.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// `None` where these are not whole lines, or none.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (lines, rest) = bytes.as_chunks::<LINE_BYTES>();
        let line = |bytes: &[u8; LINE_BYTES]| {
            let mut line = [0; LINE_WORDS];
            for (word, bytes) in line.iter_mut().zip(bytes.as_chunks().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            line
        };
        (rest.is_empty() && !lines.is_empty()).then(|| Self { lines: lines.iter().map(line).collect() })
    }

    /// The line of a key, and the bits from which its places in the line are taken.
    fn place(&self, print: u64) -> (usize, u64) {
        // The high bits choose the line, evenly for any number of lines; all bits take part in the second product.
        let line = (u128::from(print) * self.lines.len() as u128) >> 64;
        let mixed = (print ^ print >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (line as usize, mixed >> 10)
    }
}

fn each(bits: u64) -> impl Iterator<Item = usize> {
    (0..PROBES).map(move |probe| (bits >> (9 * probe)) as usize % (LINE_BYTES * 8))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn print(number: u64) -> u64 {
        let hash = *blake3::hash(&number.to_le_bytes()).as_bytes();
        u64::from_le_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]])
    }

    #[test]
    fn wrong_answers_are_as_rare_as_was_said() {
        for (bits_per_key, most) in [(12, 200), (16, 60)] {
            let mut filter = Filter::new(20_000, bits_per_key);
            (0..20_000).for_each(|number| filter.insert(print(number)));
            assert!((0..20_000).all(|number| filter.may_hold(print(number))));
            let wrong = (20_000..40_000).filter(|&number| filter.may_hold(print(number))).count();
            assert!(wrong > 0 && wrong < most, "{wrong} of 20,000 with {bits_per_key} bits");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_was_added_is_denied(keys in prop::collection::vec(any::<u64>(), 0..200), room in 0u64..300) {
            let mut filter = Filter::new(room, 12);
            keys.iter().for_each(|&key| filter.insert(key));
            let filter = Filter::from_bytes(&filter.to_bytes()).unwrap();
            prop_assert!(keys.iter().all(|&key| filter.may_hold(key)));
        }

        #[test]
        fn any_bytes_are_lines_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let filter = Filter::from_bytes(&bytes);
            prop_assert_eq!(filter.is_some(), !bytes.is_empty() && bytes.len() % LINE_BYTES == 0);
            prop_assert!(filter.is_none_or(|filter| filter.to_bytes() == bytes));
        }
    }
}
