//! From a release and the operator's settings to the machine that is to be made: everything that can be refused, first.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;

use rialto_protocol::bounded::Name;
use rialto_protocol::ids::ImageId;
use rialto_protocol::record::{Arch, Boot, Disk, Firmware, Release};
use rialto_web::api::PortForward;

use super::bases::Bases;
use super::hypervisor::{Accelerator, Identity, Machine, MachineBoot, MachineDisk};
use super::instance::InstanceRecord;
use super::keeper::{Plan, SEED_FILE};
use super::seed::Seed;
use super::{Caller, DeployError, DeploySpec};
use crate::store::FlatDigests;
use crate::trust::Accepted;

/// Less memory than this boots nothing.
const MIN_MEMORY_BYTES: u64 = 16 << 20;
/// More virtual processors than this QEMU's q35 machine does not have.
const MOST_VCPUS: u32 = 255;
/// Virtual processors that any machine may give, however few it has itself.
const FEW_VCPUS: u32 = 8;
/// A disk is at most this long: what the overlay format takes without larger clusters.
const MAX_DISK_BYTES: u64 = 16 << 40;
/// Disks come in sectors.
const SECTOR_BYTES: u64 = 512;

/// What one instance may have of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Memory of all instances that are not over together, in bytes.
    pub all_memory_bytes: u64,
}

impl Limits {
    /// All memory of this machine, and twice its processors (8 at least). How much all instances together may have is not
    /// limited: what they do not touch costs nothing.
    pub fn of_this_machine() -> Self {
        let processors = available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX));
        Self {
            vcpus: processors.saturating_mul(2).clamp(FEW_VCPUS, MOST_VCPUS),
            memory_bytes: total_memory(),
            all_memory_bytes: u64::MAX,
        }
    }
}

/// `MemTotal`; no limit where it cannot be read.
fn total_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib.saturating_mul(1024))
}

/// What a release states of the flat content of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stated {
    pub(super) bytes: u64,
    pub(super) digests: FlatDigests,
}

impl Stated {
    fn by(disk: &Disk) -> Self {
        Self { bytes: disk.bytes, digests: FlatDigests { blake3: disk.blake3, sha256: disk.sha256 } }
    }
}

/// A deployment that nothing speaks against so far.
pub(super) struct Draft {
    images: Vec<(ImageId, Option<Stated>)>,
    disks: Vec<MachineDisk>,
    boot: MachineBoot,
    values: BTreeMap<Name, String>,
    set: BTreeMap<String, String>,
    vcpus: u32,
    memory_bytes: u64,
}

impl Draft {
    /// Checks the release against this machine, and the operator's values against the release.
    pub(super) fn check(accepted: &Accepted, spec: &DeploySpec, limits: &Limits) -> Result<Self, DeployError> {
        let release: &Release = accepted.release();
        let values = release.context.resolve(&spec.set)?;
        if release.arch != Arch::X86_64 {
            let arch = release.arch.as_str();
            return Err(unfit(format!("it is made for {arch}, and this node runs x86_64")));
        }
        let (vcpus, memory_bytes) = (release.requirements.vcpus, release.requirements.memory_bytes);
        if !(1..=limits.vcpus).contains(&vcpus) {
            return Err(unfit(format!(
                "it asks for {vcpus} processors, and an instance may have 1 to {}",
                limits.vcpus
            )));
        }
        if !(MIN_MEMORY_BYTES..=limits.memory_bytes).contains(&memory_bytes) {
            let (asked, most) = (memory_bytes >> 20, limits.memory_bytes >> 20);
            let least = MIN_MEMORY_BYTES >> 20;
            return Err(unfit(format!(
                "it asks for {asked} MiB of memory, and an instance may have {least} to {most}"
            )));
        }
        let boot = boot(release)?;
        let mut images: Vec<(ImageId, Option<Stated>)> =
            release.disks.iter().map(|disk| (disk.image, Some(Stated::by(disk)))).collect();
        images.extend(release.boot.images().map(|image| (image, None)));
        if let Some((stray, _)) = images.iter().find(|(image, _)| !accepted.images().contains(image)) {
            return Err(unfit(format!("image {stray} is not among those that policy accepted")));
        }
        Ok(Self { images, disks: disks(release)?, boot, values, set: spec.set.clone(), vcpus, memory_bytes })
    }

    /// Checks that it fits beside instances that have `in_use_bytes` of memory.
    pub(super) fn check_beside(&self, in_use_bytes: u64, limits: &Limits) -> Result<(), DeployError> {
        check_memory(self.memory_bytes, in_use_bytes, limits)
    }

    /// Writes into the record what is known before anything is made.
    pub(super) fn describe(&self, record: &mut InstanceRecord, accelerator: Accelerator, ports: &[PortForward]) {
        record.images = self.images.iter().map(|(image, _)| *image).collect();
        record.ports = ports.to_vec();
        record.accelerator = accelerator;
        record.vcpus = self.vcpus;
        record.memory_bytes = self.memory_bytes;
    }

    /// What is to be made for the instance `id`.
    pub(super) fn plan(self, accepted: &Accepted, id: &str, ports: Vec<PortForward>, caller: Arc<dyn Caller>) -> Plan {
        let release = accepted.release();
        let machine = Machine {
            identity: Identity::of(id),
            name: format!("rialto-{id}"),
            vcpus: self.vcpus,
            memory_bytes: self.memory_bytes,
            disks: self.disks,
            seed: SEED_FILE.into(),
            boot: self.boot,
            ports,
        };
        let seed = Seed::new(id, accepted.id(), &release.name, &release.context, &self.values);
        Plan { images: self.images, seed, set: self.set, machine, caller }
    }
}

/// Checks that so much memory is there beside instances that have `in_use_bytes` of it.
pub(super) fn check_memory(asked_bytes: u64, in_use_bytes: u64, limits: &Limits) -> Result<(), DeployError> {
    if in_use_bytes.saturating_add(asked_bytes) <= limits.all_memory_bytes {
        return Ok(());
    }
    let [asked, used, all] = [asked_bytes, in_use_bytes, limits.all_memory_bytes].map(|bytes| bytes >> 20);
    Err(unfit(format!(
        "it asks for {asked} MiB of memory, and of the {all} MiB that config.toml gives all instances {used} MiB are in \
         use; stop or suspend another instance, or raise deploy.memory"
    )))
}

fn unfit(why: String) -> DeployError {
    DeployError::Unfit(why)
}

/// A base as seen from an instance's home.
fn base(image: &ImageId) -> PathBuf {
    PathBuf::from("../../bases").join(Bases::file_name(image))
}

fn disks(release: &Release) -> Result<Vec<MachineDisk>, DeployError> {
    let disk = |(number, disk): (usize, &rialto_protocol::record::Disk)| {
        // The room that the guest asks for is on the disk that it boots from.
        let room = if number == 0 { release.requirements.disk_bytes } else { 0 };
        let bytes = disk.bytes.max(room);
        if disk.bytes == 0 || bytes > MAX_DISK_BYTES {
            return Err(unfit(format!(
                "disk {} would have {bytes} bytes; 1 to {MAX_DISK_BYTES} are allowed",
                number + 1
            )));
        }
        Ok(MachineDisk { base: base(&disk.image), bytes: bytes.next_multiple_of(SECTOR_BYTES) })
    };
    release.disks.iter().enumerate().map(disk).collect()
}

fn boot(release: &Release) -> Result<MachineBoot, DeployError> {
    let wants_uefi = release.requirements.firmware.map(|firmware| firmware == Firmware::Uefi);
    match (&release.boot, wants_uefi) {
        (Boot::Bios {} | Boot::Uefi {}, _) if release.disks.is_empty() => {
            Err(unfit("it boots from its first disk and has none".into()))
        }
        (Boot::Bios {}, Some(true)) => Err(unfit("it boots by BIOS and requires UEFI: it contradicts itself".into())),
        (Boot::Uefi {}, Some(false)) => Err(unfit("it boots by UEFI and requires BIOS: it contradicts itself".into())),
        (Boot::Bios {}, _) => Ok(MachineBoot::Bios),
        (Boot::Uefi {}, _) => Ok(MachineBoot::Uefi),
        (Boot::Direct { kernel, initrd, cmdline }, uefi) => Ok(MachineBoot::Direct {
            kernel: base(kernel),
            initrd: initrd.as_ref().map(base),
            cmdline: cmdline.to_string(),
            uefi: uefi == Some(true),
        }),
    }
}
