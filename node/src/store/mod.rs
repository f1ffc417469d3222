//! The chunks this node holds: each distinct one once, compressed, in append-only files with an index that can be lost.
//!
//! ```text
//! store/  segments/*.segment   chunks and manifest pages: the truth      (segment, writer)
//!         images.journal       which images are listed, and pinned        (journal)
//!         index/               where each entry lies; rebuilt at need     (index, tree, runs, run, rebuild)
//!         lock                 one process at a time
//! ```
//!
//! **What survives a crash.** A chunk or page, once [`Store::commit`] has returned: it fsyncs each segment that has grown,
//! whose name was fsynced when it was begun, while others go on appending. Many wait for one fsync: an addition commits
//! at its end, a download every 64 MiB and at its end, and an append does it by itself after 256 MiB or 65,536 entries.
//! What the journal says, once the method that says it has returned: it fsyncs each entry, and an image is not said to be
//! whole before its chunks are committed. The index need not survive. Runs are fsynced, so that a crash does not cost
//! reading their segments; the tree is not, until the store is closed, so a crash costs reading the last segment.
//!
//! A chunk is stored by itself, or against others that are (see `dependent`): a new version takes little more than what
//! differs.
//!
//! An image is held when no chunk of its manifest is missing; there is no other notion of a download. The methods block
//! on disk and processor, so async callers run them on blocking threads. [`Store`] is cheap to clone.

mod chunks;
mod coding;
mod dependent;
mod error;
mod export;
mod filter;
mod gc;
mod images;
mod index;
mod ingest;
mod journal;
mod open;
mod packed;
mod rebuild;
mod referenced;
mod reflink;
mod relatives;
mod reserve;
mod run;
mod runs;
mod scrub;
mod segment;
mod tree;
mod usage;
mod writer;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::manifest::Manifest;

pub use chunks::{Encoded, Stored};
pub use error::{PeerFault, StoreError};
pub use export::Verification;
pub use gc::Collected;
pub use images::StoredImage;
pub use ingest::{Added, Digests, FlatDigests};
pub use journal::Origin;
pub use rebuild::Rebuilt;
pub use referenced::{Hold, RecentChunks, encode_against};
pub use relatives::KnownBase;
pub use reserve::Reservation;
pub use scrub::{ScrubPlace, ScrubStep};
pub use usage::Usage;

use index::Index;
use journal::Journal;
use segment::Segments;
use writer::Writer;

use crate::recent::Recent;

/// How a store is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Free space, in bytes, that writing leaves on the file system.
    pub free_space_floor_bytes: u64,
    /// What the segments may take together, in bytes; no bound where it is not set. Collecting garbage may exceed it for
    /// a while.
    pub quota_bytes: Option<u64>,
    /// Length at which a segment file is full, in bytes. At most 2 GiB; the default is 1 GiB.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { free_space_floor_bytes: 1 << 30, quota_bytes: None, segment_bytes: 1 << 30 }
    }
}

/// The chunks, manifests and images of one node. Clones are handles to the same store.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    segments: Arc<Segments>,
    index: Index,
    writer: Writer,
    journal: Mutex<Journal>,
    /// The manifests used last, latest at the end.
    manifests: Mutex<VecDeque<Arc<Manifest>>>,
    /// Images of which no chunk is missing, as far as they have been looked at.
    complete: Mutex<Complete>,
    /// Read while what is reachable may grow; written to while garbage is taken out of the index.
    reachable: RwLock<()>,
    /// What additions in progress rely on, by the number of the addition.
    adding: Mutex<BTreeMap<u64, HashSet<u64>>>,
    /// Who has set space aside.
    ledger: Mutex<reserve::Ledger>,
    /// What images take, as it was found last.
    usage: Mutex<usage::LastUsage>,
    /// Images that are not collected for now, and how often each is held.
    held: Mutex<BTreeMap<ImageId, usize>>,
    /// Chunks that others were decoded against.
    bases_read: Mutex<Recent<Hash>>,
    /// Held by the one collection that may run.
    collecting: Mutex<()>,
    /// Released last.
    _lock: File,
}

impl Store {
    /// Opens the store in `folder`, which is created if need be. Quick where the index is current; else it is brought up
    /// to date from the segments, whose unfinished tail is cut off.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Newer`], or what the operating system says.
    pub fn open(folder: &Path, options: Options) -> Result<Self, StoreError> {
        open::open(folder, options).map(|(inner, _)| Self(Arc::new(inner)))
    }

    /// Builds the index of the store in `folder` anew, from the segments alone, and says what they hold.
    ///
    /// # Errors
    /// As [`Store::open`]: [`StoreError::InUse`] where a node is running.
    pub fn rebuild(folder: &Path, options: Options) -> Result<Rebuilt, StoreError> {
        let (inner, rebuilt) = open::rebuild(folder, options)?;
        inner.index.flush()?;
        Ok(rebuilt)
    }

    /// Makes everything put so far survive a crash. A download calls this at times; ending an addition or a fetch does.
    ///
    /// # Errors
    /// A full or failing disk. What was put can still be read.
    pub fn commit(&self) -> Result<(), StoreError> {
        self.0.writer.commit(&self.0.segments, &self.0.index)
    }

    /// Gives everything put so far to the operating system: if this process is killed, it is there at the next start. Only
    /// [`Store::commit`] makes it survive the machine's end.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn write_out(&self) -> Result<(), StoreError> {
        self.0.writer.flush(&self.0.segments)
    }

    /// Bytes of our own that the store takes on disk, its index not counted.
    pub fn stored_bytes(&self) -> u64 {
        self.0.writer.lengths().values().sum::<u64>() + self.0.journal().bytes()
    }

    /// Bytes free on the store's file system.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        free_bytes(&self.0.folder).map_err(StoreError::io("read the free space of", &self.0.folder))
    }

    /// Changes the free-space floor, in bytes.
    pub fn set_free_space_floor(&self, bytes: u64) {
        self.0.writer.set_floor(bytes);
    }

    /// Changes what the segments may take together, in bytes.
    pub fn set_quota(&self, bytes: Option<u64>) {
        self.0.writer.set_quota(bytes.unwrap_or(u64::MAX));
    }
}

/// The images known to lack nothing. Chunks can be lost while an image is being looked at, so losses are counted.
#[derive(Debug, Default)]
struct Complete {
    images: BTreeSet<ImageId>,
    losses: u64,
}

impl Complete {
    fn contains(&self, image: &ImageId) -> bool {
        self.images.contains(image)
    }

    /// Forgets what was known, because something was lost.
    fn clear(&mut self) {
        self.images.clear();
        self.losses += 1;
    }

    fn forget(&mut self, image: &ImageId) {
        self.images.remove(image);
        self.losses += 1;
    }

    /// Notes an image that was found complete, if nothing was lost since `losses` was read.
    fn note(&mut self, image: ImageId, losses: u64) {
        if self.losses == losses {
            self.images.insert(image);
        }
    }
}

impl Inner {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complete(&self) -> MutexGuard<'_, Complete> {
        self.complete.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Best effort: what is lost here was never said to be committed, and the index can be rebuilt.
        if let Err(error) = self.writer.commit(&self.segments, &self.index).and_then(|()| self.index.flush()) {
            tracing::warn!(%error, "the store was not closed cleanly");
        }
    }
}

/// Bytes free on the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::noise;
