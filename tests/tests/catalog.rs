//! Records on their way between sites: who was away, who stands at the end of the line, and what comes from a later
//! version of this program.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use libp2p::gossipsub::MessageAcceptance;
use rialto_node::net::{Net, Settings};
use rialto_protocol::bounded::Name;
use rialto_protocol::ids::PublicKey;
use rialto_protocol::record::{Body, Revocation, RevocationSubject};
use rialto_protocol::signed::Draft;
use rialto_testnet::site::{SOON, Site, text};
use rialto_testnet::wait::eventually;
use rialto_tests::forge::{catalog, holds, now, record};
use rialto_tests::stage::{FEDERATION, Outcome, Stage, configure, list};

fn knows(site: &Site, records: u64) -> Outcome {
    site.until(SOON, &format!("{records} records"), &["status"], |status| status["records"] == records)?;
    Ok(())
}

#[test]
fn a_site_that_was_away_hears_what_it_missed() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    uni.new_key("releases")?;
    let mut shop = stage.running("shop", &[&uni])?;
    let first = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    knows(&shop, 1)?;

    shop.stop()?;
    let second = stage.publish(&uni, "hello", "1.1.0", "releases")?;
    let said = text(&uni.json(&["endorse", &first, "--key", "releases"])?, "record")?;
    uni.json(&["revoke", &second, "--key", "releases", "--reason", "too early"])?;
    shop.start()?;
    knows(&shop, 4)?;
    let shown = shop.json(&["show", &first])?;
    assert_eq!(shown["endorsements"][0]["record"], said.as_str());
    let history = list(&shown["history"]);
    let kinds: Vec<&str> = history.iter().filter_map(|event| event["kind"].as_str()).collect();
    assert_eq!(kinds, ["signed", "endorsed"]);
    let of_uni = uni.json(&["status"])?["peer_id"].clone();
    assert!(history.iter().all(|event| event["from"] == of_uni && event["arrived"].is_string()), "{history:?}");
    assert!(list(&uni.json(&["show", &first])?["history"]).iter().all(|event| event["from"].is_null()));
    shop.verdict(&second, "reject")?;

    // And the other way round: what was said while alone reaches the others.
    let mut lab = stage.running("lab", &[&shop])?;
    lab.new_key("reviews")?;
    knows(&lab, 4)?;
    lab.stop()?;
    knows(&uni, 4)?;
    Ok(())
}

#[test]
fn what_a_site_says_while_it_is_alone_reaches_the_others_later() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    let mut lab = stage.running("lab", &[&uni])?;
    lab.stop()?;
    // Alone: with nobody to dial, and nobody who dials.
    let config = lab.directory().join("config.toml");
    let connected = std::fs::read(&config)?;
    configure(&lab, &[("bootstrap = ", "bootstrap = []")])?;
    lab.start()?;
    lab.new_key("releases")?;
    let release = stage.publish(&lab, "hello", "1.0.0", "releases")?;
    assert_eq!(lab.status()?["peers"], 0);
    lab.stop()?;
    std::fs::write(&config, connected)?;
    lab.start()?;
    uni.verdict(&release, "hold")?;
    Ok(())
}

#[test]
fn records_pass_along_a_line_of_sites_whose_ends_never_meet() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let lab = stage.running("lab", &[&uni])?;
    uni.new_key("releases")?;
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    uni.json(&["endorse", &release, "--key", "releases"])?;
    lab.json(&["fetch", &lab.verdict(&release, "hold").and_then(|seen| text(&seen, "release"))?, "--held"])?;
    knows(&lab, 2)?;
    uni.stop()?;

    let shop = stage.running("shop", &[&lab])?;
    knows(&shop, 2)?;
    assert_eq!(list(&shop.json(&["show", &release])?["endorsements"]).len(), 1);
    // The image as well: nobody but lab is left to give it.
    let fetched = shop.json(&["fetch", &release, "--held"])?;
    assert_eq!(fetched["peers"].as_object().map(|peers| peers.len()), Some(1));
    Ok(())
}

#[test]
fn a_signature_that_is_added_later_reaches_those_who_were_away() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let mut shop = stage.running("shop", &[&uni])?;
    uni.stop()?;
    shop.stop()?;
    let (first, second) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
    let public = |key: &SigningKey| PublicKey(key.verifying_key().to_bytes());
    let reason = "both say so".try_into()?;
    let body = Body::Revocation(Revocation { subject: RevocationSubject::Key(public(&first)), reason });
    let draft = Draft::new([public(&first), public(&second)], Some(Name::try_from(FEDERATION)?), now(), &body)?;
    let (half, whole) = (draft.clone().sign(&first)?.seal(), draft.sign(&first)?.sign(&second)?.seal());
    let id = half.id();
    catalog(&uni)?.insert(&whole.encode(), None, now())?;
    catalog(&shop)?.insert(&half.encode(), Some("somebody"), now())?;

    uni.start()?;
    shop.start()?;
    let third = stage.running("third", &[&uni, &shop])?;
    knows(&third, 1)?;
    shop.meets(&[&uni])?;
    // The number of records tells nothing here; the log says when a node has caught up.
    eventually(SOON, "shop's catching up", || if shop.log().contains("caught up") { Ok(()) } else { Err("not yet") })?;
    shop.stop()?;
    assert!(holds(&shop, &id, &whole)?, "both signatures");
    Ok(())
}

#[test]
fn records_of_a_later_version_are_kept_and_passed_on() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let mut lab = stage.running("lab", &[&uni])?;
    uni.stop()?;
    let key = SigningKey::from_bytes(&[7; 32]);
    let unknown = [record(&key, 1, "hologram")?, record(&key, 2, "release")?, record(&key, 99, "endorsement")?];
    for envelope in &unknown {
        catalog(&uni)?.insert(&envelope.encode(), Some("a peer"), now())?;
    }
    uni.start()?;
    let mut shop = stage.running("shop", &[&lab])?;
    let bridge = stage.running("bridge", &[&uni, &lab])?;
    for site in [&uni, &lab, &shop, &bridge] {
        knows(site, 3)?;
    }
    // Nobody lists them, nobody takes them for a release.
    assert_eq!(shop.json(&["search"])?["total"], 0);
    shop.refused(&["policy", "explain", &unknown[1].id().to_string()], 3)?;
    shop.refused(&["deploy", &unknown[1].id().to_string()], 3)?;

    // Nobody was punished: what is published now comes through.
    uni.new_key("releases")?;
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    shop.verdict(&release, "hold")?;

    shop.stop()?;
    shop.start()?;
    knows(&shop, 4)?;
    shop.stop()?;
    lab.stop()?;
    for envelope in &unknown {
        for site in [&lab, &shop] {
            assert!(holds(site, &envelope.id(), envelope)?, "byte for byte at {}", site.name());
        }
    }
    Ok(())
}

/// A peer that is none of our nodes, and gossips what it likes.
async fn outsider(site: &Site) -> Outcome<Net> {
    let settings = Settings {
        keypair: libp2p::identity::Keypair::generate_ed25519(),
        federation: Name::try_from(FEDERATION)?,
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        announce: Vec::new(),
        bootstrap: vec![site.address()?.parse()?],
        members: None,
        peers_target: 1,
        is_mdns_enabled: false,
    };
    let (net, mut incoming) = Net::start(settings).await?;
    let of_others = net.clone();
    tokio::spawn(async move {
        while let Some(gossip) = incoming.gossip.recv().await {
            of_others.verdict(gossip.id, gossip.from, MessageAcceptance::Accept).await.ok();
        }
    });
    let mut peers = net.peers();
    tokio::time::timeout(SOON, peers.wait_for(|peers| peers.iter().any(|peer| peer.is_of_federation))).await??;
    Ok(net)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_of_a_later_version_is_relayed_and_malformed_gossip_is_not() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    uni.new_key("releases")?;
    let mut lab = stage.running("lab", &[&uni])?;
    let peer = outsider(&uni).await?;
    let key = SigningKey::from_bytes(&[8; 32]);
    let (unknown, later) = (record(&key, 1, "hologram")?, record(&key, 7, "release")?);
    peer.publish(unknown.encode()).await?;
    peer.publish(later.encode()).await?;
    for site in [&uni, &lab] {
        knows(site, 2)?;
        site.until(Duration::ZERO, "its peers", &["peers"], |peers| !list(peers).is_empty())?;
    }

    // One bit of a signature; half a record; no record at all; and one so long that no record is.
    let mut forged = record(&key, 1, "forged")?.encode();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let cut = record(&key, 1, "cut")?.encode();
    let malformed = [forged, cut[..cut.len() / 2].to_vec(), b"hello".to_vec(), vec![0xa0; 60_000]];
    // Each by a peer of its own: who sends one such message is not listened to for long.
    for (refused_before, bytes) in malformed.into_iter().enumerate() {
        let culprit = outsider(&uni).await?;
        culprit.publish(bytes).await?;
        eventually(SOON, "uni's refusal", || {
            let refusals = uni.log().matches("a gossiped record is refused").count();
            if refusals > refused_before { Ok(()) } else { Err(format!("{refusals} refusals")) }
        })?;
        culprit.shutdown().await;
    }
    assert!(!lab.log().contains("refused"), "uni relayed what it refused: {}", lab.log());
    assert_eq!(uni.status()?["records"], 2);

    // Who relayed the good ones is in good standing.
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    lab.verdict(&release, "hold")?;
    lab.stop()?;
    assert!(holds(&lab, &unknown.id(), &unknown)? && holds(&lab, &later.id(), &later)?);
    peer.shutdown().await;
    Ok(())
}

#[test]
fn a_torn_records_log_opens_with_what_is_whole() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    uni.new_key("releases")?;
    let first = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    let lab = stage.running("lab", &[&uni])?;
    knows(&lab, 1)?;
    let second = stage.publish(&uni, "hello", "1.1.0", "releases")?;
    knows(&lab, 2)?;
    uni.kill();
    let log = largest_file(&uni.directory().join("records"))?;
    let length = std::fs::metadata(&log)?.len();
    std::fs::OpenOptions::new().write(true).open(&log)?.set_len(length - 40)?;
    uni.start()?;
    uni.verdict(&first, "hold")?;
    // What the crash took comes back from those who have it.
    let bridge = stage.running("bridge", &[&uni, &lab])?;
    bridge.meets(&[&uni, &lab])?;
    uni.verdict(&second, "hold")?;
    Ok(())
}

fn largest_file(directory: &std::path::Path) -> Outcome<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    files.sort_by_key(|file| file.metadata().map(|found| found.len()).unwrap_or_default());
    Ok(files.pop().map(|file| file.path()).unwrap_or_default())
}
