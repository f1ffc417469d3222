//! Peers that fetch from a node, and ask for too much, take nothing, or say rubbish.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::AsyncReadExt as _;
use rialto_protocol::codec;
use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::swarm::{FrameHead, FrameKind, MAX_WANTED, Message, Ranges};
use rialto_testnet::site::Site;
use rialto_testnet::wait::eventually;
use rialto_tests::held::{Held, noise};
use rialto_tests::hostile::{Part, Talk, run};
use rialto_tests::scene::{Scene, goes_on, hostile, resident_bytes, verify};

/// A site that serves a random image of so many MiB.
fn holder(scene: &Scene, mib: usize) -> (Site, Held) {
    let site = scene.site("uni");
    let image = Held::random(mib << 20, 7);
    let file = scene.file("image", &image.content);
    let added = site.json(&["image", "add", &file]).expect("an image is added");
    assert_eq!(added["image"], image.name().as_str(), "the test cuts images as the node does");
    (site, image)
}

/// An honest site comes and fetches the image.
fn an_honest_site_fetches(scene: &Scene, site: &mut Site, image: &Held) {
    let honest = scene.site_that_knows("honest", &[site]);
    honest.json(&["fetch", &image.name()]).expect("the fetch");
    verify(&honest, &image.name());
    goes_on(site, scene);
}

fn indices(range: std::ops::Range<u32>) -> Ranges {
    Ranges::pieces(range).remove(0)
}

/// A wish for the first so many chunks; that there are as many is nobody's concern.
fn want_of(count: u32) -> Vec<u8> {
    let wish = BTreeMap::from([("chunks", vec![(0, count)])]);
    let payload = codec::encode(&wish).expect("a wish");
    [&FrameHead { kind: FrameKind::Want, length: payload.len() }.encode()[..], &payload].concat()
}

/// A stream on which the node has said what it has of the image.
async fn begun(talk: Result<Talk, String>, image: ImageId) -> Talk {
    let mut talk = talk.expect("a stream");
    talk.say(&Message::Hello { image, bases: Vec::new() }).await.expect("Hello is sent");
    let have = talk.hear().await;
    assert!(matches!(have, Some(Message::Have { is_complete: true, .. })), "{have:?}");
    talk
}

#[test]
fn absurd_wishes_of_a_fetcher_end_its_stream_only() {
    let scene = Scene::new();
    let (mut site, image) = holder(&scene, 4);
    let peer = hostile(&site);
    let before = resident_bytes(&site);
    run(async {
        // As many chunks as there can be: more than a holder keeps in mind.
        for count in [u32::MAX - 1, MAX_WANTED as u32 + 1] {
            let mut talk = begun(peer.open(Part::Swarm).await, image.id).await;
            talk.send(&want_of(count)).await.expect("it can be said");
            assert_eq!(talk.hear().await, None, "the stream ends, and no chunk comes");
        }
        // Chunks and pages that the image does not have are passed over, and the stream goes on.
        let mut talk = begun(peer.open(Part::Swarm).await, image.id).await;
        talk.say(&Message::Want { chunks: indices(1_000_000..1_004_000) }).await.expect("it can be said");
        talk.say(&Message::WantPages { hashes: vec![Hash([1; 32]); 64] }).await.expect("it can be said");
        talk.say(&Message::Want { chunks: indices(0..1) }).await.expect("it can be said");
        let (kind, payload) = talk.frame().await.expect("the one chunk that there is");
        assert_eq!((kind, &payload[5..]), (FrameKind::Chunk, image.chunks[0].as_slice()));
        // The same again and again.
        for _ in 0..200 {
            talk.say(&Message::Want { chunks: indices(0..16) }).await.ok();
        }
        talk.until_idle().await;
    });
    let grown = resident_bytes(&site).saturating_sub(before);
    assert!(grown < 64 << 20, "the node grew by {grown} bytes");
    an_honest_site_fetches(&scene, &mut site, &image);
}

#[test]
fn a_fetcher_that_begins_with_rubbish_is_shown_out() {
    let scene = Scene::new();
    let (mut site, image) = holder(&scene, 4);
    let peer = hostile(&site);
    let unoffered =
        Message::Hello { image: ImageId::of(b"no such image"), bases: Vec::new() }.frame().expect("a frame");
    let endless = FrameHead { kind: FrameKind::Hello, length: u32::MAX as usize }.encode();
    let not_hello = Message::Want { chunks: indices(0..1) }.frame().expect("a frame");
    let a_chunk = [&FrameHead { kind: FrameKind::Chunk, length: 100 }.encode()[..], &[0; 100]].concat();
    run(async {
        for rubbish in [noise(1000, 1), endless.to_vec(), not_hello, a_chunk, vec![1, 0, 0, 0, 3, 0xff, 0xff, 0xff]] {
            let mut talk = peer.open(Part::Swarm).await.expect("a stream");
            talk.send(&rubbish).await.ok();
            assert_eq!(talk.hear().await, None, "the stream ends without a word");
        }
        let mut talk = peer.open(Part::Swarm).await.expect("a stream");
        talk.send(&unoffered).await.expect("it can be said");
        assert_eq!(talk.hear().await, Some(Message::Absent));
        // What only holders say, after a good beginning.
        let mut talk = begun(peer.open(Part::Swarm).await, image.id).await;
        talk.claim_everything().await.ok();
        assert_eq!(talk.hear().await, None);
    });
    an_honest_site_fetches(&scene, &mut site, &image);
}

#[test]
fn fetchers_that_never_read_do_not_fill_the_memory() {
    let scene = Scene::new();
    let (mut site, image) = holder(&scene, 32);
    let peer = hostile(&site);
    let pages: Vec<Hash> = image.pages.keys().copied().cycle().take(64).collect();
    let before = resident_bytes(&site);
    let talks = run(async {
        let mut talks = Vec::new();
        for _ in 0..12 {
            let mut talk = begun(peer.open(Part::Swarm).await, image.id).await;
            talk.say(&Message::Want { chunks: indices(0..image.chunks.len() as u32) }).await.expect("it can be said");
            // As much more as the node will listen to while it waits.
            let wishes = async {
                for _ in 0..100 {
                    let more = Message::WantPages { hashes: pages.clone() };
                    if talk.say(&more).await.is_err() {
                        break;
                    }
                }
            };
            tokio::time::timeout(Duration::from_millis(200), wishes).await.ok();
            talks.push(talk);
        }
        talks
    });
    // While they wait, an honest site is served.
    an_honest_site_fetches(&scene, &mut site, &image);
    let grown = resident_bytes(&site).saturating_sub(before);
    assert!(grown < 96 << 20, "the node grew by {grown} bytes");
    drop(talks);
}

#[test]
fn five_hundred_streams_of_one_peer_keep_nobody_out() {
    let scene = Scene::new();
    let (mut site, image) = holder(&scene, 4);
    let peer = hostile(&site);
    let talks = run(async {
        let mut talks = Vec::new();
        for number in 0..500 {
            // Where the node has had enough, it says so by ending them.
            let Ok(mut talk) = peer.open(Part::Swarm).await else { break };
            if number % 2 == 0 {
                talk.say(&Message::Hello { image: image.id, bases: Vec::new() }).await.ok();
            }
            talks.push(talk);
        }
        talks
    });
    assert!(talks.len() > 100, "{} streams", talks.len());
    an_honest_site_fetches(&scene, &mut site, &image);
    // Most of them were told that the node is busy; the few that have a place are served.
    let answers = run(async {
        let mut answers = [0, 0];
        for mut talk in talks.into_iter().step_by(2) {
            match talk.hear().await {
                Some(Message::Have { .. }) => answers[0] += 1,
                Some(Message::Busy) => answers[1] += 1,
                _ => {}
            }
        }
        answers
    });
    assert!(answers[0] <= 16 && answers[1] > 50, "{answers:?}");
}

/// What a fetcher that has asked for enough waits for.
trait UntilIdle {
    async fn until_idle(&mut self);
}

impl UntilIdle for Talk {
    /// Reads until nothing has come for a while: the node has sent all that it was asked for, or has ended the stream.
    async fn until_idle(&mut self) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(Ok(1..)) = tokio::time::timeout(Duration::from_millis(300), self.0.read(&mut buffer)).await {}
    }
}

/// The node ends a stream that says nothing at all, so that silence costs it no place.
#[test]
fn a_silent_swarm_stream_is_ended() {
    let scene = Scene::new();
    let (mut site, image) = holder(&scene, 1);
    let peer = hostile(&site);
    let mut talk = run(async { peer.open(Part::Swarm).await.expect("a stream") });
    an_honest_site_fetches(&scene, &mut site, &image);
    run(async { talk.until_closed().await });
    eventually(Duration::from_secs(1), "the peer's connection", || match site.is_running() {
        true => Ok(()),
        false => Err("the node has ended"),
    })
    .expect("the node runs");
}
