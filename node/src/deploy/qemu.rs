//! QEMU as a [`Hypervisor`]: one process per guest, spoken to over QMP.
//!
//! A guest's process runs in its home, so every path on its command line is short and relative, whatever the node's
//! directory is called; it has a process group of its own, so it outlives the node; and it is found again by the
//! identity on its command line and confirmed by the one that QMP answers. Guests reach the outside through QEMU's user
//! networking, and with it the loopback of this machine as 10.0.2.2: what listens there must not trust it blindly.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use qapi::qmp;
use serde_json::json;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

use super::hypervisor::{
    Accelerator, Guest, GuestEvent, GuestStatus, Hypervisor, HypervisorError, Identity, Machine, MachineBoot, Saved,
};
use super::instance::note;
use super::probe::{self, FirmwareFiles, Probed};
use super::process::Process;
use super::qmp::{Notice, Qmp, SOCKET};

/// What the guest writes to its serial port.
const CONSOLE: &str = "console.log";
/// A suspended guest's memory and devices, in QEMU's migration format; and the same while it is being written.
const MEMORY: &str = "memory.state";
const NEW_MEMORY: &str = "memory.state.new";
/// How long a memory may take to save or to load, whatever its size: the disk is to write some hundred MB each second.
const MOVE_WITHIN: Duration = Duration::from_secs(15 * 60);
/// Between looks at how far that is.
const MOVE_LOOK: Duration = Duration::from_millis(50);
/// What QEMU itself writes.
const LOG: &str = "qemu.log";
/// The machine's own copy of the firmware's variables.
const FIRMWARE_VARS: &str = "firmware-vars.fd";
/// From the process's start to a guest that runs; QEMU takes well under a second on an idle machine.
const START_WITHIN: Duration = Duration::from_secs(60);
/// Between looks at whether the control socket is there yet.
const START_LOOK: Duration = Duration::from_millis(20);
/// Between attempts to get a lost control connection back.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);
/// How long what is left in the control connection may take to read, once the process has ended.
const DRAIN_WITHIN: Duration = Duration::from_millis(500);
/// Address space, CPU seconds and file size that `qemu-img` may use: an overlay's metadata stays far below.
const QEMU_IMG_LIMITS: [&str; 3] = ["--as=2147483648", "--cpu=60", "--fsize=1073741824"];
/// How much of QEMU's own log is looked at for its last words.
const LOG_TAIL_BYTES: u64 = 4096;

/// Runs guests with `qemu-system-x86_64`.
pub(super) struct Qemu {
    scratch: PathBuf,
    wanted: Option<Accelerator>,
    probed: OnceCell<Probed>,
}

impl Qemu {
    /// QEMU with its probe's files in `scratch`. Where `wanted` is set, no other accelerator is tried.
    pub(super) fn new(scratch: PathBuf, wanted: Option<Accelerator>) -> Self {
        Self { scratch, wanted, probed: OnceCell::new() }
    }

    async fn probed(&self) -> Result<Probed, HypervisorError> {
        self.probed.get_or_try_init(|| probe::probe(&self.scratch, self.wanted)).await.copied()
    }
}

#[async_trait]
impl Hypervisor for Qemu {
    async fn probe(&self) -> Result<Accelerator, HypervisorError> {
        Ok(self.probed().await?.accelerator)
    }

    async fn create(&self, home: &Path, machine: &Machine) -> Result<(), HypervisorError> {
        let (prlimit, qemu_img) = probe::disk_tools().map_err(|(what, fix)| HypervisorError::Missing { what, fix })?;
        for (number, disk) in machine.disks.iter().enumerate() {
            let output = Command::new(&prlimit)
                .args(QEMU_IMG_LIMITS)
                .arg("--")
                .arg(&qemu_img)
                .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
                .arg(&disk.base)
                .arg(overlay(number))
                .arg(disk.bytes.to_string())
                .env_clear()
                .envs(probe::environment())
                .current_dir(home)
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .output()
                .await
                .map_err(HypervisorError::io("run qemu-img"))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(HypervisorError::Tool { tool: probe::QEMU_IMG, why: note(&said) });
            }
        }
        if machine.boot.needs_uefi() {
            let template = probe::required_firmware()?.vars;
            let copied = tokio::fs::copy(template, home.join(FIRMWARE_VARS)).await;
            copied.map_err(HypervisorError::io("copy the firmware's variables"))?;
        }
        Ok(())
    }

    async fn start(&self, home: &Path, machine: &Machine) -> Result<Box<dyn Guest>, HypervisorError> {
        self.spawn(home, machine, None).await
    }

    async fn resume(&self, home: &Path, machine: &Machine, saved: &Saved) -> Result<Box<dyn Guest>, HypervisorError> {
        self.spawn(home, machine, Some(saved)).await
    }

    fn has_saved(&self, home: &Path) -> bool {
        home.join(MEMORY).is_file()
    }

    fn forget_saved(&self, home: &Path) -> std::io::Result<()> {
        for name in [MEMORY, NEW_MEMORY] {
            match std::fs::remove_file(home.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        File::open(home)?.sync_all()
    }

    async fn adopt(&self, home: &Path, identity: Identity) -> Result<Option<Box<dyn Guest>>, HypervisorError> {
        let Some(process) = Process::find(identity).map_err(HypervisorError::io("look through the processes"))? else {
            return Ok(None);
        };
        let qmp = match Qmp::connect(home, identity).await {
            Ok(qmp) => Some(qmp),
            Err(error @ HypervisorError::OtherGuest { .. }) => return Err(error),
            Err(error) => {
                tracing::warn!("guest {identity} runs, but its control socket does not answer: {error}");
                None
            }
        };
        Ok(Some(Box::new(QemuGuest::new(home, identity, process, qmp))))
    }

    async fn remove(&self, _home: &Path, _identity: Identity) -> Result<(), HypervisorError> {
        // A QEMU guest leaves nothing outside its home.
        Ok(())
    }

    fn console(&self, home: &Path) -> PathBuf {
        home.join(CONSOLE)
    }

    fn last_words(&self, home: &Path) -> Option<String> {
        last_words(home)
    }
}

impl Qemu {
    /// Starts QEMU: with a guest that boots and runs, or with one that stands still where its memory was saved.
    async fn spawn(
        &self,
        home: &Path,
        machine: &Machine,
        saved: Option<&Saved>,
    ) -> Result<Box<dyn Guest>, HypervisorError> {
        let qemu = probe::qemu()?;
        let probed = self.probed().await?;
        let firmware = machine.boot.needs_uefi().then(probe::required_firmware).transpose()?;
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(home.join(LOG));
        let log = log.map_err(HypervisorError::io(format!("open {LOG}")))?;
        let memory = match saved {
            Some(_) => {
                File::open(home.join(MEMORY)).map(Stdio::from).map_err(HypervisorError::io("open the saved memory"))?
            }
            None => Stdio::null(),
        };
        let log_too = log.try_clone().map_err(HypervisorError::io(format!("open {LOG}")))?;
        let child = Command::new(qemu)
            .args(arguments(machine, probed, firmware.as_ref(), saved.map(|saved| saved.machine_type.as_str())))
            .env_clear()
            .envs(probe::environment())
            .current_dir(home)
            .stdin(memory)
            .stdout(log)
            .stderr(log_too)
            .process_group(0)
            .spawn()
            .map_err(HypervisorError::io("start QEMU"))?;
        let process = Process::started(child).map_err(HypervisorError::io("follow QEMU's process"))?;
        let mut guest = QemuGuest::new(home, machine.identity, process, None);
        let (within, wanted) = match saved {
            Some(_) => (MOVE_WITHIN, GuestStatus::Paused),
            None => (START_WITHIN, GuestStatus::Running),
        };
        match timeout(within, guest.becomes(wanted)).await {
            Ok(Ok(())) => Ok(Box::new(guest)),
            Ok(Err(error)) => {
                guest.end_now();
                Err(error)
            }
            Err(_) => {
                guest.end_now();
                Err(HypervisorError::Silent(within))
            }
        }
    }
}

struct QemuGuest {
    home: PathBuf,
    identity: Identity,
    process: Process,
    qmp: Option<Qmp>,
    /// Whether QEMU announced that the guest is shut down, and if by its panic.
    shutdown: Option<bool>,
    has_been_told_to_quit: bool,
    has_been_killed: bool,
}

impl QemuGuest {
    fn new(home: &Path, identity: Identity, process: Process, qmp: Option<Qmp>) -> Self {
        let home = home.to_owned();
        Self { home, identity, process, qmp, shutdown: None, has_been_told_to_quit: false, has_been_killed: false }
    }

    /// Waits until the new process answers and its guest is so.
    async fn becomes(&mut self, wanted: GuestStatus) -> Result<(), HypervisorError> {
        loop {
            tokio::select! {
                _ = self.process.ended() => {
                    let why = last_words(&self.home).unwrap_or_else(|| "QEMU ended at once and said nothing".into());
                    return Err(HypervisorError::DidNotStart(why));
                }
                () = sleep(START_LOOK) => {}
            }
            let is_so = match &mut self.qmp {
                Some(qmp) => qmp.status().await.is_ok_and(|status| status == wanted),
                None => {
                    self.qmp = Qmp::connect(&self.home, self.identity).await.ok();
                    false
                }
            };
            if is_so {
                return Ok(());
            }
        }
    }

    fn end_now(&mut self) {
        self.has_been_killed = true;
        if let Err(error) = self.process.kill() {
            tracing::error!("cannot kill process {} of guest {}: {error}", self.process.pid(), self.identity);
        }
    }

    fn take(&mut self, notice: Notice) -> Option<GuestEvent> {
        match notice {
            Notice::Shutdown { is_panic } => {
                self.shutdown = Some(is_panic);
                None
            }
            Notice::Reset => Some(GuestEvent::Reset),
            Notice::Panicked => Some(GuestEvent::Panicked),
            Notice::IoError(why) => Some(GuestEvent::IoError(why)),
        }
    }

    /// How it ended: `None` in good order.
    fn verdict(&self, status: Option<std::process::ExitStatus>) -> Option<String> {
        let is_in_order = status.is_some_and(|status| status.success());
        match self.shutdown {
            _ if self.has_been_killed => None,
            Some(true) => Some("the guest's kernel panicked".into()),
            Some(false) => None,
            None if is_in_order => None,
            None => {
                let how =
                    status.map_or("QEMU ended without a shutdown".into(), |status| format!("QEMU ended: {status}"));
                Some(last_words(&self.home).map_or(how.clone(), |said| format!("{how}\n{said}")))
            }
        }
    }
}

#[async_trait]
impl Guest for QemuGuest {
    async fn event(&mut self) -> GuestEvent {
        loop {
            let step = tokio::select! {
                biased;
                notice = next_notice(&mut self.qmp, &self.home, self.identity) => Ok(notice),
                status = self.process.ended() => Err(status),
            };
            match step {
                Ok(notice) => {
                    if let Some(event) = self.take(notice) {
                        return event;
                    }
                }
                Err(status) => {
                    // What QEMU announced last may still lie in the socket.
                    if let Some(mut qmp) = self.qmp.take() {
                        while let Ok(Some(notice)) = timeout(DRAIN_WITHIN, qmp.notice()).await {
                            self.take(notice);
                        }
                    }
                    return GuestEvent::Ended(self.verdict(status));
                }
            }
        }
    }

    async fn status(&mut self) -> Result<GuestStatus, HypervisorError> {
        if timeout(Duration::ZERO, self.process.ended()).await.is_ok() {
            return Ok(GuestStatus::Ended);
        }
        self.connected().await?.status().await
    }

    async fn suspend(&mut self) -> Result<Saved, HypervisorError> {
        let home = self.home.clone();
        let qmp = self.connected().await?;
        let saved = save(qmp, &home).await;
        if saved.is_err() {
            // The node may be short of disk, but not of a guest.
            let _ = std::fs::remove_file(home.join(NEW_MEMORY));
            let _ = std::fs::remove_file(home.join(MEMORY));
            self.go_on().await?;
        }
        saved
    }

    async fn go_on(&mut self) -> Result<(), HypervisorError> {
        let qmp = self.connected().await?;
        // One that is still being saved would be made to stand still again at the end of that.
        qmp.execute(qmp::migrate_cancel {}).await?;
        timeout(START_WITHIN, not_moving(qmp)).await.map_err(|_| HypervisorError::Silent(START_WITHIN))??;
        qmp.execute(qmp::cont {}).await.map(|_| ())
    }

    async fn stop(&mut self) -> Result<(), HypervisorError> {
        self.connected().await?.execute(qmp::system_powerdown {}).await.map(|_| ())
    }

    async fn kill(&mut self) -> Result<(), HypervisorError> {
        // Asked once to quit, QEMU closes its disks properly. Asked again, it evidently does not.
        if !std::mem::replace(&mut self.has_been_told_to_quit, true)
            && let Some(qmp) = &mut self.qmp
            && qmp.execute(qmp::quit {}).await.is_ok()
        {
            return Ok(());
        }
        self.has_been_killed = true;
        self.process.kill().map_err(HypervisorError::io("kill QEMU"))
    }

    fn pid(&self) -> Option<u32> {
        Some(self.process.pid())
    }
}

impl QemuGuest {
    async fn connected(&mut self) -> Result<&mut Qmp, HypervisorError> {
        let qmp = match self.qmp.take() {
            Some(qmp) => qmp,
            None => Qmp::connect(&self.home, self.identity).await?,
        };
        Ok(self.qmp.insert(qmp))
    }
}

/// Writes a guest's memory and devices to a file in its home, while it stands still. QEMU writes the file itself, through a
/// handle: a path would have to be one that its sandbox and every version of it takes. Not into the qcow2 overlay
/// (`snapshot-save`), since a guest may have no writable disk of that kind, or firmware variables beside it that are raw.
async fn save(qmp: &mut Qmp, home: &Path) -> Result<Saved, HypervisorError> {
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
async fn not_moving(qmp: &mut Qmp) -> Result<(), HypervisorError> {
    use qmp::MigrationStatus::{active, cancelling, device, pre_switchover, setup};
    while matches!(
        qmp.execute(qmp::query_migrate {}).await?.status,
        Some(setup | active | pre_switchover | device | cancelling)
    ) {
        sleep(MOVE_LOOK).await;
    }
    Ok(())
}

/// The next notice, over a new connection where the old one broke. Cancel-safe.
async fn next_notice(qmp: &mut Option<Qmp>, home: &Path, identity: Identity) -> Notice {
    loop {
        if let Some(open) = qmp {
            match open.notice().await {
                Some(notice) => return notice,
                None => *qmp = None,
            }
        }
        sleep(RECONNECT_AFTER).await;
        *qmp = Qmp::connect(home, identity).await.ok();
    }
}

fn overlay(number: usize) -> String {
    format!("disk{number}.qcow2")
}

/// QEMU's command line. Everything in it is ours, but for the kernel's command line, which is the value of `-append`. A
/// guest that was saved on hardware of the type `saved_on` is loaded from standard input, and stands still.
fn arguments(
    machine: &Machine,
    probed: Probed,
    firmware: Option<&FirmwareFiles>,
    saved_on: Option<&str>,
) -> Vec<OsString> {
    let accelerator = probed.accelerator.as_str();
    let pflash = if firmware.is_some() { ",pflash0=firmware-code,pflash1=firmware-vars" } else { "" };
    let cpu = if probed.accelerator == Accelerator::Kvm { "host" } else { "max" };
    let memory_mib = machine.memory_bytes.div_ceil(1 << 20);
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |option: &str, value: OsString| arguments.extend([OsString::from(option), value]);

    add("-name", machine.name.clone().into());
    add("-uuid", machine.identity.to_string().into());
    // graphics=off sends what the BIOS says to the serial port, hence to the console log.
    add("-machine", format!("{},accel={accelerator},graphics=off{pflash}", saved_on.unwrap_or("q35")).into());
    add("-cpu", cpu.into());
    add("-smp", machine.vcpus.to_string().into());
    add("-m", format!("{memory_mib}M").into());
    add("-display", "none".into());
    add("-rtc", "base=utc".into());
    if probed.has_sandbox {
        add("-sandbox", probe::SANDBOX.into());
    }
    add("-chardev", format!("socket,id=qmp,path={SOCKET},server=on,wait=off").into());
    add("-mon", "chardev=qmp,mode=control".into());
    add("-chardev", format!("file,id=console,path={CONSOLE},append=on").into());
    add("-serial", "chardev:console".into());

    // Formats and backing files are stated here rather than read from any header.
    let file = |path: &Path| json!({ "driver": "file", "filename": path.to_string_lossy() });
    if let Some(firmware) = firmware {
        let code =
            json!({ "driver": "raw", "node-name": "firmware-code", "read-only": true, "file": file(&firmware.code) });
        let vars = json!({ "driver": "raw", "node-name": "firmware-vars", "file": file(Path::new(FIRMWARE_VARS)) });
        add("-blockdev", code.to_string().into());
        add("-blockdev", vars.to_string().into());
    }
    for (number, disk) in machine.disks.iter().enumerate() {
        let node = json!({
            "driver": "qcow2",
            "node-name": format!("disk{number}"),
            "discard": "unmap",
            "file": file(Path::new(&overlay(number))),
            "backing": { "driver": "raw", "read-only": true, "file": file(&disk.base) },
        });
        add("-blockdev", node.to_string().into());
        // A kernel that QEMU loads itself takes the first place in the boot order.
        let is_booted_from = number == 0 && !matches!(machine.boot, MachineBoot::Direct { .. });
        let boot = if is_booted_from { ",bootindex=0" } else { "" };
        add("-device", format!("virtio-blk-pci,drive=disk{number},serial=disk{number}{boot}").into());
    }
    let seed = json!({ "driver": "raw", "node-name": "seed", "read-only": true, "file": file(&machine.seed) });
    add("-blockdev", seed.to_string().into());
    add("-device", "virtio-blk-pci,drive=seed,serial=seed".into());

    let forward = |port: &rialto_web::api::PortForward| format!(",hostfwd=tcp:127.0.0.1:{}-:{}", port.host, port.guest);
    let forwards: String = machine.ports.iter().map(forward).collect();
    add("-netdev", format!("user,id=net{forwards}").into());
    // Without its option ROM: nothing boots from the network here.
    add("-device", "virtio-net-pci,netdev=net,romfile=".into());
    add("-device", "virtio-rng-pci".into());
    add("-device", "pvpanic".into());
    if let MachineBoot::Direct { kernel, initrd, cmdline, .. } = &machine.boot {
        add("-kernel", kernel.into());
        if let Some(initrd) = initrd {
            add("-initrd", initrd.into());
        }
        add("-append", cmdline.into());
    }
    if saved_on.is_some() {
        add("-incoming", "fd:0".into());
        arguments.push("-S".into());
    }
    arguments.extend(["-nodefaults", "-no-user-config"].map(OsString::from));
    arguments
}

/// The last of what QEMU complained about, without what it merely remarks.
fn last_words(home: &Path) -> Option<String> {
    let mut file = File::open(home.join(LOG)).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let is_remark = |line: &&str| line.contains("warning:") || line.contains("terminating on signal");
    let lines: Vec<&str> = tail.lines().filter(|line| !line.trim().is_empty() && !is_remark(line)).collect();
    let last = lines[lines.len().saturating_sub(5)..].join("\n");
    (!last.is_empty()).then(|| note(&last))
}

#[cfg(test)]
mod tests {
    use rialto_web::api::PortForward;

    use super::super::hypervisor::MachineDisk;
    use super::*;

    fn machine(cmdline: &str) -> Machine {
        Machine {
            identity: Identity::of("x"),
            name: "rialto-x".into(),
            vcpus: 2,
            memory_bytes: (64 << 20) + 1,
            disks: vec![MachineDisk { base: "../../bases/a.raw".into(), bytes: 512 }],
            seed: "seed.img".into(),
            boot: MachineBoot::Direct { kernel: "k".into(), initrd: None, cmdline: cmdline.into(), uefi: false },
            ports: vec![PortForward { host: 8080, guest: 80 }],
        }
    }

    #[test]
    fn a_kernel_command_line_is_a_value_and_never_an_option() {
        let probed = Probed { accelerator: Accelerator::Tcg, has_sandbox: true };
        let hostile = "-monitor tcp:0.0.0.0:1,server -drive file=/etc/shadow";
        let arguments = arguments(&machine(hostile), probed, None, None);
        let at = arguments.iter().position(|argument| argument == hostile).unwrap();
        assert_eq!(arguments[at - 1], "-append");
        assert_eq!(arguments.iter().filter(|argument| argument.to_string_lossy().contains("/etc/shadow")).count(), 1);
        assert!(arguments.iter().any(|argument| argument == "65M"));
        assert!(arguments.iter().any(|argument| argument == "user,id=net,hostfwd=tcp:127.0.0.1:8080-:80"));
    }

    #[test]
    fn last_words_are_complaints_only() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(last_words(home.path()), None);
        let write = |text: &str| std::fs::write(home.path().join(LOG), text).unwrap();
        write("qemu: warning: something\nqemu: terminating on signal 15 from pid 1\n");
        assert_eq!(last_words(home.path()), None);
        write("qemu: warning: something\nqemu: could not open disk\n");
        assert_eq!(last_words(home.path()).as_deref(), Some("qemu: could not open disk"));
    }
}
