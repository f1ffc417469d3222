//! The task that owns the libp2p swarm. Nothing in its loop waits for anyone: what others are slow to take is dropped and counted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::allow_block_list::NotAllowed;
use libp2p::core::ConnectedPoint;
use libp2p::gossipsub::{self, MessageAcceptance, PublishError};
use libp2p::identity::Keypair;
use libp2p::kad::store::RecordStore as _;
use libp2p::kad::{self, GetProvidersOk, QueryId, QueryResult, RecordKey};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ListenError, SwarmEvent, dial_opts};
use libp2p::{Multiaddr, PeerId, Swarm, identify, mdns, noise, ping, tcp, tls, yamux};
use rialto_protocol::allowance::{Allowance, Quota};
use rialto_protocol::ids::ImageId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::bans::{Bans, Offence};
use super::behaviour::{Behaviour, BehaviourEvent, set_up, topic};
use super::corked::Corking;
use super::discovery::{Dialer, peer_of, with_peer};
use super::{Command, Gossip, NetError, PeerView, Protocol, Purpose, Ready, Settings};

/// How often the task looks whom to dial.
const DIAL_TICK: Duration = Duration::from_millis(250);
/// While there are too few peers, how often the federation is asked for more.
const SEARCH_EVERY: Duration = Duration::from_secs(5);
/// Dials to peers beyond the bootstrap ones that a tick may start.
const DIALS_A_TICK: usize = 4;
/// Records that wait for somebody to listen; catch-up brings what does not fit.
const MAX_OUTBOX: usize = 1024;
/// Addresses of one peer that are kept, of all that it claims.
const MAX_ADDRESSES: usize = 16;
/// Look-ups for providers at once; more are answered from connected peers only.
const MAX_LOOKUPS: usize = 64;
/// Sites that one answer of a look-up may have dialled.
const DIALS_A_LOOKUP: usize = 8;
/// Images that are announced at the same time: each is a query of its own, and a site may have thousands.
const MAX_ANNOUNCING: usize = 16;
/// An announcement that nobody took is repeated after this.
const ANNOUNCE_RETRY: Duration = Duration::from_secs(60);
/// Provider records that one peer may bring within [`PROVIDED_WINDOW`]; honest sites repeat each of theirs within it.
const MAX_PROVIDED_PER_PEER: u32 = 16_384;
/// When the count of provider records begins anew.
const PROVIDED_WINDOW: Duration = Duration::from_secs(6 * 3600);
/// Addresses kept with a provider record, and the longest of them: what a stranger can make us remember.
const MAX_PROVIDER_ADDRESSES: (usize, usize) = (8, 128);
/// A peer that has not said by then that it is of this federation gives its connection back.
const STRANGER: Duration = Duration::from_secs(30);
/// Messages and bytes of gossip that one peer may bring. A neighbour in the mesh passes on the news of the whole federation,
/// and a site that publishes a thousand records at once is no flooder; what is checked here is a few thousand a second.
const GOSSIP_QUOTAS: [Quota; 2] =
    [Quota { most: 5_000, per_second: 500 }, Quota { most: 32 << 20, per_second: 4 << 20 }];
/// Peers whose share is remembered: more than can be connected.
const MAX_SHARES: usize = 1_024;
/// How long it is shown that a peer sent more than its share.
const TOO_MUCH_SHOWN: Duration = Duration::from_secs(60);
/// What gossip adds to the score of a peer that was forgiven, and for how long: three bad messages cost 90, and decay to
/// nothing in that time.
const FORGIVEN: (f64, Duration) = (200.0, Duration::from_secs(600));
/// How long connections may take to be closed in order.
const CLOSE: Duration = Duration::from_secs(1);

pub(super) struct Outputs {
    pub(super) gossip: mpsc::Sender<Gossip>,
    pub(super) ready: mpsc::Sender<Ready>,
    pub(super) peers: watch::Sender<Arc<Vec<PeerView>>>,
    pub(super) bans: Bans,
}

/// Builds the swarm, listens, and spawns the task.
pub(super) async fn spawn(
    settings: Settings,
    commands: mpsc::Receiver<Command>,
    outputs: Outputs,
) -> Result<libp2p_stream::Control, NetError> {
    let mut swarm = build(&settings)?;
    for address in &settings.listen {
        swarm.listen_on(address.clone()).map_err(|error| listen_error(address, error))?;
    }
    for address in &settings.announce {
        swarm.add_external_address(address.clone());
    }
    let early = await_listeners(&mut swarm, settings.listen.len()).await?;
    let control = swarm.behaviour().stream.new_control();
    let local = *swarm.local_peer_id();
    let seed = local.to_bytes().iter().fold(0u64, |seed, &byte| seed.rotate_left(7) ^ u64::from(byte));
    let task = Task {
        swarm,
        sync_protocol: Protocol::Sync.name(&settings.federation),
        topic: topic(&settings.federation),
        dialer: Dialer::new(settings.bootstrap.iter().filter(|a| peer_of(a) != Some(local)).cloned().collect(), seed),
        peers_target: settings.peers_target,
        started: Instant::now(),
        search_at: Duration::ZERO,
        peers: BTreeMap::new(),
        is_peers_changed: false,
        ready: Vec::new(),
        outbox: VecDeque::new(),
        lookups: HashMap::new(),
        to_announce: VecDeque::new(),
        announcing: HashMap::new(),
        announce_again: (Duration::ZERO, BTreeSet::new()),
        provided: (Duration::ZERO, HashMap::new()),
        gossip_share: Allowance::new(GOSSIP_QUOTAS, MAX_SHARES),
        forgiven: BTreeMap::new(),
        outputs,
    };
    tokio::spawn(task.run(commands, early));
    Ok(control)
}

fn build(settings: &Settings) -> Result<Swarm<Behaviour>, NetError> {
    let behaviour = Behaviour::new(settings)?;
    Ok(libp2p::SwarmBuilder::with_existing_identity(settings.keypair.clone())
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            (|key: &Keypair| tls::Config::new(key).map(Corking), |key: &Keypair| noise::Config::new(key).map(Corking)),
            yamux::Config::default,
        )
        .map_err(|error| set_up("TCP", error))?
        .with_quic()
        .with_dns()
        .map_err(|error| set_up("DNS", error))?
        .with_behaviour(|_| behaviour)
        .map_err(|error| set_up("the swarm", error))?
        // Connections are few and wanted: they stay while nothing is said.
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(24 * 3600)))
        .build())
}

/// Says why a connection did not come about; whether the list of members kept it out. Whom that keeps out, an administrator
/// may have forgotten to put on it.
fn is_not_a_member(address: &Multiaddr, error: ListenError) -> bool {
    match error {
        ListenError::Denied { cause } => match cause.downcast::<NotAllowed>() {
            Ok(kept_out) => {
                tracing::info!(%address, "kept out: {kept_out}");
                return true;
            }
            Err(cause) => tracing::debug!(%address, %cause, "a connection is refused"),
        },
        error => tracing::debug!(%address, %error, "a connection did not come about"),
    }
    false
}

fn listen_error(address: &Multiaddr, reason: impl std::fmt::Display) -> NetError {
    NetError::Listen { address: address.clone(), reason: reason.to_string() }
}

/// Waits until every listener has an address, so that `ready` means that the node can be dialled. What else happened
/// meanwhile comes back: others may have been quick to connect.
async fn await_listeners(swarm: &mut Swarm<Behaviour>, count: usize) -> Result<Vec<Event>, NetError> {
    let (mut listening, mut early) = (HashSet::new(), Vec::new());
    while listening.len() < count {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                tracing::info!(%address, "listening");
                listening.insert(listener_id);
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                let address = addresses.first().cloned().unwrap_or_else(Multiaddr::empty);
                return Err(listen_error(&address, reason.err().map_or("closed".into(), |error| error.to_string())));
            }
            event => early.push(event),
        }
    }
    Ok(early)
}

type Event = SwarmEvent<BehaviourEvent>;

struct Task {
    swarm: Swarm<Behaviour>,
    sync_protocol: libp2p::StreamProtocol,
    topic: gossipsub::IdentTopic,
    dialer: Dialer,
    peers_target: usize,
    started: Instant,
    search_at: Duration,
    peers: BTreeMap<PeerId, Connected>,
    is_peers_changed: bool,
    /// Told once the list of peers has them.
    ready: Vec<Ready>,
    outbox: VecDeque<Vec<u8>>,
    lookups: HashMap<QueryId, (mpsc::Sender<PeerId>, Purpose)>,
    /// Images to be announced, those that are being announced, and those for a later time.
    to_announce: VecDeque<ImageId>,
    announcing: HashMap<QueryId, ImageId>,
    announce_again: (Duration, BTreeSet<ImageId>),
    /// Provider records that each peer brought, since when.
    provided: (Duration, HashMap<PeerId, u32>),
    gossip_share: Allowance<PeerId, 2>,
    /// Until when gossip looks at a peer with mercy.
    forgiven: BTreeMap<PeerId, Duration>,
    outputs: Outputs,
}

struct Connected {
    view: PeerView,
    is_ours: bool,
    since: Duration,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, early: Vec<Event>) {
        let mut tick = tokio::time::interval(DIAL_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for event in early {
            self.event(event);
        }
        loop {
            self.tell();
            tokio::select! {
                event = self.swarm.select_next_some() => self.event(event),
                command = commands.recv() => match command {
                    Some(Command::Shutdown { done }) => return self.close(done).await,
                    Some(command) => self.command(command),
                    None => return,
                },
                _ = tick.tick() => self.tick(),
            }
        }
    }

    /// Tells of peers that came, changed or left.
    fn tell(&mut self) {
        if std::mem::take(&mut self.is_peers_changed) {
            let views = self.peers.values().map(|peer| peer.view.clone()).collect();
            self.outputs.peers.send_replace(Arc::new(views));
        }
        // After the list, so that whoever hears of a peer finds it there.
        for ready in self.ready.drain(..) {
            if self.outputs.ready.try_send(ready).is_err() {
                tracing::debug!(peer = %ready.peer, "catch-up waits for its timer");
            }
        }
    }

    /// Says goodbye: a connection that is only dropped is noticed by its other side much later.
    async fn close(mut self, done: oneshot::Sender<()>) {
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            // An error means that it is gone already.
            self.swarm.disconnect_peer_id(peer).ok();
        }
        let closing = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        if tokio::time::timeout(CLOSE, closing).await.is_err() {
            tracing::debug!("some connections were cut");
        }
        drop(self);
        done.send(()).ok();
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Publish { envelope } => {
                self.outbox.push_back(envelope);
                if self.outbox.len() > MAX_OUTBOX {
                    self.outbox.pop_front();
                }
                self.empty_outbox();
            }
            Command::Verdict { id, from, acceptance } => {
                // `false` where the message has left the cache meanwhile: there is nothing to relay then.
                self.swarm.behaviour_mut().gossip.report_message_validation_result(&id, &from, acceptance);
            }
            Command::Provide { images } => {
                self.to_announce.extend(images);
                self.announce();
            }
            Command::StopProviding { image } => {
                self.to_announce.retain(|waiting| *waiting != image);
                self.announce_again.1.remove(&image);
                self.swarm.behaviour_mut().kad.stop_providing(&key(&image));
            }
            Command::Providers { image, found, purpose } => {
                if self.lookups.len() < MAX_LOOKUPS {
                    let query = self.swarm.behaviour_mut().kad.get_providers(key(&image));
                    self.lookups.insert(query, (found, purpose));
                }
            }
            Command::Reached { reply } => {
                // Who asked may have left.
                reply.send(self.addresses()).ok();
            }
            Command::Forgive { peer } => {
                let (score, lasts) = FORGIVEN;
                self.swarm.behaviour_mut().gossip.set_application_score(&peer, score);
                self.forgiven.insert(peer, self.started.elapsed() + lasts);
            }
            Command::Shutdown { .. } => {}
            #[cfg(test)]
            Command::Dial { address } => self.dial(DialOpts::from(address)),
        }
    }

    fn addresses(&self) -> Vec<Multiaddr> {
        let local = *self.swarm.local_peer_id();
        let announced = self.swarm.external_addresses().cloned();
        let mut addresses: Vec<Multiaddr> = Vec::new();
        for address in announced.chain(self.swarm.listeners().cloned()).map(|address| with_peer(address, local)) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// Announces images, a few at a time.
    fn announce(&mut self) {
        while self.announcing.len() < MAX_ANNOUNCING
            && let Some(image) = self.to_announce.pop_front()
        {
            match self.swarm.behaviour_mut().kad.start_providing(key(&image)) {
                Ok(query) => drop(self.announcing.insert(query, image)),
                Err(error) => {
                    tracing::warn!(%image, %error, "cannot announce an image; connected peers still find it here");
                }
            }
        }
    }

    fn empty_outbox(&mut self) {
        while let Some(envelope) = self.outbox.front() {
            match self.swarm.behaviour_mut().gossip.publish(self.topic.hash(), envelope.clone()) {
                // A duplicate is on its way already.
                Ok(_) | Err(PublishError::Duplicate) => {}
                Err(PublishError::NoPeersSubscribedToTopic | PublishError::AllQueuesFull(_)) => return,
                Err(error) => tracing::error!(%error, "a record cannot be gossiped"),
            }
            self.outbox.pop_front();
        }
    }

    fn tick(&mut self) {
        let now = self.started.elapsed();
        let peers = &self.peers;
        let of_federation = peers.values().filter(|peer| peer.view.is_of_federation).count();
        // Who connects and turns us away, or is of another federation, is not what we look for.
        let is_settled = |peer: &PeerId| peers.get(peer).is_some_and(|peer| peer.view.is_of_federation);
        for address in self.dialer.due(now, is_settled, of_federation) {
            self.dial(DialOpts::from(address));
        }
        self.empty_outbox();
        self.end_idle_lookups();
        self.turn_strangers_away(now);
        self.end_mercy(now);
        if now >= self.announce_again.0 {
            self.announce_again.0 = now + ANNOUNCE_RETRY;
            self.to_announce.extend(std::mem::take(&mut self.announce_again.1));
            self.announce();
        }
        if of_federation >= self.peers_target {
            return;
        }
        for peer in self.candidates(self.peers_target - of_federation, now) {
            self.dial(DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).build());
        }
        if now >= self.search_at && of_federation > 0 {
            self.search_at = now + SEARCH_EVERY;
            self.swarm.behaviour_mut().kad.get_closest_peers(PeerId::random());
        }
    }

    /// Ends look-ups whose answer nobody waits for any more: there are only so many.
    fn end_idle_lookups(&mut self) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        self.lookups.retain(|id, (found, _)| {
            if found.is_closed()
                && let Some(mut query) = kad.query_mut(id)
            {
                query.finish();
            }
            !found.is_closed()
        });
    }

    /// Gossip looks at everybody in the same way again.
    fn end_mercy(&mut self, now: Duration) {
        let over: Vec<PeerId> =
            self.forgiven.iter().filter(|(_, until)| **until <= now).map(|(peer, _)| *peer).collect();
        for peer in over {
            self.forgiven.remove(&peer);
            self.swarm.behaviour_mut().gossip.set_application_score(&peer, 0.0);
        }
    }

    /// Connections are limited in number: those that are none of this federation's are not kept.
    fn turn_strangers_away(&mut self, now: Duration) {
        let is_stranger = |peer: &&Connected| !peer.view.is_of_federation && now.saturating_sub(peer.since) > STRANGER;
        let strangers: Vec<PeerId> = self.peers.values().filter(is_stranger).map(|peer| peer.view.peer).collect();
        for peer in strangers {
            tracing::debug!(%peer, "does not speak this federation's protocols");
            // An error means that it is gone already.
            self.swarm.disconnect_peer_id(peer).ok();
        }
    }

    /// Peers of the routing table that are not connected and may be tried.
    fn candidates(&mut self, wanted: usize, now: Duration) -> Vec<PeerId> {
        let mut known: Vec<PeerId> = Vec::new();
        for bucket in self.swarm.behaviour_mut().kad.kbuckets() {
            known.extend(bucket.iter().map(|entry| *entry.node.key.preimage()));
        }
        known.retain(|peer| !self.peers.contains_key(peer));
        known.into_iter().filter(|&peer| self.dialer.may_dial(peer, now)).take(wanted.min(DIALS_A_TICK)).collect()
    }

    fn dial(&mut self, options: dial_opts::DialOpts) {
        if let Err(error) = self.swarm.dial(options) {
            tracing::debug!(%error, "dial not started");
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            SwarmEvent::Behaviour(event) => self.behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => self.connected(peer_id, &endpoint),
            SwarmEvent::ConnectionClosed { peer_id, num_established, .. } => self.closed(peer_id, num_established),
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                tracing::debug!(?peer_id, %error, "cannot connect");
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => self.refused(&send_back_addr, error),
            SwarmEvent::NewListenAddr { address, .. } => tracing::info!(%address, "listening"),
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener failed"),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::error!(?addresses, ?reason, "no longer listening");
            }
            _ => {}
        }
    }

    fn refused(&self, address: &Multiaddr, error: ListenError) {
        if is_not_a_member(address, error) {
            self.outputs.bans.turned_away();
        }
    }

    fn connected(&mut self, peer: PeerId, endpoint: &ConnectedPoint) {
        if self.peers.contains_key(&peer) {
            return;
        }
        self.is_peers_changed = true;
        tracing::info!(%peer, address = %endpoint.get_remote_address(), "connected");
        let view = PeerView {
            peer,
            address: endpoint.get_remote_address().clone(),
            agent: None,
            rtt: None,
            is_of_federation: false,
        };
        self.peers.insert(peer, Connected { view, is_ours: endpoint.is_dialer(), since: self.started.elapsed() });
    }

    fn closed(&mut self, peer: PeerId, remaining: u32) {
        if remaining > 0 {
            return;
        }
        if self.peers.remove(&peer).is_some() {
            tracing::info!(%peer, "disconnected");
            self.is_peers_changed = true;
        }
    }

    fn behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => self.identified(peer_id, info),
            BehaviourEvent::Ping(ping::Event { peer, result: Ok(rtt), .. }) => {
                if let Some(known) = self.peers.get_mut(&peer) {
                    self.is_peers_changed |= known.view.rtt.is_none();
                    known.view.rtt = Some(rtt);
                }
            }
            // The first failure is free, so this is the second in a row: a machine that lost its power says no goodbye.
            BehaviourEvent::Ping(ping::Event {
                peer,
                connection,
                result: Err(error @ (ping::Failure::Timeout | ping::Failure::Other { .. })),
            }) => {
                tracing::info!(%peer, %error, "a connection is dead");
                self.swarm.close_connection(connection);
            }
            BehaviourEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                self.gossiped(Gossip { bytes: message.data, from: propagation_source, id: message_id });
            }
            BehaviourEvent::Gossip(gossipsub::Event::Subscribed { .. }) => self.empty_outbox(),
            BehaviourEvent::Kad(event) => self.kad_event(event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                let now = self.started.elapsed();
                for (peer, address) in found {
                    if !self.peers.contains_key(&peer) && self.dialer.may_dial(peer, now) {
                        self.dial(DialOpts::peer_id(peer).addresses(vec![address]).build());
                    }
                }
            }
            _ => {}
        }
    }

    fn identified(&mut self, peer: PeerId, identity: identify::Info) {
        let is_of_federation = identity.protocols.contains(&self.sync_protocol);
        if is_of_federation {
            self.dialer.connected(&peer);
            for address in identity.listen_addrs.into_iter().take(MAX_ADDRESSES) {
                self.swarm.behaviour_mut().kad.add_address(&peer, address);
            }
        }
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let is_news = is_of_federation && !known.view.is_of_federation;
        known.view.agent = Some(identity.agent_version.chars().filter(|c| !c.is_control()).take(64).collect());
        known.view.is_of_federation = is_of_federation;
        self.is_peers_changed = true;
        if is_news {
            self.ready.push(Ready { peer, is_ours: known.is_ours });
        }
    }

    fn gossiped(&mut self, gossip: Gossip) {
        let (from, length) = (gossip.from, gossip.bytes.len() as u64);
        if !self.gossip_share.take(&from, [1, length], self.started.elapsed()) {
            // Neither relayed nor held against it, for others may have had it pass this on; catch-up brings it later.
            let why = "it brings more gossip than its share; what is beyond that is not taken";
            if self.outputs.bans.ban(from, Offence::TooMuch, why, TOO_MUCH_SHOWN) {
                tracing::warn!(peer = %from, "{why}");
            }
            let acceptance = MessageAcceptance::Ignore;
            self.swarm.behaviour_mut().gossip.report_message_validation_result(&gossip.id, &from, acceptance);
            return;
        }
        if let Err(refused) = self.outputs.gossip.try_send(gossip) {
            // Too much at once: neither relayed nor held against the sender; catch-up brings it later.
            let Gossip { from, id, .. } = refused.into_inner();
            let acceptance = MessageAcceptance::Ignore;
            self.swarm.behaviour_mut().gossip.report_message_validation_result(&id, &from, acceptance);
        }
    }

    fn kad_event(&mut self, event: kad::Event) {
        match event {
            kad::Event::InboundRequest { request: kad::InboundRequest::AddProvider { record: Some(record) } } => {
                self.keep_provider(record);
            }
            kad::Event::OutboundQueryProgressed { id, result: QueryResult::GetProviders(result), step, .. } => {
                if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = result {
                    self.found(id, providers);
                }
                if step.last {
                    self.lookups.remove(&id);
                }
            }
            kad::Event::OutboundQueryProgressed { id, result: QueryResult::StartProviding(result), .. } => {
                if let Some(image) = self.announcing.remove(&id)
                    && result.is_err()
                {
                    self.announce_again.1.insert(image);
                }
                self.announce();
            }
            _ => {}
        }
    }

    fn found(&mut self, lookup: QueryId, providers: HashSet<PeerId>) {
        let Some((found, purpose)) = self.lookups.get(&lookup) else { return };
        let local = *self.swarm.local_peer_id();
        let mut unknown = Vec::new();
        for provider in providers.into_iter().filter(|provider| *provider != local) {
            if *purpose == Purpose::Fetch && !self.peers.contains_key(&provider) {
                unknown.push(provider);
            }
            // A full queue means that there are more providers than the fetch can use.
            found.try_send(provider).ok();
        }
        let now = self.started.elapsed();
        unknown.retain(|provider| self.dialer.may_dial(*provider, now));
        for provider in unknown.into_iter().take(DIALS_A_LOOKUP) {
            self.dial(DialOpts::peer_id(provider).condition(PeerCondition::DisconnectedAndNotDialing).build());
        }
    }

    /// Keeps what a peer says that it provides. Kademlia has checked that it speaks for itself, and the store bounds keys
    /// and providers of a key.
    fn keep_provider(&mut self, mut record: kad::ProviderRecord) {
        let now = self.started.elapsed();
        if now >= self.provided.0 {
            self.provided = (now + PROVIDED_WINDOW, HashMap::new());
        }
        let brought = self.provided.1.entry(record.provider).or_default();
        *brought = brought.saturating_add(1);
        if *brought > MAX_PROVIDED_PER_PEER || record.key.as_ref().len() != IMAGE_KEY_BYTES {
            return;
        }
        let (most, longest) = MAX_PROVIDER_ADDRESSES;
        record.addresses.retain(|address| address.len() <= longest);
        record.addresses.truncate(most);
        if let Err(error) = self.swarm.behaviour_mut().kad.store_mut().add_provider(record) {
            tracing::debug!(%error, "a provider record is not kept");
        }
    }
}

/// Length of an image's key.
const IMAGE_KEY_BYTES: usize = 32;

/// The key of an image's provider records: the hash of its root, 32 bytes.
fn key(image: &ImageId) -> RecordKey {
    RecordKey::new(&image.hash().0)
}
