//! Records, catch-up: the shell around the state machines of `protocol`, on connect and on a timer.
//!
//! News that came by catch-up is not gossiped again. Instead the other peers are caught up with soon after, so that what
//! healed one link reaches everybody, however the sites are connected.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{AsyncWriteExt as _, StreamExt as _};
use libp2p::{PeerId, Stream};
use rialto_protocol::allowance::{Allowance, Quota};
use rialto_protocol::sync::{Beginning, Initiator, MAX_MESSAGE_BYTES, Message, Responder, SyncError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::bans::{Bans, Offence};
use super::behaviour::set_up;
use super::frames::{invalid, read_message, write_message};
use super::gossip::{Records, Taken};
use super::{Net, NetError, Protocol, Ready};

/// Sessions that this node answers at once; more are closed, and come again by the opener's timer.
const MAX_ANSWERED: usize = 16;
/// Sessions of one peer that are answered at once: one, and the end of the one before.
const MAX_ANSWERED_PER_PEER: usize = 2;
/// Sessions that this node has open at once.
const MAX_OPENED: usize = 4;
/// How often a peer is caught up with where nothing happens.
const EVERY: Duration = Duration::from_secs(60);
/// After news, the others are caught up with this much later: one session for all the news of a moment.
const SOON: Duration = Duration::from_millis(300);
/// A session that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
/// A peer that broke the rules is caught up with after this: it may have been updated meanwhile.
const RETRY_RULE_BREAKER: Duration = Duration::from_secs(600);
/// A session that takes longer is ended; what it brought stays, and the next one goes on from there.
const SESSION: Duration = Duration::from_secs(300);
/// A message that does not come in this time does not come.
const PATIENCE: Duration = Duration::from_secs(20);
/// Records, and bytes of them, that a session brings before they are checked and stored.
const MAX_UNSTORED: (usize, usize) = (2_000, 4 * 1024 * 1024);

/// Sessions that one peer may have answered: news start one every 300 ms at most, on a busy day for minutes.
const SESSION_QUOTA: Quota = Quota { most: 120, per_second: 4 };
/// Records, and bytes of them, that one peer may bring by catch-up: a new site's first one brings a million in minutes. Who
/// brings more is listened to more slowly.
const RECORD_QUOTAS: [Quota; 2] =
    [Quota { most: 100_000, per_second: 10_000 }, Quota { most: 256 << 20, per_second: 16 << 20 }];
/// Peers whose share is remembered.
const MAX_SHARES: usize = 1_024;
/// How long it is shown that a peer asks for more than its share.
const TOO_MUCH_SHOWN: Duration = Duration::from_secs(60);

/// What each peer may still have.
struct Shares {
    started: Instant,
    sessions: Mutex<Allowance<PeerId, 1>>,
    records: Mutex<Allowance<PeerId, 2>>,
}

impl Shares {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            sessions: Mutex::new(Allowance::new([SESSION_QUOTA], MAX_SHARES)),
            records: Mutex::new(Allowance::new(RECORD_QUOTAS, MAX_SHARES)),
        }
    }

    fn may_be_answered(&self, peer: &PeerId) -> bool {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).take(peer, [1], self.started.elapsed())
    }

    /// How long to wait before more is heard from a peer that brought this.
    fn brought(&self, peer: &PeerId, records: usize, bytes: usize) -> Duration {
        let amounts = [records as u64, bytes as u64];
        self.records.lock().unwrap_or_else(PoisonError::into_inner).overdraw(peer, amounts, self.started.elapsed())
    }
}

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
    let shares = Arc::new(Shares::new());
    let answering = {
        let (records, shutdown, news) = (Arc::clone(&records), shutdown.clone(), news.clone());
        let (shares, bans) = (Arc::clone(&shares), net.bans().clone());
        async move {
            let seats = Seats::default();
            while let Some((peer, stream)) = incoming.next().await {
                if !shares.may_be_answered(&peer) {
                    let why = "it opens more catch-up sessions than its share; those beyond that are closed";
                    if bans.ban(peer, Offence::TooMuch, why, TOO_MUCH_SHOWN) {
                        tracing::warn!(%peer, "{why}");
                    }
                    continue;
                }
                if bans.holds(&peer, Offence::CatchUp) {
                    continue;
                }
                // Dropping the stream tells the opener, whose timer brings it again.
                let Some(seat) = seats.take(peer) else { continue };
                let (records, news, shutdown) = (Arc::clone(&records), news.clone(), shutdown.clone());
                let (shares, bans) = (Arc::clone(&shares), bans.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        result = answer(stream, peer, records, shares) => note(peer, result, &news, &bans),
                    }
                    drop(seat);
                });
            }
        }
    };
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(answering));
    tokio::spawn(shutdown.run_until_cancelled_owned(Opening::new(net, records, news, shares).run(ready, heard_news)));
    Ok(())
}

/// Who is answered now, and how often, so that no peer takes all there are.
#[derive(Clone, Default)]
struct Seats(Arc<Mutex<BTreeMap<PeerId, usize>>>);

struct Seat(Seats, PeerId);

impl Seats {
    fn take(&self, peer: PeerId) -> Option<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= MAX_ANSWERED || taken.get(&peer) == Some(&MAX_ANSWERED_PER_PEER) {
            return None;
        }
        *taken.entry(peer).or_default() += 1;
        Some(Seat(self.clone(), peer))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sessions) = taken.get_mut(&self.1) {
            *sessions -= 1;
        }
        taken.retain(|_, sessions| *sessions > 0);
    }
}

fn note(peer: PeerId, result: io::Result<usize>, news: &mpsc::Sender<PeerId>, bans: &Bans) {
    match result {
        Ok(0) => {}
        Ok(gained) => {
            tracing::info!(%peer, gained, "caught up");
            // A full queue already tells of news.
            news.try_send(peer).ok();
        }
        Err(error) => {
            tracing::debug!(%peer, %error, "catch-up ended early");
            if error.kind() == io::ErrorKind::InvalidData {
                bans.ban(peer, Offence::CatchUp, &format!("it broke the rules: {error}"), RETRY_RULE_BREAKER);
            }
        }
    }
}

/// Whom to catch up with, and when.
struct Opening {
    net: Net,
    records: Arc<dyn Records>,
    news: mpsc::Sender<PeerId>,
    shares: Arc<Shares>,
    due: BTreeMap<PeerId, Instant>,
    underway: HashMap<tokio::task::Id, PeerId>,
}

impl Opening {
    fn new(net: Net, records: Arc<dyn Records>, news: mpsc::Sender<PeerId>, shares: Arc<Shares>) -> Self {
        Self { net, records, news, shares, due: BTreeMap::new(), underway: HashMap::new() }
    }

    async fn run(mut self, mut ready: mpsc::Receiver<Ready>, mut heard_news: mpsc::Receiver<PeerId>) {
        let mut sessions: JoinSet<io::Result<usize>> = JoinSet::new();
        let mut peers = self.net.peers();
        let mut lifted = self.net.bans().lifted();
        loop {
            let next = self.next_due();
            tokio::select! {
                Some(Ready { peer, is_ours }) = ready.recv() => {
                    // The opener of the connection starts at once, the other side is a backstop.
                    self.due.insert(peer, Instant::now() + if is_ours { Duration::ZERO } else { RETRY });
                }
                Some(source) = heard_news.recv() => self.all_soon_but(source),
                Some(done) = sessions.join_next_with_id() => {
                    let (id, result) = match done {
                        Ok((id, result)) => (id, result),
                        Err(error) => (error.id(), Err(io::Error::other(error.to_string()))),
                    };
                    let Some(peer) = self.underway.remove(&id) else { continue };
                    self.ended(peer, &result);
                    note(peer, result, &self.news, self.net.bans());
                }
                Ok(()) = lifted.changed() => {
                    let forgiven = lifted.borrow_and_update().1;
                    if let Some(at) = forgiven.and_then(|peer| self.due.get_mut(&peer)) {
                        *at = Instant::now();
                    }
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
                    if self.net.bans().holds(&peer, Offence::CatchUp) {
                        continue;
                    }
                    let (records, shares) = (Arc::clone(&self.records), Arc::clone(&self.shares));
                    let task = sessions.spawn(open(self.net.clone(), peer, records, shares));
                    self.underway.insert(task.id(), peer);
                }
            }
        }
    }

    /// When a peer is caught up with next. One that left is forgotten: it would be dialled.
    fn ended(&mut self, peer: PeerId, result: &io::Result<usize>) {
        let Some(at) = self.due.get_mut(&peer) else { return };
        let next = Instant::now()
            + match result {
                Ok(_) => EVERY,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => RETRY_RULE_BREAKER,
                Err(_) => RETRY,
            };
        // News that came meanwhile may have set an earlier time, unless there is a reason to wait.
        *at = if result.is_ok() { next.min(*at) } else { next };
    }

    fn next_due(&self) -> Option<(PeerId, Instant)> {
        let underway: BTreeSet<PeerId> = self.underway.values().copied().collect();
        let idle = self.due.iter().filter(|(peer, _)| !underway.contains(peer));
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
async fn open(net: Net, peer: PeerId, records: Arc<dyn Records>, shares: Arc<Shares>) -> io::Result<usize> {
    let opened = timeout(PATIENCE, net.open(peer, Protocol::Sync)).await?;
    let stream = opened.map_err(|error| io::Error::other(error.to_string()))?;
    let set = snapshot(&records).await?;
    converse(stream, peer, Initiator::new(set), records, shares).await
}

async fn answer(stream: Stream, peer: PeerId, records: Arc<dyn Records>, shares: Arc<Shares>) -> io::Result<usize> {
    let set = snapshot(&records).await?;
    converse(stream, peer, Responder::new(set), records, shares).await
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
                self.next_message(|id: &Beginning| records.envelope(*id))
            }

            fn receive(&mut self, message: Message, records: &dyn Records) -> Result<Vec<Vec<u8>>, SyncError> {
                Ok(self.receive(message, |id: &Beginning| records.is_wanted(*id))?.envelopes)
            }

            fn is_finished(&self) -> bool {
                self.is_finished()
            }
        }
    };
}

side!(Initiator);
side!(Responder);

/// Speaks until the session ends, and stores what it brings, also where it ends early.
async fn converse(
    stream: Stream,
    peer: PeerId,
    side: impl Side,
    records: Arc<dyn Records>,
    shares: Arc<Shares>,
) -> io::Result<usize> {
    let mut brought =
        Brought { records: Arc::clone(&records), shares, peer, unstored: Vec::new(), bytes: 0, gained: 0 };
    let ended = timeout(SESSION, speak(stream, side, &records, &mut brought)).await;
    let stored = brought.store().await;
    match ended {
        Ok(Ok(())) => stored.map(|()| brought.gained),
        // What was gained counts as news even so; the error is only about the rest.
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Err(error),
        Ok(Err(_)) | Err(_) if brought.gained > 0 => stored.map(|()| brought.gained),
        Ok(Err(error)) => Err(error),
        Err(error) => Err(error.into()),
    }
}

/// Speaks until the session ends. What a step costs (reading envelopes, reconciling) runs off the async threads, and
/// messages are made one at a time: a peer may want more records than should lie in memory.
async fn speak(
    mut stream: Stream,
    mut side: impl Side,
    records: &Arc<dyn Records>,
    brought: &mut Brought,
) -> io::Result<()> {
    loop {
        let held = Arc::clone(records);
        let (back, message) = tokio::task::spawn_blocking(move || {
            let message = side.next_message(held.as_ref()).map(|message| message.encode());
            (side, message)
        })
        .await
        .map_err(io::Error::other)?;
        side = back;
        if let Some(message) = message {
            timeout(PATIENCE, write_message(&mut stream, &message)).await??;
            continue;
        }
        if side.is_finished() {
            break;
        }
        let Some(message) = timeout(PATIENCE, read_message(&mut stream, MAX_MESSAGE_BYTES)).await?? else {
            // It had no seat for us, or is going: to be tried again soon.
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let message = Message::decode(&message).map_err(invalid)?;
        let held = Arc::clone(records);
        let (back, received) = tokio::task::spawn_blocking(move || {
            let received = side.receive(message, held.as_ref());
            (side, received)
        })
        .await
        .map_err(io::Error::other)?;
        side = back;
        brought.take(received.map_err(invalid)?).await?;
    }
    // The other side may have closed first, or may never.
    timeout(PATIENCE, stream.close()).await?.ok();
    Ok(())
}

/// What a session brought.
struct Brought {
    records: Arc<dyn Records>,
    shares: Arc<Shares>,
    peer: PeerId,
    unstored: Vec<Vec<u8>>,
    bytes: usize,
    gained: usize,
}

impl Brought {
    async fn take(&mut self, envelopes: Vec<Vec<u8>>) -> io::Result<()> {
        let bytes = envelopes.iter().map(Vec::len).sum::<usize>();
        let wait = self.shares.brought(&self.peer, envelopes.len(), bytes);
        self.bytes += bytes;
        self.unstored.extend(envelopes);
        let (most, most_bytes) = MAX_UNSTORED;
        if self.unstored.len() >= most || self.bytes >= most_bytes {
            self.store().await?;
        }
        if !wait.is_zero() {
            // The session has its time; what does not fit into that, the next one brings.
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    async fn store(&mut self) -> io::Result<()> {
        self.bytes = 0;
        self.gained += store(&self.records, std::mem::take(&mut self.unstored), self.peer).await?;
        Ok(())
    }
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
