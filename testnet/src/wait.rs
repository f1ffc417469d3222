//! Waiting, with a deadline and never blindly: for a condition, and for a program to end.

use std::io::Read;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Pause between two looks at a condition: short against what is waited for, long against what a look costs.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Set once a person has asked this program to end; everything that waits gives up then.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Why waiting ended without what was waited for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The deadline passed.
    #[error("waited {seconds} s in vain for {what}{last}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long, in whole seconds.
        seconds: u64,
        /// What the last look said, where it said anything.
        last: String,
    },
    /// Somebody asked this program to end.
    #[error("interrupted")]
    Interrupted,
}

/// Makes everything that waits in this process give up with [`WaitError::Interrupted`].
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Whether [`interrupt`] was called.
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Returns once [`interrupt`] was called.
pub fn until_interrupted() {
    while !is_interrupted() {
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Looks until there is something to see, and returns it. `look` answers `Ok` with what was waited for, or `Err` with
/// what it saw instead, which the error repeats once `within` has passed. Test code pauses
/// here and nowhere else, and never for a fixed time.
///
/// # Errors
/// [`WaitError`], when the deadline passes or the program is asked to end.
pub fn eventually<T, E: std::fmt::Display>(
    within: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<T, WaitError> {
    let started = Instant::now();
    loop {
        let last = match look() {
            Ok(seen) => return Ok(seen),
            Err(error) => error,
        };
        if is_interrupted() {
            return Err(WaitError::Interrupted);
        }
        if started.elapsed() >= within {
            let (what, seconds) = (what.to_owned(), started.elapsed().as_secs());
            return Err(WaitError::Deadline { what, seconds, last: format!("; the last look said: {last}") });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// Runs a program to its end, without standard input; it is killed when `within` has passed.
///
/// # Errors
/// The program cannot be started (an I/O error), or did not end in time.
pub fn run_within(command: &mut Command, within: Duration) -> Result<Ended, RunError> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let output = (child.stdout.take(), child.stderr.take());
    match collect(output, within) {
        Ok((stdout, stderr)) => Ok(Ended { status: child.wait()?, stdout, stderr }),
        Err(error) => {
            end(&mut child);
            Err(RunError::Wait(error))
        }
    }
}

/// Why a program was not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be started.
    #[error("cannot be run: {0}")]
    Start(#[from] std::io::Error),
    /// It did not end in time, and was killed.
    #[error(transparent)]
    Wait(WaitError),
}

/// Reads both outputs to their ends, side by side, so that neither pipe fills up.
fn collect(
    (stdout, stderr): (Option<ChildStdout>, Option<ChildStderr>),
    within: Duration,
) -> Result<(Vec<u8>, Vec<u8>), WaitError> {
    let (sender, ends) = sync_channel(2);
    let from_stdout = sender.clone();
    std::thread::spawn(move || from_stdout.send((true, read_all(stdout))));
    std::thread::spawn(move || sender.send((false, read_all(stderr))));

    let (mut out, mut err) = (Vec::new(), Vec::new());
    let started = Instant::now();
    let mut open = 2;
    while open > 0 {
        match ends.recv_timeout(LOOK_EVERY) {
            Ok((is_stdout, bytes)) => {
                open -= 1;
                *(if is_stdout { &mut out } else { &mut err }) = bytes;
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if is_interrupted() => return Err(WaitError::Interrupted),
            Err(RecvTimeoutError::Timeout) if started.elapsed() < within => {}
            Err(RecvTimeoutError::Timeout) => {
                let (what, seconds) = ("it to end".to_owned(), started.elapsed().as_secs());
                return Err(WaitError::Deadline { what, seconds, last: String::new() });
            }
        }
    }
    Ok((out, err))
}

/// What can be read before the end or an error; a program that is killed leaves half a line, which is worth showing.
fn read_all(from: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        let _ = from.read_to_end(&mut bytes);
    }
    bytes
}

/// Kills a child and takes its exit status, so that nothing of it is left. A child that is gone already is no error.
pub(crate) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_succeeds_ends_the_wait() {
        let mut looks = 0;
        let seen = eventually(Duration::from_secs(10), "three looks", || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err("not yet") }
        });
        assert_eq!(seen, Ok(3));
    }

    #[test]
    fn a_wait_in_vain_says_what_for_and_what_it_saw() {
        let error = eventually::<(), _>(Duration::ZERO, "the sun", || Err("clouds")).unwrap_err();
        assert_eq!(error.to_string(), "waited 0 s in vain for the sun; the last look said: clouds");
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let started = Instant::now();
        let result = run_within(Command::new("sleep").arg("60"), Duration::from_millis(100));
        assert!(matches!(result, Err(RunError::Wait(WaitError::Deadline { .. }))));
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn both_outputs_are_read_to_the_end() {
        // More than a pipe holds, on both, one after the other.
        let script = "yes out | head -c 200000; yes err | head -c 200000 >&2; exit 3";
        let ended = run_within(Command::new("sh").args(["-c", script]), Duration::from_secs(30)).unwrap();
        assert_eq!((ended.stdout.len(), ended.stderr.len(), ended.status.code()), (200_000, 200_000, Some(3)));
    }
}
