//! Virtual time: events in order, links between sites, and what travels over them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use rialto_protocol::UnixSeconds;
use rialto_protocol::ids::{Hash, PublicKey};
use rialto_protocol::record::Record;
use rialto_protocol::signed::{Envelope, Verified};
use rialto_protocol::sync::{Initiator, Message, Progress, Responder, SyncError};

use super::records::{Ledger, Signer};
use super::site::{Inserted, Site};
use super::{Scenario, SimError, Summary};

/// Virtual time, in microseconds since the beginning.
type Micros = u64;

const SECOND: Micros = 1_000_000;
/// When the simulation begins, for records.
const EPOCH: UnixSeconds = 1_790_000_000;
/// Records are published during this time.
const PUBLISHING: Micros = 120 * SECOND;
/// A partition lasts this long. The last one heals after the last record was published.
const PARTITION: Micros = 45 * SECOND;
/// Between two catch-up sessions that a site begins.
const SYNC_INTERVAL: Micros = 10 * SECOND;
/// How often it is looked whether all have converged, once all is published and healed.
const CHECK_INTERVAL: Micros = 5 * SECOND;
/// Sites that have not converged by now never will.
const DEADLINE: Micros = 1_800 * SECOND;
/// Links of a site, beside the two of the ring that connects the honest ones.
const EXTRA_LINKS: usize = 4;
/// One message in so many of a liar's is a lie.
const LIES_ONE_IN: u32 = 2;

/// Something that happens at a time.
#[derive(Debug)]
enum Event {
    /// A site signs a record (or adds its signature to one) and gossips it.
    Publish { site: usize, number: usize, issuers: Vec<usize>, signer: usize },
    /// A gossiped envelope arrives.
    Gossip { from: usize, to: usize, message: Arc<Vec<u8>> },
    /// A site begins to catch up with one of its peers.
    Sync { site: usize },
    /// A message of a catch-up session arrives.
    Stream { session: u64, to_initiator: bool, message: Vec<u8> },
    /// The federation falls into parts; the site at each place is in the part given.
    Split { parts: Vec<bool> },
    /// It is whole again.
    Heal,
    /// Have all converged?
    Check,
}

/// One catch-up session: a stream between two sites.
#[derive(Debug)]
struct Session {
    initiator_site: usize,
    responder_site: usize,
    initiator: Initiator,
    responder: Responder,
    /// A stream keeps its order: nothing arrives before what was sent before it.
    last_arrival: [Micros; 2],
}

/// The federation.
pub(super) struct World {
    scenario: Scenario,
    random: fastrand::Rng,
    now: Micros,
    /// Ties in time are broken by the order of scheduling.
    events: BinaryHeap<Reverse<(Micros, u64)>>,
    scheduled: BTreeMap<u64, Event>,
    next_event: u64,
    sites: Vec<Site>,
    signers: Vec<Signer>,
    ledger: Ledger,
    latency: BTreeMap<(usize, usize), Micros>,
    parts: Option<Vec<bool>>,
    sessions: BTreeMap<u64, Session>,
    next_session: u64,
    /// Verification is pure: what came of some bytes at one site comes of them at every site.
    verified: BTreeMap<Hash, Option<Arc<Verified<Record>>>>,
    trace: blake3::Hasher,
    summary: Summary,
}

impl World {
    /// Draws sites, links, policies and everything that will be published.
    pub(super) fn new(scenario: &Scenario) -> Result<Self, SimError> {
        let mut random = fastrand::Rng::with_seed(scenario.seed);
        // The last signer is the stranger whom nobody names.
        let signers: Vec<_> = (0..scenario.sites.div_ceil(8).max(2) + 1).map(|_| Signer::new(&mut random)).collect();
        let known = signers.len() - 1;
        let sites: Vec<_> = (0..scenario.sites)
            .map(|place| {
                let is_liar = scenario.one_liar_in > 0 && place % scenario.one_liar_in == scenario.one_liar_in - 1;
                // Each names about two in three of the signers, and certainly one.
                let certain = random.usize(..known);
                let named = (0..known).filter(|signer| *signer == certain || random.u8(..3) > 0);
                Site::new(named.map(|signer| signers[signer].public).collect(), is_liar)
            })
            .collect();
        let summary = Summary {
            sites: sites.len(),
            liars: sites.iter().filter(|site| site.is_liar).count(),
            events: 0,
            virtual_micros: 0,
            published: 0,
            gossiped: 0,
            lost: 0,
            sessions: 0,
            sessions_cut: 0,
            caught_up: 0,
            refused: 0,
            evicted: 0,
            trace: Hash([0; 32]),
        };
        let mut world = Self {
            scenario: scenario.clone(),
            random,
            now: 0,
            events: BinaryHeap::new(),
            scheduled: BTreeMap::new(),
            next_event: 0,
            sites,
            signers,
            ledger: Ledger::default(),
            latency: BTreeMap::new(),
            parts: None,
            sessions: BTreeMap::new(),
            next_session: 0,
            verified: BTreeMap::new(),
            trace: blake3::Hasher::new(),
            summary,
        };
        world.draw_links();
        world.draw_publications();
        world.draw_partitions();
        for site in 0..world.sites.len() {
            let first = world.random.u64(..SYNC_INTERVAL);
            world.schedule(first, Event::Sync { site });
        }
        Ok(world)
    }

    /// Lets it happen, until all have converged.
    pub(super) fn run(mut self) -> Result<Summary, SimError> {
        while let Some(Reverse((time, number))) = self.events.pop() {
            let Some(event) = self.scheduled.remove(&number) else { continue };
            self.now = time;
            self.summary.events += 1;
            if self.happen(event)? {
                break;
            }
        }
        self.check_everything_is_verified()?;
        self.summary.published = self.ledger.len();
        self.summary.virtual_micros = self.now;
        self.summary.trace = Hash(*self.trace.finalize().as_bytes());
        Ok(self.summary)
    }

    /// Whether the simulation has come to its end.
    fn happen(&mut self, event: Event) -> Result<bool, SimError> {
        match event {
            Event::Publish { site, number, issuers, signer } => self.publish(site, number, &issuers, signer)?,
            Event::Gossip { from, to, message } => self.receive_gossip(from, to, &message),
            Event::Sync { site } => self.begin_session(site)?,
            Event::Stream { session, to_initiator, message } => self.receive_stream(session, to_initiator, &message),
            Event::Split { parts } => self.split(parts),
            Event::Heal => self.heal(),
            Event::Check => return self.check_convergence(),
        }
        Ok(false)
    }

    fn schedule(&mut self, after: Micros, event: Event) {
        self.events.push(Reverse((self.now + after, self.next_event)));
        self.scheduled.insert(self.next_event, event);
        self.next_event += 1;
    }

    /// Adds what happened to the trace.
    fn note(&mut self, what: &str, numbers: &[u64]) {
        self.trace.update(&self.now.to_be_bytes());
        self.trace.update(what.as_bytes());
        for number in numbers {
            self.trace.update(&number.to_be_bytes());
        }
    }

    // ── Drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    fn draw_links(&mut self) {
        let honest: Vec<_> = (0..self.sites.len()).filter(|site| !self.sites[*site].is_liar).collect();
        for (place, &site) in honest.iter().enumerate() {
            self.link(site, honest[(place + 1) % honest.len()]);
        }
        for site in 0..self.sites.len() {
            for _ in 0..EXTRA_LINKS {
                let other = self.random.usize(..self.sites.len());
                self.link(site, other);
            }
        }
    }

    fn link(&mut self, a: usize, b: usize) {
        if a == b || self.sites[a].peers.contains(&b) {
            return;
        }
        self.sites[a].peers.push(b);
        self.sites[b].peers.push(a);
        let latency = self.random.u64(2_000..150_000);
        self.latency.insert((a.min(b), a.max(b)), latency);
    }

    fn draw_publications(&mut self) {
        let known = self.signers.len() - 1;
        let honest: Vec<_> = (0..self.sites.len()).filter(|site| !self.sites[*site].is_liar).collect();
        for number in 0..self.scenario.records {
            let signer = self.random.usize(..known);
            let mut issuers = vec![signer];
            // One record in four is co-signed, at another site and time.
            if self.random.u8(..4) == 0 {
                issuers.push((signer + 1) % known);
            }
            for signer in issuers.clone() {
                let (at, site) = (self.random.u64(..PUBLISHING), honest[self.random.usize(..honest.len())]);
                self.schedule(at, Event::Publish { site, number, issuers: issuers.clone(), signer });
            }
        }
        for number in self.scenario.records..self.scenario.records + self.scenario.flood {
            let (at, site) = (self.random.u64(..PUBLISHING), self.random.usize(..self.sites.len()));
            self.schedule(at, Event::Publish { site, number, issuers: vec![known], signer: known });
        }
    }

    fn draw_partitions(&mut self) {
        let mut healed = PUBLISHING;
        for partition in 0..self.scenario.partitions as u64 {
            // They follow each other; the last begins just before publishing ends.
            let last = self.scenario.partitions as u64 - 1 - partition;
            let at = (PUBLISHING - 5 * SECOND).saturating_sub(last * (PARTITION + 5 * SECOND));
            let parts = (0..self.sites.len()).map(|_| self.random.bool()).collect();
            self.schedule(at, Event::Split { parts });
            self.schedule(at + PARTITION, Event::Heal);
            healed = healed.max(at + PARTITION);
        }
        self.schedule(healed, Event::Check);
    }

    // ── Publishing and gossip ────────────────────────────────────────────────────────────────────────────────────────

    fn publish(&mut self, site: usize, number: usize, issuers: &[usize], signer: usize) -> Result<(), SimError> {
        let issuers: Vec<_> = issuers.iter().map(|issuer| &self.signers[*issuer]).collect();
        // Co-signers sign the same payload, so its time is the record's, not the moment's.
        let issued = EPOCH + number as u64 % 60;
        let envelope = self.ledger.sign(number, &issuers, &self.signers[signer], issued)?;
        let message = Arc::new(envelope.encode());
        self.note("publish", &[site as u64, number as u64, signer as u64]);
        let record = self.verify(&message).ok_or_else(|| SimError::Broken("what was signed does not verify".into()))?;
        // Who publishes a record keeps it, and the signer's others with it. The stranger's site does not mind.
        if signer != self.signers.len() - 1 {
            self.sites[site].name(self.signers[signer].public);
        }
        self.sites[site].sees(Hash::of(&message));
        self.insert(site, record);
        self.flood(site, None, &message);
        Ok(())
    }

    /// Sends a message to every peer but the one that it came from.
    fn flood(&mut self, site: usize, from: Option<usize>, message: &Arc<Vec<u8>>) {
        for peer in self.sites[site].peers.clone() {
            if Some(peer) == from || !self.is_connected(site, peer) {
                continue;
            }
            self.summary.gossiped += 1;
            if self.random.u32(..1_000) < self.scenario.loss_per_mille {
                self.summary.lost += 1;
                continue;
            }
            let message = match self.lies(site) {
                true => Arc::new(self.corrupt(message)),
                false => Arc::clone(message),
            };
            let latency = self.latency(site, peer);
            self.schedule(latency, Event::Gossip { from: site, to: peer, message });
        }
    }

    fn receive_gossip(&mut self, from: usize, to: usize, message: &Arc<Vec<u8>>) {
        if !self.is_connected(from, to) || !self.sites[to].sees(Hash::of(message)) {
            return;
        }
        let Some(record) = self.verify(message) else {
            self.refuse(to, from);
            return;
        };
        self.insert(to, record);
        self.flood(to, Some(from), message);
    }

    fn verify(&mut self, bytes: &[u8]) -> Option<Arc<Verified<Record>>> {
        let verified = self.verified.entry(Hash::of(bytes));
        verified.or_insert_with(|| Envelope::decode(bytes).and_then(Envelope::verify).ok().map(Arc::new)).clone()
    }

    fn insert(&mut self, site: usize, record: Arc<Verified<Record>>) -> Inserted {
        let hash = record.sync_id();
        let (outcome, evicted) = self.sites[site].insert(record);
        self.summary.evicted += evicted;
        self.trace.update(&hash.0);
        self.note("insert", &[site as u64, outcome as u64, evicted]);
        outcome
    }

    fn refuse(&mut self, site: usize, liar: usize) {
        self.summary.refused += 1;
        self.sites[site].caught(liar);
        self.note("refuse", &[site as u64, liar as u64]);
    }

    // ── Catch-up ─────────────────────────────────────────────────────────────────────────────────────────────────────

    fn begin_session(&mut self, site: usize) -> Result<(), SimError> {
        let pause = SYNC_INTERVAL + self.random.u64(..SECOND);
        self.schedule(pause, Event::Sync { site });
        let reachable: Vec<_> =
            self.sites[site].peers.iter().copied().filter(|peer| self.is_connected(site, *peer)).collect();
        if reachable.is_empty() {
            return Ok(());
        }
        let peer = reachable[self.random.usize(..reachable.len())];
        let broken = |error: SyncError| SimError::Broken(error.to_string());
        let session = Session {
            initiator_site: site,
            responder_site: peer,
            initiator: Initiator::new(self.sites[site].sync_set()).map_err(broken)?,
            responder: Responder::new(self.sites[peer].sync_set()).map_err(broken)?,
            last_arrival: [0; 2],
        };
        let number = self.next_session;
        self.next_session += 1;
        self.summary.sessions += 1;
        self.note("session", &[number, site as u64, peer as u64]);
        self.sessions.insert(number, session);
        self.send_stream(number, true);
        Ok(())
    }

    /// Sends whatever one side has to say.
    fn send_stream(&mut self, number: u64, by_initiator: bool) {
        let Some(mut session) = self.sessions.remove(&number) else { return };
        let (from, to) = session.direction(by_initiator);
        loop {
            let envelope = |id: &Hash| self.sites[from].envelope(id);
            let next = match by_initiator {
                true => session.initiator.next_message(envelope),
                false => session.responder.next_message(envelope),
            };
            let Some(message) = next else { break };
            let mut message = message.encode();
            if self.lies(from) {
                message = self.corrupt(&message);
            }
            // What is lost on a stream is sent again: it arrives later.
            let latency = self.latency(from, to);
            let is_lost = self.random.u32(..1_000) < self.scenario.loss_per_mille;
            let arrival = self.now + if is_lost { 3 * latency } else { latency };
            let last = &mut session.last_arrival[usize::from(by_initiator)];
            *last = arrival.max(*last);
            let after = *last - self.now;
            self.schedule(after, Event::Stream { session: number, to_initiator: !by_initiator, message });
        }
        if !(session.initiator.is_finished() && session.responder.is_finished()) {
            self.sessions.insert(number, session);
        }
    }

    fn receive_stream(&mut self, number: u64, to_initiator: bool, message: &[u8]) {
        // Cut off meanwhile, or over.
        let Some(mut session) = self.sessions.remove(&number) else { return };
        let (to, from) = session.direction(to_initiator);
        let site = &self.sites[to];
        let is_wanted = |id: &Hash| site.is_wanted(id);
        let progress =
            Message::decode(message).map_err(|error| SyncError::Malformed(error.to_string())).and_then(|message| {
                match to_initiator {
                    true => session.initiator.receive(message, is_wanted),
                    false => session.responder.receive(message, is_wanted),
                }
            });
        let is_sound = progress.is_ok_and(|progress| self.take(to, progress));
        self.note("stream", &[number, u64::from(to_initiator), message.len() as u64, u64::from(is_sound)]);
        if !is_sound {
            self.summary.sessions_cut += 1;
            self.refuse(to, from);
            return;
        }
        self.sessions.insert(number, session);
        self.send_stream(number, to_initiator);
    }

    /// Whether every envelope that came verified.
    fn take(&mut self, site: usize, progress: Progress) -> bool {
        for envelope in progress.envelopes {
            let Some(record) = self.verify(&envelope) else { return false };
            if matches!(self.insert(site, record), Inserted::New | Inserted::Merged) {
                self.summary.caught_up += 1;
            }
        }
        true
    }

    // ── Links ────────────────────────────────────────────────────────────────────────────────────────────────────────

    fn split(&mut self, parts: Vec<bool>) {
        self.note("split", &parts.iter().map(|part| u64::from(*part)).collect::<Vec<_>>());
        let before = self.sessions.len();
        self.sessions.retain(|_, session| parts[session.initiator_site] == parts[session.responder_site]);
        self.summary.sessions_cut += (before - self.sessions.len()) as u64;
        self.parts = Some(parts);
    }

    fn heal(&mut self) {
        self.note("heal", &[]);
        self.parts = None;
    }

    /// Whether two linked sites can hear each other and still want to.
    fn is_connected(&self, a: usize, b: usize) -> bool {
        let is_whole = self.parts.as_ref().is_none_or(|parts| parts[a] == parts[b]);
        is_whole && self.sites[a].trusts(b) && self.sites[b].trusts(a)
    }

    fn latency(&mut self, a: usize, b: usize) -> Micros {
        let base = self.latency.get(&(a.min(b), a.max(b))).copied().unwrap_or(SECOND);
        base + self.random.u64(..=base / 4)
    }

    fn lies(&mut self, site: usize) -> bool {
        self.sites[site].is_liar && self.random.u32(..LIES_ONE_IN) == 0
    }

    fn corrupt(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if !bytes.is_empty() {
            let at = self.random.usize(..bytes.len());
            bytes[at] ^= 1 << self.random.u8(..8);
        }
        bytes
    }

    // ── What must hold ───────────────────────────────────────────────────────────────────────────────────────────────

    fn check_convergence(&mut self) -> Result<bool, SimError> {
        let behind = self.find_behind();
        self.note("check", &[u64::from(behind.is_none())]);
        match behind {
            None => Ok(true),
            Some(error) if self.now > DEADLINE => Err(error),
            Some(_) => {
                self.schedule(CHECK_INTERVAL, Event::Check);
                Ok(false)
            }
        }
    }

    /// A site that lacks something that the sites it is connected with, through sites that name the same signer, hold.
    fn find_behind(&self) -> Option<SimError> {
        let known = &self.signers[..self.signers.len() - 1];
        known.iter().map(|signer| &signer.public).find_map(|signer| {
            let naming: BTreeSet<usize> = (0..self.sites.len())
                .filter(|site| !self.sites[*site].is_liar && self.sites[*site].names(signer))
                .collect();
            self.components(&naming).iter().find_map(|component| self.find_behind_in(component, signer))
        })
    }

    fn find_behind_in(&self, component: &BTreeSet<usize>, signer: &PublicKey) -> Option<SimError> {
        // What any of them holds, with every signature that any of them holds.
        let mut wanted = BTreeMap::<_, BTreeSet<PublicKey>>::new();
        for (id, _) in self.ledger.of(signer) {
            for site in component {
                if let Some(record) = self.sites[*site].get(id).filter(|record| record.is_signed_by(signer)) {
                    wanted.entry(*id).or_default().extend(record.signers());
                }
            }
        }
        let holds = |site: usize| {
            let full = wanted.iter().filter(|(id, signers)| {
                self.sites[site].get(id).is_some_and(|record| record.signers().len() == signers.len())
            });
            full.count()
        };
        component.iter().map(|site| (*site, holds(*site))).find(|(_, held)| *held < wanted.len()).map(|(site, held)| {
            SimError::NotConverged { site, signer: *signer, held, published: wanted.len(), seconds: self.now / SECOND }
        })
    }

    fn components(&self, among: &BTreeSet<usize>) -> Vec<BTreeSet<usize>> {
        let (mut left, mut components) = (among.clone(), Vec::new());
        while let Some(first) = left.pop_first() {
            let (mut component, mut frontier) = (BTreeSet::from([first]), vec![first]);
            while let Some(site) = frontier.pop() {
                for peer in &self.sites[site].peers {
                    if left.contains(peer) && self.is_connected(site, *peer) {
                        left.remove(peer);
                        component.insert(*peer);
                        frontier.push(*peer);
                    }
                }
            }
            components.push(component);
        }
        components
    }

    fn check_everything_is_verified(&self) -> Result<(), SimError> {
        // From the bytes, not from what was remembered of them; once for all sites that hold the same.
        let mut sound = BTreeSet::new();
        for (place, site) in self.sites.iter().enumerate() {
            for record in site.records() {
                let bytes = record.envelope().encode();
                let is_sound = !sound.insert(Hash::of(&bytes))
                    || (Envelope::decode(&bytes).and_then(Envelope::verify).is_ok()
                        && self.ledger.has(&record.id, record.signers()));
                if !is_sound {
                    return Err(SimError::Unverified { site: place });
                }
            }
        }
        Ok(())
    }
}

impl Session {
    /// The site that speaks and the one that listens, or the other way round.
    fn direction(&self, by_initiator: bool) -> (usize, usize) {
        match by_initiator {
            true => (self.initiator_site, self.responder_site),
            false => (self.responder_site, self.initiator_site),
        }
    }
}
