//! `Revocation`: a release, an endorsement, an advisory or a key that should no longer be relied on.

use serde::{Deserialize, Serialize};

use crate::bounded::Text;
use crate::ids::{PublicKey, RecordId};

/// A statement withdrawn. By the subject's own signer it is a fact; by anyone else an opinion, which policy may honour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// What is withdrawn.
    pub subject: RevocationSubject,
    /// Why, for people.
    pub reason: Text<1024>,
}

/// What a revocation withdraws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum RevocationSubject {
    /// A release.
    Release(RecordId),
    /// An endorsement.
    Endorsement(RecordId),
    /// An advisory. Nodes of earlier versions relay and keep such a revocation, and it says nothing to them.
    Advisory(RecordId),
    /// A key, and with it everything that it signed.
    Key(PublicKey),
}
