//! Who meets whom: discovery, reconnection, members, and federations that never mix.

use rialto_testnet::site::{Plan, SOON, Site, text};
use rialto_testnet::wait::eventually;
use rialto_tests::stage::{FEDERATION, Outcome, Stage, configure, keep_address, list};
use serde_json::Value;

#[test]
fn sites_that_know_one_address_find_each_other() -> Outcome {
    const SITES: usize = 7;
    let stage = Stage::new()?;
    let first = stage.running("site-0", &[])?;
    let mut others = Vec::new();
    for number in 1..SITES {
        others.push(stage.running(&format!("site-{number}"), &[&first])?);
    }
    for site in &others {
        site.until(SOON, "several peers", &["peers"], |peers| list(peers).len() >= SITES / 2)?;
    }
    let is_named = |peer: &Value| peer["agent"].as_str().is_some_and(|agent| agent.starts_with("rialto"));
    let peers = others[0].until(SOON, "what its peers run", &["peers"], |peers| list(peers).iter().all(is_named))?;
    for peer in list(&peers) {
        let (id, address) = (text(peer, "peer_id")?, text(peer, "address")?);
        assert!(address.starts_with("/ip4/127.0.0.1/") && id.starts_with("12D3Koo"), "{peer}");
    }
    assert_eq!(others[0].status()?["peers"], list(&others[0].json(&["peers"])?).len());
    Ok(())
}

#[test]
fn a_peer_that_comes_back_to_its_address_is_found_again() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    keep_address(&uni)?;
    let lab = stage.running("lab", &[&uni])?;
    lab.meets(&[&uni])?;
    for ending in [Site::kill, |site: &mut Site| drop(site.stop())] {
        ending(&mut uni);
        lab.until(SOON, "nobody", &["peers"], |peers| list(peers).is_empty())?;
        uni.start()?;
        lab.meets(&[&uni])?;
        uni.meets(&[&lab])?;
    }
    Ok(())
}

#[test]
fn a_bootstrap_address_that_is_not_there_yet_is_tried_again() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    keep_address(&uni)?;
    let plan = Plan::new("lab", FEDERATION).knows(&uni)?;
    uni.stop()?;
    let mut lab = stage.site(&plan)?;
    lab.start()?;
    assert_eq!(lab.status()?["peers"], 0);
    uni.start()?;
    lab.meets(&[&uni])?;
    Ok(())
}

#[test]
fn only_members_are_let_in_where_there_is_a_list() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.site(&Plan::new("uni", FEDERATION))?;
    let mut member = stage.site(&Plan::new("member", FEDERATION))?;
    let shown = member.json(&["key", "show"])?;
    let list_of_members = format!("membership = \"members\"\nmembers = [\"{}\"]", text(&shown, "peer_id")?);
    configure(&uni, &[("membership = ", &list_of_members)])?;
    uni.start()?;
    uni.new_key("releases")?;
    let release = stage.publish(&uni, "secret", "1.0.0", "releases")?;

    let at = format!("bootstrap = [\"{}\"]", uni.address()?);
    configure(&member, &[("bootstrap = ", &at)])?;
    let mut stranger = stage.running("stranger", &[&uni])?;
    member.start()?;
    member.verdict(&release, "hold")?;
    member.json(&["fetch", &release, "--held"])?;
    // The stranger came first, and uni's administrator can see whom it kept out.
    let key = stranger.peer_id()?;
    eventually(SOON, "that uni keeps it out", || {
        let log = uni.log();
        let is_told = log.lines().any(|line| line.contains("kept out") && line.contains(&key));
        if is_told { Ok(()) } else { Err(log) }
    })?;
    let peers = uni.json(&["peers"])?;
    assert_eq!(list(&peers).len(), 1, "{peers}");
    stranger.refused(&["show", &release], 3)?;
    assert_eq!(stranger.status()?["records"], 0);

    // Nor is it let in as somebody whom a member knows.
    stranger.stop()?;
    configure(&stranger, &[("bootstrap = ", &format!("bootstrap = [\"{}\"]", member.address()?))])?;
    stranger.start()?;
    stranger.meets(&[&member])?;
    stranger.verdict(&release, "hold")?;
    assert!(!list(&uni.json(&["peers"])?).iter().any(|peer| peer["peer_id"] != shown["peer_id"]));
    Ok(())
}

#[test]
fn two_federations_never_mix() -> Outcome {
    let stage = Stage::new()?;
    let uni = stage.running("uni", &[])?;
    uni.new_key("releases")?;
    let other = Plan::new("other", "biology").knows(&uni)?;
    let mut other = stage.site(&other)?;
    other.start()?;
    let release = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    // A third that came later has the record; whoever was to have it would have it by now.
    let lab = stage.running("lab", &[&uni])?;
    lab.verdict(&release, "hold")?;
    let said = text(&lab.status()?, "federation")?;
    assert_eq!(said, FEDERATION);
    other.refused(&["show", &release], 3)?;
    assert_eq!(other.status()?["records"], 0);

    other.new_key("releases")?;
    let theirs = stage.publish(&other, "cell", "1.0.0", "releases")?;
    let ours = stage.publish(&uni, "atom", "1.0.0", "releases")?;
    lab.verdict(&ours, "hold")?;
    for site in [&uni, &lab] {
        site.refused(&["show", &theirs], 3)?;
    }
    Ok(())
}
