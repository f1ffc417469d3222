//! The decision log: each decision that the node acted on, one line of JSON each, appended and fsynced.
//!
//! ```text
//! {"crc32":"89abcdef","decision":{"after":"<64 hex>",…}}
//!   crc32   of the bytes of the decision as they stand, against accidents
//!   after   BLAKE3 of the whole line before, its line feed included; zeros in the first line
//! ```
//!
//! So each line vouches for all before it: one that was changed, removed or put in between shows in the line after it. What
//! vouches for the last line is its hash, the log's *head*, kept where the log is not: whoever can write the log can also
//! write another log, and only a head that was noted before tells the two apart. Lines of earlier versions have no `after`;
//! they can only stand at the beginning.
//!
//! A decision is acted on only once its line is on disk. What a crash leaves behind the last whole line was never acted
//! on, and is cut off when the log is opened.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
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
    /// A line that does not follow the one before it.
    #[error(
        "line {line} of the decision log {path} does not follow line {before}: one of the two was changed, or others \
         between them were removed, after they had been written", path = path.display(), before = line - 1
    )]
    Unchained {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// A head that was noted before, and is the hash of no line.
    #[error("no line of the decision log {path} has the hash {head}: the log is not the one of which that was noted, or was cut short since", path = path.display())]
    NoSuchHead {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        head: LineHash,
    },
    /// No line has this number.
    #[error("the decision log {path} has no decision {number}; it has {count}", path = path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        number: usize,
        /// How many lines there are.
        count: usize,
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

impl Action {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Deploy => "deploy",
        }
    }
}

/// One decision that the node acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The hash of the line that it was written after: the log sets it. `None` in lines of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<LineHash>,
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
            after: None,
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

/// BLAKE3 of a line of the log, its line feed included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LineHash([u8; 32]);

impl LineHash {
    /// What the first line comes after.
    const NOTHING: Self = Self([0; 32]);
}

impl fmt::Display for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl From<LineHash> for String {
    fn from(hash: LineHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for LineHash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for LineHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| {
            "not the head of a decision log: that is 64 hexadecimal digits, as `rialto decisions verify` prints them"
        })?;
        Ok(Self(hash.into()))
    }
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// What it says.
    pub decision: Decision,
    /// Its hash.
    pub hash: LineHash,
}

/// What reading a whole log found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verification {
    /// Lines.
    pub decisions: usize,
    /// Of those, lines at the beginning that an earlier version wrote: nothing vouches for what lies before the first that
    /// is chained.
    pub unchained: usize,
    /// The hash of the last line; `None` where there is none.
    pub head: Option<LineHash>,
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
        // A panic elsewhere leaves the tail as valid as a failed write does.
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let after = Some(tail.last().map_or(LineHash::NOTHING, LineHash));
        let line = line_of(WORD, &Decision { after, ..decision.clone() });
        let line = line.map_err(|source| io_error(&self.path, "written", source))?;
        if line.len() > MAX_LINE_BYTES {
            return Err(DecisionError::TooLong { bytes: line.len() });
        }
        tail.append(line.as_bytes()).map_err(|source| io_error(&self.path, "written", source))
    }

    /// Where the log is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a log from its beginning to see whether every line follows the one before it. With `noted`, a head of earlier,
    /// also whether that is the hash of one of its lines: then everything up to that line is as it was. Needs no node.
    ///
    /// # Errors
    /// The first line that is damaged or follows another one than it was written after; a head that fits no line; a file
    /// that cannot be read.
    pub fn verify(path: impl AsRef<Path>, noted: Option<LineHash>) -> Result<Verification, DecisionError> {
        let path = path.as_ref();
        let mut found = Verification { decisions: 0, unchained: 0, head: None };
        let mut is_noted_found = noted.is_none();
        for line in Self::read(path)? {
            let line = line?;
            match line.decision.after {
                None if found.unchained == found.decisions => found.unchained += 1,
                Some(after) if after == found.head.unwrap_or(LineHash::NOTHING) => {}
                _ => return Err(DecisionError::Unchained { path: path.to_owned(), line: line.number }),
            }
            is_noted_found |= noted == Some(line.hash);
            found = Verification { decisions: line.number, head: Some(line.hash), ..found };
        }
        match noted {
            Some(head) if !is_noted_found => Err(DecisionError::NoSuchHead { path: path.to_owned(), head }),
            _ => Ok(found),
        }
    }

    /// The decision with this number, from 1.
    ///
    /// # Errors
    /// There is none, its line is damaged, or the file cannot be read.
    pub fn find(path: impl AsRef<Path>, number: usize) -> Result<Decision, DecisionError> {
        let path = path.as_ref();
        let mut count = 0;
        for line in Self::read(path)? {
            count += 1;
            if count == number {
                return line.map(|line| line.decision);
            }
        }
        Err(DecisionError::NotFound { path: path.to_owned(), number, count })
    }

    /// Reads a log from its beginning, a line at a time. Damaged lines come as errors, and the next line after them.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn read(path: impl AsRef<Path>) -> Result<impl Iterator<Item = Result<Line, DecisionError>>, DecisionError> {
        let path = path.as_ref().to_owned();
        let file = File::open(&path).map_err(|source| io_error(&path, "opened", source))?;
        let numbered = lines::read_hashed::<Decision>(file, WORD).zip(1..);
        Ok(numbered.map(move |(line, number)| match line {
            Ok((Some(decision), hash)) => Ok(Line { number, decision, hash: LineHash(hash) }),
            Ok((None, _)) => Err(DecisionError::Damaged { path: path.clone(), line: number }),
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
        // As they were handed in: the log adds what comes before them.
        DecisionLog::read(path).unwrap().map(|line| Decision { after: None, ..line.unwrap().decision }).collect()
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
        let at = |place: usize| found[place].as_ref().unwrap().decision.at;
        assert_eq!((at(0), at(2)), (1, 3));

        std::fs::write(&path, format!("{}\n{}", "x".repeat(3 * MAX_LINE_BYTES), text)).unwrap();
        let found: Vec<_> = DecisionLog::read(&path).unwrap().collect();
        assert_eq!(found.len(), 4);
        assert!(matches!(&found[0], Err(DecisionError::Damaged { line: 1, .. })));
    }

    /// A line as somebody writes it who knows the format: with a checksum that fits.
    fn forged(line: &str, from: &str, to: &str) -> String {
        let line = line.replace(from, to);
        let (_, decision) = line.split_once("\"decision\":").unwrap();
        let decision = decision.trim_end().strip_suffix('}').unwrap();
        format!("{{\"crc32\":\"{:08x}\",\"decision\":{decision}}}\n", crc32fast::hash(decision.as_bytes()))
    }

    #[test]
    fn every_line_vouches_for_those_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("decisions");
        let write = |lines: &[String]| std::fs::write(&path, lines.concat()).unwrap();
        DecisionLog::open(&path).unwrap();
        assert_eq!(DecisionLog::verify(&path, None).unwrap(), Verification { decisions: 0, unchained: 0, head: None });
        for at in 1..=5 {
            // Opened anew each time: the chain goes on.
            DecisionLog::open(&path).unwrap().append(&decision(at)).unwrap();
        }
        let whole = DecisionLog::verify(&path, None).unwrap();
        assert_eq!((whole.decisions, whole.unchained), (5, 0));
        let lines: Vec<String> =
            std::fs::read_to_string(&path).unwrap().split_inclusive('\n').map(str::to_owned).collect();
        let heads: Vec<LineHash> = DecisionLog::read(&path).unwrap().map(|line| line.unwrap().hash).collect();
        assert_eq!(whole.head, heads.last().copied());
        assert_eq!(whole.head.unwrap().to_string().parse(), Ok(whole.head.unwrap()));

        // Changed with a checksum that fits, removed, swapped: the line after it says so.
        let mut changed = lines.clone();
        changed[2] = forged(&lines[2], "\"at\":3,", "\"at\":9,");
        write(&changed);
        assert!(DecisionLog::read(&path).unwrap().all(|line| line.is_ok()), "each line alone is well");
        let line_at_fault = || match DecisionLog::verify(&path, None) {
            Err(DecisionError::Unchained { line, .. }) => line,
            other => panic!("{other:?}"),
        };
        assert_eq!(line_at_fault(), 4);
        let mut removed = lines.clone();
        removed.remove(1);
        write(&removed);
        assert_eq!(line_at_fault(), 2);
        let mut swapped = lines.clone();
        swapped.swap(3, 4);
        write(&swapped);
        assert_eq!(line_at_fault(), 4);
        write(&lines[1..]);
        assert_eq!(line_at_fault(), 1);

        // The last line has nobody after it: what was noted of the log elsewhere tells.
        write(&lines[..4]);
        assert_eq!(DecisionLog::verify(&path, None).unwrap().head, Some(heads[3]));
        assert!(DecisionLog::verify(&path, Some(heads[2])).is_ok(), "noted earlier, and gone on since");
        assert!(matches!(DecisionLog::verify(&path, whole.head), Err(DecisionError::NoSuchHead { .. })));
    }

    #[test]
    fn a_log_of_an_earlier_version_goes_on_and_nothing_unchained_comes_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("decisions");
        let earlier = |at| line_of(WORD, &decision(at)).unwrap();
        std::fs::write(&path, earlier(1) + &earlier(2)).unwrap();
        DecisionLog::open(&path).unwrap().append(&decision(3)).unwrap();
        assert_eq!(read(&path), [decision(1), decision(2), decision(3)]);
        let found = DecisionLog::verify(&path, None).unwrap();
        assert_eq!((found.decisions, found.unchained), (3, 2));
        assert_eq!(DecisionLog::find(&path, 2).unwrap(), decision(2));
        assert!(matches!(DecisionLog::find(&path, 4), Err(DecisionError::NotFound { count: 3, .. })));

        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.clone() + &earlier(4)).unwrap();
        assert!(matches!(DecisionLog::verify(&path, None), Err(DecisionError::Unchained { line: 4, .. })));
        std::fs::write(&path, text.replace("\"at\":2,", "\"at\":7,")).unwrap();
        assert!(matches!(DecisionLog::verify(&path, None), Err(DecisionError::Damaged { line: 2, .. })));
    }

    #[test]
    fn a_log_that_cannot_be_written_says_so() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(DecisionLog::open(dir.path()), Err(DecisionError::Io { verb: "opened", .. })));
        let full = DecisionLog::open("/dev/full").unwrap();
        assert!(matches!(full.append(&decision(1)), Err(DecisionError::Io { verb: "written", .. })));
    }
}
