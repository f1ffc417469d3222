//! Records, catch-up: the shell around the state machines of `protocol`, on connect and on a timer.
//!
//! News that came by catch-up is not gossiped again. Instead the other peers are caught up with soon after, so that what
//! healed one link reaches everybody, however the sites are connected.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncWriteExt as _, StreamExt as _};
use libp2p::{PeerId, Stream};
use rialto_protocol::ids::Hash;
use rialto_protocol::sync::{Initiator, MAX_MESSAGE_BYTES, Message, Responder, SyncError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::behaviour::set_up;
use super::frames::{invalid, read_message, write_message};
use super::gossip::{Records, Taken};
use super::seats::Seats;
use super::{Net, NetError, Protocol, Ready};

/// Sessions that this node answers at once; more are closed, and come again by the opener's timer.
const MAX_ANSWERED: usize = 16;
/// Of these, sessions of one peer: an honest one opens one at a time, and may reconnect before the last has ended.
const MAX_ANSWERED_PER_PEER: usize = 2;
/// Sessions that this node has open at once.
const MAX_OPENED: usize = 4;
/// How often a peer is caught up with where nothing happens.
const EVERY: Duration = Duration::from_secs(60);
/// After news, the others are caught up with this much later: one session for all the news of a moment.
const SOON: Duration = Duration::from_millis(300);
/// A session that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
/// A message that does not come in this time does not come.
const PATIENCE: Duration = Duration::from_secs(20);
/// Records that a session may bring while they are checked and stored.
const MAX_UNSTORED: usize = 2_000;

/// Answers catch-up and starts it, until `shutdown`.
///
/// # Errors
/// It runs already.
pub fn spawn(
    net: Net,
    records: Arc<dyn Records>,
    ready: mpsc::Receiver<Ready>,
    shutdown: CancellationToken,
) -> Result<(), NetError> {
    let mut incoming = net.accept(Protocol::Sync).map_err(|_| set_up("the sync protocol", "it runs already"))?;
    let (news, heard_news) = mpsc::channel(1);
    let answering = {
        let (records, shutdown, news) = (Arc::clone(&records), shutdown.clone(), news.clone());
        async move {
            let seats = Seats::new(MAX_ANSWERED, MAX_ANSWERED_PER_PEER);
            while let Some((peer, stream)) = incoming.next().await {
                let Some(seat) = seats.take(peer) else { continue };
                let (records, news, shutdown) = (Arc::clone(&records), news.clone(), shutdown.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        result = answer(stream, peer, records) => note(peer, result, &news),
                    }
                    drop(seat);
                });
            }
        }
    };
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(answering));
    tokio::spawn(shutdown.run_until_cancelled_owned(Opening::new(net, records, news).run(ready, heard_news)));
    Ok(())
}

fn note(peer: PeerId, result: io::Result<usize>, news: &mpsc::Sender<PeerId>) {
    match result {
        Ok(0) => {}
        Ok(gained) => {
            tracing::info!(%peer, gained, "caught up");
            // A full queue already tells of news.
            news.try_send(peer).ok();
        }
        Err(error) => tracing::debug!(%peer, %error, "catch-up ended early"),
    }
}

/// Whom to catch up with, and when.
struct Opening {
    net: Net,
    records: Arc<dyn Records>,
    news: mpsc::Sender<PeerId>,
    due: BTreeMap<PeerId, Instant>,
    underway: BTreeSet<PeerId>,
}

impl Opening {
    fn new(net: Net, records: Arc<dyn Records>, news: mpsc::Sender<PeerId>) -> Self {
        Self { net, records, news, due: BTreeMap::new(), underway: BTreeSet::new() }
    }

    async fn run(mut self, mut ready: mpsc::Receiver<Ready>, mut heard_news: mpsc::Receiver<PeerId>) {
        let mut sessions: JoinSet<(PeerId, io::Result<usize>)> = JoinSet::new();
        let mut peers = self.net.peers();
        loop {
            let next = self.next_due();
            tokio::select! {
                Some(Ready { peer, is_ours }) = ready.recv() => {
                    // The opener of the connection starts at once, the other side is a backstop.
                    self.due.insert(peer, Instant::now() + if is_ours { Duration::ZERO } else { RETRY });
                }
                Some(source) = heard_news.recv() => self.all_soon_but(source),
                Some(done) = sessions.join_next(), if !sessions.is_empty() => {
                    let Ok((peer, result)) = done else { continue };
                    self.underway.remove(&peer);
                    self.due.insert(peer, Instant::now() + if result.is_ok() { EVERY } else { RETRY });
                    note(peer, result, &self.news);
                }
                changed = peers.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let connected: BTreeSet<PeerId> = self.net.federation_peers().into_iter().collect();
                    self.due.retain(|peer, _| connected.contains(peer));
                    for peer in connected {
                        self.due.entry(peer).or_insert_with(|| Instant::now() + EVERY);
                    }
                }
                () = sleep_until(next.map_or_else(|| Instant::now() + EVERY, |(_, at)| at)), if sessions.len() < MAX_OPENED => {
                    let Some((peer, _)) = next else { continue };
                    self.due.insert(peer, Instant::now() + EVERY);
                    self.underway.insert(peer);
                    let (net, records) = (self.net.clone(), Arc::clone(&self.records));
                    sessions.spawn(async move { (peer, open(net, peer, records).await) });
                }
            }
        }
    }

    fn next_due(&self) -> Option<(PeerId, Instant)> {
        let idle = self.due.iter().filter(|(peer, _)| !self.underway.contains(peer));
        idle.min_by_key(|&(_, &at)| at).map(|(&peer, &at)| (peer, at))
    }

    fn all_soon_but(&mut self, source: PeerId) {
        let soon = Instant::now() + SOON;
        for (_, at) in self.due.iter_mut().filter(|&(&peer, _)| peer != source) {
            *at = soon.min(*at);
        }
    }
}

/// Opens a session; returns how many records were news.
async fn open(net: Net, peer: PeerId, records: Arc<dyn Records>) -> io::Result<usize> {
    let opened = timeout(PATIENCE, net.open(peer, Protocol::Sync)).await?;
    let stream = opened.map_err(|error| io::Error::other(error.to_string()))?;
    let set = snapshot(&records).await?;
    let initiator = Initiator::new(set).map_err(io::Error::other)?;
    converse(stream, peer, initiator, records).await
}

async fn answer(stream: Stream, peer: PeerId, records: Arc<dyn Records>) -> io::Result<usize> {
    let set = snapshot(&records).await?;
    let responder = Responder::new(set).map_err(io::Error::other)?;
    converse(stream, peer, responder, records).await
}

async fn snapshot(records: &Arc<dyn Records>) -> io::Result<rialto_protocol::sync::SyncSet> {
    let records = Arc::clone(records);
    tokio::task::spawn_blocking(move || records.sync_set()).await.map_err(io::Error::other)
}

/// Either side of a session, as its shell sees it.
trait Side: Send + 'static {
    fn next_message(&mut self, records: &dyn Records) -> Option<Message>;
    fn receive(&mut self, message: Message, records: &dyn Records) -> Result<Vec<Vec<u8>>, SyncError>;
    fn is_finished(&self) -> bool;
}

macro_rules! side {
    ($side:ty) => {
        impl Side for $side {
            fn next_message(&mut self, records: &dyn Records) -> Option<Message> {
                self.next_message(|id: &Hash| records.envelope(id))
            }

            fn receive(&mut self, message: Message, records: &dyn Records) -> Result<Vec<Vec<u8>>, SyncError> {
                Ok(self.receive(message, |id: &Hash| records.is_wanted(id))?.envelopes)
            }

            fn is_finished(&self) -> bool {
                self.is_finished()
            }
        }
    };
}

side!(Initiator);
side!(Responder);

/// Speaks until the session ends. What a step costs (reading envelopes, reconciling) runs off the async threads.
async fn converse(
    mut stream: Stream,
    peer: PeerId,
    mut side: impl Side,
    records: Arc<dyn Records>,
) -> io::Result<usize> {
    let mut gained = 0;
    let mut unstored = Vec::new();
    loop {
        let held = Arc::clone(&records);
        let (back, messages) = tokio::task::spawn_blocking(move || {
            let mut messages = Vec::new();
            while let Some(message) = side.next_message(held.as_ref()) {
                messages.push(message.encode());
            }
            (side, messages)
        })
        .await
        .map_err(io::Error::other)?;
        side = back;
        for message in messages {
            timeout(PATIENCE, write_message(&mut stream, &message)).await??;
        }
        if side.is_finished() {
            break;
        }
        let Some(message) = timeout(PATIENCE, read_message(&mut stream, MAX_MESSAGE_BYTES)).await?? else { break };
        let message = Message::decode(&message).map_err(invalid)?;
        let held = Arc::clone(&records);
        let (back, received) = tokio::task::spawn_blocking(move || {
            let received = side.receive(message, held.as_ref());
            (side, received)
        })
        .await
        .map_err(io::Error::other)?;
        side = back;
        unstored.extend(received.map_err(invalid)?);
        if unstored.len() >= MAX_UNSTORED {
            gained += store(&records, std::mem::take(&mut unstored), peer).await?;
        }
    }
    gained += store(&records, unstored, peer).await?;
    // The other side may have closed first.
    stream.close().await.ok();
    Ok(gained)
}

async fn store(records: &Arc<dyn Records>, envelopes: Vec<Vec<u8>>, peer: PeerId) -> io::Result<usize> {
    if envelopes.is_empty() {
        return Ok(0);
    }
    let records = Arc::clone(records);
    let taken =
        tokio::task::spawn_blocking(move || records.take(envelopes, Some(peer))).await.map_err(io::Error::other)?;
    if let Some(reason) = taken.iter().find_map(|taken| match taken {
        Taken::Refused(reason) => Some(reason),
        _ => None,
    }) {
        tracing::warn!(%peer, reason, "a record that came by catch-up is refused");
        return Err(invalid(reason.clone()));
    }
    Ok(taken.iter().filter(|taken| **taken == Taken::New).count())
}
