//! `rialto-testnet sim`: runs one scenario and prints what came of it.

use std::io::Write as _;

use serde_json::json;

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
    /// Prints one JSON value.
    #[arg(long)]
    pub json: bool,
}

/// Runs the scenario and prints its summary.
///
/// # Errors
/// Something that must hold among sites did not; or standard output is closed.
pub fn run(arguments: &SimArguments) -> Result<(), SimError> {
    let scenario = Scenario {
        sites: arguments.sites.into(),
        records: arguments.records as usize,
        ..Scenario::new(arguments.seed)
    };
    let summary = simulate(&scenario)?;
    let text = if arguments.json { as_json(&scenario, &summary) } else { summary.to_string() };
    writeln!(std::io::stdout(), "{text}").map_err(SimError::Output)
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
