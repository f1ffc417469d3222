//! `rialto store`: the store's own files. Needs the node stopped.

use std::time::Instant;

use clap::Subcommand;
use rialto_web::api::ApiError;
use serde_json::json;

use super::output::{Cell, Face, Outcome, Tone, count, rate};
use crate::config::Config;
use crate::dir::{DirError, NodeDir};
use crate::node::store_options;
use crate::node::work::store_error;
use crate::store::{Rebuilt, Store};
use crate::units::ByteSize;

/// What to do with the store.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Build the store's index anew from its segments, and say what they hold; the node must be stopped
    ///
    /// The index only says where things lie, and the node builds it by itself where it is missing or damaged. This reads
    /// every segment, so it also tells how much of them is damaged.
    Rebuild,
}

pub(super) fn run(face: &Face, dir: &NodeDir, command: Command) -> Outcome {
    let Command::Rebuild = command;
    dir.check_format()?;
    let config = Config::load(dir)?;
    let _lock = dir.lock().map_err(|error| match error {
        DirError::InUse { .. } => ApiError::failed(error.to_string())
            .with_hint("stop the node first: the index can only be built anew while nobody uses it"),
        error => error.into(),
    })?;
    face.note_on_terminal("reading the segments …");
    let started = Instant::now();
    let rebuilt = Store::rebuild(&dir.store(), store_options(&config)).map_err(store_error)?;
    let seconds = started.elapsed().as_secs_f64();
    let Rebuilt { segments, chunks, pages, unknown, bytes, damaged_bytes, cut_bytes } = rebuilt;
    let value = json!({
        "segments": segments, "entries": chunks + pages, "chunks": chunks, "pages": pages, "unknown": unknown,
        "bytes": bytes, "damaged_bytes": damaged_bytes, "cut_bytes": cut_bytes, "seconds": seconds,
    });
    face.print(&value, |page| {
        let found = format!("{}, {} of manifests", count(chunks, "chunk"), count(pages, "page"));
        let read = format!("{} in {}", ByteSize(bytes), count(segments, "segment"));
        let damaged = match damaged_bytes {
            0 => Cell::from("none"),
            bytes => Cell::new(ByteSize(bytes), Tone::Bad),
        };
        let some = |number: u64, text: String| if number == 0 { String::new() } else { text };
        page.fields([
            ("found", found.into()),
            ("read", read.into()),
            ("speed", some(bytes, rate(bytes, seconds)).into()),
            ("damaged", damaged),
            ("cut off", some(cut_bytes, format!("{} that were never finished", ByteSize(cut_bytes))).into()),
            ("left alone", some(unknown, format!("{} of a later version", count(unknown, "thing"))).into()),
        ]);
        if damaged_bytes > 0 {
            page.line(
                "start the node; rialto image verify tells which images lack something, rialto fetch gets it again",
            );
        }
    })
}
