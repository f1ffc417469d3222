//! Mix-and-match: the attacker puts together what is genuine each for itself, and was never meant to be together.

use std::sync::Arc;

use rialto_protocol::record::Body;
use rialto_testnet::site::text;
use rialto_tests::channels::{reason, signed, stolen};
use rialto_tests::held::Held;
use rialto_tests::liars::{FETCH, holds, lie};
use rialto_tests::scene::{Scene, hostile, logged, start};
use rialto_tests::stage::{Outcome, accepting, list};

use super::{all_is_heard, endorsement, release, told};

/// The attacker has the network, and shows the site the publisher's latest head with the reviewers' word on the release
/// before: never do two releases meet the requirements of one together.
#[test]
fn mix_and_match_of_the_records_of_two_releases_has_neither_accepted() -> Outcome {
    let scene = Scene::new();
    let mut shop = scene.site("shop");
    let (uni_key, lab_key) = (shop.new_key("uni")?, shop.new_key("lab")?);
    shop.write_policy(&format!(
        "[signers]\nuni = \"{uni_key}\"\nlab = \"{lab_key}\"\n\n[roles]\nreviewers = {{ signers = [\"lab\"], threshold = 1 }}\n\n\
         [[rule]]\nname = \"reviewed and latest\"\nmatch = {{ publisher = [\"uni\"] }}\n\
         require = [\"channel-fresh\", \"endorsed-by:reviewers\"]\nthen = \"accept\"\n"
    ))?;
    let (uni, lab) = (stolen(&shop, "uni")?, stolen(&shop, "lab")?);
    let made = |version: &str, seed| -> Outcome<_> {
        let release = release(&uni, "hello", version, &Held::random(300_000, seed))?;
        signed(&Body::Release(Box::new(release)), &[&uni])
    };
    let (first, second) = (made("1.0.0", 1)?, made("2.0.0", 2)?);
    let [one, two] = [&first, &second].map(|release| release.id().to_string());
    let head = |sequence, release: &str| rialto_tests::channels::head(&uni, &uni, 0, sequence, release);
    let tested = |release: &str| -> Outcome<_> { Ok(signed(&endorsement(release, "It works.")?, &[&lab])?.encode()) };

    let keeper = told(&shop, &[first.encode(), second.encode(), tested(&one)?, head(2, &two)?])?;
    all_is_heard(&keeper, &shop)?;
    let held = shop.verdict(&one, "hold")?;
    assert!(reason(&held)?.contains(&format!("points at release {two}")), "{held}");
    let held = shop.verdict(&two, "hold")?;
    let said = text(&held["requirements"][1], "because")?;
    assert!(said.contains("lab has not endorsed it"), "{said}");
    for id in [&one, &two] {
        shop.refused(&["deploy", id], 4)?;
    }
    // What belonged together at one time or at another is whole again with what was withheld.
    keeper.gossip(head(1, &one)?)?;
    all_is_heard(&keeper, &shop)?;
    shop.verdict(&one, "hold")?;
    keeper.gossip(tested(&two)?)?;
    shop.verdict(&two, "accept")?;
    shop.verdict(&one, "hold")?;
    Ok(())
}

/// The attacker has the network and holds two genuine releases, and gives the manifest of one under the name of the other.
#[test]
fn mix_and_match_of_the_manifests_of_two_releases_is_refused() -> Outcome {
    let scene = Scene::new();
    let mut shop = scene.site("shop");
    let key = shop.new_key("uni")?;
    shop.write_policy(&accepting(&key))?;
    let uni = stolen(&shop, "uni")?;
    let [old, new] = [1, 2].map(|seed| Held::random(300_000, seed));
    let genuine = release(&uni, "hello", "2.0.0", &new)?;
    let genuine = signed(&Body::Release(Box::new(genuine)), &[&uni])?;
    let id = genuine.id().to_string();
    // The root page that is asked for by the new image's name is the old one's.
    let mixed = Held { id: new.id, pages: [(new.id.hash(), old.pages[&old.id.hash()].clone())].into(), ..old.clone() };
    let mirror = told(&shop, &[genuine.encode()])?;
    holds(
        &mirror,
        &Arc::new(mixed),
        lie(|image: Arc<Held>, mut talk, index, _| async move {
            let is_sent = image.send(&mut talk, index).await.is_ok();
            (talk, is_sent)
        }),
    );
    shop.verdict(&id, "accept")?;
    let fetch = start(&shop, &["fetch", &id]);
    logged(&shop, &["WARN", "a holder is not asked again for this image", "was not asked for"]);
    let listed = shop.json(&["image", "ls"])?;
    assert!(!listed.to_string().contains(&old.name()), "nothing came in by another name: {listed}");
    assert!(
        list(&listed).iter().all(|image| image["chunks"].as_u64() == Some(0) || image["missing_chunks"] != 0),
        "{listed}"
    );

    // From an honest holder, the new one is what comes.
    let honest = hostile(&shop);
    holds(
        &honest,
        &Arc::new(new.clone()),
        lie(|image: Arc<Held>, mut talk, index, _| async move {
            let is_sent = image.send(&mut talk, index).await.is_ok();
            (talk, is_sent)
        }),
    );
    let (code, fetched) = fetch.end(FETCH);
    assert_eq!(code, Some(0), "{fetched}");
    rialto_tests::scene::verify(&shop, &new.name());
    Ok(())
}
