//! When a record reached this site, and from whom: kept beside it in the log, and never told to others.

use std::sync::Arc;

use rialto_protocol::UnixSeconds;
use rialto_protocol::ids::PublicKey;
use rialto_protocol::signed::MAX_ISSUERS;

use super::log::MAX_SOURCE_BYTES;

/// Bytes of an arrival without source and keys.
const FIXED_BYTES: usize = 8 + 1 + 1;
/// Bytes of all arrivals of one record, at most: each brought a key that was not here before.
pub(super) const MAX_ARRIVALS_BYTES: usize = 1 + MAX_ISSUERS * (FIXED_BYTES + MAX_SOURCE_BYTES + 32);

/// A record, or more signatures of it, reaching this site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// When, by this site's clock; `None` where an earlier version of Rialto did not write it down.
    pub at: Option<UnixSeconds>,
    /// The peer that brought it; `None` where this site made it.
    pub from: Option<Arc<str>>,
    /// The keys whose signatures came with it and were not here before, ascending.
    pub keys: Vec<PublicKey>,
}

/// Appends arrivals as the log has them: a number, and then of each the time (u64 LE, 0 where it is unknown), the length
/// of the source, the source, the number of keys, the keys.
pub(super) fn encode(arrivals: &[Arrival], out: &mut Vec<u8>) {
    let arrivals = &arrivals[..arrivals.len().min(MAX_ISSUERS)];
    out.push(arrivals.len() as u8);
    for Arrival { at, from, keys } in arrivals {
        let (from, keys) = (from.as_deref().unwrap_or_default(), &keys[..keys.len().min(MAX_ISSUERS)]);
        let from = &from.as_bytes()[..from.floor_char_boundary(MAX_SOURCE_BYTES)];
        out.extend_from_slice(&at.unwrap_or(0).to_le_bytes());
        out.push(from.len() as u8);
        out.extend_from_slice(from);
        out.push(keys.len() as u8);
        keys.iter().for_each(|key| out.extend_from_slice(&key.0));
    }
}

/// Reads arrivals, and gives what follows them.
pub(super) fn decode(bytes: &[u8]) -> Option<(Vec<Arrival>, &[u8])> {
    let (&count, mut rest) = bytes.split_first()?;
    let mut arrivals = Vec::new();
    for _ in 0..count {
        let (at, after) = rest.split_first_chunk::<8>()?;
        let (&length, after) = after.split_first()?;
        let (from, after) = after.split_at_checked(length.into())?;
        let (&count, after) = after.split_first()?;
        let (keys, after) = after.split_at_checked(32 * usize::from(count))?;
        let at = Some(u64::from_le_bytes(*at)).filter(|at| *at > 0);
        let from = std::str::from_utf8(from).ok().filter(|from| !from.is_empty()).map(Arc::from);
        arrivals.push(Arrival { at, from, keys: keys.as_chunks().0.iter().copied().map(PublicKey).collect() });
        rest = after;
    }
    Some((arrivals, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            arrivals in prop::collection::vec(
                (prop::option::of(1u64..), prop::option::of("[a-zé]{1,128}"), prop::collection::vec(any::<u8>(), 0..16)),
                0..=MAX_ISSUERS,
            ),
            behind in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let arrivals: Vec<Arrival> = arrivals
                .into_iter()
                .map(|(at, from, keys)| Arrival {
                    at,
                    from: from.map(|from| Arc::from(&from[..from.floor_char_boundary(MAX_SOURCE_BYTES)])),
                    keys: keys.into_iter().map(|byte| PublicKey([byte; 32])).collect(),
                })
                .collect();
            let mut bytes = Vec::new();
            encode(&arrivals, &mut bytes);
            for length in 0..bytes.len() {
                prop_assert!(decode(&bytes[..length]).is_none(), "it is cut at {}", length);
            }
            bytes.extend_from_slice(&behind);
            prop_assert_eq!(decode(&bytes), Some((arrivals, &behind[..])));
        }

        #[test]
        fn nothing_that_is_read_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
