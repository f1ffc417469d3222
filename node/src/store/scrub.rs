//! Reads the store over again, stretch by stretch, so that damage shows while others still hold what was lost.
//!
//! Segments are read in the order in which they were written, which is how a disk likes it, and each entry is checked as
//! a reader would: its checksums, and its bytes against its name. The index is only looked through where something is
//! wrong. What is damaged is dropped from it, so that it counts as missing and can be fetched again.

use std::io;

use rialto_protocol::ids::{Hash, ImageId};

use super::segment::{Entry, Key, Kind, SEGMENT_HEAD_BYTES};
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
    /// Chunks and pages that were dropped.
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
        let mut is_well = true;
        let scanned = inner.segments.scan(segment, (start, end), |_, entry| {
            is_well &= is_sound(&entry);
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
        let damaged = if is_well && is_whole { 0 } else { self.drop_damaged_in(segment, (start, end))? };
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
    fn drop_damaged_in(&self, segment: u32, (start, end): (u64, u64)) -> Result<u64, StoreError> {
        let suspects = self.0.index.fold(Vec::new, |suspects: &mut Vec<Key>, key, location| {
            // An entry that begins in the stretch has its payload there or right behind it.
            let at = u64::from(location.offset);
            if location.segment == segment && (start..=end).contains(&at.saturating_sub(1)) {
                suspects.push(key);
            }
        })?;
        let mut damaged = 0;
        for key in suspects {
            let read = match key.kind {
                Kind::Chunk => self.read_chunk(&key.hash),
                Kind::Page => self.read_page(&key.hash),
            };
            match read {
                Err(StoreError::Damaged { .. }) => damaged += 1,
                Ok(_) | Err(StoreError::NotHeld { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if damaged > 0 {
            // A manifest in memory does not show that its page is gone from the disk.
            self.0.manifests().clear();
            self.0.complete().clear();
        }
        Ok(damaged)
    }
}

/// Whether the entry's bytes are those that its name says; its checksums were right.
fn is_sound(entry: &Entry<'_>) -> bool {
    let hash = entry.key.hash;
    match entry.key.kind {
        Kind::Page => Hash::of(entry.payload) == hash,
        Kind::Chunk => coding::check(hash, entry.plain, entry.encoding, entry.payload, |_| ()).is_ok(),
    }
}
