//! CBOR as RFC 8949 and another implementation have it. Ours takes the canonical form of less: no floats, tags or `undefined`.

use ciborium::Value;
use proptest::prelude::*;
use rialto_protocol::codec::{self, MAX_DEPTH};

use crate::another_cbor::{is_canonical, written};
use crate::{lines, unhex};

#[test]
fn of_rfc_8949_appendix_a_the_canonical_is_taken_and_nothing_else() {
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    for line in lines(include_str!("cbor-appendix-a.txt")) {
        let bytes = unhex(line);
        assert_eq!(codec::scan(&bytes).is_ok(), is_canonical(&bytes), "{line}");
        match codec::decode_any(&bytes, bytes.len()) {
            Ok(value) => {
                assert_eq!(codec::encode(&value), Ok(bytes), "{line}");
                taken.push(line);
            }
            Err(_) => refused.push(line),
        }
    }
    // Integers, strings, arrays, maps, false, true and null; as against floats, tags, `undefined`, other simple values and
    // indefinite lengths, whose first bytes are these (or stand in an array of indefinite length within).
    assert_eq!((taken.len(), refused.len()), (37, 45));
    let tells = ["c", "d", "f0", "f7", "f8", "f9", "fa", "fb", "5f", "7f", "9f", "bf"];
    for line in refused {
        assert!(
            tells.iter().any(|tell| line.starts_with(tell)) || line.contains("9f") || line.contains("bf"),
            "{line}"
        );
    }
}

/// Everything of appendix F that is not well formed, for each head that there is.
#[test]
fn what_rfc_8949_appendix_f_calls_malformed_is_refused() {
    let mut malformed: Vec<Vec<u8>> = vec![vec![]];
    for major in 0..=7u8 {
        let head = |short: u8| major << 5 | short;
        // The input ends within the head.
        for (short, width) in [(24, 1), (25, 2), (26, 4), (27, 8)] {
            malformed.extend((0..width).map(|length| [vec![head(short)], vec![0xff; length]].concat()));
        }
        // Reserved heads.
        malformed.extend((28..=30).flat_map(|short| [vec![head(short)], vec![head(short), 0, 0, 0, 0, 0, 0, 0, 0]]));
        match major {
            // Numbers and tags have no indefinite length.
            0 | 1 | 6 => malformed.extend([vec![head(31)], vec![head(31), 0x00], vec![head(31), 0x00, 0xff]]),
            // Strings: the end comes too soon, or the parts are not strings of this kind and of definite length.
            2 | 3 => {
                for length in [1, 2, 23] {
                    malformed.extend((0..length).map(|has| [vec![head(length)], vec![b'a'; has.into()]].concat()));
                }
                for width in 0..=3 {
                    let length = [vec![0; (1 << width) - 1], vec![0xff]].concat();
                    malformed.push([vec![head(24 + width)], length, b"abc".to_vec()].concat());
                }
                malformed.extend([vec![head(31)], vec![head(31), head(1)], vec![head(31), head(1), b'a']]);
                let others = [0x00, 0x21, 0x80, 0xa0, 0xc0, 0xe0, if major == 2 { 0x60 } else { 0x40 }, head(31)];
                malformed.extend(others.into_iter().map(|other| vec![head(31), other, 0xff, 0xff]));
            }
            // Arrays and maps: items are missing, or the last key has no value.
            4 | 5 => {
                let items = if major == 4 { 1 } else { 2 };
                for length in 1..=3 {
                    malformed.extend((0..length * items).map(|has| [vec![head(length)], vec![0; has.into()]].concat()));
                }
                for width in 0..=3 {
                    let length = [vec![0; (1 << width) - 1], vec![0xff]].concat();
                    malformed.push([vec![head(24 + width)], length, vec![0; 3]].concat());
                }
                malformed.extend([vec![head(31)], vec![head(31), 0x00], vec![head(31), 0x00, 0x00]]);
                if major == 5 {
                    malformed.push(vec![head(31), 0x00, 0xff]);
                    malformed.push(vec![head(31), 0x00, 0x00, 0x00, 0xff]);
                }
                // A break where an item should be.
                malformed.extend((1..=2).map(|length| [vec![head(length)], vec![0xff; 4]].concat()));
            }
            // A simple value below 32 in two bytes; a break where nothing was begun.
            _ => {
                malformed.extend((0..32).map(|simple| vec![head(24), simple]));
                malformed.push(vec![0xff]);
            }
        }
        // A tag, of whatever width, with nothing after it.
        malformed.extend([vec![0xc0], vec![0xd8, 0xff], vec![0xd9, 1, 0], vec![0xda, 0, 1, 0, 0]]);
    }
    assert!(malformed.len() > 300);
    for bytes in &malformed {
        assert!(codec::scan(bytes).is_err(), "{bytes:02x?}");
        let within = [&[0x81], bytes.as_slice()].concat();
        assert!(codec::scan(&within).is_err(), "{within:02x?}");
    }
}

/// A length that is not there costs no memory and no time.
#[test]
fn a_claim_of_endless_data_is_seen_through_at_once() {
    for head in [0x5b, 0x7b, 0x9b, 0xbb] {
        for nested in 0..MAX_DEPTH {
            let claim = [vec![0x81; nested], vec![head], vec![0xff; 8], vec![0x00; 32]].concat();
            assert!(codec::scan(&claim).is_err(), "{claim:02x?}");
        }
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        3 => any::<u64>().prop_map(Value::from),
        3 => any::<i64>().prop_map(Value::from),
        3 => (0..300i64).prop_map(|n| Value::from(n - 20)),
        3 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        3 => ".{0,40}".prop_map(Value::Text),
        2 => any::<bool>().prop_map(Value::Bool),
        2 => Just(Value::Null),
        1 => any::<f64>().prop_map(Value::Float),
    ];
    leaf.prop_recursive(5, 32, 6, |inner| {
        let pairs = prop::collection::vec((inner.clone(), inner.clone()), 0..5);
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            1 => pairs.clone().prop_map(Value::Map),
            3 => pairs.prop_map(|mut pairs| {
                pairs.sort_by_key(|(key, _)| written(key));
                pairs.dedup_by_key(|(key, _)| written(key));
                Value::Map(pairs)
            }),
            1 => (any::<u64>(), inner).prop_map(|(tag, value)| Value::Tag(tag, Box::new(value))),
        ]
    })
}

proptest! {
    #[test]
    fn another_implementation_agrees_on_what_is_canonical(value in any_value()) {
        let bytes = written(&value);
        prop_assert_eq!(codec::scan(&bytes).is_ok(), is_canonical(&bytes), "{:02x?}", bytes);
    }

    #[test]
    fn another_implementation_agrees_on_what_was_changed_on_the_way(
        value in any_value(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
        insert in any::<bool>(),
    ) {
        let mut bytes = written(&value);
        match insert {
            true => bytes.insert(at.index(bytes.len() + 1), byte),
            false => *at.get_mut(&mut bytes) = byte,
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len() + 1)]] {
            prop_assert_eq!(codec::scan(bytes).is_ok(), is_canonical(bytes), "{:02x?}", bytes);
        }
    }
}
