//! Who may send how much: rate limits as token buckets, and turns between peers that are fair in bytes.
//!
//! Whoever wants to send asks for a number of bytes and is granted them when it has its turn and the limits allow. The
//! turn is with the *peer* that was sent least, however many streams it has (start-time fair queueing: Goyal, Vin and
//! Cheng, 1996), so that one who opens many streams gets no more than one who opens a single one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

/// A bucket holds what may be sent in this time: a limit bounds the mean over about as long.
const BURST_TIME: Duration = Duration::from_millis(100);
/// More peers than this are remembered only while they have something to send or owe something to their limit.
const MAX_REMEMBERED: usize = 256;
/// The longest wait that is told; then it is looked at again.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// A rate limit. It may be overdrawn by what is taken at once, and then gives nothing until that is made up for: the mean
/// is exact however large the pieces.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    bytes_per_second: Option<u64>,
    level: f64,
    at: Duration,
}

impl Bucket {
    /// A full bucket of so many bytes a second; `None` for no limit.
    pub fn new(bytes_per_second: Option<u64>, now: Duration) -> Self {
        let mut bucket = Self { bytes_per_second, level: 0.0, at: now };
        bucket.level = bucket.capacity();
        bucket
    }

    /// The limit, in bytes a second.
    pub fn limit(&self) -> Option<u64> {
        self.bytes_per_second
    }

    /// Changes the limit. A debt stays one for no longer than it would take at the new rate.
    pub fn set_limit(&mut self, bytes_per_second: Option<u64>, now: Duration) {
        self.fill(now);
        self.bytes_per_second = bytes_per_second;
        self.level = self.level.min(self.capacity());
    }

    /// How long nothing may be taken; zero where something may be taken now.
    pub fn wait(&mut self, now: Duration) -> Duration {
        self.fill(now);
        match self.bytes_per_second {
            None => Duration::ZERO,
            Some(_) if self.level > 0.0 => Duration::ZERO,
            Some(0) => WAIT_MAX,
            Some(rate) => {
                let seconds = (1.0 - self.level) / rate as f64;
                Duration::try_from_secs_f64(seconds)
                    .map_or(WAIT_MAX, |wait| wait.clamp(Duration::from_micros(1), WAIT_MAX))
            }
        }
    }

    /// Takes so many bytes, be they there or not.
    pub fn take(&mut self, bytes: u64, now: Duration) {
        self.fill(now);
        if self.bytes_per_second.is_some() {
            self.level -= bytes as f64;
        }
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&mut self, bytes: u64) {
        if self.bytes_per_second.is_some() {
            self.level = (self.level + bytes as f64).min(self.capacity());
        }
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let Some(rate) = self.bytes_per_second else {
            self.level = 0.0;
            return;
        };
        self.level = (self.level + rate as f64 * passed.as_secs_f64()).min(self.capacity());
    }

    fn capacity(&self) -> f64 {
        self.bytes_per_second.map_or(0.0, |rate| rate as f64 * BURST_TIME.as_secs_f64())
    }
}

/// One request to send, numbered by the shell.
pub type Ticket = u64;

/// What may be sent now.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Granted {
    /// These requests, in order.
    pub tickets: Vec<Ticket>,
    /// Where others wait: when to ask again.
    pub again_in: Option<Duration>,
}

/// The uplink of a node, shared between peers named by `P`.
#[derive(Debug)]
pub struct Shares<P> {
    all: Bucket,
    per_peer: Option<u64>,
    peers: BTreeMap<P, Share>,
    /// Peers with requests, by the account at which their next one starts.
    turns: BTreeSet<(u64, P)>,
    /// The account at which the last granted request started: who comes anew begins here.
    virtual_time: u64,
}

#[derive(Debug)]
struct Share {
    bucket: Bucket,
    waiting: VecDeque<(Ticket, u64)>,
    /// What it was sent, in bytes, counted from the virtual time at which it came.
    account: u64,
    /// Requests granted and not settled.
    underway: u64,
}

impl<P: Ord + Copy> Shares<P> {
    /// An uplink with these limits, in bytes a second: of all together, and of each peer.
    pub fn new(all: Option<u64>, per_peer: Option<u64>, now: Duration) -> Self {
        Self { all: Bucket::new(all, now), per_peer, peers: BTreeMap::new(), turns: BTreeSet::new(), virtual_time: 0 }
    }

    /// Changes the limits.
    pub fn set_limits(&mut self, all: Option<u64>, per_peer: Option<u64>, now: Duration) {
        self.all.set_limit(all, now);
        self.per_peer = per_peer;
        for share in self.peers.values_mut() {
            share.bucket.set_limit(per_peer, now);
        }
    }

    /// Peers that wait, or were granted something that is not settled.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Somebody wants to send so many bytes to a peer.
    pub fn request(&mut self, peer: P, ticket: Ticket, bytes: u64, now: Duration) {
        let per_peer = self.per_peer;
        if self.peers.len() >= MAX_REMEMBERED {
            let time = self.virtual_time;
            self.peers.retain(|_, share| !share.is_idle() || !share.bucket.wait(now).is_zero() || share.account > time);
        }
        let share = self.peers.entry(peer).or_insert_with(|| Share {
            bucket: Bucket::new(per_peer, now),
            waiting: VecDeque::new(),
            account: 0,
            underway: 0,
        });
        if share.waiting.is_empty() {
            share.account = share.account.max(self.virtual_time);
            self.turns.insert((share.account, peer));
        }
        share.waiting.push_back((ticket, bytes));
    }

    /// A request was given up before it was granted.
    pub fn withdraw(&mut self, peer: P, ticket: Ticket) {
        if let Some(share) = self.peers.get_mut(&peer) {
            share.waiting.retain(|(waiting, _)| *waiting != ticket);
            if share.waiting.is_empty() {
                self.turns.remove(&(share.account, peer));
            }
            self.forget_if_idle(peer);
        }
    }

    /// What was granted is sent, and took `used` bytes instead of those that were asked for.
    pub fn settle(&mut self, peer: P, granted: u64, used: u64, now: Duration) {
        let (more, unused) = (used.saturating_sub(granted), granted.saturating_sub(used));
        self.all.take(more, now);
        self.all.give_back(unused);
        if let Some(share) = self.peers.get_mut(&peer) {
            share.bucket.take(more, now);
            share.bucket.give_back(unused);
            let is_waiting = self.turns.remove(&(share.account, peer));
            share.account = share.account.saturating_add(more).saturating_sub(unused);
            if is_waiting {
                self.turns.insert((share.account, peer));
            }
            share.underway = share.underway.saturating_sub(1);
            self.forget_if_idle(peer);
        }
    }

    /// What may be sent now.
    pub fn grant(&mut self, now: Duration) -> Granted {
        let mut granted = Granted::default();
        let mut soonest: Option<Duration> = None;
        let mut blocked = |wait: Duration| soonest = Some(soonest.map_or(wait, |other| other.min(wait)));
        // Peers that their own limit keeps from sending are passed over.
        let mut after: Option<(u64, P)> = None;
        loop {
            let next = match after {
                None => self.turns.first(),
                Some(after) => self.turns.range((Bound::Excluded(after), Bound::Unbounded)).next(),
            };
            let Some(&(start, peer)) = next else { break };
            let wait = self.all.wait(now);
            if !wait.is_zero() {
                blocked(wait);
                break;
            }
            let Some(share) = self.peers.get_mut(&peer) else { break };
            let wait = share.bucket.wait(now);
            if !wait.is_zero() {
                blocked(wait);
                after = Some((start, peer));
                continue;
            }
            self.turns.remove(&(start, peer));
            if let Some((ticket, bytes)) = share.waiting.pop_front() {
                self.virtual_time = self.virtual_time.max(start);
                share.account = share.account.saturating_add(bytes);
                share.underway += 1;
                share.bucket.take(bytes, now);
                self.all.take(bytes, now);
                granted.tickets.push(ticket);
            }
            if !share.waiting.is_empty() {
                self.turns.insert((share.account, peer));
            }
        }
        granted.again_in = soonest;
        granted
    }

    fn forget_if_idle(&mut self, peer: P) {
        // A peer that owes its own bucket something, or was sent more than others, is remembered until it asks again.
        let may_go = |share: &Share| {
            let owes = (self.per_peer.is_some() && share.bucket.level < 0.0) || share.account > self.virtual_time;
            share.is_idle() && !owes
        };
        if self.peers.get(&peer).is_some_and(may_go) {
            self.peers.remove(&peer);
        }
    }
}

impl Share {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.underway == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const KIB: u64 = 1024;

    /// Streams of each peer that always want to send pieces of a length; gives the bytes of each peer after a time.
    fn share(limit: Option<u64>, per_peer: Option<u64>, streams: &[(usize, u64)], time: Duration) -> Vec<u64> {
        let mut shares = Shares::new(limit, per_peer, Duration::ZERO);
        let mut owners: BTreeMap<Ticket, usize> = BTreeMap::new();
        let mut sent = vec![0; streams.len()];
        let (mut now, mut next) = (Duration::ZERO, 0);
        for (peer, &(count, bytes)) in streams.iter().enumerate() {
            for _ in 0..count {
                owners.insert(next, peer);
                shares.request(peer, next, bytes, now);
                next += 1;
            }
        }
        while now < time {
            let granted = shares.grant(now);
            for ticket in granted.tickets {
                let peer = owners.remove(&ticket).unwrap();
                sent[peer] += streams[peer].1;
                shares.settle(peer, streams[peer].1, streams[peer].1, now);
                owners.insert(next, peer);
                shares.request(peer, next, streams[peer].1, now);
                next += 1;
            }
            now += granted.again_in.unwrap_or(MS);
        }
        sent
    }

    #[test]
    fn one_with_many_streams_gets_no_more_than_one_with_a_single_one() {
        let sent = share(Some(10_000_000), None, &[(1, 64 * KIB), (16, 1024 * KIB), (3, 100 * KIB)], 20_000 * MS);
        for bytes in &sent {
            assert!((65_000_000..68_500_000).contains(bytes), "{sent:?}");
        }
    }

    #[test]
    fn the_mean_is_the_limit_however_large_the_pieces() {
        for bytes in [4 * KIB, 64 * KIB, 1024 * KIB] {
            let sent: u64 = share(Some(1_000_000), None, &[(2, bytes), (2, bytes)], 10_000 * MS).iter().sum();
            assert!((10_000_000..=10_200_000 + 2 * bytes).contains(&sent), "{bytes}: {sent}");
        }
    }

    #[test]
    fn what_one_may_not_send_others_may() {
        let sent = share(Some(10_000_000), Some(1_000_000), &[(1, 64 * KIB); 20], 10_000 * MS);
        assert!((100_000_000..103_000_000).contains(&sent.iter().sum::<u64>()), "{sent:?}");
        let sent = share(None, Some(1_000_000), &[(1, 64 * KIB), (4, 64 * KIB)], 10_000 * MS);
        assert!(sent.iter().all(|bytes| (10_000_000..10_300_000).contains(bytes)), "{sent:?}");
    }

    #[test]
    fn nothing_is_sent_at_a_limit_of_nothing_and_all_once_it_is_lifted() {
        let mut shares = Shares::new(Some(0), None, Duration::ZERO);
        shares.request(1, 7, KIB, Duration::ZERO);
        let first = shares.grant(Duration::ZERO);
        assert_eq!(first, Granted { tickets: vec![], again_in: Some(WAIT_MAX) });
        shares.set_limits(None, None, MS);
        assert_eq!(shares.grant(MS), Granted { tickets: vec![7], again_in: None });
        shares.settle(1, KIB, 0, MS);
        assert_eq!(shares.peers(), 0);
    }

    #[test]
    fn what_was_not_used_is_given_back() {
        let mut bucket = Bucket::new(Some(1000), Duration::ZERO);
        bucket.take(600, Duration::ZERO);
        assert!(bucket.wait(Duration::ZERO) >= 500 * MS);
        bucket.give_back(600);
        assert_eq!(bucket.wait(Duration::ZERO), Duration::ZERO);
    }

    proptest! {
        /// Whatever is asked, withdrawn and changed: every request is granted once or withdrawn, and nothing is left over.
        #[test]
        fn every_request_is_granted_once(
            steps in prop::collection::vec((0u8..5, 0u8..4, 0u64..2_000_000, prop::option::of(1u64..5_000_000)), 1..100),
        ) {
            let mut shares = Shares::new(Some(1_000_000), Some(500_000), Duration::ZERO);
            let (mut now, mut next, mut waiting) = (Duration::ZERO, 0, BTreeMap::new());
            let finish = |shares: &mut Shares<u8>, waiting: &mut BTreeMap<Ticket, u8>, now| {
                let granted = shares.grant(now);
                for ticket in &granted.tickets {
                    let peer = waiting.remove(ticket);
                    prop_assert!(peer.is_some());
                    shares.settle(peer.unwrap(), 10, 20, now);
                }
                prop_assert_eq!(granted.again_in.is_some(), !waiting.is_empty());
                Ok(granted.again_in)
            };
            for (what, peer, number, limit) in steps {
                match what {
                    0 => shares.set_limits(limit, limit.map(|limit| limit / 2 + 1), now),
                    1 => {
                        if let Some((ticket, peer)) = waiting.pop_first() {
                            shares.withdraw(peer, ticket);
                        }
                    }
                    2 => { finish(&mut shares, &mut waiting, now)?; }
                    _ => {
                        waiting.insert(next, peer);
                        shares.request(peer, next, number, now);
                        next += 1;
                    }
                }
                now += Duration::from_micros(number);
            }
            while let Some(wait) = finish(&mut shares, &mut waiting, now)? {
                now += wait;
            }
            prop_assert!(waiting.is_empty());
        }
    }
}
