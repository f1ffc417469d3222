//! What the README says of backup and restore: the files that it names are enough, and the site is the same again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use rialto_testnet::site::{Plan, Rialto, SOON, Site, text};

/// The table of the README's section on backup, without the parts that it calls optional.
const BACKED_UP: [&str; 7] = ["keys", "config.toml", "policy.toml", "format", "records", "decisions.log", "evidence"];

/// Writes what `publish` reads, with a disk of its own for each version.
fn appliance(base: &Path, version: &str) -> String {
    let disk: Vec<u8> = (0..300_000u32).flat_map(|n| (n ^ version.len() as u32).to_le_bytes()).collect();
    fs::write(base.join("disk.raw"), disk).expect("the disk is written");
    let description = format!(
        "name = \"hello\"\nversion = \"{version}\"\narch = \"x86_64\"\nsummary = \"Says what it is told to\"\n\n\
         [[disks]]\nfile = \"disk.raw\"\nformat = \"raw\"\n\n[boot]\nkind = \"bios\"\n\n\
         [requirements]\nvcpus = 1\nmemory = \"64 MiB\"\n"
    );
    let file = base.join("appliance.toml");
    fs::write(&file, description).expect("the description is written");
    file.to_str().expect("a path in UTF-8").to_owned()
}

fn policy(uni: &str) -> String {
    format!(
        "[signers]\nuni = \"{uni}\"\n\n[[rule]]\nname = \"what uni makes\"\nmatch = {{ publisher = [\"uni\"] }}\n\
         then = \"accept\"\n"
    )
}

fn copy(from: &Path, to: &Path, name: &str) {
    let copied = Command::new("cp").arg("-a").arg(from.join(name)).arg(to).status().expect("cp runs");
    assert!(copied.success(), "{name} is not there to be backed up");
}

#[test]
fn a_site_that_lost_its_disk_is_itself_again_from_its_backup() {
    let rialto = Rialto::find().expect("the rialto binary");
    let base = tempfile::tempdir().expect("a directory");
    let mut uni = Site::init(&rialto, base.path(), &Plan::new("uni", "backup")).expect("uni is set up");
    let releases = uni.new_key("releases").expect("a key");
    uni.start().expect("uni runs");
    let plan = Plan::new("shop", "backup").knows(&uni).expect("uni has an address");
    let mut shop = Site::init(&rialto, base.path(), &plan).expect("shop is set up");
    shop.write_policy(&policy(&releases)).expect("shop has a policy");
    let reviews = shop.new_key("reviews").expect("a key");
    shop.start().expect("shop runs");
    shop.meets(&[&uni]).expect("they meet");

    let file = appliance(base.path(), "1.0.0");
    let published = uni.json(&["publish", &file, "--key", "releases"]).expect("uni publishes");
    let release = text(&published, "release").expect("a release");
    let before = shop.verdict(&release, "accept").expect("shop accepts it");
    shop.json(&["fetch", &release]).expect("shop fetches it");
    let endorsing = ["endorse", &release, "--key", "reviews", "--type", "https://example.org/tested/v1"];
    let endorsement = text(&shop.json(&endorsing).expect("shop endorses it"), "record").expect("a record");
    let peer_id = shop.peer_id().expect("a peer id");
    let records = shop.status().expect("a status")["records"].clone();
    shop.stop().expect("shop ends");

    let backup = base.path().join("backup");
    fs::create_dir(&backup).expect("a directory");
    for name in BACKED_UP {
        copy(shop.directory(), &backup, name);
    }
    let decisions = fs::read(backup.join("decisions.log")).expect("the decisions");
    assert!(!decisions.is_empty(), "fetching it was a decision");
    fs::remove_dir_all(shop.directory()).expect("the disk is lost");

    let published = uni.json(&["publish", &appliance(base.path(), "1.10.0"), "--key", "releases"]);
    let missed = text(&published.expect("uni goes on"), "release").expect("a release");

    fs::create_dir(shop.directory()).expect("a new directory");
    fs::set_permissions(shop.directory(), fs::Permissions::from_mode(0o700)).expect("its mode");
    for name in BACKED_UP {
        copy(&backup, shop.directory(), name);
    }
    shop.rialto(&["doctor"]).expect("doctor runs").expect(0).expect("doctor has nothing to say against it");
    shop.start().expect("shop runs again");

    assert_eq!(shop.peer_id().expect("a peer id"), peer_id);
    assert_eq!(text(&shop.json(&["key", "show", "reviews"]).expect("the key"), "public_key").expect("a key"), reviews);
    let shown = shop.json(&["show", &release]).expect("the release is known").to_string();
    assert!(shown.contains(&endorsement) || shown.contains("https://example.org/tested/v1"), "{shown}");
    let after = shop.verdict(&release, "accept").expect("it is still accepted");
    assert_eq!((&after["rule"], &after["images"]), (&before["rule"], &before["images"]));
    let kept = fs::read(shop.directory().join("decisions.log")).expect("the decisions");
    assert!(kept.starts_with(&decisions), "the decisions of before are there");

    // What the store had is fetched again, and what was said meanwhile is heard.
    let status = shop.status().expect("a status");
    assert_eq!(status["images"], 0, "the store was left out");
    shop.meets(&[&uni]).expect("they meet again");
    shop.verdict(&missed, "accept").expect("what was published meanwhile");
    let fetched = shop.json(&["fetch", &release]).expect("it is fetched again");
    assert!(fetched["wire_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{fetched}");
    let grown = |status: &serde_json::Value| status["records"].as_u64() > records.as_u64();
    shop.until(SOON, "the records of before and the one it missed", &["status"], grown).expect("its records");
}
