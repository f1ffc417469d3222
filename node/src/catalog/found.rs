//! Where a record can be had: at hand, or in the log, from which it is read and verified again.

use std::sync::Arc;

use rialto_protocol::ids::{Hash, PublicKey};
use rialto_protocol::signed::{Envelope, KnownKeys};

use super::SharedRecord;
use super::arrival::Arrival;
use super::log::{Frame, Place, Reader};

/// A record, with its arrivals.
#[derive(Debug, Clone)]
pub(super) struct AtHand {
    pub(super) record: SharedRecord,
    pub(super) arrivals: Arc<[Arrival]>,
}

/// Where a record can be had without the catalog's lock.
#[derive(Debug)]
pub(super) enum Found {
    AtHand(AtHand),
    InLog(Address),
}

/// A record in the log.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) sync_id: Hash,
    pub(super) reader: Reader,
    pub(super) place: Place,
}

impl Address {
    /// Reads the envelope, as it was verified before it was written.
    pub(super) fn envelope(&self) -> Option<Vec<u8>> {
        match self.reader.frame(self.place)? {
            Frame::Record { envelope, .. } => Some(envelope),
            Frame::Evicted { .. } => None,
        }
    }

    /// Reads the record and verifies it again: what lies on a disk could have been changed.
    pub(super) fn read(&self, keys: &KnownKeys) -> Option<AtHand> {
        let Frame::Record { source, arrivals, envelope } = self.reader.frame(self.place)? else { return None };
        match Envelope::decode(&envelope).and_then(|envelope| envelope.verify_with(keys)) {
            Ok(record) if record.sync_id() == self.sync_id => {
                let arrivals = arrivals_of(arrivals, source.as_deref(), record.signers());
                Some(AtHand { record: Arc::new(record), arrivals })
            }
            Ok(record) => {
                tracing::error!(id = %record.id, "the records log has another record than it had; it is left out");
                None
            }
            Err(error) => {
                tracing::error!(%error, "the records log has been tampered with: a record does not verify; it is left out");
                None
            }
        }
    }
}

/// The arrivals of a record: where the log did not keep them, one at an unknown time.
fn arrivals_of<'a>(
    arrivals: Vec<Arrival>,
    source: Option<&str>,
    signers: impl Iterator<Item = &'a PublicKey>,
) -> Arc<[Arrival]> {
    if !arrivals.is_empty() {
        return Arc::from(arrivals);
    }
    Arc::new([Arrival { at: None, from: source.map(Arc::from), keys: signers.copied().collect() }])
}
