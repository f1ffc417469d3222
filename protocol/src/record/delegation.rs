//! `Delegation`: a publisher's key, which can stay offline, lets other keys act for it.

use serde::{Deserialize, Serialize};

use crate::UnixSeconds;
use crate::bounded::{List, Name, NamePattern};
use crate::ids::PublicKey;

/// Keys that one delegation can name: as many as can sign one record.
pub const MAX_DELEGATES: usize = 16;
/// Patterns of names that one delegation can have.
pub const MAX_DELEGATED_NAMES: usize = 16;

/// Keys that act for a publisher: for what, for which appliances, how many of them together, and until when.
///
/// There is no way to make one that is inconsistent: see [`Delegation::new`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct Delegation(Fields);

/// What delegated keys may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DelegatedRole {
    /// Sign heads of the publisher's channels.
    Channel,
    /// Sign the publisher's releases.
    Release,
}

/// Why keys and names make no delegation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DelegationError {
    /// No keys, or not in ascending order, or one twice.
    #[error("a delegation names 1 to {MAX_DELEGATES} distinct keys, in ascending order")]
    Keys,
    /// A threshold that no number of its keys can meet, or that needs none of them.
    #[error("{threshold} of {keys} keys cannot be asked for: at least 1, and at most all of them")]
    Threshold {
        /// The threshold.
        threshold: u32,
        /// The number of keys.
        keys: usize,
    },
    /// No names.
    #[error("a delegation is for 1 to {MAX_DELEGATED_NAMES} patterns of names; '*' is every name")]
    Names,
    /// Epoch 0 is the publisher's key itself.
    #[error("delegations are counted from 1: sequence 0 means the publisher's own key")]
    Sequence,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    publisher: PublicKey,
    role: DelegatedRole,
    keys: List<PublicKey, MAX_DELEGATES>,
    threshold: u32,
    names: List<NamePattern, MAX_DELEGATED_NAMES>,
    sequence: u64,
    expires: UnixSeconds,
}

impl Delegation {
    /// Lets `threshold` of `keys`, which are brought into order, act for `publisher` as far as `names` go.
    ///
    /// # Errors
    /// No keys or too many, no names or too many, a threshold that does not fit the keys, sequence 0.
    pub fn new(
        publisher: PublicKey,
        role: DelegatedRole,
        keys: impl IntoIterator<Item = PublicKey>,
        threshold: u32,
        names: Vec<NamePattern>,
        sequence: u64,
        expires: UnixSeconds,
    ) -> Result<Self, DelegationError> {
        let keys: std::collections::BTreeSet<_> = keys.into_iter().collect();
        let keys = List::try_from(keys.into_iter().collect::<Vec<_>>()).map_err(|_| DelegationError::Keys)?;
        let names = List::try_from(names).map_err(|_| DelegationError::Names)?;
        Fields { publisher, role, keys, threshold, names, sequence, expires }.try_into()
    }

    /// Who delegates. It counts as theirs only where this key is among the verified signers.
    pub fn publisher(&self) -> &PublicKey {
        &self.0.publisher
    }

    /// What the keys may do.
    pub fn role(&self) -> DelegatedRole {
        self.0.role
    }

    /// The keys, ascending: 1 to [`MAX_DELEGATES`].
    pub fn keys(&self) -> &[PublicKey] {
        &self.0.keys
    }

    /// How many of them must sign: 1 to all.
    pub fn threshold(&self) -> usize {
        // At most 16.
        self.0.threshold as usize
    }

    /// For which appliances, at least one pattern.
    pub fn names(&self) -> &[NamePattern] {
        &self.0.names
    }

    /// Order among the delegations of one publisher and role: for each name, the highest is in force. At least 1.
    pub fn sequence(&self) -> u64 {
        self.0.sequence
    }

    /// When it ends.
    pub fn expires(&self) -> UnixSeconds {
        self.0.expires
    }

    /// Whether it is about this appliance.
    pub fn covers(&self, name: &Name) -> bool {
        self.0.names.iter().any(|pattern| pattern.fits(name))
    }
}

impl TryFrom<Fields> for Delegation {
    type Error = DelegationError;

    fn try_from(fields: Fields) -> Result<Self, DelegationError> {
        if fields.keys.is_empty() || !fields.keys.is_sorted_by(|a, b| a < b) {
            return Err(DelegationError::Keys);
        }
        let is_met_by = |keys: usize| usize::try_from(fields.threshold).is_ok_and(|threshold| threshold <= keys);
        if fields.threshold == 0 || !is_met_by(fields.keys.len()) {
            return Err(DelegationError::Threshold { threshold: fields.threshold, keys: fields.keys.len() });
        }
        if fields.names.is_empty() {
            return Err(DelegationError::Names);
        }
        if fields.sequence == 0 {
            return Err(DelegationError::Sequence);
        }
        Ok(Self(fields))
    }
}

impl From<Delegation> for Fields {
    fn from(delegation: Delegation) -> Self {
        delegation.0
    }
}
