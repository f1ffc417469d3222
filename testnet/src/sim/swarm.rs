//! Swarm streams between sites: frames in order, over uplinks and downlinks that others use too, until a stream breaks.
//!
//! Frames are the bytes that nodes write: [`Message::frame`], or a head and a page or chunk behind it. What a site
//! sends of pages and chunks takes its uplink's time, one frame of each stream in turn; control messages do not queue.

use std::collections::VecDeque;

use rialto_protocol::ids::ImageId;
use rialto_protocol::swarm::{ChunkHeader, FrameHead, FrameKind, Message, MessageError, PeerKey, Spread};

use super::SimError;
use super::fetch::RETRY;
use super::timeline::Micros;
use super::upload::{Outgoing, Upload};
use super::world::{Event, World};

/// One stream, opened by a site that fetches an image.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) fetcher: usize,
    pub(super) holder: usize,
    pub(super) image: ImageId,
    pub(super) upload: Upload,
    /// A stream keeps its order: nothing arrives before what was sent before it. To the fetcher, and to the holder.
    last_arrival: [Micros; 2],
}

/// What a site sends at full speed: the streams that have something to send, in turn.
#[derive(Debug, Default)]
pub(super) struct Uplink {
    is_busy: bool,
    turns: VecDeque<PeerKey>,
}

impl World {
    pub(super) fn open_stream(&mut self, fetcher: usize, holder: usize, image: ImageId) -> Result<PeerKey, SimError> {
        let number = self.next_number();
        self.summary.streams += 1;
        self.timeline.note("open", &[number, fetcher as u64, holder as u64]);
        self.streams.insert(number, Stream { fetcher, holder, image, upload: Upload::default(), last_arrival: [0; 2] });
        self.uploads.entry((holder, image)).or_default().insert(number);
        let chunks = self.contents.get(&image).map_or(0, |content| content.manifest.chunks.len());
        self.spreads.entry((holder, image)).or_insert_with(|| Spread::new(chunks)).joined();
        self.say(number, true, &Message::Hello { image, bases: Vec::new() })?;
        Ok(number)
    }

    /// Ends a stream at both sides.
    pub(super) fn close_stream(&mut self, number: PeerKey) {
        let Some(stream) = self.streams.remove(&number) else { return };
        if let Some(uploads) = self.uploads.get_mut(&(stream.holder, stream.image)) {
            uploads.remove(&number);
        }
        if let Some(spread) = self.spreads.get_mut(&(stream.holder, stream.image)) {
            spread.left();
        }
    }

    /// A stream is lost in the middle: what was on its way is, too. The fetcher comes back after a while.
    pub(super) fn break_stream(&mut self, number: PeerKey) {
        let Some(stream) = self.streams.get(&number) else { return };
        let (fetcher, image) = (stream.fetcher, stream.image);
        self.summary.streams_broken += 1;
        self.timeline.note("break", &[number]);
        self.close_stream(number);
        self.stream_is_over(fetcher, image, number, Some(RETRY));
    }

    /// Ends the streams between sites that cannot hear each other any more.
    pub(super) fn break_streams(&mut self) {
        let is_cut = |stream: &Stream| !self.network.is_connected(stream.fetcher, stream.holder);
        let cut: Vec<_> = self.streams.iter().filter(|(_, stream)| is_cut(stream)).map(|(number, _)| *number).collect();
        for number in cut {
            self.break_stream(number);
        }
    }

    /// Sends a control message.
    pub(super) fn say(&mut self, number: PeerKey, to_holder: bool, message: &Message) -> Result<(), SimError> {
        let frame = message.frame().map_err(|error: MessageError| SimError::Broken(error.to_string()))?;
        self.deliver(number, to_holder, frame, 0);
        Ok(())
    }

    /// Gives a stream its turn on the uplink of its holder.
    pub(super) fn queue(&mut self, number: PeerKey) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        if stream.upload.has_something_to_send() && !std::mem::replace(&mut stream.upload.is_queued, true) {
            let holder = stream.holder;
            self.uplinks[holder].turns.push_back(number);
            self.send_next(holder);
        }
    }

    pub(super) fn uplink_free(&mut self, site: usize) {
        self.uplinks[site].is_busy = false;
        self.send_next(site);
    }

    /// Sends the next page or chunk of whichever stream has its turn.
    fn send_next(&mut self, site: usize) {
        while !self.uplinks[site].is_busy {
            let Some(number) = self.uplinks[site].turns.pop_front() else { return };
            let Some(stream) = self.streams.get_mut(&number) else { continue };
            stream.upload.is_queued = false;
            let image = stream.image;
            let Some(outgoing) = self.next_outgoing(number) else { continue };
            let Some(frame) = self.frame(site, image, outgoing) else {
                // Not there any more; the stream may have more to send.
                self.queue(number);
                continue;
            };
            self.summary.wire_bytes += frame.len() as u64;
            *self.uploaded.entry((site, image)).or_default() += frame.len() as u64;
            let sending = self.network.sending_time(site, frame.len());
            self.uplinks[site].is_busy = true;
            self.timeline.after(sending, Event::UplinkFree { site });
            if self.random.u32(..1_000_000) < self.scenario.breaks_per_million {
                self.break_stream(number);
                continue;
            }
            self.deliver(number, false, frame, sending);
            self.queue(number);
        }
    }

    /// A page or a chunk as it is sent, where the site has it. Liars have everything.
    fn frame(&self, site: usize, image: ImageId, outgoing: Outgoing) -> Option<Vec<u8>> {
        let (here, content) = (&self.sites[site], self.contents.get(&image)?);
        match outgoing {
            Outgoing::Page(hash) => {
                let page = here.store.page(&hash).or_else(|| content.pages.get(&hash).filter(|_| here.is_liar()))?;
                let head = FrameHead { kind: FrameKind::Page, length: page.len() };
                Some([&head.encode()[..], page].concat())
            }
            Outgoing::Chunk(index) => {
                let hash = content.manifest.chunks.get(index as usize)?.hash;
                let chunk = here.store.chunk(&hash).or_else(|| content.chunks.get(&hash).filter(|_| here.is_liar()))?;
                let encoding = rialto_protocol::image::encoding::Encoding::Raw;
                Some([&ChunkHeader { index, encoding }.frame(chunk.len())[..], chunk].concat())
            }
        }
    }

    /// Lets a frame arrive, behind what was sent on the stream before it.
    fn deliver(&mut self, number: PeerKey, to_holder: bool, mut frame: Vec<u8>, after: Micros) {
        let Some(stream) = self.streams.get(&number) else { return };
        let (from, to) = match to_holder {
            true => (stream.fetcher, stream.holder),
            false => (stream.holder, stream.fetcher),
        };
        if self.lies(from) {
            frame = self.corrupt_frame(&frame);
        }
        let at = self.timeline.now() + after + self.network.latency(from, to, &mut self.random);
        let is_bulk = after > 0;
        let arrival = if is_bulk { self.network.arrival(to, frame.len(), at) } else { at };
        let Some(stream) = self.streams.get_mut(&number) else { return };
        let last = &mut stream.last_arrival[usize::from(to_holder)];
        *last = arrival.max(*last);
        let after = *last - self.timeline.now();
        self.timeline.after(after, Event::Frame { stream: number, to_holder, frame });
    }

    /// Half of the lies are in the first bytes, where they say what comes; most bytes of a chunk's frame are the chunk's.
    fn corrupt_frame(&mut self, frame: &[u8]) -> Vec<u8> {
        let heads = (FrameHead::BYTES + ChunkHeader::BYTES).min(frame.len());
        match self.random.bool() {
            true => [self.corrupt(&frame[..heads]), frame[heads..].to_vec()].concat(),
            false => self.corrupt(frame),
        }
    }
}

/// A frame's head and its payload.
///
/// # Errors
/// The sender misbehaved.
pub(super) fn split_frame(frame: &[u8]) -> Result<(FrameKind, &[u8]), Misbehaved> {
    let (head, payload) = frame.split_first_chunk::<{ FrameHead::BYTES }>().ok_or(Misbehaved)?;
    let head = FrameHead::decode(*head).map_err(|_| Misbehaved)?;
    // On a socket, a wrong length makes rubbish of all that follows.
    (head.length == payload.len()).then_some((head.kind, payload)).ok_or(Misbehaved)
}

/// A peer did what no honest one does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Misbehaved;
