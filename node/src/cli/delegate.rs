//! `rialto delegate` and `rialto key rotate`: which keys act for a publisher.

use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use rialto_protocol::bounded::NamePattern;
use rialto_protocol::record::DelegatedRole;
use rialto_web::api::{ApiError, DelegateRequest, Delegated, RotateRequest};

use super::output::{Cell, Face, Outcome, Page, Tone, count};
use super::sign::{KeyChoice, Signing};
use crate::client::Client;
use crate::dir::NodeDir;
use crate::units::parse_duration;

/// Which keys act for which, and for what.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The keys that may act from now on, instead of those before: names of keys here, or public keys
    #[arg(value_name = "KEY", required = true)]
    to: Vec<String>,
    /// The publisher's own key, which need not be here afterwards: a name of keys/, the file of a key, or agent:NAME for
    /// one of an ssh-agent
    #[arg(long, value_name = "KEY")]
    key: KeyChoice,
    /// What they may do: move the publisher's channels, or sign its releases
    #[arg(long, default_value = "channel", value_parser = PossibleValuesParser::new(["channel", "release"]))]
    role: String,
    /// The appliances that they may do it for: 'batch-*', for example; may be given several times
    #[arg(long, value_name = "PATTERN", default_value = "*")]
    names: Vec<NamePattern>,
    /// How many of the keys must sign together
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
    #[arg(long, value_name = "KEY")]
    key: Option<KeyChoice>,
    /// When it ends [default: as long as before, or 90d]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires: Option<Duration>,
}

pub(super) async fn run(face: &Face, dir: &NodeDir, client: &Client, arguments: Arguments) -> Outcome {
    let signing = Signing::prepare(dir, client, "delegation", [arguments.key])?;
    let request = DelegateRequest {
        key: signing.name(),
        role: match arguments.role.as_str() {
            "release" => DelegatedRole::Release,
            _ => DelegatedRole::Channel,
        },
        to: arguments.to,
        names: arguments.names.iter().map(ToString::to_string).collect(),
        threshold: Some(arguments.threshold),
        expires_after_seconds: arguments.expires.map(|expires| expires.as_secs()),
    };
    let delegated: Delegated = signing.during(client.post("delegations", &request)).await?;
    face.print(&delegated, |page| describe(page, &delegated))
}

pub(super) async fn rotate(face: &Face, dir: &NodeDir, client: &Client, arguments: RotateArguments) -> Outcome {
    // Without a key of its own it is the publisher's that is replaced, and it signs that itself.
    let key = match arguments.key {
        Some(key) => key,
        None => arguments.old.parse().map_err(|_| {
            ApiError::usage(format!("'{}' is not the name of a key that could sign", arguments.old))
                .with_hint("give the publisher's own key with --key")
        })?,
    };
    let signing = Signing::prepare(dir, client, "delegation", [key])?;
    let request = RotateRequest {
        old: arguments.old,
        new: arguments.new,
        key: Some(signing.name()),
        expires_after_seconds: arguments.expires.map(|expires| expires.as_secs()),
    };
    let delegated: Delegated = signing.during(client.post("delegations/rotate", &request)).await?;
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
