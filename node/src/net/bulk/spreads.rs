//! What was sent of each image that several fetch at once, shared by their streams.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rialto_protocol::ids::ImageId;
use rialto_protocol::image::manifest::Manifest;
use rialto_protocol::swarm::{Batch, Queue, Spread};
use tokio::time::Instant;

/// The images that are being uploaded.
#[derive(Debug, Clone)]
pub(super) struct Spreads {
    images: Arc<Mutex<BTreeMap<ImageId, Weak<Mutex<Spread>>>>>,
    started: Instant,
}

/// One stream's part in it, from its beginning to its end.
#[derive(Debug)]
pub(super) struct Stream {
    image: ImageId,
    spread: Arc<Mutex<Spread>>,
    spreads: Spreads,
}

impl Spreads {
    pub(super) fn new() -> Self {
        Self { images: Arc::default(), started: Instant::now() }
    }

    /// A fetcher of this image begins.
    pub(super) fn join(&self, manifest: &Manifest) -> Stream {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let known = images.get(&manifest.id).and_then(Weak::upgrade);
        let spread = known.unwrap_or_else(|| {
            let new = Arc::new(Mutex::new(Spread::new(manifest.chunks.len())));
            images.insert(manifest.id, Arc::downgrade(&new));
            new
        });
        spread.lock().unwrap_or_else(PoisonError::into_inner).joined();
        Stream { image: manifest.id, spread, spreads: self.clone() }
    }
}

impl Stream {
    /// Takes from the queue what is to be sent now; see [`Queue::take`].
    pub(super) fn take(&self, queue: &mut Queue, is_complete: bool, bytes: u64, length: impl Fn(u32) -> u32) -> Batch {
        let mut spread = self.spread.lock().unwrap_or_else(PoisonError::into_inner);
        queue.take(&mut spread, is_complete, bytes, length, self.spreads.started.elapsed())
    }

    /// The instant that a [`Batch::wait_until`] means.
    pub(super) fn instant(&self, until: Duration) -> Instant {
        self.spreads.started + until
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut images = self.spreads.images.lock().unwrap_or_else(PoisonError::into_inner);
        self.spread.lock().unwrap_or_else(PoisonError::into_inner).left();
        if Arc::strong_count(&self.spread) == 1 {
            images.remove(&self.image);
        }
    }
}
