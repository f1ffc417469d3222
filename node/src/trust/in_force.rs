//! [`PolicyLog`]: which policy was in force when, so that a verdict can be given as it would have been given then.
//!
//! ```text
//! {"crc32":"…","policy":{"at":1760000000,"time":"2025-10-09T08:53:20Z","hash":"<64 hex>"}}      null where the file could not be read
//! ```
//!
//! A line for each change, none for a policy that is still the same. The policies themselves are kept by hash, as
//! [`Evidence`](super::Evidence).

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rialto_protocol::UnixSeconds;
use serde::{Deserialize, Serialize};

use super::lines::{self, Tail, line_of};
use super::verdict::time_shown;

/// What a line of the log holds.
const WORD: &str = "policy";

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the log of policies, {path}, cannot be {verb}: {source}", path = path.display())]
pub struct PolicyLogError {
    path: PathBuf,
    verb: &'static str,
    source: std::io::Error,
}

/// A policy that came into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InForce {
    /// From when on, by the node's own clock.
    pub at: UnixSeconds,
    /// The same for people: RFC 3339.
    pub time: String,
    /// BLAKE3 of the file, in hex; `None` where it could not be read, and nothing was accepted.
    pub hash: Option<String>,
}

/// The log, open for appending.
#[derive(Debug)]
pub struct PolicyLog {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    tail: Tail,
    latest: Option<InForce>,
}

impl PolicyLog {
    /// Opens the log, or begins one. Blocks on the disk.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, PolicyLogError> {
        let path = path.into();
        let failed = |verb| {
            let path = path.clone();
            move |source| PolicyLogError { path, verb, source }
        };
        path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed("opened"))?;
        let tail = Tail::open(&path).map_err(failed("opened"))?;
        let latest = read(&path, tail.length()).map_err(failed("read"))?.last().cloned();
        Ok(Self { inner: Mutex::new(Inner { tail, latest }), path })
    }

    /// Notes which policy is in force from `at` on, and returns once that is on disk; nothing is written where it was in force
    /// before. Blocks.
    ///
    /// # Errors
    /// The disk. It can be noted again.
    pub fn note(&self, hash: Option<&str>, at: UnixSeconds) -> Result<(), PolicyLogError> {
        // A panic elsewhere leaves the tail as valid as a failed write does.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.latest.as_ref().is_some_and(|latest| latest.hash.as_deref() == hash) {
            return Ok(());
        }
        let now = InForce { at, time: time_shown(at), hash: hash.map(str::to_owned) };
        let failed = |source| PolicyLogError { path: self.path.clone(), verb: "written", source };
        let line = line_of(WORD, &now).map_err(failed)?;
        inner.tail.append(line.as_bytes()).map_err(failed)?;
        inner.latest = Some(now);
        Ok(())
    }

    /// The hash of the last policy that could be read; `None` where none ever could. Blocks on the disk.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn last_read(&self) -> Result<Option<String>, PolicyLogError> {
        let length = {
            let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(hash) = inner.latest.as_ref().and_then(|latest| latest.hash.clone()) {
                return Ok(Some(hash));
            }
            inner.tail.length()
        };
        let noted = read(&self.path, length);
        let noted = noted.map_err(|source| PolicyLogError { path: self.path.clone(), verb: "read", source })?;
        Ok(noted.into_iter().rev().find_map(|noted| noted.hash))
    }

    /// The policy that was in force at a time; `None` before the first that was noted. Blocks on the disk.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn at(&self, at: UnixSeconds) -> Result<Option<InForce>, PolicyLogError> {
        let length = self.inner.lock().unwrap_or_else(PoisonError::into_inner).tail.length();
        let noted = read(&self.path, length);
        let noted = noted.map_err(|source| PolicyLogError { path: self.path.clone(), verb: "read", source })?;
        // The clock may have been set back in between: what was written last before it passed this time again counts.
        Ok(noted.into_iter().rfind(|noted| noted.at <= at))
    }
}

/// All that is noted in so many bytes. Damaged lines are left out, with a warning.
fn read(path: &Path, length: u64) -> std::io::Result<Vec<InForce>> {
    let mut noted = Vec::new();
    for (line, number) in lines::read::<InForce>(File::open(path)?.take(length), WORD).zip(1..) {
        match line? {
            Some(line) => noted.push(line),
            None => tracing::warn!(file = %path.display(), line = number, "a damaged line is left out"),
        }
    }
    Ok(noted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_noted_once_and_found_by_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policies.log");
        let log = PolicyLog::open(&path).unwrap();
        assert_eq!(log.at(u64::MAX).unwrap(), None);
        log.note(Some("a"), 100).unwrap();
        log.note(Some("a"), 150).unwrap();
        log.note(None, 200).unwrap();
        drop(log);
        let log = PolicyLog::open(&path).unwrap();
        log.note(None, 250).unwrap();
        log.note(Some("b"), 300).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
        assert_eq!(log.last_read().unwrap().as_deref(), Some("b"));
        let hash_at = |at| log.at(at).unwrap().map(|noted| (noted.at, noted.hash));
        for (at, expected) in [
            (99, None),
            (100, Some((100, Some("a")))),
            (199, Some((100, Some("a")))),
            (200, Some((200, None))),
            (299, Some((200, None))),
            (300, Some((300, Some("b")))),
            (u64::MAX, Some((300, Some("b")))),
        ] {
            assert_eq!(hash_at(at), expected.map(|(at, hash)| (at, hash.map(str::to_owned))), "at {at}");
        }
        log.note(None, 400).unwrap();
        assert_eq!(log.last_read().unwrap().as_deref(), Some("b"), "what cannot be read names nobody else");
    }

    #[test]
    fn a_torn_or_damaged_line_takes_nothing_else_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policies.log");
        let log = PolicyLog::open(&path).unwrap();
        log.note(Some("a"), 100).unwrap();
        log.note(Some("b"), 200).unwrap();
        drop(log);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("\"at\":100", "\"at\":101", 1) + "{\"crc32\":\"00").unwrap();
        let log = PolicyLog::open(&path).unwrap();
        assert_eq!(log.at(150).unwrap(), None, "what it says is not what was written");
        log.note(Some("c"), 300).unwrap();
        assert_eq!(log.at(250).unwrap().and_then(|noted| noted.hash).as_deref(), Some("b"));
        assert_eq!(log.at(300).unwrap().and_then(|noted| noted.hash).as_deref(), Some("c"));
    }

    #[test]
    fn what_cannot_be_written_says_so() {
        assert!(PolicyLog::open("/dev/null/policies.log").unwrap_err().to_string().contains("cannot be opened"));
    }
}
