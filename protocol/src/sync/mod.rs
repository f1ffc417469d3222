//! How a site catches up with the records it missed.
//!
//! The site that opens the stream (the [`Initiator`]) finds out which records each side lacks, asks for what it lacks
//! and offers what the other side lacks, so that both end with the union:
//!
//! ```text
//!  initiator                               responder
//!      Summary   ───────────────────────────►
//!                ◄─────────────────────────── Summary, Symbols…
//!      More      ───────────────────────────►            until the differences are known
//!                ◄─────────────────────────── Symbols…
//!      Want      ───────────────────────────►            until nothing wanted is left, ≤ 3,000 ids at a time
//!                ◄─────────────────────────── Records…   the last one marked
//!      Offer     ───────────────────────────►            until nothing offered is left, ≤ 3,000 ids at a time
//!                ◄─────────────────────────── Want
//!      Records…  ───────────────────────────►
//!      Done      ───────────────────────────►
//! ```
//!
//! The differences are found by [coded symbols](Symbol): about 1.4 of them for each difference, 22 bytes each, whatever
//! the sets hold besides. A [set](SyncSet) keeps its first 32,768 as records come and go, so a session costs nothing
//! for what both sides have. Symbols are no proof, and records can be made so that theirs cannot be read; so what was
//! read off must turn the one side's digest into the other's. Where it does not, or where there are too many
//! differences, the initiator goes on by ranges, which always end:
//!
//! ```text
//!      Reconcile ───────────────────────────►            until the differences are known
//!                ◄─────────────────────────── Reconcile
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
mod peel;
mod reconcile;
mod set;
mod sketch;
mod symbol;

pub use message::{MAX_IDS, MAX_MESSAGE_BYTES, MAX_RECORDS_BYTES, MAX_SYMBOLS_SENT, Message, MessageError, Summary};
pub use name::{Beginning, ShortId};
pub use reconcile::{Initiator, MAX_DIFFERENCES, MAX_ROUNDS, Progress, Responder, SyncError};
pub use set::SyncSet;
pub use symbol::Symbol;
