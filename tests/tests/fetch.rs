//! Fetching: from several holders, from holders of parts, and again after it was cut short.

use std::os::unix::fs::FileExt as _;

use rialto_protocol::ids::ImageId;
use rialto_testnet::demo::damage;
use rialto_testnet::site::{SOON, Site, text};
use rialto_testnet::wait::run_within;
use rialto_tests::forge::{fetch_partly, store};
use rialto_tests::stage::{Outcome, Stage, list, noise, shown};
use serde_json::Value;

/// Adds a file of noise at a site.
fn add(stage: &Stage, site: &Site, name: &str, length: usize) -> Outcome<ImageId> {
    let file = shown(&stage.file(name, noise(name, length))?);
    Ok(text(&site.json(&["image", "add", &file])?, "image")?.parse()?)
}

#[test]
fn an_image_comes_from_two_holders_at_once() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    let lab = stage.running("lab", &[&uni])?;
    let shop = stage.running("shop", &[&uni])?;
    let image = add(&stage, &uni, "big", 12 << 20)?.to_string();
    lab.json(&["fetch", &image])?;
    shop.meets(&[&uni, &lab])?;

    let fetched = shop.json(&["fetch", &image])?;
    let wire = fetched["wire_bytes"].as_u64().unwrap_or_default();
    assert!((12 << 20..13 << 20).contains(&wire), "{fetched}");
    assert!(fetched["duplicate_bytes"].as_u64() < Some(1 << 20), "{fetched}");
    for holder in [&uni, &lab] {
        assert!(fetched["peers"][holder.peer_id()?].as_u64() > Some(1 << 20), "{} in {fetched}", holder.name());
    }
    let out = stage.path().join("out");
    shop.json(&["image", "get", &image, "-o", &shown(&out)])?;
    assert!(std::fs::read(out)? == noise("big", 12 << 20), "the same bytes");
    Ok(())
}

#[test]
fn two_holders_of_halves_make_a_whole() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let image = add(&stage, &uni, "halves", 4 << 20)?;
    let mut left = stage.running("left", &[&uni])?;
    let mut right = stage.running("right", &[&uni, &left])?;
    for site in [&mut uni, &mut left, &mut right] {
        site.stop()?;
    }
    // The only complete copy never comes back.
    fetch_partly(&uni, &left, &image, |position| position % 2 == 0)?;
    fetch_partly(&uni, &right, &image, |position| position % 2 == 1)?;
    for site in [&mut left, &mut right] {
        site.start()?;
        let listed = site.json(&["image", "ls"])?;
        assert!(listed[0]["missing_chunks"].as_u64() > Some(0), "{listed}");
    }
    let shop = stage.running("shop", &[&left, &right])?;
    shop.meets(&[&left, &right])?;

    let fetched = shop.json(&["fetch", &image.to_string()])?;
    assert_eq!(fetched["bytes"], 4 << 20);
    for holder in [&left, &right] {
        assert!(fetched["peers"][holder.peer_id()?].as_u64() > Some(1 << 20), "{} in {fetched}", holder.name());
    }
    assert_eq!(shop.json(&["image", "verify", &image.to_string()])?["bad_chunks"], 0);
    Ok(())
}

#[test]
fn what_a_disk_lost_is_found_by_a_scrub_and_comes_back_from_others() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    let image = add(&stage, &uni, "kept", 4 << 20)?.to_string();
    let shop = stage.running("shop", &[&uni])?;
    shop.json(&["fetch", &image])?;
    assert_eq!(shop.json(&["image", "scrub"])?["damaged_chunks"], 0);

    let segment = shop.directory().join("store/segments/00000001.segment");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(segment)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, 2 << 20)?;
    file.write_all_at(&[byte[0] ^ 1], 2 << 20)?;
    let scrubbed = shop.json(&["image", "scrub"])?;
    assert_eq!(
        (&scrubbed["damaged_chunks"], &scrubbed["mended"][0]),
        (&1.into(), &image.as_str().into()),
        "{scrubbed}"
    );
    assert_eq!(scrubbed["lost"], serde_json::json!([]));
    assert_eq!(shop.json(&["image", "verify", &image])?["bad_chunks"], 0);
    let status = shop.status()?;
    assert!(status["scrub"]["damaged_chunks"] == 1 && status["scrub"]["finished"].is_string(), "{status}");
    Ok(())
}

#[test]
fn a_fetch_moves_only_what_is_missing() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let image = add(&stage, &uni, "resumed", 4 << 20)?;
    let mut shop = stage.running("shop", &[&uni])?;
    shop.stop()?;
    uni.stop()?;
    let held = fetch_partly(&uni, &shop, &image, |position| position % 4 != 0)?;
    uni.start()?;
    shop.start()?;
    // Shop's configuration has the address that uni had; somebody whom both know brings them together.
    let third = stage.running("third", &[&uni, &shop])?;
    third.meets(&[&uni, &shop])?;
    shop.meets(&[&uni])?;

    let fetched = shop.json(&["fetch", &image.to_string()])?;
    let wire = fetched["wire_bytes"].as_u64().unwrap_or_default();
    let missing = (4 << 20) - held;
    assert!(wire >= missing && wire < missing + (256 << 10), "{missing} bytes were missing: {fetched}");
    let again = shop.json(&["fetch", &image.to_string()])?;
    assert_eq!((&again["wire_bytes"], &again["bytes"]), (&0.into(), &(4 << 20).into()));
    Ok(())
}

#[test]
fn a_node_that_is_killed_within_a_fetch_keeps_what_it_has() -> Outcome {
    const BYTES: u64 = 64 << 20;
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    let image = add(&stage, &uni, "long", BYTES as usize)?;
    let mut shop = stage.running("shop", &[&uni])?;
    shop.meets(&[&uni])?;
    let mut fetching = shop.command(&["fetch", &image.to_string(), "--json"]);
    let waiting = std::thread::spawn(move || run_within(&mut fetching, SOON));
    // Enough of it is on disk as soon as the store has grown by a fifth of it.
    shop.until(SOON, "a part of the image", &["status"], |status| status["store_bytes"].as_u64() > Some(BYTES / 5))?;
    shop.kill();
    let ended = waiting.join().expect("the thread that waits for the command")?;
    assert_eq!(ended.status.code(), Some(5), "{}", String::from_utf8_lossy(&ended.stderr));

    let missing: u64 = {
        let store = store(&shop)?;
        let lengths: Vec<u64> = store.manifest(&image)?.chunks.iter().map(|chunk| chunk.length.into()).collect();
        let missing = store.missing_chunks(&image)?;
        missing.iter().filter_map(|position| lengths.get(*position as usize)).sum()
    };
    assert!(missing > 0 && missing < BYTES - BYTES / 10, "{missing} of {BYTES} bytes are missing");
    shop.start()?;
    shop.meets(&[&uni])?;
    let fetched = shop.json(&["fetch", &image.to_string()])?;
    let wire = fetched["wire_bytes"].as_u64();
    assert!(wire >= Some(missing) && wire < Some(missing + (2 << 20)), "{missing} bytes were missing: {fetched}");
    assert_eq!(shop.json(&["image", "verify", &image.to_string()])?["bad_chunks"], 0);
    Ok(())
}

#[test]
fn a_fetch_that_nobody_can_serve_says_so_and_goes_on_later() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let image = add(&stage, &uni, "waiting", 1 << 20)?;
    let mut lab = stage.running("lab", &[&uni])?;
    lab.stop()?;
    uni.stop()?;
    fetch_partly(&uni, &lab, &image, |position| position < 8)?;
    lab.start()?;
    let shop = stage.running("shop", &[&lab])?;
    shop.meets(&[&lab])?;
    let refused = shop.refused(&["fetch", &image.to_string()], 1)?;
    assert!(text(&refused, "hint")?.contains("what was stored stays"), "{refused}");
    // What lab has of it has come over, and lab's copy did not have to be complete for that.
    let listed = shop.json(&["image", "ls"])?;
    let (chunks, missing) = (listed[0]["chunks"].as_u64(), listed[0]["missing_chunks"].as_u64());
    assert_eq!(missing, chunks.map(|chunks| chunks - 8), "{listed}");
    Ok(())
}

#[test]
fn a_damaged_holder_is_found_out_and_the_rest_comes_from_another() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    let mut lab = stage.running("lab", &[&uni])?;
    let image = add(&stage, &uni, "spoilt", 4 << 20)?;
    lab.json(&["fetch", &image.to_string()])?;
    lab.stop()?;
    let spoilt = damage::flip(lab.directory(), &noise("spoilt", 4 << 20)[..1 << 20])?;
    assert!(spoilt > 8, "{spoilt} places");
    lab.start()?;
    let shop = stage.running("shop", &[&uni, &lab])?;
    shop.meets(&[&uni, &lab])?;
    shop.json(&["fetch", &image.to_string()])?;
    assert_eq!(shop.json(&["image", "verify", &image.to_string()])?["bad_chunks"], 0);

    let verified = lab.rialto(&["image", "verify", &image.to_string(), "--json"])?;
    let counted = verified.expect(1)?.json()?;
    assert!(counted["bad_chunks"].as_u64() > Some(8), "the value is printed all the same: {counted}");
    assert!(text(&verified.error()?, "hint")?.contains("rialto fetch"));
    // A fetch mends it.
    lab.meets(&[&uni])?;
    let mended = lab.json(&["fetch", &image.to_string()])?;
    assert!(mended["wire_bytes"].as_u64() > Some(1 << 19), "{mended}");
    assert_eq!(lab.json(&["image", "verify", &image.to_string()])?["bad_chunks"], 0);
    Ok(())
}

#[test]
fn what_was_fetched_is_on_the_list_of_the_one_who_fetched() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    uni.new_key("releases")?;
    let shop = stage.running("shop", &[&uni])?;
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    shop.verdict(&release, "hold")?;
    assert_eq!(shop.json(&["search"])?["releases"][0]["is_fetched"], false);
    let fetched = shop.json(&["fetch", &release, "--held"])?;
    // That both have it is known once both have told the federation.
    let is_known = |details: &Value| details["is_fetched"] == true && details["sites_holding"] == 2;
    shop.until(SOON, "two sites that hold it", &["show", &release], is_known)?;
    let images = shop.json(&["image", "ls"])?;
    assert_eq!((&images[0]["image"], list(&images).len()), (&fetched["images"][0], 1));
    assert!(images[0]["used_by"][0].as_str().is_some_and(|title| title.ends_with("/hello@1.0.0")), "{images}");
    Ok(())
}
