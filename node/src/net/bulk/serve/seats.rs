//! Seats: how many streams are served at once, and who has to go when others wait.
//!
//! Identities cost nothing, so a bound for each is not enough: a seat on which nothing moves, or less than on any other
//! for a while, is given to who waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libp2p::PeerId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Streams served at once. More are told `Busy`, which costs them a retry and us nothing.
const MAX_STREAMS: usize = 128;
/// Streams of one peer served at once: a release has a handful of images.
const MAX_STREAMS_PER_PEER: usize = 16;
/// A seat on which nothing was sent for this long may be given to another.
const IDLE: Duration = Duration::from_secs(10);
/// A seat that was held for this long may be given to another where less was sent on it than on any other.
const TERM: Duration = Duration::from_secs(120);

/// The seats of a node.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Mutex<BTreeMap<u64, Taken>>>);

#[derive(Debug)]
struct Taken {
    peer: PeerId,
    since: Instant,
    sent: Arc<Sent>,
    leave: CancellationToken,
}

/// What was sent on a seat.
#[derive(Debug, Default)]
struct Sent {
    bytes: AtomicU64,
    /// When last, in milliseconds since the seat was taken.
    at_millis: AtomicU64,
}

/// A place among the streams that are served.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    number: u64,
    since: Instant,
    sent: Arc<Sent>,
    leave: CancellationToken,
}

impl Seats {
    /// A seat, if there is one, or somebody can be asked to leave.
    pub(super) fn take(&self, peer: PeerId) -> Option<Seat> {
        self.take_at(peer, Instant::now())
    }

    fn take_at(&self, peer: PeerId, now: Instant) -> Option<Seat> {
        let mut seats = self.taken();
        if seats.values().filter(|taken| taken.peer == peer).count() >= MAX_STREAMS_PER_PEER {
            return None;
        }
        if seats.len() >= MAX_STREAMS {
            let number = reclaimable(&seats, now)?;
            let gone = seats.remove(&number)?;
            gone.leave.cancel();
        }
        let number = seats.last_key_value().map_or(0, |(last, _)| last + 1);
        let (sent, leave) = (Arc::<Sent>::default(), CancellationToken::new());
        seats.insert(number, Taken { peer, since: now, sent: Arc::clone(&sent), leave: leave.clone() });
        Some(Seat { seats: self.clone(), number, since: now, sent, leave })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<u64, Taken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The seat that is given to another: the one that is idle for longest, or else the one that moved least in its time.
fn reclaimable(seats: &BTreeMap<u64, Taken>, now: Instant) -> Option<u64> {
    let idle = |taken: &Taken| {
        let last = taken.since + Duration::from_millis(taken.sent.at_millis.load(Ordering::Relaxed));
        now.saturating_duration_since(last)
    };
    let idlest = seats.iter().max_by_key(|(_, taken)| idle(taken)).filter(|(_, taken)| idle(taken) >= IDLE);
    let slowest = || {
        let old = seats.iter().filter(|(_, taken)| now.saturating_duration_since(taken.since) >= TERM);
        old.min_by_key(|(_, taken)| {
            let millis = now.saturating_duration_since(taken.since).as_millis().max(1);
            u128::from(taken.sent.bytes.load(Ordering::Relaxed)) * 1000 / millis
        })
    };
    idlest.or_else(slowest).map(|(&number, _)| number)
}

impl Seat {
    /// So many bytes were sent.
    pub(super) fn sent(&self, bytes: u64) {
        self.sent_at(bytes, Instant::now());
    }

    fn sent_at(&self, bytes: u64, now: Instant) {
        self.sent.bytes.fetch_add(bytes, Ordering::Relaxed);
        let millis = u64::try_from(now.saturating_duration_since(self.since).as_millis()).unwrap_or(u64::MAX);
        self.sent.at_millis.store(millis, Ordering::Relaxed);
    }

    /// Ends when the seat is given to another.
    pub(super) async fn lost(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // One that was given to another is not there any more.
        let mut seats = self.seats.taken();
        if !self.leave.is_cancelled() {
            seats.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_identities_that_move_nothing_make_room_for_one_that_waits() {
        let (seats, now) = (Seats::default(), Instant::now());
        let idle: Vec<Seat> = (0..MAX_STREAMS).map(|_| seats.take_at(PeerId::random(), now).unwrap()).collect();
        assert!(seats.take_at(PeerId::random(), now).is_none(), "nobody had time to move anything");
        idle[1].sent_at(1, now + IDLE);
        let late = seats.take_at(PeerId::random(), now + IDLE).unwrap();
        assert_eq!(idle.iter().filter(|seat| seat.leave.is_cancelled()).count(), 1);
        assert!(!idle[1].leave.is_cancelled(), "it has moved something");
        assert_eq!(seats.taken().len(), MAX_STREAMS);
        drop(idle);
        assert_eq!(seats.taken().len(), 1);
        drop(late);
        assert_eq!(seats.taken().len(), 0);
    }

    #[test]
    fn where_all_move_something_the_slowest_goes_in_the_end() {
        let (seats, now) = (Seats::default(), Instant::now());
        let busy: Vec<Seat> = (0..MAX_STREAMS).map(|_| seats.take_at(PeerId::random(), now).unwrap()).collect();
        busy.iter().zip(1u64..).for_each(|(seat, bytes)| seat.sent_at(bytes.abs_diff(20) * 1_000_000, now + TERM));
        let _late = seats.take_at(PeerId::random(), now + TERM).unwrap();
        assert!(busy[19].leave.is_cancelled());
    }

    #[test]
    fn one_peer_has_so_many_seats_and_no_more() {
        let (seats, peer) = (Seats::default(), PeerId::random());
        let taken: Vec<Seat> = (0..MAX_STREAMS_PER_PEER).map(|_| seats.take(peer).unwrap()).collect();
        assert!(seats.take(peer).is_none());
        assert!(seats.take(PeerId::random()).is_some());
        drop(taken);
        assert!(seats.take(peer).is_some());
    }
}
