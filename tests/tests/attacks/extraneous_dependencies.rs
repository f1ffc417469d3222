//! Extraneous dependencies: to get what it wants, the site is told to take something else as well.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rialto_protocol::bounded::{List, Text};
use rialto_protocol::record::{Body, Release};
use rialto_testnet::site::SOON;
use rialto_tests::channels::{signed, stolen};
use rialto_tests::held::Held;
use rialto_tests::liars::{holds, lie};
use rialto_tests::scene::{Scene, hostile, start, verify};
use rialto_tests::stage::{Outcome, accepting, list};

use super::{all_is_heard, endorsement, mallory, release};

/// The attacker has a release of its own, which the publisher's accepted one names in every way that a release can name
/// another record, and which in turn claims to replace the publisher's: the images of the verdict are fetched, and no other.
#[test]
fn extraneous_dependencies_of_an_accepted_release_are_not_fetched() -> Outcome {
    let scene = Scene::new();
    let mut shop = scene.site("shop");
    let key = shop.new_key("uni")?;
    shop.write_policy(&accepting(&key))?;
    let (uni, mallory) = (stolen(&shop, "uni")?, mallory());
    let [wanted, sbom, unwanted] = [1, 2, 3].map(|seed| Arc::new(Held::random(300_000, seed)));
    let extra = signed(&Body::Release(Box::new(release(&mallory, "library", "1.0.0", &unwanted)?)), &[&mallory])?;
    let genuine = Release {
        components: List::try_from(vec![extra.id()])?,
        recipe: Some(extra.id()),
        supersedes: List::try_from(vec![extra.id()])?,
        sbom: Some(sbom.id),
        description: Some(Text::try_from(format!("Needs {} ({}).", extra.id(), unwanted.id).as_str())?),
        ..release(&uni, "hello", "1.0.0", &wanted)?
    };
    let genuine = signed(&Body::Release(Box::new(genuine)), &[&uni])?;
    let replacing = Release {
        supersedes: List::try_from(vec![genuine.id()])?,
        components: List::try_from(vec![genuine.id()])?,
        sequence: u64::MAX,
        ..release(&mallory, "hello", "1.0.1", &unwanted)?
    };
    let replacing = signed(&Body::Release(Box::new(replacing)), &[&mallory])?;

    // One holder of each image: what is asked of them is what is fetched.
    let holders: Vec<_> = [&wanted, &sbom, &unwanted]
        .into_iter()
        .map(|image| {
            let peer = hostile(&shop);
            let honest = lie(|image: Arc<Held>, mut talk, index, _| async move {
                let is_sent = image.send(&mut talk, index).await.is_ok();
                (talk, is_sent)
            });
            let asked = holds(&peer, image, honest);
            (peer, asked)
        })
        .collect();
    for envelope in [&extra, &genuine, &replacing] {
        holders[0].0.gossip(envelope.encode())?;
    }
    let id = genuine.id().to_string();
    let says = endorsement(&id, &format!("Install {} with it.", extra.id()))?;
    holders[0].0.gossip(signed(&says, &[&mallory])?.encode())?;
    all_is_heard(&holders[0].0, &shop)?;

    let accepted = shop.verdict(&id, "accept")?;
    let exact = [wanted.name(), sbom.name()];
    assert_eq!(list(&accepted["images"]), exact.each_ref().map(|image| serde_json::json!(image)), "{accepted}");
    let (code, fetched) = start(&shop, &["fetch", &id]).end(SOON);
    assert_eq!(code, Some(0), "{fetched}");
    assert_eq!(fetched["images"], accepted["images"], "what policy accepted, and what was fetched");
    for image in &exact {
        verify(&shop, image);
    }
    let listed = shop.json(&["image", "ls"])?;
    assert_eq!(list(&listed).len(), exact.len(), "{listed}");
    assert_eq!(holders[2].1.load(Ordering::SeqCst), 0, "nobody was asked for what nobody accepted");
    for other in [&extra, &replacing] {
        shop.verdict(&other.id().to_string(), "hold")?;
        shop.refused(&["fetch", &other.id().to_string()], 4)?;
    }
    // What claims to replace it does not.
    shop.verdict(&id, "accept")?;
    Ok(())
}
