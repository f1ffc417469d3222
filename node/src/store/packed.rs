//! How a new chunk is stored: by itself, or against chunks that are held, where that is clearly smaller.

use rialto_protocol::ids::Hash;
use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::image::similarity::Features;

use super::segment::{Entry, Key, Packing};
use super::writer::Floor;
use super::{Store, StoreError, coding};

/// A chunk as it is to be stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Packed<'a> {
    /// It was held when somebody looked, or nobody has looked at it yet.
    Held,
    /// It does not shrink.
    Raw,
    /// With its features.
    Zstd(&'a [u8], Features),
    /// A payload that names others, with its features.
    Dependent(&'a [u8], Features),
}

impl<'a> Packed<'a> {
    /// Compresses a chunk into `buffer`, where that makes it smaller.
    pub(super) fn of(plain: &[u8], buffer: &'a mut Vec<u8>) -> Self {
        buffer.resize(plain.len(), 0);
        match coding::compress_to(plain, buffer) {
            Some(length) => Self::Zstd(&buffer[..length], Features::of(plain)),
            None => Self::Raw,
        }
    }

    /// Bytes that it takes, of a chunk with this content.
    pub(super) fn length(&self, plain: &[u8]) -> usize {
        match self {
            Self::Held => 0,
            Self::Raw => plain.len(),
            Self::Zstd(bytes, _) | Self::Dependent(bytes, _) => bytes.len(),
        }
    }
}

/// Whether a chunk of `plain` bytes is stored against others without looking what it would take by itself. Hardly any
/// content shrinks to so little by itself that this is a mistake.
pub(super) fn pays_unseen(dependent: usize, plain: usize) -> bool {
    dependent * 6 < plain
}

/// Whether a chunk that takes `alone` bytes by itself is stored against others: reading those costs time, so it must save
/// something.
pub(super) fn pays(dependent: usize, alone: usize) -> bool {
    dependent * 10 < alone * 7
}

/// Bytes that a payload has to stay below, so that it can pay for a chunk of `plain` bytes.
pub(super) fn limit(plain: usize) -> usize {
    plain * 7 / 10
}

impl Store {
    /// Stores a chunk whose name was checked. Gives the bytes that the store grew by; 0 where it was held.
    pub(super) fn put_packed(
        &self,
        hash: Hash,
        plain: &[u8],
        packed: Packed<'_>,
        floor: Floor,
    ) -> Result<u64, StoreError> {
        let key = Key::chunk(hash);
        let mut buffer = Vec::new();
        let packed = match packed {
            // It may have been collected since somebody looked.
            Packed::Held if self.has_chunk(&hash)? => return Ok(0),
            Packed::Held => Packed::of(plain, &mut buffer),
            Packed::Dependent(payload, features) => {
                let features = features.to_bytes();
                let entry = Entry::new(key, plain.len() as u32, Packing::Dependent, payload).with_features(&features);
                match self.put_dependent(&entry, floor)? {
                    Some(is_new) => return Ok(if is_new { entry.bytes() } else { 0 }),
                    None => Packed::of(plain, &mut buffer),
                }
            }
            packed => packed,
        };
        entry_alone(hash, plain, packed, |entry| Ok(if self.put(entry, floor)? { entry.bytes() } else { 0 }))
    }
}

/// Gives the entry of a chunk that is stored by itself.
pub(super) fn entry_alone<T>(
    hash: Hash,
    plain: &[u8],
    packed: Packed<'_>,
    take: impl FnOnce(&Entry<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let (encoding, bytes, features) = match packed {
        Packed::Zstd(bytes, features) => (Encoding::Zstd, bytes, features.to_bytes()),
        _ => (Encoding::Raw, plain, Features::NONE.to_bytes()),
    };
    // No chunk is longer than 32 bits tell.
    take(&Entry::new(Key::chunk(hash), plain.len() as u32, encoding, bytes).with_features(&features))
}
