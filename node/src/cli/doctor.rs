//! `rialto doctor`: what is wrong or missing on this machine, and the command that fixes it. Works without the node.

mod machine;
mod network;
mod site;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rialto_web::api::{ApiError, ClockRequest, ClockStatus, ErrorCode, Status};
use serde::Serialize;
use serde_json::json;

use super::output::{Cell, Face, Outcome, Tone, count, span};
use crate::client::Client;
use crate::config::Config;
use crate::dir::NodeDir;

/// How long the node may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// The node works, and something is not as it should be.
    Warn,
    /// The node does not work, or not as the administrator believes.
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

/// What to say of the clock, where anything.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Say that this machine's clock is right: the node was really off for so long. Asks the running node
    #[arg(long, conflicts_with = "reset_clock")]
    accept_clock: bool,
    /// Say that it is right although the node has seen a later time: that one was wrong. Asks the running node
    #[arg(long)]
    reset_clock: bool,
}

pub(super) async fn run(face: &Face, dir: &NodeDir, arguments: Arguments) -> Outcome {
    if arguments.accept_clock || arguments.reset_clock {
        let request = ClockRequest { reset: arguments.reset_clock };
        let clock: ClockStatus = Client::new(dir)?.post("clock", &request).await?;
        return face.print(&clock, |page| page.line(format!("the time is {}", clock.now)));
    }
    let mut checks = examine(dir).await;
    face.note_on_terminal("booting a guest of one sector, to see what runs it …");
    checks.extend(machine::examine().await);
    let failed = checks.iter().filter(|check| check.state == State::Fail).count() as u64;
    let warned = checks.iter().filter(|check| check.state == State::Warn).count() as u64;
    face.print(&json!({"failed": failed, "warned": warned, "checks": checks}), |page| {
        let width = checks.iter().map(|check| check.check.len()).max().unwrap_or(0);
        for check in &checks {
            let state = match check.state {
                State::Ok => Cell::new("ok", Tone::Good),
                State::Warn => Cell::new("warn", Tone::Warn),
                State::Fail => Cell::new("FAIL", Tone::Bad),
            };
            page.columns([(state, 4), (check.check.into(), width), ((&check.what).into(), 0)]);
            if let Some(fix) = &check.fix {
                page.columns([("".into(), 4), ("".into(), width), (Cell::new(format!("→ {fix}"), Tone::Strong), 0)]);
            }
        }
        if failed == 0 {
            page.line(match warned {
                0 => Cell::new("all is well", Tone::Good),
                warned => Cell::new(format!("nothing failed, {}", count(warned, "warning")), Tone::Warn),
            });
        }
    })?;
    match failed {
        0 => Ok(()),
        failed => Err(ApiError::failed(format!("{} failed", count(failed, "check")))
            .with_hint("below each line with FAIL stands what to do")),
    }
}

/// Everything of this node; [`machine::examine`] looks at what it runs on.
async fn examine(dir: &NodeDir) -> Vec<Check> {
    let mut checks = site::directory(dir);
    if checks.iter().any(|check| check.check == "format") {
        return checks;
    }
    checks.extend(site::keys(dir));
    let config = Config::load(dir);
    checks.push(match &config {
        Ok(config) => Check::ok(
            "config",
            format!("{} of {}, as {} says", config.name, config.federation, shown(dir.config_file())),
        ),
        Err(error) => Check { check: "config", state: State::Fail, what: error.to_string(), fix: error.hint() },
    });
    let node = ask_node(dir).await;
    checks.push(site::policy(dir, node.as_ref().ok()));
    checks.extend(running(dir, &node));
    if let Ok(config) = &config {
        checks.extend(network::examine(dir, config, node.as_ref().ok()).await);
        checks.push(site::space(dir, config.store.free_space_floor));
        if let (Some(quota), Ok(node)) = (config.store.quota, &node) {
            checks.push(site::quota(dir, quota, node));
        }
    }
    checks.push(site::clock(dir));
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

fn running(dir: &NodeDir, node: &Result<Status, ApiError>) -> Vec<Check> {
    let status = match node {
        Ok(status) => status,
        Err(error) if error.code == ErrorCode::NotRunning => {
            let what = "it is not running";
            return vec![Check { check: "node", state: State::Warn, what: what.into(), fix: error.hint.clone() }];
        }
        Err(error) => return vec![Check::failed("node", error.clone())],
    };
    let what = format!("it has been running for {}, with {}", span(status.seconds as i64), count(status.peers, "peer"));
    let mut checks = vec![Check::ok("node", what)];
    if status.version != env!("CARGO_PKG_VERSION") {
        let what = format!("the node is version {}, and this program {}", status.version, env!("CARGO_PKG_VERSION"));
        checks.push(Check::warn("node", what, "start the node again with this program"));
    }
    checks.extend(site::changed_since_start(dir, status.seconds));
    // What is said of policy and space has lines of its own; the rest is about instances.
    let about_instances = status.warnings.iter().filter(|warning| warning.starts_with("instance "));
    checks.extend(about_instances.map(|warning| Check::warn("node", warning, rialto(dir, "ps"))));
    checks
}

/// A command line for the node in this directory.
fn rialto(dir: &NodeDir, command: &str) -> String {
    match NodeDir::default_path() {
        Ok(default) if default == dir.path() => format!("rialto {command}"),
        _ => format!("rialto --dir {} {command}", dir.path().display()),
    }
}

fn shown(path: PathBuf) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::SystemTime;

    use super::*;
    use crate::keys::Keys;

    fn state(checks: &[Check], name: &str) -> Vec<State> {
        checks.iter().filter(|check| check.check == name).map(|check| check.state).collect()
    }

    /// A directory as `init` leaves it.
    fn site(config: &str) -> (tempfile::TempDir, NodeDir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = NodeDir::new(temp.path().join("d")).unwrap();
        dir.create().unwrap();
        Keys::of(&dir).create(&crate::keys::site_name().unwrap()).unwrap();
        fs::write(dir.config_file(), format!("name = \"uni\"\nfederation = \"demo\"\nweb = \"off\"\n{config}"))
            .unwrap();
        fs::write(dir.policy_file(), "[default]\nthen = \"hold\"\n").unwrap();
        dir.write_format().unwrap();
        (temp, dir)
    }

    /// Says of one thing, and no other, that it failed; and what to do about it.
    async fn only_fails(dir: &NodeDir, name: &str, fix: &str) {
        let checks = examine(dir).await;
        let failed: Vec<_> = checks.iter().filter(|check| check.state == State::Fail).collect();
        assert_eq!(failed.iter().map(|check| check.check).collect::<Vec<_>>(), [name], "{checks:?}");
        let told = failed[0].fix.as_deref().unwrap_or_default();
        assert!(told.contains(fix), "{told}");
    }

    #[tokio::test]
    async fn an_empty_machine_is_told_to_init() {
        let temp = tempfile::tempdir().unwrap();
        let dir = NodeDir::new(temp.path().join("d")).unwrap();
        let checks = examine(&dir).await;
        assert_eq!(state(&checks, "format"), [State::Fail]);
        assert!(checks[0].fix.as_ref().unwrap().contains(" init "), "{checks:?}");
    }

    #[tokio::test]
    async fn a_new_site_is_well_but_not_running() {
        let (_temp, dir) = site("listen = [\"/ip4/127.0.0.1/tcp/0\"]\n");
        let checks = examine(&dir).await;
        assert!(checks.iter().all(|check| check.state != State::Fail), "{checks:?}");
        assert!(checks.iter().all(|check| check.state == State::Ok || check.fix.is_some()), "{checks:?}");
        assert_eq!(state(&checks, "node"), [State::Warn]);
        for name in ["directory", "keys", "config", "policy", "clock"] {
            assert_eq!(state(&checks, name), [State::Ok], "{name}: {checks:?}");
        }
    }

    #[tokio::test]
    async fn modes_that_let_others_in_are_found() {
        let (_temp, dir) = site("listen = [\"/ip4/127.0.0.1/tcp/0\"]\n");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o770)).unwrap();
        only_fails(&dir, "directory", "chmod 700 ").await;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o750)).unwrap();
        assert_eq!(state(&examine(&dir).await, "directory"), [State::Warn]);
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(dir.policy_file(), Permissions::from_mode(0o666)).unwrap();
        only_fails(&dir, "directory", "chmod 600 ").await;
        fs::set_permissions(dir.policy_file(), Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(dir.keys().join("site"), Permissions::from_mode(0o640)).unwrap();
        only_fails(&dir, "keys", "chmod 600 ").await;
    }

    #[tokio::test]
    async fn files_that_cannot_be_used_are_found() {
        let (_temp, dir) = site("listen = [\"/ip4/127.0.0.1/tcp/0\"]\n");
        fs::write(dir.policy_file(), "[default]\nthen = maybe\n").unwrap();
        only_fails(&dir, "policy", "policy check").await;
        fs::write(dir.policy_file(), "").unwrap();
        let config = fs::read_to_string(dir.config_file()).unwrap();
        fs::write(dir.config_file(), config.clone() + "peeers = 3\n").unwrap();
        only_fails(&dir, "config", "correct ").await;
        fs::write(dir.config_file(), &config).unwrap();
        fs::rename(dir.keys().join("site"), dir.keys().join("moved")).unwrap();
        only_fails(&dir, "keys", "from a backup").await;
        fs::rename(dir.keys().join("moved"), dir.keys().join("site")).unwrap();
        Keys::of(&dir).create_with(&"offline".try_into().unwrap(), Some("secret")).unwrap();
        assert_eq!(state(&examine(&dir).await, "keys"), [State::Ok], "who knows the passphrase can use it");
        fs::write(dir.keys().join("site"), "torn").unwrap();
        only_fails(&dir, "keys", "").await;
        fs::write(dir.format_file(), "2\n").unwrap();
        only_fails(&dir, "format", "newer").await;
    }

    #[tokio::test]
    async fn addresses_that_lead_nowhere_are_found() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let (_temp, dir) = site(&format!("listen = [\"/ip4/127.0.0.1/tcp/{port}\"]\n"));
        only_fails(&dir, "ports", "ss -lntup").await;

        let (_temp, dir) =
            site(&format!("listen = [\"/ip4/127.0.0.1/tcp/0\"]\nbootstrap = [\"/ip4/127.0.0.1/tcp/{port}\"]\n"));
        assert_eq!(state(&examine(&dir).await, "bootstrap"), [State::Ok]);
        drop(taken);
        assert_eq!(state(&examine(&dir).await, "bootstrap"), [State::Warn]);
    }

    #[tokio::test]
    async fn a_full_disk_and_files_of_the_future_are_found() {
        let floor = "listen = [\"/ip4/127.0.0.1/tcp/0\"]\n[store]\nfree-space-floor = \"16777215 TiB\"\n";
        let (_temp, dir) = site(floor);
        only_fails(&dir, "space", "image gc").await;
        let (_temp, dir) = site("listen = [\"/ip4/127.0.0.1/tcp/0\"]\n");
        let file = fs::File::options().append(true).open(dir.policy_file()).unwrap();
        file.set_modified(SystemTime::now() + 3 * Duration::from_secs(86_400)).unwrap();
        only_fails(&dir, "clock", "timedatectl").await;
    }
}
