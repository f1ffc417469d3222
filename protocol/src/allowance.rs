//! How much of something one peer may have of us: token buckets, by peer.
//!
//! A bucket holds `most` tokens and gains `per_second`. Whatever is asked of it, in any span of time it gives at most
//! `most + per_second × seconds`, and who asks for no more than `per_second` is never refused. Time comes in as an
//! argument: the [`Duration`] since any fixed moment.

use std::collections::BTreeMap;
use std::time::Duration;

/// A token, in the fractions that a bucket counts in: a gain of one token a second is exact to the nanosecond.
const TOKEN: u128 = 1_000_000_000;

/// How much there is at once, and how fast more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Tokens of a full bucket.
    pub most: u64,
    /// Tokens gained in a second.
    pub per_second: u64,
}

/// One bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    /// In fractions of a token. Below zero where it was overdrawn.
    level: i128,
    at: Duration,
}

impl Bucket {
    fn full(quota: Quota, now: Duration) -> Self {
        Self { level: whole(quota.most), at: now }
    }

    /// Time that runs backwards gains nothing.
    fn fill(&mut self, quota: Quota, now: Duration) {
        let gained = now.saturating_sub(self.at).as_nanos().saturating_mul(u128::from(quota.per_second));
        let gained = i128::try_from(gained).unwrap_or(i128::MAX);
        self.level = self.level.saturating_add(gained).min(whole(quota.most));
        self.at = self.at.max(now);
    }
}

fn whole(tokens: u64) -> i128 {
    // 2^64 × 10^9 is far below 2^127.
    i128::from(tokens) * TOKEN as i128
}

/// What each peer has left of `N` things, such as messages and bytes. Who has not asked for a while is forgotten: its
/// buckets are full again.
#[derive(Debug, Clone)]
pub struct Allowance<K, const N: usize> {
    quotas: [Quota; N],
    most_peers: usize,
    peers: BTreeMap<K, [Bucket; N]>,
}

impl<K: Ord + Clone, const N: usize> Allowance<K, N> {
    /// Every peer may have this much. At most `most_peers` are remembered at a time.
    pub fn new(quotas: [Quota; N], most_peers: usize) -> Self {
        Self { quotas, most_peers, peers: BTreeMap::new() }
    }

    /// Whether the peer may have so much of each thing now. It gets all of it or nothing.
    pub fn take(&mut self, peer: &K, amounts: [u64; N], now: Duration) -> bool {
        let buckets = self.buckets(peer, now);
        let is_there = buckets.iter().zip(amounts).all(|(bucket, amount)| bucket.level >= whole(amount));
        if is_there {
            for (bucket, amount) in buckets.iter_mut().zip(amounts) {
                bucket.level -= whole(amount);
            }
        }
        is_there
    }

    /// Takes so much in any case, and tells how long to wait until it would have been there: for what has happened already.
    pub fn overdraw(&mut self, peer: &K, amounts: [u64; N], now: Duration) -> Duration {
        let quotas = self.quotas;
        let buckets = self.buckets(peer, now);
        let mut wait = Duration::ZERO;
        for ((bucket, amount), quota) in buckets.iter_mut().zip(amounts).zip(quotas) {
            bucket.level = bucket.level.saturating_sub(whole(amount));
            let missing = u128::try_from(-bucket.level).unwrap_or(0);
            if missing > 0 {
                let nanos = missing.checked_div(u128::from(quota.per_second)).unwrap_or(u128::MAX);
                wait = wait.max(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
            }
        }
        wait
    }

    fn buckets(&mut self, peer: &K, now: Duration) -> &mut [Bucket; N] {
        let quotas = self.quotas;
        if !self.peers.contains_key(peer) && self.peers.len() >= self.most_peers {
            self.forget(now);
        }
        let buckets = self.peers.entry(peer.clone()).or_insert_with(|| quotas.map(|quota| Bucket::full(quota, now)));
        for (bucket, quota) in buckets.iter_mut().zip(quotas) {
            bucket.fill(quota, now);
        }
        buckets
    }

    /// Forgets whose buckets are full; where nobody's are, the one with the most left of the first thing.
    fn forget(&mut self, now: Duration) {
        for buckets in self.peers.values_mut() {
            for (bucket, quota) in buckets.iter_mut().zip(self.quotas) {
                bucket.fill(quota, now);
            }
        }
        let quotas = self.quotas;
        let is_full = |buckets: &[Bucket; N]| buckets.iter().zip(quotas).all(|(b, q)| b.level >= whole(q.most));
        self.peers.retain(|_, buckets| !is_full(buckets));
        if self.peers.len() >= self.most_peers
            && let Some(fullest) =
                self.peers.iter().max_by_key(|(_, buckets)| buckets.first().map(|b| b.level)).map(|(k, _)| k.clone())
        {
            self.peers.remove(&fullest);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn steps() -> impl Strategy<Value = Vec<(u64, u64)>> {
        proptest::collection::vec((0u64..3_000, 0u64..40), 1..200)
    }

    proptest! {
        /// The promise of the module's first lines, over every span between two requests.
        #[test]
        fn no_span_gives_more_than_it_may(steps in steps(), most in 0u64..60, per_second in 0u64..30) {
            let mut allowance = Allowance::new([Quota { most, per_second }], 4);
            let (mut now, mut given) = (Duration::ZERO, Vec::new());
            for (millis, amount) in steps {
                now += Duration::from_millis(millis);
                if allowance.take(&1u8, [amount], now) {
                    given.push((now, amount));
                }
            }
            for (first, (from, _)) in given.iter().enumerate() {
                let mut sum = 0;
                for (to, amount) in &given[first..] {
                    sum += amount;
                    let gained = (*to - *from).as_nanos() * u128::from(per_second);
                    prop_assert!(u128::from(sum) * TOKEN <= u128::from(most) * TOKEN + gained);
                }
            }
        }

        #[test]
        fn who_asks_for_no_more_than_the_rate_is_never_refused(count in 1u32..200, per_second in 1u64..1_000) {
            let mut allowance = Allowance::new([Quota { most: per_second, per_second }], 4);
            for turn in 0..count {
                prop_assert!(allowance.take(&1u8, [per_second], SECOND * turn));
            }
        }

        /// Whoever waits as long as it is told owes nothing afterwards.
        #[test]
        fn the_wait_is_as_long_as_it_takes(steps in steps(), most in 0u64..60, per_second in 1u64..30) {
            let mut allowance = Allowance::new([Quota { most, per_second }], 4);
            let mut now = Duration::ZERO;
            for (millis, amount) in steps {
                now += Duration::from_millis(millis);
                let wait = allowance.overdraw(&1u8, [amount], now);
                now += wait + Duration::from_nanos(1);
                prop_assert_eq!(allowance.overdraw(&1u8, [0], now), Duration::ZERO);
            }
        }

        #[test]
        fn peers_do_not_take_from_each_other_and_are_forgotten(peers in proptest::collection::vec(0u16..1_000, 1..300)) {
            let mut allowance = Allowance::new([Quota { most: 1, per_second: 1 }, Quota { most: 9, per_second: 1 }], 8);
            prop_assert!(allowance.take(&9_999, [0, 0], Duration::ZERO));
            for (turn, peer) in peers.iter().enumerate() {
                let now = SECOND * turn as u32;
                prop_assert!(allowance.take(peer, [1, 1], now), "its own, or full again");
                prop_assert!(allowance.peers.len() <= 8);
            }
        }
    }

    #[test]
    fn it_is_all_or_nothing_and_time_never_runs_backwards() {
        let mut allowance = Allowance::new([Quota { most: 2, per_second: 1 }, Quota { most: 100, per_second: 1 }], 2);
        assert!(!allowance.take(&'a', [1, 101], SECOND));
        assert!(allowance.take(&'a', [2, 100], SECOND), "what was refused took nothing");
        assert!(!allowance.take(&'a', [1, 0], Duration::ZERO));
        assert!(!allowance.take(&'a', [1, 0], SECOND));
        assert!(allowance.take(&'a', [1, 0], SECOND * 2));
        assert!(allowance.take(&'b', [2, 0], SECOND * 2), "another's are its own");
        assert_eq!(allowance.overdraw(&'b', [3, 0], SECOND * 2), SECOND * 3);
        let mut none = Allowance::new([Quota { most: 0, per_second: 0 }], 2);
        assert!(none.take(&'a', [0], SECOND) && !none.take(&'a', [1], Duration::MAX));
        assert_eq!(none.overdraw(&'a', [1], SECOND), Duration::from_nanos(u64::MAX));
    }
}
