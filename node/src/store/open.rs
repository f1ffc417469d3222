//! Opens a store, and brings its index up to date with its segments.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use rustix::fs::{FlockOperation, flock};

use super::dependent::{KEPT_BYTES, Scope};
use super::error::StoreError;
use super::index::{Index, Mark};
use super::journal::Journal;
use super::rebuild::{Rebuilt, read_segment};
use super::run::Covered;
use super::segment::{Found, SEGMENT_HEAD_BYTES, Segments};
use super::writer::{SEGMENT_ENTRIES, Writer};
use super::{Inner, Options};
use crate::recent::Recent;

/// Segments are addressed with 32 bits.
const MAX_SEGMENT_BYTES: u64 = 2 << 30;

pub(super) fn open(folder: &Path, options: Options) -> Result<(Inner, Rebuilt), StoreError> {
    fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
    let lock = lock(folder)?;
    let journal = Journal::open(folder.join("images.journal"))?;
    let segments = Arc::new(Segments::open(folder.join("segments"))?);
    let mut found = segments.list()?;
    // Begun, and cut off before the first entry.
    for empty in found.extract_if(.., |found| found.length < SEGMENT_HEAD_BYTES) {
        segments.remove(empty.id)?;
    }
    let index = Index::open(folder, Arc::clone(&segments), &found)?;
    let roll_bytes = options.segment_bytes.clamp(1 << 20, MAX_SEGMENT_BYTES);
    let (found, active, rebuilt, scope) = catch_up(&segments, &index, found, roll_bytes)?;
    let writer = Writer::new(&segments, &found, active, options.free_space_floor_bytes, roll_bytes)?;
    writer.set_quota(options.quota_bytes.unwrap_or(u64::MAX));
    let inner = Inner {
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
        bases_read: Mutex::new(Recent::new(KEPT_BYTES)),
        collecting: Mutex::new(()),
        _lock: lock,
    };
    // Of what was garbage before, some comes back with a segment that is read again, and may depend on what does not. Of
    // what was never made durable, something may be lost on which what is left depends.
    if rebuilt.segments > 0 {
        inner.drop_dangling(scope)?;
    }
    Ok((inner, rebuilt))
}

/// Removes the index, and opens the store.
pub(super) fn rebuild(folder: &Path, options: Options) -> Result<(Inner, Rebuilt), StoreError> {
    // Nobody may have it open; it is locked again below.
    drop(lock(folder)?);
    let index = folder.join("index");
    match fs::remove_dir_all(&index) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", &index)(error)),
        _ => open(folder, options),
    }
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

/// The segments as they are, the last of them with its entries if it can be appended to, what was read, and of what.
type CaughtUp = (Vec<Found>, Option<(Found, u64)>, Rebuilt, Scope);

/// Indexes what the index does not know of yet, and cuts off an unfinished tail.
fn catch_up(
    segments: &Segments,
    index: &Index,
    mut found: Vec<Found>,
    roll_bytes: u64,
) -> Result<CaughtUp, StoreError> {
    let marks = index.marks();
    let sealed = index.sealed();
    let is_sealed = |id: &u32| sealed.binary_search(id).is_ok();

    let mut rebuilt = Rebuilt::default();
    let mut active = None;
    let last = found.last().copied().filter(|last| !is_sealed(&last.id));
    let continued = match last.filter(|last| last.length < roll_bytes) {
        // Who reads only the earlier version must not take this for one that it can read.
        Some(last) => segments.is_of_this_version(last.id)?.then_some(last),
        None => None,
    };
    if let Some(last) = continued {
        active = catch_up_last(segments, index, last, marks.get(&last.id), &mut rebuilt)?;
        found.pop();
        found.push(active.map_or(last, |(last, _)| last));
    }
    let active_id = active.map(|(active, _)| active.id);
    let mut unknown = Vec::new();
    for found in found.iter().filter(|found| !is_sealed(&found.id) && Some(found.id) != active_id) {
        match marks.get(&found.id) {
            Some(mark) if mark.length == found.length => {
                index.seal(Covered { segment: found.id, nonce: found.nonce, length: found.length });
            }
            _ => unknown.push(*found),
        }
    }
    let (read, more) = index.rebuild(&unknown, last.map(|last| last.id))?;
    rebuilt.add(&more);
    for read in &read {
        found.iter_mut().filter(|found| found.id == read.id).for_each(|found| *found = *read);
    }
    let read: Vec<u32> = read.iter().map(|read| read.id).filter(|id| marks.contains_key(id)).collect();
    if !read.is_empty() {
        index.leave_to_runs(read)?;
    }
    if let Some((full, _)) = active.take_if(|(_, entries)| *entries >= SEGMENT_ENTRIES) {
        index.seal(Covered { segment: full.id, nonce: full.nonce, length: full.length });
    }
    let scope = if unknown.is_empty() { Scope::Recent } else { Scope::All };
    Ok((found, active, rebuilt, scope))
}

/// Indexes what was appended to the last segment after its mark, in the tree. `None` where it has too many entries for that.
fn catch_up_last(
    segments: &Segments,
    index: &Index,
    last: Found,
    mark: Option<&Mark>,
    rebuilt: &mut Rebuilt,
) -> Result<Option<(Found, u64)>, StoreError> {
    let (from, before) = mark.map_or((SEGMENT_HEAD_BYTES, 0), |mark| (mark.length, mark.entries));
    if from == last.length && mark.is_some() {
        return Ok(Some((last, before)));
    }
    let mut entries = Vec::new();
    let read = read_segment(segments, &last, from, true, |key, location| {
        entries.push((key, location));
        // An earlier version did not limit them.
        if entries.len() as u64 > 2 * SEGMENT_ENTRIES { Err(StoreError::Cancelled) } else { Ok(()) }
    });
    let (length, read) = match read {
        Err(StoreError::Cancelled) => return Ok(None),
        read => read?,
    };
    rebuilt.add(&read);
    let all = before + entries.len() as u64;
    entries.iter().for_each(|(key, location)| index.add_recent(*key, *location));
    index.settle(&entries, [(last.id, Mark { nonce: last.nonce, length, entries: all })])?;
    Ok(Some((Found { length, ..last }, all)))
}
