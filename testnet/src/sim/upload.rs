//! The holder's side of a swarm stream: says what it has, tells of more as it comes, and sends what it is asked for.

use std::collections::{BTreeSet, VecDeque};

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::swarm::{MAX_WANTED, Message, PeerKey, Ranges};

use super::SimError;
use super::site::Character;
use super::swarm::{Misbehaved, split_frame};
use super::timeline::Micros;
use super::world::{Event, World};

/// News of stored chunks is gathered for this long.
const NEWS_PAUSE: Micros = 2_000;

/// What a holder knows of one fetcher.
#[derive(Debug, Default)]
pub(super) struct Upload {
    /// Whether it answered the fetcher's `Hello` by saying what it has.
    is_serving: bool,
    /// Whether it waits for its turn on the uplink.
    pub(super) is_queued: bool,
    /// Chunks that the fetcher was not told of.
    missing: BTreeSet<u32>,
    wanted: VecDeque<u32>,
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
        !self.pages.is_empty() || !self.wanted.is_empty()
    }

    pub(super) fn next(&mut self) -> Option<Outgoing> {
        let page = self.pages.pop_front().map(Outgoing::Page);
        page.or_else(|| self.wanted.pop_front().map(Outgoing::Chunk))
    }
}

impl World {
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
            (Some(Message::Hello { image: named, .. }), Character::Honest) if named == image => self.greet(number),
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
    fn greet(&mut self, number: PeerKey) -> Result<(), SimError> {
        let Some(stream) = self.streams.get(&number) else { return Ok(()) };
        let (holder, image) = (stream.holder, stream.image);
        let content = self.contents.get(&image).filter(|_| self.known_manifests.contains(&(holder, image)));
        let Some(content) = content else {
            // Who fetches it will have the manifest in a moment.
            let is_fetching = self.fetches.contains_key(&(holder, image));
            return self.say(number, false, if is_fetching { &Message::Busy } else { &Message::Absent });
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
                if chunks.count() + upload.wanted.len() as u64 > MAX_WANTED {
                    return Err(Misbehaved);
                }
                upload.wanted.extend(chunks.indices_below(end).filter(|index| !upload.missing.contains(index)));
            }
            Message::Cancel { chunks } => {
                let cancelled: BTreeSet<u32> = chunks.indices_below(end).collect();
                upload.wanted.retain(|index| !cancelled.contains(index));
            }
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
