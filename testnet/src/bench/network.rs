//! Machines on shaped links: network namespaces joined by a bridge, every link limited both ways by a token bucket.

use std::path::Path;
use std::process::Command;

use super::{BenchError, Result, peers};

/// What a link takes at once before it is held to its rate.
const BURST: &str = "64kb";
/// How long a packet may wait for its turn; what would wait longer is dropped, as a switch would.
const LATENCY: &str = "50ms";
/// Beginning of the names of our namespaces; the process id follows.
const PREFIX: &str = "rialto-bench-";

/// A bridge, and machines with a link to it. Dropping it removes all of them; what runs there must have ended.
pub(super) struct Network {
    bridge: String,
    machines: Vec<String>,
}

impl Network {
    /// So many machines on links of this many Mbit/s, in each direction.
    ///
    /// # Errors
    /// [`BenchError::Missing`] without root or iproute2; or what `ip` and `tc` say.
    pub(super) fn new(machines: usize, megabits: u32) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(BenchError::Missing("network namespaces need root; run it again as root".into()));
        }
        peers::needs("ip", "iproute2")?;
        peers::needs("tc", "iproute2")?;
        sweep();
        let name = |what: &str| format!("{PREFIX}{}-{what}", std::process::id());
        // Made first, so that whatever exists of it is removed should the rest fail.
        let mut network = Self { bridge: name("bridge"), machines: Vec::new() };
        ip(&["netns", "add", &network.bridge])?;
        network.in_bridge(&["link", "add", "br0", "type", "bridge"])?;
        network.in_bridge(&["link", "set", "br0", "up"])?;
        for number in 0..machines {
            let machine = name(&number.to_string());
            ip(&["netns", "add", &machine])?;
            network.machines.push(machine);
            network.link(number, megabits)?;
        }
        Ok(network)
    }

    /// The namespace of a machine, counted from 0.
    pub(super) fn machine(&self, number: usize) -> &str {
        &self.machines[number]
    }

    /// Its address.
    pub(super) fn address(number: usize) -> String {
        // Documentation addresses: they lead nowhere outside of the bridge.
        format!("192.0.2.{}", number + 1)
    }

    fn link(&self, number: usize, megabits: u32) -> Result<()> {
        let (machine, port) = (self.machine(number), format!("port{number}"));
        let ends = ["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", machine];
        self.in_bridge(&ends)?;
        self.in_bridge(&["link", "set", &port, "master", "br0", "up"])?;
        ip(&["-n", machine, "address", "add", &format!("{}/24", Self::address(number)), "dev", "eth0"])?;
        ip(&["-n", machine, "link", "set", "eth0", "up"])?;
        ip(&["-n", machine, "link", "set", "lo", "up"])?;
        shape(machine, "eth0", megabits)?;
        shape(&self.bridge, &port, megabits)
    }

    fn in_bridge(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.bridge], arguments].concat())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in self.machines.iter().chain([&self.bridge]) {
            // It may not have come to exist.
            let _ = ip(&["netns", "delete", namespace]);
        }
    }
}

/// Removes what a benchmark left behind that was killed: namespaces whose process is gone.
fn sweep() {
    let Ok(namespaces) = std::fs::read_dir("/run/netns") else { return };
    for name in namespaces.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = ip(&["netns", "delete", &name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    peers::run(Command::new("ip").args(arguments)).map(drop)
}

fn shape(namespace: &str, device: &str, megabits: u32) -> Result<()> {
    let rate = format!("{megabits}mbit");
    let limit = ["rate", &rate, "burst", BURST, "latency", LATENCY];
    let command = &mut Command::new("tc");
    peers::run(command.args(["-n", namespace, "qdisc", "add", "dev", device, "root", "tbf"]).args(limit)).map(drop)
}
