//! The node's directory: whom it belongs to, and whether its files can be used.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rialto_web::api::Status;

use super::{Check, rialto, shown};
use crate::cli::output::{count, span};
use crate::dir::NodeDir;
use crate::keys::{KeyError, Keys, ListedKey, SITE_KEY};
use crate::trust::read_policy;
use crate::units::ByteSize;

/// 2026-01-01: this program did not exist before.
const EARLIEST_NOW: u64 = 1_767_225_600;
/// 2100-01-01: whoever reads this then may raise it.
const LATEST_NOW: u64 = 4_102_444_800;
/// A file written this much later than now means that the clock was, or is, wrong: a day forgives time zones.
const MAX_AHEAD: Duration = Duration::from_secs(86_400);
/// Files of one folder whose times are looked at: enough to meet a recent one.
const FILES_LOOKED_AT: usize = 1_000;

/// Whose the directory is, and whether there is a node in it; what is wrong with that comes as `format`.
pub(super) fn directory(dir: &NodeDir) -> Vec<Check> {
    let path = dir.path().display();
    let found = match fs::metadata(dir.path()) {
        Ok(found) => found,
        Err(error) => return vec![no_directory(dir, &error)],
    };
    if !found.is_dir() {
        let what = format!("{path} is not a directory");
        return vec![Check::fail("format", what, "say where the node is: rialto --dir DIRECTORY doctor")];
    }
    let (me, owner) = (rustix::process::geteuid().as_raw(), found.uid());
    if owner != me && me != 0 {
        let what = format!("{path} belongs to user {owner}, and this is user {me}");
        return vec![Check::fail("format", what, format!("run rialto as its owner: sudo -u '#{owner}' rialto …"))];
    }
    let mut checks = Vec::new();
    if owner != me {
        let what = format!("{path} belongs to user {owner}, and you are root: files made by you are not the node's");
        checks.push(Check::warn("directory", what, format!("sudo -u '#{owner}' {}", rialto(dir, "doctor"))));
    }
    if let Err(error) = dir.check_format() {
        checks.push(Check::failed("format", error.into()));
        return checks;
    }
    checks.extend(too_open(dir.path(), &found, "700"));
    for file in [dir.config_file(), dir.policy_file(), dir.keys(), dir.records(), dir.store(), dir.instances()] {
        // What is missing or unreadable shows where it is used.
        let Ok(found) = fs::metadata(&file) else { continue };
        if found.mode() & 0o022 != 0 {
            checks.extend(too_open(&file, &found, if found.is_dir() { "700" } else { "600" }));
        }
        if found.uid() != owner {
            let what = format!("{} belongs to user {}, and the directory to {owner}", file.display(), found.uid());
            checks.push(Check::fail("directory", what, format!("chown -R {owner} {path}")));
        }
    }
    if let Err(error) = rustix::fs::access(dir.path(), rustix::fs::Access::WRITE_OK) {
        let what = format!("nothing can be written to {path}: {}", io::Error::from(error));
        checks.push(Check::fail("directory", what, format!("findmnt --target {path} shows how it is mounted")));
    }
    if checks.is_empty() {
        checks.push(Check::ok("directory", format!("{path} is private")));
    }
    checks
}

fn no_directory(dir: &NodeDir, error: &io::Error) -> Check {
    let path = dir.path().display();
    match error.kind() {
        io::ErrorKind::NotFound => Check::fail(
            "format",
            format!("there is no directory {path}"),
            format!("{}, or say where the node is with --dir", rialto(dir, "init --name NAME --federation NAME")),
        ),
        io::ErrorKind::PermissionDenied => {
            Check::fail("format", format!("{path} may not be entered by this user"), "run rialto as its owner")
        }
        _ => Check::fail("format", format!("{path}: {error}"), "see that its file system is mounted"),
    }
}

fn too_open(path: &Path, found: &Metadata, wanted: &str) -> Option<Check> {
    let (mode, path) = (found.mode() & 0o777, path.display());
    let fix = format!("chmod {wanted} {path}");
    if mode & 0o022 != 0 {
        let what = format!("{path} has mode {mode:04o}: others can change what this site is and trusts");
        return Some(Check::fail("directory", what, fix));
    }
    let what = || format!("{path} has mode {mode:04o}: others can read in it");
    (mode & 0o077 != 0).then(|| Check::warn("directory", what(), fix))
}

/// Whether each key can be used: by the node, or by who knows its passphrase or has it in an ssh-agent.
pub(super) fn keys(dir: &NodeDir) -> Vec<Check> {
    let keys = Keys::of(dir);
    let is_site = |key: &ListedKey| &*key.name == SITE_KEY;
    let listed = match keys.list() {
        Ok(listed) => listed,
        Err(error) => return vec![Check::failed("keys", error.into())],
    };
    let mut checks: Vec<Check> = listed
        .iter()
        .filter_map(|key| Some((key, keys.load(&key.name).err()?)))
        .filter(|(key, error)| match error {
            KeyError::Encrypted(_) => is_site(key),
            // The site key without its private half is missing: see below.
            KeyError::PublicOnly(_) => false,
            _ => true,
        })
        .map(|(_, error)| {
            let restore = "restore it from a backup, or remove it if it signs nothing".to_owned();
            Check { fix: error.hint().or(Some(restore)), ..Check::failed("keys", error.into()) }
        })
        .collect();
    let has_site = |key: &ListedKey| is_site(key) && !matches!(keys.load(&key.name), Err(KeyError::PublicOnly(_)));
    if !listed.iter().any(has_site) {
        let what = format!("the site key {} is missing", shown(dir.keys().join(SITE_KEY)));
        let new = rialto(dir, "key new site");
        let fix = format!("restore it from a backup; where there is none: {new}, which makes this another site");
        checks.push(Check::fail("keys", what, fix));
    }
    if checks.is_empty() {
        checks.push(Check::ok("keys", format!("{}, private", count(listed.len() as u64, "key"))));
    }
    checks
}

/// The running node says what is in force; without it, the file is read here.
pub(super) fn policy(dir: &NodeDir, status: Option<&Status>) -> Check {
    let path = dir.policy_file();
    let fix = format!("edit {}, and see with: {}", path.display(), rialto(dir, "policy check"));
    if let Some(error) = status.and_then(|status| status.policy.error.as_ref()) {
        return Check::fail("policy", format!("nothing is accepted: {error}"), fix);
    }
    match read_policy(&path) {
        Ok(_) if status.is_some() => Check::ok("policy", format!("{} is in force", path.display())),
        Ok(_) => Check::ok("policy", format!("{} can be read", path.display())),
        Err(error) => Check::fail("policy", format!("nothing is accepted: {}", error.message), fix),
    }
}

/// Settings are read when the node starts.
pub(super) fn changed_since_start(dir: &NodeDir, node_runs_seconds: f64) -> Option<Check> {
    let changed = fs::metadata(dir.config_file()).and_then(|found| found.modified()).ok()?;
    let age = SystemTime::now().duration_since(changed).ok()?;
    // A second for the time that a node takes to start.
    (age.as_secs_f64() + 1.0 < node_runs_seconds).then(|| {
        let what = format!("{} was changed after the node had started", shown(dir.config_file()));
        Check::warn("node", what, "start the node again: it reads its settings at the start only")
    })
}

/// Whether the store may grow.
pub(super) fn space(dir: &NodeDir, floor: ByteSize) -> Check {
    let path = dir.path();
    match rustix::fs::statvfs(path) {
        Ok(found) => {
            let free = ByteSize(found.f_bavail.saturating_mul(found.f_frsize));
            if free <= floor {
                let what = format!("{free} free, and {floor} are to stay free: nothing can be added or fetched");
                let fix = format!(
                    "make room: {} for images that are not needed, then {}; or lower store.free-space-floor in {}",
                    rialto(dir, "image rm IMAGE"),
                    rialto(dir, "image gc"),
                    shown(dir.config_file()),
                );
                return Check::fail("space", what, fix);
            }
            Check::ok("space", format!("{free} free, of which {floor} stay so"))
        }
        Err(error) => {
            let what = format!("{}: {}", path.display(), io::Error::from(error));
            Check::fail("space", what, "see that its file system is mounted")
        }
    }
}

/// Whether the store is near its quota: a fetch that does not fit is refused before it starts.
pub(super) fn quota(dir: &NodeDir, quota: ByteSize, node: &Status) -> Check {
    /// A quota so far used is worth a word, in percent: the next image may not fit.
    const NEARLY_PERCENT: u64 = 90;
    let (used, reserved) = (node.store_bytes, node.reserved_bytes);
    let aside =
        if reserved > 0 { format!(", {} more set aside for fetches", ByteSize(reserved)) } else { String::new() };
    let what = format!("{} of the quota of {quota} used{aside}", ByteSize(used));
    let taken = used.saturating_add(reserved);
    if taken < quota.bytes() / 100 * NEARLY_PERCENT {
        return Check::ok("quota", what);
    }
    let fix = format!(
        "{} for images that are not needed, then {}; or raise store.quota in {}",
        rialto(dir, "image rm IMAGE"),
        rialto(dir, "image gc"),
        shown(dir.config_file()),
    );
    match taken >= quota.bytes() {
        true => Check::fail("quota", format!("{what}: nothing can be added or fetched"), fix),
        false => Check::warn("quota", what, fix),
    }
}

/// Verdicts depend on time, and nobody else's clock counts.
pub(super) fn clock(dir: &NodeDir) -> Check {
    clock_at(SystemTime::now(), latest_change(dir))
}

fn clock_at(now: SystemTime, latest_change: Option<SystemTime>) -> Check {
    let fix = "set it: timedatectl set-ntp true";
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let shown = jiff::Timestamp::try_from(now).map_or_else(|_| "no time at all".to_owned(), |now| format!("{now:.0}"));
    if !(EARLIEST_NOW..LATEST_NOW).contains(&seconds) {
        let what = format!("it says {shown}, which cannot be: verdicts that depend on time are wrong");
        return Check::fail("clock", what, fix);
    }
    match latest_change.and_then(|latest| latest.duration_since(now).ok()) {
        Some(ahead) if ahead > MAX_AHEAD => {
            let ahead = span(i64::try_from(ahead.as_secs()).unwrap_or(i64::MAX));
            let what = format!("it says {shown}, and files of this node were written {ahead} after that");
            Check::fail("clock", what, fix)
        }
        _ => Check::ok("clock", shown),
    }
}

fn latest_change(dir: &NodeDir) -> Option<SystemTime> {
    let rooms = [dir.path().to_owned(), dir.records(), dir.store(), dir.instances(), dir.keys()];
    let files = rooms
        .iter()
        .filter_map(|room| fs::read_dir(room).ok())
        .flat_map(|entries| entries.take(FILES_LOOKED_AT).flatten());
    files.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_is_found() {
        let at = |seconds| clock_at(UNIX_EPOCH + Duration::from_secs(seconds), None);
        for seconds in [0, 1_600_000_000, EARLIEST_NOW - 1, LATEST_NOW] {
            assert_eq!(at(seconds).state, State::Fail, "{seconds}");
        }
        assert!(at(0).what.contains("1970-01-01T00:00:00Z"), "{}", at(0).what);
        assert_eq!(at(EARLIEST_NOW).state, State::Ok);
    }

    #[test]
    fn a_file_of_tomorrow_is_forgiven_and_one_of_next_week_is_not() {
        let now = UNIX_EPOCH + Duration::from_secs(EARLIEST_NOW);
        assert_eq!(clock_at(now, Some(now + MAX_AHEAD)).state, State::Ok);
        assert_eq!(clock_at(now, Some(now + 7 * MAX_AHEAD)).state, State::Fail);
    }
}
