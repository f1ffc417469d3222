//! Channels that need the keys of two sites: proposed by one, signed by the other, and kept fresh by both.

use rialto_protocol::bounded::Name;
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{Body, Channel};
use rialto_protocol::signed::{Draft, Envelope};
use rialto_testnet::site::{Site, text};
use rialto_tests::channels::{CHANNEL, fresh_only, public, stolen, until};
use rialto_tests::forge::now;
use rialto_tests::scene::hostile;
use rialto_tests::stage::{FEDERATION, Outcome, Stage, list};
use serde_json::Value;

/// A publisher that has lent its channels to a key of its own and one of the other site: both must sign.
struct Shared {
    uni: Site,
    lab: Site,
    release: String,
}

fn shared(stage: &Stage) -> Outcome<Shared> {
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    uni.new_key("one")?;
    uni.write_policy(&fresh_only(&key))?;
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    let mut lab = stage.running("lab", &[&uni])?;
    let two = lab.new_key("two")?;
    lab.write_policy(&fresh_only(&key))?;
    lab.meets(&[&uni])?;
    uni.json(&["delegate", "one", &two, "--key", "releases", "--threshold", "2", "--expires", "1d"])?;
    lab.verdict(&release, "hold")?;
    Ok(Shared { uni, lab, release })
}

fn propose(uni: &Site, release: &str, expires: &str) -> Outcome<String> {
    let of = ["channel", "set", "releases/hello", "stable", release, "--key", "one", "--propose", "--expires", expires];
    Ok(text(&uni.json(&of)?, "record")?)
}

fn waits(channel: &Value, record: &str) -> bool {
    list(&channel["waiting"]).iter().any(|head| head["record"] == record)
}

#[test]
fn a_head_that_two_sites_must_sign_counts_once_both_have_and_is_renewed_by_both() -> Outcome {
    let stage = Stage::new()?;
    let Shared { uni, lab, release } = shared(&stage)?;
    let alone = uni.refused(&["channel", "set", "releases/hello", "stable", &release, "--key", "one"], 1)?;
    assert!(text(&alone, "message")?.contains("2 of") && text(&alone, "hint")?.contains("--propose"), "{alone}");
    let stranger = ["channel", "set", "releases/hello", "stable", &release, "--key", "releases", "--propose"];
    assert!(text(&uni.refused(&stranger, 1)?, "message")?.contains("2 of"), "the root key is none of the two");

    let record = propose(&uni, &release, "6s")?;
    let shown = until(&lab, "a head that waits", |channel| waits(channel, &record))?;
    let head = &shown["waiting"][0];
    assert_eq!((list(&head["signed_by"]).len(), &head["threshold"], &head["version"]), (1, &2.into(), &"1.0.0".into()));
    assert!(head["because"].is_null() && shown["release"].is_null(), "{shown}");
    assert!(lab.rialto(&["channel", "show", CHANNEL])?.expect(0)?.stdout.contains("1 of 2"));
    lab.verdict(&release, "hold")?;
    for site in [&uni, &lab] {
        let warnings = site.status()?["warnings"].to_string();
        assert!(warnings.contains("signed by 1 of 2"), "{warnings}");
    }

    // The key that signs it is one of the two, and says so for the renewals, too.
    lab.new_key("third")?;
    let other = lab.refused(&["channel", "cosign", CHANNEL, "--key", "third"], 1)?;
    assert!(text(&other, "message")?.contains("not for"), "{other}");
    let signed = lab.rialto(&["channel", "cosign", CHANNEL, "--key", "two", "--renewals", "--json"])?;
    signed.expect(0)?;
    assert!(
        signed.stderr.contains(&release) && signed.stderr.contains("1 of 2"),
        "what it signs is said: {}",
        signed.stderr
    );
    let counted = signed.json()?;
    assert_eq!((&counted["signed"], &counted["threshold"]), (&2.into(), &2.into()));
    for site in [&lab, &uni] {
        let fresh = until(site, "a fresh channel", |channel| channel["state"] == "fresh")?;
        assert_eq!(list(&fresh["signed_by"]).len(), 2, "{fresh}");
        site.verdict(&release, "accept")?;
    }

    // One site makes the renewals, and the other signs them with it: the channel outlives its first head twice.
    let number = |channel: &Value| channel["sequence"].as_u64();
    let mut before = until(&lab, "a head", |channel| channel["state"] == "fresh")?;
    for _ in 0..2 {
        let is_later = |channel: &Value| channel["state"] == "fresh" && number(channel) > number(&before);
        let later = until(&lab, "a later head that both have signed", is_later)?;
        assert_eq!((list(&later["signed_by"]).len(), &later["cosigns"]), (2, &true.into()), "{later}");
        before = later;
    }

    // Of another release nothing was said; and what was said can be taken back.
    let second = stage.publish(&uni, "hello", "2.0.0", "releases")?;
    let moved = propose(&uni, &second, "1h")?;
    let waiting = until(&lab, "the head that moves it", |channel| waits(channel, &moved))?;
    assert_ne!(waiting["release"], second.as_str());
    lab.json(&["channel", "cosign", CHANNEL, "--stop"])?;
    lab.refused(&["channel", "cosign", CHANNEL, "--stop"], 3)?;
    lab.json(&["channel", "cosign", CHANNEL, "--key", "two", "--record", &moved])?;
    uni.verdict(&second, "accept")?;
    assert_eq!(uni.json(&["channel", "show", CHANNEL])?["cosigns"], false);
    lab.refused(&["channel", "cosign", CHANNEL, "--key", "two"], 3)?;
    Ok(())
}

/// A head as somebody else may make it: all of `issuers` may sign it, and `by` has.
fn head(
    publisher: PublicKey,
    epoch: u64,
    sequence: u64,
    release: &str,
    issuers: &[PublicKey],
    by: &ed25519_dalek::SigningKey,
) -> Outcome<Envelope> {
    let body = Body::Channel(Channel {
        publisher,
        name: Name::try_from("hello")?,
        channel: Name::try_from("stable")?,
        epoch,
        sequence,
        release: release.parse::<RecordId>()?,
        expires: now() + 3_600,
    });
    let issuers = issuers.iter().copied().chain([public(by)]);
    Ok(Draft::new(issuers, Some(Name::try_from(FEDERATION)?), now(), &body)?.sign(by)?.seal())
}

#[test]
fn what_a_stranger_proposes_is_not_offered_and_what_a_thief_does_cannot_contradict() -> Outcome {
    let stage = Stage::new()?;
    let Shared { uni, lab, release } = shared(&stage)?;
    let (root, one, two) = (stolen(&uni, "releases")?, stolen(&uni, "one")?, stolen(&lab, "two")?);
    let first = propose(&uni, &release, "1h")?;
    let shown = until(&lab, "the first head", |channel| waits(channel, &first))?;
    let epoch = shown["waiting"][0]["epoch"].as_u64().unwrap_or_default();
    let peer = hostile(&lab);
    let issuers = [public(&one), public(&two)];
    let forged =
        |sequence, by: &ed25519_dalek::SigningKey| head(public(&root), epoch, sequence, &release, &issuers, by);

    // By a key that may not move the channel: known here, and offered to nobody.
    let mallory = ed25519_dalek::SigningKey::from_bytes(&[66; 32]);
    let stranger = forged(now(), &mallory)?;
    peer.gossip(stranger.encode())?;
    // By a stolen one of the two, with a number that would be the last, and twice with one number.
    let last = forged(u64::MAX, &one)?;
    peer.gossip(last.encode())?;
    let at = now() + 5;
    let rivals = [forged(at, &one)?, head(public(&root), epoch, at, rialto_tests::stage::NOTHING, &issuers, &one)?];
    for rival in &rivals {
        peer.gossip(rival.encode())?;
    }
    let is_there =
        |channel: &Value| [&last, &rivals[0], &rivals[1]].iter().all(|head| waits(channel, &head.id().to_string()));
    let shown = until(&lab, "what the thief signed", is_there)?;
    assert!(!waits(&shown, &stranger.id().to_string()), "{shown}");
    let good: Vec<&Value> = list(&shown["waiting"]).iter().filter(|head| head["because"].is_null()).collect();
    assert_eq!((good.len(), &good[0]["record"]), (1, &first.as_str().into()), "{shown}");
    for (head, says) in [(&last, "no number"), (&rivals[0], "contradict"), (&rivals[1], "contradict")] {
        let record = head.id().to_string();
        let refused = lab.refused(&["channel", "cosign", CHANNEL, "--key", "two", "--record", &record], 1)?;
        assert!(text(&refused, "message")?.contains(says), "{refused}");
    }
    let record = stranger.id().to_string();
    lab.refused(&["channel", "cosign", CHANNEL, "--key", "two", "--record", &record], 3)?;

    // What points elsewhere is not signed by accident, either.
    let elsewhere = head(public(&root), epoch, at + 1, rialto_tests::stage::NOTHING, &issuers, &one)?;
    peer.gossip(elsewhere.encode())?;
    until(&lab, "one that points elsewhere", |channel| waits(channel, &elsewhere.id().to_string()))?;
    let unsure = lab.refused(&["channel", "cosign", CHANNEL, "--key", "two"], 2)?;
    assert!(text(&unsure, "hint")?.contains("--record"), "{unsure}");

    // Once an honest one is signed, what has its number is signed by nobody here.
    let honest = propose(&uni, &release, "1h")?;
    let shown = until(&lab, "the honest head", |channel| waits(channel, &honest))?;
    let is_it = |head: &&Value| head["record"] == honest.as_str();
    let found = list(&shown["waiting"]).iter().find(is_it).cloned().unwrap_or_default();
    assert!(found["because"].is_null(), "{shown}");
    let (sequence, rival) = (found["sequence"].as_u64().unwrap_or_default(), rialto_tests::stage::NOTHING);
    lab.json(&["channel", "cosign", CHANNEL, "--key", "two", "--record", &honest])?;
    lab.verdict(&release, "accept")?;
    let late = head(public(&root), epoch, sequence, rival, &issuers, &one)?;
    peer.gossip(late.encode())?;
    lab.refused(&["channel", "cosign", CHANNEL, "--key", "two", "--record", &late.id().to_string()], 3)?;
    let after = until(&lab, "a fresh channel", |channel| channel["state"] == "fresh")?;
    assert!(list(&after["proof"]).is_empty(), "{after}");
    Ok(())
}
