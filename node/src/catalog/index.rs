//! The records in memory, and the ways to find them. Rebuilt from the log at every open.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::{Name, Text, Version};
use rialto_protocol::ids::{Hash, ImageId, PublicKey, RecordId};
use rialto_protocol::record::{Body, Record, Release, RevocationSubject};
use rialto_protocol::signed::Verified;

use super::arrival::Arrival;
use super::budget::Charge;
use super::channels::Channels;

/// A record as the catalog holds it.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) record: Arc<Verified<Record>>,
    pub(super) sync_id: Hash,
    /// The peer that first brought it; `None` for this site's own.
    pub(super) source: Option<Arc<str>>,
    /// Order of arrival.
    pub(super) arrival: u64,
    /// When it came, and each of the signatures that came later; at least one.
    pub(super) arrivals: Arc<[Arrival]>,
    /// Bytes of its frame in the log.
    pub(super) frame_bytes: u64,
    /// What it costs in the evictable part; `None` where it is kept.
    pub(super) charge: Option<Charge>,
}

/// The records, by everything they are looked for.
#[derive(Debug, Default)]
pub(super) struct Index {
    records: BTreeMap<RecordId, Held>,
    by_sync_id: HashMap<Hash, RecordId>,
    releases: BTreeSet<(Reverse<UnixSeconds>, RecordId)>,
    by_version: BTreeMap<(PublicKey, Name, Version), BTreeSet<RecordId>>,
    by_image: BTreeMap<ImageId, BTreeSet<RecordId>>,
    endorsements: BTreeMap<RecordId, BTreeSet<RecordId>>,
    revocations: BTreeMap<RevocationSubject, BTreeSet<RecordId>>,
    /// By the package that they are about.
    advisories: BTreeMap<Text<256>, BTreeSet<RecordId>>,
    /// Heads of channels, and who may move them.
    pub(super) channels: Channels,
    /// How many kept records each key signed.
    kept_by_key: HashMap<PublicKey, usize>,
    live_bytes: u64,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Bytes of the log that frames of present records take.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub(super) fn get(&self, id: &RecordId) -> Option<&Held> {
        self.records.get(id)
    }

    pub(super) fn by_sync_id(&self, sync_id: &Hash) -> Option<&Held> {
        self.by_sync_id.get(sync_id).and_then(|id| self.records.get(id))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.records.values()
    }

    /// Records from `first` on, in the order of their hashes.
    pub(super) fn from(&self, first: RecordId) -> impl Iterator<Item = &Held> {
        self.records.range(first..).map(|(_, held)| held)
    }

    /// Releases that their publisher signed, newest first.
    pub(super) fn releases(&self) -> impl Iterator<Item = &Held> {
        self.releases.iter().filter_map(|(_, id)| self.records.get(id))
    }

    pub(super) fn version(&self, key: &(PublicKey, Name, Version)) -> impl Iterator<Item = &Held> {
        self.all(self.by_version.get(key))
    }

    /// Releases that name an image.
    pub(super) fn image(&self, image: &ImageId) -> impl Iterator<Item = &Held> {
        self.all(self.by_image.get(image))
    }

    /// The highest sequence among the releases of one appliance.
    pub(super) fn highest_sequence(&self, publisher: &PublicKey, name: &Name) -> Option<u64> {
        self.appliance(publisher, name).map(|release| release.sequence).max()
    }

    /// The releases of one appliance.
    pub(super) fn appliance(&self, publisher: &PublicKey, name: &Name) -> impl Iterator<Item = &Release> {
        // No version sorts before "0".
        let first = Version::try_from("0").ok().map(|first| (*publisher, name.clone(), first));
        let (publisher, name) = (*publisher, name.clone());
        let versions = first.into_iter().flat_map(|first| self.by_version.range(first..));
        let versions = versions.take_while(move |((key, of, _), _)| *key == publisher && *of == name);
        versions.flat_map(|(_, ids)| ids).filter_map(|id| self.records.get(id)?.record.body.release())
    }

    pub(super) fn endorsements(&self, release: &RecordId) -> impl Iterator<Item = &Held> {
        self.all(self.endorsements.get(release))
    }

    pub(super) fn revocations(&self, subject: &RevocationSubject) -> impl Iterator<Item = &Held> {
        self.all(self.revocations.get(subject))
    }

    /// Advisories on a package, of whatever ecosystem.
    pub(super) fn advisories(&self, package: &Text<256>) -> impl Iterator<Item = &Held> {
        self.all(self.advisories.get(package))
    }

    /// Whether a kept record is signed by this key.
    pub(super) fn keeps_of(&self, key: &PublicKey) -> bool {
        self.kept_by_key.contains_key(key)
    }

    fn all<'a>(&'a self, ids: Option<&'a BTreeSet<RecordId>>) -> impl Iterator<Item = &'a Held> {
        ids.into_iter().flatten().filter_map(|id| self.records.get(id))
    }

    /// Puts a record in, in the place of the version held before, which is given back.
    pub(super) fn put(&mut self, held: Held) -> Option<Held> {
        let before = self.take(&held.record.id);
        let id = held.record.id;
        self.live_bytes += held.frame_bytes;
        self.by_sync_id.insert(held.sync_id, id);
        if held.charge.is_none() {
            held.record.signers().for_each(|key| *self.kept_by_key.entry(*key).or_default() += 1);
        }
        match &held.record.body {
            Body::Release(release) if held.record.is_signed_by(&release.publisher) => {
                self.releases.insert((Reverse(held.record.header.issued), id));
                let version = (release.publisher, release.name.clone(), release.version.clone());
                self.by_version.entry(version).or_default().insert(id);
                for image in release.images() {
                    self.by_image.entry(image).or_default().insert(id);
                }
            }
            Body::Endorsement(endorsement) => {
                self.endorsements.entry(endorsement.subject).or_default().insert(id);
            }
            Body::Revocation(revocation) => {
                self.revocations.entry(revocation.subject).or_default().insert(id);
            }
            Body::Channel(_) => self.channels.put(&held.record),
            Body::Delegation(_) => self.channels.put_delegation(&held.record),
            Body::Advisory(advisory) => {
                self.advisories.entry(advisory.package.clone()).or_default().insert(id);
            }
            Body::Release(_) | Body::Recipe(_) | Body::Component(_) | Body::Opaque => {}
        }
        self.records.insert(id, held);
        before
    }

    /// Takes a record out.
    pub(super) fn take(&mut self, id: &RecordId) -> Option<Held> {
        fn forget<K: Ord>(map: &mut BTreeMap<K, BTreeSet<RecordId>>, key: &K, id: &RecordId) {
            if let Some(ids) = map.get_mut(key) {
                ids.remove(id);
                if ids.is_empty() {
                    map.remove(key);
                }
            }
        }
        let held = self.records.remove(id)?;
        self.live_bytes -= held.frame_bytes;
        self.by_sync_id.remove(&held.sync_id);
        if held.charge.is_none() {
            for key in held.record.signers() {
                if let Some(count) = self.kept_by_key.get_mut(key) {
                    *count -= 1;
                    if *count == 0 {
                        self.kept_by_key.remove(key);
                    }
                }
            }
        }
        match &held.record.body {
            Body::Release(release) => {
                self.releases.remove(&(Reverse(held.record.header.issued), *id));
                let version = (release.publisher, release.name.clone(), release.version.clone());
                forget(&mut self.by_version, &version, id);
                release.images().iter().for_each(|image| forget(&mut self.by_image, image, id));
            }
            Body::Endorsement(endorsement) => forget(&mut self.endorsements, &endorsement.subject, id),
            Body::Revocation(revocation) => forget(&mut self.revocations, &revocation.subject, id),
            Body::Channel(_) => self.channels.take(&held.record),
            Body::Delegation(_) => self.channels.take_delegation(&held.record),
            Body::Advisory(advisory) => forget(&mut self.advisories, &advisory.package, id),
            Body::Recipe(_) | Body::Component(_) | Body::Opaque => {}
        }
        Some(held)
    }
}
