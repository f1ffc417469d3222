//! `rialto-testnet sim`: runs one scenario and prints what came of it.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::json;

use super::crowd::{self, Crowd, CrowdSummary};
use super::mesh::{self, Mesh, MeshSummary};
use super::siege::{self, Siege, SiegeSummary};
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
    /// Federations under siege instead, of so many seeds from `--seed` on: one site in five forges, replays, withholds, floods,
    /// contradicts itself or divides
    #[arg(long, conflicts_with = "swarm", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub seeds: Option<u64>,
    /// How fast gossip is instead: records through a mesh of these sites, on links of 50 ms
    #[arg(long, conflicts_with_all = ["swarm", "seeds"])]
    pub gossip: bool,
    /// Sites of the mesh that pass nothing on, of a hundred
    #[arg(long, default_value_t = 0, requires = "gossip", value_parser = clap::value_parser!(u32).range(0..=90))]
    pub mute: u32,
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
    if let Some(seeds) = arguments.seeds {
        return lay_siege(arguments, seeds);
    }
    if arguments.gossip {
        let mesh = Mesh { mute_percent: arguments.mute, ..Mesh::new(arguments.seed, arguments.sites.into()) };
        let summary = mesh::run(&mesh);
        let text = if arguments.json { mesh_json(&summary) } else { summary.to_string() };
        return writeln!(std::io::stdout(), "{text}").map_err(SimError::Output);
    }
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

/// Runs one siege after the other, on all processors, and says how each seed that fails is run again.
fn lay_siege(arguments: &SimArguments, seeds: u64) -> Result<(), SimError> {
    let started = Instant::now();
    let (sites, first) = (usize::from(arguments.sites), arguments.seed);
    let next = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(seeds as usize);
    let outcomes = std::thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= seeds || crate::wait::is_interrupted() {
                    return done;
                }
                let seed = first.wrapping_add(number);
                let began = Instant::now();
                let outcome = siege::run(&Siege::new(seed, sites));
                // Progress; nobody minds where nobody listens.
                let _ = match &outcome {
                    Ok(_) => {
                        writeln!(std::io::stderr(), "seed {seed}: all held, {:.1} s", began.elapsed().as_secs_f64())
                    }
                    Err(error) => writeln!(
                        std::io::stderr(),
                        "seed {seed}: {error}\n    again: rialto-testnet sim --sites {sites} --seed {seed} --seeds 1"
                    ),
                };
                done.push((seed, outcome));
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect::<Vec<_>>()
    });
    let failed: Vec<u64> = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).map(|(seed, _)| *seed).collect();
    let held: Vec<&SiegeSummary> = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()).collect();
    let sum = |of: fn(&SiegeSummary) -> u64| held.iter().map(|summary| of(summary)).sum::<u64>();
    let (run, seconds) = (outcomes.len(), started.elapsed().as_secs_f64());
    let text = match (arguments.json, held.as_slice()) {
        (true, _) => json!({
            "sites": sites,
            "hostile": held.first().map(|summary| summary.hostile),
            "seeds": run,
            "failed": failed,
            "verdicts": sum(|summary| summary.verdicts),
            "accepted": sum(|summary| summary.accepted),
            "refused": sum(|summary| summary.refused),
            "rollbacks_refused": sum(|summary| summary.rollbacks_refused),
            "doubts": sum(|summary| summary.doubts),
            "gossiped": sum(|summary| summary.gossiped),
            "seconds": seconds,
        })
        .to_string(),
        // Of one seed, everything.
        (false, [only]) if run == 1 => format!("{only}\nseconds     {seconds:.1}"),
        (false, _) => format!(
            "seeds       {run} of {sites} sites, {} failed\nverdicts    {} true, {} of them accept\nrefused     {} forgeries, \
             {} ways back; {} looks in doubt\nseconds     {seconds:.1}, {:.1} a seed",
            failed.len(),
            sum(|summary| summary.verdicts),
            sum(|summary| summary.accepted),
            sum(|summary| summary.refused),
            sum(|summary| summary.rollbacks_refused),
            sum(|summary| summary.doubts),
            seconds / run.max(1) as f64
        ),
    };
    writeln!(std::io::stdout(), "{text}").map_err(SimError::Output)?;
    match failed.is_empty() {
        true => Ok(()),
        false => Err(SimError::Besieged { failed: failed.len(), run }),
    }
}

fn mesh_json(summary: &MeshSummary) -> String {
    json!({
        "sites": summary.sites,
        "arrivals": summary.arrivals,
        "lost": summary.lost,
        "median_seconds": summary.median_seconds,
        "p99_seconds": summary.p99_seconds,
        "slowest_seconds": summary.slowest_seconds,
        "copies": summary.copies,
    })
    .to_string()
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
