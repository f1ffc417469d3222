//! The federation under siege: who is where, and what happens when.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rialto_node::trust::Reading;
use rialto_protocol::UnixSeconds;
use rialto_protocol::channel::ChannelName;
use rialto_protocol::ids::{Hash, PublicKey};
use rialto_protocol::record::Body;
use rialto_protocol::signed::Envelope;
use rialto_protocol::sync::{Initiator, Message, Progress, Responder};

use super::super::heard::Heard;
use super::super::network::Network;
use super::super::policies;
use super::super::records::{EPOCH, Gossip};
use super::super::site::{Inserted, Known};
use super::super::timeline::{Micros, SECOND, Timeline};
use super::draw::{Drawing, public};
use super::plan::{side, trusting};
use super::site::{Besieged, Fault, Side};
use super::truth::Truth;
use super::{Siege, SiegeError, SiegeSummary, Weakness};

/// Between two catch-up sessions that a site begins.
pub(super) const SYNC_INTERVAL: Micros = 20 * SECOND;
/// Between two looks of an observer at a site.
pub(super) const LOOK_INTERVAL: Micros = 10 * SECOND;
/// Between two times that a replayer says again what was said.
const REPLAY_INTERVAL: Micros = 10 * SECOND;
/// Messages that it says again then.
const REPLAYED: usize = 8;
/// A partition lasts this long.
pub(super) const PARTITION: Micros = 40 * SECOND;
/// How long a clock is wrong before somebody sees to it.
const UNMENDED: Micros = 30 * SECOND;
/// Sites that go by one policy file, on average; and files, at most.
const SITES_PER_POLICY: usize = 5;
const MAX_POLICIES: usize = 40;

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    Say { site: usize, message: Arc<Gossip>, to_one: bool },
    Gossip { from: usize, to: usize, message: Arc<Gossip> },
    Sync(usize),
    Look(usize),
    Replay(usize),
    Crash(usize),
    Fail(usize, Fault),
    Mend(usize),
    Split(Vec<bool>),
    Heal,
    Check,
}

pub(super) struct World {
    pub(super) siege: Siege,
    pub(super) random: fastrand::Rng,
    pub(super) timeline: Timeline<Event>,
    pub(super) network: Network,
    pub(super) sites: Vec<Besieged>,
    pub(super) truth: Truth,
    /// For each signer, the largest group of honest sites that keep its records and are linked through such sites.
    pub(super) main: BTreeMap<PublicKey, BTreeSet<usize>>,
    heard: Heard,
    verified: HashMap<Hash, Option<Arc<Known>>>,
    /// What was said so far, as the replayer remembers it.
    said: Vec<Arc<Gossip>>,
    pub(super) summary: SiegeSummary,
}

impl World {
    pub(super) fn new(siege: &Siege) -> Result<Self, SiegeError> {
        let mut random = fastrand::Rng::with_seed(siege.seed);
        let mut drawing_random = random.fork();
        let drawing = Drawing::new(siege.signers, &mut drawing_random);
        let signers: Vec<PublicKey> = drawing.signers.iter().map(public).collect();
        let mallory = public(&drawing.mallory);
        let policies = (0..siege.sites.div_ceil(SITES_PER_POLICY).min(MAX_POLICIES))
            .map(|_| policies::draw(&signers, &mut random).map_err(|error| SiegeError::Broken(error.to_string())))
            .collect::<Result<Vec<_>, _>>()?;
        let practised = policies
            .iter()
            .map(|policy| match siege.weakness {
                Weakness::TrustsForger => trusting(policy, &mallory),
                _ => Ok(Arc::clone(policy)),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let sites: Vec<Besieged> = (0..siege.sites)
            .map(|place| {
                let number = random.usize(..policies.len());
                Besieged::new(side(siege, place), number, Arc::clone(&policies[number]), Arc::clone(&practised[number]))
            })
            .collect();
        let hostile = sites.iter().filter(|site| !site.is_honest()).count();
        let flooders = sites.iter().filter(|site| site.side == Side::Flooder).count();
        // However many floods there are, what matters is that they are more than a site keeps.
        let said = drawing.draw(siege.opinions, flooders.min(8), siege.flood)?;
        let summary = SiegeSummary {
            sites: sites.len(),
            hostile,
            events: 0,
            virtual_seconds: 0,
            published: said.len() as u64,
            gossiped: 0,
            sessions: 0,
            caught_up: 0,
            refused: 0,
            evicted: 0,
            superseded: 0,
            rollbacks_refused: 0,
            crashes: 0,
            bad_clocks: 0,
            doubts: 0,
            judges: 0,
            apart: 0,
            verdicts: 0,
            accepted: 0,
            trace: Hash([0; 32]),
        };
        let mut world = Self {
            siege: siege.clone(),
            timeline: Timeline::new(),
            network: Network::new(sites.len(), &mut random),
            random,
            sites,
            truth: Truth::default(),
            main: BTreeMap::new(),
            heard: Heard::default(),
            verified: HashMap::new(),
            said: Vec::new(),
            summary,
        };
        let honest = world.honest();
        world.network.draw_links(&honest, &mut world.random);
        world.find_main(&signers);
        world.plan(said, &signers)?;
        world.plan_trouble();
        Ok(world)
    }

    pub(super) fn run(mut self) -> Result<SiegeSummary, SiegeError> {
        while let Some(event) = self.timeline.next() {
            if self.happen(event)? {
                break;
            }
        }
        self.check_records()?;
        self.summary.events = self.timeline.happened();
        self.summary.virtual_seconds = self.timeline.now() / SECOND;
        self.summary.trace = self.timeline.trace();
        Ok(self.summary)
    }

    fn happen(&mut self, event: Event) -> Result<bool, SiegeError> {
        match event {
            Event::Say { site, message, to_one } => self.say(site, &message, to_one)?,
            Event::Gossip { from, to, message } => self.hear(from, to, &message)?,
            Event::Sync(site) => self.catch_up(site)?,
            Event::Look(site) => self.look(site)?,
            Event::Replay(site) => self.replay(site),
            Event::Crash(site) => self.crash(site),
            Event::Fail(site, fault) => self.fail(site, fault),
            Event::Mend(site) => {
                let (truth, elapsed) = (self.now(), self.timeline.elapsed());
                self.sites[site].time.mend(truth, elapsed);
            }
            Event::Split(parts) => self.network.split(parts),
            Event::Heal => self.network.heal(),
            Event::Check => return self.check(),
        }
        Ok(false)
    }

    /// The true time.
    pub(super) fn now(&self) -> UnixSeconds {
        EPOCH + self.timeline.now() / SECOND
    }

    /// The time that a site goes by.
    pub(super) fn reading(&mut self, site: usize) -> Result<Reading, SiegeError> {
        let (truth, elapsed) = (self.now(), self.timeline.elapsed());
        let here = &mut self.sites[site];
        let reading = match self.siege.weakness {
            Weakness::BelievesClock if here.is_honest() => here.time.believe(truth),
            _ => here.time.read(truth, elapsed),
        };
        self.check_time(site, reading)?;
        Ok(reading)
    }

    // ── Gossip ───────────────────────────────────────────────────────────────────────────────────────────────────────

    fn say(&mut self, site: usize, message: &Arc<Gossip>, to_one: bool) -> Result<(), SiegeError> {
        self.said.push(Arc::clone(message));
        if to_one {
            let peers = self.network.peers(site).to_vec();
            if let Some(&peer) = self.random.choice(&peers) {
                self.send(site, peer, message);
            }
            return Ok(());
        }
        let known = self.verify(message);
        self.heard.note(message.hash, site);
        if let Some(known) = known {
            self.insert(site, &known)?;
        }
        self.pass_on(site, None, message);
        Ok(())
    }

    fn hear(&mut self, from: usize, to: usize, message: &Arc<Gossip>) -> Result<(), SiegeError> {
        if !self.network.is_connected(from, to) || !self.heard.note(message.hash, to) {
            return Ok(());
        }
        let Some(known) = self.verify(message) else { return self.refuse(to, from) };
        let outcome = self.insert(to, &known)?;
        // What is stale is not passed on.
        if !matches!(outcome, Inserted::Duplicate | Inserted::Superseded) {
            self.pass_on(to, Some(from), message);
        }
        Ok(())
    }

    fn pass_on(&mut self, site: usize, from: Option<usize>, message: &Arc<Gossip>) {
        let is_ours = from.is_none();
        match self.sites[site].side {
            Side::Withholder if !is_ours => return,
            Side::Forger if !is_ours && self.random.bool() => {
                let at = self.random.usize(..message.bytes.len());
                let mut bytes = message.bytes.clone();
                bytes[at] ^= 1 << self.random.u8(..8);
                let forged = Gossip::new(bytes);
                return self.send_to_all(site, from, &forged);
            }
            _ => {}
        }
        self.send_to_all(site, from, message);
    }

    fn send_to_all(&mut self, site: usize, from: Option<usize>, message: &Arc<Gossip>) {
        let is_split = self.sites[site].side == Side::Partitioner;
        if is_split && from.is_some_and(|from| half(from) != half(site)) {
            return;
        }
        for peer in self.heard.lacking(&message.hash, self.network.peers(site)) {
            if Some(peer) != from && (!is_split || half(peer) == half(site)) {
                self.send(site, peer, message);
            }
        }
    }

    fn send(&mut self, site: usize, peer: usize, message: &Arc<Gossip>) {
        if !self.network.is_connected(site, peer) {
            return;
        }
        self.summary.gossiped += 1;
        if self.random.u32(..1_000) < self.siege.loss_per_mille {
            return;
        }
        let latency = self.network.latency(site, peer, &mut self.random);
        self.timeline.after(latency, Event::Gossip { from: site, to: peer, message: Arc::clone(message) });
    }

    fn replay(&mut self, site: usize) {
        self.timeline.after(REPLAY_INTERVAL, Event::Replay(site));
        for _ in 0..REPLAYED.min(self.said.len()) {
            let message = Arc::clone(&self.said[self.random.usize(..self.said.len())]);
            for peer in self.network.peers(site).to_vec() {
                self.send(site, peer, &message);
            }
        }
    }

    pub(super) fn verify(&mut self, message: &Gossip) -> Option<Arc<Known>> {
        let verify = || Envelope::decode(&message.bytes).and_then(Envelope::verify).ok();
        self.verified.entry(message.hash).or_insert_with(|| verify().map(Known::new).map(Arc::new)).clone()
    }

    fn refuse(&mut self, site: usize, from: usize) -> Result<(), SiegeError> {
        // What a forger makes of an answer to its own forgery is nobody's fault.
        if !self.sites[site].is_honest() {
            return Ok(());
        }
        self.summary.refused += 1;
        self.network.caught(site, from);
        match self.sites[from].side {
            Side::Honest => Err(SiegeError::Broken(format!("site {from} is honest, and was caught forging"))),
            _ => Ok(()),
        }
    }

    /// Gives a record to a site, and looks where a channel that it moved leads now.
    fn insert(&mut self, site: usize, known: &Arc<Known>) -> Result<Inserted, SiegeError> {
        if self.siege.weakness == Weakness::DropsRevocations && matches!(known.record.body, Body::Revocation(_)) {
            return Ok(Inserted::New);
        }
        let (outcome, evicted) = self.sites[site].site.insert(known);
        self.summary.evicted += evicted;
        self.summary.superseded += u64::from(outcome == Inserted::Superseded);
        self.timeline.note("insert", &[site as u64, outcome as u64]);
        if outcome.is_change() && self.sites[site].is_honest() {
            match &known.record.body {
                Body::Channel(head) => self.follow(site, &head.into())?,
                Body::Delegation(delegation) => {
                    for channel in self.sites[site].site.channels_by(delegation.publisher()) {
                        self.follow(site, &channel)?;
                    }
                }
                _ => {}
            }
        }
        Ok(outcome)
    }

    /// Follows a channel as a site does that may boot what it leads to, and remembers where it led.
    fn follow(&mut self, site: usize, channel: &ChannelName) -> Result<(), SiegeError> {
        let reading = self.reading(site)?;
        let (place, is_rolled_back) = self.sites[site].site.leads_from(channel, reading.now);
        self.summary.rollbacks_refused += u64::from(is_rolled_back);
        let Some(place) = place else { return Ok(()) };
        let before = self.sites[site].led_from.entry(channel.clone()).or_insert(place);
        if place < *before {
            return Err(SiegeError::RolledBack { site, before: before.to_string(), now: place.to_string() });
        }
        *before = place;
        Ok(())
    }

    // ── Catch-up ─────────────────────────────────────────────────────────────────────────────────────────────────────

    fn catch_up(&mut self, site: usize) -> Result<(), SiegeError> {
        let pause = SYNC_INTERVAL + self.random.u64(..SECOND);
        self.timeline.after(pause, Event::Sync(site));
        let peers = self.network.peers(site).iter().copied();
        let reachable: Vec<usize> = peers.filter(|peer| self.network.is_connected(site, *peer)).collect();
        let Some(&peer) = self.random.choice(&reachable) else { return Ok(()) };
        self.summary.sessions += 1;
        let sides = [self.sites[site].side, self.sites[peer].side];
        let is_split = sides.contains(&Side::Partitioner) && half(site) != half(peer);
        // Who withholds says that it has the same: there is nothing to exchange.
        if sides.contains(&Side::Withholder) || is_split {
            return Ok(());
        }
        self.exchange(site, peer)
    }

    /// A whole session. It is short against the time between two, so it happens at once.
    fn exchange(&mut self, opener: usize, answerer: usize) -> Result<(), SiegeError> {
        let mut initiator = Initiator::new(self.sites[opener].site.sync_set());
        let mut responder = Responder::new(self.sites[answerer].site.sync_set());
        loop {
            let mut is_over = true;
            while let Some(message) = initiator.next_message(|id| self.sites[opener].site.envelope(id)) {
                is_over = false;
                let message = self.tampered(opener, message);
                let site = &self.sites[answerer].site;
                let heard = message.and_then(|message| responder.receive(message, |id| site.is_wanted(id)).ok());
                if !self.take(answerer, heard)? {
                    return self.refuse(answerer, opener);
                }
            }
            while let Some(message) = responder.next_message(|id| self.sites[answerer].site.envelope(id)) {
                is_over = false;
                let message = self.tampered(answerer, message);
                let site = &self.sites[opener].site;
                let heard = message.and_then(|message| initiator.receive(message, |id| site.is_wanted(id)).ok());
                if !self.take(opener, heard)? {
                    return self.refuse(opener, answerer);
                }
            }
            if is_over {
                return Ok(());
            }
        }
    }

    /// A message as it arrives; `None` where it cannot be read.
    fn tampered(&mut self, from: usize, message: Message) -> Option<Message> {
        if self.sites[from].side != Side::Forger || self.random.bool() {
            return Some(message);
        }
        let mut bytes = message.encode();
        let at = self.random.usize(..bytes.len());
        bytes[at] ^= 1 << self.random.u8(..8);
        Message::decode(&bytes).ok()
    }

    /// Whether all that came was sound.
    fn take(&mut self, site: usize, heard: Option<Progress>) -> Result<bool, SiegeError> {
        let Some(heard) = heard else { return Ok(false) };
        for envelope in heard.envelopes {
            let Some(known) = self.verify(&Gossip::new(envelope)) else { return Ok(false) };
            let outcome = self.insert(site, &known)?;
            self.summary.caught_up += u64::from(outcome.is_change());
        }
        Ok(true)
    }

    // ── Trouble ──────────────────────────────────────────────────────────────────────────────────────────────────────

    fn look(&mut self, site: usize) -> Result<(), SiegeError> {
        self.timeline.after(LOOK_INTERVAL, Event::Look(site));
        let reading = self.reading(site)?;
        self.summary.doubts += u64::from(reading.doubt.is_some());
        Ok(())
    }

    /// A site loses its catalog and is started again; who has waited for that tells it old news.
    fn crash(&mut self, site: usize) {
        self.summary.crashes += 1;
        let elapsed = self.timeline.elapsed();
        self.sites[site].site.forget();
        self.heard.forget(site);
        if self.siege.weakness == Weakness::ForgetsFloors {
            self.sites[site].site.forget_floors();
        }
        self.sites[site].time.restart(elapsed);
        self.timeline.note("crash", &[site as u64]);
        for peer in self.network.peers(site).to_vec() {
            if self.sites[peer].side != Side::Replayer {
                continue;
            }
            // The oldest first: releases, delegations, then the first heads.
            for index in 0..self.said.len() / 2 {
                let message = Arc::clone(&self.said[index]);
                self.send(peer, site, &message);
            }
        }
    }

    fn fail(&mut self, site: usize, fault: Fault) {
        self.summary.bad_clocks += 1;
        let (truth, elapsed) = (self.now(), self.timeline.elapsed());
        let here = &mut self.sites[site].time;
        // The last time that it wrote down.
        here.read(truth, elapsed);
        here.fail(fault, truth, elapsed);
        self.timeline.after(UNMENDED, Event::Mend(site));
    }
}

/// Which half of the federation a site is in, as partitioners have it.
fn half(site: usize) -> bool {
    site.is_multiple_of(2)
}
