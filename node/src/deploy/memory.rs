//! A suspended guest's memory, as QEMU writes it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use qapi::qmp;
use tokio::time::{sleep, timeout};

use super::hypervisor::{HypervisorError, Saved};
use super::instance::note;
use super::qmp::Qmp;

/// A suspended guest's memory and devices, in QEMU's migration format; and the same while it is being written.
pub(super) const MEMORY: &str = "memory.state";
const NEW_MEMORY: &str = "memory.state.new";
/// How long a memory may take to save or to load, whatever its size: the disk is to write some hundred MB each second.
pub(super) const MOVE_WITHIN: Duration = Duration::from_secs(15 * 60);
/// Between looks at how far that is.
const MOVE_LOOK: Duration = Duration::from_millis(50);

/// Writes a guest's memory and devices to a file in its home, while it stands still. QEMU writes the file itself, through a
/// handle: a path would have to be one that its sandbox and every version of it takes. Not into the qcow2 overlay
/// (`snapshot-save`), since a guest may have no writable disk of that kind, or firmware variables beside it that are raw.
pub(super) async fn save(qmp: &mut Qmp, home: &Path) -> Result<Saved, HypervisorError> {
    let unwritable = |error: std::io::Error| HypervisorError::NotSaved(error.to_string());
    let kind = qmp.execute(qmp::qom_get { path: "/machine".into(), property: "type".into() }).await?;
    let kind = kind.as_str().unwrap_or_default().trim_end_matches("-machine").to_owned();
    // It goes onto a command line again.
    if kind.is_empty() || !kind.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_')) {
        return Err(HypervisorError::NotSaved(format!("QEMU calls this machine '{}'", note(&kind))));
    }
    let new = home.join(NEW_MEMORY);
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(unwritable)?;
    qmp.execute(qmp::stop {}).await?;
    // It stands still: there is nobody to leave bandwidth to.
    let at_full_speed = qmp::MigrateSetParameters { max_bandwidth: Some(1 << 40), ..Default::default() };
    qmp.execute(qmp::migrate_set_parameters(at_full_speed)).await?;
    qmp.hand_over(file.as_fd(), "memory").await?;
    qmp.execute(qmp::migrate { uri: Some("fd:memory".into()), channels: None, detach: None, resume: None }).await?;
    timeout(MOVE_WITHIN, saved(qmp))
        .await
        .map_err(|_| HypervisorError::NotSaved(format!("it takes more than {} s", MOVE_WITHIN.as_secs())))??;
    let home = home.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        std::fs::rename(&new, home.join(MEMORY))?;
        File::open(&home)?.sync_all()?;
        Ok(bytes)
    });
    let bytes = written.await.map_err(std::io::Error::other).and_then(|written| written).map_err(unwritable)?;
    Ok(Saved { machine_type: kind, bytes })
}

/// Waits until QEMU has written everything.
async fn saved(qmp: &mut Qmp) -> Result<(), HypervisorError> {
    loop {
        let migration = qmp.execute(qmp::query_migrate {}).await?;
        match migration.status {
            Some(qmp::MigrationStatus::completed) => return Ok(()),
            Some(qmp::MigrationStatus::failed | qmp::MigrationStatus::cancelled) => {
                let why = migration.error_desc.unwrap_or_else(|| "QEMU does not say why".into());
                return Err(HypervisorError::NotSaved(note(&why)));
            }
            _ => sleep(MOVE_LOOK).await,
        }
    }
}

/// Waits until QEMU writes nothing any more.
pub(super) async fn not_moving(qmp: &mut Qmp) -> Result<(), HypervisorError> {
    use qmp::MigrationStatus::{active, cancelling, device, pre_switchover, setup};
    while matches!(
        qmp.execute(qmp::query_migrate {}).await?.status,
        Some(setup | active | pre_switchover | device | cancelling)
    ) {
        sleep(MOVE_LOOK).await;
    }
    Ok(())
}

/// Forgets what is saved in a guest's home, whole or not.
pub(super) fn forget(home: &Path) -> io::Result<()> {
    for name in [MEMORY, NEW_MEMORY] {
        match std::fs::remove_file(home.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    File::open(home)?.sync_all()
}
