//! What policy says of a release: rule by rule, requirement by requirement, and for facts of all kinds.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rialto_protocol::bounded::{List, Name};
use rialto_protocol::record::{Body, Disk, EndorsementBody, Record, RevocationSubject};
use rialto_protocol::signed::Verified;
use rialto_web::api::VerdictKind::{self, Accept, Hold, Reject};

use super::testing::{DAY, NOW, Scene, disk, endorsed, endorsement, image, public, revoked, signed};
use super::{
    Facts, OnRevoke, Policy, Update, Verdict, endorsement_is_void, evaluate, revocation_counts, revocation_subjects,
};

fn judged(
    policy: &Policy,
    release: &Verified<Record>,
    endorsements: &[Verified<Record>],
    revocations: &[Verified<Record>],
) -> Verdict {
    let facts = Facts {
        endorsements: endorsements.iter().collect(),
        revocations: revocations.iter().collect(),
        ..Facts::default()
    };
    evaluate(policy, release, &facts, NOW)
}

fn alone(policy: &Policy, release: &Verified<Record>) -> Verdict {
    judged(policy, release, &[], &[])
}

const REVIEWED: &str = "require = \"endorsed-by:reviewers\"\nthen = \"accept\"";

#[test]
fn the_first_rule_that_fits_decides() {
    let scene = Scene::default();
    let text = scene.preamble()
        + r#"
[[rule]]
name = "no tests"
match = { tags = ["test", "demo"] }
then = "reject"
[[rule]]
name = "workers"
match = { publisher = ["desy", "cern"], name = ["batch-*", "grid-?"], arch = "x86_64" }
then = "accept"
update = "never"
on-revoke = "warn"
[[rule]]
name = "late"
match = { name = "batch-worker" }
then = "reject"
"#;
    let policy = Policy::parse(&text).unwrap();
    let name = |text| Name::try_from(text).unwrap();
    let verdict = alone(&policy, &scene.release(|_| {}));
    assert_eq!((verdict.kind(), verdict.rule()), (Accept, "workers"));
    assert_eq!((verdict.update(), verdict.on_revoke()), (Update::Never, OnRevoke::Warn));
    assert_eq!(verdict.policy(), Some(policy.hash()));
    let tagged = scene.release(|r| r.tags = List::try_from(vec![name("grid"), name("demo")]).unwrap());
    assert_eq!(alone(&policy, &tagged).rule(), "no tests");
    let arm = scene.release(|r| r.arch = rialto_protocol::record::Arch::Aarch64);
    assert_eq!((alone(&policy, &arm).kind(), alone(&policy, &arm).rule()), (Reject, "late"));
    for (renamed, rule) in [("grid-1", "workers"), ("grid-12", "default"), ("xbatch-worker", "default")] {
        assert_eq!(alone(&policy, &scene.release(|r| r.name = name(renamed))).rule(), rule, "{renamed}");
    }
    let stranger = signed(
        &scene.body(|release| {
            release.publisher = public(&scene.mallory);
            release.name = name("grid-1");
        }),
        &[&scene.mallory],
        NOW,
    );
    let verdict = alone(&policy, &stranger);
    assert_eq!((verdict.kind(), verdict.rule()), (Hold, "default"));
    let fingerprint = public(&scene.mallory).fingerprint();
    assert!(verdict.because().contains(&format!("no name for its publisher, {fingerprint}")), "{}", verdict.because());
}

#[test]
fn a_threshold_counts_signers_not_keys_and_not_endorsements() {
    let scene = Scene::default();
    let policy = scene.policy(REVIEWED);
    let release = scene.release(|_| {});
    let by = |key| endorsed(release.id, key);
    let again =
        signed(&endorsement(release.id, |e| e.predicate = "urn:other".try_into().unwrap()), &[&scene.desy], NOW);

    let verdict = alone(&policy, &release);
    assert_eq!(verdict.kind(), Hold);
    assert_eq!(
        verdict.requirements()[0].because,
        "0 of 2 needed: security has not endorsed it, desy has not endorsed it, kek has not endorsed it"
    );
    let verdict = judged(&policy, &release, &[by(&scene.security), by(&scene.security_old)], &[]);
    assert_eq!(verdict.kind(), Hold, "two keys of one signer");
    assert_eq!(judged(&policy, &release, &[by(&scene.desy), again], &[]).kind(), Hold, "two statements of one signer");
    let both = signed(&endorsement(release.id, |_| {}), &[&scene.desy, &scene.security_old], NOW);
    let verdict = judged(&policy, &release, std::slice::from_ref(&both), &[]);
    assert_eq!((verdict.kind(), verdict.used()), (Accept, [both.id].as_slice()), "one statement of two signers");

    let pair = [by(&scene.desy), by(&scene.security)];
    let verdict = judged(&policy, &release, &pair, &[]);
    assert_eq!(verdict.kind(), Accept);
    let outcome = &verdict.requirements()[0];
    assert!(outcome.met && outcome.name == "endorsed-by:reviewers");
    assert_eq!(
        outcome.because,
        format!("endorsed by security (record {}) and desy (record {})", pair[1].id, pair[0].id)
    );
    assert_eq!(verdict.used().iter().collect::<BTreeSet<_>>(), pair.iter().map(|e| &e.id).collect());
    assert_eq!(verdict.considered().len(), 3);

    let verdict = judged(&policy, &release, &pair[..1], &[]);
    assert_eq!(
        verdict.requirements()[0].because,
        format!(
            "1 of 2 needed: endorsed by desy (record {}); security has not endorsed it, kek has not endorsed it",
            pair[0].id
        )
    );
    assert!(verdict.because().contains("1 of 2 needed"), "{}", verdict.because());
}

#[test]
fn an_endorsement_counts_for_its_subject_predicate_and_time_only() {
    let scene = Scene::default();
    let policy =
        scene.policy("require = \"endorsed-by:reviewers:urn:scan\"\nthen = \"accept\"\notherwise = \"reject\"");
    let (release, other) = (scene.release(|_| {}), scene.release(|r| r.sequence = 2));
    let by_kek = |release: &Verified<Record>| scan(release, NOW, &scene.kek, |_| {});
    fn scan(
        release: &Verified<Record>,
        issued: u64,
        key: &ed25519_dalek::SigningKey,
        change: impl FnOnce(&mut rialto_protocol::record::Endorsement),
    ) -> Verified<Record> {
        let body = endorsement(release.id, |e| {
            e.predicate = "urn:scan".try_into().unwrap();
            change(e);
        });
        signed(&body, &[key], issued)
    }
    let check = |endorsement: Verified<Record>, expected: VerdictKind, reason: &str| {
        let verdict = judged(&policy, &release, &[endorsement, by_kek(&release)], &[]);
        assert_eq!(verdict.kind(), expected, "{reason}: {}", verdict.because());
        assert!(verdict.requirements()[0].because.contains(reason), "{}", verdict.requirements()[0].because);
    };
    let desy = &scene.desy;
    check(scan(&release, NOW, desy, |_| {}), Accept, "endorsed by desy");
    check(scan(&release, NOW + 300, desy, |_| {}), Accept, "endorsed by desy");
    check(scan(&release, NOW - 90 * DAY, desy, |e| e.expires = Some(NOW + 1)), Accept, "endorsed by desy");
    check(scan(&other, NOW, desy, |_| {}), Reject, "desy has not endorsed it as urn:scan");
    check(endorsed(release.id, desy), Reject, "and urn:scan is required");
    check(scan(&release, NOW - 90 * DAY - 1, desy, |_| {}), Reject, "it was made 90 d ago, and counts for 90d");
    check(scan(&release, NOW - 9, desy, |e| e.expires = Some(NOW)), Reject, "it expired on 2025-10-09T08:53:20Z");
    let dsse = |e: &mut rialto_protocol::record::Endorsement| {
        e.body = EndorsementBody::Dsse { envelope: b"{}".to_vec() };
    };
    check(scan(&release, NOW, desy, dsse), Reject, "desy has not endorsed it as urn:scan");
    // A flawed endorsement does not hide a good one of the same signer.
    let flawed = scan(&release, NOW, desy, |e| e.expires = Some(1));
    let good = scan(&release, NOW, desy, |_| {});
    assert_eq!(judged(&policy, &release, &[flawed, good, by_kek(&release)], &[]).kind(), Accept);
}

#[test]
fn a_role_signs_the_release_itself() {
    let scene = Scene::default();
    let policy = scene.policy("require = \"signed-by:reviewers\"\nthen = \"accept\"");
    let body = scene.body(|_| {});
    assert_eq!(alone(&policy, &signed(&body, &[&scene.cern], NOW)).kind(), Hold);
    let two_keys = signed(&body, &[&scene.cern, &scene.security, &scene.security_old], NOW);
    assert_eq!(alone(&policy, &two_keys).kind(), Hold);
    let signers = [&scene.cern, &scene.security, &scene.kek];
    let cosigned = signed(&body, &signers, NOW);
    let verdict = alone(&policy, &cosigned);
    assert_eq!((verdict.kind(), verdict.used()), (Accept, [cosigned.id].as_slice()));

    let old = alone(&policy, &signed(&body, &signers, NOW - 91 * DAY));
    assert_eq!(old.kind(), Hold);
    assert!(old.because().contains("kek signed it 91 d ago, which counts for 90d"), "{}", old.because());
    // Who signed it and withdraws that does not count any more; the release itself stands.
    for subject in [RevocationSubject::Release(cosigned.id), RevocationSubject::Key(public(&scene.kek))] {
        let verdict = judged(&policy, &cosigned, &[], &[revoked(subject, &scene.kek)]);
        assert_eq!(verdict.kind(), Hold);
        assert!(verdict.because().contains("kek signed it, and revoked that since"), "{}", verdict.because());
    }
}

#[test]
fn age_and_sbom_of_the_release() {
    let scene = Scene::default();
    let policy = scene.policy("require = [\"max-age:30d\", \"sbom\"]\nthen = \"accept\"");
    let with_sbom = scene.body(|release| release.sbom = Some(image("sbom")));
    let issued = |at| signed(&with_sbom, &[&scene.cern], at);
    let verdict = alone(&policy, &issued(NOW - 30 * DAY));
    assert_eq!(verdict.kind(), Accept, "{}", verdict.because());
    assert!(verdict.accepted().unwrap().images().contains(&image("sbom")));
    assert_eq!(alone(&policy, &issued(NOW + DAY)).kind(), Accept, "a clock ahead of ours makes nothing older");
    let verdict = alone(&policy, &issued(NOW - 30 * DAY - 1));
    assert!(verdict.because().ends_with("it was issued 30 d ago, and may be at most 30d old"), "{}", verdict.because());
    let verdict = alone(&policy, &scene.release(|_| {}));
    assert!(verdict.because().ends_with("its publisher names no SBOM with it"), "{}", verdict.because());
}

#[test]
fn an_expired_release_is_not_accepted_whatever_the_rules_say() {
    let scene = Scene::default();
    for policy in [scene.policy("then = \"accept\""), Policy::parse("[default]\nthen = \"accept\"").unwrap()] {
        assert_eq!(alone(&policy, &scene.release(|r| r.expires = Some(NOW + 1))).kind(), Accept);
        for expires in [NOW, NOW - 1, 0] {
            let verdict = alone(&policy, &scene.release(|r| r.expires = Some(expires)));
            assert_eq!(verdict.kind(), Hold);
            assert!(verdict.because().contains("it expired on "), "{}", verdict.because());
        }
        assert_eq!(alone(&policy, &scene.release(|r| r.expires = Some(u64::MAX))).kind(), Accept);
    }
    let expired = scene.release(|r| r.expires = Some(1));
    assert_eq!(alone(&scene.policy("then = \"reject\""), &expired).kind(), Reject);
}

#[test]
fn a_revocation_by_the_publisher_rejects_before_any_rule() {
    let scene = Scene::default();
    let release = scene.release(|_| {});
    let subjects = [RevocationSubject::Release(release.id), RevocationSubject::Key(public(&scene.cern))];
    for (rule, on_revoke) in [
        ("then = \"accept\"", OnRevoke::BlockNew),
        ("then = \"accept\"\non-revoke = \"warn\"", OnRevoke::Warn),
        ("then = \"accept\"\non-revoke = \"suspend\"", OnRevoke::Suspend),
        ("then = \"accept\"\non-revoke = \"stop\"", OnRevoke::Stop),
        ("then = \"hold\"", OnRevoke::BlockNew),
    ] {
        let policy = scene.policy(rule);
        for subject in subjects {
            let revocation = revoked(subject, &scene.cern);
            let verdict = judged(&policy, &release, &[], std::slice::from_ref(&revocation));
            assert_eq!((verdict.kind(), verdict.rule()), (Reject, "revocation"), "{}", verdict.because());
            assert!(verdict.accepted().is_none() && verdict.explanation().images.is_empty());
            assert_eq!(verdict.used(), [revocation.id]);
            assert!(verdict.because().contains("it was a mistake"), "{}", verdict.because());
            assert_eq!(verdict.on_revoke(), on_revoke, "running instances follow the rule that let them in");
        }
    }
}

#[test]
fn opinions_count_where_policy_asks_for_them() {
    let scene = Scene::default();
    let policy = scene.policy("require = \"not-revoked-by:reviewers\"\nthen = \"accept\"\notherwise = \"reject\"");
    let release = scene.release(|_| {});
    let subjects = [RevocationSubject::Release(release.id), RevocationSubject::Key(public(&scene.cern))];
    let check = |revocations: &[Verified<Record>], expected: VerdictKind, says: &str| {
        let verdict = judged(&policy, &release, &[], revocations);
        assert_eq!(verdict.kind(), expected, "{}", verdict.because());
        assert!(verdict.requirements()[0].because.contains(says), "{}", verdict.requirements()[0].because);
        verdict
    };
    check(&[], Accept, "nobody of reviewers has revoked it");
    // Two are needed; a signer with two keys, or with two things to say, is one.
    let by = |subject: usize, key| revoked(subjects[subject], key);
    check(&[by(0, &scene.desy)], Accept, "1 of the 2 of reviewers that count have revoked it: desy (record ");
    let one_signer = [by(0, &scene.security), by(0, &scene.security_old), by(1, &scene.security)];
    check(&one_signer, Accept, "1 of the 2");
    check(&[by(0, &scene.mallory), by(1, &scene.mallory)], Accept, "nobody of reviewers");
    let two = [by(0, &scene.desy), by(1, &scene.kek), by(0, &scene.mallory)];
    let verdict = check(&two, Reject, "it was revoked by desy (record ");
    assert!(verdict.because().contains("and kek (record "), "{}", verdict.because());
    assert!(verdict.because().contains("not counted: 1 other"), "only mallory's: {}", verdict.because());
    assert!(verdict.considered().contains(&two[0].id) && verdict.considered().contains(&two[1].id));
    assert!(verdict.accepted().is_none());
    // What its rule listens to ends what runs, as its publisher's own word does; the reasons are theirs.
    assert!(verdict.revoked().is_some_and(|why| why.contains("it was a mistake")), "{:?}", verdict.revoked());
    assert_eq!(check(&[by(0, &scene.desy)], Accept, "1 of the 2").revoked(), None);
    // Of something else: nothing.
    let elsewhere = revoked(RevocationSubject::Release(scene.release(|r| r.sequence = 9).id), &scene.desy);
    check(&[elsewhere, by(0, &scene.kek)], Accept, "1 of the 2");
}

/// A release that lacks something is not revoked: who runs it already goes on, whatever strangers take back of their own.
#[test]
fn nothing_but_a_revocation_that_counts_reaches_what_runs() {
    let scene = Scene::default();
    let policy = scene.policy(
        "require = [\"endorsed-by:reviewers\", \"not-revoked-by:reviewers\"]\nthen = \"accept\"\notherwise = \"reject\"\non-revoke = \"stop\"",
    );
    let release = scene.release(|_| {});
    let said = [endorsed(release.id, &scene.mallory), endorsed(release.id, &scene.desy)];
    let of_said = |which: usize, by| revoked(RevocationSubject::Endorsement(said[which].id), by);
    let of_key = |by| revoked(RevocationSubject::Key(public(by)), by);
    for (what, revocations) in [
        ("nobody says anything", vec![]),
        ("a stranger takes her endorsement back", vec![of_said(0, &scene.mallory)]),
        ("a stranger revokes her key", vec![of_key(&scene.mallory)]),
        ("a reviewer takes an endorsement back", vec![of_said(1, &scene.desy)]),
        ("a reviewer revokes a key", vec![of_key(&scene.desy)]),
    ] {
        let verdict = judged(&policy, &release, &said, &revocations);
        assert_eq!((verdict.kind(), verdict.revoked(), verdict.is_decided()), (Reject, None, true), "{what}");
    }
    let own = revoked(RevocationSubject::Release(release.id), &scene.cern);
    assert!(judged(&policy, &release, &said, &[own]).revoked().is_some());
    // Nobody can tell while the disk does not give everything back.
    let facts = Facts { unreadable: 1, ..Facts::default() };
    let open = scene.policy("then = \"accept\"");
    let verdict = evaluate(&open, &release, &facts, NOW);
    assert_eq!((verdict.kind(), verdict.is_decided()), (Hold, false), "{}", verdict.because());
    assert!(verdict.because().contains("start the node again"), "{}", verdict.because());
}

#[test]
fn limits_of_size_memory_and_processors() {
    let scene = Scene::default();
    let policy =
        scene.policy("require = [\"max-size:1 MiB\", \"max-memory:256 MiB\", \"max-vcpus:2\"]\nthen = \"accept\"");
    let sized = |bytes: &[u64], memory: u64, vcpus: u32| {
        scene.release(|release| {
            let disk = disk("content");
            let disks = bytes.iter().map(|&bytes| Disk { bytes, ..disk.clone() }).collect::<Vec<_>>();
            release.disks = disks.try_into().unwrap();
            (release.requirements.memory_bytes, release.requirements.vcpus) = (memory, vcpus);
        })
    };
    let (mib, least) = (1 << 20, 256 << 20);
    assert_eq!(alone(&policy, &sized(&[mib], least, 2)).kind(), Accept);
    for (release, says) in [
        (sized(&[mib + 1], least, 2), "its disks have"),
        (sized(&[mib / 2, mib / 2 + 1], least, 2), "at most 1 MiB is allowed"),
        (sized(&[u64::MAX, 2], least, 2), "its disks have"),
        (sized(&[mib], least + 1, 2), "at most 256 MiB is allowed"),
        (sized(&[mib], least, 3), "the processors that it asks for are 3, and at most 2 is allowed"),
    ] {
        let verdict = alone(&policy, &release);
        assert_eq!(verdict.kind(), Hold, "{says}");
        assert!(verdict.because().contains(says), "{}", verdict.because());
    }
    for bad in ["max-size", "max-size:", "max-size:0", "max-size:x", "max-memory:-1", "max-vcpus:0", "max-vcpus:two"] {
        let text = format!("[[rule]]\nrequire = \"{bad}\"\nthen = \"accept\"\n");
        assert_eq!(Policy::parse(&text).unwrap_err().line, 2, "{bad}");
    }
}

#[test]
fn a_revocation_by_anybody_else_is_an_opinion() {
    let scene = Scene::default();
    let policy = scene.policy("then = \"accept\"");
    let release = scene.release(|_| {});
    let cern = public(&scene.cern);
    for subject in [RevocationSubject::Release(release.id), RevocationSubject::Key(cern)] {
        let revocations = [revoked(subject, &scene.desy), revoked(subject, &scene.mallory)];
        let verdict = judged(&policy, &release, &[], &revocations);
        assert_eq!(verdict.kind(), Accept, "{}", verdict.because());
        assert!(verdict.because().contains("which is not counted: desy (record "), "{}", verdict.because());
        assert!(verdict.because().ends_with(", 1 other"), "{}", verdict.because());
        assert!(
            verdict.considered().contains(&revocations[0].id) && !verdict.considered().contains(&revocations[1].id)
        );
    }
    // Of another release, or of a key that has no part in this one: nothing at all.
    let other = scene.release(|r| r.sequence = 2);
    let beside = [
        revoked(RevocationSubject::Release(other.id), &scene.cern),
        revoked(RevocationSubject::Key(public(&scene.desy)), &scene.desy),
        revoked(RevocationSubject::Endorsement(release.id), &scene.cern),
    ];
    let verdict = judged(&policy, &release, &[], &beside);
    assert_eq!((verdict.kind(), verdict.because().contains("evoked")), (Accept, false), "{}", verdict.because());
}

#[test]
fn a_new_key_of_a_signer_speaks_for_the_old_one() {
    let scene = Scene::default();
    let policy = scene.policy("then = \"accept\"");
    let by_security = signed(&scene.body(|r| r.publisher = public(&scene.security_old)), &[&scene.security_old], NOW);
    for subject in [RevocationSubject::Release(by_security.id), RevocationSubject::Key(public(&scene.security_old))] {
        let verdict = judged(&policy, &by_security, &[], &[revoked(subject, &scene.security)]);
        assert_eq!(verdict.rule(), "revocation");
        // To a site that has no name for either key, they are strangers to each other.
        let strangers = Policy::parse("[default]\nthen = \"accept\"").unwrap();
        assert_eq!(judged(&strangers, &by_security, &[], &[revoked(subject, &scene.security)]).kind(), Accept);
    }
}

#[test]
fn a_revoked_endorsement_or_endorsers_key_counts_for_nothing() {
    let scene = Scene::default();
    let policy = scene.policy(REVIEWED);
    let release = scene.release(|_| {});
    let pair = [endorsed(release.id, &scene.desy), endorsed(release.id, &scene.kek)];
    let statement = RevocationSubject::Endorsement(pair[0].id);
    let desy = RevocationSubject::Key(public(&scene.desy));
    for (revocation, reason) in [
        (revoked(statement, &scene.desy), "does not count: it was revoked"),
        (revoked(desy, &scene.desy), "the key that signed it was revoked"),
    ] {
        let verdict = judged(&policy, &release, &pair, std::slice::from_ref(&revocation));
        assert_eq!(verdict.kind(), Hold);
        assert!(verdict.because().contains(reason), "{}", verdict.because());
        assert!(verdict.considered().contains(&revocation.id));
    }
    for subject in [statement, desy] {
        for other in [&scene.mallory, &scene.kek, &scene.cern] {
            assert_eq!(judged(&policy, &release, &pair, &[revoked(subject, other)]).kind(), Accept);
        }
    }
    // With two signers on one statement, the revoked key takes its own signature away and not the other's.
    let both = signed(&endorsement(release.id, |_| {}), &[&scene.desy, &scene.kek], NOW);
    let facts = [both, endorsed(release.id, &scene.security)];
    assert_eq!(judged(&policy, &release, &facts, &[revoked(desy, &scene.desy)]).kind(), Accept);
    assert_eq!(judged(&policy, &release, &facts[..1], &[revoked(desy, &scene.desy)]).kind(), Hold);
}

#[test]
fn only_releases_are_accepted() {
    let scene = Scene::default();
    let policy = Policy::parse("[default]\nthen = \"accept\"").unwrap();
    let release = scene.release(|_| {});
    let payload = release.envelope().clone();
    for record in [endorsed(release.id, &scene.cern), revoked(RevocationSubject::Release(release.id), &scene.cern)] {
        let verdict = alone(&policy, &record);
        assert_eq!((verdict.kind(), verdict.rule()), (Hold, "none"));
        assert!(verdict.accepted().is_none());
    }
    assert_eq!(alone(&policy, &payload.verify().unwrap()).kind(), Accept);
}

#[test]
fn the_catalog_is_told_what_to_look_for() {
    let scene = Scene::default();
    let release = scene.release(|_| {});
    let by_desy = endorsed(release.id, &scene.desy);
    let expected = BTreeSet::from([
        RevocationSubject::Release(release.id),
        RevocationSubject::Endorsement(by_desy.id),
        RevocationSubject::Key(public(&scene.cern)),
        RevocationSubject::Key(public(&scene.desy)),
    ]);
    let facts = Facts { endorsements: vec![&by_desy], ..Facts::default() };
    assert_eq!(revocation_subjects(None, &release, &facts), expected);
}

#[test]
fn pages_show_as_void_what_does_not_count() {
    let scene = Scene::default();
    let policy = scene.policy(REVIEWED);
    let release = scene.release(|_| {});
    let said = signed(&endorsement(release.id, |e| e.expires = Some(NOW + 1)), &[&scene.security_old], NOW);
    let is_void = |policy, revocations: &[&Verified<Record>], now| endorsement_is_void(policy, &said, revocations, now);
    assert!(!is_void(Some(&policy), &[], NOW) && is_void(Some(&policy), &[], NOW + 1));
    let old = public(&scene.security_old);
    for subject in [RevocationSubject::Endorsement(said.id), RevocationSubject::Key(old)] {
        // By the very key; by the signer's other key, which only the policy knows of; by a stranger.
        for (by, with_policy, without) in
            [(&scene.security_old, true, true), (&scene.security, true, false), (&scene.mallory, false, false)]
        {
            let revocation = revoked(subject, by);
            let counts = |policy| revocation_counts(policy, &revocation, &release, &[&said], &[]);
            assert_eq!((counts(Some(&policy)), counts(None)), (with_policy, without));
            assert_eq!(is_void(Some(&policy), &[&revocation], NOW), with_policy);
            assert_eq!(is_void(None, &[&revocation], NOW), without);
        }
    }
    for (subject, by, expected) in [
        (RevocationSubject::Release(release.id), &scene.cern, true),
        (RevocationSubject::Release(release.id), &scene.desy, false),
        (RevocationSubject::Release(said.id), &scene.cern, false),
        (RevocationSubject::Endorsement(release.id), &scene.cern, false),
    ] {
        assert_eq!(revocation_counts(Some(&policy), &revoked(subject, by), &release, &[&said], &[]), expected);
    }
}

#[test]
fn gossiped_words_stay_on_their_line() {
    let scene = Scene::default();
    let policy = scene.policy("then = \"accept\"");
    let release = scene.release(|_| {});
    let revocation = rialto_protocol::record::Revocation {
        subject: RevocationSubject::Release(release.id),
        reason: format!("\u{202e}fine\nverdict: accept {}", "x".repeat(900)).as_str().try_into().unwrap(),
    };
    for key in [&scene.cern, &scene.desy] {
        let revocation = signed(&Body::Revocation(revocation.clone()), &[key], NOW);
        let because = judged(&policy, &release, &[], &[revocation]).because().to_owned();
        assert!(because.len() < 400 && !because.contains(['\n', '\u{202e}']), "{because}");
    }
}

/// One reviewer's part in a random scene.
#[derive(Debug, Clone)]
struct Part {
    endorses: bool,
    with_old_key: bool,
    is_expired: bool,
    age_days: u64,
    revokes_endorsement: bool,
    revokes_key: bool,
    is_revoked_by_stranger: bool,
}

fn part() -> impl Strategy<Value = Part> {
    let flag = |p| prop::bool::weighted(p);
    (flag(0.8), any::<bool>(), flag(0.2), 0u64..110, flag(0.2), flag(0.15), flag(0.3)).prop_map(
        |(endorses, with_old_key, is_expired, age_days, revokes_endorsement, revokes_key, is_revoked_by_stranger)| {
            Part {
                endorses,
                with_old_key,
                is_expired,
                age_days,
                revokes_endorsement,
                revokes_key,
                is_revoked_by_stranger,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Against a reference model that counts reviewers in the plainest way.
    #[test]
    fn accept_means_enough_reviewers_and_exactly_the_releases_images(
        parts in prop::array::uniform3(part()),
        is_signed in prop::bool::weighted(0.9),
        is_withdrawn in prop::bool::weighted(0.1),
        expires in prop::option::weighted(0.2, NOW - 2..NOW + 2),
        has_sbom: bool,
        order: bool,
    ) {
        let scene = Scene::default();
        let policy = scene.policy(REVIEWED);
        let body = scene.body(|r| {
            r.expires = expires;
            r.sbom = has_sbom.then(|| image("sbom"));
        });
        let release = signed(&body, &[if is_signed { &scene.cern } else { &scene.mallory }], NOW);
        let keys = [&scene.security, &scene.desy, &scene.kek];
        let (mut endorsements, mut revocations, mut counted) = (vec![], vec![], 0);
        for (part, key) in parts.iter().zip(keys) {
            let key = if part.with_old_key && key == &scene.security { &scene.security_old } else { key };
            if !part.endorses {
                continue;
            }
            let body = endorsement(release.id, |e| e.expires = part.is_expired.then_some(NOW - 1));
            let said = signed(&body, &[key], NOW - part.age_days * DAY);
            let subject = RevocationSubject::Endorsement(said.id);
            endorsements.push(said);
            revocations.extend(part.revokes_endorsement.then(|| revoked(subject, key)));
            revocations.extend(part.revokes_key.then(|| revoked(RevocationSubject::Key(public(key)), key)));
            revocations.extend(part.is_revoked_by_stranger.then(|| revoked(subject, &scene.mallory)));
            let counts = !part.is_expired && part.age_days <= 90 && !part.revokes_endorsement && !part.revokes_key;
            counted += usize::from(counts);
        }
        if is_withdrawn {
            revocations.push(revoked(RevocationSubject::Release(release.id), &scene.cern));
        }
        if order {
            endorsements.reverse();
            revocations.reverse();
        }
        let verdict = judged(&policy, &release, &endorsements, &revocations);
        let is_current = expires.is_none_or(|expires| expires > NOW);
        let expected = match () {
            () if is_withdrawn => Reject,
            () if counted >= 2 && is_signed && is_current => Accept,
            () => Hold,
        };
        prop_assert_eq!(verdict.kind(), expected, "{}", verdict.because());
        prop_assert_eq!(verdict.accepted().is_some(), expected == Accept);
        let images = release.body.release().unwrap().images();
        let allowed = verdict.accepted().map(|accepted| accepted.images().to_vec()).unwrap_or_default();
        prop_assert_eq!(&allowed, if expected == Accept { &images } else { &[][..] });
        prop_assert_eq!(verdict.explanation().images, allowed);
        prop_assert!(verdict.used().iter().all(|id| verdict.considered().contains(id)));
    }
}
