//! Holders of images that lie about them, or send too much, too little, or nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rialto_protocol::codec::{self, Value};
use rialto_protocol::ids::ImageId;
use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::image::manifest::MAX_PAGE_BYTES;
use rialto_protocol::swarm::{ChunkHeader, FrameHead, FrameKind, Message, Ranges};
use rialto_testnet::site::{SOON, Site};
use rialto_testnet::wait::eventually;
use rialto_tests::held::{Held, noise};
use rialto_tests::hostile::{Hostile, Part, Talk};
use rialto_tests::scene::{Scene, add, goes_on, hostile, introduce, logged, missing, resident_bytes, start, verify};

/// What is long enough for a fetch that has to get round a peer that stalls: twice its patience, and a busy machine.
pub(crate) const FETCH: Duration = Duration::from_secs(60);
/// The images of these tests: some 250 chunks, more than is asked of one peer at once.
const IMAGE_BYTES: usize = 8 << 20;

/// How a holder answers for one chunk; `false` ends the stream.
pub(crate) type Lie = Arc<dyn Fn(Arc<Held>, Talk, u32, usize) -> Answered + Send + Sync>;
pub(crate) type Answered = std::pin::Pin<Box<dyn Future<Output = (Talk, bool)> + Send>>;

pub(crate) fn lie<F: Future<Output = (Talk, bool)> + Send + 'static>(
    tell: impl Fn(Arc<Held>, Talk, u32, usize) -> F + Send + Sync + 'static,
) -> Lie {
    Arc::new(move |image, talk, index, position| Box::pin(tell(image, talk, index, position)))
}

/// Makes the peer a holder of the image that answers by `lie`; the count is of chunks that it was asked for.
pub(crate) fn holds(peer: &Hostile, image: &Arc<Held>, lie: Lie) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let (image, count) = (Arc::clone(image), Arc::clone(&asked));
    peer.on(Part::Swarm, move |mut talk| {
        let (image, count, lie) = (Arc::clone(&image), Arc::clone(&count), Arc::clone(&lie));
        async move {
            if !is_hello_of(&mut talk, &image).await || talk.claim_everything().await.is_err() {
                return;
            }
            while let Some(message) = talk.hear().await {
                match message {
                    Message::WantPages { hashes } => {
                        for hash in hashes {
                            talk.page(&image.pages[&hash]).await.ok();
                        }
                    }
                    Message::Want { chunks } => {
                        for index in chunks.indices_below(image.chunks.len() as u32) {
                            let position = count.fetch_add(1, Ordering::SeqCst);
                            let (back, goes_on) = lie(Arc::clone(&image), talk, index, position).await;
                            talk = back;
                            if !goes_on {
                                return;
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
    });
    asked
}

async fn is_hello_of(talk: &mut Talk, image: &Held) -> bool {
    match talk.hear().await {
        Some(Message::Hello { image: asked, .. }) if asked == image.id => true,
        _ => {
            talk.say(&Message::Absent).await.ok();
            false
        }
    }
}

fn raw(index: u32) -> ChunkHeader {
    ChunkHeader { index, encoding: Encoding::Raw }
}

/// A fetch that has a liar to ask and nobody else, and later an honest holder beside it.
fn fetched_from_the_honest_one(lie: Lie) -> (Scene, Site) {
    let scene = Scene::new();
    let image = Arc::new(Held::random(IMAGE_BYTES, 11));
    let mut uni = scene.site("uni");
    add(&uni, &scene.file("image", &image.content));
    let mut shop = scene.site("shop");
    let peer = hostile(&shop);
    let asked = holds(&peer, &image, lie);

    let fetch = start(&shop, &["fetch", &image.name()]);
    until_asked(&asked);
    introduce(&mut uni, &shop);
    let (code, fetched) = fetch.end(FETCH);
    assert_eq!(code, Some(0), "{fetched}\n{}", shop.log());
    verify(&shop, &image.name());
    goes_on(&mut shop, &scene);
    drop(uni);
    (scene, shop)
}

fn until_asked(asked: &AtomicUsize) {
    let look = || if asked.load(Ordering::SeqCst) > 0 { Ok(()) } else { Err("nothing was asked") };
    eventually(SOON, "a chunk asked of the hostile holder", look).expect("the fetch asks it");
}

#[test]
fn a_holder_of_wrong_bytes_is_dropped_and_the_fetch_completes() {
    let (_scene, shop) = fetched_from_the_honest_one(lie(|image, mut talk, index, _| async move {
        let length = image.chunks[index as usize].len();
        let is_sent = talk.chunk(raw(index), &noise(length, index.into())).await.is_ok();
        (talk, is_sent)
    }));
    logged(&shop, &["WARN", "a chunk is refused"]);
    logged(&shop, &["WARN", "a holder is not asked again for this image", "do not have the chunk's hash"]);
}

#[test]
fn a_holder_that_answers_with_another_index_is_dropped_and_the_fetch_completes() {
    let (_scene, shop) = fetched_from_the_honest_one(lie(|image, mut talk, index, position| async move {
        // Once another chunk's bytes for this index, or this chunk's bytes under an index that there is not.
        let other = (index as usize + 1) % image.chunks.len();
        let header = if position.is_multiple_of(2) { raw(u32::MAX) } else { raw(index) };
        let is_sent = talk.chunk(header, &image.chunks[other]).await.is_ok();
        (talk, is_sent)
    }));
    logged(&shop, &["WARN", "a holder is not asked again for this image"]);
}

#[test]
fn a_holder_that_announces_an_endless_chunk_is_dropped_and_the_fetch_completes() {
    let (_scene, shop) = fetched_from_the_honest_one(lie(|_, mut talk, _, _| async move {
        talk.send(&[FrameKind::Chunk as u8, 0xff, 0xff, 0xff, 0xff]).await.ok();
        while talk.send(&[0; 1 << 16]).await.is_ok() {}
        (talk, false)
    }));
    logged(&shop, &["WARN", "a holder is not asked again for this image", "out of bounds"]);
}

#[test]
fn a_holder_that_sends_chunks_without_end_is_dropped_and_the_fetch_completes() {
    let (_scene, shop) = fetched_from_the_honest_one(lie(|image, mut talk, index, _| async move {
        // The right one, and then again and again.
        while image.send(&mut talk, index).await.is_ok() {}
        (talk, false)
    }));
    logged(&shop, &["WARN", "a holder is not asked again for this image", "nobody asked for"]);
}

#[test]
fn a_holder_that_sends_pages_without_end_is_dropped_and_the_fetch_completes() {
    let (_scene, shop) = fetched_from_the_honest_one(lie(|image, mut talk, _, _| async move {
        let page = image.pages.values().next().expect("a page").clone();
        while talk.page(&page).await.is_ok() {}
        (talk, false)
    }));
    logged(&shop, &["WARN", "a holder is not asked again for this image", "was not asked for"]);
}

#[test]
fn zstd_bombs_are_refused_and_the_fetch_completes() {
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

#[test]
fn a_holder_that_stalls_is_got_round() {
    fetched_from_the_honest_one(lie(|image, mut talk, index, position| async move {
        if position < 3 {
            image.send(&mut talk, index).await.ok();
            return (talk, true);
        }
        talk.until_closed().await;
        (talk, false)
    }));
}

#[test]
fn holders_that_say_nothing_leave_room_for_one_that_does() {
    let scene = Scene::new();
    let image = Held::random(IMAGE_BYTES, 11);
    let mut shop = scene.site("shop");
    // More than are asked at once, and all of them there before the honest one.
    let peers: Vec<Hostile> = (0..40).map(|_| hostile(&shop)).collect();
    let opened = Arc::new(AtomicUsize::new(0));
    for peer in &peers {
        let opened = Arc::clone(&opened);
        peer.on(Part::Swarm, move |mut talk| {
            opened.fetch_add(1, Ordering::SeqCst);
            async move { talk.until_closed().await }
        });
    }
    let fetch = start(&shop, &["fetch", &image.name()]);
    eventually(SOON, "streams to the silent ones", || match opened.load(Ordering::SeqCst) {
        32.. => Ok(()),
        few => Err(few),
    })
    .expect("they are asked first");
    let mut uni = scene.site("uni");
    add(&uni, &scene.file("image", &image.content));
    introduce(&mut uni, &shop);
    let (code, fetched) = fetch.end(FETCH);
    assert_eq!(code, Some(0), "{fetched}\n{}", shop.log());
    verify(&shop, &image.name());
    goes_on(&mut shop, &scene);
}

#[test]
fn a_flood_of_have_does_not_fill_the_memory() {
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

/// The image whose root page is `root`, as a holder has it that serves it as if it were one.
fn false_image(root: &[u8]) -> Held {
    let mut image = Held::of(noise(1 << 20, 5));
    image.id = ImageId::of(root);
    image.pages.insert(image.id.hash(), root.to_vec());
    image
}

#[test]
fn a_manifest_whose_pages_lie_fails_the_fetch_with_the_images_name() {
    let scene = Scene::new();
    let mut shop = scene.site("shop");
    let kept = add(&shop, &scene.file("kept", &noise(1 << 20, 3)));

    let good = Held::of(noise(1 << 20, 5));
    let root = good.pages[&good.id.hash()].clone();
    let Value::Map(fields) = codec::decode_any(&root, MAX_PAGE_BYTES).expect("a page") else { panic!("a map") };
    let with = |field: &str, value: i128| {
        let mut fields = fields.clone();
        fields.insert(Value::Text(field.into()), Value::Integer(value));
        codec::encode(&Value::Map(fields)).expect("a page")
    };
    // Two pages below the root, of which the first has another number of chunks than the root says.
    let large = Held::random(48 << 20, 6);
    let Value::Map(mut above) = codec::decode_any(&large.pages[&large.id.hash()], MAX_PAGE_BYTES).expect("a page")
    else {
        panic!("a map")
    };
    let Some(Value::Array(entries)) = above.get_mut(&Value::Text("entries".into())) else { panic!("entries") };
    assert!(entries.len() > 1, "an image with more than one level of pages");
    for (position, change) in [(0, 1), (1, -1)] {
        let Value::Array(entry) = &mut entries[position] else { panic!("a page of a page") };
        let Value::Integer(chunks) = &mut entry[2] else { panic!("a number of chunks") };
        *chunks += change;
    }
    let mut below = large.clone();
    let above = codec::encode(&Value::Map(above)).expect("a page");
    below.id = ImageId::of(&above);
    below.pages.insert(below.id.hash(), above);

    for (what, image) in [
        ("more bytes than there are", false_image(&with("bytes", (2 << 20) + 7))),
        ("more chunks than there are", false_image(&with("chunks", 7777))),
        ("endless content", false_image(&with("bytes", i128::from(u64::MAX)))),
        ("more levels than there are", false_image(&with("depth", 4))),
        ("no manifest at all", false_image(&noise(500, 9))),
        ("a child that has not what its parent says", below),
    ] {
        let peer = hostile(&shop);
        let image = Arc::new(image);
        holds(&peer, &image, lie(|_, talk, _, _| async move { (talk, false) }));
        let (code, error) = start(&shop, &["fetch", &image.name()]).end(FETCH);
        assert_eq!(code, Some(1), "{what}: {error}");
        let message = error["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(&image.name()) && message.contains("malformed"), "{what}: {error}");
        // It can be seen and removed.
        let listed = shop.json(&["image", "ls"]).expect("the list");
        assert!(listed.to_string().contains(&image.name()), "{listed}");
        shop.json(&["image", "rm", &image.name()]).expect("it can be removed");
    }
    verify(&shop, &kept);
    goes_on(&mut shop, &scene);
}

#[test]
fn a_fetch_from_liars_alone_fails_and_keeps_what_was_good() {
    const GOOD: usize = 5;
    let scene = Scene::new();
    let mut shop = scene.site("shop");
    let wrong = lie(|image: Arc<Held>, mut talk, index, position| async move {
        if position < GOOD {
            image.send(&mut talk, index).await.ok();
        } else {
            talk.chunk(raw(index), b"not this").await.ok();
        }
        (talk, true)
    });
    let endless = lie(|image: Arc<Held>, mut talk, index, position| async move {
        if position < GOOD {
            image.send(&mut talk, index).await.ok();
            return (talk, true);
        }
        let head = FrameHead { kind: FrameKind::Chunk, length: u32::MAX as usize }.encode();
        talk.send(&head).await.ok();
        (talk, true)
    });
    let leaves = lie(|image: Arc<Held>, mut talk, index, position| async move {
        if position < GOOD {
            let is_sent = image.send(&mut talk, index).await.is_ok();
            return (talk, is_sent);
        }
        // No more of it: the connection goes, below, once what was sent is there.
        talk.until_closed().await;
        (talk, false)
    });
    // All at once: what takes time is that the node hopes for another holder.
    let fetches: Vec<_> = [wrong, endless, leaves]
        .into_iter()
        .zip(21..)
        .map(|(lie, seed)| {
            let (peer, image) = (hostile(&shop), Arc::new(Held::random(1 << 20, seed)));
            let asked = holds(&peer, &image, lie);
            let fetch = start(&shop, &["fetch", &image.name()]);
            (peer, image, asked, fetch)
        })
        .collect();
    let mut ends = Vec::new();
    for (peer, image, asked, fetch) in fetches {
        let lacked = image.chunks.len() - GOOD;
        eventually(SOON, "what is good stored, and more asked than that", || {
            match (asked.load(Ordering::SeqCst) > GOOD, missing(&shop, &image.name())) {
                (true, Some(left)) if left == lacked => Ok(()),
                found => Err(format!("{found:?}")),
            }
        })
        .expect("it is asked");
        drop(peer);
        ends.push((image, fetch));
    }
    for (image, fetch) in ends {
        let (code, error) = fetch.end(FETCH);
        assert_eq!(code, Some(1), "{error}");
        let message = error["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(&image.name()) && message.contains("chunks are missing"), "{error}");
        assert_eq!(missing(&shop, &image.name()), Some(image.chunks.len() - GOOD));
    }
    goes_on(&mut shop, &scene);
}

#[test]
fn a_fetch_from_a_stalled_holder_can_be_cancelled_and_keeps_what_was_good() {
    const GOOD: usize = 7;
    let scene = Scene::new();
    let mut shop = scene.site("shop");
    let (peer, image) = (hostile(&shop), Arc::new(Held::random(1 << 20, 31)));
    holds(
        &peer,
        &image,
        lie(|image: Arc<Held>, mut talk, index, position| async move {
            if position == GOOD {
                talk.until_closed().await;
                return (talk, false);
            }
            image.send(&mut talk, index).await.ok();
            (talk, true)
        }),
    );
    let fetch = start(&shop, &["fetch", &image.name()]);
    eventually(SOON, "what the holder sends", || match missing(&shop, &image.name()) {
        Some(left) if left == image.chunks.len() - GOOD => Ok(()),
        left => Err(format!("{left:?}")),
    })
    .expect("it is stored");
    fetch.interrupt();
    let (code, error) = fetch.end(SOON);
    assert_eq!(code, Some(1), "{error}");
    assert!(error["error"]["message"].as_str().is_some_and(|message| message.contains("cancelled")), "{error}");
    // Also through a restart.
    shop.stop().expect("the node ends");
    shop.start().expect("the node starts again");
    assert_eq!(missing(&shop, &image.name()), Some(image.chunks.len() - GOOD));
    goes_on(&mut shop, &scene);
}
