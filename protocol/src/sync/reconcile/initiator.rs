//! The side that opens the stream.

use std::collections::{BTreeSet, VecDeque};

use super::decoding::{Decoded, Decoding};
use super::outbox::Outbox;
use super::ranges::Ranges;
use super::{Progress, SyncError, take_records};
use crate::sync::message::{MAX_IDS, Message};
use crate::sync::name::{Beginning, ShortId, shortest};
use crate::sync::set::SyncSet;
use crate::sync::symbol::Side;

/// The side that opens the stream.
///
/// ```text
/// Decoding ─► Fetching ─► Offering ─► Sending ─► Offering … ─► Finished
///      └─► Reconciling ─► Fetching …
/// ```
#[derive(Debug)]
pub struct Initiator {
    phase: Phase,
    /// Ids that the peer has and we want, not asked for yet.
    wanted: VecDeque<Beginning>,
    /// Ids that we have and the peer lacks, not offered yet.
    surplus: VecDeque<ShortId>,
    is_complete: bool,
}

#[derive(Debug)]
enum Phase {
    /// Finding the differences by coded symbols.
    Decoding(Box<Decoding>),
    /// Finding the differences by ranges.
    Reconciling(Box<Ranges>),
    /// Getting what we lack: at most `outstanding` records are still to come.
    Fetching { outstanding: Option<usize> },
    /// Our last offer, while it waits for its answer.
    Offering { offered: Option<BTreeSet<ShortId>> },
    /// Sending what the peer wants.
    Sending(Outbox),
    /// [`Message::Done`] was sent.
    Finished,
}

impl Initiator {
    /// Begins a session over what this site holds now.
    pub fn new(set: SyncSet) -> Self {
        let phase = Phase::Decoding(Box::new(Decoding::new(set)));
        Self { phase, wanted: VecDeque::new(), surplus: VecDeque::new(), is_complete: true }
    }

    /// The next message to send, or `None` where it is the peer's turn (or the session has ended).
    ///
    /// `envelope` gives the encoded envelope of an id of our own set; `None` where the record has left meanwhile.
    pub fn next_message(&mut self, envelope: impl FnMut(&Beginning) -> Option<Vec<u8>>) -> Option<Message> {
        match &mut self.phase {
            Phase::Decoding(decoding) => decoding.message.take(),
            Phase::Reconciling(ranges) => ranges.step.take().map(Message::Reconcile),
            Phase::Fetching { outstanding: Some(_) } | Phase::Offering { offered: Some(_) } | Phase::Finished => None,
            Phase::Sending(outbox) => {
                let (message, is_last) = outbox.next(envelope);
                if is_last {
                    self.phase = Phase::Offering { offered: None };
                }
                Some(message)
            }
            Phase::Fetching { outstanding: None } | Phase::Offering { offered: None } => Some(self.ask_or_offer()),
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
            (Phase::Decoding(decoding), message) if decoding.message.is_none() => {
                let decoded = decoding.receive(message)?;
                self.decoded(decoded, is_wanted)?;
                Ok(Progress::default())
            }
            (Phase::Reconciling(ranges), Message::Reconcile(step)) if ranges.step.is_none() => {
                if ranges.take_step(&step, |id| is_wanted(&Beginning::Short(*id)))? {
                    self.is_complete = ranges.step.is_none();
                    let (needed, surplus) = (std::mem::take(&mut ranges.needed), std::mem::take(&mut ranges.surplus));
                    self.found(needed, surplus, is_wanted);
                }
                Ok(Progress::default())
            }
            (Phase::Fetching { outstanding }, Message::Records { envelopes, is_last }) if outstanding.is_some() => {
                take_records(outstanding, envelopes, is_last)
            }
            (Phase::Offering { offered: Some(offered) }, Message::Want(ids)) => {
                let mut wanted = Vec::with_capacity(ids.len());
                for id in &ids {
                    let fits = offered.range(id.short_range()).next().copied();
                    let fits = fits.ok_or(SyncError::NotOffered(*id))?;
                    offered.remove(&fits);
                    wanted.push(Beginning::Short(fits));
                }
                self.phase = match wanted.is_empty() {
                    true => Phase::Offering { offered: None },
                    false => Phase::Sending(Outbox::new(wanted)),
                };
                Ok(Progress::default())
            }
            (phase, message) => Err(SyncError::OutOfTurn { message: message.name(), expected: phase.expected() }),
        }
    }

    /// Whether the session has ended and the stream can be closed.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished)
    }

    /// Whether every difference was found; otherwise another session should follow soon.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    fn decoded(&mut self, decoded: Decoded, mut is_wanted: impl FnMut(&Beginning) -> bool) -> Result<(), SyncError> {
        match decoded {
            Decoded::NotYet => {}
            Decoded::All(found) => {
                let on = |side| found.iter().filter(move |found| found.0 == side).map(|found| found.1);
                let needed = on(Side::Theirs).filter(|id| is_wanted(&Beginning::Short(*id))).collect();
                self.found(needed, on(Side::Ours).collect(), is_wanted);
            }
            Decoded::Never => {
                if let Phase::Decoding(decoding) = std::mem::replace(&mut self.phase, Phase::Finished) {
                    self.phase = Phase::Reconciling(Box::new(Ranges::new(decoding.into_set())?));
                }
            }
        }
        Ok(())
    }

    /// The differences are known: of what the peer has what we want, and what we have.
    fn found(
        &mut self,
        needed: BTreeSet<ShortId>,
        surplus: BTreeSet<ShortId>,
        is_wanted: impl FnMut(&Beginning) -> bool,
    ) {
        self.wanted = shortest(&needed.into_iter().collect::<Vec<_>>(), is_wanted).into();
        self.surplus = surplus.into_iter().collect();
        self.phase = Phase::Fetching { outstanding: None };
    }

    fn ask_or_offer(&mut self) -> Message {
        if !self.wanted.is_empty() {
            let ids: Vec<_> = self.wanted.drain(..self.wanted.len().min(MAX_IDS)).collect();
            self.phase = Phase::Fetching { outstanding: Some(ids.len()) };
            return Message::Want(ids);
        }
        if !self.surplus.is_empty() {
            let ids: Vec<_> = self.surplus.drain(..self.surplus.len().min(MAX_IDS)).collect();
            self.phase = Phase::Offering { offered: Some(ids.iter().copied().collect()) };
            return Message::Offer(ids);
        }
        self.phase = Phase::Finished;
        Message::Done
    }
}

impl Phase {
    fn expected(&self) -> &'static str {
        match self {
            Self::Decoding(decoding) if decoding.message.is_none() => decoding.expected(),
            Self::Reconciling(ranges) if ranges.step.is_none() => "Reconcile",
            Self::Fetching { outstanding: Some(_) } => "Records",
            Self::Offering { offered: Some(_) } => "Want",
            Self::Finished => "the end of the stream",
            _ => "our own message",
        }
    }
}
