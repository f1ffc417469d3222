//! `rialto decisions`: what this site decided, and whether that is still what was written down. The node need not run.

use std::collections::VecDeque;
use std::io;

use clap::{Args, Subcommand};
use rialto_web::api::{ApiError, ErrorCode};
use serde_json::{Value, json};

use super::output::{Cell, Face, Outcome, Tone};
use crate::dir::NodeDir;
use crate::trust::{DecisionError, DecisionLog, Line, LineHash};

/// Characters of a release's id in a list: more than the 12 that are enough where they are unique.
const SHOWN_ID: usize = 20;

/// What to list, or to check.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// How many to list, the latest
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// What to do with the log.
#[derive(Debug, Subcommand)]
enum Command {
    /// Read the whole log, and find a line that was changed, removed or added since it was written
    Verify {
        /// A head that was noted before: the log must have a line with this hash, and all before it be as it was
        #[arg(long)]
        head: Option<LineHash>,
    },
}

pub(super) fn run(face: &Face, dir: &NodeDir, arguments: Arguments) -> Outcome {
    match arguments.command {
        Some(Command::Verify { head }) => verify(face, dir, head),
        None => list(face, dir, arguments.limit as usize),
    }
}

fn verify(face: &Face, dir: &NodeDir, noted: Option<LineHash>) -> Outcome {
    let found = DecisionLog::verify(dir.decisions_file(), noted).map_err(unreadable)?;
    let head = found.head.map(|head| head.to_string());
    let value = json!({"decisions": found.decisions, "unchained": found.unchained, "head": head});
    face.print(&value, |page| {
        page.line(Cell::new(
            format!("{} decisions, each as it was written after the one before", found.decisions),
            Tone::Good,
        ));
        if found.unchained > 0 {
            let what = format!(
                "the first {} were written by an earlier version, and nothing vouches for them",
                found.unchained
            );
            page.line(Cell::new(what, Tone::Warn));
        }
        if let Some(head) = &head {
            page.fields([("head", head.as_str().into())]);
            page.line(Cell::new(
                "note it where this log is not: rialto decisions verify --head HEAD then tells this log from another",
                Tone::Faint,
            ));
        }
    })
}

fn list(face: &Face, dir: &NodeDir, limit: usize) -> Outcome {
    let (mut latest, mut damaged) = (VecDeque::new(), 0);
    for line in DecisionLog::read(dir.decisions_file()).map_err(unreadable)? {
        match line {
            Ok(line) => latest.push_back(line),
            Err(DecisionError::Damaged { .. }) => damaged += 1,
            Err(error) => return Err(unreadable(error)),
        }
        if latest.len() > limit {
            latest.pop_front();
        }
    }
    let values: Vec<Value> = latest.iter().map(value).collect();
    face.print(&values, |page| {
        if latest.is_empty() {
            page.line("nothing was decided yet: a decision is what fetch and deploy act on");
        } else {
            page.table(["", "TIME", "FOR", "VERDICT", "RULE", "RELEASE", "BECAUSE"], latest.iter().map(row).collect());
        }
        if damaged > 0 {
            let what =
                format!("{damaged} lines are damaged and not shown; rialto decisions verify says which is the first");
            page.line(Cell::new(what, Tone::Warn));
        }
    })
}

fn row(line: &Line) -> [Cell; 7] {
    let decision = &line.decision;
    [
        Cell::number(line.number.to_string()),
        (&decision.time).into(),
        decision.action.as_str().into(),
        Cell::verdict(decision.verdict),
        (&decision.rule).into(),
        decision.release.to_string().chars().take(SHOWN_ID).collect::<String>().into(),
        (&decision.because).into(),
    ]
}

fn value(line: &Line) -> Value {
    let mut value = json!(line.decision);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("number".to_owned(), json!(line.number));
        fields.insert("hash".to_owned(), json!(line.hash.to_string()));
    }
    value
}

fn unreadable(error: DecisionError) -> ApiError {
    match &error {
        DecisionError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            ApiError::not_found("there is no decision log: no node has run in this directory yet")
        }
        DecisionError::Damaged { .. } | DecisionError::Unchained { .. } | DecisionError::NoSuchHead { .. } => {
            ApiError::new(ErrorCode::Failed, error.to_string())
                .with_hint("compare it with a backup of the log; the node goes on writing behind what is there")
        }
        _ => ApiError::failed(error.to_string()),
    }
}
