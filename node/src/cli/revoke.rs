//! `rialto revoke ID --key NAME --reason TEXT`

use clap::Args;
use rialto_web::api::{Recorded, RevokeRequest};

use super::output::{Cell, Face, Outcome, Tone};
use super::sign::{KeyChoice, Signing};
use crate::client::Client;
use crate::dir::NodeDir;

/// What is withdrawn, by whom and why.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A release, an endorsement, an advisory, or a public key (OpenSSH form, or 52 characters of base32)
    subject: String,
    /// The key to sign with: a name of keys/, the file of a key, or agent:NAME for one of an ssh-agent
    #[arg(long, value_name = "KEY")]
    key: KeyChoice,
    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

pub(super) async fn run(face: &Face, dir: &NodeDir, client: &Client, arguments: Arguments) -> Outcome {
    let signing = Signing::prepare(dir, client, "revocation", [arguments.key])?;
    let request = RevokeRequest { subject: arguments.subject, key: signing.name(), reason: arguments.reason };
    let recorded: Recorded = signing.during(client.post("revocations", &request)).await?;
    face.print(&recorded, |page| page.line(Cell::new(recorded.record, Tone::Strong)))
}
