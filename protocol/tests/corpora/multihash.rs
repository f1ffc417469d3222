//! Multihashes and CIDs as another implementation writes them, whole and cut short.

use rialto_protocol::codec::{self, Value};
use rialto_protocol::ids::{IdError, RecordId};

use crate::{lines, unhex};

/// How long the digests of our ids are.
const OUR_BITS: &str = "256";

#[test]
fn only_whole_blake3_hashes_of_cbor_name_anything() {
    let mut ours = 0;
    for line in lines(include_str!("multihash.txt")) {
        let fields: Vec<_> = line.split(' ').collect();
        let [algorithm, bits, input, hash, of_cbor, of_raw] = fields.try_into().expect("six fields");
        let is_ours = algorithm == "blake3" && bits == OUR_BITS;
        let id = RecordId::of(&unhex(input));
        // As text.
        match of_cbor.parse::<RecordId>() {
            Ok(read) => assert!(is_ours && read == id && id.to_string() == of_cbor, "{line}"),
            Err(error) => assert!(!is_ours && matches!(error, IdError::OtherKind(_)), "{line}: {error}"),
        }
        assert!(matches!(of_raw.parse::<RecordId>(), Err(IdError::OtherKind(_))), "{line}");
        // As bytes: version 1, codec cbor, multihash.
        let bytes = [&[0x01, 0x51], unhex(hash).as_slice()].concat();
        assert_eq!(read(&bytes), is_ours.then_some(id), "{line}");
        assert_eq!(id.to_bytes() == bytes, is_ours, "{line}");
        // A multihash whose length is not that of its digest, or with something after it.
        assert_eq!(read(&bytes[..bytes.len() - 1]), None, "{line}");
        assert_eq!(read(&[bytes.as_slice(), &[0]].concat()), None, "{line}");
        ours += usize::from(is_ours);
    }
    assert_eq!(ours, 4);
}

/// Varints in more bytes than they need, and in more than there can be.
#[test]
fn an_id_has_one_spelling() {
    let good = RecordId::of(b"x").to_bytes();
    assert_eq!(read(&good), Some(RecordId::of(b"x")));
    for at in 0..4 {
        let long = [&good[..at], &[good[at] | 0x80, 0x00], &good[at + 1..]].concat();
        assert_eq!(read(&long), None, "byte {at}");
        let endless = [&good[..at], &[0xff; 20], &good[at..]].concat();
        assert_eq!(read(&endless), None, "byte {at}");
    }
    // Version 0 is a bare sha2-256.
    assert_eq!(read(&[&[0x12, 0x20], &good[4..]].concat()), None);
    // The same CID in capital letters, and in hexadecimal.
    let text = RecordId::of(b"x").to_string();
    for other in [text.to_uppercase(), format!("f{}", data_encoding::HEXLOWER.encode(&good))] {
        assert!(other.parse::<RecordId>().is_err(), "{other}");
    }
}

fn read(bytes: &[u8]) -> Option<RecordId> {
    let encoded = codec::encode(&Value::Bytes(bytes.to_vec())).unwrap();
    codec::decode(&encoded, encoded.len()).ok()
}
