//! The messages of catch-up, and their bytes.
//!
//! A message is one type byte and its content. On a stream it is preceded by its length as a big-endian `u32`, which
//! the reader refuses above [`MAX_MESSAGE_BYTES`] before it allocates.

use super::name::{Beginning, ShortId};
use crate::signed::MAX_ENVELOPE_BYTES;

/// A message is at most this long, type byte included.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Ids in one [`Message::Want`] or [`Message::Offer`]: 48,000 bytes at most.
pub const MAX_IDS: usize = 3_000;
/// Envelopes in one [`Message::Records`] take at most this much, so that the message fits with room to spare.
pub const MAX_RECORDS_BYTES: usize = 60 * 1024;

const EIGHT_BYTES: usize = 8;
const LENGTH_BYTES: usize = 4;

/// One message of catch-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A step of set reconciliation, in the encoding of negentropy's protocol version 1.
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

    /// The bytes, without the length that precedes them on a stream.
    pub fn encode(&self) -> Vec<u8> {
        match self {
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
        prop_oneof![
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
            kind in 0u8..7, content in prop::collection::vec(any::<u8>(), 0..200),
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
        assert!(matches!(Message::decode(&[]), Err(MessageError::UnknownType(None))));
    }
}
