//! A publisher whose channel leads to its latest release, a site that accepts nothing else, and what a thief signs of it.

use ed25519_dalek::SigningKey;
use rialto_node::dir::NodeDir;
use rialto_node::keys::Keys;
use rialto_protocol::bounded::Name;
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{Body, Channel};
use rialto_protocol::signed::{Draft, Envelope};
use rialto_testnet::site::{SOON, Site, text};
use serde_json::Value;

use crate::forge::now;
use crate::stage::{FEDERATION, Outcome, Stage, list};

/// The channel of these tests, as `uni` and those who call it so know it.
pub const CHANNEL: &str = "uni/hello:stable";

/// A policy that accepts what `uni` publishes while a channel points at it.
pub fn fresh_only(key: &str) -> String {
    format!(
        "[signers]\nuni = \"{key}\"\n\n[[rule]]\nname = \"the latest\"\nmatch = {{ publisher = [\"uni\"] }}\n\
         require = [\"channel-fresh\"]\nthen = \"accept\"\n"
    )
}

/// A publisher with two releases, and a site beside it that accepts what its channel points at.
#[derive(Debug)]
pub struct Pair {
    /// The publisher.
    pub uni: Site,
    /// The site.
    pub shop: Site,
    /// Versions 1.0.0 and 2.0.0 of `hello`.
    pub releases: [String; 2],
}

/// Has the publisher's key let two new ones, `one` and `two`, move the channels of `names`: only both together.
///
/// # Errors
/// The publisher refuses.
pub fn lend_to_two(publisher: &Site, names: &str) -> Outcome {
    publisher.new_key("one")?;
    publisher.new_key("two")?;
    let terms = ["--key", "releases", "--names", names, "--threshold", "2", "--expires", "1d"];
    publisher.json(&[&["delegate", "one", "two"], &terms[..]].concat())?;
    Ok(())
}

/// Two sites that have met; no channel is set yet.
///
/// # Errors
/// One does not start, or a release is not published.
pub fn pair(stage: &Stage) -> Outcome<Pair> {
    let mut uni = stage.running("uni", &[])?;
    let key = uni.new_key("releases")?;
    uni.write_policy(&fresh_only(&key))?;
    let releases =
        [stage.publish(&uni, "hello", "1.0.0", "releases")?, stage.publish(&uni, "hello", "2.0.0", "releases")?];
    let mut shop = stage.running("shop", &[&uni])?;
    shop.write_policy(&fresh_only(&key))?;
    shop.meets(&[&uni])?;
    Ok(Pair { uni, shop, releases })
}

/// Makes the channel point at a release, and gives the head's record.
///
/// # Errors
/// It is refused.
pub fn set(site: &Site, release: &str, key: &str, expires: &str) -> Outcome<String> {
    let arguments = ["channel", "set", "releases/hello", "stable", release, "--key", key, "--expires", expires];
    Ok(text(&site.json(&arguments)?, "record")?)
}

/// Waits until the site says so of the channel.
///
/// # Errors
/// It never does.
pub fn until(site: &Site, what: &str, is_so: impl Fn(&Value) -> bool) -> Outcome<Value> {
    Ok(site.until(SOON, what, &["channel", "show", CHANNEL], is_so)?)
}

/// What a site says against a channel.
pub fn because(channel: &Value) -> String {
    list(&channel["because"]).iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
}

/// Why the first requirement of a verdict was met or not, in the site's words.
///
/// # Errors
/// There is none.
pub fn reason(verdict: &Value) -> Outcome<String> {
    Ok(text(&verdict["requirements"][0], "because")?)
}

/// The private key of a site, as a thief has it.
///
/// # Errors
/// It has no such key.
pub fn stolen(site: &Site, name: &str) -> Outcome<SigningKey> {
    Ok(Keys::of(&NodeDir::new(site.directory())?).load(&Name::try_from(name)?)?)
}

/// The public half of a key.
pub fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

/// A record with these signatures, which are also its issuers.
///
/// # Errors
/// There are too many of them, or the record is too long.
pub fn signed(body: &Body, keys: &[&SigningKey]) -> Outcome<Envelope> {
    let is_portable = matches!(body, Body::Release(_) | Body::Endorsement(_));
    let federation = (!is_portable).then(|| Name::try_from(FEDERATION)).transpose()?;
    let draft = Draft::new(keys.iter().map(|key| public(key)), federation, now(), body)?;
    Ok(keys.iter().try_fold(draft, |draft, key| draft.sign(key))?.seal())
}

/// A head of the channel `stable` of `hello`, signed with `key`, in the name of `publisher`. It lasts for a day.
///
/// # Errors
/// The release is none.
pub fn head(publisher: &SigningKey, key: &SigningKey, epoch: u64, sequence: u64, release: &str) -> Outcome<Vec<u8>> {
    let body = Body::Channel(Channel {
        publisher: public(publisher),
        name: Name::try_from("hello")?,
        channel: Name::try_from("stable")?,
        epoch,
        sequence,
        release: release.parse::<RecordId>()?,
        expires: now() + 86_400,
    });
    Ok(signed(&body, &[key])?.encode())
}
