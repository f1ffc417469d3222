//! Chunks and pages, one at a time: put by name and checked, read by name and checked again.

use std::io;
use std::sync::PoisonError;

use rialto_protocol::ids::Hash;
use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::image::manifest::MAX_PAGE_BYTES;
use rialto_protocol::image::similarity::Features;

use super::dependent::{self, KEPT_BYTES};
use super::error::{PeerFault, StoreError};
use super::segment::{Entry, Key, Location, Packing};
use super::writer::Floor;
use super::{Store, coding};
use crate::recent::Recent;

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

/// A chunk as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// It can be read by itself.
    Alone(Encoded),
    /// As a zstd frame against other chunks.
    Against {
        /// These, one after the other, are the frame's raw-content dictionary.
        names: Vec<Hash>,
        /// The frame.
        frame: Vec<u8>,
    },
}

impl Encoded {
    /// A chunk encoded by itself, where that makes it smaller.
    fn of(plain: Vec<u8>) -> Self {
        // No chunk is longer than 32 bits tell.
        let plain_length = plain.len() as u32;
        let mut bytes = vec![0; plain.len()];
        match coding::compress_to(&plain, &mut bytes) {
            Some(length) => {
                bytes.truncate(length);
                Self { encoding: Encoding::Zstd, plain_length, bytes }
            }
            None => Self { encoding: Encoding::Raw, plain_length, bytes: plain },
        }
    }

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
        self.read_plain(hash, true)
    }

    /// As [`Store::read_chunk`], of a chunk that others depend on: one that depends on others itself is no such.
    pub(super) fn read_base(&self, hash: &Hash) -> Result<Vec<u8>, StoreError> {
        self.read_plain(hash, false)
    }

    fn read_plain(&self, hash: &Hash, may_depend: bool) -> Result<Vec<u8>, StoreError> {
        let key = Key::chunk(*hash);
        let mut attempt = 1;
        loop {
            let (location, bytes) = self.read(key)?;
            let Location { plain, packing, .. } = location;
            let found = match packing {
                Packing::Raw => (bytes.len() == plain as usize && Hash::of(&bytes) == *hash).then_some(bytes),
                Packing::Zstd => coding::check(*hash, plain, Encoding::Zstd, &bytes, <[u8]>::to_vec).ok(),
                Packing::Dependent if may_depend => self.decode_dependent(*hash, plain, &bytes)?,
                Packing::Dependent => return Err(key.not_held()),
            };
            match found {
                Some(plain) => return Ok(plain),
                // A collection has stored it by itself, before what it depended on went.
                None if attempt < READ_ATTEMPTS && self.0.index.find(&key)? != Some(location) => attempt += 1,
                None => return Err(self.drop_damaged(key, &location)),
            }
        }
    }

    /// A chunk as it is stored, checked by its checksum only: whoever receives it checks the hash.
    ///
    /// # Errors
    /// As [`Store::read_chunk`].
    pub fn read_stored(&self, hash: &Hash) -> Result<Stored, StoreError> {
        let key = Key::chunk(*hash);
        let (location, bytes) = self.read(key)?;
        if crc32fast::hash(&bytes) != location.crc {
            return Err(self.drop_damaged(key, &location));
        }
        match location.packing.encoding() {
            Some(encoding) => Ok(Stored::Alone(Encoded { encoding, plain_length: location.plain, bytes })),
            None => match dependent::parse(&bytes) {
                Some((names, frame)) => Ok(Stored::Against { names, frame: frame.to_vec() }),
                None => Err(self.drop_damaged(key, &location)),
            },
        }
    }

    /// As [`Store::read_stored`], but what is stored against others is decoded, and encoded by itself.
    ///
    /// # Errors
    /// As [`Store::read_chunk`].
    pub fn read_encoded(&self, hash: &Hash) -> Result<Encoded, StoreError> {
        match self.read_stored(hash)? {
            Stored::Alone(encoded) => Ok(encoded),
            Stored::Against { .. } => Ok(Encoded::of(self.read_chunk(hash)?)),
        }
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

    /// The features that were stored with a chunk; `None` where there are none of the version in use.
    pub(super) fn stored_features(&self, hash: &Hash) -> Result<Option<Features>, StoreError> {
        let key = Key::chunk(*hash);
        let location = self.0.index.find(&key)?.ok_or_else(|| key.not_held())?;
        if location.packing == Packing::Raw {
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
        // What was read of it before must not hide that it is gone.
        *self.0.bases_read.lock().unwrap_or_else(PoisonError::into_inner) = Recent::new(KEPT_BYTES);
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
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}
