//! `rialto delegate` and `rialto key rotate`: which keys act for a publisher.

use std::time::Duration;

use clap::Args;
use rialto_protocol::bounded::{Name, NamePattern};
use rialto_web::api::{DelegateRequest, Delegated, RotateRequest};

use super::output::{Cell, Face, Outcome, Page, Tone, count};
use crate::client::Client;
use crate::units::parse_duration;

/// Which keys act for which, and for what.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The keys that may move channels from now on, instead of those before: names of keys here, or public keys
    #[arg(value_name = "KEY", required = true)]
    to: Vec<String>,
    /// The publisher's own key, which need not be here afterwards
    #[arg(long, value_name = "NAME")]
    key: Name,
    /// The appliances whose channels they may move: 'batch-*', for example; may be given several times
    #[arg(long, value_name = "PATTERN", default_value = "*")]
    names: Vec<NamePattern>,
    /// How many of the keys must sign a head
    #[arg(long, value_name = "N", default_value_t = 1)]
    threshold: u32,
    /// When it ends [default: 90d]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires: Option<Duration>,
}

/// Which key takes the place of which.
#[derive(Debug, Args)]
pub(super) struct RotateArguments {
    /// The key that is replaced: the name of a key here, or a public key
    old: String,
    /// The key in its place
    new: String,
    /// The publisher's own key, where OLD is not that
    #[arg(long, value_name = "NAME")]
    key: Option<Name>,
    /// When it ends [default: as long as before, or 90d]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires: Option<Duration>,
}

pub(super) async fn run(face: &Face, client: &Client, arguments: Arguments) -> Outcome {
    let request = DelegateRequest {
        key: arguments.key.to_string(),
        to: arguments.to,
        names: arguments.names.iter().map(ToString::to_string).collect(),
        threshold: Some(arguments.threshold),
        expires_after_seconds: arguments.expires.map(|expires| expires.as_secs()),
    };
    let delegated: Delegated = client.post("delegations", &request).await?;
    face.print(&delegated, |page| describe(page, &delegated))
}

pub(super) async fn rotate(face: &Face, client: &Client, arguments: RotateArguments) -> Outcome {
    let request = RotateRequest {
        old: arguments.old,
        new: arguments.new,
        key: arguments.key.map(Into::into),
        expires_after_seconds: arguments.expires.map(|expires| expires.as_secs()),
    };
    let delegated: Delegated = client.post("delegations/rotate", &request).await?;
    face.print(&delegated, |page| describe(page, &delegated))
}

fn describe(page: &mut Page, delegated: &Delegated) {
    for record in &delegated.records {
        page.line(Cell::new(record, Tone::Strong));
    }
    if !delegated.channels.is_empty() {
        page.line(format!("{} signed again", count(delegated.channels.len() as u64, "channel")));
    }
}
