//! `Release`: one immutable version of an appliance, down to the exact digests of what boots.

use serde::{Deserialize, Serialize};

use crate::UnixSeconds;
use crate::bounded::{List, Name, Text, Version};
use crate::ids::{Hash, ImageId, PublicKey, RecordId, Sha256};
use crate::record::ContextSchema;

/// One version of an appliance. Everything needed to fetch, judge and boot it is in here or named by hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Whose appliance it is. It counts as theirs only where this key is among the verified signers.
    pub publisher: PublicKey,
    /// The appliance's name, unique for its publisher.
    pub name: Name,
    /// The label of this version.
    pub version: Version,
    /// Order among the releases of one appliance: the higher is the newer.
    pub sequence: u64,
    /// When the publisher stops standing by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<UnixSeconds>,
    /// The processor that it runs on.
    pub arch: Arch,
    /// Its disks, the first being the one that it boots from.
    pub disks: List<Disk, 8>,
    /// How it boots.
    pub boot: Boot,
    /// What it needs of the hypervisor.
    pub requirements: Requirements,
    /// One line that says what it is.
    pub summary: Text<200>,
    /// More about it, in plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Text<8192>>,
    /// SPDX licence expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<Text<200>>,
    /// Where to read more. Shown as text: a link from gossip is not to be clicked unread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub homepage: Option<Text<400>>,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub tags: List<Name, 16>,
    /// Earlier releases that this one replaces.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub supersedes: List<RecordId, 16>,
    /// Records of the components that it was built from.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub components: List<RecordId, 64>,
    /// Record of the recipe that it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<RecordId>,
    /// The list of what is inside (SPDX), as an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbom: Option<ImageId>,
    /// How it was built (in-toto provenance), as an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<ImageId>,
    /// The inputs that finish its configuration at deployment.
    #[serde(default, skip_serializing_if = "ContextSchema::is_empty")]
    pub context: ContextSchema,
}

impl Release {
    /// The first release of an appliance with nothing optional in it: for x86_64, booted by its BIOS, with one processor and
    /// 256 MiB of memory. What should differ is set on it.
    pub fn minimal(
        publisher: PublicKey,
        name: Name,
        version: Version,
        disks: List<Disk, 8>,
        summary: Text<200>,
    ) -> Self {
        Self {
            publisher,
            name,
            version,
            sequence: 1,
            expires: None,
            arch: Arch::X86_64,
            disks,
            boot: Boot::Bios {},
            requirements: Requirements { vcpus: 1, memory_bytes: 256 << 20, disk_bytes: 0, firmware: None },
            summary,
            description: None,
            licence: None,
            homepage: None,
            tags: List::default(),
            supersedes: List::default(),
            components: List::default(),
            recipe: None,
            sbom: None,
            provenance: None,
            context: ContextSchema::default(),
        }
    }

    /// Every image of the release, each once: what must be in the store before it can boot, then SBOM and provenance.
    pub fn images(&self) -> Vec<ImageId> {
        let mut images: Vec<ImageId> = Vec::new();
        let disks = self.disks.iter().map(|disk| disk.image);
        for image in disks.chain(self.boot.images()).chain(self.sbom).chain(self.provenance) {
            if !images.contains(&image) {
                images.push(image);
            }
        }
        images
    }
}

/// A disk of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Its content.
    pub image: ImageId,
    /// The form of that content; always flat here, other formats are converted when they are published.
    pub format: DiskFormat,
    /// Length of the flat content, in bytes.
    pub bytes: u64,
    /// BLAKE3-256 of the flat content.
    pub blake3: Hash,
    /// SHA-256 of the flat content, by which in-toto statements name it.
    pub sha256: Sha256,
}

/// The form of a disk's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// The bytes of the disk, as the guest sees them.
    Raw,
}

/// The processor architectures that appliances are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Arch {
    /// The name as written in policy and publish files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

/// How a release boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Boot {
    /// From the first disk's boot sector.
    Bios {},
    /// From the first disk's EFI system partition.
    Uefi {},
    /// The hypervisor loads the kernel itself.
    Direct {
        /// The kernel, as an image.
        kernel: ImageId,
        /// The initial RAM disk, as an image.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initrd: Option<ImageId>,
        /// The kernel's command line.
        cmdline: Text<2048>,
    },
}

impl Boot {
    /// The images that booting needs beside the disks.
    pub fn images(&self) -> impl Iterator<Item = ImageId> {
        let (kernel, initrd) = match self {
            Self::Direct { kernel, initrd, .. } => (Some(*kernel), *initrd),
            Self::Bios {} | Self::Uefi {} => (None, None),
        };
        kernel.into_iter().chain(initrd)
    }
}

/// The firmware that a release asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// PC BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// What a release needs of the hypervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    /// Virtual processors, at least 1.
    pub vcpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Space that the guest may write to, in bytes; 0 where it does not say.
    #[serde(default)]
    pub disk_bytes: u64,
    /// The firmware, where it matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
}
