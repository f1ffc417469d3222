//! What the libp2p swarm is made of, and every parameter with its reason.

use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::allow_block_list::{self, AllowedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::gossipsub::{self, IdentTopic};
use libp2p::kad::{self, store::MemoryStore, store::MemoryStoreConfig};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{identify, mdns, ping};
use rialto_protocol::bounded::Name;
use rialto_protocol::ids::Hash;

use super::door::Door;
use super::{NetError, Settings, protocol_name};

/// Connections that are being negotiated; a stranger that opens and stalls holds one of these for 10 s at most.
const MAX_PENDING: u32 = 64;
/// Connections in all: far above any target, far below what a process can hold.
const MAX_CONNECTIONS: u32 = 256;
/// Connections that others opened: below the whole, so that no crowd of strangers keeps us from dialling whom we want.
const MAX_INCOMING: u32 = 192;
/// Connections of one peer: two sites that dial each other at once have two, each transport doubles that.
const MAX_CONNECTIONS_PER_PEER: u32 = 4;
/// Provider records kept for others, by image. The default of 1,024 is fewer than the images of one large site.
const MAX_PROVIDED_KEYS: usize = 65_536;
/// Gossip of at most this length; an envelope is 52 KiB.
const MAX_GOSSIP_BYTES: usize = 64 * 1024;

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    door: Door,
    members: Toggle<allow_block_list::Behaviour<AllowedPeers>>,
    pub(super) identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(super) gossip: gossipsub::Behaviour,
    pub(super) kad: kad::Behaviour<MemoryStore>,
    mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) stream: libp2p_stream::Behaviour,
}

impl Behaviour {
    pub(super) fn new(settings: &Settings) -> Result<Self, NetError> {
        let local = settings.keypair.public().to_peer_id();
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(MAX_PENDING))
            .with_max_pending_outgoing(Some(MAX_PENDING))
            .with_max_established(Some(MAX_CONNECTIONS))
            .with_max_established_incoming(Some(MAX_INCOMING))
            .with_max_established_per_peer(Some(MAX_CONNECTIONS_PER_PEER));
        let members = settings.members.as_ref().map(|members| {
            let mut allowed = allow_block_list::Behaviour::<AllowedPeers>::default();
            for member in members {
                allowed.allow_peer(*member);
            }
            allowed
        });
        let identify = identify::Behaviour::new(
            identify::Config::new(protocol_name(&settings.federation, "id").to_string(), settings.keypair.public())
                .with_agent_version(concat!("rialto/", env!("CARGO_PKG_VERSION")).to_owned())
                .with_push_listen_addr_updates(true),
        );
        let mdns = match settings.is_mdns_enabled {
            true => Some(
                mdns::tokio::Behaviour::new(mdns::Config::default(), local).map_err(|error| set_up("mDNS", error))?,
            ),
            false => None,
        };
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            door: Door::default(),
            members: members.into(),
            identify,
            ping: ping::Behaviour::default(),
            gossip: gossip(&settings.federation)?,
            kad: kad(local, &settings.federation),
            mdns: mdns.into(),
            stream: libp2p_stream::Behaviour::new(),
        })
    }
}

/// The topic of a federation's records.
pub(super) fn topic(federation: &Name) -> IdentTopic {
    IdentTopic::new(format!("/rialto/{federation}/records/1"))
}

fn gossip(federation: &Name) -> Result<gossipsub::Behaviour, NetError> {
    let config = gossipsub::ConfigBuilder::default()
        .protocol_id_prefix(protocol_name(federation, "gossip").to_string())
        // Nothing is relayed before its form and signatures are checked.
        .validate_messages()
        // Records carry their own signatures: who published one into the mesh is nobody's business.
        .validation_mode(gossipsub::ValidationMode::Anonymous)
        .message_id_fn(|message| Hash::of(&message.data).0.to_vec().into())
        .max_transmit_size(MAX_GOSSIP_BYTES)
        .build()
        .map_err(|error| set_up("gossip", error))?;
    let mut behaviour = gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Anonymous, config)
        .map_err(|error| set_up("gossip", error))?;
    let (params, thresholds) = scores(federation);
    behaviour.with_peer_score(params, thresholds).map_err(|error| set_up("gossip scores", error))?;
    behaviour.subscribe(&topic(federation)).map_err(|error| set_up("gossip", error))?;
    Ok(behaviour)
}

/// How peers are scored. Only what is certainly misbehaviour costs: a federation's topic is quiet for hours, so missing
/// deliveries say nothing (their weights are 0), and sites behind one address are common in one organisation. What the
/// parameters mean: gossipsub 1.1, "Peer Scoring", https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.1.md
fn scores(federation: &Name) -> (gossipsub::PeerScoreParams, gossipsub::PeerScoreThresholds) {
    let topic_params = gossipsub::TopicScoreParams {
        // There is one topic, so the scale is ours to choose.
        topic_weight: 1.0,
        // P1: at most 1 for having been there for 100 s; enough to prefer old neighbours, too little to pay for a bad record.
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 100.0,
        // P2: at most 5 for news; who is quick stays in the mesh.
        first_message_deliveries_weight: 0.1,
        first_message_deliveries_decay: 0.9,
        first_message_deliveries_cap: 50.0,
        // P3: off. It punishes who delivers too little, and here there is nothing to deliver for hours.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // P4, squared: three bad messages cost 90, which ends gossip with the peer until they decay, in about two minutes.
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: 0.99,
        ..gossipsub::TopicScoreParams::default()
    };
    let params = gossipsub::PeerScoreParams {
        topics: [(topic(federation).hash(), topic_params)].into(),
        // What a peer earns above cannot hide what it costs below: the cap is on the sum of the topics.
        topic_score_cap: 10.0,
        // P5: only for peers that an administrator forgave.
        app_specific_weight: 1.0,
        // P6: off, see above.
        ip_colocation_factor_weight: 0.0,
        // P7, squared beyond 6: broken promises and re-grafting too soon, of which an honest peer has a few on a bad link.
        behaviour_penalty_weight: -1.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: 0.9,
        // Its queue is full: it costs, and never so much that gossip with it ends.
        slow_peer_weight: -0.05,
        slow_peer_threshold: 10.0,
        ..gossipsub::PeerScoreParams::default()
    };
    let thresholds = gossipsub::PeerScoreThresholds {
        // One bad message costs 10 and nothing else, two end the exchange of what is there, three the exchange of records.
        gossip_threshold: -20.0,
        publish_threshold: -40.0,
        graylist_threshold: -80.0,
        // Nobody's word on who else is there is taken in this way: that is Kademlia's business.
        accept_px_threshold: 1000.0,
        opportunistic_graft_threshold: 1.0,
    };
    (params, thresholds)
}

fn kad(local: libp2p::PeerId, federation: &Name) -> kad::Behaviour<MemoryStore> {
    let store = MemoryStore::with_config(
        local,
        MemoryStoreConfig { max_provided_keys: MAX_PROVIDED_KEYS, max_records: 0, ..MemoryStoreConfig::default() },
    );
    let mut config = kad::Config::new(protocol_name(federation, "kad"));
    config
        // Provider records pass our filter; values are never stored.
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_replication_factor(NonZeroUsize::new(8).unwrap_or(NonZeroUsize::MIN))
        .set_provider_publication_interval(Some(Duration::from_secs(6 * 3600)))
        .set_query_timeout(Duration::from_secs(20))
        .set_periodic_bootstrap_interval(Some(Duration::from_secs(300)));
    let mut kad = kad::Behaviour::with_config(local, store, config);
    // Every node serves: it would wait for a confirmed external address otherwise, which a site behind NAT never has.
    kad.set_mode(Some(kad::Mode::Server));
    kad
}

pub(super) fn set_up(part: &'static str, reason: impl std::fmt::Display) -> NetError {
    NetError::SetUp { part, reason: reason.to_string() }
}
