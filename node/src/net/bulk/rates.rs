//! How fast this node may send and receive: limits that can be changed at any time, and turns between the sites it sends to.
//!
//! Without a limit nobody waits here: then the connections share the line, and each site has one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libp2p::PeerId;
use rialto_protocol::swarm::{Bucket, Shares, Ticket};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};

/// Limits in bytes a second; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of chunks sent to all sites together.
    pub upload: Option<u64>,
    /// Of chunks sent to one site.
    pub upload_per_peer: Option<u64>,
    /// Of chunks and pages received from all sites together.
    pub download: Option<u64>,
}

/// The limits of a node, and who waits for them.
#[derive(Debug, Clone)]
pub(super) struct Rates(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    state: Mutex<State>,
    /// The limits have changed: who waits asks again.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    shares: Shares<PeerId>,
    /// Who waits to send: told when it may.
    waiting: BTreeMap<Ticket, oneshot::Sender<()>>,
    next_ticket: Ticket,
    download: Bucket,
}

/// Leave to send so many bytes; given back when dropped.
#[derive(Debug)]
pub(super) struct Grant {
    rates: Rates,
    peer: PeerId,
    bytes: u64,
    used: u64,
}

/// A request that waits. Dropped before it is granted, it is withdrawn.
struct Request {
    rates: Rates,
    peer: PeerId,
    ticket: Ticket,
    bytes: u64,
    is_taken: bool,
}

impl Rates {
    pub(super) fn new() -> Self {
        let (started, zero) = (Instant::now(), Duration::ZERO);
        let state = State {
            limits: Limits::default(),
            shares: Shares::new(None, None, zero),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            download: Bucket::new(None, zero),
        };
        Self(Arc::new(Inner { started, state: Mutex::new(state), changed: Notify::new() }))
    }

    pub(super) fn limits(&self) -> Limits {
        self.state().limits
    }

    pub(super) fn set(&self, limits: Limits) {
        let now = self.now();
        let mut state = self.state();
        state.limits = limits;
        state.shares.set_limits(limits.upload, limits.upload_per_peer, now);
        state.download.set_limit(limits.download, now);
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// Waits until so many bytes may be sent to this site.
    pub(super) async fn may_upload(&self, peer: PeerId, bytes: u64) -> Grant {
        let (told, mut request) = {
            let now = self.now();
            let mut state = self.state();
            let (tell, told) = oneshot::channel();
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            state.waiting.insert(ticket, tell);
            state.shares.request(peer, ticket, bytes, now);
            (told, Request { rates: self.clone(), peer, ticket, bytes, is_taken: false })
        };
        let mut told = std::pin::pin!(told);
        loop {
            let changed = self.0.changed.notified();
            // Whoever comes first after the time has come tells all whose turn it is.
            let again = self.grant();
            let again = async {
                match again {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = &mut told => break,
                () = again => {}
                () = changed => {}
            }
        }
        request.is_taken = true;
        Grant { rates: self.clone(), peer, bytes, used: 0 }
    }

    /// So many bytes were received.
    pub(super) fn downloaded(&self, bytes: u64) {
        let now = self.now();
        self.state().download.take(bytes, now);
    }

    /// How long nothing should be received.
    pub(super) fn download_pause(&self) -> Duration {
        let now = self.now();
        self.state().download.wait(now)
    }

    /// Tells those who may send now, and gives the time after which others may.
    fn grant(&self) -> Option<Duration> {
        let now = self.now();
        let mut state = self.state();
        let granted = state.shares.grant(now);
        for ticket in granted.tickets {
            // Who has gone has withdrawn its request, or gives back what it was granted.
            if let Some(tell) = state.waiting.remove(&ticket) {
                tell.send(()).ok();
            }
        }
        granted.again_in
    }

    fn now(&self) -> Duration {
        self.0.started.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grant {
    /// So many bytes were sent.
    pub(super) fn used(mut self, bytes: u64) {
        self.used = bytes;
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let now = self.rates.now();
        self.rates.state().shares.settle(self.peer, self.bytes, self.used, now);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.is_taken {
            return;
        }
        let now = self.rates.now();
        let mut state = self.rates.state();
        match state.waiting.remove(&self.ticket) {
            Some(_) => state.shares.withdraw(self.peer, self.ticket),
            // Granted in the very moment.
            None => state.shares.settle(self.peer, self.bytes, 0, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn a_change_is_felt_at_once_by_who_waits() {
        let rates = Rates::new();
        rates.may_upload(PeerId::random(), 1 << 30).await.used(1 << 30);
        rates.set(Limits { upload: Some(0), ..Limits::default() });
        let (one, other) = (PeerId::random(), PeerId::random());
        let mut first = Box::pin(rates.may_upload(one, 1));
        let mut second = Box::pin(rates.may_upload(other, 1));
        assert!(matches!((poll!(&mut first), poll!(&mut second)), (Poll::Pending, Poll::Pending)));
        rates.set(Limits::default());
        let (first, second) = (first.await, second.await);
        first.used(1);
        second.used(1);
        assert!(rates.state().waiting.is_empty(), "nothing is left behind");
    }

    #[tokio::test]
    async fn who_gives_up_waiting_holds_up_nobody() {
        let rates = Rates::new();
        rates.set(Limits { upload: Some(0), ..Limits::default() });
        let mut given_up = Box::pin(rates.may_upload(PeerId::random(), 1 << 40));
        assert!(poll!(&mut given_up).is_pending());
        let mut granted = Box::pin(rates.may_upload(PeerId::random(), 1 << 40));
        assert!(poll!(&mut granted).is_pending());
        drop(given_up);
        rates.set(Limits { upload: Some(1 << 20), ..Limits::default() });
        // Granted, and gone before it heard: what it was granted is given back.
        assert!(poll!(&mut granted).is_ready() || rates.grant().is_none());
        drop(granted);
        let state = rates.state();
        assert_eq!((state.waiting.len(), state.shares.peers()), (0, 0));
    }

    #[tokio::test]
    async fn what_is_received_counts() {
        let rates = Rates::new();
        rates.downloaded(1 << 30);
        assert_eq!(rates.download_pause(), Duration::ZERO);
        rates.set(Limits { download: Some(1 << 20), ..Limits::default() });
        rates.downloaded(1 << 30);
        assert!(rates.download_pause() > Duration::from_secs(1000));
    }
}
