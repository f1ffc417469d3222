//! `rialto doctor`: what is wrong or missing on this machine, and the command that fixes it. Works without the node.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use rialto_web::api::{ApiError, ErrorCode, Status};
use serde::Serialize;
use serde_json::json;

use super::output::{Cell, Face, Outcome, Tone, count, span};
use crate::client::Client;
use crate::config::Config;
use crate::dir::NodeDir;
use crate::keys::{Keys, SITE_KEY};
use crate::units::ByteSize;

/// How long the node may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);
/// 2026-01-01: this program did not exist before.
const EARLIEST_NOW: u64 = 1_767_225_600;
/// 2100-01-01: whoever reads this then may raise it.
const LATEST_NOW: u64 = 4_102_444_800;
/// A file written this much later than now means that the clock was, or is, wrong: a day forgives time zones.
const MAX_AHEAD: Duration = Duration::from_secs(86_400);
/// Connections, segments and overlays are open files.
const MIN_OPEN_FILES: u64 = 1_024;

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    /// What was looked at, in a word.
    check: &'static str,
    state: State,
    /// What was found.
    what: String,
    /// The command that fixes it, or what to do.
    fix: Option<String>,
}

impl Check {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, state: State::Ok, what: what.into(), fix: None }
    }

    fn warn(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, state: State::Warn, what: what.into(), fix: Some(fix.into()) }
    }

    fn fail(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, state: State::Fail, what: what.into(), fix: Some(fix.into()) }
    }

    fn failed(check: &'static str, error: ApiError) -> Self {
        Self { check, state: State::Fail, what: error.message, fix: error.hint }
    }
}

pub(super) async fn run(face: &Face, dir: &NodeDir) -> Outcome {
    let checks = examine(dir).await;
    let failed = checks.iter().filter(|check| check.state == State::Fail).count() as u64;
    let warned = checks.iter().filter(|check| check.state == State::Warn).count() as u64;
    face.print(&json!({"failed": failed, "warned": warned, "checks": checks}), |page| {
        let rows = checks.iter().map(|check| {
            let state = match check.state {
                State::Ok => Cell::new("ok", Tone::Good),
                State::Warn => Cell::new("warn", Tone::Warn),
                State::Fail => Cell::new("FAIL", Tone::Bad),
            };
            let fix = check.fix.as_ref().map_or(String::new(), |fix| format!(" → {fix}"));
            [state, check.check.into(), format!("{}{fix}", check.what).into()]
        });
        page.table(["", "CHECK", "FOUND"], rows.collect());
    })?;
    match failed {
        0 => Ok(()),
        failed => Err(ApiError::failed(format!("{} failed", count(failed, "check")))
            .with_hint("the lines with FAIL say what to do")),
    }
}

async fn examine(dir: &NodeDir) -> Vec<Check> {
    let mut checks = vec![directory(dir)];
    if let Err(error) = dir.check_format() {
        checks.push(Check::failed("format", error.into()));
        checks.extend(machine());
        return checks;
    }
    checks.extend(keys(dir));
    let config = Config::load(dir);
    checks.push(match &config {
        Ok(config) => Check::ok("config", format!("{} of {}", config.name, config.federation)),
        Err(error) => Check { check: "config", state: State::Fail, what: error.to_string(), fix: error.hint() },
    });
    let node = ask_node(dir).await;
    checks.push(policy(dir, node.as_ref().ok()));
    checks.push(match &node {
        Ok(status) => {
            Check::ok("node", format!("runs for {}, {}", span(status.seconds as i64), count(status.peers, "peer")))
        }
        Err(error) if error.code == ErrorCode::NotRunning => {
            Check { check: "node", state: State::Warn, what: error.message.clone(), fix: error.hint.clone() }
        }
        Err(error) => Check::failed("node", error.clone()),
    });
    if let Ok(status) = &node {
        checks.extend(status.warnings.iter().map(|warning| Check::warn("node", warning, "rialto status")));
    }
    if let Ok(config) = &config {
        checks.extend(ports(config, node.is_ok()));
        checks.push(space(dir, config.store.free_space_floor));
    }
    checks.push(clock(dir));
    checks.extend(machine());
    checks
}

async fn ask_node(dir: &NodeDir) -> Result<Status, ApiError> {
    let client = Client::new(dir)?;
    match tokio::time::timeout(STATUS_TIMEOUT, client.get("status")).await {
        Ok(status) => status,
        Err(_) => {
            Err(ApiError::failed("the node runs but does not answer").with_hint("read its log, and start it again"))
        }
    }
}

fn directory(dir: &NodeDir) -> Check {
    let (name, path) = ("directory", dir.path().display());
    let found = match fs::metadata(dir.path()) {
        Ok(found) => found,
        Err(error) => {
            return Check::fail(
                name,
                format!("{path}: {error}"),
                format!("rialto --dir {path} init --name NAME --federation NAME"),
            );
        }
    };
    let me = rustix::process::geteuid().as_raw();
    let mode = found.mode() & 0o777;
    if found.uid() != me {
        return Check::fail(
            name,
            format!("{path} belongs to user {}, and this is user {me}", found.uid()),
            "run rialto as its owner",
        );
    }
    if mode & 0o022 != 0 {
        return Check::fail(
            name,
            format!("{path} has mode {mode:04o}: others can change what this site is and trusts"),
            format!("chmod 700 {path}"),
        );
    }
    if mode & 0o077 != 0 {
        return Check::warn(
            name,
            format!("{path} has mode {mode:04o}: others can read in it"),
            format!("chmod 700 {path}"),
        );
    }
    Check::ok(name, format!("{path} is private"))
}

fn keys(dir: &NodeDir) -> Vec<Check> {
    let keys = Keys::of(dir);
    let listed = match keys.list() {
        Ok(listed) => listed,
        Err(error) => return vec![Check::failed("keys", error.into())],
    };
    if !listed.iter().any(|key| &*key.name == SITE_KEY) {
        let fix = "restore keys/site from a backup; a new one (rialto key new site) makes this another site";
        return vec![Check::fail("keys", "the site key is missing", fix)];
    }
    let mut checks: Vec<Check> = listed
        .iter()
        .filter_map(|key| keys.load(&key.name).err())
        .map(|error| Check::failed("keys", error.into()))
        .collect();
    if checks.is_empty() {
        checks.push(Check::ok("keys", format!("{}, private", count(listed.len() as u64, "key"))));
    }
    checks
}

/// The running node says what is in force; without it, the file is read here.
fn policy(dir: &NodeDir, status: Option<&Status>) -> Check {
    let path = dir.policy_file();
    let fix = format!("edit {}; rialto policy check {} tells what is wrong with it", path.display(), path.display());
    if let Some(error) = status.and_then(|status| status.policy.error.as_ref()) {
        return Check::fail("policy", format!("nothing is accepted: {error}"), fix);
    }
    match super::policy::read(&path) {
        Ok(_) => Check::ok("policy", format!("{} can be read", path.display())),
        Err(error) => Check::fail("policy", format!("nothing is accepted: {}", error.message), fix),
    }
}

fn ports(config: &Config, is_running: bool) -> Vec<Check> {
    let listen = config.listen.iter().filter_map(socket_address);
    let web = config.web.map(|address| (address, Transport::Tcp));
    listen
        .chain(web)
        .filter(|(address, _)| address.port() != 0)
        .map(|(address, transport)| match is_running {
            true => Check::ok("ports", format!("{address} ({}) is the node's", transport.name())),
            false => port(address, transport),
        })
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

fn socket_address(address: &Multiaddr) -> Option<(SocketAddr, Transport)> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((SocketAddr::new(ip, port), Transport::Tcp)),
        Protocol::Udp(port) => Some((SocketAddr::new(ip, port), Transport::Udp)),
        _ => None,
    }
}

/// Takes the port for a moment, which nothing but the node that is not running should mind.
fn port(address: SocketAddr, transport: Transport) -> Check {
    let (port, kind) = (address.port(), transport.name());
    let taken = match transport {
        Transport::Tcp => TcpListener::bind(address).map(drop),
        Transport::Udp => UdpSocket::bind(address).map(drop),
    };
    match taken {
        Ok(()) => Check::ok("ports", format!("{address} ({kind}) is free")),
        Err(error) => {
            let fix = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    format!("see who has it: ss -lntup 'sport = :{port}'; or listen elsewhere in config.toml")
                }
                io::ErrorKind::PermissionDenied => format!(
                    "choose a port from 1024 in config.toml, or: sysctl net.ipv4.ip_unprivileged_port_start={port}"
                ),
                io::ErrorKind::AddrNotAvailable => {
                    "this machine has no such address: ip address shows those it has; correct config.toml".into()
                }
                _ => "correct config.toml".into(),
            };
            Check::fail("ports", format!("{address} ({kind}) cannot be listened on: {error}"), fix)
        }
    }
}

fn space(dir: &NodeDir, floor: ByteSize) -> Check {
    let path = dir.path();
    match rustix::fs::statvfs(path) {
        Ok(found) => {
            let free = ByteSize(found.f_bavail.saturating_mul(found.f_frsize));
            if free <= floor {
                let fix = "rialto image rm IMAGE and rialto image gc, or a lower store.free-space-floor in config.toml";
                return Check::fail(
                    "space",
                    format!("{free} free, and {floor} are to stay free: nothing can be added or fetched"),
                    fix,
                );
            }
            Check::ok("space", format!("{free} free, {floor} of it to stay so"))
        }
        Err(error) => {
            Check::fail("space", format!("{}: {error}", path.display()), "see that its file system is mounted")
        }
    }
}

/// Verdicts depend on time, and nobody else's clock counts.
fn clock(dir: &NodeDir) -> Check {
    let now = SystemTime::now();
    let fix = "set the clock: timedatectl set-ntp true";
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if !(EARLIEST_NOW..LATEST_NOW).contains(&seconds) {
        return Check::fail("clock", format!("it says {seconds} s after 1970, which cannot be"), fix);
    }
    match latest_change(dir).and_then(|latest| latest.duration_since(now).ok()) {
        Some(ahead) if ahead > MAX_AHEAD => {
            let ahead = span(i64::try_from(ahead.as_secs()).unwrap_or(i64::MAX));
            Check::fail(
                "clock",
                format!("files of this node were written {ahead} after now: the clock was or is wrong"),
                fix,
            )
        }
        _ => Check::ok("clock", "plausible"),
    }
}

fn latest_change(dir: &NodeDir) -> Option<SystemTime> {
    let rooms = [dir.path().to_owned(), dir.records(), dir.store(), dir.instances(), dir.keys()];
    let files =
        rooms.iter().filter_map(|room| fs::read_dir(room).ok()).flat_map(|entries| entries.take(1000).flatten());
    files.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()
}

/// What does not depend on the node's directory.
fn machine() -> Vec<Check> {
    let mut checks = vec![open_files(), service_manager()];
    checks.extend(tools());
    checks.push(kvm());
    checks
}

fn open_files() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    match limit {
        Some(limit) if limit < MIN_OPEN_FILES => Check::warn(
            "open files",
            format!("at most {limit}; a busy node needs more"),
            format!("ulimit -n {}", 64 * MIN_OPEN_FILES),
        ),
        Some(limit) => Check::ok("open files", format!("up to {limit}")),
        None => Check::ok("open files", "without limit"),
    }
}

fn service_manager() -> Check {
    if Path::new("/run/systemd/system").is_dir() {
        return Check::ok("service", "systemd runs here; the unit rialto.service starts a node at boot");
    }
    Check::ok("service", "no systemd here: whatever starts the node waits for its line 'ready'")
}

/// The programs that deployment runs, and the packages they are in on Debian and its like.
fn tools() -> Vec<Check> {
    [("qemu-system-x86_64", "qemu-system-x86"), ("qemu-img", "qemu-utils")]
        .into_iter()
        .map(|(program, package)| match is_installed(program) {
            true => Check::ok("deploy", format!("{program} is installed")),
            false => Check::warn(
                "deploy",
                format!("{program} is not installed; nothing can be deployed without it"),
                format!("apt-get install {package}"),
            ),
        })
        .collect()
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| {
        fs::metadata(folder.join(program)).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
    })
}

fn kvm() -> Check {
    let kvm = Path::new("/dev/kvm");
    if !kvm.exists() {
        return Check::warn(
            "deploy",
            "no /dev/kvm: guests are translated (TCG), ten times slower or more",
            "enable virtualisation in the firmware, or nested virtualisation outside",
        );
    }
    match rustix::fs::access(kvm, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK) {
        Ok(()) => Check::ok("deploy", "/dev/kvm can be used"),
        Err(error) => Check::warn(
            "deploy",
            format!("/dev/kvm cannot be used by this user ({error}): guests are translated (TCG)"),
            "usermod -aG kvm $USER, and log in again",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn state(checks: &[Check], name: &str) -> Vec<State> {
        checks.iter().filter(|check| check.check == name).map(|check| check.state).collect()
    }

    #[tokio::test]
    async fn an_empty_machine_is_told_to_init() {
        let temp = tempfile::tempdir().unwrap();
        let dir = NodeDir::new(temp.path().join("d")).unwrap();
        let checks = examine(&dir).await;
        assert_eq!(state(&checks, "directory"), [State::Fail]);
        assert_eq!(state(&checks, "format"), [State::Fail]);
        assert!(checks[0].fix.as_ref().unwrap().contains(" init "));
        assert!(checks.iter().all(|check| check.state == State::Ok || check.fix.is_some()));
    }

    #[tokio::test]
    async fn what_is_broken_is_found() {
        let temp = tempfile::tempdir().unwrap();
        let dir = NodeDir::new(temp.path().join("d")).unwrap();
        dir.create().unwrap();
        dir.write_format().unwrap();
        Keys::of(&dir).create(&crate::keys::site_name().unwrap()).unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let config =
            format!("name = \"uni\"\nfederation = \"demo\"\nweb = \"off\"\nlisten = [\"/ip4/127.0.0.1/tcp/{port}\"]\n");
        fs::write(dir.config_file(), &config).unwrap();
        fs::write(dir.policy_file(), "[default]\nthen = \"hold\"\n").unwrap();
        let checks = examine(&dir).await;
        for (name, expected) in [
            ("directory", State::Ok),
            ("keys", State::Ok),
            ("config", State::Ok),
            ("policy", State::Ok),
            ("ports", State::Fail),
            ("node", State::Warn),
            ("clock", State::Ok),
        ] {
            assert_eq!(state(&checks, name), [expected], "{name}: {checks:?}");
        }

        drop(taken);
        fs::set_permissions(dir.path(), Permissions::from_mode(0o770)).unwrap();
        fs::set_permissions(dir.keys().join("site"), Permissions::from_mode(0o640)).unwrap();
        fs::write(dir.config_file(), config + "peeers = 3\n[store]\nfree-space-floor = \"16777215 TiB\"\n").unwrap();
        fs::write(dir.policy_file(), "[default]\nthen = maybe\n").unwrap();
        let file = fs::File::open(dir.policy_file()).unwrap();
        file.set_modified(SystemTime::now() + 2 * MAX_AHEAD).unwrap();
        let checks = examine(&dir).await;
        for name in ["directory", "keys", "config", "policy", "clock"] {
            assert_eq!(state(&checks, name), [State::Fail], "{name}: {checks:?}");
        }
        assert_eq!(space(&dir, ByteSize(u64::MAX)).state, State::Fail);
    }
}
