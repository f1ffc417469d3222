//! The four mistakes that this system's ancestors made, each a regression test (DESIGN §7).

use rialto_protocol::bounded::{List, Name};
use rialto_protocol::ids::ImageId;
use rialto_protocol::record::RevocationSubject;
use rialto_protocol::signed::Verified;
use rialto_web::api::VerdictKind;

use super::testing::{NOW, Scene, disk, endorsed, endorsement, image, public, revoked, signed, signed_by_some};
use super::{Facts, PolicyFile, PolicyState, evaluate, judge};

/// The state in force for a policy file with this text: the way in that a site has.
fn in_force(text: &str) -> std::sync::Arc<PolicyState> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.toml");
    std::fs::write(&path, text).unwrap();
    PolicyFile::open(path).subscribe().borrow().clone()
}

/// (1) The option that asked for verification was misspelt, so nothing was ever verified. Here the whole way from the
/// file to the verdict is tested, and the misspelt file accepts nothing.
#[test]
fn mistake_1_the_verify_option_was_misspelt_so_nothing_was_verified() {
    let scene = Scene::default();
    let release = scene.release(|_| {});
    let policy = |word: &str| {
        let rule = format!(
            "[[rule]]\nmatch = {{ publisher = \"cern\" }}\n{word} = \"endorsed-by:reviewers\"\nthen = \"accept\""
        );
        in_force(&format!("{}\n{rule}\n", scene.preamble()))
    };
    let unendorsed = |state: &PolicyState| judge(state, &release, &Facts::default(), NOW);

    let rightly = policy("require");
    assert_eq!(rightly.status.error, None);
    assert_eq!(unendorsed(&rightly).kind(), VerdictKind::Hold, "the requirement is really asked for");
    let endorsements = [endorsed(release.id, &scene.desy), endorsed(release.id, &scene.kek)];
    let facts = Facts { endorsements: endorsements.iter().collect(), revocations: vec![], ..Facts::default() };
    assert_eq!(judge(&rightly, &release, &facts, NOW).kind(), VerdictKind::Accept, "and can be met");

    for misspelt in ["requires", "requrie", "Require", "require_", "verify", "verfiy"] {
        let state = policy(misspelt);
        let error = state.status.error.as_deref().unwrap_or_default();
        assert!(error.contains(&format!("`{misspelt}`")), "{error}");
        assert_eq!(unendorsed(&state).kind(), VerdictKind::Hold);
        assert!(judge(&state, &release, &facts, NOW).accepted().is_none(), "while it is misspelt nothing is accepted");
    }
}

/// (2) Any certificate under the CA directory passed. A valid signature is not an authorised signer.
#[test]
fn mistake_2_a_valid_signature_was_taken_for_an_authorised_signer() {
    let scene = Scene::default();
    let policy =
        scene.policy("match = { publisher = \"cern\" }\nrequire = [\"signed-by:builders\", \"endorsed-by:reviewers\"]\nthen = \"accept\"");
    let verdict = |release: &Verified<_>, endorsements: &[Verified<_>]| {
        let facts = Facts { endorsements: endorsements.iter().collect(), revocations: vec![], ..Facts::default() };
        evaluate(&policy, release, &facts, NOW)
    };
    let reviewed = |release: &Verified<rialto_protocol::record::Record>| {
        [endorsed(release.id, &scene.desy), endorsed(release.id, &scene.security)]
    };

    let honest = scene.release(|_| {});
    assert_eq!(verdict(&honest, &reviewed(&honest)).kind(), VerdictKind::Accept);

    // All of these are validly signed.
    let body = scene.body(|_| {});
    let by_mallory = signed(&body, &[&scene.mallory], NOW);
    let by_mallory_naming_cern = signed_by_some(&body, &[&scene.mallory, &scene.cern], &[&scene.mallory], NOW);
    let by_a_reviewer = signed(&body, &[&scene.desy], NOW);
    let cerns_signature_on_mallorys =
        signed(&scene.body(|release| release.publisher = public(&scene.mallory)), &[&scene.cern, &scene.mallory], NOW);
    for release in [by_mallory, by_mallory_naming_cern, by_a_reviewer, cerns_signature_on_mallorys] {
        let verdict = verdict(&release, &reviewed(&release));
        assert_eq!(verdict.kind(), VerdictKind::Hold, "{}", verdict.because());
        assert_eq!(verdict.rule(), "default", "the rule for cern's releases is not for this one");
    }

    // So are these endorsements, by a stranger, by the publisher, and by a stranger who names the reviewers.
    let reviewers = [&scene.mallory, &scene.desy, &scene.security];
    let named = signed_by_some(&endorsement(honest.id, |_| {}), &reviewers, &[&scene.mallory], NOW);
    for other in [endorsed(honest.id, &scene.mallory), endorsed(honest.id, &scene.cern), named] {
        let verdict = verdict(&honest, &[endorsed(honest.id, &scene.desy), other]);
        assert_eq!(verdict.kind(), VerdictKind::Hold, "{}", verdict.because());
        assert!(verdict.requirements()[1].because.starts_with("1 of 2 needed"), "{:?}", verdict.requirements());
    }
}

/// (2, without a policy that asks) Not even a policy that accepts everything takes a release for its publisher's that the
/// publisher has not signed.
#[test]
fn mistake_2_a_release_that_its_publisher_has_not_signed_is_never_accepted() {
    let scene = Scene::default();
    let forged = signed_by_some(&scene.body(|_| {}), &[&scene.mallory, &scene.cern], &[&scene.mallory], NOW);
    for text in ["[default]\nthen = \"accept\"", "[[rule]]\nmatch = { name = \"*\" }\nthen = \"accept\""] {
        let verdict = judge(&in_force(text), &forged, &Facts::default(), NOW);
        assert_eq!(verdict.kind(), VerdictKind::Hold);
        assert!(verdict.accepted().is_none() && verdict.explanation().images.is_empty());
        assert!(verdict.because().contains("is not signed with that key"), "{}", verdict.because());
    }
}

/// (3) A filter that removed from the list that it was walking through skipped the item after each removed one. Bad items
/// next to each other are the case that showed it: every arrangement of them is tried.
#[test]
fn mistake_3_a_filter_that_removed_from_the_list_it_walked_let_the_next_one_through() {
    let scene = Scene::default();
    let policy = scene.policy("require = \"endorsed-by:reviewers\"\nthen = \"accept\"");
    let release = scene.release(|_| {});
    // Six endorsements, two by each reviewer; any of them may be revoked.
    let keys = [&scene.security, &scene.desy, &scene.kek];
    let endorsements: Vec<_> = (0..6)
        .map(|n| signed(&endorsement(release.id, |e| e.expires = Some(NOW + 1 + n as u64)), &[keys[n / 2]], NOW))
        .collect();
    for revoked_ones in 0..1u32 << endorsements.len() {
        let is_revoked = |n: usize| revoked_ones & 1 << n != 0;
        let revocations: Vec<_> = (0..endorsements.len())
            .filter(|n| is_revoked(*n))
            .map(|n| revoked(RevocationSubject::Endorsement(endorsements[n].id), keys[n / 2]))
            .collect();
        let facts = Facts {
            endorsements: endorsements.iter().collect(),
            revocations: revocations.iter().collect(),
            ..Facts::default()
        };
        let reviewers = (0..3).filter(|reviewer| !is_revoked(2 * reviewer) || !is_revoked(2 * reviewer + 1)).count();
        let verdict = evaluate(&policy, &release, &facts, NOW);
        assert_eq!(verdict.kind() == VerdictKind::Accept, reviewers >= 2, "revoked: {revoked_ones:06b}");
        let used_a_revoked_one = (0..6).any(|n| is_revoked(n) && verdict.used().contains(&endorsements[n].id));
        assert!(!used_a_revoked_one, "revoked: {revoked_ones:06b}");
    }
}

/// (3) The same for releases, and for the requirements of one rule.
#[test]
fn mistake_3_no_arrangement_of_bad_releases_or_unmet_requirements_lets_one_through() {
    let scene = Scene::default();
    let policy = scene.policy("match = { publisher = \"cern\" }\nthen = \"accept\"");
    for bad_ones in 0..1u32 << 5 {
        let releases: Vec<_> = (0..5)
            .map(|n| {
                let signer = if bad_ones & 1 << n != 0 { &scene.mallory } else { &scene.cern };
                signed(&scene.body(|release| release.sequence = n), &[signer], NOW)
            })
            .collect();
        for (n, release) in releases.iter().enumerate() {
            let is_accepted = evaluate(&policy, release, &Facts::default(), NOW).accepted().is_some();
            assert_eq!(is_accepted, bad_ones & 1 << n == 0, "release {n} of {bad_ones:05b}");
        }
    }

    let met = ["signed-by:builders", "max-age:1d", "max-age:2d", "max-age:3d"];
    let unmet = ["sbom", "endorsed-by:reviewers", "endorsed-by:reviewers:urn:x", "endorsed-by:reviewers:urn:y"];
    let release = scene.release(|_| {});
    for unmet_ones in 0..1usize << met.len() {
        let require: Vec<_> =
            (0..met.len()).map(|n| if unmet_ones & 1 << n != 0 { unmet[n] } else { met[n] }).collect();
        let policy = scene.policy(&format!("require = {require:?}\nthen = \"accept\""));
        let verdict = evaluate(&policy, &release, &Facts::default(), NOW);
        assert_eq!(verdict.accepted().is_some(), unmet_ones == 0, "{require:?}");
        let outcomes: Vec<_> = verdict.requirements().iter().map(|r| (r.name.as_str(), r.met)).collect();
        let expected: Vec<_> = require.iter().map(|name| (*name, met.contains(name))).collect();
        assert_eq!(outcomes, expected, "each requirement is accounted for, once and in order");
    }
}

/// (4) The verdict was computed and then ignored, and another manifest was deployed. What deployment takes comes out of
/// the verdict itself, names the images of the release that was judged, and exists only where the verdict is accept.
#[test]
fn mistake_4_the_verdict_was_ignored_and_another_manifest_deployed() {
    let scene = Scene::default();
    let policy =
        scene.policy("match = { publisher = \"cern\" }\nrequire = \"endorsed-by:reviewers\"\nthen = \"accept\"");
    let swapped = |content: &'static str| {
        scene.release(move |release| release.disks = List::try_from(vec![disk(content)]).unwrap())
    };
    // One publisher, name, version and sequence, two contents; only the first is endorsed.
    let (tested, other) = (swapped("tested"), swapped("other"));
    let endorsements = [endorsed(tested.id, &scene.desy), endorsed(tested.id, &scene.kek)];
    let facts = || Facts { endorsements: endorsements.iter().collect(), revocations: vec![], ..Facts::default() };

    let verdict = evaluate(&policy, &tested, &facts(), NOW);
    let images: Vec<ImageId> = ["tested", "kernel", "initrd"].map(image).to_vec();
    assert_eq!(verdict.explanation().images, images);
    let accepted = verdict.into_accepted().unwrap();
    assert_eq!((accepted.id(), accepted.images()), (tested.id, images.as_slice()));
    assert_eq!(accepted.release().images(), images);

    let verdict = evaluate(&policy, &other, &facts(), NOW);
    assert_eq!(verdict.kind(), VerdictKind::Hold);
    assert!(verdict.accepted().is_none() && verdict.explanation().images.is_empty());
    assert!(verdict.into_accepted().is_none());

    // The same for another release that merely has the same name.
    let renamed = scene.release(|release| release.name = Name::try_from("batch-other").unwrap());
    assert!(evaluate(&policy, &renamed, &facts(), NOW).into_accepted().is_none());
}
