//! The threads of an addition: one reads and cuts, one for each processor hashes and compresses, the caller's appends in
//! order, and where digests of the flat content are wanted, one more takes them.
//!
//! ```text
//! reader ─► workers ─► appender (the caller) ─► digests
//!    ▲                                 │           │
//!    └──────────── empty batches ◄─────┴───────────┘
//! ```
//!
//! There are so many batches and no more: they bound the memory of an addition (about 10 MiB), and no channel can be
//! full. They go round, so that nothing is allocated for a chunk: faulting in fresh memory costs more than hashing it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rialto_protocol::ids::{Hash, Sha256};
use rialto_protocol::image::chunker::{Chunker, MAX_CHUNK_BYTES, Piece};
use rialto_protocol::image::manifest;
use sha2::Digest;

use super::super::relatives::{Relatives, Shape};
use super::super::{Store, StoreError};
use super::source::Source;
use super::{Addition, Digests, FlatDigests, Packed};

/// Data of a batch, in bytes: enough that passing it on costs nothing beside working on it, and few enough that all
/// batches stay in a processor's cache.
const BATCH_BYTES: usize = 512 * 1024;
/// Pieces of a batch, so that a file of many small holes is passed on too.
const BATCH_PIECES: usize = 256;
/// Batches of an addition. Each has two buffers of [`BATCH_BYTES`] and a chunk: 10 MiB in all.
const BATCHES: usize = 8;
/// Bytes read from the file at once.
const READ_BYTES: usize = 256 * 1024;
/// Threads that hash and compress, at most: the reader cannot feed more.
const MAX_WORKERS: usize = 16;

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Adds all of `source`.
pub(super) fn run(
    addition: &mut Addition<'_>,
    source: &Source,
    digests: Digests,
    progress: &mut dyn FnMut(u64, u64),
    cancel: &dyn Fn() -> bool,
) -> Result<Option<FlatDigests>, StoreError> {
    let (store, relatives) = (addition.store, Arc::clone(&addition.relatives));
    let stop = AtomicBool::new(false);
    let (to_reader, empty) = sync_channel(BATCHES);
    let (to_workers, work) = sync_channel(BATCHES);
    let (to_appender, worked) = sync_channel(BATCHES);
    let work = Mutex::new(work);
    let workers = thread::available_parallelism().map_or(2, usize::from).min(MAX_WORKERS);
    for _ in 0..BATCHES {
        // There is room for all of them, here and in every other channel.
        let _ = to_reader.try_send(Batch::default());
    }

    thread::scope(|scope| {
        let reader = scope.spawn(|| read(source, Outlet { empty, to_workers, batch: None, next: 0 }, &stop));
        for _ in 0..workers {
            let (work, relatives, to_appender) = (&work, &relatives, to_appender.clone());
            scope.spawn(move || work_on(store, relatives, work, &to_appender));
        }
        drop(to_appender);
        let (used, digesting) = match digests {
            Digests::Skip => (to_reader, None),
            Digests::Take => {
                let (used, flat) = sync_channel(BATCHES);
                (used, Some(scope.spawn(move || digest(flat, &to_reader))))
            }
        };
        let appended = append(addition, source.bytes(), worked, used, progress, cancel);
        stop.store(true, Ordering::Relaxed);
        let read = reader.join().unwrap_or_else(|panic| resume_unwind(panic));
        let digests = digesting.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        // The appender's failure stops the reader, so it is the one to tell.
        appended.and(read).map(|()| digests)
    })
}

/// A stretch of the content, and what became of its chunks.
#[derive(Default)]
struct Batch {
    number: u64,
    data: Vec<u8>,
    parts: Vec<Part>,
    /// One for each part that is data.
    chunks: Vec<Worked>,
    packed: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Part {
    /// So many bytes of `data`, after those of the parts before.
    Data(usize),
    /// So many zeros.
    Hole(u64),
}

/// What a worker made of a chunk.
struct Worked {
    hash: Hash,
    stored: Stored,
}

enum Stored {
    /// It was held when the worker looked.
    Held,
    /// As these bytes of `packed`.
    New(Range<usize>, Shape),
}

impl Batch {
    fn clear(&mut self) {
        self.data.clear();
        self.parts.clear();
        self.chunks.clear();
    }

    fn is_full(&self) -> bool {
        self.data.len() >= BATCH_BYTES || self.parts.len() >= BATCH_PIECES
    }

    /// Hashes each chunk, and packs those that are new.
    fn work(&mut self, store: &Store, relatives: &Relatives) {
        let mut search = relatives.search();
        let (mut rest, mut used) = (&self.data[..], 0);
        if self.packed.len() < self.data.len() {
            // Grows to the largest batch, once.
            self.packed.resize(self.data.len().max(BATCH_BYTES + MAX_CHUNK_BYTES), 0);
        }
        for part in &self.parts {
            let Part::Data(length) = *part else { continue };
            let (plain, later) = rest.split_at(length);
            rest = later;
            let hash = Hash::of(plain);
            // An index that fails here fails again in the appender, which tells.
            let stored = if store.has_chunk(&hash).unwrap_or(false) {
                search.pass(hash, plain);
                Stored::Held
            } else {
                let shape = search.pack(hash, plain, &mut self.packed[used..used + length]);
                used += shape.length();
                Stored::New(used - shape.length()..used, shape)
            };
            self.chunks.push(Worked { hash, stored });
        }
    }

    /// Gives each part to the addition, in order. Returns the bytes of content that this was.
    fn append_to(&self, addition: &mut Addition<'_>) -> Result<u64, StoreError> {
        let (mut rest, mut chunks, mut done) = (&self.data[..], self.chunks.iter(), 0);
        for part in &self.parts {
            match *part {
                Part::Hole(length) => {
                    addition.entry(manifest::Entry::Hole { length })?;
                    done += length;
                }
                Part::Data(length) => {
                    let (plain, later) = rest.split_at(length);
                    rest = later;
                    if let Some(Worked { hash, stored }) = chunks.next() {
                        let packed = match stored {
                            Stored::Held => Packed::Held,
                            Stored::New(range, shape) => shape.packed(&self.packed[range.clone()]),
                        };
                        addition.chunk(*hash, plain, packed)?;
                    }
                    done += length as u64;
                }
            }
        }
        Ok(done)
    }
}

fn append(
    addition: &mut Addition<'_>,
    total: u64,
    worked: Receiver<Batch>,
    used: SyncSender<Batch>,
    progress: &mut dyn FnMut(u64, u64),
    cancel: &dyn Fn() -> bool,
) -> Result<(), StoreError> {
    let (mut early, mut next, mut done) = (BTreeMap::new(), 0, 0);
    for batch in worked {
        early.insert(batch.number, batch);
        while let Some(batch) = early.remove(&next) {
            if cancel() {
                return Err(StoreError::Cancelled);
            }
            next += 1;
            done += batch.append_to(addition)?;
            progress(done, total);
            // The reader may have ended already, or failed, which it tells.
            let _ = used.send(batch);
        }
    }
    Ok(())
}

fn work_on(store: &Store, relatives: &Relatives, work: &Mutex<Receiver<Batch>>, to_appender: &SyncSender<Batch>) {
    loop {
        let received = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut batch) = received else { return };
        batch.work(store, relatives);
        if to_appender.send(batch).is_err() {
            return;
        }
    }
}

fn digest(flat: Receiver<Batch>, to_reader: &SyncSender<Batch>) -> FlatDigests {
    let (mut blake3, mut sha256) = (blake3::Hasher::new(), sha2::Sha256::new());
    for batch in flat {
        let mut rest = &batch.data[..];
        for part in &batch.parts {
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
        // The reader may have ended.
        let _ = to_reader.send(batch);
    }
    FlatDigests { blake3: Hash(*blake3.finalize().as_bytes()), sha256: Sha256(sha256.finalize().into()) }
}

/// Where the reader's batches come from, and go.
struct Outlet {
    empty: Receiver<Batch>,
    to_workers: SyncSender<Batch>,
    /// The batch that is being filled.
    batch: Option<Batch>,
    next: u64,
}

impl Outlet {
    fn take(&mut self, piece: Piece<'_>) -> Result<(), StoreError> {
        let mut batch = match self.batch.take() {
            Some(batch) => batch,
            None => self.begin()?,
        };
        match piece {
            Piece::Data { bytes, .. } => {
                batch.data.extend_from_slice(bytes);
                batch.parts.push(Part::Data(bytes.len()));
            }
            Piece::Hole { length, .. } => batch.parts.push(Part::Hole(length)),
        }
        let is_full = batch.is_full();
        self.batch = Some(batch);
        if is_full { self.pass_on() } else { Ok(()) }
    }

    fn begin(&mut self) -> Result<Batch, StoreError> {
        // Whoever gives them back is gone only because the appender has failed, and tells why.
        let mut batch = self.empty.recv().map_err(|_| StoreError::Cancelled)?;
        batch.clear();
        batch.data.reserve(BATCH_BYTES + MAX_CHUNK_BYTES);
        batch.number = self.next;
        self.next += 1;
        Ok(batch)
    }

    fn pass_on(&mut self) -> Result<(), StoreError> {
        let Some(batch) = self.batch.take() else { return Ok(()) };
        self.to_workers.send(batch).map_err(|_| StoreError::Cancelled)
    }
}

fn read(source: &Source, mut outlet: Outlet, stop: &AtomicBool) -> Result<(), StoreError> {
    let end = source.bytes();
    let mut sink = |piece: Piece<'_>| outlet.take(piece);
    let mut chunker = Chunker::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while at < end {
        let (data, hole) = source.next_data(at)?;
        chunker.push_zeros(data - at, &mut sink)?;
        at = data;
        while at < hole {
            if stop.load(Ordering::Relaxed) {
                return Err(StoreError::Cancelled);
            }
            let length = (hole - at).min(READ_BYTES as u64) as usize;
            let read = source.read_at(&mut buffer[..length], at)?;
            chunker.push(&buffer[..read], &mut sink)?;
            at += read as u64;
        }
    }
    chunker.finish(&mut sink)?;
    outlet.pass_on()
}
