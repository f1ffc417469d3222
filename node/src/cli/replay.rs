//! `rialto policy replay`: a decision made again, and verdicts as they would have been given at another time.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use jiff::Timestamp;
use rialto_web::api::{ApiError, ReleaseAt, Replay, ReplayAt, ReplayAtRequest};

use super::existing;
use super::output::{Cell, Face, Outcome, Page, Tone, count};
use super::policy::describe;
use crate::client::Client;

/// What to judge again.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("when").required(true).args(["decision", "at"])))]
pub(super) struct Arguments {
    /// A decision, by its number, as `rialto decisions` lists it: with the policy, the records and the clock of its day
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    decision: Option<u64>,
    /// A time, such as 2026-03-01T12:00:00Z, or in seconds since 1970: by the policy of then, on what had reached this site by then
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<Timestamp>,
    /// What to judge as at that time [default: all that was known then]
    #[arg(value_name = "RELEASE", conflicts_with = "decision")]
    releases: Vec<String>,
    /// Another policy than the one that was in force then
    #[arg(long, value_name = "FILE", conflicts_with = "decision")]
    policy: Option<PathBuf>,
}

pub(super) async fn run(face: &Face, client: &Client, arguments: Arguments) -> Outcome {
    match (arguments.decision, arguments.at) {
        (Some(number), _) => decision(face, client, number).await,
        (None, Some(time)) => at(face, client, time, arguments).await,
        (None, None) => Err(ApiError::usage("name a decision, or a time")),
    }
}

async fn decision(face: &Face, client: &Client, decision: u64) -> Outcome {
    let replay: Replay = client.get(&format!("decisions/{decision}/replay")).await?;
    face.print(&replay, |page| {
        page.line(Cell::new(
            format!("decision {decision}: {} {}, {}", replay.action, replay.title, replay.time),
            Tone::Strong,
        ));
        page.fields([
            ("decided then", Cell::verdict(replay.verdict)),
            ("by rule", (&replay.rule).into()),
            ("comes to now", Cell::verdict(replay.replayed.verdict)),
        ]);
        for id in &replay.missing {
            page.line(Cell::new(format!("  {id} was considered then, and is not at hand any more"), Tone::Warn));
        }
        match replay.is_same {
            true => page.line(Cell::new("the same verdict, by the same rule, for the same images", Tone::Good)),
            false => describe(page, &replay.replayed),
        }
    })?;
    match replay.is_same {
        true => Ok(()),
        false => Err(ApiError::failed(format!("decision {decision} comes out otherwise than it was logged"))
            .with_hint("rialto decisions verify says whether the log was changed; a program of another version may also judge otherwise")),
    }
}

async fn at(face: &Face, client: &Client, time: Timestamp, arguments: Arguments) -> Outcome {
    let policy = arguments.policy.as_deref().map(existing).transpose()?;
    let is_asked_by_name = !arguments.releases.is_empty();
    let request = ReplayAtRequest { at: time.to_string(), releases: arguments.releases, policy };
    let replay: ReplayAt = client.post("policy/replay", &request).await?;
    face.print(&replay, |page| {
        let tone = if replay.is_policy_certain { Tone::Plain } else { Tone::Warn };
        page.fields([
            ("at", (&replay.at).into()),
            ("policy", (&replay.policy).into()),
            ("", Cell::new(&replay.policy_because, tone)),
        ]);
        for note in &replay.notes {
            page.line(Cell::new(format!("note: {note}"), Tone::Faint));
        }
        match is_asked_by_name {
            true => replay.verdicts.iter().for_each(|verdict| tell(page, verdict)),
            false => list(page, &replay),
        }
    })
}

/// One release in full: what would have been said, as `policy explain` says it, and what is said now.
fn tell(page: &mut Page, verdict: &ReleaseAt) {
    page.heading(&verdict.title);
    describe(page, &verdict.then);
    for doubt in &verdict.doubts {
        page.line(Cell::new(format!("not certain: {doubt}"), Tone::Warn));
    }
    match verdict.is_same {
        true => page.line(format!("the same as now: {}", verdict.now.as_str())),
        false => page.line(Cell::new(
            format!("now the verdict is {}: {}", verdict.now.as_str(), verdict.now_because),
            verdict.now.into(),
        )),
    }
}

fn list(page: &mut Page, replay: &ReplayAt) {
    let all = count(replay.releases as u64, "release");
    page.line(format!("{all} were known then; of {} the verdict is another one now", replay.changed));
    let row = |verdict: &ReleaseAt| {
        let mark = if verdict.doubts.is_empty() { "" } else { "?" };
        [
            Cell::verdict(verdict.then.verdict),
            mark.into(),
            if verdict.is_same { "".into() } else { Cell::verdict(verdict.now) },
            Cell::new(&verdict.title, Tone::Strong),
            (&verdict.then.because).into(),
        ]
    };
    page.table(["THEN", "", "NOW", "RELEASE", "BECAUSE THEN"], replay.verdicts.iter().map(row).collect());
    let hidden = replay.releases - replay.verdicts.len();
    if hidden > 0 {
        page.line(Cell::new(format!("{hidden} more are not shown; name releases to see theirs"), Tone::Faint));
    }
    if replay.verdicts.iter().any(|verdict| !verdict.doubts.is_empty()) {
        page.line(Cell::new("? is not certain: name the release to see why", Tone::Faint));
    }
}

/// A time as RFC 3339 writes it, or in seconds since 1970.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    let expected = || "expected a time such as 2026-03-01T12:00:00Z, or seconds since 1970".to_owned();
    match text.parse::<i64>() {
        Ok(seconds) => Timestamp::from_second(seconds).map_err(|_| expected()),
        Err(_) => text.parse().map_err(|_| expected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        let noon = parse_time("2026-03-01T12:00:00Z").unwrap();
        assert_eq!(parse_time("1772366400"), Ok(noon));
        assert_eq!(parse_time("2026-03-01T13:00:00+01:00"), Ok(noon));
        for bad in ["", "yesterday", "2026-03-01", "12:00", "99999999999999999999"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
