//! Records and envelopes against hostile input, and against the bytes that other sites already know.

mod cases;

use std::collections::{BTreeMap, BTreeSet};

use cases::*;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use rialto_protocol::bounded::{List, Name};
use rialto_protocol::codec::{self, CodecError, Value};
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{Body, ContextSchema, Record, RevocationSubject, Source};
use rialto_protocol::signed::{
    Draft, Envelope, EnvelopeError, KnownKeys, MAX_ENVELOPE_BYTES, MAX_PAYLOAD_BYTES, Verified,
};

fn read(envelope: &Envelope) -> Result<Verified<Record>, EnvelopeError> {
    Envelope::decode(&envelope.encode()).and_then(Envelope::verify)
}

fn read_bytes(bytes: &[u8]) -> Result<Verified<Record>, EnvelopeError> {
    Envelope::decode(bytes).and_then(Envelope::verify)
}

/// An envelope as generic CBOR, to be bent.
fn wire(payload: &[u8], signatures: &[(PublicKey, Vec<u8>)]) -> Value {
    let text = |text: &str| Value::Text(text.into());
    let signatures = signatures.iter().map(|(key, signature)| {
        let fields =
            [(text("key"), Value::Bytes(key.0.to_vec())), (text("signature"), Value::Bytes(signature.clone()))];
        Value::Map(fields.into())
    });
    let fields = [
        (text("v"), Value::Integer(1)),
        (text("payload"), Value::Bytes(payload.to_vec())),
        (text("signatures"), Value::Array(signatures.collect())),
    ];
    Value::Map(fields.into())
}

fn sign(key: &SigningKey, payload: &[u8]) -> (PublicKey, Vec<u8>) {
    use ed25519_dalek::Signer as _;
    let message = [b"rialto record v1\0", payload].concat();
    (public(key), key.sign(&message).to_bytes().to_vec())
}

fn encoded(value: &Value) -> Vec<u8> {
    codec::encode(value).unwrap()
}

fn small() -> (SigningKey, Body) {
    let uni = key(1);
    let body = Body::Release(Box::new(small_release(public(&uni))));
    (uni, body)
}

#[test]
fn golden_records_are_what_they_were() {
    let files = [
        ("advisory", include_str!("golden/advisory.txt")),
        ("channel", include_str!("golden/channel.txt")),
        ("component", include_str!("golden/component.txt")),
        ("delegation", include_str!("golden/delegation.txt")),
        ("endorsement", include_str!("golden/endorsement.txt")),
        ("endorsement-dsse", include_str!("golden/endorsement-dsse.txt")),
        ("recipe", include_str!("golden/recipe.txt")),
        ("revocation-of-endorsement", include_str!("golden/revocation-of-endorsement.txt")),
        ("revocation-of-key", include_str!("golden/revocation-of-key.txt")),
        ("revocation-of-release", include_str!("golden/revocation-of-release.txt")),
        ("release-full", include_str!("golden/release-full.txt")),
        ("release-small", include_str!("golden/release-small.txt")),
        ("unknown-kind", include_str!("golden/unknown-kind.txt")),
        ("unknown-version", include_str!("golden/unknown-version.txt")),
    ];
    let golden = golden();
    assert_eq!(golden.iter().map(|(name, _)| *name).collect::<Vec<_>>(), files.map(|(name, _)| name));
    for ((name, envelope), (_, file)) in golden.iter().zip(files) {
        assert_eq!(golden_text(envelope), file, "{name}: other sites know other bytes");
        // And from the file alone: what was written once is read for ever.
        let hex: String = file.split_once("\n\n").unwrap().1.split_whitespace().collect();
        let record = read_bytes(&data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap()).unwrap();
        let is_known = !name.starts_with("unknown");
        assert_eq!(record.body != Body::Opaque, is_known, "{name}");
        assert!(file.contains(&format!("record  {}\n", record.id)));
    }
}

#[test]
fn bodies_come_back_as_they_were_written() {
    let uni = key(1);
    let subject = RecordId::of(b"subject");
    for (body, federation) in [
        (Body::Release(Box::new(full_release(public(&uni)))), None),
        (endorsement(subject), None),
        (revocation(RevocationSubject::Release(subject)), Some(federation())),
        (channel(public(&uni), u64::MAX, 0, subject), Some(federation())),
        (delegation(public(&uni), &[&key(2), &key(3), &key(4)]), Some(federation())),
        (advisory(), None),
        (recipe(public(&uni)), None),
        (component(public(&uni)), None),
    ] {
        let record = read(&seal(&[&uni], &[&uni], federation, &body)).unwrap();
        assert_eq!(record.body, body);
        assert_eq!(record.header.issued, ISSUED);
    }
}

#[test]
fn a_signature_counts_for_its_own_record_only() {
    let (uni, body) = small();
    let other = seal(&[&uni], &[&uni], None, &endorsement(RecordId::of(b"x")));
    let signature = match codec::decode_any(&other.encode(), MAX_ENVELOPE_BYTES).unwrap() {
        Value::Map(map) => map.get(&Value::Text("signatures".into())).unwrap().clone(),
        _ => unreachable!(),
    };
    let Value::Map(mut map) =
        codec::decode_any(&seal(&[&uni], &[&uni], None, &body).encode(), MAX_ENVELOPE_BYTES).unwrap()
    else {
        unreachable!()
    };
    map.insert(Value::Text("signatures".into()), signature);
    let replayed = encoded(&Value::Map(map));
    assert_eq!(read_bytes(&replayed).unwrap_err(), EnvelopeError::BadSignature(public(&uni)));
}

#[test]
fn a_signature_made_without_our_context_is_refused() {
    use ed25519_dalek::Signer as _;
    let uni = key(1);
    let payload = payload(1, "hologram", public(&uni), &[("body", Value::Null)]);
    let bare = (public(&uni), uni.sign(&payload).to_bytes().to_vec());
    assert_eq!(read_bytes(&encoded(&wire(&payload, &[bare]))).unwrap_err(), EnvelopeError::BadSignature(public(&uni)));
    assert!(read_bytes(&encoded(&wire(&payload, &[sign(&uni, &payload)]))).is_ok());
}

#[test]
fn only_issuers_may_sign() {
    let (uni, body) = small();
    let mallory = key(66);
    assert_eq!(
        Draft::new([public(&uni)], None, ISSUED, &body).unwrap().sign(&mallory).unwrap_err(),
        EnvelopeError::CannotSign(public(&mallory))
    );
    let payload = payload(1, "hologram", public(&uni), &[("body", Value::Null)]);
    let mut both = [sign(&uni, &payload), sign(&mallory, &payload)];
    both.sort();
    assert_eq!(read_bytes(&encoded(&wire(&payload, &both))).unwrap_err(), EnvelopeError::NotAnIssuer(public(&mallory)));
}

/// More keys than are kept: what is remembered of them changes no verdict.
#[test]
fn keys_that_are_known_verify_what_they_signed_and_nothing_else() {
    let known = KnownKeys::default();
    let body = endorsement(RecordId::of(b"x"));
    let sealed = |number: u64| {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        let key = SigningKey::from_bytes(&seed);
        (key.clone(), Draft::new([public(&key)], None, ISSUED, &body).unwrap().sign(&key).unwrap().seal())
    };
    for number in (0..1_100).chain([0, 1, 1_099]) {
        let (key, envelope) = sealed(number);
        envelope.clone().verify_with(&known).unwrap();
        let forged = Draft::new([public(&key)], None, ISSUED + 1, &body).unwrap();
        let Value::Map(mut map) = codec::decode_any(&envelope.encode(), MAX_ENVELOPE_BYTES).unwrap() else {
            unreachable!()
        };
        map.insert(Value::Text("payload".into()), Value::Bytes(forged.payload().to_vec()));
        let forged = Envelope::decode(&encoded(&Value::Map(map))).unwrap();
        assert_eq!(forged.verify_with(&known).unwrap_err(), EnvelopeError::BadSignature(public(&key)));
    }
}

#[test]
fn signatures_are_sorted_distinct_and_not_none() {
    let (uni, lab) = (key(1), key(2));
    let mut issuers = [public(&uni), public(&lab)];
    issuers.sort();
    let draft = Draft::new(issuers, None, ISSUED, &endorsement(RecordId::of(b"x"))).unwrap();
    let sealed = draft.sign(&uni).unwrap().sign(&lab).unwrap().seal();
    let Value::Map(map) = codec::decode_any(&sealed.encode(), MAX_ENVELOPE_BYTES).unwrap() else { unreachable!() };
    let Some(Value::Array(signatures)) = map.get(&Value::Text("signatures".into())).cloned() else { unreachable!() };
    let with = |signatures: Vec<Value>| {
        let mut map = map.clone();
        map.insert(Value::Text("signatures".into()), Value::Array(signatures));
        read_bytes(&encoded(&Value::Map(map)))
    };
    assert!(with(signatures.clone()).is_ok());
    assert!(with(vec![signatures[0].clone()]).is_ok());
    assert_eq!(with(vec![]).unwrap_err(), EnvelopeError::Signatures);
    assert_eq!(with(signatures.iter().rev().cloned().collect()).unwrap_err(), EnvelopeError::Signatures);
    assert_eq!(with(vec![signatures[0].clone(), signatures[0].clone()]).unwrap_err(), EnvelopeError::Signatures);
    assert!(matches!(with(vec![signatures[0].clone(); 17]).unwrap_err(), EnvelopeError::Codec(_)));
}

#[test]
fn issuers_are_sorted_distinct_and_not_none() {
    let (uni, lab) = (key(1), key(2));
    let mut keys = [public(&uni), public(&lab)];
    keys.sort();
    let with = |issuers: &[PublicKey]| {
        let issuers = Value::Array(issuers.iter().map(|key| Value::Bytes(key.0.to_vec())).collect());
        let payload = payload(1, "hologram", public(&uni), &[("body", Value::Null), ("issuers", issuers)]);
        read_bytes(&encoded(&wire(&payload, &[sign(&uni, &payload)])))
    };
    assert!(with(&keys).is_ok());
    assert_eq!(with(&[]).unwrap_err(), EnvelopeError::Issuers);
    assert_eq!(with(&[keys[1], keys[0]]).unwrap_err(), EnvelopeError::Issuers);
    assert_eq!(with(&[public(&uni), public(&uni)]).unwrap_err(), EnvelopeError::Issuers);
    assert!(matches!(with(&vec![public(&uni); 17]).unwrap_err(), EnvelopeError::Codec(_)));
    assert!(matches!(Draft::from_payload(vec![0], vec![]), Err(EnvelopeError::Issuers)));
}

#[test]
fn keys_of_small_order_sign_nothing() {
    // The eight points of small order (Chalkias, Garillot, Nikolaenko, 'Taming the many EdDSAs', 2020), with R of small
    // order and S = 0: a verifier that is not strict accepts such signatures for some or all messages.
    let small_order = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for key in small_order {
        let key = PublicKey(data_encoding::HEXLOWER.decode(key.as_bytes()).unwrap().try_into().unwrap());
        let payload = payload(1, "hologram", key, &[("body", Value::Null)]);
        for r in small_order {
            let mut signature = data_encoding::HEXLOWER.decode(r.as_bytes()).unwrap();
            signature.resize(64, 0);
            let envelope = wire(&payload, &[(key, signature)]);
            assert_eq!(read_bytes(&encoded(&envelope)).unwrap_err(), EnvelopeError::BadSignature(key));
        }
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let uni = key(1);
    let filled = |filler: usize| payload(1, "hologram", public(&uni), &[("body", Value::Bytes(vec![0; filler]))]);
    let overhead = filled(1_000).len() - 1_000;
    let largest = filled(MAX_PAYLOAD_BYTES - overhead);
    assert_eq!(largest.len(), MAX_PAYLOAD_BYTES);
    assert!(read(&seal_payload(largest.clone(), &uni)).is_ok());
    let larger = filled(MAX_PAYLOAD_BYTES - overhead + 1);
    let refused = |error: EnvelopeError| matches!(error, EnvelopeError::Codec(CodecError::TooLarge { .. }));
    assert!(refused(Draft::from_payload(larger.clone(), vec![public(&uni)]).unwrap_err()));
    assert!(refused(read_bytes(&encoded(&wire(&larger, &[sign(&uni, &larger)]))).unwrap_err()));
    assert!(refused(read_bytes(&vec![0; MAX_ENVELOPE_BYTES + 1]).unwrap_err()));
    // The largest payload with as many signatures as there can be still fits.
    let keys: Vec<_> = (1..=16).map(key).collect();
    let issuers: BTreeSet<_> = keys.iter().map(public).collect();
    let issuers = Value::Array(issuers.iter().map(|key| Value::Bytes(key.0.to_vec())).collect());
    let filled = |filler: usize| {
        let beside = [("body", Value::Bytes(vec![0; filler])), ("issuers", issuers.clone())];
        payload(1, "hologram", public(&uni), &beside)
    };
    let overhead = filled(1_000).len() - 1_000;
    let payload = filled(MAX_PAYLOAD_BYTES - overhead);
    let mut signatures: Vec<_> = keys.iter().map(|key| sign(key, &payload)).collect();
    signatures.sort();
    let bytes = encoded(&wire(&payload, &signatures));
    assert!(bytes.len() <= MAX_ENVELOPE_BYTES, "{}", bytes.len());
    assert_eq!(read_bytes(&bytes).unwrap().signers().count(), 16);
}

/// 15,000 maps of one entry fit a payload, and took 45 MB of memory to read.
#[test]
fn a_record_of_countless_tiny_values_is_refused_before_it_is_read() {
    let uni = key(1);
    let tiny = Value::Map([(Value::Integer(0), Value::Integer(0))].into_iter().collect());
    let of = |maps: usize| {
        let body = Value::Array(vec![tiny.clone(); maps]);
        seal_payload(payload(1, "hologram", public(&uni), &[("body", body)]), &uni)
    };
    let too_many = EnvelopeError::Codec(CodecError::TooManyValues { max: codec::MAX_VALUES });
    assert_eq!(read(&of(15_000)).unwrap_err(), too_many);
    // The payload's map, five names and values, the issuer and the list itself are counted, too.
    let most = (codec::MAX_VALUES - 12) / 3;
    assert!(read(&of(most)).is_ok());
    assert_eq!(read(&of(most + 1)).unwrap_err(), too_many);
}

/// No record that there is comes near the bound.
#[test]
fn the_largest_release_has_room_to_spare() {
    let uni = key(1);
    let publisher = public(&uni);
    let mut release = cases::full_release(publisher);
    let ids = |count: usize| (0..count).map(|n| RecordId::of(&n.to_be_bytes())).collect::<Vec<_>>();
    let input = release.context.inputs().next().map(|(_, input)| input.clone()).unwrap();
    let inputs = (0..64).map(|n| (Name::try_from(format!("input-{n}")).unwrap(), input.clone()));
    release.context = ContextSchema::try_from(inputs.collect::<BTreeMap<_, _>>()).unwrap();
    release.disks = List::try_from(vec![release.disks[0].clone(); 8]).unwrap();
    release.components = List::try_from(ids(64)).unwrap();
    release.supersedes = List::try_from(ids(16)).unwrap();
    release.tags = List::try_from(vec![Name::try_from("tag").unwrap(); 16]).unwrap();
    let envelope = seal(&[&uni], &[&uni], None, &Body::Release(Box::new(release)));
    assert!(read(&envelope).unwrap().body.release().is_some());
    let Value::Map(map) = codec::decode_any(&envelope.encode(), MAX_ENVELOPE_BYTES).unwrap() else { unreachable!() };
    let Value::Bytes(payload) = &map[&Value::Text("payload".into())] else { unreachable!() };
    let values = count(&codec::decode_any(payload, MAX_PAYLOAD_BYTES).unwrap());
    assert!((900..codec::MAX_VALUES / 3).contains(&values), "{values}");
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Map(pairs) => pairs.iter().map(|(key, value)| count(key) + count(value)).sum(),
        _ => 0,
    }
}

#[test]
fn another_encoding_of_the_same_is_refused() {
    let (uni, body) = small();
    let good = seal(&[&uni], &[&uni], None, &body).encode();
    assert!(read_bytes(&good).is_ok());
    // Bytes after the end.
    assert!(read_bytes(&[good.as_slice(), &[0]].concat()).is_err());
    // A longer head for the same map, and an indefinite one.
    assert!(read_bytes(&[&[0xb8, 3], &good[1..]].concat()).is_err());
    assert!(read_bytes(&[&[0xbf], &good[1..], &[0xff]].concat()).is_err());
    // serde_cbor would read an envelope from an array, and from numbered fields.
    let Value::Map(map) = codec::decode_any(&good, MAX_ENVELOPE_BYTES).unwrap() else { unreachable!() };
    let field = |name: &str| map.get(&Value::Text(name.into())).unwrap().clone();
    let array = Value::Array(vec![field("v"), field("payload"), field("signatures")]);
    assert!(matches!(read_bytes(&encoded(&array)), Err(EnvelopeError::Codec(CodecError::Form(_)))));
    let numbered = ["v", "payload", "signatures"].into_iter().enumerate();
    let numbered = Value::Map(numbered.map(|(n, name)| (Value::Integer(n as i128), field(name))).collect());
    assert!(matches!(read_bytes(&encoded(&numbered)), Err(EnvelopeError::Codec(CodecError::Form(_)))));
    // An unknown field.
    let mut more = map.clone();
    more.insert(Value::Text("x".into()), Value::Null);
    assert!(matches!(read_bytes(&encoded(&Value::Map(more))), Err(EnvelopeError::Codec(CodecError::Form(_)))));
    // Another envelope version.
    let mut newer = map.clone();
    newer.insert(Value::Text("v".into()), Value::Integer(2));
    assert_eq!(read_bytes(&encoded(&Value::Map(newer))).unwrap_err(), EnvelopeError::EnvelopeVersion(2));
}

#[test]
fn a_body_in_another_form_says_nothing_to_us() {
    let uni = key(1);
    let subject = Value::Bytes(RecordId::of(b"x").to_bytes());
    let with = |body: Value| {
        let payload = payload(1, "endorsement", public(&uni), &[("body", body)]);
        read(&seal_payload(payload, &uni)).unwrap().body.clone()
    };
    let map = |fields: &[(&str, Value)]| {
        Value::Map(fields.iter().map(|(name, value)| (Value::Text((*name).into()), value.clone())).collect())
    };
    let native = map(&[("form", Value::Text("native".into()))]);
    let good = [("subject", subject.clone()), ("predicate", Value::Text("https://x".into())), ("body", native.clone())];
    assert!(matches!(with(map(&good)), Body::Endorsement(_)));
    let array = Value::Array(vec![subject.clone(), Value::Text("https://x".into()), native.clone(), Value::Null]);
    let as_text = Value::Text(RecordId::of(b"x").to_string());
    for other in [
        Value::Null,
        array,
        map(&good[..2]),
        map(&[&good[..], &[("more", Value::Null)]].concat()),
        map(&[&good[..], &[("expires", Value::Null)]].concat()),
        map(&[&good[..], &[("subject", as_text)]].concat()),
        map(&[&good[..], &[("subject", Value::Bytes(vec![0; 36]))]].concat()),
    ] {
        assert_eq!(with(other.clone()), Body::Opaque, "{other:?}");
    }
}

#[test]
fn a_record_of_a_kind_or_version_to_come_is_relayed_as_it_is() {
    let uni = key(1);
    for payload in [
        payload(1, "hologram", public(&uni), &[("body", Value::Null)]),
        payload(2, "release", public(&uni), &[("body", Value::Null), ("witness", Value::Array(vec![]))]),
        payload(9, "hologram", public(&uni), &[]),
    ] {
        let envelope = seal_payload(payload, &uni);
        let record = read(&envelope).unwrap();
        assert_eq!(record.body, Body::Opaque);
        assert_eq!(record.envelope().encode(), envelope.encode());
        assert!(record.is_signed_by(&public(&uni)));
    }
    // But the header is the same for ever.
    let nameless = payload(1, "No Name!", public(&uni), &[("body", Value::Null)]);
    assert!(matches!(read(&seal_payload(nameless, &uni)), Err(EnvelopeError::Kind(_))));
    let beside = payload(1, "hologram", public(&uni), &[("body", Value::Null), ("witness", Value::Null)]);
    assert!(matches!(read(&seal_payload(beside, &uni)), Err(EnvelopeError::Codec(_))));
    let null = payload(2, "hologram", public(&uni), &[("federation", Value::Null)]);
    assert!(matches!(read(&seal_payload(null, &uni)), Err(EnvelopeError::Codec(_))));
    let array = encoded(&Value::Array(vec![Value::Integer(2)]));
    assert!(matches!(read(&seal_payload(array, &uni)), Err(EnvelopeError::Codec(_))));
}

#[test]
fn revocations_name_their_federation_and_releases_do_not() {
    let (uni, body) = small();
    let revocation = revocation(RevocationSubject::Key(public(&uni)));
    let is_refused = |federation, body: &Body| {
        matches!(read(&seal(&[&uni], &[&uni], federation, body)), Err(EnvelopeError::Federation { .. }))
    };
    assert!(!is_refused(None, &body));
    assert!(is_refused(Some(federation()), &body));
    assert!(is_refused(Some(federation()), &endorsement(RecordId::of(b"x"))));
    assert!(is_refused(None, &revocation));
    assert!(!is_refused(Some(federation()), &revocation));
}

/// Nodes that do not know these kinds relay whatever is well signed: a node that does must not take them for liars.
#[test]
fn a_later_kind_in_the_wrong_federation_says_nothing_and_splits_nobody() {
    let uni = key(1);
    let subject = RecordId::of(b"x");
    for (body, is_of_a_federation) in [
        (channel(public(&uni), 0, 1, subject), true),
        (delegation(public(&uni), &[&key(2), &key(3)]), true),
        (advisory(), false),
        (recipe(public(&uni)), false),
        (component(public(&uni)), false),
    ] {
        assert_eq!(body.belongs_to_a_federation(), Some(is_of_a_federation));
        for named in [true, false] {
            let record = read(&seal(&[&uni], &[&uni], named.then(federation), &body)).unwrap();
            assert_eq!(record.body == Body::Opaque, named != is_of_a_federation, "{}", record.header.kind);
        }
    }
}

#[test]
fn a_delegation_that_contradicts_itself_says_nothing_to_us() {
    let (uni, lab) = (key(1), key(2));
    let text = |text: &str| Value::Text(text.into());
    let mut keys = [public(&uni), public(&lab)];
    keys.sort();
    let keys = keys.map(|key| Value::Bytes(key.0.to_vec()));
    let with = |changed: &[(&str, Value)]| {
        let fields = [
            ("publisher", Value::Bytes(public(&uni).0.to_vec())),
            ("role", text("channel")),
            ("keys", Value::Array(keys.to_vec())),
            ("threshold", Value::Integer(2)),
            ("names", Value::Array(vec![text("batch-*")])),
            ("sequence", Value::Integer(1)),
            ("expires", Value::Integer(9)),
        ];
        let fields = fields.iter().chain(changed).map(|(name, value)| (text(name), value.clone()));
        let beside = [("body", Value::Map(fields.collect())), ("federation", text("physics"))];
        read(&seal_payload(payload(1, "delegation", public(&uni), &beside), &uni)).unwrap().body.clone()
    };
    assert!(matches!(with(&[]), Body::Delegation(_)));
    let reversed = Value::Array(keys.iter().rev().cloned().collect());
    for (field, value) in [
        ("keys", Value::Array(vec![])),
        ("keys", reversed),
        ("keys", Value::Array(vec![keys[0].clone(), keys[0].clone()])),
        ("keys", Value::Array(vec![keys[0].clone(); 17])),
        ("threshold", Value::Integer(0)),
        ("threshold", Value::Integer(3)),
        ("threshold", Value::Integer(1 << 40)),
        ("names", Value::Array(vec![])),
        ("names", Value::Array(vec![text("")])),
        ("names", Value::Array(vec![text("Batch-*")])),
        ("names", Value::Array(vec![text("a"); 17])),
        ("sequence", Value::Integer(0)),
        ("role", text("everything")),
        ("more", Value::Null),
    ] {
        assert_eq!(with(&[(field, value.clone())]), Body::Opaque, "{field} = {value:?}");
    }
}

#[test]
fn carriers_are_bounded() {
    let uni = public(&key(1));
    let Body::Recipe(mut recipe) = recipe(uni) else { unreachable!() };
    let longest = "x".repeat(rialto_protocol::record::MAX_INLINE_BYTES);
    recipe.source = Source::Inline(longest.as_str().try_into().unwrap());
    let body = Body::Recipe(recipe);
    assert_eq!(read(&seal(&[&key(1)], &[&key(1)], None, &body)).unwrap().body, body);
    assert!(
        rialto_protocol::bounded::Text::<{ rialto_protocol::record::MAX_INLINE_BYTES }>::try_from(longest + "x")
            .is_err()
    );
}

#[test]
fn envelopes_of_different_records_do_not_merge() {
    let (uni, body) = small();
    let one = read(&seal(&[&uni], &[&uni], None, &body)).unwrap();
    let other = read(&seal(&[&uni], &[&uni], None, &endorsement(RecordId::of(b"x")))).unwrap();
    assert_eq!(one.merge(&other).unwrap_err(), EnvelopeError::OtherPayload);
}

/// One record, signed by the keys whose bits are set.
fn signed_by(bits: u8) -> Verified<Record> {
    let keys: Vec<_> = (1..=5).map(key).collect();
    let all: Vec<_> = keys.iter().collect();
    let some: Vec<_> = keys.iter().enumerate().filter(|(n, _)| bits & (1 << n) != 0).map(|(_, key)| key).collect();
    seal(&all, &some, None, &endorsement(RecordId::of(b"x"))).verify().unwrap()
}

fn union(one: &Verified<Record>, other: &Verified<Record>) -> Verified<Record> {
    one.merge(other).unwrap().unwrap_or_else(|| one.clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn merging_is_the_union_of_signers(a in 1u8..32, b in 1u8..32, c in 1u8..32) {
        let (x, y, z) = (signed_by(a), signed_by(b), signed_by(c));
        let merged = union(&x, &y);
        prop_assert_eq!(merged.envelope().clone(), signed_by(a | b).envelope().clone());
        prop_assert_eq!(merged.envelope().clone(), union(&y, &x).envelope().clone());
        prop_assert_eq!(merged.sync_id(), signed_by(a | b).sync_id());
        prop_assert_eq!(union(&merged, &z).envelope().clone(), union(&x, &union(&y, &z)).envelope().clone());
        prop_assert!(x.merge(&x).unwrap().is_none());
        prop_assert_eq!(x.merge(&y).unwrap().is_none(), a | b == a);
        prop_assert_eq!(x.sync_id() == y.sync_id(), a == b);
        // What was merged verifies like what was signed together.
        prop_assert!(read(merged.envelope()).is_ok());
    }

    #[test]
    fn random_bytes_are_refused_or_come_back(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(envelope) = Envelope::decode(&bytes) {
            prop_assert_eq!(envelope.encode(), bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_mutated_envelope_is_refused_or_comes_back(
        which in 0usize..14, mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (_, envelope) = golden().swap_remove(which);
        let original = envelope.encode();
        let mut bytes = original.clone();
        for (at, byte) in mutations {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(decoded) = Envelope::decode(&bytes) {
            prop_assert_eq!(decoded.encode(), bytes.clone());
            // Every bit of payload and signature is covered: nothing but the original verifies.
            prop_assert_eq!(decoded.verify().is_ok(), bytes == original);
        }
    }

    #[test]
    fn a_payload_of_any_form_is_refused_or_opaque_but_never_a_panic(
        v in 0u64..3,
        kind in prop::sample::select(vec![
            "release", "endorsement", "revocation", "channel", "delegation", "advisory", "recipe", "component", "", "A",
        ]),
        body in prop::collection::vec(any::<u8>(), 0..40), federation in prop::option::of(".{0,70}"),
    ) {
        let uni = key(1);
        let body = codec::decode_any(&body, 40).unwrap_or(Value::Bytes(body));
        let mut beside = vec![("body", body)];
        beside.extend(federation.map(|name| ("federation", Value::Text(name))));
        let envelope = seal_payload(payload(v, kind, public(&uni), &beside), &uni);
        if let Ok(record) = read(&envelope) {
            prop_assert_eq!(&record.body, &Body::Opaque);
            prop_assert_eq!(record.id, envelope.id());
        }
    }
}
