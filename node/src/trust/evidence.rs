//! [`Evidence`]: what decisions were made by, kept so that they can be made again: every policy that was in force, and every
//! record that could have made a difference to what was decided. The catalog lets go of some of these in time: heads that
//! newer ones replaced, and what the budget has no room for.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rialto_protocol::ids::RecordId;
use rialto_protocol::record::Record;
use rialto_protocol::signed::{Envelope, MAX_ENVELOPE_BYTES, Verified};

use super::policy::{MAX_POLICY_BYTES, Policy};
use crate::dir::read_bounded;

/// Names kept in memory of what is kept on disk: about 10 MB. Beyond that, files are looked at again.
const MAX_REMEMBERED: usize = 65_536;

/// Why something that a decision was made by cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// It was never kept, or somebody removed it.
    #[error(
        "the policy {0} is not among those that this node has kept, so what was decided by it cannot be decided again"
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

/// A directory of policies, `HASH.toml`, and envelopes of records, `ID.record`. Nothing is ever removed from it, as no line is
/// from the log of decisions that names them.
#[derive(Debug)]
pub struct Evidence {
    directory: PathBuf,
    /// Versions that were written, or found as they should be, since the start.
    kept: Mutex<BTreeSet<String>>,
}

impl Evidence {
    /// What is kept in this directory, which is made when something is.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), kept: Mutex::default() }
    }

    /// Keeps what a decision was made by, and returns once it is on disk. Quick where it is kept already; else blocks.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep<'a>(
        &self,
        policy: Option<&Policy>,
        records: impl IntoIterator<Item = &'a Verified<Record>>,
    ) -> Result<(), EvidenceError> {
        // Held for the whole of it: two decisions may need the same.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(policy) = policy {
            let hash = policy.hash();
            self.keep_file(&mut kept, hash.to_owned(), policy_file(hash), || policy.text().as_bytes().to_vec())?;
        }
        for record in records {
            let version = format!("{} {}", record.id, record.sync_id());
            self.keep_file(&mut kept, version, record_file(&record.id), || self.with_what_is_kept(record))?;
        }
        Ok(())
    }

    /// The policy with this hash, as it was.
    ///
    /// # Errors
    /// It is not there, is not what it was, or cannot be read.
    pub fn policy(&self, hash: &str) -> Result<Policy, EvidenceError> {
        let not_kept = || EvidenceError::NotKept(hash.to_owned());
        // From a log: no text of it is a path.
        if blake3::Hash::from_hex(hash).is_err() {
            return Err(not_kept());
        }
        let path = self.directory.join(policy_file(hash));
        let text = read_bounded(&path, MAX_POLICY_BYTES as u64).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => not_kept(),
            _ => EvidenceError::Io { verb: "read", path: path.clone(), source },
        })?;
        if blake3::hash(text.as_bytes()).to_hex().as_str() != hash {
            return Err(EvidenceError::Changed(path));
        }
        Policy::parse(&text).map_err(|source| EvidenceError::Unreadable { path, source })
    }

    /// A record, verified again; `None` where it was not kept, or is not what it was.
    pub fn record(&self, id: &RecordId) -> Option<Verified<Record>> {
        let file = File::open(self.directory.join(record_file(id))).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_ENVELOPE_BYTES as u64 + 1).read_to_end(&mut bytes).ok()?;
        Envelope::decode(&bytes).and_then(Envelope::verify).ok().filter(|record| record.id == *id)
    }

    /// A record with its signatures, and those that it was kept with before: an earlier decision may rest on them.
    fn with_what_is_kept(&self, record: &Verified<Record>) -> Vec<u8> {
        let kept = self.record(&record.id);
        let merged = kept.as_ref().and_then(|kept| kept.merge(record).ok());
        match (merged, kept) {
            (Some(Some(merged)), _) => merged.envelope().encode(),
            (Some(None), Some(kept)) => kept.envelope().encode(),
            _ => record.envelope().encode(),
        }
    }

    fn keep_file(
        &self,
        kept: &mut BTreeSet<String>,
        version: String,
        name: String,
        content: impl FnOnce() -> Vec<u8>,
    ) -> Result<(), EvidenceError> {
        if kept.contains(&version) {
            return Ok(());
        }
        let bytes = content();
        let path = self.directory.join(&name);
        if !fs::read(&path).is_ok_and(|found| found == bytes) {
            write_durably(&self.directory, &path, &bytes).map_err(|source| EvidenceError::Io {
                verb: "write",
                path,
                source,
            })?;
        }
        if kept.len() >= MAX_REMEMBERED {
            kept.clear();
        }
        kept.insert(version);
        Ok(())
    }
}

fn policy_file(hash: &str) -> String {
    format!("{hash}.toml")
}

fn record_file(id: &RecordId) -> String {
    format!("{id}.record")
}

fn write_durably(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    if !directory.is_dir() {
        fs::create_dir_all(directory)?;
        if let Some(parent) = directory.parent() {
            File::open(parent)?.sync_all()?;
        }
    }
    let mut new = tempfile::NamedTempFile::new_in(directory)?;
    new.write_all(bytes)?;
    new.as_file().sync_all()?;
    new.persist(path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::testing::{Scene, signed_by_some};

    #[test]
    fn a_policy_is_kept_once_and_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("evidence");
        let evidence = Evidence::new(&directory);
        let policy = Policy::parse("# as it was\n[default]\nthen = \"reject\"\n").unwrap();
        assert!(matches!(evidence.policy(policy.hash()), Err(EvidenceError::NotKept(_))));
        evidence.keep(Some(&policy), []).unwrap();
        evidence.keep(Some(&policy), []).unwrap();
        let again = Evidence::new(&directory);
        again.keep(Some(&policy), []).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        assert_eq!(again.policy(policy.hash()).unwrap().text(), policy.text());

        // Damaged: said when it is read, and mended when something is decided by it again.
        let path = directory.join(policy_file(policy.hash()));
        fs::write(&path, "[default]\nthen = \"accept\"\n").unwrap();
        assert!(matches!(again.policy(policy.hash()), Err(EvidenceError::Changed(_))));
        Evidence::new(&directory).keep(Some(&policy), []).unwrap();
        assert_eq!(again.policy(policy.hash()).unwrap().text(), policy.text());
        for hash in ["", "../policy", &"0".repeat(64), &"g".repeat(64)] {
            assert!(matches!(again.policy(hash), Err(EvidenceError::NotKept(_))), "{hash}");
        }
    }

    #[test]
    fn a_record_is_verified_again_when_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (scene, evidence) = (Scene::default(), Evidence::new(folder.path()));
        let (one, other) = (scene.release(|_| {}), scene.release(|release| release.sequence += 1));
        assert!(evidence.record(&one.id).is_none());
        evidence.keep(None, [&one, &other]).unwrap();
        assert_eq!(evidence.record(&one.id).map(|record| record.id), Some(one.id));
        let path = |record: &Verified<Record>| folder.path().join(record_file(&record.id));
        fs::copy(path(&other), path(&one)).unwrap();
        assert!(evidence.record(&one.id).is_none(), "signed, and another one");
        fs::write(path(&other), [0; 100]).unwrap();
        assert!(evidence.record(&other.id).is_none());
    }

    #[test]
    fn a_record_that_was_signed_by_more_since_is_kept_with_all_signatures() {
        let folder = tempfile::tempdir().unwrap();
        let (scene, evidence) = (Scene::default(), Evidence::new(folder.path()));
        let body = scene.body(|_| {});
        let both = [&scene.cern, &scene.desy];
        let by = |signer| signed_by_some(&body, &both, &[signer], 1);
        let signers = || evidence.record(&by(&scene.cern).id).map(|record| record.signers().count());
        evidence.keep(None, [&by(&scene.cern)]).unwrap();
        assert_eq!(signers(), Some(1));
        evidence.keep(None, [&by(&scene.desy)]).unwrap();
        assert_eq!(signers(), Some(2));
        evidence.keep(None, [&by(&scene.cern)]).unwrap();
        Evidence::new(folder.path()).keep(None, [&by(&scene.cern)]).unwrap();
        assert_eq!(signers(), Some(2), "nothing that a decision rests on is lost");
    }

    #[test]
    fn what_cannot_be_kept_says_so() {
        let policy = Policy::parse("").unwrap();
        let evidence = Evidence::new("/dev/null/evidence");
        assert!(matches!(evidence.keep(Some(&policy), []), Err(EvidenceError::Io { verb: "write", .. })));
    }
}
