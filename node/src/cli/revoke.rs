//! `rialto revoke ID --key NAME --reason TEXT`

use clap::Args;
use rialto_protocol::bounded::Name;
use rialto_web::api::{Recorded, RevokeRequest};

use super::output::{Cell, Face, Outcome, Tone};
use crate::client::Client;

/// What is withdrawn, by whom and why.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A release, an endorsement, or a public key (OpenSSH form, or 52 characters of base32)
    subject: String,
    /// The key to sign with
    #[arg(long, value_name = "NAME")]
    key: Name,
    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

pub(super) async fn run(face: &Face, client: &Client, arguments: Arguments) -> Outcome {
    let request =
        RevokeRequest { subject: arguments.subject, key: arguments.key.to_string(), reason: arguments.reason };
    let recorded: Recorded = client.post("revocations", &request).await?;
    face.print(&recorded, |page| page.line(Cell::new(recorded.record, Tone::Strong)))
}
