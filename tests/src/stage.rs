//! A directory in which sites of one test live, and the files that they add and publish.

use std::error::Error;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rialto_testnet::site::{Plan, Rialto, Site, text};
use serde_json::Value;
use tempfile::TempDir;

/// The federation of the tests.
pub const FEDERATION: &str = "physics";

/// An id of the right form that no record and no image has.
pub const NOTHING: &str = "bafir4iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Why a test fails before it has asserted anything. Prints as the message of its cause, which quotes logs and output.
pub struct Failure(Box<dyn Error>);

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How a test ends.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Where the sites of one test live. Declare it before them, so that it goes after them.
#[derive(Debug)]
pub struct Stage {
    rialto: Rialto,
    base: TempDir,
}

impl Stage {
    /// An empty one.
    ///
    /// # Errors
    /// The binary was not built, or no directory can be made.
    pub fn new() -> Outcome<Self> {
        Ok(Self { rialto: Rialto::find()?, base: tempfile::tempdir()? })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.base.path()
    }

    /// A site that does not run yet.
    ///
    /// # Errors
    /// `rialto init` fails.
    pub fn site(&self, plan: &Plan) -> Outcome<Site> {
        Ok(Site::init(&self.rialto, self.base.path(), plan)?)
    }

    /// A site of [`FEDERATION`] that runs and knows `others`, which run. It offers every image that it has.
    ///
    /// # Errors
    /// The node does not start.
    pub fn running(&self, name: &str, others: &[&Site]) -> Outcome<Site> {
        let mut plan = Plan { serve: Some("all".into()), ..Plan::new(name, FEDERATION) };
        for other in others {
            plan = plan.knows(other)?;
        }
        let mut site = self.site(&plan)?;
        site.start()?;
        Ok(site)
    }

    /// A file with this content; the directories above it are made.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Outcome<PathBuf> {
        let path = self.base.path().join(name);
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        fs::write(&path, content)?;
        Ok(path)
    }

    /// A description of a release with one disk, for `rialto publish`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn description(&self, name: &str, version: &str, disk: &[u8]) -> Outcome<String> {
        let place = format!("{name}-{version}");
        self.file(&format!("{place}/disk.raw"), disk)?;
        let text = format!(
            "name = \"{name}\"\nversion = \"{version}\"\narch = \"x86_64\"\nsummary = \"An appliance of the tests\"\n\n\
             [[disks]]\nfile = \"disk.raw\"\nformat = \"raw\"\n\n[boot]\nkind = \"bios\"\n\n\
             [requirements]\nvcpus = 1\nmemory = \"64 MiB\"\n"
        );
        Ok(shown(&self.file(&format!("{place}/appliance.toml"), text)?))
    }

    /// Publishes a release with one disk of 256 KiB at `site` and returns its id. The disk is another one for each name
    /// and version.
    ///
    /// # Errors
    /// It is not published.
    pub fn publish(&self, site: &Site, name: &str, version: &str, key: &str) -> Outcome<String> {
        let disk = noise(&format!("{name} {version}"), 256 << 10);
        let description = self.description(name, version, &disk)?;
        Ok(text(&site.json(&["publish", &description, "--key", key])?, "release")?)
    }
}

/// Changes lines of a site's configuration: a line that begins with the first text becomes the second. The site must not
/// run, or be started again.
///
/// # Errors
/// The file cannot be read or written.
///
/// # Panics
/// There is no such line.
pub fn configure(site: &Site, changes: &[(&str, &str)]) -> Outcome {
    let path = site.directory().join("config.toml");
    let mut lines: Vec<String> = fs::read_to_string(&path)?.lines().map(str::to_owned).collect();
    for (beginning, new) in changes {
        let line = lines.iter_mut().find(|line| line.starts_with(beginning));
        let Some(line) = line else { panic!("no line of {} begins with {beginning}", path.display()) };
        *line = (*new).to_owned();
    }
    Ok(fs::write(&path, lines.join("\n") + "\n")?)
}

/// Makes a site that runs keep its address when it is started again.
///
/// # Errors
/// The node does not answer, or its configuration cannot be written.
pub fn keep_address(site: &Site) -> Outcome {
    let address = site.address()?;
    let address = address.split("/p2p/").next().unwrap_or_default();
    configure(site, &[("listen = ", &format!("listen = [\"{address}\"]"))])
}

/// Bytes that nothing compresses, always the same ones for a seed.
pub fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_derive_key("rialto tests noise").update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A policy that accepts whatever this key publishes, under the petname `uni`.
pub fn accepting(key: &str) -> String {
    format!(
        "[signers]\nuni = \"{key}\"\n\n[[rule]]\nname = \"what uni makes\"\nmatch = {{ publisher = [\"uni\"] }}\n\
         then = \"accept\"\n\n[default]\nthen = \"hold\"\n"
    )
}

/// A policy that accepts what `uni` publishes once `lab` has endorsed it.
pub fn reviewed(uni: &str, lab: &str) -> String {
    format!(
        "[signers]\nuni = \"{uni}\"\nlab = \"{lab}\"\n\n[roles]\nreviewers = {{ signers = [\"lab\"], threshold = 1 }}\n\n\
         [[rule]]\nname = \"reviewed\"\nmatch = {{ publisher = [\"uni\"] }}\nrequire = [\"endorsed-by:reviewers\"]\n\
         then = \"accept\"\n\n[default]\nthen = \"hold\"\n"
    )
}

/// A path as an argument.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The elements of a JSON array; none where it is not one.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Insists that a JSON object has these fields.
///
/// # Panics
/// One is missing.
pub fn has_fields(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "'{field}' is missing in {value}");
    }
}
