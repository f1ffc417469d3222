//! Rollback: the attacker has the site go back to a release with holes that are known by now.

use std::fs;

use rialto_tests::channels::{CHANNEL, Pair, because, head, pair, reason, set, stolen, until};
use rialto_tests::scene::hostile;
use rialto_tests::stage::{Outcome, Stage, keep_address};

use super::{all_is_heard, told};

/// The attacker has the network, and says again what the publisher said before.
#[test]
fn rollback_by_an_old_head_changes_nothing() -> Outcome {
    let stage = Stage::new()?;
    let Pair { uni, mut shop, releases: [first, second] } = pair(&stage)?;
    set(&uni, &first, "releases", "1h")?;
    set(&uni, &second, "releases", "1h")?;
    shop.verdict(&second, "accept")?;
    let key = stolen(&uni, "releases")?;
    let old = head(&key, &key, 0, 1, &first)?;
    let check = |shop: &rialto_testnet::site::Site| -> Outcome {
        let shown = until(shop, "the newer head", |channel| channel["state"] == "fresh")?;
        assert_eq!(shown["release"], second.as_str(), "{shown}");
        let held = shop.verdict(&first, "hold")?;
        assert!(reason(&held)?.contains(&format!("points at release {second}")), "{held}");
        shop.refused(&["deploy", &first], 4)?;
        Ok(())
    };
    let keeper = told(&shop, std::slice::from_ref(&old))?;
    all_is_heard(&keeper, &shop)?;
    check(&shop)?;
    // Nor after a restart.
    shop.stop()?;
    shop.start()?;
    let keeper = told(&shop, &[old])?;
    all_is_heard(&keeper, &shop)?;
    check(&shop)
}

/// The attacker has the network and an old head, and the site has lost its catalog with the newer one.
#[test]
fn rollback_of_a_site_that_lost_its_catalog_is_noticed() -> Outcome {
    let stage = Stage::new()?;
    let Pair { mut uni, mut shop, releases: [first, second] } = pair(&stage)?;
    set(&uni, &first, "releases", "1h")?;
    set(&uni, &second, "releases", "1h")?;
    shop.verdict(&second, "accept")?;
    let key = stolen(&uni, "releases")?;
    keep_address(&uni)?;
    uni.stop()?;
    // Whatever is in its log was written with a head that came before it was stopped.
    shop.json(&["channel", "show", CHANNEL])?;
    shop.refused(&["fetch", &first], 4)?;
    shop.stop()?;
    fs::remove_file(shop.directory().join("records/records.log"))?;
    shop.start()?;
    let lost = shop.json(&["channel", "show", CHANNEL])?;
    assert!(lost["record"].is_null() && because(&lost).contains("rolled back"), "{lost}");

    // Somebody who has kept an old head brings it: it is genuine, and it is old.
    // It must live until it is heard.
    let keeper = hostile(&shop);
    keeper.gossip(head(&key, &key, 0, 1, &first)?)?;
    let old = until(&shop, "the old head", |channel| channel["release"] == first.as_str())?;
    assert!(old["state"] == "refused" && because(&old).contains("rolled back"), "{old}");
    shop.refused(&["show", CHANNEL], 3)?;

    uni.start()?;
    shop.meets(&[&uni])?;
    shop.verdict(&second, "accept")?;
    shop.verdict(&first, "hold")?;
    Ok(())
}
