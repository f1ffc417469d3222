//! Records that were verified lately: what is asked for again need not be read and verified again.

use std::collections::HashMap;

use rialto_protocol::ids::Hash;

use super::SharedRecord;

/// Bytes of envelopes that are kept, at most. Decoded, a record takes about four times its envelope.
const MAX_BYTES: usize = 8 << 20;
/// What keeping a record takes beside its envelope.
const OVERHEAD_BYTES: usize = 512;

/// Verified records by sync id. Two generations: when the young one has half of the room, it becomes the old one, and what
/// was not asked for since goes.
#[derive(Debug, Default)]
pub(super) struct Lately {
    young: HashMap<Hash, SharedRecord>,
    old: HashMap<Hash, SharedRecord>,
    young_bytes: usize,
}

impl Lately {
    pub(super) fn get(&mut self, sync_id: &Hash) -> Option<SharedRecord> {
        if let Some(record) = self.young.get(sync_id) {
            return Some(record.clone());
        }
        let record = self.old.remove(sync_id)?;
        self.put(*sync_id, record.clone());
        Some(record)
    }

    pub(super) fn put(&mut self, sync_id: Hash, record: SharedRecord) {
        let bytes = record.envelope().encoded().len() + OVERHEAD_BYTES;
        if self.young.insert(sync_id, record).is_none() {
            self.young_bytes += bytes;
        }
        if self.young_bytes > MAX_BYTES / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}
