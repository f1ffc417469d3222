//! What everything else is made of: canonical CBOR, and ids as text.

use ciborium::Value;
use rialto_protocol::codec::{self, CodecError, MAX_DEPTH, MAX_VALUES};
use rialto_protocol::ids::{ImageId, PublicKey, RecordId};

/// Canonical CBOR is what another implementation reads, finds in our profile, and writes again in the same bytes.
pub fn cbor(bytes: &[u8]) {
    let is_canonical = codec::scan(bytes).is_ok();
    assert_eq!(is_canonical, is_canonical_to_another(bytes));
    match codec::decode_any(bytes, bytes.len()) {
        Ok(value) => assert_eq!(codec::encode(&value).as_deref(), Ok(bytes), "one value, one encoding"),
        Err(CodecError::TooManyValues { .. }) => assert!(bytes.len() > MAX_VALUES, "each value has a byte of its own"),
        Err(error) => assert!(!is_canonical, "{error}"),
    }
}

fn is_canonical_to_another(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let Ok(value) = ciborium::de::from_reader_with_recursion_limit::<Value, _>(&mut rest, 64) else { return false };
    rest.is_empty() && is_in_profile(&value, MAX_DEPTH) && written(&value) == bytes
}

fn is_in_profile(value: &Value, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    match value {
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Bytes(_) | Value::Text(_) => true,
        Value::Array(items) => items.iter().all(|item| is_in_profile(item, depth)),
        Value::Map(pairs) => {
            pairs.iter().all(|(key, value)| is_in_profile(key, depth) && is_in_profile(value, depth))
                && pairs.is_sorted_by(|(one, _), (next, _)| written(one) < written(next))
        }
        _ => false,
    }
}

fn written(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("memory takes it");
    bytes
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
