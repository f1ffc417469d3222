//! What tests with hostile peers begin with, and how they look at what a node makes of it.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rialto_testnet::site::{Plan, Rialto, SOON, Site};
use rialto_testnet::wait::{eventually, run_within};
use serde_json::Value;

use crate::hostile::Hostile;
use crate::stage::{FEDERATION, Stage, configure, shown};

/// A stage, for tests that begin with sites that run and have met. Sites must be dropped before it.
pub struct Scene(Stage);

impl Scene {
    /// An empty one.
    pub fn new() -> Self {
        Self(Stage::new().expect("a stage"))
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.0.path()
    }

    /// A running site that offers all it has.
    pub fn site(&self, name: &str) -> Site {
        self.site_that_knows(name, &[])
    }

    /// A running site that offers all it has, and has met these.
    pub fn site_that_knows(&self, name: &str, others: &[&Site]) -> Site {
        let site = self.0.running(name, others).expect("a running site");
        site.meets(others).expect("the sites meet");
        site
    }

    /// A file with this content, as commands take it.
    pub fn file(&self, name: &str, content: &[u8]) -> String {
        shown(&self.0.file(name, content).expect("a file"))
    }

    /// A release with a disk that boots nothing, by the site's key `releases`.
    pub fn published(&self, site: &Site) -> String {
        self.0.publish(site, "nothing", "1.0.0", "releases").expect("a release")
    }

    /// A site that does not run, in a directory other than the stage's.
    pub fn site_in(&self, directory: &Path, name: &str) -> Site {
        let plan = Plan { serve: Some("all".to_owned()), ..Plan::new(name, FEDERATION) };
        Site::init(&Rialto::find().expect("the rialto binary"), directory, &plan).expect("a new site")
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

/// A hostile peer that the site takes for one of its federation.
pub fn hostile(site: &Site) -> Hostile {
    let peer = Hostile::join(FEDERATION, &site.address().expect("the site's address"));
    let id = peer.peer_id();
    let is_known = |peers: &Value| {
        peers.as_array().into_iter().flatten().any(|peer| peer["peer_id"] == id.as_str() && peer["agent"].is_string())
    };
    site.until(SOON, "the hostile peer among its peers", &["peers"], is_known).expect("the site knows the peer");
    peer
}

/// The number of records in a site's catalog.
pub fn records(site: &Site) -> u64 {
    site.status().expect("status")["records"].as_u64().expect("a number of records")
}

/// Waits for a line of the node's log that has all of these words.
pub fn logged(site: &Site, words: &[&str]) -> String {
    let found = eventually(SOON, &format!("a log line with {words:?}"), || {
        let log = plain(&site.log());
        let line = log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned);
        line.ok_or_else(|| log.lines().rev().take(20).collect::<Vec<_>>().join("\n"))
    });
    found.expect("the log line")
}

/// A log without the colours that a terminal would show.
fn plain(log: &str) -> String {
    log.replace('\u{1b}', "")
}

/// Checks that the node still does everything that it is for: answers, adds a file, verifies it.
pub fn goes_on(site: &mut Site, scene: &Scene) {
    assert!(site.is_running(), "the node has ended:\n{}", site.log());
    let file = scene.file(&format!("{}-goes-on", site.name()), b"the node goes on");
    let added = site.json(&["image", "add", &file]).expect("an image can be added");
    verify(site, added["image"].as_str().expect("an image id"));
}

/// Insists that an image is whole.
pub fn verify(site: &Site, image: &str) {
    let verified = site.json(&["image", "verify", image]).expect("the image verifies");
    assert_eq!(verified["bad_chunks"], 0, "{verified}");
}

/// A command that runs beside the test. Dropping it kills it.
pub struct Running {
    child: Option<Child>,
    shown: String,
}

/// Starts a command with `--json` and returns at once.
pub fn start(site: &Site, arguments: &[&str]) -> Running {
    let mut command = site.command(&[arguments, &["--json"]].concat());
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    Running { child: Some(child.expect("the command starts")), shown: arguments.join(" ") }
}

impl Running {
    /// Waits for its end: the exit code, and the value or error that it printed.
    pub fn end(mut self, within: Duration) -> (Option<i32>, Value) {
        let mut child = self.child.take().expect("it runs");
        let ended = eventually(within, &format!("the end of `{}`", self.shown), || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        if ended.is_err() {
            child.kill().ok();
        }
        let output = child.wait_with_output().expect("its output");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ended.unwrap_or_else(|error| panic!("{error}\n{out}\n{err}"));
        let value = match output.status.success() {
            true => serde_json::from_str(&out),
            false => serde_json::from_str(err.lines().next_back().unwrap_or_default()),
        };
        (output.status.code(), value.unwrap_or_else(|_| Value::from(format!("{out}\n{err}"))))
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Presses Ctrl-C.
    pub fn interrupt(&self) {
        let id = self.child.as_ref().map_or(0, Child::id);
        let pid = rustix::process::Pid::from_raw(id as i32).expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Resident memory of the site's node, in bytes.
pub fn resident_bytes(site: &Site) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", site.node_pid().expect("a node"))).expect("its status");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map_or(0, |kib: u64| kib * 1024)
}

/// Bytes in a site's segment files.
pub fn segment_bytes(site: &Site) -> u64 {
    let entries = fs::read_dir(site.directory().join("store/segments")).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

/// Chunks of an image that a site lacks; `None` while it does not list the image, or knows nothing of it but its id.
pub fn missing(site: &Site, image: &str) -> Option<usize> {
    let listed = site.json(&["image", "ls"]).expect("the list of images");
    let found = listed.as_array().into_iter().flatten().find(|listed| listed["image"] == image)?;
    found["chunks"].as_u64().filter(|&chunks| chunks > 0)?;
    found["missing_chunks"].as_u64().map(|missing| missing as usize)
}

/// Adds a file as an image and returns its id.
pub fn add(site: &Site, file: &str) -> String {
    let added = site.json(&["image", "add", file]).expect("an image is added");
    added["image"].as_str().expect("its id").to_owned()
}

/// Runs a program of the system, which must succeed.
pub fn system(program: &str, arguments: &[&str]) -> bool {
    let mut command = std::process::Command::new(program);
    run_within(command.args(arguments), SOON).is_ok_and(|ended| ended.status.success())
}

/// Makes one site know another from now on; returns when they have met.
pub fn introduce(site: &mut Site, other: &Site) {
    site.stop().expect("the node ends");
    let address = other.address().expect("the other site's address");
    configure(site, &[("bootstrap = ", &format!("bootstrap = [\"{address}\"]"))]).expect("a configuration");
    site.start().expect("the node starts again");
    site.meets(&[other]).expect("the sites meet");
}

/// Looks without a pause until something is so, for moments that are over soon. `false` where it ended before.
pub fn catch(running: &mut Running, is_so: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < SOON {
        if is_so() {
            return true;
        }
        if !running.is_running() {
            return is_so();
        }
    }
    panic!("the moment never came, and the command never ended");
}
