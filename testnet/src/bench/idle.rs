//! A node that has nothing to do: what it holds of the machine's memory.

use std::path::Path;

use super::{Result, Row, memory_mib};
use crate::site::{Plan, Rialto, Site};

pub(super) fn measure(rialto: &Rialto, base: &Path, runs: u32) -> Result<Vec<Row>> {
    let mut row = Row {
        name: "idle",
        what: "memory of a connected node with nothing to do".into(),
        unit: "MiB",
        measured: vec![],
    };
    for run in 0..runs {
        let mut one = Site::init(rialto, base, &Plan::new(&format!("one{run}"), "bench"))?;
        one.start()?;
        let mut other = Site::init(rialto, base, &Plan::new(&format!("other{run}"), "bench").knows(&one)?)?;
        other.start()?;
        other.meets(&[&one])?;
        row.measured.push(other.node_pid().map(memory_mib).transpose()?.map_or(f64::NAN, |(now, _)| now));
        other.end();
        one.end();
    }
    Ok(vec![row])
}
