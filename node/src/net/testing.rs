//! Sites for tests: a network and a store each, in one process, over the loopback.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use rialto_protocol::ids::ImageId;
use tokio_util::sync::CancellationToken;

use super::bulk::{Exchange, Patience};
use super::{Incoming, Net, Protocol, Settings};
use crate::store::{Digests, Options, Store};

/// Nothing in these tests takes this long.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// Long enough for whoever is to be waited for, short enough to see what happens when nobody comes.
const PATIENCE: Patience =
    Patience { nobody: Duration::from_secs(10), no_progress: Duration::from_secs(20), silence: Duration::from_secs(3) };

/// Fails where the future takes too long.
pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

/// A network that dials nobody but `bootstrap`.
pub(super) async fn net(keypair: Keypair, bootstrap: &[&Net]) -> (Net, Incoming) {
    let mut known: Vec<Multiaddr> = Vec::new();
    for net in bootstrap {
        known.extend(net.addresses().await.unwrap());
    }
    let settings = Settings {
        keypair,
        federation: "test".parse().unwrap(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        announce: Vec::new(),
        bootstrap: known,
        members: None,
        peers_target: 0,
        is_mdns_enabled: false,
    };
    Net::start(settings).await.unwrap()
}

/// Waits until two networks know each other.
pub(super) async fn acquainted(one: &Net, other: &Net) {
    for (net, peer) in [(one, other.local()), (other, one.local())] {
        let mut peers = net.peers();
        let is_there =
            |views: &Arc<Vec<super::PeerView>>| views.iter().any(|view| view.peer == peer && view.is_of_federation);
        within(peers.wait_for(is_there)).await.unwrap();
    }
}

/// A site that serves what its store holds.
pub(super) struct Site {
    pub(super) net: Net,
    pub(super) store: Store,
    pub(super) exchange: Exchange,
    _incoming: Incoming,
    shutdown: CancellationToken,
}

impl Site {
    pub(super) async fn new(folder: &Path, bootstrap: &[&Net]) -> Self {
        Self::again(folder, Keypair::generate_ed25519(), bootstrap).await
    }

    pub(super) async fn again(folder: &Path, keypair: Keypair, bootstrap: &[&Net]) -> Self {
        let options = Options { free_space_floor_bytes: 0, ..Options::default() };
        let store = Store::open(&folder.join("store"), options).unwrap();
        let (net, incoming) = net(keypair, bootstrap).await;
        let exchange = Exchange::new(net.clone(), store.clone(), Arc::new(|_| true), PATIENCE);
        let shutdown = CancellationToken::new();
        // Whoever accepts catch-up is of the federation; this one answers none.
        let mut catch_up = net.accept(Protocol::Sync).unwrap();
        tokio::spawn(
            shutdown.clone().run_until_cancelled_owned(async move { while catch_up.next().await.is_some() {} }),
        );
        exchange.serve(shutdown.clone()).unwrap();
        Self { net, store, exchange, _incoming: incoming, shutdown }
    }

    /// Adds bytes that look random, as an image.
    pub(super) fn add(&self, folder: &Path, length: usize) -> ImageId {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        let file = folder.join("image");
        std::fs::write(&file, bytes).unwrap();
        self.store.add_file(&file, Digests::Skip, &[], &mut |_, _| {}, &|| false).unwrap().image
    }

    /// Gives another store the manifest, and those chunks whose place `is_given`.
    pub(super) fn give(&self, other: &Store, image: &ImageId, is_given: impl Fn(usize) -> bool) {
        let manifest = self.store.manifest(image).unwrap();
        other.begin_fetch(image).unwrap();
        for page in &manifest.pages {
            other.put_page(page, &self.store.read_page(page).unwrap()).unwrap();
        }
        for (_, chunk) in manifest.chunks.iter().enumerate().filter(|(place, _)| is_given(*place)) {
            let encoded = self.store.read_encoded(&chunk.hash).unwrap();
            other.put_encoded(chunk.hash, chunk.length, encoded.encoding, &encoded.bytes).unwrap();
        }
    }

    pub(super) async fn leave(self) {
        self.shutdown.cancel();
        self.net.shutdown().await;
    }
}
