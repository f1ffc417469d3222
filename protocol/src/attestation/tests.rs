use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::bounded::List;
use crate::ids::{Hash, ImageId, PublicKey, Sha256};
use crate::record::{Boot, Disk, DiskFormat, Release};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

fn disk(byte: u8) -> Disk {
    let image = ImageId::of(&[byte]);
    Disk { image, format: DiskFormat::Raw, bytes: 1, blake3: Hash::of(&[byte]), sha256: Sha256([byte; 32]) }
}

fn release(disks: &[u8]) -> Release {
    let disks = List::try_from(disks.iter().map(|&byte| disk(byte)).collect::<Vec<_>>()).unwrap();
    let (name, version) = ("hello".try_into().unwrap(), "1".try_into().unwrap());
    Release::minimal(public(&key(1)), name, version, disks, "Hello".try_into().unwrap())
}

/// A statement about the disks that consist of these bytes.
fn statement(disks: &[u8], predicate_type: &str, predicate: Value) -> Value {
    let subject =
        |byte: &u8| json!({"name": format!("disk-{byte}"), "digest": {"sha256": format!("{byte:02x}").repeat(32)}});
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": disks.iter().map(subject).collect::<Vec<_>>(),
        "predicateType": predicate_type,
        "predicate": predicate,
    })
}

fn sealed(statement: &Value) -> String {
    Dsse::seal(PAYLOAD_TYPE_IN_TOTO, statement.to_string().as_bytes(), &[&key(1)])
}

fn read(statement: &Value) -> Result<Attestation, AttestationError> {
    Attestation::parse(sealed(statement).as_bytes())
}

fn said(predicate_type: &str, predicate: Value) -> Predicate {
    read(&statement(&[7], predicate_type, predicate)).unwrap().predicate().clone()
}

fn fields(predicate: &Predicate) -> Vec<String> {
    predicate.fields().into_iter().map(|(name, value)| format!("{name}: {value}")).collect()
}

#[test]
fn a_statement_is_about_what_it_names() {
    let read =
        read(&statement(&[1, 2], "https://example.org/tested/v1", json!({"anything": [1, {"a": null}]}))).unwrap();
    assert_eq!(read.predicate(), &Predicate::Other);
    assert_eq!((read.predicate_type(), read.signature_count()), ("https://example.org/tested/v1", 1));
    assert!(read.is_signed_by(&public(&key(1))) && !read.is_signed_by(&public(&key(2))));
    for (disks, some, all) in [
        (&[1u8][..], true, true),
        (&[1, 2], true, true),
        (&[1, 3], true, false),
        (&[3], false, false),
        (&[], false, false),
    ] {
        let release = release(disks);
        assert_eq!((read.is_about_a_disk_of(&release), read.is_about_all_of(&release)), (some, all), "{disks:?}");
    }
    let mut direct = release(&[1]);
    let kernel = ImageId::of(b"kernel");
    direct.boot = Boot::Direct { kernel, initrd: None, cmdline: "quiet".try_into().unwrap() };
    assert!(read.is_about_a_disk_of(&direct) && !read.is_about_all_of(&direct), "nobody spoke of its kernel");
}

#[test]
fn subjects_named_by_other_digests_are_about_no_disk() {
    let mut other = statement(&[1], "https://example.org/x", json!({}));
    other["subject"] = json!([{"digest": {"sha512": "00"}}, {"name": "git", "digest": {"gitCommit": "abc"}}, {}]);
    let read = read(&other).unwrap();
    assert_eq!(read.subjects().len(), 3);
    assert!(!read.is_about_a_disk_of(&release(&[0])));
}

#[test]
fn what_is_no_statement_is_refused_and_says_why() {
    let good = statement(&[1], "https://example.org/x", json!({}));
    assert!(read(&good).is_ok());
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = good.clone();
        change(&mut changed);
        read(&changed).unwrap_err().to_string()
    };
    for (change, says) in [
        (
            &(|s: &mut Value| s["_type"] = json!("https://in-toto.io/Statement/v2")) as &dyn Fn(&mut Value),
            "Statement/v2",
        ),
        (&|s| s["subject"] = json!([]), "0 subjects"),
        (&|s| s["subject"] = json!(vec![json!({}); MAX_SUBJECTS + 1]), "257 subjects"),
        (&|s| s["subject"][0]["digest"]["sha256"] = json!("AB".repeat(32)), "lower-case"),
        (&|s| s["subject"][0]["digest"]["sha256"] = json!("ab"), "64"),
        (&|s| s["predicateType"] = json!(""), "URI"),
        (&|s| s["predicateType"] = json!("a b:c"), "URI"),
        (&|s| s["predicateType"] = json!("x:".repeat(300)), "URI"),
        (&|s| drop(s.as_object_mut().unwrap().remove("subject")), "subject"),
        (&|s| s["predicateType"] = json!(PREDICATE_PROVENANCE), "buildDefinition"),
    ] {
        let refused = with(change);
        assert!(refused.contains(says), "{refused}");
    }
    let other = Dsse::seal("application/json", good.to_string().as_bytes(), &[&key(1)]);
    assert!(matches!(Attestation::parse(other.as_bytes()), Err(AttestationError::PayloadType(_))));
    let twice = good.to_string().replacen('{', "{\"subject\":[],", 1);
    let twice = Dsse::seal(PAYLOAD_TYPE_IN_TOTO, twice.as_bytes(), &[&key(1)]);
    assert!(Attestation::parse(twice.as_bytes()).unwrap_err().to_string().contains("twice"));
    assert!(Attestation::parse(b"-----BEGIN PGP SIGNATURE-----").unwrap_err().to_string().contains("no DSSE envelope"));
}

#[test]
fn versions_0_1_and_1_of_the_statement_are_read() {
    let mut old = statement(&[1], "https://example.org/x", json!({}));
    old["_type"] = json!("https://in-toto.io/Statement/v0.1");
    assert!(read(&old).unwrap().is_about_a_disk_of(&release(&[1])));
    old.as_object_mut().unwrap().remove("predicate");
    assert!(read(&old).is_ok(), "the predicate may be left out");
}

#[test]
fn provenance_says_who_built_it() {
    let v1 = said(
        PREDICATE_PROVENANCE,
        json!({
            "buildDefinition": {
                "buildType": "https://example.org/factory/v1",
                "externalParameters": {"recipe": "x"},
                "resolvedDependencies": [{"uri": "pkg:deb/debian/hello@2.10"}, {"uri": "pkg:deb/debian/libc6@2.36"}],
            },
            "runDetails": {
                "builder": {"id": "https://example.org/builder"},
                "metadata": {"invocationId": "1", "finishedOn": "2026-11-23T10:00:00Z"},
            },
        }),
    );
    let Predicate::Provenance(provenance) = &v1 else { panic!("{v1:?}") };
    assert_eq!(provenance.builder, "https://example.org/builder");
    assert_eq!((provenance.materials, v1.time()), (2, Some(1_795_428_000)));
    let v02 = said(
        "https://slsa.dev/provenance/v0.2",
        json!({
            "builder": {"id": "https://example.org/builder"}, "buildType": "https://example.org/factory/v1",
            "metadata": {"buildFinishedOn": "2026-11-23T10:00:00Z"}, "materials": [{}, {}],
        }),
    );
    assert_eq!(v1, v02);
    assert_eq!(v1.title(), Some("SLSA provenance"));
    assert!(fields(&v1).contains(&"builder: https://example.org/builder".to_owned()));
}

#[test]
fn scans_are_counted_by_the_worst_of_their_scores() {
    let scan = |result: Value| {
        json!({
            "scanner": {"uri": "pkg:example/scan", "version": "1", "db": {"lastUpdate": "2026-11-22T10:00:00Z"}, "result": result},
            "metadata": {"scanStartedOn": "2026-11-23T09:00:00Z", "scanFinishedOn": "2026-11-23T10:00:00Z"},
        })
    };
    let finding = |scores: &[&str]| {
        let severity: Vec<_> = scores.iter().map(|score| json!({"method": "m", "score": score})).collect();
        json!({"id": "CVE-1", "severity": severity})
    };
    let findings = json!([
        finding(&["medium", "9.8"]),
        finding(&["4.0"]),
        finding(&["Low"]),
        finding(&["nonsense"]),
        finding(&[]),
        {"vulnerability": {"id": "CVE-2", "severity": {"method": "nvd", "score": "7.0"}}},
    ]);
    let found = said(PREDICATE_SCAN, scan(findings.clone()));
    assert_eq!(fields(&found)[2], "findings: 1 critical, 1 high, 1 medium, 1 low, 2 unknown");
    assert_eq!(found.time(), Some(1_795_428_000));
    assert_eq!(said("https://in-toto.io/attestation/vulns/v0.1", scan(findings)), found);
    assert_eq!(fields(&said(PREDICATE_SCAN, scan(json!([]))))[2], "findings: nothing");
    let cosign = said("https://cosign.sigstore.dev/attestation/vuln/v1", scan(json!({"its": "own form"})));
    assert!(matches!(&cosign, Predicate::Scan(scan) if scan.findings.is_none()));
    assert!(read(&statement(&[1], PREDICATE_SCAN, scan(json!({"its": "own form"})))).is_err());
}

#[test]
fn a_verification_summary_says_whether_it_passed() {
    let summary = |result: &str| {
        json!({
            "verifier": {"id": "https://example.org/verifier"}, "timeVerified": "2026-11-23T10:00:00Z",
            "resourceUri": "x", "policy": {"uri": "https://example.org/policy"}, "verificationResult": result,
            "verifiedLevels": ["SLSA_BUILD_LEVEL_3", "ORG_LEVEL"], "slsaVersion": "1.0",
        })
    };
    let passed = said(PREDICATE_VERIFICATION, summary("PASSED"));
    assert_eq!(
        fields(&passed),
        [
            "result: PASSED",
            "verifier: https://example.org/verifier",
            "policy: https://example.org/policy",
            "levels: SLSA_BUILD_LEVEL_3, ORG_LEVEL"
        ]
    );
    assert!(matches!(said(PREDICATE_VERIFICATION, summary("FAILED")), Predicate::Verification(v) if !v.has_passed));
    assert!(read(&statement(&[1], PREDICATE_VERIFICATION, summary("passed"))).is_err());
}

#[test]
fn bills_of_materials_are_known_by_their_type() {
    let spdx = json!({
        "spdxVersion": "SPDX-2.3", "name": "hello", "creationInfo": {"created": "2026-11-23T10:00:00Z"},
        "packages": [{"name": "a"}, {"name": "b"}],
    });
    for predicate_type in ["https://spdx.dev/Document", "https://spdx.dev/Document/v2.3"] {
        let found = said(predicate_type, spdx.clone());
        assert_eq!(
            (fields(&found), found.time()),
            (vec!["document: hello".into(), "packages: 2".into()], Some(1_795_428_000))
        );
    }
    assert_eq!(said("https://spdx.dev/Document/v3.0", json!({"@graph": []})), Predicate::Other);
    let cyclonedx = json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "components": [{"name": "a"}],
        "metadata": {"timestamp": "2026-11-23T10:00:00Z", "component": {"name": "hello"}},
    });
    for predicate_type in ["https://cyclonedx.org/bom", "https://cyclonedx.org/bom/v1.5"] {
        let found = said(predicate_type, cyclonedx.clone());
        assert_eq!(
            (fields(&found), found.time()),
            (vec!["document: hello".into(), "packages: 1".into()], Some(1_795_428_000))
        );
    }
    assert_eq!(said("https://cyclonedx.org/bomb", json!({})), Predicate::Other);
}

proptest! {
    #[test]
    fn one_changed_byte_of_a_payload_takes_its_signature_away(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let good = statement(&[1], "https://example.org/x", json!({"text": "hello"})).to_string();
        let mut payload = good.clone().into_bytes();
        payload[at.index(good.len())] ^= 1 << bit;
        let encode = |payload: &[u8]| data_encoding::BASE64.encode(payload);
        let changed = Dsse::seal(PAYLOAD_TYPE_IN_TOTO, good.as_bytes(), &[&key(1)]).replace(&encode(good.as_bytes()), &encode(&payload));
        let read = Dsse::parse(changed.as_bytes()).unwrap();
        prop_assert!(!read.is_signed_by(&public(&key(1))));
    }

    #[test]
    fn no_predicate_panics(
        predicate_type in prop::sample::select(vec![
            PREDICATE_PROVENANCE, PREDICATE_SCAN, PREDICATE_VERIFICATION, "https://slsa.dev/provenance/v0.2",
            "https://spdx.dev/Document", "https://cyclonedx.org/bom", "https://cosign.sigstore.dev/attestation/vuln/v1",
        ]),
        text in "[\\[\\]{}\",:a-z0-9]{0,60}",
    ) {
        let predicate = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let _ = read(&statement(&[1], predicate_type, predicate));
    }
}
