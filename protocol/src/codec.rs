//! Canonical CBOR: one value, one encoding. The only user of `serde_cbor`.
//!
//! RFC 8949 §4.2.1, narrowed: definite lengths, shortest heads, map keys in bytewise order without duplicates, no
//! floats, no tags, no `undefined`, nothing after the value, depth at most [`MAX_DEPTH`]. The raw bytes are scanned for
//! this before serde sees them, so nothing is decoded of an input that is not canonical. serde_cbor writes the fields of
//! a struct in the order of their declaration; they are brought into order in the bytes that it wrote.

use std::ops::Range;

use serde::Serialize;
use serde::de::DeserializeOwned;
pub use serde_cbor::Value;

/// Nesting allowed in a value. The deepest record has 6; the rest is room for kinds to come.
pub const MAX_DEPTH: usize = 16;

/// Values that [`decode_any`] and [`fields`] take, those inside others included. The largest record that there is has about
/// 1,000; the rest is room for kinds to come. Three bytes of CBOR make a map of one entry, which takes 700 bytes of memory:
/// without this bound, a stranger's record of 48 KiB took 45 MB to read.
pub const MAX_VALUES: usize = 4096;

/// Why bytes are not the canonical CBOR of what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not canonical, and where.
    #[error("not canonical CBOR at byte {offset}: {reason}")]
    NotCanonical {
        /// Position in the input, in bytes.
        offset: usize,
        /// Which rule is broken.
        reason: &'static str,
    },
    /// Larger than its place allows; nothing was decoded.
    #[error("{length} bytes where at most {max} are allowed")]
    TooLarge {
        /// Length found, in bytes.
        length: usize,
        /// Length allowed, in bytes.
        max: usize,
    },
    /// More values than any record has; nothing was decoded.
    #[error("more than {max} values in one record")]
    TooManyValues {
        /// Number allowed.
        max: usize,
    },
    /// Canonical, but not of the expected form.
    #[error("unexpected form: {0}")]
    Form(String),
}

/// Encodes canonically.
///
/// # Errors
/// [`CodecError::Form`] where the value cannot be written, [`CodecError::NotCanonical`] where it holds a float or nests deeper
/// than [`MAX_DEPTH`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    encode_about(value, 0)
}

/// Encodes canonically what takes about so many bytes.
///
/// # Errors
/// Those of [`encode`].
pub fn encode_about<T: Serialize>(value: &T, bytes: usize) -> Result<Vec<u8>, CodecError> {
    let bytes = write(value, bytes)?;
    scan(&bytes)?;
    Ok(bytes)
}

/// Decodes a value of at most `max` bytes after checking that the bytes are canonical, and the one encoding of the value.
///
/// # Errors
/// [`CodecError::TooLarge`] and [`CodecError::NotCanonical`] before anything is allocated, [`CodecError::Form`] after.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, CodecError> {
    if bytes.len() > max {
        return Err(CodecError::TooLarge { length: bytes.len(), max });
    }
    scan(bytes)?;
    Part(bytes).read()
}

/// Decodes whatever value the bytes are, of at most `max` bytes and [`MAX_VALUES`] values, after checking that they are
/// canonical.
///
/// # Errors
/// As [`decode`], and [`CodecError::TooManyValues`] before anything is allocated. A canonical input has no second encoding,
/// so there is nothing to compare.
pub fn decode_any(bytes: &[u8], max: usize) -> Result<Value, CodecError> {
    let mut scanner = Scanner::of_any(bytes, max)?;
    scanner.value(MAX_DEPTH)?;
    scanner.end()?;
    serde_cbor::from_slice(bytes).map_err(form)
}

/// The fields of a map with text for keys, none of them decoded yet: where one says how the others are to be read. The map
/// has at most `max` bytes and [`MAX_VALUES`] values.
///
/// # Errors
/// As [`decode_any`], and [`CodecError::Form`] where it is no such map. Nothing is allocated but the list of what it has.
pub fn fields(bytes: &[u8], max: usize) -> Result<Vec<(&str, Part<'_>)>, CodecError> {
    let mut scanner = Scanner::of_any(bytes, max)?;
    let (mut fields, mut are_named) = (Vec::new(), true);
    match scanner.begin()? {
        (MAP, pairs) => scanner.map(pairs, MAX_DEPTH - 1, |key, value| match text(key) {
            Some(name) => fields.push((name, Part(value))),
            None => are_named = false,
        })?,
        _ => are_named = false,
    }
    if !are_named {
        // What is not canonical is refused as that.
        scan(bytes)?;
        return Err(CodecError::Form("no map of named fields".into()));
    }
    scanner.end()?;
    Ok(fields)
}

/// The text that a canonical value is, where it is one.
fn text(value: &[u8]) -> Option<&str> {
    let mut scanner = Scanner::new(value);
    let (TEXT, length) = scanner.head().ok()? else { return None };
    std::str::from_utf8(scanner.skip(length).ok()?).ok()
}

/// A value inside another one that was found to be canonical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a>(&'a [u8]);

impl<'a> Part<'a> {
    /// What is in it, where it is a byte string.
    ///
    /// # Errors
    /// [`CodecError::Form`] where it is of another form.
    pub fn byte_string(self) -> Result<&'a [u8], CodecError> {
        let mut scanner = Scanner::new(self.0);
        match scanner.head()? {
            (BYTES, length) => scanner.skip(length),
            _ => Err(CodecError::Form("no byte string".into())),
        }
    }

    /// Decodes it; it must be the one encoding of what it decodes to.
    ///
    /// # Errors
    /// [`CodecError::Form`] where it is of another form.
    pub fn read<T: Serialize + DeserializeOwned>(self) -> Result<T, CodecError> {
        let value = serde_cbor::from_slice(self.0).map_err(form)?;
        // serde reads more forms than it writes: structs as arrays or with numbers for field names, absent defaults.
        if write(&value, self.0.len())? == self.0 { Ok(value) } else { Err(other_form()) }
    }
}

/// Writes a value of about so many bytes, with the keys of its maps in order: what serde_cbor writes in the order of
/// declaration.
fn write<T: Serialize>(value: &T, about: usize) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(about);
    serde_cbor::to_writer(&mut bytes, value).map_err(form)?;
    order(&mut bytes, 0, MAX_DEPTH, &mut Vec::new())?;
    Ok(bytes)
}

/// An entry of a map: its key, and where the entry ends.
type Entry = (Range<usize>, usize);

/// Brings the keys of all maps in the value at `start` into order. Says where it ends. `entries` are those of the maps around
/// it, and are so afterwards.
fn order(bytes: &mut [u8], start: usize, depth: usize, entries: &mut Vec<Entry>) -> Result<usize, CodecError> {
    let mut scanner = Scanner { at: start, ..Scanner::new(bytes) };
    let Some(depth) = depth.checked_sub(1) else { return Err(scanner.refuse("nested too deeply")) };
    let (major, argument) = scanner.head()?;
    let mut end = scanner.at;
    match major {
        BYTES | TEXT => {
            scanner.skip(argument)?;
            end = scanner.at;
        }
        ARRAY => {
            for _ in 0..argument {
                end = order(bytes, end, depth, entries)?;
            }
        }
        MAP => {
            let (first, around, mut is_ordered) = (end, entries.len(), true);
            let mut previous = 0..0;
            for _ in 0..argument {
                let key = end..order(bytes, end, depth, entries)?;
                end = order(bytes, key.end, depth, entries)?;
                is_ordered &= bytes[previous] <= bytes[key.clone()];
                previous = key.clone();
                entries.push((key, end));
            }
            if !is_ordered {
                let written = bytes[first..end].to_vec();
                let within = |range: Range<usize>| &written[range.start - first..range.end - first];
                entries[around..].sort_by(|(one, _), (other, _)| within(one.clone()).cmp(within(other.clone())));
                let mut at = first;
                for (key, end) in &entries[around..] {
                    let entry = within(key.start..*end);
                    bytes[at..at + entry.len()].copy_from_slice(entry);
                    at += entry.len();
                }
            }
            entries.truncate(around);
        }
        _ => {}
    }
    Ok(end)
}

fn other_form() -> CodecError {
    CodecError::Form("a value in another form than the one it is written in".into())
}

fn form(error: serde_cbor::Error) -> CodecError {
    CodecError::Form(error.to_string())
}

/// Checks that `bytes` are one canonical CBOR value and nothing else. Allocates nothing, recurses at most [`MAX_DEPTH`] deep.
///
/// # Errors
/// [`CodecError::NotCanonical`] with the place and the rule.
pub fn scan(bytes: &[u8]) -> Result<(), CodecError> {
    let mut scanner = Scanner::new(bytes);
    scanner.value(MAX_DEPTH)?;
    scanner.end()
}

// The major types (RFC 8949 §3.1).
const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Values that it takes from here on.
    room: usize,
}

impl<'a> Scanner<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        // There are never more values than bytes.
        Self { bytes, at: 0, room: bytes.len() }
    }

    /// Of at most `max` bytes, and [`MAX_VALUES`] values.
    fn of_any(bytes: &'a [u8], max: usize) -> Result<Self, CodecError> {
        match bytes.len() <= max {
            true => Ok(Self { bytes, at: 0, room: MAX_VALUES }),
            false => Err(CodecError::TooLarge { length: bytes.len(), max }),
        }
    }

    fn end(&self) -> Result<(), CodecError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.refuse("bytes after the end of the value")) }
    }

    fn refuse(&self, reason: &'static str) -> CodecError {
        CodecError::NotCanonical { offset: self.at, reason }
    }

    fn value(&mut self, depth: usize) -> Result<(), CodecError> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(self.refuse("nested too deeply"));
        };
        let (major, argument) = self.begin()?;
        match major {
            UNSIGNED | NEGATIVE => Ok(()),
            BYTES => self.skip(argument).map(drop),
            TEXT => {
                let start = self.at;
                let text = self.skip(argument)?;
                match std::str::from_utf8(text) {
                    Ok(_) => Ok(()),
                    Err(_) => Err(CodecError::NotCanonical { offset: start, reason: "text that is not UTF-8" }),
                }
            }
            ARRAY => (0..argument).try_for_each(|_| self.value(depth)),
            MAP => self.map(argument, depth, |_, _| ()),
            TAG => Err(self.refuse("a tag")),
            _ => match argument {
                20..=22 => Ok(()), // false, true, null
                _ => Err(self.refuse("a float or a simple value other than false, true and null")),
            },
        }
    }

    /// The entries of a map, of which `each` is told.
    fn map(&mut self, pairs: u64, depth: usize, mut each: impl FnMut(&'a [u8], &'a [u8])) -> Result<(), CodecError> {
        let bytes = self.bytes;
        let mut previous: Option<&[u8]> = None;
        for _ in 0..pairs {
            let start = self.at;
            self.value(depth)?;
            let key = &bytes[start..self.at];
            if previous.is_some_and(|previous| previous >= key) {
                return Err(CodecError::NotCanonical { offset: start, reason: "map keys out of order or repeated" });
            }
            previous = Some(key);
            let start = self.at;
            self.value(depth)?;
            each(key, &bytes[start..self.at]);
        }
        Ok(())
    }

    /// Reads the head of a value, which counts from then on.
    fn begin(&mut self) -> Result<(u8, u64), CodecError> {
        let head = self.head()?;
        self.room = self.room.checked_sub(1).ok_or(CodecError::TooManyValues { max: MAX_VALUES })?;
        Ok(head)
    }

    /// Reads an initial byte and its argument (RFC 8949 §3).
    fn head(&mut self) -> Result<(u8, u64), CodecError> {
        let start = self.at;
        let initial = self.skip(1)?[0];
        let (major, short) = (initial >> 5, initial & 0x1f);
        let (argument, least) = match short {
            0..=23 => return Ok((major, short.into())),
            24..=27 => {
                let width = 1u64 << (short - 24);
                let argument = self.skip(width)?.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
                (argument, [24, 1 << 8, 1 << 16, 1 << 32][usize::from(short - 24)])
            }
            _ => {
                return Err(CodecError::NotCanonical {
                    offset: start,
                    reason: "an indefinite length or a reserved head",
                });
            }
        };
        if major == SIMPLE {
            return Err(CodecError::NotCanonical { offset: start, reason: "a float or a long simple value" });
        }
        if argument < least {
            return Err(CodecError::NotCanonical {
                offset: start,
                reason: "an integer or length not in its shortest form",
            });
        }
        Ok((major, argument))
    }

    fn skip(&mut self, length: u64) -> Result<&'a [u8], CodecError> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(length).ok().and_then(|length| rest.get(..length)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(self.refuse("a length beyond the end of the input")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    /// From RFC 8949 appendix A and F: what the deterministic encoding allows, and what it does not.
    #[test]
    fn rfc_8949_examples() {
        for good in [
            "00",
            "17",
            "1818",
            "1903e8",
            "1b000000e8d4a51000",
            "20",
            "3863",
            "f4",
            "f5",
            "f6",
            "40",
            "4401020304",
            "60",
            "6449455446",
            "80",
            "83010203",
            "8301820203820405",
            "a0",
            "a26161016162820203",
            "a56161614161626142616361436164614461656145",
        ] {
            assert_eq!(scan(&hex(good)), Ok(()), "{good}");
        }
        for bad in [
            "1817",
            "190017",
            "1a00000017",
            "1b0000000000000017",
            "f7",
            "f0",
            "f818",
            "f90000",
            "fb3ff199999999999a",
            "c074",
            "5f42010243030405ff",
            "7f657374726561646d696e67ff",
            "9fff",
            "bfff",
            "a2616201616101",
            "a2616101616102",
            "0000",
            "",
            "18",
            "41",
            "61ff",
            "1c",
            "ff",
            "5bffffffffffffffff",
            "9bffffffffffffffff",
            "bbffffffffffffffff",
        ] {
            assert!(scan(&hex(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| [vec![0x81; depth - 1], vec![0x00]].concat();
        assert_eq!(scan(&nested(MAX_DEPTH)), Ok(()));
        assert!(scan(&nested(MAX_DEPTH + 1)).is_err());
        assert!(scan(&nested(1_000_000)).is_err());
    }

    /// serde_cbor reads a struct from an array, from numbers for field names, and without its defaults.
    #[test]
    fn a_struct_has_one_form() {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Pair {
            a: u8,
            #[serde(default)]
            b: bool,
        }
        assert_eq!(decode(&hex("a26161016162f4"), 99), Ok(Pair { a: 1, b: false }));
        for other in ["8201f4", "a2000101f4", "a1616101", "a10001"] {
            assert!(matches!(decode::<Pair>(&hex(other), 99), Err(CodecError::Form(_))), "{other}");
            let inside = [hex("a16178"), hex(other)].concat();
            let fields = fields(&inside, 99).unwrap();
            assert_eq!(fields[0].0, "x");
            assert!(matches!(fields[0].1.read::<Pair>(), Err(CodecError::Form(_))), "{other}");
        }
    }

    /// One that holds others counts too.
    #[test]
    fn values_are_counted() {
        for (pairs, is_too_many) in [(2_047u16, false), (2_048, true)] {
            let mut map = vec![0xb9, (pairs >> 8) as u8, pairs as u8];
            (0..pairs).for_each(|key| map.extend([0x62, b'A' + (key / 64) as u8, b'0' + (key % 64) as u8, 0]));
            scan(&map).unwrap();
            // 4,095 values and 4,096, or 4,097 and more.
            for added in [vec![0], vec![0x81, 0]] {
                let bytes = [&map[..map.len() - 1], &added].concat();
                let expected = is_too_many.then_some(CodecError::TooManyValues { max: MAX_VALUES });
                assert_eq!(decode_any(&bytes, bytes.len()).err(), expected, "{pairs} pairs, and {added:?}");
                assert_eq!(fields(&bytes, bytes.len()).err(), expected, "{pairs} pairs, and {added:?}");
            }
        }
    }

    /// However short it is cut, it is not too much of anything.
    #[test]
    fn what_is_cut_off_is_not_canonical() {
        for cut in ["", "81", "8200", "a16161", "18"] {
            assert!(matches!(scan(&hex(cut)), Err(CodecError::NotCanonical { .. })), "{cut}");
        }
        assert!(matches!(scan(&[0x81; MAX_DEPTH]), Err(CodecError::NotCanonical { .. })));
    }

    #[test]
    fn only_a_map_with_text_for_keys_has_fields() {
        for other in ["8101", "01", "a10102", "a1418001", "60"] {
            assert!(matches!(fields(&hex(other), 99), Err(CodecError::Form(_))), "{other}");
        }
        assert!(matches!(fields(&hex("a0"), 0), Err(CodecError::TooLarge { .. })));
        assert_eq!(fields(&hex("a0"), 1), Ok(Vec::new()));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<u64>().prop_map(|n| Value::Integer(n.into())),
            any::<i64>().prop_map(|n| Value::Integer(n.into())),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
            ".{0,40}".prop_map(Value::Text),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::btree_map("[a-z]{0,30}".prop_map(Value::Text), inner, 0..6).prop_map(Value::Map),
            ]
        })
    }

    /// A map that is written in whatever order its entries have, as structs are.
    struct Declared(Vec<(String, Value)>);

    impl Serialize for Declared {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
        }
    }

    proptest! {
        #[test]
        fn the_order_of_declaration_does_not_matter(
            entries in prop::collection::btree_map("[a-z]{0,30}", value(), 0..9).prop_map(Vec::from_iter).prop_shuffle()
        ) {
            let declared = [Declared(entries.clone()), Declared(Vec::new())];
            let sorted: Vec<Value> = [entries, Vec::new()]
                .map(|entries| Value::Map(entries.into_iter().map(|(key, value)| (Value::Text(key), value)).collect()))
                .into();
            prop_assert_eq!(encode(&declared).unwrap(), encode(&sorted).unwrap());
        }

        #[test]
        fn fields_are_those_of_the_map(entries in prop::collection::btree_map("[a-z]{0,30}", value(), 0..9)) {
            let map = Value::Map(entries.iter().map(|(key, value)| (Value::Text(key.clone()), value.clone())).collect());
            let bytes = encode(&map).unwrap();
            let mut found = std::collections::BTreeMap::new();
            for (name, part) in fields(&bytes, bytes.len()).unwrap() {
                found.insert(name.to_owned(), part.read::<Value>().unwrap());
            }
            prop_assert_eq!(found, entries);
        }

        #[test]
        fn what_we_encode_is_canonical_and_comes_back(value in value()) {
            let bytes = encode(&value).unwrap();
            prop_assert_eq!(decode::<Value>(&bytes, bytes.len()), Ok(value));
        }

        #[test]
        fn a_canonical_input_has_no_second_encoding(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = decode::<Value>(&bytes, 64) {
                prop_assert_eq!(encode(&value).unwrap(), bytes);
            }
        }
    }
}
