//! Catch-up with a peer that says rubbish, too much, too little, or nothing.

use futures::AsyncReadExt as _;
use rialto_protocol::sync::{Initiator, Message, ShortId, SyncSet};
use rialto_testnet::site::{SOON, Site};
use rialto_tests::held::noise;
use rialto_tests::hostile::{Hostile, Part, Talk, run};
use rialto_tests::scene::{Scene, goes_on, hostile, records};
use serde_json::Value;

/// A message of a sync stream, its length before it.
fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_be_bytes()[..], message].concat()
}

/// Streams that the peer opens to the node and says this on.
fn streams(peer: &Hostile, count: usize, bytes: &[u8]) -> Vec<Talk> {
    run(async {
        let mut open = Vec::new();
        for _ in 0..count {
            let mut talk = peer.open(Part::Sync).await.expect("a stream");
            // The node may have ended it already: it has as many as it wants.
            talk.send(bytes).await.ok();
            open.push(talk);
        }
        open
    })
}

/// A site that has one record, made there.
fn site_with_a_record(scene: &Scene) -> Site {
    let site = scene.site("uni");
    let public = site.new_key("releases").expect("a key");
    site.json(&["revoke", &public, "--key", "releases", "--reason", "a test"]).expect("a record");
    assert_eq!(records(&site), 1);
    site
}

/// Another site comes, and soon has all that this one has.
fn an_honest_site_catches_up(scene: &Scene, site: &mut Site) {
    let late = scene.site_that_knows("late", &[site]);
    late.until(SOON, "the record", &["status"], |status| status["records"] == 1).expect("it catches up");
    assert_eq!(records(site), 1);
    goes_on(site, scene);
}

/// Whether the node answers a peer that begins a session as it should.
fn is_answered(peer: &Hostile) -> bool {
    let first = Initiator::new(SyncSet::default()).next_message(|_| None).expect("its first message");
    run(async {
        let Ok(mut talk) = peer.open(Part::Sync).await else { return false };
        talk.send(&framed(&first.encode())).await.is_ok() && talk.0.read_exact(&mut [0; 4]).await.is_ok()
    })
}

#[test]
fn garbage_on_a_sync_stream_ends_that_stream_and_keeps_its_sender_out_until_it_is_forgiven() {
    let scene = Scene::new();
    let mut site = site_with_a_record(&scene);
    let peer = hostile(&site);
    let garbage = [
        framed(&noise(500, 1)),
        framed(&[]),
        framed(&[9]),
        framed(&Message::Records { envelopes: vec![noise(1000, 2)], is_last: true }.encode()),
        framed(&Message::Reconcile(noise(1000, 3)).encode()),
        framed(&Message::Want(vec![]).encode()),
        framed(&Message::Offer(vec![ShortId([1; 16]); 1000]).encode()),
    ];
    for bytes in &garbage {
        let mut talks = streams(&peer, 1, bytes);
        // An honest node ends the stream; reading on would otherwise never end.
        run(async { talks.remove(0).until_closed().await });
        let is_kept_away = |bans: &Value| bans[0]["offence"] == "catch-up" && bans[0]["peer_id"] == peer.peer_id();
        site.until(SOON, "that it is kept away", &["peers", "bans"], is_kept_away).expect("it is");
        assert!(!is_answered(&peer), "neither side of it is listened to");
        site.json(&["peers", "lift", &peer.peer_id()]).expect("it is forgiven");
        assert!(is_answered(&peer));
    }
    // The same as an answer, when the node comes to catch up with the peer.
    peer.on(Part::Sync, move |mut talk| {
        let garbage = garbage[0].clone();
        async move {
            talk.send(&garbage).await.ok();
            talk.until_closed().await;
        }
    });
    an_honest_site_catches_up(&scene, &mut site);
}

#[test]
fn a_peer_that_is_silent_on_many_sync_streams_keeps_nobody_out() {
    let scene = Scene::new();
    let mut site = site_with_a_record(&scene);
    let peer = hostile(&site);
    let _silent = streams(&peer, 60, &[]);
    an_honest_site_catches_up(&scene, &mut site);
}

#[test]
fn a_sync_session_that_never_finishes_keeps_nobody_out() {
    let scene = Scene::new();
    let mut site = site_with_a_record(&scene);
    let peer = hostile(&site);
    // A message begun and never ended, on one side; a message after the other, on the other.
    let _begun = streams(&peer, 20, &[0, 0, 0xff, 0xff, 1, 2, 3]);
    let empty_step = framed(&Message::Reconcile(vec![0x61]).encode());
    let _asking = streams(&peer, 20, &empty_step);
    peer.on(Part::Sync, move |mut talk| {
        let empty_step = empty_step.clone();
        async move { while talk.send(&empty_step).await.is_ok() {} }
    });
    an_honest_site_catches_up(&scene, &mut site);
}
