//! The decision log: each decision that the node acted on, one line of JSON each, appended and fsynced.
//!
//! ```text
//! {"crc32":"89abcdef","decision":{…}}        crc32 of the bytes of the decision as they stand
//! ```
//!
//! A decision is acted on only once its line is on disk. What a crash leaves behind the last whole line was never acted
//! on, and is cut off when the log is opened.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rialto_protocol::UnixSeconds;
use rialto_protocol::ids::{ImageId, RecordId};
use rialto_web::api::VerdictKind;
use serde::{Deserialize, Serialize};

use super::lines::{self, MAX_LINE_BYTES, Tail, line_of};
use super::verdict::{Verdict, time_shown};

/// What a line of the log holds.
const WORD: &str = "decision";

/// Why the decision log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DecisionError {
    /// The file cannot be opened, read or written.
    #[error("the decision log {path} cannot be {verb}: {source}; nothing is done that cannot be logged", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: `opened`, `read`, `written`.
        verb: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A line that says something else than what was written.
    #[error("line {line} of the decision log {path} is damaged", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// A decision with more inputs than a line can hold.
    #[error("a decision of {bytes} bytes does not fit the log, whose lines have at most {MAX_LINE_BYTES}")]
    TooLong {
        /// Length of its line, in bytes.
        bytes: usize,
    },
}

/// What a decision was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Its images were to be fetched.
    Fetch,
    /// It was to be deployed.
    Deploy,
}

/// One decision that the node acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// When, by the node's own clock: the `now` of the evaluation, so that it can be repeated.
    pub at: UnixSeconds,
    /// The same for people: RFC 3339.
    pub time: String,
    /// What for.
    pub action: Action,
    /// The release.
    pub release: RecordId,
    /// What policy said.
    pub verdict: VerdictKind,
    /// The rule that said so.
    pub rule: String,
    /// Why.
    pub because: String,
    /// BLAKE3 of the policy, hex; `None` where none could be read.
    pub policy: Option<String>,
    /// The records that could have made a difference.
    pub inputs: Vec<RecordId>,
    /// The exact images that it allows; none unless the verdict is accept.
    pub images: Vec<ImageId>,
}

impl Decision {
    /// The decision that follows from a verdict given at `now`.
    pub fn new(verdict: &Verdict, action: Action, now: UnixSeconds) -> Self {
        Self {
            at: now,
            time: time_shown(now),
            action,
            release: verdict.release(),
            verdict: verdict.kind(),
            rule: verdict.rule().to_owned(),
            because: verdict.because().to_owned(),
            policy: verdict.policy().map(str::to_owned),
            inputs: verdict.considered().to_vec(),
            images: verdict.accepted().map(|accepted| accepted.images().to_vec()).unwrap_or_default(),
        }
    }
}

/// The log, open for appending. Clones write to one file.
#[derive(Debug, Clone)]
pub struct DecisionLog {
    path: Arc<Path>,
    tail: Arc<Mutex<Tail>>,
}

impl DecisionLog {
    /// Opens the log, or begins one. Blocks on the disk.
    ///
    /// # Errors
    /// A file that cannot be read or written. A torn tail is cut off with a warning.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DecisionError> {
        let path: Arc<Path> = path.as_ref().into();
        let tail = Tail::open(&path).map_err(|source| io_error(&path, "opened", source))?;
        Ok(Self { path, tail: Arc::new(Mutex::new(tail)) })
    }

    /// Appends a decision, and returns once it is on disk. Blocks: call it off the async threads.
    ///
    /// # Errors
    /// What could not be written was not logged, and must not be acted on. The log can be tried again.
    pub fn append(&self, decision: &Decision) -> Result<(), DecisionError> {
        let line = line_of(WORD, decision).map_err(|source| io_error(&self.path, "written", source))?;
        if line.len() > MAX_LINE_BYTES {
            return Err(DecisionError::TooLong { bytes: line.len() });
        }
        // A panic elsewhere leaves the tail as valid as a failed write does.
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.append(line.as_bytes()).map_err(|source| io_error(&self.path, "written", source))
    }

    /// Reads a log from its beginning, a line at a time. Damaged lines come as errors, and the next line after them.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn read(
        path: impl AsRef<Path>,
    ) -> Result<impl Iterator<Item = Result<Decision, DecisionError>>, DecisionError> {
        let path = path.as_ref().to_owned();
        let file = File::open(&path).map_err(|source| io_error(&path, "opened", source))?;
        let numbered = lines::read::<Decision>(file, WORD).zip(1..);
        Ok(numbered.map(move |(line, number)| match line {
            Ok(Some(decision)) => Ok(decision),
            Ok(None) => Err(DecisionError::Damaged { path: path.clone(), line: number }),
            Err(source) => Err(io_error(&path, "read", source)),
        }))
    }
}

fn io_error(path: &Path, verb: &'static str, source: std::io::Error) -> DecisionError {
    DecisionError::Io { path: path.to_owned(), verb, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::testing::{NOW, Scene};
    use crate::trust::{Facts, Policy, evaluate};

    fn decision(at: UnixSeconds) -> Decision {
        let scene = Scene::default();
        let policy = Policy::parse("[default]\nthen = \"accept\"").unwrap();
        let verdict = evaluate(&policy, &scene.release(|_| {}), &Facts::default(), NOW);
        Decision::new(&verdict, Action::Deploy, at)
    }

    fn read(path: &Path) -> Vec<Decision> {
        DecisionLog::read(path).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_decision_names_what_it_rested_on_and_what_it_allows() {
        let decision = decision(NOW);
        assert_eq!(decision.verdict, VerdictKind::Accept);
        assert_eq!(decision.rule, "default");
        assert_eq!(decision.inputs, [decision.release]);
        assert!(!decision.images.is_empty());
        assert_eq!(decision.time, "2025-10-09T08:53:20Z");
        let json = serde_json::to_value(&decision).unwrap();
        assert_eq!((&json["action"], &json["verdict"]), (&"deploy".into(), &"accept".into()));
    }

    #[test]
    fn what_is_appended_is_read_back_and_every_line_is_json() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("decisions");
        let log = DecisionLog::open(&path).unwrap();
        log.append(&decision(1)).unwrap();
        log.clone().append(&decision(2)).unwrap();
        drop(log);
        DecisionLog::open(&path).unwrap().append(&decision(3)).unwrap();
        assert_eq!(read(&path), [decision(1), decision(2), decision(3)]);
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(json["decision"]["at"].is_u64());
        }
    }

    #[test]
    fn a_torn_tail_of_any_length_is_cut_off_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("decisions");
        DecisionLog::open(&path).unwrap().append(&decision(1)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for torn in [1, 10, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, [&whole[..], &whole[..torn]].concat()).unwrap();
            assert_eq!(read(&path), [decision(1)], "a reader passes over {torn} bytes still being written");
            let log = DecisionLog::open(&path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole, "after {torn} bytes");
            log.append(&decision(2)).unwrap();
            assert_eq!(read(&path), [decision(1), decision(2)], "after {torn} bytes");
        }
        // A crash can also leave zeros, and more of them than one block.
        std::fs::write(&path, [&whole[..], &vec![0; 200_000]].concat()).unwrap();
        DecisionLog::open(&path).unwrap().append(&decision(2)).unwrap();
        assert_eq!(read(&path), [decision(1), decision(2)]);
    }

    #[test]
    fn a_damaged_line_is_reported_and_the_rest_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("decisions");
        let log = DecisionLog::open(&path).unwrap();
        (1..=3).for_each(|at| log.append(&decision(at)).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"at\":2,", "\"at\":9,")).unwrap();
        let found: Vec<_> = DecisionLog::read(&path).unwrap().collect();
        assert!(matches!(&found[1], Err(DecisionError::Damaged { line: 2, .. })), "{:?}", found[1]);
        assert_eq!((found[0].as_ref().unwrap(), found[2].as_ref().unwrap()), (&decision(1), &decision(3)));

        std::fs::write(&path, format!("{}\n{}", "x".repeat(3 * MAX_LINE_BYTES), text)).unwrap();
        let found: Vec<_> = DecisionLog::read(&path).unwrap().collect();
        assert_eq!(found.len(), 4);
        assert!(matches!(&found[0], Err(DecisionError::Damaged { line: 1, .. })));
    }

    #[test]
    fn a_log_that_cannot_be_written_says_so() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(DecisionLog::open(dir.path()), Err(DecisionError::Io { verb: "opened", .. })));
        let full = DecisionLog::open("/dev/full").unwrap();
        assert!(matches!(full.append(&decision(1)), Err(DecisionError::Io { verb: "written", .. })));
    }
}
