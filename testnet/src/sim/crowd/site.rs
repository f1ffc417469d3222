//! A site of the swarm, and a stream between two.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rialto_protocol::swarm::{Download, PeerKey, Queue, Spread};

use super::super::timeline::Micros;

/// How a site behaves as a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Character {
    /// As it should.
    Honest,
    /// Says that it has everything, and sends something else.
    Liar,
    /// Says that it has everything, and sends nothing.
    Staller,
    /// Says that it has everything, and sends very little.
    Trickler,
}

/// A site.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) character: Character,
    /// Bytes a second, up and down.
    pub(super) rate: u64,
    /// Sites that it may ask.
    pub(super) links: BTreeSet<usize>,
    chunks: usize,
    /// Chunks in the order in which they were stored; those of a site that had everything are not listed.
    pub(super) stored: Vec<u32>,
    had_everything: bool,

    pub(super) download: Option<Download>,
    pub(super) arrived_at: Micros,
    pub(super) done_at: Option<Micros>,
    /// Its streams, by holder.
    pub(super) asks: BTreeMap<usize, PeerKey>,
    pub(super) not_before: BTreeMap<usize, Micros>,
    pub(super) banned: BTreeSet<usize>,
    pub(super) seek_at: Micros,
    pub(super) wake: Option<Micros>,
    pub(super) downlink_free_at: Micros,

    /// Streams of others.
    pub(super) serves: BTreeSet<PeerKey>,
    pub(super) spread: Spread,
    pub(super) turns: VecDeque<PeerKey>,
    pub(super) is_sending: bool,
    pub(super) has_news: bool,
    pub(super) uploaded: u64,
}

impl Site {
    /// A site that has the image, or says so.
    pub(super) fn complete(character: Character, chunks: usize) -> Self {
        Self { character, had_everything: true, ..Self::empty(chunks) }
    }

    /// A site that will fetch it.
    pub(super) fn empty(chunks: usize) -> Self {
        Self {
            character: Character::Honest,
            rate: 1,
            links: BTreeSet::new(),
            chunks,
            stored: Vec::new(),
            had_everything: false,
            download: None,
            arrived_at: 0,
            done_at: None,
            asks: BTreeMap::new(),
            not_before: BTreeMap::new(),
            banned: BTreeSet::new(),
            seek_at: 0,
            wake: None,
            downlink_free_at: 0,
            serves: BTreeSet::new(),
            spread: Spread::new(chunks),
            turns: VecDeque::new(),
            is_sending: false,
            has_news: false,
            uploaded: 0,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.had_everything || self.stored.len() == self.chunks
    }

    /// Whether it has the image, or fetches it.
    pub(super) fn takes_part(&self) -> bool {
        self.had_everything || self.download.is_some() || self.done_at.is_some()
    }

    /// Chunks that it lacks.
    pub(super) fn missing(&self) -> usize {
        if self.had_everything { 0 } else { self.chunks - self.stored.len() }
    }
}

/// One stream, opened by a site that fetches.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) fetcher: usize,
    pub(super) holder: usize,
    pub(super) queue: Queue,
    /// Decided, and not sent yet.
    pub(super) batch: VecDeque<u32>,
    /// How many of the holder's stored chunks the fetcher was told of.
    pub(super) told: usize,
    /// Whether it waits for its turn.
    pub(super) is_queued: bool,
    /// When the last message arrives at the holder, and at the fetcher.
    pub(super) last_word: [Micros; 2],
}

impl Stream {
    pub(super) fn new(fetcher: usize, holder: usize) -> Self {
        Self {
            fetcher,
            holder,
            queue: Queue::default(),
            batch: VecDeque::new(),
            told: 0,
            is_queued: false,
            last_word: [0; 2],
        }
    }
}
