//! Releases, what is said of them, and how to say something.

use rialto_protocol::ids::{ImageId, RecordId};
use serde::{Deserialize, Serialize};

use super::{BearingShown, ChannelShown, Explanation, VerdictKind};

/// Which releases to list. All conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchQuery {
    /// Words, each of which must begin a word of name, publisher, version, summary, description or tags.
    pub q: String,
    /// Only releases with this verdict.
    pub verdict: Option<VerdictKind>,
    /// Only of this publisher: a petname, a fingerprint (`~…`), or a key.
    pub publisher: Option<String>,
    /// Only with this tag.
    pub tag: Option<String>,
    /// Only for this architecture.
    pub arch: Option<String>,
    /// Only those issued in the last so many seconds.
    pub within_seconds: Option<u64>,
    /// How many to skip.
    pub offset: usize,
    /// How many to list; at most 200, 50 where 0.
    pub limit: usize,
}

/// What was found, newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SearchPage {
    /// How many there are in all; where that is not exact, how many there are whatever their verdict.
    pub total: usize,
    /// Whether every release that `total` counts fits: not where a verdict is asked for, and there are too many to judge
    /// them all.
    #[serde(default)]
    pub is_exact: bool,
    /// The `offset` of the next page, where there is more.
    #[serde(default)]
    pub next: Option<usize>,
    /// How many there are of which sort, the commonest first.
    #[serde(default)]
    pub facets: SearchFacets,
    /// This page of them.
    pub releases: Vec<ReleaseSummary>,
}

/// How many of the releases found are of which sort; of each sort the 20 commonest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchFacets {
    /// By publisher, as `publisher` takes it.
    pub publishers: Vec<FacetCount>,
    /// By tag.
    pub tags: Vec<FacetCount>,
    /// By architecture.
    pub archs: Vec<FacetCount>,
    /// By verdict, whichever was asked for; empty where there are too many to judge them all.
    pub verdicts: Vec<FacetCount>,
}

/// One value, and how many releases have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FacetCount {
    /// The value.
    pub value: String,
    /// How many.
    pub count: u64,
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
    /// Advisories of signers of the policy that bear on what is inside of it, as far as that is known here.
    pub advisories: Vec<BearingShown>,
    /// The channels of its publisher's that point at it.
    #[serde(default)]
    pub channels: Vec<ChannelShown>,
    /// What became of it, in the order in which this site learnt of it; the latest 500.
    #[serde(default)]
    pub history: Vec<HistoryEvent>,
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
    /// Who signed it. Of an in-toto statement, those whom policy has a name for; there may be others.
    pub signed_by: Vec<SignerShown>,
    /// What kind of statement.
    pub predicate: String,
    /// Free text.
    pub note: Option<String>,
    /// When.
    pub issued: String,
    /// Whether it has been revoked or has expired.
    pub is_void: bool,
    /// What it carries, where that is an in-toto statement.
    #[serde(default)]
    pub statement: Option<StatementShown>,
}

/// An in-toto statement as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementShown {
    /// What it is, where its type is one that this program knows: `SLSA provenance`, `vulnerability scan`.
    pub title: Option<String>,
    /// Its key fields, in their order.
    pub fields: Vec<FieldShown>,
    /// When it says that it was made.
    pub time: Option<String>,
    /// Signatures on it, whoever made them. `signed_by` of the endorsement lists those that this site's policy has a name for.
    pub signatures: usize,
    /// Who brought it here, which counts for nothing.
    pub brought_by: Vec<SignerShown>,
    /// Why it says nothing for this release, whoever has signed it.
    pub problem: Option<String>,
}

/// One field of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldShown {
    /// Which.
    pub name: String,
    /// What it says.
    pub value: String,
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

/// Something that happened to a release, as this site learnt of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEvent {
    /// What happened.
    pub kind: HistoryKind,
    /// The record that says so.
    pub record: RecordId,
    /// Whose signatures came with it.
    pub signed_by: Vec<SignerShown>,
    /// The predicate of an endorsement, the reason of a revocation, the name of a channel; empty otherwise.
    pub what: String,
    /// When, by the signer's own word.
    pub issued: String,
    /// When it reached this site, by this site's clock; absent where an earlier version did not write it down.
    pub arrived: Option<String>,
    /// The peer that brought it, `?` where that was not written down; absent where this site made it.
    pub from: Option<String>,
}

/// What can happen to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HistoryKind {
    /// It was signed, and published.
    Signed,
    /// Another signature was added to a record of its history.
    CoSigned,
    /// Somebody said something of it.
    Endorsed,
    /// It, an endorsement of it, or a key behind it was withdrawn.
    Revoked,
    /// A channel was pointed at it.
    Channel,
}

impl HistoryKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::CoSigned => "co-signed",
            Self::Endorsed => "endorsed",
            Self::Revoked => "revoked",
            Self::Channel => "channel",
        }
    }
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

/// `publish FILE.toml --key NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// Absolute path of the description.
    pub file: String,
    /// Name of a key in the node's `keys` directory.
    pub key: String,
    /// More keys that sign, where its publisher lent its releases to several together.
    #[serde(default)]
    pub with_keys: Vec<String>,
    /// Whose release it is, where not that of `key`: a publisher that lent its releases to the keys.
    #[serde(default)]
    pub publisher: Option<String>,
}

/// `endorse RELEASE --key NAME --type URI [--body FILE]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndorseRequest {
    /// A release: id, unique prefix, or `PETNAME/NAME@VERSION`.
    pub release: String,
    /// Name of a key.
    pub key: String,
    /// The predicate's URI; for a statement it may be left out, and is the one that this says.
    #[serde(default)]
    pub predicate: String,
    /// Free text.
    #[serde(default)]
    pub note: Option<String>,
    /// A DSSE envelope in JSON, with an in-toto statement about one of the release's disks.
    #[serde(default)]
    pub dsse: Option<String>,
    /// Seconds until it stops counting.
    #[serde(default)]
    pub expires_after_seconds: Option<u64>,
}

/// `export RECORD`: an in-toto statement as it was brought here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementExport {
    /// The endorsement that carries it.
    pub record: RecordId,
    /// The release that it was brought for.
    pub release: RecordId,
    /// What it says, as a URI.
    pub predicate: String,
    /// The DSSE envelope, byte for byte.
    pub dsse: String,
}

/// `revoke ID --key NAME --reason TEXT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// A release, an endorsement, an advisory, or a public key (OpenSSH or base32 form).
    pub subject: String,
    /// Name of a key.
    pub key: String,
    /// Why.
    pub reason: String,
}
