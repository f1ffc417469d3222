//! Gossip, as flooding: every site passes on what is new to it, to all of its peers.

use std::sync::Arc;

use rialto_protocol::record::Body;
use rialto_protocol::signed::Envelope;

use super::SimError;
use super::records::{EPOCH, Gossip};
use super::site::{Inserted, Known};
use super::timeline::SECOND;
use super::world::{Event, World};

impl World {
    pub(super) fn publish(&mut self, site: usize, signer: usize, message: &Arc<Gossip>) -> Result<(), SimError> {
        self.timeline.note("publish", &[site as u64, signer as u64]);
        let known =
            self.verify(message).ok_or_else(|| SimError::Broken("what was signed does not verify".to_owned()))?;
        // Who publishes a record keeps it, and the signer's others with it. The stranger's site does not mind.
        if signer != self.signers.len() - 1 {
            self.sites[site].keep(self.signers[signer].public);
        }
        self.heard.note(message.hash, site);
        self.insert(site, &known);
        self.flood(site, None, message);
        Ok(())
    }

    /// Sends a message to every peer but the one that it came from.
    fn flood(&mut self, site: usize, from: Option<usize>, message: &Arc<Gossip>) {
        for peer in self.network.peers(site).to_vec() {
            if Some(peer) == from || !self.network.is_connected(site, peer) {
                continue;
            }
            self.summary.gossiped += 1;
            if self.random.u32(..1_000) < self.scenario.loss_per_mille {
                self.summary.lost += 1;
                continue;
            }
            let message = match self.lies(site) {
                true => Gossip::new(self.corrupt(&message.bytes)),
                false => Arc::clone(message),
            };
            let latency = self.network.latency(site, peer, &mut self.random);
            self.timeline.after(latency, Event::Gossip { from: site, to: peer, message });
        }
    }

    pub(super) fn receive_gossip(&mut self, from: usize, to: usize, message: &Arc<Gossip>) {
        if !self.network.is_connected(from, to) || !self.heard.note(message.hash, to) {
            return;
        }
        let Some(known) = self.verify(message) else {
            self.refuse(to, from);
            return;
        };
        self.insert(to, &known);
        self.flood(to, Some(from), message);
    }

    /// The record in some bytes, if they are one. Verification is pure: what came of some bytes at one site comes of them
    /// at every site, so it is done once.
    pub(super) fn verify(&mut self, message: &Gossip) -> Option<Arc<Known>> {
        let verify = || Envelope::decode(&message.bytes).and_then(Envelope::verify).ok();
        self.verified.entry(message.hash).or_insert_with(|| verify().map(Known::new).map(Arc::new)).clone()
    }

    /// Gives a record to a site, which may now want the images of a release.
    pub(super) fn insert(&mut self, site: usize, known: &Arc<Known>) -> Inserted {
        let (outcome, evicted) = self.sites[site].insert(known);
        self.summary.evicted += evicted;
        self.summary.superseded += u64::from(outcome == Inserted::Superseded);
        self.timeline.note("insert", &[site as u64, outcome as u64, evicted]);
        if outcome.is_change() {
            match &known.record.body {
                Body::Release(_) => self.consider(site, known.record.id),
                Body::Endorsement(endorsement) => self.consider(site, endorsement.subject),
                Body::Channel(head) => self.consider(site, head.release),
                // None of these makes a site accept what it did not.
                _ => {}
            }
        }
        outcome
    }

    pub(super) fn refuse(&mut self, site: usize, liar: usize) {
        self.summary.refused += 1;
        self.network.caught(site, liar);
        self.timeline.note("refuse", &[site as u64, liar as u64]);
    }

    /// Fetches the images of a release where the site's policy accepts it: those that the verdict names.
    fn consider(&mut self, site: usize, release: rialto_protocol::ids::RecordId) {
        let here = &self.sites[site];
        let publisher = here.get(&release).and_then(|record| record.body.release()).map(|release| release.publisher);
        // Nothing of a publisher that the policy has no name for is accepted by the policies drawn here.
        if !here.is_honest() || !publisher.is_some_and(|publisher| here.policy().names(&publisher)) {
            return;
        }
        let accepted = here.judge(&release, EPOCH + self.timeline.now() / SECOND).and_then(|v| v.into_accepted());
        for image in accepted.iter().flat_map(|accepted| accepted.images().iter()) {
            self.want(site, *image);
        }
    }
}
