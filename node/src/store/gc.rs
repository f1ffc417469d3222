//! Collects garbage: what no image reaches leaves the index, and segments that are mostly such are rewritten.
//!
//! Safe beside additions and fetches: an addition names what it relies on before it looks whether that is held, a fetch
//! lists its image before it puts pages, and both wait while garbage is taken out of the index. Entries are copied and
//! committed before their old segment is removed, so every crash point leaves all that is reachable.
//!
//! A chunk that is needed and depends on one that is not is stored anew, and committed, before that one leaves the index:
//! by itself, or, where another depended on the same and has been stored by itself, against that one. So of versions that
//! follow each other, the oldest that is left becomes what the later ones depend on. Where there is no room for that, what
//! they depended on stays. Most of this is done ahead, while others go on.
//!
//! Memory, while it marks: at most 20 bytes for each chunk and page that is needed, and 48 for each chunk of the largest
//! image. The index is read and written from its files, in order; of a segment that is rewritten, one window is in memory.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{MutexGuard, PoisonError};

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::similarity::Features;

use super::packed::Packed;
use super::referenced::RecentChunks;
use super::segment::{Entry, Key, Location, Packing, SEGMENT_HEAD_BYTES};
use super::{Inner, Store, StoreError, packed};

/// A segment shorter than this is rewritten for any garbage, a longer one for a sixteenth of its length. In bytes.
const SMALL_SEGMENT_BYTES: u64 = 128 << 20;

/// What a collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Chunks and pages that are no longer held.
    pub removed: u64,
    /// Bytes that the store shrank by.
    pub freed_bytes: u64,
    /// Bytes that had to be copied for it.
    pub rewritten_bytes: u64,
}

/// What a segment still holds.
#[derive(Debug, Clone, Copy, Default)]
struct Alive {
    entries: u64,
    bytes: u64,
}

impl Store {
    /// Removes every chunk and page that no listed image, and no image of `keep`, needs, and gives the space back.
    ///
    /// Which images are listed is the caller's business: those that are not wanted are [removed](Store::remove) before.
    /// `keep` is for images that are needed without being listed any more, such as those of running instances.
    ///
    /// # Errors
    /// A failing disk or index. A full disk ends the rewriting early, and is an error only where nothing could be freed.
    pub fn gc(&self, keep: &BTreeSet<ImageId>) -> Result<Collected, StoreError> {
        let inner = &self.0;
        let _collecting = inner.collecting.lock().unwrap_or_else(PoisonError::into_inner);
        match self.commit() {
            // On a full disk, what is buffered stays buffered, and collecting is what helps.
            Ok(()) | Err(StoreError::DiskFull { .. }) => {}
            Err(error) => return Err(error),
        }
        let before = self.stored_bytes();
        let removed = self.forget_garbage(keep)?;
        let mut collected = Collected { removed, ..Collected::default() };
        let result = self.rewrite_segments(&mut collected);
        collected.freed_bytes = before.saturating_sub(self.stored_bytes());
        match result {
            Err(StoreError::DiskFull { .. }) if collected.freed_bytes > 0 => {}
            result => result?,
        }
        Ok(collected)
    }

    /// Takes garbage out of the index, and returns how many entries that were.
    fn forget_garbage(&self, keep: &BTreeSet<ImageId>) -> Result<u64, StoreError> {
        let inner = &self.0;
        self.make_independent(&mut self.live(keep)?)?;
        let _reachable = inner.reachable.write().unwrap_or_else(PoisonError::into_inner);
        let mut live = self.live(keep)?;
        // What came to depend on garbage since.
        self.make_independent(&mut live)?;
        let removed = inner.index.retain(&|key| live.contains(&print(key)));
        inner.complete().clear();
        removed
    }

    /// What is needed.
    fn live(&self, keep: &BTreeSet<ImageId>) -> Result<HashSet<u64>, StoreError> {
        let inner = &self.0;
        let mut live: HashSet<u64> = inner.adding().values().flatten().copied().collect();
        let mut roots: BTreeSet<ImageId> = inner.journal().images().keys().chain(keep).copied().collect();
        roots.extend(inner.held().keys());
        for image in &roots {
            self.mark(image, &mut live)?;
        }
        inner.manifests().retain(|manifest| roots.contains(&manifest.id));
        Ok(live)
    }

    /// Lets nothing that is live depend on what is not; on disk when this returns. Where there is no room for that, what it
    /// depends on lives on.
    fn make_independent(&self, live: &mut HashSet<u64>) -> Result<(), StoreError> {
        let is_live = |name: &Hash, live: &HashSet<u64>| live.contains(&print(&Key::chunk(*name)));
        let mut lacking = self.0.dependents_lacking(|name| Ok(is_live(name, live)))?;
        lacking.retain(|(key, _)| is_live(&key.hash, live));
        if lacking.is_empty() {
            return Ok(());
        }
        let needed = self.0.depended_on(&lacking)?;
        let runs = RecentChunks::new(self.clone());
        let mut heirs = BTreeMap::new();
        let stored = lacking.iter().try_for_each(|(key, location)| {
            self.store_anew(key, location, &runs, &mut heirs, |name| is_live(name, live))
        });
        match stored.and_then(|()| self.commit()) {
            Err(StoreError::DiskFull { .. }) => {
                live.extend(needed.into_iter().map(|name| print(&Key::chunk(name))));
                Ok(())
            }
            done => done,
        }
    }

    /// Stores a chunk that depends on what is not live without that. `heirs` are those that were stored by themselves, by
    /// what they depended on. A chunk that cannot be read any more is dropped.
    fn store_anew(
        &self,
        key: &Key,
        location: &Location,
        runs: &RecentChunks,
        heirs: &mut BTreeMap<Hash, Hash>,
        is_live: impl Fn(&Hash) -> bool,
    ) -> Result<(), StoreError> {
        let plain = match self.read_chunk(&key.hash) {
            Ok(plain) => plain,
            Err(StoreError::NotHeld { .. } | StoreError::Damaged { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let before = self.0.names_at(location)?.unwrap_or_default();
        let instead = |name: &Hash| if is_live(name) { Some(*name) } else { heirs.get(name).copied() };
        let names: Vec<Hash> = before.iter().filter_map(instead).collect();
        let (inner, mut buffer) = (&self.0, Vec::new());
        let packed = Packed::of(&plain, &mut buffer);
        let limit = packed::limit(packed.length(&plain));
        let payload = match self.pack_against(runs, &plain, &names, limit) {
            Err(StoreError::NotHeld { .. } | StoreError::Damaged { .. }) => None,
            payload => payload?,
        };
        let features;
        let relocate =
            |entry: &Entry<'_>| inner.writer.relocate(&inner.segments, &inner.index, entry, location).map(drop);
        match payload {
            Some(payload) => {
                features = Features::of(&plain).to_bytes();
                relocate(&Entry::new(*key, location.plain, Packing::Dependent, &payload).with_features(&features))
            }
            None => {
                packed::entry_alone(key.hash, &plain, packed, relocate)?;
                for name in before.into_iter().filter(|name| !is_live(name)) {
                    heirs.entry(name).or_insert(key.hash);
                }
                Ok(())
            }
        }
    }

    fn mark(&self, image: &ImageId, live: &mut HashSet<u64>) -> Result<(), StoreError> {
        let survey = match self.survey(image) {
            Ok(survey) => survey,
            Err(StoreError::Manifest { source, .. }) => {
                tracing::warn!(%image, %source, "a listed image has no valid manifest; nothing is kept for it");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        live.extend(survey.pages.iter().map(|&hash| print(&Key::page(hash))));
        live.extend(survey.chunks.iter().map(|chunk| print(&Key::chunk(chunk.hash))));
        Ok(())
    }

    fn rewrite_segments(&self, collected: &mut Collected) -> Result<(), StoreError> {
        let inner = &self.0;
        // What is still appended to would gain entries while it is looked at: it is ended first, and looked at again.
        if let Some(active) = inner.writer.active()
            && self.wasteful()?.iter().any(|(id, ..)| *id == active)
        {
            match inner.writer.seal_active(&inner.segments, &inner.index) {
                // It has a buffer that the disk has no room for: the others go first.
                Ok(()) | Err(StoreError::DiskFull { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut wasteful = self.wasteful()?;
        let active = inner.writer.active();
        wasteful.retain(|(id, ..)| Some(*id) != active);
        // Those that cost least first: what they free makes room for the others.
        wasteful.sort_by_key(|(_, _, alive)| alive.bytes);
        for (id, length, alive) in wasteful {
            self.rewrite(id, length, alive, collected)?;
        }
        Ok(())
    }

    /// The segments that are worth rewriting, with their lengths and what they still hold.
    fn wasteful(&self) -> Result<Vec<(u32, u64, Alive)>, StoreError> {
        // Lengths first: what is appended after that only makes a segment look less wasteful.
        let lengths = self.0.writer.lengths();
        let alive = self.alive()?;
        let with_alive = |(id, length)| (id, length, alive.get(&id).copied().unwrap_or_default());
        let is_wasteful = |(_, length, alive): &(u32, u64, Alive)| {
            let garbage = length.saturating_sub(SEGMENT_HEAD_BYTES).saturating_sub(alive.bytes);
            garbage > 0 && (*length < SMALL_SEGMENT_BYTES || garbage >= length / 16)
        };
        Ok(lengths.into_iter().map(with_alive).filter(is_wasteful).collect())
    }

    fn rewrite(&self, id: u32, length: u64, alive: Alive, collected: &mut Collected) -> Result<(), StoreError> {
        let inner = &self.0;
        let (segments, index) = (&inner.segments, &inner.index);
        let mut copied = 0;
        if alive.entries > 0 {
            let scan = segments.scan(id, (SEGMENT_HEAD_BYTES, length), |location, entry| {
                if inner.writer.relocate(segments, index, &entry, &location)? {
                    copied += 1;
                    collected.rewritten_bytes += entry.bytes();
                }
                Ok(())
            })?;
            self.commit()?;
            if scan.unknown > 0 {
                tracing::warn!(segment = id, entries = scan.unknown, "not removed: it has entries of a later version");
                return Ok(());
            }
        }
        // A commit under way may still write down how much of this segment is indexed.
        match self.commit() {
            Ok(()) | Err(StoreError::DiskFull { .. }) => {}
            Err(error) => return Err(error),
        }
        if copied < alive.entries && self.is_used(id)? {
            tracing::warn!(segment = id, "not removed: some of it is damaged; `rialto image verify` tells what");
            return Ok(());
        }
        index.forget_segment(id)?;
        segments.remove(id)?;
        inner.writer.removed(id);
        Ok(())
    }

    fn alive(&self) -> Result<BTreeMap<u32, Alive>, StoreError> {
        self.0.index.fold(BTreeMap::new, |alive: &mut BTreeMap<u32, Alive>, _, location: Location| {
            let alive = alive.entry(location.segment).or_default();
            alive.entries += 1;
            alive.bytes += location.entry_bytes();
        })
    }

    fn is_used(&self, id: u32) -> Result<bool, StoreError> {
        self.0.index.fold(|| false, |is_used, _, location| *is_used |= location.segment == id)
    }
}

impl Inner {
    pub(super) fn adding(&self) -> MutexGuard<'_, BTreeMap<u64, HashSet<u64>>> {
        self.adding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Eight bytes that stand for a key while marking. Two keys with one print only keep garbage for longer.
pub(super) fn print(key: &Key) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = key.hash.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ key.kind as u64
}
