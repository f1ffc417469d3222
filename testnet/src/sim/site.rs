//! A simulated site: the records it holds, in memory, under the same rules as a node's catalog, and its verdicts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rialto_node::trust::{ChannelFacts, Facts, Policy, Verdict, evaluate, revocation_subjects};
use rialto_protocol::UnixSeconds;
use rialto_protocol::channel::{self, ChannelName, Flaw, Position, is_delegation};
use rialto_protocol::ids::{Hash, PublicKey, RecordId};
use rialto_protocol::record::{Body, Record, RevocationSubject};
use rialto_protocol::signed::Verified;
use rialto_protocol::sync::{Beginning, SyncSet};

use super::channels::{Arrival, Channels};
use super::store::Store;

/// Records of signers that a site does not name, at most. A node counts bytes; the rule is the same.
const UNNAMED_RECORDS: usize = 40;

/// A record that was verified, with what is often asked of it. Pure functions of its bytes, so sites share it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) record: Verified<Record>,
    pub(super) sync_id: Hash,
}

impl Known {
    pub(super) fn new(record: Verified<Record>) -> Self {
        Self { sync_id: record.sync_id(), record }
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inserted {
    New,
    Merged,
    Duplicate,
    Evicted,
    Superseded,
}

impl Inserted {
    pub(super) fn is_change(self) -> bool {
        matches!(self, Self::New | Self::Merged)
    }
}

/// How a site behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Character {
    /// As it should.
    Honest,
    /// Corrupts what it sends, records and chunks alike, and claims to have every image.
    Liar,
    /// Takes part in gossip and catch-up, but of images it says nothing at all.
    Mute,
    /// The same, but it claims to have every image, and delivers nothing.
    Silent,
}

/// A site.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) character: Character,
    /// Which of the policies it goes by.
    pub(super) policy_number: usize,
    policy: Arc<Policy>,
    pub(super) store: Store,
    /// The signers whose records it keeps: those that its policy names, and those that it publishes for.
    kept: BTreeSet<PublicKey>,
    records: BTreeMap<RecordId, Held>,
    endorsements: BTreeMap<RecordId, BTreeSet<RecordId>>,
    revocations: BTreeMap<RevocationSubject, BTreeSet<RecordId>>,
    channels: Channels,
    /// Every version ever held, by sync id.
    versions: BTreeMap<Hash, RecordId>,
    /// Records of signers that are not kept, by arrival.
    others: BTreeMap<u64, RecordId>,
    /// Versions evicted, and who had signed them.
    evicted: BTreeMap<Hash, Vec<PublicKey>>,
    sync_set: Option<SyncSet>,
    arrivals: u64,
}

#[derive(Debug)]
struct Held {
    known: Arc<Known>,
    /// Its versions, by sync id.
    versions: Vec<Hash>,
}

impl Site {
    pub(super) fn new(policy_number: usize, policy: Arc<Policy>, character: Character) -> Self {
        Self {
            character,
            policy_number,
            store: Store::default(),
            kept: policy.named_keys().copied().collect(),
            policy,
            records: BTreeMap::new(),
            endorsements: BTreeMap::new(),
            revocations: BTreeMap::new(),
            channels: Channels::default(),
            versions: BTreeMap::new(),
            others: BTreeMap::new(),
            evicted: BTreeMap::new(),
            sync_set: None,
            arrivals: 0,
        }
    }

    /// Whether it sends the records that it has, as they are.
    pub(super) fn is_liar(&self) -> bool {
        self.character == Character::Liar
    }

    /// Whether it fetches and serves images as it should.
    pub(super) fn is_honest(&self) -> bool {
        self.character == Character::Honest
    }

    /// Whether it keeps this signer's records.
    pub(super) fn keeps(&self, key: &PublicKey) -> bool {
        self.kept.contains(key)
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Keeps a signer's records from now on: what was evicted of them is wanted again.
    pub(super) fn keep(&mut self, key: PublicKey) {
        if self.kept.insert(key) {
            self.evicted.retain(|_, signers| !signers.contains(&key));
        }
    }

    /// The channels of a publisher that are known here.
    pub(super) fn channels_by(&self, publisher: &PublicKey) -> Vec<ChannelName> {
        self.channels.of_publisher(publisher).cloned().collect()
    }

    /// From which place a channel leads to a release at a time, where it does; and whether it does not because it was at a
    /// later one before.
    pub(super) fn leads_from(&self, channel: &ChannelName, now: UnixSeconds) -> (Option<Position>, bool) {
        let heads: Vec<&Verified<Record>> = self.channels.heads(channel).filter_map(|id| self.get(&id)).collect();
        let delegations: Vec<&Verified<Record>> = self.channels.delegations(&channel.publisher).collect();
        let floor = self.channels.floors().of(channel);
        let state = channel::state(
            &channel::Known { channel, heads: &heads, delegations: &delegations, floor },
            |_| false,
            now,
        );
        let is_rolled_back = state.flaws.iter().any(|flaw| matches!(flaw, Flaw::RolledBack { .. }));
        (state.fresh().and(state.head).map(|(_, place)| place), is_rolled_back)
    }

    /// Loses also what it must never lose.
    pub(super) fn forget_floors(&mut self) {
        self.channels = Channels::default();
    }

    /// Takes a verified record in, and counts what had to go for it.
    pub(super) fn insert(&mut self, known: &Arc<Known>) -> (Inserted, u64) {
        let (id, sync_id) = (known.record.id, known.sync_id);
        if self.versions.contains_key(&sync_id) {
            return (Inserted::Duplicate, 0);
        }
        if self.evicted.contains_key(&sync_id) {
            return (Inserted::Evicted, 0);
        }
        // Also where it is passed over: it is not asked for again.
        self.versions.insert(sync_id, id);
        let mut together = vec![Arc::clone(known)];
        if !self.records.contains_key(&id) {
            match self.channels.arrive(known) {
                Arrival::Taken => {}
                Arrival::With(other) => together.push(other),
                Arrival::PassedOver => return (Inserted::Superseded, 0),
            }
        }
        for other in &together[1..] {
            self.versions.insert(other.sync_id, other.record.id);
            self.records.insert(other.record.id, Held { known: Arc::clone(other), versions: vec![other.sync_id] });
            self.note_if_unkept(other);
        }
        let outcome = match self.records.get_mut(&id) {
            None => {
                self.records.insert(id, Held { known: Arc::clone(known), versions: vec![sync_id] });
                Inserted::New
            }
            Some(held) => {
                held.versions.push(sync_id);
                let Ok(Some(merged)) = held.known.record.merge(&known.record) else { return (Inserted::Duplicate, 0) };
                held.known = Arc::new(Known::new(merged));
                held.versions.push(held.known.sync_id);
                self.versions.insert(held.known.sync_id, id);
                Inserted::Merged
            }
        };
        self.sync_set = None;
        if outcome == Inserted::New {
            self.index(id, &known.record.body);
            self.note_if_unkept(known);
        }
        self.settle(known, &together);
        (outcome, self.evict())
    }

    /// What a record changes about channels: a head supersedes others; a signature, or a delegation, makes heads rightful.
    fn settle(&mut self, known: &Arc<Known>, together: &[Arc<Known>]) {
        let mut rightful: Vec<Arc<Known>> = Vec::new();
        if let Some(delegation) = is_delegation(&known.record).filter(|of| self.kept.contains(of.publisher())) {
            // What these keys signed before it came may have been evicted as a stranger's.
            self.evicted.retain(|_, signers| !signers.iter().any(|key| delegation.keys().contains(key)));
        }
        for id in self.channels.delegate(known) {
            rightful.extend(self.records.get(&id).map(|held| Arc::clone(&held.known)));
        }
        self.channels.note(&known.record);
        // A head that got its last signature just now.
        let merged = self.records.get(&known.record.id).map(|held| Arc::clone(&held.known));
        let groups = [together.to_vec(), merged.into_iter().collect()].into_iter();
        for group in groups.chain(rightful.into_iter().map(|head| vec![head])) {
            for superseded in self.channels.put(&group) {
                if let Some(held) = self.records.remove(&superseded) {
                    self.channels.supersede(held.known);
                }
            }
        }
    }

    /// Loses everything but its policy and what it must never lose, as where its catalog is damaged.
    pub(super) fn forget(&mut self) {
        let channels = Channels::with_floors(self.channels.floors().clone());
        let (number, policy, kept) = (self.policy_number, Arc::clone(&self.policy), std::mem::take(&mut self.kept));
        let store = std::mem::take(&mut self.store);
        *self = Self { channels, kept, store, ..Self::new(number, policy, self.character) };
    }

    fn note_if_unkept(&mut self, known: &Known) {
        if !self.is_kept(&known.record) {
            self.others.insert(self.arrivals, known.record.id);
        }
        self.arrivals += 1;
    }

    /// Whether a record is outside the evictable part: by a signer that is kept, or a rightful head of its channels.
    fn is_kept(&self, record: &Verified<Record>) -> bool {
        match &record.body {
            Body::Channel(head) => self.keeps(&head.publisher) && self.channels.place(record).is_some(),
            _ => record.signers().any(|key| self.keeps(key)),
        }
    }

    fn index(&mut self, id: RecordId, body: &Body) {
        match body {
            Body::Endorsement(endorsement) => {
                self.endorsements.entry(endorsement.subject).or_default().insert(id);
            }
            Body::Revocation(revocation) => {
                self.revocations.entry(revocation.subject).or_default().insert(id);
            }
            _ => {}
        }
    }

    fn evict(&mut self) -> u64 {
        let mut evicted = 0;
        while self.others.len() > UNNAMED_RECORDS {
            let Some((_, id)) = self.others.pop_first() else { break };
            // A signer whose records are kept may have added a signature meanwhile, or become one.
            if self.records.get(&id).is_none_or(|held| self.is_kept(&held.known.record)) {
                continue;
            }
            let Some(Held { known, versions }) = self.records.remove(&id) else { continue };
            self.evicted.insert(known.sync_id, known.record.signers().copied().collect());
            for version in &versions {
                self.versions.remove(version);
            }
            self.channels.evict(&known.record);
            self.sync_set = None;
            evicted += 1;
        }
        evicted
    }

    pub(super) fn get(&self, id: &RecordId) -> Option<&Verified<Record>> {
        self.records.get(id).map(|held| &held.known.record)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.records.values().map(|held| &held.known)
    }

    /// What there is to reconcile.
    pub(super) fn sync_set(&mut self) -> SyncSet {
        let records = &self.records;
        let made = || records.values().map(|held| (held.known.record.header.issued, held.known.sync_id)).collect();
        self.sync_set.get_or_insert_with(made).clone()
    }

    /// The envelope behind a sync id that begins so.
    pub(super) fn envelope(&self, sync_id: &Beginning) -> Option<Vec<u8>> {
        let held = self.versions.range(sync_id.range()).find_map(|(_, id)| self.records.get(id))?;
        Some(held.known.record.envelope().encode())
    }

    /// Whether the versions whose sync id begins so are lacking and would be taken.
    pub(super) fn is_wanted(&self, sync_id: &Beginning) -> bool {
        self.versions.range(sync_id.range()).next().is_none() && self.evicted.range(sync_id.range()).next().is_none()
    }

    /// Channels that it knows to contradict themselves.
    pub(super) fn contradictions(&self) -> u64 {
        self.channels.contradictions()
    }

    /// What its policy says of a release that it holds, with all that it knows of it.
    pub(super) fn judge(&self, release: &RecordId, now: UnixSeconds) -> Option<Verdict> {
        let record = self.get(release)?;
        let held = |ids: Option<&BTreeSet<RecordId>>| ids.into_iter().flatten().filter_map(|id| self.get(id)).collect();
        let endorsements: Vec<_> = held(self.endorsements.get(release));
        let mut facts = Facts { endorsements, ..Facts::default() };
        facts.channels = (record.body.release().into_iter())
            .flat_map(|release| self.channels.of_appliance(release))
            .map(|(channel, heads)| ChannelFacts {
                channel: channel.clone(),
                heads: heads.filter_map(|id| self.get(&id)).collect(),
                floor: self.channels.floors().of(channel),
            })
            .collect();
        if let Some(release) = record.body.release() {
            facts.delegations = self.channels.delegations(&release.publisher).collect();
        }
        let subjects = revocation_subjects(Some(&self.policy), record, &facts);
        facts.revocations =
            subjects.iter().flat_map(|subject| -> Vec<_> { held(self.revocations.get(subject)) }).collect();
        Some(evaluate(&self.policy, record, &facts, now))
    }
}
