//! Indefinite freeze: the attacker keeps the site at what it knows, so that it never hears of what was mended since.

use std::collections::BTreeMap;

use futures::AsyncReadExt as _;
use rialto_protocol::ids::Hash;
use rialto_protocol::sync::{MAX_MESSAGE_BYTES, Message, Responder, SyncSet};
use rialto_testnet::site::{Site, text};
use rialto_tests::channels::{CHANNEL, Pair, because, fresh_only, pair, reason, set, until};
use rialto_tests::forge::catalog;
use rialto_tests::hostile::{Hostile, Part, Talk};
use rialto_tests::scene::{hostile, introduce, records};
use rialto_tests::stage::{Outcome, Stage, keep_address, list};
use serde_json::Value;

/// How long a head lasts here: long enough to be heard, and soon over.
const LIFETIME: &str = "8s";

/// What a site says of a channel that nobody stands by any more, and of the release that it leads to.
fn is_frozen(site: &Site, release: &str) -> Outcome<Value> {
    let frozen = until(site, "a frozen channel", |channel| channel["state"] == "frozen")?;
    let status = site.status()?;
    let is_told = list(&status["warnings"]).iter().any(|warning| {
        warning
            .as_str()
            .is_some_and(|warning| warning.starts_with(&format!("channel {CHANNEL} is frozen: its head expired ")))
    });
    assert!(is_told, "{status}");
    assert!(frozen["frozen_seconds"].is_u64() && because(&frozen).contains("frozen"), "{frozen}");
    assert_eq!(frozen["release"], release, "it is still shown where it points");
    let held = site.verdict(release, "hold")?;
    assert!(reason(&held)?.contains("it is frozen"), "{held}");
    site.refused(&["show", CHANNEL], 3)?;
    site.refused(&["deploy", release], 4)?;
    Ok(frozen)
}

/// The attacker has the network, and brings the last head again and again where its publisher is not heard any more.
#[test]
fn indefinite_freeze_of_a_channel_is_noticed_when_its_head_expires() -> Outcome {
    let stage = Stage::new()?;
    let Pair { mut uni, shop, releases: [first, second] } = pair(&stage)?;
    set(&uni, &second, "releases", LIFETIME)?;
    shop.verdict(&second, "accept")?;
    keep_address(&uni)?;
    uni.stop()?;
    let last = Withheld::of(&uni)?;
    let keeper = last.hand_to(&shop)?;
    let frozen = is_frozen(&shop, &second)?;
    // It stays so, however often the last word is said.
    for envelope in last.envelopes.values() {
        keeper.gossip(envelope.clone()).ok();
    }
    super::all_is_heard(&keeper, &shop)?;
    is_frozen(&shop, &second)?;
    assert_eq!(until(&shop, "the last head", |channel| channel["record"].is_string())?["record"], frozen["record"]);

    // Its publisher's word is enough, and says something else by now.
    uni.start()?;
    set(&uni, &first, "releases", "1h")?;
    shop.verdict(&first, "accept")?;
    shop.verdict(&second, "hold")?;
    Ok(())
}

/// The attacker has the network: every peer of the site's is its own, answers as an honest one would, and withholds all records
/// from some moment on.
#[test]
fn indefinite_freeze_of_the_catalog_is_noticed_and_one_honest_link_heals_it() -> Outcome {
    let stage = Stage::new()?;
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    uni.write_policy(&fresh_only(&key))?;
    let first = stage.publish(&uni, "hello", "1.0.0", "releases")?;
    let mut shop = stage.running("shop", &[])?;
    shop.write_policy(&fresh_only(&key))?;
    keep_address(&uni)?;
    set(&uni, &first, "releases", LIFETIME)?;
    uni.stop()?;
    let withheld = Withheld::of(&uni)?;
    let known = withheld.envelopes.len() as u64;
    let peers = [withheld.hand_to(&shop)?, withheld.hand_to(&shop)?, withheld.hand_to(&shop)?];
    shop.verdict(&first, "accept")?;

    // What the attacker withholds: the next release, and that the channel has moved on.
    uni.start()?;
    let second = stage.publish(&uni, "hello", "2.0.0", "releases")?;
    set(&uni, &second, "releases", "1h")?;

    is_frozen(&shop, &first)?;
    assert_eq!(records(&shop), known, "its peers give it nothing that is new");
    assert!(shop.status()?["peers"].as_u64() >= Some(peers.len() as u64), "as far as it can see, it has peers");

    introduce(&mut uni, &shop);
    shop.verdict(&second, "accept")?;
    shop.verdict(&first, "hold")?;
    let healed = until(&shop, "a fresh channel", |channel| channel["state"] == "fresh")?;
    assert_eq!(text(&healed, "release")?, second);
    Ok(())
}

/// What was known at some moment, and is all that a peer will ever tell.
struct Withheld {
    set: SyncSet,
    envelopes: BTreeMap<Hash, Vec<u8>>,
}

impl Withheld {
    /// All that a site knows that does not run.
    fn of(site: &Site) -> Outcome<Self> {
        let catalog = catalog(site)?;
        let key = rialto_tests::channels::public(&rialto_tests::channels::stolen(site, "releases")?);
        let heads = catalog.channels_by(&key).into_iter().flat_map(|channel| catalog.heads(&channel));
        let releases = catalog.releases("", |_| None);
        let envelopes = heads.chain(releases).map(|record| (record.sync_id(), record.envelope().encode())).collect();
        Ok(Self { set: catalog.sync_set(), envelopes })
    }

    /// A peer of the site's that gossips this once, and to catch-up says that this is all there is.
    fn hand_to(&self, site: &Site) -> Outcome<Hostile> {
        let peer = hostile(site);
        for envelope in self.envelopes.values() {
            peer.gossip(envelope.clone())?;
        }
        let (set, envelopes) = (self.set.clone(), self.envelopes.clone());
        peer.on(Part::Sync, move |talk| {
            let (set, envelopes) = (set.clone(), envelopes.clone());
            async move {
                // However it ends: the node has gone.
                answer(talk, set, &envelopes).await.ok();
            }
        });
        Ok(peer)
    }
}

/// Answers one catch-up as an honest node would that holds this. What the other side offers is taken, and told nobody.
async fn answer(mut talk: Talk, set: SyncSet, envelopes: &BTreeMap<Hash, Vec<u8>>) -> std::io::Result<()> {
    let mut responder = Responder::new(set);
    while !responder.is_finished() {
        while let Some(message) =
            responder.next_message(|id| envelopes.range(id.range()).next().map(|(_, envelope)| envelope.clone()))
        {
            let message = message.encode();
            talk.send(&[&(message.len() as u32).to_be_bytes()[..], &message].concat()).await?;
        }
        let mut length = [0; 4];
        talk.0.read_exact(&mut length).await?;
        let mut message = vec![0; (u32::from_be_bytes(length) as usize).min(MAX_MESSAGE_BYTES)];
        talk.0.read_exact(&mut message).await?;
        let message = Message::decode(&message).map_err(std::io::Error::other)?;
        responder.receive(message, |_| true).map_err(std::io::Error::other)?;
    }
    Ok(())
}
