//! How a release was built and what is inside of it, as rules require it.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use rialto_protocol::attestation::PREDICATE_PROVENANCE;
use rialto_protocol::package::Bom;
use rialto_protocol::record::{Advisory, Body, Boot, PREDICATE_REBUILT, Record, Release, RevocationSubject, Severity};
use rialto_protocol::signed::Verified;
use rialto_web::api::VerdictKind::{Accept, Hold};
use serde_json::{Value, json};

use super::testing::{NOW, Scene, brought, endorsement, image, public, revoked, signed};
use super::{Facts, Inside, Policy, Standing, Verdict, bearing_on, evaluate, revocation_subjects, standing};

fn policy(scene: &Scene, require: &str) -> Policy {
    scene.policy(&format!("require = \"{require}\"\nthen = \"accept\""))
}

/// Judges by all of `known` that the policy asks for, and by what is inside.
fn judged(policy: &Policy, release: &Verified<Record>, inside: Option<Inside>, known: &[Verified<Record>]) -> Verdict {
    let of = |is: fn(&Body) -> bool| known.iter().filter(move |record| is(&record.body)).collect::<Vec<_>>();
    let endorsements = of(|body| body.endorsement().is_some());
    let advisories = of(|body| body.advisory().is_some());
    let mut facts = Facts { endorsements, advisories, inside, ..Facts::default() };
    let subjects = revocation_subjects(Some(policy), release, &facts);
    let is_asked_for =
        |record: &&Verified<Record>| record.body.revocation().is_some_and(|said| subjects.contains(&said.subject));
    facts.revocations = known.iter().filter(is_asked_for).collect();
    evaluate(policy, release, &facts, NOW)
}

/// Checks verdict and explanation of one requirement.
fn check(policy: &Policy, release: &Verified<Record>, known: &[Verified<Record>], is_met: bool, says: &str) {
    check_inside(policy, release, None, known, is_met, says);
}

fn check_inside(
    policy: &Policy,
    release: &Verified<Record>,
    inside: Option<Inside>,
    known: &[Verified<Record>],
    is_met: bool,
    says: &str,
) {
    let verdict = judged(policy, release, inside, known);
    let because = &verdict.requirements()[0].because;
    assert_eq!(verdict.kind(), if is_met { Accept } else { Hold }, "{because}");
    assert!(because.contains(says), "{because} does not say: {says}");
}

fn built_by(release: &Verified<Record>, builder: &str, key: &SigningKey) -> Verified<Record> {
    let predicate = json!({
        "buildDefinition": {"buildType": "https://example.org/factory"},
        "runDetails": {"builder": {"id": builder}, "metadata": {"finishedOn": "2025-10-01T00:00:00Z"}},
    });
    brought(release, PREDICATE_PROVENANCE, predicate, &[key], &SigningKey::from_bytes(&[77; 32]))
}

/// A release whose disks are all that boots.
fn bios(scene: &Scene, change: impl FnOnce(&mut Release)) -> Verified<Record> {
    scene.release(|release| {
        release.boot = Boot::Bios {};
        change(release);
    })
}

const BUILDER: &str = "https://example.org/builder";

#[test]
fn provenance_is_named_by_the_publisher_or_vouched_for_in_a_statement() {
    let scene = Scene::default();
    let release = bios(&scene, |_| {});
    let named = bios(&scene, |release| release.provenance = Some(image("provenance")));
    let any = policy(&scene, "provenance");
    check(&any, &named, &[], true, "its provenance is image");
    check(&any, &release, &[], false, "its publisher names no provenance with it, and cern has made no statement");
    check(&any, &release, &[built_by(&release, BUILDER, &scene.cern)], true, "vouched for by cern (record ");
    check(&any, &release, &[built_by(&release, BUILDER, &scene.desy)], false, "cern has made no statement");

    // Of a builder, only what is signed counts: by the publisher, or by whom the rule names.
    let builder = policy(&scene, "provenance:https://example.org/builder");
    check(&builder, &named, &[], false, "says nothing that is signed");
    check(&builder, &release, &[built_by(&release, BUILDER, &scene.cern)], true, "vouched for by cern");
    check(&builder, &release, &[built_by(&release, "https://example.org/builders", &scene.cern)], false, "is required");
    check(&builder, &release, &[built_by(&release, BUILDER, &scene.mallory)], false, "cern has made no statement");
    let of_role = policy(&scene, "provenance:reviewers:https://example.org/builder");
    let by = |keys: &[&SigningKey]| keys.iter().map(|key| built_by(&release, BUILDER, key)).collect::<Vec<_>>();
    check(&of_role, &release, &by(&[&scene.desy, &scene.kek]), true, "vouched for by desy (record ");
    check(&of_role, &release, &by(&[&scene.desy, &scene.cern]), false, "1 of 2 needed");
    let revoked = revoked(RevocationSubject::Key(public(&scene.cern)), &scene.desy);
    check(&any, &release, &[built_by(&release, BUILDER, &scene.cern), revoked], true, "vouched for by cern");
}

#[test]
fn rebuilds_count_by_others_than_the_publisher_and_of_all_that_boots() {
    let scene = Scene::default();
    let release = bios(&scene, |_| {});
    let native = |key: &SigningKey| {
        signed(&endorsement(release.id, |e| e.predicate = PREDICATE_REBUILT.try_into().unwrap()), &[key], NOW)
    };
    let two = policy(&scene, "rebuilt-by:2");
    check(&two, &release, &[], false, "0 of 2 needed");
    check(&two, &release, &[native(&scene.desy)], false, "1 of 2 needed: rebuilt to the same images by desy");
    check(&two, &release, &[native(&scene.desy), native(&scene.kek)], true, "rebuilt to the same images by desy");
    check(&two, &release, &[native(&scene.desy), built_by(&release, BUILDER, &scene.kek)], true, " and kek (record ");
    check(&two, &release, &[native(&scene.desy), native(&scene.cern)], false, "1 of 2 needed");
    check(&two, &release, &[native(&scene.desy), native(&scene.mallory)], false, "1 of 2 needed");
    check(&two, &release, &[native(&scene.security), native(&scene.security_old)], false, "1 of 2 needed");
    let tested = super::testing::endorsed(release.id, &scene.kek);
    check(&two, &release, &[native(&scene.desy), tested], false, "kek has not rebuilt it");
    let taken_back = revoked(RevocationSubject::Endorsement(native(&scene.kek).id), &scene.kek);
    check(&two, &release, &[native(&scene.desy), native(&scene.kek), taken_back], false, "it was revoked");
    // A direct kernel carries no sha256, so no statement can name it.
    let direct = scene.release(|_| {});
    let one = policy(&scene, "rebuilt-by:1:reviewers");
    check(&one, &direct, &[built_by(&direct, BUILDER, &scene.kek)], false, "does not name all that boots");
    check(&one, &release, &[built_by(&release, BUILDER, &scene.kek)], true, "kek");
}

fn spdx(packages: &[(&str, &str)]) -> Value {
    let package = |(name, version): &(&str, &str)| {
        json!({"name": name, "versionInfo": version, "externalRefs": [{
            "referenceType": "purl", "referenceLocator": format!("pkg:deb/debian/{name}@{version}?distro=debian-12"),
        }]})
    };
    json!({"spdxVersion": "SPDX-2.3", "packages": packages.iter().map(package).collect::<Vec<_>>()})
}

fn advisory(key: &SigningKey, package: &str, fixed: Option<&str>, severity: Severity, issued: u64) -> Verified<Record> {
    let advisory = Advisory {
        id: "DSA-1".try_into().unwrap(),
        ecosystem: "debian-12".try_into().unwrap(),
        package: package.try_into().unwrap(),
        fixed: fixed.map(|fixed| fixed.try_into().unwrap()),
        severity,
        summary: None,
    };
    signed(&Body::Advisory(Box::new(advisory)), &[key], issued)
}

#[test]
fn advisories_of_the_policys_signers_hold_what_they_bear_on() {
    use Severity::{Critical, High, Medium};
    let scene = Scene::default();
    let release = bios(&scene, |release| release.sbom = Some(image("sbom")));
    let high = policy(&scene, "no-advisory:high");
    let bom = Bom::parse(spdx(&[("openssl", "3.0.11-1"), ("bash", "5.2-1")]).to_string().as_bytes()).unwrap();
    let inside = || Some(Inside::Known(Arc::new(bom.clone())));
    let by = |package, fixed, severity| advisory(&scene.security, package, fixed, severity, NOW);
    let checked =
        |known: &[Verified<Record>], is_met, says: &str| check_inside(&high, &release, inside(), known, is_met, says);
    checked(&[], true, "bears on its 2 packages (SBOM image ");
    checked(
        &[by("openssl", Some("3.0.11-2"), High)],
        false,
        "DSA-1 (high, fixed in 3.0.11-2) bears on openssl 3.0.11-1 (record ",
    );
    checked(&[by("openssl", None, Critical)], false, "DSA-1 (critical, not fixed yet) bears on openssl");
    checked(
        &[by("openssl", Some("3.0.11-1"), Critical)],
        true,
        "no advisory of a signer of the policy of severity high",
    );
    checked(&[by("openssl", Some("3.0.11-2"), Medium)], true, "no advisory");
    checked(&[by("zsh", None, Critical)], true, "no advisory");
    checked(&[by("openssl", Some("what?"), High)], false, "may bear on openssl 3.0.11-1");
    checked(&[advisory(&scene.mallory, "openssl", None, Critical, NOW)], true, "no advisory");
    // A later word of the same signer on the same flaw counts, an earlier one does not, and a revoked key's not at all.
    let (early, late) = (advisory(&scene.security_old, "openssl", None, High, NOW - 9), by("openssl", None, Medium));
    checked(&[early.clone(), late.clone()], true, "no advisory");
    let late_low = late.clone();
    checked(&[advisory(&scene.desy, "openssl", None, High, NOW - 9), late], false, "bears on openssl");
    checked(&[early.clone(), revoked(RevocationSubject::Key(public(&scene.security_old)), &scene.security)], true, "");
    // Taken back by who made it, and by nobody else; one that another signer stands by still counts for that one.
    let taken_back = |record: &Verified<Record>, by| revoked(RevocationSubject::Advisory(record.id), by);
    checked(&[early.clone(), taken_back(&early, &scene.security)], true, "no advisory");
    checked(&[early.clone(), taken_back(&early, &scene.desy)], false, "bears on openssl");
    checked(&[early.clone(), taken_back(&early, &scene.mallory)], false, "bears on openssl");
    let both = signed(&early.body, &[&scene.security, &scene.desy], NOW);
    checked(&[both.clone(), taken_back(&both, &scene.security)], false, "bears on openssl");
    let withdrawal = taken_back(&early, &scene.security);
    let verdict = judged(&high, &release, inside(), &[early.clone(), withdrawal.clone()]);
    assert!(verdict.considered().contains(&withdrawal.id), "it made a difference");
    for (others, revocations, expected) in [
        (&[&early, &late_low][..], vec![], Standing::Corrected(late_low.id)),
        (&[&early], vec![&withdrawal], Standing::Revoked(withdrawal.id)),
        (&[&early], vec![], Standing::Counts),
    ] {
        assert_eq!(standing(&high, &early, others, &revocations), expected);
    }
    let of_stranger = advisory(&scene.mallory, "openssl", None, Critical, NOW);
    assert_eq!(standing(&high, &of_stranger, &[&of_stranger], &[]), Standing::Unheard);
    // Shown whatever the rules ask for.
    let any = policy(&scene, "sbom");
    let known = [by("openssl", Some("3.0.11-2"), Medium), advisory(&scene.mallory, "bash", None, Critical, NOW)];
    let facts = Facts { advisories: known.iter().collect(), inside: inside(), ..Facts::default() };
    let hits = bearing_on(&any, &release, &facts, NOW);
    assert_eq!(
        hits.iter().map(|hit| (hit.record, hit.package.as_str())).collect::<Vec<_>>(),
        [(known[0].id, "openssl 3.0.11-1")]
    );
    // Of a role, if one is named.
    let of_builders = policy(&scene, "no-advisory:low:builders");
    check_inside(&of_builders, &release, inside(), std::slice::from_ref(&early), true, "no advisory of builders");
    let verdict = judged(&high, &release, inside(), std::slice::from_ref(&early));
    assert!(verdict.considered().contains(&early.id), "it made a difference");
}

#[test]
fn what_is_inside_must_be_known() {
    let scene = Scene::default();
    let high = policy(&scene, "no-advisory:high");
    let (bare, named) = (bios(&scene, |_| {}), bios(&scene, |release| release.sbom = Some(image("sbom"))));
    check(&high, &bare, &[], false, "what is inside of it is not known");
    check(&high, &named, &[], false, "was not looked into");
    let missing = Some(Inside::Unknown("it is not in the store".into()));
    check_inside(&high, &named, missing, &[], false, "is not known: it is not in the store");
    // In a statement, of somebody with a role or of the publisher.
    let said =
        |key| brought(&bare, "https://spdx.dev/Document", spdx(&[("openssl", "3.0.11-1")]), &[key], &scene.mallory);
    let hit = advisory(&scene.desy, "openssl", None, Severity::High, NOW);
    for (key, is_known) in [(&scene.cern, true), (&scene.kek, true), (&scene.mallory, false)] {
        let says = if is_known { "bears on its 1 packages (SBOM in record " } else { "not known" };
        check(&high, &bare, &[said(key)], is_known, says);
        check(&high, &bare, &[said(key), hit.clone()], false, if is_known { "DSA-1" } else { "not known" });
    }
    let empty = brought(&bare, "https://spdx.dev/Document", spdx(&[]), &[&scene.kek], &scene.mallory);
    check(&high, &bare, &[empty], false, "it names no packages");
}

#[test]
fn licences_are_met_with_those_of_the_list() {
    let scene = Scene::default();
    let rule = policy(&scene, "licence:MIT|Apache-2.0 WITH LLVM-exception|GPL-2.0-or-later");
    for (licence, is_met, says) in [
        (Some("MIT"), true, "its licence is MIT"),
        (Some("MIT OR LicenseRef-secret"), true, ""),
        (Some("MIT AND GPL-2.0-or-later"), true, ""),
        (Some("Apache-2.0 WITH LLVM-exception"), true, ""),
        (Some("Apache-2.0"), false, "asks for others"),
        (Some("MIT AND Apache-2.0"), false, "asks for others"),
        (Some("do what you like"), false, "is no SPDX expression"),
        (None, false, "names no licence"),
    ] {
        let release = scene.release(|release| release.licence = licence.map(|text| text.try_into().unwrap()));
        check(&rule, &release, &[], is_met, says);
    }
}

#[test]
fn rules_match_on_size_and_federation() {
    let scene = Scene::default();
    let text = |matches: &str| scene.preamble() + "[[rule]]\nmatch = { " + matches + " }\nthen = \"accept\"\n";
    let parse = |matches: &str| Policy::parse(&text(matches));
    let release = scene.release(|_| {});
    for (matches, federation, expected) in [
        ("size = \"<= 8 KiB\"", None, Accept),
        ("size = \"<= 8191 B\"", None, Hold),
        ("size = \">= 8 KiB\"", None, Accept),
        ("size = [\"<= 1 KiB\", \">= 8 KiB\"]", None, Accept),
        ("federation = \"science\"", Some("science"), Accept),
        ("federation = [\"physics\", \"science\"]", Some("science"), Accept),
        ("federation = \"science\"", Some("arts"), Hold),
        ("federation = \"science\"", None, Hold),
    ] {
        let facts = Facts { federation: federation.map(|name| name.try_into().unwrap()), ..Facts::default() };
        assert_eq!(evaluate(&parse(matches).unwrap(), &release, &facts, NOW).kind(), expected, "{matches}");
    }
    for bad in ["size = \"8 KiB\"", "size = \"<= \"", "size = \"< 8 KiB\"", "federation = \"Science\""] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_these_requirements_take_is_checked_when_the_file_is_read() {
    let scene = Scene::default();
    let parse = |require: &str| {
        Policy::parse(&(scene.preamble() + "[[rule]]\nrequire = \"" + require + "\"\nthen = \"accept\"\n"))
    };
    for good in [
        "provenance",
        "provenance:builders",
        "provenance:builders:urn:x",
        "provenance:https://example.org/b",
        "rebuilt-by:1",
        "rebuilt-by:3:reviewers",
        "no-advisory:critical",
        "no-advisory:low:reviewers",
        "licence:MIT",
        "licence:MIT|LicenseRef-ours",
    ] {
        let policy = parse(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        assert_eq!(policy.rules[0].require[0].to_string(), good, "written as it was read");
        assert!(policy.summary().contains(" if "), "{}", policy.summary());
    }
    for (bad, says) in [
        ("provenance:nobody", "no role `nobody`"),
        ("provenance:builders:not a uri", "URI"),
        ("rebuilt-by", "needs a number"),
        ("rebuilt-by:0", "from 1 to 4"),
        ("rebuilt-by:5", "from 1 to 4"),
        ("rebuilt-by:4:reviewers", "from 1 to 3"),
        ("rebuilt-by:2:nobody", "no role `nobody`"),
        ("no-advisory", "needs a severity"),
        ("no-advisory:hgih", "did you mean `high`"),
        ("no-advisory:high:nobody", "no role `nobody`"),
        ("licence", "needs SPDX"),
        ("licence:MIT|", "no licence of SPDX"),
        ("licence:Mitt", "no licence of SPDX"),
        ("license:MIT", "did you mean `licence`"),
    ] {
        let refused = parse(bad).unwrap_err().to_string();
        assert!(refused.contains(says), "{bad}: {refused}");
    }
}
