//! Where each entry lies: a sled tree that can be deleted at any time, and the entries not yet in it.
//!
//! Beside the entries, the tree keeps for each segment how much of it is indexed. Both change in one batch, so after a
//! crash the tree is at worst behind, and opening the store reads the rest from the segments.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use rialto_protocol::ids::Hash;
use rialto_protocol::image::encoding::Encoding;

use super::error::StoreError;
use super::segment::{Key, Kind, Location};

/// Memory that sled may use as cache, in bytes: an idle node is to stay small.
const CACHE_BYTES: u64 = 16 << 20;
/// Operations applied to the tree at once.
const BATCH_OPERATIONS: usize = 2048;
/// How long to wait for an index of this process that is still closing.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(10);
const KEY_BYTES: usize = 33;
const LOCATION_BYTES: usize = 22;
/// Before the segment's number in the key of a mark; no kind has this number.
const MARK: u8 = 0xff;
/// Present after the index failed: it is then built anew.
const FAILED_MARKER: &str = "index-failed";

/// How much of a segment is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Tells a segment from another that had its number before.
    pub(super) nonce: u64,
    /// Up to where, in bytes.
    pub(super) length: u64,
}

#[derive(Debug)]
pub(super) struct Index {
    tree: sled::Db,
    recent: RwLock<HashMap<Key, Location>>,
    failed_marker: PathBuf,
    has_failed: AtomicBool,
}

impl Index {
    /// Opens the index below `folder`, replacing it by an empty one where it is damaged.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("index");
        let failed_marker = folder.join(FAILED_MARKER);
        if failed_marker.exists() {
            tracing::warn!("the index failed when the node last ran; building it anew");
            remove(&path)?;
        }
        let tree = match open_tree(&path) {
            Ok(tree) => tree,
            Err(error) => {
                tracing::warn!(%error, "the index of the store cannot be read; building it anew");
                remove(&path)?;
                open_tree(&path)?
            }
        };
        if failed_marker.exists() {
            std::fs::remove_file(&failed_marker).map_err(StoreError::io("remove", &failed_marker))?;
        }
        let recent = RwLock::new(HashMap::new());
        Ok(Self { tree, recent, failed_marker, has_failed: AtomicBool::new(false) })
    }

    /// Where the entry lies, whether or not it is committed.
    pub(super) fn find(&self, key: &Key) -> Result<Option<Location>, StoreError> {
        if let Some(location) = self.find_recent(key) {
            return Ok(Some(location));
        }
        let value = self.note(self.tree.get(key_bytes(key)))?;
        Ok(value.and_then(|value| location(&value)))
    }

    /// Where the entry lies, if it is not committed.
    pub(super) fn find_recent(&self, key: &Key) -> Option<Location> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Remembers an entry that is not committed yet.
    pub(super) fn add_recent(&self, key: Key, location: Location) {
        self.recent.write().unwrap_or_else(PoisonError::into_inner).insert(key, location);
    }

    /// Moves entries whose bytes are on disk into the tree, and then the marks that say so.
    pub(super) fn settle(
        &self,
        entries: &[(Key, Location)],
        marks: impl IntoIterator<Item = (u32, Mark)>,
    ) -> Result<(), StoreError> {
        for entries in entries.chunks(BATCH_OPERATIONS) {
            let mut batch = sled::Batch::default();
            for (key, location) in entries {
                batch.insert(&key_bytes(key)[..], &location_bytes(location)[..]);
            }
            self.note(self.tree.apply_batch(batch))?;
        }
        let mut batch = sled::Batch::default();
        for (segment, mark) in marks {
            let value = [mark.nonce.to_le_bytes(), mark.length.to_le_bytes()].concat();
            batch.insert(&mark_key(segment), value);
        }
        self.note(self.tree.apply_batch(batch))?;
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        for (key, location) in entries {
            if recent.get(key) == Some(location) {
                recent.remove(key);
            }
        }
        Ok(())
    }

    /// Forgets an entry, unless it lies elsewhere by now.
    pub(super) fn forget(&self, key: &Key, location: &Location) -> Result<(), StoreError> {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        if recent.get(key) == Some(location) {
            recent.remove(key);
        }
        drop(recent);
        let old = location_bytes(location);
        // A mismatch means that it lies elsewhere, or nowhere: both are well.
        self.note(self.tree.compare_and_swap(key_bytes(key), Some(&old[..]), None::<&[u8]>)).map(drop)
    }

    /// Forgets entries that nothing refers to any more.
    pub(super) fn forget_all(&self, entries: &[Key]) -> Result<(), StoreError> {
        for entries in entries.chunks(BATCH_OPERATIONS) {
            let mut batch = sled::Batch::default();
            entries.iter().for_each(|key| batch.remove(&key_bytes(key)[..]));
            self.note(self.tree.apply_batch(batch))?;
        }
        Ok(())
    }

    /// Forgets a segment that is about to be removed. On disk when this returns.
    pub(super) fn forget_segment(&self, segment: u32) -> Result<(), StoreError> {
        self.note(self.tree.remove(mark_key(segment)))?;
        self.flush()
    }

    /// Visits every committed entry.
    pub(super) fn for_each(
        &self,
        mut visit: impl FnMut(Key, Location) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for kind in [Kind::Chunk, Kind::Page] {
            for item in self.tree.scan_prefix([kind as u8]) {
                let (key, value) = self.note(item)?;
                let hash = key.get(1..).and_then(|hash| <[u8; 32]>::try_from(hash).ok());
                if let (Some(hash), Some(location)) = (hash, location(&value)) {
                    visit(Key { kind, hash: Hash(hash) }, location)?;
                }
            }
        }
        Ok(())
    }

    /// The entries that are not committed yet.
    pub(super) fn recent(&self) -> Vec<(Key, Location)> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        recent.iter().map(|(key, location)| (*key, *location)).collect()
    }

    /// How much of each segment is indexed.
    pub(super) fn marks(&self) -> Result<BTreeMap<u32, Mark>, StoreError> {
        let mut marks = BTreeMap::new();
        for item in self.tree.scan_prefix([MARK]) {
            let (key, value) = self.note(item)?;
            let segment = key.get(1..).and_then(|id| id.try_into().ok()).map(u32::from_be_bytes);
            let half = |at: usize| value.get(at..at + 8).and_then(|half| half.try_into().ok()).map(u64::from_le_bytes);
            if let (Some(segment), Some(nonce), Some(length)) = (segment, half(0), half(8)) {
                marks.insert(segment, Mark { nonce, length });
            }
        }
        Ok(marks)
    }

    /// Empties the tree, to be filled from the segments.
    pub(super) fn clear(&self) -> Result<(), StoreError> {
        self.note(self.tree.clear())
    }

    /// Writes what is settled to disk. Only saves reading segments at the next start.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.note(self.tree.flush()).map(drop)
    }

    /// Makes sure that an index which failed once is not believed again.
    fn note<T>(&self, result: sled::Result<T>) -> Result<T, StoreError> {
        if result.is_err() && !self.has_failed.swap(true, Ordering::Relaxed) {
            let _ = std::fs::write(&self.failed_marker, b"");
        }
        Ok(result?)
    }
}

fn open_tree(path: &Path) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        // Truth is in the segments: nothing is lost when the index is written late.
        .flush_every_ms(None);
    let deadline = Instant::now() + CLOSING_TIMEOUT;
    loop {
        // sled panics on some kinds of damage.
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(tree)) => return Ok(tree),
            // The store's own lock is ours, so this can only be an index of this process that is still being closed.
            Ok(Err(error)) if error.to_string().contains("could not acquire lock") && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(sled::Error::ReportableBug("it panicked while opening".into()).into()),
        }
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn key_bytes(key: &Key) -> [u8; KEY_BYTES] {
    let mut bytes = [key.kind as u8; KEY_BYTES];
    bytes[1..].copy_from_slice(&key.hash.0);
    bytes
}

fn mark_key(segment: u32) -> [u8; 5] {
    let [a, b, c, d] = segment.to_be_bytes();
    [MARK, a, b, c, d]
}

fn location_bytes(location: &Location) -> [u8; LOCATION_BYTES] {
    let mut bytes = [0; LOCATION_BYTES];
    let words = [location.segment, location.offset, location.stored, location.plain, location.crc];
    for (at, word) in words.into_iter().enumerate() {
        bytes[4 * at..][..4].copy_from_slice(&word.to_le_bytes());
    }
    bytes[20] = location.encoding.code();
    bytes[21] = location.features_length;
    bytes
}

fn location(bytes: &[u8]) -> Option<Location> {
    let word = |at: usize| bytes.get(4 * at..4 * at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
    Some(Location {
        segment: word(0)?,
        offset: word(1)?,
        stored: word(2)?,
        plain: word(3)?,
        crc: word(4)?,
        encoding: Encoding::try_from(*bytes.get(20)?).ok()?,
        features_length: *bytes.get(21)?,
    })
}
