//! How fast a peer delivers and how long it takes to begin, and what may therefore be on its way from it.

use std::time::Duration;

/// Bytes that may be on their way from a peer of which nothing is known yet: little, so that many who begin together
/// do not all ask one holder for the same, and that a small image is shared out among those who have it.
const WINDOW_START_BYTES: u64 = 64 * 1024;
/// Bytes that may be on their way from any peer, however slow: one chunk follows the other.
const WINDOW_MIN_BYTES: u64 = 16 * 1024;
/// Bytes that may be on their way from any peer that answers at once: what a fast one sends in a few hundredths of a second.
const WINDOW_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// The same for one that is far away.
const WINDOW_FAR_BYTES: u64 = 32 * 1024 * 1024;
/// Beside what its latency takes, a window holds what a peer delivers in this time: it never waits for the next request.
const WINDOW_TIME: Duration = Duration::from_millis(250);
/// A measurement ends with half a window, but not before this.
const MEASURE_MIN: Duration = Duration::from_millis(5);
/// It ends after this with whatever came.
const MEASURE_MAX: Duration = Duration::from_millis(500);
/// A peer that takes longer to begin is not far away but slow.
const LATENCY_MAX: Duration = Duration::from_secs(1);

/// The measurements of one peer.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When it was asked, having nothing to do before, while nothing has come yet.
    asked_at: Option<Duration>,
    /// The shortest time from a request to the first byte of the answer.
    latency: Option<Duration>,
    /// When the measurement began that goes on.
    since: Duration,
    /// What came since.
    bytes: u64,
    bytes_per_second: f64,
}

impl Pace {
    /// It was asked, and had nothing to do before: idle time says nothing about a rate, but the time that a request
    /// travels does, as long as the window is what limits it.
    pub(super) fn begins(&mut self, now: Duration) {
        self.asked_at = Some(now);
        (self.since, self.bytes) = (now, 0);
    }

    /// A chunk of this length arrived.
    pub(super) fn arrived(&mut self, bytes: u32, now: Duration) {
        if let Some(asked_at) = self.asked_at.take() {
            let took = now.saturating_sub(asked_at);
            self.latency = Some(self.latency.map_or(took, |shortest| shortest.min(took)));
        }
        self.bytes += u64::from(bytes);
        let period = now.saturating_sub(self.since);
        let is_enough = self.bytes * 2 >= self.window() && period >= MEASURE_MIN;
        if is_enough || period >= MEASURE_MAX {
            let measured = self.bytes as f64 / period.as_secs_f64();
            let is_first = !self.is_known();
            self.bytes_per_second = if is_first { measured } else { (self.bytes_per_second + measured) / 2.0 };
            (self.since, self.bytes) = (now, 0);
        }
    }

    /// It lost its turn: what it could do before says nothing any more.
    pub(super) fn forget(&mut self) {
        *self = Self { latency: self.latency, ..Self::default() };
    }

    /// Whether anything is known of it.
    pub(super) fn is_known(&self) -> bool {
        self.bytes_per_second > 0.0
    }

    /// Bytes a second; 0 while nothing is known.
    pub(super) fn bytes_per_second(&self) -> f64 {
        self.bytes_per_second
    }

    /// Bytes that may be on their way: what it delivers while a request travels and a little longer. As long as the
    /// window is what limits it, each measurement makes it half as large again, or larger.
    pub(super) fn window(&self) -> u64 {
        if !self.is_known() {
            return WINDOW_START_BYTES;
        }
        let latency = self.latency.unwrap_or_default().min(LATENCY_MAX);
        let [far, near] = [2 * latency, WINDOW_TIME].map(|time| (self.bytes_per_second * time.as_secs_f64()) as u64);
        near.min(WINDOW_MAX_BYTES).saturating_add(far).clamp(WINDOW_MIN_BYTES, WINDOW_FAR_BYTES)
    }

    /// How long so many bytes will take; `None` while nothing is known.
    pub(super) fn time_for(&self, bytes: u64) -> Option<Duration> {
        (self.bytes_per_second >= 1.0)
            .then(|| Duration::try_from_secs_f64(bytes as f64 / self.bytes_per_second).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHUNK: u32 = 32 * 1024;

    /// Lets a link of this latency and rate deliver whole windows, and gives the window that came of it.
    fn settle(latency: Duration, bytes_per_second: u64, rounds: usize) -> u64 {
        let (mut pace, mut now) = (Pace::default(), Duration::ZERO);
        for _ in 0..rounds {
            pace.begins(now);
            now += latency;
            for _ in 0..(pace.window() / u64::from(CHUNK)).max(1) {
                now += Duration::from_secs_f64(f64::from(CHUNK) / bytes_per_second as f64);
                pace.arrived(CHUNK, now);
            }
        }
        pace.window()
    }

    #[test]
    fn a_window_grows_to_fill_a_long_fat_link() {
        let (latency, rate) = (Duration::from_millis(200), 12_500_000);
        let window = settle(latency, rate, 20);
        assert!(window as f64 >= rate as f64 * latency.as_secs_f64(), "{window}");
    }

    #[test]
    fn a_window_at_a_slow_peer_stays_small() {
        assert!(settle(Duration::from_millis(5), 10_000, 5) <= u64::from(CHUNK));
    }

    #[test]
    fn a_peer_that_sends_one_chunk_at_a_time_has_a_rate_too() {
        let mut pace = Pace::default();
        pace.begins(Duration::ZERO);
        pace.arrived(CHUNK, Duration::from_secs(4));
        assert_eq!(pace.time_for(u64::from(CHUNK)), Some(Duration::from_secs(4)));
    }

    proptest! {
        #[test]
        fn windows_are_bounded(events in prop::collection::vec((any::<bool>(), any::<u32>(), 0u64..10_000_000), 0..100)) {
            let (mut pace, mut now) = (Pace::default(), Duration::ZERO);
            for (is_asked, bytes, micros) in events {
                now += Duration::from_micros(micros);
                if is_asked { pace.begins(now) } else { pace.arrived(bytes, now) }
                prop_assert!((WINDOW_MIN_BYTES..=WINDOW_FAR_BYTES).contains(&pace.window()));
            }
        }
    }
}
