//! Chunks between sites: serving what this node holds, and fetching what it lacks.
//!
//! [`Exchange`] is both sides of one store. A download in progress is served from too: its stream peers hear of chunks
//! as they are stored.

mod fetch;
mod rates;
mod references;
mod serve;
mod session;
mod spreads;
mod traffic;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libp2p::PeerId;
use rialto_protocol::ids::ImageId;
use tokio::sync::{broadcast, watch};

pub use fetch::{FetchError, FetchProgress, FetchReport};
pub use rates::Limits;
pub use traffic::{ChunkCount, PeerTraffic, Totals};

use self::rates::Rates;
use self::references::References;
use self::spreads::Spreads;
use self::traffic::Traffic;
use super::Net;
use crate::store::Store;

/// Chunks that a slow reader of a download's news may lag behind; it hears of what it missed by the next `Have`.
const NEWS_QUEUE: usize = 4096;

/// Sites that fetch the same image, of which a fetch has not heard yet: it hears of them within a fraction of a second.
const COMPANIONS_QUEUE: usize = 64;

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
    traffic: Traffic,
    rates: Rates,
    spreads: Spreads,
    references: References,
}

/// What is heard of a download in progress.
struct News {
    /// Whether its manifest is known by now.
    manifest: watch::Receiver<bool>,
    /// Indices of chunks as they are stored.
    chunks: broadcast::Receiver<u32>,
}

/// One image that is being fetched.
struct Ongoing {
    /// Indices of chunks as they are stored.
    news: broadcast::Sender<u32>,
    /// Whether the manifest is known.
    manifest: watch::Sender<bool>,
    /// Sites that asked us for it: they fetch it too.
    companions: broadcast::Sender<PeerId>,
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
    manifest: watch::Sender<bool>,
    companions: broadcast::Sender<PeerId>,
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
        Self {
            net,
            store,
            offers,
            patience,
            downloads: Arc::default(),
            traffic: Traffic::default(),
            rates: Rates::new(),
            spreads: Spreads::new(),
            references: References::new(),
        }
    }

    /// Bytes of chunks and pages sent to others since the node started.
    pub fn uploaded_bytes(&self) -> u64 {
        self.traffic.totals().sent_bytes
    }

    /// What moved between this node and others since it started.
    pub fn traffic(&self) -> Totals {
        self.traffic.totals()
    }

    /// What moved between this node and each of the sites that it lately exchanged something with, at most 256.
    pub fn peer_traffic(&self) -> BTreeMap<PeerId, PeerTraffic> {
        self.traffic.peers()
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.rates.limits()
    }

    /// Changes the limits, also for what is under way.
    pub fn set_limits(&self, limits: Limits) {
        self.rates.set(limits);
    }

    /// A site asks for an image: if it is being fetched here, the fetch hears of it.
    fn is_asked_by(&self, image: &ImageId, peer: PeerId) {
        let downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ongoing) = downloads.get(image) {
            // An error means that the fetch only waits for its turn.
            ongoing.companions.send(peer).ok();
        }
    }

    /// The news of a download in progress, from now on.
    fn news(&self, image: &ImageId) -> Option<News> {
        let downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        let ongoing = downloads.get(image)?;
        Some(News { manifest: ongoing.manifest.subscribe(), chunks: ongoing.news.subscribe() })
    }

    fn begin(&self, image: ImageId) -> Share {
        let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || Ongoing {
            news: broadcast::channel(NEWS_QUEUE).0,
            manifest: watch::channel(false).0,
            companions: broadcast::channel(COMPANIONS_QUEUE).0,
            turn: Arc::default(),
            shares: 0,
        };
        let ongoing = downloads.entry(image).or_insert_with(begin);
        ongoing.shares += 1;
        Share {
            image,
            downloads: Arc::clone(&self.downloads),
            news: ongoing.news.clone(),
            manifest: ongoing.manifest.clone(),
            companions: ongoing.companions.clone(),
            turn: Arc::clone(&ongoing.turn),
        }
    }
}
