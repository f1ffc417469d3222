//! Releases by keys that a publisher lent its releases to, between whole nodes: its own key stays offline.

use ed25519_dalek::SigningKey;
use rialto_protocol::ids::ImageId;
use rialto_protocol::record::Body;
use rialto_testnet::site::{SOON, text};
use rialto_tests::channels::{signed, stolen};
use rialto_tests::forge;
use rialto_tests::scene::hostile;
use rialto_tests::stage::{Outcome, Stage, accepting, list, noise};

#[test]
fn a_lent_key_publishes_for_its_publisher_until_that_takes_it_back() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    uni.write_policy(&accepting(&key))?;
    let mut lab = stage.running("lab", &[&uni])?;
    let (online, next) = (lab.new_key("online")?, lab.new_key("next")?);
    lab.new_key("stranger")?;
    lab.write_policy(&accepting(&key))?;
    lab.meets(&[&uni])?;
    let description =
        |name: &str, version: &str| stage.description(name, version, &noise(&format!("{name} {version}"), 64 << 10));
    let first = description("hello", "1.0.0")?;
    let publish = |file: &str, key: &str| -> Vec<String> {
        ["publish", file, "--key", key, "--publisher", "uni"].map(str::to_owned).into()
    };
    let refused = |file: &str, key: &str| -> Outcome<String> {
        let arguments = publish(file, key);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Ok(text(&lab.refused(&arguments, 1)?, "message")?)
    };
    let published = |file: &str, key: &str| -> Outcome<String> {
        let arguments = publish(file, key);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Ok(text(&lab.json(&arguments)?, "release")?)
    };
    assert!(refused(&first, "online")?.contains("to nobody that is known here"));

    let lend = |to: &[&str]| -> Outcome<String> {
        let terms = ["--key", "releases", "--role", "release", "--names", "hello", "--expires", "1d"];
        Ok(text(&uni.json(&[&["delegate"], to, &terms[..]].concat())?, "record")?)
    };
    let delegation = lend(&[&online])?;
    // It arrives when it does; from then on the key publishes, and nobody else does.
    let release = rialto_testnet::wait::eventually(SOON, "a release by the lent key", || {
        published(&first, "online").map_err(|error| format!("{error:?}"))
    })?;
    assert!(refused(&description("hello", "1.1.0")?, "stranger")?.contains("1 of"));
    assert!(refused(&description("web", "1.0.0")?, "online")?.contains("lent its releases of this name to nobody"));
    for site in [&uni, &lab] {
        let said = site.verdict(&release, "accept")?;
        assert!(text(&said, "because")?.contains(&format!("lent its releases to (record {delegation})")), "{said}");
        assert_eq!(site.json(&["show", "uni/hello@1.0.0"])?["release"], release.as_str());
    }
    // What policy says of roles: only one that says so takes a lent key for its signer's.
    let with_role = |delegated: bool| {
        accepting(&key).replace("then = \"accept\"", "require = [\"signed-by:makers\"]\nthen = \"accept\"").replace(
            "[[rule]]",
            &format!("[roles]\nmakers = {{ signers = [\"uni\"], delegated = {delegated} }}\n\n[[rule]]"),
        )
    };
    uni.write_policy(&with_role(false))?;
    uni.verdict(&release, "hold")?;
    uni.write_policy(&with_role(true))?;
    uni.verdict(&release, "accept")?;
    uni.write_policy(&accepting(&key))?;
    uni.verdict(&release, "accept")?;

    // Somebody who has none of the keys may name whom they like.
    let root = stolen(&uni, "releases")?;
    let mallory = SigningKey::from_bytes(&[66; 32]);
    let peer = hostile(&lab);
    let forged = signed(
        &Body::Release(Box::new(forge::release(&root, "hello", "9.0.0", ImageId::of(b"disk"), &[0; 4096])?)),
        &[&mallory],
    )?;
    peer.gossip(forged.encode())?;
    let id = forged.id().to_string();
    lab.until(SOON, "the forged release", &["policy", "explain", &id], |said| said["verdict"] == "hold")?;
    assert_eq!(lab.json(&["search"])?["total"], 1, "it is listed nowhere");

    // Another key has its place: what the first one signed was never the publisher's own word.
    uni.json(&["key", "rotate", &online, &next, "--key", "releases"])?;
    for site in [&uni, &lab] {
        let held = site.verdict(&release, "hold")?;
        assert!(text(&held, "because")?.contains("is not signed with that key"), "{held}");
    }
    let second = published(&description("hello", "2.0.0")?, "next")?;
    uni.verdict(&second, "accept")?;
    uni.json(&["fetch", &second])?;
    let decision = uni.json(&["decisions", "--limit", "1"])?;
    let replay = uni.json(&["policy", "replay", "--decision", &decision[0]["number"].to_string()])?;
    assert_eq!((&replay["is_same"], list(&replay["missing"]).len()), (&true.into(), 0), "{replay}");

    // Revoked by who lent it: rejected, before any rule; over a restart, too.
    uni.json(&["revoke", &next, "--key", "releases", "--reason", "it was stolen"])?;
    for site in [&uni, &lab] {
        let rejected = site.verdict(&second, "reject")?;
        assert!(text(&rejected, "because")?.contains("it was stolen"), "{rejected}");
    }
    // The key that lost its place, too: what it signed while it had it is not only held.
    uni.json(&["revoke", &online, "--key", "releases", "--reason", "it was lost"])?;
    for site in [&uni, &lab] {
        let rejected = site.verdict(&release, "reject")?;
        assert!(text(&rejected, "because")?.contains("it was lost"), "{rejected}");
    }
    uni.stop()?;
    uni.start()?;
    uni.verdict(&second, "reject")?;
    uni.verdict(&release, "reject")?;
    Ok(())
}

#[test]
fn two_lent_keys_publish_together() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    uni.new_key("one")?;
    uni.new_key("two")?;
    uni.write_policy(&accepting(&key))?;
    uni.json(&[
        "delegate",
        "one",
        "two",
        "--key",
        "releases",
        "--role",
        "release",
        "--threshold",
        "2",
        "--expires",
        "1d",
    ])?;
    let file = stage.description("hello", "1.0.0", &noise("hello", 64 << 10))?;
    let alone = uni.refused(&["publish", &file, "--key", "one", "--publisher", "uni"], 1)?;
    assert!(text(&alone, "message")?.contains("2 of"), "{alone}");
    uni.refused(&["publish", &file, "--key", "one", "--key", "two"], 2)?;
    uni.refused(&["publish", &file, "--key", "one", "--publisher", "nobody"], 3)?;
    let together = ["publish", &file, "--key", "one", "--key", "two", "--publisher", "uni"];
    let release = text(&uni.json(&together)?, "release")?;
    let said = uni.verdict(&release, "accept")?;
    assert!(text(&said, "because")?.contains("lent its releases to"), "{said}");
    assert_eq!(list(&uni.json(&["show", &release])?["signed_by"]).len(), 2);
    // The publisher's own key still publishes alone.
    let own = stage.publish(&uni, "hello", "2.0.0", "releases")?;
    uni.verdict(&own, "accept")?;
    // One of the two is lost: it takes both with it.
    uni.json(&["revoke", &release, "--key", "one", "--reason", "it does not boot"])?;
    uni.verdict(&release, "reject")?;
    Ok(())
}
