//! Who may sign for a publisher: its own key, or those that it delegated to.

use crate::UnixSeconds;
use crate::bounded::Name;
use crate::channel::Position;
use crate::ids::{PublicKey, RecordId};
use crate::record::{DelegatedRole, Delegation, Record};
use crate::signed::Verified;

/// The delegation in a record, where its publisher signed it: anybody else's says nothing.
pub fn is_delegation(record: &Verified<Record>) -> Option<&Delegation> {
    record.body.delegation().filter(|delegation| record.is_signed_by(delegation.publisher()))
}

/// Why a head is not one of its channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unrightful {
    /// Another kind of record.
    #[error("it is not the head of a channel")]
    NotAHead,
    /// Epoch 0, without the publisher's signature.
    #[error("it is not signed with its publisher's key, and names no delegation")]
    NotByPublisher,
    /// Its delegation is not known here, or is not about this appliance.
    #[error("delegation {epoch} of its publisher for this appliance is not known here")]
    UnknownDelegation {
        /// The sequence of the delegation.
        epoch: u64,
    },
    /// The publisher signed two delegations with this sequence.
    #[error("its publisher signed two delegations {epoch} that differ (records {one} and {other})")]
    TwoDelegations {
        /// The sequence that they share.
        epoch: u64,
        /// One.
        one: RecordId,
        /// The other.
        other: RecordId,
    },
    /// Fewer of the delegated keys than must.
    #[error("{signed} of the {threshold} delegated keys that must sign have signed it")]
    TooFewSignatures {
        /// How many have.
        signed: usize,
        /// How many must.
        threshold: usize,
    },
}

/// Where a head stands in its channel, where it has a right to: the publisher's own signature in epoch 0, else enough of
/// the keys of the delegation that its epoch names. `delegations` may hold others, and records that are none.
///
/// Times have no part in this, nor has what replaced the delegation since.
///
/// # Errors
/// What it lacks.
pub fn rightful(head: &Verified<Record>, delegations: &[impl AsRef<Verified<Record>>]) -> Result<Position, Unrightful> {
    let Some(channel) = head.body.channel() else { return Err(Unrightful::NotAHead) };
    let position = Position { epoch: channel.epoch, sequence: channel.sequence };
    if channel.epoch == 0 {
        return match head.is_signed_by(&channel.publisher) {
            true => Ok(position),
            false => Err(Unrightful::NotByPublisher),
        };
    }
    let epoch = channel.epoch;
    let (_, delegation) =
        only_one(covering(&channel.publisher, DelegatedRole::Channel, &channel.name, delegations), epoch)?;
    let signed = head.signers().filter(|key| delegation.keys().contains(key)).count();
    match signed >= delegation.threshold() {
        true => Ok(position),
        false => Err(Unrightful::TooFewSignatures { signed, threshold: delegation.threshold() }),
    }
}

/// Who may sign for a publisher now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// The publisher's own key: nothing was ever delegated.
    Publisher,
    /// The keys of a delegation.
    Delegated {
        /// Its record.
        record: RecordId,
        /// Its sequence, which is the epoch of what is signed under it.
        sequence: u64,
        /// The keys, ascending.
        keys: Vec<PublicKey>,
        /// How many of them must sign.
        threshold: usize,
        /// When it ends, or ended.
        expires: UnixSeconds,
    },
    /// Nobody: the publisher signed two delegations with one sequence.
    Contradicted {
        /// The sequence.
        sequence: u64,
        /// One.
        one: RecordId,
        /// The other.
        other: RecordId,
    },
    /// Nobody that is known: a later delegation was seen, and is not here.
    Missing {
        /// The sequence that was seen.
        seen: u64,
    },
}

impl Authority {
    /// The epoch of what is signed now, where anybody may sign.
    pub fn epoch(&self) -> Option<u64> {
        match self {
            Self::Publisher => Some(0),
            Self::Delegated { sequence, .. } => Some(*sequence),
            Self::Contradicted { .. } | Self::Missing { .. } => None,
        }
    }
}

/// Who may sign for `publisher` in `role` about the appliance `name`: the keys of its highest delegation that covers it.
///
/// `seen` is the highest sequence of such a delegation that this site ever saw (0 for none): where that one is not among
/// `delegations`, an earlier one does not come into force again.
pub fn authority(
    publisher: &PublicKey,
    role: DelegatedRole,
    name: &Name,
    delegations: &[impl AsRef<Verified<Record>>],
    seen: u64,
) -> Authority {
    let highest = covering(publisher, role, name, delegations).map(|(_, delegation)| delegation.sequence()).max();
    let sequence = match highest {
        highest if highest.unwrap_or(0) < seen => return Authority::Missing { seen },
        None => return Authority::Publisher,
        Some(sequence) => sequence,
    };
    match only_one(covering(publisher, role, name, delegations), sequence) {
        Ok((record, delegation)) => Authority::Delegated {
            record,
            sequence,
            keys: delegation.keys().to_vec(),
            threshold: delegation.threshold(),
            expires: delegation.expires(),
        },
        Err(Unrightful::TwoDelegations { one, other, .. }) => Authority::Contradicted { sequence, one, other },
        // The highest is among them.
        Err(_) => Authority::Missing { seen: sequence },
    }
}

fn covering<'d>(
    publisher: &PublicKey,
    role: DelegatedRole,
    name: &Name,
    delegations: &'d [impl AsRef<Verified<Record>>],
) -> impl Iterator<Item = (RecordId, &'d Delegation)> {
    let known = delegations.iter().map(AsRef::as_ref);
    let delegations = known.filter_map(|record| Some((record.id, is_delegation(record)?)));
    delegations.filter(move |(_, of)| of.publisher() == publisher && of.role() == role && of.covers(name))
}

/// The delegation with this sequence. One that is there twice, in two versions of signatures, is one.
fn only_one<'d>(
    delegations: impl Iterator<Item = (RecordId, &'d Delegation)>,
    sequence: u64,
) -> Result<(RecordId, &'d Delegation), Unrightful> {
    let mut found: Option<(RecordId, &Delegation)> = None;
    for (record, delegation) in delegations.filter(|(_, delegation)| delegation.sequence() == sequence) {
        match found {
            Some((one, _)) if one != record => {
                let (one, other) = (one.min(record), one.max(record));
                return Err(Unrightful::TwoDelegations { epoch: sequence, one, other });
            }
            _ => found = Some((record, delegation)),
        }
    }
    found.ok_or(Unrightful::UnknownDelegation { epoch: sequence })
}
