//! Instances, and what deploying takes.

use std::collections::BTreeMap;

use rialto_protocol::ids::RecordId;
use serde::{Deserialize, Serialize};

/// One instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub instance: String,
    /// The release it runs.
    pub release: RecordId,
    /// `publisher/name@version` as known when it was deployed.
    pub title: String,
    /// `starting`, `running`, `suspended`, `stopped`, `failed`, …
    pub state: String,
    /// Its class: `guaranteed` or `backfill`.
    pub class: String,
    /// Published ports.
    pub ports: Vec<PortForward>,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// When it was deployed.
    pub created: String,
    /// What went wrong, or a warning such as a revocation.
    pub note: Option<String>,
}

/// A port of the guest that the host listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForward {
    /// Port on the host's loopback.
    pub host: u16,
    /// Port in the guest.
    pub guest: u16,
}

/// `deploy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployed {
    /// The new instance's id.
    pub instance: String,
    /// Its state.
    pub state: String,
    /// Its published ports.
    pub ports: Vec<PortForward>,
}

/// `suspend`, `resume`, `stop`, `rm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceChanged {
    /// Its id.
    pub instance: String,
    /// Its state now.
    pub state: String,
}

/// `deploy RELEASE [--set K=V]… [--publish HOST:GUEST]…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// The release.
    pub release: String,
    /// Values of its context inputs.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Ports to publish; host port 0 picks a free one.
    #[serde(default)]
    pub publish: Vec<PortForward>,
}

/// `instances/{id}/stop`: an empty body means a gentle stop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StopRequest {
    /// Pull the plug instead of pressing the power button.
    pub force: bool,
}
