//! A node that is killed, or started where something is wrong.

use std::fs;

use rialto_testnet::site::{Plan, SOON, text};
use rialto_testnet::wait::run_within;
use rialto_tests::stage::{FEDERATION, Outcome, Stage, accepting, noise, shown};

#[test]
fn a_node_that_is_killed_loses_nothing_that_it_reported() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    uni.write_policy(&accepting(&key))?;
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    let said = text(&uni.json(&["endorse", &release, "--key", "releases"])?, "record")?;
    let file = shown(&stage.file("noise", noise("kept", 3 << 20))?);
    let image = text(&uni.json(&["image", "add", &file])?, "image")?;
    uni.json(&["image", "pin", &image])?;
    let (id, images) = (uni.peer_id()?, uni.json(&["image", "ls"])?);
    for _ in 0..2 {
        uni.kill();
        uni.start()?;
    }
    assert_eq!(uni.peer_id()?, id);
    assert_eq!(uni.json(&["image", "ls"])?, images);
    let details = uni.json(&["show", &release])?;
    assert!(details["verdict"] == "accept" && details["is_fetched"] == true, "{details}");
    assert_eq!(details["endorsements"][0]["record"], said.as_str());
    assert_eq!(uni.json(&["image", "verify", &image])?["bad_chunks"], 0);
    Ok(())
}

#[test]
fn a_node_that_is_killed_within_an_addition_goes_on_as_before() -> Outcome {
    const BYTES: usize = 64 << 20;
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let small = shown(&stage.file("small", noise("small", 1 << 20))?);
    let kept = text(&uni.json(&["image", "add", &small])?, "image")?;
    let big = shown(&stage.file("big", noise("big", BYTES))?);
    let mut adding = uni.command(&["image", "add", &big, "--json"]);
    let waiting = std::thread::spawn(move || run_within(&mut adding, SOON));
    uni.until(SOON, "a part of it", &["status"], |status| status["store_bytes"].as_u64() > Some(BYTES as u64 / 8))?;
    uni.kill();
    let ended = waiting.join().expect("the thread that waits for the command")?;
    assert_eq!(ended.status.code(), Some(5), "{}", String::from_utf8_lossy(&ended.stderr));

    uni.start()?;
    assert_eq!(uni.status()?["images"], 1);
    assert_eq!(uni.json(&["image", "verify", &kept])?["bad_chunks"], 0);
    let added = uni.json(&["image", "add", &big])?;
    assert_eq!(added["bytes"], BYTES);
    assert_eq!(uni.json(&["image", "verify", &text(&added, "image")?])?["bad_chunks"], 0);
    Ok(())
}

#[test]
fn a_store_without_its_index_is_read_again_from_the_segments() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let file = shown(&stage.file("noise", noise("index", 2 << 20))?);
    let image = text(&uni.json(&["image", "add", &file])?, "image")?;
    uni.stop()?;
    let index = uni.directory().join("store/index");
    assert!(index.is_dir(), "the index is at {}", index.display());
    fs::remove_dir_all(&index)?;
    uni.start()?;
    assert_eq!(uni.json(&["image", "verify", &image])?["bad_chunks"], 0);
    assert_eq!(uni.json(&["image", "add", &file])?["new_chunks"], 0);
    Ok(())
}

#[test]
fn a_node_that_cannot_run_says_why() -> Outcome {
    let stage = Stage::new()?;
    let site = stage.site(&Plan::new("uni", FEDERATION))?;
    let config = fs::read_to_string(site.directory().join("config.toml"))?;
    let says = |changed: &str, word: &str| -> Outcome {
        fs::write(site.directory().join("config.toml"), changed)?;
        let ended = site.rialto(&["node"])?;
        ended.expect(1)?;
        let is_said = ended.stderr.starts_with("error: ") && ended.stderr.contains(word);
        assert!(is_said && !ended.stdout.contains("ready"), "{ended}");
        Ok(())
    };
    says(&config.replace("federation = ", "fedration = "), "fedration")?;
    says(&config.replace("web = \"127.0.0.1:0\"", "web = \"0.0.0.0:7878\""), "loopback")?;
    says(&config.replace("peers = 12", "peers = 0"), "peers")?;
    fs::write(site.directory().join("config.toml"), &config)?;

    let format = site.directory().join("format");
    let ours = fs::read_to_string(&format)?;
    fs::write(&format, "9999\n")?;
    let newer = site.rialto(&["node"])?;
    newer.expect(1)?;
    assert!(newer.stderr.contains("newer"), "{newer}");
    fs::write(&format, ours)?;

    // A key that others can read is not used.
    use std::os::unix::fs::PermissionsExt;
    let key = site.directory().join("keys/site");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
    let open = site.rialto(&["node"])?;
    open.expect(1)?;
    assert!(open.stderr.contains("chmod 600"), "{open}");
    Ok(())
}
