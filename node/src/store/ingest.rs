//! Adding content: cut into chunks, hashed, looked up, compressed and appended, with every processor at work.

mod pipeline;
mod source;

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use rialto_protocol::ids::{Hash, ImageId, Sha256};
use rialto_protocol::image::chunker::{Chunker, MAX_CHUNK_BYTES, Piece};
use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::image::manifest::{self, ManifestBuilder, ManifestError, NewPage};

use super::journal::Origin;
use super::packed::Packed;
use super::relatives::Relatives;
use super::segment::{Entry, Key};
use super::writer::Floor;
use super::{Store, StoreError};
use sha2::Digest as _;
use source::Source;

/// Bytes that are read at once for digests: 1 MiB, below which hashing is not at its best.
const DIGEST_BYTES: usize = 1 << 20;
static NEXT_ADDITION: AtomicU64 = AtomicU64::new(0);

/// What was added.
#[derive(Debug, Clone, PartialEq)]
pub struct Added {
    /// The image.
    pub image: ImageId,
    /// Length of the content, in bytes.
    pub bytes: u64,
    /// Chunks, holes not counted.
    pub chunks: u64,
    /// Chunks that were not held before.
    pub new_chunks: u64,
    /// Bytes that the store grew by.
    pub stored_bytes: u64,
    /// Digests of the flat content, where they were asked for.
    pub digests: Option<FlatDigests>,
    /// How long it took.
    pub seconds: f64,
}

/// Digests of an image as a flat file, holes as zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlatDigests {
    /// BLAKE3.
    pub blake3: Hash,
    /// SHA-256.
    pub sha256: Sha256,
}

impl FlatDigests {
    /// Reads a flat file to its end. Blocks, for a second or so a GiB.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of(mut file: impl Read) -> io::Result<Self> {
        let (mut blake3, mut sha256) = (blake3::Hasher::new(), sha2::Sha256::new());
        let mut buffer = vec![0; DIGEST_BYTES];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    blake3.update(&buffer[..read]);
                    sha256.update(&buffer[..read]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { blake3: Hash(*blake3.finalize().as_bytes()), sha256: Sha256(sha256.finalize().into()) })
    }
}

/// Whether an addition takes [`FlatDigests`]. They cost as much as all the rest where an image is mostly holes, and only a
/// release states them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digests {
    /// No.
    Skip,
    /// Yes.
    Take,
}

impl Store {
    /// Adds the content of a regular file or of a block device as an image, whatever it is. Holes of the file are not
    /// read. Takes some 10 MiB of memory, and some 20 bytes for each chunk until it ends.
    ///
    /// New chunks are stored against similar ones of images that are held, where that is clearly smaller: of those that it
    /// is `like`, such as other releases of one appliance, and then of the newest that are about as long. That takes 20 MiB
    /// more, and about 100 bytes for each chunk of those images, 50 MB at most.
    ///
    /// `progress` is told bytes done and bytes in all, `cancel` is asked every few MiB. When this returns, the image is
    /// on disk and listed. Where it fails, chunks that were already stored stay until the next [`Store::gc`].
    ///
    /// # Errors
    /// [`StoreError::NotAFile`], [`StoreError::DeviceInUse`], [`StoreError::Changed`], [`StoreError::Cancelled`], or a
    /// full or failing disk.
    pub fn add_file(
        &self,
        path: &Path,
        digests: Digests,
        like: &[ImageId],
        progress: &mut dyn FnMut(u64, u64),
        cancel: &dyn Fn() -> bool,
    ) -> Result<Added, StoreError> {
        let started = Instant::now();
        let source = Source::open(path)?;
        let mut addition = Addition::new(self, like, source.bytes())?;
        let digests = pipeline::run(&mut addition, &source, digests, progress, cancel)?;
        source.check_unchanged()?;
        addition.finish(digests, started)
    }

    /// Adds content that lies in memory as an image.
    ///
    /// # Errors
    /// A full or failing disk.
    pub fn add_bytes(&self, content: &[u8]) -> Result<Added, StoreError> {
        let started = Instant::now();
        let mut addition = Addition::new(self, &[], content.len() as u64)?;
        let relatives = Arc::clone(&addition.relatives);
        let (mut search, mut buffer) = (relatives.search(), vec![0; MAX_CHUNK_BYTES]);
        let mut sink = |piece: Piece<'_>| match piece {
            Piece::Data { bytes, .. } => {
                let hash = Hash::of(bytes);
                if self.has_chunk(&hash)? {
                    search.pass(hash, bytes);
                    addition.chunk(hash, bytes, Packed::Held)
                } else {
                    let shape = search.pack(hash, bytes, &mut buffer[..bytes.len()]);
                    addition.chunk(hash, bytes, shape.packed(&buffer))
                }
            }
            Piece::Hole { length, .. } => addition.entry(manifest::Entry::Hole { length }),
        };
        let mut chunker = Chunker::new();
        chunker.push(content, &mut sink)?;
        chunker.finish(&mut sink)?;
        addition.finish(None, started)
    }
}

/// An image being added. While it lives, garbage collection keeps what it relies on.
struct Addition<'a> {
    store: &'a Store,
    /// What its chunks may be stored against.
    relatives: Arc<Relatives>,
    number: u64,
    builder: ManifestBuilder,
    new_chunks: u64,
    stored_bytes: u64,
}

impl<'a> Addition<'a> {
    fn new(store: &'a Store, like: &[ImageId], bytes: u64) -> Result<Self, StoreError> {
        store.0.drop_doubtful()?;
        let relatives = Arc::new(Relatives::choose(store, like, bytes)?);
        let number = NEXT_ADDITION.fetch_add(1, Ordering::Relaxed);
        store.0.adding().insert(number, HashSet::new());
        Ok(Self { store, relatives, number, builder: ManifestBuilder::new(), new_chunks: 0, stored_bytes: 0 })
    }

    fn chunk(&mut self, hash: Hash, plain: &[u8], packed: Packed<'_>) -> Result<(), StoreError> {
        self.rely_on(Key::chunk(hash));
        let stored_bytes = self.store.put_packed(hash, plain, packed, Floor::Respect)?;
        self.new_chunks += u64::from(stored_bytes > 0);
        self.stored_bytes += stored_bytes;
        self.entry(manifest::Entry::Chunk { hash, length: plain.len() as u32 })
    }

    fn entry(&mut self, entry: manifest::Entry) -> Result<(), StoreError> {
        self.builder.push(entry).map_err(impossible)?;
        let pages = self.builder.take_pages();
        self.pages(pages)
    }

    fn pages(&mut self, pages: Vec<NewPage>) -> Result<(), StoreError> {
        for page in pages {
            let key = Key::page(page.hash);
            self.rely_on(key);
            self.store.forget_damaged_page(&page.hash)?;
            let entry = Entry::new(key, page.bytes.len() as u32, Encoding::Raw, &page.bytes);
            if self.store.put(&entry, Floor::Respect)? {
                self.stored_bytes += entry.bytes();
            }
        }
        Ok(())
    }

    /// Tells a collection that this is needed. Must come before looking whether it is held.
    fn rely_on(&self, key: Key) {
        let _reachable = self.store.0.reachable.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(needed) = self.store.0.adding().get_mut(&self.number) {
            needed.insert(super::gc::print(&key));
        }
    }

    fn finish(mut self, digests: Option<FlatDigests>, started: Instant) -> Result<Added, StoreError> {
        let (image, root, pages) = std::mem::take(&mut self.builder).finish().map_err(impossible)?;
        self.pages(pages)?;
        self.store.commit()?;
        self.store.list(&image, Origin::Local)?;
        Ok(Added {
            image,
            bytes: root.bytes,
            chunks: root.chunks,
            new_chunks: self.new_chunks,
            stored_bytes: self.stored_bytes,
            digests,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

impl Drop for Addition<'_> {
    fn drop(&mut self) {
        self.store.0.adding().remove(&self.number);
    }
}

/// What a file is can only be refused for its size: the chunker makes no other entries.
fn impossible(source: ManifestError) -> StoreError {
    StoreError::Io {
        doing: "list the chunks of",
        path: "the content".into(),
        source: io::Error::new(io::ErrorKind::FileTooLarge, source),
    }
}
