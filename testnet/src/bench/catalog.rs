//! A catalog of a million records: how fast it takes them in, opens and searches, what it holds of memory, and what catching
//! up takes beyond the records that are missing.
//!
//! Each step runs in a process of its own, so that memory is that of the step alone.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::Subcommand;
use ed25519_dalek::{Signer as _, SigningKey};
use rialto_node::catalog::{Catalog, Query};
use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::{List, Text};
use rialto_protocol::ids::{Hash, ImageId, PublicKey, RecordId, Sha256, Signature};
use rialto_protocol::record::{
    Arch, Body, Boot, Disk, DiskFormat, Endorsement, EndorsementBody, PREDICATE_TESTED, Release,
};
use rialto_protocol::signed::{Draft, is_signature_of};
use rialto_protocol::sync::{Initiator, Message, Responder, SyncSet};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

use super::table::{Row, Target};
use super::{Bench, BenchError, FEDERATION, MIB, Result, memory_mib};

const RECORDS: u64 = 1_000_000;
/// Half of the records are releases, the other half endorsements of these, by so many signers.
const SIGNERS: u64 = 64;
/// Records that are inserted at once: what catch-up brings before it is stored.
const BATCH: u64 = 4_000;
/// In every so many batches, signatures are verified by themselves too.
const COMPARED: u64 = 10;
const NOW: UnixSeconds = 1_800_000_000;
/// Searches of which each is timed.
const SEARCHES: usize = 4_000;
/// Releases on a page, and of each facet.
const PAGE: (usize, usize) = (50, 20);
/// Records that one side lacks.
const MISSING: usize = 1_000;
const WORDS: [&str; 32] = [
    "batch", "worker", "notebook", "gateway", "mail", "relay", "storage", "cache", "compute", "login", "squid",
    "cvmfs", "condor", "slurm", "jupyter", "python", "root", "geant", "proxy", "monitor", "grafana", "postgres",
    "redis", "nginx", "build", "runner", "archive", "tape", "grid", "portal", "desktop", "lab",
];

/// What the benchmark `catalog` does in processes of its own.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Step {
    /// Signs records and takes them into a catalog
    Fill {
        /// Where
        folder: PathBuf,
        /// How many
        #[arg(default_value_t = RECORDS)]
        records: u64,
    },
    /// Opens it and searches it
    Probe {
        /// Where
        folder: PathBuf,
    },
    /// Reconciles it with another one that lacks some records
    Reconcile {
        /// Where
        folder: PathBuf,
    },
}

pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let folder = bench.base.join("records");
    let row = |what, unit| Row::new("catalog", what, unit);
    let must = |what, unit, most| row(what, unit).must(Target::AtMost(most));
    let mut rate = row("records verified and indexed, a core", "/s").beside("verify_strict alone");
    rate = rate.must(Target::RatioAtLeast(0.7));
    let filled = step_on_one_processor("fill", &folder)?;
    rate.push(number(&filled, "rate"), number(&filled, "raw"));
    let mut rows = [
        ("open", row("a catalog of 1,000,000 records opens", "s")),
        ("memory", must("memory of it, after all searches", "MB", 500.0)),
        ("search", must("search with facets, and a page of 50 verified records, p99", "ms", 10.0)),
        ("find", row("the search alone, p99", "ms")),
        ("named", row("it takes in another policy", "s")),
        ("newest_bytes", must("to find the newest 1,000 missing, beyond the envelopes", "kB", 50.0)),
        ("newest_trips", must("round trips for it", "", 6.0)),
        (
            "scattered_bytes",
            must("to find 1,000 that are missing anywhere", "kB", 1_600.0).reach(Target::AtMost(150.0)),
        ),
        ("scattered_trips", must("round trips for it", "", 24.0)),
    ];
    for _ in 0..bench.runs {
        let (probed, reconciled) = (step("probe", &folder)?, step("reconcile", &folder)?);
        for (field, row) in &mut rows {
            let figure = probed[&**field].as_f64().or_else(|| reconciled[&**field].as_f64());
            row.push(figure.unwrap_or(f64::NAN), f64::NAN);
        }
    }
    Ok([rate].into_iter().chain(rows.map(|(_, row)| row)).collect())
}

fn number(value: &Value, field: &str) -> f64 {
    value[field].as_f64().unwrap_or(f64::NAN)
}

/// Runs a step in a process of its own.
fn step(name: &str, folder: &Path) -> Result<Value> {
    let this = std::env::current_exe()?;
    let output = Command::new(this).args(["catalog-step", name]).arg(folder).output()?;
    serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success()).ok_or_else(|| BenchError::Claim {
        expected: format!("figures of the step '{name}'"),
        found: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a step on one processor: two that share a core are slower than one and another.
fn step_on_one_processor(name: &str, folder: &Path) -> Result<Value> {
    let allowed = sched_getaffinity(None).map_err(std::io::Error::from)?;
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap_or(0));
    sched_setaffinity(None, &one).map_err(std::io::Error::from)?;
    let found = step(name, folder);
    sched_setaffinity(None, &allowed).map_err(std::io::Error::from)?;
    found
}

/// One step, in this process.
///
/// # Errors
/// The catalog refuses, or what it says is wrong.
pub fn run(step: &Step) -> Result<Value> {
    match step {
        Step::Fill { folder, records } => fill(folder, *records),
        Step::Probe { folder } => probe(folder),
        Step::Reconcile { folder } => reconcile(folder),
    }
}

/// Rates are of processor time, of all threads: how many threads there are does not matter.
fn fill(folder: &Path, records: u64) -> Result<Value> {
    let catalog = open(folder)?;
    told(catalog.set_named((0..SIGNERS).map(|number| public(&signer(number)))))?;
    let message = [7; 700];
    let (mut ours, mut raw, mut compared) = (0.0, 0.0, 0);
    let mut last = RecordId::of(b"");
    for start in (0..records).step_by(BATCH as usize) {
        let batch: Vec<Vec<u8>> = (start..(start + BATCH).min(records))
            .map(|number| {
                let envelope = told(record(number, &mut last))?;
                Ok(envelope.encode())
            })
            .collect::<Result<_>>()?;
        let before = processor_seconds()?;
        told(catalog.insert_batch(&batch, Some("12D3KooWPeer"), NOW))?;
        ours += processor_seconds()? - before;
        if (start / BATCH).is_multiple_of(COMPARED) {
            let signed: Vec<(PublicKey, Signature)> = (0..BATCH)
                .map(|number| {
                    let key = signer(number % SIGNERS);
                    (public(&key), Signature(key.sign(&message).to_bytes()))
                })
                .collect();
            let before = processor_seconds()?;
            for (key, signature) in &signed {
                if !is_signature_of(black_box(key), black_box(&message), signature) {
                    return Err(claim("a signature that verifies", "none"));
                }
            }
            raw += processor_seconds()? - before;
            compared += BATCH;
        }
    }
    if catalog.len() as u64 != records {
        return Err(claim(&format!("{records} records"), &catalog.len().to_string()));
    }
    Ok(json!({"rate": records as f64 / ours, "raw": compared as f64 / raw}))
}

fn probe(folder: &Path) -> Result<Value> {
    let started = Instant::now();
    let catalog = open(folder)?;
    let opened = started.elapsed().as_secs_f64();
    let signers: Vec<PublicKey> = (0..SIGNERS).map(|number| public(&signer(number))).collect();
    told(catalog.set_named(signers.iter().copied()))?;
    let started = Instant::now();
    told(catalog.set_named(signers.iter().copied().skip(1).chain([PublicKey([1; 32])])))?;
    let named = started.elapsed().as_secs_f64();
    let petname = |key: &PublicKey| Some(format!("site-{}", signers.iter().position(|signer| signer == key)?));
    let mut random = fastrand::Rng::with_seed(5);
    let (mut whole, mut alone) = (Vec::new(), Vec::new());
    for number in 0..SEARCHES {
        let word = WORDS[random.usize(..WORDS.len())];
        let words = match number % 8 {
            0 => String::new(),
            1 => word.to_owned(),
            2 => format!("{word} {}", WORDS[random.usize(..WORDS.len())]),
            3 => format!("site-{} {word}", random.u64(..SIGNERS)),
            4 => word[..2].to_owned(),
            5 => format!("1.{}", random.u64(..RECORDS)),
            6 => "nothing-like-it".to_owned(),
            _ => format!("kernel {word}"),
        };
        let query = Query {
            words: &words,
            petname: Some(&petname),
            publishers: (number % 5 == 0).then(|| vec![signers[random.usize(..signers.len())]]),
            tag: (number % 7 == 0).then(|| word.try_into()).transpose().map_err(|error| records(&error))?,
            arch: (number % 3 == 0).then_some(Arch::Aarch64),
            since: (number % 4 == 0).then(|| NOW - random.u64(..RECORDS)),
        };
        let skip = if number % 6 == 0 { random.usize(..5_000) } else { 0 };
        let started = Instant::now();
        let found = black_box(catalog.search(&query, skip, PAGE.0, PAGE.1));
        alone.push(started.elapsed().as_secs_f64() * 1e3);
        let read = catalog.get_all(&found.releases).len();
        whole.push(started.elapsed().as_secs_f64() * 1e3);
        if read != found.releases.len() || (words.is_empty() && query.tag.is_none() && found.total == 0) {
            return Err(claim("releases that can be read", &format!("{read} of {}", found.releases.len())));
        }
    }
    let memory = memory_mib(std::process::id())?.0 * MIB / 1e6;
    Ok(json!({"open": opened, "memory": memory, "named": named, "search": p99(&mut whole), "find": p99(&mut alone)}))
}

fn p99(took: &mut [f64]) -> f64 {
    took.sort_unstable_by(f64::total_cmp);
    took.get(took.len() * 99 / 100).copied().unwrap_or(f64::NAN)
}

fn reconcile(folder: &Path) -> Result<Value> {
    let full = open(folder)?.sync_set();
    let all: Vec<(UnixSeconds, Hash)> = full.iter().collect();
    let newest = all[all.len().saturating_sub(MISSING)..].to_vec();
    let mut random = fastrand::Rng::with_seed(6);
    let mut scattered = all;
    random.shuffle(&mut scattered);
    scattered.truncate(MISSING);
    let (newest, scattered) = (session(&full, &newest)?, session(&full, &scattered)?);
    Ok(json!({
        "newest_bytes": newest.0, "newest_trips": newest.1, "scattered_bytes": scattered.0, "scattered_trips": scattered.1,
    }))
}

/// A session of a site that lacks these with one that lacks nothing, until it knows and has asked for all of them: kB in
/// both directions but for the envelopes, and round trips.
fn session(full: &SyncSet, missing: &[(UnixSeconds, Hash)]) -> Result<(f64, f64)> {
    let mut ours = full.clone();
    for (issued, id) in missing {
        ours.remove(*issued, *id);
    }
    let told = |error| claim("a session without an error", &format!("{error:?}"));
    let mut initiator = Initiator::new(ours);
    let mut responder = Responder::new(full.clone());
    let (mut bytes, mut trips, mut gained) = (0, 0, 0);
    while !initiator.is_finished() {
        trips += 1;
        while let Some(message) = initiator.next_message(|_| None) {
            bytes += message.encode().len();
            responder.receive(message, |_| false).map_err(told)?;
        }
        // A record of one byte: what envelopes take is not counted.
        while let Some(message) = responder.next_message(|_| Some(vec![0])) {
            match &message {
                Message::Records { envelopes, .. } => gained += envelopes.len(),
                message => bytes += message.encode().len(),
            }
            initiator.receive(message, |_| true).map_err(told)?;
        }
    }
    if gained != missing.len() {
        return Err(claim(&format!("{} records", missing.len()), &gained.to_string()));
    }
    // Done has no answer.
    Ok((bytes as f64 / 1e3, f64::from(trips - 1)))
}

fn open(folder: &Path) -> Result<Catalog> {
    let federation = FEDERATION.try_into().map_err(|error| records(&error))?;
    told(Catalog::open(folder, federation, 64 << 20))
}

/// Processor time of all threads of this process so far.
fn processor_seconds() -> Result<f64> {
    /// Of these is `/proc`'s time, on every Linux.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Behind the name, which may have spaces in it: utime and stime are the 12th and 13th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    Ok(fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND)
}

fn signer(number: u64) -> SigningKey {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    SigningKey::from_bytes(&seed)
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

/// Every other record is a release, and what follows it an endorsement of it.
fn record(
    number: u64,
    last: &mut RecordId,
) -> std::result::Result<rialto_protocol::signed::Envelope, Box<dyn std::error::Error>> {
    let key = signer(number / 2 % SIGNERS);
    let body = match number % 2 {
        0 => release(&key, number)?,
        _ => Body::Endorsement(Endorsement {
            subject: *last,
            predicate: PREDICATE_TESTED.try_into()?,
            body: EndorsementBody::Native { note: Some(Text::try_from("it boots")?) },
            expires: None,
        }),
    };
    // Most come in order, some are late.
    let issued = NOW - RECORDS + number - if number.is_multiple_of(50) { number % 3_000 } else { 0 };
    let envelope = Draft::new([public(&key)], None, issued, &body)?.sign(&key)?.seal();
    *last = envelope.id();
    Ok(envelope)
}

fn release(publisher: &SigningKey, number: u64) -> std::result::Result<Body, Box<dyn std::error::Error>> {
    let mut random = fastrand::Rng::with_seed(number);
    let mut word = || WORDS[random.usize(..WORDS.len())];
    let content = Hash::of(&number.to_be_bytes());
    let disk = Disk {
        image: ImageId::from_hash(content),
        format: DiskFormat::Raw,
        bytes: 4 << 30,
        blake3: content,
        sha256: Sha256(content.0),
    };
    let (first, second, third) = (word(), word(), word());
    let release = Release::minimal(
        public(publisher),
        format!("{first}-{second}-{}", number % 100).as_str().try_into()?,
        format!("1.{number}").as_str().try_into()?,
        List::try_from(vec![disk])?,
        format!("{first} with {second} and {third}, for whoever needs it").as_str().try_into()?,
    );
    let description: Vec<&str> = (0..40).map(|_| word()).collect();
    let arch = if number.is_multiple_of(6) { Arch::Aarch64 } else { Arch::X86_64 };
    Ok(Body::Release(Box::new(Release {
        sequence: number,
        arch,
        boot: Boot::Uefi {},
        description: Some(format!("A kernel and little else: {}.", description.join(" ")).as_str().try_into()?),
        licence: Some("MIT OR Apache-2.0".try_into()?),
        tags: List::try_from(vec![first.try_into()?, third.try_into()?])?,
        ..release
    })))
}

fn told<T, E: std::fmt::Display>(result: std::result::Result<T, E>) -> Result<T> {
    result.map_err(|error| records(&error))
}

fn records(error: &impl std::fmt::Display) -> BenchError {
    BenchError::Records(error.to_string())
}

fn claim(expected: &str, found: &str) -> BenchError {
    BenchError::Claim { expected: expected.to_owned(), found: found.to_owned() }
}
