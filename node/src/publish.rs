//! What `rialto publish` reads: a TOML file that describes a release and names local files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rialto_protocol::bounded::{BoundError, List, Name, Text, Version};
use rialto_protocol::ids::PublicKey;
use rialto_protocol::record::{
    Arch, Boot, ContextError, ContextInput, ContextSchema, Disk, DiskFormat, Firmware, Release, Requirements,
};
use serde::Deserialize;

use crate::convert::SourceFormat;
use crate::dir::read_bounded;
use crate::store::Added;
use crate::strict_toml::{self, TomlError};
use crate::units::{ByteSize, parse_duration};

/// A description is at most this long, in bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// Files that one release can name.
const MAX_FILES: usize = 16;

/// Why a description cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a description of a release.
    #[error("{}: {error}", path.display())]
    Wrong {
        /// Which.
        path: PathBuf,
        /// What and where.
        error: TomlError,
    },
    /// A value that a release cannot carry.
    #[error("{key}: {reason}")]
    Value {
        /// Which key of the file.
        key: &'static str,
        /// Why.
        reason: String,
    },
}

/// A file that a release is made of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceFile {
    /// Where it is.
    pub path: PathBuf,
    /// How it is to be read, where it is a disk; anything else is taken as it is.
    pub disk: Option<DiskSource>,
}

/// How a disk is to be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiskSource {
    /// What the file is.
    pub format: SourceFormat,
    /// Which disk of an archive, where it has several.
    pub member: Option<String>,
}

/// A description, read and checked as far as it can be without its files.
#[derive(Debug)]
pub struct Description {
    file: File,
    directory: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Name,
    version: Version,
    arch: Arch,
    summary: Text<200>,
    description: Option<Text<8192>>,
    licence: Option<Text<200>>,
    homepage: Option<Text<400>>,
    #[serde(default)]
    tags: Vec<Name>,
    sequence: Option<u64>,
    expires: Option<String>,
    sbom: Option<PathBuf>,
    provenance: Option<PathBuf>,
    #[serde(default)]
    disks: Vec<DiskFile>,
    boot: BootFile,
    requirements: RequirementsFile,
    #[serde(default)]
    context: BTreeMap<Name, ContextInput>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskFile {
    file: PathBuf,
    format: SourceFormat,
    /// Which disk of an archive, where it has several.
    member: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum BootFile {
    Bios {},
    Uefi {},
    Direct { kernel: PathBuf, initrd: Option<PathBuf>, cmdline: Option<Text<2048>> },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequirementsFile {
    vcpus: u32,
    memory: ByteSize,
    #[serde(default)]
    disk: ByteSize,
    firmware: Option<Firmware>,
}

impl Description {
    /// Reads a description.
    ///
    /// # Errors
    /// It cannot be read, has an unknown or missing key, or a value that a release cannot carry.
    pub fn read(path: &Path) -> Result<Self, PublishError> {
        let text = read_bounded(path, MAX_FILE_BYTES)
            .map_err(|source| PublishError::Read { path: path.to_owned(), source })?;
        let file: File =
            strict_toml::read(&text).map_err(|error| PublishError::Wrong { path: path.to_owned(), error })?;
        file.check()?;
        let directory = path.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self { file, directory })
    }

    /// The appliance's name.
    pub fn name(&self) -> &Name {
        &self.file.name
    }

    /// The release's version.
    pub fn version(&self) -> &Version {
        &self.file.version
    }

    /// The files that are to be added as images, each once.
    pub fn files(&self) -> Vec<SourceFile> {
        let mut files: Vec<SourceFile> = Vec::new();
        for file in
            self.file.disks.iter().map(|disk| self.disk(disk)).chain(self.file.others().map(|file| self.plain(file)))
        {
            if !files.contains(&file) {
                files.push(file);
            }
        }
        files
    }

    fn disk(&self, disk: &DiskFile) -> SourceFile {
        let source = DiskSource { format: disk.format, member: disk.member.clone() };
        SourceFile { path: self.directory.join(&disk.file), disk: Some(source) }
    }

    fn plain(&self, file: &Path) -> SourceFile {
        SourceFile { path: self.directory.join(file), disk: None }
    }

    /// The release, once its files are images. `next_sequence` is used where the file gives none.
    ///
    /// # Errors
    /// A value that a release cannot carry.
    pub fn release(
        &self,
        publisher: PublicKey,
        now: u64,
        next_sequence: u64,
        images: &BTreeMap<SourceFile, Added>,
    ) -> Result<Release, PublishError> {
        let file = &self.file;
        let added = |file: SourceFile| {
            let reason =
                || PublishError::Value { key: "file", reason: format!("{} was not added", file.path.display()) };
            images.get(&file).ok_or_else(reason)
        };
        let plain = |path: &Path| added(self.plain(path));
        let disks = file
            .disks
            .iter()
            .map(|disk| {
                let added = added(self.disk(disk))?;
                let reason = || PublishError::Value {
                    key: "file",
                    reason: format!("{} was added without its digests", disk.file.display()),
                };
                let digests = added.digests.ok_or_else(reason)?;
                Ok(Disk {
                    image: added.image,
                    format: DiskFormat::Raw,
                    bytes: added.bytes,
                    blake3: digests.blake3,
                    sha256: digests.sha256,
                })
            })
            .collect::<Result<Vec<_>, PublishError>>()?;
        let boot = match &file.boot {
            BootFile::Bios {} => Boot::Bios {},
            BootFile::Uefi {} => Boot::Uefi {},
            BootFile::Direct { kernel, initrd, cmdline } => Boot::Direct {
                kernel: plain(kernel)?.image,
                initrd: initrd.as_deref().map(|initrd| plain(initrd).map(|added| added.image)).transpose()?,
                cmdline: cmdline.clone().unwrap_or_default(),
            },
        };
        let image_of =
            |path: &Option<PathBuf>| path.as_deref().map(|path| plain(path).map(|added| added.image)).transpose();
        Ok(Release {
            publisher,
            name: file.name.clone(),
            version: file.version.clone(),
            sequence: file.sequence.unwrap_or(next_sequence),
            expires: file.expires_after()?.map(|after| now.saturating_add(after)),
            arch: file.arch,
            disks: list("disks", disks)?,
            boot,
            requirements: Requirements {
                vcpus: file.requirements.vcpus,
                memory_bytes: file.requirements.memory.bytes(),
                disk_bytes: file.requirements.disk.bytes(),
                firmware: file.requirements.firmware,
            },
            summary: file.summary.clone(),
            description: file.description.clone(),
            licence: file.licence.clone(),
            homepage: file.homepage.clone(),
            tags: list("tags", file.tags.clone())?,
            supersedes: List::default(),
            components: List::default(),
            recipe: None,
            sbom: image_of(&file.sbom)?,
            provenance: image_of(&file.provenance)?,
            context: file.schema()?,
        })
    }
}

impl File {
    fn check(&self) -> Result<(), PublishError> {
        let refused = |key, reason: &str| Err(PublishError::Value { key, reason: reason.to_owned() });
        if self.disks.len() + self.others().count() > MAX_FILES {
            return refused("disks", "more files than a release can have");
        }
        if self.disks.is_empty() && !matches!(self.boot, BootFile::Direct { .. }) {
            return refused("disks", "a release without a disk can only boot with kind = \"direct\"");
        }
        if self.requirements.vcpus == 0 {
            return refused("requirements.vcpus", "at least 1 is needed");
        }
        if self.requirements.memory.bytes() < 1 << 20 {
            return refused("requirements.memory", "at least 1 MiB is needed");
        }
        if self.disks.iter().any(|disk| disk.member.is_some() && disk.format != SourceFormat::Ova) {
            return refused("disks.member", "only a disk with format = \"ova\" has members to choose from");
        }
        self.expires_after()?;
        self.schema().map(drop)
    }

    /// What is no disk.
    fn others(&self) -> impl Iterator<Item = &Path> {
        let (kernel, initrd) = match &self.boot {
            BootFile::Direct { kernel, initrd, .. } => (Some(kernel), initrd.as_ref()),
            BootFile::Bios {} | BootFile::Uefi {} => (None, None),
        };
        kernel.into_iter().chain(initrd).chain(&self.sbom).chain(&self.provenance).map(PathBuf::as_path)
    }

    fn expires_after(&self) -> Result<Option<u64>, PublishError> {
        let value =
            |reason: crate::units::UnitError| PublishError::Value { key: "expires", reason: reason.to_string() };
        self.expires.as_deref().map(|text| parse_duration(text).map(|after| after.as_secs())).transpose().map_err(value)
    }

    fn schema(&self) -> Result<ContextSchema, PublishError> {
        let value = |reason: ContextError| PublishError::Value { key: "context", reason: reason.to_string() };
        ContextSchema::try_from(self.context.clone()).map_err(value)
    }
}

fn list<T, const MAX: usize>(key: &'static str, items: Vec<T>) -> Result<List<T, MAX>, PublishError> {
    List::try_from(items).map_err(|reason: BoundError| PublishError::Value { key, reason: reason.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        name = "hello"
        version = "1.0.0"
        arch = "x86_64"
        summary = "Says what it is told to"
        disks = [{ file = "disk.raw", format = "raw" }]
        boot = { kind = "direct", kernel = "vmlinuz", initrd = "initrd.img", cmdline = "console=ttyS0" }
        requirements = { vcpus = 1, memory = "256 MiB" }
        context.greeting = { type = "string", required = true, description = "What the page says" }
    "#;

    fn read(text: &str) -> Result<Description, PublishError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("appliance.toml");
        std::fs::write(&path, text).unwrap();
        Description::read(&path)
    }

    #[test]
    fn names_its_files_relative_to_itself() {
        let description = read(GOOD).unwrap();
        let names: Vec<_> = description.files().iter().map(|file| file.path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["disk.raw", "vmlinuz", "initrd.img"]);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (from, to, expected) in [
            ("summary", "sumary", "line 5"),
            ("vcpus = 1", "vcpus = 0", "requirements.vcpus"),
            ("\"raw\"", "\"cow\"", "line 6"),
            ("\"raw\"", "\"raw\", member = \"a.vmdk\"", "disks.member"),
            ("disk.raw", "disk.raw\", fiel = \"x", "line 6"),
            ("name = \"hello\"", "name = \"Hello\"", "not a name"),
            ("required = true", "default = \"x\", type = \"integer\"", "line"),
        ] {
            let error = read(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
