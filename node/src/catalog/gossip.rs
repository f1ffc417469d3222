//! What gossip does with a message: accept, ignore or reject, by form and signature alone.

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::Name;
use rialto_protocol::record::{MAX_AHEAD_SECONDS, Record};
use rialto_protocol::signed::{Envelope, EnvelopeError, Verified};

/// What to do with a gossiped message. A relay is not a judge: local policy and the catalog's budget have no say in it.
#[derive(Debug)]
pub enum GossipVerdict {
    /// Relay it, and insert it.
    Accept(Box<Verified<Record>>),
    /// Do not relay it; its sender did nothing that an honest node could not have done.
    Ignore(Ignored),
    /// Do not relay it, and hold it against the sender: an honest node would have refused it before.
    Reject(EnvelopeError),
}

/// Why a well-formed record is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// Issued further ahead of our clock than [`MAX_AHEAD_SECONDS`].
    #[error("it was issued more than {MAX_AHEAD_SECONDS} s ahead of this site's clock")]
    TooFarAhead,
    /// It names another federation.
    #[error("it belongs to another federation")]
    OtherFederation,
    /// It was evicted before, and its signers are still not named in policy.
    #[error("it was evicted before, and policy names none of its signers")]
    Evicted,
    /// A higher head of its channel is known.
    #[error("a later head of its channel is known")]
    Superseded,
    /// Its signer's, its bringer's or the whole share of records by signers that policy does not name is full.
    #[error("there is no room for it among the records of signers that policy does not name")]
    NoRoom,
}

/// Judges a gossiped message. Pure: the answer depends on the arguments only.
///
/// A record that names another federation is ignored, not rejected: the federation's name is in the protocol names, so
/// it comes only from a peer that published it by mistake (a signer may speak in two federations), and whoever relayed
/// nothing did nothing wrong.
pub fn gossip_verdict(message: &[u8], federation: &Name, now: UnixSeconds) -> GossipVerdict {
    match Envelope::decode(message).and_then(Envelope::verify) {
        Err(error) => GossipVerdict::Reject(error),
        Ok(record) => match unfit(&record, federation, now) {
            Some(reason) => GossipVerdict::Ignore(reason),
            None => GossipVerdict::Accept(Box::new(record)),
        },
    }
}

/// Why a verified record is not for this site at this time, if so.
pub(super) fn unfit(record: &Record, federation: &Name, now: UnixSeconds) -> Option<Ignored> {
    if record.header.federation.as_ref().is_some_and(|named| named != federation) {
        return Some(Ignored::OtherFederation);
    }
    let is_ahead = record.header.issued > now.saturating_add(MAX_AHEAD_SECONDS);
    is_ahead.then_some(Ignored::TooFarAhead)
}
