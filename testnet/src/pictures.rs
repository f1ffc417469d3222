//! The pictures of the web interface in the README: two sites with a small market, and a browser that looks at it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rialto_protocol::record::PREDICATE_TESTED;

use crate::browser::{Browser, BrowserError, Scheme};
use crate::site::{Plan, Rialto, Site, SiteError, text};

/// Width and height of a picture in pixels: a page that is still read where a README shows it at half its size.
const SIZE: (u32, u32) = (1120, 780);

/// Why the pictures were not taken.
#[derive(Debug, thiserror::Error)]
pub enum PicturesError {
    /// A site did not do what it should.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// The browser did not.
    #[error(transparent)]
    Browser(#[from] BrowserError),
    /// A file could not be written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

type Result<T> = std::result::Result<T, PicturesError>;

/// What lies on the market: name, version, length of its disk in MiB, what it is, tags.
const MARKET: &[(&str, &str, u64, &str, &str)] = &[
    (
        "batch-worker",
        "2.0.3",
        320,
        "Worker node for batch jobs: HTCondor, CVMFS client, Debian 12",
        "\"batch\", \"htc\"",
    ),
    (
        "jupyter",
        "4.2.0",
        768,
        "Notebooks for a course of thirty: JupyterHub with Python and R",
        "\"teaching\", \"python\"",
    ),
    ("postgres", "16.4.0", 256, "A database that keeps to itself: PostgreSQL, nightly dumps, no shell", "\"database\""),
    (
        "batch-worker",
        "2.1.0",
        320,
        "Worker node for batch jobs: HTCondor, CVMFS client, Debian 12",
        "\"batch\", \"htc\"",
    ),
];
/// The one that the second picture is of.
const SHOWN: usize = 3;

/// Takes `catalog.png` and `release.png` into a directory. Sites and browser are gone when this returns.
///
/// # Errors
/// The first thing that did not go as told.
pub fn take(into: &Path) -> Result<()> {
    fs::create_dir_all(into).map_err(at(into))?;
    let base = tempfile::Builder::new().prefix("rialto-pictures-").tempdir().map_err(at(into))?;
    let rialto = Rialto::find()?;
    let plan = |name| Plan { serve: Some("all".to_owned()), ..Plan::new(name, "physics") };
    let mut uni = Site::init(&rialto, base.path(), &plan("uni.example"))?;
    uni.start()?;
    let mut shop = Site::init(&rialto, base.path(), &plan("lab.example").knows(&uni)?)?;
    let (releases, reviews) = (uni.new_key("releases")?, uni.new_key("reviews")?);
    uni.new_key("stranger")?;
    shop.write_policy(&policy(&releases, &reviews))?;
    shop.start()?;
    shop.meets(&[&uni])?;

    let mut ids = Vec::new();
    for (name, version, mebibytes, summary, tags) in MARKET {
        let key = if *name == "jupyter" { "stranger" } else { "releases" };
        let description = describe(base.path(), name, version, *mebibytes, summary, tags)?;
        let published = uni.json(&["publish", &description.display().to_string(), "--key", key])?;
        ids.push(text(&published, "release")?);
    }
    uni.json(&["endorse", &ids[SHOWN], "--key", "reviews", "--type", PREDICATE_TESTED])?;
    let reason = "its OpenSSL has CVE-2025-15467; 2.1.0 has the update";
    uni.json(&["revoke", &ids[0], "--key", "releases", "--reason", reason])?;
    for (id, verdict) in ids.iter().zip(["reject", "hold", "hold", "accept"]) {
        shop.verdict(id, verdict)?;
    }
    shop.json(&["fetch", &ids[SHOWN]])?;

    let browser = Browser::start()?;
    browser.view(SIZE.0, SIZE.1, Scheme::Light)?;
    browser.open(&text(&shop.json(&["web"])?, "url")?)?;
    browser
        .until("the whole market", &format!("return document.querySelectorAll('.card').length === {}", ids.len()))?;
    keep(&browser, &into.join("catalog.png"))?;
    browser.click(&format!("#r-{}", ids[SHOWN]))?;
    browser.until("the release", "return document.querySelector('#verdict .accept') !== null")?;
    keep(&browser, &into.join("release.png"))
}

fn keep(browser: &Browser, path: &Path) -> Result<()> {
    fs::write(path, browser.picture()?).map_err(at(path))
}

/// A release with a sparse disk, as `rialto publish` reads it.
fn describe(base: &Path, name: &str, version: &str, mebibytes: u64, summary: &str, tags: &str) -> Result<PathBuf> {
    let directory = base.join(format!("{name}-{version}"));
    fs::create_dir_all(&directory).map_err(at(&directory))?;
    let disk = directory.join("disk.raw");
    let file = File::create(&disk).map_err(at(&disk))?;
    file.set_len(mebibytes << 20).and_then(|()| file.write_all_at(summary.as_bytes(), 0)).map_err(at(&disk))?;
    let path = directory.join("appliance.toml");
    let mut description = File::create(&path).map_err(at(&path))?;
    write!(
        description,
        r#"name = "{name}"
version = "{version}"
arch = "x86_64"
summary = "{summary}"
licence = "MIT"
tags = [{tags}]

[[disks]]
file = "disk.raw"
format = "raw"

[boot]
kind = "uefi"

[requirements]
vcpus = 2
memory = "2 GiB"

[context.pool]
type = "string"
required = true
description = "Address of the pool that it works for"

[context.slots]
type = "integer"
default = "2"
description = "Jobs at one time"
"#
    )
    .map_err(at(&path))?;
    Ok(path)
}

fn policy(releases: &str, reviews: &str) -> String {
    format!(
        r#"[signers]
uni  = "{releases}"
desy = "{reviews}"

[roles]
reviewers = {{ signers = ["desy"], threshold = 1, max-age = "90d" }}

[[rule]]
name    = "what uni makes and desy has tried"
match   = {{ publisher = ["uni"] }}
require = ["endorsed-by:reviewers"]
then    = "accept"

[default]
then = "hold"
"#
    )
}

/// Says which file an I/O error is about.
fn at(path: &Path) -> impl FnOnce(io::Error) -> PicturesError + '_ {
    move |source| PicturesError::Io { path: path.to_owned(), source }
}
