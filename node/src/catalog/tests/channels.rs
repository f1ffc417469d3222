//! Heads of channels: the highest is kept, what it superseded leaves, and a contradiction is never lost.

use std::collections::BTreeSet;

use rialto_protocol::record::{Channel, DelegatedRole, Delegation};

use super::*;

fn head(by: &SigningKey, of: &SigningKey, epoch: u64, sequence: u64, content: u8) -> Envelope {
    let body = Body::Channel(Channel {
        publisher: public(of),
        name: "batch".try_into().unwrap(),
        channel: "stable".try_into().unwrap(),
        epoch,
        sequence,
        release: RecordId::of(&[content]),
        expires: NOW + 1000,
    });
    seal(&[by], &[by], NOW, &body)
}

fn delegation(by: &SigningKey, of: &SigningKey, sequence: u64, to: &SigningKey) -> Envelope {
    let (keys, names) = ([public(to)], vec!["batch*".try_into().unwrap()]);
    let role = DelegatedRole::Channel;
    let body = Delegation::new(public(of), role, keys, 1, names, sequence, NOW + 1000).unwrap();
    seal(&[by], &[by], NOW, &Body::Delegation(body))
}

fn stable(of: &SigningKey) -> ChannelName {
    let (name, channel) = ("batch".try_into().unwrap(), "stable".try_into().unwrap());
    ChannelName { publisher: public(of), name, channel }
}

fn heads(catalog: &Catalog, of: &SigningKey) -> BTreeSet<RecordId> {
    catalog.heads(&stable(of)).iter().map(|record| record.id).collect()
}

fn sync_id(envelope: &Envelope) -> Hash {
    envelope.clone().verify().unwrap().sync_id()
}

const SUPERSEDED: Outcome = Outcome::Ignored(Ignored::Superseded);

#[test]
fn a_superseded_head_leaves_catch_up_and_does_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let cern = key(1);
    let (old, new) = (head(&cern, &cern, 0, 1, 1), head(&cern, &cern, 0, 2, 2));
    let catalog = open(directory.path());
    catalog.set_named([public(&cern)]).unwrap();
    assert_eq!(put(&catalog, &old), Outcome::New);
    assert_eq!(put(&catalog, &new), Outcome::New);
    let check = |catalog: &Catalog| {
        assert_eq!(heads(catalog, &cern), [new.id()].into());
        assert_eq!((catalog.len(), catalog.sync_set().len()), (1, 1));
        assert_eq!(put(catalog, &old), SUPERSEDED);
        assert!(!catalog.is_wanted(&sync_id(&old), NOW));
        // Not even when policy changes.
        catalog.set_named([public(&cern), public(&key(9))]).unwrap();
        assert_eq!(put(catalog, &old), SUPERSEDED);
        assert_eq!(put(catalog, &new), Outcome::Duplicate);
    };
    check(&catalog);
    assert!(catalog.get(&old.id()).is_none());
    drop(catalog);
    check(&open(directory.path()));
}

#[test]
fn a_contradiction_is_proved_however_it_comes() {
    let cern = key(1);
    let [one, other] = [head(&cern, &cern, 0, 3, 1), head(&cern, &cern, 0, 3, 2)];
    let later = head(&cern, &cern, 0, 5, 3);
    let proof: BTreeSet<RecordId> = [one.id(), other.id()].into();
    let all: BTreeSet<RecordId> = proof.iter().copied().chain([later.id()]).collect();
    for order in [[&one, &other, &later], [&one, &later, &other], [&later, &one, &other]] {
        let directory = tempfile::tempdir().unwrap();
        let catalog = open(directory.path());
        catalog.set_named([public(&cern)]).unwrap();
        let outcomes = order.map(|envelope| put(&catalog, envelope));
        assert_eq!(outcomes[2], Outcome::New, "the last one shows it");
        assert_eq!(heads(&catalog, &cern), all);
        // It stays whatever comes after.
        let last = head(&cern, &cern, 0, 9, 4);
        put(&catalog, &last);
        let kept: BTreeSet<RecordId> = proof.iter().copied().chain([last.id()]).collect();
        assert_eq!(heads(&catalog, &cern), kept);
        assert!(kept.iter().all(|id| catalog.get(id).is_some()) && catalog.len() == 3);
        drop(catalog);
        assert_eq!(heads(&open(directory.path()), &cern), kept, "and over a restart");
    }
}

/// The first of two heads in one place was superseded before the node was started again; the second comes after that.
#[test]
fn a_contradiction_below_the_highest_head_is_proved_over_a_restart() {
    let cern = key(1);
    let [one, other] = [head(&cern, &cern, 0, 3, 1), head(&cern, &cern, 0, 3, 2)];
    let later = head(&cern, &cern, 0, 5, 3);
    let all: BTreeSet<RecordId> = [one.id(), other.id(), later.id()].into();
    // Superseded, or passed over when it came; the log as it grew, or compacted.
    for (order, is_compacted) in [([&one, &later], false), ([&later, &one], false), ([&later, &one], true)] {
        let directory = tempfile::tempdir().unwrap();
        let catalog = open(directory.path());
        catalog.set_named([public(&cern)]).unwrap();
        order.into_iter().for_each(|envelope| drop(put(&catalog, envelope)));
        if is_compacted {
            catalog.compact(&mut catalog.log()).unwrap();
        }
        drop(catalog);
        let catalog = open(directory.path());
        catalog.set_named([public(&cern)]).unwrap();
        assert_eq!((heads(&catalog, &cern), catalog.len()), ([later.id()].into(), 1));
        assert!(!catalog.is_wanted(&sync_id(&one), NOW) && put(&catalog, &one) == SUPERSEDED);
        assert_eq!(put(&catalog, &other), Outcome::New);
        assert_eq!(heads(&catalog, &cern), all, "the proof");
        drop(catalog);
        assert_eq!(heads(&open(directory.path()), &cern), all);
    }
}

/// The flood came between a head and the delegation that makes it one: it was never taken again.
#[test]
fn a_head_that_was_evicted_before_its_delegation_came_is_wanted_then() {
    let directory = tempfile::tempdir().unwrap();
    let (cern, online) = (key(1), key(2));
    let catalog = open_with(directory.path(), 20_000);
    catalog.set_named([public(&cern)]).unwrap();
    let first = head(&online, &cern, 1, 1, 1);
    assert_eq!(put(&catalog, &first), Outcome::New);
    for number in 0..200_u8 {
        put(&catalog, &endorsement(&key(3 + number % 40), RecordId::of(&[number]), "a flood"));
    }
    assert!(catalog.get(&first.id()).is_none() && !catalog.is_wanted(&sync_id(&first), NOW), "it was evicted");
    // A stranger's word does not bring it back.
    put(&catalog, &delegation(&key(9), &key(9), 1, &online));
    assert!(!catalog.is_wanted(&sync_id(&first), NOW));
    put(&catalog, &delegation(&cern, &cern, 1, &online));
    drop(catalog);
    let catalog = open_with(directory.path(), 20_000);
    catalog.set_named([public(&cern)]).unwrap();
    assert!(catalog.is_wanted(&sync_id(&first), NOW), "also over a restart");
    assert_eq!(put(&catalog, &first), Outcome::New);
    assert_eq!(heads(&catalog, &cern), [first.id()].into());
}

#[test]
fn a_head_before_its_delegation_waits_for_it_and_is_kept_then() {
    let directory = tempfile::tempdir().unwrap();
    let (cern, online) = (key(1), key(2));
    let catalog = open(directory.path());
    catalog.set_named([public(&cern)]).unwrap();
    let first = head(&online, &cern, 1, 1, 1);
    assert_eq!(put(&catalog, &first), Outcome::New);
    assert_eq!(heads(&catalog, &cern), [].into(), "nobody knows yet who signed it");
    assert!(catalog.evictable_bytes() > 0);
    let second = head(&online, &cern, 1, 2, 2);
    put(&catalog, &second);
    put(&catalog, &delegation(&cern, &cern, 1, &online));
    assert_eq!(heads(&catalog, &cern), [second.id()].into());
    assert_eq!(catalog.evictable_bytes(), 0, "it is kept although policy does not name its signer");
    assert_eq!(catalog.len(), 2, "and the one that it superseded is gone");
    drop(catalog);
    let catalog = open(directory.path());
    catalog.set_named([public(&cern)]).unwrap();
    assert_eq!((heads(&catalog, &cern), catalog.evictable_bytes()), ([second.id()].into(), 0));
    let name = "batch".try_into().unwrap();
    assert_eq!(catalog.delegations(&public(&cern), &name).len(), 1);
    assert_eq!(catalog.channels(), [stable(&cern)]);
}

/// Neither a head nor a delegation in somebody's name does anything to that somebody's, and the forger pays for both.
#[test]
fn a_strangers_heads_and_delegations_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (cern, mallory) = (key(1), key(66));
    let catalog = open_with(directory.path(), 64 << 10);
    catalog.set_named([public(&cern)]).unwrap();
    let genuine = head(&cern, &cern, 0, 1, 1);
    put(&catalog, &genuine);
    put(&catalog, &delegation(&mallory, &cern, 7, &mallory));
    for sequence in 0..50 {
        put(&catalog, &head(&mallory, &cern, 7, 100 + sequence, 9));
        put(&catalog, &head(&mallory, &cern, 0, 100 + sequence, 9));
    }
    assert_eq!(heads(&catalog, &cern), [genuine.id()].into());
    assert!(catalog.get(&genuine.id()).is_some());
    assert!(catalog.delegations(&public(&cern), &"batch".try_into().unwrap()).is_empty());
    assert!(catalog.evictable_bytes() <= (64 << 10) / 16, "all of it within the share of one key");
    let next = head(&cern, &cern, 0, 2, 2);
    assert_eq!(put(&catalog, &next), Outcome::New);
    assert_eq!(heads(&catalog, &cern), [next.id()].into());
}

/// Each of them would be looked at whenever another of them comes: a few megabytes of them took hours.
#[test]
fn what_a_stranger_can_pile_up_under_one_delegation_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let (cern, online, mallory) = (key(1), key(2), key(66));
    let catalog = open_with(directory.path(), 64 << 20);
    catalog.set_named([public(&cern)]).unwrap();
    let pile = |of: &SigningKey, by: &SigningKey| {
        let heads: Vec<_> = (0..1_030).map(|sequence| head(by, of, 7, 1 + sequence, 9).encode()).collect();
        catalog.insert_batch(&heads, PEER, NOW).unwrap()
    };
    pile(&mallory, &mallory);
    assert_eq!(catalog.len(), 1_024);
    let delegations: Vec<_> = (70..76).map(|to| delegation(&mallory, &mallory, 7, &key(to))).collect();
    let outcomes: Vec<_> = delegations.iter().map(|envelope| put(&catalog, envelope)).collect();
    assert_eq!(outcomes[..4], [const { Outcome::New }; 4]);
    assert_eq!(outcomes[4..], [const { Outcome::Ignored(Ignored::NoRoom) }; 2]);
    assert!(!catalog.is_wanted(&sync_id(&delegations[5]), NOW), "and it is not asked for again");

    // In the name of somebody who is relied on: what is truly hers comes in all the same, at the latest when it is known to be.
    pile(&cern, &mallory);
    assert_eq!(catalog.len(), 2 * 1_024 + 4);
    let genuine = head(&online, &cern, 7, 2_000, 1);
    put(&catalog, &genuine);
    put(&catalog, &delegation(&cern, &cern, 7, &online));
    if catalog.is_wanted(&sync_id(&genuine), NOW) {
        put(&catalog, &genuine);
    }
    assert_eq!(heads(&catalog, &cern), [genuine.id()].into());
    let next = head(&online, &cern, 7, 2_001, 1);
    assert_eq!(put(&catalog, &next), Outcome::New);
    assert_eq!(heads(&catalog, &cern), [next.id()].into());
    // Whoever policy names is not bounded so: two delegations that contradict each other are its proof.
    let more = (80..86).map(|to| put(&catalog, &delegation(&cern, &cern, 9, &key(to))));
    assert!(more.into_iter().all(|outcome| outcome == Outcome::New));
}

#[test]
fn a_head_that_cannot_be_written_supersedes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let cern = key(1);
    let catalog = open(directory.path());
    catalog.set_named([public(&cern)]).unwrap();
    let (old, new) = (head(&cern, &cern, 0, 1, 1), head(&cern, &cern, 0, 2, 2));
    put(&catalog, &old);
    let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    catalog.log().use_file(file);
    assert!(catalog.insert(&new.encode(), PEER, NOW).is_err());
    assert_eq!(heads(&catalog, &cern), [old.id()].into());
    assert_eq!(catalog.sync_set().len(), 1);
}

#[test]
fn a_log_of_a_version_that_did_not_read_heads_is_cleared_of_superseded_ones() {
    let directory = tempfile::tempdir().unwrap();
    let cern = key(1);
    let mut frames = Vec::new();
    for sequence in 1..=5 {
        Frame::encode_record(PEER, &[], &head(&cern, &cern, 0, sequence, 1).encode(), &mut frames);
    }
    Log::open(directory.path(), |_| {}).unwrap().append(&frames).unwrap();
    let catalog = open(directory.path());
    catalog.set_named([public(&cern)]).unwrap();
    assert_eq!(heads(&catalog, &cern), [head(&cern, &cern, 0, 5, 1).id()].into());
    assert_eq!(catalog.len(), 1);
    drop(catalog);
    assert_eq!(open(directory.path()).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Heads under three epochs and by strangers, and the delegations that they rest on, in any order, some of them twice.
    #[test]
    fn any_order_of_arrival_leads_to_the_same_heads(
        picks in prop::collection::vec((0u64..3, 0u64..4, 0u8..3, any::<bool>()), 1..14),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
    ) {
        let (cern, online, mallory) = (key(1), key(2), key(66));
        let mut all: Vec<Envelope> = (1..3).map(|epoch| delegation(&cern, &cern, epoch, &online)).collect();
        let mut rightful = rialto_protocol::channel::Heads::default();
        let mut good = Vec::new();
        for (epoch, sequence, content, is_genuine) in picks {
            let signer = match (is_genuine, epoch) {
                (false, _) => &mallory,
                (true, 0) => &cern,
                (true, _) => &online,
            };
            let envelope = head(signer, &cern, epoch, sequence, content);
            if is_genuine {
                good.push((rialto_protocol::channel::Position { epoch, sequence }, envelope.id()));
            }
            all.push(envelope);
        }
        rightful.put_together(good);
        let directory = tempfile::tempdir().unwrap();
        let catalog = open(directory.path());
        catalog.set_named([public(&cern)]).unwrap();
        for at in order {
            put(&catalog, &all[at.index(all.len())]);
        }
        for envelope in &all {
            put(&catalog, envelope);
        }
        let expected: BTreeSet<RecordId> = rightful.iter().map(|(_, id)| id).collect();
        prop_assert_eq!(heads(&catalog, &cern), expected.clone());
        drop(catalog);
        prop_assert_eq!(heads(&open(directory.path()), &cern), expected);
    }

    /// Two sites that catch up with each other come to the same heads and proofs, whatever each has seen before.
    #[test]
    fn sites_that_catch_up_agree_on_heads_and_proofs(
        picks in prop::collection::vec((0u64..3, 0u64..4, 0u8..3, 0u8..3), 1..16),
    ) {
        let (cern, online) = (key(1), key(2));
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let catalogs = [0, 1].map(|site: usize| open(directories[site].path()));
        for catalog in &catalogs {
            catalog.set_named([public(&cern)]).unwrap();
        }
        for epoch in 1..3 {
            put(&catalogs[epoch as usize % 2], &delegation(&cern, &cern, epoch, &online));
        }
        for (epoch, sequence, content, site) in picks {
            let signer = if epoch == 0 { &cern } else { &online };
            let envelope = head(signer, &cern, epoch, sequence, content);
            for (number, catalog) in catalogs.iter().enumerate() {
                if site == 2 || usize::from(site) == number {
                    put(catalog, &envelope);
                }
            }
        }
        let mut union = rialto_protocol::channel::Heads::default();
        let mut all = Vec::new();
        for round in 0..3 {
            if round == 1 {
                // Once both know of all delegations: what either keeps.
                for catalog in &catalogs {
                    all.extend(catalog.heads(&stable(&cern)).iter().filter_map(|record| {
                        let head = record.body.channel()?;
                        let (epoch, sequence) = (head.epoch, head.sequence);
                        Some((rialto_protocol::channel::Position { epoch, sequence }, record.id))
                    }));
                }
            }
            catch_up(&catalogs[0], &catalogs[1]);
            catch_up(&catalogs[1], &catalogs[0]);
        }
        union.put_together(all);
        let expected: BTreeSet<RecordId> = union.iter().map(|(_, id)| id).collect();
        for catalog in &catalogs {
            prop_assert_eq!(heads(catalog, &cern), expected.clone());
        }
    }
}
