//! Advisories between whole nodes: published where the key is, heard where policy says so, corrected, taken back.

use rialto_testnet::site::{SOON, Site, text};
use rialto_tests::stage::{Outcome, Stage, list, noise, shown};
use serde_json::{Value, json};

/// A release with one disk and this package inside.
fn publish(stage: &Stage, site: &Site, version: &str, openssl: &str) -> Outcome<String> {
    let disk = noise(&format!("hello {version}"), 256 << 10);
    let description = stage.description("hello", version, &disk)?;
    let bom = json!({"spdxVersion": "SPDX-2.3", "packages": [{
        "name": "libssl3", "versionInfo": openssl, "externalRefs": [{
            "referenceType": "purl",
            "referenceLocator": format!("pkg:deb/debian/libssl3@{openssl}?upstream=openssl&distro=debian-12"),
        }],
    }]});
    stage.file(&format!("hello-{version}/sbom.json"), bom.to_string())?;
    let with_sbom = format!("sbom = \"sbom.json\"\n{}", std::fs::read_to_string(&description)?);
    std::fs::write(&description, with_sbom)?;
    Ok(text(&site.json(&["publish", &description, "--key", "releases"])?, "release")?)
}

fn policy(uni: &str, alarm: &str) -> String {
    format!(
        "[signers]\nuni = \"{uni}\"\nalarm = \"{alarm}\"\n\n[roles]\nwatch = {{ signers = [\"alarm\"] }}\n\n[[rule]]\n\
         name = \"mended\"\nmatch = {{ publisher = [\"uni\"] }}\nrequire = [\"no-advisory:high:watch\"]\n\
         then = \"accept\"\notherwise = \"reject\"\n"
    )
}

/// What is said of the one requirement of [`policy`], once the verdict is this.
fn because(site: &Site, release: &str, verdict: &str) -> Outcome<String> {
    Ok(text(&site.verdict(release, verdict)?["requirements"][0], "because")?)
}

fn advisory<'a>(id: &'a str, severity: &'a str, fixed: &'a str, key: &'a str) -> Vec<&'a str> {
    let of = ["advisory", "publish", "--id", id, "--severity", severity, "--ecosystem", "debian-12"];
    [&of[..], &["--package", "openssl", "--fixed", fixed, "--key", key]].concat()
}

#[test]
fn an_advisory_of_one_site_decides_at_another_what_that_one_boots() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    let (alarm, _stranger) = (uni.new_key("alarm")?, uni.new_key("stranger")?);
    let old = publish(&stage, &uni, "1.0.0", "3.0.11-1~deb12u2")?;
    let new = publish(&stage, &uni, "2.0.0", "3.0.11-1~deb12u3")?;
    let mut shop = stage.running("shop", &[&uni])?;
    shop.write_policy(&policy(&key, &alarm))?;
    shop.meets(&[&uni])?;
    // Nothing is known of what is inside before its list is here.
    let said = because(&shop, &old, "reject")?;
    assert!(said.contains("is not known: it is not in the store"), "{said}");
    for release in [&old, &new] {
        let images = shop.json(&["show", release])?["images"].clone();
        let sbom = list(&images).iter().find(|image| image["role"] == "sbom").cloned().unwrap_or_default();
        shop.json(&["fetch", &text(&sbom, "image")?])?;
        shop.verdict(release, "accept")?;
    }

    // A stranger's word is heard by nobody; it is there for whoever wants to see it.
    uni.json(&advisory("STRANGE-1", "critical", "9", "stranger"))?;
    let listed = ["advisory", "ls", "--strangers"];
    let known = shop.until(SOON, "the stranger's advisory", &listed, |known| !list(known).is_empty())?;
    assert_eq!((&known[0]["counts"], &known[0]["id"]), (&json!(false), &json!("STRANGE-1")), "{known}");
    assert_eq!(shop.json(&["advisory", "ls"])?, json!([]));
    shop.verdict(&old, "accept")?;

    let published = uni.json(&advisory("DSA-1", "high", "3.0.11-1~deb12u3", "alarm"))?;
    let record = text(&json!({"record": published["records"][0]}), "record")?;
    let said = because(&shop, &old, "reject")?;
    for part in ["DSA-1 (high, fixed in 3.0.11-1~deb12u3) bears on libssl3 3.0.11-1~deb12u2", &record] {
        assert!(said.contains(part), "{said}");
    }
    shop.verdict(&new, "accept")?;
    shop.refused(&["fetch", &old], 4)?;
    // The page of the release says so, and by whom; the mended one has nothing to say.
    let bearing = shop.json(&["show", &old])?["advisories"].clone();
    assert_eq!(list(&bearing).len(), 1, "{bearing}");
    assert_eq!(bearing[0]["advisory"]["signed_by"][0]["name"], "alarm");
    assert_eq!(shop.json(&["show", &new])?["advisories"], json!([]));
    assert!(shop.rialto(&["show", &old])?.expect(0)?.stdout.contains("advisories that bear on it"));
    let decision = shop.json(&["decisions", "--limit", "1"])?;
    let number = decision[0]["number"].to_string();
    assert_eq!(shop.json(&["policy", "replay", "--decision", &number])?["is_same"], true);

    // Corrected: it is less bad than it seemed. Corrected again, and that one taken back: what it corrected counts once more.
    let later = corrected(&uni, &shop, "medium")?;
    shop.verdict(&old, "accept")?;
    let superseded = shop.json(&["advisory", "show", &record])?;
    assert!(superseded[0]["because"].as_str().is_some_and(|why| why.contains(&later)), "{superseded}");
    uni.json(&["revoke", &later, "--key", "stranger", "--reason", "I do not like it"])?;
    uni.json(&["revoke", &later, "--key", "alarm", "--reason", "it is as bad as it seemed"])?;
    let said = because(&shop, &old, "reject")?;
    assert!(said.contains(&record), "{said}");
    uni.json(&["revoke", &record, "--key", "alarm", "--reason", "no flaw at all"])?;
    shop.verdict(&old, "accept")?;
    assert_eq!(shop.json(&["show", &old])?["advisories"], json!([]));
    Ok(())
}

/// Says the same again with another severity, once that has a later time.
fn corrected(by: &Site, heard_by: &Site, severity: &str) -> Outcome<String> {
    let before = heard_by.json(&["advisory", "show", "openssl"])?[0].clone();
    let published = by.json(&advisory("DSA-1", severity, "3.0.11-1~deb12u3", "alarm"))?;
    let record = text(&json!({"record": published["records"][0]}), "record")?;
    let is_known = |known: &Value| list(known).iter().any(|known| known["record"] == record.as_str());
    heard_by.until(SOON, "the correction", &["advisory", "show", "DSA-1"], is_known)?;
    assert_ne!(before["record"], record.as_str());
    Ok(record)
}

#[test]
fn what_could_be_of_no_use_is_not_published() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    uni.new_key("alarm")?;
    let file = |content: &str| -> Outcome<String> { Ok(shown(&stage.file("advisory.toml", content)?)) };
    let good = "id = \"DSA-2\"\nseverity = \"low\"\nsummary = \"Two of them\"\n\n[[package]]\necosystem = \"debian-12\"\n\
                name = \"openssl\"\nfixed = \"3.0.11-1\"\n\n[[package]]\necosystem = \"cargo\"\nname = \"openssl-sys\"\n";
    for (content, says) in [
        (good.replace("debian-12", "debian-bookworm"), "debian-12"),
        (good.replace("cargo", "crates.io"), "no package is of an ecosystem"),
        (good.replace("3.0.11-1", "the next one"), "no version"),
        (good.replace("severity = \"low\"", "severity = \"lwo\""), "no severity"),
        (good.replace("severity", "severty"), "line 2"),
        (good.replace("cargo", "debian-12").replace("openssl-sys", "openssl"), "twice"),
        ("x".repeat(60 << 10), "no advisory"),
    ] {
        let refused = uni.refused(&["advisory", "publish", &file(&content)?, "--key", "alarm"], 2)?;
        assert!(text(&refused, "message")?.contains(says), "{refused}");
    }
    assert_eq!(uni.json(&["advisory", "ls"])?, json!([]), "nothing of it was said");
    uni.refused(&["advisory", "show", "openssl"], 3)?;
    uni.refused(&["advisory", "publish", &shown(&stage.path().join("nowhere")), "--key", "alarm"], 3)?;
    uni.refused(&["advisory", "publish", "--id", "DSA-2", "--key", "alarm"], 2)?;

    let published = uni.json(&["advisory", "publish", &file(good)?, "--key", "alarm"])?;
    assert_eq!(list(&published["records"]).len(), 2, "{published}");
    let again = uni.refused(&["advisory", "publish", &file(good)?, "--key", "alarm"], 2)?;
    assert!(text(&again, "message")?.contains("already"), "{again}");
    let shown = uni.json(&["advisory", "show", "DSA-2"])?;
    assert_eq!(list(&shown).len(), 2, "{shown}");
    assert_eq!(uni.json(&["advisory", "show", "openssl-sys"])?[0]["fixed"], Value::Null);

    // A key that is not in the node signs where it is.
    let away = shown_key(&stage, &uni)?;
    let of = ["advisory", "publish", "--id", "DSA-3", "--severity", "high", "--ecosystem", "npm", "--package", "left"];
    let signed = uni.json(&[&of[..], &["--key", &away]].concat())?;
    let listed = uni.json(&["advisory", "show", &text(&json!({"r": signed["records"][0]}), "r")?])?;
    assert_eq!(listed[0]["counts"], false, "{listed}");
    Ok(())
}

/// A private key outside of the node's directory, by its file.
fn shown_key(stage: &Stage, site: &Site) -> Outcome<String> {
    site.new_key("elsewhere")?;
    let keys = site.directory().join("keys");
    let file = stage.path().join("away/key");
    std::fs::create_dir_all(stage.path().join("away"))?;
    std::fs::rename(keys.join("elsewhere"), &file)?;
    Ok(shown(&file))
}
