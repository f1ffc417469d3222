//! How a federation under siege is laid out: links, what is said where, and what goes wrong when.

use std::collections::BTreeSet;
use std::sync::Arc;

use rialto_node::keys::to_openssh;
use rialto_node::trust::Policy;
use rialto_protocol::ids::PublicKey;

use super::super::records::EPOCH;
use super::super::timeline::{Micros, SECOND};
use super::draw::{PUBLISHED_BY, Place, Said};
use super::site::{Fault, Side};
use super::world::{Event, LOOK_INTERVAL, PARTITION, SYNC_INTERVAL, World};
use super::{Siege, SiegeError};

/// When it is looked for the first time whether all verdicts are true: all is published, healed and mended.
const FIRST_CHECK: Micros = PUBLISHED_BY + PARTITION;

impl World {
    pub(super) fn honest(&self) -> Vec<usize> {
        (0..self.sites.len()).filter(|site| self.sites[*site].is_honest()).collect()
    }

    pub(super) fn find_main(&mut self, signers: &[PublicKey]) {
        for signer in signers {
            let keeps = |site: &usize| self.sites[*site].is_honest() && self.sites[*site].policy.names(signer);
            let groups = self.network.components(&(0..self.sites.len()).filter(keeps).collect());
            self.main.insert(*signer, groups.into_iter().max_by_key(BTreeSet::len).unwrap_or_default());
        }
    }

    pub(super) fn plan(&mut self, said: Vec<Said>, signers: &[PublicKey]) -> Result<(), SiegeError> {
        for Said { at, place, message, is_true } in said {
            if is_true {
                let known = self
                    .verify(&message)
                    .ok_or_else(|| SiegeError::Broken("what was signed does not verify".to_owned()))?;
                self.truth.note(&known.record);
            }
            let of = |side: Side| -> Vec<usize> {
                (0..self.sites.len()).filter(|site| self.sites[*site].side == side).collect()
            };
            let mut places = match place {
                Place::Of(signer) => self.main[&signers[signer]].iter().copied().collect(),
                Place::Forger => of(Side::Forger),
                Place::Flooder => of(Side::Flooder),
                Place::Equivocator => of(Side::Equivocator),
            };
            if places.is_empty() && matches!(place, Place::Of(_)) {
                // No policy names it: it speaks all the same.
                places = self.honest();
            }
            if let Some(&site) = self.random.choice(&places) {
                let to_one = place == Place::Equivocator;
                self.timeline.after(at, Event::Say { site, message, to_one });
            }
        }
        Ok(())
    }

    pub(super) fn plan_trouble(&mut self) {
        for site in 0..self.sites.len() {
            // Nobody's first time of all is doubted.
            self.sites[site].time.read(EPOCH, std::time::Duration::ZERO);
            let [sync, look] = [SYNC_INTERVAL, LOOK_INTERVAL].map(|within| self.random.u64(..within));
            self.timeline.after(sync, Event::Sync(site));
            if self.sites[site].is_honest() {
                self.timeline.after(look, Event::Look(site));
            }
            if self.sites[site].side == Side::Replayer {
                self.timeline.after(look, Event::Replay(site));
            }
        }
        let mut honest = self.honest();
        self.random.shuffle(&mut honest);
        // Those first whose peers wait for it.
        let is_waited_for =
            |site: &usize| self.network.peers(*site).iter().any(|peer| self.sites[*peer].side == Side::Replayer);
        honest.sort_by_key(|site| !is_waited_for(site));
        let count = |one_in: usize| honest.len().checked_div(one_in).unwrap_or(0);
        let (crashes, clocks) = (count(self.siege.one_crash_in), count(self.siege.one_bad_clock_in));
        for &site in &honest[..crashes] {
            let at = self.random.u64(60 * SECOND..PUBLISHED_BY);
            self.timeline.after(at, Event::Crash(site));
        }
        for (number, &site) in honest.iter().rev().take(clocks).enumerate() {
            let at = self.random.u64(20 * SECOND..PUBLISHED_BY);
            self.timeline.after(at, Event::Fail(site, Fault::ALL[number % Fault::ALL.len()]));
        }
        for partition in 0..self.siege.partitions as u64 {
            let parts = (0..self.sites.len()).map(|_| self.random.bool()).collect();
            let at = 20 * SECOND + partition * (PARTITION + 5 * SECOND);
            self.timeline.after(at, Event::Split(parts));
            self.timeline.after(at + PARTITION, Event::Heal);
        }
        self.timeline.after(FIRST_CHECK, Event::Check);
    }
}

pub(super) fn side(siege: &Siege, place: usize) -> Side {
    match siege.one_hostile_in {
        0 => Side::Honest,
        one_in if place % one_in == one_in - 1 => Side::HOSTILE[(place / one_in) % Side::HOSTILE.len()],
        _ => Side::Honest,
    }
}

/// The same policy, but that the first signer that it names has the forger's key as well.
pub(super) fn trusting(policy: &Policy, forger: &PublicKey) -> Result<Arc<Policy>, SiegeError> {
    let broken = |error: &dyn std::fmt::Display| SiegeError::Broken(error.to_string());
    let forger = to_openssh(forger, "").map_err(|error| broken(&error))?;
    let mut lines: Vec<String> = policy.text().lines().map(str::to_owned).collect();
    if let Some(line) = lines.iter_mut().find(|line| line.starts_with("signer-")) {
        *line = format!("{}, \"{}\"]", line.replacen("= ", "= [", 1), forger.trim());
    }
    Policy::parse(&lines.join("\n")).map(Arc::new).map_err(|error| broken(&error))
}
