//! Verdicts, and what is said of policies and decisions.

use rialto_protocol::ids::{ImageId, RecordId};
use serde::{Deserialize, Serialize};

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

/// `policy replay`: a decision made again, with the policy, the records and the clock of its day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The number of its line in the log, from 1.
    pub decision: u64,
    /// When it was made.
    pub time: String,
    /// What for: `fetch` or `deploy`.
    pub action: String,
    /// The release, as this site calls it; its id where the release is not at hand.
    pub title: String,
    /// What was decided then.
    pub verdict: VerdictKind,
    /// The rule that decided then.
    pub rule: String,
    /// What the same comes to now.
    pub replayed: Explanation,
    /// Whether verdict, rule and images are the same.
    pub is_same: bool,
    /// Records that it rested on and that are not at hand any more, so that they are left out.
    pub missing: Vec<RecordId>,
}

/// `policy replay --at`: which time, and of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayAtRequest {
    /// When, not in the future.
    pub at: String,
    /// Which releases, at most 100, as they are named everywhere; all that were known then where there is none.
    #[serde(default)]
    pub releases: Vec<String>,
    /// A policy to judge by, an absolute path of the node's machine; the one that was in force then where absent.
    #[serde(default)]
    pub policy: Option<String>,
}

/// `policy replay --at`: verdicts as they would have been given at another time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayAt {
    /// When.
    pub at: String,
    /// BLAKE3 of the policy that judged, hex.
    pub policy: String,
    /// How it is known that this was in force then, or that it was not.
    pub policy_because: String,
    /// Whether that is certain.
    pub is_policy_certain: bool,
    /// What cannot be known of that time.
    pub notes: Vec<String>,
    /// Releases that were asked about, and were known then.
    pub releases: usize,
    /// Releases of which policy says something else now.
    pub changed: usize,
    /// Each of them, newest first, or as they were named; at most 1,000.
    pub verdicts: Vec<ReleaseAt>,
}

/// What would have been said of one release at another time, and what is said now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseAt {
    /// The release.
    pub release: RecordId,
    /// `publisher/name@version`, as the policy in force now calls the publisher.
    pub title: String,
    /// What policy would have said then.
    pub then: Explanation,
    /// What it says now.
    pub now: VerdictKind,
    /// Why.
    pub now_because: String,
    /// Whether the verdict is the same.
    pub is_same: bool,
    /// What may have been known of it then, and is not known any more.
    pub doubts: Vec<String>,
}

/// `policy diff`: what to compare. Paths are absolute, of the node's machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyDiffRequest {
    /// The policy of now; the one in force where absent.
    #[serde(default)]
    pub old: Option<String>,
    /// The policy to come.
    pub new: String,
}

/// What another policy would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDiff {
    /// BLAKE3 of the old policy, hex.
    pub old: String,
    /// BLAKE3 of the new one.
    pub new: String,
    /// Releases that both were asked about: all that the catalog knows.
    pub releases: usize,
    /// Releases of which they say different things.
    pub changed: usize,
    /// These, newest first; at most 1,000.
    pub changes: Vec<PolicyChange>,
}

/// One release of which two policies say different things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// The release.
    pub release: RecordId,
    /// `publisher/name@version`, as the policy in force calls the publisher.
    pub title: String,
    /// What the old policy says.
    pub old: VerdictKind,
    /// What the new one says.
    pub new: VerdictKind,
    /// Why, in the new one's words.
    pub because: String,
    /// Instances of it that run or are suspended here.
    pub instances: Vec<String>,
}
