//! One holder and eight fetchers, each behind a link of 100 Mbit/s.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::libtorrent::{Libtorrent, Torrent};
use super::network::Network;
use super::table::{Row, Target};
use super::{Bench, BenchError, COMMAND_WITHIN, FEDERATION, Result, add, inputs, insist_on};
use crate::site::{Plan, Site};
use crate::wait::{self, eventually};

const BYTES: u64 = 128 << 20;
const FETCHERS: usize = 8;
const MEGABITS: u32 = 100;
const PORT: u16 = 4001;

/// What one round of a swarm came to.
struct Round {
    /// Until the slowest fetcher had everything, in seconds.
    slowest: f64,
    /// What the holder uploaded, in copies of the image.
    copies: f64,
}

pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let libtorrent = bench.libtorrent();
    let file = bench.base.join("random.raw");
    inputs::write_random(&file, BYTES, 10)?;
    let torrent = libtorrent.as_ref().map(|libtorrent| libtorrent.offer(&file)).transpose()?;
    let ideal = BYTES as f64 * 8.0 / (f64::from(MEGABITS) * 1e6);

    let slowest = || Row::new("swarm", format!("slowest of {FETCHERS} fetchers, {MEGABITS} Mbit/s links"), "s");
    let copies = || Row::new("swarm", "copies that the holder uploads", "copies");
    let mut beside_ideal = slowest().beside("size over rate");
    beside_ideal = beside_ideal.must(Target::RatioAtMost(1.4)).reach(Target::RatioAtMost(1.15));
    let mut uploaded = copies().must(Target::AtMost(1.4)).reach(Target::AtMost(1.1));
    let mut beside_libtorrent = slowest();
    if let Some(libtorrent) = &libtorrent {
        uploaded = uploaded.beside(libtorrent.name());
        beside_libtorrent = beside_libtorrent.beside(libtorrent.name());
    }
    let network = Network::new(1 + FETCHERS, MEGABITS)?;
    for run in 0..bench.runs {
        let ours = ours(bench, &network, &file, run)?;
        let other = match (&libtorrent, &torrent) {
            (Some(libtorrent), Some(torrent)) => theirs(libtorrent, torrent, &network, &bench.base)?,
            _ => Round { slowest: f64::NAN, copies: f64::NAN },
        };
        beside_ideal.push(ours.slowest, ideal);
        beside_libtorrent.push(ours.slowest, other.slowest);
        uploaded.push(ours.copies, other.copies);
    }
    Ok(vec![beside_ideal, beside_libtorrent, uploaded])
}

fn ours(bench: &Bench, network: &Network, file: &Path, run: u32) -> Result<Round> {
    let base = bench.base.join(format!("run{run}"));
    let mut sites: Vec<Site> = Vec::new();
    for number in 0..=FETCHERS {
        let mut plan = Plan::new(&format!("site{number}"), FEDERATION);
        plan.serve = Some("all".into());
        plan.listen = format!("/ip4/{}/tcp/{PORT}", Network::address(number));
        plan.namespace = Some(network.machine(number).to_owned());
        for earlier in &sites {
            plan = plan.knows(earlier)?;
        }
        let mut site = Site::init(&bench.rialto, &base, &plan)?;
        site.start()?;
        sites.push(site);
    }
    for (number, site) in sites.iter().enumerate() {
        site.meets(&sites[..number].iter().collect::<Vec<_>>())?;
    }
    let (image, _) = add(&sites[0], file)?;
    let holder = sites[0].peer_id()?;

    let started = Instant::now();
    let fetches = Fetches(
        sites[1..]
            .iter()
            .map(|site| {
                let mut command = site.command(&["fetch", &image, "--json"]);
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
            })
            .collect::<std::io::Result<_>>()?,
    );
    let said = fetches.end()?;
    let slowest = started.elapsed().as_secs_f64();
    let uploaded: u64 = said.iter().filter_map(|fetched| fetched["peers"][&holder].as_u64()).sum();
    if run == 0 {
        insist_on(&sites[1], &image, file, &base)?;
    }
    drop(sites);
    fs::remove_dir_all(&base)?;
    Ok(Round { slowest, copies: uploaded as f64 / BYTES as f64 })
}

/// Commands that run side by side. Dropping them ends them.
struct Fetches(Vec<Child>);

impl Fetches {
    /// What each of them said, in the order they were started.
    fn end(mut self) -> Result<Vec<Value>> {
        eventually(COMMAND_WITHIN, "the end of every fetch", || {
            let running = self.0.iter_mut().map(|fetch| fetch.try_wait()).filter(|ended| !matches!(ended, Ok(Some(_))));
            let running = running.count();
            if running == 0 { Ok(()) } else { Err(format!("{running} go on")) }
        })?;
        let said = self.0.iter_mut().map(|fetch| {
            let stdout = fetch.stdout.take().ok_or("it is mute".to_owned());
            let value = stdout.and_then(|out| serde_json::from_reader(out).map_err(|error| error.to_string()));
            value.map_err(|error| BenchError::Claim { expected: "a fetch that succeeds".into(), found: error })
        });
        said.collect()
    }
}

impl Drop for Fetches {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(wait::end);
    }
}

/// The same with libtorrent; every leech knows every other peer, as every node does.
fn theirs(libtorrent: &Libtorrent, torrent: &Torrent, network: &Network, base: &Path) -> Result<Round> {
    let at = |number: usize| format!("{}:{PORT}", Network::address(number));
    let (seed, _) = libtorrent.seed(torrent, &at(0), Some(network.machine(0)))?;
    let directory = base.join("leeches");
    let mut leeches = Vec::new();
    for number in 1..=FETCHERS {
        let others: Vec<String> = (0..number).map(at).collect();
        let machine = Some(network.machine(number));
        let own = directory.join(number.to_string());
        leeches.push(libtorrent.leech(torrent, &own, &at(number), &others, machine)?);
    }
    let started = Instant::now();
    leeches.iter_mut().try_for_each(|leech| leech.go())?;
    leeches.iter_mut().try_for_each(|leech| leech.leeched().map(drop))?;
    let slowest = started.elapsed().as_secs_f64();
    drop(leeches);
    let copies = seed.uploaded_bytes()? as f64 / BYTES as f64;
    fs::remove_dir_all(&directory)?;
    Ok(Round { slowest, copies })
}
