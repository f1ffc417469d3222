//! Measures a catalog of many records: inserting, opening again, searching, and the memory it takes.
//!
//! ```text
//! cargo run -p rialto-node --example catalog -- 100000
//! ```

use std::error::Error;
use std::io::Write as _;
use std::time::Instant;

use ed25519_dalek::SigningKey;
use rialto_node::catalog::Catalog;
use rialto_protocol::bounded::{List, Text};
use rialto_protocol::ids::{Hash, ImageId, PublicKey, RecordId, Sha256};
use rialto_protocol::record::{Body, Boot, Disk, DiskFormat, Endorsement, EndorsementBody, PREDICATE_TESTED, Release};
use rialto_protocol::signed::Draft;

const NOW: u64 = 1_800_000_000;
/// Envelopes inserted with one fsync: about what one message of catch-up brings.
const BATCH: usize = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let count: u64 = std::env::args().nth(1).map_or(Ok(100_000), |count| count.parse())?;
    let mut out = std::io::stdout();
    let signers: Vec<SigningKey> = (0..16).map(|seed| SigningKey::from_bytes(&[seed; 32])).collect();
    // One release in two records, the others endorse the one before.
    let mut envelopes = Vec::new();
    let mut last = RecordId::of(b"");
    for number in 0..count {
        let signer = &signers[number as usize / 2 % signers.len()];
        let body = match number % 2 {
            0 => release(signer, number)?,
            _ => endorsement(last)?,
        };
        let envelope = Draft::new([public(signer)], None, NOW - number, &body)?.sign(signer)?.seal();
        last = envelope.id();
        envelopes.push(envelope.encode());
    }
    let bytes: usize = envelopes.iter().map(Vec::len).sum();
    writeln!(out, "{count} records, {:.1} MB of envelopes", bytes as f64 / 1e6)?;

    let directory = tempfile::tempdir()?;
    let open = || Catalog::open(directory.path(), "physics".try_into()?, 1 << 40).map_err(Box::<dyn Error>::from);
    let catalog = open()?;
    catalog.set_named(signers.iter().map(public))?;
    let start = Instant::now();
    for batch in envelopes.chunks(BATCH) {
        catalog.insert_batch(batch, Some("12D3KooWPeer"), NOW)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    writeln!(out, "insert_batch of {BATCH}: {:.0} records/s ({seconds:.1} s)", count as f64 / seconds)?;
    drop((catalog, envelopes));

    let before = resident_bytes()?;
    let start = Instant::now();
    let catalog = open()?;
    writeln!(out, "open: {:.2} s", start.elapsed().as_secs_f64())?;
    writeln!(out, "memory: {:.0} MB more than before", resident_bytes()?.saturating_sub(before) as f64 / 1e6)?;
    let start = Instant::now();
    catalog.set_named(signers.iter().map(public))?;
    writeln!(out, "set_named: {:.2} s", start.elapsed().as_secs_f64())?;
    for words in ["", "batch-42", "greeting kernel", "nothing like it"] {
        let start = Instant::now();
        let found = catalog.releases(words, |_| None).len();
        writeln!(out, "search '{words}': {found} found in {:.1} ms", start.elapsed().as_secs_f64() * 1e3)?;
    }
    let start = Instant::now();
    let set = catalog.sync_set();
    writeln!(out, "sync set of {}: {:.2} s", set.len(), start.elapsed().as_secs_f64())?;
    Ok(())
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

fn release(publisher: &SigningKey, number: u64) -> Result<Body, Box<dyn Error>> {
    let content = Hash::of(&number.to_be_bytes());
    let disk = Disk {
        image: ImageId::from_hash(content),
        format: DiskFormat::Raw,
        bytes: 4 << 30,
        blake3: content,
        sha256: Sha256(content.0),
    };
    let release = Release::minimal(
        public(publisher),
        format!("batch-{}", number % 1_000).as_str().try_into()?,
        format!("1.{number}").as_str().try_into()?,
        List::try_from(vec![disk])?,
        "Says what it is told to, to whoever asks, as often as they like".try_into()?,
    );
    Ok(Body::Release(Box::new(Release {
        sequence: number,
        boot: Boot::Uefi {},
        description: Some(Text::try_from("A greeting, a kernel and little else. ".repeat(10).as_str())?),
        licence: Some("MIT OR Apache-2.0".try_into()?),
        tags: List::try_from(vec!["greeting".try_into()?, "small".try_into()?])?,
        ..release
    })))
}

fn endorsement(subject: RecordId) -> Result<Body, Box<dyn Error>> {
    Ok(Body::Endorsement(Endorsement {
        subject,
        predicate: PREDICATE_TESTED.try_into()?,
        body: EndorsementBody::Native { note: Some(Text::try_from("it boots")?) },
        expires: None,
    }))
}

/// What the operating system says that this process has in memory.
fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
