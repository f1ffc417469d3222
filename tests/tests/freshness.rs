//! Channels between whole nodes: they lead to the latest release, and their publishers' clocks and disks may fail. Attacks on
//! their freshness are among the `attacks`.

use std::fs;

use rialto_node::dir::NodeDir;
use rialto_node::trust::Floors;
use rialto_testnet::site::{SOON, text};
use rialto_testnet::wait::eventually;
use rialto_tests::channels::{CHANNEL, Pair, fresh_only, lend_to_two, pair, set, until};
use rialto_tests::forge::now;
use rialto_tests::stage::{Outcome, Stage, keep_address, list};
use serde_json::Value;

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

#[test]
fn a_delegation_is_for_some_names_and_a_threshold_of_keys() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    uni.write_policy(&fresh_only(&key))?;
    let batch = stage.publish(&uni, "batch-worker", "1.0.0", "releases")?;
    let hello = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    uni.new_key("other")?;
    lend_to_two(&uni, "batch-*")?;
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
