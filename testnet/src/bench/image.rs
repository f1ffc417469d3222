//! A real image into an empty store, and its real security update into one that has the old version.

use std::fs;
use std::process::Command;

use super::table::{Row, Target};
use super::{Bench, Result, add, fetch, figure, inputs, insist_on, peers};

pub(super) fn measure_image(bench: &Bench) -> Result<Vec<Row>> {
    let libtorrent = bench.libtorrent();
    let pair = bench.pair()?;
    let file = bench.base.join("image.raw");
    inputs::copy_sparse(&pair.new, &file)?;
    let megabytes = fs::metadata(&file)?.len() as f64 / 1e6;
    let torrent = libtorrent.as_ref().map(|libtorrent| libtorrent.offer(&file)).transpose()?;

    let mut wall = Row::new("image", "Debian image into an empty store, its raw length over wall time", "MB/s");
    wall = wall.must(Target::RatioAtLeast(3.0));
    if let Some(libtorrent) = &libtorrent {
        wall = wall.beside(libtorrent.name());
    }
    let mut wire = Row::new("image", "bytes on the wire for it", "MB").reach(Target::RatioAtMost(1.0));
    let mut zstd = f64::NAN;
    if bench.has("zstd", "zstd") {
        wire = wire.beside("zstd -3 of the whole file");
        zstd = peers::zstd_bytes(&file, &bench.base)? as f64 / 1e6;
    }
    let holder = bench.holder("holder")?;
    let (image, _) = add(&holder, &file)?;
    for run in 0..bench.runs {
        let fetcher = bench.fetcher(&format!("fetcher{run}"), &holder)?;
        let said = fetch(&fetcher, &image)?;
        wire.push(figure(&said, "wire_bytes")? / 1e6, zstd);
        if run == 0 {
            insist_on(&fetcher, &image, &file, &bench.base)?;
        }
        bench.remove(fetcher)?;
        let other = bench.one_to_one(libtorrent.as_ref().zip(torrent.as_ref()))?;
        wall.push(megabytes / figure(&said, "seconds")?, other);
    }
    Ok(vec![wall, wire])
}

pub(super) fn measure_update(bench: &Bench) -> Result<Vec<Row>> {
    let pair = bench.pair()?;
    let (old, new) = (bench.base.join("old.raw"), bench.base.join("new.raw"));
    inputs::copy_sparse(&pair.old, &old)?;
    inputs::copy_sparse(&pair.new, &new)?;

    let wire = || Row::new("update", "bytes on the wire, the old version in the store", "MB");
    let mut rows = Vec::new();
    if bench.has("zstd", "zstd") {
        let patch = bench.base.join("image.patch");
        let bytes = peers::zstd_patch(&old, &new, &patch)? as f64;
        rows.push((wire().beside("zstd -3 --long=31 --patch-from").must(Target::RatioAtMost(1.1)), bytes));
        fs::remove_file(&patch)?;
    } else {
        rows.push((wire().must(Target::RatioAtMost(1.1)), f64::NAN));
    }
    let apt = wire().beside("apt, the packages that differ").reach(Target::RatioAtMost(0.95));
    rows.push((apt, pair.apt_bytes as f64));
    if bench.has("xdelta3", "xdelta3") {
        rows.push((wire().beside("xdelta3"), peers::xdelta_bytes(&old, &new, &bench.base)? as f64));
    }
    if bench.has("zstd", "zstd") {
        rows.push((wire().beside("zstd -3 of the whole file"), peers::zstd_bytes(&new, &bench.base)? as f64));
    }

    let mut wall = Row::new("update", "time for it", "s").reach(Target::AtMost(3.0));
    let holder = bench.holder("holder")?;
    let (before, _) = add(&holder, &old)?;
    let (image, _) = add(&holder, &new)?;
    // The old version is fetched too: what a site has only added for itself, it names to nobody.
    let mut fetcher = bench.fetcher("fetcher", &holder)?;
    fetch(&fetcher, &before)?;
    fetcher.stop()?;
    // Every run begins with the same store.
    let (directory, kept) = (fetcher.directory().to_owned(), bench.base.join("kept"));
    peers::run(Command::new("cp").arg("-a").arg(&directory).arg(&kept))?;
    for run in 0..bench.runs {
        fs::remove_dir_all(&directory)?;
        peers::run(Command::new("cp").arg("-a").arg(&kept).arg(&directory))?;
        fetcher.start()?;
        fetcher.meets(&[&holder])?;
        let said = fetch(&fetcher, &image)?;
        wall.push(figure(&said, "seconds")?, f64::NAN);
        for (row, other) in &mut rows {
            row.push(figure(&said, "wire_bytes")? / 1e6, *other / 1e6);
        }
        if run == 0 {
            insist_on(&fetcher, &image, &new, &bench.base)?;
        }
        fetcher.stop()?;
    }
    Ok(rows.into_iter().map(|(row, _)| row).chain([wall]).collect())
}
