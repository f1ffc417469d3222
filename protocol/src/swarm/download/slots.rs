//! A set of places in a download's list of chunks, as bits.

/// Place of a chunk in a download's list.
pub(super) type Slot = u32;

/// A set of slots.
#[derive(Debug, Default)]
pub(super) struct Slots {
    words: Vec<u64>,
    len: u32,
}

impl Slots {
    /// An empty set that will not grow before it holds a slot beyond `slots`.
    pub(super) fn with_room(slots: usize) -> Self {
        Self { words: vec![0; slots.div_ceil(64)], len: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn contains(&self, slot: Slot) -> bool {
        self.words.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    /// Whether the slot was not in it.
    pub(super) fn insert(&mut self, slot: Slot) -> bool {
        let word = slot as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = !self.contains(slot);
        self.words[word] |= 1 << (slot % 64);
        self.len += u32::from(is_new);
        is_new
    }

    /// Whether the slot was in it.
    pub(super) fn remove(&mut self, slot: Slot) -> bool {
        let was_in = self.contains(slot);
        if was_in {
            self.words[slot as usize / 64] &= !(1 << (slot % 64));
            self.len -= 1;
        }
        was_in
    }

    /// Ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.of_words(0, self.words.len())
    }

    /// Ascending from about this slot, then those before it.
    pub(super) fn iter_from(&self, slot: Slot) -> impl Iterator<Item = Slot> + '_ {
        let word = (slot as usize / 64).min(self.words.len());
        self.of_words(word, self.words.len()).chain(self.of_words(0, word))
    }

    fn of_words(&self, from: usize, to: usize) -> impl Iterator<Item = Slot> + '_ {
        let words = self.words[from..to].iter().zip(from as Slot..).filter(|&(&word, _)| word != 0);
        words.flat_map(|(&word, place): (&u64, Slot)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| place * 64 + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_set(changes in prop::collection::vec((any::<bool>(), 0u32..300), 0..200)) {
            let (mut slots, mut model) = (Slots::default(), BTreeSet::new());
            for (is_added, slot) in changes {
                match is_added {
                    true => prop_assert_eq!(slots.insert(slot), model.insert(slot)),
                    false => prop_assert_eq!(slots.remove(slot), model.remove(&slot)),
                }
                prop_assert_eq!(slots.is_empty(), model.is_empty());
            }
            let mut turned: Vec<_> = slots.iter_from(150).collect();
            prop_assert!(turned.first().is_none_or(|&first| first >= 128 || model.iter().all(|&slot| slot < 128)));
            turned.sort_unstable();
            prop_assert_eq!(turned, slots.iter().collect::<Vec<_>>());
            prop_assert_eq!(slots.iter().collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
        }
    }
}
