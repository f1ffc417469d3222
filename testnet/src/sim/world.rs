//! The federation: its sites, what is drawn for them in the beginning, and what happens when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::swarm::PeerKey;

use super::catchup::{SYNC_INTERVAL, Session};
use super::content::{Content, Shape};
use super::fetch::Fetch;
use super::heard::Heard;
use super::network::Network;
use super::policies;
use super::records::{Gossip, Ledger, PUBLISHING, Publication, Signer};
use super::site::{Character, Known, Site};
use super::swarm::{Stream, Uplink};
use super::timeline::{Micros, SECOND, Timeline};
use super::upload::Spreads;
use super::{Scenario, SimError, Summary};

/// A partition lasts this long. The last one heals after the last record was published.
const PARTITION: Micros = 45 * SECOND;
/// When the crowd comes.
const CROWD_AT: Micros = 20 * SECOND;
/// Sites that go by one policy file, on average.
const SITES_PER_POLICY: usize = 5;
/// One message in so many of a liar's is a lie.
const LIES_ONE_IN: u32 = 2;
/// Data of the images that releases name, in bytes.
const IMAGE_BYTES: std::ops::Range<usize> = 400_000..1_000_000;

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    /// A site publishes what was signed, and gossips it.
    Publish { site: usize, signer: usize, message: Arc<Gossip> },
    /// A gossiped envelope arrives.
    Gossip { from: usize, to: usize, message: Arc<Gossip> },
    /// A site begins to catch up with one of its peers.
    Sync { site: usize },
    /// A message of a catch-up session arrives.
    SyncMessage { session: u64, to_initiator: bool, message: Vec<u8> },
    /// An operator asks for an image.
    Want { site: usize, image: ImageId },
    /// A fetch looks at what to do.
    Fetch { site: usize, image: ImageId },
    /// A frame of a swarm stream arrives.
    Frame { stream: PeerKey, to_holder: bool, frame: Vec<u8> },
    /// A holder looks whether it can say by now what it has.
    Greet { stream: PeerKey, tries: u32 },
    /// A stream may have something to send that was held back.
    Queue { stream: PeerKey },
    /// A site's uplink has sent what it was sending.
    UplinkFree { site: usize },
    /// A site tells of the chunks that it has stored.
    News { site: usize, image: ImageId },
    /// The federation falls into parts; the site at each place is in the part given.
    Split { parts: Vec<bool> },
    /// It is whole again.
    Heal,
    /// Does everything hold that should?
    Check,
}

/// The federation.
pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) random: fastrand::Rng,
    pub(super) timeline: Timeline<Event>,
    pub(super) network: Network,
    pub(super) sites: Vec<Site>,
    /// The last one is the stranger whom nobody names.
    pub(super) signers: Vec<Signer>,
    pub(super) ledger: Ledger,
    /// Who heard which gossip.
    pub(super) heard: Heard,
    /// What came of bytes that were verified, at whatever site.
    pub(super) verified: BTreeMap<Hash, Option<Arc<Known>>>,
    pub(super) sessions: BTreeMap<u64, Session>,
    pub(super) contents: BTreeMap<ImageId, Content>,
    /// Who had each image in the beginning.
    pub(super) seeds: BTreeMap<ImageId, usize>,
    /// The image that many want at once, and who they are.
    pub(super) crowd: Option<(ImageId, Vec<usize>)>,
    /// Who can be found to have an image, as provider records tell.
    pub(super) providers: BTreeMap<ImageId, BTreeSet<usize>>,
    pub(super) known_manifests: BTreeSet<(usize, ImageId)>,
    pub(super) fetches: BTreeMap<(usize, ImageId), Fetch>,
    pub(super) streams: BTreeMap<PeerKey, Stream>,
    /// The streams on which a site is asked for an image.
    pub(super) uploads: BTreeMap<(usize, ImageId), BTreeSet<PeerKey>>,
    /// What was sent on them.
    pub(super) spreads: Spreads,
    pub(super) uplinks: Vec<Uplink>,
    /// Bytes of pages and chunks that each site sent of each image.
    pub(super) uploaded: BTreeMap<(usize, ImageId), u64>,
    /// Chunks stored of which fetchers were not told yet.
    pub(super) news: BTreeMap<(usize, ImageId), BTreeSet<u32>>,
    next_number: u64,
    pub(super) summary: Summary,
}

impl World {
    /// Draws sites, links, policies, images and everything that will be published.
    pub(super) fn new(scenario: &Scenario) -> Result<Self, SimError> {
        let mut random = fastrand::Rng::with_seed(scenario.seed);
        let signers: Vec<_> = (0..scenario.sites.div_ceil(8).max(2) + 1).map(|_| Signer::new(&mut random)).collect();
        let known: Vec<_> = signers[..signers.len() - 1].iter().map(|signer| signer.public).collect();
        let policies = (0..scenario.sites.div_ceil(SITES_PER_POLICY))
            .map(|_| policies::draw(&known, &mut random))
            .collect::<Result<Vec<_>, _>>()?;
        let sites: Vec<_> = (0..scenario.sites)
            .map(|place| {
                let number = random.usize(..policies.len());
                Site::new(number, Arc::clone(&policies[number]), character(scenario, place))
            })
            .collect();
        let count = |fits: fn(&Site) -> bool| sites.iter().filter(|site| fits(site)).count();
        let summary = Summary {
            sites: sites.len(),
            liars: count(Site::is_liar),
            stallers: count(|site| !site.is_liar() && !site.is_honest()),
            ..Summary::default()
        };
        let mut world = Self {
            scenario: scenario.clone(),
            timeline: Timeline::new(),
            network: Network::new(sites.len(), &mut random),
            random,
            uplinks: sites.iter().map(|_| Uplink::default()).collect(),
            sites,
            signers,
            ledger: Ledger::default(),
            heard: Heard::default(),
            verified: BTreeMap::new(),
            sessions: BTreeMap::new(),
            contents: BTreeMap::new(),
            seeds: BTreeMap::new(),
            crowd: None,
            providers: BTreeMap::new(),
            known_manifests: BTreeSet::new(),
            fetches: BTreeMap::new(),
            streams: BTreeMap::new(),
            uploads: BTreeMap::new(),
            spreads: Spreads::new(),
            uploaded: BTreeMap::new(),
            news: BTreeMap::new(),
            next_number: 0,
            summary,
        };
        let honest = world.honest();
        world.network.draw_links(&honest, &mut world.random);
        let images = world.draw_images()?;
        world.draw_crowd()?;
        world.draw_publications(&images)?;
        world.draw_partitions();
        for site in 0..world.sites.len() {
            let first = world.random.u64(..SYNC_INTERVAL);
            world.timeline.after(first, Event::Sync { site });
        }
        Ok(world)
    }

    /// Lets it happen, until everything holds that should.
    pub(super) fn run(mut self) -> Result<Summary, SimError> {
        while let Some(event) = self.timeline.next() {
            if self.happen(event)? {
                break;
            }
        }
        self.check_the_end()?;
        self.summary.published = self.ledger.len();
        self.summary.events = self.timeline.happened();
        self.summary.virtual_micros = self.timeline.now();
        self.summary.trace = self.timeline.trace();
        Ok(self.summary)
    }

    /// Whether the simulation has come to its end.
    fn happen(&mut self, event: Event) -> Result<bool, SimError> {
        match event {
            Event::Publish { site, signer, message } => self.publish(site, signer, &message)?,
            Event::Gossip { from, to, message } => self.receive_gossip(from, to, &message),
            Event::Sync { site } => self.begin_session(site),
            Event::SyncMessage { session, to_initiator, message } => self.receive_sync(session, to_initiator, &message),
            Event::Want { site, image } => self.want(site, image),
            Event::Fetch { site, image } => self.wake_fetch(site, image)?,
            Event::Frame { stream, to_holder: true, frame } => self.receive_at_holder(stream, &frame)?,
            Event::Frame { stream, to_holder: false, frame } => self.receive_at_fetcher(stream, &frame)?,
            Event::Greet { stream, tries } => self.greet(stream, tries)?,
            Event::Queue { stream } => self.queue(stream),
            Event::UplinkFree { site } => self.uplink_free(site),
            Event::News { site, image } => self.tell_news(site, image)?,
            Event::Split { parts } => self.split(parts),
            Event::Heal => self.heal(),
            Event::Check => return self.check(),
        }
        Ok(false)
    }

    /// A number that no session or stream had before.
    pub(super) fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(super) fn lies(&mut self, site: usize) -> bool {
        self.sites[site].is_liar() && self.random.u32(..LIES_ONE_IN) == 0
    }

    pub(super) fn corrupt(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if !bytes.is_empty() {
            let at = self.random.usize(..bytes.len());
            bytes[at] ^= 1 << self.random.u8(..8);
        }
        bytes
    }

    fn split(&mut self, parts: Vec<bool>) {
        self.timeline.note("split", &parts.iter().map(|part| u64::from(*part)).collect::<Vec<_>>());
        self.network.split(parts);
        self.cut_sessions();
        self.break_streams();
    }

    fn heal(&mut self) {
        self.timeline.note("heal", &[]);
        self.network.heal();
    }

    // ── Drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    fn honest(&self) -> Vec<usize> {
        (0..self.sites.len()).filter(|site| self.sites[*site].is_honest()).collect()
    }

    /// Draws the images that releases will name; each is at one site in the beginning, and some of it at others.
    fn draw_images(&mut self) -> Result<Vec<ImageId>, SimError> {
        let honest = self.honest();
        let mut images = Vec::new();
        for number in 0..self.scenario.images {
            let shape = match number {
                0 => Shape::Sparse,
                _ => Shape::Dense(self.random.usize(IMAGE_BYTES)),
            };
            let content = Content::draw(shape, &mut self.random)?;
            for &site in &honest {
                if self.random.u8(..6) == 0 {
                    self.sites[site].store.add_some(&content, || self.random.bool());
                }
            }
            images.push(content.id());
            let seed = honest[self.random.usize(..honest.len())];
            self.seed(content, seed);
        }
        Ok(images)
    }

    fn seed(&mut self, content: Content, site: usize) {
        let image = content.id();
        self.sites[site].store.add(&content);
        self.known_manifests.insert((site, image));
        self.providers.insert(image, BTreeSet::from([site]));
        self.seeds.insert(image, site);
        self.contents.insert(image, content);
    }

    /// Draws a crowd that will want one image at the same moment, from a single holder. They know each other.
    fn draw_crowd(&mut self) -> Result<(), SimError> {
        let mut honest = self.honest();
        self.random.shuffle(&mut honest);
        honest.truncate(self.scenario.crowd + 1);
        let Some((&seed, crowd)) = honest.split_first().filter(|_| self.scenario.crowd > 0) else { return Ok(()) };
        let content = Content::draw(Shape::Dense(self.scenario.crowd_image_bytes), &mut self.random)?;
        let image = content.id();
        self.seed(content, seed);
        for &site in &honest {
            honest.iter().for_each(|other| self.network.link(site, *other));
        }
        for &site in crowd {
            self.timeline.after(CROWD_AT, Event::Want { site, image });
        }
        self.crowd = Some((image, crowd.to_vec()));
        Ok(())
    }

    fn draw_publications(&mut self, images: &[ImageId]) -> Result<(), SimError> {
        let (honest, records, flood) = (self.honest(), self.scenario.records, self.scenario.flood);
        let stranger = self.signers.len() - 1;
        let publications = self.ledger.draw(&self.signers, records, flood, images, &mut self.random)?;
        for Publication { at, signer, message } in publications {
            let site = match signer == stranger {
                true => self.random.usize(..self.sites.len()),
                false => honest[self.random.usize(..honest.len())],
            };
            self.timeline.after(at, Event::Publish { site, signer, message });
        }
        Ok(())
    }

    fn draw_partitions(&mut self) {
        let mut healed = PUBLISHING;
        for partition in 0..self.scenario.partitions as u64 {
            // They follow each other; the last begins just before publishing ends.
            let last = self.scenario.partitions as u64 - 1 - partition;
            let at = (PUBLISHING - 5 * SECOND).saturating_sub(last * (PARTITION + 5 * SECOND));
            let parts = (0..self.sites.len()).map(|_| self.random.bool()).collect();
            self.timeline.after(at, Event::Split { parts });
            self.timeline.after(at + PARTITION, Event::Heal);
            healed = healed.max(at + PARTITION);
        }
        self.timeline.after(healed, Event::Check);
    }
}

fn character(scenario: &Scenario, place: usize) -> Character {
    let is_one_in = |one_in: usize, offset: usize| one_in > 0 && place % one_in == one_in - offset;
    match scenario {
        _ if is_one_in(scenario.one_liar_in, 1) => Character::Liar,
        _ if is_one_in(scenario.one_staller_in, 2) && (place / scenario.one_staller_in).is_multiple_of(2) => {
            Character::Mute
        }
        _ if is_one_in(scenario.one_staller_in, 2) => Character::Silent,
        _ => Character::Honest,
    }
}
