//! Trust: the site's policy, and what it says of a release.
//!
//! ```text
//! policy.toml ─► PolicyFile ─► Policy ─┐
//! catalog ─► Verified<Record>, Facts ──┼─► evaluate ─► Verdict ─► Accepted ─► deploy
//! the node's own clock ────────────────┘                  └─► DecisionLog
//! ```
//!
//! Evaluation is a pure function. [`judge`] is what the rest of the node calls: it fails closed where there is no policy.

mod accepted;
mod advisories;
mod clock;
mod decisions;
mod evidence;
mod expect;
mod file;
mod floors;
mod in_force;
mod inside;
mod lines;
mod parse;
mod policy;
mod reader;
mod reference;
mod requirement;
mod starter;
mod statements;
mod summary;
mod verdict;
mod withdrawn;
mod words;

#[cfg(test)]
mod ancestors;
#[cfg(test)]
mod freshness_tests;
#[cfg(test)]
mod inside_tests;
#[cfg(test)]
mod lent_tests;
#[cfg(test)]
mod parse_tests;
#[cfg(test)]
mod statement_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod verdict_tests;

pub use accepted::Accepted;
pub use advisories::{Hit, Standing, bearing_on, standing};
pub use clock::{Clock, Doubt, Reading};
pub use decisions::{Action, Decision, DecisionError, DecisionLog, Line, LineHash, Verification};
pub use evidence::{Evidence, EvidenceError};
pub use expect::{Expectations, Expected, MAX_EXPECTATIONS_BYTES, StageError, Tried};
pub use file::{PolicyFile, PolicyState, judge, read_policy};
pub use floors::{FloorError, Floors, Place, Signed, Standby};
pub use in_force::{InForce, PolicyLog, PolicyLogError};
pub use inside::Inside;
pub use policy::{MAX_POLICY_BYTES, OnRevoke, Policy, PolicyError, Update};
pub use reference::REFERENCE;
pub(crate) use requirement::age_shown;
pub use starter::starter_policy;
pub use statements::Statement;
pub(crate) use verdict::time_shown;
pub use verdict::{ChannelFacts, Facts, Verdict, evaluate, revocation_subjects};
pub use withdrawn::{endorsement_is_void, makers_of, revocation_counts, revocation_is_by};
