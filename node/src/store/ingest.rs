//! Adding content: one thread reads and cuts, one takes the digests of the whole, the rest hash and compress chunks, and
//! the caller's appends them in order.
//!
//! ```text
//! reader ─► batches of about 1 MiB ─┬─► workers ─► appender (the caller)
//!    ▲                              └─► digests of the flat content
//!    └───────── permits ◄─────────────────────────────┘
//! ```
//!
//! Permits bound the batches in flight, so every channel is bounded and nothing waits in a circle.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use rialto_protocol::ids::{Hash, ImageId, Sha256};
use rialto_protocol::image::chunker::{Chunker, Piece};
use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::image::similarity::Features;
use rialto_protocol::image::manifest::{self, ManifestBuilder, ManifestError, NewPage};
use rustix::fs::{OFlags, SeekFrom};
use sha2::Digest;

use super::journal::Origin;
use super::segment::{Entry, Key};
use super::{Store, StoreError, coding};

/// Data of a batch, in bytes: enough that passing it on costs nothing beside working on it.
const BATCH_BYTES: usize = 1 << 20;
/// Pieces of a batch, so that a file of many small holes is passed on too.
const BATCH_PIECES: usize = 256;
/// Batches in flight. With two buffers each, this bounds the memory of an addition to about 20 MiB.
const PERMITS: usize = 8;
/// Bytes read from the file at once.
const READ_BYTES: usize = 512 * 1024;
/// Threads that hash and compress, at most: the reader cannot feed more.
const MAX_WORKERS: usize = 16;

static NEXT_ADDITION: AtomicU64 = AtomicU64::new(0);
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// What was added.
#[derive(Debug, Clone, PartialEq)]
pub struct Added {
    /// The image.
    pub image: ImageId,
    /// Length of the content, in bytes.
    pub bytes: u64,
    /// Chunks, holes not counted.
    pub chunks: u64,
    /// Chunks that were not held before.
    pub new_chunks: u64,
    /// Bytes that the store grew by.
    pub stored_bytes: u64,
    /// BLAKE3 of the flat content, holes as zeros.
    pub blake3: Hash,
    /// SHA-256 of the flat content, holes as zeros.
    pub sha256: Sha256,
    /// How long it took.
    pub seconds: f64,
}

impl Store {
    /// Adds the content of a regular file as an image, whatever it is. Holes of the file are not read.
    ///
    /// `progress` is told bytes done and bytes in all, `cancel` is asked every few MiB. When this returns, the image is
    /// on disk and listed. Where it fails, chunks that were already stored stay until the next [`Store::gc`].
    ///
    /// # Errors
    /// [`StoreError::NotAFile`], [`StoreError::Changed`], [`StoreError::Cancelled`], or a full or failing disk.
    pub fn add_file(
        &self,
        path: &Path,
        progress: &mut dyn FnMut(u64, u64),
        cancel: &dyn Fn() -> bool,
    ) -> Result<Added, StoreError> {
        let started = Instant::now();
        let (file, before) = open(path)?;
        let mut addition = Addition::new(self);
        let digests = pipeline(&mut addition, Source { file: &file, path, bytes: before.len() }, progress, cancel)?;
        let after = file.metadata().map_err(StoreError::io("read", path))?;
        let stamp = |found: &Metadata| (found.len(), found.mtime(), found.mtime_nsec());
        if stamp(&before) != stamp(&after) {
            return Err(StoreError::Changed(path.to_owned()));
        }
        addition.finish(digests, started)
    }

    /// Adds content that lies in memory as an image.
    ///
    /// # Errors
    /// A full or failing disk.
    pub fn add_bytes(&self, content: &[u8]) -> Result<Added, StoreError> {
        let started = Instant::now();
        let mut addition = Addition::new(self);
        let mut sink = |piece: Piece<'_>| match piece {
            Piece::Data { bytes, .. } => {
                let hash = Hash::of(bytes);
                let packed = if self.has_chunk(&hash)? { Packed::Held } else { Packed::of(bytes) };
                addition.chunk(hash, bytes, packed)
            }
            Piece::Hole { length, .. } => addition.entry(manifest::Entry::Hole { length }),
        };
        let mut chunker = Chunker::new();
        chunker.push(content, &mut sink)?;
        chunker.finish(&mut sink)?;
        let digests = Digests { blake3: Hash::of(content), sha256: Sha256(sha2::Sha256::digest(content).into()) };
        addition.finish(digests, started)
    }
}

/// An image being added. While it lives, garbage collection keeps what it relies on.
struct Addition<'a> {
    store: &'a Store,
    number: u64,
    builder: ManifestBuilder,
    new_chunks: u64,
    stored_bytes: u64,
}

impl<'a> Addition<'a> {
    fn new(store: &'a Store) -> Self {
        let number = NEXT_ADDITION.fetch_add(1, Ordering::Relaxed);
        store.0.adding().insert(number, HashSet::new());
        Self { store, number, builder: ManifestBuilder::new(), new_chunks: 0, stored_bytes: 0 }
    }

    fn chunk(&mut self, hash: Hash, plain: &[u8], packed: Packed) -> Result<(), StoreError> {
        let key = Key::chunk(hash);
        self.rely_on(key);
        let (index, length) = (&self.store.0.index, plain.len() as u32);
        // It may have been collected since the worker looked.
        let packed = match packed {
            Packed::Held if index.find(&key)?.is_none() => Packed::of(plain),
            packed => packed,
        };
        let entry = match &packed {
            Packed::Held => return self.entry(manifest::Entry::Chunk { hash, length }),
            Packed::Raw => Entry::new(key, length, Encoding::Raw, plain),
            Packed::Zstd(bytes, features) => Entry::new(key, length, Encoding::Zstd, bytes).with_features(features),
        };
        if self.store.put(&entry)? {
            self.new_chunks += 1;
            self.stored_bytes += entry.bytes();
        }
        self.entry(manifest::Entry::Chunk { hash, length })
    }

    fn entry(&mut self, entry: manifest::Entry) -> Result<(), StoreError> {
        self.builder.push(entry).map_err(impossible)?;
        let pages = self.builder.take_pages();
        self.pages(pages)
    }

    fn pages(&mut self, pages: Vec<NewPage>) -> Result<(), StoreError> {
        for page in pages {
            let key = Key::page(page.hash);
            self.rely_on(key);
            let entry = Entry::new(key, page.bytes.len() as u32, Encoding::Raw, &page.bytes);
            if self.store.put(&entry)? {
                self.stored_bytes += entry.bytes();
            }
        }
        Ok(())
    }

    /// Tells a collection that this is needed. Must come before looking whether it is held.
    fn rely_on(&self, key: Key) {
        let _reachable = self.store.0.reachable.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(needed) = self.store.0.adding().get_mut(&self.number) {
            needed.insert(super::gc::print(&key));
        }
    }

    fn finish(mut self, digests: Digests, started: Instant) -> Result<Added, StoreError> {
        let (image, root, pages) = std::mem::take(&mut self.builder).finish().map_err(impossible)?;
        self.pages(pages)?;
        self.store.commit()?;
        self.store.list(&image, Origin::Local)?;
        Ok(Added {
            image,
            bytes: root.bytes,
            chunks: root.chunks,
            new_chunks: self.new_chunks,
            stored_bytes: self.stored_bytes,
            blake3: digests.blake3,
            sha256: digests.sha256,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

impl Drop for Addition<'_> {
    fn drop(&mut self) {
        self.store.0.adding().remove(&self.number);
    }
}

/// What a file is can only be refused for its size: the chunker makes no other entries.
fn impossible(source: ManifestError) -> StoreError {
    StoreError::Io {
        doing: "list the chunks of",
        path: "the content".into(),
        source: io::Error::new(io::ErrorKind::FileTooLarge, source),
    }
}

/// A chunk as it is to be stored.
enum Packed {
    /// It was held when the worker looked.
    Held,
    Raw,
    /// With its similarity features.
    Zstd(Vec<u8>, [u8; Features::BYTES]),
}

impl Packed {
    fn of(plain: &[u8]) -> Self {
        let packed = coding::compress(plain);
        packed.map_or(Self::Raw, |packed| Self::Zstd(packed, Features::of(plain).to_bytes()))
    }
}

#[derive(Debug, Clone, Copy)]
struct Digests {
    blake3: Hash,
    sha256: Sha256,
}

#[derive(Clone, Copy)]
struct Source<'a> {
    file: &'a File,
    path: &'a Path,
    bytes: u64,
}

/// A stretch of the content.
#[derive(Default)]
struct Batch {
    number: u64,
    data: Vec<u8>,
    pieces: Vec<Part>,
}

#[derive(Clone, Copy)]
enum Part {
    /// So many bytes of `data`, after those of the parts before.
    Data(usize),
    Hole(u64),
}

/// A batch, and its chunks as they are to be stored.
type Worked = (Arc<Batch>, Vec<(Hash, Packed)>);

fn pipeline(
    addition: &mut Addition<'_>,
    source: Source<'_>,
    progress: &mut dyn FnMut(u64, u64),
    cancel: &dyn Fn() -> bool,
) -> Result<Digests, StoreError> {
    let store = addition.store;
    let stop = AtomicBool::new(false);
    let (permit, permits) = sync_channel(PERMITS);
    let (to_workers, work) = sync_channel::<Arc<Batch>>(PERMITS);
    let (to_digests, flat) = sync_channel::<Arc<Batch>>(PERMITS);
    let (to_appender, worked) = sync_channel::<Worked>(PERMITS);
    let work = Mutex::new(work);
    let workers = thread::available_parallelism().map_or(2, usize::from).min(MAX_WORKERS);

    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let outlet = Outlet { permits, to_workers, to_digests, batch: Batch::default() };
            read(source, outlet, &stop)
        });
        let digests = scope.spawn(|| digest(flat));
        for _ in 0..workers {
            let (work, to_appender) = (&work, to_appender.clone());
            scope.spawn(move || work_on(store, work, &to_appender));
        }
        drop(to_appender);

        let appended = append(addition, source.bytes, worked, permit, progress, cancel);
        stop.store(true, Ordering::Relaxed);
        let read = reader.join().unwrap_or_else(|panic| resume_unwind(panic));
        let digests = digests.join().unwrap_or_else(|panic| resume_unwind(panic));
        // The appender's failure stops the reader, so it is the one to tell.
        appended.and(read).map(|()| digests)
    })
}

fn append(
    addition: &mut Addition<'_>,
    total: u64,
    worked: Receiver<Worked>,
    permit: SyncSender<()>,
    progress: &mut dyn FnMut(u64, u64),
    cancel: &dyn Fn() -> bool,
) -> Result<(), StoreError> {
    for _ in 0..PERMITS {
        // As many as there is room for; the reader may have failed already.
        let _ = permit.try_send(());
    }
    let (mut early, mut next, mut done) = (BTreeMap::new(), 0, 0);
    for (batch, chunks) in worked {
        early.insert(batch.number, (batch, chunks));
        while let Some((batch, chunks)) = early.remove(&next) {
            if cancel() {
                return Err(StoreError::Cancelled);
            }
            next += 1;
            let (mut chunks, mut rest) = (chunks.into_iter(), &batch.data[..]);
            for part in &batch.pieces {
                match *part {
                    Part::Hole(length) => {
                        addition.entry(manifest::Entry::Hole { length })?;
                        done += length;
                    }
                    Part::Data(length) => {
                        let (plain, later) = rest.split_at(length);
                        rest = later;
                        if let Some((hash, packed)) = chunks.next() {
                            addition.chunk(hash, plain, packed)?;
                        }
                        done += length as u64;
                    }
                }
            }
            progress(done, total);
            let _ = permit.try_send(());
        }
    }
    Ok(())
}

fn work_on(store: &Store, work: &Mutex<Receiver<Arc<Batch>>>, to_appender: &SyncSender<Worked>) {
    loop {
        let received = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = received else { return };
        let mut rest = &batch.data[..];
        let mut chunks = Vec::with_capacity(batch.pieces.len());
        for part in &batch.pieces {
            if let Part::Data(length) = *part {
                let (plain, later) = rest.split_at(length);
                rest = later;
                let hash = Hash::of(plain);
                // An index that fails here fails again in the appender, which tells.
                let is_held = store.has_chunk(&hash).unwrap_or(false);
                chunks.push((hash, if is_held { Packed::Held } else { Packed::of(plain) }));
            }
        }
        if to_appender.send((batch, chunks)).is_err() {
            return;
        }
    }
}

fn digest(flat: Receiver<Arc<Batch>>) -> Digests {
    let (mut blake3, mut sha256) = (blake3::Hasher::new(), sha2::Sha256::new());
    for batch in flat {
        let mut rest = &batch.data[..];
        for part in &batch.pieces {
            match *part {
                Part::Data(length) => {
                    let (plain, later) = rest.split_at(length);
                    rest = later;
                    blake3.update(plain);
                    sha256.update(plain);
                }
                Part::Hole(mut length) => {
                    while length > 0 {
                        let zeros = &ZEROS[..length.min(ZEROS.len() as u64) as usize];
                        blake3.update(zeros);
                        sha256.update(zeros);
                        length -= zeros.len() as u64;
                    }
                }
            }
        }
    }
    Digests { blake3: Hash(*blake3.finalize().as_bytes()), sha256: Sha256(sha256.finalize().into()) }
}

/// Where the reader's batches go.
struct Outlet {
    permits: Receiver<()>,
    to_workers: SyncSender<Arc<Batch>>,
    to_digests: SyncSender<Arc<Batch>>,
    batch: Batch,
}

impl Outlet {
    fn take(&mut self, piece: Piece<'_>) -> Result<(), StoreError> {
        match piece {
            Piece::Data { bytes, .. } => {
                self.batch.data.extend_from_slice(bytes);
                self.batch.pieces.push(Part::Data(bytes.len()));
            }
            Piece::Hole { length, .. } => self.batch.pieces.push(Part::Hole(length)),
        }
        let is_full = self.batch.data.len() >= BATCH_BYTES || self.batch.pieces.len() >= BATCH_PIECES;
        if is_full { self.pass_on() } else { Ok(()) }
    }

    fn pass_on(&mut self) -> Result<(), StoreError> {
        if self.batch.pieces.is_empty() {
            return Ok(());
        }
        let number = self.batch.number + 1;
        let next = Batch { number, data: Vec::with_capacity(BATCH_BYTES + BATCH_BYTES / 4), pieces: Vec::new() };
        let batch = Arc::new(std::mem::replace(&mut self.batch, next));
        // Whoever receives is gone only because the appender has failed, and tells why.
        let gone = || StoreError::Cancelled;
        self.permits.recv().map_err(|_| gone())?;
        self.to_digests.send(Arc::clone(&batch)).map_err(|_| gone())?;
        self.to_workers.send(batch).map_err(|_| gone())
    }
}

fn read(source: Source<'_>, mut outlet: Outlet, stop: &AtomicBool) -> Result<(), StoreError> {
    let Source { file, path, bytes: end } = source;
    let mut sink = |piece: Piece<'_>| outlet.take(piece);
    let mut chunker = Chunker::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while at < end {
        let (data, hole) = next_data(file, at, end).map_err(StoreError::io("read", path))?;
        chunker.push_zeros(data - at, &mut sink)?;
        at = data;
        while at < hole {
            if stop.load(Ordering::Relaxed) {
                return Err(StoreError::Cancelled);
            }
            let length = (hole - at).min(READ_BYTES as u64) as usize;
            match file.read_at(&mut buffer[..length], at) {
                Ok(0) => return Err(StoreError::Changed(path.to_owned())),
                Ok(read) => {
                    chunker.push(&buffer[..read], &mut sink)?;
                    at += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::io("read", path)(error)),
            }
        }
    }
    chunker.finish(&mut sink)?;
    outlet.pass_on()
}

/// The next stretch of data at or after `at`, which is before `end`: where it starts and ends.
fn next_data(file: &File, at: u64, end: u64) -> io::Result<(u64, u64)> {
    let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => data.min(end),
        // Only a hole follows.
        Err(rustix::io::Errno::NXIO) => return Ok((end, end)),
        // The file system does not tell holes.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => return Ok((at, end)),
        Err(error) => return Err(error.into()),
    };
    let hole = match rustix::fs::seek(file, SeekFrom::Hole(data)) {
        Ok(hole) => hole.min(end),
        Err(rustix::io::Errno::NXIO) => end,
        Err(error) => return Err(error.into()),
    };
    Ok((data, hole.max(data)))
}

fn open(path: &Path) -> Result<(File, Metadata), StoreError> {
    let refused = || StoreError::io("open", path);
    // Looked at before it is opened, because a socket cannot be; and after, in case it was replaced.
    check_kind(path, &std::fs::metadata(path).map_err(refused())?)?;
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(refused())?;
    let found = file.metadata().map_err(refused())?;
    check_kind(path, &found)?;
    Ok((file, found))
}

fn check_kind(path: &Path, found: &Metadata) -> Result<(), StoreError> {
    let kind = found.file_type();
    let found = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(StoreError::NotAFile { path: path.to_owned(), found })
}
