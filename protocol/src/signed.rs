//! Who said it: envelopes, signatures, and [`Verified`], which only the verifier can make.
//!
//! ```text
//! Payload  = { v, kind, issuers, federation?, issued, body }            canonical CBOR, at most 48 KiB
//! Envelope = { v: 1, payload, signatures: [{ key, signature }] }        canonical CBOR, at most 52 KiB
//! ```
//!
//! A node checks form and signatures only, and relays what it does not understand: adding a kind of record must not
//! split a federation. Whether a signer is *authorised* for anything is the policy's question, never this module's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, Range};
use std::sync::{Arc, PoisonError, RwLock};

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::UnixSeconds;
use crate::bounded::{List, Name};
use crate::codec::{self, CodecError, Part};
use crate::ids::{Hash, PublicKey, RecordId, Signature};
use crate::record::{Body, Record};

/// A payload is at most this long, so that it fits a gossip message of 64 KiB with 16 signatures beside it.
pub const MAX_PAYLOAD_BYTES: usize = 48 * 1024;
/// An envelope is at most this long: a payload and [`MAX_ISSUERS`] signatures.
pub const MAX_ENVELOPE_BYTES: usize = 52 * 1024;
/// Keys that can speak in one record.
pub const MAX_ISSUERS: usize = 16;
/// The payload version this node writes and understands.
pub const PAYLOAD_VERSION: u64 = 1;
/// What is signed is this, then the payload: a signature made here means nothing in another protocol.
const SIGNATURE_CONTEXT: &[u8] = b"rialto record v1\0";
const ENVELOPE_VERSION: u64 = 1;
/// What follows the payload of an envelope in its encoding, in bytes: the text `signatures` and the head of a list,
const SIGNATURES_BYTES: usize = (1 + 10) + 1;
/// and for each signature a map of `key` and `signature`.
const SIGNATURE_BYTES: usize = 1 + (1 + 3) + (2 + 32) + (1 + 9) + (2 + 64);
const _: () = assert!(MAX_ISSUERS < 24, "the head of a longer list would take another byte");
/// More than what lies around the payload of an envelope with a few signatures.
const ABOUT_BYTES: usize = 512;

/// Why an envelope says nothing. Every variant means that its sender misbehaves: an honest node would not have relayed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The envelope or its payload is not canonical CBOR of the right form, or too large.
    #[error("malformed record: {0}")]
    Codec(#[from] CodecError),
    /// An envelope version that this node cannot even relay.
    #[error("envelope version {0} is unknown; this node reads version {ENVELOPE_VERSION}")]
    EnvelopeVersion(u64),
    /// A kind that is no [`Name`].
    #[error("'{0}' is not the name of a kind of record")]
    Kind(String),
    /// The issuers are none, or not sorted, or repeated.
    #[error("the issuers are not 1 to {MAX_ISSUERS} distinct keys in ascending order")]
    Issuers,
    /// No signature, or not sorted by key, or repeated.
    #[error("the signatures are not 1 to {MAX_ISSUERS}, of distinct keys in ascending order")]
    Signatures,
    /// Signed by a key that the payload does not name.
    #[error("signed by {0}, which is not among the record's issuers")]
    NotAnIssuer(PublicKey),
    /// A signature that does not verify, or a key that is no point of the curve, or one of small order.
    #[error("the signature of {0} does not verify")]
    BadSignature(PublicKey),
    /// Signing with a key that the payload does not name.
    #[error("cannot sign: {0} is not among the record's issuers")]
    CannotSign(PublicKey),
    /// Two envelopes that do not say the same.
    #[error("cannot merge signatures of different records")]
    OtherPayload,
    /// A kind that belongs to one federation and does not say which, or the other way round.
    #[error("a {kind} record {problem}")]
    Federation {
        /// The record's kind.
        kind: String,
        /// What is wrong with its federation.
        problem: &'static str,
    },
}

/// What every record says about itself, of whatever kind and version.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Version of the payload's form.
    pub v: u64,
    /// The kind of record, for example `release`: a [`Name`], also where this node does not know it.
    pub kind: String,
    /// The keys that may sign, ascending.
    pub issuers: Vec<PublicKey>,
    /// The federation that it belongs to, where it belongs to one.
    pub federation: Option<Name>,
    /// When it was made, by its issuer's clock: a claim, never trusted as time.
    pub issued: UnixSeconds,
}

/// An envelope as it is written.
#[derive(Serialize)]
struct WireEnvelope<'a> {
    v: u64,
    #[serde(with = "serde_bytes")]
    payload: &'a [u8],
    signatures: &'a [KeySignature],
}

/// The signature of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeySignature {
    key: PublicKey,
    signature: Signature,
}

/// A payload as it is written. It is read field by field, since the kind says what the body is.
#[derive(Serialize)]
struct WirePayload<'a> {
    v: u64,
    kind: &'a str,
    issuers: &'a [PublicKey],
    #[serde(skip_serializing_if = "Option::is_none")]
    federation: Option<Name>,
    issued: UnixSeconds,
    body: &'a Body,
}

/// A payload and signatures over it, of which nothing is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The canonical bytes: as it came, or as it was written.
    encoded: Vec<u8>,
    /// Where in these the payload is.
    payload: Range<usize>,
    /// By key, ascending.
    signatures: Vec<KeySignature>,
}

impl Envelope {
    /// Reads an envelope from a peer, a file or a log. Checks its form, not its signatures.
    ///
    /// # Errors
    /// Any form that is not exactly the canonical one; nothing is allocated beyond the input's own size.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let fields = codec::fields(bytes, MAX_ENVELOPE_BYTES)?;
        let [("v", v), ("payload", payload), ("signatures", signatures)] = fields[..] else {
            return Err(CodecError::Form("not the three fields of an envelope".into()).into());
        };
        match v.read()? {
            ENVELOPE_VERSION => {}
            v => return Err(EnvelopeError::EnvelopeVersion(v)),
        }
        let payload = payload.byte_string()?;
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(CodecError::TooLarge { length: payload.len(), max: MAX_PAYLOAD_BYTES }.into());
        }
        let signatures: List<KeySignature, MAX_ISSUERS> = signatures.read()?;
        if signatures.is_empty() || !signatures.is_sorted_by(|one, other| one.key < other.key) {
            return Err(EnvelopeError::Signatures);
        }
        Ok(Self::encoded_as(bytes.to_vec(), payload.len(), signatures.into_vec()))
    }

    fn new(payload: &[u8], signatures: Vec<KeySignature>) -> Self {
        let wire = WireEnvelope { v: ENVELOPE_VERSION, payload, signatures: &signatures };
        // Integers, byte strings and a short list: nothing in it can fail to encode.
        let encoded = codec::encode_about(&wire, payload.len() + ABOUT_BYTES).unwrap_or_default();
        Self::encoded_as(encoded, payload.len(), signatures)
    }

    fn encoded_as(encoded: Vec<u8>, payload_bytes: usize, signatures: Vec<KeySignature>) -> Self {
        let behind = SIGNATURES_BYTES + signatures.len() * SIGNATURE_BYTES;
        let end = encoded.len().saturating_sub(behind);
        Self { encoded, payload: end.saturating_sub(payload_bytes)..end, signatures }
    }

    /// The canonical bytes, as they are gossiped and stored.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The same, owned.
    pub fn encode(&self) -> Vec<u8> {
        self.encoded.clone()
    }

    /// The id of the record inside.
    pub fn id(&self) -> RecordId {
        RecordId::of(self.payload())
    }

    /// Checks header and signatures, and decodes the body from the very bytes that were verified.
    ///
    /// A kind or version that this node does not know becomes [`Body::Opaque`]; so does a known kind whose body does not
    /// decode, because a later node may have extended it.
    ///
    /// # Errors
    /// A header that is malformed, or any signature that does not verify.
    pub fn verify(self) -> Result<Verified<Record>, EnvelopeError> {
        self.verify_with(&KnownKeys::default())
    }

    /// As [`Envelope::verify`], for one envelope of many: keys that were met before need not be prepared again.
    ///
    /// # Errors
    /// Those of [`Envelope::verify`].
    pub fn verify_with(self, keys: &KnownKeys) -> Result<Verified<Record>, EnvelopeError> {
        let (header, body) = read_payload(self.payload())?;
        let signed = signed_bytes(self.payload());
        for KeySignature { key, signature } in &self.signatures {
            if header.issuers.binary_search(key).is_err() {
                return Err(EnvelopeError::NotAnIssuer(*key));
            }
            if !keys.is_signature_of(key, &signed, signature) {
                return Err(EnvelopeError::BadSignature(*key));
            }
        }
        let value = read_body(self.id(), header, body)?;
        Ok(Verified { value, envelope: Arc::new(self) })
    }

    /// What it says, without a look at the signatures: for an index over envelopes that were verified before, and that
    /// are verified again before anything rests on them.
    ///
    /// # Errors
    /// Those of [`Envelope::verify`], but for bad signatures.
    pub fn claims(&self) -> Result<Record, EnvelopeError> {
        let (header, body) = read_payload(self.payload())?;
        match self.keys().find(|key| header.issuers.binary_search(key).is_err()) {
            Some(key) => Err(EnvelopeError::NotAnIssuer(*key)),
            None => read_body(self.id(), header, body),
        }
    }

    /// The payload's bytes.
    pub fn payload(&self) -> &[u8] {
        &self.encoded[self.payload.clone()]
    }

    /// The keys that it claims to be signed by, ascending.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &PublicKey> + Clone {
        self.signatures.iter().map(|signature| &signature.key)
    }
}

fn read_body(id: RecordId, header: Header, body: Option<Part<'_>>) -> Result<Record, EnvelopeError> {
    let body = match body {
        Some(body) => Body::decode(&header.kind, body),
        None => Body::Opaque,
    };
    let problem = match (body.belongs_to_a_federation(), &header.federation) {
        (Some(true), None) => Some("does not name its federation"),
        (Some(false), Some(_)) => Some("names a federation, but is portable between federations"),
        _ => None,
    };
    let body = match problem {
        None => body,
        Some(problem) if body.is_of_the_first_kinds() => {
            return Err(EnvelopeError::Federation { kind: header.kind, problem });
        }
        // A node that does not know the kind relays this in good faith.
        Some(_) => Body::Opaque,
    };
    Ok(Record { id, header, body })
}

impl Header {
    /// The header of a payload that is to be signed: what its signer looks at first.
    ///
    /// # Errors
    /// Bytes that are no payload of a record.
    pub fn of_payload(payload: &[u8]) -> Result<Self, EnvelopeError> {
        read_payload(payload).map(|(header, _)| header)
    }
}

/// Reads the header of a payload, and finds its body: where it is of a version to come, there is none to be read, and what
/// other fields there are is that version's affair.
fn read_payload(payload: &[u8]) -> Result<(Header, Option<Part<'_>>), EnvelopeError> {
    const FIELDS: [&str; 6] = ["v", "kind", "issuers", "federation", "issued", "body"];
    let fields = codec::fields(payload, MAX_PAYLOAD_BYTES)?;
    let find = |name| fields.iter().find(|(found, _)| *found == name).map(|(_, part)| *part);
    let field = |name| find(name).ok_or_else(|| CodecError::Form(format!("a payload without '{name}'")));
    let v: u64 = field("v")?.read()?;
    let kind: String = field("kind")?.read()?;
    let issuers: List<PublicKey, MAX_ISSUERS> = field("issuers")?.read()?;
    let federation: Option<Name> = find("federation").map(Part::read).transpose()?;
    let issued: UnixSeconds = field("issued")?.read()?;
    let body = if v == PAYLOAD_VERSION { Some(field("body")?) } else { None };
    if body.is_some() && fields.iter().any(|(name, _)| !FIELDS.contains(name)) {
        return Err(CodecError::Form("a payload with a field that is not known".into()).into());
    }
    if Name::try_from(kind.as_str()).is_err() {
        return Err(EnvelopeError::Kind(kind.chars().take(80).collect()));
    }
    let issuers = issuers.into_vec();
    if issuers.is_empty() || !issuers.is_sorted_by(|a, b| a < b) {
        return Err(EnvelopeError::Issuers);
    }
    Ok((Header { v, kind, issuers, federation, issued }, body))
}

/// Whether `signature` is one of `key` over exactly `message`: the one place where a signature is checked.
///
/// The rules are those of `verify_strict`: RFC 8032 without the cofactor, S below the group's order, no key and no R of
/// small order, R in its canonical encoding. A key with a part of small order passes where its signature does (its owner
/// made it so). Of such signatures, batch verification says one thing today and another tomorrow: sites would disagree, so
/// there is none here.
pub fn is_signature_of(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    KnownKeys::default().is_signature_of(key, message, signature)
}

/// Keys as points of the curve, which takes a tenth of a verification to find. Threads share them.
#[derive(Debug, Default)]
pub struct KnownKeys(RwLock<BTreeMap<PublicKey, VerifyingKey>>);

impl KnownKeys {
    /// As many are kept: 230 bytes each.
    const MAX: usize = 1024;

    fn is_signature_of(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.point(key).is_some_and(|point| point.verify_strict(message, &signature).is_ok())
    }

    /// The point that a key is, where it is one.
    fn point(&self, key: &PublicKey) -> Option<VerifyingKey> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).copied();
        if known.is_some() {
            return known;
        }
        let point = VerifyingKey::from_bytes(&key.0).ok()?;
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() == Self::MAX {
            known.clear();
        }
        known.insert(*key, point);
        Some(point)
    }
}

/// What a signer of this payload signs: for keys that are held elsewhere, such as in an ssh-agent.
pub fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    [SIGNATURE_CONTEXT, payload].concat()
}

/// A record that is to be signed.
#[derive(Debug, Clone)]
pub struct Draft {
    payload: Vec<u8>,
    issuers: Vec<PublicKey>,
    signatures: BTreeMap<PublicKey, Signature>,
}

impl Draft {
    /// Writes the payload of a record that `issuers` may sign.
    ///
    /// # Errors
    /// No issuers or too many, or a payload over [`MAX_PAYLOAD_BYTES`].
    pub fn new(
        issuers: impl IntoIterator<Item = PublicKey>,
        federation: Option<Name>,
        issued: UnixSeconds,
        body: &Body,
    ) -> Result<Self, EnvelopeError> {
        let kind = body.kind().ok_or_else(|| CodecError::Form("an opaque record cannot be written anew".into()))?;
        let issuers: BTreeSet<_> = issuers.into_iter().collect();
        let issuers: Vec<_> = issuers.into_iter().collect();
        let payload =
            codec::encode(&WirePayload { v: PAYLOAD_VERSION, kind, issuers: &issuers, federation, issued, body })?;
        Self::from_payload(payload, issuers)
    }

    /// Takes a payload as it is: for records of kinds and versions that this node does not know.
    ///
    /// # Errors
    /// No issuers or too many, or a payload over [`MAX_PAYLOAD_BYTES`].
    pub fn from_payload(payload: Vec<u8>, issuers: Vec<PublicKey>) -> Result<Self, EnvelopeError> {
        if issuers.is_empty() || issuers.len() > MAX_ISSUERS {
            return Err(EnvelopeError::Issuers);
        }
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(CodecError::TooLarge { length: payload.len(), max: MAX_PAYLOAD_BYTES }.into());
        }
        Ok(Self { payload, issuers, signatures: BTreeMap::new() })
    }

    /// Adds the signature of `key`.
    ///
    /// # Errors
    /// [`EnvelopeError::CannotSign`] where the key is not an issuer.
    pub fn sign(mut self, key: &SigningKey) -> Result<Self, EnvelopeError> {
        let public = PublicKey(key.verifying_key().to_bytes());
        if !self.issuers.contains(&public) {
            return Err(EnvelopeError::CannotSign(public));
        }
        let signature = Signature(key.sign(&signed_bytes(&self.payload)).to_bytes());
        self.signatures.insert(public, signature);
        Ok(self)
    }

    /// Adds a signature that was made elsewhere, over [`signed_bytes`] of this draft's [`payload`](Self::payload).
    ///
    /// # Errors
    /// [`EnvelopeError::CannotSign`] where the key is not an issuer, [`EnvelopeError::BadSignature`] where the signature
    /// is not one of this key over this record.
    pub fn attach(mut self, key: PublicKey, signature: Signature) -> Result<Self, EnvelopeError> {
        if !self.issuers.contains(&key) {
            return Err(EnvelopeError::CannotSign(key));
        }
        if !is_signature_of(&key, &signed_bytes(&self.payload), &signature) {
            return Err(EnvelopeError::BadSignature(key));
        }
        self.signatures.insert(key, signature);
        Ok(self)
    }

    /// The payload: what the record says, and who may sign it.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The envelope with the signatures so far.
    pub fn seal(self) -> Envelope {
        let signatures = self.signatures.into_iter().map(|(key, signature)| KeySignature { key, signature });
        Envelope::new(&self.payload, signatures.collect())
    }
}

/// A value whose signatures were checked. There is no other way to make one than [`Envelope::verify`].
#[derive(Debug, Clone)]
pub struct Verified<T> {
    value: T,
    envelope: Arc<Envelope>,
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> AsRef<Self> for Verified<T> {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl<T> Verified<T> {
    /// The keys whose signatures verified, ascending. These count; a key that is merely named does not.
    pub fn signers(&self) -> impl ExactSizeIterator<Item = &PublicKey> + Clone {
        self.envelope.keys()
    }

    /// Whether this key signed.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        self.envelope.signatures.binary_search_by_key(key, |signature| signature.key).is_ok()
    }

    /// What was verified, to be relayed or stored as it is.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }
}

impl Verified<Record> {
    /// What catch-up reconciles; see [`sync_id`].
    pub fn sync_id(&self) -> Hash {
        sync_id(&self.id, self.signers())
    }

    /// The union of two envelopes of one record, or `None` where `other` adds no key. The first signature of a key stays.
    ///
    /// # Errors
    /// [`EnvelopeError::OtherPayload`] where they are not of one record.
    pub fn merge(&self, other: &Self) -> Result<Option<Self>, EnvelopeError> {
        if self.id != other.id {
            return Err(EnvelopeError::OtherPayload);
        }
        let added = other.envelope.signatures.iter().filter(|signature| !self.is_signed_by(&signature.key));
        let mut signatures = self.envelope.signatures.clone();
        signatures.extend(added);
        if signatures.len() == self.envelope.signatures.len() {
            return Ok(None);
        }
        signatures.sort_unstable_by_key(|signature| signature.key);
        Ok(Some(self.signed_with(signatures)))
    }

    /// The same record without the signatures of these keys; `None` where no signature is left. Those that are left were
    /// verified with the others.
    pub fn without_signers(&self, keys: &BTreeSet<PublicKey>) -> Option<Self> {
        let mut signatures = self.envelope.signatures.clone();
        signatures.retain(|signature| !keys.contains(&signature.key));
        (!signatures.is_empty()).then(|| self.signed_with(signatures))
    }

    /// The same record with these of the signatures over it that were verified.
    fn signed_with(&self, signatures: Vec<KeySignature>) -> Self {
        let envelope = Envelope::new(self.envelope.payload(), signatures);
        Self { value: self.value.clone(), envelope: Arc::new(envelope) }
    }

    /// The same record seen as one of the kind `T`, where it is one.
    pub fn narrow<T: Clone>(&self, select: impl FnOnce(&Body) -> Option<&T>) -> Option<Verified<T>> {
        let value = select(&self.value.body)?.clone();
        Some(Verified { value, envelope: Arc::clone(&self.envelope) })
    }
}

/// What catch-up reconciles: blake3(record id ‖ signing keys, ascending), so that a missing co-signature shows too.
pub fn sync_id<'a>(id: &RecordId, keys: impl Iterator<Item = &'a PublicKey>) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&id.to_bytes());
    for key in keys {
        hasher.update(&key.0);
    }
    Hash(*hasher.finalize().as_bytes())
}
