//! `rialto-testnet sim`: runs one scenario and prints what came of it.

use std::io::Write as _;

use serde_json::json;

use super::crowd::{self, Crowd, CrowdSummary};
use super::{Scenario, SimError, Summary, run as simulate};

/// What to simulate.
#[derive(Debug, Clone, clap::Args)]
pub struct SimArguments {
    /// Number of sites.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(3..=1_000))]
    pub sites: u16,
    /// The seed from which everything random follows.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Records that signers named in policies publish.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub records: u32,
    /// Simulates a crowd that fetches one image instead: fetchers on the Internet, and one holder
    #[arg(long)]
    pub swarm: bool,
    /// Fetchers of the crowd
    #[arg(long, default_value_t = 200, requires = "swarm", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub peers: u32,
    /// Length of its image, in MiB
    #[arg(long, default_value_t = 16, requires = "swarm", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub mib: u32,
    /// All of them on one LAN of 100 Mbit/s, where each knows the others
    #[arg(long, requires = "swarm")]
    pub lan: bool,
    /// Prints one JSON value.
    #[arg(long)]
    pub json: bool,
}

/// Runs the scenario and prints its summary.
///
/// # Errors
/// Something that must hold among sites did not; or standard output is closed.
pub fn run(arguments: &SimArguments) -> Result<(), SimError> {
    if arguments.swarm {
        let bytes = u64::from(arguments.mib) << 20;
        let fetchers = arguments.peers as usize;
        let crowd = match arguments.lan {
            true => Crowd::on_a_lan(arguments.seed, fetchers, bytes),
            false => Crowd::on_the_internet(arguments.seed, fetchers, bytes),
        };
        let summary = crowd::run(&crowd)?;
        let text = if arguments.json { crowd_json(&summary) } else { summary.to_string() };
        return writeln!(std::io::stdout(), "{text}").map_err(SimError::Output);
    }
    let scenario = Scenario {
        sites: arguments.sites.into(),
        records: arguments.records as usize,
        ..Scenario::new(arguments.seed)
    };
    let summary = simulate(&scenario)?;
    let text = if arguments.json { as_json(&scenario, &summary) } else { summary.to_string() };
    writeln!(std::io::stdout(), "{text}").map_err(SimError::Output)
}

fn crowd_json(summary: &CrowdSummary) -> String {
    json!({
        "fetchers": summary.fetchers,
        "bytes": summary.image_bytes,
        "slowest_seconds": summary.slowest_seconds,
        "median_seconds": summary.median_seconds,
        "ideal_seconds": summary.ideal_seconds,
        "seed_copies": summary.seed_copies,
        "waste": summary.waste_per_mille as f64 / 1000.0,
        "lies": summary.lies,
        "stalled": summary.stalled,
        "events": summary.events,
    })
    .to_string()
}

fn as_json(scenario: &Scenario, summary: &Summary) -> String {
    json!({
        "seed": scenario.seed,
        "sites": scenario.sites,
        "liars": summary.liars,
        "events": summary.events,
        "virtual_seconds": summary.virtual_micros as f64 / 1e6,
        "published": summary.published,
        "gossiped": summary.gossiped,
        "lost": summary.lost,
        "sessions": summary.sessions,
        "sessions_cut": summary.sessions_cut,
        "caught_up": summary.caught_up,
        "refused": summary.refused,
        "evicted": summary.evicted,
        "stallers": summary.stallers,
        "superseded": summary.superseded,
        "contradictions": summary.contradictions,
        "verdicts": summary.verdicts,
        "accepted": summary.accepted,
        "fetched": summary.fetched,
        "streams": summary.streams,
        "streams_broken": summary.streams_broken,
        "stalled": summary.stalled,
        "chunks_refused": summary.chunks_refused,
        "wire_bytes": summary.wire_bytes,
        "duplicate_bytes": summary.duplicate_bytes,
        "seed_copies": summary.seed_percent as f64 / 100.0,
        "crowd_copies": summary.crowd_percent as f64 / 100.0,
        "trace": summary.trace.to_string(),
    })
    .to_string()
}
