//! The network: one task owns the libp2p swarm, others hold a [`Net`], which is cheap to clone.
//!
//! ```text
//!   discovery ─► swarm task ◄── commands ── Net ◄── gossip (records, live)
//!                    │                       ▲  ◄── sync   (records, catch-up)
//!                    └── streams ────────────┘  ◄── bulk   (chunks)
//! ```
//!
//! Two federations never mix: every protocol name and topic carries the federation's.

pub mod bans;
mod behaviour;
pub mod bulk;
mod corked;
mod discovery;
mod door;
mod frames;
pub mod gossip;
mod swarm;
pub mod sync;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use libp2p::gossipsub::{MessageAcceptance, MessageId};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use rialto_protocol::bounded::Name;
use rialto_protocol::ids::ImageId;
use tokio::sync::{mpsc, oneshot, watch};

use bans::Bans;

/// Commands that wait for the swarm task; who sends more waits.
const COMMAND_QUEUE: usize = 256;
/// Gossip that waits for validation; more is ignored, and catch-up brings it later.
const GOSSIP_QUEUE: usize = 1024;
/// Peers that became ready and wait for catch-up; more wait for its timer.
const READY_QUEUE: usize = 256;

/// What the network needs to know of this site.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The site key.
    pub keypair: Keypair,
    /// The federation.
    pub federation: Name,
    /// Addresses to listen on.
    pub listen: Vec<Multiaddr>,
    /// Addresses under which others reach this node, for nodes behind NAT.
    pub announce: Vec<Multiaddr>,
    /// Addresses to start from.
    pub bootstrap: Vec<Multiaddr>,
    /// In `members` mode, the only sites that may connect.
    pub members: Option<BTreeSet<PeerId>>,
    /// Peers to be connected to, about.
    pub peers_target: usize,
    /// Whether to look for peers on the local network.
    pub is_mdns_enabled: bool,
}

/// Why the network cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A part of the swarm refuses its settings.
    #[error("cannot set up {part}: {reason}")]
    SetUp {
        /// Which.
        part: &'static str,
        /// Why.
        reason: String,
    },
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// Why.
        reason: String,
    },
    /// The swarm task has ended.
    #[error("the network is shutting down")]
    Closed,
}

/// One connected peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerView {
    /// Who.
    pub peer: PeerId,
    /// The address of the (first) connection.
    pub address: Multiaddr,
    /// What it says it runs.
    pub agent: Option<String>,
    /// Round-trip time, once measured.
    pub rtt: Option<Duration>,
    /// Whether it speaks this federation's protocols.
    pub is_of_federation: bool,
}

/// A peer that has said what it speaks, and speaks ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Who.
    pub peer: PeerId,
    /// Whether this node opened the connection: the opener starts catch-up, so that it runs once.
    pub is_ours: bool,
}

/// A message by gossip, to be validated.
#[derive(Debug)]
pub struct Gossip {
    /// The bytes as they came.
    pub bytes: Vec<u8>,
    /// Who passed it on.
    pub from: PeerId,
    /// Its id in the mesh, for the verdict.
    pub id: MessageId,
}

/// What providers are looked up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To be counted.
    Count,
    /// To be spoken with. Kademlia forgets their addresses when the look-up ends, so they are dialled at once.
    Fetch,
}

enum Command {
    Publish {
        envelope: Vec<u8>,
    },
    Verdict {
        id: MessageId,
        from: PeerId,
        acceptance: MessageAcceptance,
    },
    Provide {
        images: Vec<ImageId>,
    },
    StopProviding {
        image: ImageId,
    },
    Providers {
        image: ImageId,
        found: mpsc::Sender<PeerId>,
        purpose: Purpose,
    },
    Reached {
        reply: oneshot::Sender<Vec<Multiaddr>>,
    },
    Forgive {
        peer: PeerId,
    },
    Shutdown {
        done: oneshot::Sender<()>,
    },
    #[cfg(test)]
    Dial {
        address: Multiaddr,
    },
}

/// A handle to the swarm task.
#[derive(Clone)]
pub struct Net {
    local: PeerId,
    federation: Name,
    commands: mpsc::Sender<Command>,
    control: libp2p_stream::Control,
    peers: watch::Receiver<Arc<Vec<PeerView>>>,
    bans: Bans,
}

/// What comes out of the swarm task beside the handle.
pub struct Incoming {
    /// Gossip to be validated; each must get a verdict.
    pub gossip: mpsc::Receiver<Gossip>,
    /// Peers that became ready.
    pub ready: mpsc::Receiver<Ready>,
}

impl Net {
    /// Starts listening and dialling.
    ///
    /// # Errors
    /// Settings that a part refuses, or an address that cannot be listened on.
    pub async fn start(settings: Settings) -> Result<(Self, Incoming), NetError> {
        let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
        let (gossip_sender, gossip) = mpsc::channel(GOSSIP_QUEUE);
        let (ready_sender, ready) = mpsc::channel(READY_QUEUE);
        let (peers_sender, peers) = watch::channel(Arc::default());
        let (local, federation) = (settings.keypair.public().to_peer_id(), settings.federation.clone());
        let bans = Bans::default();
        let outputs =
            swarm::Outputs { gossip: gossip_sender, ready: ready_sender, peers: peers_sender, bans: bans.clone() };
        let control = swarm::spawn(settings, command_queue, outputs).await?;
        Ok((Self { local, federation, commands, control, peers, bans }, Incoming { gossip, ready }))
    }

    /// This site's peer id.
    pub fn local(&self) -> PeerId {
        self.local
    }

    /// Connected peers, kept current.
    pub fn peers(&self) -> watch::Receiver<Arc<Vec<PeerView>>> {
        self.peers.clone()
    }

    /// Connected peers of this federation.
    pub fn federation_peers(&self) -> Vec<PeerId> {
        self.peers.borrow().iter().filter(|peer| peer.is_of_federation).map(|peer| peer.peer).collect()
    }

    /// Whom this node keeps away from.
    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// Forgives a peer everything, gossip included; how many bans that were.
    ///
    /// # Errors
    /// [`NetError::Closed`].
    pub async fn forgive(&self, peer: PeerId) -> Result<usize, NetError> {
        let lifted = self.bans.lift(&peer);
        self.send(Command::Forgive { peer }).await?;
        Ok(lifted)
    }

    /// Addresses under which this node can be dialled, each ending in `/p2p/<peer id>`.
    ///
    /// # Errors
    /// [`NetError::Closed`].
    pub async fn addresses(&self) -> Result<Vec<Multiaddr>, NetError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Reached { reply }).await?;
        answer.await.map_err(|_| NetError::Closed)
    }

    /// Gossips a record; it waits in an outbox while nobody listens.
    ///
    /// # Errors
    /// [`NetError::Closed`].
    pub async fn publish(&self, envelope: Vec<u8>) -> Result<(), NetError> {
        self.send(Command::Publish { envelope }).await
    }

    /// Says what became of a gossip message: whether it is relayed, and whether its sender is penalised.
    ///
    /// # Errors
    /// [`NetError::Closed`].
    pub async fn verdict(&self, id: MessageId, from: PeerId, acceptance: MessageAcceptance) -> Result<(), NetError> {
        self.send(Command::Verdict { id, from, acceptance }).await
    }

    /// Tells the federation that these images are complete here.
    ///
    /// # Errors
    /// [`NetError::Closed`].
    pub async fn provide(&self, images: Vec<ImageId>) -> Result<(), NetError> {
        self.send(Command::Provide { images }).await
    }

    /// Stops telling so.
    ///
    /// # Errors
    /// [`NetError::Closed`].
    pub async fn stop_providing(&self, image: ImageId) -> Result<(), NetError> {
        self.send(Command::StopProviding { image }).await
    }

    /// Looks for sites that say they have the image; they come as they are found, until the look-up ends.
    ///
    /// # Errors
    /// [`NetError::Closed`].
    pub async fn providers(&self, image: ImageId) -> Result<mpsc::Receiver<PeerId>, NetError> {
        self.look_up(image, Purpose::Count).await
    }

    /// Like [`Net::providers`], and dials those that are not connected, while it is known where they are.
    ///
    /// # Errors
    /// [`NetError::Closed`].
    pub async fn find_holders(&self, image: ImageId) -> Result<mpsc::Receiver<PeerId>, NetError> {
        self.look_up(image, Purpose::Fetch).await
    }

    async fn look_up(&self, image: ImageId, purpose: Purpose) -> Result<mpsc::Receiver<PeerId>, NetError> {
        let (found, receiver) = mpsc::channel(64);
        self.send(Command::Providers { image, found, purpose }).await?;
        Ok(receiver)
    }

    /// Opens a stream to a peer, dialling it where it is not connected.
    ///
    /// # Errors
    /// The peer cannot be reached, or does not speak the protocol.
    pub async fn open(
        &self,
        peer: PeerId,
        protocol: Protocol,
    ) -> Result<libp2p::Stream, libp2p_stream::OpenStreamError> {
        self.control.clone().open_stream(peer, protocol.name(&self.federation)).await
    }

    /// Accepts streams of a protocol. Streams that come while nobody takes them are dropped, so the taker only spawns.
    ///
    /// # Errors
    /// Somebody accepts them already.
    pub fn accept(
        &self,
        protocol: Protocol,
    ) -> Result<libp2p_stream::IncomingStreams, libp2p_stream::AlreadyRegistered> {
        self.control.clone().accept(protocol.name(&self.federation))
    }

    /// Closes every connection and ends the task.
    pub async fn shutdown(&self) {
        let (done, ended) = oneshot::channel();
        if self.send(Command::Shutdown { done }).await.is_ok() {
            // An error means that the task has ended already.
            ended.await.ok();
        }
    }

    /// Dials another network of this test.
    #[cfg(test)]
    async fn dial(&self, other: &Self) {
        let address = other.addresses().await.unwrap().remove(0);
        self.send(Command::Dial { address }).await.unwrap();
        testing::acquainted(self, other).await;
    }

    async fn send(&self, command: Command) -> Result<(), NetError> {
        self.commands.send(command).await.map_err(|_| NetError::Closed)
    }
}

/// The stream protocols of a federation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Records, catch-up.
    Sync,
    /// Chunks.
    Swarm,
}

impl Protocol {
    fn name(self, federation: &Name) -> StreamProtocol {
        let part = match self {
            Self::Sync => "sync",
            Self::Swarm => "swarm",
        };
        protocol_name(federation, part)
    }
}

/// `/rialto/<federation>/<part>/1`.
fn protocol_name(federation: &Name, part: &str) -> StreamProtocol {
    // A name has no character that a protocol name could not have, and we put the slash in front ourselves.
    StreamProtocol::try_from_owned(format!("/rialto/{federation}/{part}/1")).unwrap_or(StreamProtocol::new("/rialto"))
}
