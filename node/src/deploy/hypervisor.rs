//! What runs guests: the trait that each hypervisor implements, and the machine it is asked for.
//!
//! A [`Hypervisor`] makes and finds guests; a [`Guest`] is one that runs, owned by one task, which drops it to leave it
//! running. Nothing in a [`Machine`] is text that came by gossip except its kernel command line; every path in it is
//! relative to the instance's own directory (its *home*) and made of our ids.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rialto_web::api::PortForward;
use serde::{Deserialize, Serialize};

/// Something that runs guests.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// Finds out what works on this machine by running a guest. Slow (seconds) the first time, remembered after.
    async fn probe(&self) -> Result<Accelerator, HypervisorError>;

    /// Makes what the machine needs before it can start: its writable disks and firmware variables, in `home`.
    async fn create(&self, home: &Path, machine: &Machine) -> Result<(), HypervisorError>;

    /// Starts it and returns once the guest runs.
    async fn start(&self, home: &Path, machine: &Machine) -> Result<Box<dyn Guest>, HypervisorError>;

    /// Starts it from the memory that [`Guest::suspend`] saved in `home`, and returns once all of that is loaded: the guest
    /// then stands still, until [`Guest::go_on`]. What was saved must be forgotten before, for it goes with its disks as
    /// they are now.
    async fn resume(&self, home: &Path, machine: &Machine, saved: &Saved) -> Result<Box<dyn Guest>, HypervisorError>;

    /// Whether a whole memory is saved in `home`.
    fn has_saved(&self, home: &Path) -> bool;

    /// Forgets what is saved in `home`, whole or not.
    fn forget_saved(&self, home: &Path) -> io::Result<()>;

    /// Finds a guest again that an earlier process started: `None` where none runs under this identity.
    async fn adopt(&self, home: &Path, identity: Identity) -> Result<Option<Box<dyn Guest>>, HypervisorError>;

    /// Forgets a machine outside of `home`, whose files the caller removes. The guest must have ended.
    async fn remove(&self, home: &Path, identity: Identity) -> Result<(), HypervisorError>;

    /// Where the guest's console is written.
    fn console(&self, home: &Path) -> PathBuf;

    /// Why a guest that nobody watched may have ended badly, from what the hypervisor itself wrote; `None` if it ended well.
    fn last_words(&self, home: &Path) -> Option<String>;
}

/// A guest that runs. Dropping it leaves it running.
#[async_trait]
pub trait Guest: Send {
    /// The next thing that happens to it. Cancel-safe; after [`GuestEvent::Ended`] it is not asked again.
    async fn event(&mut self) -> GuestEvent;

    /// Whether it runs, is paused, is being loaded, or has ended.
    async fn status(&mut self) -> Result<GuestStatus, HypervisorError>;

    /// Saves its memory beside its disks. Afterwards it stands still, and only has to be ended; where this fails, it goes on.
    async fn suspend(&mut self) -> Result<Saved, HypervisorError>;

    /// Lets one that stands still go on.
    async fn go_on(&mut self) -> Result<(), HypervisorError>;

    /// Presses the power button: the guest may take its time, or ignore it.
    async fn stop(&mut self) -> Result<(), HypervisorError>;

    /// Ends it now. What it had not written to disk is lost. The end itself comes as [`GuestEvent::Ended`].
    async fn kill(&mut self) -> Result<(), HypervisorError>;

    /// Its process, where it is one of this machine.
    fn pid(&self) -> Option<u32>;
}

/// What happens to a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEvent {
    /// It restarted itself.
    Reset,
    /// Its kernel gave up.
    Panicked,
    /// It was paused because the host could not read or write for it; the text says why.
    IoError(String),
    /// It ended. `None` where it ended in good order, else why not, in plain words.
    Ended(Option<String>),
}

/// How a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestStatus {
    /// Its processors run.
    Running,
    /// It exists, but its processors stand still.
    Paused,
    /// Its memory is being loaded.
    Loading,
    /// It is gone.
    Ended,
}

/// What has to be known of a saved memory to load it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// The hypervisor's name for the exact hardware, such as `pc-q35-7.2`: a later version of it may build another by default.
    pub machine_type: String,
    /// Bytes on disk.
    pub bytes: u64,
}

/// The identity of one machine: it is found again by this, never by a process id alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity(u128);

impl Identity {
    /// The identity of the instance with this id. It follows from the id alone, so that a guest can be found again even
    /// where the instance's record is damaged.
    pub fn of(instance: &str) -> Self {
        let hash = blake3::derive_key("rialto instance identity v1", instance.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        // RFC 9562 version 8 (made by a hash of our own) and variant.
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for Identity {
    /// The form of a UUID.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

impl Serialize for Identity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = u128::from_str_radix(&text.replace('-', ""), 16);
        let identity = number.ok().map(Self).filter(|identity| identity.to_string() == text);
        identity.ok_or_else(|| serde::de::Error::custom("that is no machine's identity"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A machine to be made. Paths are relative to its home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Who it is.
    pub identity: Identity,
    /// What the hypervisor's own tools show it as; made of `[a-z0-9-]`.
    pub name: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Disks, the first being the one that it boots from.
    pub disks: Vec<MachineDisk>,
    /// The read-only disk with the instance's context.
    pub seed: PathBuf,
    /// How it boots.
    pub boot: MachineBoot,
    /// Ports of the host's loopback that lead to the guest.
    pub ports: Vec<PortForward>,
}

/// A disk of a machine: what the guest writes goes to a file of its own, over a base that is never written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineDisk {
    /// The flat file underneath.
    pub base: PathBuf,
    /// Size that the guest sees, in bytes: a multiple of 512, at least the base's.
    pub bytes: u64,
}

/// How a machine boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum MachineBoot {
    /// PC BIOS, from the first disk.
    Bios,
    /// UEFI, from the first disk.
    Uefi,
    /// The hypervisor loads the kernel.
    Direct {
        /// The kernel.
        kernel: PathBuf,
        /// The initial RAM disk.
        initrd: Option<PathBuf>,
        /// The kernel's command line.
        cmdline: String,
        /// Whether UEFI hands over to the kernel rather than BIOS.
        uefi: bool,
    },
}

impl MachineBoot {
    /// Whether UEFI firmware is needed.
    pub fn needs_uefi(&self) -> bool {
        matches!(self, Self::Uefi | Self::Direct { uefi: true, .. })
    }
}

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor itself, through `/dev/kvm`.
    Kvm,
    /// QEMU's translator: works everywhere, many times slower.
    Tcg,
}

impl Accelerator {
    /// The name, as shown and as QEMU calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// Why a hypervisor did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// A program or file is not installed.
    #[error("{what} is missing on this machine: {fix}")]
    Missing {
        /// What was looked for.
        what: &'static str,
        /// The command that installs it.
        fix: &'static str,
    },
    /// Not even translated guests run.
    #[error("{program} does not run guests on this machine: {why}")]
    NothingRuns {
        /// The program tried.
        program: String,
        /// What it said.
        why: String,
    },
    /// A tool failed.
    #[error("{tool} failed: {why}")]
    Tool {
        /// Its name.
        tool: &'static str,
        /// What it said.
        why: String,
    },
    /// The guest's process ended before the guest ran.
    #[error("the guest did not start: {0}")]
    DidNotStart(String),
    /// The guest's process does not answer on its control socket.
    #[error("the guest's control socket did not answer within {0:?}")]
    Silent(Duration),
    /// The guest's memory could not be saved.
    #[error("the guest's memory cannot be saved: {0}; it goes on running")]
    NotSaved(String),
    /// The control socket said no.
    #[error("the guest's control socket refused {command}: {why}")]
    Refused {
        /// The command.
        command: &'static str,
        /// The answer.
        why: String,
    },
    /// The guest's control socket belongs to another guest.
    #[error("the control socket in {home} belongs to guest {found}, not to {expected}")]
    OtherGuest {
        /// Where.
        home: PathBuf,
        /// Who answered.
        found: String,
        /// Who should have.
        expected: Identity,
    },
    /// The operating system refused.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The operating system's answer.
        source: io::Error,
    },
}

impl HypervisorError {
    /// Wraps an I/O error with what was being done.
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_uuids_that_follow_from_the_id() {
        let identity = Identity::of("0123456789abcdef").to_string();
        assert_eq!(identity, Identity::of("0123456789abcdef").to_string());
        assert_ne!(identity, Identity::of("0123456789abcdee").to_string());
        assert_eq!(serde_json::from_str::<Identity>(&format!("\"{identity}\"")).unwrap().to_string(), identity);
        assert!(serde_json::from_str::<Identity>("\"0123\"").is_err());
        assert_eq!(identity.len(), 36);
        assert_eq!(&identity[14..15], "8");
    }
}
