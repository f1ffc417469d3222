//! What the index has of segments that are not sealed yet, for the next start: a sled tree.
//!
//! Entries go into it in blocks, as they are committed, because sled takes some 40 µs of processor time for each value.
//! Beside them, the tree keeps for each segment how much of it is indexed. Both change in one batch, so after a crash the
//! tree is at worst behind, and opening the store reads the rest from the segments.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rialto_protocol::ids::Hash;

use super::error::StoreError;
use super::run::{ENTRY_BYTES, entry_of, push_entry};
use super::runs::Dead;
use super::segment::{Key, Kind, Location};

/// Memory that sled may use as cache, in bytes. It is read only when the store is opened.
const CACHE_BYTES: u64 = 2 << 20;
/// Entries of a block: 28 KiB.
const BLOCK_ENTRIES: usize = 512;
/// How long to wait for a tree of this process that is still closing.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(10);
/// What the keys begin with: before the number of a block, the number of a segment, and an entry that is damaged.
const BLOCK: u8 = 1;
const MARK: u8 = 2;
const DEAD: u8 = 3;

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

/// Entries in the order in which they came, and how much of each segment they are.
type Loaded = (Vec<(Key, Location)>, BTreeMap<u32, Mark>);

#[derive(Debug)]
pub(super) struct Tree {
    tree: sled::Db,
    next_block: AtomicU64,
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
        let tree = Self { tree, next_block: AtomicU64::new(0), failed_marker, has_failed: AtomicBool::new(false) };
        let last = tree.note(tree.tree.scan_prefix([BLOCK]).next_back().transpose())?;
        let last = last.and_then(|(key, _)| key.get(1..)?.try_into().ok()).map(u64::from_be_bytes);
        tree.next_block.store(last.map_or(0, |last| last + 1), Ordering::Relaxed);
        Ok(tree)
    }

    /// The entries, in the order in which they came, and how much of each segment they are.
    pub(super) fn load(&self) -> Result<Loaded, StoreError> {
        let (mut entries, mut marks) = (Vec::new(), BTreeMap::new());
        for item in self.tree.scan_prefix([BLOCK]) {
            let (_, value) = self.note(item)?;
            entries.extend(value.chunks_exact(ENTRY_BYTES).filter_map(|bytes| entry_of(bytes).ok()));
        }
        for item in self.tree.scan_prefix([MARK]) {
            let (key, value) = self.note(item)?;
            let segment = key.get(1..).and_then(|id| id.try_into().ok()).map(u32::from_be_bytes);
            let part = |at: usize| value.get(at..at + 8).and_then(|part| part.try_into().ok()).map(u64::from_le_bytes);
            if let (Some(segment), Some(nonce), Some(length), Some(entries)) = (segment, part(0), part(8), part(16)) {
                marks.insert(segment, Mark { nonce, length, entries });
            }
        }
        Ok((entries, marks))
    }

    /// Adds entries, and says how much of their segments is here then.
    pub(super) fn add(&self, entries: &[(Key, Location)], marks: &BTreeMap<u32, Mark>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        self.add_to(&mut batch, entries, marks);
        self.note(self.tree.apply_batch(batch))
    }

    /// Puts entries and marks in the place of all there are.
    pub(super) fn replace(&self, entries: &[(Key, Location)], marks: &BTreeMap<u32, Mark>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for prefix in [BLOCK, MARK] {
            for key in self.tree.scan_prefix([prefix]).keys() {
                batch.remove(self.note(key)?);
            }
        }
        self.add_to(&mut batch, entries, marks);
        self.note(self.tree.apply_batch(batch))
    }

    fn add_to(&self, batch: &mut sled::Batch, entries: &[(Key, Location)], marks: &BTreeMap<u32, Mark>) {
        for entries in entries.chunks(BLOCK_ENTRIES) {
            let mut block = Vec::with_capacity(entries.len() * ENTRY_BYTES);
            entries.iter().for_each(|(key, location)| push_entry(&mut block, key, location));
            let number = self.next_block.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            batch.insert([&[BLOCK], &number[..]].concat(), block);
        }
        for (segment, mark) in marks {
            let value = [mark.nonce, mark.length, mark.entries].map(u64::to_le_bytes).concat();
            batch.insert([&[MARK], &segment.to_be_bytes()[..]].concat(), value);
        }
    }

    /// Notes an entry that is damaged, so that a later process does not take it for held.
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

fn dead_key((key, segment, offset): &Dead) -> Vec<u8> {
    [&[DEAD, key.kind as u8], &key.hash.0[..], &segment.to_be_bytes(), &offset.to_be_bytes()].concat()
}
