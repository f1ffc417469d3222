//! `rialto export RECORD [-o FILE]`: an in-toto statement, as it was brought here.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use rialto_web::api::{ApiError, StatementExport};
use serde_json::json;

use super::output::{Cell, Face, Outcome, Tone};
use crate::client::{Client, segment};

/// Which statement.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The record of the endorsement that carries it, or a unique beginning of at least 12 characters
    record: String,
    /// Where to write it [default: to the standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn run(face: &Face, client: &Client, arguments: Arguments) -> Outcome {
    let path = format!("endorsements/{}/statement", segment(&arguments.record));
    let exported: StatementExport = client.get(&path).await?;
    let Some(file) = arguments.output else {
        if face.is_json {
            return face.print(&exported, |_| {});
        }
        return face.write_bytes(exported.dsse.as_bytes());
    };
    fs::write(&file, &exported.dsse)
        .map_err(|error| ApiError::failed(format!("cannot write {}: {error}", file.display())))?;
    let StatementExport { record, release, predicate, dsse } = &exported;
    let shown = file.display().to_string();
    let value =
        json!({"record": record, "release": release, "predicate": predicate, "file": shown, "bytes": dsse.len()});
    face.print(&value, |page| page.line(Cell::new(format!("{shown}: {predicate}, {} bytes", dsse.len()), Tone::Good)))
}
