//! Why the store did not do it: what the caller decides on is whether a peer lied, the disk is full, or the disk failed.

use std::io;
use std::path::{Path, PathBuf};

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::image::manifest::ManifestError;
use rialto_protocol::swarm::ReferenceError;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What was given is not what it was said to be. Whoever gave it lied, or its disk did.
    #[error(transparent)]
    Peer(#[from] PeerFault),
    /// Writing would leave less free space than the administrator wants, or there is none at all. Nothing held is lost.
    #[error(
        "{} has {free} bytes free, and {needed} more may not be written with a floor of {floor}{}. Free some space, run \
         `rialto image gc`, or lower the floor",
        path.display(), set_aside(*.reserved)
    )]
    DiskFull {
        /// Where.
        path: PathBuf,
        /// Bytes free there.
        free: u64,
        /// Bytes that are to stay free.
        floor: u64,
        /// Bytes set aside for fetches under way.
        reserved: u64,
        /// Bytes that were to be written.
        needed: u64,
    },
    /// Writing would take more than the administrator grants. Nothing held is lost.
    #[error(
        "the store has {stored} bytes, and {needed} more may not be written with a quota of {quota}{}. Remove images \
         that are not needed (`rialto image ls`, `rialto image rm`, `rialto image gc`), or raise the quota",
        set_aside(*.reserved)
    )]
    OverQuota {
        /// Bytes that the store may take.
        quota: u64,
        /// Bytes that it takes.
        stored: u64,
        /// Bytes set aside for fetches under way.
        reserved: u64,
        /// Bytes that were to be written.
        needed: u64,
    },
    /// The operating system said no.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried, as in "cannot read".
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// An fsync failed earlier, so that it is unknown what is on disk.
    #[error(
        "the disk under {} failed to keep what was written, so nothing more is written there. Check the disk, then \
         restart the node: it reads back what did arrive",
        .0.display()
    )]
    Failed(PathBuf),
    /// The index failed; it is rebuilt when the store is opened the next time.
    #[error("the index of the store failed ({0}). Restart the node: the index is then built anew")]
    Index(#[from] sled::Error),
    /// What was read back of the index is not what was written, time after time.
    #[error("the index in {} was damaged again as soon as it was built. Check the disk, then restart the node", .0.display())]
    IndexDamaged(PathBuf),
    /// Not in the store.
    #[error("{what} {hash} is not in the store")]
    NotHeld {
        /// `chunk` or `page`.
        what: &'static str,
        /// Which.
        hash: Hash,
    },
    /// What is on disk is not what was written. It is dropped from the index, so that it can be fetched again.
    #[error(
        "{what} {hash} was damaged on disk and is no longer counted as held. Fetch its image again, and check the disk"
    )]
    Damaged {
        /// `chunk` or `page`.
        what: &'static str,
        /// Which.
        hash: Hash,
    },
    /// The store does not list it.
    #[error("there is no image {0} in the store. `rialto image ls` lists those there are")]
    NoSuchImage(ImageId),
    /// Pages of its manifest are lacking.
    #[error("{missing} or more pages of the manifest of {image} are missing. Fetch the image first")]
    MissingPages {
        /// Which image.
        image: ImageId,
        /// How many pages are known to be missing.
        missing: usize,
    },
    /// Chunks of it are lacking.
    #[error("{missing} chunks of {image} are missing. Fetch the image first")]
    MissingChunks {
        /// Which image.
        image: ImageId,
        /// How many.
        missing: u64,
    },
    /// Its manifest is not one. No other peer can have a better one: the pages are those that the id names.
    #[error("{image} is not an image: {source}")]
    Manifest {
        /// Which image.
        image: ImageId,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// It is pinned.
    #[error("image {0} is pinned. Unpin it first: `rialto image unpin {0}`")]
    Pinned(ImageId),
    /// Neither a regular file nor a block device.
    #[error("{} is {found}, and only a regular file will do (or, to add it, a block device)", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A block device that is mounted, or otherwise claimed.
    #[error(
        "{} is in use, so it can change while it is read. Unmount it first, or add a snapshot of it", .0.display()
    )]
    DeviceInUse(PathBuf),
    /// Written to while it was read.
    #[error("{} changed while it was read. Stop what writes to it (a running guest?) and add it again", .0.display())]
    Changed(PathBuf),
    /// The caller gave up.
    #[error("cancelled")]
    Cancelled,
    /// Another process has it open.
    #[error("the store {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Written by a later version.
    #[error("{} was written by a later version of Rialto. Update Rialto to read it", .0.display())]
    Newer(PathBuf),
}

/// What was given is not what it was said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// Other bytes.
    #[error("{expected} was asked for and {found} came")]
    WrongHash {
        /// The hash that was asked for.
        expected: Hash,
        /// The hash of what came.
        found: Hash,
    },
    /// As many bytes as it was said to have, it has not.
    #[error("{hash} was said to have {expected} bytes and has {found}")]
    WrongLength {
        /// Which.
        hash: Hash,
        /// Bytes that were promised.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// Larger than it may be.
    #[error("{hash} came with {length} bytes where at most {max} are allowed")]
    Oversized {
        /// Which.
        hash: Hash,
        /// Its length, in bytes.
        length: u64,
        /// The most allowed, in bytes.
        max: u64,
    },
    /// Bytes that do not decode, or that decode to more than was promised.
    #[error("{hash} came in {encoding:?} encoding and does not decode to the {expected} bytes that were promised")]
    BadEncoding {
        /// Which.
        hash: Hash,
        /// The encoding that was stated.
        encoding: Encoding,
        /// Bytes that were promised.
        expected: u64,
    },
    /// A reference that stands for nothing.
    #[error("{hash} came with a reference that means nothing here: {source}")]
    Reference {
        /// Which chunk.
        hash: Hash,
        /// What is wrong with it.
        source: ReferenceError,
    },
    /// Bytes that do not decode with the reference that was stated.
    #[error("{hash} does not decode with its reference to the {expected} bytes that were promised")]
    BadReference {
        /// Which.
        hash: Hash,
        /// Bytes that were promised.
        expected: u64,
    },
}

impl StoreError {
    /// Whether whoever gave the bytes is to blame, and not this machine.
    pub fn is_peer_fault(&self) -> bool {
        matches!(self, Self::Peer(_))
    }

    /// Names the path in an error of the operating system.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::full(path, 0, 0),
            _ => Self::Io { doing, path: path.to_owned(), source },
        }
    }

    pub(super) fn full(path: &Path, floor: u64, needed: u64) -> Self {
        let free = super::free_bytes(path).unwrap_or(0);
        Self::DiskFull { path: path.to_owned(), free, floor, reserved: 0, needed }
    }
}

fn set_aside(reserved: u64) -> String {
    if reserved == 0 { String::new() } else { format!(" and {reserved} set aside for fetches under way") }
}
