//! Records on their way out: read when there is room for them, never all at once.

use std::collections::VecDeque;

use crate::sync::message::{MAX_RECORDS_BYTES, Message};
use crate::sync::name::Beginning;

/// What was asked for and was not sent yet.
#[derive(Debug)]
pub(super) struct Outbox {
    ids: VecDeque<Beginning>,
    /// Read, but did not fit the message before.
    waiting: Option<Vec<u8>>,
}

impl Outbox {
    pub(super) fn new(ids: Vec<Beginning>) -> Self {
        Self { ids: ids.into(), waiting: None }
    }

    /// Fills a message, and says whether it is the last.
    pub(super) fn next(&mut self, mut envelope: impl FnMut(&Beginning) -> Option<Vec<u8>>) -> (Message, bool) {
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
