//! Peers that send more than their share: what is beyond it is passed over, and shown, and the others have theirs.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use rialto_protocol::codec::{self, Value};
use rialto_protocol::ids::PublicKey;
use rialto_protocol::signed::Draft;
use rialto_testnet::site::{SOON, Site};
use rialto_testnet::wait::eventually;
use rialto_tests::held::noise;
use rialto_tests::hostile::{Hostile, Part, run};
use rialto_tests::scene::{Scene, goes_on, hostile};

use super::records::{now, two_sites};

/// Goes on with `more` until the site shows that this peer takes more than its share, and why.
fn until_it_is_too_much(site: &Site, peer: &Hostile, why: &str, mut more: impl FnMut()) {
    let bans = eventually(SOON, "that it is too much", || {
        more();
        let bans = site.json(&["peers", "bans"]).map_err(|error| error.to_string())?;
        if bans[0]["offence"] == "too-much" { Ok(bans) } else { Err(bans.to_string()) }
    })
    .expect("it is shown");
    assert_eq!(bans[0]["peer_id"], peer.peer_id(), "{bans}");
    assert!(bans[0]["why"].as_str().is_some_and(|said| said.contains(why)), "{bans}");
}

/// What the honest site says is heard, and both go on.
fn an_honest_site_is_heard(scene: &Scene, honest: &Site, site: &mut Site) {
    let advisory = ["--id", "DSA-1", "--severity", "low", "--ecosystem", "debian-12", "--package", "openssl"];
    honest.json(&[&["advisory", "publish", "--key", "releases"], &advisory[..]].concat()).expect("an advisory");
    let listed = ["advisory", "ls", "--strangers"];
    site.until(SOON, "the honest advisory", &listed, |known| known[0]["id"] == "DSA-1").expect("it arrives");
    goes_on(site, scene);
}

/// A record of 45 kB that nodes take and pass on, of a kind that is still to come.
fn large_record(number: u64) -> Vec<u8> {
    let signer = SigningKey::from_bytes(&[1; 32]);
    let public = PublicKey(signer.verifying_key().to_bytes());
    let fields = [
        ("v", Value::Integer(1)),
        ("kind", Value::Text("poem".into())),
        ("issuers", Value::Array(vec![Value::Bytes(public.0.to_vec())])),
        ("issued", Value::Integer(now().into())),
        ("body", Value::Bytes(noise(45_000, number))),
    ];
    let fields: BTreeMap<Value, Value> =
        fields.into_iter().map(|(name, value)| (Value::Text(name.into()), value)).collect();
    let payload = codec::encode(&Value::Map(fields)).expect("a payload");
    let draft = Draft::from_payload(payload, vec![public]).expect("a draft");
    draft.sign(&signer).expect("a signature").seal().encode()
}

#[test]
fn more_gossip_than_a_peers_share_is_passed_over() {
    let scene = Scene::new();
    let (honest, mut site) = two_sites(&scene);
    let peer = hostile(&site);
    let mut number = 0;
    until_it_is_too_much(&site, &peer, "more gossip than its share", || {
        for _ in 0..100 {
            number += 1;
            // Where its own queue is full, it is too fast for itself.
            peer.gossip(large_record(number)).ok();
        }
    });
    // Not one of them was wrong: it is neither refused nor cut off for that.
    assert!(!site.log().contains("a gossiped record is refused"), "{}", site.log());
    an_honest_site_is_heard(&scene, &honest, &mut site);
}

#[test]
fn more_catch_up_sessions_than_a_peers_share_are_closed() {
    let scene = Scene::new();
    let (honest, mut site) = two_sites(&scene);
    let peer = hostile(&site);
    until_it_is_too_much(&site, &peer, "more catch-up sessions than its share", || {
        run(async {
            for _ in 0..50 {
                // Ended before it began, so that there is a seat for the next.
                drop(peer.open(Part::Sync).await);
            }
        });
    });
    an_honest_site_is_heard(&scene, &honest, &mut site);
    // A site that comes new has all of the records.
    let late = scene.site_that_knows("late", &[&site]);
    let listed = ["advisory", "ls", "--strangers"];
    late.until(SOON, "the advisory", &listed, |known| known[0]["id"] == "DSA-1").expect("it catches up");
}
