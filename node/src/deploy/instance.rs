//! An instance's life, and its record on disk.
//!
//! ```text
//!                  deploy
//!                    │
//!                    ▼
//!               ┌─creating─┐   disks and seed are made
//!               │    │     │
//!               │    ▼     │
//!               │ starting─┤   the guest's process is there
//!               │    │     │
//!               │    ▼     │
//!               │ running──┼──► stopping   the power button was pressed
//!               │  │ ▲ ▲   │       │ │
//!               │  ▼ │ └───┼─────┐ │ │
//!               │ suspending─┐   │ │ │     its memory is being saved
//!               │    │     │ │   │ │ │
//!               │    ▼     │ │   │ │ │
//!               │ suspended┼─┼─┐ │ │ │     its memory is on disk, its process gone
//!               │    │ ▲   │ │ │ │ │ │
//!               │    ▼ │   │ │ │ │ │ │
//!               │ resuming─┼─┼─┼─┘ │ │     its memory is being loaded
//!               │    │     │ ▼ ▼   │ │
//!               │    ▼     ▼       │ │
//!               │ stopped ◄────────┘ │     the guest ended in good order
//!               └──► failed ◄────────┘     it did not; the note says why
//! ```
//!
//! | from | to |
//! |---|---|
//! | creating | starting, failed |
//! | starting | running, stopped, failed |
//! | running | suspending, stopping, stopped, failed |
//! | suspending | suspended, running (it could not be saved), stopped, failed |
//! | suspended | resuming, stopped, failed |
//! | resuming | running, suspended (it could not be loaded), stopped, failed |
//! | stopping | stopped, failed |
//! | stopped, failed | (removed) |
//!
//! The record is written before what it announces is done, so after a crash `creating` and `starting` say what to look
//! for: a half-made instance becomes `failed`, a guest that turns out to run becomes `running`, one that is gone
//! becomes `stopped` or `failed`. A memory that is saved goes with the disks as they were then, so it is forgotten before
//! its guest goes on: where it is still there after a crash, the guest has not gone on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rialto_protocol::ids::{ImageId, RecordId};
use rialto_web::api::{self, PortForward};
use serde::{Deserialize, Serialize};

use super::hypervisor::{Accelerator, Machine, Saved};

/// The record's name in the instance's home.
pub(super) const RECORD_FILE: &str = "instance.json";
/// The version of the record that this program writes and reads.
const RECORD_VERSION: u32 = 1;
/// A record is at most this long: 64 ports, 10 images and a kernel's command line take 12 KiB, notes the rest.
const MAX_RECORD_BYTES: u64 = 64 * 1024;
/// A note is cut to this many characters.
const MAX_NOTE_CHARS: usize = 2000;

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its disks and seed are being made.
    Creating,
    /// Its guest's process is being started.
    Starting,
    /// Its guest runs.
    Running,
    /// Its guest's memory is being saved.
    Suspending,
    /// Its guest is on disk only.
    Suspended,
    /// Its guest's memory is being loaded.
    Resuming,
    /// Its guest was asked to end.
    Stopping,
    /// Its guest ended in good order.
    Stopped,
    /// It came to nothing, or its guest ended badly.
    Failed,
}

impl State {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 9] = [
        Self::Creating,
        Self::Starting,
        Self::Running,
        Self::Suspending,
        Self::Suspended,
        Self::Resuming,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
    ];

    /// The transition table.
    pub fn can_become(self, next: Self) -> bool {
        use State::{Creating, Failed, Resuming, Running, Starting, Stopped, Stopping, Suspended, Suspending};
        matches!(
            (self, next),
            (Creating, Starting | Failed)
                | (Starting, Running | Stopped | Failed)
                | (Running, Suspending | Stopping | Stopped | Failed)
                | (Suspending, Suspended | Running | Stopped | Failed)
                | (Suspended, Resuming | Stopped | Failed)
                | (Resuming, Running | Suspended | Stopped | Failed)
                | (Stopping, Stopped | Failed)
        )
    }

    /// Whether its guest has ended for good: it holds no ports, and can be removed.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }

    /// Whether its guest takes memory of this machine.
    pub fn has_memory(self) -> bool {
        !self.is_over() && self != Self::Suspended
    }

    /// The name, as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Suspending => "suspending",
            Self::Suspended => "suspended",
            Self::Resuming => "resuming",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// What is known of an instance, as it is kept in its home. Values of inputs are not in it: they may be secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceRecord {
    pub(super) v: u32,
    /// Its id: 16 hexadecimal digits.
    pub id: String,
    /// The release that it runs.
    pub release: RecordId,
    /// `publisher/name@version` as known when it was deployed.
    pub title: String,
    /// Where it is in its life.
    pub state: State,
    /// The images that it is made of, which must stay exported.
    pub images: Vec<ImageId>,
    /// Published ports.
    pub ports: Vec<PortForward>,
    /// What executes its guest.
    pub accelerator: Accelerator,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// When it was deployed, in milliseconds since 1970.
    pub created_unix_ms: i64,
    /// Process of its guest when that was last seen: for people; the guest is found by its identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What became of its guest, or what is wrong with it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// A warning about its release, such as a revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// The machine, to start it again from a saved memory; none where an earlier version of this program made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) machine: Option<Machine>,
    /// What is to be known of its saved memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) saved: Option<Saved>,
}

/// Why an instance's record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file is missing or unreadable.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Too long to be one.
    #[error("it has more than {MAX_RECORD_BYTES} bytes")]
    TooLarge,
    /// Not the JSON of a record.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer program.
    #[error("it is of version {0}, and this program reads version {RECORD_VERSION}: update it")]
    Newer(u64),
    /// The record of another instance.
    #[error("it is the record of instance {0}")]
    OtherInstance(String),
}

impl InstanceRecord {
    /// The record of an instance whose own record cannot be read: it can only be stopped and removed. Its release is not
    /// known; the id of no record at all stands in its place.
    pub(super) fn damaged(id: &str, why: &RecordError) -> Self {
        Self {
            v: RECORD_VERSION,
            id: id.to_owned(),
            release: RecordId::of(b""),
            title: "(unreadable)".into(),
            state: State::Failed,
            images: Vec::new(),
            ports: Vec::new(),
            accelerator: Accelerator::Tcg,
            vcpus: 0,
            memory_bytes: 0,
            created_unix_ms: 0,
            pid: None,
            note: Some(note(&format!(
                "{RECORD_FILE} cannot be read: {why}. Restore it from a backup, or remove the instance."
            ))),
            warning: None,
            machine: None,
            saved: None,
        }
    }

    /// A new record in its first state.
    pub(super) fn new(id: String, release: RecordId, title: &str, created: jiff::Timestamp) -> Self {
        Self {
            v: RECORD_VERSION,
            id,
            release,
            title: note(title),
            state: State::Creating,
            images: Vec::new(),
            ports: Vec::new(),
            accelerator: Accelerator::Tcg,
            vcpus: 0,
            memory_bytes: 0,
            created_unix_ms: created.as_millisecond(),
            pid: None,
            note: None,
            warning: None,
            machine: None,
            saved: None,
        }
    }

    /// Reads the record in `home`, the directory of instance `id`.
    ///
    /// # Errors
    /// Missing, too long, malformed, of a newer version or of another instance.
    pub(super) fn read(home: &Path, id: &str) -> Result<Self, RecordError> {
        let mut bytes = Vec::new();
        File::open(home.join(RECORD_FILE))?.take(MAX_RECORD_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_RECORD_BYTES {
            return Err(RecordError::TooLarge);
        }
        let value: serde_json::Value = serde_json::from_slice(&bytes)?;
        match value.get("v").and_then(serde_json::Value::as_u64) {
            Some(v) if v > u64::from(RECORD_VERSION) => return Err(RecordError::Newer(v)),
            _ => {}
        }
        let record: Self = serde_json::from_value(value)?;
        if record.id != id {
            return Err(RecordError::OtherInstance(note(&record.id)));
        }
        Ok(record)
    }

    /// Writes the record into `home`: whatever happens, the old one or the new one is there, whole.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn write(&self, home: &Path) -> io::Result<()> {
        let temporary = home.join("instance.json.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(&temporary, home.join(RECORD_FILE))?;
        File::open(home)?.sync_all()
    }

    /// The instance as the API shows it.
    pub fn shown(&self) -> api::Instance {
        let note = match (&self.warning, &self.note) {
            (Some(warning), Some(note)) => Some(format!("{warning}\n{note}")),
            (warning, note) => warning.clone().or_else(|| note.clone()),
        };
        api::Instance {
            instance: self.id.clone(),
            release: self.release,
            title: self.title.clone(),
            state: self.state.as_str().into(),
            class: "guaranteed".into(),
            ports: self.ports.clone(),
            accelerator: self.accelerator.as_str().into(),
            vcpus: self.vcpus,
            memory_bytes: self.memory_bytes,
            created: jiff::Timestamp::from_millisecond(self.created_unix_ms).unwrap_or_default().to_string(),
            note,
        }
    }
}

/// Text for people, from a guest or a tool: bounded, and without control characters that would act on a terminal.
pub(crate) fn note(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c });
    clean.take(MAX_NOTE_CHARS).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> InstanceRecord {
        InstanceRecord::new("00112233".into(), RecordId::of(b"r"), "uni/hello@1", jiff::Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn lives_only_move_forward_and_end() {
        for from in State::ALL {
            assert!(!from.can_become(from));
            assert!(State::ALL.iter().all(|to| !to.can_become(State::Creating)), "nothing is created twice");
            assert_eq!(from.is_over(), State::ALL.iter().all(|to| !from.can_become(*to)), "{from:?}");
            assert!(from.is_over() || from.can_become(State::Failed), "{from:?} can fail");
        }
    }

    #[test]
    fn a_record_comes_back() {
        let home = tempfile::tempdir().unwrap();
        let mut record = record();
        record.write(home.path()).unwrap();
        record.state = State::Starting;
        record.ports = vec![PortForward { host: 1, guest: 2 }];
        record.write(home.path()).unwrap();
        assert_eq!(InstanceRecord::read(home.path(), "00112233").unwrap(), record);
        assert!(matches!(InstanceRecord::read(home.path(), "99"), Err(RecordError::OtherInstance(_))));
    }

    #[test]
    fn damaged_and_newer_records_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let read = |bytes: &[u8]| {
            fs::write(home.path().join(RECORD_FILE), bytes).unwrap();
            InstanceRecord::read(home.path(), "00112233").unwrap_err()
        };
        assert!(matches!(read(b"{\"v\": 1, \"id\""), RecordError::Json(_)));
        assert!(matches!(read(b"{\"v\": 2}"), RecordError::Newer(2)));
        assert!(matches!(read(&vec![b' '; 70_000]), RecordError::TooLarge));
    }

    #[test]
    fn notes_cannot_act_on_a_terminal() {
        assert_eq!(note("\u{1b}[2Jhello\r\nthere\u{9b}0m"), "[2Jhello \nthere 0m");
        assert_eq!(note(&"x".repeat(5000)).len(), MAX_NOTE_CHARS);
    }
}
