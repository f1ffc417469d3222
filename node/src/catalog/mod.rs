//! The records this site knows: an append-only log, and an index that can be rebuilt from it.
//!
//! [`Catalog`] is what other rooms hold: cheap to clone, safe to share. In memory are an index and the heads of channels
//! with their delegations; a record that is looked up is read from the log and *verified again* (about 60 µs) where that
//! was not done lately, so what a catalog hands out never rests on what a disk says. Inserting blocks on the disk (one
//! fsync a batch): call it off the async threads.
//!
//! Records of signers that policy names are kept in full, and on them sites converge; so are this site's own. Everything
//! else shares a bounded part from which the oldest is evicted; records of unknown kinds and versions belong there too,
//! whoever signed them. A release that its publisher did not sign is kept and relayed, and found by its id only: it is
//! never listed under a name that it has no right to.

mod admission;
mod arrival;
mod budget;
mod channels;
mod dictionary;
mod found;
mod gossip;
mod hearing;
mod index;
mod interned;
mod log;
mod parallel;
mod remembered;
mod search;
#[cfg(test)]
mod tests;
mod verified;
mod words;

use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::{Name, Version};
use rialto_protocol::channel::ChannelName;
use rialto_protocol::ids::{Hash, ImageId, PublicKey, RecordId};
use rialto_protocol::record::Record;
use rialto_protocol::signed::{EnvelopeError, KnownKeys, Verified};
use rialto_protocol::sync::{Beginning, SyncSet};
use tokio::sync::watch;

pub use arrival::Arrival;
pub use gossip::{GossipVerdict, Ignored, gossip_verdict};
pub use hearing::Hearing;
pub use search::{Facets, Petname, Query};

use admission::{Changes, Holdings, replay};
use found::{AtHand, Found};
use index::Slot;
use log::{Log, MAX_SOURCE_BYTES, Place, START};
use parallel::{in_parallel, verify_all};
use verified::Lately;

/// A record of the catalog, shared.
pub type SharedRecord = Arc<Verified<Record>>;

/// The evictable part of the catalog, where the configuration does not say otherwise: 64 MiB.
pub const DEFAULT_BUDGET_BYTES: u64 = 64 << 20;
/// Characters of an id that are enough to ask for it, if no other begins alike. The first 7 are alike in every id.
pub const MIN_PREFIX_CHARS: usize = 12;
/// A log smaller than this is not worth compacting, whatever it holds: 1 MiB.
const WORTH_COMPACTING_BYTES: u64 = 1 << 20;

/// Why the catalog could not do something.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The disk did not do it.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried: a verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A log that is none, or of a newer format.
    #[error("{} is not a records log that this version reads; use the version of rialto that wrote it, or move the file away to start empty and catch up from peers", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
}

impl CatalogError {
    fn io(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }
}

/// Why an id or prefix finds no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// Too few characters.
    #[error("'{0}' is too short: give at least {MIN_PREFIX_CHARS} characters of the id")]
    TooShort(String),
    /// No record's id begins like this.
    #[error("no record's id begins with '{0}'")]
    NotFound(String),
    /// Several records' ids do.
    #[error("'{0}' begins the ids of several records; give more characters")]
    Ambiguous(String),
}

/// What became of a record that was to be inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was not known; it is now.
    New,
    /// It was known; signatures were added to it.
    Merged,
    /// It was known, and nothing was added.
    Duplicate,
    /// It is well-formed and signed, and was not taken.
    Ignored(Ignored),
    /// It is malformed or badly signed: whoever sent it misbehaved.
    Refused(EnvelopeError),
}

impl Outcome {
    /// Whether the catalog changed.
    pub fn is_change(&self) -> bool {
        matches!(self, Self::New | Self::Merged)
    }
}

/// The records this site knows.
#[derive(Debug, Clone)]
pub struct Catalog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Taken for the whole of an insertion, its fsync included. Always before `holdings`, never the other way round.
    log: Mutex<Log>,
    /// Held for moments only.
    holdings: RwLock<Holdings>,
    lately: Mutex<Lately>,
    /// Of whoever signed what was verified here.
    keys: KnownKeys,
    revision: watch::Sender<u64>,
}

impl Catalog {
    /// Opens the catalog in `directory`, or creates one there. Blocks: every record is read, about 40,000 a second.
    ///
    /// Nothing is evicted before [`Catalog::set_named`] was called for the first time.
    ///
    /// # Errors
    /// The log cannot be read or written, or is of a newer format. A torn or damaged log opens, with a warning.
    pub fn open(directory: &Path, federation: Name, budget_bytes: u64) -> Result<Self, CatalogError> {
        std::fs::create_dir_all(directory).map_err(|error| CatalogError::io("create", directory, error))?;
        let mut holdings = Holdings::new(federation, budget_bytes);
        let log = Log::open(directory, |frames| replay(&mut holdings, frames))?;
        holdings.reader = Some(log.reader());
        holdings.index.settle();
        holdings.prove_all_releases();
        let (revision, _) = watch::channel(0);
        let (log, holdings) = (Mutex::new(log), RwLock::new(holdings));
        Ok(Self {
            shared: Arc::new(Shared { log, holdings, lately: Mutex::default(), keys: KnownKeys::default(), revision }),
        })
    }

    /// Inserts one encoded envelope. Blocks on the disk; see [`Catalog::insert_batch`].
    ///
    /// # Errors
    /// The log cannot be written; the catalog is as before.
    pub fn insert(&self, envelope: &[u8], source: Option<&str>, now: UnixSeconds) -> Result<Outcome, CatalogError> {
        let outcomes = self.insert_batch(&[envelope], source, now)?;
        Ok(outcomes.into_iter().next().unwrap_or(Outcome::Duplicate))
    }

    /// Verifies and inserts encoded envelopes, with one fsync for all of them. Gives an outcome for each, in order.
    /// Blocks on the disk, and on verification (about 50 µs each).
    ///
    /// `source` is the peer that brought them; `None` means that this site made them, and keeps them always.
    ///
    /// # Errors
    /// The log cannot be written; the catalog is as before.
    pub fn insert_batch<B: AsRef<[u8]> + Sync>(
        &self,
        envelopes: &[B],
        source: Option<&str>,
        now: UnixSeconds,
    ) -> Result<Vec<Outcome>, CatalogError> {
        self.admit_all(verify_all(envelopes, &self.shared.keys), source, now)
    }

    /// Inserts records that were verified before. Otherwise like [`Catalog::insert_batch`].
    ///
    /// # Errors
    /// The log cannot be written; the catalog is as before.
    pub fn insert_verified(
        &self,
        records: Vec<Verified<Record>>,
        source: Option<&str>,
        now: UnixSeconds,
    ) -> Result<Vec<Outcome>, CatalogError> {
        self.admit_all(records.into_iter().map(Ok).collect(), source, now)
    }

    /// Takes the keys that policy names (signers and roles): their records are kept in full from now on. Records of keys
    /// that are named no longer become evictable. Blocks on the disk where something has to go.
    ///
    /// While a policy file is unreadable, do not call this: what the last good one named stays in force here.
    ///
    /// # Errors
    /// The log cannot be written. The keys are in force all the same; nothing is evicted.
    pub fn set_named(&self, keys: impl IntoIterator<Item = PublicKey>) -> Result<(), CatalogError> {
        let mut log = self.log();
        let mut changes = Changes::at(log.length());
        self.write().set_named(keys.into_iter().collect::<BTreeSet<_>>(), &mut changes);
        self.make_durable(&mut log, changes)
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.read().index.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that records take in the evictable part, their places in the indexes counted.
    pub fn evictable_bytes(&self) -> u64 {
        self.read().budget.used_bytes()
    }

    /// The record with this id.
    pub fn get(&self, id: &RecordId) -> Option<SharedRecord> {
        self.one(|holdings| holdings.index.slot(id))
    }

    /// The records of these ids that are known here, in this order: a page of them is read and verified on all cores.
    pub fn get_all(&self, ids: &[RecordId]) -> Vec<SharedRecord> {
        self.all(|holdings| ids.iter().filter_map(|id| holdings.index.slot(id)).collect())
    }

    /// When a record reached this site and from whom: first the record itself, then every later signature that was added
    /// to it. `None` where it is not known here.
    pub fn arrivals(&self, id: &RecordId) -> Option<Arc<[Arrival]>> {
        Some(self.with_arrivals(id)?.arrivals)
    }

    /// A record as it was known here at a time: with the signatures that had arrived by then; `None` where none had.
    /// What came when arrivals were not kept yet counts as known always.
    pub fn known_at(&self, id: &RecordId, at: UnixSeconds) -> Option<SharedRecord> {
        let AtHand { record, arrivals } = self.with_arrivals(id)?;
        let later = arrivals.iter().filter(|arrival| arrival.at.is_some_and(|arrived| arrived > at));
        let later: BTreeSet<PublicKey> = later.flat_map(|arrival| arrival.keys.iter().copied()).collect();
        match later.is_empty() {
            true => Some(record),
            false => record.without_signers(&later).map(Arc::new),
        }
    }

    fn with_arrivals(&self, id: &RecordId) -> Option<AtHand> {
        let found = {
            let holdings = self.read();
            holdings.index.slot(id).and_then(|slot| holdings.found(slot))?
        };
        match found {
            Found::AtHand(at_hand) => Some(at_hand),
            Found::InLog(address) => address.read(&self.shared.keys),
        }
    }

    /// The record whose id this is, or begins with this: at least [`MIN_PREFIX_CHARS`] characters.
    ///
    /// # Errors
    /// Too short, or it fits no record or several.
    pub fn find(&self, prefix: &str) -> Result<SharedRecord, FindError> {
        let shown = || prefix.chars().take(80).collect::<String>();
        if prefix.chars().count() < MIN_PREFIX_CHARS {
            return Err(FindError::TooShort(shown()));
        }
        let first = first_with_prefix(prefix).ok_or_else(|| FindError::NotFound(shown()))?;
        let found = {
            let holdings = self.read();
            let fits = |id: &RecordId| id.to_string().starts_with(prefix);
            // Ids that begin with the same 8 bytes as the first are in no order.
            let near = holdings.index.from(first).map(|held| held.id);
            let near = near.take_while(|id| id.hash().0[..8] == first.hash().0[..8] || fits(id));
            near.filter(fits).take(2).collect::<Vec<_>>()
        };
        match found[..] {
            [id] => self.get(&id).ok_or_else(|| FindError::NotFound(shown())),
            [] => Err(FindError::NotFound(shown())),
            _ => Err(FindError::Ambiguous(shown())),
        }
    }

    /// Releases in which every word of `words` begins a word, newest first: of name, publisher (the petname that `petname`
    /// gives, or the key's fingerprint), version, summary, description or tags. All of them for no words: each is read and
    /// verified, so [`Catalog::search`] is for whoever needs a page of them.
    pub fn releases(&self, words: &str, petname: impl Fn(&PublicKey) -> Option<String>) -> Vec<SharedRecord> {
        let query = Query { words, petname: Some(&petname), ..Query::default() };
        let found = self.read().newest(&query);
        found.iter().filter_map(|id| self.get(id)).collect()
    }

    /// Finds releases, newest first: how many there are, how many of which sort (of each sort the `most` commonest), and
    /// the ids of those from `skip` on, at most `limit`.
    pub fn search(&self, query: &Query<'_>, skip: usize, limit: usize, most: usize) -> Page {
        let holdings = self.read();
        let search = &holdings.index.search;
        let rows = search.find(query);
        let slots = search.newest_first(&rows).skip(skip).take(limit).filter_map(|row| Some(search.row(row)?.slot));
        Page {
            total: rows.len() as usize,
            facets: search.facets(&rows, most),
            releases: slots.filter_map(|slot| Some(holdings.index.held(slot)?.id)).collect(),
        }
    }

    /// The ids of all releases that their publisher signed, newest first.
    pub fn release_ids(&self) -> Vec<RecordId> {
        self.read().newest(&Query::default())
    }

    /// The releases of one version of an appliance, signed by `publisher`, the highest sequence first. Several where the
    /// publisher used a version twice.
    pub fn version(&self, publisher: &PublicKey, name: &Name, version: &Version) -> Vec<SharedRecord> {
        let mut found = self.all(|holdings| holdings.index.appliance(publisher, name));
        found.retain(|record| {
            let release = record.body.release();
            release.is_some_and(|of| of.publisher == *publisher && of.name == *name && of.version == *version)
        });
        found
    }

    /// Whether a release, signed by its publisher, names this image.
    pub fn is_released(&self, image: &ImageId) -> bool {
        self.read().index.image(image).next().is_some()
    }

    /// The releases that name this image.
    pub fn releases_of(&self, image: &ImageId) -> Vec<SharedRecord> {
        let mut found = self.all(|holdings| holdings.index.image(image).collect());
        found.retain(|record| record.body.release().is_some_and(|release| release.images().contains(image)));
        found
    }

    /// The other images of the appliances that this image belongs to, the latest releases' first: what it is probably
    /// like. At most `count`.
    pub fn relatives_of(&self, image: &ImageId, count: usize) -> Vec<ImageId> {
        let releases = self.ids(|holdings| holdings.index.relatives(image));
        self.newest_images(releases, count, Some(image))
    }

    /// The images of an appliance, those of the newest releases first; at most `count`.
    pub fn images_of_appliance(&self, publisher: &PublicKey, name: &Name, count: usize) -> Vec<ImageId> {
        let releases = self.ids(|holdings| holdings.index.appliance(publisher, name));
        self.newest_images(releases, count, None)
    }

    /// The images of releases, each once and without `other`; at most `count`. Reads no more releases than that takes.
    fn newest_images(&self, releases: Vec<RecordId>, count: usize, other: Option<&ImageId>) -> Vec<ImageId> {
        let mut images = Vec::new();
        for id in releases {
            if images.len() >= count {
                break;
            }
            let Some(record) = self.get(&id) else { continue };
            for image in record.body.release().iter().flat_map(|release| release.images()) {
                if images.len() < count && Some(&image) != other && !images.contains(&image) {
                    images.push(image);
                }
            }
        }
        images
    }

    /// The highest sequence among the releases of an appliance that are known here.
    pub fn highest_sequence(&self, publisher: &PublicKey, name: &Name) -> Option<u64> {
        self.read().index.highest_sequence(publisher, name)
    }

    /// The rightful heads of a channel: the highest, and where two contradict each other, the two. At most three, in one
    /// look-up.
    pub fn heads(&self, channel: &ChannelName) -> Vec<SharedRecord> {
        self.read().index.channels.heads(channel).cloned().collect()
    }

    /// The channels of one appliance that have a head.
    pub fn channels_of(&self, publisher: &PublicKey, name: &Name) -> Vec<ChannelName> {
        self.read().index.channels.of_appliance(publisher, name).cloned().collect()
    }

    /// Every channel that has a head, by publisher, appliance and name.
    pub fn channels(&self) -> Vec<ChannelName> {
        self.read().index.channels.names().cloned().collect()
    }

    /// The channels of one publisher that have a head.
    pub fn channels_by(&self, publisher: &PublicKey) -> Vec<ChannelName> {
        self.read().index.channels.of_publisher(publisher).cloned().collect()
    }

    /// Whoever has published a release or moved a channel, as far as is known here.
    pub fn publishers(&self) -> BTreeSet<PublicKey> {
        let state = self.read();
        let of_channels = state.index.channels.names().map(|channel| channel.publisher);
        state.index.search.publishers().copied().chain(of_channels).collect()
    }

    /// The publishers of whose heads and delegations some came since this was asked last; at first, all.
    pub fn moved(&self) -> BTreeSet<PublicKey> {
        self.write().index.channels.take_moved()
    }

    /// The delegations that bear on an appliance: the highest of each role that covers it, and those that the heads of its
    /// channels are signed under.
    pub fn delegations(&self, publisher: &PublicKey, name: &Name) -> Vec<SharedRecord> {
        self.read().index.channels.delegations(publisher, name)
    }

    /// The delegations, replaced or expired as they may be, by which a publisher lent its releases of this name to one of these
    /// keys.
    pub fn lent_once(&self, publisher: &PublicKey, name: &Name, keys: &[PublicKey]) -> Vec<SharedRecord> {
        self.read().index.channels.lent_once(publisher, name, keys)
    }

    /// All delegations that a publisher signed, the highest sequence first.
    pub fn delegations_by(&self, publisher: &PublicKey) -> Vec<SharedRecord> {
        self.read().index.channels.all_delegations(publisher).cloned().collect()
    }

    /// What is here to be reconciled with a peer: as it is now, whatever comes later. Costs next to nothing.
    pub fn sync_set(&self) -> SyncSet {
        self.read().index.sync_set()
    }

    /// The encoded envelope behind a sync id, or what begins one: that version, or one with its signatures and more.
    pub fn envelope(&self, sync_id: impl Into<Beginning>) -> Option<Vec<u8>> {
        let found = {
            let holdings = self.read();
            holdings.behind(&sync_id.into()).and_then(|slot| holdings.found(slot))?
        };
        match found {
            Found::AtHand(at_hand) => Some(at_hand.record.envelope().encode()),
            Found::InLog(address) => address.envelope(),
        }
    }

    /// Whether every version whose sync id is this, or begins so, is lacking here and would be taken: none is known, evicted
    /// or refused lately.
    pub fn is_wanted(&self, sync_id: impl Into<Beginning>, now: UnixSeconds) -> bool {
        self.read().is_wanted(&sync_id.into(), now)
    }

    /// A counter that changes whenever records come or go.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    fn admit_all(
        &self,
        records: Vec<Result<Verified<Record>, EnvelopeError>>,
        source: Option<&str>,
        now: UnixSeconds,
    ) -> Result<Vec<Outcome>, CatalogError> {
        let source = source.map(peer_name);
        let mut log = self.log();
        let mut changes = Changes::at(log.length());
        let mut outcomes = Vec::with_capacity(records.len());
        {
            let mut holdings = self.write();
            for record in records {
                outcomes.push(match record {
                    Ok(record) => holdings.admit(record, source.as_ref(), now, &mut changes),
                    Err(error) => Outcome::Refused(error),
                });
            }
        }
        self.make_durable(&mut log, changes)?;
        Ok(outcomes)
    }

    /// Appends what a batch did to the log, or undoes it; then tells whoever waits for changes.
    fn make_durable(&self, log: &mut Log, changes: Changes) -> Result<(), CatalogError> {
        if changes.is_empty() {
            return Ok(());
        }
        let written = log.append(&changes.frames);
        {
            let mut holdings = self.write();
            match written {
                Ok(()) => {
                    holdings.written();
                    holdings.index.tidy();
                }
                Err(_) => holdings.undo(changes),
            }
        }
        // Also after an undo: a sync set may have been made of what is no longer so.
        self.shared.revision.send_modify(|revision| *revision += 1);
        written?;
        let garbage = log.length().saturating_sub(self.read().live_bytes());
        if log.length() > WORTH_COMPACTING_BYTES && garbage > log.length() / 2 && log.may_be_rewritten() {
            // The log as it is stays good where this fails.
            if let Err(error) = self.compact(log) {
                log.was_not_rewritten();
                tracing::warn!(%error, "the records log could not be compacted");
            }
        }
        Ok(())
    }

    /// Writes the log anew, with nothing but what is present, in order of arrival, and what is remembered of others. Records can be
    /// looked up meanwhile.
    fn compact(&self, log: &mut Log) -> Result<(), CatalogError> {
        let reader = log.reader();
        let (remembered, present) = {
            let holdings = self.read();
            (holdings.remembered_frames(), holdings.in_order())
        };
        let mut at = START + remembered.len() as u64;
        let records = present.iter().map(|(_, place)| reader.bytes(*place));
        // Nobody else changes anything: the log is ours.
        log.rewrite(std::iter::once(Ok(remembered)).chain(records))?;
        let mut holdings = self.write();
        for (slot, place) in present {
            holdings.index.place(slot, Place { at, ..place });
            at += u64::from(place.bytes);
        }
        holdings.reader = Some(log.reader());
        Ok(())
    }

    fn ids(&self, find: impl FnOnce(&Holdings) -> Vec<Slot>) -> Vec<RecordId> {
        let holdings = self.read();
        find(&holdings).into_iter().filter_map(|slot| Some(holdings.index.held(slot)?.id)).collect()
    }

    /// The record in the slot that is found, verified.
    fn one(&self, find: impl FnOnce(&Holdings) -> Option<Slot>) -> Option<SharedRecord> {
        let found = {
            let holdings = self.read();
            find(&holdings).and_then(|slot| holdings.found(slot))?
        };
        self.verified(&found)
    }

    /// The records in the slots that are found, verified, by their ids.
    fn said(&self, find: impl FnOnce(&Holdings) -> Vec<Slot>) -> Said {
        let mut sought = 0;
        let mut records = self.all(|holdings| {
            let slots = find(holdings);
            sought = slots.len();
            slots
        });
        records.sort_by_key(|record| record.id);
        Said { unreadable: sought - records.len(), records }
    }

    /// The records in the slots that are found, verified.
    fn all(&self, find: impl FnOnce(&Holdings) -> Vec<Slot>) -> Vec<SharedRecord> {
        let found: Vec<Found> = {
            let holdings = self.read();
            find(&holdings).into_iter().filter_map(|slot| holdings.found(slot)).collect()
        };
        let verified = in_parallel(&found, |part| part.iter().map(|found| self.verified(found)).collect());
        verified.into_iter().flatten().collect()
    }

    fn verified(&self, found: &Found) -> Option<SharedRecord> {
        let address = match found {
            Found::AtHand(at_hand) => return Some(Arc::clone(&at_hand.record)),
            Found::InLog(address) => address,
        };
        let lately = || self.shared.lately.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = lately().get(&address.sync_id) {
            return Some(record);
        }
        let record = address.read(&self.shared.keys)?.record;
        lately().put(address.sync_id, Arc::clone(&record));
        Some(record)
    }

    // A thread that panicked while it held a lock left nothing half-done that the log does not mend at the next open.
    fn log(&self) -> MutexGuard<'_, Log> {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, Holdings> {
        self.shared.holdings.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Holdings> {
        self.shared.holdings.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is said of something, by id. Nothing that speaks against a release may be missed because a disk has lost it, so what
/// cannot be read is counted.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// The records.
    pub records: Vec<SharedRecord>,
    /// How many more the catalog holds that cannot be read.
    pub unreadable: usize,
}

impl Deref for Said {
    type Target = [SharedRecord];

    fn deref(&self) -> &[SharedRecord] {
        &self.records
    }
}

impl IntoIterator for Said {
    type Item = SharedRecord;
    type IntoIter = std::vec::IntoIter<SharedRecord>;

    fn into_iter(self) -> Self::IntoIter {
        self.records.into_iter()
    }
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// How many there are in all.
    pub total: usize,
    /// How many of them are of which sort.
    pub facets: Facets,
    /// The ids that were asked for, newest first.
    pub releases: Vec<RecordId>,
}

/// A peer as the log can write it. Nothing that a peer is called makes its records our own.
fn peer_name(source: &str) -> Arc<str> {
    let end = source.floor_char_boundary(MAX_SOURCE_BYTES);
    Arc::from(if source.is_empty() { "?" } else { &source[..end] })
}

/// The lowest id whose text begins with this; `None` where no id's text can.
///
/// An id's text is `b` and the base32 of 36 bytes, of which the first 4 are the same in every id and 32 are the hash.
fn first_with_prefix(prefix: &str) -> Option<RecordId> {
    const ID_BYTES: usize = 36;
    let mut bytes = [0u8; ID_BYTES];
    for (place, c) in prefix.strip_prefix('b')?.bytes().enumerate() {
        let value = match c {
            b'a'..=b'z' => c - b'a',
            b'2'..=b'7' => c - b'2' + 26,
            _ => return None,
        };
        for bit in 0..5 {
            let at = place * 5 + bit;
            if value & (0x10 >> bit) != 0 {
                *bytes.get_mut(at / 8)? |= 0x80 >> (at % 8);
            }
        }
    }
    let hash: [u8; 32] = bytes[ID_BYTES - 32..].try_into().ok()?;
    Some(RecordId::from_hash(Hash(hash)))
}
