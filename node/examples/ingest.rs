//! Adds files to a store of their own, one after the other, and says how long each took:
//! `cargo run --release --example ingest -- FILE… STORE`.
//!
//! The store must be a folder that does not exist yet. Meant for profiling, and for the row `ingest` of the benchmarks.

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::path::PathBuf;

use rialto_node::store::{Digests, Options, Store};

fn main() -> Result<(), Box<dyn Error>> {
    let mut files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let Some(folder) = files.pop().filter(|_| !files.is_empty()) else {
        return Err("usage: ingest FILE… STORE".into());
    };
    std::fs::create_dir(&folder)?;
    let store = Store::open(&folder, Options { free_space_floor_bytes: 0, ..Options::default() })?;
    for file in files {
        let added = store.add_file(&file, Digests::Skip, &[], &mut |_, _| (), &|| false)?;
        println!(
            "{} bytes, {} chunks, {} bytes stored, {:.3} s",
            added.bytes, added.chunks, added.stored_bytes, added.seconds
        );
    }
    Ok(())
}
