//! What an image is made of: a tree of small pages that can be checked one at a time, from the root down.
//!
//! ```text
//! root page  = { bytes, chunker, chunks, depth, entries }         canonical CBOR, ≤ 64 KiB; the ImageId is its CID
//! other page = { entries, level }                                 canonical CBOR, ≤ 64 KiB; named by its BLAKE3 hash
//! entries at level 0: a chunk [hash, length], or the length of a hole, in bytes        1 to 1,024 of them
//! entries above:      a page [hash, bytes, chunks]
//! ```
//!
//! `depth` counts levels of pages, the root's included; the root is at level `depth - 1`. For one content there is one
//! manifest: pages are filled to the brim from the left, holes are not adjacent, and cut points that `rialto-cdc-1`
//! cannot have made are refused. A page is believed only as far as its parent vouches for it: hash, bytes, chunks, level
//! and place must all agree, so nobody can make a small page stand for endless content.

mod build;
mod page;

use std::collections::BTreeSet;

pub use build::{ManifestBuilder, NewPage};
pub use page::{Entries, Entry, Expectation, ManifestError, Page, PageRef, Root};

use crate::ids::{Hash, ImageId};

/// Entries of a page. With at most 53 bytes each, a full page stays below [`MAX_PAGE_BYTES`].
pub const MAX_PAGE_ENTRIES: usize = 1024;
/// A page is at most this long, in bytes.
pub const MAX_PAGE_BYTES: usize = 64 * 1024;
/// Levels of pages.
pub const MAX_DEPTH: u8 = 4;
/// Chunks of one image: more than 1 TiB of data at the average length, and what a node can list in memory.
pub const MAX_CHUNKS: u64 = 1 << 25;
/// Content of one image, in bytes: 1 PiB, which any file offset can express.
pub const MAX_IMAGE_BYTES: u64 = 1 << 50;

/// One chunk of an image: 48 bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef {
    /// Its name.
    pub hash: Hash,
    /// Where it lies in the content, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u32,
}

/// A whole manifest, flattened and verified. Where no chunk lies, there is a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The image.
    pub id: ImageId,
    /// Length of the content, in bytes.
    pub bytes: u64,
    /// Bytes that no hole covers.
    pub data_bytes: u64,
    /// The chunks in order; a chunk that occurs twice is listed twice.
    pub chunks: Vec<ChunkRef>,
    /// The pages, root first; each once.
    pub pages: Vec<Hash>,
}

/// What is known of an image from the pages at hand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// What the root says, once it is at hand.
    pub root: Option<Root>,
    /// The chunks that the pages at hand list, in order.
    pub chunks: Vec<ChunkRef>,
    /// The pages at hand, root first; each once.
    pub pages: Vec<Hash>,
    /// The pages that are lacking, each once. When these have come, another survey may name deeper ones.
    pub missing: Vec<Expectation>,
}

/// Visits the pages of an image that `read` can give, checking each against its parent.
///
/// A download asks for what is `missing` and surveys again, at most [`MAX_DEPTH`] times in all. Memory is bounded by
/// the chunk count of the root, which is bounded by [`MAX_CHUNKS`].
///
/// # Errors
/// What is wrong with a page, or whatever `read` returns.
pub fn survey<E: From<ManifestError>>(
    id: &ImageId,
    read: impl FnMut(&Hash) -> Result<Option<Vec<u8>>, E>,
) -> Result<Survey, E> {
    let mut visit = Visit { read, survey: Survey::default(), seen: BTreeSet::new(), last: None };
    visit.page(&Expectation::root(id))?;
    Ok(visit.survey)
}

impl Survey {
    /// The manifest, where no page is missing.
    pub fn into_manifest(self, id: ImageId) -> Option<Manifest> {
        let root = self.root.filter(|_| self.missing.is_empty())?;
        let data_bytes = self.chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        let mut chunks = self.chunks;
        chunks.shrink_to_fit();
        Some(Manifest { id, bytes: root.bytes, data_bytes, chunks, pages: self.pages })
    }
}

struct Visit<R> {
    read: R,
    survey: Survey,
    seen: BTreeSet<Hash>,
    /// The entry before the next one, where it is known.
    last: Option<Entry>,
}

impl<E: From<ManifestError>, R: FnMut(&Hash) -> Result<Option<Vec<u8>>, E>> Visit<R> {
    fn page(&mut self, expected: &Expectation) -> Result<(), E> {
        let is_new = self.seen.insert(expected.hash());
        let Some(bytes) = (self.read)(&expected.hash())? else {
            if is_new {
                self.survey.missing.push(*expected);
            }
            self.last = None;
            return Ok(());
        };
        let page = Page::decode(&bytes, expected)?;
        if is_new {
            self.survey.pages.push(expected.hash());
        }
        if let Some(root) = page.root {
            self.survey.root = Some(root);
        }
        match &page.entries {
            Entries::Leaf(entries) => Ok(self.leaf(page.offset, entries)?),
            Entries::Inner(_) => page.children().iter().try_for_each(|child| self.page(child)),
        }
    }

    fn leaf(&mut self, mut offset: u64, entries: &[Entry]) -> Result<(), ManifestError> {
        for &entry in entries {
            page::check_neighbours(self.last, entry)?;
            if let Entry::Chunk { hash, length } = entry {
                self.survey.chunks.push(ChunkRef { hash, offset, length });
            }
            offset += entry.bytes();
            self.last = Some(entry);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
