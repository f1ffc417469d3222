//! The records behind the golden files: one of each kind, from fixed seeds.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use rialto_protocol::bounded::{List, Name};
use rialto_protocol::codec::{self, Value};
use rialto_protocol::ids::{Hash, ImageId, PublicKey, RecordId, Sha256};
use rialto_protocol::record::{
    Advisory, Arch, Body, Boot, Channel, Component, ContextInput, ContextSchema, DelegatedRole, Delegation, Disk,
    DiskFormat, Endorsement, EndorsementBody, Firmware, InputType, Recipe, Release, Requirements, Revocation,
    RevocationSubject, Severity, Source,
};
use rialto_protocol::signed::{Draft, Envelope};

/// When every record of the tests was issued.
pub(crate) const ISSUED: u64 = 1_790_000_000;

/// The signing key of a seed.
pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// The public half.
pub(crate) fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

/// The federation of the tests.
pub(crate) fn federation() -> Name {
    name("physics")
}

/// Text that fits its bound, or the test is wrong.
pub(crate) fn text<T: TryFrom<&'static str>>(text: &'static str) -> T {
    T::try_from(text).unwrap_or_else(|_| panic!("'{text}' does not fit"))
}

/// A name that is one, or the test is wrong.
pub(crate) fn name(name: &'static str) -> Name {
    text(name)
}

/// Signs `body` as `issuers`, with the keys of `signers`.
pub(crate) fn seal(
    issuers: &[&SigningKey],
    signers: &[&SigningKey],
    federation: Option<Name>,
    body: &Body,
) -> Envelope {
    let draft = Draft::new(issuers.iter().map(|key| public(key)), federation, ISSUED, body).expect("fits");
    signers.iter().fold(draft, |draft, key| draft.sign(key).expect("an issuer")).seal()
}

/// A release with nothing optional in it.
pub(crate) fn small_release(publisher: PublicKey) -> Release {
    let disks = list(vec![disk(b"disk")]);
    Release::minimal(publisher, name("hello"), text("1.0.0"), disks, text("Says what it is told to"))
}

/// A release with everything in it.
pub(crate) fn full_release(publisher: PublicKey) -> Release {
    let greeting = ContextInput {
        kind: InputType::String,
        required: true,
        secret: false,
        default: Some(text("hello")),
        description: Some(text("What the page says")),
    };
    let password =
        ContextInput { kind: InputType::String, required: false, secret: true, default: None, description: None };
    let inputs: BTreeMap<_, _> = [(name("greeting"), greeting), (name("password"), password)].into_iter().collect();
    Release {
        version: text("2.0.0-rc.1+b~7"),
        sequence: u64::MAX,
        expires: Some(ISSUED + 1),
        arch: Arch::Aarch64,
        disks: list(vec![disk(b"disk"), disk(b"second disk")]),
        boot: Boot::Direct {
            kernel: ImageId::of(b"kernel"),
            initrd: Some(ImageId::of(b"initrd")),
            cmdline: text("console=ttyS0 root=/dev/vda"),
        },
        requirements: Requirements {
            vcpus: 4,
            memory_bytes: 1 << 40,
            disk_bytes: 10 << 30,
            firmware: Some(Firmware::Uefi),
        },
        description: Some(text("Grüße,\n\tauf zwei Zeilen")),
        licence: Some(text("MIT OR Apache-2.0")),
        homepage: Some(text("https://example.org/hello")),
        tags: list(vec![name("greeting"), name("http")]),
        supersedes: list(vec![RecordId::of(b"earlier")]),
        components: list(vec![RecordId::of(b"component")]),
        recipe: Some(RecordId::of(b"recipe")),
        sbom: Some(ImageId::of(b"sbom")),
        provenance: Some(ImageId::of(b"provenance")),
        context: ContextSchema::try_from(inputs).expect("valid inputs"),
        ..small_release(publisher)
    }
}

fn disk(content: &[u8]) -> Disk {
    Disk {
        image: ImageId::of(content),
        format: DiskFormat::Raw,
        bytes: 1 << 30,
        blake3: Hash::of(content),
        sha256: Sha256([0xd1; 32]),
    }
}

fn list<T, const MAX: usize>(items: Vec<T>) -> List<T, MAX> {
    List::try_from(items).unwrap_or_else(|error| panic!("{error}"))
}

/// An endorsement of `subject`.
pub(crate) fn endorsement(subject: RecordId) -> Body {
    Body::Endorsement(Endorsement {
        subject,
        predicate: text("https://example.org/tested/v1"),
        body: EndorsementBody::Native { note: Some(text("It boots.")) },
        expires: Some(ISSUED + 90 * 86_400),
    })
}

/// A revocation of `subject`.
pub(crate) fn revocation(subject: RevocationSubject) -> Body {
    Body::Revocation(Revocation { subject, reason: text("The key was on a stolen laptop.") })
}

/// A head of uni's channel `stable` of `hello`.
pub(crate) fn channel(publisher: PublicKey, epoch: u64, sequence: u64, release: RecordId) -> Body {
    Body::Channel(Channel {
        publisher,
        name: name("hello"),
        channel: name("stable"),
        epoch,
        sequence,
        release,
        expires: ISSUED + 7 * 86_400,
    })
}

/// What lets two of these keys sign heads of the channels of some appliances.
pub(crate) fn delegation(publisher: PublicKey, keys: &[&SigningKey]) -> Body {
    let names = vec![text("hello"), text("batch-*")];
    let keys = keys.iter().map(|key| public(key));
    let expires = ISSUED + 90 * 86_400;
    let delegation = Delegation::new(publisher, DelegatedRole::Channel, keys, 2, names, 3, expires);
    Body::Delegation(delegation.expect("consistent"))
}

/// An advisory with everything in it.
pub(crate) fn advisory() -> Body {
    Body::Advisory(Box::new(Advisory {
        id: text("DSA-5678-1"),
        ecosystem: name("debian-12"),
        package: text("openssl"),
        fixed: Some(text("3.0.11-1~deb12u2")),
        severity: Severity::High,
        summary: Some(text("A long certificate chain is followed for ever.")),
    }))
}

/// A recipe that stands in its record.
pub(crate) fn recipe(publisher: PublicKey) -> Body {
    Body::Recipe(Box::new(Recipe {
        publisher,
        name: name("hello"),
        version: text("1.0.0"),
        summary: text("Says what it is told to"),
        source: Source::Inline(text("base = \"bookworm\"\n")),
    }))
}

/// A component whose text is an image.
pub(crate) fn component(publisher: PublicKey) -> Body {
    Body::Component(Box::new(Component {
        publisher,
        name: name("http-server"),
        version: text("2"),
        summary: text("Answers on port 80"),
        source: Source::Image(ImageId::of(b"component")),
    }))
}

/// A payload of any version and kind, with whatever fields beside the header.
pub(crate) fn payload(v: u64, kind: &str, issuer: PublicKey, beside: &[(&str, Value)]) -> Vec<u8> {
    let header = [
        ("v", Value::Integer(v.into())),
        ("kind", Value::Text(kind.into())),
        ("issuers", Value::Array(vec![Value::Bytes(issuer.0.to_vec())])),
        ("issued", Value::Integer(ISSUED.into())),
    ];
    let fields = header.iter().chain(beside).map(|(name, value)| (Value::Text((*name).into()), value.clone()));
    codec::encode(&Value::Map(fields.collect())).expect("canonical")
}

/// A payload that this crate did not write, signed.
pub(crate) fn seal_payload(payload: Vec<u8>, key: &SigningKey) -> Envelope {
    Draft::from_payload(payload, vec![public(key)]).and_then(|draft| draft.sign(key)).expect("fits").seal()
}

/// Every golden record, by name.
pub(crate) fn golden() -> Vec<(&'static str, Envelope)> {
    let (uni, lab, security) = (key(1), key(2), key(3));
    let release = |release: Release| Body::Release(Box::new(release));
    let small = seal(&[&uni], &[&uni], None, &release(small_release(public(&uni))));
    let full = seal(&[&uni, &security], &[&uni, &security], None, &release(full_release(public(&uni))));
    let dsse = Body::Endorsement(Endorsement {
        subject: small.id(),
        predicate: text("https://slsa.dev/provenance/v1"),
        body: EndorsementBody::Dsse { envelope: br#"{"payloadType":"application/vnd.in-toto+json"}"#.to_vec() },
        expires: None,
    });
    let hologram =
        payload(1, "hologram", public(&uni), &[("body", Value::Array(vec![Value::Null, Value::Bool(true)]))]);
    let later = payload(2, "release", public(&uni), &[("body", Value::Null), ("witness", Value::Bytes(vec![9; 9]))]);
    vec![
        ("advisory", seal(&[&security], &[&security], None, &advisory())),
        ("channel", seal(&[&uni], &[&uni], Some(federation()), &channel(public(&uni), 0, 1_790_000_000, small.id()))),
        ("component", seal(&[&lab], &[&lab], None, &component(public(&lab)))),
        ("delegation", { seal(&[&uni], &[&uni], Some(federation()), &delegation(public(&uni), &[&lab, &security])) }),
        ("endorsement", seal(&[&lab], &[&lab], None, &endorsement(small.id()))),
        ("endorsement-dsse", seal(&[&lab], &[&lab], None, &dsse)),
        ("recipe", seal(&[&uni], &[&uni], None, &recipe(public(&uni)))),
        ("revocation-of-endorsement", {
            let subject = RevocationSubject::Endorsement(RecordId::of(b"endorsement"));
            seal(&[&lab], &[&lab], Some(federation()), &revocation(subject))
        }),
        ("revocation-of-key", {
            let subject = RevocationSubject::Key(public(&uni));
            seal(&[&security], &[&security], Some(federation()), &revocation(subject))
        }),
        ("revocation-of-release", {
            let subject = RevocationSubject::Release(small.id());
            seal(&[&uni], &[&uni], Some(federation()), &revocation(subject))
        }),
        ("release-full", full),
        ("release-small", small),
        ("unknown-kind", seal_payload(hologram, &uni)),
        ("unknown-version", seal_payload(later, &uni)),
    ]
}

/// A golden record as its file says it.
pub(crate) fn golden_text(envelope: &Envelope) -> String {
    let bytes = envelope.encode();
    let record = envelope.clone().verify().expect("golden records verify");
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    let lines: Vec<_> = hex.as_bytes().chunks(112).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("record  {}\nsync id {}\n\n{}\n", record.id, record.sync_id(), lines.join("\n"))
}
