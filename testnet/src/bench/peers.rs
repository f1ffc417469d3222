//! The programs that we are measured against: installed where they are missing, run, and named with their versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{BenchError, Result};
use crate::wait::{Ended, run_within};

/// Installing from Debian's mirrors, or a Python package.
const INSTALL_WITHIN: Duration = Duration::from_secs(300);
/// The longest command of a peer: xdelta3 on a whole image, on a busy machine.
const PEER_WITHIN: Duration = Duration::from_secs(600);

/// Insists on a program; installs its Debian package where it is missing.
///
/// # Errors
/// [`BenchError::Missing`]: it is not there and cannot be installed.
pub(super) fn needs(program: &str, package: &str) -> Result<()> {
    if is_there(program) {
        return Ok(());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("needs");
    let ended = run_within(Command::new(script).arg(format!("{program}={package}")), INSTALL_WITHIN);
    match ended {
        Ok(_) if is_there(program) => Ok(()),
        Ok(ended) => Err(BenchError::Missing(format!("{program} is not installed: {}", last_line(&ended)))),
        Err(error) => Err(BenchError::Missing(format!("{program} is not installed, and testnet/needs {error}"))),
    }
}

/// A program and its version, as it tells it when asked by `argument`.
pub(super) fn version(program: &str, argument: &str) -> String {
    let ended = run_within(Command::new(program).arg(argument), PEER_WITHIN);
    let said = ended.map(|ended| [ended.stdout, ended.stderr].concat()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    format!("{program} {}", number_in(&said).unwrap_or("of unknown version"))
}

/// The first word that begins like a version number.
fn number_in(said: &str) -> Option<&str> {
    let mut words = said.split_whitespace().map(|word| word.trim_matches([',', 'v']));
    words.find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
}

/// Runs a peer's command, which must succeed, and returns how long it took, in seconds.
///
/// # Errors
/// It cannot be run, or fails; what it last said is part of the error.
pub(super) fn timed(command: &mut Command) -> Result<f64> {
    let started = Instant::now();
    run(command)?;
    Ok(started.elapsed().as_secs_f64())
}

/// Runs a command, which must succeed.
///
/// # Errors
/// As [`timed`].
pub(super) fn run(command: &mut Command) -> Result<Ended> {
    let shown = shown(command);
    let ended = run_within(command, PEER_WITHIN).map_err(|error| BenchError::Peer(format!("`{shown}` {error}")))?;
    if !ended.status.success() {
        return Err(BenchError::Peer(format!("`{shown}` ended with {}: {}", ended.status, last_line(&ended))));
    }
    Ok(ended)
}

/// `zstd -3 FILE`: the length of what it writes, in bytes.
pub(super) fn zstd_bytes(file: &Path, base: &Path) -> Result<u64> {
    let out = base.join("whole.zst");
    run(Command::new("zstd").args(["-q", "-f", "-3", "-T0"]).arg(file).arg("-o").arg(&out))?;
    taken_away(&out)
}

/// `zstd -3 --long=31 --patch-from=OLD NEW`, which leaves `patch`; its length in bytes.
pub(super) fn zstd_patch(old: &Path, new: &Path, patch: &Path) -> Result<u64> {
    let reference = format!("--patch-from={}", old.display());
    run(Command::new("zstd").args(["-q", "-f", "-3", "--long=31", &reference]).arg(new).arg("-o").arg(patch))?;
    Ok(fs::metadata(patch)?.len())
}

/// Undoes [`zstd_patch`].
pub(super) fn zstd_unpatch(old: &Path, patch: &Path, new: &Path) -> Result<()> {
    let reference = format!("--patch-from={}", old.display());
    let command = &mut Command::new("zstd");
    run(command.args(["-q", "-f", "-d", "--long=31", "--sparse", &reference]).arg(patch).arg("-o").arg(new))?;
    Ok(())
}

/// `xdelta3 -e`: the length of what it writes, in bytes.
pub(super) fn xdelta_bytes(old: &Path, new: &Path, base: &Path) -> Result<u64> {
    let out = base.join("image.xdelta");
    // Its window over the old file must hold all of it.
    let window = fs::metadata(old)?.len().next_power_of_two().min(1 << 31);
    run(Command::new("xdelta3").args(["-e", "-f", "-q", "-B", &window.to_string(), "-s"]).arg(old).arg(new).arg(&out))?;
    taken_away(&out)
}

/// `casync make` into an empty store: seconds.
pub(super) fn casync_make(file: &Path, base: &Path) -> Result<f64> {
    let (store, index) = (base.join("peer.castr"), base.join("peer.caibx"));
    if store.exists() {
        fs::remove_dir_all(&store)?;
    }
    let seconds = timed(Command::new("casync").arg("make").arg("--store").arg(&store).arg(&index).arg(file))?;
    fs::remove_dir_all(&store)?;
    fs::remove_file(&index)?;
    Ok(seconds)
}

/// A file's length; the file is removed.
fn taken_away(file: &Path) -> Result<u64> {
    let bytes = fs::metadata(file)?.len();
    fs::remove_file(file)?;
    Ok(bytes)
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let administrators = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(administrators).any(|directory| directory.join(program).is_file())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn last_line(ended: &Ended) -> String {
    let said = String::from_utf8_lossy(&ended.stderr).into_owned() + &String::from_utf8_lossy(&ended.stdout);
    said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_programs_say() {
        let said = "*** Zstandard CLI (64-bit) v1.5.4, by Yann Collet ***";
        assert_eq!(number_in(said), Some("1.5.4"));
        assert_eq!(number_in("casync 2\n+SELINUX"), Some("2"));
        assert_eq!(number_in("unknown option"), None);
    }

    #[test]
    fn a_command_that_fails_says_what_it_was_and_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("exit 3") && error.contains("no such thing"), "{error}");
    }
}
