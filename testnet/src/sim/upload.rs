//! The holder's side of a swarm stream: says what it has, tells of more as it comes, and sends what it is asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::swarm::{Message, PeerKey, Queue, Ranges, Spread};

use super::SimError;
use super::site::Character;
use super::swarm::{Misbehaved, split_frame};
use super::timeline::{Micros, SECOND};
use super::world::{Event, World};

/// News of stored chunks is gathered for this long.
const NEWS_PAUSE: Micros = 2_000;
/// Bytes that are decided to be sent on one stream at a time.
const BATCH_BYTES: u64 = 64 * 1024;

/// Who fetches an image that is being fetched here too waits for its manifest to be known here: looked at this often, and
/// so many times.
const MANIFEST_PAUSE: Micros = SECOND / 10;
const MANIFEST_TRIES: u32 = 50;

/// What a holder knows of one fetcher.
#[derive(Debug, Default)]
pub(super) struct Upload {
    /// Whether it answered the fetcher's `Hello` by saying what it has.
    is_serving: bool,
    /// Whether it waits for its turn on the uplink.
    pub(super) is_queued: bool,
    /// Chunks that the fetcher was not told of.
    missing: BTreeSet<u32>,
    wanted: Queue,
    /// Decided to be sent, and not sent yet.
    batch: VecDeque<u32>,
    pages: VecDeque<Hash>,
}

/// What a stream sends next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outgoing {
    Page(Hash),
    Chunk(u32),
}

impl Upload {
    pub(super) fn has_something_to_send(&self) -> bool {
        !self.pages.is_empty() || !self.batch.is_empty() || !self.wanted.is_empty()
    }
}

/// What the streams of one image at one holder share.
pub(super) type Spreads = BTreeMap<(usize, ImageId), Spread>;

impl World {
    /// What a stream sends next. What is held back for a moment queues again when that is over.
    pub(super) fn next_outgoing(&mut self, number: PeerKey) -> Option<Outgoing> {
        let now = self.timeline.elapsed();
        let stream = self.streams.get_mut(&number)?;
        let upload = &mut stream.upload;
        if let Some(page) = upload.pages.pop_front() {
            return Some(Outgoing::Page(page));
        }
        if upload.batch.is_empty() {
            let manifest = &self.contents.get(&stream.image)?.manifest;
            let spread = self.spreads.get_mut(&(stream.holder, stream.image))?;
            let length = |index: u32| manifest.chunks.get(index as usize).map_or(0, |chunk| chunk.length);
            let is_complete = upload.missing.is_empty();
            let batch = upload.wanted.take(spread, is_complete, BATCH_BYTES, length, now);
            upload.batch.extend(batch.chunks);
            if let Some(until) = batch.wait_until {
                let after = until.saturating_sub(now).as_micros() as Micros;
                self.timeline.after(after, Event::Queue { stream: number });
            }
        }
        upload.batch.pop_front().map(Outgoing::Chunk)
    }

    /// A fetcher's message arrives.
    pub(super) fn receive_at_holder(&mut self, number: PeerKey, frame: &[u8]) -> Result<(), SimError> {
        let Some(stream) = self.streams.get(&number) else { return Ok(()) };
        let (holder, image) = (stream.holder, stream.image);
        let message = split_frame(frame)
            .and_then(|(kind, payload)| Message::decode(kind, payload).map_err(|_| Misbehaved))
            .ok()
            .flatten();
        self.timeline.note("ask", &[number, frame.len() as u64, u64::from(message.is_some())]);
        match (message, self.sites[holder].character) {
            (_, Character::Mute) => Ok(()),
            (Some(Message::Hello { image: named, .. }), Character::Silent | Character::Liar) if named == image => {
                self.say(number, false, &Message::Have { is_complete: true, chunks: Ranges::default() })
            }
            (Some(Message::Hello { image: named, .. }), Character::Honest) if named == image => {
                self.greet(number, MANIFEST_TRIES)
            }
            (Some(_), Character::Silent) => Ok(()),
            (Some(message), _) => {
                if self.answer(number, message).is_err() {
                    self.break_stream(number);
                }
                Ok(())
            }
            // Fetchers are honest here, so this would be our mistake.
            (None, _) => Err(SimError::Broken("a fetcher sent what is no message".to_owned())),
        }
    }

    /// Says what there is, or why there is nothing.
    pub(super) fn greet(&mut self, number: PeerKey, tries: u32) -> Result<(), SimError> {
        let Some(stream) = self.streams.get(&number) else { return Ok(()) };
        let (holder, image) = (stream.holder, stream.image);
        let content = self.contents.get(&image).filter(|_| self.known_manifests.contains(&(holder, image)));
        let Some(content) = content else {
            if self.fetches.contains_key(&(holder, image)) && tries > 0 {
                // Who fetches it will have the manifest in a moment.
                self.timeline.after(MANIFEST_PAUSE, Event::Greet { stream: number, tries: tries - 1 });
                return Ok(());
            }
            return self.say(number, false, &Message::Absent);
        };
        let missing: BTreeSet<u32> = self.sites[holder].store.missing(&content.manifest).collect();
        let held = (0..content.manifest.chunks.len() as u32).filter(|index| !missing.contains(index));
        let mut pieces = match missing.is_empty() {
            true => Vec::new(),
            false => Ranges::pieces(held),
        };
        if pieces.is_empty() {
            pieces.push(Ranges::default());
        }
        let is_complete = missing.is_empty();
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.upload.is_serving = true;
            stream.upload.missing = missing;
        }
        for chunks in pieces {
            self.say(number, false, &Message::Have { is_complete, chunks })?;
        }
        Ok(())
    }

    fn answer(&mut self, number: PeerKey, message: Message) -> Result<(), Misbehaved> {
        let Some(stream) = self.streams.get_mut(&number) else { return Ok(()) };
        let end = self.contents.get(&stream.image).map_or(0, |content| content.manifest.chunks.len() as u32);
        let upload = &mut stream.upload;
        match message {
            Message::WantPages { hashes } => upload.pages.extend(hashes),
            Message::Want { chunks } => {
                let missing = &upload.missing;
                upload.wanted.want(&chunks, end, |index| !missing.contains(&index)).map_err(|_| Misbehaved)?;
            }
            Message::Cancel { chunks } => upload.wanted.cancel(&chunks),
            Message::Hello { .. } | Message::Have { .. } | Message::Busy | Message::Absent => return Err(Misbehaved),
        }
        self.queue(number);
        Ok(())
    }

    /// A site has stored a chunk of an image that it fetches: whoever fetches from it will hear.
    pub(super) fn has_news(&mut self, site: usize, image: ImageId, index: u32) {
        let news = self.news.entry((site, image)).or_default();
        if news.is_empty() {
            self.timeline.after(NEWS_PAUSE, Event::News { site, image });
        }
        news.insert(index);
    }

    /// Tells every fetcher of the chunks stored since the last time.
    pub(super) fn tell_news(&mut self, site: usize, image: ImageId) -> Result<(), SimError> {
        let news = self.news.remove(&(site, image)).unwrap_or_default();
        for number in self.uploads.get(&(site, image)).cloned().unwrap_or_default() {
            let Some(stream) = self.streams.get_mut(&number).filter(|stream| stream.upload.is_serving) else {
                continue;
            };
            let missing = &mut stream.upload.missing;
            let gained: Vec<u32> = news.iter().copied().filter(|index| missing.remove(index)).collect();
            for chunks in Ranges::pieces(gained) {
                self.say(number, false, &Message::Have { is_complete: false, chunks })?;
            }
        }
        Ok(())
    }
}
