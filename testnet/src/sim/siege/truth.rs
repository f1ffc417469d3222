//! What was truly signed, and what a policy says of all of it.

use std::collections::{BTreeMap, BTreeSet};

use rialto_node::trust::{ChannelFacts, Facts, Policy, Verdict, evaluate, revocation_subjects};
use rialto_protocol::UnixSeconds;
use rialto_protocol::channel::{ChannelName, Floor};
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{Body, Record};
use rialto_protocol::signed::Verified;

/// All records, each with every signature that was made.
#[derive(Debug, Default)]
pub(super) struct Truth {
    records: BTreeMap<RecordId, Verified<Record>>,
    /// By the release that they are about.
    endorsements: BTreeMap<RecordId, BTreeSet<RecordId>>,
    revocations: BTreeSet<RecordId>,
    heads: BTreeMap<ChannelName, BTreeSet<RecordId>>,
    delegations: BTreeMap<PublicKey, BTreeSet<RecordId>>,
    releases: Vec<(RecordId, PublicKey)>,
}

impl Truth {
    /// Notes what somebody signed.
    pub(super) fn note(&mut self, record: &Verified<Record>) {
        let id = record.id;
        if let Some(known) = self.records.get_mut(&id) {
            if let Ok(Some(merged)) = known.merge(record) {
                *known = merged;
            }
            return;
        }
        match &record.body {
            Body::Release(release) => self.releases.push((id, release.publisher)),
            Body::Endorsement(endorsement) => {
                self.endorsements.entry(endorsement.subject).or_default().insert(id);
            }
            Body::Revocation(_) => {
                self.revocations.insert(id);
            }
            Body::Channel(head) => {
                self.heads.entry(head.into()).or_default().insert(id);
            }
            Body::Delegation(delegation) => {
                self.delegations.entry(*delegation.publisher()).or_default().insert(id);
            }
            _ => {}
        }
        self.records.insert(id, record.clone());
    }

    /// The releases, each with whom it names as its publisher.
    pub(super) fn releases(&self) -> &[(RecordId, PublicKey)] {
        &self.releases
    }

    /// Whether a release was signed by whom it names as its publisher.
    pub(super) fn is_by_its_publisher(&self, release: &RecordId) -> bool {
        let record = self.records.get(release);
        record.is_some_and(|record| record.body.release().is_some_and(|of| record.is_signed_by(&of.publisher)))
    }

    /// Whether all of its signers signed a record.
    pub(super) fn holds(&self, record: &Verified<Record>) -> bool {
        self.records.get(&record.id).is_some_and(|known| record.signers().all(|key| known.is_signed_by(key)))
    }

    /// What a policy says of a release by everything that was ever signed, at a time.
    pub(super) fn verdict(&self, policy: &Policy, release: &RecordId, now: UnixSeconds) -> Option<Verdict> {
        let record = self.records.get(release)?;
        let of = |ids: Option<&BTreeSet<RecordId>>| -> Vec<&Verified<Record>> {
            ids.into_iter().flatten().filter_map(|id| self.records.get(id)).collect()
        };
        let mut facts = Facts { endorsements: of(self.endorsements.get(release)), ..Facts::default() };
        if let Some(release) = record.body.release() {
            facts.delegations = of(self.delegations.get(&release.publisher));
            let channels = self.heads.iter();
            let of_it =
                channels.filter(|(channel, _)| channel.publisher == release.publisher && channel.name == release.name);
            facts.channels = of_it
                .map(|(channel, heads)| ChannelFacts {
                    channel: channel.clone(),
                    heads: of(Some(heads)),
                    floor: Floor::default(),
                })
                .collect();
        }
        let subjects = revocation_subjects(Some(policy), record, &facts);
        let revocations = of(Some(&self.revocations)).into_iter();
        facts.revocations = revocations
            .filter(|record| record.body.revocation().is_some_and(|revocation| subjects.contains(&revocation.subject)))
            .collect();
        Some(evaluate(policy, record, &facts, now))
    }
}
