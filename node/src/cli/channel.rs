//! `rialto channel`: moving names that point at releases.

use std::time::Duration;

use clap::{Args, Subcommand};
use rialto_protocol::bounded::Name;
use rialto_protocol::ids::RecordId;
use rialto_web::api::{
    ApiError, ChannelShown, ChannelWorth, CosignRequest, Cosigned, Movers, Recorded, SetChannelRequest, SignerShown,
    WaitingHead,
};

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
    /// Add a signature to a head that another site proposed, where several keys must sign
    Cosign(CosignArguments),
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
    /// Sign as some of the keys that must sign together, and let other sites add theirs (rialto channel cosign)
    #[arg(long)]
    propose: bool,
}

/// Which head is signed with others.
#[derive(Debug, Args)]
pub(super) struct CosignArguments {
    /// The channel
    #[arg(value_name = "PUBLISHER/NAME:CHANNEL")]
    channel: String,
    /// The key to sign with: a name of keys/, the file of a key, or agent:NAME for one of an ssh-agent
    #[arg(long = "key", value_name = "KEY", required_unless_present = "stop")]
    keys: Vec<KeyChoice>,
    /// The head, where not the highest is meant that waits: its record, as rialto channel show says it
    #[arg(long, value_name = "RECORD")]
    record: Option<RecordId>,
    /// Let this node sign renewals of the same release from now on, as long as none lasts longer than this one
    #[arg(long)]
    renewals: bool,
    /// Sign no more renewals
    #[arg(long, conflicts_with_all = ["keys", "record", "renewals"])]
    stop: bool,
}

pub(super) async fn run(face: &Face, dir: &NodeDir, client: &Client, command: Command) -> Outcome {
    match command {
        Command::Set(arguments) => set(face, dir, client, arguments).await,
        Command::Cosign(arguments) => cosign(face, dir, client, arguments).await,
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
        propose: arguments.propose,
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

async fn cosign(face: &Face, dir: &NodeDir, client: &Client, arguments: CosignArguments) -> Outcome {
    let title = &arguments.channel;
    if arguments.stop {
        let request = CosignRequest { channel: title.clone(), record: None, keys: Vec::new(), renewals: false };
        let cosigned: Cosigned = client.post("channels/cosign", &request).await?;
        return face.print(&cosigned, |page| page.line(format!("renewals of {title} are not signed here any more")));
    }
    let shown: ChannelShown = client.get(&format!("channels/{}", segment(title))).await?;
    let wanted = |head: &&WaitingHead| match &arguments.record {
        Some(record) => head.record == *record,
        None => head.because.is_none(),
    };
    let mut found = shown.waiting.iter().filter(wanted);
    let first = found.next();
    if let Some(other) = found.find(|head| first.is_some_and(|first| first.release != head.release)) {
        return Err(ApiError::usage(format!("heads of {title} wait that point at different releases"))
            .with_hint(format!(
                "say which: --record {} for release {}, --record {} for release {}; rialto channel show {title} has more",
                first.map(|first| first.record.to_string()).unwrap_or_default(),
                first.map(|first| first.release.to_string()).unwrap_or_default(),
                other.record,
                other.release
            )));
    }
    let record = match (first, arguments.record) {
        (Some(head), _) => {
            // What is signed is said before it is.
            face.note(format!("signing this head of {}:\n{}", title, lines_of(head)));
            head.record
        }
        (None, Some(record)) => record,
        (None, None) => {
            let why = shown.waiting.first().and_then(|head| head.because.clone());
            let none = ApiError::not_found(format!("no head of {title} waits for signatures here"));
            return Err(match why {
                Some(why) => none.with_hint(format!("one does that nobody should sign: {why}")),
                None => none.with_hint("another site proposes one with: rialto channel set --propose"),
            });
        }
    };
    let signing = Signing::prepare(dir, client, "channel", arguments.keys)?;
    let request = CosignRequest {
        channel: title.clone(),
        record: Some(record),
        keys: signing.names(),
        renewals: arguments.renewals,
    };
    let cosigned: Cosigned = signing.during(client.post("channels/cosign", &request)).await?;
    face.print(&cosigned, |page| {
        page.line(Cell::new(record, Tone::Strong));
        page.line(format!("signed by {} of {}", cosigned.signed, cosigned.threshold));
    })
}

/// What a head says, for who is to sign it.
fn lines_of(head: &WaitingHead) -> String {
    let version = head.version.as_deref().map(|version| format!(" ({version})")).unwrap_or_default();
    format!(
        "  points at  {}{version}\n  number     {}.{}\n  expires    {}\n  signed by  {}, {} of {}\n  record     {}",
        head.release,
        head.epoch,
        head.sequence,
        head.expires,
        signers(&head.signed_by),
        head.signed_by.len(),
        head.threshold,
        head.record
    )
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
    if channel.cosigns {
        page.line("this node signs renewals of it with others");
    }
    if !channel.waiting.is_empty() {
        page.heading("heads that wait for signatures");
        let rows = channel.waiting.iter().map(|head| {
            [
                format!("{}.{}", head.epoch, head.sequence).into(),
                head.version.clone().unwrap_or_else(|| head.release.to_string()).into(),
                format!("{} of {} ({})", head.signed_by.len(), head.threshold, signers(&head.signed_by)).into(),
                signers(&head.wanted).into(),
                (&head.expires).into(),
                head.record.to_string().into(),
                head.because.clone().unwrap_or_default().into(),
            ]
        });
        page.table(["NUMBER", "POINTS AT", "SIGNED BY", "WANTED", "EXPIRES", "RECORD", "DO NOT SIGN"], rows.collect());
    }
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
