//! Fetching: gets the manifest page by page, then drives the download of `protocol` over real streams.
//!
//! Only this task decides; sessions carry bytes, and a bounded number of blocking tasks verifies and stores them. When
//! those are busy, sessions are not listened to, and the holders feel it through their sockets.

mod bases;
mod batches;
mod holders;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::manifest::{self, Manifest};
use rialto_protocol::swarm::{
    Action, Download, DropReason, MAX_PAGES_ASKED, Message, Outcome, PeerKey, Ranges, Timing, Wanted,
};
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep, sleep_until};

use self::bases::Bases;
use self::batches::{Arrived, Batches, Done, Stored};
use self::holders::{Holders, Pause};
use super::rates::Rates;
use super::session::{Heard, Said};
use super::traffic::Traffic;
use super::{Exchange, Patience, Share};
use crate::store::{Reservation, Store, StoreError};

/// A holder that is asked for a page and does not send it is not asked again for a while.
const PAGE_PATIENCE: Duration = Duration::from_secs(10);
/// How often a fetch looks around where nothing happens.
const TICK: Duration = Duration::from_millis(500);
/// A chunk can be lost to a bad disk while others still come; so often what is missing is looked for again.
const MAX_ROUNDS: usize = 4;

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
    /// Some say that they have it, and send nothing of it.
    #[error("sites say that they have {image}, but sent nothing of it for long ({missing_chunks} chunks are missing)")]
    NoProgress {
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
    /// Fetches what the store lacks of an image, from every holder that can be found, and makes it durable. Who asks for
    /// an image that is being fetched already waits for that. Images that it is probably `like`, such as those of other
    /// releases of one appliance, are named first to holders, who can then send less.
    ///
    /// Dropping the future stops it; what was stored stays.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(
        &self,
        image: ImageId,
        like: &[ImageId],
        progress: &watch::Sender<FetchProgress>,
    ) -> Result<FetchReport, FetchError> {
        let share = self.begin(image);
        let _turn = share.turn.lock().await;
        let (store, offers, like) = (self.store.clone(), Arc::clone(&self.offers), like.to_vec());
        let bases = tokio::task::spawn_blocking(move || Bases::choose(&store, &like, &offers)).await;
        let bases = bases.map_err(|_| FetchError::Interrupted(image))??;
        Fetch::new(self, &share, bases, progress).run().await
    }
}

struct Fetch<'a> {
    store: &'a Store,
    image: ImageId,
    news: broadcast::Sender<u32>,
    manifest_is_known: watch::Sender<bool>,
    companions: broadcast::Receiver<PeerId>,
    progress: &'a watch::Sender<FetchProgress>,
    report: FetchReport,
    patience: Patience,
    traffic: Traffic,
    rates: Rates,
    bases: Arc<Bases>,
    holders: Holders,
    started: Instant,
    /// How long sessions were not listened to because the disk was busy: no time that a holder can be blamed for.
    deaf: Duration,
    /// When somebody was last there who has the image, as far as one can believe it.
    hopeful_at: Instant,
    /// When something came that was needed.
    progress_at: Instant,
}

/// What happens to a fetch.
enum Event {
    Heard(Heard),
    Done(Done),
    Time,
}

impl<'a> Fetch<'a> {
    fn new(exchange: &'a Exchange, share: &Share, bases: Bases, progress: &'a watch::Sender<FetchProgress>) -> Self {
        let now = Instant::now();
        let image = share.image;
        Self {
            store: &exchange.store,
            image,
            news: share.news.clone(),
            manifest_is_known: share.manifest.clone(),
            companions: share.companions.subscribe(),
            progress,
            report: FetchReport::default(),
            patience: exchange.patience,
            traffic: exchange.traffic.clone(),
            rates: exchange.rates.clone(),
            holders: Holders::new(exchange.net.clone(), image, bases.ids()),
            bases: Arc::new(bases),
            started: now,
            deaf: Duration::ZERO,
            hopeful_at: now,
            progress_at: now,
        }
    }

    async fn run(mut self) -> Result<FetchReport, FetchError> {
        for round in 0..MAX_ROUNDS {
            let manifest = self.manifest().await?;
            self.report.bytes = manifest.bytes;
            self.manifest_is_known.send_replace(true);
            let missing = self.ask_store(|store, image| store.missing_chunks(image)).await?;
            if missing.is_empty() {
                break;
            }
            tracing::debug!(image = %self.image, round, missing = missing.len(), "chunks are fetched");
            self.chunks(&manifest, &missing).await?;
            self.holders.close_all();
        }
        self.ask_store(|store, image| store.record_fetched(image)).await?;
        Ok(self.report)
    }

    // --- the manifest -----------------------------------------------------------------------------------------------

    /// Gets the pages that are missing, level by level, each checked against its parent.
    async fn manifest(&mut self) -> Result<Arc<Manifest>, FetchError> {
        loop {
            let survey = match self.ask_store(|store, image| store.survey(image)).await {
                Err(FetchError::Store(StoreError::Manifest { image, source })) => {
                    return Err(FetchError::Malformed { image, reason: source });
                }
                survey => survey?,
            };
            if survey.root.is_some() {
                // Not before: an id that nobody knows would stay on the list of images.
                self.ask_store(|store, image| store.begin_fetch(image)).await?;
            }
            if survey.missing.is_empty() {
                return self.ask_store(|store, image| store.manifest(image)).await;
            }
            self.pages(survey.missing.iter().map(|expected| expected.hash()).collect()).await?;
        }
    }

    /// Gets these pages, from whoever sends them.
    async fn pages(&mut self, mut missing: BTreeSet<Hash>) -> Result<(), FetchError> {
        let mut asked: BTreeMap<PeerKey, (BTreeSet<Hash>, Instant)> = BTreeMap::new();
        while !missing.is_empty() {
            self.seek().await?;
            self.ask_for_pages(&missing, &mut asked);
            self.give_up_when_hopeless(0)?;
            let wake = Instant::now() + TICK;
            let heard = tokio::select! {
                Some(heard) = self.holders.inbox.recv() => heard,
                () = sleep_until(wake) => continue,
            };
            let Heard { key, peer, said } = heard;
            let bytes = said.payload_bytes();
            self.count(peer, bytes);
            if !self.holders.is_open(key) {
                self.useless(bytes);
                continue;
            }
            match said {
                Said::Page(page) => {
                    let hash = Hash::of(&page);
                    if !asked.get_mut(&key).is_some_and(|(pages, _)| pages.remove(&hash)) {
                        self.useless(bytes);
                        self.holders.ban(peer, "it sent a page that it was not asked for");
                        continue;
                    }
                    missing.remove(&hash);
                    self.was_useful(key);
                    self.ask_store(move |store, image| {
                        // Before the page, so that garbage collection knows whose it is.
                        store.begin_fetch(image)?;
                        store.put_page(&hash, &page)
                    })
                    .await?;
                }
                Said::Chunk { .. } => {
                    self.useless(bytes);
                    self.holders.ban(peer, "it sent a chunk before it was asked for one");
                }
                Said::Have { is_complete, chunks } => self.has(key, is_complete, Some(chunks)),
                Said::Busy | Said::Absent | Said::Gone(_) => self.ended(key, peer, said),
            }
        }
        Ok(())
    }

    /// Asks idle holders for the pages that nobody is asked for.
    fn ask_for_pages(&mut self, missing: &BTreeSet<Hash>, asked: &mut BTreeMap<PeerKey, (BTreeSet<Hash>, Instant)>) {
        let late = |(pages, since): &(BTreeSet<Hash>, Instant)| !pages.is_empty() && since.elapsed() > PAGE_PATIENCE;
        for key in asked.iter().filter(|(_, asked)| late(asked)).map(|(&key, _)| key).collect::<Vec<_>>() {
            self.holders.close(key, Pause::Slow);
        }
        asked.retain(|&key, (pages, _)| self.holders.is_open(key) && !pages.is_empty());
        let underway: BTreeSet<Hash> = asked.values().flat_map(|(pages, _)| pages.iter().copied()).collect();
        let mut open: Vec<Hash> = missing.difference(&underway).copied().collect();
        for key in self.holders.speakers().into_iter().filter(|key| !asked.contains_key(key)).collect::<Vec<_>>() {
            let hashes = open.split_off(open.len().saturating_sub(MAX_PAGES_ASKED));
            if hashes.is_empty() {
                break;
            }
            if self.holders.say(key, Message::WantPages { hashes: hashes.clone() }) {
                asked.insert(key, (hashes.into_iter().collect(), Instant::now()));
            } else {
                open.extend(hashes);
            }
        }
    }

    // --- the chunks -------------------------------------------------------------------------------------------------

    async fn chunks(&mut self, manifest: &Manifest, missing: &[u32]) -> Result<(), FetchError> {
        let wanted = distinct(manifest, missing);
        let missing_bytes: u64 = missing.iter().map(|&index| u64::from(chunk(manifest, index).length)).sum();
        let held_bytes = manifest.data_bytes.saturating_sub(missing_bytes);
        let needed_bytes: u64 = wanted.iter().map(|wanted| u64::from(wanted.bytes)).sum();
        let chunks = wanted.len() as u64;
        let room = self.ask_store(move |store, _| store.reserve(chunks, needed_bytes)).await?;
        let mut seed = [0; 8];
        // Without entropy, ties fall the same way everywhere: slower for a swarm, not wrong.
        getrandom::fill(&mut seed).ok();
        let mut download = Download::new(wanted, u64::from_le_bytes(seed), Timing::default());
        self.join_holders(&mut download);
        let mut batches = Batches::new(self.store.clone(), Arc::clone(&self.bases));
        while !download.is_complete() {
            if let Some(closed) = self.seek().await? {
                download.left(closed);
            }
            let actions = download.poll(self.now());
            self.act(&mut download, actions);
            let left = download.progress();
            self.progress.send_replace(FetchProgress {
                bytes_done: held_bytes + left.bytes_done,
                bytes: manifest.data_bytes,
                peers: self.holders.count(),
            });
            self.give_up_when_hopeless(left.chunks - left.chunks_done)?;
            let now = self.now();
            let wait = download.wake_at(now).map_or(TICK, |at| at.saturating_sub(now).min(TICK));
            match self.next(&mut batches, Instant::now() + wait).await? {
                Event::Heard(heard) => self.heard(&mut download, manifest, heard, &mut batches),
                Event::Done(Done::Batch(stored)) => self.stored(&mut download, manifest, &room, stored)?,
                Event::Done(Done::Commit(result)) => result?,
                Event::Time => {}
            }
            batches.dispatch(self.holders.inbox.is_empty());
        }
        self.progress.send_modify(|progress| progress.bytes_done = progress.bytes);
        Ok(())
    }

    /// Tells the download what was heard before the manifest was known.
    fn join_holders(&mut self, download: &mut Download) {
        let now = self.now();
        for key in self.holders.speakers() {
            let told = self.holders.take_told(key);
            if told.is_cut_short && !told.is_complete {
                // It tells again, and now it can be understood as it comes.
                self.holders.close(key, Pause::None);
                continue;
            }
            download.joined(key, now);
            for ranges in &told.ranges {
                download.have(key, false, ranges, now);
            }
            download.have(key, told.is_complete, &Ranges::default(), now);
        }
    }

    fn heard(&mut self, download: &mut Download, manifest: &Manifest, heard: Heard, batches: &mut Batches) {
        let Heard { key, peer, said } = heard;
        let bytes = said.payload_bytes();
        self.count(peer, bytes);
        if !self.holders.is_open(key) {
            self.useless(bytes);
            return;
        }
        let now = self.now();
        match said {
            Said::Chunk { index, form, payload } if self.holders.has_spoken(key) => {
                self.traffic.received_chunk(form.name());
                match download.arrived(key, index, now) {
                    Outcome::Needed => {
                        self.was_useful(key);
                        let manifest::ChunkRef { hash, length, .. } = chunk(manifest, index);
                        batches.gather(Arrived { key, peer, index, hash, length, form, payload });
                    }
                    Outcome::Duplicate | Outcome::Unasked => self.report.duplicate_bytes += bytes,
                }
            }
            Said::Have { is_complete, chunks } => {
                if !self.holders.has_spoken(key) {
                    download.joined(key, now);
                }
                download.have(key, is_complete, &chunks, now);
                self.has(key, is_complete, None);
            }
            Said::Page(_) | Said::Chunk { .. } => {
                self.useless(bytes);
                download.left(key);
                self.holders.ban(peer, "it sent what it was not asked for");
            }
            Said::Busy | Said::Absent | Said::Gone(_) => {
                download.left(key);
                self.ended(key, peer, said);
            }
        }
    }

    fn stored(
        &mut self,
        download: &mut Download,
        manifest: &Manifest,
        room: &Reservation,
        stored: Vec<Stored>,
    ) -> Result<(), FetchError> {
        for Stored { key, peer, index, wire_bytes, result } in stored {
            match result {
                Ok(()) => {
                    download.stored(index);
                    room.spend_chunk(chunk(manifest, index).length.into());
                    // An error means that no upload listens.
                    self.news.send(index).ok();
                }
                Err(error) if error.is_peer_fault() => {
                    tracing::warn!(%peer, %error, "a chunk is refused");
                    self.useless(wire_bytes);
                    download.refused(key, index);
                    // It may have left and come back meanwhile: the ban is on the site, not on its session.
                    if let Some(session) = self.holders.ban(peer, &DropReason::Lied.to_string()) {
                        download.left(session);
                    }
                }
                Err(error @ (StoreError::Damaged { .. } | StoreError::NotHeld { .. })) => {
                    // Nobody's fault but this disk's: what was encoded against it is asked for again without.
                    tracing::warn!(%error, "a base cannot be read; holders are told of no bases any more");
                    self.useless(wire_bytes);
                    download.again(index);
                    self.holders.name_no_bases();
                    for key in self.holders.close_all() {
                        download.left(key);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn act(&mut self, download: &mut Download, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Want { peer, chunks } => {
                    let is_said = Ranges::pieces(chunks)
                        .into_iter()
                        .all(|chunks| self.holders.say(peer, Message::Want { chunks }));
                    if !is_said {
                        // It does not read what it is told: what was asked of it is asked of others.
                        download.left(peer);
                        self.holders.close(peer, Pause::Slow);
                    }
                }
                Action::Cancel { peer, chunks } => {
                    for chunks in Ranges::pieces(chunks) {
                        // Where it cannot be said, chunks come twice.
                        self.holders.say(peer, Message::Cancel { chunks });
                    }
                }
                Action::Drop { peer, reason: DropReason::Stalled } => self.holders.close(peer, Pause::Slow),
                Action::Drop { peer, reason } => {
                    if let Some(site) = self.holders.peer(peer) {
                        self.holders.ban(site, &reason.to_string());
                    }
                }
            }
        }
    }

    // --- holders ----------------------------------------------------------------------------------------------------

    async fn seek(&mut self) -> Result<Option<PeerKey>, FetchError> {
        loop {
            match self.companions.try_recv() {
                Ok(peer) => self.holders.fetches_too(peer),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.holders.seek().await.map_err(|_| FetchError::Interrupted(self.image))
    }

    fn has(&mut self, key: PeerKey, is_complete: bool, ranges: Option<Ranges>) {
        self.holders.has(key, is_complete, ranges);
        if is_complete {
            self.hopeful_at = Instant::now();
        }
    }

    fn was_useful(&mut self, key: PeerKey) {
        self.holders.was_useful(key);
        (self.hopeful_at, self.progress_at) = (Instant::now(), Instant::now());
    }

    fn ended(&mut self, key: PeerKey, peer: PeerId, said: Said) {
        match said {
            Said::Busy => {
                // It has the image, and will have time.
                self.hopeful_at = Instant::now();
                self.holders.close(key, Pause::Busy);
            }
            Said::Gone(Some(fault)) => drop(self.holders.ban(peer, &fault)),
            _ => self.holders.close(key, Pause::Absent),
        }
    }

    fn give_up_when_hopeless(&self, missing_chunks: u64) -> Result<(), FetchError> {
        let image = self.image;
        if !self.holders.is_any_complete() && self.hopeful_at.elapsed() > self.patience.nobody {
            return Err(FetchError::NoHolder { image, missing_chunks });
        }
        if self.progress_at.elapsed() > self.patience.no_progress {
            return Err(FetchError::NoProgress { image, missing_chunks });
        }
        Ok(())
    }

    fn count(&mut self, peer: PeerId, bytes: u64) {
        if bytes > 0 {
            self.report.wire_bytes += bytes;
            self.traffic.received(peer, bytes);
            self.rates.downloaded(bytes);
            *self.report.peers.entry(peer).or_default() += bytes;
        }
    }

    fn useless(&mut self, bytes: u64) {
        self.report.duplicate_bytes += bytes;
        self.traffic.duplicate(bytes);
    }

    /// The download's clock, which stands still while nobody is listened to.
    fn now(&self) -> Duration {
        self.started.elapsed().saturating_sub(self.deaf)
    }

    /// Waits for what happens next. While the blocking tasks are busy, or the limit of what is received is reached, sessions
    /// are not listened to.
    async fn next(&mut self, batches: &mut Batches, wake: Instant) -> Result<Event, FetchError> {
        let (since, pause) = (Instant::now(), self.rates.download_pause());
        let may_listen = batches.has_room() && pause.is_zero();
        let event = tokio::select! {
            Some(done) = batches.next() => Event::Done(done.map_err(|_| FetchError::Interrupted(self.image))?),
            Some(heard) = self.holders.inbox.recv(), if may_listen => Event::Heard(heard),
            () = sleep(pause), if !pause.is_zero() => Event::Time,
            () = sleep_until(wake) => Event::Time,
        };
        if !may_listen {
            self.deaf += since.elapsed();
            self.progress_at = Instant::now();
        }
        Ok(event)
    }

    /// Asks the store something, off the async threads.
    async fn ask_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store, &ImageId) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, FetchError> {
        let (store, image) = (self.store.clone(), self.image);
        let answer = tokio::task::spawn_blocking(move || work(&store, &image)).await;
        Ok(answer.map_err(|_| FetchError::Interrupted(image))??)
    }
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
