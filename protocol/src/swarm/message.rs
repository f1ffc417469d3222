//! The frames of a swarm stream: one byte of kind, four of length (big-endian), then the payload.
//!
//! Control messages are canonical CBOR. A chunk is its index and encoding in five bytes, then the bytes as the holder
//! stores them; or its index and a [`Reference`] in ten, then what a zstd encoder made of it that knew the reference's
//! bytes. A page is its bare bytes. Lengths are bounded by kind, and checked before anything is allocated.

use serde::{Deserialize, Serialize};

use crate::bounded::List;
use crate::codec::{self, CodecError};
use crate::ids::{Hash, ImageId};
use crate::image::chunker::MAX_CHUNK_BYTES;
use crate::image::encoding::{Encoding, UnknownEncoding};
use crate::image::manifest::MAX_PAGE_BYTES;
use crate::swarm::{Ranges, Reference};

/// Pages asked for at once.
pub const MAX_PAGES_ASKED: usize = 64;
/// Chunks that one stream may have asked for and not received: what a holder keeps in mind for one peer.
pub const MAX_WANTED: u64 = 4096;
/// Images that a fetcher may name as bases of references.
pub const MAX_BASES: usize = 16;
/// The encodings this node can decode, named in its `Hello`.
pub const WIRE_ENCODINGS: [Encoding; 2] = [Encoding::Raw, Encoding::Zstd];
/// A control message fits this; the largest is a full list of ranges.
const MAX_CONTROL_BYTES: usize = 64 * 1024;
/// Index and encoding before the bytes of a chunk.
const CHUNK_HEADER_BYTES: usize = 5;
/// Index and reference before the bytes of a referenced chunk.
const REFERENCED_HEADER_BYTES: usize = 10;

/// The kind of a frame, as its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Fetcher: which image this stream is about.
    Hello = 1,
    /// Fetcher: send these manifest pages.
    WantPages = 2,
    /// Fetcher: send these chunks.
    Want = 3,
    /// Fetcher: no longer needed.
    Cancel = 4,
    /// Holder: which chunks it has; the first answer, and again as more arrive.
    Have = 16,
    /// Holder: a manifest page.
    Page = 17,
    /// Holder: a chunk.
    Chunk = 18,
    /// Holder: not now; ask again later.
    Busy = 19,
    /// Holder: it does not have, or does not offer, the image.
    Absent = 20,
    /// Holder: a chunk, encoded against one of the bases that the fetcher named.
    Referenced = 21,
}

/// The head of a frame: what comes, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// The kind.
    pub kind: FrameKind,
    /// Length of the payload that follows, in bytes; within the bound of its kind.
    pub length: usize,
}

/// The head of a chunk's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Which chunk of the image, holes not counted.
    pub index: u32,
    /// How the bytes are encoded.
    pub encoding: Encoding,
}

/// The head of a referenced chunk's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReferencedHeader {
    /// Which chunk of the image, holes not counted.
    pub index: u32,
    /// What the encoder knew.
    pub reference: Reference,
}

/// A control message. Chunks and pages are not among them: their bytes are not copied through a decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Fetcher: which image this stream is about.
    Hello {
        /// The image.
        image: ImageId,
        /// Images that the fetcher holds whole: chunks may be encoded against runs of their chunks.
        bases: Vec<ImageId>,
    },
    /// Fetcher: send these pages of its manifest.
    WantPages {
        /// Their hashes.
        hashes: Vec<Hash>,
    },
    /// Fetcher: send these chunks.
    Want {
        /// Their indices.
        chunks: Ranges,
    },
    /// Fetcher: these chunks came from elsewhere.
    Cancel {
        /// Their indices.
        chunks: Ranges,
    },
    /// Holder: it has these chunks, beside those it told of before.
    Have {
        /// Whether it has every chunk.
        is_complete: bool,
        /// Otherwise which.
        chunks: Ranges,
    },
    /// Holder: not now.
    Busy,
    /// Holder: no such image here.
    Absent,
}

/// Why a frame is refused. Each means that the peer misbehaves, or speaks a version that this node does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A kind of frame that does not exist.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// Longer, or shorter, than its kind can be.
    #[error("a {kind:?} frame of {length} bytes is out of bounds")]
    Length {
        /// The kind claimed.
        kind: FrameKind,
        /// The length claimed, in bytes.
        length: usize,
    },
    /// A payload that is not of its form.
    #[error("malformed message: {0}")]
    Codec(#[from] CodecError),
    /// An encoding that this node does not know.
    #[error(transparent)]
    Encoding(#[from] UnknownEncoding),
}

impl FrameHead {
    /// Bytes of a frame's head on the wire.
    pub const BYTES: usize = 5;

    /// Reads a head; refuses a length beyond what its kind can have, so that the payload can be allocated.
    ///
    /// # Errors
    /// An unknown kind or a length out of bounds.
    pub fn decode(bytes: [u8; Self::BYTES]) -> Result<Self, MessageError> {
        let [kind, length @ ..] = bytes;
        let kind = FrameKind::from_byte(kind).ok_or(MessageError::Kind(kind))?;
        let length = u32::from_be_bytes(length) as usize;
        if !kind.bounds().contains(&length) {
            return Err(MessageError::Length { kind, length });
        }
        Ok(Self { kind, length })
    }

    /// The head as it is sent.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let [a, b, c, d] = u32::try_from(self.length).unwrap_or(u32::MAX).to_be_bytes();
        [self.kind as u8, a, b, c, d]
    }
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        use FrameKind::*;
        let kinds = [Hello, WantPages, Want, Cancel, Have, Page, Chunk, Busy, Absent, Referenced];
        kinds.into_iter().find(|&kind| kind as u8 == byte)
    }

    fn bounds(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::Hello | Self::WantPages | Self::Want | Self::Cancel | Self::Have => 1..=MAX_CONTROL_BYTES,
            Self::Page => 1..=MAX_PAGE_BYTES,
            Self::Chunk => CHUNK_HEADER_BYTES + 1..=CHUNK_HEADER_BYTES + MAX_CHUNK_BYTES,
            Self::Referenced => REFERENCED_HEADER_BYTES + 1..=REFERENCED_HEADER_BYTES + MAX_CHUNK_BYTES,
            Self::Busy | Self::Absent => 0..=0,
        }
    }
}

impl ChunkHeader {
    /// Bytes before those of the chunk.
    pub const BYTES: usize = CHUNK_HEADER_BYTES;

    /// Reads the header of a chunk's payload.
    ///
    /// # Errors
    /// An encoding that this node does not know.
    pub fn decode(bytes: [u8; CHUNK_HEADER_BYTES]) -> Result<Self, MessageError> {
        let [index @ .., encoding] = bytes;
        let encoding = Encoding::try_from(encoding)?;
        Ok(Self { index: u32::from_be_bytes(index), encoding })
    }

    /// A whole frame's start for a chunk of `length` encoded bytes, which follow it.
    pub fn frame(&self, length: usize) -> [u8; FrameHead::BYTES + CHUNK_HEADER_BYTES] {
        let mut start = [0; FrameHead::BYTES + CHUNK_HEADER_BYTES];
        let head = FrameHead { kind: FrameKind::Chunk, length: CHUNK_HEADER_BYTES + length };
        start[..FrameHead::BYTES].copy_from_slice(&head.encode());
        start[FrameHead::BYTES..FrameHead::BYTES + 4].copy_from_slice(&self.index.to_be_bytes());
        start[FrameHead::BYTES + 4] = self.encoding.code();
        start
    }
}

impl ReferencedHeader {
    /// Bytes before those of the chunk.
    pub const BYTES: usize = REFERENCED_HEADER_BYTES;

    /// Reads the header of a referenced chunk's payload. Whether there are such a base and such a run is for whoever named
    /// the bases to say.
    pub fn decode(bytes: [u8; REFERENCED_HEADER_BYTES]) -> Self {
        let [a, b, c, d, base, e, f, g, h, count] = bytes;
        let first = u32::from_be_bytes([e, f, g, h]);
        Self { index: u32::from_be_bytes([a, b, c, d]), reference: Reference { base, first, count } }
    }

    /// A whole frame's start for a chunk of `length` encoded bytes, which follow it.
    pub fn frame(&self, length: usize) -> [u8; FrameHead::BYTES + REFERENCED_HEADER_BYTES] {
        let mut start = [0; FrameHead::BYTES + REFERENCED_HEADER_BYTES];
        let head = FrameHead { kind: FrameKind::Referenced, length: REFERENCED_HEADER_BYTES + length };
        let Reference { base, first, count } = self.reference;
        start[..5].copy_from_slice(&head.encode());
        start[5..9].copy_from_slice(&self.index.to_be_bytes());
        start[9] = base;
        start[10..14].copy_from_slice(&first.to_be_bytes());
        start[14] = count;
        start
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hello {
    image: ImageId,
    encodings: List<u8, 16>,
    bases: List<ImageId, MAX_BASES>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantPages {
    hashes: List<Hash, MAX_PAGES_ASKED>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chunks {
    chunks: Ranges,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Have {
    complete: bool,
    chunks: Ranges,
}

impl Message {
    /// The whole frame, head included.
    ///
    /// # Errors
    /// More pages than one message can ask for.
    pub fn frame(&self) -> Result<Vec<u8>, MessageError> {
        let (kind, payload) = match self {
            Self::Hello { image, bases } => {
                let encodings = WIRE_ENCODINGS.map(|encoding| encoding.code()).to_vec();
                let encodings = List::try_from(encodings).unwrap_or_default();
                let bases = List::try_from(bases.clone()).map_err(|error| CodecError::Form(error.to_string()))?;
                (FrameKind::Hello, codec::encode(&Hello { image: *image, encodings, bases })?)
            }
            Self::WantPages { hashes } => {
                let hashes = List::try_from(hashes.clone()).map_err(|error| CodecError::Form(error.to_string()))?;
                (FrameKind::WantPages, codec::encode(&WantPages { hashes })?)
            }
            Self::Want { chunks } => (FrameKind::Want, codec::encode(&Chunks { chunks: chunks.clone() })?),
            Self::Cancel { chunks } => (FrameKind::Cancel, codec::encode(&Chunks { chunks: chunks.clone() })?),
            Self::Have { is_complete, chunks } => {
                (FrameKind::Have, codec::encode(&Have { complete: *is_complete, chunks: chunks.clone() })?)
            }
            Self::Busy => (FrameKind::Busy, Vec::new()),
            Self::Absent => (FrameKind::Absent, Vec::new()),
        };
        let head = FrameHead { kind, length: payload.len() };
        Ok([&head.encode()[..], &payload].concat())
    }

    /// Reads the payload of a control frame; `None` for a chunk or a page.
    ///
    /// # Errors
    /// A payload that is not of its form.
    pub fn decode(kind: FrameKind, payload: &[u8]) -> Result<Option<Self>, MessageError> {
        fn read<T: Serialize + serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, CodecError> {
            codec::decode(payload, MAX_CONTROL_BYTES)
        }
        Ok(Some(match kind {
            FrameKind::Hello => {
                let Hello { image, bases, .. } = read(payload)?;
                Self::Hello { image, bases: bases.into_vec() }
            }
            FrameKind::WantPages => Self::WantPages { hashes: read::<WantPages>(payload)?.hashes.into_vec() },
            FrameKind::Want => Self::Want { chunks: read::<Chunks>(payload)?.chunks },
            FrameKind::Cancel => Self::Cancel { chunks: read::<Chunks>(payload)?.chunks },
            FrameKind::Have => {
                let Have { complete, chunks } = read(payload)?;
                Self::Have { is_complete: complete, chunks }
            }
            FrameKind::Busy => Self::Busy,
            FrameKind::Absent => Self::Absent,
            FrameKind::Page | FrameKind::Chunk | FrameKind::Referenced => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = Message> {
        let chunks = || {
            prop::collection::btree_set(any::<u16>(), 0..200)
                .prop_map(|set| Ranges::pieces(set.into_iter().map(u32::from)).pop().unwrap_or_default())
        };
        prop_oneof![
            (any::<[u8; 32]>(), prop::collection::vec(any::<[u8; 32]>(), 0..=MAX_BASES)).prop_map(|(image, bases)| {
                let id = |hash| ImageId::from_hash(Hash(hash));
                Message::Hello { image: id(image), bases: bases.into_iter().map(id).collect() }
            }),
            prop::collection::vec(any::<[u8; 32]>().prop_map(Hash), 0..=MAX_PAGES_ASKED)
                .prop_map(|hashes| Message::WantPages { hashes }),
            chunks().prop_map(|chunks| Message::Want { chunks }),
            chunks().prop_map(|chunks| Message::Cancel { chunks }),
            (any::<bool>(), chunks()).prop_map(|(is_complete, chunks)| Message::Have { is_complete, chunks }),
            Just(Message::Busy),
            Just(Message::Absent),
        ]
    }

    proptest! {
        #[test]
        fn messages_come_back(message in message()) {
            let frame = message.frame().unwrap();
            let (head, payload) = frame.split_at(FrameHead::BYTES);
            let head = FrameHead::decode(head.try_into().unwrap()).unwrap();
            prop_assert_eq!(head.length, payload.len());
            prop_assert_eq!(Message::decode(head.kind, payload).unwrap(), Some(message));
        }

        #[test]
        fn hostile_bytes_never_panic(head in any::<[u8; 5]>(), payload in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(head) = FrameHead::decode(head) {
                prop_assert!(head.length <= 5 + MAX_CHUNK_BYTES);
                let _ = Message::decode(head.kind, &payload);
            }
            let _ = ChunkHeader::decode(head);
        }

        #[test]
        fn referenced_headers_come_back(index: u32, base: u8, first: u32, count: u8, length in 1..=MAX_CHUNK_BYTES) {
            let header = ReferencedHeader { index, reference: Reference { base, first, count } };
            let frame = header.frame(length);
            let head = FrameHead::decode(*frame.first_chunk().unwrap()).unwrap();
            prop_assert_eq!(head, FrameHead { kind: FrameKind::Referenced, length: ReferencedHeader::BYTES + length });
            prop_assert_eq!(ReferencedHeader::decode(*frame.last_chunk().unwrap()), header);
        }
    }

    #[test]
    fn more_bases_than_can_be_named_are_refused() {
        let image = ImageId::of(b"image");
        let hello = |bases| Message::Hello { image, bases: vec![image; bases] }.frame();
        assert!(hello(MAX_BASES).is_ok());
        assert!(hello(MAX_BASES + 1).is_err());
    }

    #[test]
    fn an_endless_chunk_is_refused_before_anything_is_allocated() {
        let head = [FrameKind::Chunk as u8, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(FrameHead::decode(head), Err(MessageError::Length { .. })));
    }
}
