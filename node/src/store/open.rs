//! Opens a store, and brings its index up to date with its segments.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Mutex, RwLock};

use rustix::fs::{FlockOperation, flock};

use super::error::StoreError;
use super::index::{Index, Mark};
use super::journal::Journal;
use super::segment::{Found, Key, Location, SEGMENT_HEAD_BYTES, Segments};
use super::writer::Writer;
use super::{Inner, Options};

/// Segments are addressed with 32 bits.
const MAX_SEGMENT_BYTES: u64 = 2 << 30;
/// Entries found in a segment before they go into the index: bounds memory while rebuilding.
const SETTLE_ENTRIES: usize = 64 * 1024;

pub(super) fn open(folder: &Path, options: Options) -> Result<Inner, StoreError> {
    fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
    let lock = lock(folder)?;
    let journal = Journal::open(folder.join("images.journal"))?;
    let segments = Segments::open(folder.join("segments"))?;
    let index = Index::open(folder)?;
    let found = catch_up(&segments, &index)?;
    let roll_bytes = options.segment_bytes.clamp(1 << 20, MAX_SEGMENT_BYTES);
    let writer = Writer::new(&segments, &found, options.free_space_floor_bytes, roll_bytes)?;
    writer.set_quota(options.quota_bytes.unwrap_or(u64::MAX));
    Ok(Inner {
        folder: folder.to_owned(),
        segments,
        index,
        writer,
        journal: Mutex::new(journal),
        manifests: Mutex::new(VecDeque::new()),
        complete: Mutex::default(),
        reachable: RwLock::new(()),
        adding: Mutex::new(BTreeMap::new()),
        ledger: Mutex::default(),
        usage: Mutex::default(),
        held: Mutex::new(BTreeMap::new()),
        collecting: Mutex::new(()),
        _lock: lock,
    })
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(StoreError::io("create", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse(folder.to_owned())),
        Err(error) => Err(StoreError::io("lock", &path)(error.into())),
    }
}

/// Indexes what the index does not know of yet, and cuts off an unfinished tail. Returns the segments as they are then.
fn catch_up(segments: &Segments, index: &Index) -> Result<Vec<Found>, StoreError> {
    let mut found = segments.list()?;
    // Begun, and cut off before the first entry.
    for empty in found.extract_if(.., |found| found.length < SEGMENT_HEAD_BYTES) {
        segments.remove(empty.id)?;
    }
    let mut marks = index.marks()?;
    let is_ours = |(id, mark): (&u32, &Mark)| {
        found.iter().any(|found| found.id == *id && found.nonce == mark.nonce && found.length >= mark.length)
    };
    if !marks.iter().all(is_ours) {
        tracing::warn!("the index of the store does not belong to its segments; building it anew");
        index.clear()?;
        marks.clear();
    }
    let last = found.last().map(|found| found.id);
    for found in &mut found {
        let from = marks.get(&found.id).map_or(SEGMENT_HEAD_BYTES, |mark| mark.length);
        if from < found.length {
            found.length = index_segment(segments, index, *found, from, Some(found.id) == last)?;
        }
    }
    Ok(found)
}

/// Indexes a segment from `from` on and returns its length, which is shorter than before where a tail was cut off.
fn index_segment(
    segments: &Segments,
    index: &Index,
    found: Found,
    from: u64,
    is_last: bool,
) -> Result<u64, StoreError> {
    let mut entries: Vec<(Key, Location)> = Vec::new();
    let scan = segments.scan(found.id, (from, found.length), |location, entry| {
        entries.push((entry.key, location));
        if entries.len() == SETTLE_ENTRIES {
            index.settle(&entries, [])?;
            entries.clear();
        }
        Ok(())
    })?;
    let path = segments.path(found.id);
    let segment = path.display();
    if scan.damaged > 0 {
        tracing::warn!(%segment, bytes = scan.damaged, "skipped damaged entries; `rialto image verify` tells which images lack them");
    }
    if scan.unknown > 0 {
        tracing::warn!(%segment, entries = scan.unknown, "left entries of a later version alone");
    }
    let mut length = found.length;
    let torn = found.length - scan.good_end;
    if torn > 0 && is_last {
        tracing::warn!(%segment, bytes = torn, "cut off what was not finished when the node last stopped");
        segments.truncate(found.id, scan.good_end)?;
        length = scan.good_end;
    } else if torn > 0 {
        tracing::warn!(%segment, bytes = torn, "the end of this segment is damaged");
    }
    // Uncommitted bytes may have been found: from here on they are counted on.
    segments.sync(found.id)?;
    index.settle(&entries, [(found.id, Mark { nonce: found.nonce, length })])?;
    Ok(length)
}
