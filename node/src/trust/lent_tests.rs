//! Releases by keys that a publisher lent its releases to, before the judge.

use ed25519_dalek::SigningKey;
use rialto_protocol::record::{Body, DelegatedRole, Delegation, Record, RevocationSubject};
use rialto_protocol::signed::Verified;
use rialto_web::api::VerdictKind::{self, Accept, Hold, Reject};

use super::testing::{DAY, NOW, Scene, key, public, revoked, signed};
use super::{Facts, Policy, Verdict, evaluate, revocation_counts, revocation_subjects};

fn lent(
    scene: &Scene,
    by: &SigningKey,
    sequence: u64,
    keys: &[&SigningKey],
    threshold: u32,
    names: &str,
) -> Verified<Record> {
    let keys = keys.iter().map(|key| public(key));
    let (role, names) = (DelegatedRole::Release, vec![names.try_into().unwrap()]);
    let body = Delegation::new(public(&scene.cern), role, keys, threshold, names, sequence, NOW + 90 * DAY);
    signed(&Body::Delegation(body.unwrap()), &[by], NOW)
}

fn judged_at(policy: &Policy, release: &Verified<Record>, known: &[Verified<Record>], seen: u64, now: u64) -> Verdict {
    let of = |is: fn(&Body) -> bool| known.iter().filter(move |record| is(&record.body)).collect::<Vec<_>>();
    let mut facts =
        Facts { delegations: of(|body| body.delegation().is_some()), seen_delegation: seen, ..Facts::default() };
    let subjects = revocation_subjects(Some(policy), release, &facts);
    let is_asked_for =
        |record: &&Verified<Record>| record.body.revocation().is_some_and(|said| subjects.contains(&said.subject));
    facts.revocations = known.iter().filter(is_asked_for).collect();
    evaluate(policy, release, &facts, now)
}

#[test]
fn keys_that_a_publisher_lent_its_releases_to_publish_for_it_until_they_may_no_more() {
    let scene = Scene::default();
    let (online, next) = (key(41), key(42));
    let policy = scene.policy("match = { publisher = \"cern\" }\nthen = \"accept\"\non-revoke = \"stop\"");
    let body = scene.body(|_| {});
    let release = signed(&body, &[&online], NOW);
    let both = signed(&body, &[&online, &next], NOW);
    let one = || lent(&scene, &scene.cern, 1, &[&online], 1, "batch-*");
    let two = || lent(&scene, &scene.cern, 2, &[&online, &next], 2, "*");
    let either = || lent(&scene, &scene.cern, 4, &[&online, &next], 1, "*");
    let by = |subject: &SigningKey, by| revoked(RevocationSubject::Key(public(subject)), by);
    let of_release = |by| revoked(RevocationSubject::Release(release.id), by);
    type Case<'a> = (&'a str, &'a Verified<Record>, Vec<Verified<Record>>, u64, u64, VerdictKind, &'a str);
    let cases: Vec<Case<'_>> = vec![
        ("lent", &release, vec![one()], 1, NOW, Accept, "a key that cern lent its releases to (record "),
        ("two of two", &both, vec![one(), two()], 2, NOW, Accept, "lent its releases to"),
        ("one of two", &release, vec![one(), two()], 2, NOW, Hold, "1 of the 2 delegated keys"),
        ("nothing is lent", &release, vec![], 0, NOW, Hold, "is not signed with that key"),
        ("what lends it was seen and is hidden", &release, vec![one()], 2, NOW, Hold, "needs delegation 2"),
        (
            "for other names",
            &release,
            vec![lent(&scene, &scene.cern, 1, &[&online], 1, "web")],
            0,
            NOW,
            Hold,
            "not signed",
        ),
        (
            "by a stranger",
            &release,
            vec![lent(&scene, &scene.mallory, 1, &[&online], 1, "*")],
            0,
            NOW,
            Hold,
            "not signed",
        ),
        ("it has expired", &release, vec![one()], 1, NOW + 90 * DAY, Hold, "delegation has expired (record "),
        (
            "another key has it now",
            &release,
            vec![one(), lent(&scene, &scene.cern, 3, &[&next], 1, "*")],
            3,
            NOW,
            Hold,
            "not signed",
        ),
        (
            "the publisher revoked the key",
            &release,
            vec![one(), by(&online, &scene.cern)],
            1,
            NOW,
            Reject,
            "revoked by cern",
        ),
        (
            "the key revoked itself",
            &release,
            vec![one(), by(&online, &online)],
            1,
            NOW,
            Reject,
            "a key that signed it for its publisher",
        ),
        ("a stranger would revoke the key", &release, vec![one(), by(&online, &scene.mallory)], 1, NOW, Accept, ""),
        (
            "the publisher's own key was revoked",
            &release,
            vec![one(), by(&scene.cern, &scene.cern)],
            1,
            NOW,
            Reject,
            "",
        ),
        ("the publisher revoked the release", &release, vec![one(), of_release(&scene.cern)], 1, NOW, Reject, ""),
        (
            "the key took the release back",
            &release,
            vec![one(), of_release(&online)],
            1,
            NOW,
            Reject,
            "the release was revoked",
        ),
        ("a stranger would", &release, vec![one(), of_release(&next)], 1, NOW, Accept, "not counted"),
        (
            "the publisher gave another key its place, and revoked it then",
            &release,
            vec![lent(&scene, &scene.cern, 3, &[&next], 1, "*"), by(&online, &scene.cern)],
            3,
            NOW,
            Reject,
            "revoked by cern",
        ),
        (
            "it lost its place, and a stranger would revoke it then",
            &release,
            vec![lent(&scene, &scene.cern, 3, &[&next], 1, "*"), by(&online, &next)],
            3,
            NOW,
            Hold,
            "not signed",
        ),
        ("one of two is revoked, and one must sign", &both, vec![either(), by(&next, &scene.cern)], 4, NOW, Accept, ""),
    ];
    for (why, release, known, seen, now, expected, says) in cases {
        let verdict = judged_at(&policy, release, &known, seen, now);
        assert_eq!(verdict.kind(), expected, "{why}: {}", verdict.because());
        assert!(verdict.because().contains(says), "{why}: {}", verdict.because());
        // A revocation acts on what runs by the rule that the release was under, whoever signed it.
        if expected == Reject {
            assert_eq!(verdict.on_revoke().as_str(), "stop", "{why}");
            let counts =
                known.iter().any(|record| revocation_counts(Some(&policy), record, release, &[], verdict.speakers()));
            assert!(counts, "{why}");
        }
        assert!(
            known
                .iter()
                .filter(|record| record.body.delegation().is_some())
                .all(|record| verdict.considered().contains(&record.id))
        );
    }
    let accepted = judged_at(&policy, &release, &[one()], 1, NOW);
    assert!(accepted.used().contains(&one().id), "the delegation is among what it rests on");
}

#[test]
fn lent_keys_stand_for_a_signer_in_roles_that_say_so_only() {
    let scene = Scene::default();
    let online = key(41);
    let release = signed(&scene.body(|_| {}), &[&online], NOW);
    let known = [lent(&scene, &scene.cern, 1, &[&online], 1, "*")];
    let plain = scene.preamble() + "[[rule]]\nrequire = \"signed-by:builders\"\nthen = \"accept\"\n";
    let parse = |text: &str| Policy::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let verdict = judged_at(&parse(&plain), &release, &known, 1, NOW);
    assert_eq!(verdict.kind(), Hold);
    assert!(verdict.because().contains("`delegated = true`"), "{}", verdict.because());
    let role = |more: &str| {
        plain.replace("builders = { signers = \"cern\"", &format!("builders = {{ signers = \"cern\"{more}"))
    };
    let verdict = judged_at(&parse(&role(", delegated = true")), &release, &known, 1, NOW);
    assert_eq!(verdict.kind(), Accept, "{}", verdict.because());
    assert_eq!(judged_at(&parse(&role(", delegated = false")), &release, &known, 1, NOW).kind(), Hold);
    // Not for another signer, and not for what was signed too long ago.
    let of_desy =
        role(", delegated = true").replace("builders = { signers = \"cern\"", "builders = { signers = \"desy\"");
    assert_eq!(judged_at(&parse(&of_desy), &release, &known, 1, NOW).kind(), Hold);
    let aged = role(", delegated = true, max-age = \"1d\"");
    assert_eq!(judged_at(&parse(&aged), &release, &known, 1, NOW + DAY).kind(), Accept);
    assert_eq!(judged_at(&parse(&aged), &release, &known, 1, NOW + 2 * DAY).kind(), Hold);
    // One key is one voice: that of desy, whom the policy names, is not cern's as well.
    let release = signed(&scene.body(|_| {}), &[&scene.desy], NOW);
    let known = [lent(&scene, &scene.cern, 1, &[&scene.desy, &online], 1, "*")];
    let both = role(", delegated = true, threshold = 2")
        .replace("builders = { signers = \"cern\"", "builders = { signers = [\"cern\", \"desy\"]");
    let verdict = judged_at(&parse(&both), &release, &known, 1, NOW);
    assert_eq!(verdict.kind(), Hold);
    assert!(verdict.because().contains("speak for other signers of role 'builders'"), "{}", verdict.because());
    let release = signed(&scene.body(|_| {}), &[&scene.desy, &online], NOW);
    assert_eq!(judged_at(&parse(&both), &release, &known, 1, NOW).kind(), Accept);
    assert!(parse(&role(", delegated = true")).summary().contains("lent their releases"));
    for (text, says) in [
        (role(", delegated = 1"), "true or false"),
        (role(", delegatd = true"), "did you mean `delegated`"),
        (role(", delegated = true").replace("signed-by:builders", "endorsed-by:builders"), "`signed-by` only"),
        (role(", delegated = true").replace("signed-by:builders", "not-revoked-by:builders"), "`signed-by` only"),
    ] {
        let refused = Policy::parse(&text).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
}

/// A rotation after the fact must not set running what was taken back before it, nor put it out of the publisher's reach.
#[test]
fn what_a_lent_key_published_can_be_revoked_after_it_lost_its_place() {
    let scene = Scene::default();
    let (online, next) = (key(41), key(42));
    let policy = scene.policy(
        "match = { publisher = \"cern\" }\nrequire = \"not-revoked-by:reviewers\"\nthen = \"accept\"\non-revoke = \"stop\"",
    );
    let release = signed(&scene.body(|_| {}), &[&online], NOW);
    let before = || lent(&scene, &scene.cern, 1, &[&online], 1, "*");
    let after = || lent(&scene, &scene.cern, 3, &[&next], 1, "*");
    let of_release = |by| revoked(RevocationSubject::Release(release.id), by);
    let of_key = |by| revoked(RevocationSubject::Key(public(&online)), by);
    for (who, said, is_revoked, expected) in [
        ("nobody", vec![], false, Hold),
        ("its publisher", vec![of_release(&scene.cern)], true, Reject),
        ("the key that signed it", vec![of_release(&online)], true, Reject),
        ("the key that has its place", vec![of_release(&next)], false, Hold),
        ("a stranger", vec![of_release(&scene.mallory)], false, Hold),
        ("those whom the rule listens to", vec![of_release(&scene.desy), of_release(&scene.kek)], true, Hold),
        ("those, of the key", vec![of_key(&scene.desy), of_key(&scene.kek)], true, Hold),
    ] {
        // Replaced, or run out.
        for (known, seen, now) in [(vec![before(), after()], 3, NOW), (vec![before()], 1, NOW + 90 * DAY)] {
            let known: Vec<_> = known.into_iter().chain(said.iter().cloned()).collect();
            let verdict = judged_at(&policy, &release, &known, seen, now);
            assert_eq!((verdict.kind(), verdict.revoked().is_some()), (expected, is_revoked), "by {who}");
            assert_eq!(verdict.on_revoke().as_str(), "stop", "by {who}");
        }
    }
    // While the key has its place, the same word keeps it out.
    let alarm = [before(), of_key(&scene.desy), of_key(&scene.kek)];
    assert_eq!(judged_at(&policy, &release, &alarm, 1, NOW).kind(), Hold);
}
