//! The names that are hashes or keys: record ids, image ids, chunk hashes, public keys and signatures.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use cid::Cid;
use multihash::Multihash;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Multicodec code of plain CBOR, the codec in every [`RecordId`] and [`ImageId`].
const CODEC_CBOR: u64 = 0x51;
/// Multihash code of BLAKE3 with its default 256-bit output.
const HASH_BLAKE3: u64 = 0x1e;
/// Characters of base32 that make a [`PublicKey`]'s fingerprint: 80 bits, out of reach of anyone who would search for a
/// key that looks like another.
const FINGERPRINT_CHARS: usize = 16;

/// Why a text or byte string is not the id it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is not a CID at all.
    #[error("'{0}' is not an id: ids are CIDs, which start with 'b' and have 59 characters")]
    NotACid(String),
    /// A CID, but not CIDv1 of CBOR under BLAKE3-256.
    #[error("'{0}' is a CID of another kind: Rialto's ids are CIDv1, codec cbor, hash blake3-256")]
    OtherKind(String),
    /// A key in text form that is not 52 characters of base32.
    #[error("'{0}' is not a public key: expected 52 characters of lower-case base32")]
    NotAKey(String),
}

macro_rules! bytes_newtype {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_bytes(ByteArray::<$length>).map($name)
            }
        }
    };
}

bytes_newtype!(
    /// BLAKE3-256 of the plain bytes of a chunk or of a manifest page.
    Hash,
    32
);
bytes_newtype!(
    /// An ed25519 public key: a signer's, or a site's.
    PublicKey,
    32
);
bytes_newtype!(
    /// An ed25519 signature.
    Signature,
    64
);
bytes_newtype!(
    /// SHA-256 of an image's flat content: the digest that in-toto statements name.
    Sha256,
    32
);

impl Hash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl PublicKey {
    /// How a key without a petname is shown: `~` and 16 base32 characters.
    pub fn fingerprint(&self) -> String {
        format!("~{}", &self.to_string()[..FINGERPRINT_CHARS])
    }
}

impl fmt::Display for PublicKey {
    /// All 32 bytes as 52 characters of lower-case base32 (RFC 4648, no padding).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32().encode(&self.0))
    }
}

impl FromStr for PublicKey {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let refused = || IdError::NotAKey(text.chars().take(80).collect());
        let bytes = base32().decode(text.as_bytes()).map_err(|_| refused())?;
        Ok(Self(bytes.try_into().map_err(|_| refused())?))
    }
}

/// Lower-case base32 (RFC 4648, no padding). Made once: that takes longer than a thousand encodings.
fn base32() -> &'static data_encoding::Encoding {
    static BASE32: LazyLock<data_encoding::Encoding> = LazyLock::new(|| {
        let mut spec = data_encoding::BASE32_NOPAD.specification();
        spec.symbols.make_ascii_lowercase();
        spec.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
    });
    &BASE32
}

macro_rules! cid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Hash);

        impl $name {
            /// The id of a thing with this hash.
            pub const fn from_hash(hash: Hash) -> Self {
                Self(hash)
            }

            /// The id of these canonical bytes.
            pub fn of(bytes: &[u8]) -> Self {
                Self(Hash::of(bytes))
            }

            /// The BLAKE3-256 hash inside the CID.
            pub const fn hash(&self) -> Hash {
                self.0
            }

            fn cid(&self) -> Option<Cid> {
                Multihash::wrap(HASH_BLAKE3, &self.0.0).ok().map(|hash| Cid::new_v1(CODEC_CBOR, hash))
            }

            /// The CID in binary form, as records carry it: 36 bytes.
            pub fn to_bytes(&self) -> Vec<u8> {
                self.cid().map(|cid| cid.to_bytes()).unwrap_or_default()
            }

            fn from_cid(cid: &Cid, shown: impl FnOnce() -> String) -> Result<Self, IdError> {
                let is_ours = cid.version() == cid::Version::V1 && cid.codec() == CODEC_CBOR && cid.hash().code() == HASH_BLAKE3;
                match <[u8; 32]>::try_from(cid.hash().digest()) {
                    Ok(digest) if is_ours => Ok(Self(Hash(digest))),
                    _ => Err(IdError::OtherKind(shown())),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.cid() {
                    Some(cid) => cid.fmt(f),
                    None => Err(fmt::Error),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let shown = || text.chars().take(80).collect::<String>();
                let cid = Cid::from_str(text).map_err(|_| IdError::NotACid(shown()))?;
                let id = Self::from_cid(&cid, shown)?;
                // One id, one text: a CID in another multibase would compare unequal as text.
                if id.to_string() == text { Ok(id) } else { Err(IdError::NotACid(shown())) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.to_bytes())
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(CidText).and_then(|cid| {
                    Self::from_cid(&cid, || cid.to_string()).map_err(D::Error::custom)
                })
            }
        }
    };
}

cid_newtype!(
    /// The name of a record: CIDv1(cbor, blake3-256(payload)). Signatures are not part of it, so co-signing keeps it.
    RecordId
);
cid_newtype!(
    /// The name of an image: CIDv1(cbor, blake3-256(manifest root page)).
    ImageId
);

struct ByteArray<const N: usize>;

impl<'de, const N: usize> Visitor<'de> for ByteArray<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a byte string of exactly {N} bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<[u8; N], A::Error> {
        // An array of small integers would be a second encoding of the same thing.
        Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self))
    }
}

struct CidText;

impl Visitor<'_> for CidText {
    type Value = Cid;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CID: a byte string in CBOR, text in JSON")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Cid, E> {
        let cid = Cid::try_from(bytes).map_err(E::custom)?;
        // `Cid::try_from` stops at the end of the CID, and accepts overlong varints.
        if cid.to_bytes() == bytes { Ok(cid) } else { Err(E::custom("a CID that is not in its shortest form")) }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Cid, E> {
        Cid::from_str(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_comes_back() {
        let id = ImageId::of(b"content");
        assert_eq!(id.to_string().parse::<ImageId>(), Ok(id));
        assert_eq!(id.to_string().len(), 59);
        let key = PublicKey([7; 32]);
        assert_eq!(key.to_string().parse::<PublicKey>(), Ok(key));
        assert_eq!(key.fingerprint().len(), 17);
    }

    #[test]
    fn other_cids_are_refused() {
        let sha2_raw = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
        assert!(matches!(sha2_raw.parse::<ImageId>(), Err(IdError::OtherKind(_))));
        assert!(matches!("hello".parse::<ImageId>(), Err(IdError::NotACid(_))));
        assert!(matches!("".parse::<RecordId>(), Err(IdError::NotACid(_))));
    }
}
