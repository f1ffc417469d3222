//! Malicious mirror: the attacker holds images that others want, and serves something else.

use std::sync::Arc;

use rialto_tests::held::{Held, noise as random};
use rialto_tests::liars::{FETCH, fetched_from_the_honest_one, holds, lie, raw};
use rialto_tests::scene::{hostile, introduce, logged, start, verify};
use rialto_tests::stage::{Outcome, Stage, accepting, list, noise};

/// The attacker has a mirror, which has the right names and other bytes.
#[test]
fn malicious_mirror_of_wrong_bytes_is_dropped_and_the_fetch_completes() {
    let (_scene, shop) = fetched_from_the_honest_one(lie(|image, mut talk, index, _| async move {
        let length = image.chunks[index as usize].len();
        let is_sent = talk.chunk(raw(index), &random(length, index.into())).await.is_ok();
        (talk, is_sent)
    }));
    logged(&shop, &["WARN", "a chunk is refused"]);
    logged(&shop, &["WARN", "a holder is not asked again for this image", "do not have the chunk's hash"]);
}

/// The attacker has a mirror, which gives other parts of an image than those asked for.
#[test]
fn malicious_mirror_that_answers_with_another_index_is_dropped_and_the_fetch_completes() {
    let (_scene, shop) = fetched_from_the_honest_one(lie(|image, mut talk, index, position| async move {
        // Once another chunk's bytes for this index, or this chunk's bytes under an index that there is not.
        let other = (index as usize + 1) % image.chunks.len();
        let header = if position.is_multiple_of(2) { raw(u32::MAX) } else { raw(index) };
        let is_sent = talk.chunk(header, &image.chunks[other]).await.is_ok();
        (talk, is_sent)
    }));
    logged(&shop, &["WARN", "a holder is not asked again for this image"]);
}

/// The attacker has the only mirror that the site finds, which has the last release and withholds the latest: what it gives
/// is refused, and nothing of the latest is installed until an honest holder comes.
#[test]
fn malicious_mirror_that_serves_the_old_image_for_the_new_one_is_dropped() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    let release = stage.publish(&uni, "hello", "2.0.0", "releases")?;
    let mut shop = stage.running("shop", &[&uni])?;
    shop.write_policy(&accepting(&key))?;
    let accepted = shop.verdict(&release, "accept")?;
    let [old, new] = ["1.0.0", "2.0.0"].map(|version| Held::of(noise(&format!("hello {version}"), 256 << 10)));
    assert_eq!(accepted["images"][0], new.name(), "the disk is the image that the mirror is asked for");
    uni.stop()?;

    // The new manifest, and what the old image has in its places.
    let served = Arc::new(Held { chunks: old.chunks.iter().cycle().take(new.chunks.len()).cloned().collect(), ..new });
    let mirror = hostile(&shop);
    holds(
        &mirror,
        &served,
        lie(|image: Arc<Held>, mut talk, index, _| async move {
            let is_sent = image.send(&mut talk, index).await.is_ok();
            (talk, is_sent)
        }),
    );
    let fetch = start(&shop, &["fetch", &release]);
    logged(&shop, &["WARN", "a holder is not asked again for this image", "do not have the chunk's hash"]);
    let listed = shop.json(&["image", "ls"])?;
    assert!(list(&listed).iter().all(|image| image["missing_chunks"].as_u64() > Some(0)), "{listed}");

    uni.start()?;
    introduce(&mut uni, &shop);
    let (code, fetched) = fetch.end(FETCH);
    assert_eq!(code, Some(0), "{fetched}");
    verify(&shop, &served.name());
    Ok(())
}
