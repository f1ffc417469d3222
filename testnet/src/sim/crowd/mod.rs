//! One image and many sites in virtual time: the swarm alone, with thousands of fetchers.
//!
//! Fetchers run the download of `protocol`, holders its upload queues. There are no bytes: a chunk is a number and a
//! length, and whether it is the right one. Links have a rate in each direction and a latency; what a site sends takes its
//! uplink's time, one chunk of each stream in turn, and then the receiver's downlink's.

mod site;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rialto_protocol::swarm::{Action, Batch, Download, DropReason, Outcome, PeerKey, Ranges, Spread, Timing, Wanted};

use self::site::{Character, Site, Stream};
use super::SimError;
use super::timeline::{Micros, SECOND, Timeline};

/// Streams that a holder serves at once, as a node does.
const SEATS: usize = 128;
/// Holders that a fetcher asks at once, as a node does.
const MAX_STREAMS: usize = 32;
/// What happens within this time is acted on together.
const POLL_PAUSE: Micros = 2_000;
/// News of stored chunks is gathered for this long: a node tells between two batches.
const NEWS_PAUSE: Micros = 20_000;
/// A message waits so long behind what its sender is sending already, in sockets and queues.
const QUEUED: Micros = 50_000;
/// Bytes that a holder decides to send on one stream at a time.
const BATCH_BYTES: u64 = 64 * 1024;
/// A holder that was busy or left alone is asked again after this.
const RETRY: Micros = 2 * SECOND;
/// A trickling holder sends one chunk in this time: often enough not to be called stalled.
const TRICKLE: Micros = 4 * SECOND;
/// What is not over by then never will be.
const DEADLINE: Micros = 3_600 * SECOND;

/// What to simulate. Everything random follows from `seed`.
#[derive(Debug, Clone, PartialEq)]
pub struct Crowd {
    /// From which everything random follows.
    pub seed: u64,
    /// Sites that want the image.
    pub fetchers: usize,
    /// Sites that have it, and send it as they should.
    pub holders: usize,
    /// Sites that say that they have it, and lie.
    pub liars: usize,
    /// Sites that say that they have it, and send nothing.
    pub stallers: usize,
    /// Sites that say that they have it, and send just enough not to be left alone.
    pub tricklers: usize,
    /// Length of the image, in bytes.
    pub image_bytes: u64,
    /// Other fetchers that each of them knows, beside those that know it.
    pub acquaintances: usize,
    /// What each site can send and receive, in bytes a second: drawn from these.
    pub rates: Vec<u64>,
    /// One way between two sites takes this long, drawn from this range.
    pub latency: std::ops::Range<Duration>,
    /// The fetchers come within this time.
    pub arrive_within: Duration,
}

impl Crowd {
    /// One holder and so many fetchers who all know each other, on links of 100 Mbit/s and 1 ms, that come at once.
    pub fn on_a_lan(seed: u64, fetchers: usize, image_bytes: u64) -> Self {
        Self {
            seed,
            fetchers,
            holders: 1,
            liars: 0,
            stallers: 0,
            tricklers: 0,
            image_bytes,
            acquaintances: fetchers,
            rates: vec![12_500_000],
            latency: Duration::from_micros(500)..Duration::from_millis(1),
            arrive_within: Duration::ZERO,
        }
    }

    /// The same on lines of 10 to 100 Mbit/s, 5 to 100 ms apart, where each knows some of the others, that come within two
    /// seconds.
    pub fn on_the_internet(seed: u64, fetchers: usize, image_bytes: u64) -> Self {
        Self {
            acquaintances: 10,
            rates: vec![1_250_000, 2_500_000, 6_250_000, 12_500_000],
            latency: Duration::from_millis(5)..Duration::from_millis(100),
            arrive_within: Duration::from_secs(2),
            ..Self::on_a_lan(seed, fetchers, image_bytes)
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct CrowdSummary {
    /// Fetchers, all of which got the image.
    pub fetchers: usize,
    /// Length of the image, in bytes.
    pub image_bytes: u64,
    /// From the arrival of a fetcher until it had the image, in seconds: the slowest.
    pub slowest_seconds: f64,
    /// The same for the one in the middle.
    pub median_seconds: f64,
    /// What sending the image once takes the fastest holder, in seconds.
    pub ideal_seconds: f64,
    /// Copies of the image that the busiest of the first holders uploaded.
    pub seed_copies: f64,
    /// Bytes that came a second time or were lies, of a thousand that were needed.
    pub waste_per_mille: u64,
    /// Holders that were found out lying.
    pub lies: u64,
    /// Times that a holder lost its place because it delivered nothing in time.
    pub stalled: u64,
    /// Events simulated.
    pub events: u64,
}

impl fmt::Display for CrowdSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fetchers, slowest_seconds, median_seconds, ideal_seconds, .. } = self;
        writeln!(f, "image       {:.1} MB, fetched by {fetchers} sites", self.image_bytes as f64 / 1e6)?;
        writeln!(
            f,
            "seconds     {slowest_seconds:.2} the slowest, {median_seconds:.2} the one in the middle; sending it once takes \
             a holder {ideal_seconds:.2}"
        )?;
        writeln!(f, "seed        uploaded {:.2} copies", self.seed_copies)?;
        writeln!(f, "waste       {:.1} % of what came", self.waste_per_mille as f64 / 10.0)?;
        write!(f, "holders     {} lies refused, {} stalled; {} events", self.lies, self.stalled, self.events)
    }
}

/// Something that happens at a time.
#[derive(Debug)]
enum Event {
    /// A fetcher begins.
    Arrive(usize),
    /// A fetcher looks at what to do.
    Poll(usize),
    /// A holder's uplink has sent what it was sending.
    UplinkFree(usize),
    /// A holder may have something to send again that it held back.
    Queue(PeerKey),
    /// A holder tells of what it has stored.
    News(usize),
    /// A request arrives at the holder.
    Ask { stream: PeerKey, is_wanted: bool, chunks: Ranges },
    /// Word of what the holder has arrives.
    Have { stream: PeerKey, is_complete: bool, chunks: Vec<Ranges> },
    /// A chunk arrives.
    Chunk { stream: PeerKey, index: u32, is_true: bool },
    /// A trickling holder sends another chunk.
    Trickle(PeerKey),
}

struct World {
    crowd: Crowd,
    timeline: Timeline<Event>,
    random: fastrand::Rng,
    /// Lengths of the chunks.
    lengths: Vec<u32>,
    /// Holders first, then liars, stallers and tricklers, then fetchers.
    sites: Vec<Site>,
    streams: BTreeMap<PeerKey, Stream>,
    next_stream: PeerKey,
    unfinished: usize,
    needed_bytes: u64,
    wasted_bytes: u64,
    lies: u64,
    stalled: u64,
}

/// Simulates until every fetcher has the image.
///
/// # Errors
/// One never gets it, or somebody honest is called a liar.
pub fn run(crowd: &Crowd) -> Result<CrowdSummary, SimError> {
    let mut world = World::new(crowd);
    while world.unfinished > 0 {
        let Some(event) = world.timeline.next().filter(|_| world.timeline.now() < DEADLINE) else {
            let site = world.sites.iter().position(|site| site.download.is_some()).unwrap_or(0);
            let chunks = world.sites[site].missing();
            return Err(SimError::Unserved { site, missing: chunks, seconds: world.timeline.now() / SECOND });
        };
        world.happen(event)?;
    }
    Ok(world.summary())
}

impl World {
    fn new(crowd: &Crowd) -> Self {
        let mut random = fastrand::Rng::with_seed(crowd.seed);
        let mut lengths = Vec::new();
        let mut left = crowd.image_bytes;
        while left > 0 {
            let length = random.u64(16 * 1024..48 * 1024).min(left);
            left -= length;
            lengths.push(length as u32);
        }
        let characters = [
            (Character::Honest, crowd.holders),
            (Character::Liar, crowd.liars),
            (Character::Staller, crowd.stallers),
            (Character::Trickler, crowd.tricklers),
        ];
        let mut sites = Vec::new();
        for (character, count) in characters {
            sites.extend((0..count).map(|_| Site::complete(character, lengths.len())));
        }
        let first_fetcher = sites.len();
        sites.extend((0..crowd.fetchers).map(|_| Site::empty(lengths.len())));
        for (place, site) in sites.iter_mut().enumerate() {
            site.rate = crowd.rates[random.usize(..crowd.rates.len())];
            site.links = (0..first_fetcher).filter(|other| *other != place).collect();
        }
        // A holder on the slowest line would be all that is measured.
        let fastest = crowd.rates.iter().copied().max().unwrap_or(1);
        sites[..first_fetcher].iter_mut().for_each(|site| site.rate = fastest);
        for place in first_fetcher..sites.len() {
            let everybody = crowd.acquaintances >= crowd.fetchers;
            let others: Vec<usize> = match everybody {
                true => (first_fetcher..sites.len()).collect(),
                false => (0..crowd.acquaintances).map(|_| random.usize(first_fetcher..sites.len())).collect(),
            };
            for other in others.into_iter().filter(|other| *other != place) {
                sites[place].links.insert(other);
                sites[other].links.insert(place);
            }
        }
        let mut timeline = Timeline::new();
        for place in first_fetcher..sites.len() {
            let after = random.u64(..=crowd.arrive_within.as_micros() as u64);
            timeline.after(after, Event::Arrive(place));
        }
        Self {
            crowd: crowd.clone(),
            timeline,
            random,
            lengths,
            unfinished: crowd.fetchers,
            sites,
            streams: BTreeMap::new(),
            next_stream: 0,
            needed_bytes: 0,
            wasted_bytes: 0,
            lies: 0,
            stalled: 0,
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), SimError> {
        match event {
            Event::Arrive(site) => self.arrive(site),
            Event::Poll(site) => self.poll(site)?,
            Event::UplinkFree(site) => {
                self.sites[site].is_sending = false;
                self.send_next(site);
            }
            Event::Queue(stream) => self.queue(stream),
            Event::News(site) => self.tell_news(site),
            Event::Ask { stream, is_wanted, chunks } => self.asked(stream, is_wanted, &chunks)?,
            Event::Have { stream, is_complete, chunks } => self.heard(stream, is_complete, &chunks),
            Event::Chunk { stream, index, is_true } => self.chunk(stream, index, is_true)?,
            Event::Trickle(stream) => self.trickle(stream),
        }
        Ok(())
    }

    // ── Fetching ─────────────────────────────────────────────────────────────────────────────────────────────────────

    fn arrive(&mut self, site: usize) {
        let wanted = self.lengths.iter().zip(0..).map(|(&bytes, index)| Wanted { index, bytes });
        let seed = self.random.u64(..);
        self.sites[site].download = Some(Download::new(wanted, seed, Timing::default()));
        self.sites[site].arrived_at = self.timeline.now();
        self.wake(site, 0);
    }

    fn wake(&mut self, site: usize, after: Micros) {
        let at = self.timeline.now() + after;
        if self.sites[site].wake.is_none_or(|wake| wake > at) {
            self.sites[site].wake = Some(at);
            self.timeline.after(after, Event::Poll(site));
        }
    }

    fn poll(&mut self, site: usize) -> Result<(), SimError> {
        if self.sites[site].wake != Some(self.timeline.now()) {
            return Ok(());
        }
        self.sites[site].wake = None;
        self.seek(site);
        let now = self.timeline.elapsed();
        let Some(download) = &mut self.sites[site].download else { return Ok(()) };
        let actions = download.poll(now);
        let wake = download.wake_at(now).map_or(RETRY, |at| at.saturating_sub(now).as_micros() as Micros);
        for action in actions {
            match action {
                Action::Want { peer, chunks } => self.ask(peer, true, chunks),
                Action::Cancel { peer, chunks } => self.ask(peer, false, chunks),
                Action::Drop { peer, reason } => self.dropped(site, peer, reason)?,
            }
        }
        self.wake(site, wake.clamp(POLL_PAUSE, RETRY));
        Ok(())
    }

    fn seek(&mut self, site: usize) {
        let now = self.timeline.now();
        let here = &self.sites[site];
        if here.download.is_none() || here.asks.len() >= MAX_STREAMS || now < here.seek_at {
            return;
        }
        let may_be_asked = |other: &usize| {
            !here.asks.contains_key(other)
                && !here.banned.contains(other)
                && here.not_before.get(other).is_none_or(|at| *at <= now)
        };
        let mut candidates: Vec<usize> = here.links.iter().copied().filter(may_be_asked).collect();
        self.random.shuffle(&mut candidates);
        candidates.truncate(MAX_STREAMS - self.sites[site].asks.len());
        self.sites[site].seek_at = now + RETRY / 4;
        for holder in candidates {
            // Who has nothing and fetches nothing has nothing to say; who serves too many is busy.
            let there = &self.sites[holder];
            if !there.takes_part() || there.serves.len() >= SEATS {
                self.sites[site].not_before.insert(holder, now + RETRY / 4);
                continue;
            }
            self.open(site, holder);
        }
    }

    fn open(&mut self, fetcher: usize, holder: usize) {
        let number = self.next_stream;
        self.next_stream += 1;
        self.streams.insert(number, Stream::new(fetcher, holder));
        self.sites[fetcher].asks.insert(holder, number);
        self.sites[holder].serves.insert(number);
        self.sites[holder].spread.joined();
        let now = self.timeline.elapsed();
        if let Some(download) = &mut self.sites[fetcher].download {
            download.joined(number, now);
        }
        // Who asks us for what we fetch ourselves fetches it too.
        if self.sites[holder].download.is_some() && self.sites[holder].not_before.remove(&fetcher).is_some() {
            self.sites[holder].seek_at = 0;
            let after = self.latency(fetcher, holder);
            self.wake(holder, after);
        }
        let there_and_back = 2 * self.latency(fetcher, holder);
        self.tell(number, there_and_back);
    }

    fn close(&mut self, number: PeerKey) {
        let Some(stream) = self.streams.remove(&number) else { return };
        self.sites[stream.fetcher].asks.remove(&stream.holder);
        self.sites[stream.holder].serves.remove(&number);
        self.sites[stream.holder].spread.left();
    }

    fn dropped(&mut self, site: usize, number: PeerKey, reason: DropReason) -> Result<(), SimError> {
        let Some(holder) = self.streams.get(&number).map(|stream| stream.holder) else { return Ok(()) };
        let is_honest = self.sites[holder].character == Character::Honest;
        match reason {
            DropReason::Stalled => {
                self.stalled += 1;
                self.sites[site].not_before.insert(holder, self.timeline.now() + 5 * RETRY);
            }
            DropReason::Lied | DropReason::Unasked if is_honest => return Err(SimError::Slandered { site: holder }),
            DropReason::Lied | DropReason::Unasked => {
                self.lies += 1;
                self.sites[site].banned.insert(holder);
            }
        }
        self.close(number);
        Ok(())
    }

    fn ask(&mut self, number: PeerKey, is_wanted: bool, chunks: Vec<u32>) {
        let Some(stream) = self.streams.get(&number) else { return };
        let (fetcher, holder) = (stream.fetcher, stream.holder);
        let after = self.in_order(number, 0, self.control_delay(fetcher, holder));
        for chunks in Ranges::pieces(chunks) {
            self.timeline.after(after, Event::Ask { stream: number, is_wanted, chunks });
        }
    }

    fn heard(&mut self, number: PeerKey, is_complete: bool, chunks: &[Ranges]) {
        let Some(stream) = self.streams.get(&number) else { return };
        let (fetcher, now) = (stream.fetcher, self.timeline.elapsed());
        if let Some(download) = &mut self.sites[fetcher].download {
            if is_complete || chunks.is_empty() {
                download.have(number, is_complete, &Ranges::default(), now);
            }
            for chunks in chunks {
                download.have(number, false, chunks, now);
            }
            self.wake(fetcher, POLL_PAUSE);
        }
    }

    fn chunk(&mut self, number: PeerKey, index: u32, is_true: bool) -> Result<(), SimError> {
        let Some(stream) = self.streams.get(&number) else { return Ok(()) };
        let (fetcher, now) = (stream.fetcher, self.timeline.elapsed());
        let bytes = u64::from(self.lengths[index as usize]);
        let Some(download) = &mut self.sites[fetcher].download else { return Ok(()) };
        match download.arrived(number, index, now) {
            Outcome::Needed if is_true => {
                self.needed_bytes += bytes;
                download.stored(index);
                let is_complete = download.is_complete();
                self.stored(fetcher, index);
                if is_complete {
                    self.finish(fetcher);
                    return Ok(());
                }
            }
            Outcome::Needed => {
                self.wasted_bytes += bytes;
                download.refused(number, index);
            }
            Outcome::Duplicate | Outcome::Unasked => self.wasted_bytes += bytes,
        }
        self.wake(fetcher, POLL_PAUSE);
        Ok(())
    }

    fn finish(&mut self, site: usize) {
        self.sites[site].download = None;
        self.sites[site].done_at = Some(self.timeline.now());
        self.unfinished -= 1;
        for number in self.sites[site].asks.clone().into_values() {
            self.close(number);
        }
    }

    // ── Holding ──────────────────────────────────────────────────────────────────────────────────────────────────────

    fn stored(&mut self, site: usize, index: u32) {
        let here = &mut self.sites[site];
        here.stored.push(index);
        if !std::mem::replace(&mut here.has_news, true) {
            self.timeline.after(NEWS_PAUSE, Event::News(site));
        }
    }

    fn tell_news(&mut self, site: usize) {
        self.sites[site].has_news = false;
        for number in self.sites[site].serves.clone() {
            let Some(fetcher) = self.streams.get(&number).map(|stream| stream.fetcher) else { continue };
            let after = self.control_delay(site, fetcher);
            self.tell(number, after);
        }
    }

    /// Says what the fetcher was not told yet.
    fn tell(&mut self, number: PeerKey, after: Micros) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        let holder = &self.sites[stream.holder];
        let is_complete = holder.is_complete();
        let mut news = holder.stored[stream.told..].to_vec();
        stream.told = holder.stored.len();
        news.sort_unstable();
        let chunks = if is_complete { Vec::new() } else { Ranges::pieces(news) };
        let after = self.in_order(number, 1, after);
        self.timeline.after(after, Event::Have { stream: number, is_complete, chunks });
    }

    fn asked(&mut self, number: PeerKey, is_wanted: bool, chunks: &Ranges) -> Result<(), SimError> {
        let Some(stream) = self.streams.get_mut(&number) else { return Ok(()) };
        let end = self.lengths.len() as u32;
        match is_wanted {
            true => stream.queue.want(chunks, end, |_| true).map_err(|error| SimError::Broken(error.to_string()))?,
            false => stream.queue.cancel(chunks),
        }
        match self.sites[stream.holder].character {
            Character::Staller => {}
            Character::Trickler if !std::mem::replace(&mut stream.is_queued, true) => {
                self.timeline.after(TRICKLE, Event::Trickle(number));
            }
            Character::Trickler => {}
            Character::Honest | Character::Liar => self.queue(number),
        }
        Ok(())
    }

    fn trickle(&mut self, number: PeerKey) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        let batch = stream.queue.take(&mut Spread::new(0), false, 1, |_| 1, Duration::ZERO);
        stream.is_queued = !stream.queue.is_empty();
        if stream.is_queued {
            self.timeline.after(TRICKLE, Event::Trickle(number));
        }
        for index in batch.chunks {
            self.timeline.after(1, Event::Chunk { stream: number, index, is_true: true });
        }
    }

    /// Gives a stream its turn on the uplink of its holder.
    fn queue(&mut self, number: PeerKey) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        let has_something = !stream.queue.is_empty() || !stream.batch.is_empty();
        if has_something && !std::mem::replace(&mut stream.is_queued, true) {
            let holder = stream.holder;
            self.sites[holder].turns.push_back(number);
            self.send_next(holder);
        }
    }

    /// Sends the next chunk of whichever stream has its turn.
    fn send_next(&mut self, site: usize) {
        while !self.sites[site].is_sending {
            let Some(number) = self.sites[site].turns.pop_front() else { return };
            let Some(stream) = self.streams.get_mut(&number) else { continue };
            stream.is_queued = false;
            if stream.batch.is_empty() {
                let (here, now) = (&mut self.sites[site], self.timeline.elapsed());
                let is_complete = here.is_complete();
                let length = |index: u32| self.lengths.get(index as usize).copied().unwrap_or(0);
                let Batch { chunks, wait_until } =
                    stream.queue.take(&mut here.spread, is_complete, BATCH_BYTES, length, now);
                stream.batch.extend(chunks);
                if let Some(until) = wait_until {
                    self.timeline.after(until.saturating_sub(now).as_micros() as Micros, Event::Queue(number));
                }
            }
            let Some(index) = stream.batch.pop_front() else { continue };
            let fetcher = stream.fetcher;
            let bytes = u64::from(self.lengths[index as usize]);
            let here = &mut self.sites[site];
            (here.is_sending, here.uploaded) = (true, here.uploaded + bytes);
            let is_true = here.character == Character::Honest;
            let sending = bytes * SECOND / here.rate;
            self.timeline.after(sending, Event::UplinkFree(site));
            let at = self.timeline.now() + sending + self.latency(site, fetcher);
            // The first byte comes while the last is still to be sent; the downlink takes one chunk after the other.
            let there = &mut self.sites[fetcher];
            let begins = there.downlink_free_at.max(at - sending);
            let arrival = at.max(begins + bytes * SECOND / there.rate);
            there.downlink_free_at = arrival;
            self.timeline.after(arrival - self.timeline.now(), Event::Chunk { stream: number, index, is_true });
            self.queue(number);
        }
    }

    /// A stream keeps its order: nothing arrives before what was said before it.
    fn in_order(&mut self, number: PeerKey, direction: usize, after: Micros) -> Micros {
        let now = self.timeline.now();
        let Some(stream) = self.streams.get_mut(&number) else { return after };
        let last = &mut stream.last_word[direction];
        *last = (*last).max(now + after);
        *last - now
    }

    fn latency(&self, a: usize, b: usize) -> Micros {
        let range = &self.crowd.latency;
        let pair = ((a.min(b) as u64) << 32) | a.max(b) as u64;
        let mut random = fastrand::Rng::with_seed(self.crowd.seed ^ pair);
        random.u64(range.start.as_micros() as u64..=range.end.as_micros() as u64)
    }

    fn control_delay(&self, from: usize, to: usize) -> Micros {
        self.latency(from, to) + if self.sites[from].is_sending { QUEUED } else { 0 }
    }

    fn summary(&self) -> CrowdSummary {
        let took = |site: &Site| Some((site.done_at? - site.arrived_at) as f64 / SECOND as f64);
        let mut seconds: Vec<f64> = self.sites.iter().filter_map(took).collect();
        seconds.sort_by(f64::total_cmp);
        let fastest = self.crowd.rates.iter().copied().max().unwrap_or(1);
        let uploaded = self.sites[..self.crowd.holders].iter().map(|site| site.uploaded).max().unwrap_or(0);
        CrowdSummary {
            fetchers: self.crowd.fetchers,
            image_bytes: self.crowd.image_bytes,
            slowest_seconds: seconds.last().copied().unwrap_or(0.0),
            median_seconds: seconds.get(seconds.len() / 2).copied().unwrap_or(0.0),
            ideal_seconds: self.crowd.image_bytes as f64 / fastest as f64,
            seed_copies: uploaded as f64 / self.crowd.image_bytes.max(1) as f64,
            waste_per_mille: self.wasted_bytes * 1000 / self.needed_bytes.max(1),
            lies: self.lies,
            stalled: self.stalled,
            events: self.timeline.happened(),
        }
    }
}
