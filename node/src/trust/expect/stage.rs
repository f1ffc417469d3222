//! [`Stage`]: a case made true. Every record that it speaks of is signed and verified, as if it had come from another site.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use rialto_protocol::UnixSeconds;
use rialto_protocol::attestation::{Dsse, PAYLOAD_TYPE_IN_TOTO, PREDICATE_PROVENANCE};
use rialto_protocol::bounded::{BoundError, List, Name};
use rialto_protocol::channel::{ChannelName, Floor, Position};
use rialto_protocol::ids::{Hash, ImageId, RecordId, Sha256};
use rialto_protocol::package::Bom;
use rialto_protocol::record::{
    Advisory, Body, Channel, Disk, DiskFormat, Endorsement, EndorsementBody, Record, Release, Revocation,
    RevocationSubject,
};
use rialto_protocol::signed::{Draft, EnvelopeError, Verified};

use super::file::{Said, Sbom, State, Stated, Subject, Who};
use super::stand_in::public_half;
use crate::trust::verdict::time_shown;
use crate::trust::{ChannelFacts, Facts, Inside};

/// The channel that a case speaks of.
const CHANNEL: &str = "stable";
/// How long a head lasts that has not expired: longer than any case is old.
const YEAR: UnixSeconds = 365 * 24 * 60 * 60;
/// The one package that is inside of a release, and its ecosystem.
const INSIDE: [&str; 2] = ["something-inside", "cargo"];
/// The federation that revocations and heads of channels name; a verdict does not depend on it.
const FEDERATION: &str = "imagined";

/// Why a case cannot be made true: it would take a record that nobody can make.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A record that is too large, or has too many signers.
    #[error("{0}")]
    Record(#[from] EnvelopeError),
    /// A word that is too long.
    #[error("{0}")]
    Bound(#[from] BoundError),
}

/// A release and all that is known of it.
pub(super) struct Stage {
    pub(super) release: Verified<Record>,
    endorsements: Vec<Verified<Record>>,
    revocations: Vec<Verified<Record>>,
    advisories: Vec<Verified<Record>>,
    heads: Vec<Verified<Record>>,
    channel: Option<(ChannelName, Floor)>,
    inside: Option<Inside>,
    federation: Option<Name>,
    /// Ids and fingerprints that nobody would know again, and what the file calls them.
    called: Vec<(String, String)>,
}

impl Stage {
    /// Makes a case true at `now`.
    pub(super) fn set(stated: &Stated, now: UnixSeconds) -> Result<Self, StageError> {
        let issuers: Vec<&Who> = stated.signed_by.iter().chain([&stated.publisher]).collect();
        let release = Body::Release(Box::new(release(stated, now)?));
        let release = signed(&release, &issuers, &stated.signed_by, now.saturating_sub(stated.age))?;
        let mut stage = Self {
            called: vec![(release.id.to_string(), "release".to_owned())],
            release,
            endorsements: Vec::new(),
            revocations: Vec::new(),
            advisories: Vec::new(),
            heads: Vec::new(),
            channel: None,
            inside: None,
            federation: stated.federation.clone(),
        };
        stage.called.extend(issuers.iter().map(|who| (public_half(&who.key).fingerprint(), who.called.clone())));
        for (word, said, is_native) in [
            ("endorsed-by", &stated.endorsed_by, true),
            ("rebuilt-by", &stated.rebuilt_by, true),
            ("provenance", &stated.provenance, false),
        ] {
            for (said, number) in said.iter().zip(1..) {
                let body = match is_native {
                    true => native(said, stage.release.id, now)?,
                    false => provenance(said, &stage.release, now)?,
                };
                stage.endorse(&format!("{word} {number}"), said, &body, now)?;
            }
        }
        for ((by, severity), number) in stated.advisories.iter().zip(1..) {
            let [package, ecosystem] = INSIDE;
            let advisory = Body::Advisory(Box::new(Advisory {
                id: format!("advisory-{number}").try_into()?,
                ecosystem: ecosystem.try_into()?,
                package: package.try_into()?,
                fixed: None,
                severity: *severity,
                summary: None,
            }));
            let advisory = signed(&advisory, &[by], std::slice::from_ref(by), now)?;
            stage.call(&advisory, &format!("advisories {number}"));
            stage.advisories.push(advisory);
        }
        for ((by, subject), number) in stated.revoked_by.iter().zip(1..) {
            let subject = match subject {
                Subject::Release => RevocationSubject::Release(stage.release.id),
                Subject::Key => RevocationSubject::Key(public_half(&stated.publisher.key)),
            };
            stage.revoke(&format!("revoked-by {number}"), by, subject, now)?;
        }
        if let Some((state, age)) = stated.channel {
            stage.point(stated, state, age, now)?;
        }
        stage.fill(stated.sbom);
        Ok(stage)
    }

    /// All this, as policy takes it.
    pub(super) fn facts(&self) -> Facts<'_> {
        let of_channel = self.channel.iter().map(|(channel, floor)| ChannelFacts {
            channel: channel.clone(),
            heads: self.heads.iter().collect(),
            floor: *floor,
        });
        Facts {
            seen_delegation: 0,
            endorsements: self.endorsements.iter().collect(),
            revocations: self.revocations.iter().collect(),
            channels: of_channel.collect(),
            delegations: Vec::new(),
            inside: self.inside.clone(),
            advisories: self.advisories.iter().collect(),
            unreadable: 0,
            federation: self.federation.clone(),
        }
    }

    /// A sentence of a verdict, with what the file says in the place of ids that exist only here.
    pub(super) fn in_words(&self, sentence: &str) -> String {
        self.called.iter().fold(sentence.to_owned(), |sentence, (id, called)| {
            sentence.replace(&format!("record {id}"), called).replace(id, called)
        })
    }

    fn call(&mut self, record: &Verified<Record>, called: &str) {
        self.called.push((record.id.to_string(), called.to_owned()));
    }

    fn endorse(&mut self, called: &str, said: &Said, body: &Body, now: UnixSeconds) -> Result<(), StageError> {
        let by = std::slice::from_ref(&said.by);
        let record = signed(body, &[&said.by], by, now.saturating_sub(said.age))?;
        self.call(&record, called);
        if said.is_revoked {
            let subject = RevocationSubject::Endorsement(record.id);
            self.revoke(&format!("{called}, taken back"), &said.by, subject, now)?;
        }
        self.endorsements.push(record);
        Ok(())
    }

    fn revoke(
        &mut self,
        called: &str,
        by: &Who,
        subject: RevocationSubject,
        now: UnixSeconds,
    ) -> Result<(), StageError> {
        let reason = "as the case says".try_into()?;
        let record = signed(&Body::Revocation(Revocation { subject, reason }), &[by], std::slice::from_ref(by), now)?;
        self.call(&record, called);
        self.revocations.push(record);
        Ok(())
    }

    /// Says where the channel points.
    fn point(&mut self, stated: &Stated, state: State, age: UnixSeconds, now: UnixSeconds) -> Result<(), StageError> {
        let publisher = public_half(&stated.publisher.key);
        let channel = ChannelName { publisher, name: stated.name.clone(), channel: CHANNEL.try_into()? };
        let another = RecordId::of(b"another release");
        self.called.push((another.to_string(), "another one".to_owned()));
        let here = self.release.id;
        let heads = match state {
            State::Elsewhere => vec![another],
            State::Contradicted => vec![here, another],
            State::Fresh | State::Frozen | State::RolledBack => vec![here],
        };
        let expires = match state {
            State::Frozen => now,
            _ => now.saturating_add(YEAR),
        };
        for release in heads {
            let ChannelName { publisher, name, channel } = channel.clone();
            let head = Body::Channel(Channel { publisher, name, channel, epoch: 0, sequence: 1, release, expires });
            let by = &stated.publisher;
            let head = signed(&head, &[by], std::slice::from_ref(by), now.saturating_sub(age))?;
            self.call(&head, "channel");
            self.heads.push(head);
        }
        let sequence = if state == State::RolledBack { 2 } else { 1 };
        self.channel = Some((channel, Floor { head: Some(Position { epoch: 0, sequence }), delegation: 0 }));
        Ok(())
    }

    /// Puts something inside of the release.
    fn fill(&mut self, sbom: Option<Sbom>) {
        let [package, _] = INSIDE;
        let document = serde_json::json!({
            "bomFormat": "CycloneDX", "specVersion": "1.5",
            "components": [{"type": "library", "name": package, "purl": format!("pkg:cargo/{package}@1.0.0")}],
        });
        self.called.push((image("sbom").to_string(), "of the case".to_owned()));
        self.inside = sbom.map(|sbom| match (sbom, Bom::parse(document.to_string().as_bytes())) {
            (Sbom::Known, Ok(bom)) => Inside::Known(Arc::new(bom)),
            (Sbom::Known, Err(error)) => Inside::Unknown(error.to_string()),
            (Sbom::Named, _) => Inside::Unknown("the case says that it is named, and no more".to_owned()),
        });
        self.called.push((image("provenance").to_string(), "of the case".to_owned()));
    }
}

fn release(stated: &Stated, now: UnixSeconds) -> Result<Release, StageError> {
    let content = b"disk";
    let disk = Disk {
        image: ImageId::of(content),
        format: DiskFormat::Raw,
        bytes: stated.size,
        blake3: Hash::of(content),
        sha256: Sha256(Hash::of(content).0),
    };
    let publisher = public_half(&stated.publisher.key);
    let mut release = Release::minimal(
        publisher,
        stated.name.clone(),
        stated.version.clone(),
        List::try_from(vec![disk])?,
        "imagined".try_into()?,
    );
    release.arch = stated.arch;
    release.tags = stated.tags.clone();
    release.requirements.memory_bytes = stated.memory;
    release.requirements.vcpus = stated.vcpus;
    release.licence = stated.licence.clone();
    release.expires = stated.expired.map(|ago| now.saturating_sub(ago));
    release.sbom = stated.sbom.map(|_| image("sbom"));
    release.provenance = stated.names_provenance.then(|| image("provenance"));
    Ok(release)
}

fn image(content: &str) -> ImageId {
    ImageId::of(content.as_bytes())
}

/// An endorsement in Rialto's own form.
fn native(said: &Said, subject: RecordId, now: UnixSeconds) -> Result<Body, StageError> {
    Ok(Body::Endorsement(Endorsement {
        subject,
        predicate: said.what.as_str().try_into()?,
        body: EndorsementBody::Native { note: None },
        expires: said.expired.map(|ago| now.saturating_sub(ago)),
    }))
}

/// A statement of SLSA provenance about the release's disk.
fn provenance(said: &Said, release: &Verified<Record>, now: UnixSeconds) -> Result<Body, StageError> {
    let disks = release.body.release().into_iter().flat_map(|release| release.disks.iter());
    let subjects: Vec<_> =
        disks.map(|disk| serde_json::json!({"digest": {"sha256": disk.sha256.to_string()}})).collect();
    let statement = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": PREDICATE_PROVENANCE,
        "predicate": {
            "buildDefinition": {"buildType": "about:imagined"},
            "runDetails": {
                "builder": {"id": said.what},
                "metadata": {"finishedOn": time_shown(now.saturating_sub(said.age))},
            },
        },
    });
    let envelope = Dsse::seal(PAYLOAD_TYPE_IN_TOTO, statement.to_string().as_bytes(), &[&said.by.key]).into_bytes();
    Ok(Body::Endorsement(Endorsement {
        subject: release.id,
        predicate: PREDICATE_PROVENANCE.try_into()?,
        body: EndorsementBody::Dsse { envelope },
        expires: said.expired.map(|ago| now.saturating_sub(ago)),
    }))
}

/// A record that `issuers` may sign and that `by` did, verified.
fn signed(body: &Body, issuers: &[&Who], by: &[Who], issued: UnixSeconds) -> Result<Verified<Record>, StageError> {
    let federation = match body.belongs_to_a_federation() {
        Some(true) => Some(Name::try_from(FEDERATION)?),
        _ => None,
    };
    let draft = Draft::new(issuers.iter().map(|who| public_half(&who.key)), federation, issued, body)?;
    let mut keys = by.iter().map(|who| -> &SigningKey { &who.key });
    let envelope = keys.try_fold(draft, Draft::sign)?.seal();
    Ok(envelope.verify()?)
}
