//! When records came, and from whom.

use super::*;

const OTHER: Option<&str> = Some("12D3KooWOther");

fn arrival(at: Option<UnixSeconds>, from: Option<&str>, keys: &[&SigningKey]) -> Arrival {
    Arrival { at, from: from.map(Arc::from), keys: keys.iter().map(|key| public(key)).collect() }
}

fn arrivals(catalog: &Catalog, envelope: &Envelope) -> Vec<Arrival> {
    catalog.arrivals(&envelope.id()).unwrap().to_vec()
}

#[test]
fn arrivals_are_kept_over_restarts_and_compaction() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (key(1), key(2));
    let sealed = |signers: &[&SigningKey]| seal(&[&a, &b], signers, NOW - 500, &release_body(&a, "batch", "1"));
    let (first, second) = (sealed(&[&a]), sealed(&[&b]));
    let own = release(&a, "own", "1", NOW);
    let catalog = open(directory.path());
    catalog.set_named([]).unwrap();
    catalog.insert(&first.encode(), PEER, NOW).unwrap();
    catalog.insert(&first.encode(), OTHER, NOW + 1).unwrap();
    catalog.insert(&second.encode(), OTHER, NOW + 7).unwrap();
    catalog.insert(&own.encode(), None, NOW + 9).unwrap();
    let check = |catalog: &Catalog| {
        let expected = [arrival(Some(NOW), PEER, &[&a]), arrival(Some(NOW + 7), OTHER, &[&b])];
        assert_eq!(arrivals(catalog, &first), expected);
        assert_eq!(arrivals(catalog, &own), [arrival(Some(NOW + 9), None, &[&a])]);
        // What was known when.
        let signers =
            |at| catalog.known_at(&first.id(), at).map(|record| record.signers().copied().collect::<Vec<_>>());
        assert_eq!(signers(NOW - 1), None);
        assert_eq!(signers(NOW), Some(vec![public(&a)]));
        assert_eq!(signers(NOW + 7).unwrap().len(), 2);
    };
    check(&catalog);
    drop(catalog);
    let catalog = open(directory.path());
    check(&catalog);
    catalog.set_named([]).unwrap();
    for n in 0..200 {
        put(&catalog, &of_tomorrow(&key(9), 1, &format!("flood-{n}"), 16_000));
    }
    let length = std::fs::metadata(directory.path().join("records.log")).unwrap().len();
    assert!(length < 2 << 20, "it was compacted");
    check(&catalog);
    drop(catalog);
    check(&open(directory.path()));
}

#[test]
fn a_log_that_did_not_keep_arrivals_is_read_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (key(1), key(2));
    let body = release_body(&a, "batch", "1");
    let sealed = |signers: &[&SigningKey]| seal(&[&a, &b], signers, NOW, &body);
    let (old, added) = (sealed(&[&a]), sealed(&[&a, &b]));
    // As the first version wrote it: the kind, the source, the envelope.
    let peer = PEER.unwrap().as_bytes();
    let frame = [&[1, peer.len() as u8], peer, &old.encode()].concat();
    let head = [(frame.len() as u32).to_le_bytes(), crc32fast::hash(&frame).to_le_bytes()].concat();
    let path = directory.path().join("records.log");
    std::fs::write(&path, [b"rialto-records-1\n".as_slice(), &head, &frame].concat()).unwrap();
    let catalog = open(directory.path());
    assert_eq!(arrivals(&catalog, &old), [arrival(None, PEER, &[&a])]);
    assert!(catalog.known_at(&old.id(), 0).is_some(), "nobody knows when it came");
    catalog.insert(&added.encode(), OTHER, NOW).unwrap();
    let expected = [arrival(None, PEER, &[&a]), arrival(Some(NOW), OTHER, &[&b])];
    assert_eq!(arrivals(&catalog, &old), expected);
    drop(catalog);
    assert!(std::fs::read(&path).unwrap().starts_with(b"rialto-records-2\n"), "an earlier version keeps off it");
    assert_eq!(arrivals(&open(directory.path()), &old), expected);
}
