//! Real sites: `rialto` nodes as processes, each with its own directory, keys and policy, on loopback.
//!
//! A [`Site`] runs the same binary and the same commands as a person would. What it starts it also ends: dropping it
//! stops its node, and the guests that the node has started, by their process ids.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rialto_node::trust::Policy;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::wait::{self, RunError, WaitError, eventually, run_within};

/// A node is ready well within a second; a debug build on a busy machine gets this long.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// An orderly end, before the node is killed.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// The longest command of the demo and the tests: fetching, and starting QEMU on a busy machine.
const COMMAND_WITHIN: Duration = Duration::from_secs(180);
/// How long what a site waits for may take: gossip, reconnecting, a policy file coming into force.
pub const SOON: Duration = Duration::from_secs(30);
/// Lines of a node's log that an error quotes.
const LOG_LINES_SHOWN: usize = 20;

/// Why something with a site did not work.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// There is no binary to run.
    #[error("there is no rialto binary at {0}; run cargo build, or name one in RIALTO_BIN")]
    NoBinary(PathBuf),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The node did not come up, or went away.
    #[error("the node of {site} {what}; the end of its log:\n{log}")]
    Node {
        /// The site.
        site: String,
        /// What it did.
        what: String,
        /// The end of its log.
        log: String,
    },
    /// A command could not be run to its end.
    #[error("`{command}` {source}")]
    Run {
        /// The command line.
        command: String,
        /// Why.
        source: RunError,
    },
    /// A command ended otherwise than expected.
    #[error("`{command}` ended with {found} where {expected} was expected\n{output}")]
    Exit {
        /// The command line.
        command: String,
        /// Exit code, or signal.
        found: String,
        /// The exit code that was expected.
        expected: i32,
        /// What it wrote.
        output: String,
    },
    /// A command's output was not what it should be.
    #[error("`{command}` {why}: {output}")]
    Output {
        /// The command line.
        command: String,
        /// What is wrong with it.
        why: String,
        /// What it wrote.
        output: String,
    },
    /// Something did not happen in time.
    #[error(transparent)]
    Wait(#[from] WaitError),
}

type Result<T> = std::result::Result<T, SiteError>;

/// The binary under test.
#[derive(Debug, Clone)]
pub struct Rialto {
    binary: PathBuf,
}

impl Rialto {
    /// `$RIALTO_BIN`, or else the `rialto` that was built beside the program that runs.
    ///
    /// # Errors
    /// There is no such file.
    pub fn find() -> Result<Self> {
        if let Some(binary) = std::env::var_os("RIALTO_BIN") {
            return Self::at(Path::new(&binary));
        }
        let program = std::env::current_exe().map_err(at("the running program".as_ref()))?;
        // A test runs from target/PROFILE/deps, a binary from target/PROFILE.
        let places = program.ancestors().skip(1).take(2).map(|directory| directory.join("rialto"));
        let fallback = program.with_file_name("rialto");
        Self::at(&places.into_iter().find(|place| place.is_file()).unwrap_or(fallback))
    }

    /// This binary.
    ///
    /// # Errors
    /// There is no such file.
    pub fn at(binary: &Path) -> Result<Self> {
        match fs::canonicalize(binary) {
            Ok(binary) if binary.is_file() => Ok(Self { binary }),
            _ => Err(SiteError::NoBinary(binary.to_owned())),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.binary
    }
}

/// What a site is set up with. `Plan::new("uni", "demo")` will do; the fields are there to be changed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The site's name, and that of its directory.
    pub name: String,
    /// The federation it belongs to.
    pub federation: String,
    /// Addresses of nodes that it finds the others through.
    pub bootstrap: Vec<String>,
    /// Which images it offers to strangers: `published`, `all` or `none`.
    pub serve: Option<String>,
    /// Where it listens for others.
    pub listen: String,
    /// The network namespace that its node runs in, where that is not the one of this process.
    pub namespace: Option<String>,
    /// Further arguments to `rialto init`.
    pub extra: Vec<String>,
}

impl Plan {
    /// A site that listens on loopback, on ports that the system picks.
    pub fn new(name: &str, federation: &str) -> Self {
        Self {
            name: name.to_owned(),
            federation: federation.to_owned(),
            bootstrap: Vec::new(),
            serve: None,
            listen: "/ip4/127.0.0.1/tcp/0".to_owned(),
            namespace: None,
            extra: Vec::new(),
        }
    }

    /// Finds the others through this site, which must be running.
    ///
    /// # Errors
    /// That site does not say where it listens.
    pub fn knows(mut self, site: &Site) -> Result<Self> {
        self.bootstrap.push(site.address()?);
        Ok(self)
    }
}

/// One site: a directory, and a node that runs or does not.
#[derive(Debug)]
pub struct Site {
    name: String,
    directory: PathBuf,
    log: PathBuf,
    rialto: Rialto,
    node: Option<Child>,
    namespace: Option<String>,
    environment: Vec<(String, String)>,
}

impl Site {
    /// Sets a site up in `base/NAME` with `rialto init`. The node's log goes to `base/NAME.log`.
    ///
    /// # Errors
    /// `rialto init` fails.
    pub fn init(rialto: &Rialto, base: &Path, plan: &Plan) -> Result<Self> {
        fs::create_dir_all(base).map_err(at(base))?;
        let base = fs::canonicalize(base).map_err(at(base))?;
        let site = Self {
            name: plan.name.clone(),
            directory: base.join(&plan.name),
            log: base.join(format!("{}.log", plan.name)),
            rialto: rialto.clone(),
            node: None,
            namespace: plan.namespace.clone(),
            environment: Vec::new(),
        };
        let mut arguments = vec!["init", "--name", &plan.name, "--federation", &plan.federation];
        arguments.extend(["--listen", &plan.listen, "--web", "127.0.0.1:0"]);
        for address in &plan.bootstrap {
            arguments.extend(["--bootstrap", address]);
        }
        if let Some(serve) = &plan.serve {
            arguments.extend(["--serve", serve]);
        }
        arguments.extend(plan.extra.iter().map(String::as_str));
        site.rialto(&arguments)?.expect(0)?;
        Ok(site)
    }

    /// Sets an environment variable for the node and for every command from now on.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The site's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The site's directory: keys, policy, store.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the node has logged so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Whether the node has been started and has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.node.as_mut().is_some_and(|node| matches!(node.try_wait(), Ok(None)))
    }

    /// The node's process id, while it has been started.
    pub fn node_pid(&self) -> Option<u32> {
        self.node.as_ref().map(Child::id)
    }

    /// Starts the node and returns when it says that it is ready.
    ///
    /// # Errors
    /// It ends, or has not said so within 30 s; the end of its log is part of the error.
    pub fn start(&mut self) -> Result<()> {
        self.stop()?;
        let log = File::options().create(true).append(true).open(&self.log).map_err(at(&self.log))?;
        let mut node = self
            .node_command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(at(self.rialto.path()))?;
        let stdout = node.stdout.take();
        self.node = Some(node);

        // The thread reads on after `ready`, so that the node never writes into a closed pipe.
        let (sender, ready) = sync_channel(1);
        std::thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()).map_while(io::Result::ok) {
                if line == "ready" {
                    let _ = sender.try_send(());
                }
            }
        });
        let started = Instant::now();
        let what = loop {
            match ready.recv_timeout(Duration::from_millis(100)) {
                Ok(()) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => break "ended before it was ready".to_owned(),
                Err(RecvTimeoutError::Timeout) if wait::is_interrupted() => return Err(WaitError::Interrupted.into()),
                Err(RecvTimeoutError::Timeout) if started.elapsed() < READY_WITHIN => {}
                Err(RecvTimeoutError::Timeout) => break format!("was not ready within {READY_WITHIN:?}"),
            }
        };
        self.kill();
        Err(self.node_error(&what))
    }

    /// Asks the node to end and waits until it has; its guests run on. Nothing happens where it does not run.
    ///
    /// # Errors
    /// It has not ended within 15 s, and was killed.
    pub fn stop(&mut self) -> Result<()> {
        self.stop_within(STOP_WITHIN)
    }

    /// As [`Site::stop`], with another deadline than 15 s.
    ///
    /// # Errors
    /// It has not ended within that time, and was killed.
    pub fn stop_within(&mut self, within: Duration) -> Result<()> {
        let Some(mut node) = self.node.take() else { return Ok(()) };
        if let Some(pid) = Pid::from_raw(node.id() as i32).filter(|_| matches!(node.try_wait(), Ok(None))) {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let ended = eventually(within, "its end", || match node.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        if ended.is_err() {
            wait::end(&mut node);
        }
        ended.map_err(|_| self.node_error(&format!("did not end within {within:?} of SIGTERM, and was killed")))
    }

    /// Kills the node where it stands (SIGKILL), as a crash would; its guests run on.
    pub fn kill(&mut self) {
        if let Some(mut node) = self.node.take() {
            wait::end(&mut node);
        }
    }

    /// Runs `rialto --dir D ARGUMENTS` to its end, whatever that is.
    ///
    /// # Errors
    /// It cannot be run, or does not end within 180 s.
    pub fn rialto(&self, arguments: &[&str]) -> Result<Finished> {
        self.rialto_within(COMMAND_WITHIN, arguments)
    }

    fn rialto_within(&self, within: Duration, arguments: &[&str]) -> Result<Finished> {
        let shown = shown(arguments);
        let ended = run_within(&mut self.command(arguments), within)
            .map_err(|source| SiteError::Run { command: format!("{}: {shown}", self.name), source })?;
        Ok(Finished {
            command: format!("{}: {shown}", self.name),
            code: ended.status.code(),
            ending: ended.status.to_string(),
            stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
        })
    }

    /// The command `rialto --dir D ARGUMENTS`, for those who want to run it in their own way.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.rialto.path());
        command.arg("--dir").arg(&self.directory).args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The command that becomes the node. `ip netns exec` replaces itself by it, so the process id is the node's.
    fn node_command(&self) -> Command {
        let plain = self.command(&["node"]);
        let Some(namespace) = &self.namespace else { return plain };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(plain.get_program()).args(plain.get_args());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command with `--json`, which must succeed, and returns its value.
    ///
    /// # Errors
    /// Another exit code than 0, or output that is not one JSON value.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        self.json_within(COMMAND_WITHIN, arguments)
    }

    /// As [`Site::json`], with another deadline than 180 s.
    ///
    /// # Errors
    /// As there.
    pub fn json_within(&self, within: Duration, arguments: &[&str]) -> Result<Value> {
        let finished = self.rialto_within(within, &[arguments, &["--json"]].concat())?;
        finished.expect(0)?.json()
    }

    /// Runs a command with `--json`, which must end with this exit code, and returns `code`, `message` and `hint` of
    /// the error that it reports.
    ///
    /// # Errors
    /// Another exit code, or no error in the form that scripts rely on.
    pub fn refused(&self, arguments: &[&str], code: i32) -> Result<Value> {
        let finished = self.rialto(&[arguments, &["--json"]].concat())?;
        finished.expect(code)?.error()
    }

    /// Runs a command with `--json` again and again until `is_so` holds of its value, which is returned.
    ///
    /// # Errors
    /// It never was so within the time given; the last value or error is part of the error.
    pub fn until(
        &self,
        within: Duration,
        what: &str,
        arguments: &[&str],
        mut is_so: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let seen = eventually(within, &format!("{}: {what}", self.name), || {
            let value = self.json(arguments).map_err(|error| error.to_string())?;
            if is_so(&value) { Ok(value) } else { Err(value.to_string()) }
        })?;
        Ok(seen)
    }

    /// `status`.
    ///
    /// # Errors
    /// The node does not answer.
    pub fn status(&self) -> Result<Value> {
        self.json(&["status"])
    }

    /// The site key as a libp2p peer id.
    ///
    /// # Errors
    /// The node does not answer.
    pub fn peer_id(&self) -> Result<String> {
        text(&self.status()?, "peer_id")
    }

    /// An address at which others can dial the node: TCP on loopback, with `/p2p/…`.
    ///
    /// # Errors
    /// The node does not answer, or listens nowhere.
    pub fn address(&self) -> Result<String> {
        let status = self.status()?;
        let listen = status["listen"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let found = listen.clone().find(|address| address.contains("/tcp/")).or_else(|| listen.clone().next());
        found.map(str::to_owned).ok_or_else(|| unexpected("status", "names no address in 'listen'", &status))
    }

    /// Where the web face listens.
    ///
    /// # Errors
    /// The node does not answer, or has no web face.
    pub fn web(&self) -> Result<SocketAddr> {
        let status = self.status()?;
        let url = text(&status, "web")?;
        let authority = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
        authority.parse().map_err(|_| unexpected("status", "has no address in 'web'", &status))
    }

    /// Makes a signer's key and returns its public half as a policy file has it.
    ///
    /// # Errors
    /// The key exists, or cannot be written.
    pub fn new_key(&self, name: &str) -> Result<String> {
        text(&self.json(&["key", "new", name])?, "public_key")
    }

    /// Replaces `policy.toml`. Where the node runs, returns once the file is in force or refused.
    ///
    /// # Errors
    /// The file cannot be written, or the node takes no notice of it.
    pub fn write_policy(&mut self, policy: &str) -> Result<()> {
        let path = self.directory.join("policy.toml");
        let fresh = self.directory.join("policy.toml.new");
        fs::write(&fresh, policy).map_err(at(&fresh))?;
        fs::rename(&fresh, &path).map_err(at(&path))?;
        if self.is_running() {
            let hash = blake3::hash(policy.as_bytes()).to_hex();
            // The one before may have been no policy either.
            let is_one = Policy::parse(policy).is_ok();
            self.until(SOON, "the new policy in force", &["status"], |status| match is_one {
                true => status["policy"]["hash"] == hash.as_str(),
                false => status["policy"]["error"].is_string(),
            })?;
        }
        Ok(())
    }

    /// Waits until the node is connected to each of these sites.
    ///
    /// # Errors
    /// It is not within 30 s.
    pub fn meets(&self, others: &[&Site]) -> Result<()> {
        let wanted = others.iter().map(|site| site.peer_id()).collect::<Result<Vec<_>>>()?;
        self.until(SOON, "connections to the others", &["peers"], |peers| {
            wanted.iter().all(|id| peers.as_array().into_iter().flatten().any(|peer| peer["peer_id"] == id.as_str()))
        })?;
        Ok(())
    }

    /// What policy says of a release, as soon as the verdict is this one.
    ///
    /// # Errors
    /// It is not within 30 s; what it is instead is part of the error.
    pub fn verdict(&self, release: &str, verdict: &str) -> Result<Value> {
        let what = format!("verdict '{verdict}' of {release}");
        self.until(SOON, &what, &["policy", "explain", release], |seen| seen["verdict"] == verdict)
    }

    /// Process ids of the QEMU guests that run out of this site's directory.
    pub fn guests(&self) -> Vec<u32> {
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(|id| self.is_guest(*id)).collect()
    }

    /// Ends the node, then every guest of this site, at once.
    pub fn end(&mut self) {
        if self.stop().is_err() {
            self.kill();
        }
        for guest in self.guests() {
            if let Some(pid) = Pid::from_raw(guest as i32) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }

    /// QEMU runs in its instance's directory, and names files there by their paths or from there.
    fn is_guest(&self, id: u32) -> bool {
        let Ok(command_line) = fs::read(format!("/proc/{id}/cmdline")) else { return false };
        let mut arguments = command_line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        if !arguments.next().is_some_and(|program| program.contains("qemu-system-")) {
            return false;
        }
        let home = format!("{}/", self.directory.display());
        fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|place| place.starts_with(&self.directory))
            || arguments.any(|argument| argument.contains(&home))
    }

    fn node_error(&self, what: &str) -> SiteError {
        let log = self.log();
        let mut lines: Vec<&str> = log.lines().rev().take(LOG_LINES_SHOWN).collect();
        lines.reverse();
        SiteError::Node { site: self.name.clone(), what: what.to_owned(), log: lines.join("\n") }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    command: String,
    ending: String,
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Insists on an exit code.
    ///
    /// # Errors
    /// It is another one; the error has what the command wrote.
    pub fn expect(&self, code: i32) -> Result<&Self> {
        if self.code == Some(code) {
            return Ok(self);
        }
        let (command, found) = (self.command.clone(), self.ending.clone());
        Err(SiteError::Exit { command, found, expected: code, output: self.to_string() })
    }

    /// Standard output as one JSON value.
    ///
    /// # Errors
    /// It is not one.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).map_err(|error| SiteError::Output {
            command: self.command.clone(),
            why: format!("did not print one JSON value ({error})"),
            output: self.to_string(),
        })
    }

    /// The error in the form that scripts rely on: `{"error": …}` on the last line of standard error.
    ///
    /// # Errors
    /// It is not there.
    pub fn error(&self) -> Result<Value> {
        let last = self.stderr.lines().next_back().unwrap_or_default();
        let value: Value = serde_json::from_str(last).unwrap_or_default();
        match &value["error"] {
            error @ Value::Object(_) => Ok(error.clone()),
            _ => Err(SiteError::Output {
                command: self.command.clone(),
                why: "did not end with an error in JSON".to_owned(),
                output: self.to_string(),
            }),
        }
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--- stdout\n{}\n--- stderr\n{}", self.stdout.trim_end(), self.stderr.trim_end())
    }
}

/// A text field of a JSON value.
///
/// # Errors
/// It is not there, or is not text.
pub fn text(value: &Value, field: &str) -> Result<String> {
    let found = value[field].as_str().map(str::to_owned);
    found.ok_or_else(|| unexpected(field, &format!("'{field}' is missing or is not text"), value))
}

fn unexpected(command: &str, why: &str, value: &Value) -> SiteError {
    SiteError::Output { command: command.to_owned(), why: why.to_owned(), output: value.to_string() }
}

fn shown(arguments: &[&str]) -> String {
    format!("rialto {}", arguments.join(" "))
}

/// Says which file an I/O error is about.
fn at(path: &Path) -> impl FnOnce(io::Error) -> SiteError + '_ {
    move |source| SiteError::Io { path: path.to_owned(), source }
}
