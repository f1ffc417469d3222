//! Writes the pages of a manifest while the content goes by.

use super::page::{Entry, Item, ManifestError, PageRef, Root, WirePage, WireRoot, check_entry, check_neighbours};
use super::{MAX_CHUNKS, MAX_DEPTH, MAX_IMAGE_BYTES, MAX_PAGE_ENTRIES};
use crate::bounded::List;
use crate::codec;
use crate::ids::{Hash, ImageId};
use crate::image::chunker::CHUNKER;

/// A page that was just written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPage {
    /// BLAKE3 of its bytes.
    pub hash: Hash,
    /// Its bytes, at most [`super::MAX_PAGE_BYTES`].
    pub bytes: Vec<u8>,
}

impl NewPage {
    fn of(bytes: Vec<u8>) -> Self {
        Self { hash: Hash::of(&bytes), bytes }
    }
}

/// Takes the entries of an image in order and writes its pages. Holds one unfinished page per level.
#[derive(Debug, Default)]
pub struct ManifestBuilder {
    levels: Vec<Level>,
    pages: Vec<NewPage>,
    last: Option<Entry>,
    bytes: u64,
    chunks: u64,
}

#[derive(Debug, Default)]
struct Level {
    items: Vec<Item>,
    bytes: u64,
    chunks: u64,
}

impl ManifestBuilder {
    /// A manifest of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next entry.
    ///
    /// # Errors
    /// An entry that cannot stand here, or an image over [`MAX_CHUNKS`] or [`MAX_IMAGE_BYTES`].
    pub fn push(&mut self, entry: Entry) -> Result<(), ManifestError> {
        check_entry(entry, self.bytes)?;
        check_neighbours(self.last, entry)?;
        let bytes = self.bytes.saturating_add(entry.bytes());
        let chunks = self.chunks + entry.chunks();
        for (what, found, max) in
            [("a length in bytes of", bytes, MAX_IMAGE_BYTES), ("a number of chunks of", chunks, MAX_CHUNKS)]
        {
            if found > max {
                return Err(ManifestError::OutOfRange { what, found, min: 0, max });
            }
        }
        (self.bytes, self.chunks, self.last) = (bytes, chunks, Some(entry));
        self.add(0, Item::Entry(entry), entry.bytes(), entry.chunks())
    }

    /// The pages that are finished since the last call, children before parents.
    pub fn take_pages(&mut self) -> Vec<NewPage> {
        std::mem::take(&mut self.pages)
    }

    /// Writes the remaining pages; the root is the last of them.
    ///
    /// # Errors
    /// [`ManifestError::OutOfRange`] where the tree would be deeper than [`MAX_DEPTH`].
    pub fn finish(mut self) -> Result<(ImageId, Root, Vec<NewPage>), ManifestError> {
        let mut level = 0;
        while level + 1 < self.levels.len() {
            self.close(level)?;
            level += 1;
        }
        let items = self.levels.pop().unwrap_or_default().items;
        // MAX_DEPTH levels at most: `add` refuses more.
        let depth = level as u8 + 1;
        let root = codec::encode(&WireRoot {
            bytes: self.bytes,
            chunker: CHUNKER.to_owned(),
            chunks: self.chunks,
            depth: depth.into(),
            entries: full(items)?,
        })?;
        let id = ImageId::of(&root);
        self.pages.push(NewPage::of(root));
        Ok((id, Root { bytes: self.bytes, chunks: self.chunks, depth }, self.pages))
    }

    fn add(&mut self, level: usize, item: Item, bytes: u64, chunks: u64) -> Result<(), ManifestError> {
        if level == self.levels.len() {
            if level == usize::from(MAX_DEPTH) {
                let (found, max) = (level as u64 + 1, MAX_DEPTH.into());
                return Err(ManifestError::OutOfRange { what: "a depth of", found, min: 1, max });
            }
            self.levels.push(Level::default());
        }
        // A full page is written only when another entry follows it: what fits one page has no second level.
        if self.levels[level].items.len() == MAX_PAGE_ENTRIES {
            self.close(level)?;
        }
        let level = &mut self.levels[level];
        level.items.push(item);
        level.bytes += bytes;
        level.chunks += chunks;
        Ok(())
    }

    fn close(&mut self, level: usize) -> Result<(), ManifestError> {
        let Level { items, bytes, chunks } = std::mem::take(&mut self.levels[level]);
        let page = NewPage::of(codec::encode(&WirePage { entries: full(items)?, level: level as u64 })?);
        let hash = page.hash;
        self.pages.push(page);
        self.add(level + 1, Item::Page(PageRef { hash, bytes, chunks }), bytes, chunks)
    }
}

fn full(items: Vec<Item>) -> Result<List<Item, MAX_PAGE_ENTRIES>, ManifestError> {
    List::try_from(items).map_err(|_| ManifestError::NotCanonical("a page with too many entries"))
}
