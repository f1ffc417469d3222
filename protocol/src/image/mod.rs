//! Images: content as an ordered list of chunks, named by its manifest.

/// Largest chunk, in bytes.
pub const MAX_CHUNK_BYTES: usize = 128 * 1024;
/// Largest manifest page, in bytes.
pub const MAX_PAGE_BYTES: usize = 64 * 1024;

/// How the bytes of a chunk are encoded, in the store and on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// As they are.
    Raw,
    /// Zstandard, one frame.
    Zstd,
}

impl Encoding {
    /// The code on the wire and on disk.
    pub const fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }

    /// The encoding with this code.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}
