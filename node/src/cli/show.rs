//! `rialto show RELEASE`: everything about one release.

use clap::Args;
use rialto_web::api::{HistoryKind, ReleaseDetails, SignerShown, StatementShown};

use super::output::{Cell, Face, Outcome, Page, Tone, age, count};
use super::{advisory, channel, policy};
use crate::client::{Client, segment};
use crate::units::ByteSize;

/// Which release.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A record id, a unique beginning of at least 12 characters, PUBLISHER/NAME@VERSION or PUBLISHER/NAME:CHANNEL
    release: String,
    /// What became of it: signed, endorsed, revoked, put into channels, and when this site learnt of it from whom
    #[arg(long)]
    history: bool,
}

pub(super) async fn run(face: &Face, client: &Client, arguments: Arguments) -> Outcome {
    let details: ReleaseDetails = client.get(&format!("releases/{}", segment(&arguments.release))).await?;
    match arguments.history {
        true => face.print(&details.history, |page| describe_history(page, &details)),
        false => face.print(&details, |page| describe(page, &details)),
    }
}

fn describe(page: &mut Page, details: &ReleaseDetails) {
    let release = &details.summary;
    page.line(Cell::new(format!("{}/{}@{}", release.publisher, release.name, release.version), Tone::Strong));
    page.line(&release.summary);
    page.fields([
        ("release", release.release.to_string().into()),
        ("signed by", signers(&details.signed_by).into()),
        ("publisher", (&details.publisher_key).into()),
        ("issued", format!("{} ({} ago)", release.issued, age(&release.issued)).into()),
        ("expires", details.expires.clone().unwrap_or_default().into()),
        ("licence", details.licence.clone().unwrap_or_default().into()),
        ("homepage", details.homepage.clone().unwrap_or_default().into()),
        ("tags", release.tags.join(", ").into()),
        (
            "runs on",
            format!(
                "{}, {} vcpu, {} of memory, boots by {}",
                release.arch,
                details.vcpus,
                ByteSize(details.memory_bytes),
                details.boot
            )
            .into(),
        ),
        (
            "size",
            format!("{}, {}", ByteSize(release.bytes), if release.is_fetched { "fetched" } else { "not fetched" })
                .into(),
        ),
        ("held by", format!("{}, of this one and those connected", count(details.sites_holding, "site")).into()),
    ]);
    if let Some(description) = &details.description {
        page.heading("description");
        page.paragraph(description);
    }
    policy::describe(page, &details.explanation);
    if !details.channels.is_empty() {
        channel::describe_all(page, &details.channels);
    }
    if !details.advisories.is_empty() {
        advisory::describe_bearing(page, &details.advisories);
    }
    describe_statements(page, details);
    if !details.images.is_empty() {
        page.heading("images");
        let rows = details.images.iter().map(|image| {
            let state =
                if image.is_complete { Cell::new("complete", Tone::Good) } else { Cell::new("not here", Tone::Faint) };
            [
                (&image.role).into(),
                image.bytes.map_or_else(|| Cell::number("?"), Cell::size),
                state,
                Cell::from(image.image.to_string()),
            ]
        });
        page.table(["FOR", "LENGTH", "STATE", "IMAGE"], rows.collect());
    }
    if !details.context.is_empty() {
        page.heading("asked at deployment (--set NAME=VALUE)");
        let rows = details.context.iter().map(|input| {
            let default = match (&input.default, input.required) {
                (Some(default), _) => Cell::from(default),
                (None, true) => Cell::new("required", Tone::Warn),
                (None, false) => Cell::new("optional", Tone::Faint),
            };
            [
                Cell::from(&input.name),
                (&input.kind).into(),
                default,
                input.description.clone().unwrap_or_default().into(),
            ]
        });
        page.table(["NAME", "TYPE", "DEFAULT", "WHAT FOR"], rows.collect());
    }
}

fn describe_statements(page: &mut Page, details: &ReleaseDetails) {
    if !details.endorsements.is_empty() {
        page.heading("endorsements");
        let rows = details.endorsements.iter().map(|endorsement| {
            let state =
                if endorsement.is_void { Cell::new("void", Tone::Faint) } else { Cell::new("counts", Tone::Good) };
            let note = endorsement.statement.as_ref().map(of_statement).or_else(|| endorsement.note.clone());
            let note = note.unwrap_or_default();
            let by = match &endorsement.statement {
                Some(_) if endorsement.signed_by.is_empty() => "nobody this site knows".to_owned(),
                _ => signers(&endorsement.signed_by),
            };
            let is_unheard = endorsement.statement.as_ref().is_some_and(|said| said.problem.is_some());
            let state = match endorsement.signed_by.is_empty() || is_unheard {
                true => Cell::new("counts for nothing", Tone::Faint),
                false => state,
            };
            [by.into(), state, Cell::number(age(&endorsement.issued)), (&endorsement.predicate).into(), note.into()]
        });
        page.table(["BY", "STATE", "AGE", "WHAT", "NOTE"], rows.collect());
    }
    if !details.revocations.is_empty() {
        page.heading("revocations");
        let rows = details.revocations.iter().map(|revocation| {
            let state =
                if revocation.counts { Cell::new("counts", Tone::Bad) } else { Cell::new("an opinion", Tone::Warn) };
            [
                signers(&revocation.signed_by).into(),
                state,
                Cell::number(age(&revocation.issued)),
                (&revocation.reason).into(),
            ]
        });
        page.table(["BY", "STATE", "AGE", "REASON"], rows.collect());
    }
}

/// What a statement says, in one line.
fn of_statement(statement: &StatementShown) -> String {
    let fields = statement.fields.iter().map(|field| format!("{}: {}", field.name, field.value));
    let head = statement.title.clone().into_iter();
    let problem = statement.problem.iter().cloned();
    head.chain(problem).chain(fields).collect::<Vec<_>>().join("; ")
}

fn describe_history(page: &mut Page, details: &ReleaseDetails) {
    let release = &details.summary;
    page.line(Cell::new(format!("{}/{}@{}", release.publisher, release.name, release.version), Tone::Strong));
    let rows = details.history.iter().map(|event| {
        let tone = match event.kind {
            HistoryKind::Revoked => Tone::Bad,
            HistoryKind::Signed | HistoryKind::CoSigned | HistoryKind::Endorsed | HistoryKind::Channel => Tone::Plain,
        };
        let what = match event.what.as_str() {
            "" => event.kind.as_str().to_owned(),
            what => format!("{}: {what}", event.kind.as_str()),
        };
        [
            event.arrived.as_deref().unwrap_or("unknown").into(),
            Cell::new(what, tone),
            signers(&event.signed_by).into(),
            (&event.issued).into(),
            event.from.as_deref().unwrap_or("this site").into(),
        ]
    });
    page.table(["KNOWN HERE", "WHAT", "BY", "ISSUED", "FROM"], rows.collect());
}

fn signers(signers: &[SignerShown]) -> String {
    signers.iter().map(|signer| signer.name.as_str()).collect::<Vec<_>>().join(", ")
}
