//! [`Expectations`]: what a site expects of its own policy, tried on releases that are imagined.
//!
//! ```text
//! FILE.toml ─► Case ─► Stage: records, signed and verified ─┐
//! policy ─► the same with stand-ins for its keys ───────────┴─► evaluate ─► Tried
//! ```
//!
//! What judges is [`evaluate`], by the policy's own text; there is no second judge that could be of another mind. Nobody's
//! secret keys are needed: other keys stand in for them, in the policy and in what is imagined.

mod file;
mod stage;
mod stand_in;
#[cfg(test)]
mod tests;
pub(super) mod words;

use std::collections::BTreeSet;

use rialto_protocol::UnixSeconds;
use rialto_web::api::{RequirementOutcome, VerdictKind};
use serde::Serialize;

use file::Case;
pub use file::MAX_EXPECTATIONS_BYTES;
use stage::Stage;
pub use stage::StageError;

use super::evaluate;
use super::parse::policy_with;
use super::policy::{Policy, PolicyError};

/// What a site expects of a policy, case by case.
pub struct Expectations {
    cases: Vec<Case>,
    /// The policy, with stand-ins for its keys.
    policy: Policy,
}

/// One case, judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// What the file calls it.
    pub title: String,
    /// Where it begins in the file, from 1.
    pub line: usize,
    /// Whether everything is as expected.
    pub is_as_expected: bool,
    /// What is expected.
    pub expected: Expected,
    /// What policy says.
    pub verdict: VerdictKind,
    /// The rule that said so.
    pub rule: String,
    /// Why, in one sentence.
    pub because: String,
    /// Each requirement of that rule, and how it came out.
    pub requirements: Vec<RequirementOutcome>,
}

/// What the file expects of one case. What it leaves out may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// The verdict.
    pub verdict: VerdictKind,
    /// The rule that decides.
    pub rule: Option<String>,
    /// The requirements that are not met: these and no others.
    pub missing: Option<BTreeSet<String>>,
}

impl Tried {
    /// The requirements that are not met, as the policy has them.
    pub fn missing(&self) -> BTreeSet<String> {
        let unmet = self.requirements.iter().filter(|requirement| !requirement.met);
        unmet.map(|requirement| requirement.name.clone()).collect()
    }
}

impl Expectations {
    /// Reads a file of expectations of this policy. Strict, as a policy is read: a word that means nothing is an error.
    ///
    /// # Errors
    /// One mistake in the file, with its place; also a text over [`MAX_EXPECTATIONS_BYTES`].
    pub fn parse(text: &str, policy: &Policy) -> Result<Self, PolicyError> {
        let cases = file::cases(text, policy)?;
        // It was read before: only its keys are others.
        let policy = policy_with(policy.text(), |key| stand_in::public(&key))?;
        Ok(Self { cases, policy })
    }

    /// Judges every case as if it were true at `now`, in the order of the file.
    ///
    /// # Errors
    /// A case that no records could make true.
    pub fn run(&self, now: UnixSeconds) -> Result<Vec<Tried>, StageError> {
        self.cases.iter().map(|case| self.judge(case, now)).collect()
    }

    /// Rules of the policy that none of these cases was decided by, in the order of the file.
    pub fn idle_rules<'a>(&'a self, tried: &'a [Tried]) -> impl Iterator<Item = &'a str> {
        let rules = self.policy.rules.iter().map(|rule| rule.name.as_str());
        rules.filter(|rule| tried.iter().all(|tried| tried.rule != *rule))
    }

    fn judge(&self, case: &Case, now: UnixSeconds) -> Result<Tried, StageError> {
        let stage = Stage::set(&case.stated, now)?;
        let verdict = evaluate(&self.policy, &stage.release, &stage.facts(), now);
        let said = |requirement: &RequirementOutcome| RequirementOutcome {
            because: stage.in_words(&requirement.because),
            ..requirement.clone()
        };
        let mut tried = Tried {
            title: case.title.clone(),
            line: case.line,
            is_as_expected: false,
            expected: Expected { verdict: case.expect, rule: case.rule.clone(), missing: case.missing.clone() },
            verdict: verdict.kind(),
            rule: verdict.rule().to_owned(),
            because: stage.in_words(verdict.because()),
            requirements: verdict.requirements().iter().map(said).collect(),
        };
        let expected = &tried.expected;
        tried.is_as_expected = expected.verdict == tried.verdict
            && expected.rule.as_ref().is_none_or(|rule| *rule == tried.rule)
            && expected.missing.as_ref().is_none_or(|missing| *missing == tried.missing());
        Ok(tried)
    }
}
