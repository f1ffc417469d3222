//! The runs of the index: which there are, which segments each speaks for, and how few of them are kept.
//!
//! A sealed segment is in one run; the entries of the others are in the tree. When a segment is sealed it gets a run of its
//! own, and runs that together have more entries than the one before them are merged with it: of n segments there are
//! about log2(n) runs, and an entry is written as often. A run that is replaced stays readable for whoever reads it.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rialto_protocol::ids::Hash;

use super::error::StoreError;
use super::run::{Broken, Covered, Page, Run, RunWriter, SUFFIX, order, place};
use super::segment::{Found, Key, Kind, Location};

/// Memory for filters, in bytes: enough for 11 million entries. Of the runs beyond that a page is read instead.
const FILTERS_BYTES: u64 = 16 << 20;
/// Runs that are read at the same time while they are merged: bounds memory, and open files.
const MAX_MERGED: usize = 64;
/// What the name of a part ends in.
const PART_SUFFIX: &str = ".part";

/// Why something could not be done with the runs.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A run is to be built anew.
    Broken(Broken),
    Store(StoreError),
}

impl From<Broken> for Trouble {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// An entry that is damaged, by its name, segment and offset.
pub(super) type Dead = (Key, u32, u32);

pub(super) fn dead(key: &Key, location: &Location) -> Dead {
    (*key, location.segment, location.offset)
}

/// What a look-up sees; replaced as a whole.
#[derive(Debug, Default, Clone)]
struct Set {
    /// The one that speaks for the newest segment first.
    runs: Vec<(Option<u32>, Arc<Run>)>,
    /// For each segment the number of the run that speaks for it.
    owners: BTreeMap<u32, u64>,
}

impl Set {
    fn is_owner(&self, run: u64, segment: u32) -> bool {
        self.owners.get(&segment) == Some(&run)
    }

    /// The segments that a run speaks for.
    fn owned(&self, run: &Run) -> Vec<Covered> {
        run.covered.iter().filter(|row| self.is_owner(run.number, row.segment)).copied().collect()
    }

    fn insert(&mut self, run: Run, owned: &[Covered]) {
        self.owners.extend(owned.iter().map(|row| (row.segment, run.number)));
        self.runs.push((None, Arc::new(run)));
    }

    /// Sorts the runs after their owners have changed, and gives those that speak for nothing any more.
    fn settle(&mut self) -> Vec<Arc<Run>> {
        for (newest, run) in &mut self.runs {
            let owners = &self.owners;
            let owned = run.covered.iter().map(|row| row.segment);
            *newest = owned.filter(|segment| owners.get(segment) == Some(&run.number)).max();
        }
        let idle = self.runs.extract_if(.., |(newest, _)| newest.is_none()).map(|(_, run)| run).collect();
        self.runs.sort_by_key(|(newest, _)| Reverse(*newest));
        idle
    }
}

/// Held while runs are changed; numbers the next one.
#[derive(Debug)]
pub(super) struct Shaping {
    next_number: u64,
}

impl Shaping {
    pub(super) fn take(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }
}

#[derive(Debug)]
pub(super) struct Runs {
    folder: PathBuf,
    set: RwLock<Arc<Set>>,
    shaping: Mutex<Shaping>,
    dead: RwLock<HashSet<Dead>>,
    has_dead: AtomicBool,
}

impl Runs {
    /// Opens the runs of a folder. What is left over of earlier ones, is damaged, or is about other segments than those
    /// found, which come sorted, is removed.
    pub(super) fn open(folder: PathBuf, found: &[Found]) -> Result<Self, StoreError> {
        let refused = || StoreError::io("list", &folder);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&folder).map_err(refused())? {
            let path = entry.map_err(refused())?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match name.strip_suffix(SUFFIX).and_then(|number| number.parse::<u64>().ok()) {
                Some(number) => numbers.push(number),
                None if path.is_file() => remove(&path)?,
                None => {}
            }
        }
        // Where two speak for one segment, a crash came before the older one was removed.
        numbers.sort_unstable_by_key(|&number| Reverse(number));
        let next_number = numbers.first().map_or(1, |number| number + 1);
        let (mut set, mut filter_bytes) = (Set::default(), FILTERS_BYTES);
        for number in numbers {
            let path = path_of(&folder, number);
            let run = match Run::open(path.clone(), number, filter_bytes) {
                Ok(run) => run,
                Err(why) => {
                    tracing::warn!(run = %path.display(), %why, "a part of the index cannot be used; building it anew");
                    remove(&path)?;
                    continue;
                }
            };
            let mut owned = run.covered.clone();
            owned.retain(|row| !set.owners.contains_key(&row.segment) && is_current(row, found));
            match owned.is_empty() {
                true => remove(&path)?,
                false => {
                    filter_bytes -= run.filter_bytes();
                    set.insert(run, &owned);
                }
            }
        }
        set.settle();
        Ok(Self {
            folder,
            set: RwLock::new(Arc::new(set)),
            shaping: Mutex::new(Shaping { next_number }),
            dead: RwLock::default(),
            has_dead: AtomicBool::new(false),
        })
    }

    /// The segments that runs speak for.
    pub(super) fn segments(&self) -> Vec<u32> {
        self.set().owners.keys().copied().collect()
    }

    /// Where the entry lies.
    pub(super) fn find(&self, key: &Key) -> Result<Option<Location>, Broken> {
        let set = self.set();
        let (mut page, mut best) = (Page::new(), None);
        for (newest, run) in &set.runs {
            // Whatever lies in older segments is not the latest copy.
            if best.is_some_and(|best: Location| *newest < Some(best.segment)) {
                break;
            }
            page.forget();
            let location = run.find(key, &mut page)?.filter(|location| self.counts(&set, run, key, location));
            best = best.into_iter().chain(location).max_by_key(place);
        }
        Ok(best)
    }

    /// Tells `held` of each of the keys that are found, by their places in `keys`, which are sorted. Reads no page twice.
    pub(super) fn find_all(&self, keys: &[Key], mut held: impl FnMut(usize)) -> Result<(), Broken> {
        let set = self.set();
        for (_, run) in &set.runs {
            let mut page = Page::new();
            for (at, key) in keys.iter().enumerate() {
                if run.find(key, &mut page)?.is_some_and(|location| self.counts(&set, run, key, &location)) {
                    held(at);
                }
            }
        }
        Ok(())
    }

    /// Whether what a run says of an entry is to be believed.
    fn counts(&self, set: &Set, run: &Run, key: &Key, location: &Location) -> bool {
        set.is_owner(run.number, location.segment) && !self.is_dead(key, location)
    }

    pub(super) fn is_dead(&self, key: &Key, location: &Location) -> bool {
        self.has_dead.load(Ordering::Acquire)
            && self.dead.read().unwrap_or_else(PoisonError::into_inner).contains(&dead(key, location))
    }

    /// Lets an entry not be found any more at that place, and returns how many such there are.
    pub(super) fn bury(&self, entry: Dead) -> usize {
        let mut dead = self.dead.write().unwrap_or_else(PoisonError::into_inner);
        dead.insert(entry);
        self.has_dead.store(true, Ordering::Release);
        dead.len()
    }

    /// The entries that were buried, for [`Runs::unbury`].
    pub(super) fn buried(&self) -> HashSet<Dead> {
        self.dead.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets about buried entries, because no run has them any more.
    pub(super) fn unbury(&self, gone: &HashSet<Dead>) {
        let mut dead = self.dead.write().unwrap_or_else(PoisonError::into_inner);
        dead.retain(|entry| !gone.contains(entry));
        self.has_dead.store(!dead.is_empty(), Ordering::Release);
    }

    /// Keeps others from changing runs.
    pub(super) fn shape(&self) -> MutexGuard<'_, Shaping> {
        self.shaping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a run of these entries, which come sorted and each once, that speaks for these segments from now on.
    pub(super) fn add(
        &self,
        shaping: &mut Shaping,
        entries: &[(Key, Location)],
        covered: &[Covered],
    ) -> Result<(), StoreError> {
        let mut writer = self.create(shaping.take(), entries.len() as u64, SUFFIX)?;
        let written = entries.iter().try_for_each(|(key, location)| writer.push(key, location));
        let run = written.and_then(|()| writer.finish(covered.to_vec(), true));
        let run = run.map_err(StoreError::io("write the index in", &self.folder))?;
        self.replace(&[], run, covered)
    }

    /// Writes sorted entries to a file of their own, to be merged later by [`Runs::merge_parts`].
    pub(super) fn part(&self, number: u64, entries: &[(Key, Location)]) -> Result<Run, StoreError> {
        let mut writer = self.create(number, entries.len() as u64, PART_SUFFIX)?;
        let written = entries.iter().try_for_each(|(key, location)| writer.push(key, location));
        let run = written.and_then(|()| writer.finish(Vec::new(), false));
        run.map_err(StoreError::io("write the index in", &self.folder))
    }

    /// Makes one run of parts, which speaks for these segments from now on.
    pub(super) fn merge_parts(
        &self,
        shaping: &mut Shaping,
        mut parts: Vec<Run>,
        covered: &[Covered],
    ) -> Result<(), Trouble> {
        while parts.len() > MAX_MERGED {
            let some: Vec<Run> = parts.drain(..MAX_MERGED).collect();
            parts.push(self.merge(shaping, &some, |_, _, _| true, None)?);
            some.iter().try_for_each(|part| remove(part.path()))?;
        }
        let run = self.merge(shaping, &parts, |_, _, _| true, Some(covered))?;
        self.replace(&[], run, covered)?;
        Ok(parts.iter().try_for_each(|part| remove(part.path()))?)
    }

    /// Merges runs that together have more entries than the one before them.
    pub(super) fn tidy(&self, shaping: &mut Shaping) -> Result<(), Trouble> {
        let set = self.set();
        let (mut few, mut entries) = (0, 0);
        for (at, (_, run)) in set.runs.iter().enumerate() {
            if run.entries < entries {
                few = at + 1;
            }
            entries += run.entries;
        }
        if few < 2 { Ok(()) } else { self.merge_runs(shaping, &set, few, |_| true) }
    }

    /// Makes one run of all, without the entries that are not to be kept.
    pub(super) fn rewrite(&self, shaping: &mut Shaping, keep: impl Fn(&Key) -> bool) -> Result<(), Trouble> {
        let set = self.set();
        self.merge_runs(shaping, &set, set.runs.len(), keep)
    }

    /// Makes one run of the newest runs of the set.
    fn merge_runs(
        &self,
        shaping: &mut Shaping,
        set: &Set,
        runs: usize,
        keep: impl Fn(&Key) -> bool,
    ) -> Result<(), Trouble> {
        let old: Vec<Arc<Run>> = set.runs.iter().take(runs).map(|(_, run)| Arc::clone(run)).collect();
        let covered: Vec<Covered> = old.iter().flat_map(|run| set.owned(run)).collect();
        let counts = |run: &Run, key: &Key, location: &Location| keep(key) && self.counts(set, run, key, location);
        let run = self.merge(shaping, &old, counts, Some(&covered))?;
        Ok(self.replace(&old, run, &covered)?)
    }

    /// Writes one run of several, which speaks for these segments, or a part where it speaks for none.
    fn merge<R: Borrow<Run>>(
        &self,
        shaping: &mut Shaping,
        runs: &[R],
        counts: impl Fn(&Run, &Key, &Location) -> bool,
        covered: Option<&[Covered]>,
    ) -> Result<Run, Trouble> {
        let sources = runs.iter().map(|run| source(run.borrow(), &counts)).collect();
        let entries = runs.iter().map(|run| run.borrow().entries).sum();
        let refused = || StoreError::io("write the index in", &self.folder);
        let suffix = if covered.is_some() { SUFFIX } else { PART_SUFFIX };
        let mut writer = self.create(shaping.take(), entries, suffix)?;
        for entry in Merge::new(sources)? {
            let (key, location) = entry?;
            writer.push(&key, &location).map_err(refused())?;
        }
        Ok(writer.finish(covered.unwrap_or_default().to_vec(), covered.is_some()).map_err(refused())?)
    }

    /// Visits every entry of the runs, and of `others`, which come sorted; of several copies the latest.
    pub(super) fn for_each(
        &self,
        others: Vec<Vec<(Key, Location)>>,
        mut visit: impl FnMut(Key, Location) -> Result<(), StoreError>,
    ) -> Result<(), Trouble> {
        let set = self.set();
        let counts = |run: &Run, key: &Key, location: &Location| self.counts(&set, run, key, location);
        let mut sources: Vec<_> = set.runs.iter().map(|(_, run)| source(run, &counts)).collect();
        sources.extend(others.into_iter().map(|entries| Box::new(entries.into_iter().map(Ok)) as Source<'_>));
        for entry in Merge::new(sources)? {
            let (key, location) = entry?;
            visit(key, location)?;
        }
        Ok(())
    }

    /// The segments that a run speaks for, or none where it is gone.
    pub(super) fn owned_by(&self, number: u64) -> Vec<Covered> {
        let set = self.set();
        set.runs.iter().find(|(_, run)| run.number == number).map_or_else(Vec::new, |(_, run)| set.owned(run))
    }

    /// Lets nothing in a segment be found any more.
    pub(super) fn forget_segment(&self, _: &mut Shaping, segment: u32) -> Result<(), StoreError> {
        let mut set = Set::clone(&self.set());
        set.owners.remove(&segment);
        self.publish(set)
    }

    /// Puts a run in the place of others; what they spoke for besides is not spoken for any more.
    fn replace(&self, old: &[Arc<Run>], mut run: Run, covered: &[Covered]) -> Result<(), StoreError> {
        let mut set = Set::clone(&self.set());
        set.owners.retain(|_, owner| !old.iter().any(|run| run.number == *owner));
        let others: u64 = set.runs.iter().map(|(_, run)| run.filter_bytes()).sum();
        let gone: u64 = old.iter().map(|run| run.filter_bytes()).sum();
        run.bound_filter(FILTERS_BYTES.saturating_sub(others.saturating_sub(gone)));
        set.insert(run, covered);
        self.publish(set)
    }

    /// Lets a set be seen, and removes the runs that have nothing to say in it.
    fn publish(&self, mut set: Set) -> Result<(), StoreError> {
        let idle = set.settle();
        *self.set.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
        idle.iter().try_for_each(|run| remove(run.path()))
    }

    fn create(&self, number: u64, entries: u64, suffix: &str) -> Result<RunWriter, StoreError> {
        let path = self.folder.join(format!("{number:08}{suffix}"));
        RunWriter::create(path, number, entries).map_err(StoreError::io("write the index in", &self.folder))
    }

    fn set(&self) -> Arc<Set> {
        Arc::clone(&self.set.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Sorts entries as runs have them, and leaves of several copies the latest.
pub(super) fn sort(entries: &mut Vec<(Key, Location)>) {
    entries.sort_unstable_by_key(|(key, location)| (order(key), Reverse(place(location))));
    entries.dedup_by_key(|(key, _)| *key);
}

type Source<'a> = Box<dyn Iterator<Item = Result<(Key, Location), Broken>> + 'a>;

/// The entries of a run that count.
fn source<'a>(run: &'a Run, counts: &'a impl Fn(&Run, &Key, &Location) -> bool) -> Source<'a> {
    Box::new(run.entries().filter(move |entry| match entry {
        Ok((key, location)) => counts(run, key, location),
        Err(_) => true,
    }))
}

/// Several sorted sequences as one, in which each key comes once, with its latest place.
struct Merge<'a> {
    sources: Vec<Source<'a>>,
    /// The next entry of each source: by key, the latest copy first.
    next: BinaryHeap<Reverse<Next>>,
}

struct Next {
    key: Key,
    location: Location,
    source: usize,
}

impl Next {
    fn rank(&self) -> (Hash, Kind, Reverse<u64>) {
        (self.key.hash, self.key.kind, Reverse(place(&self.location)))
    }
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Next {}

impl<'a> Merge<'a> {
    fn new(sources: Vec<Source<'a>>) -> Result<Self, Broken> {
        let mut merge = Self { sources, next: BinaryHeap::new() };
        (0..merge.sources.len()).try_for_each(|source| merge.advance(source))?;
        Ok(merge)
    }

    fn advance(&mut self, source: usize) -> Result<(), Broken> {
        if let Some((key, location)) = self.sources.get_mut(source).and_then(Iterator::next).transpose()? {
            self.next.push(Reverse(Next { key, location, source }));
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Option<(Key, Location)>, Broken> {
        let Some(Reverse(Next { key, location, source })) = self.next.pop() else { return Ok(None) };
        self.advance(source)?;
        while let Some(Reverse(other)) = self.next.peek()
            && other.key == key
        {
            let source = other.source;
            self.next.pop();
            self.advance(source)?;
        }
        Ok(Some((key, location)))
    }
}

impl Iterator for Merge<'_> {
    type Item = Result<(Key, Location), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take().transpose()
    }
}

/// Whether a segment is still as it was when it was indexed.
fn is_current(row: &Covered, found: &[Found]) -> bool {
    let at = found.binary_search_by_key(&row.segment, |found| found.id);
    at.is_ok_and(|at| (found[at].nonce, found[at].length) == (row.nonce, row.length))
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}{SUFFIX}"))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
        _ => Ok(()),
    }
}
