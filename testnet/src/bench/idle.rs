//! A node that has nothing to do: what it holds of the machine's memory.

use super::table::Row;
use super::{Bench, Result, memory_mib};

pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let mut row = Row::new("idle", "memory of a connected node with nothing to do", "MiB");
    for run in 0..bench.runs {
        let one = bench.holder(&format!("one{run}"))?;
        let other = bench.fetcher(&format!("other{run}"), &one)?;
        row.push(other.node_pid().map(memory_mib).transpose()?.map_or(f64::NAN, |(now, _)| now), f64::NAN);
        bench.remove(other)?;
        bench.remove(one)?;
    }
    Ok(vec![row])
}
