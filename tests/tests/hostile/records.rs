//! Records by gossip that are no records, or not whose they claim to be.

use std::time::{SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use rialto_protocol::bounded::{Name, Text};
use rialto_protocol::codec::{self, Value};
use rialto_protocol::ids::{Hash, PublicKey, RecordId};
use rialto_protocol::record::{Body, Endorsement, EndorsementBody, Revocation, RevocationSubject};
use rialto_protocol::signed::{Draft, Envelope, MAX_ENVELOPE_BYTES};
use rialto_testnet::site::{SOON, Site};
use rialto_tests::scene::{Scene, goes_on, hostile, logged, records};
use rialto_tests::stage::FEDERATION;

/// A signer that no policy names, one for each number.
fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
}

fn federation() -> Name {
    Name::try_from(FEDERATION).expect("a name")
}

fn endorsement(note: &str) -> Body {
    Body::Endorsement(Endorsement {
        subject: RecordId::from_hash(Hash::of(note.as_bytes())),
        predicate: Text::try_from("https://rialto.example/predicate/tested/v1".to_owned()).expect("a predicate"),
        body: EndorsementBody::Native { note: Some(Text::try_from(note.to_owned()).expect("a note")) },
        expires: None,
    })
}

fn revocation(of: &SigningKey) -> Body {
    let reason = Text::try_from("lost".to_owned()).expect("a reason");
    Body::Revocation(Revocation { subject: RevocationSubject::Key(public(of)), reason })
}

/// A record that any node takes, and its bytes.
fn good(signer: &SigningKey, note: &str) -> Envelope {
    let draft = Draft::new([public(signer)], None, now(), &endorsement(note)).expect("a draft");
    draft.sign(signer).expect("a signature").seal()
}

/// The parts of an envelope, to be put together wrongly.
struct Parts {
    payload: Vec<u8>,
    key: Vec<u8>,
    signature: Vec<u8>,
}

impl Parts {
    fn of(envelope: &Envelope) -> Self {
        let Value::Map(fields) = codec::decode_any(&envelope.encode(), MAX_ENVELOPE_BYTES).expect("an envelope") else {
            panic!("an envelope is a map")
        };
        let bytes = |value: &Value| match value {
            Value::Bytes(bytes) => bytes.clone(),
            other => panic!("bytes where {other:?} is"),
        };
        let Value::Array(signatures) = &fields[&Value::Text("signatures".into())] else { panic!("signatures") };
        let Value::Map(signature) = &signatures[0] else { panic!("a signature") };
        Self {
            payload: bytes(&fields[&Value::Text("payload".into())]),
            key: bytes(&signature[&Value::Text("key".into())]),
            signature: bytes(&signature[&Value::Text("signature".into())]),
        }
    }

    fn together(self) -> Vec<u8> {
        let text = |text: &str| Value::Text(text.into());
        let signature =
            [(text("key"), Value::Bytes(self.key)), (text("signature"), Value::Bytes(self.signature))].into();
        let envelope = [
            (text("v"), Value::Integer(1)),
            (text("payload"), Value::Bytes(self.payload)),
            (text("signatures"), Value::Array(vec![Value::Map(signature)])),
        ];
        codec::encode(&Value::Map(envelope.into())).expect("an envelope")
    }

    /// The payload with `change` made to its fields.
    fn changed(&self, change: impl FnOnce(&mut std::collections::BTreeMap<Value, Value>)) -> Vec<u8> {
        let Value::Map(mut fields) = codec::decode_any(&self.payload, MAX_ENVELOPE_BYTES).expect("a payload") else {
            panic!("a payload is a map")
        };
        change(&mut fields);
        codec::encode(&Value::Map(fields)).expect("a payload")
    }
}

fn set_kind(kind: &str) -> impl FnOnce(&mut std::collections::BTreeMap<Value, Value>) {
    move |fields| drop(fields.insert(Value::Text("kind".into()), Value::Text(kind.into())))
}

/// A site, and an honest one beside it whose records must always arrive.
pub(super) fn two_sites(scene: &Scene) -> (Site, Site) {
    let honest = scene.site("uni");
    honest.new_key("releases").expect("a key");
    let site = scene.site_that_knows("shop", &[&honest]);
    (honest, site)
}

/// The honest site says something, and the other hears of it.
fn honest_record_arrives(honest: &Site, site: &Site, before: u64) {
    let subject = public(&key(100 + before as u8)).to_string();
    honest.json(&["revoke", &subject, "--key", "releases", "--reason", "a test"]).expect("a revocation");
    let what = "the honest record, and no other";
    let seen = site.until(SOON, what, &["status"], |status| status["records"].as_u64() > Some(before));
    assert_eq!(seen.expect("the record arrives")["records"], before + 1);
}

/// Each of these comes from a peer of its own, is refused with a warning that says why, and leaves nothing behind.
fn refused(cases: Vec<(&str, Vec<u8>, &str)>) {
    let scene = Scene::new();
    let (honest, mut site) = two_sites(&scene);
    for (what, bytes, why) in cases {
        let peer = hostile(&site);
        peer.gossip(bytes).unwrap_or_else(|error| panic!("{what} cannot be sent: {error}"));
        logged(&site, &["WARN", "a gossiped record is refused", &peer.peer_id(), why]);
        assert_eq!(records(&site), 0, "{what} was stored");
    }
    honest_record_arrives(&honest, &site, 0);
    goes_on(&mut site, &scene);
}

#[test]
fn malformed_records_are_refused() {
    refused(vec![
        ("noise", rialto_tests::held::noise(2000, 1), "malformed record"),
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec(), "malformed record"),
        ("a cut-off record", good(&key(1), "cut").encode()[..100].to_vec(), "malformed record"),
        ("a map of nothing", vec![0xa0], "malformed record"),
    ]);
}

#[test]
fn non_canonical_records_are_refused() {
    let envelope = good(&key(1), "canonical").encode();
    assert_eq!(envelope[..4], [0xa3, 0x61, b'v', 0x01]);
    let long_integer = [&envelope[..3], &[0x18, 0x01], &envelope[4..]].concat();
    let trailing = [&envelope[..], &[0]].concat();
    // A good signature does not make it better.
    let payload = Parts::of(&good(&key(2), "inside")).payload;
    let payload = [&[0xb8, payload[0] & 0x1f], &payload[1..]].concat();
    let inside = Draft::from_payload(payload, vec![public(&key(2))]).and_then(|draft| draft.sign(&key(2)));
    refused(vec![
        ("an integer longer than it must be", long_integer, "not canonical CBOR"),
        ("a byte after the end", trailing, "not canonical CBOR"),
        ("a payload that is not canonical", inside.expect("signed").seal().encode(), "not canonical CBOR"),
    ]);
}

#[test]
fn mis_signed_records_are_refused() {
    let mut flipped = Parts::of(&good(&key(1), "flipped"));
    flipped.signature[7] ^= 1;
    let stranger = {
        let (mut record, other) = (Parts::of(&good(&key(2), "whose")), Parts::of(&good(&key(3), "other")));
        (record.key, record.signature) = (other.key, other.signature);
        record
    };
    let mut copied = Parts::of(&good(&key(4), "a signature's own record"));
    copied.payload = Parts::of(&good(&key(4), "a record of the same signer")).payload;
    refused(vec![
        ("a flipped bit", flipped.together(), "does not verify"),
        ("the signature of somebody who is no issuer", stranger.together(), "not among the record's issuers"),
        ("a signature of another record", copied.together(), "does not verify"),
    ]);
}

#[test]
fn cross_kind_records_are_refused_and_mean_nothing() {
    let as_other_kind = {
        let mut parts = Parts::of(&good(&key(1), "an endorsement"));
        parts.payload = parts.changed(set_kind("release"));
        parts.together()
    };
    let homeless = Draft::new([public(&key(2))], None, now(), &revocation(&key(2)));
    let homeless = homeless.and_then(|draft| draft.sign(&key(2))).expect("signed").seal();
    refused(vec![
        ("an endorsement that calls itself a release", as_other_kind, "does not verify"),
        ("a revocation of no federation", homeless.encode(), "does not name its federation"),
    ]);

    // Well signed, it is a form that a later version may know: kept and relayed, and without effect.
    let scene = Scene::new();
    let site = scene.site("shop");
    let revoked = Draft::new([public(&key(3))], Some(federation()), now(), &revocation(&key(3)));
    let parts = Parts::of(&revoked.and_then(|draft| draft.sign(&key(3))).expect("signed").seal());
    let payload = parts.changed(set_kind("release"));
    let odd = Draft::from_payload(payload, vec![public(&key(3))]).and_then(|draft| draft.sign(&key(3)));
    let peer = hostile(&site);
    peer.gossip(odd.expect("signed").seal().encode()).expect("it can be sent");
    site.until(SOON, "the opaque record", &["status"], |status| status["records"] == 1).expect("it is kept");
    let found = site.json(&["search"]).expect("a search");
    assert_eq!(found["releases"].as_array().or(found.as_array()).map(Vec::len), Some(0), "{found}");
}

#[test]
fn replayed_records_are_stored_once() {
    let scene = Scene::new();
    let (honest, mut site) = two_sites(&scene);
    let record = good(&key(1), "said once").encode();
    let (first, second) = (hostile(&site), hostile(&site));
    first.gossip(record.clone()).expect("it can be sent");
    site.until(SOON, "the record", &["status"], |status| status["records"] == 1).expect("it is stored");
    for _ in 0..20 {
        second.gossip(record.clone()).ok();
        first.gossip(record.clone()).ok();
    }
    honest_record_arrives(&honest, &site, 1);
    // To say a thing twice is no offence: both are still listened to.
    for (number, peer) in [(2, &first), (3, &second)] {
        peer.gossip(good(&key(number), "news").encode()).expect("it can be sent");
        let what = "a record of a peer that repeated itself";
        site.until(SOON, what, &["status"], |status| status["records"] == u64::from(number) + 1).expect(what);
    }
    assert!(!site.log().contains("a gossiped record is refused"), "{}", site.log());
    goes_on(&mut site, &scene);
}

#[test]
fn what_a_peer_did_wrong_is_shown_and_can_be_forgiven() {
    let scene = Scene::new();
    let site = scene.site("uni");
    let peer = hostile(&site);
    let mut bad = Parts::of(&good(&key(1), "x"));
    bad.signature[0] ^= 1;
    peer.gossip(bad.together()).expect("it is gossiped");
    let is_shown = |bans: &serde_json::Value| bans[0]["peer_id"] == peer.peer_id().as_str();
    let bans = site.until(SOON, "what it did", &["peers", "bans"], is_shown).expect("a ban");
    assert_eq!((&bans[0]["offence"], &bans[0]["times"]), (&"gossip".into(), &1.into()), "{bans}");
    assert!(bans[0]["why"].as_str().is_some_and(|why| why.contains("signature")), "{bans}");
    let peers = site.json(&["peers"]).expect("peers");
    assert_eq!(peers[0]["bans"], bans, "{peers}");
    let seen = site.rialto(&["peers"]).expect("peers").stdout;
    assert!(seen.contains("kept away from") && seen.contains("gossip"), "{seen}");
    let lifted = site.json(&["peers", "lift", &peer.peer_id()]).expect("it is forgiven");
    assert_eq!(lifted["lifted"], 1);
    assert_eq!(site.json(&["peers", "bans"]).expect("bans"), serde_json::json!([]));
    site.refused(&["peers", "lift", "nobody"], 2).expect("that is no peer");
}

#[test]
fn a_peer_that_gossips_rubbish_is_not_listened_to_any_more() {
    let scene = Scene::new();
    let (honest, mut site) = two_sites(&scene);
    let peer = hostile(&site);
    peer.gossip(good(&key(1), "a good beginning").encode()).expect("it can be sent");
    site.until(SOON, "its good record", &["status"], |status| status["records"] == 1).expect("it is stored");
    for number in 0..5 {
        peer.gossip(rialto_tests::held::noise(500, number)).ok();
    }
    let refusals = || site.log().matches("a gossiped record is refused").count();
    rialto_testnet::wait::eventually(SOON, "three refusals", || match refusals() {
        0..3 => Err(refusals()),
        _ => Ok(()),
    })
    .expect("they are refused");
    // Good or bad, nothing of it is heard now.
    peer.gossip(good(&key(2), "too late").encode()).ok();
    honest_record_arrives(&honest, &site, 1);
    assert!(refusals() <= 5);
    goes_on(&mut site, &scene);
}
