//! A peer that keeps to no rule: it speaks a federation's protocols message by message, so that a test or
//! a benchmark decides every byte.
//!
//! It is a member of the federation as far as anyone can see (identify, gossip, streams), with a key of its own.

use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, PublishError, ValidationMode};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, identify, noise, tcp, tls, yamux};
use rialto_protocol::swarm::{ChunkHeader, FrameHead, FrameKind, Message, Ranges};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Long enough for a debug build on a busy machine; nothing here waits without a bound.
const PATIENCE: Duration = Duration::from_secs(30);
/// Far above what an honest node sends: this one must be able to send too much.
const MAX_GOSSIP_BYTES: usize = 1 << 20;
/// Publications that wait for the task.
const COMMAND_QUEUE: usize = 64;

/// All peers of a test share it; it is never dropped, so no test waits for a stream that hangs on purpose.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    built.expect("a runtime")
});

/// Runs asynchronous steps of a test to their end, which must come within 30 s.
pub fn run<T>(steps: impl Future<Output = T>) -> T {
    RUNTIME.block_on(async { timeout(PATIENCE, steps).await.expect("the steps end within 30 s") })
}

/// What a peer does with a stream that a node opens to it.
pub type Script = Arc<dyn Fn(Talk) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// The stream protocols that a script can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Records, catch-up.
    Sync,
    /// Chunks.
    Swarm,
}

/// Bytes to be gossiped, and where to say whether they were.
type Publication = (Vec<u8>, oneshot::Sender<Result<(), PublishError>>);

/// One hostile peer, connected to one node. Dropping it closes its connection.
pub struct Hostile {
    peer: PeerId,
    federation: String,
    target: PeerId,
    control: libp2p_stream::Control,
    commands: mpsc::Sender<Publication>,
    scripts: Arc<Mutex<[Option<Script>; 2]>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    gossip: gossipsub::Behaviour,
    stream: libp2p_stream::Behaviour,
}

impl Hostile {
    /// Connects to the node at `address` (with `/p2p/…`) and returns when that node would hear its gossip.
    pub fn join(federation: &str, address: &str) -> Self {
        run(async {
            let address: Multiaddr = address.parse().expect("an address");
            let target = address.iter().last().and_then(|part| match part {
                libp2p::multiaddr::Protocol::P2p(peer) => Some(peer),
                _ => None,
            });
            let target = target.expect("an address that ends with the node's peer id");
            let topic = IdentTopic::new(format!("/rialto/{federation}/records/1"));
            let mut swarm = swarm(federation, &topic);
            swarm.dial(address).expect("a dial");
            let (peer, control) = (*swarm.local_peer_id(), swarm.behaviour().stream.new_control());
            let scripts: Arc<Mutex<[Option<Script>; 2]>> = Arc::default();
            for part in [Part::Sync, Part::Swarm] {
                answer(&control, federation, part, Arc::clone(&scripts));
            }
            let (commands, queue) = mpsc::channel(COMMAND_QUEUE);
            let (heard, hears) = oneshot::channel();
            let task = tokio::spawn(drive(swarm, topic, queue, heard));
            hears.await.expect("the node subscribes to its federation's records");
            Self { peer, federation: federation.to_owned(), target, control, commands, scripts, task }
        })
    }

    /// Who it is.
    pub fn peer_id(&self) -> String {
        self.peer.to_string()
    }

    /// Gossips these bytes, whatever they are.
    ///
    /// # Errors
    /// They cannot be sent: the node does not listen to this peer any more.
    pub fn gossip(&self, bytes: Vec<u8>) -> Result<(), PublishError> {
        run(async {
            let (reply, answer) = oneshot::channel();
            self.commands.send((bytes, reply)).await.expect("the peer's task runs");
            answer.await.expect("the peer's task answers")
        })
    }

    /// From now on, streams of this kind that the node opens are left to `script`. Before, they are held open in silence.
    pub fn on<F: Future<Output = ()> + Send + 'static>(
        &self,
        part: Part,
        script: impl Fn(Talk) -> F + Send + Sync + 'static,
    ) {
        let script: Script = Arc::new(move |talk| Box::pin(script(talk)));
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner)[part as usize] = Some(script);
    }

    /// Opens a stream to the node.
    ///
    /// # Errors
    /// It is refused.
    pub async fn open(&self, part: Part) -> Result<Talk, String> {
        let opened = self.control.clone().open_stream(self.target, protocol(&self.federation, part)).await;
        opened.map(Talk).map_err(|error| error.to_string())
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A stream, and the ways to say something on it, rightly or wrongly.
pub struct Talk(pub Stream);

impl Talk {
    /// Sends bytes.
    ///
    /// # Errors
    /// The other side has ended the stream.
    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    /// Sends a message of a swarm stream.
    ///
    /// # Errors
    /// The other side has ended the stream.
    pub async fn say(&mut self, message: &Message) -> std::io::Result<()> {
        self.send(&message.frame().map_err(std::io::Error::other)?).await
    }

    /// Says that every chunk is here.
    ///
    /// # Errors
    /// The other side has ended the stream.
    pub async fn claim_everything(&mut self) -> std::io::Result<()> {
        self.say(&Message::Have { is_complete: true, chunks: Ranges::default() }).await
    }

    /// Sends a chunk of a swarm stream: whatever index, encoding and bytes.
    ///
    /// # Errors
    /// The other side has ended the stream.
    pub async fn chunk(&mut self, header: ChunkHeader, bytes: &[u8]) -> std::io::Result<()> {
        self.send(&[&header.frame(bytes.len())[..], bytes].concat()).await
    }

    /// Sends a page of a manifest, whatever it is.
    ///
    /// # Errors
    /// The other side has ended the stream.
    pub async fn page(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let head = FrameHead { kind: FrameKind::Page, length: bytes.len() }.encode();
        self.send(&[&head[..], bytes].concat()).await
    }

    /// The next frame of a swarm stream, undecoded; `None` at its end, orderly or not.
    pub async fn frame(&mut self) -> Option<(FrameKind, Vec<u8>)> {
        let mut head = [0; FrameHead::BYTES];
        self.0.read_exact(&mut head).await.ok()?;
        let head = FrameHead::decode(head).expect("an honest node's frames are in bounds");
        let mut payload = vec![0; head.length];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((head.kind, payload))
    }

    /// The next control message of a swarm stream; `None` at its end.
    pub async fn hear(&mut self) -> Option<Message> {
        let (kind, payload) = self.frame().await?;
        Message::decode(kind, &payload).expect("an honest node's messages are well formed")
    }

    /// Reads on and throws it away until the node ends the stream.
    pub async fn until_closed(&mut self) {
        let mut buffer = [0; 4096];
        while matches!(self.0.read(&mut buffer).await, Ok(1..)) {}
    }
}

fn swarm(federation: &str, topic: &IdentTopic) -> libp2p::Swarm<Behaviour> {
    let behaviour = |key: &libp2p::identity::Keypair| {
        let config = gossipsub::ConfigBuilder::default()
            .protocol_id_prefix(format!("/rialto/{federation}/gossip/1"))
            .validation_mode(ValidationMode::Anonymous)
            .max_transmit_size(MAX_GOSSIP_BYTES)
            .message_id_fn(|message| blake3::hash(&message.data).as_bytes().to_vec().into())
            // It may say the same twice.
            .duplicate_cache_time(Duration::from_millis(1))
            .build()
            .expect("gossip settings");
        let mut gossip = gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, config).expect("gossip");
        gossip.subscribe(topic).expect("a subscription");
        let identify = identify::Config::new(format!("/rialto/{federation}/id/1"), key.public());
        Behaviour { identify: identify::Behaviour::new(identify), gossip, stream: libp2p_stream::Behaviour::new() }
    };
    libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), (tls::Config::new, noise::Config::new), yamux::Config::default)
        .expect("TCP")
        .with_behaviour(behaviour)
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build()
}

async fn drive(
    mut swarm: libp2p::Swarm<Behaviour>,
    topic: IdentTopic,
    mut commands: mpsc::Receiver<Publication>,
    heard: oneshot::Sender<()>,
) {
    let mut heard = Some(heard);
    loop {
        tokio::select! {
            event = swarm.select_next_some() => {
                if let SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Subscribed { .. })) = event
                    && let Some(heard) = heard.take()
                {
                    // The test may have ended meanwhile.
                    heard.send(()).ok();
                }
            }
            command = commands.recv() => {
                let Some((bytes, reply)) = command else { return };
                let published = swarm.behaviour_mut().gossip.publish(topic.clone(), bytes).map(drop);
                reply.send(published).ok();
            }
        }
    }
}

fn answer(control: &libp2p_stream::Control, federation: &str, part: Part, scripts: Arc<Mutex<[Option<Script>; 2]>>) {
    let mut incoming = control.clone().accept(protocol(federation, part)).expect("nobody else accepts");
    tokio::spawn(async move {
        while let Some((_, stream)) = incoming.next().await {
            let script = scripts.lock().unwrap_or_else(PoisonError::into_inner)[part as usize].clone();
            tokio::spawn(async move {
                match script {
                    Some(script) => script(Talk(stream)).await,
                    None => Talk(stream).until_closed().await,
                }
            });
        }
    });
}

fn protocol(federation: &str, part: Part) -> StreamProtocol {
    let part = match part {
        Part::Sync => "sync",
        Part::Swarm => "swarm",
    };
    StreamProtocol::try_from_owned(format!("/rialto/{federation}/{part}/1")).expect("a protocol name")
}
