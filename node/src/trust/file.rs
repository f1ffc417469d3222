//! [`PolicyFile`]: `policy.toml` on disk, and the policy in force, which follows it.
//!
//! The content is read and compared, not its time stamps: a file rewritten within one tick of the clock, replaced by
//! another with the same size, or restored with an old date is noticed all the same, and no notification can be lost.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rialto_protocol::UnixSeconds;
use rialto_protocol::record::Record;
use rialto_protocol::signed::Verified;
use rialto_web::api::{ApiError, PolicyStatus};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::policy::{MAX_POLICY_BYTES, Policy};
use super::verdict::{Facts, Verdict, evaluate};
use crate::dir::read_bounded;

/// How often the file is read. A change must be in force within 2 s, and is taken at the second reading.
const POLL: Duration = Duration::from_millis(500);
/// A file that is being written may be half there, and half a rule may accept what the whole would not: new content
/// counts once two readings in a row agree. If it never rests, it is taken as it is at the reading after
/// this many, within the 2 s.
const MAX_UNSETTLED: u32 = 2;

/// The policy in force.
#[derive(Debug, Clone, Default)]
pub struct PolicyState {
    /// `None` while the file cannot be read: then nothing is accepted.
    pub policy: Option<Arc<Policy>>,
    /// The same for `status`: the hash, or the error.
    pub status: PolicyStatus,
}

/// Reads a policy file of this machine, once.
///
/// # Errors
/// There is no such file, or it cannot be read; a mistake in it, with its place.
pub fn read_policy(path: &Path) -> Result<Policy, ApiError> {
    let text = read_bounded(path, MAX_POLICY_BYTES as u64).map_err(|error| {
        let message = format!("cannot read {}: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => ApiError::not_found(message),
            _ => ApiError::failed(message),
        }
    })?;
    Policy::parse(&text).map_err(|error| {
        ApiError::failed(format!("{}: {error}", path.display()))
            .with_hint("while a node's policy cannot be read, it accepts nothing")
    })
}

/// Judges by the policy in force; where there is none, nothing is accepted.
pub fn judge(state: &PolicyState, record: &Verified<Record>, facts: &Facts<'_>, now: UnixSeconds) -> Verdict {
    match &state.policy {
        Some(policy) => evaluate(policy, record, facts, now),
        None => {
            let error = state.status.error.as_deref().unwrap_or("it has not been read yet");
            Verdict::undecided(record.id, None, format!("the policy file cannot be read: {error}"))
        }
    }
}

/// A policy file, and the policy in force that follows it.
#[derive(Debug)]
pub struct PolicyFile {
    path: PathBuf,
    settling: Settling,
    state: watch::Sender<Arc<PolicyState>>,
}

impl PolicyFile {
    /// Reads the file for the first time. Blocks on the disk. A file that is missing or broken is not an error here: it is
    /// a state in which nothing is accepted.
    pub fn open(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let seen = read(&path);
        let state = watch::Sender::new(Arc::new(state_of(&path, &seen)));
        Self { path, settling: Settling::new(seen), state }
    }

    /// The policy in force, now and as it changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<PolicyState>> {
        self.state.subscribe()
    }

    /// Follows the file until `stop` is cancelled. A change is in force within 2 s.
    pub async fn follow(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let path = self.path.clone();
            let Ok(found) = tokio::task::spawn_blocking(move || read(&path)).await else {
                return; // The runtime is shutting down.
            };
            if let Some(content) = self.settling.next(found) {
                self.state.send_replace(Arc::new(state_of(&self.path, content)));
            }
        }
    }
}

/// What a reading found: the text, or why there is none.
type Content = Result<String, String>;

/// Which of the readings to act on.
#[derive(Debug)]
struct Settling {
    in_force: Content,
    pending: Option<Content>,
    unsettled: u32,
}

impl Settling {
    fn new(in_force: Content) -> Self {
        Self { in_force, pending: None, unsettled: 0 }
    }

    /// Takes a reading; returns the content that comes into force with it, where there is a new one.
    fn next(&mut self, found: Content) -> Option<&Content> {
        if found == self.in_force {
            (self.pending, self.unsettled) = (None, 0);
            None
        } else if self.pending.as_ref() == Some(&found) || self.unsettled == MAX_UNSETTLED {
            (self.pending, self.unsettled) = (None, 0);
            self.in_force = found;
            Some(&self.in_force)
        } else {
            self.pending = Some(found);
            self.unsettled += 1;
            None
        }
    }
}

fn read(path: &Path) -> Content {
    let failed = |error: std::io::Error| error.to_string();
    // Opening a FIFO or a device must not hang: it is refused below.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let limit = u64::try_from(MAX_POLICY_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line}: not UTF-8 text")
    })
}

/// Parses what was read, and says in the log what is in force from now on.
fn state_of(path: &Path, content: &Content) -> PolicyState {
    let parsed = match content {
        Ok(text) => Policy::parse(text).map_err(|error| error.to_string()),
        Err(error) => Err(error.clone()),
    };
    match parsed {
        Ok(policy) => {
            tracing::info!(path = %path.display(), hash = policy.hash(), "policy in force");
            let hash = Some(policy.hash().to_owned());
            PolicyState { policy: Some(Arc::new(policy)), status: PolicyStatus { hash, error: None } }
        }
        Err(error) => {
            let error = format!("{}: {error}", path.display());
            tracing::error!("the policy file cannot be read, so nothing is accepted until it is mended: {error}");
            PolicyState { policy: None, status: PolicyStatus { hash: None, error: Some(error) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::testing::{NOW, Scene};
    use rialto_web::api::VerdictKind;

    const GOOD: &str = "[default]\nthen = \"accept\"\n";

    struct Followed {
        state: watch::Receiver<Arc<PolicyState>>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    impl Followed {
        fn start(path: &Path) -> Self {
            let file = PolicyFile::open(path);
            let (state, stop) = (file.subscribe(), CancellationToken::new());
            let task = tokio::spawn(file.follow(stop.clone()));
            Self { state, stop, task }
        }

        /// The next state that is published, within the promised time and some for a busy machine.
        async fn next(&mut self) -> Arc<PolicyState> {
            let deadline = Duration::from_secs(20);
            tokio::time::timeout(deadline, self.state.changed()).await.expect("no change was noticed").unwrap();
            self.state.borrow_and_update().clone()
        }

        async fn end(self) {
            self.stop.cancel();
            self.task.await.unwrap();
        }
    }

    fn verdict(state: &PolicyState) -> Verdict {
        let scene = Scene::default();
        judge(state, &scene.release(|_| {}), &Facts::default(), NOW)
    }

    #[tokio::test]
    async fn rewritten_replaced_broken_and_missing_files_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        std::fs::write(&path, GOOD).unwrap();
        let mut followed = Followed::start(&path);
        assert_eq!(verdict(&followed.state.borrow().clone()).kind(), VerdictKind::Accept);

        // Rewritten in place with the same length, and the old time stamp put back.
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&path, GOOD.replace("accept", "reject")).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(verdict(&*followed.next().await).kind(), VerdictKind::Reject);

        // Replaced by another file, which is broken.
        let other = dir.path().join("policy.toml.new");
        std::fs::write(&other, "[default]\nthn = \"accept\"\n").unwrap();
        std::fs::rename(&other, &path).unwrap();
        let state = followed.next().await;
        assert!(state.policy.is_none() && state.status.hash.is_none());
        let error = state.status.error.clone().unwrap();
        assert!(error.contains("line 2, column 1") && error.contains("did you mean `then`?"), "{error}");
        let verdict_now = verdict(&state);
        assert_eq!((verdict_now.kind(), verdict_now.rule()), (VerdictKind::Hold, "none"));
        assert!(verdict_now.because().starts_with("the policy file cannot be read: "), "{}", verdict_now.because());
        assert!(verdict_now.because().contains("line 2"), "{}", verdict_now.because());

        // Removed, then back.
        std::fs::remove_file(&path).unwrap();
        let state = followed.next().await;
        assert_eq!(verdict(&state).kind(), VerdictKind::Hold);
        std::fs::write(&path, GOOD).unwrap();
        let state = followed.next().await;
        assert_eq!(verdict(&state).kind(), VerdictKind::Accept);
        assert_eq!(state.status.hash.as_deref(), state.policy.as_ref().map(|policy| policy.hash()));
        followed.end().await;
    }

    #[test]
    fn a_file_that_is_still_being_written_is_not_in_force() {
        let read = |text: &str| Content::Ok(text.to_owned());
        let mut settling = Settling::new(read("old"));
        assert_eq!(settling.next(read("then")), None, "half of it");
        assert_eq!(settling.next(read("then, require")), None, "the whole, for the first time");
        assert_eq!(settling.next(read("then, require")), Some(&read("then, require")));
        assert_eq!(settling.next(read("then, require")), None, "once");
        assert_eq!(settling.next(read("")), None);
        assert_eq!(settling.next(read("then, require")), None, "put back as it was");
        assert_eq!(settling.next(Err("gone".into())), None);
        assert_eq!(settling.next(Err("gone".into())), Some(&Err("gone".into())));
    }

    #[test]
    fn a_file_that_never_rests_is_taken_within_the_promised_time() {
        let mut settling = Settling::new(Ok(String::new()));
        let readings = (1..).find(|n| settling.next(Ok(n.to_string())).is_some()).unwrap();
        assert!(POLL * readings <= Duration::from_secs(2), "{readings} readings");
    }

    #[test]
    fn what_is_no_policy_file_accepts_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        let fails_closed = || {
            let file = PolicyFile::open(&path);
            let state = file.subscribe().borrow().clone();
            assert!(state.status.error.is_some());
            assert_eq!(verdict(&state).kind(), VerdictKind::Hold);
            assert!(verdict(&state).accepted().is_none());
        };
        fails_closed();
        std::fs::write(&path, [b'#', 0xff, b'\n']).unwrap();
        fails_closed();
        std::fs::write(&path, format!("{GOOD}#{}", "x".repeat(MAX_POLICY_BYTES))).unwrap();
        fails_closed();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        fails_closed();
        std::fs::remove_dir(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        fails_closed();
    }

    #[test]
    fn before_any_policy_is_read_nothing_is_accepted() {
        assert_eq!(verdict(&PolicyState::default()).kind(), VerdictKind::Hold);
    }
}
