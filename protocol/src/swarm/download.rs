//! A download: which chunks to ask of whom. Pure: events and the time come in, [`Action`]s go out.
//!
//! ```text
//!            ask                arrived               stored
//!   Pending ─────► Asked(by 1-2) ─────► Arrived ─────────────► Done
//!      ▲             │ left, stalled      │ refused: the sender is dropped
//!      └─────────────┴────────────────────┘
//! ```
//!
//! Rarest chunks are asked for first, ties fall by a seed of our own, so that fetchers who start together ask a single
//! holder for different chunks. Each peer has a window of bytes sized to what it delivers. When nothing is left to ask
//! for, what is late at a slow peer is asked of a second one, and whoever comes second is told to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::swarm::Ranges;

/// A peer's stream, numbered by the shell; a new stream of the same peer is a new key.
pub type PeerKey = u64;

/// Bytes that may be on their way from a peer of which nothing is known yet.
const WINDOW_MIN_BYTES: u64 = 512 * 1024;
/// Bytes that may be on their way from any peer: what a fast one sends in a few hundredths of a second.
const WINDOW_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// Chunks that may be on their way from any peer; below what a holder keeps in mind.
const WINDOW_MAX_CHUNKS: usize = 2048;
/// A window holds what a peer delivers in this time, so that it never waits for the next request.
const WINDOW_TIME: Duration = Duration::from_millis(250);
/// Rates are measured over at least this long.
const RATE_PERIOD: Duration = Duration::from_millis(100);
/// Neighbouring chunks in a run of this many share their place in the order: holders read them in one go.
const RUN_CHUNKS: u32 = 16;
/// How many chunks of the common order are looked at for a partial holder before its own chunks are looked at instead.
const SCAN_LIMIT: usize = 1024;

/// How patient a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A peer that was asked and delivers nothing for this long loses its turn, and the second time its place.
    pub stall: Duration,
    /// In the end game, a chunk is asked of a second peer no sooner than this after the first.
    pub second_ask: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { stall: Duration::from_secs(10), second_ask: Duration::from_millis(500) }
    }
}

/// A chunk to be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Its index in the image, holes not counted.
    pub index: u32,
    /// Its plain length, in bytes.
    pub bytes: u32,
}

/// What the shell should do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask the peer for these chunks.
    Want {
        /// The peer.
        peer: PeerKey,
        /// The chunks' indices, ascending.
        chunks: Vec<u32>,
    },
    /// Tell the peer that these are no longer needed.
    Cancel {
        /// The peer.
        peer: PeerKey,
        /// The chunks' indices, ascending.
        chunks: Vec<u32>,
    },
    /// Close the stream; the download has forgotten the peer.
    Drop {
        /// The peer.
        peer: PeerKey,
        /// Why.
        reason: DropReason,
    },
}

/// Why a peer is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DropReason {
    /// It sent bytes that are not the chunk's. Do not take it back for this image.
    #[error("sent bytes that do not have the chunk's hash")]
    Lied,
    /// It sent a chunk that it was not asked for. Do not take it back for this image.
    #[error("sent a chunk that nobody asked for")]
    Unasked,
    /// It did not say what it has, or did not deliver what it was asked for, in time.
    #[error("delivered nothing in time")]
    Stalled,
}

/// What became of a chunk that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is needed: verify and store it, then say [`Download::stored`] or [`Download::refused`].
    Needed,
    /// Somebody else was faster.
    Duplicate,
    /// It was never asked of this peer.
    Unasked,
}

/// How far a download is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Chunks stored.
    pub chunks_done: u64,
    /// Chunks in all.
    pub chunks: u64,
    /// Plain bytes of the chunks stored.
    pub bytes_done: u64,
    /// Plain bytes of all chunks.
    pub bytes: u64,
}

/// The state of one download.
#[derive(Debug)]
pub struct Download {
    timing: Timing,
    chunks: Vec<Chunk>,
    /// Chunks to be asked for: by number of partial holders, then by the seed's order, then by place.
    pending: BTreeSet<(u32, u32, Slot)>,
    peers: BTreeMap<PeerKey, Peer>,
    dropped: Vec<Action>,
    cancelled: BTreeMap<PeerKey, Vec<u32>>,
    progress: Progress,
    /// Grows whenever a chunk can be asked for again: what a peer had nothing for before, it may have something for now.
    offers: u64,
}

/// Position in `chunks`.
type Slot = u32;

#[derive(Debug)]
struct Chunk {
    index: u32,
    bytes: u32,
    order: u32,
    partial_holders: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Asked { first: PeerKey, second: Option<PeerKey> },
    Arrived,
    Done,
}

#[derive(Debug)]
struct Peer {
    /// Whether it said what it has, be it nothing.
    has_spoken: bool,
    is_complete: bool,
    has: Slots,
    /// Chunks on their way, and since when.
    asked: BTreeMap<Slot, Duration>,
    /// Chunks asked at any time that did not arrive yet, cancelled ones included.
    owed: Slots,
    /// Chunks of `owed` that were asked more than once, and how often more: a holder that was cut off for a while
    /// sends them as often.
    owed_again: BTreeMap<Slot, u32>,
    asked_bytes: u64,
    /// When it last did what it should.
    progress_at: Duration,
    strikes: u32,
    /// Until when it has lost its turn, should others have something to send.
    waits_until: Duration,
    rate: Rate,
    /// The value of [`Download::offers`] at which it had nothing more that could be asked for.
    exhausted_at: Option<u64>,
}

#[derive(Debug, Default)]
struct Rate {
    since: Duration,
    bytes: u64,
    bytes_per_second: f64,
}

/// A set of slots, as bits.
#[derive(Debug, Default)]
struct Slots(Vec<u64>);

impl Download {
    /// A download of these chunks, which ascend by index. `seed` decides ties and should differ from site to site.
    pub fn new(wanted: impl IntoIterator<Item = Wanted>, seed: u64, timing: Timing) -> Self {
        let order = |index: u32| fastrand::Rng::with_seed(seed ^ u64::from(index / RUN_CHUNKS)).u32(..);
        let chunks: Vec<Chunk> = wanted
            .into_iter()
            .map(|Wanted { index, bytes }| Chunk {
                index,
                bytes,
                order: order(index),
                partial_holders: 0,
                state: State::Pending,
            })
            .collect();
        let progress = Progress {
            chunks: chunks.len() as u64,
            bytes: chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum(),
            ..Progress::default()
        };
        let pending = chunks.iter().zip(0..).map(|(chunk, slot)| (0, chunk.order, slot)).collect();
        Self {
            timing,
            chunks,
            pending,
            peers: BTreeMap::new(),
            dropped: Vec::new(),
            cancelled: BTreeMap::new(),
            progress,
            offers: 0,
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether every chunk is stored.
    pub fn is_complete(&self) -> bool {
        self.progress.chunks_done == self.progress.chunks
    }

    /// Number of peers that take part.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// A stream to a holder is open; it has until the stall time to say what it has.
    pub fn joined(&mut self, peer: PeerKey, now: Duration) {
        let slots = self.chunks.len();
        self.peers.insert(
            peer,
            Peer {
                has_spoken: false,
                is_complete: false,
                has: Slots::default(),
                asked: BTreeMap::new(),
                owed: Slots::with_room(slots),
                owed_again: BTreeMap::new(),
                asked_bytes: 0,
                progress_at: now,
                strikes: 0,
                waits_until: now,
                rate: Rate { since: now, ..Rate::default() },
                exhausted_at: None,
            },
        );
    }

    /// The stream is gone: what was asked of it is asked of others.
    pub fn left(&mut self, peer: PeerKey) {
        let Some(gone) = self.peers.remove(&peer) else { return };
        self.cancelled.remove(&peer);
        for &slot in gone.asked.keys() {
            self.unask(slot, peer);
        }
        if !gone.is_complete {
            for slot in gone.has.iter() {
                self.count_holders(slot, |holders| holders.saturating_sub(1));
            }
        }
    }

    /// The peer says which chunks it has, beside those it told of before.
    pub fn have(&mut self, peer: PeerKey, is_complete: bool, ranges: &Ranges, now: Duration) {
        let end = self.chunks.last().map_or(0, |chunk| chunk.index.saturating_add(1));
        let Some(holder) = self.peers.get_mut(&peer) else { return };
        holder.has_spoken = true;
        holder.exhausted_at = None;
        if holder.asked.is_empty() {
            holder.progress_at = now;
        }
        if holder.is_complete {
            return;
        }
        let mut gained: Vec<Slot> = Vec::new();
        if is_complete {
            // It is no partial holder any more: a chunk that everybody has is no more common than one that everybody else has.
            let told = std::mem::take(&mut holder.has);
            holder.is_complete = true;
            for slot in told.iter() {
                self.count_holders(slot, |holders| holders.saturating_sub(1));
            }
            return;
        }
        // Both ascend: one pass finds the slots of the indices.
        let mut from = 0;
        for index in ranges.indices_below(end) {
            from += self.chunks[from..].partition_point(|chunk| chunk.index < index);
            if self.chunks.get(from).is_some_and(|chunk| chunk.index == index) && holder.has.insert(from as Slot) {
                gained.push(from as Slot);
            }
        }
        for slot in gained {
            self.count_holders(slot, |holders| holders.saturating_add(1));
        }
    }

    /// A chunk arrived; its bytes are not verified yet.
    pub fn arrived(&mut self, peer: PeerKey, index: u32, now: Duration) -> Outcome {
        let slot = self.slot(index);
        let Some(sender) = self.peers.get_mut(&peer) else { return Outcome::Duplicate };
        let Some(slot) = slot.filter(|&slot| sender.pay(slot)) else {
            self.drop_peer(peer, DropReason::Unasked);
            return Outcome::Unasked;
        };
        let bytes = self.chunks[slot as usize].bytes;
        sender.progress_at = now;
        sender.strikes = 0;
        sender.rate.count(bytes, now);
        if sender.asked.remove(&slot).is_some() {
            sender.asked_bytes -= u64::from(bytes);
        }
        match self.chunks[slot as usize].state {
            State::Arrived | State::Done => return Outcome::Duplicate,
            State::Pending => {
                let key = self.pending_key(slot);
                self.pending.remove(&key);
            }
            State::Asked { first, second } => {
                for other in [Some(first), second].into_iter().flatten().filter(|&other| other != peer) {
                    self.release(other, slot);
                    self.cancelled.entry(other).or_default().push(index);
                }
            }
        }
        self.chunks[slot as usize].state = State::Arrived;
        Outcome::Needed
    }

    /// A chunk that arrived had the right hash and is stored.
    pub fn stored(&mut self, index: u32) {
        let Some(slot) = self.slot(index) else { return };
        let chunk = &mut self.chunks[slot as usize];
        if chunk.state == State::Arrived {
            chunk.state = State::Done;
            self.progress.chunks_done += 1;
            self.progress.bytes_done += u64::from(chunk.bytes);
        }
    }

    /// A chunk that arrived was not what it should be: it is asked of others, and its sender is dropped.
    pub fn refused(&mut self, peer: PeerKey, index: u32) {
        self.again(index);
        if self.peers.contains_key(&peer) {
            self.drop_peer(peer, DropReason::Lied);
        }
    }

    /// A chunk that arrived could not be used, for no fault of its sender: it is asked for again.
    pub fn again(&mut self, index: u32) {
        if let Some(slot) = self.slot(index)
            && self.chunks[slot as usize].state == State::Arrived
        {
            self.make_pending(slot);
        }
    }

    /// What to do now. Call it after events and when [`Download::wake_at`] has come.
    pub fn poll(&mut self, now: Duration) -> Vec<Action> {
        self.punish_stalled(now);
        let mut actions = std::mem::take(&mut self.dropped);
        for (peer, mut chunks) in std::mem::take(&mut self.cancelled) {
            chunks.sort_unstable();
            chunks.dedup();
            actions.push(Action::Cancel { peer, chunks });
        }
        let peers: Vec<PeerKey> = self.peers.keys().copied().collect();
        let mut late = None;
        for peer in peers {
            let mut chunks = self.pick(peer, now);
            if chunks.is_empty() && self.pending.is_empty() {
                let late = late.get_or_insert_with(|| self.late(now));
                chunks = self.pick_late(peer, late, now);
            }
            if !chunks.is_empty() {
                chunks.sort_unstable();
                actions.push(Action::Want { peer, chunks });
            }
        }
        actions
    }

    /// When [`Download::poll`] should be called again even if nothing happens.
    pub fn wake_at(&self, now: Duration) -> Option<Duration> {
        if self.is_complete() {
            return None;
        }
        let stalls =
            self.peers.values().filter(|peer| peer.is_expected()).map(|peer| peer.progress_at + self.timing.stall);
        let turns =
            self.peers.values().filter(|peer| peer.strikes > 0 && peer.waits_until > now).map(|peer| peer.waits_until);
        let is_end_game = self.pending.is_empty() && self.peers.values().any(|peer| !peer.asked.is_empty());
        stalls.chain(turns).chain((is_end_game && self.peers.len() > 1).then(|| now + self.timing.second_ask)).min()
    }

    fn punish_stalled(&mut self, now: Duration) {
        let stall = self.timing.stall;
        let stalled: Vec<PeerKey> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_expected() && now.saturating_sub(peer.progress_at) >= stall)
            .map(|(&key, _)| key)
            .collect();
        for key in stalled {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            peer.strikes += 1;
            if peer.strikes > 1 || peer.asked.is_empty() {
                self.drop_peer(key, DropReason::Stalled);
                continue;
            }
            peer.progress_at = now;
            peer.waits_until = now + stall;
            peer.rate = Rate { since: now, ..Rate::default() };
            let asked: Vec<Slot> = peer.asked.keys().copied().collect();
            for slot in asked {
                self.release(key, slot);
                self.unask(slot, key);
                let index = self.chunks[slot as usize].index;
                self.cancelled.entry(key).or_default().push(index);
            }
        }
    }

    /// Asks the peer for pending chunks, rarest first, until its window is full. A peer that has just lost its turn waits
    /// for a while, if others have something to send.
    fn pick(&mut self, key: PeerKey, now: Duration) -> Vec<u32> {
        let Some(peer) = self.peers.get(&key) else { return Vec::new() };
        if peer.exhausted_at == Some(self.offers) {
            return Vec::new();
        }
        let has_its_turn = peer.strikes == 0 || now >= peer.waits_until;
        if !has_its_turn && self.peers.values().any(|other| other.strikes == 0 && other.has_anything()) {
            return Vec::new();
        }
        let mut room = peer.room();
        let mut picked: Vec<Slot> = Vec::new();
        let mut scanned = 0;
        for &(_, _, slot) in &self.pending {
            if room.is_full() || scanned == SCAN_LIMIT {
                break;
            }
            if peer.can_send(slot) {
                room.take(self.chunks[slot as usize].bytes);
                picked.push(slot);
            } else {
                scanned += 1;
            }
        }
        if scanned == SCAN_LIMIT {
            let taken: BTreeSet<Slot> = picked.iter().copied().collect();
            for slot in peer.has.iter().filter(|slot| !taken.contains(slot)) {
                if room.is_full() {
                    break;
                }
                if self.chunks[slot as usize].state == State::Pending {
                    room.take(self.chunks[slot as usize].bytes);
                    picked.push(slot);
                }
            }
        }
        let is_exhausted = !room.is_full();
        let picked = picked.into_iter().map(|slot| self.ask(key, slot, now)).collect();
        if is_exhausted && let Some(peer) = self.peers.get_mut(&key) {
            peer.exhausted_at = Some(self.offers);
        }
        picked
    }

    /// The end game: chunks that are late at the one peer they were asked of, those that wait longest first.
    fn late(&self, now: Duration) -> Vec<(Duration, Slot, PeerKey)> {
        let mut late: Vec<(Duration, Slot, PeerKey)> = Vec::new();
        for (&key, slow) in &self.peers {
            // A peer that will have delivered all it owes before anyone else could is waited for, once.
            let is_about_to_deliver =
                slow.rate.time_for(slow.asked_bytes).is_some_and(|time| time <= self.timing.second_ask);
            let patience = self.timing.second_ask * if is_about_to_deliver { 4 } else { 1 };
            let asked = slow.asked.iter().filter(|&(_, &since)| now.saturating_sub(since) >= patience);
            late.extend(asked.map(|(&slot, &since)| (since, slot, key)));
        }
        late.sort_unstable();
        late
    }

    /// Asks the peer for chunks that are late at another one.
    fn pick_late(&mut self, key: PeerKey, late: &[(Duration, Slot, PeerKey)], now: Duration) -> Vec<u32> {
        let Some(peer) = self.peers.get(&key).filter(|peer| peer.strikes == 0) else { return Vec::new() };
        let mut room = peer.room();
        let mut picked: Vec<Slot> = Vec::new();
        for &(_, slot, slow) in late {
            if room.is_full() {
                break;
            }
            let is_asked_once =
                self.chunks[slot as usize].state == State::Asked { first: slow, second: None } && slow != key;
            if is_asked_once && self.peers.get(&key).is_some_and(|peer| peer.can_send(slot)) {
                room.take(self.chunks[slot as usize].bytes);
                picked.push(slot);
            }
        }
        picked.into_iter().map(|slot| self.ask(key, slot, now)).collect()
    }

    fn ask(&mut self, key: PeerKey, slot: Slot, now: Duration) -> u32 {
        let pending_key = self.pending_key(slot);
        let chunk = &mut self.chunks[slot as usize];
        chunk.state = match chunk.state {
            State::Asked { first, .. } => State::Asked { first, second: Some(key) },
            _ => {
                self.pending.remove(&pending_key);
                State::Asked { first: key, second: None }
            }
        };
        let (index, bytes) = (chunk.index, chunk.bytes);
        if let Some(peer) = self.peers.get_mut(&key) {
            if peer.asked.is_empty() {
                peer.progress_at = now;
                peer.rate.restart(now);
            }
            peer.asked.insert(slot, now);
            if !peer.owed.insert(slot) {
                *peer.owed_again.entry(slot).or_default() += 1;
            }
            peer.asked_bytes += u64::from(bytes);
        }
        index
    }

    /// Takes a chunk off what a peer is expected to send.
    fn release(&mut self, key: PeerKey, slot: Slot) {
        let bytes = u64::from(self.chunks[slot as usize].bytes);
        if let Some(peer) = self.peers.get_mut(&key)
            && peer.asked.remove(&slot).is_some()
        {
            peer.asked_bytes -= bytes;
        }
    }

    /// Takes a peer off those that a chunk is asked of.
    fn unask(&mut self, slot: Slot, key: PeerKey) {
        let State::Asked { first, second } = self.chunks[slot as usize].state else { return };
        match (first == key, second) {
            (true, Some(second)) => self.chunks[slot as usize].state = State::Asked { first: second, second: None },
            (true, None) => self.make_pending(slot),
            (false, _) => self.chunks[slot as usize].state = State::Asked { first, second: None },
        }
    }

    fn make_pending(&mut self, slot: Slot) {
        self.chunks[slot as usize].state = State::Pending;
        self.offers += 1;
        let key = self.pending_key(slot);
        self.pending.insert(key);
    }

    fn drop_peer(&mut self, key: PeerKey, reason: DropReason) {
        self.left(key);
        self.dropped.push(Action::Drop { peer: key, reason });
    }

    fn count_holders(&mut self, slot: Slot, change: impl FnOnce(u32) -> u32) {
        let key = self.pending_key(slot);
        let was_pending = self.pending.remove(&key);
        let chunk = &mut self.chunks[slot as usize];
        chunk.partial_holders = change(chunk.partial_holders);
        if was_pending {
            let key = self.pending_key(slot);
            self.pending.insert(key);
        }
    }

    fn pending_key(&self, slot: Slot) -> (u32, u32, Slot) {
        let chunk = &self.chunks[slot as usize];
        (chunk.partial_holders, chunk.order, slot)
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.chunks.binary_search_by_key(&index, |chunk| chunk.index).ok().map(|slot| slot as Slot)
    }
}

impl Peer {
    fn can_send(&self, slot: Slot) -> bool {
        self.is_complete || self.has.contains(slot)
    }

    fn has_anything(&self) -> bool {
        self.is_complete || !self.has.0.is_empty()
    }

    /// Whether something should come from it: word of what it has, or what it was asked for.
    fn is_expected(&self) -> bool {
        !self.has_spoken || !self.asked.is_empty()
    }

    /// Takes one delivery of the chunk off what it owes; `false` where it owes none.
    fn pay(&mut self, slot: Slot) -> bool {
        match self.owed_again.get_mut(&slot) {
            Some(again) if *again > 1 => *again -= 1,
            Some(_) => drop(self.owed_again.remove(&slot)),
            None => return self.owed.remove(slot),
        }
        true
    }

    fn room(&self) -> Room {
        let window = self.rate.bytes_per_second * WINDOW_TIME.as_secs_f64();
        let window = (window as u64).clamp(WINDOW_MIN_BYTES, WINDOW_MAX_BYTES);
        // Asking in small steps would cost a message a chunk: wait until a good part of the window is free.
        let is_worth_asking = self.asked_bytes * 4 <= window * 3;
        Room {
            bytes: if is_worth_asking { window.saturating_sub(self.asked_bytes) } else { 0 },
            chunks: WINDOW_MAX_CHUNKS.saturating_sub(self.asked.len()),
        }
    }
}

/// What a window still has room for.
struct Room {
    bytes: u64,
    chunks: usize,
}

impl Room {
    fn is_full(&self) -> bool {
        self.bytes == 0 || self.chunks == 0
    }

    fn take(&mut self, bytes: u32) {
        self.bytes = self.bytes.saturating_sub(bytes.into());
        self.chunks = self.chunks.saturating_sub(1);
    }
}

impl Rate {
    /// Idle time says nothing about a peer's rate.
    fn restart(&mut self, now: Duration) {
        self.since = now;
        self.bytes = 0;
    }

    fn count(&mut self, bytes: u32, now: Duration) {
        self.bytes += u64::from(bytes);
        let period = now.saturating_sub(self.since);
        if period >= RATE_PERIOD {
            let measured = self.bytes as f64 / period.as_secs_f64();
            let is_first = self.bytes_per_second == 0.0;
            self.bytes_per_second = if is_first { measured } else { (self.bytes_per_second + measured) / 2.0 };
            self.restart(now);
        }
    }

    /// How long so many bytes will take; `None` while nothing is known.
    fn time_for(&self, bytes: u64) -> Option<Duration> {
        (self.bytes_per_second >= 1.0)
            .then(|| Duration::try_from_secs_f64(bytes as f64 / self.bytes_per_second).unwrap_or(Duration::MAX))
    }
}

impl Slots {
    fn with_room(slots: usize) -> Self {
        Self(vec![0; slots.div_ceil(64)])
    }

    fn contains(&self, slot: Slot) -> bool {
        self.0.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    fn insert(&mut self, slot: Slot) -> bool {
        let word = slot as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let was_in = self.contains(slot);
        self.0[word] |= 1 << (slot % 64);
        !was_in
    }

    fn remove(&mut self, slot: Slot) -> bool {
        let was_in = self.contains(slot);
        if was_in {
            self.0[slot as usize / 64] &= !(1 << (slot % 64));
        }
        was_in
    }

    fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        let words = self.0.iter().zip(0..).filter(|&(&word, _)| word != 0);
        words.flat_map(|(&word, place): (&u64, Slot)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| place * 64 + bit)
        })
    }
}

#[cfg(test)]
mod tests;
