//! [`Accepted`]: the exact images that policy let in. Deployment takes this and nothing else.

use rialto_protocol::ids::{ImageId, RecordId};
use rialto_protocol::record::{Record, Release};
use rialto_protocol::signed::Verified;

/// A release that policy accepted, with the exact images that may be deployed. Only this room can make one.
#[derive(Debug, Clone)]
pub struct Accepted {
    id: RecordId,
    release: Verified<Release>,
    images: Vec<ImageId>,
}

impl Accepted {
    pub(super) fn new(record: &Verified<Record>) -> Option<Self> {
        let release = record.narrow(|body| body.release())?;
        Some(Self { id: record.id, images: release.images(), release })
    }

    /// For the tests of the rooms that come after trust.
    #[cfg(test)]
    #[allow(dead_code)] // used by other rooms' tests only
    pub(crate) fn for_test(record: &Verified<Record>) -> Option<Self> {
        Self::new(record)
    }

    /// The release's record id.
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// The release as it was verified.
    pub fn release(&self) -> &Verified<Release> {
        &self.release
    }

    /// Every image that deploying it may use.
    pub fn images(&self) -> &[ImageId] {
        &self.images
    }
}
