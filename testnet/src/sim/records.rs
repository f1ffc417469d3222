//! The records of a simulation: who says what when, and what was truly signed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::{BoundError, List, Name, Text};
use rialto_protocol::ids::{Hash, ImageId, PublicKey, RecordId, Sha256};
use rialto_protocol::record::{
    Body, Channel, Disk, DiskFormat, Endorsement, EndorsementBody, PREDICATE_TESTED, Release, Revocation,
    RevocationSubject,
};
use rialto_protocol::signed::{Draft, EnvelopeError};

use super::SimError;
use super::timeline::{Micros, SECOND};

/// When the simulation begins, for records.
pub(super) const EPOCH: UnixSeconds = 1_790_000_000;
/// Records are published during this time.
pub(super) const PUBLISHING: Micros = 120 * SECOND;
/// Numbers that heads have: few enough for some to be used twice.
const SEQUENCES: u64 = 24;
/// Heads last longer than the simulation.
const LIFETIME: UnixSeconds = 7 * 86_400;
const FEDERATION: &str = "simulated";

/// A signer of the simulation.
#[derive(Debug)]
pub(super) struct Signer {
    key: SigningKey,
    pub(super) public: PublicKey,
}

impl Signer {
    pub(super) fn new(random: &mut fastrand::Rng) -> Self {
        let mut seed = [0; 32];
        random.fill(&mut seed);
        let key = SigningKey::from_bytes(&seed);
        let public = PublicKey(key.verifying_key().to_bytes());
        Self { key, public }
    }
}

/// Bytes that are gossiped.
#[derive(Debug)]
pub(super) struct Gossip {
    pub(super) hash: Hash,
    pub(super) bytes: Vec<u8>,
}

impl Gossip {
    pub(super) fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { hash: Hash::of(&bytes), bytes })
    }
}

/// A record (or one more signature of it) that somebody is to publish.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) at: Micros,
    pub(super) signer: usize,
    pub(super) message: Arc<Gossip>,
}

/// What was truly signed: the reference that sites are compared with.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    signers: BTreeMap<RecordId, BTreeSet<PublicKey>>,
    releases: Vec<(RecordId, PublicKey)>,
    appliances: Vec<(RecordId, PublicKey, Name)>,
    endorsements: Vec<RecordId>,
}

impl Ledger {
    /// Draws records of the known signers (all but the last), and a flood of the last one's.
    pub(super) fn draw(
        &mut self,
        signers: &[Signer],
        records: usize,
        flood: usize,
        images: &[ImageId],
        random: &mut fastrand::Rng,
    ) -> Result<Vec<Publication>, SimError> {
        let known = signers.len() - 1;
        let mut publications = Vec::new();
        for number in 0..records {
            let signer = random.usize(..known);
            let mut issuers = vec![signer];
            // One record in four is co-signed, at another site and time.
            if random.u8(..4) == 0 {
                issuers.push((signer + 1) % known);
            }
            // One in five moves a channel, or says something else of where it is.
            let head = self.draw_head(&signers[signer].public, random).map_err(bound)?;
            if let Some(head) = head {
                publications.extend(self.sign(number, &head, &[signer], signers, random)?);
                continue;
            }
            let body = self.draw_body(number, &signers[signer].public, signers, images, random);
            publications.extend(self.sign(number, &body.map_err(bound)?, &issuers, signers, random)?);
        }
        for number in records..records + flood {
            let body = self.draw_opinion(number, random).map_err(bound)?;
            publications.extend(self.sign(number, &body, &[known], signers, random)?);
        }
        Ok(publications)
    }

    fn sign(
        &mut self,
        number: usize,
        body: &Body,
        issuers: &[usize],
        signers: &[Signer],
        random: &mut fastrand::Rng,
    ) -> Result<Vec<Publication>, SimError> {
        let broken = |error: EnvelopeError| SimError::Broken(error.to_string());
        let belongs = body.belongs_to_a_federation().unwrap_or(false);
        let federation = belongs.then(|| Name::try_from(FEDERATION)).transpose().map_err(bound)?;
        // Co-signers sign the same payload, so its time is the record's, not the moment's.
        let issued = EPOCH + number as u64 % 60;
        let keys = issuers.iter().map(|issuer| signers[*issuer].public);
        let draft = Draft::new(keys, federation, issued, body).map_err(broken)?;
        let mut publications = Vec::new();
        for &signer in issuers {
            let envelope = draft.clone().sign(&signers[signer].key).map_err(broken)?.seal();
            let id = envelope.id();
            if self.signers.entry(id).or_default().is_empty() {
                match body {
                    Body::Release(release) => {
                        self.releases.push((id, release.publisher));
                        self.appliances.push((id, release.publisher, release.name.clone()));
                    }
                    Body::Endorsement(_) => self.endorsements.push(id),
                    _ => {}
                }
            }
            self.signers.entry(id).or_default().insert(signers[signer].public);
            let (at, message) = (random.u64(..PUBLISHING), Gossip::new(envelope.encode()));
            publications.push(Publication { at, signer, message });
        }
        Ok(publications)
    }

    /// A head of a channel of one of this signer's appliances. Its number is drawn from a few: some are used twice, for
    /// different releases, which is a contradiction.
    fn draw_head(&self, signer: &PublicKey, random: &mut fastrand::Rng) -> Result<Option<Body>, BoundError> {
        let own: Vec<&(RecordId, PublicKey, Name)> =
            self.appliances.iter().filter(|(_, publisher, _)| publisher == signer).collect();
        if own.is_empty() || random.u8(..5) > 0 {
            return Ok(None);
        }
        let (release, publisher, name) = own[random.usize(..own.len())];
        Ok(Some(Body::Channel(Channel {
            publisher: *publisher,
            name: name.clone(),
            channel: Name::try_from("stable")?,
            epoch: 0,
            sequence: random.u64(1..SEQUENCES),
            release: *release,
            expires: EPOCH + LIFETIME,
        })))
    }

    fn draw_body(
        &self,
        number: usize,
        signer: &PublicKey,
        signers: &[Signer],
        images: &[ImageId],
        random: &mut fastrand::Rng,
    ) -> Result<Body, BoundError> {
        if self.releases.is_empty() || random.u8(..3) == 0 {
            return release(number, signer, images, random);
        }
        match random.u8(..100) {
            0 => {
                let key = signers[random.usize(..signers.len())].public;
                revocation(number, RevocationSubject::Key(key))
            }
            1..10 => {
                // Every other one by the release's own publisher, where there is one; the rest are opinions.
                let own: Vec<RecordId> =
                    self.releases.iter().filter(|(_, publisher)| publisher == signer).map(|(id, _)| *id).collect();
                let subject = match random.bool() && !own.is_empty() {
                    true => own[random.usize(..own.len())],
                    false => self.draw_release(random),
                };
                revocation(number, RevocationSubject::Release(subject))
            }
            10..15 if !self.endorsements.is_empty() => {
                let subject = self.endorsements[random.usize(..self.endorsements.len())];
                revocation(number, RevocationSubject::Endorsement(subject))
            }
            _ => endorsement(number, self.draw_release(random)),
        }
    }

    /// What a stranger says: of what others said, for and against.
    fn draw_opinion(&self, number: usize, random: &mut fastrand::Rng) -> Result<Body, BoundError> {
        match random.u8(..4) {
            0 => revocation(number, RevocationSubject::Release(self.draw_release(random))),
            _ => endorsement(number, self.draw_release(random)),
        }
    }

    fn draw_release(&self, random: &mut fastrand::Rng) -> RecordId {
        match self.releases.len() {
            0 => RecordId::of(b"no release at all"),
            releases => self.releases[random.usize(..releases)].0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.signers.len()
    }

    /// The releases of the known signers.
    pub(super) fn releases(&self) -> &[(RecordId, PublicKey)] {
        &self.releases
    }

    /// Whether all of these signed this.
    pub(super) fn has<'a>(&self, id: &RecordId, mut signers: impl Iterator<Item = &'a PublicKey>) -> bool {
        self.signers.get(id).is_some_and(|signed| signers.all(|key| signed.contains(key)))
    }

    /// The records that this key signed.
    pub(super) fn of<'a>(&'a self, key: &'a PublicKey) -> impl Iterator<Item = &'a RecordId> {
        self.signers.iter().filter(|(_, signers)| signers.contains(key)).map(|(id, _)| id)
    }
}

fn release(
    number: usize,
    publisher: &PublicKey,
    images: &[ImageId],
    random: &mut fastrand::Rng,
) -> Result<Body, BoundError> {
    // Two disks in every other release, the same images again and again: appliances share components.
    let mut disks = Vec::new();
    for place in 0..1 + usize::from(random.bool()) {
        let image = match images.len() {
            0 => ImageId::of(&number.to_be_bytes()),
            length => images[(number + place) % length],
        };
        let hash = Hash::of(&[number as u8, place as u8]);
        disks.push(Disk { image, format: DiskFormat::Raw, bytes: 1 << 20, blake3: hash, sha256: Sha256(hash.0) });
    }
    let name = Name::try_from(format!("appliance-{}", number % 10).as_str())?;
    let version = format!("1.{number}").as_str().try_into()?;
    let release = Release::minimal(*publisher, name, version, List::try_from(disks)?, Text::try_from("Simulates")?);
    Ok(Body::Release(Box::new(Release { sequence: number as u64, ..release })))
}

fn endorsement(number: usize, subject: RecordId) -> Result<Body, BoundError> {
    let note = Some(Text::try_from(format!("record {number}").as_str())?);
    let predicate = Text::try_from(PREDICATE_TESTED)?;
    let body = EndorsementBody::Native { note };
    Ok(Body::Endorsement(Endorsement { subject, predicate, body, expires: None }))
}

fn revocation(number: usize, subject: RevocationSubject) -> Result<Body, BoundError> {
    Ok(Body::Revocation(Revocation { subject, reason: Text::try_from(format!("reason {number}").as_str())? }))
}

fn bound(error: BoundError) -> SimError {
    SimError::Broken(error.to_string())
}
