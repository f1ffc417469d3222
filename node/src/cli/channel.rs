//! `rialto channel`: moving names that point at releases.

use std::time::Duration;

use clap::{Args, Subcommand};
use rialto_protocol::bounded::Name;
use rialto_web::api::{ChannelShown, ChannelWorth, Movers, Recorded, SetChannelRequest, SignerShown};

use super::output::{Cell, Face, Outcome, Page, Tone, age, span};
use super::sign::{KeyChoice, Signing};
use crate::client::{Client, segment};
use crate::dir::NodeDir;
use crate::units::parse_duration;

/// What to do with channels.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a channel point at a release, and keep it fresh from now on
    Set(SetArguments),
    /// List channels, of the publishers that policy names or of one appliance
    Ls {
        /// Only those of this appliance
        #[arg(value_name = "PUBLISHER/NAME")]
        appliance: Option<String>,
    },
    /// Show where a channel points, and what that is worth
    Show {
        /// The channel
        #[arg(value_name = "PUBLISHER/NAME:CHANNEL")]
        channel: String,
    },
}

/// Where a channel is to point.
#[derive(Debug, Args)]
pub(super) struct SetArguments {
    /// The appliance
    #[arg(value_name = "PUBLISHER/NAME")]
    appliance: String,
    /// The channel: stable, for example
    channel: Name,
    /// A record id, a unique beginning of at least 12 characters, PUBLISHER/NAME@VERSION or PUBLISHER/NAME:CHANNEL
    release: String,
    /// The key to sign with: a name of keys/, the file of a key, or agent:NAME for one of an ssh-agent; several times,
    /// where the publisher asks for several keys
    #[arg(long = "key", value_name = "KEY", required = true)]
    keys: Vec<KeyChoice>,
    /// How long it is fresh unless it is signed again, which this node does [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires: Option<Duration>,
}

pub(super) async fn run(face: &Face, dir: &NodeDir, client: &Client, command: Command) -> Outcome {
    match command {
        Command::Set(arguments) => set(face, dir, client, arguments).await,
        Command::Ls { appliance } => list(face, client, appliance).await,
        Command::Show { channel } => {
            let shown: ChannelShown = client.get(&format!("channels/{}", segment(&channel))).await?;
            face.print(&shown, |page| describe(page, &shown))
        }
    }
}

async fn set(face: &Face, dir: &NodeDir, client: &Client, arguments: SetArguments) -> Outcome {
    let signing = Signing::prepare(dir, client, "channel", arguments.keys)?;
    let request = SetChannelRequest {
        appliance: arguments.appliance,
        channel: arguments.channel.to_string(),
        release: arguments.release,
        keys: signing.names(),
        expires_after_seconds: arguments.expires.map(|expires| expires.as_secs()),
    };
    let recorded: Recorded = signing.during(client.post("channels", &request)).await?;
    if !signing.node_has_all() {
        face.note(
            "the node cannot sign this head again by itself, so the channel freezes when it expires; let a key that the \
             node has move it: rialto delegate NAME --key KEY",
        );
    }
    face.print(&recorded, |page| page.line(Cell::new(recorded.record, Tone::Strong)))
}

async fn list(face: &Face, client: &Client, appliance: Option<String>) -> Outcome {
    let query = appliance.map(|appliance| format!("?appliance={}", segment(&appliance))).unwrap_or_default();
    let channels: Vec<ChannelShown> = client.get(&format!("channels{query}")).await?;
    face.print(&channels, |page| {
        let rows = channels.iter().map(|channel| {
            let release = channel.version.clone().or_else(|| Some(channel.release?.to_string()));
            [title(channel).into(), worth(channel), release.unwrap_or_default().into(), because(channel).into()]
        });
        page.table(["CHANNEL", "STATE", "POINTS AT", "BECAUSE"], rows.collect());
    })
}

fn describe(page: &mut Page, channel: &ChannelShown) {
    page.line(Cell::new(title(channel), Tone::Strong));
    let optional = |text: &Option<String>| Cell::from(text.clone().unwrap_or_default());
    let id = |id: Option<String>| Cell::from(id.unwrap_or_default());
    let until = channel.expires.as_ref().map(|expires| match channel.frozen_seconds {
        Some(seconds) => format!("{expires} ({} ago)", span(seconds.cast_signed())),
        None => expires.clone(),
    });
    page.fields([
        ("state", worth(channel)),
        ("because", channel.because.join("; ").into()),
        ("points at", id(channel.release.map(|release| release.to_string()))),
        ("version", optional(&channel.version)),
        ("record", id(channel.record.map(|record| record.to_string()))),
        (
            "number",
            if channel.record.is_some() { format!("{}.{}", channel.epoch, channel.sequence) } else { String::new() }
                .into(),
        ),
        ("signed by", signers(&channel.signed_by).into()),
        (
            "signed",
            channel.issued.as_ref().map(|issued| format!("{issued} ({} ago)", age(issued))).unwrap_or_default().into(),
        ),
        ("expires", optional(&until)),
        ("moved by", movers(&channel.movers).into()),
        ("signed again", optional(&channel.renews)),
    ]);
    if let [one, other] = channel.proof.as_slice() {
        page.heading("two heads that contradict each other");
        page.paragraph(&format!("{one}\n{other}"));
    }
}

/// One line for each channel that points at a release.
pub(super) fn describe_all(page: &mut Page, channels: &[ChannelShown]) {
    page.heading("channels that point at it");
    let rows = channels.iter().map(|channel| [(&channel.channel).into(), worth(channel), because(channel).into()]);
    page.table(["CHANNEL", "STATE", "BECAUSE"], rows.collect());
}

fn title(channel: &ChannelShown) -> String {
    format!("{}/{}:{}", channel.publisher, channel.name, channel.channel)
}

fn worth(channel: &ChannelShown) -> Cell {
    match (channel.state, channel.frozen_seconds) {
        (ChannelWorth::Fresh, _) => Cell::new("fresh", Tone::Good),
        (ChannelWorth::Frozen, Some(seconds)) => {
            Cell::new(format!("frozen for {}", span(seconds.cast_signed())), Tone::Warn)
        }
        (ChannelWorth::Frozen, None) => Cell::new("frozen", Tone::Warn),
        (ChannelWorth::Refused, _) => Cell::new("refused", Tone::Bad),
    }
}

/// Until when it is fresh, or why it is not.
fn because(channel: &ChannelShown) -> String {
    match (channel.state, &channel.expires) {
        (ChannelWorth::Fresh, Some(expires)) => format!("until {expires}"),
        _ => channel.because.join("; "),
    }
}

fn movers(movers: &Movers) -> String {
    let keys = signers(&movers.keys);
    match (movers.keys.len(), &movers.delegation) {
        (0, _) => "nobody".into(),
        (_, None) => format!("{keys}, its publisher's own key"),
        (1, Some(record)) => format!("{keys}, until {} (record {record})", movers.expires.clone().unwrap_or_default()),
        (_, Some(record)) => format!(
            "{} of {keys}, until {} (record {record})",
            movers.threshold,
            movers.expires.clone().unwrap_or_default()
        ),
    }
}

fn signers(signers: &[SignerShown]) -> String {
    signers.iter().map(|signer| signer.name.as_str()).collect::<Vec<_>>().join(", ")
}
