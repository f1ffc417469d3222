//! The messages of catch-up, and their bytes.
//!
//! A message is one type byte and its content. On a stream it is preceded by its length as a big-endian `u32`, which
//! the reader refuses above [`MAX_MESSAGE_BYTES`] before it allocates.

use super::name::{Beginning, ShortId};
use super::symbol::{MAX_SYMBOL_BYTES, Symbol};
use crate::signed::MAX_ENVELOPE_BYTES;

/// A message is at most this long, type byte included.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Ids in one [`Message::Want`] or [`Message::Offer`]: 48,000 bytes at most.
pub const MAX_IDS: usize = 3_000;
/// Envelopes in one [`Message::Records`] take at most this much, so that the message fits with room to spare.
pub const MAX_RECORDS_BYTES: usize = 60 * 1024;

/// Symbols in one [`Message::Symbols`]: 60,000 bytes at most, and mostly about 22 each.
pub const MAX_SYMBOLS_SENT: usize = 60_000 / MAX_SYMBOL_BYTES;

const EIGHT_BYTES: usize = 8;
const LENGTH_BYTES: usize = 4;

/// One message of catch-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// What I have, in short: each side's first message, the initiator's before all else. The responder's is followed
    /// by as many symbols as both sides know that the two call for.
    Summary(Summary),
    /// Please send symbols until there are so many in all.
    More(u32),
    /// The next coded symbols of my set, their counts less what is to be expected; never none.
    Symbols(Vec<Symbol>),
    /// A step of reconciliation by ranges, in the encoding of negentropy's protocol version 1.
    Reconcile(Vec<u8>),
    /// Please send these: those named by 8 bytes first. Empty only where nothing of an offer is wanted.
    Want(Vec<Beginning>),
    /// I have these, and believe that you do not.
    Offer(Vec<ShortId>),
    /// What was wanted, in encoded [envelopes](crate::signed::Envelope).
    Records {
        /// The envelopes: not decoded, not verified.
        envelopes: Vec<Vec<u8>>,
        /// Whether this answers the last of what was wanted. Ids that their holder no longer has are left out.
        is_last: bool,
    },
    /// The initiator is done; nothing follows.
    Done,
}

/// What a set comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How many records there are.
    pub count: u32,
    /// The same for equal sets only.
    pub digest: [u8; 32],
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Longer than any message.
    #[error("a message of {0} bytes, where at most {MAX_MESSAGE_BYTES} are allowed")]
    TooLarge(usize),
    /// No type byte, or one that is not known.
    #[error("a message of unknown type {0:?}")]
    UnknownType(Option<u8>),
    /// A list of ids that is too long, or not of whole ids.
    #[error("a list of ids of {0} bytes, where at most {MAX_IDS} ids of 8 or 16 bytes are expected")]
    Ids(usize),
    /// Envelopes that are cut off, empty, too large, or carry an unknown mark.
    #[error("malformed list of records: {0}")]
    Records(&'static str),
    /// A summary or a number of symbols that is too short or too long.
    #[error("{0} bytes of a message that has another length")]
    Length(usize),
    /// Symbols that are cut off, none, too many, or in a longer form than they need.
    #[error("malformed symbols: {0} bytes, where 1 to {MAX_SYMBOLS_SENT} symbols are expected")]
    Symbols(usize),
    /// Bytes after the end of a message that has no content.
    #[error("{0} bytes after the end of the message")]
    Trailing(usize),
}

impl Message {
    const RECONCILE: u8 = 1;
    const WANT: u8 = 2;
    const OFFER: u8 = 3;
    const RECORDS: u8 = 4;
    const DONE: u8 = 5;
    const SUMMARY: u8 = 6;
    const MORE: u8 = 7;
    const SYMBOLS: u8 = 8;

    /// The bytes, without the length that precedes them on a stream.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Summary(Summary { count, digest }) => [&[Self::SUMMARY], &count.to_be_bytes()[..], digest].concat(),
            Self::More(symbols) => [&[Self::MORE], &symbols.to_be_bytes()[..]].concat(),
            Self::Symbols(symbols) => {
                let mut bytes = vec![Self::SYMBOLS];
                symbols.iter().for_each(|symbol| symbol.encode(&mut bytes));
                bytes
            }
            Self::Reconcile(step) => [&[Self::RECONCILE], step.as_slice()].concat(),
            Self::Want(ids) => encode_beginnings(ids),
            Self::Offer(ids) => {
                let mut bytes = vec![Self::OFFER];
                ids.iter().for_each(|id| bytes.extend_from_slice(&id.0));
                bytes
            }
            Self::Records { envelopes, is_last } => {
                let mut bytes = vec![Self::RECORDS, u8::from(*is_last)];
                for envelope in envelopes {
                    // Envelopes are at most 52 KiB: their length fits.
                    bytes.extend_from_slice(&u32::try_from(envelope.len()).unwrap_or(u32::MAX).to_be_bytes());
                    bytes.extend_from_slice(envelope);
                }
                bytes
            }
            Self::Done => vec![Self::DONE],
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// Anything that [`Message::encode`] would not have written. Allocates no more than the input's own length.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(MessageError::TooLarge(bytes.len()));
        }
        match bytes.split_first() {
            Some((&Self::SUMMARY, summary)) => decode_summary(summary).map(Self::Summary),
            Some((&Self::MORE, symbols)) => {
                let symbols = symbols.try_into().map_err(|_| MessageError::Length(symbols.len()))?;
                Ok(Self::More(u32::from_be_bytes(symbols)))
            }
            Some((&Self::SYMBOLS, symbols)) => decode_symbols(symbols).map(Self::Symbols),
            Some((&Self::RECONCILE, step)) => Ok(Self::Reconcile(step.to_vec())),
            Some((&Self::WANT, ids)) => decode_beginnings(ids).map(Self::Want),
            Some((&Self::OFFER, ids)) => decode_ids(ids).map(Self::Offer),
            Some((&Self::RECORDS, list)) => decode_records(list),
            Some((&Self::DONE, [])) => Ok(Self::Done),
            Some((&Self::DONE, rest)) => Err(MessageError::Trailing(rest.len())),
            other => Err(MessageError::UnknownType(other.map(|(&kind, _)| kind))),
        }
    }

    /// The message's name, for errors and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Summary(_) => "Summary",
            Self::More(_) => "More",
            Self::Symbols(_) => "Symbols",
            Self::Reconcile(_) => "Reconcile",
            Self::Want(_) => "Want",
            Self::Offer(_) => "Offer",
            Self::Records { .. } => "Records",
            Self::Done => "Done",
        }
    }

    /// What one envelope adds to the length of a [`Message::Records`].
    pub(super) fn record_bytes(envelope: &[u8]) -> usize {
        LENGTH_BYTES + envelope.len()
    }
}

fn decode_summary(bytes: &[u8]) -> Result<Summary, MessageError> {
    let wrong = || MessageError::Length(bytes.len());
    let (count, digest) = bytes.split_first_chunk().ok_or_else(wrong)?;
    Ok(Summary { count: u32::from_be_bytes(*count), digest: digest.try_into().map_err(|_| wrong())? })
}

fn decode_symbols(bytes: &[u8]) -> Result<Vec<Symbol>, MessageError> {
    let (mut symbols, mut rest) = (Vec::new(), bytes);
    while let Some((symbol, after)) = Symbol::decode(rest).filter(|_| symbols.len() < MAX_SYMBOLS_SENT) {
        symbols.push(symbol);
        rest = after;
    }
    if symbols.is_empty() || !rest.is_empty() {
        return Err(MessageError::Symbols(bytes.len()));
    }
    Ok(symbols)
}

/// How many there are of 8 bytes as a big-endian `u16`, these, and the longer ones.
fn encode_beginnings(ids: &[Beginning]) -> Vec<u8> {
    let (eight, longer): (Vec<Beginning>, Vec<Beginning>) =
        ids.iter().partition(|id| matches!(id, Beginning::Eight(_)));
    let mut bytes = vec![Message::WANT];
    // There are at most `MAX_IDS`: their number fits.
    bytes.extend_from_slice(&u16::try_from(eight.len()).unwrap_or(u16::MAX).to_be_bytes());
    eight.into_iter().chain(longer).for_each(|id| bytes.extend_from_slice(id.bytes()));
    bytes
}

fn decode_beginnings(bytes: &[u8]) -> Result<Vec<Beginning>, MessageError> {
    let malformed = || MessageError::Ids(bytes.len());
    let (count, rest) = bytes.split_first_chunk().ok_or_else(malformed)?;
    let count = usize::from(u16::from_be_bytes(*count));
    let (eight, longer) = rest.split_at_checked(count * EIGHT_BYTES).ok_or_else(malformed)?;
    let (eight, longer) = (eight.as_chunks().0, decode_ids(longer)?);
    if eight.len() + longer.len() > MAX_IDS {
        return Err(malformed());
    }
    Ok(eight.iter().copied().map(Beginning::Eight).chain(longer.into_iter().map(Beginning::Short)).collect())
}

fn decode_ids(bytes: &[u8]) -> Result<Vec<ShortId>, MessageError> {
    let (ids, rest) = bytes.as_chunks();
    if !rest.is_empty() || ids.len() > MAX_IDS {
        return Err(MessageError::Ids(bytes.len()));
    }
    Ok(ids.iter().copied().map(ShortId).collect())
}

fn decode_records(bytes: &[u8]) -> Result<Message, MessageError> {
    let (is_last, mut rest) = match bytes.split_first() {
        Some((0, rest)) => (false, rest),
        Some((1, rest)) => (true, rest),
        _ => return Err(MessageError::Records("the mark of the last one is neither 0 nor 1")),
    };
    if rest.len() > MAX_RECORDS_BYTES {
        return Err(MessageError::Records("more bytes than a message may hold"));
    }
    let mut envelopes = Vec::new();
    while !rest.is_empty() {
        let (length, after) =
            rest.split_first_chunk::<LENGTH_BYTES>().ok_or(MessageError::Records("a length that is cut off"))?;
        let length = u32::from_be_bytes(*length) as usize;
        if length == 0 || length > MAX_ENVELOPE_BYTES {
            return Err(MessageError::Records("an envelope that is empty or too large"));
        }
        let (envelope, after) = after.split_at_checked(length).ok_or(MessageError::Records("a record cut off"))?;
        envelopes.push(envelope.to_vec());
        rest = after;
    }
    if envelopes.is_empty() && !is_last {
        return Err(MessageError::Records("nothing in it, and not the last"));
    }
    Ok(Message::Records { envelopes, is_last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = Message> {
        let ids = || prop::collection::vec(any::<[u8; 16]>().prop_map(ShortId), 0..5);
        let eights = prop::collection::vec(any::<[u8; 8]>().prop_map(Beginning::Eight), 0..5);
        let wanted =
            (eights, ids()).prop_map(|(eights, ids)| eights.into_iter().chain(ids.into_iter().map(Into::into)));
        let envelopes = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 1..5);
        let symbol = (prop::collection::vec(any::<u8>(), 20), 0u8..0x80)
            .prop_map(|(bytes, count)| Symbol::decode(&[&bytes[..], &[count]].concat()).unwrap().0);
        prop_oneof![
            (any::<u32>(), any::<[u8; 32]>()).prop_map(|(count, digest)| Message::Summary(Summary { count, digest })),
            any::<u32>().prop_map(Message::More),
            prop::collection::vec(symbol, 1..5).prop_map(Message::Symbols),
            prop::collection::vec(any::<u8>(), 0..50).prop_map(Message::Reconcile),
            wanted.prop_map(|wanted| Message::Want(wanted.collect())),
            ids().prop_map(Message::Offer),
            (envelopes, any::<bool>()).prop_map(|(envelopes, is_last)| Message::Records { envelopes, is_last }),
            Just(Message::Records { envelopes: vec![], is_last: true }),
            Just(Message::Done),
        ]
    }

    proptest! {
        #[test]
        fn a_message_comes_back(message in message()) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn any_bytes_are_refused_or_are_the_one_encoding_of_a_message(
            kind in 0u8..10, content in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = [&[kind], content.as_slice()].concat();
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }
    }

    #[test]
    fn oversized_lists_are_refused() {
        let ids = |count| vec![ShortId([1; 16]); count];
        let eights = |count| vec![Beginning::Eight([1; 8]); count];
        let mixed = |count| eights(count).into_iter().chain(ids(MAX_IDS - count + 1).into_iter().map(Into::into));
        for too_many in
            [Message::Offer(ids(MAX_IDS + 1)), Message::Want(eights(MAX_IDS + 1)), Message::Want(mixed(7).collect())]
        {
            assert!(matches!(Message::decode(&too_many.encode()), Err(MessageError::Ids(_))));
        }
        assert!(matches!(Message::decode(&vec![1; MAX_MESSAGE_BYTES + 1]), Err(MessageError::TooLarge(_))));
        let too_large = Message::Records { envelopes: vec![vec![0; MAX_ENVELOPE_BYTES + 1]], is_last: true }.encode();
        assert!(matches!(Message::decode(&too_large), Err(MessageError::Records(_))));
        for symbols in [0, MAX_SYMBOLS_SENT + 1] {
            let symbols = Message::Symbols(vec![Symbol::default(); symbols]).encode();
            assert_eq!(Message::decode(&symbols), Err(MessageError::Symbols(symbols.len() - 1)));
        }
        assert_eq!(Message::decode(&[Message::MORE, 1, 2, 3]), Err(MessageError::Length(3)));
        assert_eq!(Message::decode(&[Message::SUMMARY; 38]), Err(MessageError::Length(37)));
        assert!(matches!(Message::decode(&[]), Err(MessageError::UnknownType(None))));
    }
}
