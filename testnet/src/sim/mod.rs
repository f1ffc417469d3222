//! Many simulated sites in virtual time, from one seed.
//!
//! The sites run the very code of `protocol` that nodes run: envelopes and their verification, and both sides of
//! catch-up. What is simulated is everything around it: clocks, links with latency and loss, partitions that heal,
//! gossip (as flooding, without gossipsub's meshes), and sites that lie. Chunk download will be driven the same way: as
//! one more kind of message over the same [links](world).
//!
//! What must hold, or [`run`] fails:
//!
//! 1. **Sites converge**: honest sites that name a signer in their policy, and are connected through such sites, end with
//!    the same records of that signer, co-signatures included, and with every one that was published among them.
//! 2. **Nothing unverified is stored**: what a site holds was made by the signers that it names as its signers.
//! 3. **Same seed, same trace**: [`Summary::trace`] covers every event and what came of it.

pub mod command;
mod records;
mod site;
mod world;

use std::fmt;

use rialto_protocol::ids::{Hash, PublicKey};

/// What to simulate. Everything random follows from `seed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// From which everything random follows.
    pub seed: u64,
    /// Number of sites.
    pub sites: usize,
    /// Every so many sites, one corrupts what it sends; 0 for none.
    pub one_liar_in: usize,
    /// Records by signers that policies name.
    pub records: usize,
    /// Records by a stranger whom no policy names, who floods the federation.
    pub flood: usize,
    /// Messages lost, of a thousand gossiped. On streams they come late instead.
    pub loss_per_mille: u32,
    /// Times that the federation falls into two parts for a while.
    pub partitions: usize,
}

impl Scenario {
    /// 50 sites, one liar in ten, 300 records and a flood of as many, 2 % loss, two partitions.
    pub fn new(seed: u64) -> Self {
        Self { seed, sites: 50, one_liar_in: 10, records: 300, flood: 300, loss_per_mille: 20, partitions: 2 }
    }
}

/// What came of a scenario in which everything held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Sites, liars included.
    pub sites: usize,
    /// Sites that corrupt what they send.
    pub liars: usize,
    /// Events simulated.
    pub events: u64,
    /// Virtual time until all had converged, in microseconds.
    pub virtual_micros: u64,
    /// Records published, the flood included.
    pub published: usize,
    /// Gossip messages sent.
    pub gossiped: u64,
    /// Of those, lost on the way.
    pub lost: u64,
    /// Catch-up sessions begun.
    pub sessions: u64,
    /// Of those, cut off by a partition or a lie.
    pub sessions_cut: u64,
    /// Records that came by catch-up and were new.
    pub caught_up: u64,
    /// Corrupted records and messages refused.
    pub refused: u64,
    /// Records that a site evicted because it names none of their signers.
    pub evicted: u64,
    /// The hash of every event and its outcome, in order.
    pub trace: Hash,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sites       {} ({} of them liars)", self.sites, self.liars)?;
        writeln!(f, "events      {} in {:.1} s of virtual time", self.events, self.virtual_micros as f64 / 1e6)?;
        writeln!(f, "published   {} records", self.published)?;
        writeln!(f, "gossip      {} messages, {} lost", self.gossiped, self.lost)?;
        writeln!(
            f,
            "catch-up    {} sessions, {} cut off, {} records",
            self.sessions, self.sessions_cut, self.caught_up
        )?;
        writeln!(f, "refused     {} corrupted messages", self.refused)?;
        writeln!(f, "evicted     {} records of signers that nobody there names", self.evicted)?;
        write!(f, "trace       {}", self.trace)
    }
}

/// What did not hold.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// Sites that are connected did not come to hold the same.
    #[error(
        "after {seconds} s of virtual time, site {site} holds {held} of the {published} records of signer {signer}"
    )]
    NotConverged {
        /// The site.
        site: usize,
        /// The signer that it names.
        signer: PublicKey,
        /// Records of that signer that it holds in full.
        held: usize,
        /// Records of that signer that there are.
        published: usize,
        /// Virtual time waited.
        seconds: u64,
    },
    /// A site holds what nobody made.
    #[error("site {site} holds a record that its signers did not make")]
    Unverified {
        /// The site.
        site: usize,
    },
    /// Standard output is closed.
    #[error("cannot print the summary: {0}")]
    Output(std::io::Error),
    /// The simulator itself is wrong.
    #[error("the simulator could not make or exchange a record: {0}")]
    Broken(String),
}

/// Simulates, until all sites that should have converged have.
///
/// # Errors
/// The first thing that does not hold.
pub fn run(scenario: &Scenario) -> Result<Summary, SimError> {
    world::World::new(scenario)?.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(seed: u64) -> Scenario {
        Scenario { sites: 20, records: 60, flood: 120, ..Scenario::new(seed) }
    }

    #[test]
    fn sites_converge_whatever_the_seed() {
        for seed in 0..4 {
            let summary = run(&small(seed)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            // The scenario is no walk in the park: each of these happened.
            assert!(summary.refused > 0, "seed {seed}: liars lied: {summary}");
            assert!(summary.lost > 0 && summary.caught_up > 0, "seed {seed}: catch-up was needed: {summary}");
            assert!(summary.evicted > 0, "seed {seed}: the flood was evicted: {summary}");
        }
    }

    #[test]
    fn same_seed_same_trace() {
        let once = run(&small(7)).unwrap();
        assert_eq!(once, run(&small(7)).unwrap());
        assert_ne!(once.trace, run(&small(8)).unwrap().trace);
    }

    #[test]
    fn three_sites_are_enough() {
        let scenario = Scenario { sites: 3, records: 5, flood: 0, one_liar_in: 0, ..Scenario::new(1) };
        assert_eq!(run(&scenario).unwrap().liars, 0);
    }

    #[test]
    fn catch_up_alone_suffices() {
        // Every gossiped message is lost.
        let scenario = Scenario { loss_per_mille: 1_000, one_liar_in: 0, partitions: 0, ..small(3) };
        let summary = run(&scenario).unwrap();
        assert_eq!(summary.gossiped, summary.lost);
    }
}
