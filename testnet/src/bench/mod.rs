//! Benchmarks: figures of real nodes on this machine beside those of the programs that a site would otherwise use,
//! printed as a table or as JSON.
//!
//! Nothing here asserts a speed: a figure depends on the machine. What holds is the ratio of two figures whose runs took
//! turns in the same minute; the table gives its median and spread, and marks what it must reach (✓ or ✗).

pub mod catalog;
mod catch_up;
mod gossip;
mod hostile;
mod idle;
mod image;
pub mod index;
mod ingest;
mod inputs;
mod libtorrent;
mod memory;
mod network;
mod peers;
pub mod raw;
mod resume;
mod single;
mod swarm;
mod table;
mod versions;

use std::cell::{OnceCell, RefCell};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::http;
use crate::site::{Plan, Rialto, Site, SiteError, text};
use crate::wait::{self, WaitError};
use inputs::Pair;
use libtorrent::{Libtorrent, Torrent};
use table::Row;

/// The longest single command: adding or fetching 8 GiB on a busy machine.
const COMMAND_WITHIN: Duration = Duration::from_secs(600);
/// The federation of every benchmark.
const FEDERATION: &str = "bench";
const MIB: f64 = 1_048_576.0;

/// Why a benchmark ended early.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A site did not do what it should.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// Files, or the terminal.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something did not happen in time.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// Records could not be made.
    #[error("cannot prepare records: {0}")]
    Records(String),
    /// A program or a permission that this row needs is missing here.
    #[error("{0}")]
    Missing(String),
    /// A program that we are compared with did not do what it should.
    #[error("{0}")]
    Peer(String),
    /// What was measured is not what should have been.
    #[error("expected {expected}, but found {found}")]
    Claim {
        /// What should hold.
        expected: String,
        /// What does.
        found: String,
    },
    /// Somebody asked this program to end.
    #[error("interrupted")]
    Interrupted,
    /// Some rows could not be measured; the table's notes say why.
    #[error("{0} could not be measured; see the notes under the table")]
    Unmeasured(String),
}

type Result<T> = std::result::Result<T, BenchError>;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// 1 GiB of random bytes from one node to another over loopback, verified and stored, beside libtorrent and a bare libp2p stream.
    Single,
    /// A real Debian image into an empty store, from one holder, beside libtorrent and zstd.
    Image,
    /// Its real security update, with the old version in the store, beside zstd, xdelta3 and what apt would download.
    Update,
    /// Adding the real image to an empty store, beside casync and zstd.
    Ingest,
    /// One holder and eight fetchers on links of 100 Mbit/s, beside libtorrent (needs root).
    Swarm,
    /// Ten successive versions of the real image in one store, beside the size of their updates.
    Versions,
    /// What fetching an image of 8 GiB takes of both sides' memory.
    Memory,
    /// A store of 3.3 million chunks: how it opens, what it holds of memory, how fast it finds, and its index built anew.
    Index,
    /// A catalog of a million records: taking them in, opening, searching, memory, and finding what is missing.
    Catalog,
    /// What is received twice when the fetcher is killed at 30, 60 and 90 %.
    Resume,
    /// Nine of ten holders lie, stall or trickle, beside the honest one alone.
    Hostile,
    /// A site that missed 1,000 records, from its start until it has them all.
    CatchUp,
    /// One record to 30 nodes.
    Gossip,
    /// Memory of a node that has nothing to do.
    Idle,
}

/// `rialto-testnet bench [NAME…]`.
#[derive(Debug, Args)]
pub struct BenchArguments {
    /// What to measure [default: everything]
    names: Vec<Name>,
    /// One JSON value instead of a table
    #[arg(long)]
    json: bool,
    /// How often each is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// The rialto binary [default: the one beside this program]
    #[arg(long, value_name = "FILE", env = "RIALTO_BIN")]
    bin: Option<PathBuf>,
    /// Where peers and images are kept between runs; about 2 GB [default: target/bench]
    #[arg(long, value_name = "DIRECTORY")]
    cache: Option<PathBuf>,
}

/// What every benchmark works with.
struct Bench {
    rialto: Rialto,
    /// A directory of its own for each benchmark, in memory where there is such a file system: a disk's moods are not
    /// what is measured.
    base: PathBuf,
    /// What is kept between runs.
    cache: PathBuf,
    runs: u32,
    pair: OnceCell<Pair>,
    notes: RefCell<Vec<String>>,
    peers: RefCell<Vec<String>>,
}

/// Measures, and prints what was measured.
///
/// # Errors
/// The directories cannot be made, or some row could not be measured; the others are printed all the same.
pub fn run(arguments: &BenchArguments) -> Result<()> {
    let rialto = match &arguments.bin {
        Some(binary) => Rialto::at(binary)?,
        None => Rialto::find()?,
    };
    let names = if arguments.names.is_empty() { Name::value_variants() } else { &arguments.names };
    let cache = arguments.cache.clone();
    let cache = cache.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench"));
    fs::create_dir_all(&cache)?;
    let mut bench = Bench {
        rialto,
        base: PathBuf::new(),
        cache: fs::canonicalize(cache)?,
        runs: arguments.runs,
        pair: OnceCell::new(),
        notes: RefCell::default(),
        peers: RefCell::default(),
    };
    let (mut rows, mut unmeasured) = (Vec::new(), Vec::new());
    for name in names {
        let name_shown = name.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let directory = tempfile::Builder::new().prefix("rialto-bench-").tempdir_in(fast_directory())?;
        bench.base = fs::canonicalize(directory.path())?;
        let started = Instant::now();
        writeln!(io::stderr(), "{name_shown}…")?;
        match bench.measure(*name) {
            Ok(measured) => rows.extend(measured),
            Err(_) if wait::is_interrupted() => return Err(BenchError::Interrupted),
            Err(error) => {
                bench.note(format!("{name_shown} was not measured: {error}"));
                // What is missing here is no failure of what is measured.
                if !matches!(error, BenchError::Missing(_)) {
                    unmeasured.push(name_shown.clone());
                }
            }
        }
        writeln!(io::stderr(), "{name_shown} took {:.0} s", started.elapsed().as_secs_f64())?;
    }
    bench.print(&rows, arguments.json)?;
    if unmeasured.is_empty() { Ok(()) } else { Err(BenchError::Unmeasured(unmeasured.join(", "))) }
}

impl Bench {
    fn measure(&self, name: Name) -> Result<Vec<Row>> {
        match name {
            Name::Single => single::measure(self),
            Name::Image => image::measure_image(self),
            Name::Update => image::measure_update(self),
            Name::Ingest => ingest::measure(self),
            Name::Swarm => swarm::measure(self),
            Name::Versions => versions::measure(self),
            Name::Memory => memory::measure(self),
            Name::Index => index::measure(self),
            Name::Catalog => catalog::measure(self),
            Name::Resume => resume::measure(self),
            Name::Hostile => hostile::measure(self),
            Name::CatchUp => catch_up::measure(self),
            Name::Gossip => gossip::measure(self),
            Name::Idle => idle::measure(self),
        }
    }

    /// Says something under the table, once.
    fn note(&self, note: String) {
        let mut notes = self.notes.borrow_mut();
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// Names a program that we were compared with, and its version.
    fn uses(&self, peer: String) {
        let mut peers = self.peers.borrow_mut();
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }

    /// libtorrent, or `None` and a note where it cannot be had.
    fn libtorrent(&self) -> Option<Libtorrent> {
        let installed = Libtorrent::installed(&self.cache);
        match &installed {
            Ok(libtorrent) => self.uses(libtorrent.name()),
            Err(error) => self.note(error.to_string()),
        }
        installed.ok()
    }

    /// What libtorrent takes for the same, in MB/s; not a number where it is not installed.
    fn one_to_one(&self, offer: Option<(&Libtorrent, &Torrent)>) -> Result<f64> {
        offer.map_or(Ok(f64::NAN), |(libtorrent, torrent)| libtorrent.one_to_one(torrent, &self.base))
    }

    /// Whether a program is there, if need be after installing it; otherwise a note says why not.
    fn has(&self, program: &str, package: &str) -> bool {
        match peers::needs(program, package) {
            Ok(()) => {
                self.uses(peers::version(program, if program == "xdelta3" { "-V" } else { "--version" }));
                true
            }
            Err(error) => {
                self.note(error.to_string());
                false
            }
        }
    }

    /// The real image and its update.
    fn pair(&self) -> Result<&Pair> {
        if self.pair.get().is_none() {
            // Nobody else sets it.
            let _ = self.pair.set(Pair::built(&self.cache)?);
        }
        self.pair.get().ok_or_else(|| BenchError::Missing("there is no pair of images".into()))
    }

    /// A site that offers everything, and runs.
    fn holder(&self, name: &str) -> Result<Site> {
        let plan = Plan { serve: Some("all".into()), ..Plan::new(name, FEDERATION) };
        let mut holder = Site::init(&self.rialto, &self.base, &plan)?;
        holder.start()?;
        Ok(holder)
    }

    /// A site with an empty store, connected to a holder.
    fn fetcher(&self, name: &str, holder: &Site) -> Result<Site> {
        let mut fetcher = Site::init(&self.rialto, &self.base, &Plan::new(name, FEDERATION).knows(holder)?)?;
        fetcher.start()?;
        fetcher.meets(&[holder])?;
        Ok(fetcher)
    }

    /// Ends a site and removes what it has stored.
    fn remove(&self, mut site: Site) -> Result<()> {
        site.end();
        Ok(fs::remove_dir_all(site.directory())?)
    }

    fn print(&self, rows: &[Row], as_json: bool) -> Result<()> {
        let (notes, peers) = (self.notes.borrow(), self.peers.borrow());
        let mut out = io::stdout().lock();
        if as_json {
            let rows: Vec<Value> = rows.iter().map(Row::json).collect();
            let value = json!({ "machine": machine(), "peers": *peers, "rows": rows, "notes": *notes });
            return Ok(writeln!(out, "{value}")?);
        }
        writeln!(out, "{}", machine())?;
        for peer in peers.iter() {
            writeln!(out, "beside: {peer}")?;
        }
        writeln!(out, "median of {} runs (lowest–highest); ratio: ours over the other, run by run\n", self.runs)?;
        write!(out, "{}", table::text(rows))?;
        for note in notes.iter() {
            writeln!(out, "note: {note}")?;
        }
        Ok(())
    }
}

/// Adds a file, and returns the image's id and what the command said.
fn add(site: &Site, file: &Path) -> Result<(String, Value)> {
    let added = site.json_within(COMMAND_WITHIN, &["image", "add", &file.display().to_string()])?;
    Ok((text(&added, "image")?, added))
}

/// Fetches an image, and returns what the command said.
fn fetch(site: &Site, image: &str) -> Result<Value> {
    Ok(site.json_within(COMMAND_WITHIN, &["fetch", image])?)
}

/// A number that a command said.
fn figure(value: &Value, field: &str) -> Result<f64> {
    let found = value[field].as_f64();
    found.ok_or_else(|| BenchError::Claim { expected: format!("a number '{field}'"), found: value.to_string() })
}

/// Exports a fetched image, and insists that it is the file that was added.
fn insist_on(site: &Site, image: &str, file: &Path, base: &Path) -> Result<()> {
    let out = base.join("exported.raw");
    site.json_within(COMMAND_WITHIN, &["image", "get", image, "-o", &out.display().to_string()])?;
    let is_alike = inputs::are_alike(file, &out)?;
    fs::remove_file(&out)?;
    if is_alike {
        return Ok(());
    }
    Err(BenchError::Claim { expected: format!("the bytes of {}", file.display()), found: format!("others in {image}") })
}

/// Bytes of chunks and pages that a node has sent so far.
fn uploaded_bytes(site: &Site) -> Result<f64> {
    let answer = http::request(site.web()?, "GET", "/metrics", &[], "")?;
    let line = answer.body.lines().find_map(|line| line.strip_prefix("rialto_uploaded_bytes_total "));
    let bytes = line.and_then(|value| value.trim().parse().ok());
    bytes.ok_or_else(|| BenchError::Claim { expected: "rialto_uploaded_bytes_total".into(), found: answer.body })
}

/// The most memory that a site's node has taken so far, in MB.
fn peak_megabytes(site: &Site) -> Result<f64> {
    let peak = site.node_pid().map(memory_mib).transpose()?.map(|(_, peak)| peak * MIB / 1e6);
    peak.ok_or_else(|| BenchError::Claim { expected: "a running node".into(), found: "none".into() })
}

fn fast_directory() -> PathBuf {
    let in_memory = Path::new("/dev/shm");
    if in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() }
}

/// What this runs on, in one line.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let line = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let memory = line(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0) / MIB;
    format!("{cores} cores ({}), {memory:.0} GiB, Linux {}", line(&read("/proc/cpuinfo"), "model name"), kernel.trim())
}

/// Memory that a process takes now, and at most so far, in MiB: `VmRSS` and `VmHWM` of `/proc/<pid>/status`.
fn memory_mib(pid: u32) -> Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Option<f64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
    };
    match (field("VmRSS:"), field("VmHWM:")) {
        (Some(now), Some(peak)) => Ok((now, peak)),
        _ => Err(BenchError::Claim { expected: "VmRSS and VmHWM".into(), found: status }),
    }
}
