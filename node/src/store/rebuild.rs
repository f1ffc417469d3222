//! Reads sealed segments and makes a run of what they hold, on all processors.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::error::StoreError;
use super::run::{Covered, Run};
use super::runs::{self, Runs, Shaping, Trouble};
use super::segment::{Found, Key, Kind, Location, SEGMENT_HEAD_BYTES, Segments};

/// Entries that a thread gathers before it sorts and writes them: 10 MiB of memory.
const PART_ENTRIES: usize = 128 * 1024;
/// Threads, at most: a disk cannot feed more.
const MAX_WORKERS: usize = 8;

/// What was found while the index was built from the segments.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rebuilt {
    /// Segments that were read.
    pub segments: u64,
    /// Good entries: chunks, in all their copies.
    pub chunks: u64,
    /// Good entries: pages of manifests, in all their copies.
    pub pages: u64,
    /// Entries of a later version, which are left alone.
    pub unknown: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Bytes of entries that are damaged. They are left where they are, and not found any more.
    pub damaged_bytes: u64,
    /// Bytes at the end of the last segment that were never finished, and were cut off.
    pub cut_bytes: u64,
}

impl Rebuilt {
    pub(super) fn add(&mut self, other: &Self) {
        self.segments += other.segments;
        self.chunks += other.chunks;
        self.pages += other.pages;
        self.unknown += other.unknown;
        self.bytes += other.bytes;
        self.damaged_bytes += other.damaged_bytes;
        self.cut_bytes += other.cut_bytes;
    }
}

/// Reads a segment from `from` on, gives each good entry to `sink`, and returns the segment's length, which is shorter
/// than before where an unfinished end was cut off.
pub(super) fn read_segment(
    segments: &Segments,
    found: &Found,
    from: u64,
    is_last: bool,
    mut sink: impl FnMut(Key, Location) -> Result<(), StoreError>,
) -> Result<(u64, Rebuilt), StoreError> {
    let mut rebuilt = Rebuilt { segments: 1, bytes: found.length - from, ..Rebuilt::default() };
    let scan = segments.scan(found.id, (from, found.length), |location, entry| {
        match entry.key.kind {
            Kind::Chunk => rebuilt.chunks += 1,
            Kind::Page => rebuilt.pages += 1,
        }
        sink(entry.key, location)
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
    (rebuilt.unknown, rebuilt.damaged_bytes) = (scan.unknown, scan.damaged);
    if torn > 0 && is_last {
        tracing::warn!(%segment, bytes = torn, "cut off what was not finished when the node last stopped");
        segments.truncate(found.id, scan.good_end)?;
        length = scan.good_end;
        rebuilt.cut_bytes = torn;
    } else if torn > 0 {
        tracing::warn!(%segment, bytes = torn, "the end of this segment is damaged");
        rebuilt.damaged_bytes += torn;
    }
    // Uncommitted bytes may have been found: from here on they are counted on.
    segments.sync(found.id)?;
    Ok((length, rebuilt))
}

/// Makes a run of sealed segments, whose old runs speak for them no more. `last` is the last segment of the store, whose
/// end may be unfinished. Returns the segments as they are then. Memory: 10 MiB a thread, and 4 MiB to merge.
pub(super) fn rebuild(
    segments: &Segments,
    runs: &Runs,
    shaping: &mut Shaping,
    found: &[Found],
    last: Option<u32>,
) -> Result<(Vec<Found>, Rebuilt), Trouble> {
    if found.is_empty() {
        return Ok(<_>::default());
    }
    let workers = thread::available_parallelism().map_or(2, usize::from).min(MAX_WORKERS).min(found.len());
    let (next, number) = (AtomicUsize::new(0), Mutex::new(&mut *shaping));
    let work = || -> Result<Work, StoreError> {
        let mut work = Work::default();
        let mut gathered = Vec::new();
        while let Some(found) = found.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (length, rebuilt) =
                read_segment(segments, found, SEGMENT_HEAD_BYTES, Some(found.id) == last, |key, location| {
                    gathered.push((key, location));
                    if gathered.len() == PART_ENTRIES { work.write(runs, &number, &mut gathered) } else { Ok(()) }
                })?;
            work.read.push(Found { length, ..*found });
            work.rebuilt.add(&rebuilt);
        }
        work.write(runs, &number, &mut gathered)?;
        Ok(work)
    };
    let work = &work;
    let done = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let mut all = Work::default();
    for work in done {
        all.parts.extend(work.parts);
        all.read.extend(work.read);
        all.rebuilt.add(&work.rebuilt);
    }
    all.read.sort_by_key(|found| found.id);
    let covered = |found: &Found| Covered { segment: found.id, nonce: found.nonce, length: found.length };
    let covered: Vec<Covered> = all.read.iter().map(covered).collect();
    runs.merge_parts(shaping, all.parts, &covered)?;
    Ok((all.read, all.rebuilt))
}

/// What one thread did.
#[derive(Default)]
struct Work {
    parts: Vec<Run>,
    read: Vec<Found>,
    rebuilt: Rebuilt,
}

impl Work {
    fn write(
        &mut self,
        runs: &Runs,
        number: &Mutex<&mut Shaping>,
        gathered: &mut Vec<(Key, Location)>,
    ) -> Result<(), StoreError> {
        if gathered.is_empty() {
            return Ok(());
        }
        runs::sort(gathered);
        let number = number.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.parts.push(runs.part(number, gathered)?);
        gathered.clear();
        Ok(())
    }
}
