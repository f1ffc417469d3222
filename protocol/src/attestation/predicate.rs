//! [`Predicate`]: what a statement says of its subjects, where its type is one that is known here.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::json::{self, JsonError};
use super::time::rfc3339;
use crate::UnixSeconds;

/// SLSA provenance, version 1: who built it, and how.
pub const PREDICATE_PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// A scan for vulnerabilities, version 0.2.
pub const PREDICATE_SCAN: &str = "https://in-toto.io/attestation/vulns/v0.2";
/// A verification summary of SLSA: somebody has verified it against a policy of theirs.
pub const PREDICATE_VERIFICATION: &str = "https://slsa.dev/verification_summary/v1";

/// A text of a statement that is shown is at most so long, in characters.
const MAX_SHOWN_CHARS: usize = 512;
/// Names of levels that a verification summary can list.
const MAX_LEVELS: usize = 16;

/// What a statement says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predicate {
    /// How the subjects were built.
    Provenance(Provenance),
    /// What is inside of them.
    Bill(Bill),
    /// What a scanner found in them.
    Scan(Scan),
    /// What somebody who verified them says.
    Verification(Verification),
    /// A type that is not known here.
    Other,
}

/// SLSA provenance, version 1 or 0.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The URI of who built it.
    pub builder: String,
    /// The URI that says how its parameters are to be read.
    pub build_type: String,
    /// What went into it: resolved dependencies, materials.
    pub materials: usize,
    /// When the build ended.
    pub finished: Option<UnixSeconds>,
}

/// A bill of materials inside a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    /// Which form it has.
    pub form: BillForm,
    /// Of what it is: the document's name.
    pub name: Option<String>,
    /// How many packages or components it lists.
    pub packages: usize,
    /// When it was made.
    pub created: Option<UnixSeconds>,
}

/// The forms of bills of materials that are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BillForm {
    /// SPDX 2, in JSON.
    Spdx,
    /// CycloneDX, in JSON.
    CycloneDx,
}

/// A scan for vulnerabilities: in-toto's type, versions 0.1 and 0.2, and cosign's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The URI of the scanner.
    pub scanner: String,
    /// Its version.
    pub version: Option<String>,
    /// When what it knows was last brought up to date.
    pub database_updated: Option<UnixSeconds>,
    /// Findings by severity: `critical`, `high`, `medium`, `low`, `none`, or `unknown`. `None` where its result has a form of its own.
    pub findings: Option<BTreeMap<&'static str, usize>>,
    /// When it ended.
    pub finished: Option<UnixSeconds>,
}

/// A verification summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// The URI of who verified.
    pub verifier: String,
    /// The URI of the policy that it was verified against.
    pub policy: Option<String>,
    /// Whether it passed. A summary that says otherwise speaks against its subjects.
    pub has_passed: bool,
    /// What it was found to reach: `SLSA_BUILD_LEVEL_3`.
    pub levels: Vec<String>,
    /// When.
    pub verified: Option<UnixSeconds>,
}

impl Predicate {
    /// Reads the predicate of a statement, which was scanned before, by its type.
    pub(super) fn read(predicate_type: &str, statement: &[u8]) -> Result<Self, JsonError> {
        // Version 3 of SPDX is a graph, and another format.
        let versioned = |base: &str| {
            let version = predicate_type.strip_prefix(base);
            version.is_some_and(|rest| rest.is_empty() || (rest.starts_with("/v") && !rest.starts_with("/v3")))
        };
        match predicate_type {
            PREDICATE_PROVENANCE => predicate::<wire::ProvenanceV1>(statement).map(|said| said.into()),
            "https://slsa.dev/provenance/v0.2" => predicate::<wire::ProvenanceV02>(statement).map(|said| said.into()),
            PREDICATE_SCAN | "https://in-toto.io/attestation/vulns/v0.1" => {
                predicate::<wire::Scan<Vec<wire::Finding>>>(statement).map(wire::Scan::counted)
            }
            "https://cosign.sigstore.dev/attestation/vuln/v1" => {
                predicate::<wire::Scan<IgnoredAny>>(statement).map(wire::Scan::uncounted)
            }
            PREDICATE_VERIFICATION => predicate::<wire::Verification>(statement)?.try_into(),
            _ if versioned("https://spdx.dev/Document") => predicate::<wire::Spdx>(statement).map(|said| said.into()),
            _ if versioned("https://cyclonedx.org/bom") => {
                predicate::<wire::CycloneDx>(statement).map(|said| said.into())
            }
            _ => Ok(Self::Other),
        }
    }

    /// The time that it gives itself, which its signers vouch for: when the build or scan ended, when it was verified, when
    /// the document was made.
    pub fn time(&self) -> Option<UnixSeconds> {
        match self {
            Self::Provenance(said) => said.finished,
            Self::Bill(said) => said.created,
            Self::Scan(said) => said.finished,
            Self::Verification(said) => said.verified,
            Self::Other => None,
        }
    }

    /// What it is called, where it is known here.
    pub fn title(&self) -> Option<&'static str> {
        match self {
            Self::Provenance(_) => Some("SLSA provenance"),
            Self::Bill(Bill { form: BillForm::Spdx, .. }) => Some("SPDX bill of materials"),
            Self::Bill(Bill { form: BillForm::CycloneDx, .. }) => Some("CycloneDX bill of materials"),
            Self::Scan(_) => Some("vulnerability scan"),
            Self::Verification(_) => Some("SLSA verification summary"),
            Self::Other => None,
        }
    }

    /// Its key fields, apart from the time, each with its name. Texts are the signer's, cut to a length that can be shown.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let cut = |text: &str| text.chars().take(MAX_SHOWN_CHARS).collect::<String>();
        let mut fields = Vec::new();
        match self {
            Self::Provenance(said) => {
                fields.push(("builder", cut(&said.builder)));
                fields.push(("build type", cut(&said.build_type)));
                fields.push(("materials", said.materials.to_string()));
            }
            Self::Bill(said) => {
                fields.extend(said.name.as_deref().map(|name| ("document", cut(name))));
                fields.push(("packages", said.packages.to_string()));
            }
            Self::Scan(said) => {
                fields.push(("scanner", cut(&said.scanner)));
                fields.extend(said.version.as_deref().map(|version| ("version", cut(version))));
                fields.extend(said.findings.as_ref().map(|found| ("findings", findings(found))));
            }
            Self::Verification(said) => {
                fields.push(("result", if said.has_passed { "PASSED" } else { "FAILED" }.to_owned()));
                fields.push(("verifier", cut(&said.verifier)));
                fields.extend(said.policy.as_deref().map(|policy| ("policy", cut(policy))));
                if !said.levels.is_empty() {
                    fields.push(("levels", cut(&said.levels.join(", "))));
                }
            }
            Self::Other => {}
        }
        fields
    }
}

fn findings(found: &BTreeMap<&'static str, usize>) -> String {
    let worst_first = SEVERITIES.iter().filter_map(|word| Some(format!("{} {word}", found.get(word)?)));
    match worst_first.collect::<Vec<_>>() {
        counts if counts.is_empty() => "nothing".to_owned(),
        counts => counts.join(", "),
    }
}

/// From the worst to the least.
const SEVERITIES: [&str; 6] = ["critical", "high", "medium", "low", "none", "unknown"];

fn predicate<'a, T: Deserialize<'a>>(statement: &'a [u8]) -> Result<T, JsonError> {
    #[derive(Deserialize)]
    struct Statement<T> {
        predicate: T,
    }
    json::read::<Statement<T>>(statement).map(|statement| statement.predicate)
}

/// The predicates as they are written. Fields that nothing is made of are left out, and passed over.
mod wire {
    use super::*;

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct ProvenanceV1 {
        build_definition: BuildDefinition,
        run_details: RunDetails,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct BuildDefinition {
        build_type: String,
        #[serde(default)]
        resolved_dependencies: Option<Vec<IgnoredAny>>,
    }

    #[derive(Deserialize)]
    struct RunDetails {
        builder: Identified,
        #[serde(default)]
        metadata: Option<RunMetadata>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RunMetadata {
        #[serde(default)]
        finished_on: Option<String>,
    }

    #[derive(Deserialize)]
    struct Identified {
        id: String,
    }

    impl From<ProvenanceV1> for Predicate {
        fn from(said: ProvenanceV1) -> Self {
            Self::Provenance(Provenance {
                builder: said.run_details.builder.id,
                build_type: said.build_definition.build_type,
                materials: said.build_definition.resolved_dependencies.map_or(0, |listed| listed.len()),
                finished: time(said.run_details.metadata.and_then(|metadata| metadata.finished_on)),
            })
        }
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct ProvenanceV02 {
        builder: Identified,
        build_type: String,
        #[serde(default)]
        metadata: Option<BuildMetadata>,
        #[serde(default)]
        materials: Option<Vec<IgnoredAny>>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct BuildMetadata {
        #[serde(default)]
        build_finished_on: Option<String>,
    }

    impl From<ProvenanceV02> for Predicate {
        fn from(said: ProvenanceV02) -> Self {
            Self::Provenance(Provenance {
                builder: said.builder.id,
                build_type: said.build_type,
                materials: said.materials.map_or(0, |listed| listed.len()),
                finished: time(said.metadata.and_then(|metadata| metadata.build_finished_on)),
            })
        }
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Spdx {
        #[serde(rename = "spdxVersion")]
        _version: String,
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        creation_info: Option<CreationInfo>,
        #[serde(default)]
        packages: Option<Vec<IgnoredAny>>,
    }

    #[derive(Deserialize)]
    struct CreationInfo {
        #[serde(default)]
        created: Option<String>,
    }

    impl From<Spdx> for Predicate {
        fn from(said: Spdx) -> Self {
            Self::Bill(Bill {
                form: BillForm::Spdx,
                name: said.name,
                packages: said.packages.map_or(0, |listed| listed.len()),
                created: time(said.creation_info.and_then(|made| made.created)),
            })
        }
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct CycloneDx {
        #[serde(rename = "bomFormat")]
        _format: String,
        #[serde(default)]
        metadata: Option<BomMetadata>,
        #[serde(default)]
        components: Option<Vec<IgnoredAny>>,
    }

    #[derive(Deserialize)]
    struct BomMetadata {
        #[serde(default)]
        timestamp: Option<String>,
        #[serde(default)]
        component: Option<Named>,
    }

    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        name: Option<String>,
    }

    impl From<CycloneDx> for Predicate {
        fn from(said: CycloneDx) -> Self {
            let (name, created) = match said.metadata {
                Some(metadata) => (metadata.component.and_then(|component| component.name), time(metadata.timestamp)),
                None => (None, None),
            };
            let packages = said.components.map_or(0, |listed| listed.len());
            Self::Bill(Bill { form: BillForm::CycloneDx, name, packages, created })
        }
    }

    #[derive(Deserialize)]
    pub(super) struct Scan<R> {
        scanner: Scanner<R>,
        #[serde(default)]
        metadata: Option<ScanMetadata>,
    }

    #[derive(Deserialize)]
    struct Scanner<R> {
        uri: String,
        #[serde(default)]
        version: Option<String>,
        #[serde(default)]
        db: Option<Database>,
        result: R,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Database {
        #[serde(default)]
        last_update: Option<String>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ScanMetadata {
        #[serde(default)]
        scan_finished_on: Option<String>,
    }

    /// Version 0.1 describes its findings as `{vulnerability: {…}}`, and gives an example of `{…}`.
    #[derive(Deserialize)]
    #[serde(untagged)]
    pub(super) enum Finding {
        Wrapped { vulnerability: Vulnerability },
        Bare(Vulnerability),
    }

    #[derive(Deserialize)]
    pub(super) struct Vulnerability {
        #[serde(rename = "id")]
        _id: String,
        #[serde(default)]
        severity: Severities,
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Severities {
        One(Score),
        Several(Vec<Score>),
    }

    impl Default for Severities {
        fn default() -> Self {
            Self::Several(Vec::new())
        }
    }

    #[derive(Deserialize)]
    struct Score {
        score: String,
    }

    impl Vulnerability {
        /// The worst of what its scores say.
        fn severity(&self) -> &'static str {
            let scores = match &self.severity {
                Severities::One(score) => std::slice::from_ref(score),
                Severities::Several(scores) => scores,
            };
            let words = scores.iter().map(|score| severity(&score.score));
            let worst = words.min_by_key(|word| SEVERITIES.iter().position(|other| other == word));
            worst.unwrap_or("unknown")
        }
    }

    /// A word, or a number of CVSS by the bands of its specification.
    fn severity(score: &str) -> &'static str {
        let folded = score.trim().to_ascii_lowercase();
        let number = || folded.parse::<f64>().ok().filter(|number| (0.0..=10.0).contains(number));
        match folded.as_str() {
            "critical" => "critical",
            "high" | "important" => "high",
            "medium" | "moderate" => "medium",
            "low" | "negligible" => "low",
            "none" => "none",
            _ => match number() {
                Some(9.0..) => "critical",
                Some(7.0..) => "high",
                Some(4.0..) => "medium",
                Some(number) if number > 0.0 => "low",
                Some(_) => "none",
                None => "unknown",
            },
        }
    }

    impl<R> Scan<R> {
        fn with(self, findings: impl FnOnce(R) -> Option<BTreeMap<&'static str, usize>>) -> Predicate {
            Predicate::Scan(super::Scan {
                scanner: self.scanner.uri,
                version: self.scanner.version,
                database_updated: time(self.scanner.db.and_then(|database| database.last_update)),
                findings: findings(self.scanner.result),
                finished: time(self.metadata.and_then(|metadata| metadata.scan_finished_on)),
            })
        }
    }

    impl Scan<Vec<Finding>> {
        pub(super) fn counted(self) -> Predicate {
            self.with(|findings| {
                let mut counts = BTreeMap::new();
                for finding in &findings {
                    let (Finding::Wrapped { vulnerability } | Finding::Bare(vulnerability)) = finding;
                    *counts.entry(vulnerability.severity()).or_default() += 1;
                }
                Some(counts)
            })
        }
    }

    impl Scan<IgnoredAny> {
        pub(super) fn uncounted(self) -> Predicate {
            self.with(|_| None)
        }
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Verification {
        verifier: Identified,
        #[serde(default)]
        time_verified: Option<String>,
        #[serde(default)]
        policy: Option<Located>,
        verification_result: String,
        #[serde(default)]
        verified_levels: Option<Vec<String>>,
    }

    #[derive(Deserialize)]
    struct Located {
        #[serde(default)]
        uri: Option<String>,
    }

    impl TryFrom<Verification> for Predicate {
        type Error = JsonError;

        fn try_from(said: Verification) -> Result<Self, JsonError> {
            let has_passed = match said.verification_result.as_str() {
                "PASSED" => true,
                "FAILED" => false,
                _ => return Err(JsonError::Form("verificationResult is neither PASSED nor FAILED".into())),
            };
            let mut levels = said.verified_levels.unwrap_or_default();
            levels.truncate(MAX_LEVELS);
            Ok(Self::Verification(super::Verification {
                verifier: said.verifier.id,
                policy: said.policy.and_then(|policy| policy.uri),
                has_passed,
                levels,
                verified: time(said.time_verified),
            }))
        }
    }

    fn time(text: Option<String>) -> Option<UnixSeconds> {
        rfc3339(&text?)
    }
}
