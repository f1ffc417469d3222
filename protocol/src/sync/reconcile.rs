//! The two sides of catch-up as state machines: who may say what when, and how much of it.

mod decoding;
mod initiator;
mod outbox;
mod ranges;
mod responder;
#[cfg(test)]
mod tests;

pub use initiator::Initiator;
pub use responder::Responder;

use super::name::Beginning;

/// Steps of finding the differences in one session: batches of symbols, or steps through ranges. 4 find the ranges that
/// differ among 100,000 records; the rest is room to list the ids in them, about 1,900 a step: half a million where
/// differences are scattered everywhere.
pub const MAX_ROUNDS: usize = 256;
/// Ids that one session asks for, and ids that it offers, at most. What is beyond comes in the next session.
pub const MAX_DIFFERENCES: usize = 65_536;

/// Why a session ends early. Every variant but [`SyncError::Set`] means that the peer misbehaved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// A message that has no place now.
    #[error("the peer sent {message} while {expected} was expected")]
    OutOfTurn {
        /// What was sent.
        message: &'static str,
        /// What had its turn.
        expected: &'static str,
    },
    /// A step of set reconciliation that cannot be read.
    #[error("the peer's reconciliation step is malformed: {0}")]
    Malformed(String),
    /// Reconciliation that does not end.
    #[error("reconciliation did not end within {MAX_ROUNDS} rounds")]
    TooManyRounds,
    /// More ids in one session than allowed.
    #[error("the peer named more than {MAX_DIFFERENCES} records in one session")]
    TooManyIds,
    /// An empty list of ids, which could be sent for ever.
    #[error("the peer sent an empty {0}")]
    Empty(&'static str),
    /// The same id wanted or offered again.
    #[error("the peer named {0} twice in one session")]
    Repeated(Beginning),
    /// An id wanted that was not offered.
    #[error("the peer wants {0}, which was not offered")]
    NotOffered(Beginning),
    /// More records than were asked for.
    #[error("the peer sent more records than the {0} that were asked for")]
    Unasked(usize),
    /// More symbols than were asked for.
    #[error("the peer sent more symbols than the {0} that were asked for")]
    UnaskedSymbols(usize),
    /// Symbols asked for that were sent already, or that no site has.
    #[error(
        "the peer asks for {asked} symbols in all, where {sent} were sent and there are {} at most",
        super::sketch::MAX_SYMBOLS
    )]
    NoSuchSymbols {
        /// How many there should be then.
        asked: usize,
        /// How many were sent.
        sent: usize,
    },
    /// Our own set cannot be reconciled.
    #[error("cannot reconcile our own records: {0}")]
    Set(String),
}

/// What a received message brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Encoded envelopes to verify and insert. A bad one means that the peer misbehaved: end the session.
    pub envelopes: Vec<Vec<u8>>,
}

/// Takes records off what is outstanding.
fn take_records(
    outstanding: &mut Option<usize>,
    envelopes: Vec<Vec<u8>>,
    is_last: bool,
) -> Result<Progress, SyncError> {
    let asked = outstanding.unwrap_or(0);
    let left = asked.checked_sub(envelopes.len()).ok_or(SyncError::Unasked(asked))?;
    *outstanding = (!is_last).then_some(left);
    Ok(Progress { envelopes })
}
