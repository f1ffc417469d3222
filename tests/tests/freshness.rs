//! Channels between whole nodes: they lead to the latest release, and no attack on their freshness does.

use std::fs;

use ed25519_dalek::SigningKey;
use rialto_node::dir::NodeDir;
use rialto_node::keys::Keys;
use rialto_node::trust::Floors;
use rialto_protocol::bounded::Name;
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{Body, Channel};
use rialto_protocol::signed::Draft;
use rialto_testnet::site::{SOON, Site, text};
use rialto_testnet::wait::eventually;
use rialto_tests::forge::now;
use rialto_tests::scene::hostile;
use rialto_tests::stage::{FEDERATION, Outcome, Stage, keep_address, list};
use serde_json::Value;

const CHANNEL: &str = "uni/hello:stable";

/// A policy that accepts what `uni` publishes while a channel points at it.
fn fresh_only(key: &str) -> String {
    format!(
        "[signers]\nuni = \"{key}\"\n\n[[rule]]\nname = \"the latest\"\nmatch = {{ publisher = [\"uni\"] }}\n\
         require = [\"channel-fresh\"]\nthen = \"accept\"\n"
    )
}

/// A publisher with two releases, and a site beside it that accepts what its channel points at.
struct Pair {
    uni: Site,
    shop: Site,
    releases: [String; 2],
}

fn pair(stage: &Stage) -> Outcome<Pair> {
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    uni.write_policy(&fresh_only(&key))?;
    let releases =
        [stage.publish(&uni, "hello", "1.0.0", "releases")?, stage.publish(&uni, "hello", "2.0.0", "releases")?];
    let mut shop = stage.running("shop", &[&uni])?;
    shop.write_policy(&fresh_only(&key))?;
    shop.meets(&[&uni])?;
    Ok(Pair { uni, shop, releases })
}

fn set(site: &Site, release: &str, key: &str, expires: &str) -> Outcome<String> {
    let arguments = ["channel", "set", "releases/hello", "stable", release, "--key", key, "--expires", expires];
    Ok(text(&site.json(&arguments)?, "record")?)
}

/// Waits until the site says so of the channel.
fn until(site: &Site, what: &str, is_so: impl Fn(&Value) -> bool) -> Outcome<Value> {
    Ok(site.until(SOON, what, &["channel", "show", CHANNEL], is_so)?)
}

fn because(channel: &Value) -> String {
    list(&channel["because"]).iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
}

/// The private key of a site, as a thief has it.
fn stolen(site: &Site, name: &str) -> Outcome<SigningKey> {
    Ok(Keys::of(&NodeDir::new(site.directory())?).load(&Name::try_from(name)?)?)
}

/// A head of the channel, signed with `key`, in the name of `publisher`.
fn head(publisher: &SigningKey, key: &SigningKey, epoch: u64, sequence: u64, release: &str) -> Outcome<Vec<u8>> {
    let body = Body::Channel(Channel {
        publisher: PublicKey(publisher.verifying_key().to_bytes()),
        name: Name::try_from("hello")?,
        channel: Name::try_from("stable")?,
        epoch,
        sequence,
        release: release.parse::<RecordId>()?,
        expires: now() + 86_400,
    });
    let signer = PublicKey(key.verifying_key().to_bytes());
    Ok(Draft::new([signer], Some(Name::try_from(FEDERATION)?), now(), &body)?.sign(key)?.seal().encode())
}

#[test]
fn a_channel_leads_to_the_latest_release_for_as_long_as_its_publisher_stands_by_it() -> Outcome {
    let stage = Stage::new()?;
    let Pair { mut uni, shop, releases: [first, second] } = pair(&stage)?;
    shop.verdict(&first, "hold")?;
    set(&uni, &first, "releases", "1h")?;
    let explained = shop.verdict(&first, "accept")?;
    let head = until(&shop, "a fresh channel", |channel| channel["state"] == "fresh")?;
    let said = text(&explained["requirements"][0], "because")?;
    assert!(said.contains(&text(&head, "record")?), "the record is named: {said}");
    assert_eq!(shop.json(&["show", CHANNEL])?["release"], first.as_str());

    // The channel moves on: what it leaves is held, and one name leads to the other.
    set(&uni, &second, "releases", "6s")?;
    shop.verdict(&second, "accept")?;
    shop.verdict(&first, "hold")?;
    assert_eq!(shop.json(&["show", CHANNEL])?["release"], second.as_str());
    assert_eq!(shop.json(&["show", &second])?["channels"][0]["channel"], "stable");

    // It is signed again by itself, also after a crash.
    keep_address(&uni)?;
    let number = |channel: &Value| channel["sequence"].as_u64();
    let before = until(&shop, "a head", |channel| channel["version"] == "2.0.0")?;
    until(&shop, "a later head", |channel| number(channel) > number(&before) && channel["state"] == "fresh")?;
    uni.kill();
    uni.start()?;
    let before = until(&uni, "its channel", |channel| channel["renews"].is_string())?;
    until(&uni, "a later head", |channel| number(channel) > number(&before) && channel["version"] == "2.0.0")?;

    // Freeze: nobody brings anything newer, and the head expires.
    uni.stop()?;
    let frozen = until(&shop, "a frozen channel", |channel| channel["state"] == "frozen")?;
    assert!(frozen["frozen_seconds"].is_u64() && because(&frozen).contains("frozen"), "{frozen}");
    let held = shop.verdict(&second, "hold")?;
    assert!(text(&held["requirements"][0], "because")?.contains("it is frozen"), "{held}");
    shop.refused(&["show", CHANNEL], 3)?;
    shop.refused(&["deploy", &second], 4)?;
    Ok(())
}

#[test]
fn a_site_that_lost_its_catalog_is_not_rolled_back() -> Outcome {
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

/// A backup knows less than was signed since: what it signs next has a number of its own all the same.
#[test]
fn a_publisher_that_was_restored_from_a_backup_does_not_contradict_itself() -> Outcome {
    let stage = Stage::new()?;
    let Pair { mut uni, shop, releases: [first, second] } = pair(&stage)?;
    set(&uni, &first, "releases", "1h")?;
    until(&shop, "the first head", |channel| channel["version"] == "1.0.0")?;
    keep_address(&uni)?;
    uni.stop()?;
    let (records, backup) = (uni.directory().join("records"), stage.path().join("backup"));
    let copy = |from: &std::path::Path, to: &std::path::Path| -> Outcome {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        Ok(())
    };
    copy(&records, &backup)?;
    uni.start()?;
    set(&uni, &second, "releases", "1h")?;
    let before = until(&shop, "the second head", |channel| channel["version"] == "2.0.0")?;
    uni.stop()?;
    // The publisher's disk is lost, and nobody is there to tell it what it said.
    fs::remove_dir_all(&records)?;
    copy(&backup, &records)?;
    let number = |channel: &Value| channel["sequence"].as_u64();
    eventually(SOON, "the next second", || if Some(now()) > number(&before) { Ok(()) } else { Err("not yet") })?;
    uni.start()?;
    set(&uni, &first, "releases", "1h")?;
    let after = until(&shop, "the head after it", |channel| number(channel) > number(&before))?;
    assert!(after["state"] == "fresh" && after["version"] == "1.0.0" && list(&after["proof"]).is_empty(), "{after}");
    Ok(())
}

/// A stolen key says two things at once, then runs ahead; the publisher's own key, which was offline, ends both.
#[test]
fn a_stolen_key_that_contradicts_itself_or_runs_ahead_is_recovered_from() -> Outcome {
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

#[test]
fn a_delegation_is_for_some_names_and_a_threshold_of_keys() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    uni.write_policy(&fresh_only(&key))?;
    let batch = stage.publish(&uni, "batch-worker", "1.0.0", "releases")?;
    let hello = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    for name in ["one", "two", "other"] {
        uni.new_key(name)?;
    }
    uni.json(&[
        "delegate",
        "one",
        "two",
        "--key",
        "releases",
        "--names",
        "batch-*",
        "--threshold",
        "2",
        "--expires",
        "1d",
    ])?;
    let set = |name: &str, release: &str, keys: &[&str]| -> Vec<String> {
        let keys = keys.iter().flat_map(|key| ["--key", key]);
        ["channel", "set", name, "stable", release].into_iter().chain(keys).map(str::to_owned).collect()
    };
    let refused = |name: &str, release: &str, keys: &[&str]| -> Outcome<String> {
        let arguments = set(name, release, keys);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Ok(text(&uni.refused(&arguments, 1)?, "message")?)
    };
    assert!(refused("uni/batch-worker", &batch, &["one"])?.contains("2 of"));
    assert!(refused("uni/batch-worker", &batch, &["releases"])?.contains("2 of"));
    assert!(refused("uni/hello", &hello, &["one", "two"])?.contains("none of the keys is its publisher's"));
    for (name, release, keys) in
        [("uni/batch-worker", &batch, &["one", "two"][..]), ("uni/hello", &hello, &["releases"])]
    {
        let arguments = set(name, release, keys);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        uni.json(&arguments)?;
        uni.verdict(release, "accept")?;
    }
    let listed = uni.json(&["channel", "ls"])?;
    assert_eq!(list(&listed).len(), 2, "{listed}");
    uni.refused(&["channel", "set", "uni/hello", "stable", &batch, "--key", "releases"], 2)?;
    uni.refused(&["channel", "show", "uni/hello:testing"], 3)?;
    uni.refused(&["channel", "show", "nobody/hello:stable"], 3)?;
    uni.refused(&["show", "uni/hello"], 2)?;
    Ok(())
}

/// Nothing that is signed by a clock that has leapt could be taken back.
#[test]
fn a_node_starts_again_with_the_time_that_it_knew() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    uni.write_policy(&rialto_tests::stage::accepting(&key))?;
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    uni.verdict(&release, "accept")?;
    uni.stop()?;
    // The node last ran in 1990, it believes: today is a leap.
    let seen = Floors::open(NodeDir::new(uni.directory())?.records().join("floors.log"))?;
    assert!(seen.latest() > 1_700_000_000, "the time was written down");
    seen.note_time(631_152_000, true)?;
    drop(seen);
    uni.start()?;
    let held = uni.verdict(&release, "hold")?;
    assert!(text(&held, "because")?.contains("--accept-clock"), "{held}");
    let status = uni.status()?;
    assert!(status["warnings"].to_string().contains("1990-01-01"), "{status}");
    let unsigned = uni.refused(&["channel", "set", "uni/hello", "stable", &release, "--key", "releases"], 1)?;
    assert!(text(&unsigned, "message")?.contains("nothing is signed by this clock"), "{unsigned}");
    uni.refused(&["deploy", &release], 4)?;
    uni.json(&["doctor", "--accept-clock"])?;
    uni.verdict(&release, "accept")?;
    uni.stop()?;
    uni.start()?;
    uni.verdict(&release, "accept")?;
    Ok(())
}
