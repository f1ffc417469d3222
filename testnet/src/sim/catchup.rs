//! Catch-up sessions between sites: streams of the messages of `protocol`, each driven to its end or cut off.

use rialto_protocol::sync::{Beginning, Initiator, Message, Progress, Responder, SyncError};

use super::records::Gossip;
use super::site::Inserted;
use super::timeline::{Micros, SECOND};
use super::world::{Event, World};

/// Between two catch-up sessions that a site begins.
pub(super) const SYNC_INTERVAL: Micros = 10 * SECOND;

/// One catch-up session: a stream between two sites.
#[derive(Debug)]
pub(super) struct Session {
    initiator_site: usize,
    responder_site: usize,
    initiator: Initiator,
    responder: Responder,
    /// A stream keeps its order: nothing arrives before what was sent before it.
    last_arrival: [Micros; 2],
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

impl World {
    pub(super) fn begin_session(&mut self, site: usize) {
        let pause = SYNC_INTERVAL + self.random.u64(..SECOND);
        self.timeline.after(pause, Event::Sync { site });
        let peers = self.network.peers(site).iter().copied();
        let reachable: Vec<_> = peers.filter(|peer| self.network.is_connected(site, *peer)).collect();
        if reachable.is_empty() {
            return;
        }
        let peer = reachable[self.random.usize(..reachable.len())];
        let session = Session {
            initiator_site: site,
            responder_site: peer,
            initiator: Initiator::new(self.sites[site].sync_set()),
            responder: Responder::new(self.sites[peer].sync_set()),
            last_arrival: [0; 2],
        };
        let number = self.next_number();
        self.summary.sessions += 1;
        self.timeline.note("session", &[number, site as u64, peer as u64]);
        self.sessions.insert(number, session);
        self.send_sync(number, true);
    }

    /// Sends whatever one side has to say.
    fn send_sync(&mut self, number: u64, by_initiator: bool) {
        let Some(mut session) = self.sessions.remove(&number) else { return };
        let (from, to) = session.direction(by_initiator);
        loop {
            let envelope = |id: &Beginning| self.sites[from].envelope(id);
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
            let latency = self.network.latency(from, to, &mut self.random);
            let is_lost = self.random.u32(..1_000) < self.scenario.loss_per_mille;
            let arrival = self.timeline.now() + if is_lost { 3 * latency } else { latency };
            let last = &mut session.last_arrival[usize::from(by_initiator)];
            *last = arrival.max(*last);
            let after = *last - self.timeline.now();
            self.timeline.after(after, Event::SyncMessage { session: number, to_initiator: !by_initiator, message });
        }
        if !(session.initiator.is_finished() && session.responder.is_finished()) {
            self.sessions.insert(number, session);
        }
    }

    pub(super) fn receive_sync(&mut self, number: u64, to_initiator: bool, message: &[u8]) {
        // Cut off meanwhile, or over.
        let Some(mut session) = self.sessions.remove(&number) else { return };
        let (to, from) = session.direction(to_initiator);
        let site = &self.sites[to];
        let is_wanted = |id: &Beginning| site.is_wanted(id);
        let progress =
            Message::decode(message).map_err(|error| SyncError::Malformed(error.to_string())).and_then(|message| {
                match to_initiator {
                    true => session.initiator.receive(message, is_wanted),
                    false => session.responder.receive(message, is_wanted),
                }
            });
        let is_sound = progress.is_ok_and(|progress| self.take(to, progress));
        self.timeline.note("stream", &[number, u64::from(to_initiator), message.len() as u64, u64::from(is_sound)]);
        if !is_sound {
            self.summary.sessions_cut += 1;
            self.refuse(to, from);
            return;
        }
        self.sessions.insert(number, session);
        self.send_sync(number, to_initiator);
    }

    /// Whether every envelope that came verified.
    fn take(&mut self, site: usize, progress: Progress) -> bool {
        for envelope in progress.envelopes {
            let Some(known) = self.verify(&Gossip::new(envelope)) else { return false };
            if matches!(self.insert(site, &known), Inserted::New | Inserted::Merged) {
                self.summary.caught_up += 1;
            }
        }
        true
    }

    /// Ends the sessions between sites that cannot hear each other any more.
    pub(super) fn cut_sessions(&mut self) {
        let (before, network) = (self.sessions.len(), &self.network);
        self.sessions.retain(|_, session| network.is_connected(session.initiator_site, session.responder_site));
        self.summary.sessions_cut += (before - self.sessions.len()) as u64;
    }
}
