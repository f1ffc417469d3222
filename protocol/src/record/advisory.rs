//! `Advisory`: a package that should be replaced by a later one.

use serde::{Deserialize, Serialize};

use crate::bounded::{Name, Text};

/// What is known of a flaw in one package of one ecosystem. It speaks of packages, not of releases: which releases it
/// bears on follows from what is inside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advisory {
    /// What its publisher calls it: `DSA-5678-1`, `CVE-2026-1234`.
    pub id: Text<128>,
    /// Where the package comes from: `debian-12`, `cargo`.
    pub ecosystem: Name,
    /// The package, as its ecosystem calls it.
    pub package: Text<256>,
    /// The first version without the flaw, in the ecosystem's own form and order; none while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<Text<128>>,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Text<2048>>,
}

/// How bad a flaw is, from the least to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Hardly matters.
    Low,
    /// Matters where something else goes wrong, too.
    Medium,
    /// Matters.
    High,
    /// Replace it now.
    Critical,
}

impl Severity {
    /// All of them, from the least to the worst.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}
