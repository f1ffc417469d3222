//! Space set aside before a fetch, so that it is refused at its start and not half-way.
//!
//! A reservation shrinks as what it was made for is stored, and ends with its guard. Others' reservations count as used
//! for whoever asks for space: another fetch when it starts, an addition with every chunk.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use super::segment::MAX_ENTRY_OVERHEAD_BYTES;
use super::{Inner, Store, StoreError};

/// Who has set aside how much: plain accounting.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    next: u64,
    left: BTreeMap<u64, u64>,
    total: u64,
}

impl Ledger {
    /// Bytes that are set aside.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Sets bytes aside, if there are that many in `room` beside what is set aside already.
    pub(super) fn reserve(&mut self, room: u64, bytes: u64) -> Option<u64> {
        let total = self.total.checked_add(bytes).filter(|&total| total <= room)?;
        self.total = total;
        self.next += 1;
        self.left.insert(self.next, bytes);
        Some(self.next)
    }

    /// Bytes were stored, so they need not be set aside any more.
    pub(super) fn spend(&mut self, number: u64, bytes: u64) {
        if let Some(left) = self.left.get_mut(&number) {
            let spent = bytes.min(*left);
            *left -= spent;
            self.total -= spent;
        }
    }

    /// What is left is free again.
    pub(super) fn release(&mut self, number: u64) {
        self.total -= self.left.remove(&number).unwrap_or_default();
    }
}

/// Space that is set aside until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    store: Arc<Inner>,
    number: u64,
}

impl Store {
    /// Sets aside what `chunks` chunks of `bytes` bytes together can take at most.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] and [`StoreError::OverQuota`] where there is not that much beside what others have set
    /// aside.
    pub fn reserve(&self, chunks: u64, bytes: u64) -> Result<Reservation, StoreError> {
        let inner = &self.0;
        let needed = bytes.saturating_add(chunks.saturating_mul(MAX_ENTRY_OVERHEAD_BYTES));
        let mut ledger = inner.ledger();
        let room = inner.writer.room_for_all(&inner.segments)?;
        let Some(number) = ledger.reserve(room, needed) else {
            return Err(inner.writer.no_room(&inner.segments, needed));
        };
        inner.writer.set_reserved(ledger.total());
        Ok(Reservation { store: Arc::clone(inner), number })
    }

    /// Bytes that are set aside for fetches under way.
    pub fn reserved_bytes(&self) -> u64 {
        self.0.ledger().total()
    }
}

impl Reservation {
    /// A chunk of so many bytes was stored.
    pub fn spend_chunk(&self, bytes: u64) {
        let mut ledger = self.store.ledger();
        ledger.spend(self.number, bytes.saturating_add(MAX_ENTRY_OVERHEAD_BYTES));
        self.store.writer.set_reserved(ledger.total());
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut ledger = self.store.ledger();
        ledger.release(self.number);
        self.store.writer.set_reserved(ledger.total());
    }
}

impl Inner {
    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Reserve(u64),
        Spend(usize, u64),
        Release(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            prop_oneof![0u64..500, Just(u64::MAX)].prop_map(Step::Reserve),
            (0usize..8, 0u64..300).prop_map(|(which, bytes)| Step::Spend(which, bytes)),
            (0usize..8).prop_map(Step::Release),
        ]
    }

    proptest! {
        #[test]
        fn nobody_is_promised_what_another_has(steps in prop::collection::vec(step(), 0..60), room in 0u64..2000) {
            let mut ledger = Ledger::default();
            // What each still has, by the simplest of means. What is spent is stored, and so lessens the room.
            let (mut held, mut room): (Vec<(u64, u64)>, u64) = (Vec::new(), room);
            for step in steps {
                match step {
                    Step::Reserve(bytes) => {
                        let promised: u64 = held.iter().map(|(_, left)| left).sum();
                        let number = ledger.reserve(room, bytes);
                        prop_assert_eq!(number.is_some(), promised.saturating_add(bytes) <= room);
                        held.extend(number.map(|number| (number, bytes)));
                    }
                    Step::Spend(which, bytes) => {
                        if let Some((number, left)) = held.get_mut(which) {
                            ledger.spend(*number, bytes);
                            room -= bytes.min(*left);
                            *left -= bytes.min(*left);
                        }
                    }
                    Step::Release(which) if which < held.len() => ledger.release(held.remove(which).0),
                    Step::Release(_) => ledger.release(u64::MAX),
                }
                prop_assert_eq!(ledger.total(), held.iter().map(|(_, left)| left).sum::<u64>());
                prop_assert!(ledger.total() <= room);
            }
        }
    }
}
