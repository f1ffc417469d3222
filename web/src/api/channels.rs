//! Channels, and who may move them.

use rialto_protocol::ids::RecordId;
use rialto_protocol::record::DelegatedRole;
use serde::{Deserialize, Serialize};

use super::SignerShown;

/// A channel as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelShown {
    /// The publisher's petname, or its key's fingerprint.
    pub publisher: String,
    /// Whether `publisher` is a petname.
    pub publisher_is_known: bool,
    /// The appliance.
    pub name: String,
    /// The channel.
    pub channel: String,
    /// The release that its head points at.
    pub release: Option<RecordId>,
    /// That release's version, where it is known here.
    pub version: Option<String>,
    /// What the channel is worth.
    pub state: ChannelWorth,
    /// What speaks against it, in plain words; empty where it is fresh.
    pub because: Vec<String>,
    /// The head's record.
    pub record: Option<RecordId>,
    /// The delegation that the head is signed under, by its sequence; 0 for the publisher's own key.
    pub epoch: u64,
    /// The head's number within the epoch.
    pub sequence: u64,
    /// Who signed the head.
    pub signed_by: Vec<SignerShown>,
    /// When the head was signed, by its signers' clock.
    pub issued: Option<String>,
    /// When the head stops, or stopped, being the last word.
    pub expires: Option<String>,
    /// How long the channel has been frozen, where it is.
    pub frozen_seconds: Option<u64>,
    /// Two heads that contradict each other, where there are.
    pub proof: Vec<RecordId>,
    /// Who may move the channel now.
    pub movers: Movers,
    /// When this node signs it again, where it does.
    pub renews: Option<String>,
    /// Whether this node adds its signature to renewals that other sites make.
    pub cosigns: bool,
    /// Heads that wait for the signatures of more keys, the highest first and those that nobody should sign last; at most 16.
    pub waiting: Vec<WaitingHead>,
}

/// A head that wants the signatures of more keys before it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingHead {
    /// Its record.
    pub record: RecordId,
    /// The release that it points at.
    pub release: RecordId,
    /// That release's version, where it is known here.
    pub version: Option<String>,
    /// The delegation that it is signed under, by its sequence.
    pub epoch: u64,
    /// Its number within the epoch.
    pub sequence: u64,
    /// Who of those that may has signed it.
    pub signed_by: Vec<SignerShown>,
    /// Who may sign it still.
    pub wanted: Vec<SignerShown>,
    /// How many must sign.
    pub threshold: u64,
    /// When it was made, by its first signer's clock.
    pub issued: String,
    /// When it stops being the last word.
    pub expires: String,
    /// Why nobody should sign it, where nobody should.
    pub because: Option<String>,
}

/// What a channel is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelWorth {
    /// Its head is its publisher's last word.
    Fresh,
    /// Its head has expired, and nothing newer came.
    Frozen,
    /// Its head does not count, for other reasons.
    Refused,
}

impl ChannelWorth {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Frozen => "frozen",
            Self::Refused => "refused",
        }
    }
}

/// Who may move a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movers {
    /// The keys.
    pub keys: Vec<SignerShown>,
    /// How many of them must sign.
    pub threshold: u64,
    /// The delegation that says so; `None` where it is the publisher's own key.
    pub delegation: Option<RecordId>,
    /// When that delegation ends, or ended.
    pub expires: Option<String>,
}

/// `channel set PUBLISHER/NAME CHANNEL RELEASE --key NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetChannelRequest {
    /// The appliance: `PUBLISHER/NAME`.
    pub appliance: String,
    /// The channel.
    pub channel: String,
    /// The release that it is to point at.
    pub release: String,
    /// Names of the keys that sign.
    pub keys: Vec<String>,
    /// Seconds until the head expires; 7 days where it is absent.
    #[serde(default)]
    pub expires_after_seconds: Option<u64>,
    /// Whether it may lack signatures of keys of other sites, which add theirs.
    #[serde(default)]
    pub propose: bool,
}

/// `channel cosign PUBLISHER/NAME:CHANNEL --key NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CosignRequest {
    /// The channel: `PUBLISHER/NAME:CHANNEL`.
    pub channel: String,
    /// The head that is to be signed; without it, and without keys, this node signs no more renewals.
    #[serde(default)]
    pub record: Option<RecordId>,
    /// Names of the keys that sign.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Whether this node signs renewals of the same release by itself from now on, as long as none lasts longer than this one.
    #[serde(default)]
    pub renewals: bool,
}

/// `channel cosign`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cosigned {
    /// The head; none where consent was taken back.
    pub record: Option<RecordId>,
    /// How many of those that may have signed it now.
    pub signed: u64,
    /// How many must.
    pub threshold: u64,
}

/// `delegate KEY… --key NAME --names PATTERN…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelegateRequest {
    /// Name of the publisher's key.
    pub key: String,
    /// What they may do for it: move its channels, where it is absent.
    #[serde(default = "of_channels")]
    pub role: DelegatedRole,
    /// The keys that may act for it: names of keys of this node, or public keys.
    pub to: Vec<String>,
    /// Patterns of the names of the appliances that they may act for.
    pub names: Vec<String>,
    /// How many of the keys must sign; 1 where it is absent.
    #[serde(default)]
    pub threshold: Option<u32>,
    /// Seconds until it ends; 90 days where it is absent.
    #[serde(default)]
    pub expires_after_seconds: Option<u64>,
}

fn of_channels() -> DelegatedRole {
    DelegatedRole::Channel
}

/// `key rotate OLD NEW`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// The key that is replaced: a name of a key of this node, or a public key.
    pub old: String,
    /// The key in its place.
    pub new: String,
    /// Name of the publisher's key; `old` where it is absent.
    #[serde(default)]
    pub key: Option<String>,
    /// Seconds until the delegations end; as long as those before where it is absent.
    #[serde(default)]
    pub expires_after_seconds: Option<u64>,
}

/// `delegate` and `key rotate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegated {
    /// The last of the new delegations.
    pub record: RecordId,
    /// All new delegations.
    pub records: Vec<RecordId>,
    /// New heads of channels that this node keeps fresh.
    pub channels: Vec<RecordId>,
}
