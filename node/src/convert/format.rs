//! The formats that a disk can be given in.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// What a file is, as its owner says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SourceFormat {
    /// The disk's bytes as they are.
    Raw,
    /// QEMU's qcow2.
    Qcow2,
    /// VMware's VMDK in one file: monolithicSparse or streamOptimized.
    Vmdk,
    /// Microsoft's VHD, fixed or dynamic; QEMU calls it vpc.
    Vhd,
    /// An archive with VMDKs, as VMware and VirtualBox export appliances.
    Ova,
}

impl SourceFormat {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Raw, Self::Qcow2, Self::Vmdk, Self::Vhd, Self::Ova];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
            Self::Ova => "ova",
        }
    }
}

impl fmt::Display for SourceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SourceFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        let found = Self::ALL.into_iter().find(|format| format.as_str() == text);
        found.ok_or_else(|| format!("'{}' is not a format of disks; there are {}", text.escape_debug(), known()))
    }
}
