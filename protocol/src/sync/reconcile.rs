//! The two sides of catch-up as state machines: who may say what when, and how much of it.

use std::collections::{BTreeSet, VecDeque};

use negentropy::Negentropy;

use super::message::{MAX_IDS, MAX_RECORDS_BYTES, Message};
use super::name::{Beginning, ShortId, shortest};
use super::set::SyncSet;
use crate::ids::Hash;

/// Steps of set reconciliation in one session. 4 find the ranges that differ among 100,000 records; the rest is room
/// to list the ids in them, about 1,900 a step: half a million where differences are scattered everywhere.
pub const MAX_ROUNDS: usize = 256;
/// Ids that one session asks for, and ids that it offers, at most. What is beyond comes in the next session.
pub const MAX_DIFFERENCES: usize = 65_536;
/// A step of set reconciliation is at most this long, in bytes.
const RECONCILE_BYTES: u64 = 60 * 1024;

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

/// The side that opens the stream.
///
/// ```text
/// Reconciling ─► Fetching ─► Offering ─► Sending ─► Offering … ─► Finished
/// ```
#[derive(Debug)]
pub struct Initiator {
    phase: InitiatorPhase,
    /// Ids that the peer has and we want, not asked for yet.
    wanted: VecDeque<Beginning>,
    /// Ids that we have and the peer lacks, not offered yet.
    surplus: VecDeque<ShortId>,
    is_complete: bool,
}

#[derive(Debug)]
enum InitiatorPhase {
    /// Finding the differences; `step` is what to send next.
    Reconciling { negentropy: Box<Negentropy<'static, SyncSet>>, differences: Differences, step: Option<Vec<u8>> },
    /// Getting what we lack: at most `outstanding` records are still to come.
    Fetching { outstanding: Option<usize> },
    /// Our last offer, while it waits for its answer.
    Offering { offered: Option<BTreeSet<ShortId>> },
    /// Sending what the peer wants.
    Sending(Outbox),
    /// [`Message::Done`] was sent.
    Finished,
}

#[derive(Debug, Default)]
struct Differences {
    rounds: usize,
    wanted: BTreeSet<ShortId>,
    surplus: BTreeSet<ShortId>,
}

impl Initiator {
    /// Begins a session over what this site holds now.
    ///
    /// # Errors
    /// [`SyncError::Set`]; none is known to happen.
    pub fn new(set: SyncSet) -> Result<Self, SyncError> {
        let mut negentropy = Negentropy::owned(set, RECONCILE_BYTES).map_err(own_set)?;
        let step = Some(negentropy.initiate().map_err(own_set)?);
        let phase =
            InitiatorPhase::Reconciling { negentropy: Box::new(negentropy), differences: Differences::default(), step };
        Ok(Self { phase, wanted: VecDeque::new(), surplus: VecDeque::new(), is_complete: true })
    }

    /// The next message to send, or `None` where it is the peer's turn (or the session has ended).
    ///
    /// `envelope` gives the encoded envelope of an id of our own set; `None` where the record has left meanwhile.
    pub fn next_message(&mut self, envelope: impl FnMut(&Beginning) -> Option<Vec<u8>>) -> Option<Message> {
        match &mut self.phase {
            InitiatorPhase::Reconciling { step, .. } => step.take().map(Message::Reconcile),
            InitiatorPhase::Fetching { outstanding: Some(_) } | InitiatorPhase::Finished => None,
            InitiatorPhase::Offering { offered: Some(_) } => None,
            InitiatorPhase::Sending(outbox) => {
                let (message, is_last) = outbox.next(envelope);
                if is_last {
                    self.phase = InitiatorPhase::Offering { offered: None };
                }
                Some(message)
            }
            InitiatorPhase::Fetching { outstanding: None } | InitiatorPhase::Offering { offered: None } => {
                Some(self.ask_or_offer())
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
            (InitiatorPhase::Reconciling { negentropy, differences, step: step @ None }, Message::Reconcile(bytes)) => {
                *step = differences.take_step(negentropy, &bytes, &mut is_wanted)?;
                if step.is_none() || differences.is_full() {
                    self.is_complete = step.is_none();
                    let wanted: Vec<_> = std::mem::take(&mut differences.wanted).into_iter().collect();
                    self.wanted = shortest(&wanted, is_wanted).into();
                    self.surplus = std::mem::take(&mut differences.surplus).into_iter().collect();
                    self.phase = InitiatorPhase::Fetching { outstanding: None };
                }
                Ok(Progress::default())
            }
            (InitiatorPhase::Fetching { outstanding }, Message::Records { envelopes, is_last })
                if outstanding.is_some() =>
            {
                take_records(outstanding, envelopes, is_last)
            }
            (InitiatorPhase::Offering { offered: Some(offered) }, Message::Want(ids)) => {
                let mut wanted = Vec::with_capacity(ids.len());
                for id in &ids {
                    let fits = offered.range(id.short_range()).next().copied();
                    let fits = fits.ok_or(SyncError::NotOffered(*id))?;
                    offered.remove(&fits);
                    wanted.push(Beginning::Short(fits));
                }
                self.phase = match wanted.is_empty() {
                    true => InitiatorPhase::Offering { offered: None },
                    false => InitiatorPhase::Sending(Outbox::new(wanted)),
                };
                Ok(Progress::default())
            }
            (phase, message) => Err(SyncError::OutOfTurn { message: message.name(), expected: phase.expected() }),
        }
    }

    /// Whether the session has ended and the stream can be closed.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, InitiatorPhase::Finished)
    }

    /// Whether every difference was found; otherwise another session should follow soon.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    fn ask_or_offer(&mut self) -> Message {
        if !self.wanted.is_empty() {
            let ids: Vec<_> = self.wanted.drain(..self.wanted.len().min(MAX_IDS)).collect();
            self.phase = InitiatorPhase::Fetching { outstanding: Some(ids.len()) };
            return Message::Want(ids);
        }
        if !self.surplus.is_empty() {
            let ids: Vec<_> = self.surplus.drain(..self.surplus.len().min(MAX_IDS)).collect();
            self.phase = InitiatorPhase::Offering { offered: Some(ids.iter().copied().collect()) };
            return Message::Offer(ids);
        }
        self.phase = InitiatorPhase::Finished;
        Message::Done
    }
}

impl InitiatorPhase {
    fn expected(&self) -> &'static str {
        match self {
            Self::Reconciling { step: None, .. } => "Reconcile",
            Self::Fetching { outstanding: Some(_) } => "Records",
            Self::Offering { offered: Some(_) } => "Want",
            Self::Finished => "the end of the stream",
            _ => "our own message",
        }
    }
}

impl Differences {
    /// Takes a step of the peer; gives our next one, or `None` where no difference is left to find.
    fn take_step(
        &mut self,
        negentropy: &mut Negentropy<'static, SyncSet>,
        step: &[u8],
        is_wanted: &mut impl FnMut(&Beginning) -> bool,
    ) -> Result<Option<Vec<u8>>, SyncError> {
        self.rounds += 1;
        let (mut have, mut need) = (Vec::new(), Vec::new());
        let next = negentropy.reconcile_with_ids(step, &mut have, &mut need).map_err(malformed)?;
        self.surplus.extend(have.into_iter().map(|id| ShortId::from(&Hash(*id))));
        let needed = need.into_iter().map(|id| ShortId::from(&Hash(*id)));
        self.wanted.extend(needed.filter(|id| is_wanted(&Beginning::Short(*id))));
        while self.surplus.len() > MAX_DIFFERENCES {
            self.surplus.pop_last();
        }
        while self.wanted.len() > MAX_DIFFERENCES {
            self.wanted.pop_last();
        }
        if next.is_some() && self.rounds >= MAX_ROUNDS {
            return Err(SyncError::TooManyRounds);
        }
        Ok(next)
    }

    /// Whether what was found is enough for one session.
    fn is_full(&self) -> bool {
        self.wanted.len() >= MAX_DIFFERENCES || self.surplus.len() >= MAX_DIFFERENCES
    }
}

/// The side that answers.
///
/// ```text
/// Waiting ─► Sending ─► Waiting …     (a Want)
/// Waiting ─► Fetching ─► Waiting …    (an Offer)
/// Waiting ─► Finished                 (Done)
/// ```
#[derive(Debug)]
pub struct Responder {
    phase: ResponderPhase,
    negentropy: Box<Negentropy<'static, SyncSet>>,
    rounds: usize,
    /// Every id that the peer wanted or offered: none is served or taken twice, which also bounds the session.
    named: BTreeSet<Beginning>,
}

#[derive(Debug)]
enum ResponderPhase {
    /// The initiator's turn.
    Waiting,
    /// One message to send.
    Answering(Message),
    /// Sending what the initiator wants.
    Sending(Outbox),
    /// Our answer to an offer (until it is sent), and how many records may still come for it.
    Fetching { answer: Option<Message>, outstanding: Option<usize> },
    /// The initiator is done.
    Finished,
}

impl Responder {
    /// Answers a session over what this site holds now.
    ///
    /// # Errors
    /// [`SyncError::Set`]; none is known to happen.
    pub fn new(set: SyncSet) -> Result<Self, SyncError> {
        let negentropy = Box::new(Negentropy::owned(set, RECONCILE_BYTES).map_err(own_set)?);
        Ok(Self { phase: ResponderPhase::Waiting, negentropy, rounds: 0, named: BTreeSet::new() })
    }

    /// The next message to send, or `None` where it is the peer's turn (or the session has ended).
    ///
    /// `envelope` gives the encoded envelope of an id that begins so; `None` where we have no such record, or no longer.
    pub fn next_message(&mut self, envelope: impl FnMut(&Beginning) -> Option<Vec<u8>>) -> Option<Message> {
        match std::mem::replace(&mut self.phase, ResponderPhase::Waiting) {
            ResponderPhase::Answering(message) => Some(message),
            ResponderPhase::Sending(mut outbox) => {
                let (message, is_last) = outbox.next(envelope);
                if !is_last {
                    self.phase = ResponderPhase::Sending(outbox);
                }
                Some(message)
            }
            ResponderPhase::Fetching { answer, outstanding } => {
                self.phase = ResponderPhase::Fetching { answer: None, outstanding };
                answer
            }
            phase @ (ResponderPhase::Waiting | ResponderPhase::Finished) => {
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
            (ResponderPhase::Waiting, Message::Reconcile(step)) => {
                self.rounds += 1;
                if self.rounds > MAX_ROUNDS {
                    return Err(SyncError::TooManyRounds);
                }
                let answer = self.negentropy.reconcile(&step).map_err(malformed)?;
                self.phase = ResponderPhase::Answering(Message::Reconcile(answer));
            }
            (ResponderPhase::Waiting, Message::Want(ids)) => {
                self.name(ids.iter().copied(), "Want")?;
                self.phase = ResponderPhase::Sending(Outbox::new(ids));
            }
            (ResponderPhase::Waiting, Message::Offer(ids)) => {
                self.name(ids.iter().map(|id| Beginning::Short(*id)), "Offer")?;
                let offered: BTreeSet<_> = ids.into_iter().collect();
                let wanted: Vec<_> = offered.iter().copied().filter(|id| is_wanted(&Beginning::Short(*id))).collect();
                let wanted = shortest(&wanted, |eight| offered.range(eight.short_range()).nth(1).is_none());
                self.phase = match wanted.len() {
                    0 => ResponderPhase::Answering(Message::Want(wanted)),
                    length => {
                        ResponderPhase::Fetching { answer: Some(Message::Want(wanted)), outstanding: Some(length) }
                    }
                };
            }
            (ResponderPhase::Fetching { answer: None, outstanding }, Message::Records { envelopes, is_last }) => {
                let progress = take_records(outstanding, envelopes, is_last)?;
                if is_last {
                    self.phase = ResponderPhase::Waiting;
                }
                return Ok(progress);
            }
            (ResponderPhase::Waiting, Message::Done) => self.phase = ResponderPhase::Finished,
            (phase, message) => {
                return Err(SyncError::OutOfTurn { message: message.name(), expected: phase.expected() });
            }
        }
        Ok(Progress::default())
    }

    /// Whether the session has ended and the stream can be closed.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, ResponderPhase::Finished)
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

impl ResponderPhase {
    fn expected(&self) -> &'static str {
        match self {
            Self::Waiting => "Reconcile, Want, Offer or Done",
            Self::Fetching { answer: None, .. } => "Records",
            Self::Finished => "the end of the stream",
            _ => "our own message",
        }
    }
}

/// Records on their way out: read when there is room for them, never all at once.
#[derive(Debug)]
struct Outbox {
    ids: VecDeque<Beginning>,
    /// Read, but did not fit the message before.
    waiting: Option<Vec<u8>>,
}

impl Outbox {
    fn new(ids: Vec<Beginning>) -> Self {
        Self { ids: ids.into(), waiting: None }
    }

    /// Fills a message, and says whether it is the last.
    fn next(&mut self, mut envelope: impl FnMut(&Beginning) -> Option<Vec<u8>>) -> (Message, bool) {
        let (mut envelopes, mut bytes) = (Vec::new(), 0);
        loop {
            let next = match self.waiting.take() {
                Some(waiting) => Some(waiting),
                None => match self.ids.pop_front() {
                    Some(id) => envelope(&id),
                    None => return (Message::Records { envelopes, is_last: true }, true),
                },
            };
            // Gone meanwhile, or (which no honest catalog gives) too large to be sent at all.
            let Some(next) = next.filter(|next| Message::record_bytes(next) <= MAX_RECORDS_BYTES) else { continue };
            bytes += Message::record_bytes(&next);
            if bytes > MAX_RECORDS_BYTES {
                self.waiting = Some(next);
                return (Message::Records { envelopes, is_last: false }, false);
            }
            envelopes.push(next);
        }
    }
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

fn malformed(error: negentropy::Error) -> SyncError {
    SyncError::Malformed(error.to_string())
}

fn own_set(error: negentropy::Error) -> SyncError {
    SyncError::Set(error.to_string())
}

#[cfg(test)]
mod tests;
