//! Real guests under QEMU: deployed, read from, outliving their node, withdrawn, removed.

use std::fs;
use std::time::Duration;

use rialto_testnet::appliance::Appliance;
use rialto_testnet::http::http_get;
use rialto_testnet::site::{SOON, Site, text};
use rialto_testnet::wait::{eventually, run_within};
use rialto_tests::stage::{Outcome, Stage, accepting, has_fields, list, shown};
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
    let key = uni.new_key("other")?;
    let policy = fs::read_to_string(uni.directory().join("policy.toml"))?;
    let stopping = policy.replace("then = \"accept\"", "then = \"accept\"\non-revoke = \"stop\"");
    assert_ne!(stopping, policy);
    uni.write_policy(&stopping)?;
    let deployed = uni.json(&["deploy", &release, "--set", "greeting=for now", "--publish", "0:80"])?;
    http_get(host_port(&deployed), "/", GUEST_WITHIN)?;

    // A policy to come says which guests it would touch.
    let to_come = stage.file("to-come.toml", policy.replace("then = \"accept\"", "then = \"hold\""))?;
    let diff = uni.json(&["policy", "diff", &shown(&to_come)])?;
    assert_eq!(diff["changes"][0]["instances"], serde_json::json!([deployed["instance"]]), "{diff}");

    // What a stranger says ends nothing; what its publisher says does.
    uni.json(&["revoke", &release, "--key", "other", "--reason", "envy"])?;
    uni.verdict(&release, "accept")?;
    assert!(!key.is_empty() && uni.guests().len() == 1);
    uni.json(&["revoke", &release, "--key", "releases", "--reason", "a hole in its web server"])?;
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
