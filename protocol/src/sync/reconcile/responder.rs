//! The side that answers.

use std::collections::BTreeSet;

use negentropy::Negentropy;

use super::decoding::first_batch;
use super::outbox::Outbox;
use super::{MAX_DIFFERENCES, MAX_ROUNDS, Progress, SyncError, ranges, take_records};
use crate::sync::message::{MAX_SYMBOLS_SENT, Message};
use crate::sync::name::{Beginning, shortest};
use crate::sync::set::SyncSet;
use crate::sync::sketch::MAX_SYMBOLS;

/// The side that answers.
///
/// ```text
/// Waiting ─► Summing up ─► Waiting …  (a Summary, once; a More)
/// Waiting ─► Answering ─► Waiting …   (a Reconcile)
/// Waiting ─► Sending ─► Waiting …     (a Want)
/// Waiting ─► Fetching ─► Waiting …    (an Offer)
/// Waiting ─► Finished                 (Done)
/// ```
#[derive(Debug)]
pub struct Responder {
    phase: Phase,
    set: SyncSet,
    /// Symbols sent, or about to be, once there was a summary.
    symbols: Option<usize>,
    /// Made when the peer first wants ranges.
    negentropy: Option<Box<Negentropy<'static, SyncSet>>>,
    rounds: usize,
    /// Every id that the peer wanted or offered: none is served or taken twice, which also bounds the session.
    named: BTreeSet<Beginning>,
}

#[derive(Debug)]
enum Phase {
    /// The initiator's turn.
    Waiting,
    /// One message to send.
    Answering(Message),
    /// Our summary, where it was not sent yet, and these symbols.
    SummingUp { summary: Option<Message>, symbols: std::ops::Range<usize> },
    /// Sending what the initiator wants.
    Sending(Outbox),
    /// Our answer to an offer (until it is sent), and how many records may still come for it.
    Fetching { answer: Option<Message>, outstanding: Option<usize> },
    /// The initiator is done.
    Finished,
}

impl Responder {
    /// Answers a session over what this site holds now.
    pub fn new(set: SyncSet) -> Self {
        Self { phase: Phase::Waiting, set, symbols: None, negentropy: None, rounds: 0, named: BTreeSet::new() }
    }

    /// The next message to send, or `None` where it is the peer's turn (or the session has ended).
    ///
    /// `envelope` gives the encoded envelope of an id that begins so; `None` where we have no such record, or no longer.
    pub fn next_message(&mut self, envelope: impl FnMut(&Beginning) -> Option<Vec<u8>>) -> Option<Message> {
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Answering(message) => Some(message),
            Phase::SummingUp { summary, symbols } => {
                let Some(message) = summary else { return self.send_symbols(symbols) };
                if !symbols.is_empty() {
                    self.phase = Phase::SummingUp { summary: None, symbols };
                }
                Some(message)
            }
            Phase::Sending(mut outbox) => {
                let (message, is_last) = outbox.next(envelope);
                if !is_last {
                    self.phase = Phase::Sending(outbox);
                }
                Some(message)
            }
            Phase::Fetching { answer, outstanding } => {
                self.phase = Phase::Fetching { answer: None, outstanding };
                answer
            }
            phase @ (Phase::Waiting | Phase::Finished) => {
                self.phase = phase;
                None
            }
        }
    }

    /// Takes the peer's message. `is_wanted` says whether we lack every id that begins so, and would take them.
    ///
    /// # Errors
    /// The peer broke the rules: end the session, and hold it against the peer.
    pub fn receive(
        &mut self,
        message: Message,
        mut is_wanted: impl FnMut(&Beginning) -> bool,
    ) -> Result<Progress, SyncError> {
        match (&mut self.phase, message) {
            (Phase::Waiting, Message::Summary(theirs)) if self.symbols.is_none() => {
                let ours = self.set.summary();
                let summary = Some(Message::Summary(ours));
                self.phase = Phase::SummingUp { summary, symbols: self.symbols_to(first_batch(&ours, &theirs))? };
            }
            (Phase::Waiting, Message::More(asked)) if self.symbols.is_some() => {
                let (asked, sent) = (asked as usize, self.symbols.unwrap_or(0));
                if asked <= sent || asked > MAX_SYMBOLS {
                    return Err(SyncError::NoSuchSymbols { asked, sent });
                }
                self.phase = Phase::SummingUp { summary: None, symbols: self.symbols_to(asked)? };
            }
            (Phase::Waiting, Message::Reconcile(step)) => {
                self.count_round()?;
                let negentropy = match &mut self.negentropy {
                    Some(negentropy) => negentropy,
                    none => none.insert(Box::new(ranges::side(self.set.clone())?)),
                };
                self.phase = Phase::Answering(Message::Reconcile(ranges::answer(negentropy, &step)?));
            }
            (Phase::Waiting, Message::Want(ids)) => {
                self.name(ids.iter().copied(), "Want")?;
                self.phase = Phase::Sending(Outbox::new(ids));
            }
            (Phase::Waiting, Message::Offer(ids)) => {
                self.name(ids.iter().map(|id| Beginning::Short(*id)), "Offer")?;
                let offered: BTreeSet<_> = ids.into_iter().collect();
                let wanted: Vec<_> = offered.iter().copied().filter(|id| is_wanted(&Beginning::Short(*id))).collect();
                let wanted = shortest(&wanted, |eight| offered.range(eight.short_range()).nth(1).is_none());
                self.phase = match wanted.len() {
                    0 => Phase::Answering(Message::Want(wanted)),
                    length => Phase::Fetching { answer: Some(Message::Want(wanted)), outstanding: Some(length) },
                };
            }
            (Phase::Fetching { answer: None, outstanding }, Message::Records { envelopes, is_last }) => {
                let progress = take_records(outstanding, envelopes, is_last)?;
                if is_last {
                    self.phase = Phase::Waiting;
                }
                return Ok(progress);
            }
            (Phase::Waiting, Message::Done) => self.phase = Phase::Finished,
            (phase, message) => {
                return Err(SyncError::OutOfTurn { message: message.name(), expected: phase.expected() });
            }
        }
        Ok(Progress::default())
    }

    /// Whether the session has ended and the stream can be closed.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished)
    }

    /// The symbols that were not sent yet of so many.
    fn symbols_to(&mut self, asked: usize) -> Result<std::ops::Range<usize>, SyncError> {
        self.count_round()?;
        self.set.keep_symbols(asked);
        Ok(self.symbols.replace(asked).unwrap_or(0)..asked)
    }

    fn send_symbols(&mut self, symbols: std::ops::Range<usize>) -> Option<Message> {
        let (total, start) = (self.set.summary().count, symbols.start);
        let end = symbols.end.min(start + MAX_SYMBOLS_SENT);
        let sent = (start..end).zip(self.set.symbols_from(start));
        let message = Message::Symbols(sent.map(|(number, symbol)| symbol.less_expected(total, number)).collect());
        if end < symbols.end {
            self.phase = Phase::SummingUp { summary: None, symbols: end..symbols.end };
        }
        Some(message)
    }

    fn count_round(&mut self) -> Result<(), SyncError> {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS { Err(SyncError::TooManyRounds) } else { Ok(()) }
    }

    fn name(
        &mut self,
        mut ids: impl ExactSizeIterator<Item = Beginning>,
        message: &'static str,
    ) -> Result<(), SyncError> {
        if ids.len() == 0 {
            return Err(SyncError::Empty(message));
        }
        if self.named.len() + ids.len() > 2 * MAX_DIFFERENCES {
            return Err(SyncError::TooManyIds);
        }
        match ids.find(|id| !self.named.insert(*id)) {
            Some(repeated) => Err(SyncError::Repeated(repeated)),
            None => Ok(()),
        }
    }
}

impl Phase {
    fn expected(&self) -> &'static str {
        match self {
            Self::Waiting => "Summary, More, Reconcile, Want, Offer or Done",
            Self::Fetching { answer: None, .. } => "Records",
            Self::Finished => "the end of the stream",
            _ => "our own message",
        }
    }
}
