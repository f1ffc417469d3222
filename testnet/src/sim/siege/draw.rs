//! What is said during a siege, by whom, where and when: the stories of the signers, and the attacker's part in them.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::{List, Name, Text};
use rialto_protocol::ids::{Hash, ImageId, PublicKey, RecordId, Sha256};
use rialto_protocol::record::{
    Body, Channel, DelegatedRole, Delegation, Disk, DiskFormat, Endorsement, EndorsementBody, PREDICATE_TESTED,
    Release, Revocation, RevocationSubject,
};
use rialto_protocol::signed::Draft;

use super::super::records::{EPOCH, Gossip};
use super::super::timeline::{Micros, SECOND};
use super::SiegeError;

/// Everything is published before this.
pub(super) const PUBLISHED_BY: Micros = 120 * SECOND;
/// Heads of publishers that go on.
const LASTING: UnixSeconds = EPOCH + 30 * 86_400;
/// When the last head of a publisher that fell silent expires.
const SILENT_FROM: UnixSeconds = EPOCH + 100;
const FEDERATION: &str = "besieged";
/// Heads that the attacker makes with stolen keys, at most, and keys that a flooder has.
const MAX_STOLEN_HEADS: usize = 60;
const FLOODER_KEYS: usize = 3;

/// Where something is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// At a site that keeps what this signer says.
    Of(usize),
    /// At one of the forger's sites.
    Forger,
    /// At one of the flooder's.
    Flooder,
    /// At one of the equivocator's, to one of its peers alone.
    Equivocator,
}

/// Something that somebody says.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) at: Micros,
    pub(super) place: Place,
    pub(super) message: Arc<Gossip>,
    /// Whether it was signed by those whom it names, so that it is a part of the truth.
    pub(super) is_true: bool,
}

/// What becomes of a signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    /// Moves its channel with its own key.
    Own,
    /// Lets an online key move it.
    Delegates,
    /// The same, until that key is stolen; then another key takes its place.
    Robbed,
    /// Says two things at once in the end.
    ContradictsItself,
    /// Two keys must sign; one of them is stolen.
    TwoKeys,
    /// Falls silent, and its last head expires.
    FallsSilent,
}

impl Story {
    const ALL: [Self; 6] =
        [Self::Own, Self::Delegates, Self::Robbed, Self::ContradictsItself, Self::TwoKeys, Self::FallsSilent];
}

/// Draws what is said.
pub(super) struct Drawing<'r> {
    pub(super) random: &'r mut fastrand::Rng,
    /// The signers that policies name.
    pub(super) signers: Vec<SigningKey>,
    /// The attacker's own key.
    pub(super) mallory: SigningKey,
    said: Vec<Said>,
    number: u64,
}

impl<'r> Drawing<'r> {
    pub(super) fn new(signers: usize, random: &'r mut fastrand::Rng) -> Self {
        let mallory = draw_key(random);
        let signers = (0..signers).map(|_| draw_key(random)).collect();
        Self { random, signers, mallory, said: Vec::new(), number: 0 }
    }

    /// Draws it all, in no order.
    pub(super) fn draw(mut self, opinions: usize, flooders: usize, flood: usize) -> Result<Vec<Said>, SiegeError> {
        let mut releases = Vec::new();
        for signer in 0..self.signers.len() {
            releases.extend(self.tell(signer, Story::ALL[signer % Story::ALL.len()])?);
        }
        for _ in 0..opinions {
            self.opine(&releases)?;
        }
        self.forge(&releases)?;
        for _ in 0..flooders {
            let keys: Vec<SigningKey> = (0..FLOODER_KEYS).map(|_| draw_key(self.random)).collect();
            for number in 0..flood {
                let subject = releases[self.random.usize(..releases.len())].0;
                let body = match number % 3 {
                    0 => self.revocation(RevocationSubject::Release(subject))?,
                    _ => self.endorsement(subject, None)?,
                };
                self.say(Place::Flooder, 10..115, &body, &[&keys[number % keys.len()]])?;
            }
        }
        Ok(self.said)
    }

    fn tell(&mut self, signer: usize, story: Story) -> Result<Vec<(RecordId, usize)>, SiegeError> {
        let root = self.signers[signer].clone();
        let name = Name::try_from(format!("appliance-{signer}").as_str()).map_err(broken)?;
        let mut releases = Vec::new();
        for version in 0..4_u32 {
            let body = self.release(&public(&root), &name, version)?;
            releases.push((self.say(Place::Of(signer), 0..30, &body, &[&root])?, signer));
        }
        let [online, second, next] = [0; 3].map(|_| draw_key(self.random));
        let head = |this: &mut Self, epoch: u64, sequence: u64, expires: UnixSeconds| -> Result<Body, SiegeError> {
            let release = releases[this.random.usize(..releases.len())].0;
            head(&public(&root), &name, epoch, sequence, release, expires)
        };
        let lent: &[&SigningKey] = match story {
            Story::Own | Story::ContradictsItself | Story::FallsSilent => &[],
            Story::Delegates | Story::Robbed => &[&online],
            Story::TwoKeys => &[&online, &second],
        };
        let (epoch, keys) = if lent.is_empty() { (0, vec![&root]) } else { (1, lent.to_vec()) };
        if !lent.is_empty() {
            let body = delegation(&public(&root), 1, lent)?;
            self.say(Place::Of(signer), 20..40, &body, &[&root])?;
        }
        for sequence in 1..=4 {
            let from = 20 + 20 * sequence;
            let expires = if story == Story::FallsSilent { SILENT_FROM } else { LASTING };
            let body = head(self, epoch, sequence, expires)?;
            // Two that must sign may do so at two places; their signatures come together on the way.
            match keys[..] {
                [one, two] if self.random.bool() => {
                    for key in [one, two] {
                        self.say_of(Place::Of(signer), from..from + 10, &body, &[one, two], &[key])?;
                    }
                }
                _ => drop(self.say(Place::Of(signer), from..from + 10, &body, &keys)?),
            }
        }
        match story {
            Story::ContradictsItself => {
                for release in &releases[..2] {
                    let body = head_of(&public(&root), &name, (0, 9), release.0)?;
                    self.say(Place::Of(signer), 108..118, &body, &[&root])?;
                }
            }
            Story::Robbed => {
                // Whatever the thief says meanwhile, it is over with the next epoch.
                let body = delegation(&public(&root), 2, &[&next])?;
                self.say(Place::Of(signer), 108..114, &body, &[&root])?;
                let body = head(self, 2, 1, LASTING)?;
                self.say(Place::Of(signer), 108..118, &body, &[&next])?;
            }
            _ => {}
        }
        if matches!(story, Story::Robbed | Story::TwoKeys) {
            let stolen = MAX_STOLEN_HEADS / self.signers.len().max(1) + 1;
            for number in 0..stolen {
                let sequence = if number % 3 == 0 { u64::MAX } else { self.random.u64(1..8) };
                let epoch = self.random.u64(0..3);
                let body = head(self, epoch, sequence, LASTING)?;
                self.say(Place::Equivocator, 45..118, &body, &[&online])?;
            }
        }
        Ok(releases)
    }

    /// An endorsement or a revocation by a signer, co-signed by another one at times.
    fn opine(&mut self, releases: &[(RecordId, usize)]) -> Result<(), SiegeError> {
        let signer = self.random.usize(..self.signers.len());
        let (release, publisher) = releases[self.random.usize(..releases.len())];
        match self.random.u8(..20) {
            // A fact by its own publisher, an opinion by anybody else.
            0 => {
                let body = self.revocation(RevocationSubject::Release(release))?;
                let key = self.signers[publisher].clone();
                self.say(Place::Of(publisher), 30..118, &body, &[&key])?;
            }
            1 => {
                let body = self.revocation(RevocationSubject::Release(release))?;
                let key = self.signers[signer].clone();
                self.say(Place::Of(signer), 30..118, &body, &[&key])?;
            }
            2..5 => {
                // Given, and taken back.
                let (body, key) = (self.endorsement(release, None)?, self.signers[signer].clone());
                let endorsement = self.say(Place::Of(signer), 10..80, &body, &[&key])?;
                let body = self.revocation(RevocationSubject::Endorsement(endorsement))?;
                self.say(Place::Of(signer), 10..118, &body, &[&key])?;
            }
            5..8 => {
                // Each of two at a place of its own.
                let body = self.endorsement(release, None)?;
                let other = (signer + 1) % self.signers.len();
                let keys = [signer, other].map(|signer| self.signers[signer].clone());
                for (place, key) in [signer, other].into_iter().zip(&keys) {
                    self.say_of(Place::Of(place), 10..118, &body, &[&keys[0], &keys[1]], &[key])?;
                }
            }
            8 => {
                let (body, key) = (self.endorsement(release, Some(SILENT_FROM))?, self.signers[signer].clone());
                self.say(Place::Of(signer), 10..80, &body, &[&key])?;
            }
            _ => {
                let (body, key) = (self.endorsement(release, None)?, self.signers[signer].clone());
                self.say(Place::Of(signer), 10..118, &body, &[&key])?;
            }
        }
        Ok(())
    }

    /// What the attacker makes up with a key of its own: well signed, and by nobody whom it names; or not even that.
    fn forge(&mut self, releases: &[(RecordId, usize)]) -> Result<(), SiegeError> {
        let mallory = self.mallory.clone();
        for signer in 0..self.signers.len() {
            let root = public(&self.signers[signer]);
            let name = Name::try_from(format!("appliance-{signer}").as_str()).map_err(broken)?;
            let body = self.release(&root, &name, 9)?;
            let own = self.say(Place::Forger, 10..60, &body, &[&mallory])?;
            for body in [
                head_of(&root, &name, (0, u64::MAX), own)?,
                head_of(&root, &name, (u64::MAX, 1), own)?,
                delegation(&root, u64::MAX, &[&mallory])?,
                self.revocation(RevocationSubject::Key(root))?,
            ] {
                self.say(Place::Forger, 10..118, &body, &[&mallory])?;
            }
        }
        for &(release, signer) in releases {
            let body = self.endorsement(release, None)?;
            self.say(Place::Forger, 10..118, &body, &[&mallory])?;
            // A true record with somebody else's signature in the place of its own.
            let name = Name::try_from(format!("appliance-{signer}").as_str()).map_err(broken)?;
            let body = self.release(&public(&self.signers[signer]), &name, 8)?;
            let honest = self.signers[signer].clone();
            let made = draft(&body, &[&honest], self.issued())?.sign(&honest).map_err(broken)?.seal().encode();
            let theirs = honest_signature(&made, &honest);
            let mut bytes = made;
            let stray = mallory_signature(&body, &mallory, self.issued())?;
            if let Some(at) = theirs.filter(|at| at + stray.len() <= bytes.len()) {
                bytes[at..at + stray.len()].copy_from_slice(&stray);
                let at = self.random.u64(10 * SECOND..100 * SECOND);
                self.said.push(Said { at, place: Place::Forger, message: Gossip::new(bytes), is_true: false });
            }
        }
        Ok(())
    }

    fn say(
        &mut self,
        place: Place,
        seconds: std::ops::Range<u64>,
        body: &Body,
        keys: &[&SigningKey],
    ) -> Result<RecordId, SiegeError> {
        self.say_of(place, seconds, body, keys, keys)
    }

    /// Says something by `issuers` that `keys` have signed so far.
    fn say_of(
        &mut self,
        place: Place,
        seconds: std::ops::Range<u64>,
        body: &Body,
        issuers: &[&SigningKey],
        keys: &[&SigningKey],
    ) -> Result<RecordId, SiegeError> {
        let draft = draft(body, issuers, self.issued())?;
        let draft = keys.iter().try_fold(draft, |draft, key| draft.sign(key)).map_err(broken)?;
        let envelope = draft.seal();
        let at = self.random.u64(seconds.start * SECOND..seconds.end * SECOND);
        self.said.push(Said { at, place, message: Gossip::new(envelope.encode()), is_true: true });
        Ok(envelope.id())
    }

    /// The same for all: co-signers sign one payload.
    fn issued(&self) -> UnixSeconds {
        EPOCH
    }

    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn release(&mut self, publisher: &PublicKey, name: &Name, version: u32) -> Result<Body, SiegeError> {
        let image = ImageId::of(&self.next().to_be_bytes());
        let hash = Hash::of(&self.number.to_be_bytes());
        let disk = Disk { image, format: DiskFormat::Raw, bytes: 1 << 20, blake3: hash, sha256: Sha256(hash.0) };
        let disks = List::try_from(vec![disk]).map_err(broken)?;
        let version_name = format!("{version}.0").as_str().try_into().map_err(broken)?;
        let summary = Text::try_from("Besieged").map_err(broken)?;
        let release = Release::minimal(*publisher, name.clone(), version_name, disks, summary);
        Ok(Body::Release(Box::new(Release { sequence: version.into(), ..release })))
    }

    fn endorsement(&mut self, subject: RecordId, expires: Option<UnixSeconds>) -> Result<Body, SiegeError> {
        let note = Some(Text::try_from(format!("note {}", self.next()).as_str()).map_err(broken)?);
        let predicate = Text::try_from(PREDICATE_TESTED).map_err(broken)?;
        Ok(Body::Endorsement(Endorsement { subject, predicate, body: EndorsementBody::Native { note }, expires }))
    }

    fn revocation(&mut self, subject: RevocationSubject) -> Result<Body, SiegeError> {
        let reason = Text::try_from(format!("reason {}", self.next()).as_str()).map_err(broken)?;
        Ok(Body::Revocation(Revocation { subject, reason }))
    }
}

fn draw_key(random: &mut fastrand::Rng) -> SigningKey {
    let mut seed = [0; 32];
    random.fill(&mut seed);
    SigningKey::from_bytes(&seed)
}

pub(super) fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

fn draft(body: &Body, issuers: &[&SigningKey], issued: UnixSeconds) -> Result<Draft, SiegeError> {
    let belongs = body.belongs_to_a_federation().unwrap_or(false);
    let federation = belongs.then(|| Name::try_from(FEDERATION)).transpose().map_err(broken)?;
    Draft::new(issuers.iter().map(|key| public(key)), federation, issued, body).map_err(broken)
}

/// Where the signature is in an envelope of one.
fn honest_signature(envelope: &[u8], key: &SigningKey) -> Option<usize> {
    let key = public(key).0;
    // The key comes first, then the word `signature` and the head of its bytes.
    let found = envelope.windows(key.len()).rposition(|bytes| bytes == key)?;
    let rest = &envelope[found + key.len()..];
    let word = rest.windows(b"signature".len()).position(|bytes| bytes == b"signature")?;
    Some(found + key.len() + word + b"signature".len() + 2)
}

fn mallory_signature(body: &Body, mallory: &SigningKey, issued: UnixSeconds) -> Result<Vec<u8>, SiegeError> {
    let bytes = draft(body, &[mallory], issued)?.sign(mallory).map_err(broken)?.seal().encode();
    let at = honest_signature(&bytes, mallory).unwrap_or(0);
    Ok(bytes.get(at..at + 64).unwrap_or_default().to_vec())
}

fn head_of(
    publisher: &PublicKey,
    name: &Name,
    (epoch, sequence): (u64, u64),
    release: RecordId,
) -> Result<Body, SiegeError> {
    head(publisher, name, epoch, sequence, release, LASTING)
}

fn head(
    publisher: &PublicKey,
    name: &Name,
    epoch: u64,
    sequence: u64,
    release: RecordId,
    expires: UnixSeconds,
) -> Result<Body, SiegeError> {
    let channel = Name::try_from("stable").map_err(broken)?;
    let (publisher, name) = (*publisher, name.clone());
    Ok(Body::Channel(Channel { publisher, name, channel, epoch, sequence, release, expires }))
}

fn delegation(publisher: &PublicKey, sequence: u64, to: &[&SigningKey]) -> Result<Body, SiegeError> {
    let names = vec!["*".try_into().map_err(broken)?];
    let (role, threshold) = (DelegatedRole::Channel, to.len() as u32);
    let keys = to.iter().map(|key| public(key));
    let made = Delegation::new(*publisher, role, keys, threshold, names, sequence, LASTING);
    Ok(Body::Delegation(made.map_err(broken)?))
}

fn broken(error: impl std::fmt::Display) -> SiegeError {
    SiegeError::Broken(error.to_string())
}
