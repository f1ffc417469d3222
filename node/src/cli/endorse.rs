//! `rialto endorse RELEASE --key NAME (--type URI [--body FILE] | --dsse FILE)`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rialto_protocol::attestation::MAX_DSSE_BYTES;
use rialto_protocol::record::PREDICATE_TESTED;
use rialto_web::api::{ApiError, EndorseRequest, Recorded};

use super::existing;
use super::output::{Cell, Face, Outcome, Tone};
use super::sign::{KeyChoice, Signing};
use crate::client::Client;
use crate::dir::{NodeDir, read_bounded};
use crate::units::parse_duration;

/// Longest text of an endorsement, in bytes, as records bound it.
const MAX_NOTE_BYTES: u64 = 16_384;

/// What is said, and by whom.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A record id, a unique beginning of at least 12 characters, PUBLISHER/NAME@VERSION or PUBLISHER/NAME:CHANNEL
    release: String,
    /// The key to sign with: a name of keys/, the file of a key, or agent:NAME for one of an ssh-agent
    #[arg(long, value_name = "KEY")]
    key: KeyChoice,
    /// What is said, as a URI that policies can ask for
    #[arg(long = "type", value_name = "URI", default_value = PREDICATE_TESTED, conflicts_with = "dsse")]
    predicate: String,
    /// A text file that says more: a report, a measurement
    #[arg(long, value_name = "FILE", conflicts_with = "dsse")]
    body: Option<PathBuf>,
    /// A DSSE envelope with an in-toto statement about one of the disks: what it says, and who signed it, is in it, and the key
    /// only brings it
    #[arg(long, value_name = "FILE")]
    dsse: Option<PathBuf>,
    /// When it stops counting, for example 90d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires: Option<Duration>,
}

pub(super) async fn run(face: &Face, dir: &NodeDir, client: &Client, arguments: Arguments) -> Outcome {
    let dsse = arguments.dsse.map(read_envelope).transpose()?;
    let signing = Signing::prepare(dir, client, "endorsement", [arguments.key])?;
    let request = EndorseRequest {
        release: arguments.release,
        key: signing.name(),
        predicate: if dsse.is_some() { String::new() } else { arguments.predicate },
        dsse,
        note: arguments.body.map(read_note).transpose()?,
        expires_after_seconds: arguments.expires.map(|expires| expires.as_secs()),
    };
    let recorded: Recorded = signing.during(client.post("endorsements", &request)).await?;
    face.print(&recorded, |page| page.line(Cell::new(recorded.record, Tone::Strong)))
}

fn read_envelope(path: PathBuf) -> Outcome<String> {
    existing(&path)?;
    read_bounded(&path, MAX_DSSE_BYTES as u64).map_err(|error| {
        ApiError::usage(format!("{} cannot be brought as a statement: {error}", path.display()))
            .with_hint(format!("a DSSE envelope is JSON of at most {MAX_DSSE_BYTES} bytes"))
    })
}

fn read_note(path: PathBuf) -> Outcome<String> {
    existing(&path)?;
    read_bounded(&path, MAX_NOTE_BYTES)
        .map_err(|error| ApiError::failed(format!("cannot read {}: {error}", path.display())))
}
