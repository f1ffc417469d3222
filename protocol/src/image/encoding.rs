//! How the bytes of a chunk are written down, on the wire and in the store.
//!
//! An encoding is a hint from whoever wrote it: what comes out is bounded, and must hash to the name that the manifest
//! gives. This crate only names the encodings; compressing and decompressing is done where the bytes are kept.

/// How the bytes of a chunk are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// The plain bytes.
    Raw = 0,
    /// One or more zstd frames (RFC 8878) without a dictionary.
    Zstd = 1,
}

/// A code that stands for no encoding known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("encoding {0} is unknown to this version of Rialto, which reads 0 (raw) and 1 (zstd)")]
pub struct UnknownEncoding(
    /// The code as it was read.
    pub u8,
);

impl Encoding {
    /// The code on the wire and in the store.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Encoding> for u8 {
    fn from(encoding: Encoding) -> u8 {
        encoding.code()
    }
}

impl TryFrom<u8> for Encoding {
    type Error = UnknownEncoding;

    fn try_from(code: u8) -> Result<Self, UnknownEncoding> {
        match code {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            other => Err(UnknownEncoding(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_and_others_are_refused() {
        for code in 0..=u8::MAX {
            match Encoding::try_from(code) {
                Ok(encoding) => assert_eq!((encoding.code(), code < 2), (code, true)),
                Err(error) => assert_eq!((error, code >= 2), (UnknownEncoding(code), true)),
            }
        }
    }
}
