//! The fetcher's side: finds holders, gets the manifest page by page, then drives the download of `protocol`.
//!
//! The same order of things as in a node's `net::bulk::fetch`, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::manifest::Manifest;
use rialto_protocol::swarm::{
    Action, ChunkHeader, Download, DropReason, FrameKind, MAX_PAGES_ASKED, Message, Outcome, PeerKey, Ranges, Timing,
    Wanted,
};

use super::SimError;
use super::swarm::{Misbehaved, split_frame};
use super::timeline::{Micros, SECOND};
use super::world::{Event, World};

/// Holders that are fetched from at once.
const MAX_STREAMS: usize = 32;
/// A holder that is asked for a page and does not send it is not asked again for a while.
const PAGE_PATIENCE: Micros = 10 * SECOND;
/// A holder that was busy is asked again after this.
const BUSY_RETRY: Micros = SECOND / 2;
/// A peer that did not have the image, or went away, is asked again after this; so is the federation for holders.
pub(super) const RETRY: Micros = 10 * SECOND;
/// What comes within this time is acted on together.
const POLL_PAUSE: Micros = 2_000;

/// One image that one site fetches.
#[derive(Debug)]
pub(super) struct Fetch {
    seed: u64,
    /// Known once every page is there.
    manifest: Option<Arc<Manifest>>,
    download: Option<Download>,
    streams: BTreeMap<PeerKey, usize>,
    /// What holders said that they have, kept until the manifest is known.
    holders: BTreeMap<PeerKey, Vec<(bool, Ranges)>>,
    missing_pages: BTreeSet<Hash>,
    asked_pages: BTreeMap<PeerKey, (BTreeSet<Hash>, Micros)>,
    /// Peers that are not asked before a time; those that lied, never again.
    not_before: BTreeMap<usize, Micros>,
    banned: BTreeSet<usize>,
    found: BTreeSet<usize>,
    lookup_at: Micros,
    /// When it looks again at what to do, if nothing happens.
    wake: Option<Micros>,
}

/// What becomes of a stream after a frame.
enum Heard {
    GoOn,
    /// It is over; the holder may be asked again after a while.
    Over(Micros),
}

impl World {
    /// A site wants an image from now on, and fetches what it lacks of it.
    pub(super) fn want(&mut self, site: usize, image: ImageId) {
        let Some(content) = self.contents.get(&image) else { return };
        let here = &self.sites[site];
        if !here.is_honest() || self.fetches.contains_key(&(site, image)) || here.store.is_complete(&content.manifest) {
            return;
        }
        self.timeline.note("want", &[site as u64]);
        let fetch = Fetch {
            seed: self.random.u64(..),
            manifest: None,
            download: None,
            streams: BTreeMap::new(),
            holders: BTreeMap::new(),
            missing_pages: BTreeSet::new(),
            asked_pages: BTreeMap::new(),
            not_before: BTreeMap::new(),
            banned: BTreeSet::new(),
            found: BTreeSet::new(),
            lookup_at: 0,
            wake: None,
        };
        self.fetches.insert((site, image), fetch);
        self.wake_fetch_by(site, image, 0);
    }

    pub(super) fn wake_fetch(&mut self, site: usize, image: ImageId) -> Result<(), SimError> {
        let Some(mut fetch) = self.fetches.remove(&(site, image)) else { return Ok(()) };
        if fetch.wake != Some(self.timeline.now()) {
            // It was woken earlier, and has another time in mind by now.
            self.fetches.insert((site, image), fetch);
            return Ok(());
        }
        fetch.wake = None;
        self.seek_holders(&mut fetch, site, image)?;
        if fetch.manifest.is_none() {
            self.survey(&mut fetch, site, image)?;
        }
        let wake = match fetch.manifest.is_some() {
            true => self.poll(&mut fetch)?,
            false => self.ask_for_pages(&mut fetch)?,
        };
        if fetch.download.as_ref().is_some_and(Download::is_complete) {
            return self.finish(fetch, site, image);
        }
        self.fetches.insert((site, image), fetch);
        self.wake_fetch_by(site, image, wake.min(BUSY_RETRY));
        Ok(())
    }

    fn wake_fetch_by(&mut self, site: usize, image: ImageId, after: Micros) {
        let at = self.timeline.now() + after;
        let Some(fetch) = self.fetches.get_mut(&(site, image)) else { return };
        if fetch.wake.is_none_or(|wake| wake > at) {
            fetch.wake = Some(at);
            self.timeline.after(after, Event::Fetch { site, image });
        }
    }

    /// Opens streams to peers that may have the image, and to providers that a look-up finds.
    fn seek_holders(&mut self, fetch: &mut Fetch, site: usize, image: ImageId) -> Result<(), SimError> {
        let now = self.timeline.now();
        if now >= fetch.lookup_at {
            fetch.lookup_at = now + RETRY;
            fetch.found.extend(self.providers.get(&image).into_iter().flatten());
        }
        let in_use: BTreeSet<usize> = fetch.streams.values().copied().collect();
        let candidates: BTreeSet<usize> = self
            .network
            .peers(site)
            .iter()
            .chain(&fetch.found)
            .copied()
            .filter(|peer| *peer != site && !in_use.contains(peer) && !fetch.banned.contains(peer))
            .filter(|peer| fetch.not_before.get(peer).is_none_or(|at| *at <= now))
            .filter(|peer| self.network.is_connected(site, *peer))
            .collect();
        for peer in candidates.into_iter().take(MAX_STREAMS.saturating_sub(in_use.len())) {
            let number = self.open_stream(site, peer, image)?;
            fetch.streams.insert(number, peer);
            if let Some(download) = &mut fetch.download {
                download.joined(number, self.timeline.elapsed());
            }
        }
        Ok(())
    }

    // ── The manifest ─────────────────────────────────────────────────────────────────────────────────────────────────

    /// Looks which pages are lacking; where none is, the download begins.
    fn survey(&mut self, fetch: &mut Fetch, site: usize, image: ImageId) -> Result<(), SimError> {
        if !fetch.missing_pages.is_empty() {
            return Ok(());
        }
        let store = &self.sites[site].store;
        let Some(own) = store.manifest(&image)? else {
            fetch.missing_pages = store.missing_pages(&image)?;
            return Ok(());
        };
        let Some(content) = self.contents.get(&image) else { return Ok(()) };
        if own != *content.manifest {
            return Err(SimError::Unverified { site });
        }
        let mut seen = BTreeSet::new();
        let wanted = store.missing(&own).filter(|index| seen.insert(own.chunks[*index as usize].hash));
        let wanted = wanted.map(|index| Wanted { index, bytes: own.chunks[index as usize].length });
        let mut download = Download::new(wanted.collect::<Vec<_>>(), fetch.seed, Timing::default());
        let now = self.timeline.elapsed();
        for number in fetch.streams.keys() {
            download.joined(*number, now);
            for (is_complete, chunks) in fetch.holders.get(number).into_iter().flatten() {
                download.have(*number, *is_complete, chunks, now);
            }
        }
        fetch.download = Some(download);
        fetch.manifest = Some(Arc::clone(&content.manifest));
        self.known_manifests.insert((site, image));
        Ok(())
    }

    /// Asks idle holders for the pages that are lacking; gives up on late ones. Gives the time until it should look again.
    fn ask_for_pages(&mut self, fetch: &mut Fetch) -> Result<Micros, SimError> {
        let now = self.timeline.now();
        let is_late = |(pages, since): &(BTreeSet<Hash>, Micros)| !pages.is_empty() && now - since > PAGE_PATIENCE;
        let late: Vec<_> = fetch.asked_pages.iter().filter(|(_, asked)| is_late(asked)).map(|(key, _)| *key).collect();
        for number in late {
            self.close_stream(number);
            fetch.forget(number, Some(now + RETRY));
        }
        let underway: BTreeSet<Hash> = fetch.asked_pages.values().flat_map(|(pages, _)| pages).copied().collect();
        let mut open: Vec<Hash> = fetch.missing_pages.difference(&underway).copied().collect();
        let is_idle = |number: &&PeerKey| fetch.asked_pages.get(number).is_none_or(|(pages, _)| pages.is_empty());
        let idle: Vec<_> = fetch.holders.keys().filter(is_idle).copied().collect();
        for number in idle {
            let hashes = open.split_off(open.len().saturating_sub(MAX_PAGES_ASKED));
            if hashes.is_empty() {
                break;
            }
            self.say(number, true, &Message::WantPages { hashes: hashes.clone() })?;
            fetch.asked_pages.insert(number, (hashes.into_iter().collect(), now));
        }
        Ok(BUSY_RETRY)
    }

    // ── The chunks ───────────────────────────────────────────────────────────────────────────────────────────────────

    /// Does what the download says; gives the time until it should be asked again.
    fn poll(&mut self, fetch: &mut Fetch) -> Result<Micros, SimError> {
        let now = self.timeline.elapsed();
        let Some(download) = &mut fetch.download else { return Ok(0) };
        let actions = download.poll(now);
        let wake = download.wake_at(now).map_or(BUSY_RETRY, |at| at.saturating_sub(now).as_micros() as Micros);
        for action in actions {
            match action {
                Action::Want { peer, chunks } => {
                    self.timeline.note("chunks", &[peer, chunks.len() as u64]);
                    for chunks in Ranges::pieces(chunks) {
                        self.say(peer, true, &Message::Want { chunks })?;
                    }
                }
                Action::Cancel { peer, chunks } => {
                    for chunks in Ranges::pieces(chunks) {
                        self.say(peer, true, &Message::Cancel { chunks })?;
                    }
                }
                Action::Drop { peer, reason } => {
                    self.timeline.note("drop", &[peer, reason as u64]);
                    self.check_dropped(fetch, peer, reason)?;
                    self.close_stream(peer);
                    let may_return = reason == DropReason::Stalled;
                    fetch.forget(peer, may_return.then(|| self.timeline.now() + RETRY));
                }
            }
        }
        Ok(wake.max(POLL_PAUSE))
    }

    /// Nobody may be called a liar who is none.
    fn check_dropped(&mut self, fetch: &Fetch, peer: PeerKey, reason: DropReason) -> Result<(), SimError> {
        let Some(&holder) = fetch.streams.get(&peer) else { return Ok(()) };
        match reason {
            DropReason::Stalled => self.summary.stalled += 1,
            DropReason::Lied | DropReason::Unasked if self.sites[holder].is_liar() => self.summary.chunks_refused += 1,
            DropReason::Lied | DropReason::Unasked => return Err(SimError::Slandered { site: holder }),
        }
        Ok(())
    }

    fn finish(&mut self, mut fetch: Fetch, site: usize, image: ImageId) -> Result<(), SimError> {
        self.timeline.note("fetched", &[site as u64]);
        self.summary.fetched += 1;
        for number in std::mem::take(&mut fetch.streams).into_keys() {
            self.close_stream(number);
        }
        self.providers.entry(image).or_default().insert(site);
        // The chunks that occur twice, and those that other images brought: who fetches from here hears of them now.
        for index in 0..fetch.manifest.map_or(0, |manifest| manifest.chunks.len() as u32) {
            self.has_news(site, image, index);
        }
        Ok(())
    }

    // ── What holders say ─────────────────────────────────────────────────────────────────────────────────────────────

    /// A holder's frame arrives.
    pub(super) fn receive_at_fetcher(&mut self, number: PeerKey, frame: &[u8]) -> Result<(), SimError> {
        let Some(stream) = self.streams.get(&number) else { return Ok(()) };
        let (site, holder, image) = (stream.fetcher, stream.holder, stream.image);
        let Some(mut fetch) = self.fetches.remove(&(site, image)) else { return Ok(()) };
        let heard = self.hear(&mut fetch, site, image, number, frame)?;
        self.fetches.insert((site, image), fetch);
        self.timeline.note("frame", &[number, frame.len() as u64, u64::from(heard.is_ok())]);
        match heard {
            Ok(Heard::GoOn) => {}
            Ok(Heard::Over(retry)) => {
                self.close_stream(number);
                self.stream_is_over(site, image, number, Some(retry));
            }
            Err(Misbehaved) if self.sites[holder].is_liar() => {
                self.summary.chunks_refused += 1;
                self.close_stream(number);
                self.stream_is_over(site, image, number, None);
            }
            Err(Misbehaved) => return Err(SimError::Slandered { site: holder }),
        }
        self.wake_fetch_by(site, image, POLL_PAUSE);
        Ok(())
    }

    fn hear(
        &mut self,
        fetch: &mut Fetch,
        site: usize,
        image: ImageId,
        number: PeerKey,
        frame: &[u8],
    ) -> Result<Result<Heard, Misbehaved>, SimError> {
        let (kind, payload) = match split_frame(frame) {
            Ok(split) => split,
            Err(misbehaved) => return Ok(Err(misbehaved)),
        };
        match kind {
            FrameKind::Page => return Ok(self.hear_page(fetch, site, number, payload)),
            FrameKind::Chunk => return self.hear_chunk(fetch, site, image, number, payload),
            _ => {}
        }
        Ok(match Message::decode(kind, payload) {
            Ok(Some(Message::Have { is_complete, chunks })) => {
                if let Some(download) = &mut fetch.download {
                    download.have(number, is_complete, &chunks, self.timeline.elapsed());
                }
                fetch.holders.entry(number).or_default().push((is_complete, chunks));
                Ok(Heard::GoOn)
            }
            Ok(Some(Message::Busy)) => Ok(Heard::Over(BUSY_RETRY)),
            Ok(Some(Message::Absent)) => Ok(Heard::Over(RETRY)),
            _ => Err(Misbehaved),
        })
    }

    fn hear_page(&mut self, fetch: &mut Fetch, site: usize, number: PeerKey, page: &[u8]) -> Result<Heard, Misbehaved> {
        let hash = Hash::of(page);
        if !fetch.asked_pages.get_mut(&number).is_some_and(|(pages, _)| pages.remove(&hash)) {
            return Err(Misbehaved);
        }
        self.sites[site].store.put_page(hash, page);
        fetch.missing_pages.remove(&hash);
        Ok(Heard::GoOn)
    }

    fn hear_chunk(
        &mut self,
        fetch: &mut Fetch,
        site: usize,
        image: ImageId,
        number: PeerKey,
        payload: &[u8],
    ) -> Result<Result<Heard, Misbehaved>, SimError> {
        let header = payload.split_first_chunk::<{ ChunkHeader::BYTES }>();
        let header = header.and_then(|(header, bytes)| Some((ChunkHeader::decode(*header).ok()?, bytes)));
        let (Some((ChunkHeader { index, encoding }, bytes)), Some(download), Some(manifest)) =
            (header, &mut fetch.download, &fetch.manifest)
        else {
            return Ok(Err(Misbehaved));
        };
        match download.arrived(number, index, self.timeline.elapsed()) {
            Outcome::Needed => {
                // It was asked for, so it is one of the manifest's.
                let chunk = &manifest.chunks[index as usize];
                if self.sites[site].store.put_chunk(chunk, encoding, bytes) {
                    self.check_stored(site, image, &chunk.hash)?;
                    download.stored(index);
                    self.has_news(site, image, index);
                } else {
                    download.refused(number, index);
                }
            }
            Outcome::Duplicate => self.summary.duplicate_bytes += bytes.len() as u64,
            // The download will say that the stream is to be closed.
            Outcome::Unasked => {}
        }
        Ok(Ok(Heard::GoOn))
    }

    /// What is stored must be what the publisher cut, byte for byte.
    fn check_stored(&mut self, site: usize, image: ImageId, hash: &Hash) -> Result<(), SimError> {
        let true_bytes = self.contents.get(&image).and_then(|content| content.chunks.get(hash));
        match true_bytes.is_some_and(|bytes| self.sites[site].store.share(hash, bytes)) {
            true => Ok(()),
            false => Err(SimError::Unverified { site }),
        }
    }

    /// The fetch learns that a stream is gone; without a time, its holder is never asked again.
    pub(super) fn stream_is_over(&mut self, site: usize, image: ImageId, number: PeerKey, retry: Option<Micros>) {
        let now = self.timeline.now();
        if let Some(fetch) = self.fetches.get_mut(&(site, image)) {
            fetch.forget(number, retry.map(|retry| now + retry));
            self.wake_fetch_by(site, image, POLL_PAUSE);
        }
    }
}

impl Fetch {
    fn forget(&mut self, number: PeerKey, not_before: Option<Micros>) {
        self.holders.remove(&number);
        self.asked_pages.remove(&number);
        if let Some(download) = &mut self.download {
            download.left(number);
        }
        if let Some(peer) = self.streams.remove(&number) {
            match not_before {
                Some(at) => drop(self.not_before.insert(peer, at)),
                None => drop(self.banned.insert(peer)),
            }
        }
    }
}
