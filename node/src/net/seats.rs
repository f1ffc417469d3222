//! Places for what peers may have going on here at once: so many in all, so many a peer, so that nobody takes them all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libp2p::PeerId;

/// The places. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Seats {
    taken: Arc<Mutex<BTreeMap<PeerId, usize>>>,
    max: usize,
    max_per_peer: usize,
}

/// One place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    peer: PeerId,
}

impl Seats {
    /// `max` places, of which one peer gets at most `max_per_peer`.
    pub(super) fn new(max: usize, max_per_peer: usize) -> Self {
        Self { taken: Arc::default(), max, max_per_peer }
    }

    /// A place for the peer, where there is one.
    pub(super) fn take(&self, peer: PeerId) -> Option<Seat> {
        let mut taken = self.taken();
        let (all, own) = (taken.values().sum::<usize>(), taken.get(&peer).copied().unwrap_or(0));
        if all >= self.max || own >= self.max_per_peer {
            return None;
        }
        taken.insert(peer, own + 1);
        Some(Seat { seats: self.clone(), peer })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<PeerId, usize>> {
        // Nothing that holds it can leave it half changed.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if let Some(count) = taken.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_cannot_take_them_all() {
        let (seats, greedy, other) = (Seats::new(4, 3), PeerId::random(), PeerId::random());
        let mut held: Vec<Seat> = (0..10).filter_map(|_| seats.take(greedy)).collect();
        assert_eq!(held.len(), 3);
        let last = seats.take(other).unwrap();
        assert!(seats.take(other).is_none());
        held.pop();
        assert!(seats.take(greedy).is_some());
        drop((held, last));
        assert!(seats.taken().is_empty());
    }
}
