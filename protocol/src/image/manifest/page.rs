//! One page of a manifest: its form, and the checks against what its parent promised.

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{MAX_CHUNKS, MAX_DEPTH, MAX_IMAGE_BYTES, MAX_PAGE_BYTES, MAX_PAGE_ENTRIES};
use crate::bounded::List;
use crate::codec::{self, CodecError};
use crate::ids::{Hash, ImageId};
use crate::image::chunker::{BLOCK_BYTES, CHUNKER, MAX_CHUNK_BYTES, MIN_CHUNK_BYTES, MIN_HOLE_BYTES};

/// Why bytes are not the page they should be. Except for [`ManifestError::Chunker`], whoever made them lied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not the bytes that were asked for.
    #[error("page {expected} was asked for and page {found} came")]
    WrongHash {
        /// The hash that was asked for.
        expected: Hash,
        /// The hash of what came.
        found: Hash,
    },
    /// Not canonical CBOR of the right form, or too large.
    #[error("malformed manifest page: {0}")]
    Codec(#[from] CodecError),
    /// Cut by a chunker that this node does not know.
    #[error("the image was cut by '{0}', and this version of Rialto knows '{CHUNKER}' only; update Rialto to use it")]
    Chunker(String),
    /// Larger than an image can be, or of a depth that there is not.
    #[error("the manifest states {what} {found}, where {min} to {max} is allowed")]
    OutOfRange {
        /// Which of its statements.
        what: &'static str,
        /// What it states.
        found: u64,
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
    /// A page does not have what its parent, or the root's own head, says it has.
    #[error("a manifest page has {found} {what}, and {expected} were promised")]
    Promise {
        /// Of what.
        what: &'static str,
        /// How many were promised.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// Entries that the one canonical manifest of a content cannot have.
    #[error("not the canonical manifest of its content: {0}")]
    NotCanonical(&'static str),
}

/// One entry of a page at level 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A chunk of data.
    Chunk {
        /// BLAKE3 of its plain bytes.
        hash: Hash,
        /// Its length in bytes, 1 to [`MAX_CHUNK_BYTES`].
        length: u32,
    },
    /// Zeros that are not stored.
    Hole {
        /// How many, in bytes: a multiple of [`BLOCK_BYTES`], at least [`MIN_HOLE_BYTES`].
        length: u64,
    },
}

impl Entry {
    /// Bytes of content that it stands for.
    pub fn bytes(&self) -> u64 {
        match *self {
            Self::Chunk { length, .. } => length.into(),
            Self::Hole { length } => length,
        }
    }

    /// Chunks that it stands for: 1, or 0 for a hole.
    pub fn chunks(&self) -> u64 {
        matches!(self, Self::Chunk { .. }).into()
    }
}

/// What a page says of one below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRef {
    /// BLAKE3 of the page's bytes.
    pub hash: Hash,
    /// Bytes of content that it stands for.
    pub bytes: u64,
    /// Chunks that it stands for.
    pub chunks: u64,
}

/// What the root says of the whole image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// Length of the content, in bytes.
    pub bytes: u64,
    /// Number of chunks, holes not counted.
    pub chunks: u64,
    /// Levels of pages.
    pub depth: u8,
}

/// The entries of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entries {
    /// At level 0.
    Leaf(Vec<Entry>),
    /// Above it.
    Inner(Vec<PageRef>),
}

/// What a page must be, according to those above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation(Expected);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Root(ImageId),
    Child { page: PageRef, level: u8, offset: u64, is_last: bool },
}

impl Expectation {
    /// The root page of an image, of which nothing but its hash is known.
    pub fn root(id: &ImageId) -> Self {
        Self(Expected::Root(*id))
    }

    /// The hash of the page's bytes.
    pub fn hash(&self) -> Hash {
        match &self.0 {
            Expected::Root(id) => id.hash(),
            Expected::Child { page, .. } => page.hash,
        }
    }

    /// Chunks that the page stands for, where that is known before reading it.
    pub fn chunks(&self) -> Option<u64> {
        match &self.0 {
            Expected::Root(_) => None,
            Expected::Child { page, .. } => Some(page.chunks),
        }
    }
}

/// A page that agrees with its hash, its parent and itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// What it says of the whole image, where it is the root.
    pub root: Option<Root>,
    /// Levels of pages below it.
    pub level: u8,
    /// Where its content starts in the image's, in bytes.
    pub offset: u64,
    /// Its entries.
    pub entries: Entries,
    is_last: bool,
}

impl Page {
    /// Reads a page and checks it against `expected`.
    ///
    /// # Errors
    /// Anything about it that does not agree; nothing is allocated for bytes of a wrong hash or form.
    pub fn decode(bytes: &[u8], expected: &Expectation) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_PAGE_BYTES {
            return Err(CodecError::TooLarge { length: bytes.len(), max: MAX_PAGE_BYTES }.into());
        }
        let found = Hash::of(bytes);
        if found != expected.hash() {
            return Err(ManifestError::WrongHash { expected: expected.hash(), found });
        }
        match expected.0 {
            Expected::Root(_) => Self::decode_root(bytes),
            Expected::Child { page, level, offset, is_last } => {
                let wire: WirePage = codec::decode(bytes, MAX_PAGE_BYTES)?;
                promise("levels below it", level.into(), wire.level)?;
                let page_found = Self { root: None, level, offset, entries: entries(level, wire.entries)?, is_last };
                page_found.check(page.bytes, page.chunks)?;
                Ok(page_found)
            }
        }
    }

    fn decode_root(bytes: &[u8]) -> Result<Self, ManifestError> {
        let wire: WireRoot = codec::decode(bytes, MAX_PAGE_BYTES)?;
        if wire.chunker != CHUNKER {
            return Err(ManifestError::Chunker(wire.chunker.chars().take(80).filter(|c| !c.is_control()).collect()));
        }
        in_range("a depth of", wire.depth, 1, MAX_DEPTH.into())?;
        in_range("a length in bytes of", wire.bytes, 0, MAX_IMAGE_BYTES)?;
        in_range("a number of chunks of", wire.chunks, 0, MAX_CHUNKS)?;
        // At most MAX_DEPTH, which was just checked.
        let depth = wire.depth as u8;
        let root = Root { bytes: wire.bytes, chunks: wire.chunks, depth };
        let level = depth - 1;
        let page = Self { root: Some(root), level, offset: 0, entries: entries(level, wire.entries)?, is_last: true };
        if level > 0 && page.len() < 2 {
            return Err(ManifestError::NotCanonical("a root above a single page"));
        }
        page.check(root.bytes, root.chunks)?;
        Ok(page)
    }

    /// What the pages below it must be; empty at level 0.
    pub fn children(&self) -> Vec<Expectation> {
        let Entries::Inner(pages) = &self.entries else { return Vec::new() };
        let mut offset = self.offset;
        let expect = |(index, page): (usize, &PageRef)| {
            let is_last = self.is_last && index + 1 == pages.len();
            let child = Expected::Child { page: *page, level: self.level - 1, offset, is_last };
            offset += page.bytes;
            Expectation(child)
        };
        pages.iter().enumerate().map(expect).collect()
    }

    fn len(&self) -> usize {
        match &self.entries {
            Entries::Leaf(entries) => entries.len(),
            Entries::Inner(pages) => pages.len(),
        }
    }

    fn check(&self, bytes: u64, chunks: u64) -> Result<(), ManifestError> {
        let is_empty_image = self.root.is_some_and(|root| root.bytes == 0);
        if self.len() == 0 && !is_empty_image {
            return Err(ManifestError::NotCanonical("a page without entries"));
        }
        if !self.is_last && self.len() != MAX_PAGE_ENTRIES {
            return Err(ManifestError::NotCanonical("a page that is not the last and not full"));
        }
        let (found_bytes, found_chunks) = match &self.entries {
            Entries::Leaf(entries) => self.check_leaf(entries)?,
            Entries::Inner(pages) => self.check_inner(pages)?,
        };
        promise("bytes", bytes, found_bytes)?;
        promise("chunks", chunks, found_chunks)
    }

    fn check_leaf(&self, entries: &[Entry]) -> Result<(u64, u64), ManifestError> {
        let (mut bytes, mut chunks, mut last) = (0, 0, None);
        for &entry in entries {
            check_entry(entry, self.offset + bytes)?;
            check_neighbours(last, entry)?;
            bytes = add(bytes, entry.bytes())?;
            chunks += entry.chunks();
            last = Some(entry);
        }
        Ok((bytes, chunks))
    }

    fn check_inner(&self, pages: &[PageRef]) -> Result<(u64, u64), ManifestError> {
        // A full page has 1,024 entries, of which no two neighbours are holes. This is what makes the number of pages,
        // and not only of chunks, follow from the root's count: a page that is repeated cannot stand for endless others.
        let span = (MAX_PAGE_ENTRIES as u64).pow(self.level.into());
        let (mut bytes, mut chunks) = (0, 0);
        for (index, page) in pages.iter().enumerate() {
            let is_last = self.is_last && index + 1 == pages.len();
            in_range("chunks below a page of", page.chunks, if is_last { 0 } else { span / 2 }, span)?;
            if page.bytes == 0 {
                return Err(ManifestError::NotCanonical("a page that stands for nothing"));
            }
            bytes = add(bytes, page.bytes)?;
            chunks = add(chunks, page.chunks)?;
        }
        Ok((bytes, chunks))
    }
}

/// Checks one entry that starts at `offset`.
pub(super) fn check_entry(entry: Entry, offset: u64) -> Result<(), ManifestError> {
    match entry {
        Entry::Chunk { length, .. } => in_range("a chunk length of", length.into(), 1, MAX_CHUNK_BYTES as u64),
        Entry::Hole { length } => {
            in_range("a hole length of", length, MIN_HOLE_BYTES, MAX_IMAGE_BYTES)?;
            let is_aligned = length.is_multiple_of(BLOCK_BYTES as u64) && offset.is_multiple_of(BLOCK_BYTES as u64);
            if is_aligned { Ok(()) } else { Err(ManifestError::NotCanonical("a hole off the 4 KiB grid")) }
        }
    }
}

/// Checks that `next` may follow `last`.
pub(super) fn check_neighbours(last: Option<Entry>, next: Entry) -> Result<(), ManifestError> {
    match (last, next) {
        (Some(Entry::Hole { .. }), Entry::Hole { .. }) => {
            Err(ManifestError::NotCanonical("two holes beside each other"))
        }
        (Some(Entry::Chunk { length, .. }), Entry::Chunk { .. }) if (length as usize) < MIN_CHUNK_BYTES => {
            Err(ManifestError::NotCanonical("a short chunk that no hole and no end follows"))
        }
        _ => Ok(()),
    }
}

fn add(sum: u64, more: u64) -> Result<u64, ManifestError> {
    let sum = sum.saturating_add(more);
    in_range("a sum of", sum, 0, MAX_IMAGE_BYTES)?;
    Ok(sum)
}

fn in_range(what: &'static str, found: u64, min: u64, max: u64) -> Result<(), ManifestError> {
    if (min..=max).contains(&found) { Ok(()) } else { Err(ManifestError::OutOfRange { what, found, min, max }) }
}

fn promise(what: &'static str, expected: u64, found: u64) -> Result<(), ManifestError> {
    if expected == found { Ok(()) } else { Err(ManifestError::Promise { what, expected, found }) }
}

fn entries(level: u8, items: List<Item, MAX_PAGE_ENTRIES>) -> Result<Entries, ManifestError> {
    const MIXED: ManifestError = ManifestError::NotCanonical("an entry of another level");
    if level == 0 {
        let entry = |item| match item {
            Item::Entry(entry) => Ok(entry),
            Item::Page(_) => Err(MIXED),
        };
        items.into_vec().into_iter().map(entry).collect::<Result<_, _>>().map(Entries::Leaf)
    } else {
        let page = |item| match item {
            Item::Page(page) => Ok(page),
            Item::Entry(_) => Err(MIXED),
        };
        items.into_vec().into_iter().map(page).collect::<Result<_, _>>().map(Entries::Inner)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireRoot {
    pub(super) bytes: u64,
    pub(super) chunker: String,
    pub(super) chunks: u64,
    pub(super) depth: u64,
    pub(super) entries: List<Item, MAX_PAGE_ENTRIES>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WirePage {
    pub(super) entries: List<Item, MAX_PAGE_ENTRIES>,
    pub(super) level: u64,
}

/// An entry as it is written: `[hash, length]`, the length of a hole, or `[hash, bytes, chunks]`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item {
    Entry(Entry),
    Page(PageRef),
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Entry(Entry::Chunk { hash, length }) => (hash, length).serialize(serializer),
            Self::Entry(Entry::Hole { length }) => length.serialize(serializer),
            Self::Page(PageRef { hash, bytes, chunks }) => (hash, bytes, chunks).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = Item;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("[hash, length], [hash, bytes, chunks] or the length of a hole")
            }

            fn visit_u64<E: serde::de::Error>(self, length: u64) -> Result<Item, E> {
                Ok(Item::Entry(Entry::Hole { length }))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Item, A::Error> {
                let short = |length| A::Error::invalid_length(length, &Form);
                let hash: Hash = seq.next_element()?.ok_or_else(|| short(0))?;
                let first: u64 = seq.next_element()?.ok_or_else(|| short(1))?;
                let Some(chunks) = seq.next_element::<u64>()? else {
                    let length = u32::try_from(first)
                        .map_err(|_| A::Error::custom("a chunk length that does not fit 32 bits"))?;
                    return Ok(Item::Entry(Entry::Chunk { hash, length }));
                };
                match seq.next_element::<serde::de::IgnoredAny>()? {
                    None => Ok(Item::Page(PageRef { hash, bytes: first, chunks })),
                    Some(_) => Err(short(4)),
                }
            }
        }

        deserializer.deserialize_any(Form)
    }
}
