//! `Channel`: a moving name that points at a release, for as long as its publisher says so again and again.

use serde::{Deserialize, Serialize};

use crate::UnixSeconds;
use crate::bounded::Name;
use crate::ids::{PublicKey, RecordId};

/// A head of a channel: which release it points at, and until when that can be taken for the publisher's last word.
///
/// What it is worth is [`crate::channel`]'s question: a head counts only where its signers may move the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Whose channel it is: always the publisher's own key, whoever moves the channel for it.
    pub publisher: PublicKey,
    /// The appliance.
    pub name: Name,
    /// What the channel is called: `stable`.
    pub channel: Name,
    /// The sequence of the [`Delegation`](super::Delegation) that it is signed under; 0 for the publisher's key itself.
    pub epoch: u64,
    /// Order among the heads of one epoch: the higher is the newer. Every signing raises it.
    pub sequence: u64,
    /// The release that it points at.
    pub release: RecordId,
    /// When it stops being the last word.
    pub expires: UnixSeconds,
}
