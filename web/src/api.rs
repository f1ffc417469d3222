//! What the API says: the values of `/api/v1`, and [`Backend`], which the node implements.
//!
//! The command line, the web UI and scripts all use these. Integers are bytes unless their name says otherwise,
//! `seconds` is a float, times are RFC 3339 text. Fields that a script relies on are only ever added to.

mod policy;

use std::collections::BTreeMap;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use rialto_protocol::ids::{ImageId, RecordId};
use serde::{Deserialize, Serialize};

pub use policy::{PolicyChange, PolicyDiff, PolicyDiffRequest, Replay};

/// A result whose error is what the API answers.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// A stream that is moved between tasks.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send + 'static>>;

/// Why a request was not done: what happened, to what, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What a program decides on.
    pub code: ErrorCode,
    /// What happened, for people.
    pub message: String,
    /// What to do next, where something can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What a program decides on: HTTP status and exit code follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// It was tried and did not work.
    Failed,
    /// The request makes no sense.
    Usage,
    /// No such thing.
    NotFound,
    /// The site's policy does not allow it.
    Refused,
    /// The node is not running, or is shutting down.
    NotRunning,
}

impl ErrorCode {
    /// The exit code of `rialto` (0 is done).
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Refused => 4,
            Self::NotRunning => 5,
        }
    }

    /// The HTTP status of an answer with this error.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Failed => 500,
            Self::Usage => 400,
            Self::NotFound => 404,
            Self::Refused => 403,
            Self::NotRunning => 503,
        }
    }
}

impl ApiError {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// Something was tried and did not work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Failed, message)
    }

    /// No such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// The request makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Usage, message)
    }

    /// Policy says no.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Refused, message)
    }

    /// Adds what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

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

/// Which releases to list. All conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchQuery {
    /// Words that must all occur in name, publisher, summary, description or tags.
    pub q: String,
    /// Only releases with this verdict.
    pub verdict: Option<VerdictKind>,
    /// How many to skip.
    pub offset: usize,
    /// How many to list; at most 200, 50 where 0.
    pub limit: usize,
}

/// What was found, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchPage {
    /// How many there are in all.
    pub total: usize,
    /// This page of them.
    pub releases: Vec<ReleaseSummary>,
}

/// One line of the catalog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseSummary {
    /// The record's id.
    pub release: RecordId,
    /// The publisher's petname, or its key's fingerprint (`~…`).
    pub publisher: String,
    /// Whether `publisher` is a petname from the site's own policy.
    pub publisher_is_known: bool,
    /// The appliance's name.
    pub name: String,
    /// The release's version.
    pub version: String,
    /// One line about it.
    pub summary: String,
    /// Processor architecture.
    pub arch: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// When it was issued, by its publisher's clock.
    pub issued: String,
    /// Days since then.
    pub age_days: i64,
    /// What the site's policy says.
    pub verdict: VerdictKind,
    /// Bytes of its images.
    pub bytes: u64,
    /// Whether every image is complete in the store.
    pub is_fetched: bool,
}

/// What policy says of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerdictKind {
    /// May be fetched and deployed.
    Accept,
    /// Not yet: something is missing.
    Hold,
    /// No.
    Reject,
}

impl VerdictKind {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Hold => "hold",
            Self::Reject => "reject",
        }
    }
}

/// `policy explain`: the verdict and why it is what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The release.
    pub release: RecordId,
    /// What policy says.
    pub verdict: VerdictKind,
    /// The rule that decided, by name; `default` where none matched.
    pub rule: String,
    /// In one sentence, why.
    pub because: String,
    /// Each requirement of that rule.
    pub requirements: Vec<RequirementOutcome>,
    /// The exact images that may be deployed; empty unless accepted.
    pub images: Vec<ImageId>,
    /// BLAKE3 of the policy that decided, hex.
    pub policy: Option<String>,
}

/// One requirement of a rule, and how it came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequirementOutcome {
    /// As written in the policy.
    pub name: String,
    /// Whether it is met.
    pub met: bool,
    /// By which records and signers, or what is missing.
    pub because: String,
}

/// Everything about one release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseDetails {
    /// The catalog line.
    #[serde(flatten)]
    pub summary: ReleaseSummary,
    /// More about it.
    pub description: Option<String>,
    /// SPDX licence expression.
    pub licence: Option<String>,
    /// Where to read more, as text.
    pub homepage: Option<String>,
    /// Order among the appliance's releases.
    pub sequence: u64,
    /// When the publisher stops standing by it.
    pub expires: Option<String>,
    /// The publisher's key, OpenSSH form.
    pub publisher_key: String,
    /// Who signed it.
    pub signed_by: Vec<SignerShown>,
    /// What others say of it.
    pub endorsements: Vec<EndorsementShown>,
    /// Who withdrew it, or the keys behind it.
    pub revocations: Vec<RevocationShown>,
    /// The channels of its publisher's that point at it.
    #[serde(default)]
    pub channels: Vec<ChannelShown>,
    /// The verdict and why.
    pub explanation: Explanation,
    /// Its images.
    pub images: Vec<ReleaseImage>,
    /// Sites among the connected peers that hold all of it, this one included.
    pub sites_holding: u64,
    /// Virtual processors, at least.
    pub vcpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// How it boots: `bios`, `uefi` or `direct`.
    pub boot: String,
    /// What the operator is asked at deployment.
    pub context: Vec<ContextInputShown>,
}

/// A signer as this site knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignerShown {
    /// Petname, or fingerprint.
    pub name: String,
    /// Whether `name` is a petname.
    pub is_known: bool,
    /// The key in OpenSSH form.
    pub key: String,
}

/// An endorsement as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndorsementShown {
    /// Its record.
    pub record: RecordId,
    /// Who signed it.
    pub signed_by: Vec<SignerShown>,
    /// What kind of statement.
    pub predicate: String,
    /// Free text.
    pub note: Option<String>,
    /// When.
    pub issued: String,
    /// Whether it has been revoked or has expired.
    pub is_void: bool,
}

/// A revocation as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationShown {
    /// Its record.
    pub record: RecordId,
    /// Who signed it.
    pub signed_by: Vec<SignerShown>,
    /// Why.
    pub reason: String,
    /// When.
    pub issued: String,
    /// Whether it counts as a fact here, or is somebody's opinion.
    pub counts: bool,
}

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

/// One image of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseImage {
    /// Its id.
    pub image: ImageId,
    /// What it is for: `disk 1`, `kernel`, `initrd`, `sbom`, `provenance`.
    pub role: String,
    /// Length, in bytes, where known.
    pub bytes: Option<u64>,
    /// Whether it is complete in the store.
    pub is_complete: bool,
}

/// One input of a release's context schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextInputShown {
    /// Its name.
    pub name: String,
    /// `string`, `integer` or `boolean`.
    pub kind: String,
    /// Whether deployment needs it.
    pub required: bool,
    /// Whether it is hidden in listings.
    pub secret: bool,
    /// The value where none is given.
    pub default: Option<String>,
    /// What it is for.
    pub description: Option<String>,
}

/// One image of the store, for `image ls`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageSummary {
    /// Its id.
    pub image: ImageId,
    /// Length, in bytes.
    pub bytes: u64,
    /// Bytes that no hole covers.
    pub data_bytes: u64,
    /// Bytes on disk that only this image keeps: removing it frees them.
    pub own_bytes: u64,
    /// Bytes on disk that other images need, too.
    pub shared_bytes: u64,
    /// Chunks, holes not counted.
    pub chunks: u64,
    /// Chunks still missing.
    pub missing_chunks: u64,
    /// Releases that name it (`publisher/name@version`).
    pub used_by: Vec<String>,
    /// Whether garbage collection leaves it alone.
    pub is_pinned: bool,
    /// When it was added.
    pub added: String,
}

/// `image add`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageAdded {
    /// Its id.
    pub image: ImageId,
    /// Length, in bytes.
    pub bytes: u64,
    /// Chunks, holes not counted.
    pub chunks: u64,
    /// Chunks that the store did not hold before.
    pub new_chunks: u64,
    /// Bytes that the store grew by.
    pub stored_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// `image verify`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageVerified {
    /// Its id.
    pub image: ImageId,
    /// Chunks read and found good.
    pub good_chunks: u64,
    /// Chunks missing or damaged.
    pub bad_chunks: u64,
    /// How long it took.
    pub seconds: f64,
}

/// `image get`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageExported {
    /// Its id.
    pub image: ImageId,
    /// The file written.
    pub file: String,
    /// Length, in bytes.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// `image gc`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Collected {
    /// Chunks dropped.
    pub dropped_chunks: u64,
    /// Bytes given back to the file system.
    pub freed_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// `image scrub`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scrubbed {
    /// Bytes read.
    pub bytes: u64,
    /// Chunks and pages that were damaged, and dropped.
    pub damaged_chunks: u64,
    /// Images that lacked something and are whole again, from other sites.
    pub mended: Vec<ImageId>,
    /// Images that lack what nobody who was asked has.
    pub lost: Vec<ImageId>,
    /// How long it took.
    pub seconds: f64,
}

/// `publish`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// The release's record id.
    pub release: RecordId,
    /// Its images.
    pub images: Vec<ImageId>,
}

/// `endorse` and `revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The new record's id.
    pub record: RecordId,
}

/// `fetch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fetched {
    /// The images that are complete now.
    pub images: Vec<ImageId>,
    /// The image, where one image was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageId>,
    /// Their length, in bytes.
    pub bytes: u64,
    /// Bytes of chunks and pages received.
    pub wire_bytes: u64,
    /// Of those, bytes received more than once or thrown away.
    pub duplicate_bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Bytes received from each peer.
    pub peers: BTreeMap<String, u64>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub instance: String,
    /// The release it runs.
    pub release: RecordId,
    /// `publisher/name@version` as known when it was deployed.
    pub title: String,
    /// `starting`, `running`, `stopped`, `failed`, …
    pub state: String,
    /// Its class: `guaranteed` or `backfill`.
    pub class: String,
    /// Published ports.
    pub ports: Vec<PortForward>,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// When it was deployed.
    pub created: String,
    /// What went wrong, or a warning such as a revocation.
    pub note: Option<String>,
}

/// A port of the guest that the host listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForward {
    /// Port on the host's loopback.
    pub host: u16,
    /// Port in the guest.
    pub guest: u16,
}

/// `deploy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployed {
    /// The new instance's id.
    pub instance: String,
    /// Its state.
    pub state: String,
    /// Its published ports.
    pub ports: Vec<PortForward>,
}

/// `stop`, `rm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceChanged {
    /// Its id.
    pub instance: String,
    /// Its state now.
    pub state: String,
}

/// `image add FILE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddImageRequest {
    /// Absolute path of the file, as the node sees it.
    pub file: String,
    /// What the file is, where it is a disk that may have to be made flat: raw, qcow2, vmdk, vhd or ova. Without it, the
    /// file is stored as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Which disk of an archive, where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
}

/// `image get IMAGE -o FILE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportImageRequest {
    /// Absolute path of the file to write.
    pub file: String,
    /// raw or qcow2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// `publish FILE.toml --key NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// Absolute path of the description.
    pub file: String,
    /// Name of a key in the node's `keys` directory.
    pub key: String,
}

/// `endorse RELEASE --key NAME --type URI [--body FILE]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndorseRequest {
    /// A release: id, unique prefix, or `PETNAME/NAME@VERSION`.
    pub release: String,
    /// Name of a key.
    pub key: String,
    /// The predicate's URI.
    pub predicate: String,
    /// Free text.
    #[serde(default)]
    pub note: Option<String>,
    /// Seconds until it stops counting.
    #[serde(default)]
    pub expires_after_seconds: Option<u64>,
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
}

/// `delegate KEY… --key NAME --names PATTERN…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelegateRequest {
    /// Name of the publisher's key.
    pub key: String,
    /// The keys that may act for it: names of keys of this node, or public keys.
    pub to: Vec<String>,
    /// Patterns of the names of the appliances whose channels they may move.
    pub names: Vec<String>,
    /// How many of the keys must sign; 1 where it is absent.
    #[serde(default)]
    pub threshold: Option<u32>,
    /// Seconds until it ends; 90 days where it is absent.
    #[serde(default)]
    pub expires_after_seconds: Option<u64>,
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

/// `revoke ID --key NAME --reason TEXT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// A release, an endorsement, or a public key (OpenSSH or base32 form).
    pub subject: String,
    /// Name of a key.
    pub key: String,
    /// Why.
    pub reason: String,
}

/// `fetch IMAGE|RELEASE [--held]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchRequest {
    /// An image id, or a release.
    pub target: String,
    /// Fetch a release that policy does not accept: it is stored, never deployed.
    #[serde(default)]
    pub held: bool,
}

/// `deploy RELEASE [--set K=V]… [--publish HOST:GUEST]…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// The release.
    pub release: String,
    /// Values of its context inputs.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Ports to publish; host port 0 picks a free one.
    #[serde(default)]
    pub publish: Vec<PortForward>,
}

/// A long piece of work: follow it at `/api/v1/jobs/<id>/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStarted {
    /// Its id.
    pub job: String,
}

/// What a job says of itself. `Done` and `Failed` end it; who asks after the end is told the end again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum JobEvent {
    /// Under way.
    Progress {
        /// What it is doing: `reading`, `fetching`, `starting`, …
        stage: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all; 0 while unknown.
        total: u64,
    },
    /// The end: the result, in the JSON of its command.
    Done {
        /// The value that the command prints with `--json`.
        result: serde_json::Value,
    },
    /// The end: it did not work.
    Failed {
        /// Why.
        error: ApiError,
    },
}

/// What changed in the node, for pages that are open. Pages ask for the details again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "changed", rename_all = "lowercase")]
pub enum Change {
    /// Records came or went.
    Catalog,
    /// The policy in force is another one.
    Policy,
    /// An instance changed its state.
    Instances,
    /// Images came or went.
    Store,
    /// Peers came or went.
    Peers,
}

/// The node behind the faces. Each method is one request of `/api/v1`; none trusts its caller to have checked anything.
///
/// Errors are [`ApiError`] with a code that fits: `not-found` for ids that name nothing, `usage` for requests that make
/// no sense, `refused` where policy says no, `failed` for the rest.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The node at a glance.
    async fn status(&self) -> Result<Status>;
    /// Connected peers.
    async fn peers(&self) -> Result<Vec<Peer>>;
    /// How much may be sent and received.
    async fn rates(&self) -> Result<Rates>;
    /// Sends and receives at other rates from now on, until the node is restarted.
    async fn change_rates(&self, request: ChangeRates) -> Result<Rates>;
    /// Lists releases, newest first.
    async fn search(&self, query: SearchQuery) -> Result<SearchPage>;
    /// Everything about one release (id, unique prefix of at least 12 characters, `PETNAME/NAME@VERSION`, or
    /// `PETNAME/NAME:CHANNEL`).
    async fn release(&self, release: &str) -> Result<ReleaseDetails>;
    /// What policy says of a release, and why.
    async fn explain(&self, release: &str) -> Result<Explanation>;
    /// Makes a logged decision again.
    async fn replay(&self, decision: u64) -> Result<Replay>;
    /// What another policy would say differently, of every release that is known.
    async fn policy_diff(&self, request: PolicyDiffRequest) -> Result<PolicyDiff>;
    /// Images of the store.
    async fn images(&self) -> Result<Vec<ImageSummary>>;
    /// Adds a file as an image; a job that ends in [`ImageAdded`].
    async fn add_image(&self, request: AddImageRequest) -> Result<JobStarted>;
    /// Reads an image back and checks it; a job that ends in [`ImageVerified`].
    async fn verify_image(&self, image: ImageId) -> Result<JobStarted>;
    /// Writes an image to a flat file; a job that ends in [`ImageExported`].
    async fn export_image(&self, image: ImageId, request: ExportImageRequest) -> Result<JobStarted>;
    /// Forgets an image that nothing needs.
    async fn remove_image(&self, image: ImageId) -> Result<()>;
    /// Pins or unpins an image: garbage collection and `rm` leave a pinned one alone.
    async fn pin_image(&self, image: ImageId, is_pinned: bool) -> Result<()>;
    /// Gives the space of chunks that no image names back; a job that ends in [`Collected`].
    async fn collect_garbage(&self) -> Result<JobStarted>;
    /// Reads the whole store over again and fetches what is damaged; a job that ends in [`Scrubbed`].
    async fn scrub(&self) -> Result<JobStarted>;
    /// Publishes a release; a job that ends in [`Published`].
    async fn publish(&self, request: PublishRequest) -> Result<JobStarted>;
    /// Says something of a release.
    async fn endorse(&self, request: EndorseRequest) -> Result<Recorded>;
    /// The channels of publishers that policy names, and of this site's own keys; of others those whose appliance is
    /// asked for (`PUBLISHER/NAME`). At most 1,000.
    async fn channels(&self, appliance: Option<&str>) -> Result<Vec<ChannelShown>>;
    /// One channel: `PUBLISHER/NAME:CHANNEL`.
    async fn channel(&self, channel: &str) -> Result<ChannelShown>;
    /// Makes a channel point at a release, and keeps it fresh from now on.
    async fn set_channel(&self, request: SetChannelRequest) -> Result<Recorded>;
    /// Lets keys act for a publisher.
    async fn delegate(&self, request: DelegateRequest) -> Result<Delegated>;
    /// Puts a key in the place of another.
    async fn rotate(&self, request: RotateRequest) -> Result<Delegated>;
    /// The time that verdicts go by.
    async fn clock(&self) -> Result<ClockStatus>;
    /// Takes the machine's clock for right.
    async fn set_clock(&self, request: ClockRequest) -> Result<ClockStatus>;
    /// Withdraws a release, an endorsement or a key.
    async fn revoke(&self, request: RevokeRequest) -> Result<Recorded>;
    /// Fetches an image or a release; a job that ends in [`Fetched`].
    async fn fetch(&self, request: FetchRequest) -> Result<JobStarted>;
    /// Judges, fetches what is missing and boots; a job that ends in [`Deployed`].
    async fn deploy(&self, request: DeployRequest) -> Result<JobStarted>;
    /// All instances.
    async fn instances(&self) -> Result<Vec<Instance>>;
    /// Stops an instance: ACPI first, and the hard way when it does not listen or `force` is set.
    async fn stop_instance(&self, instance: &str, force: bool) -> Result<InstanceChanged>;
    /// Removes a stopped instance and what its guest wrote.
    async fn remove_instance(&self, instance: &str) -> Result<InstanceChanged>;
    /// What the guest wrote to its console, as bytes of text; with `follow`, also what it writes from now on.
    async fn instance_logs(&self, instance: &str, follow: bool) -> Result<BoxStream<Bytes>>;
    /// What a job says of itself: its latest progress first, then as it comes, then the end.
    async fn job_events(&self, job: &str) -> Result<BoxStream<JobEvent>>;
    /// Stops a job; what it has stored stays.
    async fn cancel_job(&self, job: &str) -> Result<()>;
    /// Changes as they happen.
    async fn changes(&self) -> Result<BoxStream<Change>>;
    /// Metrics in the OpenMetrics text format.
    async fn metrics(&self) -> Result<String>;
    /// A fresh one-time link to the web UI.
    async fn web_link(&self) -> Result<String>;
}

/// `instances/{id}/stop`: an empty body means a gentle stop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StopRequest {
    /// Pull the plug instead of pressing the power button.
    pub force: bool,
}

/// `web/link`: a fresh one-time link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebLink {
    /// The link; works once, within ten minutes.
    pub url: String,
}
