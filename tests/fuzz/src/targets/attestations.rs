//! DSSE envelopes, and the in-toto statements in them.

use ed25519_dalek::SigningKey;
use rialto_protocol::attestation::{
    Attestation, Dsse, MAX_DSSE_BYTES, MAX_DSSE_SIGNATURES, MAX_SUBJECTS, PAYLOAD_TYPE_IN_TOTO,
};
use rialto_protocol::ids::PublicKey;

/// An envelope is bounded, what is read of it comes back when it is sealed again, and nobody has signed it who has not; the same
/// bytes as a payload are a statement, or are refused.
pub fn dsse(bytes: &[u8]) {
    if let Ok(envelope) = Dsse::parse(bytes) {
        assert!(bytes.len() <= MAX_DSSE_BYTES && envelope.payload().len() < bytes.len());
        assert!((1..=MAX_DSSE_SIGNATURES).contains(&envelope.signature_count()));
        let resealed = Dsse::seal(envelope.payload_type(), envelope.payload(), &[&key()]);
        if let Ok(again) = Dsse::parse(resealed.as_bytes()) {
            assert_eq!((again.payload_type(), again.payload()), (envelope.payload_type(), envelope.payload()));
            assert!(again.is_signed_by(&public()));
        } else {
            assert!(resealed.len() > MAX_DSSE_BYTES, "what was read can be read again");
        }
        if let Ok(attestation) = Attestation::parse(bytes) {
            is_bounded(&attestation);
            assert_eq!(envelope.payload_type(), PAYLOAD_TYPE_IN_TOTO);
        }
    }
    // As a statement that somebody signed.
    if let Ok(attestation) = Attestation::parse(Dsse::seal(PAYLOAD_TYPE_IN_TOTO, bytes, &[&key()]).as_bytes()) {
        is_bounded(&attestation);
        assert!(attestation.is_signed_by(&public()));
        assert_eq!(attestation.payload(), bytes);
    }
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn public() -> PublicKey {
    PublicKey(key().verifying_key().to_bytes())
}

fn is_bounded(attestation: &Attestation) {
    assert!((1..=MAX_SUBJECTS).contains(&attestation.subjects().len()));
    assert!((1..=512).contains(&attestation.predicate_type().len()));
    let fields = attestation.predicate().fields();
    assert!(fields.len() <= 8 && fields.iter().all(|(_, value)| value.chars().count() <= 512));
}
