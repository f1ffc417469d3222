//! Where each entry lies. Nothing here is the truth: all of it can be deleted, and is built anew from the segments.
//!
//! ```text
//! index/*.run       sorted, immutable: the entries of sealed segments                (run, runs)
//! in memory         the entries of the others, committed or not
//! index/recent/     a sled tree: those that are committed, for the next start        (tree)
//! ```
//!
//! An entry goes from memory into a run when its segment is sealed. It is in the run before it leaves the memory, and a
//! look-up goes the same way, so it never misses. A later copy of an entry (a collection moved it, or it was fetched
//! again after damage) hides the earlier ones.
//!
//! **Bounds.** In memory are the entries of the segment that is appended to, and of those sealed since the last commit. A
//! segment is sealed at [`SEGMENT_ENTRIES`](super::writer::SEGMENT_ENTRIES) entries, so that is about 20 MB. The runs take
//! 0.11 bytes of memory for each entry, and up to 16 MiB besides for filters.
//!
//! **Repair.** A run that is missing, damaged, or about a segment that has another length or nonce by now does not count:
//! its segments are read again, when the store is opened or when the damage is met.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::error::StoreError;
use super::rebuild::{self, Rebuilt};
use super::run::{Broken, Covered};
use super::runs::{self, Runs, Shaping, Trouble};
use super::segment::{Found, Key, Location, Segments, position};
use super::tree::Tree;

pub(super) use super::tree::Mark;

/// Present after the tree failed: it is then built anew.
const FAILED_MARKER: &str = "index-failed";
/// A file that the index of earlier versions has, which was one tree.
const EARLIER: &str = "conf";
/// Damaged entries of runs that are remembered one by one; then the runs are written without them.
const MAX_DEAD: usize = 4096;
/// How often a run is built anew for one question. More helps only if the disk damages all that it is given.
const MENDINGS: usize = 3;

#[derive(Debug)]
pub(super) struct Index {
    folder: PathBuf,
    segments: Arc<Segments>,
    /// The entries that no run has.
    recent: RwLock<HashMap<Key, Location>>,
    /// How much of each segment that no run speaks for is settled; the tree says the same.
    marks: Mutex<BTreeMap<u32, Mark>>,
    tree: Tree,
    runs: Runs,
    /// Sealed segments whose entries are still in the tree.
    waiting: Mutex<Vec<Covered>>,
    /// Since somebody asked, an entry was lost, or a run was built anew, with which garbage may have come back.
    is_doubtful: AtomicBool,
    /// Entries that were forgotten one by one.
    forgotten: AtomicU64,
}

impl Index {
    /// Opens the index below `folder` as far as it is about the segments found; what cannot be used is removed.
    pub(super) fn open(folder: &Path, segments: Arc<Segments>, found: &[Found]) -> Result<Self, StoreError> {
        let path = folder.join("index");
        if path.join(EARLIER).exists() {
            tracing::info!("building the index anew, in the form of this version");
            std::fs::remove_dir_all(&path).map_err(StoreError::io("remove", &path))?;
        }
        std::fs::create_dir_all(&path).map_err(StoreError::io("create", &path))?;
        let runs = Runs::open(path.clone(), found)?;
        let tree = Tree::open(&path.join("recent"), folder.join(FAILED_MARKER))?;
        let buried = tree.buried()?;
        let is_doubtful = !buried.is_empty();
        for dead in buried {
            match found.binary_search_by_key(&dead.1, |found| found.id) {
                Ok(_) => drop(runs.bury(dead)),
                Err(_) => tree.unbury([&dead])?,
            }
        }
        let index = Self {
            folder: path,
            segments,
            recent: RwLock::default(),
            marks: Mutex::default(),
            tree,
            runs,
            waiting: Mutex::default(),
            is_doubtful: AtomicBool::new(is_doubtful),
            forgotten: AtomicU64::new(0),
        };
        index.load(found)?;
        Ok(index)
    }

    /// Takes over what the tree has of segments that no run speaks for.
    fn load(&self, found: &[Found]) -> Result<(), StoreError> {
        let (mut entries, mut marks) = self.tree.load()?;
        let sealed = self.runs.segments();
        let is_ours = |id: &u32, mark: &Mark| {
            let found = found.binary_search_by_key(id, |found| found.id).map(|at| found[at]);
            found.is_ok_and(|found| found.nonce == mark.nonce && found.length >= mark.length)
        };
        let all = marks.len();
        marks.retain(|id, mark| sealed.binary_search(id).is_err() && is_ours(id, mark));
        entries.retain(|(key, location)| {
            let mark = marks.get(&location.segment);
            mark.is_some_and(|mark| location.end() <= position(location.segment, mark.length))
                && !self.runs.is_dead(key, location)
        });
        if marks.len() < all {
            // A crash came after a segment was sealed, or these are other segments.
            self.tree.replace(&entries, &marks)?;
        }
        // Of several copies the last came last.
        *self.recent.write().unwrap_or_else(PoisonError::into_inner) = entries.into_iter().collect();
        *self.marks.lock().unwrap_or_else(PoisonError::into_inner) = marks;
        Ok(())
    }

    /// Where the entry lies, whether or not it is committed.
    pub(super) fn find(&self, key: &Key) -> Result<Option<Location>, StoreError> {
        match self.find_recent(key) {
            None => self.mending(|| Ok(self.runs.find(key)?)),
            location => Ok(location),
        }
    }

    /// Where the entry lies, if no run has it yet.
    pub(super) fn find_recent(&self, key: &Key) -> Option<Location> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Which of these are held. Quicker than one look-up each where they are many, and most quickly if they are sorted by
    /// their hashes, because then no page of a run is read twice.
    pub(super) fn are_held(&self, keys: &[Key]) -> Result<Vec<bool>, StoreError> {
        let mut held = self.mending(|| {
            let mut held = vec![false; keys.len()];
            self.runs.find_all(keys, |at| held[at] = true)?;
            Ok(held)
        })?;
        for (key, is_held) in keys.iter().zip(&mut held) {
            // In the order in which entries move, for those that were not in a run.
            *is_held = *is_held || self.find(key)?.is_some();
        }
        Ok(held)
    }

    /// Remembers an entry that is not committed yet.
    pub(super) fn add_recent(&self, key: Key, location: Location) {
        self.recent.write().unwrap_or_else(PoisonError::into_inner).insert(key, location);
    }

    /// Writes entries whose bytes are on disk into the tree, with the marks that say so.
    pub(super) fn settle(
        &self,
        entries: &[(Key, Location)],
        marks: impl IntoIterator<Item = (u32, Mark)>,
    ) -> Result<(), StoreError> {
        let marks: BTreeMap<u32, Mark> = marks.into_iter().collect();
        // Held all the while: who replaces what the tree has must know of all that is in it.
        let mut all = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        self.tree.add(entries, &marks)?;
        all.extend(marks);
        Ok(())
    }

    /// Moves the entries of a sealed segment, which are all settled, into a run. Where that fails, they stay in memory,
    /// and the next call tries again.
    pub(super) fn seal(&self, segment: Covered) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(segment);
        let mut shaping = self.runs.shape();
        match self.seal_locked(&mut shaping, &waiting) {
            Ok(()) => waiting.clear(),
            Err(error) => {
                tracing::warn!(segment = segment.segment, %error, "the index of a segment could not be written; it is tried again later");
            }
        }
    }

    fn seal_locked(&self, shaping: &mut Shaping, covered: &[Covered]) -> Result<(), StoreError> {
        let is_covered = |location: &Location| covered.iter().any(|row| row.segment == location.segment);
        let mut entries = self.recent_where(is_covered);
        runs::sort(&mut entries);
        self.runs.add(shaping, &entries, covered)?;
        self.leave_to_runs(covered.iter().map(|row| row.segment))?;
        self.mending_locked(shaping, |shaping| self.runs.tidy(shaping))
    }

    /// Takes the entries of segments out of memory and out of the tree, because runs have them.
    pub(super) fn leave_to_runs(&self, segments: impl IntoIterator<Item = u32>) -> Result<(), StoreError> {
        let segments: Vec<u32> = segments.into_iter().collect();
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.retain(|id, _| !segments.contains(id));
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|_, location| !segments.contains(&location.segment));
        // A large segment's memory is not kept for small ones.
        recent.shrink_to(1024);
        drop(recent);
        self.tree.replace(&self.settled(&marks), &marks)
    }

    /// The entries in memory that are committed.
    fn settled(&self, marks: &BTreeMap<u32, Mark>) -> Vec<(Key, Location)> {
        self.recent_where(|location| {
            let mark = marks.get(&location.segment);
            mark.is_some_and(|mark| location.end() <= position(location.segment, mark.length))
        })
    }

    /// The entries in memory for which something holds.
    pub(super) fn recent_where(&self, is_wanted: impl Fn(&Location) -> bool) -> Vec<(Key, Location)> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        recent.iter().filter(|(_, location)| is_wanted(location)).map(|(key, location)| (*key, *location)).collect()
    }

    /// Forgets an entry, unless it lies elsewhere by now.
    pub(super) fn forget(&self, key: &Key, location: &Location) -> Result<(), StoreError> {
        if self.find(key)?.as_ref() != Some(location) {
            return Ok(());
        }
        let dead = runs::dead(key, location);
        self.tree.bury(&dead)?;
        let buried = self.runs.bury(dead);
        self.forgotten.fetch_add(1, Ordering::Relaxed);
        self.is_doubtful.store(true, Ordering::Release);
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        if recent.get(key) == Some(location) {
            recent.remove(key);
        }
        drop(recent);
        if buried <= MAX_DEAD { Ok(()) } else { self.rewrite(&mut self.runs.shape(), &|_| true) }
    }

    /// How many entries were forgotten because they are damaged, since the index was opened.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Forgets the committed entries that are not to be kept, and returns how many those were.
    pub(super) fn retain(&self, keep: &dyn Fn(&Key) -> bool) -> Result<u64, StoreError> {
        let mut shaping = self.runs.shape();
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut settled = self.settled(&marks);
        runs::sort(&mut settled);
        let removed = self.mending_locked(&mut shaping, |_| {
            let mut removed = 0;
            self.runs.for_each(vec![settled.clone()], |key, _| {
                removed += u64::from(!keep(&key));
                Ok(())
            })?;
            Ok(removed)
        })?;
        if removed == 0 {
            return Ok(0);
        }
        // First what can fail for want of room.
        self.rewrite(&mut shaping, keep)?;
        let garbage = settled.extract_if(.., |(key, _)| !keep(key)).collect::<Vec<_>>();
        self.tree.replace(&settled, &marks)?;
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        for (key, location) in garbage {
            if recent.get(&key) == Some(&location) {
                recent.remove(&key);
            }
        }
        Ok(removed)
    }

    /// Makes one run of all, without the entries that are damaged or not to be kept.
    fn rewrite(&self, shaping: &mut Shaping, keep: &dyn Fn(&Key) -> bool) -> Result<(), StoreError> {
        let gone = self.runs.buried();
        self.mending_locked(shaping, |shaping| self.runs.rewrite(shaping, keep))?;
        self.runs.unbury(&gone);
        self.tree.unbury(&gone)
    }

    /// Forgets a segment that is about to be removed. On disk when this returns.
    pub(super) fn forget_segment(&self, segment: u32) -> Result<(), StoreError> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).retain(|row| row.segment != segment);
        self.runs.forget_segment(&mut self.runs.shape(), segment)?;
        let is_here = self.marks.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&segment);
        if !is_here {
            return Ok(());
        }
        self.leave_to_runs([segment])?;
        self.flush()
    }

    /// Visits every entry once, where it was put last. May begin again with another `start`, if it finds damage.
    pub(super) fn fold<T>(
        &self,
        start: impl Fn() -> T,
        mut visit: impl FnMut(&mut T, Key, Location),
    ) -> Result<T, StoreError> {
        self.mending(|| {
            let mut folded = start();
            let mut recent = self.recent_where(|_| true);
            runs::sort(&mut recent);
            self.runs.for_each(vec![recent], |key, location| {
                visit(&mut folded, key, location);
                Ok(())
            })?;
            Ok(folded)
        })
    }

    /// How much is indexed of each segment that no run speaks for.
    pub(super) fn marks(&self) -> BTreeMap<u32, Mark> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The sealed segments that are indexed.
    pub(super) fn sealed(&self) -> Vec<u32> {
        self.runs.segments()
    }

    /// Builds a run from sealed segments. `last` is the last of the store. Returns the segments as they are then.
    pub(super) fn rebuild(&self, found: &[Found], last: Option<u32>) -> Result<(Vec<Found>, Rebuilt), StoreError> {
        let mut shaping = self.runs.shape();
        self.mending_locked(&mut shaping, |shaping| rebuild::rebuild(&self.segments, &self.runs, shaping, found, last))
    }

    /// Whether, since this was last asked, an entry was lost, or one that was garbage may have come back: what depends on
    /// others has to be looked at.
    pub(super) fn was_doubtful(&self) -> bool {
        self.is_doubtful.load(Ordering::Acquire) && self.is_doubtful.swap(false, Ordering::AcqRel)
    }

    /// Writes what is settled to disk. Only saves reading segments at the next start.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.tree.flush()
    }

    /// Does something with the runs, and again after a run that turned out to be damaged was built anew.
    fn mending<T>(&self, mut ask: impl FnMut() -> Result<T, Trouble>) -> Result<T, StoreError> {
        for _ in 0..=MENDINGS {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Store(error)) => return Err(error),
                Err(Trouble::Broken(broken)) => self.mend(&mut self.runs.shape(), &broken)?,
            }
        }
        Err(StoreError::IndexDamaged(self.folder.clone()))
    }

    /// As [`Index::mending`], for what changes runs.
    fn mending_locked<T>(
        &self,
        shaping: &mut Shaping,
        mut act: impl FnMut(&mut Shaping) -> Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        for _ in 0..=MENDINGS {
            match act(shaping) {
                Ok(done) => return Ok(done),
                Err(Trouble::Store(error)) => return Err(error),
                Err(Trouble::Broken(broken)) => self.mend(shaping, &broken)?,
            }
        }
        Err(StoreError::IndexDamaged(self.folder.clone()))
    }

    /// Builds a damaged run anew, unless that has been done.
    fn mend(&self, shaping: &mut Shaping, broken: &Broken) -> Result<(), StoreError> {
        let owned = self.runs.owned_by(broken.run);
        if owned.is_empty() {
            return Ok(());
        }
        tracing::warn!(why = %broken.why, segments = owned.len(), "a part of the index is damaged; building it anew");
        let found = |row: &Covered| Found { id: row.segment, nonce: row.nonce, length: row.length };
        let found: Vec<Found> = owned.iter().map(found).collect();
        self.is_doubtful.store(true, Ordering::Release);
        match rebuild::rebuild(&self.segments, &self.runs, shaping, &found, None) {
            Ok(_) => Ok(()),
            Err(Trouble::Store(error)) => Err(error),
            Err(Trouble::Broken(_)) => Err(StoreError::IndexDamaged(self.folder.clone())),
        }
    }
}
