//! Differences by coded symbols, as the initiator finds them: it asks for symbols of the peer's set until what they and
//! its own differ in can be read off. How many that takes depends on the number of differences alone.
//!
//! Nothing here is believed that the peer could make up: what was read off must turn our digest into the peer's. Where
//! it does not, where there are more differences than symbols, or where somebody made records whose symbols cannot be
//! read, ranges find them.

use crate::sync::message::{Message, Summary};
use crate::sync::name::ShortId;
use crate::sync::peel::Peeler;
use crate::sync::set::SyncSet;
use crate::sync::sketch::MAX_SYMBOLS;
use crate::sync::symbol::Side;

use super::SyncError;

/// Symbols that are sent beside those that the difference in number takes: enough to tell about how many differences there are,
/// and to find ten of them.
const FIRST_SYMBOLS: usize = 32;
/// More differences are not looked for by symbols: as many as these find with hardly any exception.
const MAX_DECODED: usize = MAX_SYMBOLS * 5 / 7;

/// Batches of symbols in one session: four do, hardly ever more than six.
const MAX_BATCHES: usize = 8;

/// The symbols that the responder sends with its summary, which both sides know without asking; none where ranges are better.
pub(super) fn first_batch(ours: &Summary, theirs: &Summary) -> usize {
    let net = ours.count.abs_diff(theirs.count) as usize;
    match net {
        _ if ours.digest == theirs.digest => 0,
        0..=MAX_DECODED => (symbols_for(net) + FIRST_SYMBOLS).min(MAX_SYMBOLS),
        _ => 0,
    }
}

/// Symbols that so many differences take, but for about one time in twenty.
fn symbols_for(differences: usize) -> usize {
    differences + differences * 2 / 5
}

/// The initiator while it reads off what differs.
#[derive(Debug)]
pub(super) struct Decoding {
    set: SyncSet,
    ours: Summary,
    theirs: Option<Summary>,
    peeler: Peeler,
    /// Symbols asked for, in all, and in how many batches.
    asked: usize,
    batches: usize,
    /// What to send next.
    pub(super) message: Option<Message>,
}

/// Where it stands.
#[derive(Debug)]
pub(super) enum Decoded {
    /// It is the peer's turn, or there is a message to send.
    NotYet,
    /// These are all differences.
    All(Vec<(Side, ShortId)>),
    /// Not by symbols.
    Never,
}

impl Decoding {
    pub(super) fn new(set: SyncSet) -> Self {
        let ours = set.summary();
        let message = Some(Message::Summary(ours));
        Self { set, ours, theirs: None, peeler: Peeler::default(), asked: 0, batches: 0, message }
    }

    /// What it is about.
    pub(super) fn into_set(self) -> SyncSet {
        self.set
    }

    /// What the peer should send.
    pub(super) fn expected(&self) -> &'static str {
        match self.theirs {
            None => "Summary",
            Some(_) => "Symbols",
        }
    }

    /// Takes a message in the peer's turn.
    pub(super) fn receive(&mut self, message: Message) -> Result<Decoded, SyncError> {
        match (message, self.theirs) {
            (Message::Summary(theirs), None) => {
                self.theirs = Some(theirs);
                if theirs == self.ours {
                    return Ok(Decoded::All(Vec::new()));
                }
                self.asked = first_batch(&self.ours, &theirs);
                self.set.keep_symbols(self.asked);
                Ok(if self.asked == 0 { Decoded::Never } else { Decoded::NotYet })
            }
            (Message::Symbols(symbols), Some(theirs)) => {
                let first = self.peeler.len();
                if symbols.len() > self.asked - first {
                    return Err(SyncError::UnaskedSymbols(self.asked));
                }
                let full = |(number, symbol): (usize, crate::sync::Symbol)| symbol.plus_expected(theirs.count, number);
                let symbols = (first..).zip(symbols).map(full);
                self.peeler.extend(symbols.zip(self.set.symbols_from(first).copied()));
                Ok(if self.peeler.len() == self.asked { self.batch_came(&theirs) } else { Decoded::NotYet })
            }
            (message, _) => Err(SyncError::OutOfTurn { message: message.name(), expected: self.expected() }),
        }
    }

    fn batch_came(&mut self, theirs: &Summary) -> Decoded {
        if self.peeler.is_done() {
            let found: Vec<_> = self.peeler.found().collect();
            return if self.set.differs_by(theirs, &found) { Decoded::All(found) } else { Decoded::Never };
        }
        self.batches += 1;
        let differences = self.peeler.estimate();
        // So many symbols would have done, were they those of a set.
        let most = (2 * symbols_for(differences.min(MAX_SYMBOLS)) + 4 * FIRST_SYMBOLS).min(MAX_SYMBOLS);
        let is_hopeless = self.asked >= most || self.batches >= MAX_BATCHES;
        if self.peeler.is_garbled() || differences > MAX_DECODED || is_hopeless {
            return Decoded::Never;
        }
        let step = (self.asked * self.batches / 16).max(FIRST_SYMBOLS);
        self.asked = symbols_for(differences).max(self.asked + step).min(most);
        self.set.keep_symbols(self.asked);
        // There are no more than 32,768.
        self.message = Some(Message::More(self.asked as u32));
        Decoded::NotYet
    }
}
