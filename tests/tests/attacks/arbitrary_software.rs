//! Arbitrary software installation: the attacker has the site boot whatever it likes.

use rialto_protocol::codec::{self, Value};
use rialto_protocol::record::{Body, DelegatedRole, Delegation};
use rialto_protocol::signed::MAX_ENVELOPE_BYTES;
use rialto_testnet::site::text;
use rialto_tests::channels::{CHANNEL, Pair, head, pair, public, set, signed, stolen, until};
use rialto_tests::forge::{catalog, now};
use rialto_tests::held::Held;
use rialto_tests::scene::{Scene, hostile, logged};
use rialto_tests::stage::{Outcome, Stage, accepting, list};

use super::{all_is_heard, endorsement, mallory, release, told};

/// The attacker has the network and a key of its own, and publishes: for itself, and in the publisher's name.
#[test]
fn arbitrary_software_of_a_stranger_is_held_whatever_name_it_bears() -> Outcome {
    let scene = Scene::new();
    let mut shop = scene.site("shop");
    let key = shop.new_key("uni")?;
    shop.write_policy(&accepting(&key))?;
    let (uni, mallory, disk) = (stolen(&shop, "uni")?, mallory(), Held::random(1 << 20, 1));
    let own = release(&mallory, "hello", "1.0.0", &disk)?;
    // Whoever makes a record says whose it is; whether that is so, their signatures say.
    let borrowed = release(&uni, "hello", "1.0.0", &disk)?;
    let own = signed(&Body::Release(Box::new(own)), &[&mallory])?;
    let borrowed = signed(&Body::Release(Box::new(borrowed)), &[&mallory])?;
    let thief = told(&shop, &[own.encode(), borrowed.encode()])?;
    // It stands by its own work.
    for subject in [own.id(), borrowed.id()] {
        thief.gossip(signed(&endorsement(&subject.to_string(), "It works.")?, &[&mallory])?.encode())?;
    }
    all_is_heard(&thief, &shop)?;

    for id in [own.id().to_string(), borrowed.id().to_string()] {
        let verdict = shop.json(&["policy", "explain", &id])?;
        assert!(verdict["verdict"] == "hold" || verdict["verdict"] == "reject", "{verdict}");
        assert!(list(&verdict["images"]).is_empty(), "{verdict}");
        for command in [["deploy", &id], ["fetch", &id]] {
            shop.refused(&command, 4)?;
        }
    }
    // The name leads to nothing that its owner has not signed.
    shop.refused(&["show", "uni/hello@1.0.0"], 3)?;
    assert_eq!(list(&shop.json(&["image", "ls"])?).len(), 0, "nothing was fetched");
    assert_eq!(shop.json(&["ps"])?, serde_json::json!([]));
    Ok(())
}

/// The attacker has the network, and puts an image of its own into a release that the publisher signed.
#[test]
fn arbitrary_software_in_a_genuine_release_breaks_its_signature() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    let genuine = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    uni.stop()?;
    let envelope = catalog(&uni)?.get(&genuine.parse()?).map(|record| record.envelope().encode()).unwrap_or_default();
    let image = catalog(&uni)?.get(&genuine.parse()?).and_then(|record| Some(record.body.release()?.disks[0].image));
    let image = image.map(|image| image.hash().0).unwrap_or_default();
    let mut changed = envelope.clone();
    let at = envelope.windows(32).position(|bytes| bytes == image);
    changed[at.unwrap_or_default()..][..32].copy_from_slice(&Held::random(1 << 20, 1).id.hash().0);
    assert!(codec::decode_any(&changed, MAX_ENVELOPE_BYTES).is_ok_and(|value| matches!(value, Value::Map(_))));

    let mut shop = stage.running("shop", &[])?;
    shop.write_policy(&accepting(&key))?;
    let thief = hostile(&shop);
    thief.gossip(changed)?;
    logged(&shop, &["WARN", "a gossiped record is refused", &thief.peer_id(), "does not verify"]);
    assert_eq!(shop.status()?["records"], 0);
    // The genuine one is good from whomever it comes.
    let other = hostile(&shop);
    other.gossip(envelope)?;
    let accepted = shop.verdict(&genuine, "accept")?;
    assert_eq!(list(&accepted["images"]).len(), 1, "{accepted}");
    Ok(())
}

/// The attacker has the network and a key of its own, and points the publisher's channel at its own release.
#[test]
fn arbitrary_software_is_not_what_a_channel_leads_to() -> Outcome {
    let stage = Stage::new()?;
    let Pair { uni, shop, releases: [_, second] } = pair(&stage)?;
    set(&uni, &second, "releases", "1h")?;
    shop.verdict(&second, "accept")?;
    let (root, mallory) = (stolen(&uni, "releases")?, mallory());
    let own = release(&mallory, "hello", "9.0.0", &Held::random(1 << 20, 1))?;
    let own = signed(&Body::Release(Box::new(own)), &[&mallory])?;
    // It lets itself act for the publisher, too.
    let names = vec!["*".try_into()?];
    let role = DelegatedRole::Channel;
    let lent = Delegation::new(public(&root), role, [public(&mallory)], 1, names, u64::MAX, now() + 86_400)?;
    let thief = told(
        &shop,
        &[
            own.encode(),
            signed(&Body::Delegation(lent), &[&mallory])?.encode(),
            head(&root, &mallory, 0, u64::MAX, &own.id().to_string())?,
            head(&root, &mallory, u64::MAX, 1, &own.id().to_string())?,
        ],
    )?;
    all_is_heard(&thief, &shop)?;
    let shown = until(&shop, "the publisher's word", |channel| channel["state"] == "fresh")?;
    assert_eq!(shown["release"], second.as_str(), "{shown}");
    assert_eq!(shop.json(&["show", CHANNEL])?["release"], second.as_str());
    let id = own.id().to_string();
    shop.verdict(&id, "hold")?;
    assert!(text(&shop.refused(&["deploy", &id], 4)?, "message")?.contains("hold"));
    shop.verdict(&second, "accept")?;
    Ok(())
}
