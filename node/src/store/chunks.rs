//! Chunks and pages, one at a time: put by name and checked, read by name and checked again.

use std::io;
use std::sync::PoisonError;

use rialto_protocol::ids::Hash;
use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::image::manifest::MAX_PAGE_BYTES;
use rialto_protocol::image::similarity::Features;

use super::Store;
use super::coding;
use super::error::{PeerFault, StoreError};
use super::segment::{Entry, Key, Location};
use super::writer::Floor;

/// Attempts at reading an entry that a collection moves at the same time.
const READ_ATTEMPTS: usize = 4;

/// A chunk as it is stored, to be sent as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// How `bytes` are to be read.
    pub encoding: Encoding,
    /// Length of the chunk itself, in bytes.
    pub plain_length: u32,
    /// What to send.
    pub bytes: Vec<u8>,
}

impl Encoded {
    /// The plain bytes, checked against their name.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where these are not the bytes of that chunk.
    pub fn plain(&self, hash: &Hash) -> Result<Vec<u8>, StoreError> {
        let plain = coding::check(*hash, self.plain_length, self.encoding, &self.bytes, <[u8]>::to_vec);
        plain.map_err(|_| Key::chunk(*hash).damaged())
    }
}

impl Store {
    /// Whether the chunk is held.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn has_chunk(&self, hash: &Hash) -> Result<bool, StoreError> {
        Ok(self.0.index.find(&Key::chunk(*hash))?.is_some())
    }

    /// The plain bytes of a chunk, checked against its name.
    ///
    /// # Errors
    /// [`StoreError::NotHeld`]; [`StoreError::Damaged`] where the disk gave other bytes, and then the chunk counts as
    /// missing from now on.
    pub fn read_chunk(&self, hash: &Hash) -> Result<Vec<u8>, StoreError> {
        let key = Key::chunk(*hash);
        let (location, bytes) = self.read(key)?;
        let Location { plain, encoding, .. } = location;
        match encoding {
            Encoding::Raw if bytes.len() == plain as usize && Hash::of(&bytes) == *hash => Ok(bytes),
            Encoding::Raw => Err(self.drop_damaged(key, &location)),
            Encoding::Zstd => coding::check(*hash, plain, encoding, &bytes, <[u8]>::to_vec)
                .map_err(|_| self.drop_damaged(key, &location)),
        }
    }

    /// A chunk as it is stored, checked by its checksum only: whoever receives it checks the hash.
    ///
    /// # Errors
    /// As [`Store::read_chunk`].
    pub fn read_encoded(&self, hash: &Hash) -> Result<Encoded, StoreError> {
        let key = Key::chunk(*hash);
        let (location, bytes) = self.read(key)?;
        if crc32fast::hash(&bytes) != location.crc {
            return Err(self.drop_damaged(key, &location));
        }
        Ok(Encoded { encoding: location.encoding, plain_length: location.plain, bytes })
    }

    /// Stores a chunk that came from elsewhere, as it came. Returns whether it is new; what is held already is checked
    /// all the same. It survives a crash after the next [`Store::commit`].
    ///
    /// # Errors
    /// [`StoreError::Peer`] where it is not the chunk of that name and length; else the disk is full or fails.
    pub fn put_encoded(
        &self,
        hash: Hash,
        plain_length: u32,
        encoding: Encoding,
        bytes: &[u8],
    ) -> Result<bool, StoreError> {
        let features = coding::check(hash, plain_length, encoding, bytes, |plain| features_of(plain, encoding))?;
        let features = features.to_bytes();
        self.put(&Entry::new(Key::chunk(hash), plain_length, encoding, bytes).with_features(&features), Floor::Reserved)
    }

    /// Stores a chunk whose name was checked. Returns whether it is new.
    pub(super) fn put_plain(&self, hash: Hash, plain: &[u8]) -> Result<bool, StoreError> {
        if self.has_chunk(&hash)? {
            return Ok(false);
        }
        let mut buffer = vec![0; plain.len()];
        let (encoding, bytes) = match coding::compress_to(plain, &mut buffer) {
            Some(length) => (Encoding::Zstd, &buffer[..length]),
            None => (Encoding::Raw, plain),
        };
        let features = features_of(plain, encoding).to_bytes();
        self.put(
            &Entry::new(Key::chunk(hash), plain.len() as u32, encoding, bytes).with_features(&features),
            Floor::Reserved,
        )
    }

    /// The features that were stored with a chunk; `None` where there are none of the version in use.
    pub(super) fn stored_features(&self, hash: &Hash) -> Result<Option<Features>, StoreError> {
        let key = Key::chunk(*hash);
        let location = self.0.index.find(&key)?.ok_or_else(|| key.not_held())?;
        if location.encoding == Encoding::Raw {
            return Ok(Some(Features::NONE));
        }
        // One that is not written to its file yet has none to read: they are computed then.
        Ok(self.0.segments.features(&location))
    }

    /// Whether the page of a manifest is held.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn has_page(&self, hash: &Hash) -> Result<bool, StoreError> {
        Ok(self.0.index.find(&Key::page(*hash))?.is_some())
    }

    /// The bytes of a manifest's page, checked against its name.
    ///
    /// # Errors
    /// As [`Store::read_chunk`].
    pub fn read_page(&self, hash: &Hash) -> Result<Vec<u8>, StoreError> {
        let key = Key::page(*hash);
        let (location, bytes) = self.read(key)?;
        if Hash::of(&bytes) == *hash { Ok(bytes) } else { Err(self.drop_damaged(key, &location)) }
    }

    /// Stores a page of a manifest. Its form is checked when the image is surveyed, against the page above it. Returns
    /// whether it is new. Begin the fetch before putting pages, so that garbage collection knows them.
    ///
    /// # Errors
    /// [`StoreError::Peer`] where it is not the page of that name; else the disk is full or fails.
    pub fn put_page(&self, expected: &Hash, bytes: &[u8]) -> Result<bool, StoreError> {
        if bytes.len() > MAX_PAGE_BYTES {
            let (length, max) = (bytes.len() as u64, MAX_PAGE_BYTES as u64);
            return Err(PeerFault::Oversized { hash: *expected, length, max }.into());
        }
        let found = Hash::of(bytes);
        if found != *expected {
            return Err(PeerFault::WrongHash { expected: *expected, found }.into());
        }
        let _reachable = self.0.reachable.read().unwrap_or_else(PoisonError::into_inner);
        self.put_page_unguarded(found, bytes)
    }

    pub(super) fn put_page_unguarded(&self, hash: Hash, bytes: &[u8]) -> Result<bool, StoreError> {
        self.forget_damaged_page(&hash)?;
        self.put(&Entry::new(Key::page(hash), bytes.len() as u32, Encoding::Raw, bytes), Floor::Reserved)
    }

    /// Sees to it that a page which was damaged where it lies is not taken for held. Pages are few, and without one, all
    /// that it names is lost: before one is put, this is worth a look.
    pub(super) fn forget_damaged_page(&self, hash: &Hash) -> Result<(), StoreError> {
        match self.read_page(hash) {
            Ok(_) | Err(StoreError::NotHeld { .. } | StoreError::Damaged { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn put(&self, entry: &Entry<'_>, floor: Floor) -> Result<bool, StoreError> {
        let inner = &self.0;
        if inner.index.find(&entry.key)?.is_some() {
            return Ok(false);
        }
        inner.writer.append(&inner.segments, &inner.index, entry, floor)
    }

    /// What is stored under `key`, unchecked.
    fn read(&self, key: Key) -> Result<(Location, Vec<u8>), StoreError> {
        let inner = &self.0;
        let mut attempt = 1;
        loop {
            let location = inner.index.find(&key)?.ok_or_else(|| key.not_held())?;
            match inner.writer.read(&inner.segments, &location) {
                Ok(bytes) => return Ok((location, bytes)),
                Err(StoreError::Io { source, .. }) if is_gone(&source) => {
                    // A collection moves entries before it removes their segment: look again where it is now.
                    if inner.index.find(&key)? == Some(location) || attempt == READ_ATTEMPTS {
                        return Err(self.drop_damaged(key, &location));
                    }
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn drop_damaged(&self, key: Key, location: &Location) -> StoreError {
        let error = key.damaged();
        tracing::warn!(segment = location.segment, offset = location.offset, "{error}");
        self.0.complete().clear();
        match self.0.index.forget(&key, location) {
            Ok(()) => error,
            Err(error) => error,
        }
    }
}

/// The features to store with a chunk. What does not compress has little in common with anything but itself.
pub(super) fn features_of(plain: &[u8], encoding: Encoding) -> Features {
    match encoding {
        Encoding::Raw => Features::NONE,
        Encoding::Zstd => Features::of(plain),
    }
}

/// The file is not there, or ends before the entry.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}
