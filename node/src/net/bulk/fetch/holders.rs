//! Whom a fetch speaks with: finds sites that may have the image, keeps a session with each, and remembers who lied.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use libp2p::PeerId;
use rialto_protocol::ids::ImageId;
use rialto_protocol::swarm::{Message, PeerKey, Ranges};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::session::{Heard, Session};
use crate::net::bans::Offence;
use crate::net::{Net, NetError};

/// Holders that are fetched from at once.
const MAX_SESSIONS: usize = 32;
/// Sessions that look-ups may open with sites that are not connected and did not answer yet: what a look-up finds,
/// anybody can claim.
const MAX_UNANSWERED_STRANGERS: usize = MAX_SESSIONS / 2;
/// Sites of look-ups that are remembered.
const MAX_FOUND: usize = 256;
/// What sessions say and nobody has looked at yet: at most this many chunks lie in memory.
const HEARD_QUEUE: usize = 64;
/// How often new sites are looked for among those connected.
const SEEK_EVERY: Duration = Duration::from_millis(100);
/// A site that had nothing, or was busy, is asked again after this; each time in a row doubles it.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest that a busy site is left alone: it has the image.
const BUSY_RETRY_MAX: Duration = Duration::from_secs(2);
/// The longest that a site is left alone which has not the image, went away, or was slow.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(10);
/// So often in a row a site is asked at once because it asks us.
const COMPANION_TIMES: u32 = 3;
/// Where all seats are taken, who has delivered nothing for this long makes room for others.
const IDLE_SEAT: Duration = Duration::from_secs(10);
/// While there is a complete holder, how often the federation is asked for more.
const LOOKUP_EVERY: Duration = Duration::from_secs(60);
/// Ranges of one holder that are kept until the manifest is known.
const MAX_RANGES_KEPT: usize = 65_536;

/// How long a holder that lied about an image is not asked for it again, by whichever fetch.
const BANNED_FOR: Duration = Duration::from_secs(3600);

/// The sessions of a fetch.
pub(super) struct Holders {
    net: Net,
    image: ImageId,
    /// Images that holders may encode chunks against.
    bases: Vec<ImageId>,
    seats: BTreeMap<PeerKey, Seat>,
    next_key: PeerKey,
    /// Peers that are left alone until a time, and how often in a row they had nothing.
    left_alone: BTreeMap<PeerId, (Instant, u32)>,
    found: BTreeSet<PeerId>,
    lookup: Option<mpsc::Receiver<PeerId>>,
    lookup_at: Instant,
    seek_at: Instant,
    order: RandomState,
    heard: mpsc::Sender<Heard>,
    /// What the sessions say. One that was closed may have said something before.
    pub(super) inbox: mpsc::Receiver<Heard>,
}

/// A session, and what its holder told.
struct Seat {
    session: Session,
    holds: Option<Holds>,
    /// When it was opened, or last delivered something that was needed.
    useful_at: Instant,
}

/// What a holder said that it has.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// Everything.
    pub(super) is_complete: bool,
    /// Else this.
    pub(super) ranges: Vec<Ranges>,
    /// Whether it told more than is kept.
    pub(super) is_cut_short: bool,
}

/// Why a session is closed without blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// It has the image, and too many want it.
    Busy,
    /// It has not the image, or went away.
    Absent,
    /// It did not do in time what it should.
    Slow,
    /// It is to be asked again at once.
    None,
}

impl Holders {
    pub(super) fn new(net: Net, image: ImageId, bases: Vec<ImageId>) -> Self {
        let (heard, inbox) = mpsc::channel(HEARD_QUEUE);
        let now = Instant::now();
        Self {
            net,
            image,
            bases,
            seats: BTreeMap::new(),
            next_key: 0,
            left_alone: BTreeMap::new(),
            found: BTreeSet::new(),
            lookup: None,
            lookup_at: now,
            seek_at: now,
            order: RandomState::new(),
            heard,
            inbox,
        }
    }

    /// Opens sessions with peers that may have the image: connected ones first, then those that a look-up finds. Gives
    /// the session that was closed to make room, if one was.
    ///
    /// # Errors
    /// The network is shutting down.
    pub(super) async fn seek(&mut self) -> Result<Option<PeerKey>, NetError> {
        let now = Instant::now();
        if now < self.seek_at {
            return Ok(None);
        }
        self.seek_at = now + SEEK_EVERY;
        self.look_up(now).await?;
        let connected: BTreeSet<PeerId> = self.net.federation_peers().into_iter().collect();
        let strangers = self.found.difference(&connected).copied();
        let mut unanswered =
            self.seats.values().filter(|seat| seat.holds.is_none() && !connected.contains(&seat.session.peer)).count();
        let in_use: BTreeSet<PeerId> = self.seats.values().map(|seat| seat.session.peer).collect();
        let may_be_asked = |peer: &PeerId| {
            !in_use.contains(peer)
                && !self.net.bans().holds(peer, Offence::Chunks(self.image))
                && *peer != self.net.local()
                && self.left_alone.get(peer).is_none_or(|&(until, _)| until <= now)
        };
        // In another order at every site and fetch, so that not everybody asks the same few.
        let mut candidates: Vec<PeerId> = connected.iter().copied().filter(may_be_asked).collect();
        candidates.sort_by_key(|peer| self.order.hash_one(peer));
        for stranger in strangers.filter(may_be_asked) {
            if unanswered < MAX_UNANSWERED_STRANGERS {
                unanswered += 1;
                candidates.push(stranger);
            }
        }
        let free = MAX_SESSIONS.saturating_sub(self.seats.len());
        let evicted = if candidates.len() > free { self.free_a_seat(now) } else { None };
        for peer in candidates.into_iter().take(free) {
            self.open(peer, now);
        }
        Ok(evicted)
    }

    /// This site asked us for the image. If it had nothing a moment ago, it begins now, and will have something soon. Said
    /// too often, it is not listened to.
    pub(super) fn fetches_too(&mut self, peer: PeerId) {
        if self.left_alone.get(&peer).is_some_and(|&(_, times)| times <= COMPANION_TIMES) {
            self.left_alone.entry(peer).and_modify(|(until, _)| *until = Instant::now());
            self.seek_at = Instant::now();
        }
    }

    /// Whether the session is open; what others said is of no more interest.
    pub(super) fn is_open(&self, key: PeerKey) -> bool {
        self.seats.contains_key(&key)
    }

    /// Who is at the other end of an open session.
    pub(super) fn peer(&self, key: PeerKey) -> Option<PeerId> {
        self.seats.get(&key).map(|seat| seat.session.peer)
    }

    /// Whether the holder said what it has.
    pub(super) fn has_spoken(&self, key: PeerKey) -> bool {
        self.seats.get(&key).is_some_and(|seat| seat.holds.is_some())
    }

    /// Open sessions whose holders said what they have.
    pub(super) fn speakers(&self) -> Vec<PeerKey> {
        self.seats.iter().filter(|(_, seat)| seat.holds.is_some()).map(|(&key, _)| key).collect()
    }

    /// Number of holders that said what they have.
    pub(super) fn count(&self) -> usize {
        self.seats.values().filter(|seat| seat.holds.is_some()).count()
    }

    /// Whether somebody says that it has everything.
    pub(super) fn is_any_complete(&self) -> bool {
        self.seats.values().any(|seat| seat.holds.as_ref().is_some_and(|holds| holds.is_complete))
    }

    /// The holder said what it has, or has beside. `ranges` are kept where the manifest is not known yet.
    pub(super) fn has(&mut self, key: PeerKey, is_complete: bool, ranges: Option<Ranges>) {
        let Some(seat) = self.seats.get_mut(&key) else { return };
        self.left_alone.remove(&seat.session.peer);
        let holds = seat.holds.get_or_insert_default();
        holds.is_complete |= is_complete;
        let Some(ranges) = ranges else { return };
        let kept: usize = holds.ranges.iter().map(Ranges::range_count).sum();
        if kept + ranges.range_count() > MAX_RANGES_KEPT || holds.ranges.len() > MAX_RANGES_KEPT / 64 {
            holds.is_cut_short = true;
        } else {
            holds.ranges.push(ranges);
        }
    }

    /// Takes what a holder told so far, once the manifest is known.
    pub(super) fn take_told(&mut self, key: PeerKey) -> Holds {
        let Some(holds) = self.seats.get_mut(&key).and_then(|seat| seat.holds.as_mut()) else {
            return Holds::default();
        };
        Holds {
            is_complete: holds.is_complete,
            ranges: std::mem::take(&mut holds.ranges),
            is_cut_short: holds.is_cut_short,
        }
    }

    /// The holder delivered something that was needed.
    pub(super) fn was_useful(&mut self, key: PeerKey) {
        if let Some(seat) = self.seats.get_mut(&key) {
            seat.useful_at = Instant::now();
        }
    }

    /// Says something to the holder; `false` where it cannot be said.
    pub(super) fn say(&self, key: PeerKey, message: Message) -> bool {
        self.seats.get(&key).is_some_and(|seat| seat.session.say(message))
    }

    /// Ends a session; the peer may be asked again, but not at once.
    pub(super) fn close(&mut self, key: PeerKey, pause: Pause) {
        let Some(seat) = self.seats.remove(&key) else { return };
        let now = Instant::now();
        let (_, times) = self.left_alone.get(&seat.session.peer).copied().unwrap_or((now, 0));
        let doubled = RETRY_MIN.saturating_mul(1 << times.min(8));
        let wait = match pause {
            Pause::Busy => doubled.min(BUSY_RETRY_MAX),
            Pause::Absent => doubled.min(RETRY_MAX),
            Pause::Slow => RETRY_MAX,
            Pause::None => Duration::ZERO,
        };
        self.left_alone.insert(seat.session.peer, (now + wait, times.saturating_add(1)));
        self.seek_at = now;
    }

    /// Names no bases from now on: they turned out not to be readable.
    pub(super) fn name_no_bases(&mut self) {
        self.bases.clear();
    }

    /// Ends all sessions, and gives them; whoever did not lie is asked again at once.
    pub(super) fn close_all(&mut self) -> Vec<PeerKey> {
        let keys: Vec<PeerKey> = self.seats.keys().copied().collect();
        for &key in &keys {
            self.close(key, Pause::None);
        }
        keys
    }

    /// Does not ask this peer again for this image, for an hour or until somebody forgives it. Gives its session, where it has
    /// one.
    pub(super) fn ban(&mut self, peer: PeerId, why: &str) -> Option<PeerKey> {
        if self.net.bans().ban(peer, Offence::Chunks(self.image), why, BANNED_FOR) {
            tracing::warn!(%peer, image = %self.image, why, "a holder is not asked again for this image");
        }
        let key = self.seats.iter().find(|(_, seat)| seat.session.peer == peer).map(|(&key, _)| key)?;
        self.seats.remove(&key);
        self.seek_at = Instant::now();
        Some(key)
    }

    fn open(&mut self, peer: PeerId, now: Instant) {
        let key = self.next_key;
        self.next_key += 1;
        let hello = Message::Hello { image: self.image, bases: self.bases.clone() };
        let session = Session::open(self.net.clone(), peer, hello, key, self.heard.clone());
        self.seats.insert(key, Seat { session, holds: None, useful_at: now });
    }

    /// Others wait for a seat: who has been of no use for longest makes room.
    fn free_a_seat(&mut self, now: Instant) -> Option<PeerKey> {
        let idle = self.seats.iter().min_by_key(|(_, seat)| seat.useful_at)?;
        let (&key, _) = Some(idle).filter(|(_, seat)| now.saturating_duration_since(seat.useful_at) > IDLE_SEAT)?;
        self.close(key, Pause::Slow);
        Some(key)
    }

    async fn look_up(&mut self, now: Instant) -> Result<(), NetError> {
        let Some(lookup) = &mut self.lookup else {
            if now >= self.lookup_at && self.seats.len() < MAX_SESSIONS {
                self.lookup = Some(self.net.find_holders(self.image).await?);
            }
            return Ok(());
        };
        loop {
            match lookup.try_recv() {
                Ok(peer) if self.found.len() < MAX_FOUND => drop(self.found.insert(peer)),
                Ok(_) => {}
                Err(mpsc::error::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::error::TryRecvError::Disconnected) => break,
            }
        }
        self.lookup = None;
        self.lookup_at = now + if self.is_any_complete() { LOOKUP_EVERY } else { RETRY_MAX };
        Ok(())
    }
}
