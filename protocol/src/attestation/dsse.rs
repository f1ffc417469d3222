//! [`Dsse`]: a payload of a stated type, and signatures over the two, as
//! <https://github.com/secure-systems-lab/dsse> has it (version 1).

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD};
use ed25519_dalek::{Signer as _, SigningKey};
use serde::Deserialize;

use super::json::{self, JsonBounds, JsonError};
use crate::ids::{PublicKey, Signature};
use crate::signed::is_signature_of;

/// An envelope in JSON is at most this long, in bytes, so that the record that carries it keeps within its own bound.
pub const MAX_DSSE_BYTES: usize = 46 * 1024;
/// Signatures that one envelope can have, as many as a record.
pub const MAX_DSSE_SIGNATURES: usize = 16;
/// The payload type of in-toto statements.
pub const PAYLOAD_TYPE_IN_TOTO: &str = "application/vnd.in-toto+json";

/// Fields of an envelope, with room for those that its form may grow.
const BOUNDS: JsonBounds = JsonBounds { bytes: MAX_DSSE_BYTES, depth: 8, values: 512 };
/// A payload type is a media type or a URI.
const MAX_TYPE_BYTES: usize = 256;

/// Why bytes are no DSSE envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DsseError {
    /// Not the JSON of an envelope.
    #[error("it is no DSSE envelope: {0}")]
    Json(#[from] JsonError),
    /// Not base64, neither of the standard alphabet nor of the one for URLs.
    #[error("it is no DSSE envelope: its {0} is not base64")]
    Base64(&'static str),
    /// A type that is empty or longer than any.
    #[error("it is no DSSE envelope: its payloadType is not 1 to {MAX_TYPE_BYTES} bytes long")]
    Type,
    /// None, or more than are read.
    #[error("it has {0} signatures, where 1 to {MAX_DSSE_SIGNATURES} are read")]
    Signatures(usize),
}

/// An envelope, of whose signatures nothing is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dsse {
    payload_type: String,
    payload: Vec<u8>,
    /// Those that have the length of one of ed25519; others are of keys that no signer of a site has.
    signatures: Vec<Signature>,
    /// All of them.
    count: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    payload: String,
    payload_type: String,
    signatures: Vec<WireSignature>,
}

/// The `keyid` beside it is an unauthenticated hint, and is not looked at.
#[derive(Deserialize)]
struct WireSignature {
    sig: String,
}

impl Dsse {
    /// Reads an envelope. Fields that it knows nothing of are passed over, as its specification has it; they are not signed.
    ///
    /// # Errors
    /// What is wrong with its form, or that it is over [`MAX_DSSE_BYTES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DsseError> {
        json::scan(bytes, BOUNDS)?;
        let wire: Wire = json::read(bytes)?;
        let count = wire.signatures.len();
        if !(1..=MAX_DSSE_SIGNATURES).contains(&count) {
            return Err(DsseError::Signatures(count));
        }
        if !(1..=MAX_TYPE_BYTES).contains(&wire.payload_type.len()) {
            return Err(DsseError::Type);
        }
        let payload = base64(&wire.payload).ok_or(DsseError::Base64("payload"))?;
        let mut signatures = Vec::new();
        for WireSignature { sig } in &wire.signatures {
            let bytes = base64(sig).ok_or(DsseError::Base64("signature"))?;
            // Of 64 bytes are others, too: they verify under none of our keys.
            signatures.extend(<[u8; 64]>::try_from(bytes).ok().map(Signature));
        }
        Ok(Self { payload_type: wire.payload_type, payload, signatures, count })
    }

    /// Writes an envelope that these keys sign. It can be read again while it has 1 to [`MAX_DSSE_SIGNATURES`] of them, and is
    /// no longer than [`MAX_DSSE_BYTES`].
    pub fn seal(payload_type: &str, payload: &[u8], keys: &[&SigningKey]) -> String {
        let message = pre_authentication_encoding(payload_type, payload);
        let signature = |key: &&SigningKey| {
            let keyid = data_encoding::HEXLOWER.encode(key.verifying_key().as_bytes());
            serde_json::json!({"keyid": keyid, "sig": BASE64.encode(&key.sign(&message).to_bytes())})
        };
        let signatures: Vec<_> = keys.iter().map(signature).collect();
        let payload = BASE64.encode(payload);
        serde_json::json!({"payload": payload, "payloadType": payload_type, "signatures": signatures}).to_string()
    }

    /// What the payload is said, and signed, to be.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// What is signed.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// How many signatures it has, of whatever kind: 1 to [`MAX_DSSE_SIGNATURES`].
    pub fn signature_count(&self) -> usize {
        self.count
    }

    /// Whether one of the signatures is of this ed25519 key. Costs one verification for each of them.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let message = pre_authentication_encoding(&self.payload_type, &self.payload);
        self.signatures.iter().any(|signature| is_signature_of(key, &message, signature))
    }
}

/// What a signature is over: `"DSSEv1" SP LEN(type) SP type SP LEN(body) SP body`, lengths in bytes, as ASCII decimals.
pub fn pre_authentication_encoding(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len());
    [head.as_bytes(), body].concat()
}

/// Either alphabet, with or without padding; nothing that mixes them, and no bits left over.
fn base64(text: &str) -> Option<Vec<u8>> {
    let is_of_urls = text.contains(['-', '_']);
    let is_padded = text.ends_with('=') || text.len().is_multiple_of(4);
    let encoding = match (is_of_urls, is_padded) {
        (false, true) => BASE64,
        (false, false) => BASE64_NOPAD,
        (true, true) => BASE64URL,
        (true, false) => BASE64URL_NOPAD,
    };
    encoding.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPE: &str = "http://example.com/HelloWorld";

    fn public(key: &SigningKey) -> PublicKey {
        PublicKey(key.verifying_key().to_bytes())
    }

    fn envelope(payload: &str, signatures: &[&str]) -> String {
        let signatures: Vec<String> =
            signatures.iter().map(|signature| format!(r#"{{"keyid":"x","sig":"{signature}"}}"#)).collect();
        format!(r#"{{"payload":"{payload}","payloadType":"{TYPE}","signatures":[{}]}}"#, signatures.join(","))
    }

    /// The example of the specification.
    #[test]
    fn hello_world_is_encoded_as_the_specification_has_it() {
        let encoded = pre_authentication_encoding(TYPE, b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
        assert_eq!(pre_authentication_encoding("", b""), b"DSSEv1 0  0 ");
        assert_eq!(pre_authentication_encoding("é", "ü ".as_bytes()), "DSSEv1 2 é 3 ü ".as_bytes());
    }

    /// The envelope of the specification: its signature is of an ECDSA key, which no signer of a site has.
    #[test]
    fn the_envelope_of_the_specification_is_read() {
        let text = br#"{"payload": "aGVsbG8gd29ybGQ=",
 "payloadType": "http://example.com/HelloWorld",
 "signatures": [{"sig": "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="}]}"#;
        let read = Dsse::parse(text).unwrap();
        assert_eq!((read.payload(), read.payload_type(), read.signature_count()), (&b"hello world"[..], TYPE, 1));
        assert!(!read.is_signed_by(&public(&SigningKey::from_bytes(&[1; 32]))));
    }

    #[test]
    fn a_signature_counts_over_type_and_payload_whatever_its_alphabet_and_hint() {
        let (key, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let signature = key.sign(&pre_authentication_encoding(TYPE, b"hello world?>")).to_bytes();
        let payload = b"hello world?>";
        for (payload, signature) in [
            (BASE64.encode(payload), BASE64.encode(&signature)),
            (BASE64URL.encode(payload), BASE64URL.encode(&signature)),
            (BASE64_NOPAD.encode(payload), BASE64URL_NOPAD.encode(&signature)),
        ] {
            let read = Dsse::parse(envelope(&payload, &["AAAA", &signature]).as_bytes()).unwrap();
            assert_eq!(read.signature_count(), 2, "one of another kind of key beside it");
            assert!(read.is_signed_by(&public(&key)) && !read.is_signed_by(&public(&other)));
        }
        // The same signature over another type, another payload, and over the payload alone.
        let text = envelope(&BASE64.encode(payload), &[&BASE64.encode(&signature)]);
        let retyped = Dsse::parse(text.replace(TYPE, "http://example.com/HelloWorlds").as_bytes()).unwrap();
        assert!(!retyped.is_signed_by(&public(&key)));
        let changed = envelope(&BASE64.encode(b"hello world?<"), &[&BASE64.encode(&signature)]);
        assert!(!Dsse::parse(changed.as_bytes()).unwrap().is_signed_by(&public(&key)));
        let bare = key.sign(payload).to_bytes();
        let bare = envelope(&BASE64.encode(payload), &[&BASE64.encode(&bare)]);
        assert!(!Dsse::parse(bare.as_bytes()).unwrap().is_signed_by(&public(&key)));
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        let good = envelope("aGk=", &["AAAA"]);
        assert!(Dsse::parse(good.as_bytes()).is_ok());
        let many: Vec<&str> = vec!["AAAA"; MAX_DSSE_SIGNATURES + 1];
        for bad in [
            String::new(),
            "[]".into(),
            r#"["aGk=","t",[["AAAA"]]]"#.into(),
            "{}".into(),
            envelope("aGk=", &[]),
            envelope("aGk=", &many),
            envelope("aGk!", &["AAAA"]),
            envelope("aGl=", &["AAAA"]),
            envelope("+_==", &["AAAA"]),
            envelope("aGk=", &["A"]),
            good.replace(TYPE, ""),
            good.replace(TYPE, &"x".repeat(MAX_TYPE_BYTES + 1)),
            good.replace("\"payload\"", "\"payloadType\""),
            good.replace("\"sig\"", "\"signature\""),
            format!("{good}{}", " ".repeat(MAX_DSSE_BYTES)),
        ] {
            assert!(Dsse::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Dsse::parse(envelope("aGk=", &many[1..]).as_bytes()).is_ok());
        assert!(Dsse::parse(good.replace("{\"payload\"", "{\"more\":[1],\"payload\"").as_bytes()).is_ok());
    }

    #[test]
    fn what_is_sealed_is_read() {
        let keys = [1, 2, 3].map(|seed| SigningKey::from_bytes(&[seed; 32]));
        let sealed = Dsse::seal(TYPE, "Käse".as_bytes(), &[&keys[0], &keys[1]]);
        let read = Dsse::parse(sealed.as_bytes()).unwrap();
        assert_eq!((read.payload(), read.signature_count()), ("Käse".as_bytes(), 2));
        assert_eq!(keys.each_ref().map(|key| read.is_signed_by(&public(key))), [true, true, false]);
    }

    proptest! {
        #[test]
        fn two_different_things_are_never_encoded_alike(
            a in ("[ -~]{0,6}", proptest::collection::vec(any::<u8>(), 0..6)),
            b in ("[ -~]{0,6}", proptest::collection::vec(any::<u8>(), 0..6)),
        ) {
            let same = pre_authentication_encoding(&a.0, &a.1) == pre_authentication_encoding(&b.0, &b.1);
            prop_assert_eq!(same, a == b);
        }

        #[test]
        fn base64_has_one_meaning(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            for text in [BASE64.encode(&bytes), BASE64URL.encode(&bytes), BASE64URL_NOPAD.encode(&bytes), BASE64_NOPAD.encode(&bytes)] {
                prop_assert_eq!(base64(&text), Some(bytes.clone()));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Dsse::parse(&bytes);
        }
    }
}
