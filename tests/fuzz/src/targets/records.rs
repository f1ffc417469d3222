//! Envelopes and the records in them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use ed25519_dalek::{SigningKey, Verifier as _, VerifyingKey};
use rialto_protocol::bounded::Name;
use rialto_protocol::codec::{self, Value};
use rialto_protocol::ids::{PublicKey, RecordId, Signature};
use rialto_protocol::record::{
    Body, EndorsementBody, MAX_DELEGATED_NAMES, MAX_DELEGATES, MAX_INLINE_BYTES, Record, Severity, Source,
};
use rialto_protocol::signed::{Draft, Envelope, MAX_ENVELOPE_BYTES, MAX_ISSUERS, MAX_PAYLOAD_BYTES, Verified};

/// Who signs what the fuzzer thought of. It is uni's key in the golden records, too.
static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[1; 32]));

fn issuer() -> PublicKey {
    PublicKey(KEY.verifying_key().to_bytes())
}

/// An envelope has one encoding, and what is verified was truly signed, by its issuers, as it stands.
pub fn envelope(bytes: &[u8]) {
    let Ok(envelope) = Envelope::decode(bytes) else { return };
    assert!(bytes.len() <= MAX_ENVELOPE_BYTES);
    assert_eq!(envelope.encode(), bytes, "an envelope has one encoding");
    let Ok(record) = envelope.verify() else { return };
    let (payload, signatures) = parts(bytes);
    assert_eq!(record.id, RecordId::of(&payload));
    assert!((1..=MAX_ISSUERS).contains(&signatures.len()));
    assert!(record.signers().eq(signatures.iter().map(|(key, _)| key)), "who signed is who is counted");
    for (key, signature) in &signatures {
        assert!(record.header.issuers.contains(key), "{key} is no issuer");
        assert!(is_signed(&payload, key, signature), "{key} has not signed this");
    }
    assert_eq!(record.merge(&record).map(|merged| merged.is_some()), Ok(false), "nothing comes of itself");
    // One bit of anything that was signed, or of what signs it.
    let flip = |bytes: &[u8]| {
        let at = bytes.len() * 5 / 7;
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1 << (at % 8);
        bytes
    };
    assert!(!verifies(&flip(&payload), &signatures), "another payload");
    let (key, signature) = signatures[signatures.len() / 2];
    let mut forged = signatures.clone();
    forged[signatures.len() / 2] = (key, Signature(flip(&signature.0).try_into().expect("64 bytes")));
    assert!(!verifies(&payload, &forged), "another signature");
}

fn is_signed(payload: &[u8], key: &PublicKey, signature: &Signature) -> bool {
    let message = [b"rialto record v1\0", payload].concat();
    let key = VerifyingKey::from_bytes(&key.0).expect("a point");
    !key.is_weak() && key.verify(&message, &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok()
}

fn verifies(payload: &[u8], signatures: &[(PublicKey, Signature)]) -> bool {
    let signature = |(key, signature): &(PublicKey, Signature)| {
        map([("key", Value::Bytes(key.0.to_vec())), ("signature", Value::Bytes(signature.0.to_vec()))])
    };
    let envelope = map([
        ("v", Value::Integer(1)),
        ("payload", Value::Bytes(payload.to_vec())),
        ("signatures", Value::Array(signatures.iter().map(signature).collect())),
    ]);
    let bytes = codec::encode(&envelope).expect("canonical");
    Envelope::decode(&bytes).and_then(Envelope::verify).is_ok()
}

/// The payload and the signatures, read by hand.
fn parts(bytes: &[u8]) -> (Vec<u8>, Vec<(PublicKey, Signature)>) {
    let bytes_of = |value: &Value| match value {
        Value::Bytes(bytes) => bytes.clone(),
        other => panic!("{other:?} is no byte string"),
    };
    let field = |value: &Value, name: &str| match value {
        Value::Map(fields) => fields[&Value::Text(name.into())].clone(),
        other => panic!("{other:?} is no map"),
    };
    let envelope = codec::decode_any(bytes, bytes.len()).expect("it was decoded before");
    let Value::Array(signatures) = field(&envelope, "signatures") else { panic!("no list of signatures") };
    let signature = |value: &Value| {
        let key = bytes_of(&field(value, "key")).try_into().expect("32 bytes");
        let signature = bytes_of(&field(value, "signature")).try_into().expect("64 bytes");
        (PublicKey(key), Signature(signature))
    };
    (bytes_of(&field(&envelope, "payload")), signatures.iter().map(signature).collect())
}

fn map<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Map(fields.into_iter().map(|(name, value)| (Value::Text(name.into()), value)).collect())
}

/// A payload that its issuer has signed is a record whose header says what the payload says, or is refused.
pub fn payload(bytes: &[u8]) {
    let Some(envelope) = sealed(bytes.to_vec()) else { return };
    let encoded = envelope.encode();
    let Ok(record) = Envelope::decode(&encoded).and_then(Envelope::verify) else { return };
    assert!(record.is_signed_by(&issuer()));
    assert!(record.header.issuers.contains(&issuer()) && record.header.issuers.is_sorted_by(|a, b| a < b));
    assert!(Name::try_from(record.header.kind.as_str()).is_ok(), "{}", record.header.kind);
    assert_eq!(record.envelope().encode(), encoded, "a relay passes on what it got");
    match record.body.belongs_to_a_federation() {
        Some(belongs) => assert_eq!(belongs, record.header.federation.is_some()),
        None => assert_eq!(record.body, Body::Opaque),
    }
    comes_back(&record);
}

fn sealed(payload: Vec<u8>) -> Option<Envelope> {
    let draft = Draft::from_payload(payload, vec![issuer()]).ok()?;
    Some(draft.sign(&KEY).expect("the one issuer").seal())
}

/// What was read is written in the same bytes.
fn comes_back(record: &Verified<Record>) {
    let header = &record.header;
    if record.body == Body::Opaque {
        return;
    }
    let draft = Draft::new(header.issuers.clone(), header.federation.clone(), header.issued, &record.body);
    let again = draft.expect("it was read").sign(&KEY).expect("an issuer").seal();
    assert_eq!(again.id(), record.id, "a record has one encoding");
}

/// The record of this kind whose body has these bytes, where it is one.
fn record(kind: &str, is_of_a_federation: bool, body: &[u8]) -> Option<Verified<Record>> {
    let body = codec::decode_any(body, MAX_PAYLOAD_BYTES).ok()?;
    let mut fields = vec![
        ("v", Value::Integer(1)),
        ("kind", Value::Text(kind.into())),
        ("issuers", Value::Array(vec![Value::Bytes(issuer().0.to_vec())])),
        ("issued", Value::Integer(1_790_000_000)),
        ("body", body),
    ];
    if is_of_a_federation {
        fields.push(("federation", Value::Text("physics".into())));
    }
    let payload = Value::Map(fields.into_iter().map(|(name, value)| (Value::Text(name.into()), value)).collect());
    let record = sealed(codec::encode(&payload).ok()?)?.verify().expect("well signed, under a good header");
    comes_back(&record);
    assert_eq!(record.header.kind, kind);
    (record.body != Body::Opaque).then_some(record)
}

/// A release's inputs resolve to what they allow.
pub fn release(bytes: &[u8]) {
    let Some(record) = record("release", false, bytes) else { return };
    let release = record.body.release().expect("a release");
    assert!(release.disks.len() <= 8);
    let required = |name: &Name| release.context.inputs().any(|(other, input)| other == name && input.required);
    match release.context.resolve(&BTreeMap::new()) {
        Ok(values) => {
            assert!(values.keys().all(|name| release.context.inputs().any(|(other, _)| other == name)));
            let mut names = release.context.inputs().map(|(name, _)| name);
            assert!(names.all(|name| !required(name) || values.contains_key(name)), "all that is required is there");
        }
        Err(_) => assert!(!release.context.is_empty(), "nothing is asked for, and nothing is missing"),
    }
}

/// An endorsement's text is bounded.
pub fn endorsement(bytes: &[u8]) {
    let Some(record) = record("endorsement", false, bytes) else { return };
    let endorsement = record.body.endorsement().expect("an endorsement");
    assert!(endorsement.predicate.len() <= 512);
    match &endorsement.body {
        EndorsementBody::Native { note } => assert!(note.as_ref().is_none_or(|note| note.len() <= 16_384)),
        EndorsementBody::Dsse { envelope } => assert!(envelope.len() <= MAX_PAYLOAD_BYTES),
    }
}

/// A revocation is one.
pub fn revocation(bytes: &[u8]) {
    let Some(record) = record("revocation", true, bytes) else { return };
    assert!(record.body.revocation().is_some());
}

/// A head of a channel is one.
pub fn channel(bytes: &[u8]) {
    let Some(record) = record("channel", true, bytes) else { return };
    assert!(record.body.channel().is_some());
}

/// A delegation can be met, and is bounded.
pub fn delegation(bytes: &[u8]) {
    let Some(record) = record("delegation", true, bytes) else { return };
    let delegation = record.body.delegation().expect("a delegation");
    assert!((1..=MAX_DELEGATES).contains(&delegation.keys().len()));
    assert!(delegation.keys().is_sorted_by(|a, b| a < b));
    assert!((1..=delegation.keys().len()).contains(&delegation.threshold()));
    assert!((1..=MAX_DELEGATED_NAMES).contains(&delegation.names().len()));
    assert!(delegation.sequence() > 0);
    // Matched by another algorithm.
    for name in ["hello", "batch-worker", "a"].map(|name| Name::try_from(name).expect("a name")) {
        let fits = delegation.names().iter().any(|pattern| fits_by_table(pattern.as_bytes(), name.as_bytes()));
        assert_eq!(delegation.covers(&name), fits, "{name}");
    }
}

fn fits_by_table(pattern: &[u8], name: &[u8]) -> bool {
    // Which beginnings of the name the pattern so far fits.
    let mut fits = vec![false; name.len() + 1];
    fits[0] = true;
    for &c in pattern {
        let mut next = vec![false; name.len() + 1];
        for length in 0..=name.len() {
            next[length] = match c {
                b'*' => fits[..=length].contains(&true),
                _ => length > 0 && fits[length - 1] && (c == b'?' || c == name[length - 1]),
            };
        }
        fits = next;
    }
    fits[name.len()]
}

/// An advisory's severity has a word.
pub fn advisory(bytes: &[u8]) {
    let Some(record) = record("advisory", false, bytes) else { return };
    let advisory = record.body.advisory().expect("an advisory");
    assert!(
        (Severity::Low..=Severity::Critical).contains(&advisory.severity) && !advisory.severity.as_str().is_empty()
    );
}

/// A recipe's text is bounded.
pub fn recipe(bytes: &[u8]) {
    let Some(record) = record("recipe", false, bytes) else { return };
    let Body::Recipe(recipe) = &record.body else { panic!("no recipe") };
    is_bounded(&recipe.source);
}

/// A component's text is bounded.
pub fn component(bytes: &[u8]) {
    let Some(record) = record("component", false, bytes) else { return };
    let Body::Component(component) = &record.body else { panic!("no component") };
    is_bounded(&component.source);
}

fn is_bounded(source: &Source) {
    if let Source::Inline(text) = source {
        assert!(text.len() <= MAX_INLINE_BYTES);
    }
}
