//! What must hold, while sites converge and in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rialto_node::trust::Verdict;
use rialto_protocol::UnixSeconds;
use rialto_protocol::ids::{Hash, ImageId, PublicKey, RecordId};
use rialto_protocol::signed::Envelope;

use super::SimError;
use super::content::Bytes;
use super::records::EPOCH;
use super::site::Site;
use super::timeline::{Micros, SECOND};
use super::world::{Event, World};

/// How often it is looked whether all have converged, once all is published and healed.
const CHECK_INTERVAL: Micros = 5 * SECOND;
/// Sites that have not converged by now never will.
const DEADLINE: Micros = 1_800 * SECOND;
/// A holder that a crowd fetches from at once uploads no more than this, in hundredths of a copy. Lines differ by ten
/// times here: where the others' are slow, a fast holder does well to send more than one copy.
const MAX_CROWD_PERCENT: u64 = 350;
/// A crowd of fewer is none to speak of.
const CROWD: usize = 8;

impl World {
    /// Whether everything has come to where it should.
    pub(super) fn check(&mut self) -> Result<bool, SimError> {
        let behind = self.find_behind().or_else(|| self.find_unfetched());
        self.timeline.note("check", &[u64::from(behind.is_none())]);
        match behind {
            None => Ok(true),
            Some(error) if self.timeline.now() > DEADLINE => Err(error),
            Some(_) => {
                self.timeline.after(CHECK_INTERVAL, Event::Check);
                Ok(false)
            }
        }
    }

    /// What must hold whatever happened on the way; also counts.
    pub(super) fn check_the_end(&mut self) -> Result<(), SimError> {
        self.check_records()?;
        self.check_stores()?;
        self.check_verdicts()?;
        self.summary.contradictions = self.sites.iter().map(Site::contradictions).sum();
        let percent = |(image, seed): (&ImageId, &usize)| {
            let uploaded = self.uploaded.get(&(*seed, *image)).copied().unwrap_or(0);
            uploaded * 100 / self.contents.get(image).map_or(1, |content| content.copy_bytes().max(1))
        };
        let crowd_image = self.crowd.as_ref().map(|(image, _)| *image);
        let others = self.seeds.iter().filter(|(image, _)| Some(**image) != crowd_image);
        self.summary.seed_percent = others.map(percent).max().unwrap_or(0);
        let crowd = self.seeds.iter().filter(|(image, _)| Some(**image) == crowd_image);
        self.summary.crowd_percent = crowd.map(percent).max().unwrap_or(0);
        match self.scenario.crowd >= CROWD && self.summary.crowd_percent > MAX_CROWD_PERCENT {
            true => Err(SimError::Overloaded { percent: self.summary.crowd_percent, allowed: MAX_CROWD_PERCENT }),
            false => Ok(()),
        }
    }

    // ── Records ──────────────────────────────────────────────────────────────────────────────────────────────────────

    fn known_signers(&self) -> impl Iterator<Item = &PublicKey> {
        self.signers[..self.signers.len() - 1].iter().map(|signer| &signer.public)
    }

    /// Groups of sites that keep a signer's records and are linked through such sites. Liars are no site to count on.
    fn keepers(&self, signer: &PublicKey) -> Vec<BTreeSet<usize>> {
        let keeps = |site: &usize| !self.sites[*site].is_liar() && self.sites[*site].keeps(signer);
        self.network.components(&(0..self.sites.len()).filter(keeps).collect())
    }

    /// A site that lacks something that the sites it is connected with, through sites that keep the same signer, hold.
    fn find_behind(&self) -> Option<SimError> {
        self.known_signers().find_map(|signer| {
            let ids: Vec<&RecordId> = self.ledger.of(signer).collect();
            self.keepers(signer).iter().find_map(|component| self.find_behind_in(component, signer, &ids))
        })
    }

    fn find_behind_in(&self, component: &BTreeSet<usize>, signer: &PublicKey, ids: &[&RecordId]) -> Option<SimError> {
        // What any of them holds, with every signature that any of them holds.
        let mut wanted = BTreeMap::<_, BTreeSet<PublicKey>>::new();
        for id in ids {
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
            let seconds = self.timeline.now() / SECOND;
            SimError::NotConverged { site, signer: *signer, held, published: wanted.len(), seconds }
        })
    }

    fn check_records(&self) -> Result<(), SimError> {
        // From the bytes, not from what was remembered of them; once for all sites that hold the same.
        let mut sound = BTreeSet::new();
        for (place, site) in self.sites.iter().enumerate() {
            for known in site.records() {
                let is_sound = !sound.insert(known.sync_id)
                    || Envelope::decode(known.record.envelope().encoded()).and_then(Envelope::verify).is_ok_and(
                        |record| record.sync_id() == known.sync_id && self.ledger.has(&record.id, record.signers()),
                    );
                if !is_sound {
                    return Err(SimError::Unverified { site: place });
                }
            }
        }
        Ok(())
    }

    // ── Images ───────────────────────────────────────────────────────────────────────────────────────────────────────

    /// A site that lacks a part of an image that it wants, although a site that it can reach has all of it.
    fn find_unfetched(&self) -> Option<SimError> {
        let honest = (0..self.sites.len()).filter(|site| self.sites[*site].is_honest()).collect();
        let components = self.network.components(&honest);
        let is_reachable = |site: usize, image: &ImageId| {
            let component = components.iter().find(|component| component.contains(&site));
            component.is_some_and(|component| component.iter().any(|other| self.has(*other, image)))
        };
        let crowd = self.crowd.iter().flat_map(|(image, sites)| sites.iter().map(|site| (*site, *image)));
        let accepted =
            honest.iter().flat_map(|site| self.accepted_images(*site).into_iter().map(|image| (*site, image)));
        let wanted: BTreeSet<(usize, ImageId)> = crowd.chain(accepted).collect();
        let unfetched = |(site, image): &(usize, ImageId)| !self.has(*site, image) && is_reachable(*site, image);
        wanted.into_iter().find(unfetched).map(|(site, image)| {
            let content = self.contents.get(&image);
            let missing = content.map_or(0, |content| self.sites[site].store.missing(&content.manifest).count());
            SimError::NotFetched { site, image, missing, seconds: self.timeline.now() / SECOND }
        })
    }

    fn has(&self, site: usize, image: &ImageId) -> bool {
        self.contents.get(image).is_some_and(|content| self.sites[site].store.is_complete(&content.manifest))
    }

    /// The images of every release that a site's policy accepts.
    fn accepted_images(&self, site: usize) -> BTreeSet<ImageId> {
        let releases =
            self.ledger.releases().iter().filter(|(_, publisher)| self.sites[site].policy().names(publisher));
        let verdicts = releases.filter_map(|(id, _)| self.sites[site].judge(id, self.clock()));
        let accepted = verdicts.filter_map(Verdict::into_accepted);
        let images: BTreeSet<ImageId> = accepted.flat_map(|accepted| accepted.images().to_vec()).collect();
        images.into_iter().filter(|image| self.contents.contains_key(image)).collect()
    }

    /// Every chunk that a site holds is one that a publisher cut. Compared when it was stored, and shared since.
    fn check_stores(&self) -> Result<(), SimError> {
        let contents = self.contents.values().flat_map(|content| &content.chunks);
        let truth: BTreeMap<&Hash, &Bytes> = contents.collect();
        for (place, site) in self.sites.iter().enumerate() {
            let is_true = |(hash, bytes): (&Hash, &Bytes)| {
                truth.get(hash).is_some_and(|cut| Arc::ptr_eq(cut, bytes) || *cut == bytes)
            };
            if !site.store.chunks().all(is_true) {
                return Err(SimError::Unverified { site: place });
            }
        }
        Ok(())
    }

    // ── Verdicts ─────────────────────────────────────────────────────────────────────────────────────────────────────

    fn clock(&self) -> UnixSeconds {
        EPOCH + self.timeline.now() / SECOND
    }

    /// Sites that go by the same policy, and are connected through sites that keep what it rests on, judge alike.
    fn check_verdicts(&mut self) -> Result<(), SimError> {
        let components: Vec<(PublicKey, Vec<BTreeSet<usize>>)> =
            self.known_signers().map(|signer| (*signer, self.keepers(signer))).collect();
        // What can differ is told apart: the policy, and the group of keepers for each signer that it names.
        let mut alike = BTreeMap::<(usize, Vec<Option<usize>>), Vec<usize>>::new();
        for (place, site) in self.sites.iter().enumerate().filter(|(_, site)| !site.is_liar()) {
            let named = components.iter().filter(|(signer, _)| site.policy().names(signer));
            let groups = named.map(|(_, groups)| groups.iter().position(|group| group.contains(&place))).collect();
            alike.entry((site.policy_number, groups)).or_default().push(place);
        }
        let releases = self.ledger.releases();
        for sites in alike.into_values() {
            let policy = self.sites[sites[0]].policy();
            for (release, _) in releases.iter().filter(|(_, publisher)| policy.names(publisher)) {
                let verdicts = sites.iter().map(|site| self.sites[*site].judge(release, self.clock()));
                let verdicts: Vec<_> = verdicts.map(|verdict| verdict.as_ref().map(decided)).collect();
                self.summary.verdicts += verdicts.len() as u64 - 1;
                self.summary.accepted +=
                    verdicts.iter().flatten().filter(|(.., images)| !images.is_empty()).count() as u64;
                if let Some(other) = verdicts.iter().position(|verdict| *verdict != verdicts[0]) {
                    return Err(SimError::Disagreement { release: *release, sites: [sites[0], sites[other]] });
                }
            }
        }
        Ok(())
    }
}

/// What a verdict decides, without what it says of it: its kind, the rule, which requirements are met, and the images.
pub(super) type Decided = (&'static str, String, Vec<bool>, Vec<ImageId>);

pub(super) fn decided(verdict: &Verdict) -> Decided {
    let met = verdict.requirements().iter().map(|requirement| requirement.met).collect();
    let images = verdict.accepted().map(|accepted| accepted.images().to_vec()).unwrap_or_default();
    (verdict.kind().as_str(), verdict.rule().to_owned(), met, images)
}
