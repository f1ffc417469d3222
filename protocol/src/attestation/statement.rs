//! [`Attestation`]: an in-toto Statement, versions 1 and 0.1, out of a DSSE envelope.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::dsse::{Dsse, DsseError, MAX_DSSE_BYTES, PAYLOAD_TYPE_IN_TOTO};
use super::json::{self, JsonBounds, JsonError};
use super::predicate::Predicate;
use crate::ids::{PublicKey, Sha256};
use crate::record::Release;

/// Subjects that one statement can have.
pub const MAX_SUBJECTS: usize = 256;
/// As long as the predicate of an endorsement can be.
const MAX_TYPE_BYTES: usize = 512;
const BOUNDS: JsonBounds = JsonBounds { bytes: MAX_DSSE_BYTES, depth: 32, values: 16_384 };
const STATEMENT_TYPES: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];

/// Why an envelope holds no statement that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// Not even an envelope.
    #[error(transparent)]
    Dsse(#[from] DsseError),
    /// An envelope of something else.
    #[error("its payload is of the type '{0}', and only {PAYLOAD_TYPE_IN_TOTO} is read")]
    PayloadType(String),
    /// Not the JSON of a statement.
    #[error("its payload is no in-toto statement: {0}")]
    Statement(JsonError),
    /// A version of the statement that is not known here.
    #[error("its payload says that it is a '{0}', and in-toto statements of versions 1 and 0.1 are read")]
    Version(String),
    /// No subjects, or more than are read.
    #[error("its statement has {0} subjects, where 1 to {MAX_SUBJECTS} are read")]
    Subjects(usize),
    /// A digest that is none.
    #[error("its statement has a sha256 that is not 64 lower-case hexadecimal digits")]
    Digest,
    /// A type of predicate that is no URI that could be asked for.
    #[error("its predicateType is not the URI of 1 to {MAX_TYPE_BYTES} printable characters that it should be")]
    PredicateType,
    /// A type of predicate that is known here, with something else in it.
    #[error("its predicate is not what its type, {predicate_type}, says: {source}")]
    Predicate {
        /// The type.
        predicate_type: String,
        /// What is wrong with it.
        source: JsonError,
    },
}

/// A statement that somebody may have signed: whether a key has is for [`Attestation::is_signed_by`] to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    dsse: Dsse,
    subjects: Vec<Subject>,
    predicate_type: String,
    predicate: Predicate,
}

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What its maker calls it.
    pub name: Option<String>,
    /// SHA-256 of its content; `None` where it is named by another digest only.
    pub sha256: Option<Sha256>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(rename = "_type")]
    version: String,
    subject: Vec<WireSubject>,
    predicate_type: String,
    #[serde(default, rename = "predicate")]
    _predicate: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct WireSubject {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

impl Attestation {
    /// Reads the statement in a DSSE envelope of JSON, as an endorsement carries it.
    ///
    /// # Errors
    /// It is not one, or not within its bounds; what is wrong with it.
    pub fn parse(envelope: &[u8]) -> Result<Self, AttestationError> {
        let dsse = Dsse::parse(envelope)?;
        if dsse.payload_type() != PAYLOAD_TYPE_IN_TOTO {
            return Err(AttestationError::PayloadType(dsse.payload_type().chars().take(80).collect()));
        }
        json::scan(dsse.payload(), BOUNDS).map_err(AttestationError::Statement)?;
        let wire: Wire = json::read(dsse.payload()).map_err(AttestationError::Statement)?;
        if !STATEMENT_TYPES.contains(&wire.version.as_str()) {
            return Err(AttestationError::Version(wire.version.chars().take(80).collect()));
        }
        if !(1..=MAX_SUBJECTS).contains(&wire.subject.len()) {
            return Err(AttestationError::Subjects(wire.subject.len()));
        }
        let subjects = wire.subject.into_iter().map(Subject::try_from).collect::<Result<_, _>>()?;
        let predicate_type = wire.predicate_type;
        let is_uri = predicate_type.contains(':') && predicate_type.bytes().all(|c| c.is_ascii_graphic());
        if !is_uri || predicate_type.len() > MAX_TYPE_BYTES {
            return Err(AttestationError::PredicateType);
        }
        let predicate = Predicate::read(&predicate_type, dsse.payload());
        let predicate = predicate
            .map_err(|source| AttestationError::Predicate { predicate_type: predicate_type.clone(), source })?;
        Ok(Self { dsse, subjects, predicate_type, predicate })
    }

    /// What it is about: 1 to [`MAX_SUBJECTS`].
    pub fn subjects(&self) -> &[Subject] {
        &self.subjects
    }

    /// What kind of thing it says: a URI of at most 512 bytes.
    pub fn predicate_type(&self) -> &str {
        &self.predicate_type
    }

    /// What it says.
    pub fn predicate(&self) -> &Predicate {
        &self.predicate
    }

    /// The statement in JSON, as it was signed.
    pub fn payload(&self) -> &[u8] {
        self.dsse.payload()
    }

    /// How many signatures it has, whoever made them.
    pub fn signature_count(&self) -> usize {
        self.dsse.signature_count()
    }

    /// Whether this key has signed it. Costs one verification for each signature.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        self.dsse.is_signed_by(key)
    }

    /// Whether it is about the content with this SHA-256.
    pub fn is_about(&self, sha256: &Sha256) -> bool {
        self.subjects.iter().any(|subject| subject.sha256.as_ref() == Some(sha256))
    }

    /// Whether it is about one of the release's disks.
    pub fn is_about_a_disk_of(&self, release: &Release) -> bool {
        release.disks.iter().any(|disk| self.is_about(&disk.sha256))
    }

    /// Whether it is about all that boots: each of the disks, where nothing beside them boots. What a direct kernel is, no
    /// statement can say: its images carry no SHA-256.
    pub fn is_about_all_of(&self, release: &Release) -> bool {
        let disks = &release.disks;
        release.boot.images().next().is_none()
            && !disks.is_empty()
            && disks.iter().all(|disk| self.is_about(&disk.sha256))
    }
}

impl TryFrom<WireSubject> for Subject {
    type Error = AttestationError;

    fn try_from(wire: WireSubject) -> Result<Self, AttestationError> {
        let read = |text: &String| {
            let digest = data_encoding::HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
            digest.map(Sha256).ok_or(AttestationError::Digest)
        };
        Ok(Self { name: wire.name, sha256: wire.digest.get("sha256").map(read).transpose()? })
    }
}
