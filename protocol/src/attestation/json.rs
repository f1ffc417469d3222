//! JSON of strangers: looked through whole before anything is made of it.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

/// What a document may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonBounds {
    /// Length, in bytes.
    pub bytes: usize,
    /// Nesting; a plain value has 1. Above 100 is as 100.
    pub depth: usize,
    /// Values, those inside others and the names of fields included.
    pub values: usize,
}

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Larger than its place allows; nothing of it was read.
    #[error("{length} bytes, and at most {max} are read")]
    TooLarge {
        /// Its length, in bytes.
        length: usize,
        /// Length allowed, in bytes.
        max: usize,
    },
    /// Not JSON, or JSON of which two readers could think differently: a field twice, or nested too deep to be meant.
    #[error("{0}")]
    Form(String),
}

/// Checks that `bytes` are one JSON value within `bounds`, in which no object has a field twice: two readers would take
/// different ones. Keeps nothing but the names of the fields of open objects.
///
/// # Errors
/// What is wrong with it, and where.
pub fn scan(bytes: &[u8], bounds: JsonBounds) -> Result<(), JsonError> {
    if bytes.len() > bounds.bytes {
        return Err(JsonError::TooLarge { length: bytes.len(), max: bounds.bytes });
    }
    let mut values = bounds.values;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let look = Look { depth: bounds.depth.min(100), values: &mut values };
    look.deserialize(&mut reader).and_then(|()| reader.end()).map_err(|error| JsonError::Form(error.to_string()))
}

/// Reads an object that was scanned before. Not a list of its fields in their order, which serde would take as well.
pub(super) fn read<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, JsonError> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(JsonError::Form("it is not a JSON object".into()));
    }
    serde_json::from_slice(bytes).map_err(|error| JsonError::Form(error.to_string()))
}

/// Looks through one value, and what is in it.
struct Look<'v> {
    depth: usize,
    values: &'v mut usize,
}

impl Look<'_> {
    fn count<E: serde::de::Error>(&mut self) -> Result<(), E> {
        *self.values = self.values.checked_sub(1).ok_or_else(|| E::custom("more values than any such document has"))?;
        Ok(())
    }

    fn inside<E: serde::de::Error>(&mut self) -> Result<Look<'_>, E> {
        let depth = self.depth.checked_sub(1).filter(|depth| *depth > 0);
        let depth = depth.ok_or_else(|| E::custom("nested deeper than any such document is"))?;
        Ok(Look { depth, values: self.values })
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self.inside()?)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        let mut names: BTreeSet<String> = BTreeSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            self.count()?;
            if names.contains(&name) {
                let name: String = name.chars().take(80).collect();
                return Err(A::Error::custom(format_args!("the field {name:?} stands twice in one object")));
            }
            names.insert(name);
            fields.next_value_seed(self.inside()?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: JsonBounds = JsonBounds { bytes: 1000, depth: 4, values: 20 };

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for good in ["1", "null", r#"{"a":{"b":[true,-1.5e3,"x"]},"b":{"b":null}}"#, " [ ] ", r#"[[[1]]]"#] {
            assert_eq!(scan(good.as_bytes(), BOUNDS), Ok(()), "{good}");
        }
        for (bad, says) in [
            (r#"{"a":1,"a":2}"#, "twice"),
            (r#"{"a":1,"\u0061":2}"#, "twice"),
            (r#"[{"x":{"a":1,"b":2,"a":1}}]"#, "twice"),
            ("[[[[1]]]]", "deeper"),
            ("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]", "more values"),
            ("", "EOF"),
            ("{} {}", "trailing"),
            ("\u{feff}{}", "expected value"),
            ("{'a':1}", "key"),
            ("[1,]", "trailing comma"),
            ("NaN", "expected"),
            ("\"\u{1}\"", "control character"),
            (r#""\ud800""#, "hex escape"),
        ] {
            let refused = scan(bad.as_bytes(), BOUNDS).unwrap_err().to_string();
            assert!(refused.contains(says), "{bad}: {refused}");
        }
        assert!(matches!(scan(&[b' '; 1001], BOUNDS), Err(JsonError::TooLarge { length: 1001, max: 1000 })));
        assert!(scan(b"\"\xff\"", BOUNDS).is_err());
    }

    #[test]
    fn a_thousand_brackets_are_refused_and_not_followed() {
        let deep = JsonBounds { bytes: 1 << 20, depth: usize::MAX, values: usize::MAX };
        assert!(scan("[".repeat(1 << 19).as_bytes(), deep).is_err());
    }

    proptest! {
        #[test]
        fn what_passes_is_json(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if scan(&bytes, BOUNDS).is_ok() {
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
            }
        }

        #[test]
        fn what_is_small_and_sound_passes(list in proptest::collection::btree_map(".{0,8}", any::<i64>(), 0..9)) {
            let text = serde_json::to_vec(&list).unwrap();
            prop_assert_eq!(scan(&text, BOUNDS), Ok(()));
        }
    }
}
