//! In-toto statements in DSSE envelopes: brought to one site, counted at another, and written out again byte for byte.

use ed25519_dalek::SigningKey;
use rialto_node::keys;
use rialto_protocol::attestation::{Dsse, PAYLOAD_TYPE_IN_TOTO};
use rialto_protocol::ids::PublicKey;
use rialto_testnet::site::{SOON, text};
use rialto_tests::stage::{Outcome, Stage, list, noise, reviewed, shown};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A statement about the disk of the release that [`Stage::publish`] makes of this name and version.
fn statement(name: &str, version: &str) -> Value {
    let digest = Sha256::digest(noise(&format!("{name} {version}"), 256 << 10));
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "disk.raw", "digest": {"sha256": data_encoding::HEXLOWER.encode(&digest)}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {"buildType": "https://example.org/factory/v1", "resolvedDependencies": []},
            "runDetails": {"builder": {"id": "https://example.org/builder"}, "metadata": {"finishedOn": "2026-01-02T03:04:05Z"}},
        },
    })
}

#[test]
fn a_statement_is_brought_counted_elsewhere_and_written_out_again() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    let mut lab = stage.running("lab", &[&uni])?;
    let key = uni.new_key("releases")?;
    uni.new_key("courier")?;
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    let builder = SigningKey::from_bytes(&[7; 32]);
    let builder_line = keys::to_openssh(&PublicKey(builder.verifying_key().to_bytes()), "builder")?;
    lab.write_policy(&reviewed(&key, builder_line.trim()))?;
    lab.verdict(&release, "hold")?;

    // Not as its own reader would write it: what comes out must be what went in, not what was understood.
    let said = statement("hello", "1.0.0").to_string();
    let envelope = format!("\n {} \n", Dsse::seal(PAYLOAD_TYPE_IN_TOTO, said.as_bytes(), &[&builder]));
    let file = shown(&stage.file("provenance.dsse.json", &envelope)?);
    let record = text(&uni.json(&["endorse", &release, "--key", "courier", "--dsse", &file])?, "record")?;
    let accepted = lab.verdict(&release, "accept")?;
    assert!(text(&accepted["requirements"][0], "because")?.contains(&record), "{accepted}");

    let written = shown(&stage.path().join("written.json"));
    let exported = lab.json(&["export", &record, "-o", &written])?;
    assert_eq!(exported["predicate"], "https://slsa.dev/provenance/v1");
    assert_eq!(std::fs::read_to_string(&written)?, envelope, "byte for byte");
    assert_eq!(text(&lab.json(&["export", &record])?, "dsse")?, envelope);
    assert_eq!(lab.rialto(&["export", &record])?.expect(0)?.stdout, envelope);

    // Both sites show what it says; only lab knows who signed it.
    for (site, by) in [(&lab, json!(["lab"])), (&uni, json!([]))] {
        let shown = site.json(&["show", &release])?;
        let endorsement = &shown["endorsements"][0];
        let names: Vec<_> = list(&endorsement["signed_by"]).iter().map(|signer| signer["name"].clone()).collect();
        assert_eq!(json!(names), by, "{endorsement}");
        let statement = &endorsement["statement"];
        assert_eq!(
            (&statement["title"], &statement["problem"]),
            (&json!("SLSA provenance"), &Value::Null),
            "{statement}"
        );
        assert_eq!(statement["fields"][0], json!({"name": "builder", "value": "https://example.org/builder"}));
        assert_eq!(statement["time"], "2026-01-02T03:04:05Z");
    }
    assert!(uni.rialto(&["show", &release])?.expect(0)?.stdout.contains("nobody this site knows"));
    lab.until(SOON, "it to stay", &["policy", "explain", &release], |said| said["verdict"] == "accept")?;
    Ok(())
}

#[test]
fn what_says_nothing_of_the_release_is_not_brought() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    let builder = SigningKey::from_bytes(&[7; 32]);
    let sealed = |payload_type: &str, said: &Value| Dsse::seal(payload_type, said.to_string().as_bytes(), &[&builder]);
    let good = statement("hello", "1.0.0");
    let mut malformed = good.clone();
    malformed["predicate"] = json!({});
    for (content, says) in [
        ("not JSON".to_owned(), "no DSSE envelope"),
        (good.to_string(), "no DSSE envelope"),
        (sealed("application/json", &good), "application/json"),
        (sealed(PAYLOAD_TYPE_IN_TOTO, &statement("hello", "2.0.0")), "none of the disks"),
        (sealed(PAYLOAD_TYPE_IN_TOTO, &malformed), "buildDefinition"),
        (" ".repeat(60 << 10), "bytes"),
    ] {
        let file = shown(&stage.file("statement.json", &content)?);
        let refused = uni.refused(&["endorse", &release, "--key", "releases", "--dsse", &file], 2)?;
        assert!(text(&refused, "message")?.contains(says), "{refused}");
    }
    let nowhere = shown(&stage.path().join("nowhere.json"));
    uni.refused(&["endorse", &release, "--key", "releases", "--dsse", &nowhere], 3)?;
    // What is no endorsement with a statement has none to write out.
    let native = text(&uni.json(&["endorse", &release, "--key", "releases"])?, "record")?;
    for (record, code) in [(release.as_str(), 2), (native.as_str(), 2), (rialto_tests::stage::NOTHING, 3)] {
        uni.refused(&["export", record], code)?;
    }
    uni.write_policy(&rialto_tests::stage::accepting(&key))?;
    uni.verdict(&release, "accept")?;
    Ok(())
}
