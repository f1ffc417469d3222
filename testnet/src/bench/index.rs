//! A store with as many chunks as 100 GiB have: how long it takes to open, what it holds of memory, and how fast it finds.
//!
//! The chunks are short, so that it fits a memory file system; an index does not see how long they are. Each step runs in
//! a process of its own, so that memory is that of the step alone.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::Subcommand;
use rialto_node::store::{Options, Store, StoreError};
use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::image::manifest::{Entry, ManifestBuilder};
use serde_json::{Value, json};

use super::table::{Row, Target};
use super::{Bench, BenchError, MIB, Result, memory_mib};

/// As many as 100 GiB have at 32 KiB each.
const CHUNKS: u64 = 3_300_000;
/// Length of one here, in bytes.
const CHUNK_BYTES: usize = 64;
/// About 100 segments, as 100 GiB have.
const OPTIONS: Options = Options { free_space_floor_bytes: 0, quota_bytes: None, segment_bytes: 4 << 20 };
/// What the manifest that is looked up as a whole says of the length of its chunks.
const LISTED_BYTES: u32 = 32 << 10;
/// Look-ups of which each is timed.
const LOOK_UPS: u64 = 400_000;

/// What the benchmark `index` does in processes of its own.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Step {
    /// Fills a store
    Fill {
        /// Where
        folder: PathBuf,
        /// How many chunks
        #[arg(default_value_t = CHUNKS)]
        chunks: u64,
    },
    /// Opens it, and looks chunks up that are there and that are not
    Probe {
        /// Where
        folder: PathBuf,
        /// How many chunks
        #[arg(default_value_t = CHUNKS)]
        chunks: u64,
    },
    /// Opens it without its index
    Rebuild {
        /// Where
        folder: PathBuf,
    },
}

pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let folder = bench.base.join("store");
    let row = |what, unit| Row::new("index", what, unit);
    let must = |what, unit, most| row(what, unit).must(Target::AtMost(most));
    let mut rows = [
        ("seconds", must("a store of 3.3 million chunks opens", "s", 2.0)),
        ("idle", must("memory of the open store", "MB", 150.0)),
        ("used", row("memory after 800,000 look-ups", "MB")),
        ("present", must("look-up of a chunk that is held, p99", "µs", 50.0)),
        ("absent", must("look-up of a chunk that is not held, p99", "µs", 50.0)),
        ("missing", row("look-up of an image of 3.3 million chunks", "s")),
        ("rebuild", must("its index is built anew from the segments", "s", 60.0)),
        ("peak", row("peak memory of that", "MB")),
    ];
    step("fill", &folder)?;
    for _ in 0..bench.runs {
        let (probed, rebuilt) = (step("probe", &folder)?, step("rebuild", &folder)?);
        for (field, row) in &mut rows {
            let figure = probed[&**field].as_f64().or_else(|| rebuilt[&**field].as_f64());
            row.push(figure.unwrap_or(f64::NAN), f64::NAN);
        }
    }
    Ok(rows.map(|(_, row)| row).into())
}

fn step(name: &str, folder: &Path) -> Result<Value> {
    let this = std::env::current_exe()?;
    let output = Command::new(this).args(["index-step", name]).arg(folder).output()?;
    serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success()).ok_or_else(|| BenchError::Claim {
        expected: format!("figures of the step '{name}'"),
        found: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// One step, in this process.
///
/// # Errors
/// The store refuses, or what it says is wrong.
pub fn run(step: &Step) -> Result<Value> {
    match step {
        Step::Fill { folder, chunks } => fill(folder, *chunks),
        Step::Probe { folder, chunks } => probe(folder, *chunks),
        Step::Rebuild { folder } => rebuild(folder),
    }
}

fn fill(folder: &Path, chunks: u64) -> Result<Value> {
    let started = Instant::now();
    let store = open(folder)?;
    for number in 0..chunks {
        let content = content(number);
        told(store.put_encoded(Hash::of(&content), CHUNK_BYTES as u32, Encoding::Raw, &content))?;
    }
    let (image, pages) = manifest(chunks);
    told(store.begin_fetch(&image))?;
    for (hash, bytes) in pages {
        told(store.put_page(&hash, &bytes))?;
    }
    told(store.commit())?;
    drop(store);
    Ok(json!({"fill": started.elapsed().as_secs_f64()}))
}

fn probe(folder: &Path, chunks: u64) -> Result<Value> {
    let started = Instant::now();
    let store = open(folder)?;
    let seconds = started.elapsed().as_secs_f64();
    let idle = megabytes()?.0;
    // Once without looking at the clock: warm is what is asked for.
    look_up(&store, chunks, 0..chunks)?;
    let present = look_up(&store, chunks, 0..chunks)?;
    let absent = look_up(&store, chunks, chunks..2 * chunks)?;
    let used = megabytes()?.0;
    let (image, _) = manifest(chunks);
    told(store.manifest(&image))?;
    let started = Instant::now();
    let missing = told(store.missing_chunks(&image))?.len();
    let looked_up = started.elapsed().as_secs_f64();
    if missing > 0 {
        return Err(BenchError::Claim { expected: "every chunk".into(), found: format!("{missing} are missing") });
    }
    Ok(json!({
        "seconds": seconds, "idle": idle, "used": used, "missing": looked_up,
        "present": present.0, "absent": absent.0, "present_median": present.1, "absent_median": absent.1,
    }))
}

fn rebuild(folder: &Path) -> Result<Value> {
    std::fs::remove_dir_all(folder.join("index"))?;
    let started = Instant::now();
    let store = open(folder)?;
    let seconds = started.elapsed().as_secs_f64();
    let (_, peak) = megabytes()?;
    drop(store);
    Ok(json!({"rebuild": seconds, "peak": peak}))
}

/// Times look-ups of random chunks, and gives the 99th percentile and the median, in microseconds.
fn look_up(store: &Store, chunks: u64, numbers: std::ops::Range<u64>) -> Result<(f64, f64)> {
    let mut random = fastrand::Rng::with_seed(3);
    let expected = numbers.start < chunks;
    let mut took = Vec::with_capacity(LOOK_UPS as usize);
    for _ in 0..LOOK_UPS {
        let hash = Hash::of(&content(random.u64(numbers.clone())));
        let started = Instant::now();
        let is_held = black_box(told(store.has_chunk(black_box(&hash)))?);
        took.push(started.elapsed().as_nanos());
        if is_held != expected {
            return Err(BenchError::Claim { expected: format!("held: {expected}"), found: format!("held: {is_held}") });
        }
    }
    took.sort_unstable();
    let percentile =
        |percent: usize| took.get(took.len() * percent / 100).map_or(f64::NAN, |&nanos| nanos as f64 / 1e3);
    Ok((percentile(99), percentile(50)))
}

/// Memory that this process takes now, and at most so far.
fn megabytes() -> Result<(f64, f64)> {
    let (now, peak) = memory_mib(std::process::id())?;
    Ok((now * MIB / 1e6, peak * MIB / 1e6))
}

fn content(number: u64) -> [u8; CHUNK_BYTES] {
    let mut content = [0; CHUNK_BYTES];
    content[..8].copy_from_slice(&number.to_le_bytes());
    content
}

/// An image of all these chunks, and its pages.
fn manifest(chunks: u64) -> (ImageId, Vec<(Hash, Vec<u8>)>) {
    let mut builder = ManifestBuilder::new();
    let mut pages = Vec::new();
    for number in 0..chunks {
        // A list of chunks of one length is a manifest.
        let _ = builder.push(Entry::Chunk { hash: Hash::of(&content(number)), length: LISTED_BYTES });
        pages.extend(builder.take_pages());
    }
    match builder.finish() {
        Ok((image, _, rest)) => {
            pages.extend(rest);
            (image, pages.into_iter().map(|page| (page.hash, page.bytes)).collect())
        }
        Err(_) => (ImageId::of(&[]), Vec::new()),
    }
}

fn open(folder: &Path) -> Result<Store> {
    told(Store::open(folder, OPTIONS))
}

fn told<T>(result: std::result::Result<T, StoreError>) -> Result<T> {
    result.map_err(|error| BenchError::Claim { expected: "a store that works".into(), found: error.to_string() })
}
