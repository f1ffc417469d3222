//! Appends entries to the newest segment, in large writes, and commits them in groups.
//!
//! An appended entry can be found and read at once. It survives a crash once [`Writer::commit`] has returned.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::StoreError;
use super::index::{Index, Mark};
use super::run::Covered;
use super::segment::{Entry, Found, Key, Location, SEGMENT_HEAD_BYTES, Segments, position};

/// Bytes collected before they are given to the operating system.
const BUFFER_BYTES: usize = 2 << 20;
/// Uncommitted bytes after which an append commits by itself: bounds what a crash loses, and memory for the index's debts.
const COMMIT_BYTES: u64 = 256 << 20;
/// Uncommitted entries after which it does too, for the same reasons: 16 MiB of memory.
const COMMIT_ENTRIES: usize = 64 * 1024;
/// Entries of a full segment: more are only had by chunks that shrink a lot, and would make the index's tree large.
pub(super) const SEGMENT_ENTRIES: u64 = 128 * 1024;
/// Bytes written before the free space is looked up again.
const BUDGET_BYTES: u64 = 64 << 20;

/// What an append leaves alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Floor {
    /// The free-space floor, the quota, and what is set aside for others.
    Respect,
    /// The free-space floor and the quota: what it needs was set aside for it.
    Reserved,
    /// For collecting garbage, which frees more than it writes.
    Ignore,
}

#[derive(Debug)]
pub(super) struct Writer {
    state: Mutex<State>,
    /// Held during a commit, so that the marks of a later one cannot overtake.
    committing: Mutex<()>,
    /// [`position`] up to which bytes are in files; what lies beyond is in the buffer.
    written: AtomicU64,
    floor: AtomicU64,
    /// Bytes that the segments may take together.
    quota: AtomicU64,
    /// Bytes that are set aside.
    reserved: AtomicU64,
    roll_bytes: u64,
}

#[derive(Debug)]
struct State {
    active: Option<Active>,
    /// Appended to the active segment, and not yet written to it.
    buffer: Vec<u8>,
    /// Appended since the last commit.
    appended: Vec<(Key, Location)>,
    uncommitted_bytes: u64,
    /// Full segments that were not fsynced since their last bytes.
    sealed: Vec<Active>,
    next_segment: u32,
    /// Bytes that may be appended before the free space must be looked up: without space of its own, and with it.
    budgets: [u64; 2],
    has_failed: bool,
    lengths: BTreeMap<u32, u64>,
}

#[derive(Debug, Clone)]
struct Active {
    id: u32,
    nonce: u64,
    file: Arc<File>,
    /// Bytes in the file.
    written: u64,
    /// Entries in the file and in the buffer.
    entries: u64,
}

impl Active {
    fn mark(&self) -> (u32, Mark) {
        (self.id, Mark { nonce: self.nonce, length: self.written, entries: self.entries })
    }

    fn covered(&self) -> Covered {
        Covered { segment: self.id, nonce: self.nonce, length: self.written }
    }
}

/// What bounds the store, in bytes.
#[derive(Debug, Clone, Copy)]
struct Space {
    free: u64,
    floor: u64,
    /// Not written yet, so still counted as free.
    buffered: u64,
    quota: u64,
    stored: u64,
}

impl Space {
    /// What can still be stored, where so much is set aside.
    fn room(&self, reserved: u64) -> u64 {
        let on_disk = self.free.saturating_sub(self.floor).saturating_sub(self.buffered);
        on_disk.min(self.quota.saturating_sub(self.stored)).saturating_sub(reserved)
    }

    fn refuse(&self, segments: &Segments, needed: u64, reserved: u64) -> StoreError {
        let Self { free, floor, quota, stored, .. } = *self;
        if quota.saturating_sub(stored).saturating_sub(reserved) < needed {
            return StoreError::OverQuota { quota, stored, reserved, needed };
        }
        StoreError::DiskFull { path: segments.folder().to_owned(), free, floor, reserved, needed }
    }
}

impl Writer {
    /// Continues after the segments found, appending to `active`, the last of them, which has so many entries.
    pub(super) fn new(
        segments: &Segments,
        found: &[Found],
        active: Option<(Found, u64)>,
        floor: u64,
        roll_bytes: u64,
    ) -> Result<Self, StoreError> {
        let active = match active {
            Some((Found { id, nonce, length }, entries)) => {
                Some(Active { id, nonce, file: segments.file(id)?, written: length, entries })
            }
            None => None,
        };
        let next_segment = found.last().map_or(1, |last| last.id + 1);
        let written = found.last().map_or(0, |last| position(last.id, last.length));
        let state = State {
            active,
            buffer: Vec::new(),
            appended: Vec::new(),
            uncommitted_bytes: 0,
            sealed: Vec::new(),
            next_segment,
            budgets: [0; 2],
            has_failed: false,
            lengths: found.iter().map(|found| (found.id, found.length)).collect(),
        };
        Ok(Self {
            state: Mutex::new(state),
            committing: Mutex::new(()),
            written: AtomicU64::new(written),
            floor: AtomicU64::new(floor),
            quota: AtomicU64::new(u64::MAX),
            reserved: AtomicU64::new(0),
            roll_bytes,
        })
    }

    /// Appends an entry, unless there is one of its name. Returns whether it was new.
    pub(super) fn append(
        &self,
        segments: &Segments,
        index: &Index,
        entry: &Entry<'_>,
        floor: Floor,
    ) -> Result<bool, StoreError> {
        let mut state = self.state();
        if index.find_recent(&entry.key).is_some() {
            return Ok(false);
        }
        self.append_locked(&mut state, segments, index, entry, floor)?;
        let is_much = state.uncommitted_bytes >= COMMIT_BYTES || state.appended.len() >= COMMIT_ENTRIES;
        drop(state);
        if is_much && let Ok(committing) = self.committing.try_lock() {
            self.commit_locked(segments, index, &committing)?;
        }
        Ok(true)
    }

    /// Appends another copy of an entry that lies at `old`, unless it moved meanwhile.
    pub(super) fn relocate(
        &self,
        segments: &Segments,
        index: &Index,
        entry: &Entry<'_>,
        old: &Location,
    ) -> Result<bool, StoreError> {
        let mut state = self.state();
        if index.find(&entry.key)?.as_ref() != Some(old) {
            return Ok(false);
        }
        self.append_locked(&mut state, segments, index, entry, Floor::Ignore)?;
        Ok(true)
    }

    fn append_locked(
        &self,
        state: &mut State,
        segments: &Segments,
        index: &Index,
        entry: &Entry<'_>,
        floor: Floor,
    ) -> Result<(), StoreError> {
        if state.has_failed {
            return Err(StoreError::Failed(segments.folder().to_owned()));
        }
        let length = entry.bytes();
        if floor != Floor::Ignore {
            self.spend(state, segments, length, floor)?;
        }
        if state.buffer.len() + length as usize > BUFFER_BYTES {
            self.write_out(state, segments)?;
        }
        let is_full = state.active.as_ref().is_some_and(|active| {
            let bytes = active.written + state.buffer.len() as u64 + length;
            bytes > self.roll_bytes || active.entries >= SEGMENT_ENTRIES
        });
        if is_full {
            self.seal(state, segments)?;
        }
        let (id, start) = match &state.active {
            Some(active) => (active.id, active.written),
            None => self.begin(state, segments)?,
        };
        let location = entry.append_to(&mut state.buffer, id, start);
        if let Some(active) = &mut state.active {
            active.entries += 1;
        }
        state.lengths.insert(id, start + state.buffer.len() as u64);
        state.appended.push((entry.key, location));
        state.uncommitted_bytes += length;
        index.add_recent(entry.key, location);
        Ok(())
    }

    /// Makes everything appended so far survive a crash, and indexes it.
    pub(super) fn commit(&self, segments: &Segments, index: &Index) -> Result<(), StoreError> {
        let committing = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        self.commit_locked(segments, index, &committing)
    }

    fn commit_locked(&self, segments: &Segments, index: &Index, _: &MutexGuard<'_, ()>) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.has_failed {
            return Err(StoreError::Failed(segments.folder().to_owned()));
        }
        self.write_out(&mut state, segments)?;
        let appended = std::mem::take(&mut state.appended);
        let sealed = std::mem::take(&mut state.sealed);
        if appended.is_empty() {
            // Then no byte of a sealed segment waits for its fsync either.
            drop(state);
            sealed.iter().for_each(|sealed| index.seal(sealed.covered()));
            return Ok(());
        }
        let bytes = std::mem::take(&mut state.uncommitted_bytes);
        let mut files = sealed.clone();
        files.extend(state.active.clone());
        state.budgets = [0; 2];
        drop(state);

        // Others go on appending while the disk works.
        for file in &files {
            if let Err(error) = file.file.sync_data() {
                self.state().has_failed = true;
                return Err(StoreError::io("sync", &segments.path(file.id))(error));
            }
        }
        if let Err(error) = index.settle(&appended, files.iter().map(Active::mark)) {
            let mut state = self.state();
            state.appended.splice(..0, appended);
            state.uncommitted_bytes += bytes;
            let is_sealed = |file: &Active| state.sealed.iter().any(|sealed| sealed.id == file.id);
            let active = state.active.as_ref().map(|active| active.id);
            let again: Vec<_> = files.into_iter().filter(|file| Some(file.id) != active && !is_sealed(file)).collect();
            state.sealed.splice(..0, again);
            return Err(error);
        }
        sealed.iter().for_each(|sealed| index.seal(sealed.covered()));
        Ok(())
    }

    /// Ends the active segment, so that it can be collected. Committed when this returns.
    pub(super) fn seal_active(&self, segments: &Segments, index: &Index) -> Result<(), StoreError> {
        let mut state = self.state();
        self.write_out(&mut state, segments)?;
        self.seal(&mut state, segments)?;
        drop(state);
        self.commit(segments, index)
    }

    /// The payload at `location`, unchecked, wherever it is.
    pub(super) fn read(&self, segments: &Segments, location: &Location) -> Result<Vec<u8>, StoreError> {
        if location.end() > self.written.load(Ordering::Acquire) {
            let state = self.state();
            if let Some(active) = state.active.as_ref().filter(|active| active.id == location.segment)
                && let Some(start) = u64::from(location.offset).checked_sub(active.written)
                && let Some(bytes) = state.buffer.get(start as usize..start as usize + location.stored as usize)
            {
                return Ok(bytes.to_vec());
            }
        }
        segments.read(location)
    }

    /// Bytes of each segment, those in the buffer included.
    pub(super) fn lengths(&self) -> BTreeMap<u32, u64> {
        self.state().lengths.clone()
    }

    /// Bytes of each segment that are in its file.
    pub(super) fn written_lengths(&self) -> BTreeMap<u32, u64> {
        let state = self.state();
        let mut lengths = state.lengths.clone();
        if let Some(active) = &state.active {
            lengths.insert(active.id, active.written);
        }
        lengths
    }

    /// The segment that is appended to.
    pub(super) fn active(&self) -> Option<u32> {
        self.state().active.as_ref().map(|active| active.id)
    }

    /// Takes a segment out of the accounts.
    pub(super) fn removed(&self, id: u32) {
        let mut state = self.state();
        state.lengths.remove(&id);
        state.budgets = [0; 2];
    }

    /// Changes the free-space floor, in bytes.
    pub(super) fn set_floor(&self, bytes: u64) {
        self.floor.store(bytes, Ordering::Relaxed);
        self.state().budgets = [0; 2];
    }

    /// Changes how much the segments may take together, in bytes.
    pub(super) fn set_quota(&self, bytes: u64) {
        self.quota.store(bytes, Ordering::Relaxed);
        self.state().budgets = [0; 2];
    }

    /// Says how much is set aside, in bytes.
    pub(super) fn set_reserved(&self, bytes: u64) {
        self.reserved.store(bytes, Ordering::Relaxed);
        self.state().budgets[0] = 0;
    }

    /// Bytes that can still be stored, what is set aside included.
    pub(super) fn room_for_all(&self, segments: &Segments) -> Result<u64, StoreError> {
        Ok(self.space(&self.state(), segments)?.room(0))
    }

    /// Why there is no room for `needed` bytes.
    pub(super) fn no_room(&self, segments: &Segments, needed: u64) -> StoreError {
        match self.space(&self.state(), segments) {
            Ok(space) => space.refuse(segments, needed, self.reserved.load(Ordering::Relaxed)),
            Err(error) => error,
        }
    }

    fn space(&self, state: &State, segments: &Segments) -> Result<Space, StoreError> {
        let folder = segments.folder();
        Ok(Space {
            free: super::free_bytes(folder).map_err(StoreError::io("read the free space of", folder))?,
            floor: self.floor.load(Ordering::Relaxed),
            buffered: state.buffer.len() as u64,
            quota: self.quota.load(Ordering::Relaxed),
            stored: state.lengths.values().sum(),
        })
    }

    fn spend(&self, state: &mut State, segments: &Segments, needed: u64, floor: Floor) -> Result<(), StoreError> {
        let (at, reserved) = match floor {
            Floor::Respect => (0, self.reserved.load(Ordering::Relaxed)),
            Floor::Reserved | Floor::Ignore => (1, 0),
        };
        if state.budgets[at] < needed {
            let space = self.space(state, segments)?;
            let room = space.room(reserved);
            if room < needed {
                return Err(space.refuse(segments, needed, reserved));
            }
            state.budgets[at] = room.min(BUDGET_BYTES.max(needed));
        }
        for budget in &mut state.budgets {
            *budget = budget.saturating_sub(needed);
        }
        Ok(())
    }

    fn begin(&self, state: &mut State, segments: &Segments) -> Result<(u32, u64), StoreError> {
        let id = state.next_segment;
        let (file, nonce) = segments.create(id)?;
        state.next_segment = id + 1;
        state.active = Some(Active { id, nonce, file, written: SEGMENT_HEAD_BYTES, entries: 0 });
        state.lengths.insert(id, SEGMENT_HEAD_BYTES);
        self.written.store(position(id, SEGMENT_HEAD_BYTES), Ordering::Release);
        Ok((id, SEGMENT_HEAD_BYTES))
    }

    fn seal(&self, state: &mut State, segments: &Segments) -> Result<(), StoreError> {
        self.write_out(state, segments)?;
        state.sealed.extend(state.active.take());
        Ok(())
    }

    /// Gives what is in the buffer to the operating system.
    pub(super) fn flush(&self, segments: &Segments) -> Result<(), StoreError> {
        let mut state = self.state();
        self.write_out(&mut state, segments)
    }

    /// Writes the buffer. Where that fails, the buffer stays, and the next attempt writes the same bytes to the same place.
    fn write_out(&self, state: &mut State, segments: &Segments) -> Result<(), StoreError> {
        let Some(active) = &mut state.active else { return Ok(()) };
        if state.buffer.is_empty() {
            return Ok(());
        }
        active.file.write_all_at(&state.buffer, active.written).map_err(|error| {
            let path = segments.path(active.id);
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    StoreError::full(&path, self.floor.load(Ordering::Relaxed), state.buffer.len() as u64)
                }
                _ => StoreError::io("write", &path)(error),
            }
        })?;
        active.written += state.buffer.len() as u64;
        state.buffer.clear();
        self.written.store(position(active.id, active.written), Ordering::Release);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
