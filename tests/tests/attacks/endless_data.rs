//! Endless data: the attacker answers with more than anybody asked for, until memory or disk are full. Whatever a peer can
//! feed has a bound that is looked at before anything is allocated: gossip, catch-up, pages, chunks, and what comes out of
//! compressed ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rialto_protocol::codec::{self, Value};
use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::signed::MAX_ENVELOPE_BYTES;
use rialto_protocol::swarm::{ChunkHeader, FrameKind, Message, Ranges};
use rialto_protocol::sync::MAX_MESSAGE_BYTES;
use rialto_testnet::site::{SOON, Site};
use rialto_testnet::wait::eventually;
use rialto_tests::held::{Held, noise};
use rialto_tests::hostile::{Part, Talk, run};
use rialto_tests::liars::{FETCH, IMAGE_BYTES, fetched_from_the_honest_one, is_hello_of, lie};
use rialto_tests::scene::{Scene, goes_on, hostile, logged, records, resident_bytes, start};

/// What a node may grow by while it is fed without end.
const MAX_GROWTH_BYTES: u64 = 32 << 20;

/// A site that has one record, made there, and an honest one that comes later and soon has it, too.
struct Fed {
    scene: Scene,
    site: Site,
    bytes_before: u64,
}

impl Fed {
    fn new() -> Self {
        let scene = Scene::new();
        let site = scene.site("uni");
        let public = site.new_key("releases").expect("a key");
        site.json(&["revoke", &public, "--key", "releases", "--reason", "a test"]).expect("a record");
        assert_eq!(records(&site), 1);
        let bytes_before = resident_bytes(&site);
        Self { scene, site, bytes_before }
    }

    /// Nothing came of it, and the site serves others as before.
    fn goes_on_as_before(mut self) {
        let grown = resident_bytes(&self.site).saturating_sub(self.bytes_before);
        assert!(grown < MAX_GROWTH_BYTES, "the node grew by {grown} bytes");
        let late = self.scene.site_that_knows("late", &[&self.site]);
        late.until(SOON, "the record", &["status"], |status| status["records"] == 1).expect("it catches up");
        assert_eq!(records(&self.site), 1);
        goes_on(&mut self.site, &self.scene);
    }
}

/// A form of an envelope that is longer than any envelope is.
fn oversized() -> Vec<u8> {
    let text = |text: &str| Value::Text(text.into());
    let fields = [
        (text("v"), Value::Integer(1)),
        (text("payload"), Value::Bytes(vec![0; MAX_ENVELOPE_BYTES])),
        (text("signatures"), Value::Array(Vec::new())),
    ];
    codec::encode(&Value::Map(fields.into())).expect("an envelope")
}

/// The attacker has the network, and gossips what is far longer than any record.
#[test]
fn endless_data_of_gossip_is_refused_before_it_is_read() {
    let fed = Fed::new();
    let peer = hostile(&fed.site);
    peer.gossip(oversized()).expect("it can be sent");
    logged(&fed.site, &["WARN", "a gossiped record is refused", &peer.peer_id(), "bytes where at most"]);

    // Larger than any gossip may be: not even read.
    let peer = hostile(&fed.site);
    for number in 0..8 {
        // The node may have ended the stream by now.
        peer.gossip(noise(900_000, number)).ok();
    }
    fed.goes_on_as_before();
}

/// The attacker has the network, and announces messages of catch-up that have no end.
#[test]
fn endless_data_of_a_sync_message_is_refused_before_it_is_read() {
    let fed = Fed::new();
    let peer = hostile(&fed.site);
    for length in [u32::MAX, 1 << 31, MAX_MESSAGE_BYTES as u32 + 1] {
        run(async {
            let mut talk: Talk = peer.open(Part::Sync).await.expect("a stream");
            talk.send(&length.to_be_bytes()).await.ok();
            while talk.send(&[0; 1 << 16]).await.is_ok() {}
            talk.until_closed().await;
        });
    }
    fed.goes_on_as_before();
}

/// The attacker has an image, and announces a chunk of 4 GiB.
#[test]
fn endless_data_of_a_chunk_that_is_announced_as_endless_is_dropped_and_the_fetch_completes() {
    let (_scene, shop) = fetched_from_the_honest_one(lie(|_, mut talk, _, _| async move {
        talk.send(&[FrameKind::Chunk as u8, 0xff, 0xff, 0xff, 0xff]).await.ok();
        while talk.send(&[0; 1 << 16]).await.is_ok() {}
        (talk, false)
    }));
    logged(&shop, &["WARN", "a holder is not asked again for this image", "out of bounds"]);
}

/// The attacker has an image, and sends a good chunk again and again.
#[test]
fn endless_data_of_chunks_that_nobody_asked_for_is_dropped_and_the_fetch_completes() {
    let (_scene, shop) = fetched_from_the_honest_one(lie(|image, mut talk, index, _| async move {
        // The right one, and then again and again.
        while image.send(&mut talk, index).await.is_ok() {}
        (talk, false)
    }));
    logged(&shop, &["WARN", "a holder is not asked again for this image", "nobody asked for"]);
}

/// The attacker has an image, and sends a good page of its manifest again and again.
#[test]
fn endless_data_of_pages_that_nobody_asked_for_is_dropped_and_the_fetch_completes() {
    let (_scene, shop) = fetched_from_the_honest_one(lie(|image, mut talk, _, _| async move {
        let page = image.pages.values().next().expect("a page").clone();
        while talk.page(&page).await.is_ok() {}
        (talk, false)
    }));
    logged(&shop, &["WARN", "a holder is not asked again for this image", "was not asked for"]);
}

/// The attacker has an image, and sends chunks of a few KiB that decompress to 512 MiB.
#[test]
fn endless_data_from_a_small_compressed_chunk_is_refused_and_the_fetch_completes() {
    let bomb = zstd::bulk::compress(&vec![0; 512 << 20], 19).expect("a bomb");
    assert!(bomb.len() < 64 << 10);
    let (_scene, shop) = fetched_from_the_honest_one(lie(move |_, mut talk, index, _| {
        let bomb = bomb.clone();
        async move {
            let is_sent = talk.chunk(ChunkHeader { index, encoding: Encoding::Zstd }, &bomb).await.is_ok();
            (talk, is_sent)
        }
    }));
    logged(&shop, &["WARN", "a chunk is refused"]);
    assert!(resident_bytes(&shop) < 200 << 20, "{} bytes", resident_bytes(&shop));
}

/// The attacker has an image, and says without end what it has of it.
#[test]
fn endless_data_of_what_a_holder_says_it_has_does_not_fill_the_memory() {
    let scene = Scene::new();
    let image = Arc::new(Held::random(IMAGE_BYTES, 11));
    let mut shop = scene.site("shop");
    let peer = hostile(&shop);
    let said = Arc::new(AtomicUsize::new(0));
    let (held, count) = (Arc::clone(&image), Arc::clone(&said));
    peer.on(Part::Swarm, move |mut talk| {
        let (image, count) = (Arc::clone(&held), Arc::clone(&count));
        async move {
            if !is_hello_of(&mut talk, &image).await {
                return;
            }
            // Every second chunk of an image that has no end, as far as one message reaches, again and again.
            let chunks = Ranges::pieces((0..8192).step_by(2)).remove(0);
            let frame = Message::Have { is_complete: false, chunks }.frame().expect("a frame");
            while talk.send(&frame).await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let before = resident_bytes(&shop);
    let fetch = start(&shop, &["fetch", &image.name()]);
    eventually(FETCH, "600 messages", || match said.load(Ordering::SeqCst) {
        600.. => Ok(()),
        few => Err(few),
    })
    .expect("the node reads them");
    let grown = resident_bytes(&shop).saturating_sub(before);
    assert!(grown < 24 << 20, "the node grew by {grown} bytes");
    fetch.interrupt();
    let (code, error) = fetch.end(SOON);
    assert_eq!(code, Some(1), "{error}");
    goes_on(&mut shop, &scene);
}
