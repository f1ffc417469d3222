//! One running node: wires the rooms together, and takes them down in order.

mod channels;
mod cosign;
mod delegations;
mod inside;
mod judge;
mod limits;
mod records;
mod reference;
mod renewal;
mod replay;
mod replay_at;
mod revoked;
mod scrub;
mod updates;
pub(crate) mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rialto_protocol::UnixSeconds;
use rialto_protocol::channel::ChannelName;
use rialto_protocol::ids::{ImageId, PublicKey};
use rialto_web::Sessions;
use rialto_web::api::{ApiError, Change, ErrorCode};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub(crate) use channels::Seen;
pub(crate) use judge::Judged;
pub(crate) use reference::fetch_target;
use scrub::Scrub;

use crate::api::{Api, Verdicts};
use crate::catalog::{Catalog, CatalogError};
use crate::config::{Config, Membership, Serve};
use crate::convert::Scratch;
use crate::deploy::{DeployError, DeployOptions, Deployer, Limits};
use crate::dir::{DirError, NodeDir};
use crate::jobs::Jobs;
use crate::keys::{self, KeyError, Keys};
use crate::net::bulk::{Exchange, Patience};
use crate::net::{self, Net, NetError};
use crate::signing::SigningDesk;
use crate::store::{Store, StoreError};
use crate::trust::{
    Clock, DecisionError, DecisionLog, Evidence, FloorError, Floors, Policy, PolicyFile, PolicyLog, PolicyLogError,
    PolicyState, Reading,
};

/// What records of signers that policy does not name may take, in bytes.
const CATALOG_BUDGET_BYTES: u64 = 64 * 1024 * 1024;
/// Changes that an open page may lag behind; it then asks for everything again.
const CHANGE_QUEUE: usize = 256;
/// Images are looked through at most this often, to see which are news to the federation.
const PROVIDE_EVERY: Duration = Duration::from_secs(2);
/// How long the parts have to end when the node shuts down.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Why a node cannot run, or stopped running.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The node's directory.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The site key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store of images.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalog of records.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The decision log.
    #[error(transparent)]
    Decisions(#[from] DecisionError),
    /// What was seen before.
    #[error(transparent)]
    Floors(#[from] FloorError),
    /// The log of policies.
    #[error(transparent)]
    Policies(#[from] PolicyLogError),
    /// Instances.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The web UI's address.
    #[error("cannot serve the web UI on {address}: {source}")]
    Web {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The folder where disks are converted.
    #[error("cannot use the folder for converted disks: {0}")]
    Scratch(std::io::Error),
    /// The control socket.
    #[error("cannot serve the control socket: {0}")]
    Socket(std::io::Error),
    /// The machine has no entropy.
    #[error("cannot make session secrets: {0}")]
    Sessions(String),
}

impl From<NodeError> for ApiError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Dir(error) => error.into(),
            NodeError::Key(error) => Self { code: ErrorCode::Failed, ..error.into() },
            NodeError::Deploy(error) => error.into(),
            NodeError::Store(error) => work::store_error(error),
            NodeError::Web { .. } => Self::failed(error.to_string())
                .with_hint("set another address with web = \"127.0.0.1:PORT\" in config.toml, or leave it out"),
            NodeError::Net(NetError::Listen { .. }) => {
                Self::failed(error.to_string()).with_hint("set other addresses with listen = [...] in config.toml")
            }
            _ => Self::failed(error.to_string()),
        }
    }
}

/// A running node, as the API sees it.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) keys: Keys,
    pub(crate) started: Instant,
    pub(crate) catalog: Catalog,
    pub(crate) store: Store,
    /// Where disks are converted.
    pub(crate) scratch: Scratch,
    pub(crate) scrub: Scrub,
    pub(crate) net: Net,
    pub(crate) exchange: Exchange,
    /// Limits that somebody set while the node runs; else those of the configuration hold.
    pub(crate) rates_set: watch::Sender<Option<net::bulk::Limits>>,
    pub(crate) policy: watch::Receiver<Arc<PolicyState>>,
    pub(crate) decisions: DecisionLog,
    /// Which policy was in force when.
    pub(crate) policies: PolicyLog,
    pub(crate) evidence: Evidence,
    bills: inside::Bills,
    /// What was seen before, and is never gone below.
    pub(crate) floors: Floors,
    trusted_clock: Mutex<Clock>,
    /// The keys that policy names, and this site's own, as of the last change of policy.
    named: Mutex<BTreeSet<PublicKey>>,
    /// Channels that this node should sign again and cannot, with the reason.
    stuck_channels: Mutex<BTreeMap<ChannelName, String>>,
    /// Held from the look at a channel to the head that moves it.
    pub(crate) signing: tokio::sync::Mutex<()>,
    head_signed: tokio::sync::Notify,
    /// What policy said of releases a moment ago.
    pub(crate) verdicts: Mutex<Verdicts>,
    /// Something about a revoked release is to be done again, or more of it.
    look_at_revocations: tokio::sync::Notify,
    /// Records that wait for signatures of keys that are held elsewhere.
    pub(crate) desk: SigningDesk,
    pub(crate) deployer: Deployer,
    pub(crate) jobs: Jobs,
    /// Held from the look at what is published to the publishing of more.
    pub(crate) publishing: tokio::sync::Mutex<()>,
    pub(crate) sessions: Sessions,
    pub(crate) web: Option<SocketAddr>,
    pub(crate) changes: broadcast::Sender<Change>,
}

/// Runs a node until `shutdown` is cancelled. Claims the directory ([`NodeDir::lock`]), listens, and calls `on_ready` once
/// other sites and the API are served.
///
/// # Errors
/// The directory is in use, an address is taken, or a file of the node cannot be opened.
pub async fn run(
    dir: NodeDir,
    config: Config,
    shutdown: CancellationToken,
    on_ready: Box<dyn FnOnce() + Send>,
) -> Result<(), NodeError> {
    dir.check_format()?;
    let lock = dir.lock()?;
    tracing::info!(
        "rialto {}: {} of {}, in {}",
        env!("CARGO_PKG_VERSION"),
        config.name,
        config.federation,
        dir.path().display()
    );
    let keys = Keys::of(&dir);
    let keypair = keys::to_libp2p(&keys.site()?)?;
    let store = Store::open(&dir.store(), store_options(&config))?;
    let scratch = Scratch::open(dir.scratch(), config.store.free_space_floor.bytes()).map_err(NodeError::Scratch)?;
    let catalog = Catalog::open(&dir.records(), config.federation.clone(), CATALOG_BUDGET_BYTES)?;
    let policy_file = PolicyFile::open(dir.policy_file());
    let policy = policy_file.subscribe();
    let decisions = DecisionLog::open(dir.decisions_file())?;
    let floors = Floors::open(dir.records().join("floors.log"))?;
    let deployer = Deployer::open(dir.path(), Arc::new(store.clone()), deploy_options(&config)).await?;
    let sessions = Sessions::new().map_err(|error| NodeError::Sessions(error.to_string()))?;
    let tcp = match config.web {
        Some(address) => Some(bind_web(address).await?),
        None => None,
    };
    let web = tcp.as_ref().and_then(|listener| listener.local_addr().ok());

    let (net, incoming) = Net::start(net_settings(&config, keypair)).await?;
    let exchange = Exchange::new(net.clone(), store.clone(), offers(&config, &catalog), Patience::default());
    let (changes, _) = broadcast::channel(CHANGE_QUEUE);
    let node = Arc::new(Node {
        config,
        keys,
        started: Instant::now(),
        catalog,
        store,
        scratch,
        scrub: Scrub::new(dir.store().join("scrubbed")),
        net,
        exchange,
        rates_set: watch::Sender::new(None),
        policy,
        decisions,
        policies: PolicyLog::open(dir.evidence().join("policies.log"))?,
        evidence: Evidence::new(dir.evidence()),
        bills: inside::Bills::default(),
        trusted_clock: Mutex::new(Clock::new(floors.latest())),
        floors,
        named: Mutex::default(),
        stuck_channels: Mutex::default(),
        signing: tokio::sync::Mutex::default(),
        head_signed: tokio::sync::Notify::new(),
        verdicts: Mutex::default(),
        look_at_revocations: tokio::sync::Notify::new(),
        desk: SigningDesk::default(),
        deployer,
        jobs: Jobs::default(),
        publishing: tokio::sync::Mutex::default(),
        sessions,
        web,
        changes,
    });
    // Signers named in policy are kept in full from the first record on.
    node.name_signers();
    node.note_policy();

    let records: Arc<dyn net::gossip::Records> = Arc::clone(&node) as _;
    node.exchange.serve(shutdown.clone())?;
    net::sync::spawn(node.net.clone(), Arc::clone(&records), incoming.ready, shutdown.clone())?;
    tokio::spawn(net::gossip::run(node.net.clone(), records, incoming.gossip));
    tokio::spawn(policy_file.follow(shutdown.clone()));
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(Arc::clone(&node).follow_changes()));
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(Arc::clone(&node).provide_images()));
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(Arc::clone(&node).follow_schedule()));
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(Arc::clone(&node).scrub_in_background()));
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(Arc::clone(&node).renew_channels()));
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(Arc::clone(&node).cosign_renewals()));
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(Arc::clone(&node).follow_channels()));

    let unix = unix_listener(lock.bind_socket()?)?;
    let api = Arc::new(Api(Arc::clone(&node)));
    let mut faces = vec![tokio::spawn(rialto_web::serve_unix(unix, Arc::clone(&api) as _, shutdown.clone()))];
    if let Some(listener) = tcp {
        let sessions = node.sessions.clone();
        let face = rialto_web::serve_tcp(listener, api, sessions, shutdown.clone());
        faces.push(tokio::spawn(face));
    }
    say_where(&node).await;
    on_ready();
    shutdown.cancelled().await;

    lock.remove_socket();
    // First the jobs: who waits for one is told, and its connection ends.
    node.jobs.close();
    let ending = async {
        node.net.shutdown().await;
        for face in faces {
            // A face that panicked has ended too.
            face.await.ok();
        }
    };
    if tokio::time::timeout(SHUTDOWN, ending).await.is_err() {
        tracing::warn!("some connections were still open at the end");
    }
    let store = node.store.clone();
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || store.commit()).await {
        tracing::error!(%error, "the store did not end well; it is checked at the next start");
    }
    tracing::info!("stopped");
    Ok(())
}

/// The log's answer to what one asks first: where is it?
async fn say_where(node: &Node) {
    for address in node.net.addresses().await.unwrap_or_default() {
        tracing::info!("reachable at {address}");
    }
    match node.web {
        Some(address) => {
            tracing::info!("the web UI is at http://{address}/; `rialto web` prints a link that lets you in")
        }
        None => tracing::info!("there is no web UI (web = \"off\")"),
    }
    let running = node.deployer.list().iter().filter(|instance| instance.state == "running").count();
    if running > 0 {
        tracing::info!(running, "instances from before this start are followed again");
    }
}

impl Node {
    /// The node's clock, for what records say of time: it never runs backwards.
    pub(crate) fn now(&self) -> UnixSeconds {
        self.clock().now
    }

    /// The node's clock, and why it is not to be relied on, if so.
    pub(crate) fn clock(&self) -> Reading {
        self.with_clock(Clock::read)
    }

    /// Takes the clock for right: as it is after a long time off, or, with `is_reset`, although it is before the latest
    /// time that was known. Blocks on the disk.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn set_clock(&self, is_reset: bool) -> Result<Reading, FloorError> {
        let before = self.clock();
        self.with_clock(if is_reset { Clock::reset } else { Clock::accept });
        let reading = self.clock();
        tracing::warn!(?before, ?reading, is_reset, "an administrator has said that the clock is right");
        self.look_at_revocations.notify_one();
        self.floors.note_time(reading.now, is_reset)?;
        Ok(reading)
    }

    fn with_clock<T>(&self, look: impl FnOnce(&mut Clock, UnixSeconds, Duration) -> T) -> T {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mut clock = self.trusted_clock.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut clock, wall.map_or(0, |since| since.as_secs()), self.started.elapsed())
    }

    /// Tells open pages that something changed.
    pub(crate) fn changed(&self, change: Change) {
        // An error means that no page is open.
        self.changes.send(change).ok();
    }

    /// The keys that policy names, and this site's own. While the policy cannot be read, those that the last one named: a slip of
    /// the pen must not cost a site the records of everyone whom it relies on.
    pub(crate) fn named_keys(&self) -> BTreeSet<PublicKey> {
        let policy = self.policy.borrow().policy.clone().or_else(|| self.policy_before());
        let own = self.keys.list().unwrap_or_default().into_iter().filter_map(|listed| listed.public_key.ok());
        policy.iter().flat_map(|policy| policy.named_keys().copied()).chain(own).collect()
    }

    /// The last policy that could be read, of this run or one before. Blocks on the disk.
    fn policy_before(&self) -> Option<Arc<Policy>> {
        let hash = self.policies.last_read().map_err(|error| tracing::error!("{error}")).ok()??;
        let kept = self.evidence.policy(&hash);
        kept.map_err(|error| tracing::error!("the policy that was in force before cannot be read: {error}"))
            .ok()
            .map(Arc::new)
    }

    fn name_signers(&self) {
        let named = self.named_keys();
        self.named.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&named);
        if let Err(error) = self.catalog.set_named(named) {
            tracing::error!(%error, "the catalog could not be written");
        }
    }

    /// Notes which policy is in force, and keeps it, so that what it said can be found out later. Blocks on the disk.
    fn note_policy(&self) {
        let policy = self.policy.borrow().policy.clone();
        let kept = self.evidence.keep(policy.as_deref(), []).map_err(|error| error.to_string());
        let hash = policy.as_ref().map(|policy| policy.hash());
        let noted = kept.and_then(|()| self.policies.note(hash, self.now()).map_err(|error| error.to_string()));
        if let Err(error) = noted {
            tracing::error!("that this policy is in force cannot be noted, and will not be known later: {error}");
        }
    }

    /// Passes on to open pages what changes in the rooms, and acts on revocations.
    async fn follow_changes(self: Arc<Self>) {
        let mut records = self.catalog.changes();
        let mut policy = self.policy.clone();
        let mut instances = self.deployer.changes();
        let mut peers = self.net.peers();
        let mut acted = revoked::Acted::default();
        // What kept something from being told, or done, may be over without anybody's word.
        let mut look = tokio::time::interval(revoked::LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.act_on_revocations(&mut acted).await;
        self.raise_floors_in_background(true).await;
        loop {
            let change = tokio::select! {
                Ok(()) = records.changed() => Change::Catalog,
                Ok(()) = policy.changed() => Change::Policy,
                Ok(()) = instances.changed() => Change::Instances,
                Ok(()) = peers.changed() => Change::Peers,
                () = self.look_at_revocations.notified() => {
                    self.act_on_revocations(&mut acted).await;
                    continue;
                }
                _ = look.tick() => {
                    self.act_on_revocations(&mut acted).await;
                    continue;
                }
            };
            if change == Change::Policy {
                let node = Arc::clone(&self);
                // Only fails where it panicked, which the log says.
                let taken_up = move || {
                    node.note_policy();
                    node.name_signers();
                };
                tokio::task::spawn_blocking(taken_up).await.ok();
            }
            if matches!(change, Change::Policy | Change::Catalog) {
                self.raise_floors_in_background(change == Change::Policy).await;
            }
            if matches!(change, Change::Policy | Change::Catalog | Change::Instances) {
                self.act_on_revocations(&mut acted).await;
            }
            self.changed(change);
        }
    }

    /// Tells the federation which images are complete here, once somebody can hear it, and again as more do: what was
    /// told to one peer that knew nobody reached nobody else.
    async fn provide_images(self: Arc<Self>) {
        let mut peers = self.net.peers();
        let mut told: BTreeSet<ImageId> = BTreeSet::new();
        let mut told_peers = 0;
        let mut changes = self.changes.subscribe();
        loop {
            let hearing = self.net.federation_peers().len();
            if hearing >= 2 * told_peers || hearing == 0 {
                told.clear();
                told_peers = hearing;
            }
            if hearing > 0 {
                let node = Arc::clone(&self);
                let Ok(complete) = tokio::task::spawn_blocking(move || node.provided()).await else { return };
                for gone in told.difference(&complete) {
                    if self.net.stop_providing(*gone).await.is_err() {
                        return;
                    }
                }
                let news: Vec<ImageId> = complete.difference(&told).copied().collect();
                if !news.is_empty() && self.net.provide(news).await.is_err() {
                    return;
                }
                told = complete;
            }
            let again = tokio::time::Instant::now() + PROVIDE_EVERY;
            loop {
                tokio::select! {
                    changed = peers.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    changed = changes.recv() => match changed {
                        Ok(Change::Store | Change::Catalog) | Err(RecvError::Lagged(_)) => break,
                        Ok(_) => {}
                        Err(RecvError::Closed) => return,
                    },
                }
            }
            tokio::time::sleep_until(again).await;
        }
    }

    /// Images that are complete here and offered to others. Blocks.
    fn provided(&self) -> BTreeSet<ImageId> {
        let images = self.store.images().unwrap_or_else(|error| {
            tracing::error!(%error, "the store cannot be looked through, so no image is announced");
            Vec::new()
        });
        let complete = images.into_iter().filter(|image| image.is_complete).map(|image| image.image);
        complete.filter(|image| self.offers(image)).collect()
    }

    fn offers(&self, image: &ImageId) -> bool {
        offers(&self.config, &self.catalog)(image)
    }
}

/// Which images strangers may have, by `serve` of the configuration.
fn offers(config: &Config, catalog: &Catalog) -> net::bulk::Offers {
    let catalog = catalog.clone();
    match config.serve {
        Serve::All => Arc::new(|_| true),
        Serve::None => Arc::new(|_| false),
        Serve::Published => Arc::new(move |image| catalog.is_released(image)),
    }
}

fn net_settings(config: &Config, keypair: libp2p::identity::Keypair) -> net::Settings {
    net::Settings {
        keypair,
        federation: config.federation.clone(),
        listen: config.listen.clone(),
        announce: config.announce.clone(),
        bootstrap: config.bootstrap.clone(),
        members: (config.membership == Membership::Members).then(|| config.members.clone()),
        peers_target: config.peers as usize,
        is_mdns_enabled: config.mdns,
    }
}

/// How the store is kept, as the settings say.
pub(crate) fn store_options(config: &Config) -> crate::store::Options {
    crate::store::Options {
        free_space_floor_bytes: config.store.free_space_floor.bytes(),
        quota_bytes: config.store.quota.map(|quota| quota.bytes()),
        ..crate::store::Options::default()
    }
}

fn deploy_options(config: &Config) -> DeployOptions {
    let mut limits = Limits::of_this_machine();
    if let Some(memory) = config.deploy.memory {
        limits.all_memory_bytes = memory.bytes();
    }
    DeployOptions { grace: config.deploy.stop_grace, limits, ..DeployOptions::default() }
}

fn unix_listener(socket: std::os::unix::net::UnixListener) -> Result<UnixListener, NodeError> {
    socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket)).map_err(NodeError::Socket)
}

async fn bind_web(address: SocketAddr) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address).await.map_err(|source| NodeError::Web { address, source })
}
