//! In whose word a release is published: with its publisher's own key, or with keys that this lent its releases to.

use crate::UnixSeconds;
use crate::bounded::Name;
use crate::channel::{Authority, authority};
use crate::ids::{PublicKey, RecordId};
use crate::record::{DelegatedRole, Delegation, Record};
use crate::signed::Verified;

/// Who published a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// Its publisher's own key signed it.
    ByPublisher,
    /// Keys that it lent its releases to did.
    ByDelegates {
        /// The delegation in force.
        record: RecordId,
        /// Those of its keys that signed, ascending: at least as many as must.
        keys: Vec<PublicKey>,
        /// How many of them must.
        threshold: usize,
    },
}

/// Why a release is not its publisher's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unpublished {
    /// Neither by its key nor by one that it lent its releases to.
    #[error("is not signed with that key")]
    NotSigned,
    /// The keys that signed it may no more.
    #[error("is signed by keys whose delegation has expired (record {record})")]
    Expired {
        /// The delegation.
        record: RecordId,
    },
    /// Fewer of the delegated keys than must.
    #[error("{signed} of the {threshold} delegated keys that must sign have signed it (record {record})")]
    TooFewSignatures {
        /// How many have.
        signed: usize,
        /// How many must.
        threshold: usize,
        /// The delegation.
        record: RecordId,
    },
    /// Enough signed it, and of these some were revoked since.
    #[error("keys that signed it were revoked")]
    KeysRevoked {
        /// The revoked ones, ascending.
        keys: Vec<PublicKey>,
    },
    /// The publisher signed two delegations with one sequence.
    #[error("has two delegations {sequence} of its publisher that differ (records {one} and {other})")]
    Contradicted {
        /// The sequence.
        sequence: u64,
        /// One.
        one: RecordId,
        /// The other.
        other: RecordId,
    },
    /// A later delegation was seen, and is not here.
    #[error("needs delegation {seen} of its publisher, which was seen here before and is not known any more")]
    Missing {
        /// Its sequence.
        seen: u64,
    },
}

/// In whose word a release is published at `now`. The publisher's own signature always counts; else enough of the keys of its
/// highest delegation of releases that covers the appliance, for as long as that lasts. `seen` is the highest sequence of such a
/// one that this site ever saw (0 for none). A record that is no release is nobody's.
///
/// # Errors
/// What it lacks.
pub fn published(
    record: &Verified<Record>,
    delegations: &[impl AsRef<Verified<Record>>],
    seen: u64,
    is_revoked: impl Fn(&PublicKey) -> bool,
    now: UnixSeconds,
) -> Result<Published, Unpublished> {
    let Some(release) = record.body.release() else { return Err(Unpublished::NotSigned) };
    if record.is_signed_by(&release.publisher) {
        return Ok(Published::ByPublisher);
    }
    match authority(&release.publisher, DelegatedRole::Release, &release.name, delegations, seen) {
        Authority::Publisher => Err(Unpublished::NotSigned),
        Authority::Contradicted { sequence, one, other } => Err(Unpublished::Contradicted { sequence, one, other }),
        Authority::Missing { seen } => Err(Unpublished::Missing { seen }),
        Authority::Delegated { record: by, keys, threshold, expires, .. } => {
            let signed: Vec<PublicKey> = keys.into_iter().filter(|key| record.is_signed_by(key)).collect();
            let (revoked, good): (Vec<PublicKey>, Vec<PublicKey>) = signed.into_iter().partition(|key| is_revoked(key));
            match (good.len() >= threshold, good.len() + revoked.len()) {
                (true, _) if expires <= now => Err(Unpublished::Expired { record: by }),
                (true, _) => Ok(Published::ByDelegates { record: by, keys: good, threshold }),
                (false, 0) => Err(Unpublished::NotSigned),
                (false, signed) if signed >= threshold => Err(Unpublished::KeysRevoked { keys: revoked }),
                (false, signed) => Err(Unpublished::TooFewSignatures { signed, threshold, record: by }),
            }
        }
    }
}

/// Whether `signers` are enough of the keys of a delegation of releases of this name: for finding what they published, and not
/// for trusting it, which asks what is in force.
pub fn is_lent(publisher: &PublicKey, name: &Name, signers: &[PublicKey], delegation: &Delegation) -> bool {
    delegation.publisher() == publisher
        && delegation.role() == DelegatedRole::Release
        && delegation.covers(name)
        && signers.iter().filter(|key| delegation.keys().contains(key)).count() >= delegation.threshold()
}
