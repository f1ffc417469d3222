//! Endorsements that carry in-toto statements: whose word they are, and when they count.

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use rialto_protocol::attestation::{PREDICATE_PROVENANCE, PREDICATE_VERIFICATION};
use rialto_protocol::record::{EndorsementBody, Record, RevocationSubject};
use rialto_protocol::signed::Verified;
use rialto_web::api::VerdictKind::{Accept, Hold};
use serde_json::{Value, json};

use super::testing::{NOW, Scene, brought, endorsement, key, public, revoked, signed};
use super::{Facts, Policy, Verdict, evaluate, makers_of, revocation_subjects};

const TYPE: &str = "https://example.org/tested/v1";
/// One reviewer is enough.
const BY_ONE: &str = "require = \"endorsed-by:checkers\"\nthen = \"accept\"";

fn policy(scene: &Scene, rule: &str) -> Policy {
    let text = scene.preamble() + "checkers = { signers = [\"security\", \"desy\"] }\n\n[[rule]]\n" + rule + "\n";
    Policy::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Judges by all of `known` that the policy asks for.
fn judged(policy: &Policy, release: &Verified<Record>, known: &[Verified<Record>]) -> Verdict {
    let endorsements = known.iter().filter(|record| record.body.endorsement().is_some()).collect();
    let mut facts = Facts { endorsements, ..Facts::default() };
    let subjects = revocation_subjects(Some(policy), release, &facts);
    let is_asked_for =
        |record: &&Verified<Record>| record.body.revocation().is_some_and(|said| subjects.contains(&said.subject));
    facts.revocations = known.iter().filter(is_asked_for).collect();
    evaluate(policy, release, &facts, NOW)
}

fn because(verdict: &Verdict) -> &str {
    &verdict.requirements()[0].because
}

fn tested(release: &Verified<Record>, keys: &[&SigningKey], importer: &SigningKey) -> Verified<Record> {
    brought(release, TYPE, json!({}), keys, importer)
}

fn provenance(finished: Option<&str>) -> Value {
    json!({
        "buildDefinition": {"buildType": "https://example.org/factory"},
        "runDetails": {"builder": {"id": "https://example.org/builder"}, "metadata": {"finishedOn": finished}},
    })
}

#[test]
fn the_signers_of_a_statement_count_and_who_brought_it_does_not() {
    let scene = Scene::default();
    let (policy, release) = (policy(&scene, BY_ONE), scene.release(|_| {}));
    let good = tested(&release, &[&scene.desy], &scene.mallory);
    let verdict = judged(&policy, &release, std::slice::from_ref(&good));
    assert_eq!(verdict.kind(), Accept, "{}", verdict.because());
    assert_eq!(because(&verdict), format!("endorsed by desy (record {})", good.id));
    assert_eq!(verdict.used(), [good.id]);
    assert!(verdict.considered().contains(&good.id));
    assert_eq!(makers_of(Some(&policy), &good), [public(&scene.desy)]);
    assert_eq!(makers_of(None, &good), []);
    // Brought by one who is relied on, and signed by a stranger; by nobody; with the other's key for a name only.
    for (keys, importer) in [(&[&scene.mallory][..], &scene.desy), (&[], &scene.desy)] {
        let verdict = judged(&policy, &release, &[tested(&release, keys, importer)]);
        assert_eq!(
            (verdict.kind(), because(&verdict)),
            (Hold, "0 of 1 needed: security has not endorsed it, desy has not endorsed it")
        );
    }
    // One of the several that have signed is enough, and an old key is its signer's still.
    let several = tested(&release, &[&scene.mallory, &scene.security_old], &scene.mallory);
    assert_eq!(judged(&policy, &release, &[several]).kind(), Accept);
}

#[test]
fn thresholds_count_signers_of_statements_and_of_records_together() {
    let scene = Scene::default();
    let text = scene.preamble()
        + "two = { signers = [\"security\", \"desy\", \"kek\"], threshold = 2 }\n[[rule]]\nrequire = \"endorsed-by:two\"\nthen = \"accept\"\n";
    let policy = Policy::parse(&text).unwrap();
    let release = scene.release(|_| {});
    let by = |keys: &[&SigningKey]| tested(&release, keys, &scene.mallory);
    let native = super::testing::endorsed(release.id, &scene.desy);
    for (known, expected) in [
        (vec![by(&[&scene.desy]), native.clone()], Hold),
        (vec![by(&[&scene.security, &scene.security_old])], Hold),
        (vec![by(&[&scene.desy, &scene.kek])], Accept),
        (vec![by(&[&scene.kek]), native], Accept),
    ] {
        assert_eq!(judged(&policy, &release, &known).kind(), expected);
    }
}

#[test]
fn a_statement_counts_for_the_disks_and_the_type_that_it_names() {
    let scene = Scene::default();
    let policy = policy(&scene, "require = \"endorsed-by:checkers:https://example.org/tested/v1\"\nthen = \"accept\"");
    let release = scene.release(|_| {});
    assert_eq!(judged(&policy, &release, &[tested(&release, &[&scene.desy], &scene.desy)]).kind(), Accept);
    // A statement about another release's disks, brought for this one.
    let other =
        scene.release(|r| r.disks = rialto_protocol::bounded::List::try_from(vec![super::testing::disk("x")]).unwrap());
    let elsewhere = tested(&other, &[&scene.desy], &scene.desy);
    let EndorsementBody::Dsse { envelope } = elsewhere.body.endorsement().unwrap().body.clone() else { panic!() };
    let moved = endorsement(release.id, |e| {
        e.predicate = TYPE.try_into().unwrap();
        e.body = EndorsementBody::Dsse { envelope: envelope.clone() };
    });
    let verdict = judged(&policy, &release, &[signed(&moved, &[&scene.desy], NOW)]);
    assert_eq!(verdict.kind(), Hold);
    assert!(because(&verdict).contains("none of the release's disks"), "{}", because(&verdict));
    // Filed under another type than it says.
    let misfiled = brought(&release, "https://example.org/other/v1", json!({}), &[&scene.desy], &scene.desy);
    let EndorsementBody::Dsse { envelope } = misfiled.body.endorsement().unwrap().body.clone() else { panic!() };
    let misfiled = endorsement(release.id, |e| {
        e.predicate = TYPE.try_into().unwrap();
        e.body = EndorsementBody::Dsse { envelope };
    });
    let verdict = judged(&policy, &release, &[signed(&misfiled, &[&scene.desy], NOW)]);
    assert_eq!(verdict.kind(), Hold);
    assert!(because(&verdict).contains("and its statement says https://example.org/other/v1"), "{}", because(&verdict));
}

#[test]
fn a_verification_that_failed_speaks_for_nothing() {
    let scene = Scene::default();
    let (policy, release) = (policy(&scene, BY_ONE), scene.release(|_| {}));
    let summary = |result: &str| json!({"verifier": {"id": "https://example.org/v"}, "verificationResult": result});
    let by_desy = |result| brought(&release, PREDICATE_VERIFICATION, summary(result), &[&scene.desy], &scene.desy);
    assert_eq!(judged(&policy, &release, &[by_desy("PASSED")]).kind(), Accept);
    let verdict = judged(&policy, &release, &[by_desy("FAILED")]);
    assert_eq!(verdict.kind(), Hold);
    assert!(because(&verdict).contains("FAILED"), "{}", because(&verdict));
}

/// When a statement was brought here is its bringer's word, and not its signer's.
#[test]
fn the_age_of_a_statement_is_what_its_signer_says() {
    let scene = Scene::default();
    let text = scene.preamble()
        + "young = { signers = \"desy\", max-age = \"90d\" }\n[[rule]]\nrequire = \"endorsed-by:young\"\nthen = \"accept\"\n";
    let policy = Policy::parse(&text).unwrap();
    let release = scene.release(|_| {});
    let built =
        |finished| brought(&release, PREDICATE_PROVENANCE, provenance(finished), &[&scene.desy], &scene.mallory);
    for (finished, expected, says) in [
        (Some("2025-10-09T08:53:20Z"), Accept, "endorsed by desy"),
        (Some("2025-07-11T08:53:20Z"), Accept, "endorsed by desy"),
        // Clocks differ a little; what lies further ahead would count for ever.
        (Some("2025-10-09T09:03:20Z"), Accept, "endorsed by desy"),
        (Some("2025-10-09T09:03:21Z"), Hold, "it was made on 2025-10-09T09:03:21Z, which is still to come"),
        (Some("2025-07-11T08:53:19Z"), Hold, "it was made 90 d ago, and counts for 90d"),
        (Some("yesterday"), Hold, "it does not say when it was made"),
        (None, Hold, "it does not say when it was made"),
    ] {
        let verdict = judged(&policy, &release, &[built(finished)]);
        assert_eq!(verdict.kind(), expected, "{finished:?}");
        assert!(because(&verdict).contains(says), "{}", because(&verdict));
    }
}

#[test]
fn a_statement_is_revoked_by_who_signed_it_and_by_nobody_else() {
    let scene = Scene::default();
    let (policy, release) = (policy(&scene, BY_ONE), scene.release(|_| {}));
    let good = tested(&release, &[&scene.security_old], &scene.mallory);
    let copy = tested(&release, &[&scene.security_old], &scene.kek);
    assert_ne!(good.id, copy.id);
    let of = |subject| move |by: &SigningKey| revoked(subject, by);
    let key_of_it = RevocationSubject::Key(public(&scene.security_old));
    for (subject, by, expected) in [
        (RevocationSubject::Endorsement(good.id), &scene.security_old, Hold),
        (RevocationSubject::Endorsement(good.id), &scene.security, Hold),
        (RevocationSubject::Endorsement(good.id), &scene.mallory, Accept),
        (RevocationSubject::Endorsement(good.id), &scene.desy, Accept),
        (RevocationSubject::Endorsement(copy.id), &scene.security, Hold),
        (RevocationSubject::Endorsement(copy.id), &scene.kek, Accept),
        (key_of_it, &scene.security, Hold),
        (key_of_it, &scene.mallory, Accept),
    ] {
        let verdict = judged(&policy, &release, &[good.clone(), copy.clone(), of(subject)(by)]);
        assert_eq!(verdict.kind(), expected, "{subject:?}: {}", because(&verdict));
    }
}

/// Beside what the policy's own signers bring, only so much is looked into: a flood costs no more, and takes nothing away that
/// a signer of the policy brings.
#[test]
fn a_flood_of_statements_does_not_hide_one_that_a_signer_brings() {
    let scene = Scene::default();
    let (policy, release) = (policy(&scene, BY_ONE), scene.release(|_| {}));
    let junk = |n: u8| tested(&release, &[], &key(100 + n));
    let mut known: Vec<_> = (0..120).map(junk).collect();
    known.push(tested(&release, &[&scene.desy], &scene.kek));
    assert_eq!(policy.looked_at(&known).len(), 65);
    assert_eq!(judged(&policy, &release, &known).kind(), Accept);
}

proptest! {
    /// Whoever brings it, and however often, the same is said of it.
    #[test]
    fn who_brings_a_statement_makes_no_difference(importers in prop::collection::vec(1u8..20, 1..5), by_desy: bool) {
        let scene = Scene::default();
        let (policy, release) = (policy(&scene, BY_ONE), scene.release(|_| {}));
        let signer = if by_desy { &scene.desy } else { &scene.mallory };
        let known: Vec<_> = importers.iter().map(|n| tested(&release, &[signer], &key(*n))).collect();
        prop_assert_eq!(judged(&policy, &release, &known).kind() == Accept, by_desy);
    }
}
