//! The policy file of a node that runs: changed, broken, mended, misspelt.

use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use rialto_node::keys::to_openssh;
use rialto_protocol::ids::ImageId;
use rialto_protocol::record::Body;
use rialto_testnet::site::{SOON, Site, text};
use rialto_testnet::wait::eventually;
use rialto_tests::channels::{fresh_only, public, set, signed};
use rialto_tests::forge::{catalog, now, release};
use rialto_tests::stage::{Outcome, Stage, accepting, list, reviewed, shown};

/// How soon a changed file must be in force.
const IN_FORCE: Duration = Duration::from_secs(2);
/// What asking takes, on a machine that runs other tests.
const ASKING: Duration = Duration::from_secs(1);

#[test]
fn a_changed_policy_is_in_force_within_two_seconds() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    uni.write_policy(&accepting(&key))?;
    uni.verdict(&release, "accept")?;
    let before = text(&uni.status()?["policy"], "hash")?;

    // Replaced, as editors do.
    let path = uni.directory().join("policy.toml");
    std::fs::write(uni.directory().join("new"), accepting(&key).replace("then = \"accept\"", "then = \"hold\""))?;
    std::fs::rename(uni.directory().join("new"), &path)?;
    let changed = Instant::now();
    uni.verdict(&release, "hold")?;
    assert!(changed.elapsed() < IN_FORCE + ASKING, "{:?}", changed.elapsed());
    assert_ne!(text(&uni.status()?["policy"], "hash")?, before);

    // Rewritten in place, as `>` does.
    std::fs::write(&path, accepting(&key))?;
    let changed = Instant::now();
    uni.verdict(&release, "accept")?;
    assert!(changed.elapsed() < IN_FORCE + ASKING, "{:?}", changed.elapsed());
    assert_eq!(text(&uni.status()?["policy"], "hash")?, before, "the same text, the same hash");
    Ok(())
}

#[test]
fn a_broken_policy_accepts_nothing_and_says_so() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    uni.write_policy(&accepting(&key))?;
    uni.verdict(&release, "accept")?;

    for broken in [accepting(&key).replace("then = \"accept\"", "thn = \"accept\""), "[[rule".into(), "\u{0}".into()] {
        uni.write_policy(&broken)?;
        let status = uni.until(SOON, "an error", &["status"], |status| status["policy"]["error"].is_string())?;
        let error = text(&status["policy"], "error")?;
        assert!(error.contains("line "), "{error}");
        assert!(status["policy"]["hash"].is_null(), "{status}");
        let held = uni.verdict(&release, "hold")?;
        assert!(held["policy"].is_null() && held["images"] == serde_json::json!([]), "{held}");
        let refused = uni.refused(&["deploy", &release], 4)?;
        assert!(text(&refused, "message")?.contains("policy"), "{refused}");
        uni.refused(&["fetch", &release], 4)?;
        eventually(SOON, "the error in the log", || {
            if uni.log().contains("policy") && uni.log().contains("line ") { Ok(()) } else { Err(uni.log()) }
        })?;
        // It goes on serving: what is there can be listed, and metrics tell.
        assert_eq!(uni.json(&["search"])?["total"], 1);

        uni.write_policy(&accepting(&key))?;
        uni.verdict(&release, "accept")?;
        assert!(uni.status()?["policy"]["error"].is_null());
    }

    std::fs::remove_file(uni.directory().join("policy.toml"))?;
    uni.verdict(&release, "hold")?;
    assert!(uni.status()?["policy"]["error"].is_string(), "a file that is gone is no policy");
    uni.write_policy(&accepting(&key))?;
    uni.verdict(&release, "accept")?;
    Ok(())
}

#[test]
fn a_broken_policy_at_the_start_fails_closed_as_well() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    uni.stop()?;
    uni.write_policy(&accepting(&key).replace("[[rule]]", "[[rules]]"))?;
    uni.start()?;
    assert!(text(&uni.status()?["policy"], "error")?.contains("rules"));
    uni.refused(&["deploy", &release], 4)?;
    uni.write_policy(&accepting(&key))?;
    uni.verdict(&release, "accept")?;
    Ok(())
}

#[test]
fn words_that_mean_nothing_are_errors_with_their_line() -> Outcome {
    let stage = Stage::new()?;
    let site = stage.site(&rialto_testnet::site::Plan::new("uni", "physics"))?;
    let (uni, lab) = (site.new_key("releases")?, site.new_key("reviews")?);
    let good = reviewed(&uni, &lab);
    let check = |policy: &str, code: i32| -> Outcome<String> {
        let path = shown(&stage.file("policy.toml", policy)?);
        let finished = site.rialto(&["policy", "check", &path, "--json"])?;
        finished.expect(code)?;
        if code == 0 { Ok(text(&finished.json()?, "summary")?) } else { Ok(text(&finished.error()?, "message")?) }
    };
    assert!(check(&good, 0)?.contains("uni"));
    let require = "require = [\"endorsed-by:reviewers\"]";
    // What stands there instead, and what the error must say beside the line.
    for (new, says) in [
        (require.replace("endorsed-by:reviewers", "no-advisory:hihg"), "high"),
        (format!("{require}\nupdate = \"automatic\""), "auto"),
        (format!("{require}\non-revoke = \"suspended\""), "suspend"),
        (require.replace("endorsed-by", "endorsed-bye"), "endorsed-by"),
        (require.replace("reviewers", "reviwers"), "reviewers"),
        (require.replace("require", "requires"), "require"),
        (require.replace("endorsed-by:reviewers", "verify=on"), "verify=on"),
        (format!("{require}\n{require}"), "duplicate"),
    ] {
        let message = check(&good.replace(require, &new), 1)?;
        let number = 1 + good.lines().position(|line| line == require).unwrap_or_default();
        let is_there = [number, number + 1].iter().any(|line| message.contains(&format!("line {line}")));
        assert!(is_there && message.contains(says), "{new}: {message}");
    }
    let twice = good.replace(&lab, &uni);
    assert!(check(&twice, 1)?.contains("line "), "one key under two names");
    let impossible = good.replace("threshold = 1", "threshold = 2");
    assert!(check(&impossible, 1)?.contains("threshold"));
    Ok(())
}

#[test]
fn decisions_are_made_again_as_they_were_whatever_came_since() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let (key, lab) = (uni.new_key("releases")?, uni.new_key("lab")?);
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    let strict = reviewed(&key, &lab);
    uni.write_policy(&strict)?;
    uni.verdict(&release, "hold")?;
    uni.refused(&["fetch", &release], 4)?;
    uni.json(&["endorse", &release, "--key", "lab", "--type", "https://example.org/tested"])?;
    uni.verdict(&release, "accept")?;
    uni.json(&["fetch", &release])?;

    // What was true then is not what is true now: another policy is in force, and the release is revoked.
    uni.write_policy(&accepting(&key))?;
    uni.json(&["revoke", &release, "--key", "releases", "--reason", "broken"])?;
    uni.verdict(&release, "reject")?;
    let decisions = uni.json(&["decisions"])?;
    let verdicts: Vec<_> = list(&decisions).iter().map(|decision| decision["verdict"].clone()).collect();
    assert_eq!(verdicts, ["hold", "accept"]);
    for (number, verdict) in [("1", "hold"), ("2", "accept")] {
        let replay = uni.json(&["policy", "replay", "--decision", number])?;
        assert_eq!((&replay["replayed"]["verdict"], &replay["is_same"]), (&verdict.into(), &true.into()), "{replay}");
        assert_eq!(replay["missing"], serde_json::json!([]));
    }
    uni.refused(&["policy", "replay", "--decision", "3"], 3)?;

    // Nobody may have changed the log since, and a head that was noted says which log it was.
    let verified = uni.json(&["decisions", "verify"])?;
    assert_eq!(verified["decisions"], 2);
    let head = text(&verified, "head")?;
    uni.json(&["decisions", "verify", "--head", &head])?;
    let path = uni.directory().join("decisions.log");
    let log = std::fs::read_to_string(&path)?;
    std::fs::write(&path, log.replacen("\"verdict\":\"hold\"", "\"verdict\":\"reject\"", 1))?;
    let refused = uni.refused(&["decisions", "verify"], 1)?;
    assert!(text(&refused, "message")?.contains("line 1"), "{refused}");
    std::fs::write(&path, log.lines().next().unwrap_or_default().to_owned() + "\n")?;
    uni.json(&["decisions", "verify"])?;
    uni.refused(&["decisions", "verify", "--head", &head], 1)?;
    Ok(())
}

#[test]
fn verdicts_are_given_as_they_would_have_been_at_another_time() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let (key, lab) = (uni.new_key("releases")?, uni.new_key("lab")?);
    let strict = reviewed(&key, &lab);
    uni.write_policy(&strict)?;
    // A clock has whole seconds: each thing happens in one of its own.
    let next_second = || -> Outcome<u64> {
        let before = now();
        Ok(eventually(SOON, "the next second", || if now() > before { Ok(now()) } else { Err("not yet") })?)
    };
    let noted = uni.directory().join("evidence/policies.log");
    let in_force = |uni: &Site, hash: &str| {
        uni.until(SOON, "the policy", &["status"], |status| status["policy"]["hash"] == hash)?;
        let noted = || std::fs::read_to_string(&noted).is_ok_and(|log| log.lines().any(|line| line.contains(hash)));
        Outcome::Ok(eventually(SOON, "a note of the policy", || if noted() { Ok(()) } else { Err("not yet") })?)
    };
    let strict_hash = blake3_of(&strict);
    in_force(&uni, &strict_hash)?;
    let nothing_yet = now();
    next_second()?;
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    let published = now();
    next_second()?;
    uni.json(&["endorse", &release, "--key", "lab", "--type", "https://example.org/tested"])?;
    uni.verdict(&release, "accept")?;
    let endorsed = now();
    next_second()?;
    uni.json(&["revoke", &release, "--key", "releases", "--reason", "broken"])?;
    uni.verdict(&release, "reject")?;
    let revoked = now();
    next_second()?;
    // Today's policy has another mind of everything.
    let today = "[default]\nthen = \"hold\"\n";
    uni.write_policy(today)?;
    in_force(&uni, &blake3_of(today))?;

    let check = |uni: &Site| -> Outcome {
        for (at, verdict) in [(published, "hold"), (endorsed, "accept"), (revoked, "reject")] {
            let replay = uni.json(&["policy", "replay", "--at", &at.to_string(), &release])?;
            assert_eq!((&replay["policy"], &replay["is_policy_certain"]), (&strict_hash.as_str().into(), &true.into()));
            let judged = &replay["verdicts"][0];
            assert_eq!((&judged["then"]["verdict"], &judged["now"]), (&verdict.into(), &"reject".into()), "{replay}");
            assert_eq!(judged["is_same"], verdict == "reject", "{replay}");
        }
        Ok(())
    };
    check(&uni)?;
    let early = uni.refused(&["policy", "replay", "--at", &nothing_yet.to_string(), &release], 3)?;
    assert!(text(&early, "message")?.contains("had not reached this site at"), "{early}");
    let all = uni.json(&["policy", "replay", "--at", &endorsed.to_string()])?;
    assert_eq!((&all["releases"], &all["changed"]), (&1.into(), &1.into()), "{all}");
    assert_eq!(uni.json(&["policy", "replay", "--at", &nothing_yet.to_string()])?["releases"], 0);
    let file = shown(&stage.file("other.toml", accepting(&key))?);
    let other = uni.json(&["policy", "replay", "--at", &published.to_string(), &release, "--policy", &file])?;
    assert_eq!(other["verdicts"][0]["then"]["verdict"], "accept", "{other}");
    uni.refused(&["policy", "replay", "--at", &(now() + 600).to_string()], 2)?;
    uni.refused(&["policy", "replay", "--at", "yesterday"], 2)?;
    uni.refused(&["policy", "replay"], 2)?;
    uni.refused(&["policy", "replay", "--at", "1772366400", "--decision", "1"], 2)?;

    // What was noted outlives the node; before the first note, nobody knows, and that is said.
    uni.stop()?;
    uni.start()?;
    check(&uni)?;
    std::fs::remove_file(uni.directory().join("evidence/policies.log"))?;
    uni.stop()?;
    uni.start()?;
    let unknown = uni.json(&["policy", "replay", "--at", &published.to_string(), &release])?;
    assert_eq!((&unknown["policy"], &unknown["is_policy_certain"]), (&blake3_of(today).into(), &false.into()));
    assert!(text(&unknown, "policy_because")?.contains("NOT the policy of then"), "{unknown}");
    Ok(())
}

/// Heads that later ones replaced are let go of, so of a time before only what a decision was made by is known.
#[test]
fn a_channel_of_another_time_is_judged_by_what_is_kept_of_it_and_the_rest_is_doubted() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    uni.write_policy(&fresh_only(&key))?;
    let (one, two) =
        (stage.publish(&uni, "hello", "1.0.0", "releases")?, stage.publish(&uni, "hello", "2.0.0", "releases")?);
    let next_second = |before: u64| -> Outcome {
        Ok(eventually(SOON, "the next second", || if now() > before { Ok(()) } else { Err("not yet") })?)
    };
    set(&uni, &one, "releases", "1h")?;
    uni.verdict(&one, "accept")?;
    let of_one = now();
    next_second(of_one)?;
    let head = set(&uni, &two, "releases", "1h")?;
    uni.verdict(&two, "accept")?;
    uni.json(&["fetch", &two])?;
    let of_two = now();
    next_second(of_two)?;
    set(&uni, &one, "releases", "1h")?;
    uni.verdict(&two, "hold")?;

    let at = |time: u64, release: &str| uni.json(&["policy", "replay", "--at", &time.to_string(), release]);
    let undecided = at(of_one, &one)?;
    let judged = &undecided["verdicts"][0];
    assert_eq!(judged["then"]["verdict"], "hold", "{undecided}");
    assert!(judged["doubts"].to_string().contains("what channel stable said then is not known"), "{undecided}");
    let decided = at(of_two, &two)?;
    let judged = &decided["verdicts"][0];
    assert_eq!((&judged["then"]["verdict"], &judged["now"]), (&"accept".into(), &"hold".into()), "{decided}");
    assert!(judged["doubts"].to_string().contains(&head), "{decided}");
    let today = at(now(), &one)?;
    assert_eq!(
        (&today["verdicts"][0]["is_same"], &today["verdicts"][0]["doubts"]),
        (&true.into(), &serde_json::json!([]))
    );
    Ok(())
}

fn blake3_of(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

#[test]
fn what_another_policy_would_change_is_known_before_it_is_in_force() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let (key, lab) = (uni.new_key("releases")?, uni.new_key("lab")?);
    let (one, two) =
        (stage.publish(&uni, "hello", "1.0.0", "releases")?, stage.publish(&uni, "hello", "2.0.0", "releases")?);
    uni.json(&["endorse", &one, "--key", "lab", "--type", "https://example.org/tested"])?;
    uni.write_policy(&accepting(&key))?;
    uni.verdict(&two, "accept")?;
    let strict = stage.file("strict.toml", reviewed(&key, &lab))?;
    let diff = uni.json(&["policy", "diff", &shown(&strict)])?;
    assert_eq!((&diff["releases"], &diff["changed"]), (&2.into(), &1.into()), "{diff}");
    let change = &diff["changes"][0];
    assert_eq!(
        (&change["release"], &change["old"], &change["new"]),
        (&two.as_str().into(), &"accept".into(), &"hold".into())
    );
    assert!(text(change, "because")?.contains("lab"), "{change}");
    uni.verdict(&two, "accept")?;

    // Both files named, the other way round.
    let now = shown(&uni.directory().join("policy.toml"));
    let diff = uni.json(&["policy", "diff", &shown(&strict), &now])?;
    assert_eq!((&diff["changes"][0]["old"], &diff["changes"][0]["new"]), (&"hold".into(), &"accept".into()));
    assert_eq!(uni.json(&["policy", "diff", &now])?["changed"], 0);
    let broken = stage.file("broken.toml", "[[rule")?;
    uni.refused(&["policy", "diff", &shown(&broken)], 1)?;
    uni.refused(&["policy", "diff", &shown(&stage.path().join("nowhere"))], 3)?;
    Ok(())
}

/// Records of signers that policy names are kept in full, and a slip of the pen in it must not make them strangers, whose records
/// go when there are too many.
#[test]
fn a_broken_policy_costs_no_records() -> Outcome {
    const RECORDS: u64 = 600;
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let lab = SigningKey::from_bytes(&[42; 32]);
    let good = accepting(&to_openssh(&public(&lab), "lab")?);
    let broken = good.replace("then = \"accept\"", "thn = \"accept\"");
    uni.write_policy(&good)?;
    uni.stop()?;
    // More than one stranger's share of 4 MiB.
    let long = |number: u64| -> Outcome<Vec<u8>> {
        let mut release = release(&lab, "long", &number.to_string(), ImageId::of(b"disk"), &[0; 4096])?;
        release.description = Some("so ".repeat(2_700).trim().try_into()?);
        Ok(signed(&Body::Release(Box::new(release)), &[&lab])?.encode())
    };
    let records: Vec<Vec<u8>> = (0..RECORDS).map(long).collect::<Outcome<_>>()?;
    {
        let catalog = catalog(&uni)?;
        catalog.set_named([public(&lab)])?;
        catalog.insert_batch(&records, Some("12D3KooWCourier"), now())?;
        assert_eq!(catalog.len() as u64, RECORDS);
    }
    uni.start()?;
    assert_eq!(uni.status()?["records"], RECORDS);
    uni.write_policy(&broken)?;
    uni.until(SOON, "an error", &["status"], |status| status["policy"]["error"].is_string())?;
    assert_eq!(uni.status()?["records"], RECORDS, "while it runs");
    uni.stop()?;
    uni.start()?;
    assert!(uni.status()?["policy"]["error"].is_string());
    assert_eq!(uni.status()?["records"], RECORDS, "and over a restart");
    // It is the policy's word alone that makes a stranger of somebody.
    uni.write_policy("[default]\nthen = \"hold\"\n")?;
    uni.until(SOON, "less", &["status"], |status| status["records"].as_u64().is_some_and(|records| records < RECORDS))?;
    Ok(())
}
