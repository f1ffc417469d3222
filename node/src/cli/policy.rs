//! `rialto policy`: whether the file can be read, what it says of a release, what it said, and what another one would say.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use jiff::Timestamp;
use rialto_web::api::{ApiError, Explanation, PolicyChange, PolicyDiff, PolicyDiffRequest, VerdictKind};
use serde_json::json;

use super::output::{Cell, Face, Outcome, Page, Tone, count};
use crate::client::{Client, segment};
use crate::dir::{NodeDir, read_bounded};
use crate::trust::{Expectations, MAX_EXPECTATIONS_BYTES, REFERENCE, Tried, read_policy};

/// What to do with the policy.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read a policy file aloud, or say where its mistake is
    Check {
        /// The file [default: policy.toml of the node's directory]
        file: Option<PathBuf>,
    },
    /// Try a policy on releases that a file imagines, and exit 1 where a verdict is not the one that the file expects
    Test {
        /// Expectations, in TOML: `rialto policy reference` says how they are written
        file: PathBuf,
        /// The policy to try [default: policy.toml of the node's directory]
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// Print the reference of the policy file, in Markdown
    Reference,
    /// Say what policy says of a release, and why; exits 0 for every verdict
    Explain {
        /// A record id, a unique beginning of at least 12 characters, PUBLISHER/NAME@VERSION or PUBLISHER/NAME:CHANNEL
        release: String,
    },
    /// Make a logged decision again, and exit 1 where it comes out otherwise; or judge releases as at another time
    Replay(super::replay::Arguments),
    /// List the releases that another policy would admit, hold or reject, before it is in force
    Diff {
        /// The policy to come, after that of now where that is not the one in force
        #[arg(value_name = "[OLD] NEW", required = true, num_args = 1..=2)]
        files: Vec<PathBuf>,
    },
}

/// Reads a policy file and says in sentences what it means. The node need not run.
pub(super) fn check(face: &Face, dir: &NodeDir, file: Option<PathBuf>) -> Outcome {
    let path = file.unwrap_or_else(|| dir.policy_file());
    let policy = read_policy(&path)?;
    let summary = policy.summary();
    let value = json!({"file": path.display().to_string(), "hash": policy.hash(), "summary": summary});
    face.print(&value, |page| {
        page.line(Cell::new(format!("{} can be read. It says:", path.display()), Tone::Good));
        page.paragraph(&summary);
    })
}

/// Tries a policy on the cases of a file. The node need not run.
pub(super) fn test(face: &Face, dir: &NodeDir, file: &Path, policy: Option<PathBuf>) -> Outcome {
    let path = policy.unwrap_or_else(|| dir.policy_file());
    let policy = read_policy(&path)?;
    let text = read_bounded(file, MAX_EXPECTATIONS_BYTES as u64).map_err(|error| {
        let message = format!("cannot read {}: {error}", file.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => ApiError::not_found(message),
            _ => ApiError::failed(message),
        }
    })?;
    let expectations = Expectations::parse(&text, &policy).map_err(|error| {
        ApiError::failed(format!("{}: {error}", file.display()))
            .with_hint("rialto policy reference says what a file of expectations may say, with examples")
    })?;
    let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
    let tried = expectations.run(now).map_err(|error| ApiError::failed(format!("{}: {error}", file.display())))?;
    let failed = tried.iter().filter(|tried| !tried.is_as_expected).count();
    let idle: Vec<&str> = expectations.idle_rules(&tried).collect();
    let value = json!({
        "file": file.display().to_string(), "policy": path.display().to_string(), "hash": policy.hash(),
        "passed": tried.len() - failed, "failed": failed, "idle_rules": idle, "cases": tried,
    });
    face.print(&value, |page| {
        let width = tried.iter().map(|tried| tried.title.chars().count()).max().unwrap_or(0);
        tried.iter().for_each(|tried| tell(page, tried, width));
        if !idle.is_empty() {
            page.line(Cell::new(format!("no case was decided by: {}", idle.join(", ")), Tone::Faint));
        }
        if failed == 0 {
            page.line(Cell::new(format!("{}, all as expected", count(tried.len() as u64, "case")), Tone::Good));
        }
    })?;
    match failed {
        0 => Ok(()),
        _ => Err(ApiError::failed(format!(
            "of {}, {failed} came out otherwise than expected from {}",
            count(tried.len() as u64, "case"),
            path.display()
        ))),
    }
}

/// A line for a case; where it is not as expected, what was, what came, and why.
fn tell(page: &mut Page, tried: &Tried, width: usize) {
    let mark = if tried.is_as_expected { Cell::new("ok", Tone::Good) } else { Cell::new("FAILED", Tone::Bad) };
    let came = format!("{} by '{}'", tried.verdict.as_str(), tried.rule);
    page.columns([
        (mark, 6),
        (Cell::new(&tried.title, Tone::Plain), width),
        (Cell::new(came, tried.verdict.into()), 0),
    ]);
    if tried.is_as_expected {
        return;
    }
    let expected = &tried.expected;
    let mut wanted = vec![expected.verdict.as_str().to_owned()];
    wanted.extend(expected.rule.as_ref().map(|rule| format!("by '{rule}'")));
    wanted.extend(expected.missing.as_ref().map(|missing| match missing.is_empty() {
        true => "with nothing missing".to_owned(),
        false => format!("for want of {}", missing.iter().cloned().collect::<Vec<_>>().join(" and ")),
    }));
    page.paragraph(&format!("line {}: expected {}", tried.line, wanted.join(" ")));
    page.paragraph(&format!("because {}", tried.because));
    let missing = tried.missing();
    if !missing.is_empty() {
        page.paragraph(&format!("not met: {}", missing.into_iter().collect::<Vec<_>>().join(" and ")));
    }
    // What was to be missing and is not has stood in no sentence yet.
    let is_expected = |name: &String| expected.missing.as_ref().is_some_and(|missing| missing.contains(name));
    for requirement in tried.requirements.iter().filter(|requirement| requirement.met && is_expected(&requirement.name))
    {
        page.paragraph(&format!("met: {}: {}", requirement.name, requirement.because));
    }
}

/// Prints the reference. The node need not run.
pub(super) fn reference(face: &Face) -> Outcome {
    face.print(&json!({"reference": REFERENCE}), |page| {
        REFERENCE.lines().for_each(|line| page.line(line));
    })
}

pub(super) async fn explain(face: &Face, client: &Client, release: &str) -> Outcome {
    let explanation: Explanation = client.get(&format!("releases/{}/explain", segment(release))).await?;
    face.print(&explanation, |page| describe(page, &explanation))
}

/// The verdict and its reasons, as `show` and `policy explain` tell them.
pub(super) fn describe(page: &mut Page, explanation: &Explanation) {
    page.heading(format!("verdict: {}", explanation.verdict.as_str()));
    page.fields([
        ("rule", (&explanation.rule).into()),
        ("because", Cell::new(&explanation.because, explanation.verdict.into())),
    ]);
    if !explanation.requirements.is_empty() {
        let rows = explanation.requirements.iter().map(|requirement| {
            let met = if requirement.met { Cell::new("met", Tone::Good) } else { Cell::new("not met", Tone::Warn) };
            [(&requirement.name).into(), met, (&requirement.because).into()]
        });
        page.table(["REQUIREMENT", "", "BECAUSE"], rows.collect());
    }
    if explanation.verdict == VerdictKind::Accept {
        for image in &explanation.images {
            page.fields([("may boot", image.to_string().into())]);
        }
    }
}

pub(super) async fn diff(face: &Face, client: &Client, files: &[PathBuf]) -> Outcome {
    let paths = files.iter().map(|file| super::existing(file)).collect::<Outcome<Vec<_>>>()?;
    let request = match paths.as_slice() {
        [old, new] => PolicyDiffRequest { old: Some(old.clone()), new: new.clone() },
        [new] => PolicyDiffRequest { old: None, new: new.clone() },
        _ => return Err(ApiError::usage("name one file, or two")),
    };
    let diff: PolicyDiff = client.post("policy/diff", &request).await?;
    face.print(&diff, |page| {
        if diff.changed == 0 {
            return page.line(format!("of {} releases, both say the same", diff.releases));
        }
        let becoming = |wanted: VerdictKind| diff.changes.iter().filter(|change| change.new == wanted).count();
        for (verdict, what) in [
            (VerdictKind::Accept, "would be admitted"),
            (VerdictKind::Hold, "would be held"),
            (VerdictKind::Reject, "would be rejected"),
        ] {
            if becoming(verdict) > 0 {
                page.heading(format!("{} {what}", becoming(verdict)));
                page.table(["WAS", "RELEASE", "RUNS AS", "BECAUSE"], rows(&diff, verdict));
            }
        }
        let hidden = diff.changed - diff.changes.len();
        if hidden > 0 {
            page.line(Cell::new(format!("{hidden} more change; the newest are shown"), Tone::Faint));
        }
    })
}

fn rows(diff: &PolicyDiff, verdict: VerdictKind) -> Vec<[Cell; 4]> {
    let of_it = diff.changes.iter().filter(|change| change.new == verdict);
    let row = |change: &PolicyChange| {
        [
            Cell::verdict(change.old),
            Cell::new(&change.title, Tone::Strong),
            change.instances.join(" ").into(),
            (&change.because).into(),
        ]
    };
    of_it.map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rialto_web::api::ErrorCode;

    use super::*;

    #[test]
    fn a_policy_is_checked_without_a_node() {
        let temp = tempfile::tempdir().unwrap();
        let dir = NodeDir::new(temp.path()).unwrap();
        let face = Face::new(true);
        assert_eq!(check(&face, &dir, None).unwrap_err().code, ErrorCode::NotFound);
        fs::write(dir.policy_file(), crate::trust::starter_policy("demo", "uni")).unwrap();
        check(&face, &dir, None).unwrap();
        let other = temp.path().join("other.toml");
        fs::write(&other, "[default]\nthen = \"accpet\"\n").unwrap();
        let refused = check(&face, &dir, Some(other)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Failed);
        assert!(refused.message.contains("other.toml: line 2, column "), "{refused}");
    }
}
