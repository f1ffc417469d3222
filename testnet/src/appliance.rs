//! `hello`: a real appliance small enough to boot in seconds: Debian's cloud kernel, busybox, and a web page that shows
//! the greeting it was deployed with.
//!
//! It is built from what the machine's own package sources offer, without root, into a directory that is used again until
//! an input changes. Same inputs, same bytes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, FlockOperation, Timespec, Timestamps};

use crate::cpio::Cpio;

/// Name of the appliance.
pub const NAME: &str = "hello";
/// Its first release.
pub const VERSION: &str = "1.0.0";
/// A later release: the same system with other data, so that most of its disk is known already and some of it is not.
pub const NEXT_VERSION: &str = "1.1.0";
/// Length of the disk, in bytes; most of it is holes.
pub const DISK_BYTES: u64 = 64 << 20;
/// Length of the incompressible file on the disk, in bytes: what a real appliance's own data would be.
pub const DATA_BYTES: usize = 8 << 20;

/// Drivers that the guest needs, in the order in which they are wanted; each brings its dependencies. What is built into
/// a kernel is not among its modules and is skipped, and so is what a kernel does not have.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "crc32c_generic",
    "ext4",
    "nls_cp437",
    "nls_ascii",
    "nls_utf8",
    "vfat",
    "button",
    "evdev",
];
/// Times on the disk and in the initrd: 2024-01-01T00:00:00Z, so that two builds are equal.
const BUILD_TIME: u64 = 1_704_067_200;
/// UUID of the root file system, and the seed of its directory hashes.
const DISK_UUID: &str = "6b1e7f0a-5d0b-4e0e-9b55-7269616c746f";
/// `panic=-1`: a guest that panics reboots at once, and QEMU is told not to.
const CMDLINE: &str = "console=ttyS0 root=/dev/vda panic=-1 quiet";
/// The kernel's packages, best first: the cloud kernel has the virtio drivers and little else.
const KERNEL_PACKAGES: &[&str] = &["linux-image-cloud-amd64", "linux-image-amd64"];

const INITRD_INIT: &str = include_str!("../appliance/initrd-init");
/// Files of the root file system: path, mode, content.
const ROOT_FILES: &[(&str, u32, &str)] = &[
    ("etc/inittab", 0o644, include_str!("../appliance/root/etc/inittab")),
    ("etc/rc", 0o755, include_str!("../appliance/root/etc/rc")),
    ("etc/network", 0o755, include_str!("../appliance/root/etc/network")),
    ("etc/udhcpc.script", 0o755, include_str!("../appliance/root/etc/udhcpc.script")),
    ("etc/acpid.conf", 0o644, include_str!("../appliance/root/etc/acpid.conf")),
    ("etc/power-button", 0o755, include_str!("../appliance/root/etc/power-button")),
];

/// Why the appliance could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ApplianceError {
    /// Not an x86-64 machine.
    #[error(
        "the appliance is built for x86_64, and this machine is {0}; give it one that was built elsewhere in RIALTO_APPLIANCE_DIR"
    )]
    Architecture(&'static str),
    /// A program that is needed is not there.
    #[error("{program} is not installed; apt-get install {package}")]
    MissingProgram {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program failed.
    #[error("{command} failed: {why}")]
    Command {
        /// The command line.
        command: String,
        /// The end of what it wrote to standard error.
        why: String,
    },
    /// No kernel package is on offer.
    #[error("no kernel package ({}) is on offer; run apt-get update", KERNEL_PACKAGES.join(", "))]
    NoKernel,
    /// The busybox at hand needs shared libraries, which the guest does not have.
    #[error("{0} is not statically linked; apt-get install busybox-static")]
    NotStatic(PathBuf),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

type Result<T> = std::result::Result<T, ApplianceError>;

/// A built appliance: a directory with `vmlinuz`, `initrd.img`, `disk.raw` and `appliance.toml`, and the disk of the next
/// release in `next/`.
#[derive(Debug, Clone)]
pub struct Appliance {
    directory: PathBuf,
}

impl Appliance {
    /// The appliance in `$RIALTO_APPLIANCE_DIR`, or else in `target/appliance`, built now where it is missing or old.
    /// Processes that ask at the same time wait for the one that builds.
    ///
    /// # Errors
    /// What is missing on this machine, or what failed.
    pub fn cached() -> Result<Self> {
        Self::built_in(&default_directory())
    }

    /// The appliance in this directory, built now where it is missing or old. Its kernel is the one downloaded first;
    /// remove `kernel.deb` there to get a newer one.
    ///
    /// # Errors
    /// What is missing on this machine, or what failed.
    pub fn built_in(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).or_else(at(directory))?;
        let lock_file = directory.join("lock");
        let lock = File::create(&lock_file).or_else(at(&lock_file))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(io::Error::from).or_else(at(&lock_file))?;

        let busybox = find_busybox()?;
        let kernel = directory.join("kernel.deb");
        if !kernel.exists() {
            download_kernel(&kernel)?;
        }
        let stamp = stamp(&[&busybox, &kernel])?;
        let stamp_file = directory.join("stamp");
        if fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) {
            return Ok(Self { directory: directory.to_owned() });
        }
        // The stamp goes first and comes last: a build that was interrupted is not taken for a finished one.
        remove_file_if_there(&stamp_file)?;
        build(directory, &busybox, &kernel)?;
        write(&stamp_file, stamp)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What `rialto publish` reads: release 1.0.0.
    pub fn description(&self) -> PathBuf {
        self.directory.join("appliance.toml")
    }

    /// What `rialto publish` reads for the next release, 1.1.0: another disk under the same kernel.
    pub fn next_description(&self) -> PathBuf {
        self.directory.join("next/appliance.toml")
    }

    /// The root disk of release 1.0.0: raw, sparse.
    pub fn disk(&self) -> PathBuf {
        self.directory.join("disk.raw")
    }

    /// The incompressible file that lies on the disk of this version, byte for byte.
    pub fn data(version: &str) -> Vec<u8> {
        let mut bytes = vec![0; DATA_BYTES];
        blake3::Hasher::new_derive_key("rialto hello appliance 2026 data")
            .update(version.as_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    /// Writes a description of the same images under another name and version into `into` and returns its path.
    ///
    /// # Errors
    /// Files that cannot be linked, copied or written.
    pub fn describe(&self, into: &Path, name: &str, version: &str) -> Result<PathBuf> {
        fs::create_dir_all(into).or_else(at(into))?;
        for file in ["vmlinuz", "initrd.img", "disk.raw"] {
            link_or_copy(&self.directory.join(file), &into.join(file))?;
        }
        let path = into.join("appliance.toml");
        write(&path, description(name, version))?;
        Ok(path)
    }
}

/// `$RIALTO_APPLIANCE_DIR`, or `target/appliance` in the workspace.
pub fn default_directory() -> PathBuf {
    match std::env::var_os("RIALTO_APPLIANCE_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/appliance"),
    }
}

/// The publish description, in the form that `rialto publish` reads.
fn description(name: &str, version: &str) -> String {
    format!(
        r#"name = "{name}"
version = "{version}"
arch = "x86_64"
summary = "Says what it is told to"
description = "Debian's cloud kernel and busybox: reads its NoCloud seed and serves a page with the greeting found there."
licence = "GPL-2.0-only"
tags = ["demo", "busybox"]

[[disks]]
file = "disk.raw"
format = "raw"

[boot]
kind = "direct"
kernel = "vmlinuz"
initrd = "initrd.img"
cmdline = "{CMDLINE}"

[requirements]
vcpus = 1
memory = "256 MiB"

[context.greeting]
type = "string"
required = true
description = "What the page says"
"#
    )
}

fn build(directory: &Path, busybox: &Path, kernel: &Path) -> Result<()> {
    let work = directory.join("work");
    remove_tree_if_there(&work)?;

    let unpacked = work.join("kernel");
    fs::create_dir_all(&work).or_else(at(&work))?;
    run(Command::new("dpkg-deb").arg("-x").arg(kernel).arg(&unpacked))?;
    copy(&newest_with_prefix(&unpacked.join("boot"), "vmlinuz-")?, &directory.join("vmlinuz"))?;
    write(&directory.join("initrd.img"), initrd(busybox, &unpacked)?)?;

    for (version, into) in [(VERSION, directory.to_owned()), (NEXT_VERSION, directory.join("next"))] {
        fs::create_dir_all(&into).or_else(at(&into))?;
        build_disk(&work.join(version), version, busybox, &into.join("disk.raw"))?;
        write(&into.join("appliance.toml"), description(NAME, version))?;
        if into != directory {
            for file in ["vmlinuz", "initrd.img"] {
                link_or_copy(&directory.join(file), &into.join(file))?;
            }
        }
    }
    remove_tree_if_there(&work)
}

/// The initrd: busybox, the drivers in load order, and `/init`. It is not compressed: the store compresses it anyway,
/// and an emulated processor boots sooner without.
fn initrd(busybox: &Path, kernel: &Path) -> Result<Vec<u8>> {
    let mut archive = Cpio::new(BUILD_TIME as u32);
    for directory in ["bin", "dev", "modules", "proc", "root", "sys"] {
        archive.directory(directory);
    }
    archive.file("bin/busybox", 0o755, &read(busybox)?);
    archive.symlink("bin/sh", "busybox");
    let mut order = String::new();
    for (name, bytes) in modules(kernel)? {
        archive.file(&format!("modules/{name}.ko"), 0o644, &bytes);
        order.push_str(&format!("{name}.ko\n"));
    }
    archive.file("modules/order", 0o644, order.as_bytes());
    archive.file("init", 0o755, INITRD_INIT.as_bytes());
    Ok(archive.finish())
}

/// The wanted drivers and what they depend on, dependencies first.
fn modules(kernel: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    // Debian has moved /lib into /usr over the years.
    let root = ["lib/modules", "usr/lib/modules"].into_iter().map(|path| kernel.join(path)).find(|path| path.is_dir());
    let mut files = BTreeMap::new();
    if let Some(root) = root {
        collect_modules(&root, &mut files)?;
    }

    let mut chosen: Vec<(String, Vec<u8>)> = Vec::new();
    // A stack of modules to load; each is looked at twice, before and after its dependencies.
    let mut stack: Vec<(String, bool)> = MODULES.iter().rev().map(|name| ((*name).to_owned(), false)).collect();
    let mut seen: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    while let Some((name, is_ready)) = stack.pop() {
        if is_ready {
            if let Some(bytes) = seen.get_mut(&name) {
                chosen.push((name, std::mem::take(bytes)));
            }
            continue;
        }
        let Some(file) = files.get(&name).filter(|_| !seen.contains_key(&name)) else { continue };
        let bytes = read_module(file)?;
        let depends = depends_of(&bytes);
        seen.insert(name.clone(), bytes);
        stack.push((name, true));
        stack.extend(depends.into_iter().map(|name| (name, false)));
    }
    Ok(chosen)
}

/// Fills in every module below a directory, by name as the kernel writes it (`_`, never `-`).
fn collect_modules(directory: &Path, into: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).or_else(at(directory))? {
        let path = entry.or_else(at(directory))?.path();
        if path.is_dir() {
            collect_modules(&path, into)?;
        } else if let Some((name, _)) = path.file_name().and_then(OsStr::to_str).and_then(|name| name.split_once(".ko"))
        {
            into.insert(name.replace('-', "_"), path.clone());
        }
    }
    Ok(())
}

/// A module's bytes, decompressed.
fn read_module(file: &Path) -> Result<Vec<u8>> {
    let decompressor = match file.extension().and_then(OsStr::to_str) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return read(file),
    };
    run(Command::new(decompressor).arg("-dc").arg(file))
}

/// The modules that a module says it needs: the `depends=` of its `.modinfo` section.
fn depends_of(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let list = module[start + KEY.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(list)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

/// The root disk: busybox under all its names, our files, and the data of this version.
fn build_disk(tree: &Path, version: &str, busybox: &Path, disk: &Path) -> Result<()> {
    for directory in ["bin", "dev", "etc", "proc", "run", "sbin", "srv", "sys", "tmp"] {
        let path = tree.join(directory);
        fs::create_dir_all(&path).or_else(at(&path))?;
    }
    copy(busybox, &tree.join("bin/busybox"))?;
    set_mode(&tree.join("bin/busybox"), 0o755)?;
    let applets = run(Command::new(busybox).arg("--list"))?;
    for applet in String::from_utf8_lossy(&applets).lines().filter(|name| *name != "busybox") {
        let path = tree.join("bin").join(applet);
        symlink("busybox", &path).or_else(at(&path))?;
    }
    symlink("../bin/busybox", tree.join("sbin/init")).or_else(at(tree))?;
    for (path, mode, content) in ROOT_FILES {
        write(&tree.join(path), content)?;
        set_mode(&tree.join(path), *mode)?;
    }
    write(&tree.join("etc/release"), format!("{version}\n"))?;
    write(&tree.join("srv/data"), Appliance::data(version))?;
    set_times(tree)?;

    remove_file_if_there(disk)?;
    let file = File::create(disk).or_else(at(disk))?;
    file.set_len(DISK_BYTES).or_else(at(disk))?;
    drop(file);
    let time = BUILD_TIME.to_string();
    run(Command::new(find_e2fs_program("mke2fs")?)
        // The first is read by e2fsprogs since 1.47.1, the second by older ones.
        .env("SOURCE_DATE_EPOCH", &time)
        .env("E2FSPROGS_FAKE_TIME", &time)
        .env("MKE2FS_CONFIG", "/dev/null")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-N", "2048", "-m", "0", "-L", "hello-root"])
        // The journal would be a quarter of the disk, and a guest that is thrown away has nothing to replay.
        .args(["-O", "none,extent,filetype,dir_index,sparse_super,large_file,huge_file,extra_isize,ext_attr"])
        .args(["-U", DISK_UUID, "-E"])
        .arg(format!("hash_seed={DISK_UUID},lazy_itable_init=0,nodiscard"))
        .arg("-d")
        .arg(tree)
        .arg(disk))?;
    // What the builder's file system decides and nobody can set there: owners, and the time of the last change.
    let mut fixes = String::new();
    for path in paths_below(tree)? {
        let path = path.strip_prefix(tree).unwrap_or(&path).display().to_string();
        fixes.push_str(&format!("sif /{path} uid 0\nsif /{path} gid 0\nsif /{path} ctime @{BUILD_TIME}\n"));
    }
    let fixes_file = tree.with_extension("fixes");
    write(&fixes_file, fixes)?;
    run(Command::new(find_e2fs_program("debugfs")?)
        .env("E2FSPROGS_FAKE_TIME", &time)
        .args(["-w", "-f"])
        .arg(&fixes_file)
        .arg(disk))?;
    Ok(())
}

/// Everything below a directory and the directory itself, in an order of its own.
fn paths_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(path) = paths.get(next).cloned() {
        next += 1;
        if fs::symlink_metadata(&path).or_else(at(&path))?.is_dir() {
            for entry in fs::read_dir(&path).or_else(at(&path))? {
                paths.push(entry.or_else(at(&path))?.path());
            }
        }
    }
    Ok(paths)
}

/// Sets the times of everything below a directory to the build time.
fn set_times(directory: &Path) -> Result<()> {
    let time = Timespec { tv_sec: BUILD_TIME as i64, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    for path in paths_below(directory)? {
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io::Error::from)
            .or_else(at(&path))?;
    }
    Ok(())
}

/// A statically linked busybox, from `$PATH`.
fn find_busybox() -> Result<PathBuf> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(ApplianceError::Architecture(std::env::consts::ARCH));
    }
    let busybox = find_program("busybox")
        .ok_or(ApplianceError::MissingProgram { program: "busybox", package: "busybox-static" })?;
    // A program that needs shared libraries names the loader that brings them, with its path.
    let is_dynamic = read(&busybox)?.windows(14).any(|window| window == b"/ld-linux-x86-");
    if is_dynamic { Err(ApplianceError::NotStatic(busybox)) } else { Ok(busybox) }
}

fn find_e2fs_program(name: &'static str) -> Result<PathBuf> {
    find_program(name).ok_or(ApplianceError::MissingProgram { program: name, package: "e2fsprogs" })
}

/// A program in `$PATH`, or where administrators' programs live, which not every `$PATH` names.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Downloads the concrete package behind the first kernel package that the machine's own sources offer.
fn download_kernel(to: &Path) -> Result<()> {
    for package in KERNEL_PACKAGES {
        let depends = run(Command::new("apt-cache").args(["depends", "--important", package])).unwrap_or_default();
        let depends = String::from_utf8_lossy(&depends).into_owned();
        let concrete = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let Some(concrete) = concrete.map(str::trim).find(|name| name.starts_with("linux-image-")) else { continue };

        // apt-get names the file itself, so it gets a directory of its own.
        let directory = to.with_extension("download");
        remove_tree_if_there(&directory)?;
        fs::create_dir_all(&directory).or_else(at(&directory))?;
        run(Command::new("apt-get").args(["download", "-q", concrete]).current_dir(&directory))?;
        let package = newest_with_prefix(&directory, "linux-image-")?;
        fs::rename(&package, to).or_else(at(&package))?;
        return remove_tree_if_there(&directory);
    }
    Err(ApplianceError::NoKernel)
}

/// Names everything that the result depends on.
fn stamp(inputs: &[&Path]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for (path, mode, content) in ROOT_FILES {
        hasher.update(format!("{path} {mode:o} {}\n{content}", content.len()).as_bytes());
    }
    for text in [INITRD_INIT, CMDLINE, DISK_UUID, &description(NAME, VERSION), include_str!("appliance.rs")] {
        hasher.update(text.as_bytes());
    }
    for input in inputs {
        hasher.update(blake3::hash(&read(input)?).as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Runs a program to its end and returns its standard output.
fn run(command: &mut Command) -> Result<Vec<u8>> {
    let shown = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .output()
        .map_err(|error| ApplianceError::Command { command: shown.clone(), why: error.to_string() })?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        let why = why.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
        return Err(ApplianceError::Command { command: shown, why: format!("{}: {why}", output.status) });
    }
    Ok(output.stdout)
}

fn newest_with_prefix(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).or_else(at(directory))? {
        let entry = entry.or_else(at(directory))?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(entry.path());
        }
    }
    found.into_iter().max().ok_or_else(|| ApplianceError::Io {
        path: directory.join(format!("{prefix}*")),
        source: io::ErrorKind::NotFound.into(),
    })
}

fn link_or_copy(from: &Path, to: &Path) -> Result<()> {
    remove_file_if_there(to)?;
    if fs::hard_link(from, to).is_ok() { Ok(()) } else { copy(from, to) }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    remove_file_if_there(to)?;
    fs::copy(from, to).map(drop).or_else(at(to))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).or_else(at(path))
}

fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    remove_file_if_there(path)?;
    File::create(path).and_then(|mut file| file.write_all(content.as_ref())).or_else(at(path))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).or_else(at(path))
}

fn remove_file_if_there(path: &Path) -> Result<()> {
    fs::remove_file(path).or_else(unless_missing).or_else(at(path))
}

fn remove_tree_if_there(path: &Path) -> Result<()> {
    fs::remove_dir_all(path).or_else(unless_missing).or_else(at(path))
}

fn unless_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Says which file an I/O error is about.
fn at<T>(path: &Path) -> impl FnOnce(io::Error) -> Result<T> + '_ {
    move |source| Err(ApplianceError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_depends_on() {
        let module = b"\x7fELF....\0license=GPL\0depends=virtio,virtio-ring\0retpoline=Y\0";
        assert_eq!(depends_of(module), ["virtio", "virtio_ring"]);
        assert!(depends_of(b"\x7fELF\0depends=\0name=fat\0").is_empty());
        assert!(depends_of(b"no modinfo").is_empty());
    }

    #[test]
    fn the_data_of_two_releases_has_nothing_in_common() {
        let (first, next) = (Appliance::data(VERSION), Appliance::data(NEXT_VERSION));
        assert_eq!(first.len(), DATA_BYTES);
        assert_eq!(first, Appliance::data(VERSION));
        assert!(first.chunks(64).zip(next.chunks(64)).all(|(a, b)| a != b));
    }
}
