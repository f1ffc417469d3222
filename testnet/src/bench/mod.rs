//! Benchmarks: figures of real nodes on this machine, printed as a table or as JSON.
//!
//! Nothing here asserts a speed: a figure depends on the machine, and belongs beside another one from the same run.

mod catch_up;
mod idle;
mod single;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::site::{Rialto, SiteError};

/// Why a benchmark ended early.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A site did not do what it should.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// Files, or the terminal.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Records could not be made.
    #[error("cannot prepare records: {0}")]
    Records(String),
    /// What was measured is not what should have been.
    #[error("expected {expected}, but found {found}")]
    Claim {
        /// What should hold.
        expected: String,
        /// What does.
        found: String,
    },
}

type Result<T> = std::result::Result<T, BenchError>;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// 1 GiB of random bytes from one node to another over loopback, verified and stored, beside a plain copy of the file.
    Single,
    /// A site that missed 1,000 records, from its start until it has them all.
    CatchUp,
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
}

/// One row of the table: a figure that was measured several times.
#[derive(Debug, Clone)]
struct Row {
    name: &'static str,
    what: String,
    unit: &'static str,
    measured: Vec<f64>,
}

impl Row {
    fn median(&self) -> f64 {
        let mut sorted = self.measured.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn spread(&self) -> (f64, f64) {
        let lowest = self.measured.iter().copied().fold(f64::INFINITY, f64::min);
        (lowest, self.measured.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    fn json(&self) -> Value {
        let (lowest, highest) = self.spread();
        json!({
            "name": self.name, "what": self.what, "unit": self.unit,
            "median": self.median(), "lowest": lowest, "highest": highest, "runs": self.measured.len(),
        })
    }
}

/// Measures, and prints what was measured.
///
/// # Errors
/// The first thing that did not go as it should.
pub fn run(arguments: &BenchArguments) -> Result<()> {
    let rialto = match &arguments.bin {
        Some(binary) => Rialto::at(binary)?,
        None => Rialto::find()?,
    };
    let names = if arguments.names.is_empty() { Name::value_variants() } else { &arguments.names };
    let mut rows = Vec::new();
    for name in names {
        // In memory where there is such a file system: a disk's moods are not what is measured.
        let base = tempfile::Builder::new().prefix("rialto-bench-").tempdir_in(fast_directory())?;
        rows.extend(match name {
            Name::Single => single::measure(&rialto, base.path(), arguments.runs)?,
            Name::CatchUp => catch_up::measure(&rialto, base.path(), arguments.runs)?,
            Name::Idle => idle::measure(&rialto, base.path(), arguments.runs)?,
        });
    }
    let mut out = io::stdout().lock();
    if arguments.json {
        let rows: Vec<Value> = rows.iter().map(Row::json).collect();
        return Ok(writeln!(out, "{}", Value::from(rows))?);
    }
    writeln!(out, "{:<10} {:<58} {:>10} {:>22}", "name", "what", "median", "spread")?;
    for row in rows {
        let (lowest, highest) = row.spread();
        let (median, spread) = (format!("{:.2} {}", row.median(), row.unit), format!("{lowest:.2}–{highest:.2}"));
        writeln!(out, "{:<10} {:<58} {:>10} {:>22}", row.name, row.what, median, spread)?;
    }
    Ok(())
}

fn fast_directory() -> PathBuf {
    let in_memory = Path::new("/dev/shm");
    if in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() }
}

/// Memory that a process takes now, and at most so far, in MiB: `VmRSS` and `VmHWM` of `/proc/<pid>/status`.
fn memory_mib(pid: u32) -> Result<(f64, f64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Option<f64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
    };
    match (field("VmRSS:"), field("VmHWM:")) {
        (Some(now), Some(peak)) => Ok((now, peak)),
        _ => Err(BenchError::Claim { expected: "VmRSS and VmHWM".into(), found: status }),
    }
}
