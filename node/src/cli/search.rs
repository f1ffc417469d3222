//! `rialto search [WORDS]`: the releases this site knows.

use clap::{Args, ValueEnum};
use rialto_web::api::{ReleaseSummary, SearchPage, VerdictKind};

use super::output::{Cell, Face, Outcome, Tone, span};
use crate::client::{Client, segment};

/// Characters of a release's id in a list: more than the 12 that are enough where they are unique.
const SHOWN_ID: usize = 20;

/// What to look for.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Words that must all occur in name, publisher, summary, description or tags
    words: Vec<String>,
    /// Only releases with this verdict
    #[arg(long, value_enum)]
    verdict: Option<Verdict>,
    /// How many to skip
    #[arg(long, default_value_t = 0)]
    offset: usize,
    /// How many to list, at most 200
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
    limit: u16,
}

/// A verdict, as an option.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Verdict {
    Accept,
    Hold,
    Reject,
}

impl From<Verdict> for VerdictKind {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Accept => Self::Accept,
            Verdict::Hold => Self::Hold,
            Verdict::Reject => Self::Reject,
        }
    }
}

pub(super) async fn run(face: &Face, client: &Client, arguments: Arguments) -> Outcome {
    let verdict =
        arguments.verdict.map_or(String::new(), |verdict| format!("&verdict={}", VerdictKind::from(verdict).as_str()));
    let is_narrowed = !arguments.words.is_empty() || arguments.verdict.is_some();
    let words = segment(&arguments.words.join(" "));
    let path = format!("releases?q={words}{verdict}&offset={}&limit={}", arguments.offset, arguments.limit);
    let found: SearchPage = client.get(&path).await?;
    face.print(&found, |page| {
        if found.releases.is_empty() {
            return page.line(match (is_narrowed, arguments.offset) {
                (false, 0) => "no releases yet: they come from peers (rialto peers), or from here (rialto publish)",
                _ => "no release fits",
            });
        }
        page.table(
            ["VERDICT", "RELEASE", "ID", "AGE", "SIZE", "HERE", "SUMMARY"],
            found.releases.iter().map(row).collect(),
        );
        let last = arguments.offset + found.releases.len();
        if last < found.total {
            page.line(Cell::new(format!("{} more: --offset {last}", found.total - last), Tone::Faint));
        }
    })
}

fn row(release: &ReleaseSummary) -> [Cell; 7] {
    let title = format!("{}/{}@{}", release.publisher, release.name, release.version);
    let tone = if release.publisher_is_known { Tone::Strong } else { Tone::Plain };
    [
        Cell::verdict(release.verdict),
        Cell::new(title, tone),
        release.release.to_string().chars().take(SHOWN_ID).collect::<String>().into(),
        Cell::number(span(release.age_days.saturating_mul(86_400))),
        Cell::size(release.bytes),
        if release.is_fetched { "yes" } else { "" }.into(),
        (&release.summary).into(),
    ]
}
