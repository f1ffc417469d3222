//! A flooder with ten thousand keys.

use super::*;

const KEYS: u32 = 10_000;

fn flooder(number: u32) -> SigningKey {
    let mut seed = [0xf1; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    SigningKey::from_bytes(&seed)
}

/// Several sites are between us and the flooder, who also comes as many peers; honest signers whom policy does not name
/// come by the same peers as the flood, and by another one, before it and during it.
#[test]
fn ten_thousand_keys_evict_nothing_named_and_starve_nobody() {
    let directory = tempfile::tempdir().unwrap();
    const BUDGET: u64 = 6 << 20;
    let catalog = open_with(directory.path(), BUDGET);
    let cern = key(1);
    catalog.set_named([public(&cern)]).unwrap();
    let named: Vec<_> = (0..50).map(|n| release(&cern, "batch", &n.to_string(), NOW)).collect();
    let of = |signer: u8, count: u32| (0..count).map(move |n| release(&key(signer), "honest", &n.to_string(), NOW));
    let before: Vec<_> = of(2, 2).collect();
    let quiet: Vec<_> = of(3, 30).collect();
    let insert = |envelopes: &[Envelope], peer: &str| {
        let encoded: Vec<_> = envelopes.iter().map(Envelope::encode).collect();
        catalog.insert_batch(&encoded, Some(peer), NOW).unwrap()
    };
    insert(&named, "relay-1");
    insert(&before, "relay-1");
    insert(&quiet, "quiet-site");

    let flood: Vec<_> = (0..KEYS).map(|n| of_tomorrow(&flooder(n), 1, "flood", 400)).collect();
    let mut late_was_taken = false;
    for (number, batch) in flood.chunks(250).enumerate() {
        // By two relays that everybody uses, and by forty peers of the flooder's own.
        insert(&batch[..50], "relay-1");
        insert(&batch[50..100], "relay-2");
        for (peer, part) in batch[100..].chunks(10).enumerate() {
            insert(part, &format!("flooder-{number}-{peer}"));
        }
        if number == 30 {
            // Somebody honest who is heard of for the first time now, by a relay that is full of the flood.
            let late = release(&key(4), "late", "1", NOW);
            assert_eq!(insert(std::slice::from_ref(&late), "relay-1"), [Outcome::New]);
            late_was_taken = catalog.get(&late.id()).is_some();
        }
    }
    assert!(late_was_taken);
    assert!(catalog.evictable_bytes() <= BUDGET);
    assert!(catalog.len() < flood.len(), "there was not room for all of it");
    for envelope in named.iter().chain(&before).chain(&quiet) {
        assert!(catalog.get(&envelope.id()).is_some());
    }

    // Whoever has the whole flood offers it again and again: what was evicted is not asked for.
    let is_here = |envelope: &&Envelope| catalog.read().index.slot(&envelope.id()).is_some();
    let evicted = flood.iter().filter(|envelope| !is_here(envelope));
    let sync_id = |envelope: &Envelope| rialto_protocol::signed::sync_id(&envelope.id(), envelope.keys());
    let evicted: Vec<Hash> = evicted.map(sync_id).collect();
    assert!(!evicted.is_empty());
    assert!(evicted.iter().all(|sync_id| !catalog.is_wanted(sync_id, NOW)));
    drop(catalog);
    let catalog = open_with(directory.path(), BUDGET);
    catalog.set_named([public(&cern)]).unwrap();
    assert!(evicted.iter().all(|sync_id| !catalog.is_wanted(sync_id, NOW)), "nor after a restart");
    for envelope in named.iter().chain(&before).chain(&quiet) {
        assert!(catalog.get(&envelope.id()).is_some());
    }
}

/// However much strangers say of one release, a verdict reads what those say who are heard, and what came before the flood.
#[test]
fn a_flood_of_words_about_one_release_drowns_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open_with(directory.path(), 1 << 30);
    let subject = release(&key(1), "batch", "1", NOW);
    let early = endorsement(&key(2), subject.id(), "before it");
    let flood: Vec<_> = (0..60).map(|n| endorsement(&flooder(n), subject.id(), "so good").encode()).collect();
    let late = endorsement(&key(3), subject.id(), "after it");
    put(&catalog, &early);
    catalog.insert_batch(&flood, PEER, NOW).unwrap();
    put(&catalog, &late);
    let is_heard = |by: &PublicKey| *by == public(&key(3));
    let heard = |others| ids(catalog.endorsements_heard(&subject.id(), Hearing { is_heard: &is_heard, others }));
    assert_eq!(heard(0), [late.id()]);
    let some = heard(10);
    assert!(some.len() == 11 && some.contains(&early.id()) && some.contains(&late.id()), "{some:?}");
    assert_eq!(heard(1_000).len(), 62);
    let gone = RevocationSubject::Release(subject.id());
    for signer in 2..20 {
        put(&catalog, &revocation(&key(signer), gone, "no"));
    }
    assert_eq!(catalog.revocations_heard(&gone, Hearing { is_heard: &is_heard, others: 4 }).len(), 5);
}
