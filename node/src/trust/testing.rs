//! Records and policies for the tests of this room.

use ed25519_dalek::SigningKey;
use rialto_protocol::UnixSeconds;
use rialto_protocol::attestation::{Dsse, PAYLOAD_TYPE_IN_TOTO};
use rialto_protocol::bounded::{List, Name};
use rialto_protocol::ids::{Hash, ImageId, PublicKey, RecordId, Sha256};
use rialto_protocol::record::{
    Body, Boot, Disk, DiskFormat, Endorsement, EndorsementBody, PREDICATE_TESTED, Record, Release, Revocation,
    RevocationSubject,
};
use rialto_protocol::signed::{Draft, Verified};

/// The node's clock in tests: 2025-10-09T08:53:20Z.
pub(super) const NOW: UnixSeconds = 1_760_000_000;
pub(super) const DAY: UnixSeconds = 24 * 60 * 60;

pub(super) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(super) fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

/// A key as the policy file has it.
pub(super) fn openssh(key: &PublicKey) -> String {
    let key = ssh_key::public::Ed25519PublicKey(key.0);
    ssh_key::PublicKey::from(key).to_openssh().unwrap()
}

pub(super) fn image(content: &str) -> ImageId {
    ImageId::of(content.as_bytes())
}

/// A record that all of `keys` may sign, and did.
pub(super) fn signed(body: &Body, keys: &[&SigningKey], issued: UnixSeconds) -> Verified<Record> {
    signed_by_some(body, keys, keys, issued)
}

/// A record that names `issuers`, and that `keys` signed.
pub(super) fn signed_by_some(
    body: &Body,
    issuers: &[&SigningKey],
    keys: &[&SigningKey],
    issued: UnixSeconds,
) -> Verified<Record> {
    let belongs = body.belongs_to_a_federation().unwrap_or(false);
    let federation = belongs.then(|| Name::try_from("science").unwrap());
    let draft = Draft::new(issuers.iter().map(|key| public(key)), federation, issued, body).unwrap();
    keys.iter().fold(draft, |draft, key| draft.sign(key).unwrap()).seal().verify().unwrap()
}

/// Who is who: `cern` publishes; `security`, `desy` and `kek` review; `mallory` is in nobody's policy.
pub(super) struct Scene {
    pub(super) cern: SigningKey,
    pub(super) security: SigningKey,
    /// The key that `security` had before.
    pub(super) security_old: SigningKey,
    pub(super) desy: SigningKey,
    pub(super) kek: SigningKey,
    pub(super) mallory: SigningKey,
}

impl Default for Scene {
    fn default() -> Self {
        let [cern, security, security_old, desy, kek, mallory] = [1, 2, 3, 4, 5, 99].map(key);
        Self { cern, security, security_old, desy, kek, mallory }
    }
}

impl Scene {
    /// `[signers]` and `[roles]` for all but mallory; two of the three reviewers are needed.
    pub(super) fn preamble(&self) -> String {
        let [cern, security, old, desy, kek] =
            [&self.cern, &self.security, &self.security_old, &self.desy, &self.kek].map(|key| openssh(&public(key)));
        format!(
            r#"[signers]
cern = "{cern}"
security = ["{old}", "{security}"]
desy = "{desy}"
kek = "{kek}"

[roles]
builders = {{ signers = "cern" }}
reviewers = {{ signers = ["security", "desy", "kek"], threshold = 2, max-age = "90d" }}
"#
        )
    }

    /// The policy with one rule, which has these lines, `name` apart.
    pub(super) fn policy(&self, rule: &str) -> crate::trust::Policy {
        let text = format!("{}\n[[rule]]\nname = \"workers\"\n{rule}\n", self.preamble());
        crate::trust::Policy::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// A release of cern's, as it is or changed.
    pub(super) fn body(&self, change: impl FnOnce(&mut Release)) -> Body {
        let mut release = Release::minimal(
            public(&self.cern),
            Name::try_from("batch-worker").unwrap(),
            "1.0.0".try_into().unwrap(),
            List::try_from(vec![disk("root"), disk("swap")]).unwrap(),
            "Works".try_into().unwrap(),
        );
        release.boot = Boot::Direct {
            kernel: image("kernel"),
            initrd: Some(image("initrd")),
            cmdline: "console=ttyS0".try_into().unwrap(),
        };
        change(&mut release);
        Body::Release(Box::new(release))
    }

    /// Cern's release, signed by cern now.
    pub(super) fn release(&self, change: impl FnOnce(&mut Release)) -> Verified<Record> {
        signed(&self.body(change), &[&self.cern], NOW)
    }
}

pub(super) fn disk(content: &str) -> Disk {
    let hash = Hash::of(content.as_bytes());
    Disk { image: image(content), format: DiskFormat::Raw, bytes: 4096, blake3: hash, sha256: Sha256(hash.0) }
}

pub(super) fn endorsement(subject: RecordId, change: impl FnOnce(&mut Endorsement)) -> Body {
    let mut endorsement = Endorsement {
        subject,
        predicate: PREDICATE_TESTED.try_into().unwrap(),
        body: EndorsementBody::Native { note: None },
        expires: None,
    };
    change(&mut endorsement);
    Body::Endorsement(endorsement)
}

/// A statement about the release's first disk that `keys` have signed, brought by `importer`.
pub(super) fn brought(
    release: &Verified<Record>,
    predicate_type: &str,
    predicate: serde_json::Value,
    keys: &[&SigningKey],
    importer: &SigningKey,
) -> Verified<Record> {
    let disks = &release.body.release().unwrap().disks;
    let statement = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": disks.iter().map(|disk| serde_json::json!({"digest": {"sha256": disk.sha256.to_string()}})).collect::<Vec<_>>(),
        "predicateType": predicate_type,
        "predicate": predicate,
    });
    let envelope = Dsse::seal(PAYLOAD_TYPE_IN_TOTO, statement.to_string().as_bytes(), keys).into_bytes();
    let body = endorsement(release.id, |e| {
        e.predicate = predicate_type.try_into().unwrap();
        e.body = EndorsementBody::Dsse { envelope };
    });
    signed(&body, &[importer], NOW)
}

/// An endorsement made now, as it is made where nothing else is said.
pub(super) fn endorsed(subject: RecordId, by: &SigningKey) -> Verified<Record> {
    signed(&endorsement(subject, |_| {}), &[by], NOW)
}

pub(super) fn revoked(subject: RevocationSubject, by: &SigningKey) -> Verified<Record> {
    let revocation = Revocation { subject, reason: "it was a mistake".try_into().unwrap() };
    signed(&Body::Revocation(revocation), &[by], NOW)
}
