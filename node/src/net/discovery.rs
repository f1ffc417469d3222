//! Whom to dial and when: bootstrap addresses for ever, others while there are too few peers. Pure but for its seed.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// Wait after the first failure; each further one doubles it.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// The longest wait: a site that comes back is found within this.
const BACKOFF_MAX: Duration = Duration::from_secs(120);
/// Peers remembered for their failures; the oldest are forgotten first, which only means that they are tried again.
const MAX_REMEMBERED: usize = 4096;

/// When to try what again.
#[derive(Debug)]
pub(super) struct Dialer {
    bootstrap: Vec<(Multiaddr, Attempts)>,
    others: BTreeMap<PeerId, Attempts>,
    jitter: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Attempts {
    failures: u32,
    next_at: Duration,
}

impl Dialer {
    /// `seed` spreads the attempts of sites that lost the same peer at the same time.
    pub(super) fn new(bootstrap: Vec<Multiaddr>, seed: u64) -> Self {
        let bootstrap = bootstrap.into_iter().map(|address| (address, Attempts::default())).collect();
        Self { bootstrap, others: BTreeMap::new(), jitter: seed | 1 }
    }

    /// Bootstrap addresses to be dialled now; each counts as an attempt. A peer is settled when it is connected and has
    /// said that it is of this federation; `settled` is how many are.
    pub(super) fn due(
        &mut self,
        now: Duration,
        is_settled: impl Fn(&PeerId) -> bool,
        settled: usize,
    ) -> Vec<Multiaddr> {
        let mut due = Vec::new();
        for position in 0..self.bootstrap.len() {
            let (address, attempts) = &self.bootstrap[position];
            let is_settled = match peer_of(address) {
                Some(peer) => is_settled(&peer),
                // Who answers at an address without a peer id is unknown: any peer of ours will do.
                None => settled > 0,
            };
            if is_settled {
                self.bootstrap[position].1 = Attempts::default();
            } else if attempts.next_at <= now {
                due.push(address.clone());
                let wait = self.wait(attempts.failures);
                let attempts = &mut self.bootstrap[position].1;
                *attempts = Attempts { failures: attempts.failures.saturating_add(1), next_at: now + wait };
            }
        }
        due
    }

    /// Whether this peer may be dialled now; counts as an attempt if so.
    pub(super) fn may_dial(&mut self, peer: PeerId, now: Duration) -> bool {
        let attempts = self.others.get(&peer).copied().unwrap_or_default();
        if attempts.next_at > now {
            return false;
        }
        if self.others.len() >= MAX_REMEMBERED
            && !self.others.contains_key(&peer)
            && let Some(oldest) = self.others.iter().min_by_key(|(_, attempts)| attempts.next_at).map(|(&peer, _)| peer)
        {
            self.others.remove(&oldest);
        }
        let next_at = now + self.wait(attempts.failures);
        self.others.insert(peer, Attempts { failures: attempts.failures.saturating_add(1), next_at });
        true
    }

    /// The peer is connected and of this federation: earlier failures are forgotten.
    pub(super) fn connected(&mut self, peer: &PeerId) {
        self.others.remove(peer);
    }

    fn wait(&mut self, failures: u32) -> Duration {
        let base = BACKOFF_MIN.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
        // xorshift64: up to a quarter more, so that many sites do not dial in step.
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        base + base / 4 * (self.jitter % 256) as u32 / 256
    }
}

/// The peer that an address ends in, where it does.
pub(super) fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// The address with `/p2p/<peer>` at its end.
pub(super) fn with_peer(address: Multiaddr, peer: PeerId) -> Multiaddr {
    address.clone().with_p2p(peer).unwrap_or(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_bootstrap_address_is_tried_for_ever_but_ever_less_often() {
        let mut dialer = Dialer::new(vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()], 7);
        let day = Duration::from_secs(86_400);
        let (mut now, mut attempts) = (Duration::ZERO, Vec::new());
        while now < day {
            if !dialer.due(now, |_| false, 0).is_empty() {
                attempts.push(now);
            }
            now += Duration::from_millis(250);
        }
        assert!(attempts.len() > 86_400 / 160, "{} attempts", attempts.len());
        assert!(attempts.len() < 86_400 / 100, "{} attempts", attempts.len());
        assert!(attempts[1] - attempts[0] < Duration::from_secs(1));
    }

    #[test]
    fn a_connection_that_is_lost_is_dialled_again_at_once() {
        let peer = PeerId::random();
        let mut dialer = Dialer::new(vec![with_peer("/ip4/127.0.0.1/tcp/1".parse().unwrap(), peer)], 7);
        assert_eq!(dialer.due(Duration::ZERO, |_| false, 0).len(), 1);
        assert!(dialer.due(Duration::from_millis(1), |_| false, 0).is_empty());
        assert!(dialer.due(Duration::from_millis(2), |other| *other == peer, 1).is_empty());
        assert_eq!(dialer.due(Duration::from_millis(3), |_| false, 0).len(), 1);
    }
}
