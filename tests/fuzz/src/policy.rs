//! The policy file. It is not a stranger's, but people write it, and tools; what it does not say must not be in force.

use std::sync::LazyLock;

use ed25519_dalek::SigningKey;
use rialto_node::trust::{Facts, MAX_POLICY_BYTES, Policy, PolicyError, evaluate};
use rialto_protocol::bounded::{List, Name, Text, Version};
use rialto_protocol::ids::{Hash, ImageId, PublicKey, Sha256};
use rialto_protocol::record::{Body, Disk, DiskFormat, Record, Release};
use rialto_protocol::signed::{Draft, Verified};

/// When the release was issued.
const ISSUED: u64 = 1_790_000_000;

/// A release by the key of seed 1, which the seeds of the corpus name `uni`.
static RELEASE: LazyLock<Verified<Record>> = LazyLock::new(|| {
    let key = SigningKey::from_bytes(&[1; 32]);
    let publisher = PublicKey(key.verifying_key().to_bytes());
    let disk = Disk {
        image: ImageId::of(b"disk"),
        format: DiskFormat::Raw,
        bytes: 1 << 30,
        blake3: Hash::of(b"disk"),
        sha256: Sha256([0xd1; 32]),
    };
    let name = Name::try_from("hello").expect("a name");
    let version = Version::try_from("1.0.0").expect("a version");
    let summary = Text::try_from("Says what it is told to").expect("a summary");
    let disks = List::try_from(vec![disk]).expect("one disk");
    let body = Body::Release(Box::new(Release::minimal(publisher, name, version, disks, summary)));
    let draft = Draft::new([publisher], None, ISSUED, &body).expect("fits");
    draft.sign(&key).expect("an issuer").seal().verify().expect("signed")
});

/// A policy is read, or its first mistake is shown where it is; what is read says the same tomorrow.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let policy = match Policy::parse(text) {
        Ok(policy) => policy,
        Err(error) => return shows_its_place(text, &error),
    };
    assert!(text.len() <= MAX_POLICY_BYTES);
    let commented = format!("{text}\n# A comment changes nothing.\n");
    if commented.len() <= MAX_POLICY_BYTES {
        let again = Policy::parse(&commented).expect("a comment changes nothing");
        assert_eq!(again.summary(), policy.summary());
    }
    let judge = |text: &str| {
        let policy = Policy::parse(text).expect("it was read before");
        evaluate(&policy, &RELEASE, &Facts::default(), ISSUED + 60)
    };
    let verdict = judge(text);
    assert_eq!(format!("{verdict:?}"), format!("{:?}", judge(text)), "the same tomorrow");
    assert_eq!(verdict.release(), RELEASE.id);
    if let Some(accepted) = verdict.accepted() {
        assert!(text.contains("accept"), "accepted, and no rule says so: {accepted:?}");
    }
}

/// A mistake is somewhere in the text, and it is said what it is.
pub(crate) fn shows_its_place(text: &str, error: &PolicyError) {
    let line = text.split('\n').nth(error.line.wrapping_sub(1));
    let line = line.unwrap_or_else(|| panic!("{error}: there is no such line"));
    assert!((1..=line.chars().count() + 1).contains(&error.column), "{error}: there is no such column");
    assert!(!error.message.is_empty());
}
