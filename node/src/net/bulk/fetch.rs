//! Fetching: finds holders, gets the manifest page by page, then drives the download of `protocol` over real streams.
//!
//! Only this task decides; sessions carry bytes, and a bounded number of blocking tasks verifies and stores them. When
//! those are busy, sessions are not listened to, and the holders feel it through their sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::image::manifest::{self, Manifest};
use rialto_protocol::swarm::{
    Action, ChunkHeader, Download, DropReason, MAX_PAGES_ASKED, Message, Outcome, PeerKey, Ranges, Timing, Wanted,
};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::session::{Heard, Said, Session};
use super::{Exchange, Net};
use crate::store::{Store, StoreError};

/// Holders that are fetched from at once.
const MAX_SESSIONS: usize = 32;
/// What sessions say and nobody has looked at yet: at most this many chunks lie in memory.
const HEARD_QUEUE: usize = 64;
/// Chunk bytes that one blocking task verifies and stores.
const BATCH_BYTES: usize = 1024 * 1024;
/// Blocking tasks at once; with their batches, the memory of a fetch.
const MAX_BATCHES: usize = 4;
/// Stored bytes after which they are made durable: what a crash can cost.
const COMMIT_BYTES: u64 = 64 * 1024 * 1024;
/// A holder that is asked for a page and does not send it is not asked again.
const PAGE_PATIENCE: Duration = Duration::from_secs(10);
/// A holder that was busy is asked again after this.
const BUSY_RETRY: Duration = Duration::from_millis(500);
/// A peer that did not have the image, or went away, is asked again after this.
const ABSENT_RETRY: Duration = Duration::from_secs(10);
/// A fetch gives up when nobody who has what is missing was found for this long.
const NOBODY: Duration = Duration::from_secs(30);
/// A fetch gives up when nothing came for this long from those who say that they have what is missing, or that they are
/// busy: long enough for a crowd before an honest holder, not endless.
const PROMISES: Duration = Duration::from_secs(300);
/// Ranges of one holder that are kept until the manifest is known, 8 bytes each. A holder in the middle of a large image
/// has fewer; what it tells beyond them, it tells again in its next session.
const MAX_RANGES_KEPT: usize = 256 * 1024;

/// Why an image is not complete. What was stored stays; the next fetch goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody who is connected, or was found, has what is missing.
    #[error("no site that can be reached has {image} ({missing_chunks} chunks are missing)")]
    NoHolder {
        /// The image.
        image: ImageId,
        /// Chunks still missing; 0 where not even the manifest is known.
        missing_chunks: u64,
    },
    /// Somebody says that it has what is missing, and nobody sends it.
    #[error(
        "nothing of {image} came for {} s, although sites that can be reached say that they have it \
         ({missing_chunks} chunks are missing)",
        PROMISES.as_secs()
    )]
    Stalled {
        /// The image.
        image: ImageId,
        /// Chunks still missing; 0 where not even the manifest is known.
        missing_chunks: u64,
    },
    /// The manifest contradicts itself: whoever made this image id made it so, and no holder can help.
    #[error("image {image} is malformed and cannot be fetched from anyone: {reason}")]
    Malformed {
        /// The image.
        image: ImageId,
        /// What is wrong with it.
        reason: manifest::ManifestError,
    },
    /// The store does not take it: a full disk, an I/O error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A part of the node has stopped.
    #[error("the fetch of {0} was interrupted: the node is shutting down")]
    Interrupted(ImageId),
}

/// What a fetch did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchReport {
    /// Length of the image, in bytes.
    pub bytes: u64,
    /// Bytes of chunks and pages received.
    pub wire_bytes: u64,
    /// Of those, bytes that were of no use: received twice, or refused.
    pub duplicate_bytes: u64,
    /// Bytes received from each peer.
    pub peers: BTreeMap<PeerId, u64>,
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FetchProgress {
    /// Plain bytes of chunks that are in the store, those that were there before included.
    pub bytes_done: u64,
    /// Plain bytes of all chunks; 0 while the manifest is not known.
    pub bytes: u64,
    /// Holders taking part.
    pub peers: usize,
}

impl Exchange {
    /// Fetches what the store lacks of an image, from every holder that can be found, and makes it durable.
    ///
    /// Dropping the future stops it; what was stored stays.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(
        &self,
        image: ImageId,
        progress: &watch::Sender<FetchProgress>,
    ) -> Result<FetchReport, FetchError> {
        let ongoing = self.begin(image);
        let turn = Arc::clone(&ongoing.turn);
        let ended = EndOnDrop { exchange: self, image };
        let report = {
            let _turn = turn.lock().await;
            Fetch::new(self, image, ongoing.news, progress).run().await
        };
        drop((turn, ended));
        report
    }
}

struct EndOnDrop<'a> {
    exchange: &'a Exchange,
    image: ImageId,
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.exchange.end(&self.image);
    }
}

struct Fetch<'a> {
    net: &'a Net,
    store: &'a Store,
    image: ImageId,
    news: broadcast::Sender<u32>,
    progress: &'a watch::Sender<FetchProgress>,
    report: FetchReport,
    started: Instant,
    /// Open sessions, and those that told what they have.
    sessions: BTreeMap<PeerKey, Session>,
    holders: BTreeMap<PeerKey, Holds>,
    next_key: PeerKey,
    /// Peers that are not asked before a time; those that lied, never again.
    not_before: BTreeMap<PeerId, Instant>,
    banned: BTreeSet<PeerId>,
    found: BTreeSet<PeerId>,
    lookup: Option<mpsc::Receiver<PeerId>>,
    lookup_at: Instant,
    heard: mpsc::Sender<Heard>,
    inbox: mpsc::Receiver<Heard>,
    /// When somebody useful was last there.
    useful_at: Instant,
    /// When something that was missing last came, and was what it should be.
    delivered_at: Instant,
    /// Pages that came after the last one was needed, by session.
    late_pages: BTreeMap<PeerKey, usize>,
}

/// What a holder said that it has, kept until the manifest is known.
#[derive(Default)]
struct Holds {
    is_complete: bool,
    ranges: Vec<Ranges>,
    /// How many there are in `ranges`.
    kept: usize,
}

/// What happens to a fetch.
enum Event {
    Heard(Heard),
    Batch(Vec<Stored>),
    Committed,
    Time,
}

/// What became of one chunk of a batch.
struct Stored {
    key: PeerKey,
    index: u32,
    wire_bytes: u64,
    result: Result<(), StoreError>,
}

struct Arrived {
    key: PeerKey,
    index: u32,
    hash: Hash,
    length: u32,
    encoding: Encoding,
    payload: Vec<u8>,
}

impl<'a> Fetch<'a> {
    fn new(
        exchange: &'a Exchange,
        image: ImageId,
        news: broadcast::Sender<u32>,
        progress: &'a watch::Sender<FetchProgress>,
    ) -> Self {
        let (heard, inbox) = mpsc::channel(HEARD_QUEUE);
        let now = Instant::now();
        Self {
            net: &exchange.net,
            store: &exchange.store,
            image,
            news,
            progress,
            report: FetchReport::default(),
            started: now,
            sessions: BTreeMap::new(),
            holders: BTreeMap::new(),
            next_key: 0,
            not_before: BTreeMap::new(),
            banned: BTreeSet::new(),
            found: BTreeSet::new(),
            lookup: None,
            lookup_at: now,
            heard,
            inbox,
            useful_at: now,
            delivered_at: now,
            late_pages: BTreeMap::new(),
        }
    }

    async fn run(mut self) -> Result<FetchReport, FetchError> {
        let (store, image) = (self.store.clone(), self.image);
        blocking(image, move || store.begin_fetch(&image)).await??;
        let manifest = self.manifest().await?;
        self.report.bytes = manifest.bytes;
        let (store, image) = (self.store.clone(), self.image);
        let missing = blocking(image, move || store.missing_chunks(&image)).await??;
        self.chunks(&manifest, &missing).await?;
        let (store, image) = (self.store.clone(), self.image);
        blocking(image, move || store.commit().and_then(|()| store.record_fetched(&image))).await??;
        Ok(self.report)
    }

    // --- the manifest -----------------------------------------------------------------------------------------------

    /// Gets the pages that are missing, level by level, each checked against its parent.
    async fn manifest(&mut self) -> Result<Arc<Manifest>, FetchError> {
        loop {
            let (store, image) = (self.store.clone(), self.image);
            let survey = blocking(image, move || store.survey(&image)).await?;
            let survey = match survey {
                Ok(survey) => survey,
                Err(StoreError::Manifest { image, source }) => {
                    return Err(FetchError::Malformed { image, reason: source });
                }
                Err(error) => return Err(error.into()),
            };
            if survey.missing.is_empty() {
                let (store, image) = (self.store.clone(), self.image);
                return Ok(blocking(image, move || store.manifest(&image)).await??);
            }
            self.pages(survey.missing.iter().map(|expected| expected.hash()).collect()).await?;
        }
    }

    /// Gets these pages, from whoever sends them.
    async fn pages(&mut self, mut missing: BTreeSet<Hash>) -> Result<(), FetchError> {
        let mut asked: BTreeMap<PeerKey, (BTreeSet<Hash>, Instant)> = BTreeMap::new();
        while !missing.is_empty() {
            self.seek_holders().await?;
            let late: Vec<PeerKey> = asked
                .iter()
                .filter(|(_, (pages, since))| !pages.is_empty() && since.elapsed() > PAGE_PATIENCE)
                .map(|(&key, _)| key)
                .collect();
            for key in late {
                self.close(key, ABSENT_RETRY);
            }
            asked.retain(|key, _| self.sessions.contains_key(key));
            let underway: BTreeSet<Hash> = asked.values().flat_map(|(pages, _)| pages.iter().copied()).collect();
            let mut open: Vec<Hash> = missing.difference(&underway).copied().collect();
            let idle: Vec<PeerKey> = self
                .holders
                .keys()
                .copied()
                .filter(|key| asked.get(key).is_none_or(|(pages, _)| pages.is_empty()))
                .collect();
            for key in idle {
                let hashes: Vec<Hash> = open.split_off(open.len().saturating_sub(MAX_PAGES_ASKED));
                if hashes.is_empty() {
                    break;
                }
                if self.say(key, Message::WantPages { hashes: hashes.clone() }) {
                    asked.insert(key, (hashes.into_iter().collect(), Instant::now()));
                }
            }
            self.give_up_when_alone(0)?;
            let wake = Instant::now() + BUSY_RETRY;
            let Event::Heard(Heard { key, said }) = self.next(&mut JoinSet::new(), None, wake).await? else { continue };
            match said {
                Said::Page(page) => {
                    self.count(key, page.len() as u64);
                    let hash = Hash::of(&page);
                    if !asked.get_mut(&key).is_some_and(|(pages, _)| pages.remove(&hash)) {
                        self.report.duplicate_bytes += page.len() as u64;
                        self.ban(key, "sent a page that nobody asked for");
                        continue;
                    }
                    missing.remove(&hash);
                    self.useful_at = Instant::now();
                    self.delivered_at = self.useful_at;
                    let store = self.store.clone();
                    blocking(self.image, move || store.put_page(&hash, &page)).await??;
                }
                Said::Chunk { .. } => self.ban(key, "sent a chunk before it was asked for one"),
                other => self.heard_of_holder(key, other),
            }
        }
        Ok(())
    }

    // --- the chunks -------------------------------------------------------------------------------------------------

    async fn chunks(&mut self, manifest: &Manifest, missing: &[u32]) -> Result<(), FetchError> {
        let wanted = distinct(manifest, missing);
        let held_bytes =
            manifest.data_bytes - missing.iter().map(|&index| u64::from(chunk(manifest, index).length)).sum::<u64>();
        let needed_bytes: u64 = wanted.iter().map(|wanted| u64::from(wanted.bytes)).sum();
        let store = self.store.clone();
        blocking(self.image, move || store.check_room(needed_bytes)).await??;
        let mut seed = [0; 8];
        // Without entropy, ties fall the same way everywhere: slower for a swarm, not wrong.
        getrandom::fill(&mut seed).ok();
        let mut download = Download::new(wanted, u64::from_le_bytes(seed), Timing::default());
        for (&key, holds) in &self.holders {
            join(&mut download, key, holds, self.started.elapsed());
        }
        let mut batches: JoinSet<Event> = JoinSet::new();
        let mut gathered = Vec::new();
        let (mut uncommitted, mut is_committing) = (0, false);
        while !download.is_complete() {
            self.seek_holders().await?;
            self.act(download.poll(self.started.elapsed()));
            let left = download.progress();
            self.progress.send_replace(FetchProgress {
                bytes_done: held_bytes + left.bytes_done,
                bytes: manifest.data_bytes,
                peers: self.holders.len(),
            });
            self.give_up_when_alone(left.chunks - left.chunks_done)?;
            let now = self.started.elapsed();
            let wake = self.started + download.wake_at(now).unwrap_or(now + BUSY_RETRY).min(now + BUSY_RETRY);
            match self.next(&mut batches, Some(&mut gathered), wake).await? {
                Event::Heard(heard) => self.heard(&mut download, manifest, heard, &mut gathered),
                Event::Batch(stored) => {
                    uncommitted += self.stored(&mut download, stored)?;
                }
                Event::Committed => is_committing = false,
                Event::Time => {}
            }
            let is_idle = self.inbox.is_empty();
            if is_full(&gathered) || (is_idle && !gathered.is_empty() && batches.len() < MAX_BATCHES) {
                self.spawn_batch(&mut batches, std::mem::take(&mut gathered));
            }
            if uncommitted >= COMMIT_BYTES && !is_committing {
                (uncommitted, is_committing) = (0, true);
                let store = self.store.clone();
                batches.spawn_blocking(move || match store.commit() {
                    Ok(()) => Event::Committed,
                    Err(error) => failed_commit(error),
                });
            }
        }
        while batches.join_next().await.is_some() {}
        self.progress.send_modify(|progress| progress.bytes_done = progress.bytes);
        Ok(())
    }

    fn heard(&mut self, download: &mut Download, manifest: &Manifest, heard: Heard, gathered: &mut Vec<Arrived>) {
        let Heard { key, said } = heard;
        let now = self.started.elapsed();
        match said {
            Said::Chunk { index, encoding, payload } => {
                let bytes = (payload.len() - ChunkHeader::BYTES) as u64;
                self.count(key, bytes);
                match download.arrived(key, index, now) {
                    Outcome::Needed => {
                        self.useful_at = Instant::now();
                        let chunk = chunk(manifest, index);
                        gathered.push(Arrived {
                            key,
                            index,
                            hash: chunk.hash,
                            length: chunk.length,
                            encoding,
                            payload,
                        });
                    }
                    Outcome::Duplicate | Outcome::Unasked => self.report.duplicate_bytes += bytes,
                }
            }
            Said::Have { is_complete, ref chunks } => {
                if !self.holders.contains_key(&key) {
                    download.joined(key, now);
                }
                download.have(key, is_complete, chunks, now);
                self.heard_of_holder(key, said);
            }
            // A page that was asked of two holders may come after the chunks have begun.
            Said::Page(page) => {
                self.count(key, page.len() as u64);
                self.report.duplicate_bytes += page.len() as u64;
                let late = self.late_pages.entry(key).or_default();
                *late += 1;
                if *late > MAX_PAGES_ASKED {
                    download.left(key);
                    self.ban(key, "sent pages that nobody asked for");
                }
            }
            Said::Busy | Said::Absent | Said::Gone(_) => {
                download.left(key);
                self.heard_of_holder(key, said);
            }
        }
    }

    fn stored(&mut self, download: &mut Download, stored: Vec<Stored>) -> Result<u64, FetchError> {
        let mut bytes = 0;
        for Stored { key, index, wire_bytes, result } in stored {
            match result {
                Ok(()) => {
                    self.delivered_at = Instant::now();
                    download.stored(index);
                    bytes += wire_bytes;
                    // An error means that no upload listens.
                    self.news.send(index).ok();
                }
                Err(error) if error.is_peer_fault() => {
                    tracing::warn!(peer = ?self.sessions.get(&key).map(|session| session.peer), %error, "a chunk is refused");
                    self.report.duplicate_bytes += wire_bytes;
                    download.refused(key, index);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(bytes)
    }

    fn spawn_batch(&self, batches: &mut JoinSet<Event>, arrived: Vec<Arrived>) {
        let store = self.store.clone();
        batches.spawn_blocking(move || {
            let store_one = |chunk: Arrived| {
                let encoded = &chunk.payload[ChunkHeader::BYTES..];
                let result = store.put_encoded(chunk.hash, chunk.length, chunk.encoding, encoded);
                Stored {
                    key: chunk.key,
                    index: chunk.index,
                    wire_bytes: encoded.len() as u64,
                    result: result.map(drop),
                }
            };
            Event::Batch(arrived.into_iter().map(store_one).collect())
        });
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Want { peer, chunks } => {
                    for chunks in Ranges::pieces(chunks) {
                        self.say(peer, Message::Want { chunks });
                    }
                }
                Action::Cancel { peer, chunks } => {
                    for chunks in Ranges::pieces(chunks) {
                        self.say(peer, Message::Cancel { chunks });
                    }
                }
                Action::Drop { peer, reason: DropReason::Stalled } => self.close(peer, ABSENT_RETRY),
                Action::Drop { peer, reason } => self.ban(peer, &reason.to_string()),
            }
        }
    }

    // --- holders ----------------------------------------------------------------------------------------------------

    /// Opens sessions with peers that may have the image: connected ones first, then those that a look-up finds.
    async fn seek_holders(&mut self) -> Result<(), FetchError> {
        let now = Instant::now();
        if let Some(lookup) = &mut self.lookup {
            loop {
                match lookup.try_recv() {
                    Ok(peer) => {
                        self.found.insert(peer);
                    }
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => {
                        self.lookup = None;
                        self.lookup_at = now + ABSENT_RETRY;
                        break;
                    }
                }
            }
        } else if now >= self.lookup_at {
            self.lookup = Some(self.net.providers(self.image).await.map_err(|_| FetchError::Interrupted(self.image))?);
        }
        let in_use: BTreeSet<PeerId> = self.sessions.values().map(|session| session.peer).collect();
        let candidates = self.net.federation_peers().into_iter().chain(self.found.iter().copied());
        let mut candidates: Vec<PeerId> = candidates
            .filter(|peer| !in_use.contains(peer) && !self.banned.contains(peer) && *peer != self.net.local())
            .filter(|peer| self.not_before.get(peer).is_none_or(|&at| at <= now))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        // Those first who were not asked yet, then those whose turn is longest ago.
        candidates.sort_by_key(|peer| self.not_before.get(peer).copied());
        candidates.truncate(MAX_SESSIONS.saturating_sub(in_use.len()));
        for peer in candidates {
            let key = self.next_key;
            self.next_key += 1;
            let session = Session::open(self.net.clone(), peer, self.image, key, self.heard.clone());
            self.sessions.insert(key, session);
        }
        Ok(())
    }

    fn heard_of_holder(&mut self, key: PeerKey, said: Said) {
        match said {
            Said::Have { is_complete, chunks } => {
                let holds = self.holders.entry(key).or_default();
                holds.is_complete |= is_complete;
                if holds.kept + chunks.len() <= MAX_RANGES_KEPT {
                    holds.kept += chunks.len();
                    holds.ranges.push(chunks);
                }
                if is_complete {
                    self.useful_at = Instant::now();
                }
            }
            Said::Busy => {
                // Somebody who is busy has it, or soon will.
                self.useful_at = Instant::now();
                self.close(key, BUSY_RETRY);
            }
            Said::Absent | Said::Gone(None) => self.close(key, ABSENT_RETRY),
            Said::Gone(Some(fault)) => self.ban(key, &fault),
            Said::Page(_) | Said::Chunk { .. } => {}
        }
    }

    fn give_up_when_alone(&self, missing_chunks: u64) -> Result<(), FetchError> {
        let image = self.image;
        let is_promised = self.holders.values().any(|holds| holds.is_complete);
        match giving_up(is_promised, self.useful_at.elapsed(), self.delivered_at.elapsed()) {
            Some(GivingUp::Nobody) => Err(FetchError::NoHolder { image, missing_chunks }),
            Some(GivingUp::Promises) => Err(FetchError::Stalled { image, missing_chunks }),
            None => Ok(()),
        }
    }

    fn close(&mut self, key: PeerKey, retry_after: Duration) {
        self.holders.remove(&key);
        if let Some(session) = self.sessions.remove(&key) {
            self.not_before.insert(session.peer, Instant::now() + retry_after);
        }
    }

    fn ban(&mut self, key: PeerKey, why: &str) {
        self.holders.remove(&key);
        if let Some(session) = self.sessions.remove(&key) {
            tracing::warn!(peer = %session.peer, image = %self.image, why, "a holder is not asked again for this image");
            self.banned.insert(session.peer);
        }
    }

    fn say(&self, key: PeerKey, message: Message) -> bool {
        self.sessions.get(&key).is_some_and(|session| session.say(message))
    }

    fn count(&mut self, key: PeerKey, bytes: u64) {
        self.report.wire_bytes += bytes;
        if let Some(session) = self.sessions.get(&key) {
            *self.report.peers.entry(session.peer).or_default() += bytes;
        }
    }

    /// Waits for what happens next. While the blocking tasks are busy, sessions are not listened to.
    async fn next(
        &mut self,
        batches: &mut JoinSet<Event>,
        gathered: Option<&mut Vec<Arrived>>,
        wake: Instant,
    ) -> Result<Event, FetchError> {
        let may_listen = batches.len() < MAX_BATCHES || gathered.is_none_or(|gathered| !is_full(gathered));
        tokio::select! {
            Some(done) = batches.join_next(), if !batches.is_empty() => done.map_err(|_| FetchError::Interrupted(self.image)),
            Some(heard) = self.inbox.recv(), if may_listen => Ok(Event::Heard(heard)),
            () = sleep_until(wake) => Ok(Event::Time),
        }
    }
}

/// Why to wait no longer.
#[derive(Debug, PartialEq, Eq)]
enum GivingUp {
    Nobody,
    Promises,
}

/// Whether a fetch should wait for nobody any more: what counts in the end is what was delivered.
fn giving_up(is_promised: bool, since_useful: Duration, since_delivered: Duration) -> Option<GivingUp> {
    match (is_promised, since_useful > NOBODY, since_delivered > PROMISES) {
        (false, true, _) => Some(GivingUp::Nobody),
        (_, _, true) => Some(GivingUp::Promises),
        _ => None,
    }
}

fn join(download: &mut Download, key: PeerKey, holds: &Holds, now: Duration) {
    download.joined(key, now);
    for ranges in &holds.ranges {
        download.have(key, false, ranges, now);
    }
    download.have(key, holds.is_complete, &Ranges::default(), now);
}

/// One index for each distinct chunk that is missing, ascending.
fn distinct(manifest: &Manifest, missing: &[u32]) -> Vec<Wanted> {
    let mut seen: BTreeSet<Hash> = BTreeSet::new();
    let first_of_its_kind = |&&index: &&u32| seen.insert(chunk(manifest, index).hash);
    let wanted = missing.iter().filter(first_of_its_kind);
    wanted.map(|&index| Wanted { index, bytes: chunk(manifest, index).length }).collect()
}

fn chunk(manifest: &Manifest, index: u32) -> manifest::ChunkRef {
    manifest.chunks[index as usize]
}

fn is_full(gathered: &[Arrived]) -> bool {
    gathered.iter().map(|arrived| arrived.payload.len()).sum::<usize>() >= BATCH_BYTES
}

/// A commit that fails is told like a chunk that cannot be stored.
fn failed_commit(error: StoreError) -> Event {
    Event::Batch(vec![Stored { key: PeerKey::MAX, index: u32::MAX, wire_bytes: 0, result: Err(error) }])
}

/// Runs what blocks off the async threads.
async fn blocking<T: Send + 'static>(
    image: ImageId,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| FetchError::Interrupted(image))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_believed_for_a_while_and_not_for_ever() {
        let (none, short, long) = (Duration::ZERO, NOBODY * 2, PROMISES * 2);
        assert_eq!(giving_up(false, none, none), None);
        assert_eq!(giving_up(false, short, short), Some(GivingUp::Nobody));
        assert_eq!(giving_up(true, short, short), None, "somebody who has it may be slow");
        assert_eq!(giving_up(true, none, long), Some(GivingUp::Promises), "it says so again and again, and sends nothing");
        assert_eq!(giving_up(false, none, long), Some(GivingUp::Promises), "it is always busy");
        assert_eq!(giving_up(true, long, none), None);
    }
}
