//! Whom this node keeps away from, why and until when: one place that knows, shows and forgives.
//!
//! What a peer did wrong is noted by the room that saw it, and that room asks here before it has to do with the peer again.
//! An administrator sees all of it (`rialto peers`), and can lift it (`rialto peers lift PEER`): then the peer is treated
//! as one that is new here. Nothing of it is written down: a restart forgives too.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use libp2p::PeerId;
use rialto_protocol::ids::ImageId;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::deploy::note;

/// Bans that are kept; beyond these the one that ends first makes room.
const MAX_BANS: usize = 1024;
/// A reason is cut to this many characters.
const MAX_REASON_CHARS: usize = 300;

/// What a peer is kept away from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offence {
    /// It sent chunks of this image that are not the image's, or broke the rules of fetching it: it is not asked for it.
    Chunks(ImageId),
    /// It broke the rules of catch-up: there is none with it.
    CatchUp,
    /// It relayed records that are malformed or badly signed: gossip counts that against it.
    Gossip,
    /// It sends more than its share: what is beyond that is passed over.
    TooMuch,
}

impl Offence {
    /// The word, as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chunks(_) => "chunks",
            Self::CatchUp => "catch-up",
            Self::Gossip => "gossip",
            Self::TooMuch => "too-much",
        }
    }
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub peer: PeerId,
    /// From what.
    pub offence: Offence,
    /// Why, in plain words; the last time.
    pub why: String,
    /// How often.
    pub times: u64,
    /// When it happened last.
    pub at: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    ends: Instant,
}

/// The bans of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bans(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bans: Mutex<BTreeMap<(PeerId, Offence), Ban>>,
    /// Who was forgiven last, and how often anybody was.
    lifted: watch::Sender<(u64, Option<PeerId>)>,
    strangers: AtomicU64,
}

impl Default for Bans {
    fn default() -> Self {
        Self(Arc::new(Inner {
            bans: Mutex::default(),
            lifted: watch::Sender::new((0, None)),
            strangers: AtomicU64::default(),
        }))
    }
}

impl Bans {
    /// Keeps away from a peer for a while, from now on. Whether that is news.
    pub fn ban(&self, peer: PeerId, offence: Offence, why: &str, lasts: Duration) -> bool {
        self.ban_at(Instant::now(), peer, offence, why, lasts)
    }

    fn ban_at(&self, moment: Instant, peer: PeerId, offence: Offence, why: &str, lasts: Duration) -> bool {
        let (now, ends) = (Timestamp::now(), moment + lasts);
        let until = now.checked_add(lasts).unwrap_or(Timestamp::MAX);
        let why: String = note(why).chars().take(MAX_REASON_CHARS).collect();
        let mut bans = self.at(moment);
        let times = bans.get(&(peer, offence)).map_or(0, |ban| ban.times);
        if times == 0
            && bans.len() >= MAX_BANS
            && let Some(first) = bans.iter().min_by_key(|(_, ban)| ban.ends).map(|(key, _)| *key)
        {
            bans.remove(&first);
        }
        let ban = Ban { peer, offence, why, times: times.saturating_add(1), at: now, until, ends };
        bans.insert((peer, offence), ban);
        times == 0
    }

    /// Whether this node keeps away from a peer in this now.
    pub fn holds(&self, peer: &PeerId, offence: Offence) -> bool {
        self.at(Instant::now()).contains_key(&(*peer, offence))
    }

    /// All that hold now, by peer.
    pub fn list(&self) -> Vec<Ban> {
        self.at(Instant::now()).values().cloned().collect()
    }

    /// Forgives a peer everything; how many bans that were.
    pub fn lift(&self, peer: &PeerId) -> usize {
        let mut bans = self.at(Instant::now());
        let before = bans.len();
        bans.retain(|(banned, _), _| banned != peer);
        let lifted = before - bans.len();
        drop(bans);
        if lifted > 0 {
            self.0.lifted.send_modify(|(count, last)| {
                *count += 1;
                *last = Some(*peer);
            });
        }
        lifted
    }

    /// Tells of peers that are forgiven.
    pub fn lifted(&self) -> watch::Receiver<(u64, Option<PeerId>)> {
        self.0.lifted.subscribe()
    }

    /// Counts a stranger that was turned away, since it is not on the list of members.
    pub fn turned_away(&self) {
        self.0.strangers.fetch_add(1, Ordering::Relaxed);
    }

    /// How many that were, since the node started.
    pub fn strangers(&self) -> u64 {
        self.0.strangers.load(Ordering::Relaxed)
    }

    /// What has ended is forgotten whenever somebody looks.
    fn at(&self, moment: Instant) -> MutexGuard<'_, BTreeMap<(PeerId, Offence), Ban>> {
        let mut bans = self.0.bans.lock().unwrap_or_else(PoisonError::into_inner);
        bans.retain(|_, ban| ban.ends > moment);
        bans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_ban_is_for_one_thing_ends_and_can_be_lifted() {
        let (bans, one, other, now) = (Bans::default(), PeerId::random(), PeerId::random(), Instant::now());
        let (image, others) = (Offence::Chunks(ImageId::of(b"a")), Offence::Chunks(ImageId::of(b"b")));
        assert!(bans.ban_at(now, one, image, "it lied\u{1b}[2J", HOUR));
        assert!(!bans.ban_at(now, one, image, "it lied again", HOUR), "that is known");
        assert!(bans.holds(&one, image) && !bans.holds(&one, others) && !bans.holds(&other, image));
        let listed = bans.list();
        assert_eq!((listed.len(), listed[0].times, listed[0].why.as_str()), (1, 2, "it lied again"));
        bans.ban_at(now + HOUR / 2, other, Offence::CatchUp, "nonsense", HOUR);
        let left: Vec<PeerId> = bans.at(now + HOUR).keys().map(|(peer, _)| *peer).collect();
        assert_eq!(left, [other], "one has ended");
        let mut heard = bans.lifted();
        assert_eq!((bans.lift(&one), bans.lift(&other)), (0, 1));
        assert!(heard.has_changed().unwrap() && heard.borrow_and_update().1 == Some(other));
        assert!(bans.list().is_empty());
    }

    #[test]
    fn a_crowd_of_offenders_takes_no_more_room_than_there_is() {
        let (bans, first) = (Bans::default(), PeerId::random());
        bans.ban(first, Offence::CatchUp, "x", HOUR);
        for _ in 0..MAX_BANS {
            bans.ban(PeerId::random(), Offence::Gossip, "x", 2 * HOUR);
        }
        assert_eq!(bans.list().len(), MAX_BANS);
        assert!(!bans.holds(&first, Offence::CatchUp), "the one that would have ended first made room");
    }
}
