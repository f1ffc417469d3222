//! What canonical CBOR is, by another implementation: no floats, tags or `undefined`.

use ciborium::Value;
use rialto_protocol::codec::MAX_DEPTH;

/// What `codec::scan` is to say: read, judged as a value, and written again in the same bytes.
pub(crate) fn is_canonical(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let Ok(value) = ciborium::de::from_reader_with_recursion_limit::<Value, _>(&mut rest, 64) else { return false };
    rest.is_empty() && is_in_profile(&value, MAX_DEPTH) && written(&value) == bytes
}

/// A value in the bytes that the other implementation writes.
pub(crate) fn written(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("memory takes it");
    bytes
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
