//! `Endorsement`: what a third party says of a release.

use serde::{Deserialize, Serialize};

use crate::UnixSeconds;
use crate::bounded::Text;
use crate::ids::RecordId;

/// The predicate of `rialto endorse` where none is named: a person ran the release and it did what it says.
pub const PREDICATE_TESTED: &str = "https://rialto.example/predicate/tested/v1";

/// Somebody has built the release again from what it says that it was built from, and come to the same images.
pub const PREDICATE_REBUILT: &str = "https://rialto.example/predicate/rebuilt/v1";

/// A statement about one release by someone who is not necessarily its publisher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endorsement {
    /// The release that it speaks of.
    pub subject: RecordId,
    /// What is said, as a URI: tested, scanned, rebuilt bit for bit.
    pub predicate: Text<512>,
    /// The statement itself.
    pub body: EndorsementBody,
    /// When it stops counting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<UnixSeconds>,
}

/// The statement inside an endorsement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "lowercase", deny_unknown_fields)]
pub enum EndorsementBody {
    /// Said in the record itself; its signers are the record's.
    Native {
        /// Free text for people: a report, a link, a measurement.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<Text<16384>>,
    },
    /// A DSSE envelope with an in-toto statement, byte for byte: what [`Attestation`](crate::attestation::Attestation) reads. Its
    /// own signers count, and whoever brought it here for nothing.
    Dsse {
        /// The original bytes.
        #[serde(with = "serde_bytes")]
        envelope: Vec<u8>,
    },
}
