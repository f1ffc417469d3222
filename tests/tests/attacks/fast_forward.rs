//! Fast-forward: the attacker raises numbers so high that the publisher can never go above them again.

use ed25519_dalek::SigningKey;
use rialto_testnet::site::text;
use rialto_tests::channels::{Pair, because, head, pair, set, stolen, until};
use rialto_tests::scene::hostile;
use rialto_tests::stage::{Outcome, Stage, list};

/// The attacker has the key of a channel, and uses its numbers up, having said two things at once before; the publisher's own
/// key, which was offline, ends both.
#[test]
fn fast_forward_by_a_stolen_key_is_recovered_from_with_a_new_epoch() -> Outcome {
    let stage = Stage::new()?;
    let Pair { uni, shop, releases: [first, second] } = pair(&stage)?;
    set(&uni, &second, "releases", "1h")?;
    shop.verdict(&second, "accept")?;
    let root = stolen(&uni, "releases")?;
    let number = until(&shop, "a head", |channel| channel["sequence"].is_u64())?["sequence"].as_u64().unwrap_or(0);

    // Equivocation: the proof reaches the publisher, too, and nothing of that epoch counts.
    let thief = hostile(&shop);
    thief.gossip(head(&root, &root, 0, number, &first)?)?;
    for site in [&shop, &uni] {
        let shown = until(site, "the proof", |channel| list(&channel["proof"]).len() == 2)?;
        assert!(shown["state"] == "refused" && because(&shown).contains("contradicts itself"), "{shown}");
    }
    let held = shop.verdict(&second, "hold")?;
    assert!(text(&held["requirements"][0], "because")?.contains("contradicts itself"), "{held}");
    uni.refused(&["channel", "set", "uni/hello", "stable", &second, "--key", "releases"], 1)?;

    // A new epoch, with a key of its own.
    uni.new_key("online")?;
    let rotated = uni.json(&["key", "rotate", "releases", "online"])?;
    assert_eq!(list(&rotated["channels"]).len(), 1, "the channel that it keeps fresh is signed again: {rotated}");
    shop.verdict(&second, "accept")?;
    uni.refused(&["channel", "set", "uni/hello", "stable", &first, "--key", "releases"], 1)?;
    let mallory = SigningKey::from_bytes(&[66; 32]);
    let epoch = until(&shop, "the new epoch", |channel| channel["epoch"].as_u64() > Some(0))?["epoch"].as_u64();
    let epoch = epoch.unwrap_or(0);
    thief.gossip(head(&root, &mallory, epoch, u64::MAX, &first)?)?;

    // Fast-forward: the online key is stolen as well, and used up.
    let online = stolen(&uni, "online")?;
    thief.gossip(head(&root, &online, epoch, u64::MAX, &first)?)?;
    for site in [&shop, &uni] {
        until(site, "the thief's head", |channel| channel["release"] == first.as_str())?;
    }
    let stuck = uni.refused(&["channel", "set", "uni/hello", "stable", &second, "--key", "online"], 1)?;
    assert!(text(&stuck, "message")?.contains("no number is left"), "{stuck}");
    uni.new_key("next")?;
    uni.json(&["key", "rotate", "online", "next", "--key", "releases", "--expires", "30d"])?;
    shop.verdict(&second, "accept")?;
    shop.verdict(&first, "hold")?;
    let shown = until(&shop, "the last epoch", |channel| channel["epoch"].as_u64() > Some(epoch))?;
    assert_eq!(shown["movers"]["threshold"], 1);
    Ok(())
}
