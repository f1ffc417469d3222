//! Chunks between sites: serving what this node holds, and fetching what it lacks.
//!
//! [`Exchange`] is both sides of one store. A download in progress is served from too: its stream peers hear of chunks
//! as they are stored.

mod fetch;
mod references;
mod serve;
mod session;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rialto_protocol::ids::ImageId;
use tokio::sync::broadcast;

pub use fetch::{FetchError, FetchProgress, FetchReport};

use self::references::References;
use super::Net;
use crate::store::Store;

/// Chunks that a slow reader of a download's news may lag behind; it hears of what it missed by the next `Have`.
const NEWS_QUEUE: usize = 4096;

/// Whether this site offers an image to others.
pub type Offers = Arc<dyn Fn(&ImageId) -> bool + Send + Sync>;

/// How long others are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A fetch gives up when nobody who has what is missing was found for this long.
    pub nobody: Duration,
    /// A fetch gives up when nothing that it needs came for this long, whatever others promise.
    pub no_progress: Duration,
    /// An upload whose fetcher says nothing for this long is over.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let [nobody, no_progress, silence] = [30, 300, 120].map(Duration::from_secs);
        Self { nobody, no_progress, silence }
    }
}

/// Both sides of moving images.
#[derive(Clone)]
pub struct Exchange {
    net: Net,
    store: Store,
    offers: Offers,
    patience: Patience,
    /// Downloads in progress, by image: who listens hears of chunks as they are stored.
    downloads: Arc<Mutex<BTreeMap<ImageId, Ongoing>>>,
    uploaded: Arc<std::sync::atomic::AtomicU64>,
    references: References,
}

/// One image that is being fetched.
struct Ongoing {
    /// Indices of chunks as they are stored.
    news: broadcast::Sender<u32>,
    /// Held by the one task that fetches; others that want the same image wait for it.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Tasks that fetch it, or wait to.
    shares: usize,
}

/// One task's share in a download. The last one that goes ends it: who listens to its news hears that there is no more.
struct Share {
    image: ImageId,
    downloads: Arc<Mutex<BTreeMap<ImageId, Ongoing>>>,
    news: broadcast::Sender<u32>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ongoing) = downloads.get_mut(&self.image) {
            ongoing.shares -= 1;
            if ongoing.shares == 0 {
                downloads.remove(&self.image);
            }
        }
    }
}

impl Exchange {
    /// Both sides over one store. Nothing is served before [`Exchange::serve`].
    pub fn new(net: Net, store: Store, offers: Offers, patience: Patience) -> Self {
        let (downloads, uploaded) = Default::default();
        Self { net, store, offers, patience, downloads, uploaded, references: References::new() }
    }

    /// Bytes of chunks and pages sent to others since the node started.
    pub fn uploaded_bytes(&self) -> u64 {
        self.uploaded.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The news of a download in progress, from now on.
    fn news(&self, image: &ImageId) -> Option<broadcast::Receiver<u32>> {
        let downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        downloads.get(image).map(|ongoing| ongoing.news.subscribe())
    }

    fn begin(&self, image: ImageId) -> Share {
        let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || Ongoing { news: broadcast::channel(NEWS_QUEUE).0, turn: Arc::default(), shares: 0 };
        let ongoing = downloads.entry(image).or_insert_with(begin);
        ongoing.shares += 1;
        let (news, turn) = (ongoing.news.clone(), Arc::clone(&ongoing.turn));
        Share { image, downloads: Arc::clone(&self.downloads), news, turn }
    }
}
