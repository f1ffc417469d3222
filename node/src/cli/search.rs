//! `rialto search [WORDS]`: the releases this site knows.

use std::time::Duration;

use clap::{Args, ValueEnum};
use rialto_web::api::{ApiError, FacetCount, ReleaseSummary, SearchPage, VerdictKind};

use super::output::{Cell, Face, Outcome, Tone, span};
use crate::client::{Client, segment};
use crate::units::parse_duration;

/// Characters of a release's id in a list: more than the 12 that are enough where they are unique.
const SHOWN_ID: usize = 20;

/// What to look for.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Words, each of which must begin a word of name, publisher, version, summary, description or tags
    words: Vec<String>,
    /// Only of this publisher: a petname, or a fingerprint (~…)
    #[arg(long, value_name = "NAME")]
    publisher: Option<String>,
    /// Only with this tag
    #[arg(long)]
    tag: Option<String>,
    /// Only for this architecture: x86_64 or aarch64
    #[arg(long)]
    arch: Option<String>,
    /// Only those issued lately, for example 30d
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    within: Option<Duration>,
    /// Only releases with this verdict
    #[arg(long, value_enum)]
    verdict: Option<Verdict>,
    /// How many to skip
    #[arg(long, default_value_t = 0)]
    offset: usize,
    /// How many to list, at most 200
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
    limit: u16,
    /// Which page to list, instead of --offset
    #[arg(long, default_value_t = 1, conflicts_with = "offset", value_parser = clap::value_parser!(u32).range(1..))]
    page: u32,
    /// Also say how many there are of each publisher, tag, architecture and verdict
    #[arg(long)]
    facets: bool,
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
    let (path, offset) = address(&arguments);
    let is_narrowed = !arguments.words.is_empty()
        || arguments.verdict.is_some()
        || arguments.within.is_some()
        || [&arguments.publisher, &arguments.tag, &arguments.arch].iter().any(|value| value.is_some());
    let found: SearchPage = client.get(&path).await?;
    if arguments.page > 1 && !found.is_exact {
        // How many of the pages before fit is not known: what was not judged is not counted.
        return Err(ApiError::usage("so many releases fit the words that pages by verdict cannot be counted")
            .with_hint("go on with --offset, as the first page says; or give more words"));
    }
    face.print(&found, |page| {
        if found.releases.is_empty() && found.next.is_none() {
            return page.line(match (is_narrowed, offset) {
                (false, 0) => "no releases yet: they come from peers (rialto peers), or from here (rialto publish)",
                _ => "no release fits",
            });
        }
        page.table(
            ["VERDICT", "RELEASE", "ID", "AGE", "SIZE", "HERE", "SUMMARY"],
            found.releases.iter().map(row).collect(),
        );
        if arguments.facets {
            let facets = &found.facets;
            let sorts = [
                ("publisher", &facets.publishers),
                ("tag", &facets.tags),
                ("architecture", &facets.archs),
                ("verdict", &facets.verdicts),
            ];
            for (sort, counts) in sorts.into_iter().filter(|(_, counts)| !counts.is_empty()) {
                page.heading(format!("by {sort}"));
                page.table(["HOW MANY", "WHICH"], counts.iter().map(counted).collect());
            }
        }
        if let Some(next) = found.next {
            let more = match found.is_exact {
                true => format!("{} more: --offset {next}", found.total.saturating_sub(next)),
                false => format!("more, among {} that were not judged yet: --offset {next}", found.total - next),
            };
            page.line(Cell::new(more, Tone::Faint));
        }
    })
}

/// What to ask for, and how many that skips.
fn address(arguments: &Arguments) -> (String, usize) {
    let limit = usize::from(arguments.limit);
    let pages = usize::try_from(arguments.page - 1).unwrap_or(usize::MAX);
    let offset = arguments.offset.max(pages.saturating_mul(limit));
    let mut path = format!("releases?q={}", segment(&arguments.words.join(" ")));
    let verdict = arguments.verdict.map(|verdict| VerdictKind::from(verdict).as_str().to_owned());
    let within = arguments.within.map(|within| within.as_secs().to_string());
    for (name, value) in [
        ("publisher", &arguments.publisher),
        ("tag", &arguments.tag),
        ("arch", &arguments.arch),
        ("verdict", &verdict),
        ("within", &within),
    ] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", segment(value)));
        }
    }
    path.push_str(&format!("&offset={offset}&limit={limit}"));
    (path, offset)
}

fn counted(facet: &FacetCount) -> [Cell; 2] {
    [Cell::number(facet.count), (&facet.value).into()]
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
