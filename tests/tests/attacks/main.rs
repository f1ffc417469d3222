//! The attacks that the specification of The Update Framework lists (TUF 1.0, section 1.5.2), on whole nodes: one file for
//! each, named after it. Each test says in its first line what the attacker has and does, and asserts what the site does and
//! what it says.
//!
//! Who has *the network* here is a peer of the test's own, which keeps to no rule; who has *a key* signs what an honest node
//! never would.

mod arbitrary_software;
mod endless_data;
mod extraneous_dependencies;
mod fast_forward;
mod indefinite_freeze;
mod key_compromise;
mod malicious_mirror;
mod mix_and_match;
mod rollback;
mod wrong_software;

use ed25519_dalek::SigningKey;
use rialto_protocol::bounded::Text;
use rialto_protocol::ids::RecordId;
use rialto_protocol::record::{Body, Endorsement, EndorsementBody, PREDICATE_TESTED, Release};
use rialto_testnet::site::{SOON, Site};
use rialto_tests::channels::signed;
use rialto_tests::forge;
use rialto_tests::held::Held;
use rialto_tests::hostile::Hostile;
use rialto_tests::scene::{hostile, records};
use rialto_tests::stage::Outcome;

/// A key of the attacker's own.
fn mallory() -> SigningKey {
    SigningKey::from_bytes(&[66; 32])
}

/// A release of `publisher` whose only disk is this image.
fn release(publisher: &SigningKey, name: &str, version: &str, disk: &Held) -> Outcome<Release> {
    forge::release(publisher, name, version, disk.id, &disk.content)
}

/// What somebody says of a release: that it works.
fn endorsement(release: &str, note: &str) -> Outcome<Body> {
    let body = EndorsementBody::Native { note: Some(Text::try_from(note)?) };
    let subject = release.parse::<RecordId>()?;
    Ok(Body::Endorsement(Endorsement { subject, predicate: Text::try_from(PREDICATE_TESTED)?, body, expires: None }))
}

/// Waits until all that a peer has gossiped so far was looked at: a last record, of no consequence, has arrived.
fn all_is_heard(peer: &Hostile, site: &Site) -> Outcome {
    let before = records(site);
    let stranger = SigningKey::from_bytes(&[77; 32]);
    let note = format!("after {before} records");
    peer.gossip(signed(&endorsement(&RecordId::of(b"nothing").to_string(), &note)?, &[&stranger])?.encode())?;
    site.until(SOON, "the last record", &["status"], |status| status["records"].as_u64() > Some(before))?;
    Ok(())
}

/// A hostile peer of a site, which has gossiped these.
fn told(site: &Site, envelopes: &[Vec<u8>]) -> Outcome<Hostile> {
    let peer = hostile(site);
    for envelope in envelopes {
        peer.gossip(envelope.clone())?;
    }
    Ok(peer)
}
