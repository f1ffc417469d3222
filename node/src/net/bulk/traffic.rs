//! What moved between this node and others since it started: for `status`, `peers` and `/metrics`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libp2p::PeerId;
use rialto_protocol::image::encoding::Encoding;
use tokio::time::Instant;

/// Sites that are remembered one by one; beyond that, those that moved nothing for longest are forgotten.
const MAX_PEERS: usize = 256;
/// A rate is measured over at least this long.
const RATE_PERIOD: Duration = Duration::from_secs(1);
/// A rate that was not measured again for this long is none any more.
const RATE_FADES: Duration = Duration::from_secs(4);

/// What a chunk that is encoded against a base counts as.
pub(super) const REFERENCED: &str = "referenced";

/// What a chunk of this encoding counts as.
pub(super) fn name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Raw => "raw",
        Encoding::Zstd => "zstd",
    }
}

/// The counters of a node.
#[derive(Debug, Clone, Default)]
pub(super) struct Traffic(Arc<Mutex<Counters>>);

#[derive(Debug, Default)]
struct Counters {
    totals: Totals,
    peers: BTreeMap<PeerId, Peer>,
}

#[derive(Debug)]
struct Peer {
    sent: Meter,
    received: Meter,
    at: Instant,
}

/// Bytes and chunks since the node started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of chunks and pages sent.
    pub sent_bytes: u64,
    /// Bytes of chunks and pages received.
    pub received_bytes: u64,
    /// Of those, bytes that were of no use: received twice, or refused.
    pub duplicate_bytes: u64,
    /// Chunks sent and received, by encoding: `raw`, `zstd`, `referenced`.
    pub chunks: BTreeMap<&'static str, ChunkCount>,
}

/// Chunks of one encoding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChunkCount {
    /// Sent to others.
    pub sent: u64,
    /// Received from others.
    pub received: u64,
}

/// What moved between this node and one site, since the node started or the site was seen first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeerTraffic {
    /// Bytes sent to it.
    pub sent_bytes: u64,
    /// Bytes received from it.
    pub received_bytes: u64,
    /// Bytes a second sent to it, lately.
    pub sent_rate: f64,
    /// Bytes a second received from it, lately.
    pub received_rate: f64,
}

/// A sum and its growth.
#[derive(Debug)]
struct Meter {
    total: u64,
    since: Instant,
    bytes: u64,
    rate: f64,
}

impl Traffic {
    pub(super) fn sent(&self, peer: PeerId, bytes: u64) {
        self.counters().sent(peer, bytes, Instant::now());
    }

    pub(super) fn received(&self, peer: PeerId, bytes: u64) {
        self.counters().received(peer, bytes, Instant::now());
    }

    pub(super) fn duplicate(&self, bytes: u64) {
        self.counters().totals.duplicate_bytes += bytes;
    }

    pub(super) fn sent_chunk(&self, encoding: &'static str) {
        self.counters().totals.chunks.entry(encoding).or_default().sent += 1;
    }

    pub(super) fn received_chunk(&self, encoding: &'static str) {
        self.counters().totals.chunks.entry(encoding).or_default().received += 1;
    }

    pub(super) fn totals(&self) -> Totals {
        self.counters().totals.clone()
    }

    /// What moved between this node and each site that is remembered.
    pub(super) fn peers(&self) -> BTreeMap<PeerId, PeerTraffic> {
        self.counters().shown(Instant::now())
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters {
    fn sent(&mut self, peer: PeerId, bytes: u64, now: Instant) {
        self.totals.sent_bytes += bytes;
        self.peer(peer, now).sent.add(bytes, now);
    }

    fn received(&mut self, peer: PeerId, bytes: u64, now: Instant) {
        self.totals.received_bytes += bytes;
        self.peer(peer, now).received.add(bytes, now);
    }

    fn shown(&self, now: Instant) -> BTreeMap<PeerId, PeerTraffic> {
        let shown = |peer: &Peer| PeerTraffic {
            sent_bytes: peer.sent.total,
            received_bytes: peer.received.total,
            sent_rate: peer.sent.rate(now),
            received_rate: peer.received.rate(now),
        };
        self.peers.iter().map(|(id, peer)| (*id, shown(peer))).collect()
    }

    fn peer(&mut self, id: PeerId, now: Instant) -> &mut Peer {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&id) {
            let oldest = self.peers.iter().min_by_key(|(_, peer)| peer.at).map(|(id, _)| *id);
            oldest.and_then(|id| self.peers.remove(&id));
        }
        let new = || Peer { sent: Meter::new(now), received: Meter::new(now), at: now };
        let peer = self.peers.entry(id).or_insert_with(new);
        peer.at = now;
        peer
    }
}

impl Meter {
    fn new(now: Instant) -> Self {
        Self { total: 0, since: now, bytes: 0, rate: 0.0 }
    }

    fn add(&mut self, bytes: u64, now: Instant) {
        self.total += bytes;
        let period = now.saturating_duration_since(self.since);
        if period > RATE_FADES {
            // It was quiet: this is the beginning of something else.
            (self.since, self.bytes, self.rate) = (now, bytes, 0.0);
            return;
        }
        self.bytes += bytes;
        if period >= RATE_PERIOD {
            self.rate = self.bytes as f64 / period.as_secs_f64();
            (self.since, self.bytes) = (now, 0);
        }
    }

    fn rate(&self, now: Instant) -> f64 {
        let period = now.saturating_duration_since(self.since);
        if period > RATE_FADES { 0.0 } else { self.rate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_what_moves_and_fade() {
        let (mut counters, peer, mut now) = (Counters::default(), PeerId::random(), Instant::now());
        for _ in 0..30 {
            counters.sent(peer, 10_000, now);
            now += Duration::from_millis(100);
        }
        counters.received(peer, 7, now);
        let shown = counters.shown(now)[&peer];
        assert_eq!((shown.sent_bytes, shown.received_bytes), (300_000, 7));
        assert!((90_000.0..120_000.0).contains(&shown.sent_rate), "{shown:?}");
        now += Duration::from_secs(10);
        assert_eq!(counters.shown(now)[&peer].sent_rate, 0.0);
        assert_eq!(counters.totals.sent_bytes, 300_000);
    }

    #[test]
    fn however_many_come_so_many_are_remembered() {
        let (mut counters, first, mut now) = (Counters::default(), PeerId::random(), Instant::now());
        counters.sent(first, 1, now);
        for _ in 0..2 * MAX_PEERS {
            now += Duration::from_millis(1);
            counters.sent(PeerId::random(), 1, now);
        }
        assert_eq!(counters.peers.len(), MAX_PEERS);
        assert!(!counters.peers.contains_key(&first));
        assert_eq!(counters.totals.sent_bytes, 1 + 2 * MAX_PEERS as u64);
    }
}
