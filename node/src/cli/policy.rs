//! `rialto policy`: whether the file can be read, and what it says of a release.

use std::path::Path;

use clap::Subcommand;
use rialto_web::api::{ApiError, Explanation, VerdictKind};

use super::output::{Cell, Face, Outcome, Page, Tone};
use crate::client::{Client, segment};
use crate::dir::read_bounded;
use crate::strict_toml;

/// Longest policy file that is read, in bytes.
const MAX_POLICY_BYTES: u64 = 1024 * 1024;

/// What to do with the policy.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say what policy says of a release, and why; exits 0 for every verdict
    Explain {
        /// A record id, a unique beginning of at least 12 characters, or PUBLISHER/NAME@VERSION
        release: String,
    },
}

/// Reads a policy file of this machine.
pub(super) fn read(path: &Path) -> Outcome<toml::Table> {
    let text = read_bounded(path, MAX_POLICY_BYTES)
        .map_err(|error| ApiError::failed(format!("cannot read {}: {error}", path.display())))?;
    strict_toml::read(&text).map_err(|error| ApiError::failed(format!("{}: {error}", path.display())))
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
