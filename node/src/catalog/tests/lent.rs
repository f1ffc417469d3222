//! Releases that keys have signed which their publisher lent its releases to: found as that publisher's, whatever comes first.

use rialto_protocol::record::{DelegatedRole, Delegation};

use super::*;

fn lent(by: &SigningKey, of: &SigningKey, keys: &[&SigningKey], threshold: u32, names: &str) -> Envelope {
    lent_again(1, by, of, keys, threshold, names)
}

fn lent_again(
    sequence: u64,
    by: &SigningKey,
    of: &SigningKey,
    keys: &[&SigningKey],
    threshold: u32,
    names: &str,
) -> Envelope {
    let keys = keys.iter().map(|key| public(key));
    let role = DelegatedRole::Release;
    let names = vec![names.try_into().unwrap()];
    let body = Delegation::new(public(of), role, keys, threshold, names, sequence, NOW + 1000).unwrap();
    seal(&[by], &[by], NOW, &Body::Delegation(body))
}

/// A release of `of`'s that others signed.
fn signed_for(of: &SigningKey, by: &[&SigningKey], version: &str) -> Envelope {
    seal(by, by, NOW, &release_body(of, "batch", version))
}

fn listed(catalog: &Catalog) -> Vec<RecordId> {
    let mut found = ids(catalog.releases("", no_petname));
    found.sort();
    found
}

#[test]
fn a_release_by_a_lent_key_is_listed_whatever_comes_first_and_over_a_restart() {
    let [cern, online, other, mallory] = [1, 2, 3, 9].map(key);
    let delegation = lent(&cern, &cern, &[&online, &other], 1, "batch*");
    let release = signed_for(&cern, &[&online], "1");
    for order in [[&delegation, &release], [&release, &delegation]] {
        let directory = tempfile::tempdir().unwrap();
        let catalog = open(directory.path());
        catalog.set_named([public(&cern)]).unwrap();
        assert!(listed(&catalog).is_empty());
        assert_eq!(order.map(|envelope| put(&catalog, envelope)), [Outcome::New, Outcome::New]);
        let check = |catalog: &Catalog| {
            assert_eq!(listed(catalog), [release.id()]);
            let version = "1".try_into().unwrap();
            let name = "batch".try_into().unwrap();
            assert_eq!(ids(catalog.version(&public(&cern), &name, &version)), [release.id()]);
            assert_eq!(catalog.sync_set().len(), 2);
        };
        check(&catalog);
        assert_eq!(catalog.evictable_bytes(), 0, "kept as if its publisher had signed it");
        drop(catalog);
        let catalog = open(directory.path());
        check(&catalog);
        catalog.set_named([public(&cern)]).unwrap();
        assert_eq!(catalog.evictable_bytes(), 0);
        // Another signature changes nothing of that, nor does a policy that does not name the publisher, but for who pays.
        assert_eq!(
            put(&catalog, &seal(&[&online], &[&online], NOW, &release_body(&cern, "batch", "1"))),
            Outcome::Duplicate
        );
        catalog.set_named([public(&mallory)]).unwrap();
        assert_eq!(listed(&catalog), [release.id()]);
        assert!(catalog.evictable_bytes() > 0);
    }
}

#[test]
fn what_was_not_lent_is_not_listed() {
    let [cern, online, other, mallory] = [1, 2, 3, 9].map(key);
    for (why, delegation, release) in [
        (
            "a stranger lends what is not theirs",
            lent(&mallory, &cern, &[&mallory], 1, "*"),
            signed_for(&cern, &[&mallory], "1"),
        ),
        ("lent to others", lent(&cern, &cern, &[&online], 1, "*"), signed_for(&cern, &[&mallory], "1")),
        ("lent for other names", lent(&cern, &cern, &[&online], 1, "web*"), signed_for(&cern, &[&online], "1")),
        ("too few of them", lent(&cern, &cern, &[&online, &other], 2, "*"), signed_for(&cern, &[&online], "1")),
    ] {
        for order in [[&delegation, &release], [&release, &delegation]] {
            let directory = tempfile::tempdir().unwrap();
            let catalog = open(directory.path());
            catalog.set_named([public(&cern)]).unwrap();
            assert_eq!(order.map(|envelope| put(&catalog, envelope)), [Outcome::New, Outcome::New]);
            assert!(listed(&catalog).is_empty(), "{why}");
            drop(catalog);
            assert!(listed(&open(directory.path())).is_empty(), "{why}");
        }
    }
}

/// The signature that was missing comes later, and not with the delegation.
#[test]
fn a_release_is_listed_once_enough_of_the_lent_keys_have_signed_it() {
    let [cern, online, other] = [1, 2, 3].map(key);
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path());
    catalog.set_named([public(&cern)]).unwrap();
    let body = release_body(&cern, "batch", "1");
    let by = |signer: &SigningKey| seal(&[&online, &other], &[signer], NOW, &body);
    put(&catalog, &by(&online));
    put(&catalog, &lent(&cern, &cern, &[&online, &other], 2, "*"));
    assert!(listed(&catalog).is_empty());
    assert_eq!(put(&catalog, &by(&other)), Outcome::Merged);
    assert_eq!(listed(&catalog).len(), 1);
    assert_eq!(catalog.evictable_bytes(), 0);
}

/// Whoever stole a key that was replaced must not fill the disks of all who name its publisher.
#[test]
fn a_key_that_was_replaced_brings_nothing_in_under_its_publishers_name() {
    let [cern, stolen, next] = [1, 2, 3].map(key);
    let old = lent_again(1, &cern, &cern, &[&stolen], 1, "*");
    let new = lent_again(2, &cern, &cern, &[&next], 1, "*");
    let elsewhere = lent_again(3, &cern, &cern, &[&next], 1, "web*");
    let release = signed_for(&cern, &[&stolen], "1");
    for order in [[&old, &new, &release], [&new, &release, &old], [&new, &old, &release]] {
        let directory = tempfile::tempdir().unwrap();
        let catalog = open(directory.path());
        catalog.set_named([public(&cern)]).unwrap();
        order.map(|envelope| put(&catalog, envelope)).iter().for_each(|outcome| assert_eq!(*outcome, Outcome::New));
        assert!(listed(&catalog).is_empty());
        assert!(catalog.evictable_bytes() > 0, "a stranger's");
        drop(catalog);
        let catalog = open(directory.path());
        assert!(listed(&catalog).is_empty());
        // Who has the key back has its releases back.
        put(&catalog, &lent_again(4, &cern, &cern, &[&stolen, &next], 1, "batch"));
        assert_eq!(listed(&catalog), [release.id()]);
    }
    // What is lent for other names replaces nothing.
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path());
    for envelope in [&old, &elsewhere, &release] {
        put(&catalog, envelope);
    }
    assert_eq!(listed(&catalog), [release.id()]);
}
