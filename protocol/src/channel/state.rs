//! What a channel is worth to one site at one time.

use std::fmt;

use crate::UnixSeconds;
use crate::channel::{Authority, ChannelName, Heads, Position, authority, rightful};
use crate::ids::{PublicKey, RecordId};
use crate::record::{DelegatedRole, Record};
use crate::signed::Verified;

/// What a site has seen of a channel before, and never goes below.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Floor {
    /// The place of the highest head.
    pub head: Option<Position>,
    /// The highest sequence of a delegation that covers the appliance; 0 for none.
    pub delegation: u64,
}

/// What is known of one channel of one appliance.
#[derive(Debug, Clone)]
pub struct Known<'a, R> {
    /// Which.
    pub channel: &'a ChannelName,
    /// Records among which its heads are. Others are passed over.
    pub heads: &'a [R],
    /// Records among which its publisher's delegations are. Others are passed over.
    pub delegations: &'a [R],
    /// What was seen before.
    pub floor: Floor,
}

/// A channel at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelState {
    /// The highest rightful head, with its place; where two contradict each other there, the one with the lowest id.
    pub head: Option<(RecordId, Position)>,
    /// The release that it points at.
    pub release: Option<RecordId>,
    /// When that head stops, or stopped, being the last word.
    pub expires: Option<UnixSeconds>,
    /// The proof that two contradict each other.
    pub proof: Option<[RecordId; 2]>,
    /// Why the head does not count; empty where the channel is fresh.
    pub flaws: Vec<Flaw>,
}

impl ChannelState {
    /// The release that the channel points at, where nothing speaks against it.
    pub fn fresh(&self) -> Option<RecordId> {
        self.release.filter(|_| self.flaws.is_empty())
    }
}

/// Why a channel's head does not count now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// There is no rightful head.
    NoHead,
    /// It expired, and nothing newer came: the channel is frozen.
    Frozen {
        /// When.
        since: UnixSeconds,
    },
    /// A higher one was seen before.
    RolledBack {
        /// Its place.
        seen: Position,
    },
    /// Who signed it signed two that contradict each other, in this epoch.
    Contradicted {
        /// The two.
        proof: [RecordId; 2],
        /// Where.
        at: Position,
    },
    /// It is of an epoch that is over: a later delegation is in force.
    Superseded {
        /// The delegation in force.
        by: RecordId,
        /// Its sequence.
        epoch: u64,
    },
    /// The delegation that it is signed under ended.
    DelegationExpired {
        /// The delegation.
        record: RecordId,
        /// When.
        since: UnixSeconds,
    },
    /// A later delegation was seen before, and is not known here any more.
    DelegationMissing {
        /// Its sequence.
        seen: u64,
    },
    /// The publisher signed two delegations with one sequence.
    DelegationsContradicted {
        /// The sequence.
        sequence: u64,
        /// The two.
        proof: [RecordId; 2],
    },
    /// Without the keys that were revoked, too few signed it.
    KeysRevoked,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHead => f.write_str("nobody who may has said where it points"),
            Self::Frozen { .. } => f.write_str("it is frozen: its head expired, and nothing newer came"),
            Self::RolledBack { seen } => {
                write!(f, "it was rolled back: a later head (number {seen}) was seen here before")
            }
            Self::Contradicted { proof: [one, other], at } => write!(
                f,
                "it contradicts itself: two heads have the number {at} (records {one} and {other}), so nothing counts that is signed in that epoch"
            ),
            Self::Superseded { by, epoch } => {
                write!(f, "its head is signed by keys that delegation {epoch} replaced (record {by})")
            }
            Self::DelegationExpired { record, .. } => {
                write!(f, "the delegation of the keys that signed its head has expired (record {record})")
            }
            Self::DelegationMissing { seen } => {
                write!(f, "delegation {seen} of its publisher was seen here before, and is not known any more")
            }
            Self::DelegationsContradicted { sequence, proof: [one, other] } => {
                write!(f, "its publisher signed two delegations {sequence} that differ (records {one} and {other})")
            }
            Self::KeysRevoked => f.write_str("keys that signed its head were revoked"),
        }
    }
}

/// What a channel is worth at `now`, which is the site's own clock.
pub fn state<R: AsRef<Verified<Record>>>(
    known: &Known<'_, R>,
    is_revoked: impl Fn(&PublicKey) -> bool,
    now: UnixSeconds,
) -> ChannelState {
    let is_of_this = |record: &&Verified<Record>| {
        record.body.channel().is_some_and(|head| {
            let ChannelName { publisher, name, channel } = known.channel;
            head.publisher == *publisher && head.name == *name && head.channel == *channel
        })
    };
    let mut heads = Heads::default();
    for record in known.heads.iter().map(AsRef::as_ref).filter(is_of_this) {
        if let Ok(position) = rightful(record, known.delegations) {
            heads.put(position, record.id);
        }
    }
    let highest = heads.iter().filter(|(position, _)| Some(*position) == heads.highest()).map(|(_, id)| id).min();
    let record = known.heads.iter().map(AsRef::as_ref).find(|record| Some(record.id) == highest);
    let Some((record, head)) = record.and_then(|record| Some((record, record.body.channel()?))) else {
        let flaws = vec![match known.floor.head {
            Some(seen) => Flaw::RolledBack { seen },
            None => Flaw::NoHead,
        }];
        return ChannelState { head: None, release: None, expires: None, proof: None, flaws };
    };
    let position = Position { epoch: head.epoch, sequence: head.sequence };
    let mut flaws = Vec::new();
    if let Some(seen) = known.floor.head.filter(|seen| *seen > position) {
        flaws.push(Flaw::RolledBack { seen });
    }
    if let Some((at, proof)) = heads.proof().filter(|(at, _)| at.epoch == position.epoch) {
        flaws.push(Flaw::Contradicted { proof, at });
    }
    flaws.extend(flaw_of_authority(known, record, position.epoch, is_revoked, now));
    if head.expires <= now {
        flaws.push(Flaw::Frozen { since: head.expires });
    }
    ChannelState {
        head: Some((record.id, position)),
        release: Some(head.release),
        expires: Some(head.expires),
        proof: heads.proof().map(|(_, proof)| proof),
        flaws,
    }
}

fn flaw_of_authority<R: AsRef<Verified<Record>>>(
    known: &Known<'_, R>,
    head: &Verified<Record>,
    epoch: u64,
    is_revoked: impl Fn(&PublicKey) -> bool,
    now: UnixSeconds,
) -> Option<Flaw> {
    let role = DelegatedRole::Channel;
    // What the publisher's revoked key said of who may sign counts no more.
    if is_revoked(&known.channel.publisher) {
        return Some(Flaw::KeysRevoked);
    }
    let ChannelName { publisher, name, .. } = known.channel;
    match authority(publisher, role, name, known.delegations, known.floor.delegation) {
        Authority::Publisher => None,
        Authority::Missing { seen } => Some(Flaw::DelegationMissing { seen }),
        Authority::Contradicted { sequence, one, other } => {
            Some(Flaw::DelegationsContradicted { sequence, proof: [one, other] })
        }
        Authority::Delegated { record, sequence, .. } if sequence != epoch => {
            Some(Flaw::Superseded { by: record, epoch: sequence })
        }
        Authority::Delegated { record, expires, .. } if expires <= now => {
            Some(Flaw::DelegationExpired { record, since: expires })
        }
        Authority::Delegated { keys, threshold, .. } => {
            let good = head.signers().filter(|key| keys.contains(key) && !is_revoked(key)).count();
            (good < threshold).then_some(Flaw::KeysRevoked)
        }
    }
}
