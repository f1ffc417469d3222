//! The node at a glance: itself, its peers, its rates, its clock.

use rialto_protocol::ids::ImageId;
use serde::{Deserialize, Serialize};

/// `status`: the node at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// The site's name.
    pub name: String,
    /// The federation it belongs to.
    pub federation: String,
    /// The site key as a libp2p peer id.
    pub peer_id: String,
    /// Dialable addresses, each ending in `/p2p/<peer id>`.
    pub listen: Vec<String>,
    /// Number of connected peers.
    pub peers: u64,
    /// Where the web UI is, without a token.
    pub web: Option<String>,
    /// Number of records in the catalog.
    pub records: u64,
    /// Number of complete images in the store.
    pub images: u64,
    /// Bytes of our own that the store takes on disk.
    pub store_bytes: u64,
    /// Bytes free on the store's file system.
    pub free_bytes: u64,
    /// Bytes of chunks and pages sent to other sites since the node started.
    #[serde(default)]
    pub sent_bytes: u64,
    /// The same received from them.
    #[serde(default)]
    pub received_bytes: u64,
    /// Of those received, bytes that were of no use: received twice, or refused.
    #[serde(default)]
    pub duplicate_bytes: u64,
    /// Bytes that the store may take, where the administrator has set a quota.
    pub quota_bytes: Option<u64>,
    /// Bytes set aside for fetches under way.
    pub reserved_bytes: u64,
    /// How far the store is read over again.
    pub scrub: ScrubStatus,
    /// The policy in force.
    pub policy: PolicyStatus,
    /// Seconds since the node started.
    pub seconds: f64,
    /// What the administrator should look at, in plain words; empty when all is well.
    pub warnings: Vec<String>,
}

/// How far the store is read over again, and what that found since the node started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// Whether it is being read.
    pub is_running: bool,
    /// Bytes read since the node started.
    pub read_bytes: u64,
    /// Chunks and pages that were damaged.
    pub damaged_chunks: u64,
    /// Images that lack what nobody who was asked has.
    pub lost: Vec<ImageId>,
    /// When it was last read to its end.
    pub finished: Option<String>,
}

/// The policy in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// BLAKE3 of the file in force, hex; `None` while none can be read.
    pub hash: Option<String>,
    /// Why the file cannot be read, with line and column; nothing is accepted while this is set.
    pub error: Option<String>,
}

/// One connected peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its libp2p peer id.
    pub peer_id: String,
    /// The address of the connection.
    pub address: String,
    /// What it runs.
    pub agent: Option<String>,
    /// Round-trip time in milliseconds, once measured.
    pub rtt_ms: Option<f64>,
    /// Bytes of chunks and pages sent to it since the node started, as far as is remembered.
    #[serde(default)]
    pub sent_bytes: u64,
    /// The same received from it.
    #[serde(default)]
    pub received_bytes: u64,
    /// Bytes a second sent to it, lately.
    #[serde(default)]
    pub sent_rate: f64,
    /// Bytes a second received from it, lately.
    #[serde(default)]
    pub received_rate: f64,
    /// What this node keeps away from it in.
    #[serde(default)]
    pub bans: Vec<Ban>,
}

/// A peer that this node keeps away from, in one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Its libp2p peer id.
    pub peer_id: String,
    /// In what: `chunks` (of `image`), `catch-up`, `gossip` or `too-much`.
    pub offence: String,
    /// The image, for `chunks`.
    pub image: Option<ImageId>,
    /// Why, in plain words.
    pub why: String,
    /// How often that was seen.
    pub times: u64,
    /// When it was seen last.
    pub at: String,
    /// When it ends by itself.
    pub until: String,
}

/// `peers lift`: what a peer was forgiven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BansLifted {
    /// Who.
    pub peer_id: String,
    /// How many bans that were.
    pub lifted: u64,
}

/// `rates`: how much may be sent and received now, in bytes a second; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// To all sites together.
    pub upload: Option<u64>,
    /// To one site.
    pub upload_per_peer: Option<u64>,
    /// From all sites together.
    pub download: Option<u64>,
    /// Whether these were set by `rialto rates`, until the node is restarted; else by `config.toml` and the hour.
    pub is_overridden: bool,
}

/// `rates`: other limits from now on. What is absent stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChangeRates {
    /// To all sites together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<RateLimit>,
    /// To one site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_per_peer: Option<RateLimit>,
    /// From all sites together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download: Option<RateLimit>,
    /// First back to what `config.toml` says for the hour.
    pub reset: bool,
}

/// A limit: bytes a second, or `"unlimited"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RateLimit {
    /// So many bytes a second.
    BytesPerSecond(u64),
    /// No limit.
    Unlimited(Unlimited),
}

/// The word `"unlimited"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unlimited {
    /// No limit.
    Unlimited,
}

impl From<Option<u64>> for RateLimit {
    fn from(bytes_per_second: Option<u64>) -> Self {
        bytes_per_second.map_or(Self::Unlimited(Unlimited::Unlimited), Self::BytesPerSecond)
    }
}

impl RateLimit {
    /// Bytes a second; `None` for no limit.
    pub fn bytes_per_second(self) -> Option<u64> {
        match self {
            Self::BytesPerSecond(bytes) => Some(bytes),
            Self::Unlimited(Unlimited::Unlimited) => None,
        }
    }
}

/// `doctor --accept-clock` and `--reset-clock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockRequest {
    /// Whether the clock is right although it is before the latest time that was known.
    #[serde(default)]
    pub reset: bool,
}

/// The time that verdicts go by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// Now.
    pub now: String,
    /// Why nothing is accepted by this time, if so.
    pub doubt: Option<String>,
}

/// `web/link`: a fresh one-time link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebLink {
    /// The link; works once, within ten minutes.
    pub url: String,
}
