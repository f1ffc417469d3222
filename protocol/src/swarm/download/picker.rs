//! The picker: which chunks are asked of which peer.
//!
//! Rarest chunks first; ties fall by a seed of our own. Each peer has a window of bytes sized to its rate and latency.
//!
//! **A crowd** is when others fetch the image too: *relays*, which pass on what they get. Then a *seed*, who had everything
//! from the beginning, is asked for more than a window of the chunks that no relay has, so that it can send each fetcher
//! others (see [`crate::swarm::Spread`]), and what a relay has by now is asked of that one instead. So a single seed
//! sends little more than one copy.
//!
//! **The end game**: when nothing is left to ask for, what is late at a slow peer is asked of a faster one too, and whoever
//! comes second is told to stop. Only who has delivered before is believed to be faster: peers that stall or trickle hold
//! up nothing, however many they are.

use std::collections::BTreeSet;
use std::time::Duration;

use super::slots::Slot;
use super::{Action, Download, Peer, PeerKey, State};

/// Chunks that may be on their way from any peer; below what a holder keeps in mind.
const WINDOW_CHUNKS: usize = 2048;
/// Bytes asked, in a crowd, of a seed: enough that always some are among them which nobody got yet.
const SPREAD_BYTES: u64 = 4 * 1024 * 1024;
/// How many chunks of the common order are looked at for a partial holder before its own chunks are looked at instead.
const SCAN_LIMIT: usize = 1024;
/// In the end game, peers that one chunk is asked of.
const MAX_ASKED_OF: usize = 4;
/// What a peer that delivers is expected to deliver before it is called late, in bytes: two chunks.
const STEP_BYTES: u64 = 64 * 1024;

impl Download {
    /// The requests that are to be made now.
    pub(super) fn choose(&mut self, now: Duration) -> Vec<Action> {
        let is_crowd = self.peers.values().any(|peer| peer.is_relay);
        // Relays first: what they have, a seed need not send.
        let mut peers: Vec<PeerKey> = self.peers.keys().copied().collect();
        peers.sort_by_key(|key| self.peers.get(key).is_some_and(Peer::is_seed));
        let mut actions = Vec::new();
        for &key in &peers {
            let picked = self.pick(key, is_crowd, now);
            self.ask_all(key, picked, now, &mut actions);
        }
        if self.pending.is_empty() && peers.len() > 1 && now >= self.late_at {
            self.late_at = now + self.timing.second_ask / 4;
            let late = self.late(now);
            // The fastest choose first.
            let rate = |key: &PeerKey| self.peers.get(key).map_or(0.0, |peer| peer.pace.bytes_per_second());
            peers.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
            for key in peers.into_iter().take_while(|_| !late.is_empty()) {
                let picked = self.pick_late(key, &late, now);
                self.ask_all(key, picked, now, &mut actions);
            }
        }
        actions
    }

    fn ask_all(&mut self, key: PeerKey, picked: Vec<Slot>, now: Duration, actions: &mut Vec<Action>) {
        let mut chunks: Vec<u32> = picked.into_iter().map(|slot| self.ask(key, slot, now)).collect();
        if !chunks.is_empty() {
            chunks.sort_unstable();
            actions.push(Action::Want { peer: key, chunks });
        }
    }

    /// The chunks to ask the peer for, until its window is full. A peer that has just lost its turn waits for a while, if
    /// others have something to send.
    fn pick(&mut self, key: PeerKey, is_crowd: bool, now: Duration) -> Vec<Slot> {
        let Some(peer) = self.peers.get(&key) else { return Vec::new() };
        if peer.exhausted_at == Some(self.offers) {
            return Vec::new();
        }
        let has_its_turn = peer.strikes == 0 || now >= peer.waits_until;
        if !has_its_turn && self.peers.values().any(|other| other.strikes == 0 && other.has_anything()) {
            return Vec::new();
        }
        let mut picked = Vec::new();
        let is_exhausted = match peer.is_seed() {
            true => self.pick_of_seed(peer, is_crowd, &mut picked),
            false => self.pick_of_relay(peer, &mut picked),
        };
        let (offers, last) = (self.offers, picked.last().copied());
        if let Some(peer) = self.peers.get_mut(&key) {
            if is_exhausted {
                peer.exhausted_at = Some(offers);
            }
            peer.cursor = last.unwrap_or(peer.cursor);
        }
        for &slot in picked.iter().filter(|&slot| self.asked.contains_key(slot)).collect::<Vec<_>>() {
            self.take_back(slot);
        }
        picked
    }

    /// Whether there was no more to choose.
    fn pick_of_seed(&self, peer: &Peer, is_crowd: bool, picked: &mut Vec<Slot>) -> bool {
        let window = peer.pace.window();
        let mut room = Room::of(peer, window);
        let mut room_for_rare = if is_crowd { Room::of(peer, SPREAD_BYTES.max(2 * window)) } else { room };
        for &(partial_holders, _, slot) in &self.pending {
            let is_rare = partial_holders == 0 && self.relays == 0;
            if (if is_rare { room_for_rare } else { room }).is_full() {
                return false;
            }
            let bytes = self.chunks[slot as usize].bytes;
            room.take(bytes);
            room_for_rare.take(bytes);
            picked.push(slot);
        }
        true
    }

    /// Whether there was no more to choose.
    fn pick_of_relay(&self, peer: &Peer, picked: &mut Vec<Slot>) -> bool {
        let mut room = Room::of(peer, peer.pace.window());
        let mut take = |slot: Slot, picked: &mut Vec<Slot>| {
            let is_taken = !room.is_full();
            if is_taken {
                room.take(self.chunks[slot as usize].bytes);
                picked.push(slot);
            }
            is_taken
        };
        // What is asked of a seed first, so that it can send us something that nobody has.
        let loose = self.loose.iter().take(SCAN_LIMIT).map(|&(_, slot)| slot);
        for slot in loose.filter(|&slot| peer.can_send(slot)) {
            if !take(slot, picked) {
                return false;
            }
        }
        if peer.is_complete {
            return self.pending.iter().all(|&(_, _, slot)| take(slot, picked));
        }
        let mut scanned = 0;
        for &(_, _, slot) in self.pending.range((1, 0, 0)..).take(SCAN_LIMIT) {
            scanned += 1;
            if peer.has.contains(slot) && !take(slot, picked) {
                return false;
            }
        }
        if scanned < SCAN_LIMIT {
            return true;
        }
        // It has little of what comes first: look through what it has instead.
        let taken: BTreeSet<Slot> = picked.iter().copied().collect();
        for slot in peer.has.iter_from(peer.cursor).filter(|slot| !taken.contains(slot)) {
            if self.chunks[slot as usize].state == State::Pending && !take(slot, picked) {
                return false;
            }
        }
        true
    }

    /// A seed is not asked for this any more: a relay is about to be.
    fn take_back(&mut self, slot: Slot) {
        let of = self.asked.get(&slot).map(|asked| asked.of.clone()).unwrap_or_default();
        for other in of {
            self.release(other, slot);
            let index = self.chunks[slot as usize].index;
            self.cancelled.entry(other).or_default().push(index);
        }
    }

    /// Chunks that are late at all of those whom they were asked of; those that wait longest first.
    fn late(&self, now: Duration) -> Vec<Slot> {
        let second_ask = self.timing.second_ask;
        let mut late: Vec<(Duration, Slot)> = Vec::new();
        for (&slot, asked) in self.asked.iter().filter(|(_, asked)| asked.of.len() < MAX_ASKED_OF) {
            // A peer that will have delivered all it owes before anyone else could is waited for, once.
            let delivers_soon = |key: &PeerKey| {
                let expected = self.peers.get(key).and_then(|peer| self.expected(peer, 0, now));
                expected.is_some_and(|time| time <= second_ask)
            };
            let waited = now.saturating_sub(asked.since);
            let nobody_is_known =
                !asked.of.iter().any(|key| self.peers.get(key).is_some_and(|peer| peer.pace.is_known()));
            if waited >= second_ask * 4
                || (nobody_is_known && waited >= second_ask / 4)
                || (waited >= second_ask && !asked.of.iter().any(delivers_soon))
            {
                late.push((asked.since, slot));
            }
        }
        late.sort_unstable();
        late.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Chunks that are late elsewhere, and that this peer will deliver sooner.
    fn pick_late(&self, key: PeerKey, late: &[Slot], now: Duration) -> Vec<Slot> {
        let Some(peer) = self.peers.get(&key).filter(|peer| peer.strikes == 0) else { return Vec::new() };
        let mut room = Room::of(peer, peer.pace.window());
        let mut picked = Vec::new();
        for &slot in late {
            if room.is_full() {
                break;
            }
            if peer.can_send(slot) && self.is_sooner_at(key, peer, slot, now) {
                room.take(self.chunks[slot as usize].bytes);
                picked.push(slot);
            }
        }
        picked
    }

    fn is_sooner_at(&self, key: PeerKey, peer: &Peer, slot: Slot, now: Duration) -> bool {
        let Some(asked) = self.asked.get(&slot).filter(|asked| !asked.of.contains(&key)) else { return false };
        if asked.of.len() >= MAX_ASKED_OF || asked.since == now {
            return false;
        }
        let bytes = self.chunks[slot as usize].bytes.into();
        let mut others = asked.of.iter().filter_map(|other| self.peers.get(other));
        match self.expected(peer, bytes, now) {
            Some(here) => others.all(|other| self.expected(other, 0, now).is_none_or(|there| here * 2 < there)),
            // Nobody knows how fast it is: only where nobody who is known to deliver could be asked.
            None => {
                let delivers = |other: &Peer| other.can_send(slot) && self.expected(other, 0, now).is_some();
                !peer.pace.is_known() && !self.peers.values().any(delivers)
            }
        }
    }

    /// When a peer will have delivered what it was asked for and so many bytes more; `None` where nothing says that it
    /// delivers at all.
    fn expected(&self, peer: &Peer, more_bytes: u64, now: Duration) -> Option<Duration> {
        let patience = self.timing.second_ask + 2 * peer.pace.time_for(STEP_BYTES)?;
        let is_late = !peer.asked.is_empty() && now.saturating_sub(peer.progress_at) > patience;
        peer.pace.time_for(peer.asked_bytes + more_bytes).filter(|_| !is_late)
    }
}

/// What a window still has room for.
#[derive(Debug, Clone, Copy)]
struct Room {
    bytes: u64,
    chunks: usize,
}

impl Room {
    /// Asking in small steps would cost a message a chunk: there is none until a good part of the window is free.
    fn of(peer: &Peer, window: u64) -> Self {
        let is_worth_asking = peer.asked_bytes * 4 <= window * 3;
        Self {
            bytes: if is_worth_asking { window.saturating_sub(peer.asked_bytes) } else { 0 },
            chunks: WINDOW_CHUNKS.saturating_sub(peer.asked.len()),
        }
    }

    fn is_full(self) -> bool {
        self.bytes == 0 || self.chunks == 0
    }

    fn take(&mut self, bytes: u32) {
        self.bytes = self.bytes.saturating_sub(bytes.into());
        self.chunks = self.chunks.saturating_sub(1);
    }
}
