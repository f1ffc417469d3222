//! What scripts rely on: fields of `--json`, exit codes, and where errors stand.

use std::fs;

use rialto_testnet::site::{Plan, Site, text};
use rialto_tests::stage::{FEDERATION, NOTHING, Outcome, Stage, accepting, has_fields, list, noise, shown};
use serde_json::Value;

/// Runs a command that fails, and returns the code of its error. Nothing may be on standard output.
fn failure(site: &Site, arguments: &[&str], exit: i32) -> Outcome<String> {
    let finished = site.rialto(&[arguments, &["--json"]].concat())?;
    let error = finished.expect(exit)?.error()?;
    assert_eq!(finished.stdout, "", "{arguments:?}");
    has_fields(&error, &["code", "message", "hint"]);
    assert!(error["message"].as_str().is_some_and(|message| message.len() > 5), "{error}");
    Ok(text(&error, "code")?)
}

#[test]
fn a_node_that_does_not_run_is_exit_code_5() -> Outcome {
    let stage = Stage::new()?;
    let site = stage.site(&Plan::new("uni", FEDERATION))?;
    let file = shown(&stage.file("file", "content")?);
    for arguments in [
        &["status"][..],
        &["peers"],
        &["image", "add", &file],
        &["image", "ls"],
        &["image", "gc"],
        &["publish", &file, "--key", "site"],
        &["search"],
        &["show", NOTHING],
        &["endorse", NOTHING, "--key", "site"],
        &["revoke", NOTHING, "--key", "site", "--reason", "none"],
        &["policy", "explain", NOTHING],
        &["fetch", NOTHING],
        &["deploy", NOTHING],
        &["ps"],
        &["stop", "i"],
        &["rm", "i"],
        &["logs", "i"],
        &["web"],
    ] {
        assert_eq!(failure(&site, arguments, 5)?, "not-running", "{arguments:?}");
    }
    // These need none.
    for arguments in [&["key", "list"][..], &["key", "show"], &["policy", "check"], &["key", "new", "releases"]] {
        site.json(arguments)?;
    }
    // People read the same without JSON.
    let told = site.rialto(&["status"])?;
    told.expect(5)?;
    assert!(told.stderr.starts_with("error: ") && told.stderr.contains("rialto --dir"), "{told}");
    Ok(())
}

#[test]
fn wrong_usage_is_exit_code_2() -> Outcome {
    let stage = Stage::new()?;
    let site = stage.running("uni", &[])?;
    site.new_key("releases")?;
    let unknown_key = shown(&stage.file(
        "appliance.toml",
        fs::read_to_string(stage.description("hello", "1.0.0", b"disk")?)?.replace("summary", "sumary"),
    )?);
    for arguments in [
        &["dance"][..],
        &["fetch"],
        &["fetch", "short"],
        &["fetch", "uni/hello"],
        &["show", "uni/hello:Stable"],
        &["channel", "show", "uni/hello"],
        &["channel", "set", "hello", "stable", NOTHING],
        &["delegate", "online", "--key", "releases", "--names", "No Name"],
        &["image", "verify", "not-an-image"],
        &["image", "get", NOTHING],
        &["deploy", NOTHING, "--publish", "80"],
        &["deploy", NOTHING, "--set", "greeting"],
        &["deploy", NOTHING, "--set", "a=1", "--set", "a=2"],
        &["search", "--limit", "0"],
        &["endorse", NOTHING, "--key", "Not A Name"],
        &["publish", &unknown_key, "--key", "releases"],
        &["logs", "i", "--follow"],
        &["key", "new", "releases.pub"],
        &["image", "add", &shown(stage.path())],
    ] {
        assert_eq!(failure(&site, arguments, 2)?, "usage", "{arguments:?}");
    }
    let refused = site.refused(&["publish", &unknown_key, "--key", "releases"], 2)?;
    assert!(
        text(&refused, "message")?.contains("line 4") && text(&refused, "message")?.contains("sumary"),
        "{refused}"
    );
    Ok(())
}

#[test]
fn what_is_not_there_is_exit_code_3() -> Outcome {
    let stage = Stage::new()?;
    let site = stage.running("uni", &[])?;
    let description = stage.description("hello", "1.0.0", b"disk")?;
    let never = shown(&stage.path().join("never-written"));
    for arguments in [
        &["show", NOTHING][..],
        &["show", &NOTHING[..20]],
        &["show", "uni/hello@1.0.0"],
        &["show", "uni/hello:stable"],
        &["channel", "show", "site/hello:stable"],
        &["channel", "set", "site/hello", "stable", NOTHING, "--key", "site"],
        &["delegate", "no-such-key", "--key", "site"],
        &["policy", "explain", NOTHING],
        &["endorse", NOTHING, "--key", "site"],
        &["revoke", NOTHING, "--key", "site", "--reason", "none"],
        &["deploy", NOTHING],
        &["fetch", "uni/hello@1.0.0"],
        &["image", "verify", NOTHING],
        &["image", "get", NOTHING, "-o", &never],
        &["image", "rm", NOTHING],
        &["image", "pin", NOTHING],
        &["image", "unpin", NOTHING],
        &["image", "verify", &NOTHING[..20]],
        &["image", "add", "/nonexistent/file"],
        &["publish", "/nonexistent/appliance.toml", "--key", "site"],
        &["publish", &description, "--key", "nobody"],
        &["key", "show", "nobody"],
        &["policy", "check", "/nonexistent/policy.toml"],
        &["stop", "nothing"],
        &["rm", "nothing"],
        &["logs", "nothing"],
    ] {
        assert_eq!(failure(&site, arguments, 3)?, "not-found", "{arguments:?}");
    }
    assert!(!fs::exists(never)?);
    Ok(())
}

#[test]
fn every_command_prints_one_value_with_the_fields_that_scripts_rely_on() -> Outcome {
    let stage = Stage::new()?;
    let mut site = stage.running("uni", &[])?;
    let status = site.status()?;
    has_fields(&status, &["peer_id", "listen", "peers", "web", "records", "images", "store_bytes", "policy"]);
    has_fields(&status["policy"], &["hash", "error"]);
    let peer = format!("/p2p/{}", text(&status, "peer_id")?);
    let listen = list(&status["listen"]);
    assert!(
        !listen.is_empty() && listen.iter().all(|at| at.as_str().is_some_and(|at| at.ends_with(&peer))),
        "{status}"
    );
    assert!(status["peers"].is_u64() && status["store_bytes"].is_u64() && status["policy"]["error"].is_null());
    assert_eq!(site.json(&["peers"])?, Value::Array(Vec::new()));
    assert_eq!(site.json(&["ps"])?, Value::Array(Vec::new()));

    let key = site.json(&["key", "new", "releases"])?;
    assert_eq!(key["name"], "releases");
    let key = text(&key, "public_key")?;
    assert!(key.starts_with("ssh-ed25519 AAAA"), "{key}");
    assert_eq!(site.json(&["key", "show", "releases"])?["public_key"], key.as_str());
    assert_eq!(failure(&site, &["key", "new", "releases"], 1)?, "failed", "no key is overwritten");
    site.write_policy(&accepting(&key))?;

    let file = shown(&stage.file("noise", noise("cli", 300_000))?);
    let added = site.json(&["image", "add", &file])?;
    has_fields(&added, &["image", "bytes", "chunks", "new_chunks", "stored_bytes", "seconds"]);
    assert!(added["bytes"] == 300_000 && added["seconds"].is_f64(), "{added}");
    let listed = site.json(&["image", "ls"])?;
    assert_eq!(listed[0]["image"], added["image"]);

    let release = stage.publish(&site, "hello", "1.0.0", "releases")?;
    for name in [release.as_str(), &release[..12], "uni/hello@1.0.0"] {
        let explained = site.json(&["policy", "explain", name])?;
        has_fields(&explained, &["verdict", "rule", "requirements", "images"]);
        assert_eq!((&explained["verdict"], &explained["release"]), (&"accept".into(), &release.as_str().into()));
        assert_eq!(site.json(&["show", name])?["release"], release.as_str());
        let fetched = site.json(&["fetch", name])?;
        has_fields(&fetched, &["images", "bytes", "wire_bytes", "duplicate_bytes", "seconds", "peers"]);
        assert!(fetched["images"] == explained["images"] && fetched["wire_bytes"] == 0, "{fetched}");
        assert!(fetched.get("image").is_none(), "only for an image: {fetched}");
    }
    let fetched = site.json(&["fetch", &text(&added, "image")?])?;
    assert_eq!(fetched["image"], added["image"]);
    has_fields(&site.json(&["search", "hello"])?, &["total", "releases"]);
    assert_eq!(site.json(&["search", "goodbye"])?["total"], 0);
    let narrowed =
        site.json(&["search", "hel", "--arch", "x86_64", "--within", "1d", "--limit", "1", "--page", "1"])?;
    assert_eq!((&narrowed["total"], &narrowed["facets"]["archs"][0]["value"]), (&1.into(), &"x86_64".into()));
    assert_eq!(site.json(&["search", "--arch", "aarch64"])?["total"], 0);
    assert_eq!(site.json(&["search", "--tag", "no-such-tag"])?["total"], 0);
    assert_eq!(site.json(&["search", "--publisher", "nobody"])?["total"], 0);

    let note = shown(&stage.file("note.txt", "boots, answers")?);
    let uri = "https://example.org/looked-at/v1";
    let said = site.json(&["endorse", &release, "--key", "releases", "--type", uri, "--body", &note])?;
    has_fields(&said, &["record"]);
    let shown_endorsement = &site.json(&["show", &release])?["endorsements"][0];
    assert_eq!((&shown_endorsement["predicate"], &shown_endorsement["note"]), (&uri.into(), &"boots, answers".into()));
    has_fields(&site.json(&["revoke", &text(&said, "record")?, "--key", "releases", "--reason", "no"])?, &["record"]);
    assert_eq!(site.json(&["show", &release])?["endorsements"][0]["is_void"], true);
    assert_eq!(site.status()?["records"], 3);
    Ok(())
}

#[test]
fn what_policy_does_not_accept_is_exit_code_4() -> Outcome {
    let stage = Stage::new()?;
    let site = stage.running("uni", &[])?;
    site.new_key("releases")?;
    let release = stage.publish(&site, "hello", "1.0.0", "releases")?;
    let explained = site.json(&["policy", "explain", &release])?;
    assert!(explained["verdict"] == "hold" && list(&explained["images"]).is_empty(), "exit code 0 all the same");
    for arguments in [&["fetch", &release][..], &["deploy", &release]] {
        assert_eq!(failure(&site, arguments, 4)?, "refused", "{arguments:?}");
    }
    assert!(text(&site.refused(&["fetch", &release], 4)?, "hint")?.contains("--held"));
    site.json(&["fetch", &release, "--held"])?;
    Ok(())
}

#[test]
fn init_overwrites_nothing() -> Outcome {
    let stage = Stage::new()?;
    let site = stage.site(&Plan::new("uni", FEDERATION))?;
    let files = ["config.toml", "policy.toml", "keys/site", "keys/site.pub", "format"];
    let read = || files.map(|file| fs::read(site.directory().join(file)).expect(file));
    let before = read();
    let again = ["init", "--name", "other", "--federation", "other"];
    assert_eq!(failure(&site, &again, 1)?, "failed");
    assert_eq!(read(), before);

    // What an administrator prepared stays, and nobody is asked where there is no terminal.
    let policy = stage.file("prepared/policy.toml", "# mine\n[default]\nthen = \"hold\"\n")?;
    let prepared = stage.site(&Plan::new("prepared", FEDERATION))?;
    assert!(fs::read_to_string(policy)?.starts_with("# mine"));
    fs::remove_dir_all(prepared.directory())?;
    assert_eq!(failure(&prepared, &["init"], 2)?, "usage");
    assert!(!prepared.directory().exists());
    has_fields(&prepared.json(&["init", "--name", "lab", "--federation", FEDERATION])?, &["peer_id", "public_key"]);
    Ok(())
}

#[test]
fn a_version_is_published_once() -> Outcome {
    let stage = Stage::new()?;
    let site = stage.running("uni", &[])?;
    site.new_key("releases")?;
    let release = stage.publish(&site, "hello", "1.0.0", "releases")?;
    let description = stage.description("hello", "1.0.0", b"another disk")?;
    let refused = site.refused(&["publish", &description, "--key", "releases"], 1)?;
    assert!(text(&refused, "message")?.contains(&release), "{refused}");
    assert_eq!(site.status()?["records"], 1);
    Ok(())
}

#[test]
fn one_directory_has_one_node() -> Outcome {
    let stage = Stage::new()?;
    let site = stage.running("uni", &[])?;
    let second = site.rialto(&["node"])?;
    second.expect(1)?;
    assert!(second.stderr.contains("error: "), "{second}");
    site.status()?;
    Ok(())
}
