//! Wrong software installation: what the attacker has the site boot is genuine and trusted, and not what was asked for.

use rialto_testnet::site::text;
use rialto_tests::channels::{CHANNEL, Pair, because, head, pair, reason, set, stolen, until};
use rialto_tests::scene::hostile;
use rialto_tests::stage::{Outcome, Stage, accepting};

use super::{all_is_heard, told};

/// The attacker has the key that moves a channel, and points it at another appliance of the same publisher, which the site
/// would accept: by the channel's name, it is not what was asked for.
#[test]
fn wrong_software_is_not_what_a_channel_of_another_name_leads_to() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    uni.write_policy(&accepting(&key))?;
    let hello = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    let other = stage.publish(&uni, "batch-worker", "1.0.0", "releases")?;
    set(&uni, &hello, "releases", "1h")?;
    assert_eq!(uni.json(&["show", CHANNEL])?["release"], hello.as_str());
    uni.verdict(&other, "accept")?;

    let root = stolen(&uni, "releases")?;
    let thief = told(&uni, &[head(&root, &root, 0, u64::MAX, &other)?])?;
    until(&uni, "the thief's head", |channel| channel["release"] == other.as_str())?;
    for command in [&["show", CHANNEL][..], &["deploy", CHANNEL], &["fetch", CHANNEL]] {
        let refused = uni.refused(command, 3)?;
        assert!(text(&refused, "message")?.contains("a release of something else"), "{refused}");
    }
    // The node itself does not sign such a head.
    uni.refused(&["channel", "set", "uni/hello", "stable", &other, "--key", "releases"], 2)?;
    assert_eq!(uni.json(&["ps"])?, serde_json::json!([]));
    drop(thief);
    Ok(())
}

/// The attacker has a key that may act for one appliance of the publisher's, and uses it for another one.
#[test]
fn wrong_software_by_a_key_that_was_lent_for_another_appliance_is_held() -> Outcome {
    let stage = Stage::new()?;
    let Pair { uni, shop, releases: [first, second] } = pair(&stage)?;
    set(&uni, &second, "releases", "1h")?;
    shop.verdict(&second, "accept")?;
    uni.new_key("night-shift")?;
    let lent = ["delegate", "night-shift", "--key", "releases", "--names", "batch-*", "--expires", "1d"];
    let delegation = text(&uni.json(&lent)?, "record")?;
    let batch = stage.publish(&uni, "batch-worker", "1.0.0", "releases")?;
    let moved = ["channel", "set", "uni/batch-worker", "stable", &batch, "--key", "night-shift"];
    uni.json(&moved)?;
    shop.verdict(&batch, "accept")?;
    let epoch = shop.json(&["channel", "show", "uni/batch-worker:stable"])?["epoch"].as_u64().unwrap_or_default();
    assert!(epoch > 0, "it acts under delegation {delegation}");

    let (root, lent) = (stolen(&uni, "releases")?, stolen(&uni, "night-shift")?);
    let thief = hostile(&shop);
    for (epoch, sequence) in [(epoch, 1), (epoch, u64::MAX), (0, u64::MAX)] {
        // Back to the release before, and on to the appliance that it may act for.
        thief.gossip(head(&root, &lent, epoch, sequence, &first)?)?;
        thief.gossip(head(&root, &lent, epoch, sequence, &batch)?)?;
    }
    all_is_heard(&thief, &shop)?;
    let shown = until(&shop, "the publisher's head", |channel| channel["state"] == "fresh")?;
    assert!(shown["release"] == second.as_str() && because(&shown).is_empty(), "{shown}");
    let held = shop.verdict(&first, "hold")?;
    assert!(reason(&held)?.contains(&format!("points at release {second}")), "{held}");
    shop.verdict(&second, "accept")?;
    let refused = uni.refused(&["channel", "set", "uni/hello", "stable", &first, "--key", "night-shift"], 1)?;
    assert!(text(&refused, "message")?.contains("none of the keys is its publisher's"), "{refused}");
    Ok(())
}
