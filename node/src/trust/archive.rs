//! [`PolicyArchive`]: every policy under which something was decided, by its hash. A decision can be made again only with
//! the rules of its day.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::policy::{MAX_POLICY_BYTES, Policy};
use crate::dir::read_bounded;

/// Why a policy of the archive cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It was never kept, or somebody removed it.
    #[error(
        "the policy {0} is not in the archive of this node's policies, so what was decided by it cannot be decided again"
    )]
    NotKept(String),
    /// It is another text than the one that was kept.
    #[error("{} was changed since it was kept: its hash is another one", .0.display())]
    Changed(PathBuf),
    /// It can be read, but this version of the program does not understand it.
    #[error("{path} cannot be read by this version of rialto: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: super::PolicyError,
    },
    /// The disk.
    #[error("cannot {verb} {path}: {source}", path = path.display())]
    Io {
        /// What was tried: a verb.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// A directory of policies, `HASH.toml` each.
#[derive(Debug)]
pub struct PolicyArchive {
    directory: PathBuf,
    /// Hashes of those that were kept, or found kept, since the start.
    kept: Mutex<BTreeSet<String>>,
}

impl PolicyArchive {
    /// The archive in this directory, which is made when something is kept.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), kept: Mutex::default() }
    }

    /// Keeps a policy, and returns once it is on disk. Quick where it is kept already; else blocks on the disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, policy: &Policy) -> Result<(), ArchiveError> {
        // Held for the whole of it: two decisions may be the first ones under a policy.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.contains(policy.hash()) {
            return Ok(());
        }
        let path = self.path(policy.hash());
        if !fs::read(&path).is_ok_and(|found| found == policy.text().as_bytes()) {
            let failed = |source| ArchiveError::Io { verb: "write", path: path.clone(), source };
            write_durably(&self.directory, &path, policy.text()).map_err(failed)?;
        }
        kept.insert(policy.hash().to_owned());
        Ok(())
    }

    /// The policy with this hash, as it was.
    ///
    /// # Errors
    /// It is not there, is not what it was, or cannot be read.
    pub fn get(&self, hash: &str) -> Result<Policy, ArchiveError> {
        let not_kept = || ArchiveError::NotKept(hash.to_owned());
        // From a log: no text of it is a path.
        if blake3::Hash::from_hex(hash).is_err() {
            return Err(not_kept());
        }
        let path = self.path(hash);
        let text = read_bounded(&path, MAX_POLICY_BYTES as u64).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => not_kept(),
            _ => ArchiveError::Io { verb: "read", path: path.clone(), source },
        })?;
        if blake3::hash(text.as_bytes()).to_hex().as_str() != hash {
            return Err(ArchiveError::Changed(path));
        }
        Policy::parse(&text).map_err(|source| ArchiveError::Unreadable { path, source })
    }

    fn path(&self, hash: &str) -> PathBuf {
        self.directory.join(format!("{hash}.toml"))
    }
}

fn write_durably(directory: &Path, path: &Path, text: &str) -> io::Result<()> {
    if !directory.is_dir() {
        fs::create_dir_all(directory)?;
        if let Some(parent) = directory.parent() {
            File::open(parent)?.sync_all()?;
        }
    }
    let mut new = tempfile::NamedTempFile::new_in(directory)?;
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_kept_once_and_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("policies");
        let archive = PolicyArchive::new(&directory);
        let policy = Policy::parse("# as it was\n[default]\nthen = \"reject\"\n").unwrap();
        assert!(matches!(archive.get(policy.hash()), Err(ArchiveError::NotKept(_))));
        archive.keep(&policy).unwrap();
        archive.keep(&policy).unwrap();
        let again = PolicyArchive::new(&directory);
        again.keep(&policy).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        assert_eq!(again.get(policy.hash()).unwrap().text(), policy.text());

        // Damaged: said when it is read, and mended when it is in force again.
        let path = directory.join(format!("{}.toml", policy.hash()));
        fs::write(&path, "[default]\nthen = \"accept\"\n").unwrap();
        assert!(matches!(again.get(policy.hash()), Err(ArchiveError::Changed(_))));
        PolicyArchive::new(&directory).keep(&policy).unwrap();
        assert_eq!(again.get(policy.hash()).unwrap().text(), policy.text());
        for hash in ["", "../policy", &"0".repeat(64), &"g".repeat(64)] {
            assert!(matches!(again.get(hash), Err(ArchiveError::NotKept(_))), "{hash}");
        }
    }

    #[test]
    fn what_cannot_be_kept_says_so() {
        let policy = Policy::parse("").unwrap();
        let archive = PolicyArchive::new("/dev/null/policies");
        assert!(matches!(archive.keep(&policy), Err(ArchiveError::Io { verb: "write", .. })));
    }
}
