//! The catalog against its promises: nothing lost, nothing unverified, nobody crowded out.

mod arrivals;
mod channels;
mod flood;
mod lent;
mod search;

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use rialto_protocol::bounded::{List, Text};
use rialto_protocol::codec::{self, Value};
use rialto_protocol::ids::{ImageId, Sha256};
use rialto_protocol::record::{
    Body, Disk, DiskFormat, Endorsement, EndorsementBody, Release, Revocation, RevocationSubject,
};
use rialto_protocol::signed::{Draft, Envelope};
use rialto_protocol::sync::{Initiator, Message, Responder};

use super::log::Frame;
use super::*;

const NOW: UnixSeconds = 1_800_000_000;
const PEER: Option<&str> = Some("12D3KooWPeer");
const BUDGET: u64 = 1 << 20;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

fn federation() -> Name {
    "physics".try_into().unwrap()
}

fn release_body(publisher: &SigningKey, name: &str, version: &str) -> Body {
    let disk = Disk {
        image: ImageId::of(b"disk"),
        format: DiskFormat::Raw,
        bytes: 4096,
        blake3: Hash::of(b"flat"),
        sha256: Sha256([7; 32]),
    };
    let mut release = Release::minimal(
        public(publisher),
        name.try_into().unwrap(),
        version.try_into().unwrap(),
        List::try_from(vec![disk]).unwrap(),
        "Says what it is told to".try_into().unwrap(),
    );
    release.tags = List::try_from(vec!["greeting".try_into().unwrap()]).unwrap();
    Body::Release(Box::new(release))
}

fn seal(issuers: &[&SigningKey], signers: &[&SigningKey], issued: UnixSeconds, body: &Body) -> Envelope {
    let belongs = body.belongs_to_a_federation().unwrap_or(false).then(federation);
    let draft = Draft::new(issuers.iter().map(|key| public(key)), belongs, issued, body).unwrap();
    signers.iter().fold(draft, |draft, key| draft.sign(key).unwrap()).seal()
}

fn release(publisher: &SigningKey, name: &str, version: &str, issued: UnixSeconds) -> Envelope {
    seal(&[publisher], &[publisher], issued, &release_body(publisher, name, version))
}

fn endorsement(key: &SigningKey, subject: RecordId, note: &str) -> Envelope {
    let body = Body::Endorsement(Endorsement {
        subject,
        predicate: "https://example.org/tested".try_into().unwrap(),
        body: EndorsementBody::Native { note: Some(Text::try_from(note).unwrap()) },
        expires: None,
    });
    seal(&[key], &[key], NOW, &body)
}

fn revocation(key: &SigningKey, subject: RevocationSubject, reason: &str) -> Envelope {
    let body = Body::Revocation(Revocation { subject, reason: reason.try_into().unwrap() });
    seal(&[key], &[key], NOW, &body)
}

fn of_tomorrow(key: &SigningKey, v: u64, kind: &str, filler: usize) -> Envelope {
    let text = |text: &str| Value::Text(text.into());
    let issuers = Value::Array(vec![Value::Bytes(public(key).0.to_vec())]);
    let payload = Value::Map(
        [
            (text("v"), Value::Integer(v.into())),
            (text("kind"), text(kind)),
            (text("issuers"), issuers),
            (text("issued"), Value::Integer(NOW.into())),
            (text("body"), Value::Bytes(vec![1; filler])),
        ]
        .into(),
    );
    let payload = codec::encode(&payload).unwrap();
    Draft::from_payload(payload, vec![public(key)]).unwrap().sign(key).unwrap().seal()
}

fn open(directory: &Path) -> Catalog {
    open_with(directory, BUDGET)
}

fn open_with(directory: &Path, budget: u64) -> Catalog {
    Catalog::open(directory, federation(), budget).unwrap()
}

fn put(catalog: &Catalog, envelope: &Envelope) -> Outcome {
    catalog.insert(&envelope.encode(), PEER, NOW).unwrap()
}

fn ids(records: Vec<SharedRecord>) -> Vec<RecordId> {
    records.iter().map(|record| record.id).collect()
}

fn no_petname(_: &PublicKey) -> Option<String> {
    None
}

#[test]
fn records_are_found_again_before_and_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (cern, desy) = (key(1), key(2));
    let (old, new) = (release(&cern, "batch", "1", NOW - 9), release(&cern, "batch", "2", NOW));
    let endorsed = endorsement(&desy, new.id(), "it boots");
    let revoked = revocation(&cern, RevocationSubject::Release(old.id()), "leaks");
    let check = |catalog: &Catalog| {
        assert_eq!(catalog.len(), 4);
        assert_eq!(ids(catalog.releases("", no_petname)), [new.id(), old.id()]);
        assert_eq!(ids(catalog.endorsements_of(&new.id())), [endorsed.id()]);
        assert_eq!(ids(catalog.revocations_of(&RevocationSubject::Release(old.id())).records), [revoked.id()]);
        let (name, version) = ("batch".try_into().unwrap(), "2".try_into().unwrap());
        assert_eq!(ids(catalog.version(&public(&cern), &name, &version)), [new.id()]);
        for envelope in [&old, &new, &endorsed, &revoked] {
            let text = envelope.id().to_string();
            assert_eq!(catalog.find(&text).unwrap().id, envelope.id());
            assert_eq!(catalog.find(&text[..24]).unwrap().id, envelope.id());
            assert_eq!(catalog.get(&envelope.id()).unwrap().envelope(), envelope);
        }
    };
    let catalog = open(directory.path());
    for envelope in [&old, &new, &endorsed, &revoked] {
        assert_eq!(put(&catalog, envelope), Outcome::New);
        assert_eq!(put(&catalog, envelope), Outcome::Duplicate);
    }
    check(&catalog);
    drop(catalog);
    check(&open(directory.path()));
}

#[test]
fn search_looks_for_every_word_in_what_people_see() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path());
    let (cern, desy) = (key(1), key(2));
    put(&catalog, &release(&cern, "batch-worker", "1", NOW));
    put(&catalog, &release(&desy, "notebook", "2", NOW));
    let petname = |key: &PublicKey| (*key == public(&cern)).then(|| "cern".to_owned());
    assert_eq!(catalog.releases("CERN worker", petname).len(), 1);
    assert_eq!(catalog.releases("greeting", petname).len(), 2);
    assert_eq!(catalog.releases("cern notebook", petname).len(), 0);
    assert_eq!(catalog.releases(&public(&desy).fingerprint(), petname).len(), 1);
}

#[test]
fn a_prefix_must_be_long_enough_and_fit_one_record() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path());
    let envelope = release(&key(1), "batch", "1", NOW);
    put(&catalog, &envelope);
    let text = envelope.id().to_string();
    assert!(matches!(catalog.find(&text[..11]), Err(FindError::TooShort(_))));
    assert!(matches!(catalog.find("bafkr4iaaaaaaaaaa"), Err(FindError::NotFound(_))));
    assert!(matches!(catalog.find("no id at all, no!"), Err(FindError::NotFound(_))));
    assert!(matches!(catalog.find(&format!("{text}aaaaaaa")), Err(FindError::NotFound(_))));
    // Enough records that two begin with the same 12 characters: 23 bits of the hash.
    let envelopes: Vec<_> = (0..6_000).map(|n| of_tomorrow(&key(1), 1, &format!("kind-{n}"), 0).encode()).collect();
    let large = tempfile::tempdir().unwrap();
    let catalog = open_with(large.path(), 1 << 30);
    catalog.insert_batch(&envelopes, None, NOW).unwrap();
    let mut prefixes: Vec<String> = envelopes
        .iter()
        .map(|bytes| Envelope::decode(bytes).unwrap().id().to_string()[..MIN_PREFIX_CHARS].to_owned())
        .collect();
    prefixes.sort();
    let alike = prefixes.windows(2).find(|pair| pair[0] == pair[1]).expect("6,000 ids, 8 million prefixes: some meet");
    assert!(matches!(catalog.find(&alike[0]), Err(FindError::Ambiguous(_))));
}

#[test]
fn a_release_that_its_publisher_did_not_sign_is_kept_but_never_listed() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path());
    let (cern, mallory) = (key(1), key(2));
    let forged = seal(&[&cern, &mallory], &[&mallory], NOW, &release_body(&cern, "batch", "1"));
    assert_eq!(put(&catalog, &forged), Outcome::New);
    assert!(catalog.releases("", no_petname).is_empty());
    let (name, version) = ("batch".try_into().unwrap(), "1".try_into().unwrap());
    assert!(catalog.version(&public(&cern), &name, &version).is_empty());
    assert!(catalog.get(&forged.id()).is_some());
    // With the publisher's own signature it is theirs.
    let signed = seal(&[&cern, &mallory], &[&cern], NOW, &release_body(&cern, "batch", "1"));
    assert_eq!(put(&catalog, &signed), Outcome::Merged);
    assert_eq!(ids(catalog.releases("", no_petname)), [forged.id()]);
}

#[test]
fn signatures_merge_and_stay_merged() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b, c) = (key(1), key(2), key(3));
    let body = release_body(&a, "batch", "1");
    let sealed = |signers: &[&SigningKey]| seal(&[&a, &b, &c], signers, NOW, &body);
    let catalog = open(directory.path());
    assert_eq!(put(&catalog, &sealed(&[&a])), Outcome::New);
    assert_eq!(put(&catalog, &sealed(&[&b])), Outcome::Merged);
    assert_eq!(put(&catalog, &sealed(&[&b])), Outcome::Duplicate);
    assert_eq!(put(&catalog, &sealed(&[&a, &b])), Outcome::Duplicate);
    assert_eq!(put(&catalog, &sealed(&[&a, &b, &c])), Outcome::Merged);
    // Versions that were merged are not asked for again, and are answered with the merged one.
    let of_b = sealed(&[&b]).verify().unwrap().sync_id();
    let of_a = sealed(&[&a]).verify().unwrap().sync_id();
    for sync_id in [of_a, of_b] {
        assert!(!catalog.is_wanted(&sync_id, NOW));
        assert_eq!(catalog.envelope(&sync_id), Some(sealed(&[&a, &b, &c]).encode()));
    }
    assert_eq!(catalog.sync_set().len(), 1);
    drop(catalog);
    let catalog = open(directory.path());
    assert_eq!(catalog.len(), 1);
    assert_eq!(catalog.get(&sealed(&[&a]).id()).unwrap().signers().count(), 3);
}

#[test]
fn a_node_of_today_keeps_and_relays_a_record_of_tomorrow() {
    let directory = tempfile::tempdir().unwrap();
    let signer = key(1);
    let records = [of_tomorrow(&signer, 1, "hologram", 9), of_tomorrow(&signer, 2, "release", 9)];
    let catalog = open(directory.path());
    for envelope in &records {
        assert!(matches!(gossip_verdict(&envelope.encode(), &federation(), NOW), GossipVerdict::Accept(_)));
        assert_eq!(put(&catalog, envelope), Outcome::New);
    }
    // Decoded from the log's bytes at the next open: by a later version, as what it is.
    let catalog = {
        drop(catalog);
        open(directory.path())
    };
    for envelope in &records {
        let held = catalog.get(&envelope.id()).unwrap();
        assert_eq!(held.body, Body::Opaque);
        assert_eq!(catalog.envelope(&held.sync_id()), Some(envelope.encode()));
    }
    // And it passes through catch-up.
    let other = tempfile::tempdir().unwrap();
    let other = open(other.path());
    catch_up(&other, &catalog);
    assert_eq!(other.len(), 2);
}

#[test]
fn gossip_is_judged_by_form_and_signature_alone() {
    let (cern, mallory) = (key(1), key(2));
    let good = release(&cern, "batch", "1", NOW);
    let verdict = |bytes: &[u8]| gossip_verdict(bytes, &federation(), NOW);
    assert!(matches!(verdict(&good.encode()), GossipVerdict::Accept(_)));
    let mut broken = good.encode();
    *broken.last_mut().unwrap() ^= 1;
    assert!(matches!(verdict(&broken), GossipVerdict::Reject(_)));
    assert!(matches!(verdict(b"hello"), GossipVerdict::Reject(_)));
    assert!(matches!(verdict(&[]), GossipVerdict::Reject(_)));
    assert!(matches!(verdict(&vec![0; 60_000]), GossipVerdict::Reject(_)));
    let early = release(&cern, "batch", "1", NOW + 601);
    assert!(matches!(verdict(&early.encode()), GossipVerdict::Ignore(Ignored::TooFarAhead)));
    let drifted = release(&cern, "batch", "1", NOW + 600);
    assert!(matches!(verdict(&drifted.encode()), GossipVerdict::Accept(_)));
    let body = Body::Revocation(Revocation {
        subject: RevocationSubject::Key(public(&mallory)),
        reason: "stolen".try_into().unwrap(),
    });
    let elsewhere = Draft::new([public(&cern)], Some("biology".try_into().unwrap()), NOW, &body).unwrap();
    let elsewhere = elsewhere.sign(&cern).unwrap().seal();
    assert!(matches!(verdict(&elsewhere.encode()), GossipVerdict::Ignore(Ignored::OtherFederation)));
}

#[test]
fn what_is_refused_or_ignored_is_not_held_nor_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path());
    let early = release(&key(1), "batch", "1", NOW + 10_000);
    assert_eq!(put(&catalog, &early), Outcome::Ignored(Ignored::TooFarAhead));
    let sync_id = early.verify().unwrap().sync_id();
    assert!(!catalog.is_wanted(&sync_id, NOW));
    assert!(catalog.is_wanted(&sync_id, NOW + 9_400));
    let mut broken = release(&key(1), "batch", "1", NOW).encode();
    *broken.last_mut().unwrap() ^= 1;
    assert!(matches!(catalog.insert(&broken, PEER, NOW).unwrap(), Outcome::Refused(_)));
    assert!(catalog.is_empty());
}

#[test]
fn a_flood_by_strangers_evicts_nothing_of_a_named_signer() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path());
    let (cern, own, bystander) = (key(1), key(2), key(3));
    catalog.set_named([public(&cern)]).unwrap();
    let named: Vec<_> = (0..20).map(|n| release(&cern, "batch", &n.to_string(), NOW)).collect();
    let ours = release(&own, "ours", "1", NOW);
    let bystanders = release(&bystander, "theirs", "1", NOW);
    named.iter().for_each(|envelope| assert_eq!(put(&catalog, envelope), Outcome::New));
    catalog.insert(&ours.encode(), None, NOW).unwrap();
    put(&catalog, &bystanders);
    // One stranger through many peers, then many strangers through one peer.
    let mut first = None;
    for n in 0..60u32 {
        let envelope = of_tomorrow(&key(100), 1, &format!("flood-{n}"), 8_000);
        first.get_or_insert(envelope.clone());
        catalog.insert(&envelope.encode(), Some(&format!("peer-{n}")), NOW).unwrap();
    }
    assert!(catalog.evictable_bytes() <= BUDGET / 16 + 2_000, "a key has no more than its share");
    assert!(catalog.get(&bystanders.id()).is_some(), "one key's flood leaves other strangers alone");
    for n in 0..60u8 {
        let envelope = of_tomorrow(&key(110 + n), 1, "flood", 8_000);
        catalog.insert(&envelope.encode(), Some("peer-of-many"), NOW).unwrap();
    }
    assert!(catalog.evictable_bytes() <= BUDGET / 8 + 2_000, "a peer has no more than its share");
    let present = |catalog: &Catalog| {
        named.iter().chain([&ours]).for_each(|envelope| assert!(catalog.get(&envelope.id()).is_some()));
    };
    present(&catalog);
    // What was evicted is not taken again, until policy names its signer; also after a restart.
    let first = first.unwrap();
    let sync_id = first.clone().verify().unwrap().sync_id();
    assert!(catalog.get(&first.id()).is_none());
    let check = |catalog: &Catalog| {
        assert!(!catalog.is_wanted(&sync_id, NOW));
        assert_eq!(put(catalog, &first), Outcome::Ignored(Ignored::Evicted));
    };
    check(&catalog);
    let held = catalog.len();
    drop(catalog);
    let catalog = open(directory.path());
    assert_eq!(catalog.len(), held);
    catalog.set_named([public(&cern)]).unwrap();
    present(&catalog);
    check(&catalog);
    catalog.set_named([public(&cern), public(&key(100))]).unwrap();
    assert!(catalog.is_wanted(&sync_id, NOW));
}

#[test]
fn nothing_is_evicted_before_a_policy_was_read() {
    let directory = tempfile::tempdir().unwrap();
    let cern = key(1);
    let records: Vec<_> = (0..150).map(|n| release(&cern, "batch", &n.to_string(), NOW)).collect();
    let catalog = open_with(directory.path(), BUDGET);
    catalog.set_named([public(&cern)]).unwrap();
    records.iter().for_each(|envelope| assert_eq!(put(&catalog, envelope), Outcome::New));
    drop(catalog);
    let catalog = open_with(directory.path(), BUDGET);
    assert_eq!(catalog.len(), records.len());
    let late = release(&cern, "batch", "late", NOW);
    assert_eq!(put(&catalog, &late), Outcome::Ignored(Ignored::NoRoom));
    assert_eq!(catalog.len(), records.len());
    catalog.set_named([public(&cern)]).unwrap();
    assert_eq!(put(&catalog, &late), Outcome::New);
}

#[test]
fn a_revocation_leaves_only_after_what_it_revokes() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path());
    catalog.set_named([]).unwrap();
    let stranger = key(9);
    let target = release(&stranger, "batch", "1", NOW);
    let revoked = revocation(&stranger, RevocationSubject::Release(target.id()), "leaks");
    put(&catalog, &revoked); // arrives first, so it is the older one
    put(&catalog, &target);
    for n in 0..60 {
        put(&catalog, &of_tomorrow(&stranger, 1, &format!("flood-{n}"), 8_000));
        let (release, revocation) = (catalog.get(&target.id()), catalog.get(&revoked.id()));
        assert!(release.is_none() || revocation.is_some(), "the release outlived its revocation");
    }
    assert!(catalog.get(&revoked.id()).is_none(), "and then it does leave");
}

#[test]
fn a_torn_or_damaged_log_opens_with_what_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("records.log");
    let records: Vec<_> = (0..5).map(|n| release(&key(1), "batch", &n.to_string(), NOW)).collect();
    let mut ends = Vec::new();
    for envelope in &records {
        put(&open(directory.path()), envelope);
        ends.push(std::fs::metadata(&path).unwrap().len());
    }
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let expected = ends.iter().filter(|end| **end <= length as u64).count();
        // Signatures are checked anew at each open: a few lengths around each end are enough.
        if length % 97 == 0 || ends.iter().any(|end| end.abs_diff(length as u64) < 3) || length < 20 {
            assert_eq!(open(directory.path()).len(), expected, "cut at {length}");
        }
    }
    // Another insert after a cut, and all is well again.
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(put(&open(directory.path()), &records[4]), Outcome::New);
    assert_eq!(open(directory.path()).len(), 5);
    // One bit in the middle costs one record, not those behind it.
    let mut damaged = whole.clone();
    damaged[ends[1] as usize + 100] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    assert_eq!(open(directory.path()).len(), 4);
    // Nor does a damaged head: too long a length, one that leads elsewhere, a wrong checksum.
    for (place, bit) in [(3, 0x80), (0, 0x04), (1, 0x01), (5, 0x10)] {
        let mut damaged = whole.clone();
        damaged[ends[0] as usize + place] ^= bit;
        std::fs::write(&path, &damaged).unwrap();
        let catalog = open(directory.path());
        assert_eq!(catalog.len(), 4, "byte {place} of the head");
        // What was lost is taken again, and stays.
        assert_eq!(put(&catalog, &records[1]), Outcome::New);
        drop(catalog);
        assert_eq!(open(directory.path()).len(), 5);
    }
    // Rubbish between frames is skipped, however long, and rubbish at the end is cut off.
    let (start, end) = whole.split_at(ends[2] as usize);
    let rubbish: Vec<u8> = (0..3_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    std::fs::write(&path, [start, &rubbish, end, &rubbish[..9_000]].concat()).unwrap();
    assert_eq!(open(directory.path()).len(), 5);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), (whole.len() + rubbish.len()) as u64);
    // A file that is no log is left alone.
    std::fs::write(&path, b"rialto-records-3\nand more").unwrap();
    assert!(matches!(Catalog::open(directory.path(), federation(), BUDGET), Err(CatalogError::Format { .. })));
}

#[test]
fn a_write_that_fails_leaves_the_catalog_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path());
    let (first, second) = (release(&key(1), "batch", "1", NOW), release(&key(1), "batch", "2", NOW));
    put(&catalog, &first);
    let good = std::fs::OpenOptions::new().read(true).append(true).open(directory.path().join("records.log")).unwrap();
    // /dev/full refuses every write as a full disk does.
    let full = std::fs::OpenOptions::new().append(true).open("/dev/full").unwrap();
    catalog.log().use_file(full);
    assert!(matches!(catalog.insert(&second.encode(), PEER, NOW), Err(CatalogError::Io { .. })));
    assert_eq!(catalog.len(), 1);
    let sync_id = second.clone().verify().unwrap().sync_id();
    assert!(catalog.is_wanted(&sync_id, NOW));
    catalog.log().use_file(good);
    assert_eq!(put(&catalog, &second), Outcome::New);
    drop(catalog);
    assert_eq!(open(directory.path()).len(), 2);
}

#[test]
fn a_log_of_mostly_garbage_is_compacted() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path());
    catalog.set_named([]).unwrap();
    let kept = release(&key(1), "batch", "1", NOW);
    put(&catalog, &kept);
    for n in 0..200 {
        put(&catalog, &of_tomorrow(&key(9), 1, &format!("flood-{n}"), 16_000));
    }
    let length = std::fs::metadata(directory.path().join("records.log")).unwrap().len();
    assert!(length < 2 << 20, "3 MiB came in, {length} bytes are left");
    let before = catalog.len();
    // What a compaction that was interrupted leaves is not looked at.
    let mut unfinished = std::fs::File::create(directory.path().join("records.log.new")).unwrap();
    unfinished.write_all(b"rialto").unwrap();
    drop(catalog);
    let catalog = open(directory.path());
    assert_eq!(catalog.len(), before);
    assert!(catalog.get(&kept.id()).is_some());
}

/// What is remembered of evicted records is no garbage: else the log would be written anew with every record that comes.
#[test]
fn a_log_of_what_was_evicted_is_not_compacted_over_and_over() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path());
    catalog.set_named([]).unwrap();
    let signers: Arc<[PublicKey]> = Arc::from([public(&key(1)), public(&key(2))]);
    {
        let mut log = catalog.log();
        let mut changes = Changes::at(log.length());
        for number in 0..20_000_u32 {
            let sync_id = Hash::of(&number.to_le_bytes());
            Frame::Evicted { sync_id, signers: signers.to_vec() }.encode(&mut changes.frames);
            catalog.write().evicted.insert(sync_id, Arc::clone(&signers));
        }
        catalog.make_durable(&mut log, changes).unwrap();
    }
    let file = || std::fs::metadata(directory.path().join("records.log")).unwrap();
    assert!(file().len() > WORTH_COMPACTING_BYTES);
    let before = file().ino();
    for version in ["1", "2", "3"] {
        put(&catalog, &release(&key(1), "batch", version, NOW));
    }
    assert_eq!(file().ino(), before, "nothing was worth writing anew");
    // What is forgotten of them is garbage then.
    catalog.set_named([public(&key(1))]).unwrap();
    put(&catalog, &release(&key(1), "batch", "4", NOW));
    assert!(file().ino() != before && file().len() < WORTH_COMPACTING_BYTES);
    assert_eq!(catalog.len(), 4);
}

/// A verdict that does not see what speaks against a release would be a wrong one.
#[test]
fn what_the_disk_does_not_give_back_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path());
    let of = release(&key(1), "batch", "1", NOW);
    let subject = RevocationSubject::Release(of.id());
    for (signer, reason) in [(1, "a hole"), (2, "another one")] {
        put(&catalog, &revocation(&key(signer), subject, reason));
    }
    let path = directory.path().join("records.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|window| window == b"a hole").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let said = catalog.revocations_of(&subject);
    assert_eq!((said.len(), said.unreadable), (1, 1));
    // The next start leaves it out, and it can come again.
    drop(catalog);
    let catalog = open(directory.path());
    assert_eq!(catalog.revocations_of(&subject).unreadable, 0);
    put(&catalog, &revocation(&key(1), subject, "a hole"));
    assert_eq!(catalog.revocations_of(&subject).len(), 2);
}

#[test]
fn a_site_that_missed_1000_records_has_them_after_one_session() {
    let records: Vec<_> = (0..1_100).map(|n| release(&key(1), "batch", &n.to_string(), NOW - n).encode()).collect();
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (there, here) = (open_with(there.path(), 1 << 30), open_with(here.path(), 1 << 30));
    there.insert_batch(&records, None, NOW).unwrap();
    here.insert_batch(&records[..100], None, NOW).unwrap();
    catch_up(&here, &there);
    assert_eq!(here.len(), 1_100);
    for bytes in &records {
        let id = Envelope::decode(bytes).unwrap().id();
        assert_eq!(here.get(&id).unwrap().envelope().encode(), *bytes);
    }
}

#[test]
fn whoever_waits_for_changes_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path());
    let mut changes = catalog.changes();
    assert!(!changes.has_changed().unwrap());
    put(&catalog, &release(&key(1), "batch", "1", NOW));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    put(&catalog, &release(&key(1), "batch", "1", NOW));
    assert!(!changes.has_changed().unwrap());
}

/// Runs a catch-up session between two catalogs.
fn catch_up(ours: &Catalog, theirs: &Catalog) {
    let mut initiator = Initiator::new(ours.sync_set());
    let mut responder = Responder::new(theirs.sync_set());
    while !initiator.is_finished() || !responder.is_finished() {
        while let Some(message) = initiator.next_message(|id| ours.envelope(*id)) {
            let message = Message::decode(&message.encode()).unwrap();
            let progress = responder.receive(message, |id| theirs.is_wanted(*id, NOW)).unwrap();
            theirs.insert_batch(&progress.envelopes, PEER, NOW).unwrap();
        }
        while let Some(message) = responder.next_message(|id| theirs.envelope(*id)) {
            let message = Message::decode(&message.encode()).unwrap();
            let progress = initiator.receive(message, |id| ours.is_wanted(*id, NOW)).unwrap();
            ours.insert_batch(&progress.envelopes, PEER, NOW).unwrap();
        }
    }
}

#[derive(Debug, Clone)]
enum Command {
    Insert { record: usize, signers: usize },
    Reopen,
    CatchUp,
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let command = prop_oneof![
        8 => (0usize..12, 1usize..8).prop_map(|(record, signers)| Command::Insert { record, signers }),
        1 => Just(Command::Reopen),
        1 => Just(Command::CatchUp),
    ];
    prop::collection::vec(command, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The reference: for each record, the union of the keys whose signatures ever came in.
    #[test]
    fn the_catalog_is_a_map_from_records_to_the_union_of_their_signers(commands in commands()) {
        let keys = [key(1), key(2), key(3)];
        let all: Vec<&SigningKey> = keys.iter().collect();
        let sealed = |record: usize, signers: usize| {
            let signers: Vec<_> = (0..3).filter(|n| signers & (1 << n) != 0).map(|n| &keys[n]).collect();
            seal(&all, &signers, NOW, &release_body(&keys[0], "batch", &record.to_string()))
        };
        let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut catalog, other) = (open(directory.path()), open(elsewhere.path()));
        let mut model = std::collections::BTreeMap::<usize, usize>::new();
        for command in commands {
            match command {
                Command::Insert { record, signers } => {
                    let held = model.entry(record).or_default();
                    let expected = match *held {
                        0 => Outcome::New,
                        before if before | signers == before => Outcome::Duplicate,
                        _ => Outcome::Merged,
                    };
                    *held |= signers;
                    prop_assert_eq!(put(&catalog, &sealed(record, signers)), expected);
                }
                Command::Reopen => {
                    drop(catalog);
                    catalog = open(directory.path());
                }
                Command::CatchUp => catch_up(&other, &catalog),
            }
            prop_assert_eq!(catalog.len(), model.len());
            for (record, signers) in &model {
                let held = catalog.get(&sealed(*record, *signers).id()).unwrap();
                prop_assert_eq!(held.signers().count(), signers.count_ones() as usize);
            }
        }
        catch_up(&other, &catalog);
        let held = |catalog: &Catalog| catalog.sync_set().len();
        prop_assert_eq!(held(&other), held(&catalog));
        for (record, signers) in &model {
            let held = other.get(&sealed(*record, *signers).id()).unwrap();
            prop_assert_eq!(held.signers().count(), signers.count_ones() as usize);
        }
    }
}
