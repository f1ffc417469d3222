//! `rialto advisory`: flaws of packages, said and heard.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use rialto_protocol::record::Severity;
use rialto_web::api::{
    AdvisedPackage, AdvisoriesPublished, AdvisoryShown, ApiError, BearingShown, PublishAdvisoryRequest,
};
use serde::Deserialize;

use super::existing;
use super::output::{Cell, Face, Outcome, Page, Tone, age};
use super::sign::{KeyChoice, Signing};
use crate::client::{Client, segment};
use crate::dir::{NodeDir, read_bounded};
use crate::strict_toml;

/// A file with an advisory is at most this long, in bytes: 64 packages with room to spare.
const MAX_FILE_BYTES: u64 = 48 * 1024;

/// What to do with advisories.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say that packages have a flaw, and in which version it is mended
    Publish(Box<PublishArguments>),
    /// List advisories of signers that policy names and of keys of this node, the latest first
    Ls(ListArguments),
    /// Show the advisories of one name, or on one package
    Show {
        /// Its name, a package, its record or a unique beginning of that of at least 12 characters
        about: String,
        /// Those of strangers, too
        #[arg(long)]
        strangers: bool,
    },
}

/// What is said: by a file, or with --id, --severity, --ecosystem and --package.
#[derive(Debug, Args)]
pub(super) struct PublishArguments {
    /// A TOML file: id, severity, summary, and a [[package]] with ecosystem, name and fixed for each
    #[arg(conflicts_with_all = ["id", "severity", "ecosystem", "package", "fixed", "summary"])]
    file: Option<PathBuf>,
    /// What it is called: DSA-5678-1, CVE-2026-1234
    #[arg(long, required_unless_present = "file")]
    id: Option<String>,
    /// How bad it is
    #[arg(long, required_unless_present = "file", value_parser = PossibleValuesParser::new(Severity::ALL.map(Severity::as_str)))]
    severity: Option<String>,
    /// Where the package comes from: debian-N, ubuntu-YY.MM, cargo, go, maven, npm, pypi or rubygems
    #[arg(long, required_unless_present = "file")]
    ecosystem: Option<String>,
    /// The package, as its ecosystem calls it; for a distribution, the source package will do
    #[arg(long, required_unless_present = "file")]
    package: Option<String>,
    /// The first version without the flaw; leave it out while there is none
    #[arg(long, value_name = "VERSION")]
    fixed: Option<String>,
    /// What it is about, for people
    #[arg(long, value_name = "TEXT")]
    summary: Option<String>,
    /// The key to sign with: a name of keys/, the file of a key, or agent:NAME for one of an ssh-agent
    #[arg(long, value_name = "KEY")]
    key: KeyChoice,
}

/// Which are listed.
#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Those of strangers, too
    #[arg(long)]
    strangers: bool,
}

/// What a file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    id: String,
    severity: String,
    summary: Option<String>,
    package: Vec<AdvisedPackage>,
}

pub(super) async fn run(face: &Face, dir: &NodeDir, client: &Client, command: Command) -> Outcome {
    match command {
        Command::Publish(arguments) => publish(face, dir, client, *arguments).await,
        Command::Ls(ListArguments { strangers }) => {
            let advisories: Vec<AdvisoryShown> = client.get(&format!("advisories?strangers={strangers}")).await?;
            face.print(&advisories, |page| match advisories.is_empty() {
                true => page.line("no advisories are known here"),
                false => table(page, &advisories),
            })
        }
        Command::Show { about, strangers } => {
            let path = format!("advisories?about={}&strangers={strangers}", segment(&about));
            let advisories: Vec<AdvisoryShown> = client.get(&path).await?;
            face.print(&advisories, |page| advisories.iter().for_each(|advisory| describe(page, advisory)))
        }
    }
}

async fn publish(face: &Face, dir: &NodeDir, client: &Client, arguments: PublishArguments) -> Outcome {
    let said = match &arguments.file {
        Some(path) => read(path)?,
        None => File {
            id: arguments.id.unwrap_or_default(),
            severity: arguments.severity.unwrap_or_default(),
            summary: arguments.summary,
            package: vec![AdvisedPackage {
                ecosystem: arguments.ecosystem.unwrap_or_default(),
                name: arguments.package.unwrap_or_default(),
                fixed: arguments.fixed,
            }],
        },
    };
    let severity = severity(&said.severity)?;
    let signing = Signing::prepare(dir, client, "advisory", [arguments.key])?;
    let request = PublishAdvisoryRequest {
        key: signing.name(),
        id: said.id,
        severity,
        summary: said.summary,
        packages: said.package,
    };
    let published: AdvisoriesPublished = signing.during(client.post("advisories", &request)).await?;
    face.print(&published, |page| {
        published.records.iter().for_each(|record| page.line(Cell::new(record, Tone::Strong)));
    })
}

fn read(path: &Path) -> Outcome<File> {
    existing(path)?;
    let text = read_bounded(path, MAX_FILE_BYTES)
        .map_err(|error| ApiError::usage(format!("{} is no advisory: {error}", path.display())))?;
    strict_toml::read(&text).map_err(|error| {
        ApiError::usage(format!("{}: {error}", path.display())).with_hint(
            "id, severity and [[package]] with ecosystem and name, at least; see rialto help advisory publish",
        )
    })
}

fn severity(text: &str) -> Outcome<Severity> {
    let words = Severity::ALL.map(Severity::as_str);
    Severity::ALL.into_iter().find(|severity| severity.as_str() == text).ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        let meant = strict_toml::nearest(&text.to_lowercase(), words);
        let hint =
            meant.map_or_else(|| format!("they are {}", words.join(", ")), |word| format!("did you mean {word}?"));
        ApiError::usage(format!("'{shown}' is no severity")).with_hint(hint)
    })
}

fn table(page: &mut Page, advisories: &[AdvisoryShown]) {
    let rows = advisories.iter().map(|advisory| {
        let state = if advisory.counts { Cell::new("counts", Tone::Good) } else { Cell::new("no", Tone::Faint) };
        [
            (&advisory.id).into(),
            severity_shown(advisory.severity),
            format!("{} ({})", advisory.package, advisory.ecosystem).into(),
            advisory.fixed.as_deref().unwrap_or("not yet").into(),
            by(advisory).into(),
            Cell::number(age(&advisory.issued)),
            state,
        ]
    });
    page.table(["ID", "SEVERITY", "PACKAGE", "FIXED IN", "BY", "AGE", "HEARD"], rows.collect());
}

fn describe(page: &mut Page, advisory: &AdvisoryShown) {
    page.line(Cell::new(format!("{} on {} ({})", advisory.id, advisory.package, advisory.ecosystem), Tone::Strong));
    page.fields([
        ("severity", severity_shown(advisory.severity)),
        ("fixed in", advisory.fixed.as_deref().unwrap_or("no version yet").into()),
        ("summary", advisory.summary.clone().unwrap_or_default().into()),
        ("signed by", by(advisory).into()),
        ("issued", format!("{} ({} ago)", advisory.issued, age(&advisory.issued)).into()),
        ("record", advisory.record.to_string().into()),
        ("not heard", advisory.because.clone().unwrap_or_default().into()),
    ]);
}

/// One line for each advisory that bears on a release.
pub(super) fn describe_bearing(page: &mut Page, bearing: &[BearingShown]) {
    page.heading("advisories that bear on it");
    let rows = bearing.iter().map(|BearingShown { advisory, package, doubt }| {
        [
            (&advisory.id).into(),
            severity_shown(advisory.severity),
            package.into(),
            advisory.fixed.as_deref().unwrap_or("not yet").into(),
            by(advisory).into(),
            doubt.clone().unwrap_or_default().into(),
        ]
    });
    page.table(["ID", "SEVERITY", "PACKAGE", "FIXED IN", "BY", "NOT SURE"], rows.collect());
}

fn severity_shown(severity: Severity) -> Cell {
    let tone = match severity {
        Severity::High | Severity::Critical => Tone::Bad,
        Severity::Medium => Tone::Warn,
        Severity::Low => Tone::Plain,
    };
    Cell::new(severity.as_str(), tone)
}

fn by(advisory: &AdvisoryShown) -> String {
    advisory.signed_by.iter().map(|signer| signer.name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_are_words_and_the_nearest_is_named() {
        assert_eq!(severity("critical").unwrap(), Severity::Critical);
        assert_eq!(severity("hihg").unwrap_err().hint.unwrap(), "did you mean high?");
        assert!(severity("terrible").unwrap_err().hint.unwrap().contains("low, medium, high, critical"));
    }

    #[test]
    fn a_file_is_read_strictly() {
        let text = "id = \"DSA-1\"\nseverity = \"high\"\n[[package]]\necosystem = \"debian-12\"\nname = \"openssl\"\n";
        let file: File = strict_toml::read(text).unwrap();
        assert_eq!((file.package[0].name.as_str(), &file.package[0].fixed), ("openssl", &None));
        for (bad, says) in [
            (text.replace("severity", "severty"), "did you mean 'severity'"),
            (text.replace("[[package]]", "[package]"), "sequence"),
            (text.replace("name", "nam"), "did you mean 'name'"),
        ] {
            let error = strict_toml::read::<File>(&bad).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
