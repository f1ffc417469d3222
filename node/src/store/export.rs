//! Reading whole images back: writing them to flat sparse files, and verifying them.

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::manifest::ChunkRef;

use super::dependent::Scope;
use super::{Store, StoreError, reflink};

/// Chunks that a thread takes at once, about 2 MiB: neighbours in the file are written by one thread.
const RUN_CHUNKS: usize = 64;
/// Threads that read and decompress, at most.
const MAX_WORKERS: usize = 8;

/// What reading every chunk of an image found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Distinct chunks that were read and are well.
    pub chunks: u64,
    /// Bytes of content that they stand for.
    pub bytes: u64,
    /// Chunks that were damaged, each once. They count as missing from now on, and can be fetched again.
    pub damaged: Vec<Hash>,
    /// Distinct chunks that were missing before.
    pub missing: u64,
}

impl Store {
    /// Writes an image to a flat, sparse raw file, first under another name beside it. Replaces a regular file.
    ///
    /// Where the file system can share blocks between files, the new file shares those that it has in common with the one
    /// at `like`, a flat file of this image or of another version of it. That is checked like everything else.
    ///
    /// `progress` is told bytes of data done and in all, `cancel` is asked every few MiB.
    ///
    /// # Errors
    /// [`StoreError::MissingPages`], [`StoreError::MissingChunks`] and [`StoreError::Damaged`];
    /// [`StoreError::NotAFile`] where something else has that name; [`StoreError::Cancelled`]; a full or failing disk.
    /// Nothing is left behind.
    pub fn export(
        &self,
        image: &ImageId,
        path: &Path,
        like: Option<&Path>,
        progress: &mut dyn FnMut(u64, u64),
        cancel: &dyn Fn() -> bool,
    ) -> Result<(), StoreError> {
        let missing = self.missing_chunks(image)?.len() as u64;
        if missing > 0 {
            return Err(StoreError::MissingChunks { image: *image, missing });
        }
        check_target(path)?;
        let manifest = self.manifest(image)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let refused = || StoreError::io("write", path);
        let new = tempfile::Builder::new()
            .prefix(".rialto-export-")
            // As any new file: the umask takes away from it.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .map_err(refused())?;
        let is_cloned = match like {
            Some(like) => reflink::clone_into(new.as_file(), like, &manifest).map_err(refused())?,
            None => false,
        };
        new.as_file().set_len(manifest.bytes).map_err(refused())?;
        let write = |chunk: &ChunkRef| {
            if is_cloned && reflink::has(new.as_file(), chunk) {
                return Ok(());
            }
            let bytes = self.read_chunk(&chunk.hash)?;
            if bytes.len() != chunk.length as usize {
                return Err(StoreError::Damaged { what: "chunk", hash: chunk.hash });
            }
            new.as_file().write_all_at(&bytes, chunk.offset).map_err(refused())
        };
        each_chunk(&manifest.chunks, write, progress, cancel)?;
        new.as_file().sync_all().map_err(refused())?;
        new.persist(path).map_err(|error| refused()(error.error))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", folder))
    }

    /// Reads every chunk of an image that is held and checks it against its name. What is damaged is dropped from the
    /// index, so that it can be fetched again.
    ///
    /// `progress` is told bytes of data done and in all, `cancel` is asked every few MiB.
    ///
    /// # Errors
    /// [`StoreError::MissingPages`], [`StoreError::Manifest`], [`StoreError::Cancelled`], or a failing disk. Damaged and
    /// missing chunks are not errors but findings.
    pub fn verify(
        &self,
        image: &ImageId,
        progress: &mut dyn FnMut(u64, u64),
        cancel: &dyn Fn() -> bool,
    ) -> Result<Verification, StoreError> {
        // Pages first, from the disk and not from memory.
        self.0.manifests().retain(|manifest| manifest.id != *image);
        self.0.complete().forget(image);
        let manifest = self.manifest(image)?;
        let mut seen = HashSet::new();
        let chunks: Vec<ChunkRef> = manifest.chunks.iter().filter(|chunk| seen.insert(chunk.hash)).copied().collect();
        drop(seen);
        let found = std::sync::Mutex::new(Verification::default());
        let note = |note: &dyn Fn(&mut Verification)| {
            note(&mut found.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        };
        let read = |chunk: &ChunkRef| {
            match self.read_chunk(&chunk.hash) {
                Ok(bytes) if bytes.len() == chunk.length as usize => note(&|found| {
                    found.chunks += 1;
                    found.bytes += u64::from(chunk.length);
                }),
                Ok(_) | Err(StoreError::Damaged { .. }) => note(&|found| found.damaged.push(chunk.hash)),
                Err(StoreError::NotHeld { .. }) => note(&|found| found.missing += 1),
                Err(error) => return Err(error),
            }
            Ok(())
        };
        each_chunk(&chunks, read, progress, cancel)?;
        let mut found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        found.damaged.sort();
        if !found.damaged.is_empty() {
            // Chunks of other images may depend on them.
            self.0.drop_dangling(Scope::All)?;
        }
        Ok(found)
    }
}

/// Does `work` with each chunk, on all processors, and tells of it on the caller's thread.
fn each_chunk(
    chunks: &[ChunkRef],
    work: impl Fn(&ChunkRef) -> Result<(), StoreError> + Sync,
    progress: &mut dyn FnMut(u64, u64),
    cancel: &dyn Fn() -> bool,
) -> Result<(), StoreError> {
    let bytes = |chunks: &[ChunkRef]| chunks.iter().map(|chunk| u64::from(chunk.length)).sum::<u64>();
    let total = bytes(chunks);
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let workers = thread::available_parallelism().map_or(2, usize::from).min(MAX_WORKERS);
    let (tell, told) = sync_channel(workers * 2);
    thread::scope(|scope| {
        for _ in 0..workers {
            let (tell, next, stop, work) = (tell.clone(), &next, &stop, &work);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let from = next.fetch_add(1, Ordering::Relaxed).saturating_mul(RUN_CHUNKS);
                    let Some(run) = chunks.get(from..) else { return };
                    let run = &run[..run.len().min(RUN_CHUNKS)];
                    let result = run.iter().try_for_each(work).map(|()| bytes(run));
                    if run.is_empty() || tell.send(result).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        let mut done = 0;
        let mut failed = Ok(());
        for result in told {
            let result = if cancel() { Err(StoreError::Cancelled) } else { result };
            match result {
                Ok(bytes) => {
                    done += bytes;
                    progress(done, total);
                }
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    failed = failed.and(Err(error));
                }
            }
        }
        failed
    })
}

fn check_target(path: &Path) -> Result<(), StoreError> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(StoreError::io("write", path))?.file_type(),
    };
    let found = match () {
        () if found.is_file() => return Ok(()),
        () if found.is_dir() => "a directory",
        () if found.is_symlink() => "a symbolic link",
        () => "a device, pipe or socket",
    };
    Err(StoreError::NotAFile { path: path.to_owned(), found })
}
