//! A fetcher that is killed on its way: what it receives twice.

use std::process::Stdio;

use super::table::{Row, Target};
use super::{Bench, BenchError, COMMAND_WITHIN, Result, add, fetch, figure, inputs, insist_on, uploaded_bytes};
use crate::site::Site;
use crate::wait::{self, eventually};

const BYTES: u64 = 1 << 30;
/// When it is killed, in per cent of the image that it has.
const KILLED_AT: [u64; 3] = [30, 60, 90];

pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let file = bench.base.join("random.raw");
    inputs::write_random(&file, BYTES, 9)?;
    let holder = bench.holder("holder")?;
    let (image, _) = add(&holder, &file)?;

    // What a fetch takes that nothing interrupts; bytes are counted as the holder sends them.
    let whole = bench.fetcher("whole", &holder)?;
    fetch(&whole, &image)?;
    bench.remove(whole)?;
    let whole = uploaded_bytes(&holder)?;

    let mut row = Row::new("resume", "sent twice, killed at 30, 60 and 90 % of 1 GiB", "%");
    row = row.must(Target::AtMost(2.0)).reach(Target::AtMost(0.5));
    let mut reached = Row::new("resume", "of it: killed the last time at", "%");
    for run in 0..bench.runs {
        let before = uploaded_bytes(&holder)?;
        let mut fetcher = bench.fetcher(&format!("fetcher{run}"), &holder)?;
        let mut last = f64::NAN;
        for percent in KILLED_AT {
            last = kill_at(&mut fetcher, &image, percent)?;
            fetcher.start()?;
            fetcher.meets(&[&holder])?;
        }
        fetch(&fetcher, &image)?;
        row.push((uploaded_bytes(&holder)? - before - whole) / BYTES as f64 * 100.0, f64::NAN);
        reached.push(last, f64::NAN);
        if run == 0 {
            insist_on(&fetcher, &image, &file, &bench.base)?;
        }
        bench.remove(fetcher)?;
    }
    Ok(vec![row, reached])
}

/// Fetches, and kills the node as soon as its store has that much of the image. Returns what it has then, in per cent.
fn kill_at(fetcher: &mut Site, image: &str, percent: u64) -> Result<f64> {
    let mut command = fetcher.command(&["fetch", image]);
    let mut command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let enough = (BYTES / 100 * percent) as f64;
    let has = eventually(COMMAND_WITHIN, &format!("{percent} % of the image in the store"), || {
        let has = fetcher.status().map_err(BenchError::from).and_then(|status| figure(&status, "store_bytes"));
        match has {
            Ok(has) if has >= enough => Ok(has),
            Ok(has) => Err(format!("{has} bytes")),
            Err(error) => Err(error.to_string()),
        }
    });
    fetcher.kill();
    wait::end(&mut command);
    Ok(has? / BYTES as f64 * 100.0)
}
