//! A federation under siege, in virtual time: up to a thousand sites, one in five of them the attacker's.
//!
//! It is about records alone, so that hundreds of federations are simulated where a scenario with images takes one: gossip,
//! catch-up, channels, delegations, floors, policies and clocks. What decides is the very code of `protocol` and of the
//! node's policy; verification is remembered by the bytes that were verified, which is sound because it is pure.
//!
//! The attacker's sites each do one thing, besides taking part as others do:
//!
//! | who | does |
//! |---|---|
//! | forger | signs in the names of others with a key of its own; corrupts what it passes on |
//! | replayer | says again what was said before, above all to those who have just lost their catalog |
//! | withholder | passes nothing on, and to catch-up says that it has the same |
//! | flooder | says more than anybody keeps, with many keys |
//! | equivocator | has stolen the keys that some publishers delegated to, and tells each peer something else |
//! | partitioner | passes on only what comes from its own half of the federation, to its own half |
//!
//! Meanwhile messages are lost, the federation falls apart and is mended, honest sites lose their catalogs, and honest clocks
//! are put back, step forward, boot in 2099, or find that they slept for a year.
//!
//! What must hold, or [`run`] fails:
//!
//! 1. **True verdicts**: in the end, every honest site that honest sites connect with those whose records its policy names comes,
//!    on every release of a publisher that it names, to the verdict that its policy gives of all that was truly signed.
//! 2. **No way back**: what a channel leads to at an honest site never has a lower place than what it led to there before,
//!    also where the site lost everything but its floors.
//! 3. **No leap**: the time that an honest site judges by is never before the true time, and never after it by more than a
//!    person has said to be right; while a clock is in doubt, nothing is accepted.
//! 4. **Nothing forged is held**: every record at an honest site was signed by those whom it names as its signers.
//!
//! A [`Weakness`] planted in honest sites must make it fail: that is what the tests of the simulator itself do.

mod check;
mod draw;
mod plan;
mod site;
#[cfg(test)]
mod tests;
mod truth;
mod world;

use std::fmt;

use rialto_protocol::UnixSeconds;
use rialto_protocol::ids::{Hash, RecordId};

/// What to simulate. Everything random follows from `seed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Siege {
    /// From which everything random follows.
    pub seed: u64,
    /// Number of sites.
    pub sites: usize,
    /// Every so many sites, one is the attacker's; 0 for none.
    pub one_hostile_in: usize,
    /// Signers that policies name, at least two. Each has appliances, releases, a channel, and a story.
    pub signers: usize,
    /// Endorsements and revocations by them.
    pub opinions: usize,
    /// Records that each flooder makes up.
    pub flood: usize,
    /// Messages lost, of a thousand gossiped.
    pub loss_per_mille: u32,
    /// Times that the federation falls into two parts for a while.
    pub partitions: usize,
    /// Every so many honest sites, one loses its catalog at some time; 0 for none.
    pub one_crash_in: usize,
    /// Every so many honest sites, one has a clock that fails; 0 for none.
    pub one_bad_clock_in: usize,
    /// What is not true by then never will be, in seconds of virtual time.
    pub deadline_seconds: u64,
    /// What honest sites do wrong.
    pub weakness: Weakness,
}

impl Siege {
    /// One site in five is hostile, one in ten loses its catalog, one in four has a bad clock; two partitions, and of a
    /// hundred messages two are lost.
    pub fn new(seed: u64, sites: usize) -> Self {
        Self {
            seed,
            sites,
            one_hostile_in: 5,
            signers: 12,
            opinions: 80,
            flood: 30,
            loss_per_mille: 20,
            partitions: 2,
            one_crash_in: 10,
            one_bad_clock_in: 4,
            deadline_seconds: 900,
            weakness: Weakness::None,
        }
    }
}

/// A fault in honest sites. Nodes have none of these: they are there to show that the simulation would notice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Weakness {
    /// None.
    #[default]
    None,
    /// Floors are lost with the catalog.
    ForgetsFloors,
    /// The forger's key counts as one of a signer's.
    TrustsForger,
    /// The clock on the wall is believed, whatever it says.
    BelievesClock,
    /// Revocations are passed on, and not kept.
    DropsRevocations,
}

/// What came of a siege in which everything held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiegeSummary {
    /// Sites, those of the attacker included.
    pub sites: usize,
    /// Those of the attacker.
    pub hostile: usize,
    /// Events simulated.
    pub events: u64,
    /// Virtual time until the verdicts were true, in seconds.
    pub virtual_seconds: u64,
    /// Records and co-signatures published, the attacker's included.
    pub published: u64,
    /// Gossip messages sent.
    pub gossiped: u64,
    /// Catch-up sessions.
    pub sessions: u64,
    /// Records that came by catch-up and were new.
    pub caught_up: u64,
    /// Forgeries refused.
    pub refused: u64,
    /// Records evicted.
    pub evicted: u64,
    /// Heads that were passed over, a higher one being known.
    pub superseded: u64,
    /// Times that an old head would have taken a site back, and its floor did not let it.
    pub rollbacks_refused: u64,
    /// Catalogs that were lost.
    pub crashes: u64,
    /// Clocks that failed.
    pub bad_clocks: u64,
    /// Times that a site's clock was in doubt when it was looked at.
    pub doubts: u64,
    /// Honest sites that the verdicts of were compared with the truth.
    pub judges: u64,
    /// Honest sites that no honest sites connect with all whom they name; nothing is claimed of those.
    pub apart: u64,
    /// Verdicts compared with the truth.
    pub verdicts: u64,
    /// Of those, verdicts that accept.
    pub accepted: u64,
    /// The hash of what happened, in order.
    pub trace: Hash,
}

impl fmt::Display for SiegeSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sites       {}, {} of them hostile", self.sites, self.hostile)?;
        writeln!(f, "events      {} in {} s of virtual time", self.events, self.virtual_seconds)?;
        writeln!(f, "published   {} records and co-signatures", self.published)?;
        writeln!(
            f,
            "exchanged   {} messages, {} sessions, {} records by catch-up",
            self.gossiped, self.sessions, self.caught_up
        )?;
        writeln!(
            f,
            "refused     {} forgeries, {} old heads, {} ways back",
            self.refused, self.superseded, self.rollbacks_refused
        )?;
        writeln!(
            f,
            "trouble     {} evicted, {} catalogs lost, {} bad clocks, {} looks in doubt",
            self.evicted, self.crashes, self.bad_clocks, self.doubts
        )?;
        writeln!(
            f,
            "verdicts    {} true, {} of them accept, at {} sites ({} apart)",
            self.verdicts, self.accepted, self.judges, self.apart
        )?;
        write!(f, "trace       {}", self.trace)
    }
}

/// What did not hold.
#[derive(Debug, thiserror::Error)]
pub enum SiegeError {
    /// A verdict is not what policy says of the truth.
    #[error(
        "after {seconds} s of virtual time, site {site} says '{said}' of release {release}, and by all that was truly signed \
         it is '{truth}'"
    )]
    WrongVerdict {
        /// The site.
        site: usize,
        /// The release.
        release: RecordId,
        /// What it says, and which requirements it takes to be met.
        said: String,
        /// What its policy says of the truth.
        truth: String,
        /// Virtual time waited.
        seconds: u64,
    },
    /// A channel led back.
    #[error("site {site} takes head {now} of a channel for its publisher's last word, and was at {before} already")]
    RolledBack {
        /// The site.
        site: usize,
        /// Where it was, as EPOCH.SEQUENCE.
        before: String,
        /// Where it is.
        now: String,
    },
    /// A site believes a time that it has no reason to believe.
    #[error("site {site} judges by the time {believed}, and it is {right}")]
    Misled {
        /// The site.
        site: usize,
        /// What it goes by.
        believed: UnixSeconds,
        /// What it is there.
        right: UnixSeconds,
    },
    /// A site holds what nobody signed.
    #[error("site {site} holds record {record}, which not all of its signers signed")]
    Forged {
        /// The site.
        site: usize,
        /// The record.
        record: RecordId,
    },
    /// The simulator itself is wrong.
    #[error("the simulator could not make or exchange a record: {0}")]
    Broken(String),
}

/// Simulates, until the verdicts of all sites are true.
///
/// # Errors
/// The first thing that does not hold.
pub fn run(siege: &Siege) -> Result<SiegeSummary, SiegeError> {
    world::World::new(siege)?.run()
}
