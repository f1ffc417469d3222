//! Reads the store over again, stretch by stretch, so that damage shows while others still hold what was lost.
//!
//! Segments are read in the order in which they were written, which is how a disk likes it, and each entry is checked as
//! a reader would: its checksums, and its bytes against its name. The index is only looked through where something is
//! wrong. What is damaged is dropped from it, so that it counts as missing and can be fetched again.

use std::io;

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::encoding::Encoding;

use super::dependent::Scope;
use super::segment::{Entry, Key, Kind, Location, Packing, SEGMENT_HEAD_BYTES};
use super::{Store, StoreError, coding};

/// A step reads at least this much, in bytes: several of the largest entries, so that it gets ahead.
const MIN_STEP_BYTES: u64 = 1 << 20;

/// How far a scrub is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScrubPlace {
    segment: u32,
    /// In bytes from the start of the segment.
    offset: u64,
}

impl ScrubPlace {
    /// As it is kept between runs of the node.
    pub fn to_text(self) -> String {
        format!("{} {}", self.segment, self.offset)
    }

    /// Reads [`ScrubPlace::to_text`]; `None` where it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (segment, offset) = text.trim().split_once(' ')?;
        Some(Self { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
    }
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubStep {
    /// Where to go on; `None` at the end of the store.
    pub next: Option<ScrubPlace>,
    /// Bytes that were read.
    pub bytes: u64,
    /// Chunks and pages that were dropped meanwhile: those that are damaged, and those that depend on such.
    pub damaged: u64,
}

impl Store {
    /// Checks about `max_bytes` from `from` on. What is appended meanwhile, and not yet written, is left out.
    ///
    /// # Errors
    /// A failing disk or index. Damage is no error but a finding.
    pub fn scrub(&self, from: ScrubPlace, max_bytes: u64) -> Result<ScrubStep, StoreError> {
        let inner = &self.0;
        let lengths = inner.writer.written_lengths();
        let Some((&segment, &length)) = lengths.range(from.segment..).find(|(segment, length)| {
            let done = if **segment == from.segment { from.offset } else { 0 };
            done.max(SEGMENT_HEAD_BYTES) < **length
        }) else {
            return Ok(ScrubStep { next: None, bytes: 0, damaged: 0 });
        };
        let done = if segment == from.segment { from.offset } else { 0 };
        let start = done.max(SEGMENT_HEAD_BYTES);
        let end = length.min(start.saturating_add(max_bytes.max(MIN_STEP_BYTES)));
        let (mut is_well, forgotten) = (true, inner.index.forgotten());
        let scanned = inner.segments.scan(segment, (start, end), |location, entry| {
            is_well &= self.is_sound(&entry, &location)?;
            Ok(())
        });
        let scan = match scanned {
            // Collected meanwhile: what was needed of it lies elsewhere now.
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let next = ScrubPlace { segment: segment.saturating_add(1), offset: 0 };
                return Ok(ScrubStep { next: Some(next), bytes: 0, damaged: 0 });
            }
            scan => scan?,
        };
        // What the stretch ends in the middle of is read with the next one, unless nothing before it could be read.
        let is_cut = scan.good_end < end && end < length && scan.good_end > start;
        let next = if is_cut { scan.good_end } else { end };
        let is_whole = scan.damaged == 0 && (is_cut || scan.good_end == end);
        if !is_well || !is_whole {
            self.drop_damaged_in(segment, (start, end))?;
        }
        let is_lost = inner.index.forgotten() > forgotten;
        if is_lost {
            // What depends on what was dropped is damaged too.
            inner.drop_dangling(Scope::All)?;
            // A manifest in memory does not show that its page is gone from the disk.
            inner.manifests().clear();
            inner.complete().clear();
        }
        let damaged = inner.index.forgotten() - forgotten;
        Ok(ScrubStep { next: Some(ScrubPlace { segment, offset: next }), bytes: next - start, damaged })
    }

    /// Bytes that a scrub of the whole store reads.
    pub fn scrub_bytes(&self) -> u64 {
        self.0.writer.written_lengths().values().map(|length| length.saturating_sub(SEGMENT_HEAD_BYTES)).sum()
    }

    /// Images that were here whole once, and lack something now.
    ///
    /// # Errors
    /// A failing disk or index.
    pub fn incomplete_by_loss(&self) -> Result<Vec<ImageId>, StoreError> {
        let listed = self.0.journal().images().clone();
        let mut lost = Vec::new();
        for (image, _) in listed.into_iter().filter(|(_, listed)| !listed.is_partial) {
            if !self.is_complete(&image)? {
                lost.push(image);
            }
        }
        Ok(lost)
    }

    /// Reads what the index says lies in this stretch, one by one; reading drops what is damaged.
    fn drop_damaged_in(&self, segment: u32, (start, end): (u64, u64)) -> Result<(), StoreError> {
        let suspects = self.0.index.fold(Vec::new, |suspects: &mut Vec<Key>, key, location| {
            // An entry that begins in the stretch has its payload there or right behind it.
            let at = u64::from(location.offset);
            if location.segment == segment && (start..=end).contains(&at.saturating_sub(1)) {
                suspects.push(key);
            }
        })?;
        for key in suspects {
            let read = match key.kind {
                Kind::Chunk => self.read_chunk(&key.hash),
                Kind::Page => self.read_page(&key.hash),
            };
            match read {
                Ok(_) | Err(StoreError::Damaged { .. } | StoreError::NotHeld { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the entry's bytes are those that its name says; its checksums were right.
    fn is_sound(&self, entry: &Entry<'_>, location: &Location) -> Result<bool, StoreError> {
        let (hash, payload) = (entry.key.hash, entry.payload);
        let is_sound = match (entry.key.kind, entry.packing) {
            (Kind::Page, _) => Hash::of(payload) == hash,
            (Kind::Chunk, Packing::Dependent) => {
                let found = self.decode_dependent(hash, entry.plain, payload)?;
                // What is no longer held may have lost what it depended on.
                found.is_some() || self.0.index.find(&entry.key)? != Some(*location)
            }
            (Kind::Chunk, Packing::Raw) => coding::check(hash, entry.plain, Encoding::Raw, payload, |_| ()).is_ok(),
            (Kind::Chunk, Packing::Zstd) => coding::check(hash, entry.plain, Encoding::Zstd, payload, |_| ()).is_ok(),
        };
        Ok(is_sound)
    }
}
