//! Disks in other formats: refused where they lead elsewhere, else made flat by `qemu-img` under resource limits.
//!
//! What a disk is, its owner says; nothing is probed. Its header is read here, before any tool of QEMU sees it, and what
//! could make that tool open another file, run long or write much is refused: backing files, external data and extents,
//! encryption, features unknown here, absurd sizes, and files that are not, or not only, what they are said to be.

mod format;
mod ova;
mod qcow2;
mod qemu_img;
mod vhd;
mod vmdk;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rialto_protocol::image::chunker::BLOCK_BYTES;

pub use format::SourceFormat;
pub(crate) use qemu_img::{Flat, Scratch, export_qcow2};

use crate::units::ByteSize;

/// The longest disk that is converted, in bytes: 4 TiB. An appliance's is a thousandth of that; what says more is after
/// something else.
pub const MAX_VIRTUAL_BYTES: u64 = 4 << 40;
/// The longest name out of a foreign file that is shown.
const MAX_SHOWN_CHARS: usize = 120;

/// Why a disk is not converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// It is not what it was said to be, or more than that.
    #[error("{} {refusal}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        refusal: Refusal,
    },
    /// The operating system said no.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A program is not installed.
    #[error("{what} is not installed, and only raw disks can be used without it. Install it: {fix}")]
    Missing {
        /// Which.
        what: &'static str,
        /// The command that installs it on Debian and its like.
        fix: &'static str,
    },
    /// The tool could not read it, or was stopped by a limit.
    #[error("qemu-img could not convert {}: {said}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What the tool said, as far as it can be shown.
        said: String,
    },
    /// The flat content does not fit.
    #[error(
        "converting {} left {free} bytes free, and {floor} are to stay free. Free some space, run `rialto image gc`, or \
         lower the floor", path.display()
    )]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes that are to stay free.
        floor: u64,
    },
}

impl ConvertError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

/// What is wrong with a disk in a foreign format. Reads on after the file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It begins as something else.
    #[error("is said to be {said}, but begins as {found}. Say what it is: format = \"{}\"", found.word())]
    Other {
        /// What it was said to be.
        said: SourceFormat,
        /// What it looks like.
        found: Foreign,
    },
    /// It lacks the mark of its format.
    #[error("is said to be {0}, and is not: it lacks that format's mark")]
    Unmarked(SourceFormat),
    /// A mark at one end, another at the other.
    #[error("is {said} and begins as {found}, too; such files are refused, because tools disagree on what they hold")]
    Polyglot {
        /// What it was said to be, and is.
        said: SourceFormat,
        /// What it also is.
        found: Foreign,
    },
    /// It is a difference to another disk.
    #[error(
        "has a backing file ({0}); such images are refused, because they are not whole. Flatten it where that file is: \
         qemu-img convert -O qcow2"
    )]
    Backing(Shown),
    /// Its content lies in another file.
    #[error(
        "keeps its content in another file ({0}); such images are refused. Make it one file: qemu-img convert -O qcow2"
    )]
    Elsewhere(Shown),
    /// It cannot be read without a secret.
    #[error("is encrypted; such images are refused. Decrypt it first: qemu-img convert")]
    Encrypted,
    /// Something that this version cannot judge.
    #[error("has {0}, which is refused because it is not known here. Convert it first: qemu-img convert -O raw")]
    Unknown(String),
    /// Longer than any appliance's disk.
    #[error("says that it is {} long; at most {} are converted", ByteSize(*.0), ByteSize(MAX_VIRTUAL_BYTES))]
    Absurd(u64),
    /// It contradicts itself or ends too early.
    #[error("is damaged: {0}")]
    Damaged(&'static str),
    /// An archive that cannot be relied on.
    #[error("is refused: {0}")]
    Archive(String),
    /// Which of an archive's disks?
    #[error("has several disks; say which with `member`: {}", shown_list(.0))]
    Several(Vec<Shown>),
    /// No such disk in the archive.
    #[error("has no disk called {wanted}; it has {}", shown_list(.found))]
    NoMember {
        /// What was asked for.
        wanted: Shown,
        /// What there is.
        found: Vec<Shown>,
    },
    /// The caller named a member of what has none.
    #[error("is no archive, so it has no member to choose")]
    NoArchive,
    /// Reading failed.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

/// A name out of a foreign file: bounded, and harmless to a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    fn new(name: &[u8]) -> Self {
        let name = String::from_utf8_lossy(name);
        let shown: String = name.chars().take(MAX_SHOWN_CHARS).flat_map(char::escape_debug).collect();
        Self(if shown.is_empty() { "unnamed".into() } else { shown })
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn shown_list(names: &[Shown]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A format that can be told by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// QEMU's own, either version.
    Qcow2,
    /// VMware's.
    Vmdk,
    /// VMware's text that names other files.
    VmdkDescriptor,
    /// Microsoft's older one.
    Vhd,
    /// Microsoft's newer one.
    Vhdx,
    /// VirtualBox's.
    Vdi,
    /// QEMU's, abandoned.
    Qed,
    /// Parallels'.
    Parallels,
}

impl Foreign {
    fn word(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Vmdk | Self::VmdkDescriptor => "vmdk",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
            Self::Qed => "qed",
            Self::Parallels => "parallels",
        }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VmdkDescriptor => "a VMDK descriptor",
            other => other.word(),
        })
    }
}

/// What the first bytes of a file say it is, if anything.
fn foreign(head: &[u8]) -> Option<Foreign> {
    let marks: [(usize, &[u8], Foreign); 10] = [
        (0, b"QFI\xfb", Foreign::Qcow2),
        (0, b"KDMV", Foreign::Vmdk),
        (0, b"COWD", Foreign::Vmdk),
        (0, b"# Disk DescriptorFile", Foreign::VmdkDescriptor),
        (0, b"conectix", Foreign::Vhd),
        (0, b"vhdxfile", Foreign::Vhdx),
        (64, b"\x7f\x10\xda\xbe", Foreign::Vdi),
        (0, b"QED\0", Foreign::Qed),
        (0, b"WithoutFreeSpace", Foreign::Parallels),
        (0, b"WithouFreSpacExt", Foreign::Parallels),
    ];
    let has = |(at, mark, _): &(usize, &[u8], Foreign)| head.get(*at..).is_some_and(|rest| rest.starts_with(mark));
    marks.iter().find(|mark| has(mark)).map(|(_, _, foreign)| *foreign)
}

/// Content that can be read anywhere. The formats are read through this, so that their tests need no files.
trait Content {
    /// Its length, in bytes.
    fn length(&self) -> u64;

    /// Fills `buffer` from `at` on.
    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// `N` bytes at `at`.
    fn bytes<const N: usize>(&self, at: u64) -> Result<[u8; N], Refusal>
    where
        Self: Sized,
    {
        let mut bytes = [0; N];
        self.exact(at, &mut bytes)?;
        Ok(bytes)
    }

    fn exact(&self, at: u64, buffer: &mut [u8]) -> Result<(), Refusal> {
        let end = at.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.length()) {
            return Err(Refusal::Damaged("it ends before its own header does"));
        }
        self.read(at, buffer).map_err(|error| Refusal::Unreadable(error.to_string()))
    }
}

impl Content for [u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(at).ok().and_then(|at| self.get(at..)?.get(..buffer.len()));
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl<T: Content + ?Sized> Content for &T {
    fn length(&self) -> u64 {
        (**self).length()
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read(at, buffer)
    }
}

/// A stretch of other content: a member of an archive.
#[derive(Debug, Clone, Copy)]
struct Stretch<'a, C> {
    whole: &'a C,
    start: u64,
    length: u64,
}

impl<C: Content> Content for Stretch<'_, C> {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.whole.read(self.start + at, buffer)
    }
}

/// What `qemu-img` is told to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    /// QEMU's name of the driver.
    driver: &'static str,
    /// The stretch of the file that is the disk: where it starts and how long it is, in bytes.
    stretch: Option<(u64, u64)>,
    /// Length of the disk, in bytes, as its header says.
    virtual_bytes: u64,
}

/// Looks at a disk before any tool does. Reads some 100 KiB at most.
fn inspect(content: &impl Content, format: SourceFormat, member: Option<&str>) -> Result<Plan, Refusal> {
    if format != SourceFormat::Ova && member.is_some() {
        return Err(Refusal::NoArchive);
    }
    let (driver, virtual_bytes) = match format {
        SourceFormat::Raw => {
            check_raw(content)?;
            return Ok(Plan { driver: "raw", stretch: None, virtual_bytes: content.length() });
        }
        SourceFormat::Qcow2 => ("qcow2", qcow2::inspect(content)?),
        SourceFormat::Vmdk => ("vmdk", vmdk::inspect(content)?),
        SourceFormat::Vhd => ("vpc", vhd::inspect(content)?),
        SourceFormat::Ova => {
            let disk = ova::disk(content, member)?;
            let part = Stretch { whole: content, start: disk.start, length: disk.length };
            let virtual_bytes = bounded(vmdk::inspect(&part)?)?;
            return Ok(Plan { driver: "vmdk", stretch: Some((disk.start, disk.length)), virtual_bytes });
        }
    };
    Ok(Plan { driver, stretch: None, virtual_bytes: bounded(virtual_bytes)? })
}

fn bounded(virtual_bytes: u64) -> Result<u64, Refusal> {
    if virtual_bytes > MAX_VIRTUAL_BYTES { Err(Refusal::Absurd(virtual_bytes)) } else { Ok(virtual_bytes) }
}

/// A raw disk can hold anything, but not what another tool would take for a format of its own.
fn check_raw(content: &impl Content) -> Result<(), Refusal> {
    let mut head = vec![0; content.length().min(BLOCK_BYTES as u64) as usize];
    content.exact(0, &mut head)?;
    let found = foreign(&head).or_else(|| vhd::has_footer(content).then_some(Foreign::Vhd));
    found.map_or(Ok(()), |found| Err(Refusal::Other { said: SourceFormat::Raw, found }))
}

/// The first bytes are those of `said`, or else what they are says the error.
fn expect_mark(head: &[u8], mark: &[u8], said: SourceFormat) -> Result<(), Refusal> {
    if head.starts_with(mark) {
        return Ok(());
    }
    Err(foreign(head).map_or(Refusal::Unmarked(said), |found| Refusal::Other { said, found }))
}

#[cfg(test)]
mod tests;
