//! Heads that wait for more signatures: some of the keys that must sign together have, and the others are asked.

use std::collections::BTreeMap;

use crate::UnixSeconds;
use crate::channel::{Authority, ChannelName, Known, Position, authority, rightful};
use crate::ids::{PublicKey, RecordId};
use crate::record::{DelegatedRole, MAX_AHEAD_SECONDS, Record};
use crate::signed::Verified;

/// A head that wants the signatures of more of the keys that may move its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its record.
    pub record: RecordId,
    /// Its place.
    pub position: Position,
    /// The release that it points at.
    pub release: RecordId,
    /// When it was made, by its first signer's clock.
    pub issued: UnixSeconds,
    /// When it stops being the last word.
    pub expires: UnixSeconds,
    /// The keys that may move the channel and have signed it, ascending: at least one, and fewer than must.
    pub signed: Vec<PublicKey>,
    /// Those that may sign it still, ascending.
    pub wanted: Vec<PublicKey>,
    /// How many must sign.
    pub threshold: usize,
    /// Why nobody should sign it, where nobody should.
    pub flaw: Option<PendingFlaw>,
}

/// Why a head that waits is not to be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PendingFlaw {
    /// Signed together, the two would prove that the channel contradicts itself.
    #[error("another head waits with the same number (record {0}), and both signed would contradict each other")]
    Rival(RecordId),
    /// Who signs it leaves fewer numbers to those after it than time does, down to none.
    #[error("its number is far above all others and ahead of the clock, which could leave no number for a later head")]
    FarAhead,
    /// Not enough keys are named in it.
    #[error("it leaves out keys that would have to sign it, so it can never be signed by enough")]
    TooFewIssuers,
}

/// The heads of a channel that wait for signatures: those under the delegation in force that at least one of its keys has
/// signed, above every head that counts. A head that nobody who may move the channel has signed is not among them, whoever made
/// it. The highest come first, and those that nobody should sign last: a stolen key can make any number of these.
pub fn pending<R: AsRef<Verified<Record>>>(
    known: &Known<'_, R>,
    is_revoked: impl Fn(&PublicKey) -> bool,
    now: UnixSeconds,
) -> Vec<Pending> {
    let ChannelName { publisher, name, .. } = known.channel;
    let role = DelegatedRole::Channel;
    let in_force = authority(publisher, role, name, known.delegations, known.floor.delegation);
    let Authority::Delegated { sequence: epoch, keys, threshold, expires, .. } = in_force else { return Vec::new() };
    if expires <= now || is_revoked(publisher) {
        return Vec::new();
    }
    let keys: Vec<PublicKey> = keys.into_iter().filter(|key| !is_revoked(key)).collect();
    let mut highest = known.floor.head;
    let mut waiting: BTreeMap<(Position, RecordId), Pending> = BTreeMap::new();
    for record in known.heads.iter().map(AsRef::as_ref) {
        let Some(head) = record.body.channel().filter(|head| ChannelName::from(*head) == *known.channel) else {
            continue;
        };
        if let Ok(position) = rightful(record, known.delegations) {
            highest = highest.max(Some(position));
            continue;
        }
        let is_named = |key: &&PublicKey| record.header.issuers.binary_search(key).is_ok();
        let (signed, others): (Vec<PublicKey>, Vec<PublicKey>) = keys.iter().partition(|key| record.is_signed_by(key));
        if signed.is_empty() || signed.len() >= threshold || head.epoch != epoch || head.expires <= now {
            continue;
        }
        let wanted: Vec<PublicKey> = others.iter().filter(is_named).copied().collect();
        let flaw = (signed.len() + wanted.len() < threshold).then_some(PendingFlaw::TooFewIssuers);
        let position = Position { epoch, sequence: head.sequence };
        let (release, issued, expires) = (head.release, record.header.issued, head.expires);
        let found = Pending { record: record.id, position, release, issued, expires, signed, wanted, threshold, flaw };
        waiting.insert((position, record.id), found);
    }
    let is_above = |position: &Position| highest.is_none_or(|highest| *position > highest);
    let latest = highest.filter(|highest| highest.epoch == epoch).map_or(0, |highest| highest.sequence);
    let soon = now.saturating_add(MAX_AHEAD_SECONDS).max(latest.saturating_add(1));
    waiting.retain(|(position, _), _| is_above(position));
    let places: Vec<(Position, RecordId)> = waiting.keys().copied().collect();
    let mut offered: Vec<Pending> = waiting.into_values().rev().collect();
    for head in &mut offered {
        let from = places.partition_point(|(position, _)| *position < head.position);
        let same = places[from..].iter().take_while(|(position, _)| *position == head.position);
        let rival = same.map(|(_, record)| *record).find(|record| *record != head.record);
        head.flaw = match rival {
            Some(rival) => Some(PendingFlaw::Rival(rival)),
            None if head.position.sequence > soon => Some(PendingFlaw::FarAhead),
            None => head.flaw,
        };
    }
    offered.sort_by_key(|head| head.flaw.is_some());
    offered
}
