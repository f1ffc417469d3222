//! What this machine can run: programs, firmware, and the accelerator, found by booting a guest rather than by looking.

use std::env;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::hypervisor::{Accelerator, HypervisorError};
use super::instance::note;

/// The emulator.
pub(super) const QEMU: &str = "qemu-system-x86_64";
/// QEMU's tool for disks.
pub(super) const QEMU_IMG: &str = "qemu-img";
/// Runs a program under resource limits.
pub(super) const PRLIMIT: &str = "prlimit";

const FIX_QEMU: &str = "apt-get install qemu-system-x86";
const FIX_QEMU_IMG: &str = "apt-get install qemu-utils";
const FIX_PRLIMIT: &str = "apt-get install util-linux";
const FIX_OVMF: &str = "apt-get install ovmf";

/// Where programs are looked for after `PATH`, which a service may not have.
const PROGRAM_DIRECTORIES: [&str; 5] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"];
/// UEFI firmware as distributions ship it: code and the template of its variables.
const FIRMWARE: [(&str, &str); 6] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd"),
    ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
];
/// What [`SECTOR`] makes QEMU exit with: `(0x10 << 1) | 1`.
const EXIT_CODE: i32 = 33;
/// The probe's disk: SeaBIOS reads no disk that is shorter than one cylinder.
const DISK_BYTES: usize = 1 << 20;
/// A guest under KVM reaches its boot sector in well under a second; on machines where it hangs, this is what we lose.
const KVM_WITHIN: Duration = Duration::from_secs(5);
/// Translated guests take a second, more on a busy machine; nothing is left to try after them, so we are patient.
const TCG_WITHIN: Duration = Duration::from_secs(60);
/// System calls that QEMU never needs here.
pub(super) const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// Something that deployment needs and this machine lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingTool {
    /// Its name.
    pub what: &'static str,
    /// What does not work without it.
    pub why: &'static str,
    /// The command that installs it on Debian and its like.
    pub fix: &'static str,
}

/// What of QEMU and its company is not installed; empty when all is there.
pub fn missing_tools() -> Vec<MissingTool> {
    let program = |what, why, fix| (program(what).is_none()).then_some(MissingTool { what, why, fix });
    let firmware = firmware().is_none().then_some(MissingTool {
        what: "OVMF (UEFI firmware)",
        why: "releases that boot by UEFI cannot be deployed; others can",
        fix: FIX_OVMF,
    });
    [
        program(QEMU, "nothing can be deployed", FIX_QEMU),
        program(QEMU_IMG, "nothing can be deployed", FIX_QEMU_IMG),
        program(PRLIMIT, "qemu-img is only run under resource limits, so nothing can be deployed", FIX_PRLIMIT),
        firmware,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Which accelerator runs a guest here: KVM if one boots and exits under it, else TCG. Takes seconds; a file of 1 MiB
/// is made in the machine's temporary directory.
///
/// # Errors
/// QEMU is missing, or runs nothing at all.
pub async fn accelerator() -> Result<Accelerator, HypervisorError> {
    Ok(probe(&env::temp_dir(), None).await?.accelerator)
}

/// What the probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probed {
    /// The accelerator that runs guests.
    pub(super) accelerator: Accelerator,
    /// Whether they run with QEMU's system call filter.
    pub(super) has_sandbox: bool,
}

/// UEFI firmware files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FirmwareFiles {
    /// The code, read only.
    pub(super) code: PathBuf,
    /// The template of its variables, of which each machine gets a copy.
    pub(super) vars: PathBuf,
}

/// A program in `PATH` or where programs are.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).filter(|directory| directory.is_absolute());
    directories
        .chain(PROGRAM_DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// The emulator, or what to do about its absence.
pub(super) fn qemu() -> Result<PathBuf, HypervisorError> {
    program(QEMU).ok_or(HypervisorError::Missing { what: QEMU, fix: FIX_QEMU })
}

/// `prlimit` and `qemu-img`, or which of them is missing and the command that installs it.
pub(crate) fn disk_tools() -> Result<(PathBuf, PathBuf), (&'static str, &'static str)> {
    let prlimit = program(PRLIMIT).ok_or((PRLIMIT, FIX_PRLIMIT))?;
    let qemu_img = program(QEMU_IMG).ok_or((QEMU_IMG, FIX_QEMU_IMG))?;
    Ok((prlimit, qemu_img))
}

/// UEFI firmware, or what to do about its absence.
pub(super) fn required_firmware() -> Result<FirmwareFiles, HypervisorError> {
    firmware().ok_or(HypervisorError::Missing { what: "UEFI firmware (OVMF)", fix: FIX_OVMF })
}

fn firmware() -> Option<FirmwareFiles> {
    let files = FIRMWARE.iter().map(|(code, vars)| FirmwareFiles { code: code.into(), vars: vars.into() });
    files.into_iter().find(|files| files.code.is_file() && files.vars.is_file())
}

/// Boots guests until one runs: as wanted, or KVM and then TCG; each with QEMU's system call filter and then without.
pub(super) async fn probe(scratch: &Path, wanted: Option<Accelerator>) -> Result<Probed, HypervisorError> {
    let qemu = qemu()?;
    let scratch = tempfile::Builder::new()
        .prefix(".probe-")
        .tempdir_in(scratch)
        .map_err(HypervisorError::io("make a directory for the probe"))?;
    let disk = scratch.path().join("disk.raw");
    tokio::fs::write(&disk, sector()).await.map_err(HypervisorError::io("write the probe's boot sector"))?;
    let mut why = "nothing was tried".to_owned();
    for accelerator in [Accelerator::Kvm, Accelerator::Tcg] {
        let is_wanted = wanted.is_none_or(|wanted| wanted == accelerator);
        if !is_wanted || accelerator == Accelerator::Kvm && !kvm_opens() {
            continue;
        }
        for has_sandbox in [true, false] {
            let probed = Probed { accelerator, has_sandbox };
            match boot(&qemu, scratch.path(), probed).await {
                Outcome::Ran => return Ok(probed),
                Outcome::Failed(said) => why = said,
                Outcome::Hung => {
                    why = format!("a guest under {} did not get to its boot sector", accelerator.as_str());
                    tracing::warn!("{why} within the time given; it is not used");
                    break;
                }
            }
        }
    }
    Err(HypervisorError::NothingRuns { program: qemu.display().to_string(), why })
}

fn kvm_opens() -> bool {
    OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

enum Outcome {
    Ran,
    Hung,
    Failed(String),
}

async fn boot(qemu: &Path, scratch: &Path, probed: Probed) -> Outcome {
    let (within, cpu) = match probed.accelerator {
        Accelerator::Kvm => (KVM_WITHIN, "host"),
        Accelerator::Tcg => (TCG_WITHIN, "max"),
    };
    let machine = format!("q35,accel={}", probed.accelerator.as_str());
    let disk = r#"{"driver":"raw","node-name":"disk","read-only":true,"file":{"driver":"file","filename":"disk.raw"}}"#;
    let sandbox: &[&str] = if probed.has_sandbox { &["-sandbox", SANDBOX] } else { &[] };
    let run = Command::new(qemu)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-m", "32M", "-cpu", cpu, "-machine", &machine])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
        .args(["-blockdev", disk, "-device", "virtio-blk-pci,drive=disk,bootindex=0"])
        .args(sandbox)
        .env_clear()
        .envs(environment())
        .current_dir(scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .output();
    match timeout(within, run).await {
        Err(_) => Outcome::Hung,
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Ok(Ok(output)) if output.status.code() == Some(EXIT_CODE) => Outcome::Ran,
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr[..output.stderr.len().min(4096)]);
            Outcome::Failed(format!("{}: {}", output.status, note(&said)))
        }
    }
}

/// All that QEMU and its tools get to see of our environment.
pub(crate) fn environment() -> impl Iterator<Item = (&'static str, OsString)> {
    [("LC_ALL", "C".into()), ("PATH", PROGRAM_DIRECTORIES.join(":").into())].into_iter()
}

/// A boot sector that ends QEMU through its debug exit port: proof that a guest's instructions were executed.
fn sector() -> Vec<u8> {
    let mut sector = vec![0; DISK_BYTES];
    let code = [
        0xb0, 0x10, // mov al, 0x10
        0xe6, 0xf4, // out 0xf4, al
        0xf4, // hlt
        0xeb, 0xfd, // jmp to the hlt
    ];
    sector[..code.len()].copy_from_slice(&code);
    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_translated_guest_runs_here() {
        let scratch = tempfile::tempdir().unwrap();
        let probed = probe(scratch.path(), Some(Accelerator::Tcg)).await.unwrap();
        assert_eq!(probed.accelerator, Accelerator::Tcg);
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing stays behind");
    }

    #[test]
    fn what_is_missing_comes_with_its_cure() {
        assert!(missing_tools().iter().all(|tool| tool.fix.starts_with("apt-get install ")));
        assert_eq!(missing_tools().iter().any(|tool| tool.what == QEMU), program(QEMU).is_none());
    }
}
