//! What the log says, put in again when it is opened.

use std::sync::Arc;

use rialto_protocol::UnixSeconds;
use rialto_protocol::channel::Position;
use rialto_protocol::ids::{Hash, PublicKey};
use rialto_protocol::record::{Body, Record};
use rialto_protocol::signed::{Envelope, EnvelopeError};

use super::super::SharedRecord;
use super::super::index::{Held, Kind, Taken};
use super::super::log::{Frame, Place};
use super::super::parallel::in_parallel;
use super::super::remembered::Remains;
use super::Holdings;

/// Puts in what some frames of the log say. They are read on all cores.
pub(in crate::catalog) fn replay(holdings: &mut Holdings, frames: Vec<(Place, Frame)>) {
    let claimed = |(_, frame): &(Place, Frame)| match frame {
        Frame::Record { envelope, .. } => Some(Claimed::read(envelope)),
        Frame::Evicted { .. } => None,
    };
    let read = in_parallel(&frames, |part| part.iter().map(claimed).collect());
    for ((place, frame), claimed) in frames.into_iter().zip(read) {
        match (frame, claimed) {
            (Frame::Evicted { sync_id, signers }, _) => holdings.replay_evicted(sync_id, signers),
            (Frame::Record { source, .. }, Some(Ok(claimed))) => holdings.replay(claimed, source, place),
            (Frame::Record { .. }, Some(Err(error))) => tracing::warn!(%error, "a record of the log is left out"),
            (Frame::Record { .. }, None) => {}
        }
    }
}

/// A record as the log says that it is. Only heads and delegations are verified: the others are before they are handed
/// out.
#[derive(Debug)]
struct Claimed {
    record: Record,
    signers: Arc<[PublicKey]>,
    sync_id: Hash,
    verified: Option<SharedRecord>,
    envelope_bytes: usize,
}

impl Claimed {
    /// Reads an envelope of the log.
    fn read(envelope: &[u8]) -> Result<Self, EnvelopeError> {
        let bytes = envelope.len();
        let envelope = Envelope::decode(envelope)?;
        let record = envelope.claims()?;
        let signers: Arc<[PublicKey]> = envelope.keys().copied().collect();
        let sync_id = rialto_protocol::signed::sync_id(&record.id, signers.iter());
        let verified = match record.body {
            Body::Channel(_) | Body::Delegation(_) => Some(Arc::new(envelope.verify()?)),
            _ => None,
        };
        Ok(Self { record, signers, sync_id, verified, envelope_bytes: bytes })
    }
}

impl Holdings {
    /// Puts in what the log says, without a question: it was admitted when it was written.
    fn replay(&mut self, claimed: Claimed, source: Option<String>, place: Place) {
        let before = self.index.slot(&claimed.record.id).and_then(|slot| self.index.take(slot));
        if let Some(before) = &before
            && !before.held.signers.iter().all(|key| claimed.signers.binary_search(key).is_ok())
        {
            // Never written like this: the version with more signatures stays, the other one comes back by catch-up.
            self.index.put_back(before.clone());
            return;
        }
        let arrival = before.as_ref().map_or(self.next_arrival, |before| before.held.arrival);
        self.next_arrival = self.next_arrival.max(arrival + 1);
        self.evicted.remove(&claimed.sync_id);
        let held = Held {
            id: claimed.record.id,
            sync_id: claimed.sync_id,
            issued: claimed.record.header.issued,
            arrival,
            place,
            is_charged: source.is_some(),
            source: source.map(Arc::from),
            signers: claimed.signers,
            cost: claimed.envelope_bytes as u32,
            kind: Kind::Other,
        };
        self.index.put(held, &claimed.record.body, claimed.verified.as_ref(), before.as_ref());
    }

    /// Takes out what the log says was evicted.
    fn replay_evicted(&mut self, sync_id: Hash, signers: Vec<PublicKey>) {
        let taken = self.index.by_sync_id(&(&sync_id).into()).and_then(|slot| self.index.take(slot));
        if !signers.is_empty() {
            self.evicted.insert(sync_id, Arc::from(signers));
        } else if let Some(record) = taken.as_ref().and_then(Taken::decoded)
            && let Some(head) = record.body.channel()
        {
            // Superseded, and remembered as before.
            self.refused.insert(sync_id, UnixSeconds::MAX);
            let position = Position { epoch: head.epoch, sequence: head.sequence };
            self.below.insert(head.into(), position, Remains::of(record));
        }
    }
}
