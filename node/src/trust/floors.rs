//! What this site has seen and never goes below: heads, delegations, its own signings, and the latest time.
//!
//! ```text
//! {"crc32":"…","floor":{"head":{…}}}           the highest head of a channel
//! {"crc32":"…","floor":{"delegation":{…}}}     the highest delegation of a publisher for some names
//! {"crc32":"…","floor":{"signed":{…}}}         the last head that this node signed, written before it was
//! {"crc32":"…","floor":{"time":{…}}}           the latest time
//! ```
//!
//! The file is appended and fsynced, a line for each step, and rewritten when most of it is history. It depends on
//! nothing else: a catalog that is lost or restored from an old copy does not bring an old head back to life.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::{Name, NamePattern};
use rialto_protocol::channel::{ChannelName, Floor, Position};
use rialto_protocol::ids::{PublicKey, RecordId};
use rialto_protocol::record::{DelegatedRole, Delegation};
use serde::{Deserialize, Serialize};

use super::lines::{self, Tail, line_of};

/// What a line of the file holds.
const WORD: &str = "floor";
/// Lines of history that are not worth rewriting the file for.
const WORTH_REWRITING: usize = 1_024;

/// Why the floors cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the file of what was seen before, {}, cannot be {verb}: {source}; move it away to start with nothing seen, which lets old heads pass for new", path.display())]
pub struct FloorError {
    path: PathBuf,
    verb: &'static str,
    source: std::io::Error,
}

/// A head that this node signed, and how it is signed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Where.
    pub place: Place,
    /// The release that it points at.
    pub release: RecordId,
    /// The keys, by name, that sign it; none once it is not signed again.
    pub keys: Vec<Name>,
    /// How long a head lasts, in seconds.
    pub lifetime_seconds: u64,
    /// When it was signed.
    pub at: UnixSeconds,
    /// What this node does about it together with others.
    #[serde(default, skip_serializing_if = "Standby::is_no")]
    pub standby: Standby,
    /// The head itself, where others made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordId>,
}

/// What a node does about a channel that needs keys of several sites.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standby {
    /// Nothing: its own keys are enough.
    #[default]
    No,
    /// It makes the renewals, which others sign with it.
    Proposes,
    /// It signs renewals that others make.
    Cosigns,
}

impl Standby {
    fn is_no(&self) -> bool {
        *self == Self::No
    }
}

/// A place in a channel, as the file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    #[serde(with = "key_text")]
    publisher: PublicKey,
    name: Name,
    channel: Name,
    epoch: u64,
    sequence: u64,
}

impl Place {
    /// A place in this channel.
    pub fn new(channel: ChannelName, position: Position) -> Self {
        let ChannelName { publisher, name, channel } = channel;
        Self { publisher, name, channel, epoch: position.epoch, sequence: position.sequence }
    }

    /// The channel.
    pub fn channel(&self) -> ChannelName {
        ChannelName { publisher: self.publisher, name: self.name.clone(), channel: self.channel.clone() }
    }

    /// The place in it.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, sequence: self.sequence }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Head(Place),
    Delegation {
        #[serde(with = "key_text")]
        publisher: PublicKey,
        names: Vec<NamePattern>,
        sequence: u64,
    },
    /// The same of a delegation of releases.
    ReleaseDelegation {
        #[serde(with = "key_text")]
        publisher: PublicKey,
        names: Vec<NamePattern>,
        sequence: u64,
    },
    Signed(Signed),
    Time {
        latest: UnixSeconds,
        /// Whether it may be before the one before it: an administrator said so.
        #[serde(default)]
        is_reset: bool,
    },
}

/// The floors of a site, shared. Looking at them takes a short lock; whatever raises them blocks on the disk.
#[derive(Debug, Clone)]
pub struct Floors {
    path: Arc<Path>,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    tail: Tail,
    /// Lines in the file.
    lines: usize,
    seen: Seen,
}

/// The highest sequence for each list of names, by publisher.
type Delegations = BTreeMap<PublicKey, BTreeMap<Vec<NamePattern>, u64>>;

#[derive(Debug, Default)]
struct Seen {
    heads: BTreeMap<ChannelName, Position>,
    /// By publisher, then by the names that it is for.
    delegations: Delegations,
    /// The same of those of releases.
    release_delegations: Delegations,
    signed: BTreeMap<ChannelName, Signed>,
    latest: UnixSeconds,
}

impl Floors {
    /// Opens the file, or begins one. Blocks on the disk. A damaged line is left out, with a warning.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FloorError> {
        let path: Arc<Path> = path.as_ref().into();
        let failed = |verb| {
            let path = path.to_path_buf();
            move |source| FloorError { path, verb, source }
        };
        // What an interrupted rewriting left; the file itself is still whole.
        let _ = std::fs::remove_file(unfinished(&path));
        let tail = Tail::open(&path).map_err(failed("opened"))?;
        let (mut seen, mut lines) = (Seen::default(), 0);
        let file = File::open(&path).map_err(failed("opened"))?.take(tail.length());
        for line in lines::read::<Line>(file, WORD) {
            lines += 1;
            match line.map_err(failed("read"))? {
                Some(line) => seen.take(line),
                None => tracing::error!(
                    file = %path.display(), line = lines,
                    "a damaged line is left out: what it says was seen may be taken for new again"
                ),
            }
        }
        Ok(Self { path, inner: Arc::new(Mutex::new(Inner { tail, lines, seen })) })
    }

    /// What was seen of a channel.
    pub fn floor(&self, channel: &ChannelName) -> Floor {
        let inner = self.lock();
        let delegation = highest(&inner.seen.delegations, &channel.publisher, &channel.name);
        Floor { head: inner.seen.heads.get(channel).copied(), delegation }
    }

    /// The highest sequence of a delegation of this publisher's releases that covers the appliance; 0 for none.
    pub fn release_delegation(&self, publisher: &PublicKey, name: &Name) -> u64 {
        highest(&self.lock().seen.release_delegations, publisher, name)
    }

    /// The highest sequence of a delegation by this publisher, of whatever role and for whatever names.
    pub fn highest_delegation(&self, publisher: &PublicKey) -> Option<u64> {
        let inner = self.lock();
        let both = [&inner.seen.delegations, &inner.seen.release_delegations];
        both.into_iter().filter_map(|of| of.get(publisher)?.values().max().copied()).max()
    }

    /// The last head that this node signed in a channel.
    pub fn signed(&self, channel: &ChannelName) -> Option<Signed> {
        self.lock().seen.signed.get(channel).cloned()
    }

    /// The last head that this node signed in each channel.
    pub fn all_signed(&self) -> Vec<Signed> {
        self.lock().seen.signed.values().cloned().collect()
    }

    /// The latest time that is known to be right; 0 for none.
    pub fn latest(&self) -> UnixSeconds {
        self.lock().seen.latest
    }

    /// Raises the floors to what was seen, and returns once they are on disk; nothing is written where nothing is higher.
    ///
    /// # Errors
    /// The disk. The floors are as before.
    pub fn raise<'d>(
        &self,
        heads: impl IntoIterator<Item = (ChannelName, Position)>,
        delegations: impl IntoIterator<Item = &'d Delegation>,
    ) -> Result<(), FloorError> {
        let mut inner = self.lock();
        let seen = &inner.seen;
        let heads = heads.into_iter().filter(|(channel, position)| seen.heads.get(channel) < Some(position));
        let mut lines: Vec<Line> = heads.map(|(channel, position)| Line::Head(Place::new(channel, position))).collect();
        for delegation in delegations {
            let names = delegation.names().to_vec();
            let of_role = match delegation.role() {
                DelegatedRole::Channel => &seen.delegations,
                DelegatedRole::Release => &seen.release_delegations,
            };
            let before = of_role.get(delegation.publisher()).and_then(|of| of.get(&names)).copied().unwrap_or(0);
            if delegation.sequence() > before {
                let (publisher, sequence) = (*delegation.publisher(), delegation.sequence());
                lines.push(match delegation.role() {
                    DelegatedRole::Channel => Line::Delegation { publisher, names, sequence },
                    DelegatedRole::Release => Line::ReleaseDelegation { publisher, names, sequence },
                });
            }
        }
        self.append(&mut inner, lines)
    }

    /// Notes what this node is about to sign, and returns once it is on disk: only then may it be signed.
    ///
    /// # Errors
    /// The disk; then it must not be signed.
    pub fn sign(&self, signed: Signed) -> Result<(), FloorError> {
        self.append(&mut self.lock(), vec![Line::Signed(signed)])
    }

    /// Notes the latest time; with `is_reset` also where that is before the one known.
    ///
    /// # Errors
    /// The disk.
    pub fn note_time(&self, latest: UnixSeconds, is_reset: bool) -> Result<(), FloorError> {
        let mut inner = self.lock();
        match latest > inner.seen.latest || is_reset {
            true => self.append(&mut inner, vec![Line::Time { latest, is_reset }]),
            false => Ok(()),
        }
    }

    fn append(&self, inner: &mut Inner, new: Vec<Line>) -> Result<(), FloorError> {
        if new.is_empty() {
            return Ok(());
        }
        let failed = |verb| move |source| FloorError { path: self.path.to_path_buf(), verb, source };
        let text: String =
            new.iter().map(|line| line_of(WORD, line)).collect::<Result<_, _>>().map_err(failed("written"))?;
        inner.tail.append(text.as_bytes()).map_err(failed("written"))?;
        inner.lines += new.len();
        for line in new {
            inner.seen.take(line);
        }
        if inner.lines > WORTH_REWRITING + 2 * inner.seen.len() {
            // The file as it is stays good where this fails; the next step tries again.
            match self.rewrite(inner) {
                Ok(()) => inner.lines = inner.seen.len(),
                Err(error) => tracing::warn!(%error, "the file of what was seen could not be rewritten"),
            }
        }
        Ok(())
    }

    /// Replaces the file by one without history. A crash leaves the old one or the new one.
    fn rewrite(&self, inner: &mut Inner) -> std::io::Result<()> {
        let new = unfinished(&self.path);
        let text: String = inner.seen.lines().map(|line| line_of(WORD, &line)).collect::<Result<_, _>>()?;
        let written = Tail::open(&new).and_then(|mut tail| {
            tail.append(text.as_bytes())?;
            std::fs::rename(&new, &self.path)?;
            Ok(tail)
        });
        match written {
            Ok(tail) => {
                // It is the file from here on. Should the power fail before the disk knows, the old one is still whole.
                inner.tail = tail;
                let synced = self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all());
                if let Err(error) = synced {
                    tracing::warn!(%error, "the new file of what was seen may not be in its place after a power loss");
                }
                Ok(())
            }
            Err(error) => {
                let _ = std::fs::remove_file(&new);
                Err(error)
            }
        }
    }

    // A panic elsewhere leaves what was seen as valid as a failed write does.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn take(&mut self, line: Line) {
        match line {
            Line::Head(place) => {
                let head = self.heads.entry(place.channel()).or_default();
                *head = place.position().max(*head);
            }
            Line::Delegation { publisher, names, sequence } => {
                let highest = self.delegations.entry(publisher).or_default().entry(names).or_default();
                *highest = sequence.max(*highest);
            }
            Line::ReleaseDelegation { publisher, names, sequence } => {
                let highest = self.release_delegations.entry(publisher).or_default().entry(names).or_default();
                *highest = sequence.max(*highest);
            }
            Line::Signed(signed) => {
                self.signed.insert(signed.place.channel(), signed);
            }
            Line::Time { latest, is_reset } => {
                self.latest = if is_reset { latest } else { latest.max(self.latest) };
            }
        }
    }

    fn len(&self) -> usize {
        let delegations = self.delegations.values().chain(self.release_delegations.values());
        self.heads.len() + delegations.map(BTreeMap::len).sum::<usize>() + self.signed.len() + 1
    }

    fn lines(&self) -> impl Iterator<Item = Line> {
        let heads = self.heads.iter().map(|(channel, position)| Line::Head(Place::new(channel.clone(), *position)));
        let delegations = self.delegations.iter().flat_map(|(publisher, of)| {
            of.iter().map(|(names, sequence)| Line::Delegation {
                publisher: *publisher,
                names: names.clone(),
                sequence: *sequence,
            })
        });
        let of_releases = self.release_delegations.iter().flat_map(|(publisher, of)| {
            of.iter().map(|(names, sequence)| Line::ReleaseDelegation {
                publisher: *publisher,
                names: names.clone(),
                sequence: *sequence,
            })
        });
        let signed = self.signed.values().cloned().map(Line::Signed);
        let time = [Line::Time { latest: self.latest, is_reset: false }];
        heads.chain(delegations).chain(of_releases).chain(signed).chain(time)
    }
}

/// The highest sequence of a delegation that covers an appliance; 0 for none.
fn highest(seen: &Delegations, publisher: &PublicKey, name: &Name) -> u64 {
    let of_publisher = seen.get(publisher).into_iter().flatten();
    let covering = of_publisher.filter(|(names, _)| names.iter().any(|pattern| pattern.fits(name)));
    covering.map(|(_, sequence)| *sequence).max().unwrap_or(0)
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("log.new")
}

/// Keys as text, which people can compare.
mod key_text {
    use rialto_protocol::ids::PublicKey;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(key: &PublicKey, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(key)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PublicKey, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> ChannelName {
        let (name, channel) = (name.try_into().unwrap(), "stable".try_into().unwrap());
        ChannelName { publisher: PublicKey([7; 32]), name, channel }
    }

    fn at(epoch: u64, sequence: u64) -> Position {
        Position { epoch, sequence }
    }

    fn delegation(names: &str, sequence: u64) -> Delegation {
        let (keys, names) = ([PublicKey([1; 32])], vec![names.try_into().unwrap()]);
        Delegation::new(PublicKey([7; 32]), DelegatedRole::Channel, keys, 1, names, sequence, 9).unwrap()
    }

    fn signed(name: &str, sequence: u64) -> Signed {
        Signed {
            place: Place::new(channel(name), at(0, sequence)),
            release: RecordId::of(b"release"),
            keys: vec!["releases".try_into().unwrap()],
            lifetime_seconds: 60,
            at: 5,
            standby: Standby::No,
            record: None,
        }
    }

    const NO_DELEGATIONS: [&Delegation; 0] = [];

    #[test]
    fn floors_survive_a_restart_and_only_rise() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("floors.log");
        let floors = Floors::open(&path).unwrap();
        assert_eq!(floors.floor(&channel("batch-1")), Floor::default());
        floors.raise([(channel("batch-1"), at(0, 5))], [&delegation("batch-*", 3)]).unwrap();
        floors.raise([(channel("batch-1"), at(0, 4))], [&delegation("batch-*", 2)]).unwrap();
        floors.raise([(channel("batch-1"), at(1, 1))], NO_DELEGATIONS).unwrap();
        floors.sign(signed("batch-1", 8)).unwrap();
        floors.note_time(100, false).unwrap();
        floors.note_time(90, false).unwrap();
        let check = |floors: &Floors| {
            assert_eq!(floors.floor(&channel("batch-1")), Floor { head: Some(at(1, 1)), delegation: 3 });
            assert_eq!(floors.floor(&channel("batch-2")), Floor { head: None, delegation: 3 }, "it covers the name");
            assert_eq!(floors.floor(&channel("web")), Floor::default());
            assert_eq!(floors.signed(&channel("batch-1")), Some(signed("batch-1", 8)));
            assert_eq!(floors.latest(), 100);
        };
        check(&floors);
        check(&Floors::open(&path).unwrap());
        floors.note_time(50, true).unwrap();
        assert_eq!(Floors::open(&path).unwrap().latest(), 50, "an administrator may put it back");
    }

    #[test]
    fn delegations_of_releases_have_floors_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("floors.log");
        let floors = Floors::open(&path).unwrap();
        let (publisher, names) = (PublicKey([7; 32]), vec!["batch-*".try_into().unwrap()]);
        let role = DelegatedRole::Release;
        let lent = Delegation::new(publisher, role, [PublicKey([1; 32])], 1, names, 9, 9).unwrap();
        floors.raise([], [&delegation("batch-*", 3), &lent]).unwrap();
        for floors in [&floors, &Floors::open(&path).unwrap()] {
            assert_eq!(floors.floor(&channel("batch-1")).delegation, 3);
            assert_eq!(floors.release_delegation(&publisher, &"batch-1".try_into().unwrap()), 9);
            assert_eq!(floors.release_delegation(&publisher, &"web".try_into().unwrap()), 0);
            assert_eq!(floors.highest_delegation(&publisher), Some(9), "they share their numbers");
        }
    }

    #[test]
    fn what_is_not_higher_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("floors.log");
        let floors = Floors::open(&path).unwrap();
        floors.raise([(channel("a"), at(0, 5))], [&delegation("a", 1)]).unwrap();
        let before = std::fs::metadata(&path).unwrap().len();
        floors.raise([(channel("a"), at(0, 5)), (channel("a"), at(0, 1))], [&delegation("a", 1)]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), before);
    }

    #[test]
    fn a_torn_or_damaged_line_costs_itself_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("floors.log");
        let floors = Floors::open(&path).unwrap();
        for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
            floors.raise([(channel(name), at(0, number as u64 + 1))], NO_DELEGATIONS).unwrap();
        }
        drop(floors);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"sequence\":2", "\"sequence\":9") + "{\"crc32\":\"0").unwrap();
        let floors = Floors::open(&path).unwrap();
        let heads = ["a", "b", "c"].map(|name| floors.floor(&channel(name)).head);
        assert_eq!(heads, [Some(at(0, 1)), None, Some(at(0, 3))]);
        floors.raise([(channel("b"), at(0, 2))], NO_DELEGATIONS).unwrap();
        assert_eq!(Floors::open(&path).unwrap().floor(&channel("b")).head, Some(at(0, 2)));
    }

    #[test]
    fn history_is_rewritten_and_nothing_is_lost_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("floors.log");
        let floors = Floors::open(&path).unwrap();
        floors.raise([(channel("kept"), at(3, 3))], [&delegation("kept*", 4)]).unwrap();
        floors.sign(signed("kept", 3)).unwrap();
        for step in 0..WORTH_REWRITING as u64 / 64 * 3 {
            let heads = (0..64).map(|n| (channel(&format!("c{n}")), at(0, step + 1)));
            floors.raise(heads, NO_DELEGATIONS).unwrap();
            floors.note_time(step, false).unwrap();
        }
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 1 + WORTH_REWRITING + 2 * 68 + 64, "{lines} lines");
        for floors in [floors, Floors::open(&path).unwrap()] {
            assert_eq!(floors.floor(&channel("kept")), Floor { head: Some(at(3, 3)), delegation: 4 });
            assert_eq!(floors.floor(&channel("c63")).head, Some(at(0, 48)));
            assert_eq!(floors.all_signed(), [signed("kept", 3)]);
        }
    }

    #[test]
    fn what_cannot_be_written_does_not_count() {
        let floors = Floors::open("/dev/full").unwrap();
        assert!(floors.raise([(channel("a"), at(0, 1))], NO_DELEGATIONS).is_err());
        assert!(floors.sign(signed("a", 1)).is_err());
        assert_eq!((floors.floor(&channel("a")), floors.signed(&channel("a"))), (Floor::default(), None));
    }
}
