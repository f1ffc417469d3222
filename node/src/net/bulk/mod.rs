//! Chunks between sites: serving what this node holds, and fetching what it lacks.
//!
//! [`Exchange`] is both sides of one store. A download in progress is served from too: its stream peers hear of chunks
//! as they are stored.

mod fetch;
mod serve;
mod session;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rialto_protocol::ids::ImageId;
use tokio::sync::broadcast;

pub use fetch::{FetchError, FetchProgress, FetchReport};

use super::Net;
use crate::store::Store;

/// Chunks that a slow reader of a download's news may lag behind; it hears of what it missed by the next `Have`.
const NEWS_QUEUE: usize = 4096;

/// Whether this site offers an image to others.
pub type Offers = Arc<dyn Fn(&ImageId) -> bool + Send + Sync>;

/// Both sides of moving images.
#[derive(Clone)]
pub struct Exchange {
    net: Net,
    store: Store,
    offers: Offers,
    /// Downloads in progress, by image: who listens hears of chunks as they are stored.
    downloads: Arc<Mutex<BTreeMap<ImageId, Ongoing>>>,
    uploaded: Arc<std::sync::atomic::AtomicU64>,
}

#[derive(Clone)]
struct Ongoing {
    /// Indices of chunks as they are stored.
    news: broadcast::Sender<u32>,
    /// Held by the one task that fetches; others that want the same image wait for it.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Exchange {
    /// Both sides over one store. Nothing is served before [`Exchange::serve`].
    pub fn new(net: Net, store: Store, offers: Offers) -> Self {
        Self { net, store, offers, downloads: Arc::default(), uploaded: Arc::default() }
    }

    /// Bytes of chunks and pages sent to others since the node started.
    pub fn uploaded_bytes(&self) -> u64 {
        self.uploaded.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn ongoing(&self, image: &ImageId) -> Option<Ongoing> {
        self.downloads.lock().unwrap_or_else(PoisonError::into_inner).get(image).cloned()
    }

    fn begin(&self, image: ImageId) -> Ongoing {
        let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || Ongoing { news: broadcast::channel(NEWS_QUEUE).0, turn: Arc::default() };
        downloads.entry(image).or_insert_with(begin).clone()
    }

    fn end(&self, image: &ImageId) {
        let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's own handle and the caller's: nobody else waits for a turn.
        if downloads.get(image).is_some_and(|ongoing| Arc::strong_count(&ongoing.turn) <= 2) {
            downloads.remove(image);
        }
    }
}
