//! One holder to one fetcher: 1 GiB of random bytes over loopback, verified and stored.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use super::{BenchError, Result, Row, memory_mib};
use crate::site::{Plan, Rialto, Site, text};

const BYTES: u64 = 1 << 30;
const MIB: usize = 1 << 20;

pub(super) fn measure(rialto: &Rialto, base: &Path, runs: u32) -> Result<Vec<Row>> {
    let file = base.join("random.raw");
    write_random(&file)?;
    let mut holder = Site::init(rialto, base, &Plan { serve: Some("all".into()), ..Plan::new("holder", "bench") })?;
    holder.start()?;
    let added = holder.json(&["image", "add", &file.display().to_string()])?;
    let image = text(&added, "image")?.to_owned();
    let mut rows = [
        Row {
            name: "single",
            what: "fetch of 1 GiB random, verified and stored".into(),
            unit: "MB/s",
            measured: vec![],
        },
        Row {
            name: "single",
            what: "plain copy of the same file, in the same run".into(),
            unit: "MB/s",
            measured: vec![],
        },
        Row { name: "single", what: "peak memory of the fetcher".into(), unit: "MiB", measured: vec![] },
        Row { name: "single", what: "peak memory of the holder".into(), unit: "MiB", measured: vec![] },
    ];
    for run in 0..runs {
        let name = format!("fetcher{run}");
        let mut fetcher = Site::init(rialto, base, &Plan::new(&name, "bench").knows(&holder)?)?;
        fetcher.start()?;
        fetcher.meets(&[&holder])?;
        let fetched = fetcher.json(&["fetch", &image])?;
        let seconds = fetched["seconds"].as_f64().unwrap_or(f64::NAN);
        let wire = fetched["wire_bytes"].as_u64().unwrap_or(0);
        if wire < BYTES {
            return Err(BenchError::Claim {
                expected: format!("{BYTES} bytes over the wire"),
                found: fetched.to_string(),
            });
        }
        let copied = Instant::now();
        std::fs::copy(&file, base.join("copy.raw"))?;
        let copied = copied.elapsed().as_secs_f64();
        rows[0].measured.push(BYTES as f64 / 1e6 / seconds);
        rows[1].measured.push(BYTES as f64 / 1e6 / copied);
        rows[2].measured.push(fetcher.node_pid().map(memory_mib).transpose()?.map_or(f64::NAN, |(_, peak)| peak));
        rows[3].measured.push(holder.node_pid().map(memory_mib).transpose()?.map_or(f64::NAN, |(_, peak)| peak));
        fetcher.end();
        std::fs::remove_dir_all(base.join(&name))?;
    }
    rows[3].what += " (since it added the image)";
    Ok(rows.into())
}

fn write_random(path: &Path) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut file = File::create(path)?;
    let mut block = vec![0; MIB];
    for _ in 0..BYTES / MIB as u64 {
        random.fill(&mut block);
        file.write_all(&block)?;
    }
    Ok(())
}
