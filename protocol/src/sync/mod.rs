//! How a site catches up with the records it missed.
//!
//! The site that opens the stream (the [`Initiator`]) finds out, by range-based set reconciliation (Meyer,
//! "Range-Based Set Reconciliation", 2023; the `negentropy` crate), which records each side lacks. It asks for what it
//! lacks and offers what the other side lacks, so that both end with the union:
//!
//! ```text
//!  initiator                               responder
//!      Reconcile ───────────────────────────►            until the differences are known
//!                ◄─────────────────────────── Reconcile
//!      Want      ───────────────────────────►            until nothing wanted is left, ≤ 3,000 ids at a time
//!                ◄─────────────────────────── Records…   the last one marked
//!      Offer     ───────────────────────────►            until nothing offered is left, ≤ 3,000 ids at a time
//!                ◄─────────────────────────── Want
//!      Records…  ───────────────────────────►
//!      Done      ───────────────────────────►
//! ```
//!
//! What is reconciled is [`sync_id`](crate::signed::Verified::sync_id) (record and signing keys), so a missing
//! co-signature is a difference like any other. On the wire an id is named by as much of its [beginning](Beginning) as tells
//! it from all others that the site knows of. Ids that a site does not want (because it evicted them) are named by
//! the predicate that it passes in; they are neither asked for nor taken when offered.
//!
//! Both sides are state machines without I/O. The socket loop (or simulator) writes what [`Initiator::next_message`]
//! or [`Responder::next_message`] gives until that is `None`, then reads one message and passes it to `receive`, which
//! hands back envelopes to verify and insert. Silence is the loop's business: it puts a deadline on each read.

mod message;
mod name;
mod reconcile;
mod set;

pub use message::{MAX_IDS, MAX_MESSAGE_BYTES, MAX_RECORDS_BYTES, Message, MessageError};
pub use name::{Beginning, ShortId};
pub use reconcile::{Initiator, MAX_DIFFERENCES, MAX_ROUNDS, Progress, Responder, SyncError};
pub use set::SyncSet;
