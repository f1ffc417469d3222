//! What the catalog knows of each record without reading it, and the ways to find one. Rebuilt from the log at every open.
//!
//! A record takes about 300 bytes here, whatever its length: its envelope stays in the log. Look-ups go through ordered
//! sets of 64-bit hashes (with a secret of this process, so that nobody can make them meet) and slots; whoever reads the
//! record checks what it was looked up by.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher as _, Hash as StdHash, RandomState};
use std::sync::Arc;

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::{Name, Text};
use rialto_protocol::ids::{Hash, ImageId, PublicKey, RecordId};
use rialto_protocol::record::{Body, Release, RevocationSubject};
use rialto_protocol::sync::{Beginning, SyncSet};

use super::SharedRecord;
use super::channels::Channels;
use super::interned::Interned;
use super::log::Place;
use super::search::{RowNumber, Search};

/// Where a record's entry is, while it is there.
pub(super) type Slot = u32;

/// What each word of a release costs in the index, in bytes: most are in a dictionary of their own.
const WORD_BYTES: usize = 48;
/// What a signature takes in an envelope, in bytes, about.
const SIGNATURE_BYTES: usize = 116;

/// A record as the index holds it.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) id: RecordId,
    pub(super) sync_id: Hash,
    pub(super) issued: UnixSeconds,
    /// Order of arrival.
    pub(super) arrival: u64,
    /// Its frame in the log.
    pub(super) place: Place,
    /// The peer that first brought it; `None` for this site's own.
    pub(super) source: Option<Arc<str>>,
    /// Whose signatures it has, ascending.
    pub(super) signers: Arc<[PublicKey]>,
    /// What it costs where it is charged, in bytes: its envelope, and its words in the index.
    pub(super) cost: u32,
    /// Whether it is charged to the evictable part, or kept.
    pub(super) is_charged: bool,
    pub(super) kind: Kind,
}

impl Held {
    pub(super) fn is_signed_by(&self, key: &PublicKey) -> bool {
        self.signers.binary_search(key).is_ok()
    }
}

/// What a record is, and what it is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A release that its publisher signed, or keys that this lent its releases to.
    Release(RowNumber),
    /// A release that the publisher that this stands for did not sign, nor keys that it is known to have lent its releases to.
    Unproven(u64),
    /// Of the release that this stands for.
    Endorsement(u64),
    /// On the package that this stands for.
    Advisory(u64),
    Revocation,
    Head,
    Delegation,
    /// Of a kind that nothing is looked up by.
    Other,
    /// Of a kind or version unknown here.
    Opaque,
}

/// A record that was taken out, with what puts it back.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) held: Held,
    subject: Option<RevocationSubject>,
    decoded: Option<SharedRecord>,
    /// Whose release it is that lent keys have signed.
    lent_by: Option<PublicKey>,
    /// What a release is called that nobody is known to have had the right to sign.
    unproven: Option<Name>,
}

impl Taken {
    /// The head or delegation.
    pub(super) fn decoded(&self) -> Option<&SharedRecord> {
        self.decoded.as_ref()
    }
}

/// The records, by everything they are looked for.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: Vec<Option<Held>>,
    free: Vec<Slot>,
    /// The first 8 bytes of ids and sync ids are as good as a hash, and keep the order.
    by_id: BTreeSet<(u64, Slot)>,
    by_sync_id: BTreeSet<(u64, Slot)>,
    pub(super) search: Search,
    by_appliance: BTreeSet<(u64, RowNumber)>,
    by_image: BTreeSet<(u64, RowNumber)>,
    endorsements: BTreeSet<(u64, Slot)>,
    advisories: BTreeSet<(u64, Slot)>,
    /// Releases that may be their publisher's by a delegation that is not known yet, with their names: none is read from the
    /// disk before it is known to fit.
    unproven: BTreeMap<(u64, Slot), Name>,
    /// Publishers of releases that lent keys have signed.
    lent_by: HashMap<Slot, PublicKey>,
    revocations: BTreeMap<RevocationSubject, BTreeSet<Slot>>,
    subjects: HashMap<Slot, RevocationSubject>,
    /// Heads and delegations: few, and looked at all the time.
    decoded: HashMap<Slot, SharedRecord>,
    /// Heads of channels, and who may move them.
    pub(super) channels: Channels,
    /// How many kept records each key signed.
    kept_by_key: HashMap<PublicKey, usize>,
    live_bytes: u64,
    /// What is reconciled; `None` while the log is read.
    sync_set: Option<SyncSet>,
    sources: Interned<str>,
    signers: Interned<[PublicKey]>,
    secret: RandomState,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Bytes of the log that frames of present records take.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// What is to be reconciled with a peer.
    pub(super) fn sync_set(&self) -> SyncSet {
        self.sync_set.clone().unwrap_or_default()
    }

    /// Ends the reading of the log: from here on, everything is kept in order as it comes.
    pub(super) fn settle(&mut self) {
        self.sync_set = Some(self.iter().map(|(_, held)| (held.issued, held.sync_id)).collect());
        self.number_anew();
    }

    /// Puts search in order where it is worth it.
    pub(super) fn tidy(&mut self) {
        if self.search.is_disordered() {
            self.number_anew();
        }
    }

    fn number_anew(&mut self) {
        self.search.number_anew();
        self.by_appliance.clear();
        self.by_image.clear();
        let rows = self.search.all().iter().collect::<Vec<_>>();
        for number in rows {
            if let Some(slot) = self.search.row(number).map(|row| row.slot)
                && let Some(held) = self.slots.get_mut(slot as usize).and_then(Option::as_mut)
            {
                held.kind = Kind::Release(number);
            }
            self.list_row(number);
        }
    }

    pub(super) fn held(&self, slot: Slot) -> Option<&Held> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// The head or delegation in a slot.
    pub(super) fn decoded(&self, slot: Slot) -> Option<&SharedRecord> {
        self.decoded.get(&slot)
    }

    /// What the revocation in a slot withdraws.
    pub(super) fn subject(&self, slot: Slot) -> Option<&RevocationSubject> {
        self.subjects.get(&slot)
    }

    pub(super) fn slot(&self, id: &RecordId) -> Option<Slot> {
        slots_of(&self.by_id, beginning(&id.hash())).find(|slot| self.held(*slot).is_some_and(|held| held.id == *id))
    }

    pub(super) fn get(&self, id: &RecordId) -> Option<&Held> {
        self.held(self.slot(id)?)
    }

    pub(super) fn by_sync_id(&self, sync_id: &Beginning) -> Option<Slot> {
        let mut slots = slots_of(&self.by_sync_id, beginning(sync_id.range().start()));
        slots.find(|slot| self.held(*slot).is_some_and(|held| sync_id.fits(&held.sync_id)))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Held)> {
        (0..).zip(&self.slots).filter_map(|(slot, held)| Some((slot, held.as_ref()?)))
    }

    /// The ids from `first` on, almost in the order of their hashes: those that begin with the same 8 bytes are in none.
    pub(super) fn from(&self, first: RecordId) -> impl Iterator<Item = &Held> {
        let from = self.by_id.range((beginning(&first.hash()), 0)..);
        from.filter_map(|(_, slot)| self.held(*slot))
    }

    /// The releases of one appliance, and (hardly ever) others: the highest sequence first.
    pub(super) fn appliance(&self, publisher: &PublicKey, name: &Name) -> Vec<Slot> {
        self.by_sequence(slots_of(&self.by_appliance, self.stands_for(&(publisher, name))))
    }

    /// The highest sequence among the releases of one appliance.
    pub(super) fn highest_sequence(&self, publisher: &PublicKey, name: &Name) -> Option<u64> {
        let rows = slots_of(&self.by_appliance, self.stands_for(&(publisher, name)));
        rows.filter_map(|number| Some(self.search.row(number)?.sequence)).max()
    }

    /// Releases of the appliances that have a release which names an image, the highest sequence first.
    pub(super) fn relatives(&self, image: &ImageId) -> Vec<Slot> {
        let of_image = slots_of(&self.by_image, self.stands_for(image));
        let appliances: BTreeSet<u64> =
            of_image.filter_map(|number| Some(self.search.row(number)?.appliance)).collect();
        self.by_sequence(appliances.into_iter().flat_map(|appliance| slots_of(&self.by_appliance, appliance)))
    }

    fn by_sequence(&self, rows: impl Iterator<Item = RowNumber>) -> Vec<Slot> {
        let mut rows: Vec<_> = rows.filter_map(|number| self.search.row(number)).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.sequence));
        rows.into_iter().map(|row| row.slot).collect()
    }

    /// Releases that name an image.
    pub(super) fn image(&self, image: &ImageId) -> impl Iterator<Item = Slot> {
        let rows = slots_of(&self.by_image, self.stands_for(image));
        rows.filter_map(|number| Some(self.search.row(number)?.slot))
    }

    pub(super) fn endorsements(&self, release: &RecordId) -> impl Iterator<Item = Slot> {
        slots_of(&self.endorsements, self.stands_for(release))
    }

    /// Advisories on a package, of whatever ecosystem.
    pub(super) fn advisories(&self, package: &Text<256>) -> impl Iterator<Item = Slot> {
        slots_of(&self.advisories, self.stands_for(&**package))
    }

    /// Every advisory, whatever package it is on.
    pub(super) fn all_advisories(&self) -> impl Iterator<Item = (Slot, &Held)> {
        self.advisories.iter().filter_map(|(_, slot)| Some((*slot, self.held(*slot)?)))
    }

    /// Whose release this is, where keys that it lent its releases to have signed it.
    pub(super) fn lent_by(&self, slot: Slot) -> Option<&PublicKey> {
        self.lent_by.get(&slot)
    }

    /// Releases that name this publisher, and that it is not known to have anything to do with, by name.
    pub(super) fn unproven(&self, publisher: &PublicKey) -> impl Iterator<Item = (Slot, &Name)> {
        let publisher = self.stands_for(publisher);
        self.unproven.range((publisher, 0)..=(publisher, Slot::MAX)).map(|((_, slot), name)| (*slot, name))
    }

    pub(super) fn revocations(&self, subject: &RevocationSubject) -> impl Iterator<Item = Slot> {
        self.revocations.get(subject).into_iter().flatten().copied()
    }

    /// Whether a kept record is signed by this key.
    pub(super) fn keeps_of(&self, key: &PublicKey) -> bool {
        self.kept_by_key.contains_key(key)
    }

    /// Moves a record's frame.
    pub(super) fn place(&mut self, slot: Slot, place: Place) {
        if let Some(held) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) {
            self.live_bytes = self.live_bytes - u64::from(held.place.bytes) + u64::from(place.bytes);
            held.place = place;
        }
    }

    /// Whether a record is charged from now on, or kept.
    pub(super) fn charge(&mut self, slot: Slot, is_charged: bool) {
        let Some(held) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        if std::mem::replace(&mut held.is_charged, is_charged) != is_charged {
            let signers = Arc::clone(&held.signers);
            self.count_kept(&signers, !is_charged);
        }
    }

    /// Puts in what is not there: a record of this body. Heads and delegations need to be verified. Where another version
    /// of it was `before`, what is found by that one is found by this one.
    pub(super) fn put(
        &mut self,
        mut held: Held,
        body: &Body,
        verified: Option<&SharedRecord>,
        before: Option<&Taken>,
    ) -> Slot {
        let slot = self.free.last().copied().unwrap_or(self.slots.len() as Slot);
        let mut taken_subject = None;
        let mut decoded = None;
        let (mut lent_by, mut unproven) = (None, None);
        held.kind = match (body, before.map(|before| before.held.kind)) {
            (Body::Release(_), Some(Kind::Release(row))) => {
                // Its words, and what the signatures take that came.
                if let Some(before) = before {
                    let added = held.signers.len().saturating_sub(before.held.signers.len());
                    held.cost = before.held.cost.saturating_add((added * SIGNATURE_BYTES) as u32);
                    lent_by = before.lent_by.filter(|publisher| !held.is_signed_by(publisher));
                }
                Kind::Release(row)
            }
            (Body::Release(release), _)
                if held.is_signed_by(&release.publisher)
                    || self.channels.is_lent(&release.publisher, &release.name, &held.signers) =>
            {
                lent_by = Some(release.publisher).filter(|publisher| !held.is_signed_by(publisher));
                let (row, words) = self.add_row(slot, release, held.issued);
                // A release has 160 words at most.
                held.cost = held.cost.saturating_add((words * WORD_BYTES) as u32);
                Kind::Release(row)
            }
            (Body::Release(release), _) => {
                unproven = Some(release.name.clone());
                Kind::Unproven(self.stands_for(&release.publisher))
            }
            (Body::Endorsement(endorsement), _) => Kind::Endorsement(self.stands_for(&endorsement.subject)),
            (Body::Advisory(advisory), _) => Kind::Advisory(self.stands_for(&*advisory.package)),
            (Body::Revocation(revocation), _) => {
                taken_subject = Some(revocation.subject);
                Kind::Revocation
            }
            (Body::Channel(_), _) if verified.is_some() => Kind::Head,
            (Body::Delegation(_), _) if verified.is_some() => Kind::Delegation,
            (Body::Opaque, _) => Kind::Opaque,
            _ => Kind::Other,
        };
        if matches!(held.kind, Kind::Head | Kind::Delegation) {
            decoded = verified.cloned();
        }
        self.put_back(Taken { held, subject: taken_subject, decoded, lent_by, unproven })
    }

    /// Puts back what was taken out.
    pub(super) fn put_back(&mut self, taken: Taken) -> Slot {
        let Taken { mut held, subject, decoded, lent_by, unproven } = taken;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as Slot
        });
        held.source = held.source.map(|source| self.sources.share(source));
        held.signers = self.signers.share(held.signers);
        self.live_bytes += u64::from(held.place.bytes);
        self.by_id.insert((beginning(&held.id.hash()), slot));
        self.by_sync_id.insert((beginning(&held.sync_id), slot));
        if let Some(set) = &mut self.sync_set {
            set.insert(held.issued, held.sync_id);
        }
        if !held.is_charged {
            self.count_kept(&held.signers, true);
        }
        match held.kind {
            Kind::Release(row) => {
                self.search.restore(row, slot);
                self.list_row(row);
            }
            Kind::Endorsement(subject) => {
                self.endorsements.insert((subject, slot));
            }
            Kind::Advisory(package) => {
                self.advisories.insert((package, slot));
            }
            Kind::Unproven(publisher) => self.unproven.extend(unproven.map(|name| ((publisher, slot), name))),
            Kind::Revocation | Kind::Head | Kind::Delegation | Kind::Other | Kind::Opaque => {}
        }
        if let Some(publisher) = lent_by {
            self.lent_by.insert(slot, publisher);
        }
        if let Some(subject) = subject {
            self.revocations.entry(subject).or_default().insert(slot);
            self.subjects.insert(slot, subject);
        }
        if let Some(record) = decoded {
            match held.kind {
                Kind::Head => self.channels.put(&record),
                _ => self.channels.put_delegation(&record),
            }
            self.decoded.insert(slot, record);
        }
        self.slots[slot as usize] = Some(held);
        slot
    }

    /// Takes a record out.
    pub(super) fn take(&mut self, slot: Slot) -> Option<Taken> {
        let held = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        self.live_bytes -= u64::from(held.place.bytes);
        self.by_id.remove(&(beginning(&held.id.hash()), slot));
        self.by_sync_id.remove(&(beginning(&held.sync_id), slot));
        if let Some(set) = &mut self.sync_set {
            set.remove(held.issued, held.sync_id);
        }
        if !held.is_charged {
            self.count_kept(&held.signers, false);
        }
        if let Kind::Release(row) = held.kind {
            self.unlist_row(row);
            self.search.remove(row);
        }
        if let Kind::Endorsement(subject) = held.kind {
            self.endorsements.remove(&(subject, slot));
        }
        if let Kind::Advisory(package) = held.kind {
            self.advisories.remove(&(package, slot));
        }
        let unproven = match held.kind {
            Kind::Unproven(publisher) => self.unproven.remove(&(publisher, slot)),
            _ => None,
        };
        let lent_by = self.lent_by.remove(&slot);
        let subject = self.subjects.remove(&slot);
        if let Some(subject) = &subject
            && let Some(slots) = self.revocations.get_mut(subject)
        {
            slots.remove(&slot);
            if slots.is_empty() {
                self.revocations.remove(subject);
            }
        }
        let decoded = self.decoded.remove(&slot);
        if let Some(record) = &decoded {
            match held.kind {
                Kind::Head => self.channels.take(record),
                _ => self.channels.take_delegation(record),
            }
        }
        held.source.iter().for_each(|source| self.sources.release(source));
        self.signers.release(&held.signers);
        Some(Taken { held, subject, decoded, lent_by, unproven })
    }

    fn add_row(&mut self, slot: Slot, release: &Release, issued: UnixSeconds) -> (RowNumber, usize) {
        let appliance = self.stands_for(&(&release.publisher, &release.name));
        let images: Vec<u64> = release.images().iter().map(|image| self.stands_for(image)).collect();
        self.search.add(slot, release, issued, appliance, &images)
    }

    fn list_row(&mut self, number: RowNumber) {
        let Some(row) = self.search.row(number) else { return };
        self.by_appliance.insert((row.appliance, number));
        self.by_image.extend(self.search.images(number).iter().map(|image| (*image, number)));
    }

    fn unlist_row(&mut self, number: RowNumber) {
        let Some(row) = self.search.row(number) else { return };
        self.by_appliance.remove(&(row.appliance, number));
        for image in self.search.images(number) {
            self.by_image.remove(&(*image, number));
        }
    }

    fn count_kept(&mut self, signers: &[PublicKey], comes: bool) {
        for key in signers {
            if comes {
                *self.kept_by_key.entry(*key).or_default() += 1;
            } else if let Some(count) = self.kept_by_key.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    self.kept_by_key.remove(key);
                }
            }
        }
    }

    fn stands_for(&self, value: &(impl StdHash + ?Sized)) -> u64 {
        self.secret.hash_one(value)
    }
}

/// The first 8 bytes of a hash, as a number of the same order.
fn beginning(hash: &Hash) -> u64 {
    hash.0.first_chunk().copied().map_or(0, u64::from_be_bytes)
}

fn slots_of(set: &BTreeSet<(u64, u32)>, stands_for: u64) -> impl Iterator<Item = u32> {
    set.range((stands_for, 0)..=(stands_for, u32::MAX)).map(|(_, slot)| *slot)
}
