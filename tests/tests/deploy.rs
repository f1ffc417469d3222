//! Real guests under QEMU: deployed, read from, outliving their node, withdrawn, removed.

use std::fs;
use std::time::Duration;

use rialto_testnet::appliance::Appliance;
use rialto_testnet::http::http_get;
use rialto_testnet::site::{SOON, Site, text};
use rialto_testnet::wait::{eventually, run_within};
use rialto_tests::stage::{Outcome, Stage, accepting, configure, has_fields, list, shown};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A guest answers within about 5 s under emulation; a busy machine gets this long.
const GUEST_WITHIN: Duration = Duration::from_secs(90);
/// From the arrival of a revocation to the end of what runs on its release.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);

/// Publishes the appliance of the demo at a site that accepts it.
fn published(site: &mut Site) -> Outcome<String> {
    let key = site.new_key("releases")?;
    site.write_policy(&accepting(&key))?;
    let description = shown(&Appliance::cached()?.description());
    Ok(text(&site.json(&["publish", &description, "--key", "releases"])?, "release")?)
}

fn instances(site: &Site) -> Outcome<Vec<Value>> {
    Ok(list(&site.json(&["ps"])?).to_vec())
}

fn is_in_state(instances: &Value, state: &str) -> bool {
    list(instances).iter().all(|instance| instance["state"] == state) && !list(instances).is_empty()
}

fn host_port(deployed: &Value) -> u16 {
    deployed["ports"][0]["host"].as_u64().and_then(|port| port.try_into().ok()).unwrap_or_default()
}

#[test]
fn a_guest_says_what_it_was_told_and_goes_when_it_is_told_to() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let release = published(&mut uni)?;

    // What is wrong is refused before anything is made.
    let greeting = "greeting=<b>What news?</b> & \"so on\"";
    for (wrong, word) in [
        (&["deploy", &release][..], "greeting"),
        (&["deploy", &release, "--set", greeting, "--set", "greting=1"], "greting"),
        (&["deploy", &release, "--set", "greeting=\u{7}"], "greeting"),
        (&["deploy", &release, "--set", greeting, "--publish", "8099:80", "--publish", "8099:81"], "8099"),
    ] {
        let refused = uni.refused(wrong, 2)?;
        assert!(text(&refused, "message")?.contains(word), "{wrong:?}: {refused}");
    }
    assert!(instances(&uni)?.is_empty() && uni.guests().is_empty());

    let deployed = uni.json(&["deploy", &release, "--set", greeting, "--publish", "0:80"])?;
    has_fields(&deployed, &["instance", "state", "ports"]);
    let (instance, port) = (text(&deployed, "instance")?, host_port(&deployed));
    let shown = instances(&uni)?;
    has_fields(&shown[0], &["instance", "release", "state", "class", "ports", "accelerator"]);
    assert_eq!((&shown[0]["instance"], &shown[0]["release"]), (&deployed["instance"], &release.as_str().into()));
    assert_eq!(uni.guests().len(), 1);
    let page = http_get(port, "/", GUEST_WITHIN)?;
    assert!(page.body.contains("What news?"), "{}", page.body);
    uni.until(SOON, "a running guest", &["ps"], |instances| is_in_state(instances, "running"))?;

    let console = uni.rialto(&["logs", &instance])?;
    assert!(console.expect(0)?.stdout.contains("hello: ready"), "{console}");
    assert_eq!(text(&uni.json(&["logs", &instance])?, "text")?, console.stdout);
    uni.refused(&["rm", &instance], 2)?;

    // Its power button works, so it need not be forced.
    let stopped = uni.json(&["stop", &instance])?;
    assert_eq!((&stopped["instance"], &stopped["state"]), (&deployed["instance"], &"stopped".into()), "{stopped}");
    assert!(uni.guests().is_empty());
    let removed = uni.json(&["rm", &instance])?;
    has_fields(&removed, &["instance", "state"]);
    assert!(instances(&uni)?.is_empty());
    uni.refused(&["logs", &instance], 3)?;
    Ok(())
}

#[test]
fn a_guest_outlives_its_node_and_is_adopted_again() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let release = published(&mut uni)?;
    let deployed = uni.json(&["deploy", &release, "--set", "greeting=still here", "--publish", "0:80"])?;
    let (instance, port) = (text(&deployed, "instance")?, host_port(&deployed));
    http_get(port, "/", GUEST_WITHIN)?;
    let guests = uni.guests();

    uni.kill();
    assert!(http_get(port, "/", GUEST_WITHIN)?.body.contains("still here"), "without its node");
    uni.start()?;
    uni.until(SOON, "the guest adopted", &["ps"], |instances| is_in_state(instances, "running"))?;
    assert_eq!(instances(&uni)?[0]["ports"], deployed["ports"]);
    uni.stop()?;
    uni.start()?;
    uni.until(SOON, "the guest adopted again", &["ps"], |instances| is_in_state(instances, "running"))?;
    assert_eq!(uni.guests(), guests, "the same guest all the time");
    assert!(http_get(port, "/", GUEST_WITHIN)?.body.contains("still here"));

    // Withdrawn while it runs: it runs on, with a warning, and no other one starts.
    uni.json(&["revoke", &release, "--key", "releases", "--reason", "a hole in its web server"])?;
    uni.until(SOON, "a warning", &["ps"], |instances| {
        instances[0]["note"].as_str().is_some_and(|note| note.contains("a hole in its web server"))
    })?;
    uni.refused(&["deploy", &release, "--set", "greeting=again"], 4)?;
    assert!(http_get(port, "/", GUEST_WITHIN)?.body.contains("still here"));
    assert_eq!(uni.guests(), guests);

    // A guest that dies while nobody looks is noticed.
    uni.stop()?;
    let guest = guests.first().and_then(|id| Pid::from_raw(i32::try_from(*id).ok()?)).expect("a guest");
    kill_process(guest, Signal::KILL)?;
    eventually(SOON, "its end", || if uni.guests().is_empty() { Ok(()) } else { Err("it runs") })?;
    uni.start()?;
    uni.until(SOON, "that it is over", &["ps"], |instances| {
        ["stopped", "failed"].iter().any(|state| is_in_state(instances, state))
    })?;
    uni.json(&["rm", &instance])?;
    assert!(instances(&uni)?.is_empty());
    Ok(())
}

#[test]
fn a_guest_of_a_revoked_release_stands_still_while_the_revocation_counts() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let release = published(&mut uni)?;
    let policy = fs::read_to_string(uni.directory().join("policy.toml"))?;
    uni.write_policy(&policy.replace("then = \"accept\"", "then = \"accept\"\non-revoke = \"suspend\""))?;
    let deployed = uni.json(&["deploy", &release, "--set", "greeting=still here", "--publish", "0:80"])?;
    let (instance, port) = (text(&deployed, "instance")?, host_port(&deployed));
    http_get(port, "/", GUEST_WITHIN)?;

    // By hand first: its memory goes to disk and comes back, and its port answers again with what it was told at boot.
    let suspended = uni.json(&["suspend", &instance])?;
    assert_eq!((&suspended["instance"], &suspended["state"]), (&deployed["instance"], &"suspended".into()));
    assert!(uni.guests().is_empty());
    uni.refused(&["suspend", &instance], 2)?;
    let resumed = uni.json(&["resume", &instance])?;
    assert_eq!((&resumed["instance"], &resumed["state"]), (&deployed["instance"], &"running".into()));
    assert!(http_get(port, "/", GUEST_WITHIN)?.body.contains("still here"));
    let console = uni.rialto(&["logs", &instance])?;
    assert_eq!(console.expect(0)?.stdout.matches("hello: ready").count(), 1, "it did not boot again: {console}");

    // By its release's revocation: it stands still, whatever happens to the node.
    uni.json(&["revoke", &release, "--key", "releases", "--reason", "a hole in its web server"])?;
    uni.until(STOPPED_WITHIN, "it suspended", &["ps"], |instances| is_in_state(instances, "suspended"))?;
    assert!(uni.guests().is_empty());
    uni.stop()?;
    uni.start()?;
    let refused = uni.refused(&["resume", &instance], 4)?;
    assert!(text(&refused, "message")?.contains("a hole in its web server"), "{refused}");

    // Nor where nobody can tell what policy says of it; what was said of it stays beside it.
    uni.write_policy("[[rule]]\nthn = \"accept\"")?;
    let refused = uni.refused(&["resume", &instance], 4)?;
    assert!(text(&refused, "message")?.contains("cannot be told"), "{refused}");
    let instances = instances(&uni)?;
    assert!(instances[0]["note"].as_str().is_some_and(|note| note.contains("a hole in its web server")));

    // Where policy takes that more lightly, it may go on.
    uni.write_policy(&policy)?;
    uni.json(&["resume", &instance])?;
    assert!(http_get(port, "/", GUEST_WITHIN)?.body.contains("still here"));
    uni.json(&["stop", &instance, "--force"])?;
    Ok(())
}

#[test]
fn a_guest_of_a_revoked_release_is_stopped_where_policy_says_so() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let release = published(&mut uni)?;
    let (_, alarm) = (uni.new_key("other")?, uni.new_key("alarm")?);
    let plain = fs::read_to_string(uni.directory().join("policy.toml"))?;
    let policy = plain
        .replace(
            "\n\n[[rule]]",
            &format!("\nalarm = \"{alarm}\"\n[roles]\nalarm = {{ signers = \"alarm\" }}\n\n[[rule]]"),
        )
        .replace("then = \"accept\"", "require = \"not-revoked-by:alarm\"\nthen = \"accept\"\notherwise = \"reject\"");
    let stopping = policy.replace("then = \"accept\"", "then = \"accept\"\non-revoke = \"stop\"");
    assert_ne!(stopping, policy);
    uni.write_policy(&stopping)?;
    let deployed = uni.json(&["deploy", &release, "--set", "greeting=for now", "--publish", "0:80"])?;
    http_get(host_port(&deployed), "/", GUEST_WITHIN)?;

    // A policy to come says which guests it would touch.
    let to_come = stage.file("to-come.toml", plain.replace("then = \"accept\"", "then = \"hold\""))?;
    let diff = uni.json(&["policy", "diff", &shown(&to_come)])?;
    assert_eq!(diff["changes"][0]["instances"], serde_json::json!([deployed["instance"]]), "{diff}");

    // What a stranger says ends nothing, also of what is her own; what its publisher says does, and whom its rule listens to:
    // the publisher's key may be a thief's by now.
    let praise = uni.json(&["endorse", &release, "--key", "other", "--type", "https://example.org/praise"])?;
    uni.json(&["revoke", &text(&praise, "record")?, "--key", "other", "--reason", "envy"])?;
    uni.json(&["revoke", &release, "--key", "other", "--reason", "envy"])?;
    uni.verdict(&release, "accept")?;
    assert_eq!(uni.guests().len(), 1);
    // Nor does what is revoked end where policy would only warn; a policy to come that says more tells so.
    uni.write_policy(&policy.replace("then = \"accept\"", "then = \"accept\"\non-revoke = \"warn\""))?;
    uni.json(&["revoke", &release, "--key", "alarm", "--reason", "a hole in its web server"])?;
    uni.until(SOON, "a warning", &["ps"], |instances| instances.to_string().contains("a hole in its web server"))?;
    let to_come = stage.file("to-come.toml", &stopping)?;
    let diff = uni.json(&["policy", "diff", &shown(&to_come)])?;
    assert_eq!(diff["changes"][0]["instances"], serde_json::json!([deployed["instance"]]), "{diff}");
    assert!(text(&diff["changes"][0], "because")?.contains("would be stopped"), "{diff}");
    assert_eq!(uni.guests().len(), 1);
    uni.write_policy(&stopping)?;
    uni.until(STOPPED_WITHIN, "its end", &["ps"], |instances| is_in_state(instances, "stopped"))?;
    assert!(uni.guests().is_empty());
    let note = text(&instances(&uni)?[0], "note")?;
    assert!(note.contains("a hole in its web server"), "{note}");
    Ok(())
}

#[test]
fn a_node_that_is_killed_while_qemu_starts_leaves_nothing_that_cannot_be_removed() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    uni.write_policy(&accepting(&key))?;
    // It has nothing to boot, which is all the same here.
    let release = stage.publish(&uni, "nothing", "1.0.0", "releases")?;
    let mut deploying = uni.command(&["deploy", &release, "--json"]);
    let waiting = std::thread::spawn(move || run_within(&mut deploying, SOON));
    uni.until(SOON, "an instance", &["ps"], |instances| !list(instances).is_empty())?;
    uni.kill();
    waiting.join().expect("the thread that waits for the command")?;

    uni.start()?;
    let settled = uni.until(SOON, "a state that lasts", &["ps"], |instances| !is_in_state(instances, "starting"))?;
    for instance in list(&settled) {
        let name = text(instance, "instance")?;
        if ["running", "stopping"].iter().any(|state| instance["state"] == *state) {
            uni.json(&["stop", &name, "--force"])?;
        }
        uni.json(&["rm", &name])?;
    }
    assert!(instances(&uni)?.is_empty());
    eventually(SOON, "no guest", || if uni.guests().is_empty() { Ok(()) } else { Err("one runs") })?;

    let deployed = uni.json(&["deploy", &release, "--publish", "0:80"])?;
    let name = text(&deployed, "instance")?;
    uni.json(&["stop", &name, "--force"])?;
    uni.json(&["rm", &name])?;
    Ok(())
}

/// Moves the channel that instances follow here.
fn set(uni: &Site, release: &str) -> Outcome {
    uni.json(&["channel", "set", "releases/hello", "stable", release, "--key", "releases"])?;
    Ok(())
}

/// Deploys a release by its channel, and once it answers publishes the next version: gives what was deployed, and that.
fn followed(uni: &Site, release: &str) -> Outcome<(Value, String)> {
    set(uni, release)?;
    let deployed =
        uni.json(&["deploy", "releases/hello:stable", "--set", "greeting=the same words", "--publish", "0:80"])?;
    http_get(host_port(&deployed), "/", GUEST_WITHIN)?;
    let next = shown(&Appliance::cached()?.next_description());
    Ok((deployed, text(&uni.json(&["publish", &next, "--key", "releases"])?, "release")?))
}

/// A release of the appliance whose kernel is none: QEMU refuses to start it.
fn broken(stage: &Stage, site: &Site, version: &str) -> Outcome<String> {
    let directory = stage.path().join(format!("broken-{version}"));
    let description = Appliance::cached()?.describe(&directory, "hello", version)?;
    // It is linked: written over, it would spoil the one that all tests boot.
    fs::remove_file(directory.join("vmlinuz"))?;
    fs::write(directory.join("vmlinuz"), b"no kernel")?;
    Ok(text(&site.json(&["publish", &shown(&description), "--key", "releases"])?, "release")?)
}

#[test]
fn an_instance_follows_its_channel_as_policy_says_and_never_to_its_own_harm() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    configure(&uni, &[("update-trial = ", "update-trial = \"3s\"")])?;
    uni.start()?;
    let first = published(&mut uni)?;
    let policy = fs::read_to_string(uni.directory().join("policy.toml"))?;
    let (deployed, second) = followed(&uni, &first)?;
    let (old, port) = (text(&deployed, "instance")?, host_port(&deployed));
    assert_eq!(instances(&uni)?[0]["channel"], "releases/hello:stable");

    // Where policy does not say otherwise, it is proposed, and nothing happens.
    set(&uni, &second)?;
    let proposed = uni.until(SOON, "a proposal", &["ps"], |instances| instances[0]["update"].is_string())?;
    assert!(text(&proposed[0], "update")?.contains("has moved to"), "{proposed}");
    assert_eq!((list(&proposed).len(), &proposed[0]["release"]), (1, &first.as_str().into()));
    assert!(uni.status()?["warnings"].to_string().contains("has moved to"));

    // One that never comes up: the old one goes on, and says so loudly; it is not tried again.
    let third = broken(&stage, &uni, "9.9.9")?;
    set(&uni, &third)?;
    let guests = uni.guests();
    uni.json(&["policy", "explain", &third])?;
    uni.write_policy(&policy.replace("then = \"accept\"", "then = \"accept\"\nupdate = \"auto\""))?;
    let is_failed = |instances: &Value| {
        list(instances).iter().any(|instance| {
            instance["instance"] == old.as_str()
                && instance["state"] == "running"
                && instance["update"].as_str().is_some_and(|update| update.contains("failed"))
        })
    };
    let failed = uni.until(GUEST_WITHIN, "an update that failed", &["ps"], is_failed)?;
    assert_eq!(list(&failed).len(), 2, "the one that did not come up can be looked at: {failed}");
    assert_eq!(list(&failed)[1]["state"], "failed", "{failed}");
    assert!(http_get(port, "/", GUEST_WITHIN)?.body.contains("the same words"));
    assert_eq!((uni.guests().len(), guests.len()), (1, 1));
    assert!(uni.log().contains("the update to"), "it is in the log");

    // One that comes up takes its place: same words, same port, and it follows the channel in turn.
    set(&uni, &second)?;
    let replaced = uni.until(GUEST_WITHIN, "a replacement", &["ps"], |instances| {
        list(instances).iter().any(|instance| instance["release"] == second.as_str() && instance["state"] == "running")
            && list(instances)
                .iter()
                .any(|instance| instance["instance"] == old.as_str() && instance["state"] == "stopped")
    })?;
    let (new, gone): (Vec<&Value>, Vec<&Value>) =
        list(&replaced).iter().partition(|instance| instance["release"] == second.as_str());
    assert_eq!(
        (new.len(), &new[0]["ports"], &new[0]["channel"]),
        (1, &deployed["ports"], &"releases/hello:stable".into())
    );
    uni.until(SOON, "why the old one is over", &["ps"], |instances| {
        instances.to_string().contains("replaced by instance")
    })?;
    assert!(gone.iter().all(|instance| instance["state"] != "running"), "{replaced}");
    assert!(http_get(port, "/", GUEST_WITHIN)?.body.contains("the same words"));
    assert_eq!(uni.guests().len(), 1);
    uni.json(&["stop", &text(new[0], "instance")?, "--force"])?;
    Ok(())
}

/// While the new guest stands its trial, two are there, and either can be the one that goes on: with what it was told, and where it
/// is asked.
#[test]
fn a_node_killed_in_the_middle_of_an_update_leaves_one_instance_that_runs() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let trial =
        |uni: &Site, within: &str| configure(uni, &[("update-trial = ", &format!("update-trial = \"{within}\""))]);
    trial(&uni, "10m")?;
    uni.start()?;
    let first = published(&mut uni)?;
    let policy = fs::read_to_string(uni.directory().join("policy.toml"))?;
    uni.write_policy(&policy.replace("then = \"accept\"", "then = \"accept\"\nupdate = \"auto\""))?;
    let (deployed, second) = followed(&uni, &first)?;
    let (old, port) = (text(&deployed, "instance")?, host_port(&deployed));
    let is_on_trial = |instances: &Value| {
        let is = |id_is_old: bool, state: &str| {
            list(instances).iter().any(|one| (one["instance"] == old.as_str()) == id_is_old && one["state"] == state)
        };
        is(true, "suspended") && is(false, "running")
    };

    // While the new one stands its trial, it dies with the node: the old one goes on where it stood still. The policy no longer
    // says `auto`, so that it stays at that.
    set(&uni, &second)?;
    uni.until(GUEST_WITHIN, "the new one on trial", &["ps"], is_on_trial)?;
    uni.kill();
    let guests = uni.guests();
    let guest = guests.first().and_then(|id| Pid::from_raw(i32::try_from(*id).ok()?)).expect("the guest on trial");
    kill_process(guest, Signal::KILL)?;
    eventually(SOON, "its end", || if uni.guests().is_empty() { Ok(()) } else { Err("it runs") })?;
    uni.write_policy(&policy)?;
    uni.start()?;
    uni.until(GUEST_WITHIN, "the old one again", &["ps"], |instances| {
        list(instances).iter().any(|one| one["instance"] == old.as_str() && one["state"] == "running")
    })?;
    assert!(http_get(port, "/", GUEST_WITHIN)?.body.contains("the same words"));
    assert_eq!(uni.guests().len(), 1);

    // While it stands its trial, only the node dies: it stays, and the old one is over.
    uni.write_policy(&policy.replace("then = \"accept\"", "then = \"accept\"\nupdate = \"auto\""))?;
    uni.until(GUEST_WITHIN, "the new one on trial again", &["ps"], is_on_trial)?;
    uni.kill();
    trial(&uni, "1s")?;
    uni.start()?;
    uni.until(GUEST_WITHIN, "the new one in its place", &["ps"], |instances| {
        let note = |one: &Value| one["note"].as_str().is_some_and(|note| note.contains("replaced by instance"));
        list(instances).iter().any(|one| one["instance"] == old.as_str() && one["state"] == "stopped" && note(one))
    })?;
    assert!(http_get(port, "/", GUEST_WITHIN)?.body.contains("the same words"));
    assert_eq!(uni.guests().len(), 1);
    let running: Vec<Value> = instances(&uni)?.into_iter().filter(|one| one["state"] == "running").collect();
    assert_eq!((running.len(), &running[0]["release"]), (1, &second.as_str().into()));
    uni.json(&["stop", &text(&running[0], "instance")?, "--force"])?;
    Ok(())
}
