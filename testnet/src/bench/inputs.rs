//! What is moved: random bytes, and a real Debian image with its real update.

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{BenchError, Result, peers};

const MIB: u64 = 1 << 20;

/// Writes so many bytes that no compression shortens; the same for the same seed.
pub(super) fn write_random(path: &Path, bytes: u64, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut file = File::create(path)?;
    let mut block = vec![0; MIB as usize];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(MIB);
        random.fill(&mut block);
        file.write_all(&block[..now as usize])?;
        left -= now;
    }
    Ok(())
}

/// Writes so many bytes of which no two pages of 4 KiB are alike, and which zstd shortens to about a third: the
/// beginning of each page is random, and repeats within it.
pub(super) fn write_compressible(path: &Path, bytes: u64, seed: u64) -> Result<()> {
    const PAGE: usize = 4096;
    const FRESH: usize = 1280;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut file = BufWriter::with_capacity(MIB as usize, File::create(path)?);
    let mut page = [0; PAGE];
    for _ in 0..bytes / PAGE as u64 {
        let (fresh, rest) = page.split_at_mut(FRESH);
        random.fill(fresh);
        for part in rest.chunks_mut(FRESH) {
            part.copy_from_slice(&fresh[..part.len()]);
        }
        file.write_all(&page)?;
    }
    Ok(file.flush()?)
}

/// The real image and its real update, as `testnet/pair` builds them.
pub(super) struct Pair {
    directory: PathBuf,
    /// The suite alone.
    pub(super) old: PathBuf,
    /// With security updates.
    pub(super) new: PathBuf,
    /// What apt would download for the update, in bytes.
    pub(super) apt_bytes: u64,
}

impl Pair {
    /// The pair in `cache`, built where it is not there yet, which takes some minutes.
    ///
    /// # Errors
    /// [`BenchError::Missing`]: it cannot be built here.
    pub(super) fn built(cache: &Path) -> Result<Self> {
        let directory = cache.join("pair");
        let apt = directory.join("apt-bytes");
        let (old, new) = (directory.join("old.raw"), directory.join("new.raw"));
        if ![&apt, &old, &new].into_iter().all(|file| file.is_file()) {
            let status = script().arg(&directory).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
            if !status.success() {
                return Err(BenchError::Missing("the real image cannot be built here; see above".into()));
            }
        }
        let said = fs::read_to_string(&apt)?;
        let apt_bytes = said.trim().parse();
        let apt_bytes = apt_bytes.map_err(|_| BenchError::Missing(format!("{} says {said}", apt.display())))?;
        Ok(Self { directory, old, new, apt_bytes })
    }

    /// Successive versions from the old image to the new one, each with some more of the updates, as zstd patches from
    /// one to the next. What a patch takes is an update's size.
    pub(super) fn patches(&self, versions: usize) -> Result<Vec<PathBuf>> {
        let directory = self.directory.join(format!("versions-{versions}"));
        if !directory.is_dir() {
            peers::run(script().arg(&self.directory).args(["versions", &versions.to_string()]))?;
        }
        Ok((1..versions).map(|step| directory.join(format!("{step}.patch"))).collect())
    }
}

/// Copies a file with its holes.
pub(super) fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    peers::run(Command::new("cp").arg("--sparse=always").arg(from).arg(to))?;
    Ok(())
}

/// Whether two files have the same bytes.
pub(super) fn are_alike(one: &Path, other: &Path) -> Result<bool> {
    let mut files = (File::open(one)?, File::open(other)?);
    let mut blocks = (vec![0; MIB as usize], vec![0; MIB as usize]);
    if fs::metadata(one)?.len() != fs::metadata(other)?.len() {
        return Ok(false);
    }
    loop {
        let read = files.0.read(&mut blocks.0)?;
        if read == 0 {
            return Ok(true);
        }
        files.1.read_exact(&mut blocks.1[..read])?;
        if blocks.0[..read] != blocks.1[..read] {
            return Ok(false);
        }
    }
}

fn script() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("pair"))
}
