//! Vulnerability to key compromises: the attacker has stolen some of the keys, one fewer than are needed.

use ed25519_dalek::SigningKey;
use rialto_testnet::site::text;
use rialto_tests::channels::{Pair, fresh_only, head, lend_to_two, pair, reason, signed, stolen, until};
use rialto_tests::scene::hostile;
use rialto_tests::stage::{Outcome, Stage, list};

use super::{all_is_heard, endorsement, mallory};

/// A policy that accepts what `uni` publishes once two of three reviewers have endorsed it, one of whom has two keys.
fn two_of_three(uni: &str, reviewers: [&str; 4]) -> String {
    let [one, two, third, third_new] = reviewers;
    format!(
        "[signers]\nuni = \"{uni}\"\none = \"{one}\"\ntwo = \"{two}\"\nthird = [\"{third}\", \"{third_new}\"]\n\n\
         [roles]\nreviewers = {{ signers = [\"one\", \"two\", \"third\"], threshold = 2 }}\n\n\
         [[rule]]\nname = \"reviewed\"\nmatch = {{ publisher = [\"uni\"] }}\nrequire = [\"endorsed-by:reviewers\"]\n\
         then = \"accept\"\n"
    )
}

/// The attacker has the keys of one of the two reviewers that a role asks for, and says it in every way that one can.
#[test]
fn key_compromise_below_the_threshold_of_a_role_has_nothing_accepted() -> Outcome {
    let stage = Stage::new()?;
    let mut shop = stage.running("shop", &[])?;
    let key = shop.new_key("uni")?;
    let names = ["one", "two", "third", "third-new"];
    let keys: Vec<String> = names.iter().map(|name| shop.new_key(name)).collect::<Result<_, _>>()?;
    let [one, two, third, third_new] = [&keys[0], &keys[1], &keys[2], &keys[3]].map(String::as_str);
    shop.write_policy(&two_of_three(&key, [one, two, third, third_new]))?;
    let release = stage.publish(&shop, "hello", "1.0.0", "uni")?;
    let (old, new) = (stolen(&shop, "third")?, stolen(&shop, "third-new")?);

    // Twice with one key, once with each of two keys of one reviewer, with both at once, and with a stranger beside it.
    let thief = hostile(&shop);
    let all: [(&str, &[&SigningKey]); 5] = [
        ("It works.", &[&old]),
        ("It works well.", &[&old]),
        ("It works for me.", &[&new]),
        ("It works for us.", &[&old, &new]),
        ("We agree.", &[&old, &mallory()]),
    ];
    for (note, keys) in all {
        thief.gossip(signed(&endorsement(&release, note)?, keys)?.encode())?;
    }
    all_is_heard(&thief, &shop)?;
    let held = shop.verdict(&release, "hold")?;
    let said = reason(&held)?;
    assert!(said.starts_with("1 of 2 needed: endorsed by third") && said.contains("one has not endorsed it"), "{said}");
    shop.refused(&["deploy", &release], 4)?;

    // The second reviewer's word is what was lacking; and both keys' withdrawal takes the thief's away.
    shop.json(&["endorse", &release, "--key", "one"])?;
    shop.verdict(&release, "accept")?;
    for (name, key) in [("third", third), ("third-new", third_new)] {
        shop.json(&["revoke", key, "--key", name, "--reason", "stolen"])?;
    }
    let held = shop.verdict(&release, "hold")?;
    assert!(reason(&held)?.starts_with("1 of 2 needed: endorsed by one"), "{held}");
    shop.json(&["endorse", &release, "--key", "two"])?;
    shop.verdict(&release, "accept")?;
    Ok(())
}

/// The attacker has one of the two keys that the publisher's delegation asks for, and moves the channel back and on.
#[test]
fn key_compromise_below_the_threshold_of_a_delegation_moves_no_channel() -> Outcome {
    let stage = Stage::new()?;
    let Pair { uni, shop, releases: [first, second] } = pair(&stage)?;
    lend_to_two(&uni, "hello")?;
    let both = ["channel", "set", "uni/hello", "stable", &second, "--key", "one", "--key", "two"];
    uni.json(&both)?;
    shop.verdict(&second, "accept")?;
    let before = until(&shop, "the head of two keys", |channel| channel["state"] == "fresh")?;
    assert_eq!(before["movers"]["threshold"], 2);
    let (epoch, sequence) =
        (before["epoch"].as_u64().unwrap_or_default(), before["sequence"].as_u64().unwrap_or_default());

    let (root, one) = (stolen(&uni, "releases")?, stolen(&uni, "one")?);
    let thief = hostile(&shop);
    // Further on, as far as it goes, in the same place, and as if nothing were delegated.
    for (epoch, sequence) in [(epoch, sequence + 1), (epoch, u64::MAX), (epoch, sequence), (0, u64::MAX)] {
        thief.gossip(head(&root, &one, epoch, sequence, &first)?)?;
    }
    // With a stranger as the second.
    let body = signed_by_two(&root, &one, epoch, sequence + 2, &first)?;
    thief.gossip(body)?;
    all_is_heard(&thief, &shop)?;
    for site in [&shop, &uni] {
        let shown = until(site, "the head of two keys", |channel| channel["state"] == "fresh")?;
        assert!(shown["record"] == before["record"] && list(&shown["proof"]).is_empty(), "{shown}");
    }
    shop.verdict(&second, "accept")?;
    let held = shop.verdict(&first, "hold")?;
    assert!(reason(&held)?.contains(&format!("points at release {second}")), "{held}");
    let refused = uni.refused(&["channel", "set", "uni/hello", "stable", &first, "--key", "one"], 1)?;
    assert!(text(&refused, "message")?.contains("2 of"), "{refused}");

    // The publisher takes the stolen key's place away; the other one's holder moves the channel with the new one.
    uni.new_key("new")?;
    uni.json(&["key", "rotate", "one", "new", "--key", "releases"])?;
    uni.json(&["channel", "set", "uni/hello", "stable", &first, "--key", "new", "--key", "two"])?;
    shop.verdict(&first, "accept")?;
    Ok(())
}

fn signed_by_two(root: &SigningKey, one: &SigningKey, epoch: u64, sequence: u64, release: &str) -> Outcome<Vec<u8>> {
    let envelope = rialto_protocol::signed::Envelope::decode(&head(root, one, epoch, sequence, release)?)?;
    let body = envelope.verify()?.body.clone();
    Ok(signed(&body, &[one, &mallory()])?.encode())
}

/// The attacker has a publisher's key; its publisher has revoked it. Nothing that it signs or has signed is accepted.
#[test]
fn key_compromise_of_a_publisher_ends_with_the_revocation_of_its_key() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    let mut shop = stage.running("shop", &[&uni])?;
    shop.write_policy(&rialto_tests::stage::accepting(&key))?;
    uni.write_policy(&fresh_only(&key))?;
    let before = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    shop.verdict(&before, "accept")?;
    let root = stolen(&uni, "releases")?;
    uni.json(&["revoke", &key, "--key", "releases", "--reason", "stolen"])?;
    shop.verdict(&before, "reject")?;

    let own = super::release(&root, "hello", "9.0.0", &rialto_tests::held::Held::random(1 << 20, 1))?;
    let own = signed(&rialto_protocol::record::Body::Release(Box::new(own)), &[&root])?;
    let thief = hostile(&shop);
    thief.gossip(own.encode())?;
    let rejected = shop.verdict(&own.id().to_string(), "reject")?;
    assert!(text(&rejected, "because")?.contains("revoked"), "{rejected}");
    shop.refused(&["deploy", &own.id().to_string()], 4)?;
    Ok(())
}
