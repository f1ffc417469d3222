//! Holders of images that lie about them, or send too little, or nothing. Those that send too much or something else are
//! among the `attacks`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rialto_protocol::codec::{self, Value};
use rialto_protocol::ids::ImageId;
use rialto_protocol::image::manifest::MAX_PAGE_BYTES;
use rialto_protocol::swarm::{FrameHead, FrameKind};
use rialto_testnet::site::SOON;
use rialto_testnet::wait::eventually;
use rialto_tests::held::{Held, noise};
use rialto_tests::hostile::{Hostile, Part};
use rialto_tests::liars::{FETCH, IMAGE_BYTES, fetched_from_the_honest_one, holds, lie, raw};
use rialto_tests::scene::{Scene, add, goes_on, hostile, introduce, missing, start, verify};

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
