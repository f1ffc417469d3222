//! What a large image takes of both sides' memory while it moves.

use std::fs;

use super::table::{Row, Target};
use super::{Bench, BenchError, Result, add, fetch, figure, inputs, peak_megabytes};

const BYTES: u64 = 8 << 30;
const MUST: Target = Target::AtMost(200.0);
const REACH: Target = Target::AtMost(120.0);

/// Measured once: it takes minutes, and a peak does not wobble.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    // On disk: memory holds two stores already, each about a third of the image.
    let directory = tempfile::Builder::new().prefix("large-").tempdir_in(&bench.cache)?;
    let file = directory.path().join("large.raw");
    inputs::write_compressible(&file, BYTES, 8)?;
    let mut holder = bench.holder("holder")?;
    let (image, added) = add(&holder, &file)?;
    fs::remove_file(&file)?;
    let mut ingest = Row::new("memory", "peak of a node that adds 8 GiB", "MB");
    ingest.push(peak_megabytes(&holder)?, f64::NAN);
    // What it takes from now on, it takes for serving.
    holder.stop()?;
    holder.start()?;

    let fetcher = bench.fetcher("fetcher", &holder)?;
    let said = fetch(&fetcher, &image)?;
    if figure(&said, "bytes")? < BYTES as f64 {
        return Err(BenchError::Claim { expected: format!("{BYTES} bytes of content"), found: said.to_string() });
    }
    let mut fetching = Row::new("memory", "peak of a node that fetches 8 GiB", "MB").must(MUST).reach(REACH);
    fetching.push(peak_megabytes(&fetcher)?, f64::NAN);
    let mut serving = Row::new("memory", "peak of the node that holds them", "MB").must(MUST).reach(REACH);
    serving.push(peak_megabytes(&holder)?, f64::NAN);
    let mut wall = Row::new("memory", "time for it, beside that for adding them", "s").beside("added in");
    wall.push(figure(&said, "seconds")?, figure(&added, "seconds")?);
    Ok(vec![fetching, serving, ingest, wall])
}
