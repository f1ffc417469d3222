//! Advisories: flaws of packages, and what of a release they bear on.

use rialto_protocol::ids::RecordId;
use rialto_protocol::record::Severity;
use serde::{Deserialize, Serialize};

use super::SignerShown;

/// Packages that one request can be about.
pub const MAX_ADVISED_PACKAGES: usize = 64;

/// `advisory publish FILE.toml --key NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishAdvisoryRequest {
    /// Name of a key.
    pub key: String,
    /// What its publisher calls it: `DSA-5678-1`.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, for people.
    #[serde(default)]
    pub summary: Option<String>,
    /// The packages that have the flaw: 1 to [`MAX_ADVISED_PACKAGES`].
    pub packages: Vec<AdvisedPackage>,
}

/// A package with a flaw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdvisedPackage {
    /// Where it comes from: `debian-12`, `cargo`.
    pub ecosystem: String,
    /// The package, as its ecosystem calls it; for a distribution, the source package will do.
    pub name: String,
    /// The first version without the flaw; none while there is none.
    #[serde(default)]
    pub fixed: Option<String>,
}

/// `advisory publish`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvisoriesPublished {
    /// One record for each package, in the order of the request.
    pub records: Vec<RecordId>,
}

/// Which advisories are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdvisoryQuery {
    /// Only those of this name, on this package, or the one whose record this is or begins with (at least 12 characters).
    pub about: Option<String>,
    /// Those of strangers, too.
    pub of_strangers: bool,
}

/// An advisory as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvisoryShown {
    /// Its record.
    pub record: RecordId,
    /// What its publisher calls it.
    pub id: String,
    /// Where the package comes from.
    pub ecosystem: String,
    /// The package.
    pub package: String,
    /// The first version without the flaw; none while there is none.
    pub fixed: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub summary: Option<String>,
    /// When it was issued, by its signer's clock.
    pub issued: String,
    /// Who signed it.
    pub signed_by: Vec<SignerShown>,
    /// Whether it counts here, where a rule asks for advisories.
    pub counts: bool,
    /// Why it does not, where it does not.
    pub because: Option<String>,
}

/// An advisory that bears, or may bear, on something inside of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BearingShown {
    /// The advisory.
    pub advisory: AdvisoryShown,
    /// The package that is inside, with its version where that is known.
    pub package: String,
    /// Why it is not sure that it does; none where it does.
    pub doubt: Option<String>,
}
