//! The changing part of the index: a sled tree of the entries of segments that are not sealed yet, which bounds it.
//!
//! Beside the entries, the tree keeps for each of these segments how much of it is indexed. Both change in one batch, so
//! after a crash the tree is at worst behind, and opening the store reads the rest from the segments.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rialto_protocol::ids::Hash;
use rialto_protocol::image::encoding::Encoding;

use super::error::StoreError;
use super::runs::{self, Dead};
use super::segment::{Key, Kind, Location};

/// Memory that sled may use as cache, in bytes: an idle node is to stay small.
const CACHE_BYTES: u64 = 16 << 20;
/// Operations applied at once.
const BATCH_OPERATIONS: usize = 2048;
/// How long to wait for a tree of this process that is still closing.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(10);
const KEY_BYTES: usize = 33;
const LOCATION_BYTES: usize = 22;
/// Before the segment's number in the key of a mark; no kind has this number.
const MARK: u8 = 0xff;
/// Before an entry that is damaged.
const DEAD: u8 = 0xfe;

/// How much of a segment is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Tells a segment from another that had its number before.
    pub(super) nonce: u64,
    /// Up to where, in bytes.
    pub(super) length: u64,
    /// Entries up to there.
    pub(super) entries: u64,
}

#[derive(Debug)]
pub(super) struct Tree {
    tree: sled::Db,
    failed_marker: PathBuf,
    has_failed: AtomicBool,
}

impl Tree {
    /// Opens the tree at `path`, replacing it by an empty one where it is damaged. A file `failed_marker` says that it
    /// was found damaged by an earlier process.
    pub(super) fn open(path: &Path, failed_marker: PathBuf) -> Result<Self, StoreError> {
        if failed_marker.exists() {
            tracing::warn!("the index failed when the node last ran; building a part of it anew");
            remove(path)?;
        }
        let tree = match open_tree(path) {
            Ok(tree) => tree,
            Err(error) => {
                tracing::warn!(%error, "a part of the index cannot be read; building it anew");
                remove(path)?;
                open_tree(path)?
            }
        };
        if failed_marker.exists() {
            std::fs::remove_file(&failed_marker).map_err(StoreError::io("remove", &failed_marker))?;
        }
        Ok(Self { tree, failed_marker, has_failed: AtomicBool::new(false) })
    }

    pub(super) fn find(&self, key: &Key) -> Result<Option<Location>, StoreError> {
        let value = self.note(self.tree.get(key_bytes(key)))?;
        Ok(value.and_then(|value| location(&value)))
    }

    pub(super) fn insert(&self, entries: &[(Key, Location)]) -> Result<(), StoreError> {
        for entries in entries.chunks(BATCH_OPERATIONS) {
            let mut batch = sled::Batch::default();
            for (key, location) in entries {
                batch.insert(&key_bytes(key)[..], &location_bytes(location)[..]);
            }
            self.note(self.tree.apply_batch(batch))?;
        }
        Ok(())
    }

    pub(super) fn mark(&self, marks: impl IntoIterator<Item = (u32, Mark)>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (segment, mark) in marks {
            batch.insert(&mark_key(segment), [mark.nonce, mark.length, mark.entries].map(u64::to_le_bytes).concat());
        }
        self.note(self.tree.apply_batch(batch))
    }

    /// Removes an entry, unless it lies elsewhere. Returns whether it did.
    pub(super) fn remove(&self, key: &Key, location: &Location) -> Result<bool, StoreError> {
        let old = location_bytes(location);
        let swapped = self.note(self.tree.compare_and_swap(key_bytes(key), Some(&old[..]), None::<&[u8]>))?;
        Ok(swapped.is_ok())
    }

    /// Removes entries wherever they lie.
    pub(super) fn remove_all<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) -> Result<(), StoreError> {
        let mut keys = keys.into_iter().peekable();
        while keys.peek().is_some() {
            let mut batch = sled::Batch::default();
            keys.by_ref().take(BATCH_OPERATIONS).for_each(|key| batch.remove(&key_bytes(key)[..]));
            self.note(self.tree.apply_batch(batch))?;
        }
        Ok(())
    }

    /// Removes what says that a segment is indexed here. On disk when this returns, if there was such a thing.
    pub(super) fn unmark(&self, segment: u32) -> Result<(), StoreError> {
        match self.note(self.tree.remove(mark_key(segment)))? {
            Some(_) => self.flush(),
            None => Ok(()),
        }
    }

    /// The entries in the order of runs: those of some segments only, where they are named.
    pub(super) fn sorted(&self, segments: Option<&[u32]>) -> Result<Vec<(Key, Location)>, StoreError> {
        let mut entries = Vec::new();
        for kind in [Kind::Chunk, Kind::Page] {
            for item in self.tree.scan_prefix([kind as u8]) {
                let (key, value) = self.note(item)?;
                let hash = key.get(1..).and_then(|hash| <[u8; 32]>::try_from(hash).ok());
                if let (Some(hash), Some(location)) = (hash, location(&value))
                    && segments.is_none_or(|segments| segments.contains(&location.segment))
                {
                    entries.push((Key { kind, hash: Hash(hash) }, location));
                }
            }
        }
        runs::sort(&mut entries);
        Ok(entries)
    }

    /// How much of each segment is indexed here.
    pub(super) fn marks(&self) -> Result<BTreeMap<u32, Mark>, StoreError> {
        let mut marks = BTreeMap::new();
        for item in self.tree.scan_prefix([MARK]) {
            let (key, value) = self.note(item)?;
            let segment = key.get(1..).and_then(|id| id.try_into().ok()).map(u32::from_be_bytes);
            let part = |at: usize| value.get(at..at + 8).and_then(|part| part.try_into().ok()).map(u64::from_le_bytes);
            if let (Some(segment), Some(nonce), Some(length), Some(entries)) = (segment, part(0), part(8), part(16)) {
                marks.insert(segment, Mark { nonce, length, entries });
            }
        }
        Ok(marks)
    }

    /// Notes entries of runs that are damaged, so that a later process does not take them for held.
    pub(super) fn bury(&self, dead: &Dead) -> Result<(), StoreError> {
        self.note(self.tree.insert(dead_key(dead), &[])).map(drop)
    }

    /// Takes such notes away.
    pub(super) fn unbury<'a>(&self, dead: impl IntoIterator<Item = &'a Dead>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        dead.into_iter().for_each(|dead| batch.remove(dead_key(dead)));
        self.note(self.tree.apply_batch(batch))
    }

    /// The entries noted as damaged.
    pub(super) fn buried(&self) -> Result<Vec<Dead>, StoreError> {
        let mut buried = Vec::new();
        for item in self.tree.scan_prefix([DEAD]) {
            let (key, _) = self.note(item)?;
            let kind = [Kind::Chunk, Kind::Page].into_iter().find(|&kind| key.get(1) == Some(&(kind as u8)));
            let hash = key.get(2..34).and_then(|hash| <[u8; 32]>::try_from(hash).ok());
            let word = |at: usize| key.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_be_bytes);
            if let (Some(kind), Some(hash), Some(segment), Some(offset)) = (kind, hash, word(34), word(38)) {
                buried.push((Key { kind, hash: Hash(hash) }, segment, offset));
            }
        }
        Ok(buried)
    }

    /// Empties the tree.
    pub(super) fn clear(&self) -> Result<(), StoreError> {
        self.note(self.tree.clear())
    }

    /// Writes what changed to disk. Only saves reading segments at the next start.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.note(self.tree.flush()).map(drop)
    }

    /// Makes sure that a tree which failed once is not believed again.
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
            // The store's own lock is ours, so this can only be a tree of this process that is still being closed.
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

fn dead_key((key, segment, offset): &Dead) -> Vec<u8> {
    [&[DEAD], &key_bytes(key)[..], &segment.to_be_bytes(), &offset.to_be_bytes()].concat()
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
