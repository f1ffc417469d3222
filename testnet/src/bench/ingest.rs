//! Adding a real image to an empty store.

use std::fs;
use std::time::Instant;

use super::table::{Row, Target};
use super::{Bench, Result, add, figure, inputs, peers};

pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let file = bench.base.join("image.raw");
    inputs::copy_sparse(&bench.pair()?.new, &file)?;
    let megabytes = fs::metadata(&file)?.len() as f64 / 1e6;

    let has_casync = bench.has("casync", "casync");
    let mut wall = Row::new("ingest", "Debian image added to an empty store, its raw length over wall time", "MB/s");
    wall = wall.must(Target::RatioAtLeast(6.0));
    if has_casync {
        wall = wall.beside("casync make");
    }
    let mut stored = Row::new("ingest", "the store then", "MB").reach(Target::RatioAtMost(1.1));
    let mut zstd = f64::NAN;
    if bench.has("zstd", "zstd") {
        stored = stored.beside("zstd -3 of the whole file");
        zstd = peers::zstd_bytes(&file, &bench.base)? as f64 / 1e6;
    }
    for run in 0..bench.runs {
        let site = bench.holder(&format!("site{run}"))?;
        // The whole command, as casync's whole command is timed.
        let started = Instant::now();
        add(&site, &file)?;
        let ours = megabytes / started.elapsed().as_secs_f64();
        stored.push(figure(&site.status()?, "store_bytes")? / 1e6, zstd);
        bench.remove(site)?;
        let other = if has_casync { megabytes / peers::casync_make(&file, &bench.base)? } else { f64::NAN };
        wall.push(ours, other);
    }
    Ok(vec![wall, stored])
}
