//! How images move between sites: the messages of a swarm stream, and the state machine of a download.
//!
//! One stream a peer and image. The fetcher opens it, says which image it is about and asks; the holder says which chunks
//! it has, tells of more as it gets them, and answers. Chunk bytes follow a small header as they lie in the holder's
//! store. The receiver trusts nothing but hashes.

mod download;
mod message;
mod ranges;
mod reference;
mod share;
mod upload;

pub use download::{Action, Download, DropReason, Outcome, PeerKey, Progress, Timing, Wanted};
pub use message::{
    ChunkHeader, FrameHead, FrameKind, MAX_BASES, MAX_PAGES_ASKED, MAX_WANTED, Message, MessageError, ReferencedHeader,
    WIRE_ENCODINGS,
};
pub use ranges::{MAX_RANGES, Ranges};
pub use reference::{Base, Finder, MAX_REFERENCE_BYTES, MAX_REFERENCE_CHUNKS, Reference, ReferenceError};
pub use share::{Bucket, Granted, Shares, Ticket};
pub use upload::{Batch, Queue, Spread, TooMany};
