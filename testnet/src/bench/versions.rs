//! Successive versions of a real image in one store.

use std::fs;

use super::table::{Row, Target};
use super::{Bench, BenchError, Result, add, figure, inputs, peers};

/// How many versions, the first included.
const VERSIONS: usize = 10;

pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    if !bench.has("zstd", "zstd") {
        return Err(BenchError::Missing("the size of an update is that of a zstd patch, and there is no zstd".into()));
    }
    let pair = bench.pair()?;
    let patches = pair.patches(VERSIONS)?;
    let updates: u64 = patches.iter().map(|patch| Ok(fs::metadata(patch)?.len())).sum::<Result<u64>>()?;

    let site = bench.holder("site")?;
    let (mut before, mut after) = (bench.base.join("before.raw"), bench.base.join("after.raw"));
    inputs::copy_sparse(&pair.old, &before)?;
    add(&site, &before)?;
    let first = figure(&site.status()?, "store_bytes")? / 1e6;
    for patch in &patches {
        peers::zstd_unpatch(&before, patch, &after)?;
        add(&site, &after)?;
        std::mem::swap(&mut before, &mut after);
    }
    let mut grown = Row::new("versions", format!("growth of the store by {} updates", patches.len()), "MB");
    grown = grown.beside("zstd -3 --long=31 --patch-from, one after the other").must(Target::RatioAtMost(1.3));
    grown.push(figure(&site.status()?, "store_bytes")? / 1e6 - first, updates as f64 / 1e6);
    let mut stored = Row::new("versions", "the store with the first version", "MB");
    stored.push(first, f64::NAN);
    Ok(vec![grown, stored])
}
