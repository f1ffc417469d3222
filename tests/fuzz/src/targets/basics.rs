//! What everything else is made of: canonical CBOR, and ids as text.

use rialto_protocol::codec::{self, CodecError, MAX_VALUES};
use rialto_protocol::ids::{ImageId, PublicKey, RecordId};

use super::another_cbor;

/// Canonical CBOR is what another implementation reads, finds in our profile, and writes again in the same bytes.
pub fn cbor(bytes: &[u8]) {
    let is_canonical = codec::scan(bytes).is_ok();
    assert_eq!(is_canonical, another_cbor::is_canonical(bytes));
    match codec::decode_any(bytes, bytes.len()) {
        Ok(value) => assert_eq!(codec::encode(&value).as_deref(), Ok(bytes), "one value, one encoding"),
        Err(CodecError::TooManyValues { .. }) => assert!(bytes.len() > MAX_VALUES, "each value has a byte of its own"),
        Err(error) => assert!(!is_canonical, "{error}"),
    }
}

/// An id has one text, and one form in CBOR.
pub fn id(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(id) = text.parse::<RecordId>() {
            assert_eq!(id.to_string(), text);
        }
        assert_eq!(text.parse::<ImageId>().is_ok(), text.parse::<RecordId>().is_ok());
        if let Ok(key) = text.parse::<PublicKey>() {
            assert_eq!(key.to_string(), text);
        }
    }
    let encoded = codec::encode(&codec::Value::Bytes(bytes.to_vec())).expect("a byte string");
    if let Ok(id) = codec::decode::<RecordId>(&encoded, encoded.len()) {
        assert_eq!(id.to_bytes(), bytes);
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
