//! A download: which chunks to ask of whom. Pure: events and the time come in, [`Action`]s go out.
//!
//! ```text
//!            ask                arrived               stored
//!   Pending ─────► Asked(by 1-4) ─────► Arrived ─────────────► Done
//!      ▲             │ left, stalled      │ refused: the sender is dropped
//!      └─────────────┴────────────────────┘
//! ```
//!
//! Here is what is known of chunks and peers; `picker` chooses, and `pace` measures.

mod pace;
mod picker;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::pace::Pace;
use self::slots::{Slot, Slots};
use crate::swarm::Ranges;

/// A peer's stream, numbered by the shell; a new stream of the same peer is a new key.
pub type PeerKey = u64;

/// Neighbouring chunks in a run of this many, at most, share their place in the order: holders read them in one go.
const RUN_CHUNKS: usize = 16;
/// Runs that an image should have at least, so that many who fetch it begin in different places.
const RUNS_MIN: usize = 256;

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
    /// Chunks that somebody is asked for.
    asked: BTreeMap<Slot, Asked>,
    /// Those of them that a holder of everything is asked for, while a relay has them by now: by the seed's order.
    loose: BTreeSet<(u32, Slot)>,
    peers: BTreeMap<PeerKey, Peer>,
    /// Peers that were partial holders and have everything by now.
    relays: u32,
    dropped: Vec<Action>,
    cancelled: BTreeMap<PeerKey, Vec<u32>>,
    progress: Progress,
    /// When it is looked next, in the end game, what is late.
    late_at: Duration,
    /// Grows whenever a chunk can be asked for again: what a peer had nothing for before, it may have something for now.
    offers: u64,
}

#[derive(Debug)]
struct Chunk {
    index: u32,
    bytes: u32,
    order: u32,
    partial_holders: u16,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Asked,
    Arrived,
    Done,
}

/// Of whom a chunk is asked.
#[derive(Debug)]
struct Asked {
    of: Vec<PeerKey>,
    /// When the last of them was asked.
    since: Duration,
    /// Whether it is one of [`Download::loose`]: it takes no room in the window of whoever it is asked of.
    is_loose: bool,
}

#[derive(Debug)]
struct Peer {
    /// Whether it said what it has, be it nothing.
    has_spoken: bool,
    is_complete: bool,
    /// Whether it fetches the image itself, or did when it first spoke: who passes on what it gets.
    is_relay: bool,
    has: Slots,
    /// Chunks on their way.
    asked: BTreeSet<Slot>,
    /// Bytes of those that are not loose.
    asked_bytes: u64,
    /// Chunks asked at any time that did not arrive yet, cancelled ones included.
    owed: Slots,
    /// Chunks of `owed` that were asked more than once, and how often more: a holder that was cut off for a while
    /// sends them as often.
    owed_again: BTreeMap<Slot, u32>,
    /// When it last did what it should.
    progress_at: Duration,
    strikes: u32,
    /// Until when it has lost its turn, should others have something to send.
    waits_until: Duration,
    pace: Pace,
    /// The value of [`Download::offers`] at which it had nothing more that could be asked for.
    exhausted_at: Option<u64>,
    /// Where the search among its own chunks goes on.
    cursor: Slot,
}

impl Download {
    /// A download of these chunks, which ascend by index. `seed` decides ties and should differ from site to site.
    pub fn new(wanted: impl IntoIterator<Item = Wanted>, seed: u64, timing: Timing) -> Self {
        let mut chunks: Vec<Chunk> = wanted
            .into_iter()
            .map(|Wanted { index, bytes }| Chunk { index, bytes, order: 0, partial_holders: 0, state: State::Pending })
            .collect();
        let run = (chunks.len() / RUNS_MIN).clamp(1, RUN_CHUNKS) as u32;
        for chunk in &mut chunks {
            chunk.order = fastrand::Rng::with_seed(seed ^ u64::from(chunk.index / run)).u32(..);
        }
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
            asked: BTreeMap::new(),
            loose: BTreeSet::new(),
            peers: BTreeMap::new(),
            relays: 0,
            dropped: Vec::new(),
            cancelled: BTreeMap::new(),
            progress,
            late_at: Duration::ZERO,
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
                is_relay: false,
                has: Slots::default(),
                asked: BTreeSet::new(),
                asked_bytes: 0,
                owed: Slots::with_room(slots),
                owed_again: BTreeMap::new(),
                progress_at: now,
                strikes: 0,
                waits_until: now,
                pace: Pace::default(),
                exhausted_at: None,
                cursor: 0,
            },
        );
    }

    /// The stream is gone: what was asked of it is asked of others.
    pub fn left(&mut self, peer: PeerKey) {
        let asked = self.peers.get(&peer).map(|peer| peer.asked.clone()).unwrap_or_default();
        for slot in asked {
            self.unask(peer, slot);
        }
        let Some(gone) = self.peers.remove(&peer) else { return };
        self.cancelled.remove(&peer);
        if gone.is_relay && gone.is_complete {
            self.relays -= 1;
            self.tighten_all();
        }
        for slot in gone.has.iter() {
            self.count_holders(slot, |holders| holders.saturating_sub(1));
        }
    }

    /// The peer says which chunks it has, beside those it told of before.
    pub fn have(&mut self, peer: PeerKey, is_complete: bool, ranges: &Ranges, now: Duration) {
        let end = self.chunks.last().map_or(0, |chunk| chunk.index.saturating_add(1));
        let Some(holder) = self.peers.get_mut(&peer) else { return };
        if !std::mem::replace(&mut holder.has_spoken, true) {
            holder.is_relay = !is_complete;
        }
        holder.exhausted_at = None;
        if holder.asked.is_empty() {
            holder.progress_at = now;
        }
        if holder.is_complete {
            return;
        }
        if is_complete {
            // It is no partial holder any more: a chunk that everybody has is no more common than one that everybody else has.
            let told = std::mem::take(&mut holder.has);
            holder.is_complete = true;
            if holder.is_relay {
                self.relays += 1;
                let asked: Vec<Slot> = self.asked.keys().copied().collect();
                asked.into_iter().for_each(|slot| self.loosen(slot));
            }
            for slot in told.iter() {
                self.count_holders(slot, |holders| holders.saturating_sub(1));
            }
            return;
        }
        let mut gained: Vec<Slot> = Vec::new();
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
            self.loosen(slot);
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
        sender.progress_at = now;
        sender.strikes = 0;
        sender.pace.arrived(self.chunks[slot as usize].bytes, now);
        let owes_it_again = sender.owed.contains(slot);
        match self.chunks[slot as usize].state {
            State::Arrived | State::Done => return Outcome::Duplicate,
            State::Pending => {
                let key = self.pending_key(slot);
                self.pending.remove(&key);
            }
            State::Asked => {
                let of = self.asked.get(&slot).map(|asked| asked.of.clone()).unwrap_or_default();
                for &other in &of {
                    self.release(other, slot);
                    if other != peer || owes_it_again {
                        self.cancelled.entry(other).or_default().push(index);
                    }
                }
                self.asked.remove(&slot);
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
        let wants = self.choose(now);
        let mut actions = std::mem::take(&mut self.dropped);
        // Before the requests: what a holder is to forget makes room for what it is asked.
        for (peer, mut chunks) in std::mem::take(&mut self.cancelled) {
            chunks.sort_unstable();
            chunks.dedup();
            actions.push(Action::Cancel { peer, chunks });
        }
        actions.extend(wants);
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
        let is_end_game = self.pending.is_empty() && !self.asked.is_empty();
        stalls.chain(turns).chain((is_end_game && self.peers.len() > 1).then(|| self.late_at.max(now))).min()
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
            peer.pace.forget();
            for slot in peer.asked.clone() {
                self.unask(key, slot);
                let index = self.chunks[slot as usize].index;
                self.cancelled.entry(key).or_default().push(index);
            }
        }
    }

    fn ask(&mut self, key: PeerKey, slot: Slot, now: Duration) -> u32 {
        // Where several are asked for a chunk, it takes its room in each window.
        self.tighten(slot);
        let pending_key = self.pending_key(slot);
        let chunk = &mut self.chunks[slot as usize];
        if chunk.state == State::Pending {
            self.pending.remove(&pending_key);
            chunk.state = State::Asked;
        }
        let (index, bytes) = (chunk.index, u64::from(chunk.bytes));
        let asked = self.asked.entry(slot).or_insert(Asked { of: Vec::new(), since: now, is_loose: false });
        asked.of.push(key);
        asked.since = now;
        if let Some(peer) = self.peers.get_mut(&key) {
            if peer.asked.is_empty() {
                peer.progress_at = now;
                peer.pace.begins(now);
            }
            peer.asked.insert(slot);
            peer.asked_bytes += bytes;
            if !peer.owed.insert(slot) {
                *peer.owed_again.entry(slot).or_default() += 1;
            }
        }
        index
    }

    /// Takes a chunk off what a peer is expected to send.
    fn release(&mut self, key: PeerKey, slot: Slot) {
        let chunk = &self.chunks[slot as usize];
        let Some(asked) = self.asked.get_mut(&slot) else { return };
        asked.of.retain(|&other| other != key);
        let was_loose = std::mem::take(&mut asked.is_loose);
        if was_loose {
            self.loose.remove(&(chunk.order, slot));
        }
        if let Some(peer) = self.peers.get_mut(&key)
            && peer.asked.remove(&slot)
            && !was_loose
        {
            peer.asked_bytes -= u64::from(chunk.bytes);
        }
    }

    /// A chunk is not asked of this peer any more, and of nobody where it was the only one.
    fn unask(&mut self, key: PeerKey, slot: Slot) {
        self.release(key, slot);
        if self.asked.get(&slot).is_some_and(|asked| asked.of.is_empty()) {
            self.asked.remove(&slot);
            self.make_pending(slot);
        }
    }

    fn make_pending(&mut self, slot: Slot) {
        self.chunks[slot as usize].state = State::Pending;
        self.offers += 1;
        let key = self.pending_key(slot);
        self.pending.insert(key);
    }

    /// A relay has this chunk now. If somebody else is asked for it who has everything, the relay may be asked instead.
    fn loosen(&mut self, slot: Slot) {
        let Some(asked) = self.asked.get_mut(&slot).filter(|asked| !asked.is_loose) else { return };
        let [of] = asked.of[..] else { return };
        if let Some(peer) = self.peers.get_mut(&of).filter(|peer| peer.is_seed()) {
            let chunk = &self.chunks[slot as usize];
            peer.asked_bytes -= u64::from(chunk.bytes);
            asked.is_loose = true;
            self.loose.insert((chunk.order, slot));
            self.offers += 1;
        }
    }

    fn tighten_all(&mut self) {
        for (_, slot) in self.loose.clone() {
            if self.is_rare(slot) {
                self.tighten(slot);
            }
        }
    }

    /// Whether no relay has it.
    fn is_rare(&self, slot: Slot) -> bool {
        self.relays == 0 && self.chunks[slot as usize].partial_holders == 0
    }

    /// No relay has this chunk any more.
    fn tighten(&mut self, slot: Slot) {
        let Some(asked) = self.asked.get_mut(&slot).filter(|asked| asked.is_loose) else { return };
        let chunk = &self.chunks[slot as usize];
        asked.is_loose = false;
        self.loose.remove(&(chunk.order, slot));
        for of in &asked.of {
            if let Some(peer) = self.peers.get_mut(of) {
                peer.asked_bytes += u64::from(chunk.bytes);
            }
        }
    }

    fn drop_peer(&mut self, key: PeerKey, reason: DropReason) {
        self.left(key);
        self.dropped.push(Action::Drop { peer: key, reason });
    }

    fn count_holders(&mut self, slot: Slot, change: impl FnOnce(u16) -> u16) {
        let is_pending = self.chunks[slot as usize].state == State::Pending;
        if is_pending {
            let key = self.pending_key(slot);
            self.pending.remove(&key);
        }
        let chunk = &mut self.chunks[slot as usize];
        chunk.partial_holders = change(chunk.partial_holders);
        if is_pending {
            let key = self.pending_key(slot);
            self.pending.insert(key);
        } else if self.is_rare(slot) {
            self.tighten(slot);
        }
    }

    fn pending_key(&self, slot: Slot) -> (u32, u32, Slot) {
        let chunk = &self.chunks[slot as usize];
        (chunk.partial_holders.into(), chunk.order, slot)
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.chunks.binary_search_by_key(&index, |chunk| chunk.index).ok().map(|slot| slot as Slot)
    }
}

impl Peer {
    /// Whether it had everything from the beginning, as far as we know.
    fn is_seed(&self) -> bool {
        self.is_complete && !self.is_relay
    }

    fn can_send(&self, slot: Slot) -> bool {
        self.is_complete || self.has.contains(slot)
    }

    fn has_anything(&self) -> bool {
        self.is_complete || !self.has.is_empty()
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
}
