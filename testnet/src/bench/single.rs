//! One holder to one fetcher: 1 GiB of random bytes over loopback, verified and stored.

use std::fs;
use std::time::Instant;

use super::table::{Row, Target};
use super::{Bench, BenchError, Result, add, fetch, figure, inputs, insist_on, peak_megabytes, raw};

const BYTES: u64 = 1 << 30;

pub(super) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let libtorrent = bench.libtorrent();
    let file = bench.base.join("random.raw");
    inputs::write_random(&file, BYTES, 7)?;
    let torrent = libtorrent.as_ref().map(|libtorrent| libtorrent.offer(&file)).transpose()?;
    let mut holder = bench.holder("holder")?;
    let (image, _) = add(&holder, &file)?;
    // What it takes from now on, it takes for serving.
    holder.stop()?;
    holder.start()?;

    let fetched = || Row::new("single", "1 GiB random, verified and stored", "MB/s");
    let mut beside_libtorrent = fetched().must(Target::RatioAtLeast(1.0));
    if let Some(libtorrent) = &libtorrent {
        beside_libtorrent = beside_libtorrent.beside(libtorrent.name());
    }
    let mut beside_raw = fetched().beside("raw libp2p stream, TCP and TLS").reach(Target::RatioAtLeast(0.75));
    let mut beside_copy = fetched().beside("plain copy of the file");
    let mut fetching = Row::new("single", "peak memory of the fetcher", "MB");
    let mut serving = Row::new("single", "peak memory of the holder", "MB");
    for run in 0..bench.runs {
        let fetcher = bench.fetcher(&format!("fetcher{run}"), &holder)?;
        let said = fetch(&fetcher, &image)?;
        if figure(&said, "wire_bytes")? < BYTES as f64 {
            return Err(BenchError::Claim { expected: format!("{BYTES} bytes on the wire"), found: said.to_string() });
        }
        let ours = BYTES as f64 / 1e6 / figure(&said, "seconds")?;
        fetching.push(peak_megabytes(&fetcher)?, f64::NAN);
        serving.push(peak_megabytes(&holder)?, f64::NAN);
        if run == 0 {
            insist_on(&fetcher, &image, &file, &bench.base)?;
        }
        bench.remove(fetcher)?;

        let other = bench.one_to_one(libtorrent.as_ref().zip(torrent.as_ref()))?;
        beside_libtorrent.push(ours, other);
        beside_raw.push(ours, raw::megabytes_per_second(BYTES)?);
        let (started, copy) = (Instant::now(), bench.base.join("copy.raw"));
        fs::copy(&file, &copy)?;
        beside_copy.push(ours, BYTES as f64 / 1e6 / started.elapsed().as_secs_f64());
        fs::remove_file(&copy)?;
    }
    Ok(vec![beside_libtorrent, beside_raw, beside_copy, fetching, serving])
}
