//! The attacks on freshness of the TUF specification (§1.5.2), as a table; and the order of heads, whatever comes when.

use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::UnixSeconds;
use crate::bounded::Name;
use crate::ids::{PublicKey, RecordId};
use crate::record::{Body, Channel, DelegatedRole, Delegation, Record};
use crate::signed::{Draft, Verified};

const NOW: UnixSeconds = 1_790_000_000;
const DAY: UnixSeconds = 86_400;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(seed: u8) -> PublicKey {
    PublicKey(key(seed).verifying_key().to_bytes())
}

fn name(name: &str) -> Name {
    name.try_into().unwrap()
}

/// The publisher's own key, which can stay offline.
const ROOT: u8 = 1;
/// Online keys.
const ONLINE: u8 = 2;
const NEXT: u8 = 3;
const THIRD: u8 = 4;
const MALLORY: u8 = 66;

fn signed(body: &Body, by: &[u8]) -> Verified<Record> {
    let draft = Draft::new(by.iter().map(|seed| public(*seed)), Some(name("physics")), NOW, body).unwrap();
    by.iter().fold(draft, |draft, seed| draft.sign(&key(*seed)).unwrap()).seal().verify().unwrap()
}

fn release(number: u64) -> RecordId {
    RecordId::of(&number.to_be_bytes())
}

struct Head {
    epoch: u64,
    sequence: u64,
    release: u64,
    expires: UnixSeconds,
    publisher: u8,
}

fn head(epoch: u64, sequence: u64, release: u64) -> Head {
    Head { epoch, sequence, release, expires: NOW + 7 * DAY, publisher: ROOT }
}

impl Head {
    fn by(self, signers: &[u8]) -> Verified<Record> {
        let body = Body::Channel(Channel {
            publisher: public(self.publisher),
            name: name("hello"),
            channel: name("stable"),
            epoch: self.epoch,
            sequence: self.sequence,
            release: release(self.release),
            expires: self.expires,
        });
        signed(&body, signers)
    }
}

fn delegation(sequence: u64, keys: &[u8], threshold: u32, names: &str, expires: UnixSeconds) -> Body {
    let keys = keys.iter().map(|seed| public(*seed));
    let names = vec![names.try_into().unwrap()];
    let role = DelegatedRole::Channel;
    Body::Delegation(Delegation::new(public(ROOT), role, keys, threshold, names, sequence, expires).unwrap())
}

/// Root lets these keys sign, any one of them, for everything, for 90 days.
fn delegated(sequence: u64, keys: &[u8]) -> Verified<Record> {
    signed(&delegation(sequence, keys, 1, "*", NOW + 90 * DAY), &[ROOT])
}

/// What a site makes of the channel.
struct Site {
    records: Vec<Verified<Record>>,
    floor: Floor,
    revoked: Vec<u8>,
    now: UnixSeconds,
}

fn site(records: impl IntoIterator<Item = Verified<Record>>) -> Site {
    Site { records: records.into_iter().collect(), floor: Floor::default(), revoked: vec![], now: NOW }
}

impl Site {
    fn that_saw(mut self, epoch: u64, sequence: u64, delegation: u64) -> Self {
        self.floor = Floor { head: Some(Position { epoch, sequence }), delegation };
        self
    }

    fn that_knows_revoked(mut self, keys: &[u8]) -> Self {
        self.revoked = keys.to_vec();
        self
    }

    fn at(mut self, now: UnixSeconds) -> Self {
        self.now = now;
        self
    }

    /// What the site knows of its one channel, and which keys were revoked.
    fn known<T>(&self, ask: impl FnOnce(&Known<'_, &Verified<Record>>, &dyn Fn(&PublicKey) -> bool) -> T) -> T {
        let records: Vec<&Verified<Record>> = self.records.iter().collect();
        let known = Known {
            channel: &ChannelName { publisher: public(ROOT), name: name("hello"), channel: name("stable") },
            heads: &records,
            delegations: &records,
            floor: self.floor,
        };
        ask(&known, &|key| self.revoked.iter().any(|seed| public(*seed) == *key))
    }

    fn state(&self) -> ChannelState {
        self.known(|known, is_revoked| state(known, is_revoked, self.now))
    }

    /// The number of the release that it takes the channel to point at.
    fn fresh(&self) -> Option<u64> {
        let fresh = self.state().fresh()?;
        (0..100).find(|number| release(*number) == fresh)
    }
}

/// Each case: what happens, and which release the channel leads to then.
#[test]
fn attacks_on_freshness() {
    let root_head = |sequence, release| head(0, sequence, release).by(&[ROOT]);
    let one_of_two = |sequence, threshold| {
        signed(&delegation(sequence, &[ONLINE, NEXT, THIRD], threshold, "*", NOW + 90 * DAY), &[ROOT])
    };
    let lasting = |expires| Head { expires, ..head(0, 5, 5) }.by(&[ROOT]);
    for (attack, site, leads_to) in [
        ("none: the publisher's own key", site([root_head(1, 1)]), Some(1)),
        ("none: a delegated key", site([delegated(1, &[ONLINE]), head(1, 1, 1).by(&[ONLINE])]), Some(1)),
        ("arbitrary software: a stranger's head", site([root_head(1, 1), head(0, 9, 9).by(&[MALLORY])]), Some(1)),
        ("arbitrary software: nothing but a stranger's head", site([head(0, 9, 9).by(&[MALLORY])]), None),
        (
            "arbitrary software: a stranger delegates to itself",
            site([
                root_head(1, 1),
                signed(&delegation(7, &[MALLORY], 1, "*", NOW + DAY), &[MALLORY]),
                head(7, 1, 9).by(&[MALLORY]),
            ]),
            Some(1),
        ),
        (
            "wrong software: a key that is delegated to for another appliance",
            site([
                signed(&delegation(1, &[ONLINE], 1, "batch-*", NOW + DAY), &[ROOT]),
                root_head(1, 1),
                head(1, 1, 9).by(&[ONLINE]),
            ]),
            Some(1),
        ),
        (
            "wrong software: a key that may sign releases only",
            site([
                {
                    let keys = [public(ONLINE)];
                    let (role, names) = (DelegatedRole::Release, vec!["*".try_into().unwrap()]);
                    let delegation = Delegation::new(public(ROOT), role, keys, 1, names, 1, NOW + DAY).unwrap();
                    signed(&Body::Delegation(delegation), &[ROOT])
                },
                root_head(1, 1),
                head(1, 1, 9).by(&[ONLINE]),
            ]),
            Some(1),
        ),
        ("rollback: an older head beside a newer one", site([root_head(5, 5), root_head(4, 4)]), Some(5)),
        ("rollback: an older head alone, where a newer one was seen", site([root_head(4, 4)]).that_saw(0, 5, 0), None),
        ("rollback: no head at all, where one was seen", site([]).that_saw(0, 5, 0), None),
        (
            "rollback of a delegation: the earlier one alone, where the later was seen",
            site([delegated(1, &[ONLINE]), head(1, 9, 9).by(&[ONLINE])]).that_saw(1, 1, 2),
            None,
        ),
        ("freeze: the last head until it expires", site([lasting(NOW + 1)]), Some(5)),
        ("freeze: the last head once it has expired", site([lasting(NOW)]), None),
        ("freeze: a clock a year on", site([root_head(1, 1)]).at(NOW + 365 * DAY), None),
        (
            "freeze: the delegation has expired, its keys sign on",
            site([
                signed(&delegation(1, &[ONLINE], 1, "*", NOW), &[ROOT]),
                Head { expires: u64::MAX, ..head(1, 1, 1) }.by(&[ONLINE]),
            ]),
            None,
        ),
        (
            "fast-forward: a stolen online key runs ahead",
            site([delegated(1, &[ONLINE]), head(1, 1, 1).by(&[ONLINE]), head(1, u64::MAX, 9).by(&[ONLINE])]),
            Some(9),
        ),
        (
            "fast-forward: and is replaced",
            site([
                delegated(1, &[ONLINE]),
                head(1, u64::MAX, 9).by(&[ONLINE]),
                delegated(2, &[NEXT]),
                head(2, 1, 2).by(&[NEXT]),
            ])
            .that_saw(1, u64::MAX, 1),
            Some(2),
        ),
        (
            "fast-forward: replaced, and the new key has not signed yet",
            site([delegated(1, &[ONLINE]), head(1, u64::MAX, 9).by(&[ONLINE]), delegated(2, &[NEXT])]),
            None,
        ),
        (
            "fast-forward: the stolen key signs for the epoch that is not its own",
            site([
                delegated(1, &[ONLINE]),
                delegated(2, &[NEXT]),
                head(2, 1, 2).by(&[NEXT]),
                head(2, 9, 9).by(&[ONLINE]),
            ]),
            Some(2),
        ),
        (
            "t-1 stolen keys: one of the two that must sign",
            site([one_of_two(1, 2), head(1, 1, 1).by(&[ONLINE, NEXT]), head(1, 9, 9).by(&[ONLINE])]),
            Some(1),
        ),
        (
            "t-1 stolen keys: one, and a stranger's",
            site([one_of_two(1, 2), head(1, 1, 1).by(&[ONLINE, NEXT]), head(1, 9, 9).by(&[ONLINE, MALLORY])]),
            Some(1),
        ),
        (
            "t-1 stolen keys: one contradicts a head that it has signed with another",
            site([one_of_two(1, 2), head(1, 1, 1).by(&[ONLINE, NEXT]), head(1, 1, 9).by(&[ONLINE])]),
            Some(1),
        ),
        (
            "t stolen keys, of which one was revoked",
            site([one_of_two(1, 2), head(1, 1, 1).by(&[ONLINE, NEXT])]).that_knows_revoked(&[NEXT]),
            None,
        ),
        (
            "more than t keys, of which one was revoked",
            site([one_of_two(1, 2), head(1, 1, 1).by(&[ONLINE, NEXT, THIRD])]).that_knows_revoked(&[NEXT]),
            Some(1),
        ),
        ("a revoked publisher", site([root_head(1, 1)]).that_knows_revoked(&[ROOT]), None),
        (
            "a delegation by a publisher that was revoked",
            site([delegated(1, &[ONLINE]), head(1, 1, 1).by(&[ONLINE])]).that_knows_revoked(&[ROOT]),
            None,
        ),
        (
            "mix-and-match: the head of one channel, the release of another publisher's",
            site([root_head(1, 1), Head { publisher: MALLORY, ..head(0, 9, 9) }.by(&[MALLORY])]),
            Some(1),
        ),
        ("equivocation: one place, two heads", site([root_head(5, 1), root_head(5, 2)]), None),
        (
            "equivocation: and a later head in that epoch",
            site([root_head(5, 1), root_head(5, 2), root_head(6, 3)]),
            None,
        ),
        (
            "equivocation: and a later epoch",
            site([root_head(5, 1), root_head(5, 2), delegated(1, &[ONLINE]), head(1, 1, 3).by(&[ONLINE])]),
            Some(3),
        ),
        (
            "equivocation of the publisher: two delegations with one sequence",
            site([delegated(1, &[ONLINE]), delegated(1, &[NEXT]), head(1, 1, 1).by(&[ONLINE])]),
            None,
        ),
        (
            "equivocation of the publisher: and a later delegation",
            site([delegated(1, &[ONLINE]), delegated(1, &[NEXT]), delegated(2, &[NEXT]), head(2, 1, 2).by(&[NEXT])]),
            Some(2),
        ),
        (
            "the publisher's own key signs on after it delegated",
            site([delegated(1, &[ONLINE]), head(1, 1, 1).by(&[ONLINE]), root_head(u64::MAX, 9)]),
            Some(1),
        ),
    ] {
        assert_eq!(site.fresh(), leads_to, "{attack}: {:?}", site.state());
    }
}

#[test]
fn a_delegation_for_other_names_leaves_the_one_before_in_force() {
    let workers = signed(&delegation(1, &[ONLINE], 1, "hel*", NOW + DAY), &[ROOT]);
    let others = signed(&delegation(2, &[NEXT], 1, "web-*", NOW + DAY), &[ROOT]);
    let all = [&workers, &others];
    let of = |name: &str| authority(&public(ROOT), DelegatedRole::Channel, &self::name(name), &all, 0).epoch();
    assert_eq!((of("hello"), of("web-1"), of("else")), (Some(1), Some(2), Some(0)));
    let seen = authority(&public(ROOT), DelegatedRole::Channel, &name("hello"), &all, 3);
    assert_eq!(seen, Authority::Missing { seen: 3 });
}

#[test]
fn what_is_wrong_is_said_with_the_records() {
    let (one, other) = (head(0, 5, 1).by(&[ROOT]), head(0, 5, 2).by(&[ROOT]));
    let state = site([one.clone(), other.clone()]).state();
    let proof = [one.id.min(other.id), one.id.max(other.id)];
    assert_eq!(state.proof, Some(proof));
    let said = state.flaws[0].to_string();
    assert!(proof.iter().all(|id| said.contains(&id.to_string())) && said.contains("0.5"), "{said}");
    let frozen = site([Head { expires: NOW - DAY, ..head(0, 1, 1) }.by(&[ROOT])]).state();
    assert_eq!(frozen.flaws, [Flaw::Frozen { since: NOW - DAY }]);
    assert_eq!(frozen.release, Some(release(1)), "it is still shown where it points");
}

#[test]
fn the_right_to_a_place_is_named_or_what_it_lacks() {
    let delegations = [delegated(1, &[ONLINE])];
    let place = |head: Verified<Record>| rightful(&head, &delegations);
    assert_eq!(place(head(1, 7, 1).by(&[ONLINE])), Ok(Position { epoch: 1, sequence: 7 }));
    assert_eq!(place(head(2, 7, 1).by(&[ONLINE])), Err(Unrightful::UnknownDelegation { epoch: 2 }));
    assert_eq!(place(head(1, 7, 1).by(&[ROOT])), Err(Unrightful::TooFewSignatures { signed: 0, threshold: 1 }));
    assert_eq!(place(head(0, 7, 1).by(&[ONLINE])), Err(Unrightful::NotByPublisher));
    assert_eq!(place(delegations[0].clone()), Err(Unrightful::NotAHead));
}

/// A small universe of heads, so that places are shared often.
fn heads() -> impl Strategy<Value = Vec<(Position, RecordId)>> {
    let head = (0u64..3, 0u64..4, 0u64..4);
    let head = head.prop_map(|(epoch, sequence, content)| {
        let id = RecordId::of(format!("{epoch}.{sequence}.{content}").as_bytes());
        (Position { epoch, sequence }, id)
    });
    prop::collection::vec(head, 0..24)
}

/// The rule, said as simply as possible, of all heads at once.
fn kept_of(all: &[(Position, RecordId)]) -> BTreeSet<(Position, RecordId)> {
    let in_place = |place: Position| all.iter().copied().filter(move |(at, _)| *at == place).collect::<BTreeSet<_>>();
    let places: BTreeSet<Position> = all.iter().map(|(place, _)| *place).collect();
    let highest = places.last().map(|place| in_place(*place)).unwrap_or_default();
    let contradicted = places.iter().rev().map(|place| in_place(*place)).find(|heads| heads.len() > 1);
    highest.into_iter().take(1).chain(contradicted.unwrap_or_default().into_iter().take(2)).collect()
}

fn put_all(heads: &mut Heads, all: &[(Position, RecordId)]) {
    for (position, id) in all {
        let before = heads.clone();
        let has_room = heads.has_room_for(*position, *id);
        let left = heads.put(*position, *id);
        assert_eq!(has_room, !left.contains(id));
        if !has_room {
            assert_eq!(*heads, before, "what has no room changes nothing");
        }
    }
}

proptest! {
    #[test]
    fn the_highest_wins_and_at_most_three_are_kept(all in heads()) {
        let mut heads = Heads::default();
        put_all(&mut heads, &all);
        prop_assert_eq!(heads.highest(), all.iter().map(|(place, _)| *place).max());
        prop_assert!(heads.iter().count() <= 3);
        let known: BTreeSet<_> = all.iter().copied().collect();
        prop_assert!(heads.iter().all(|head| known.contains(&head)));
        if let Some((place, [one, other])) = heads.proof() {
            prop_assert!(one < other && known.contains(&(place, one)) && known.contains(&(place, other)));
        }
    }

    /// Sites that exchange what they keep, each giving all of it at once, come to keep the same.
    #[test]
    fn sites_converge_on_heads_and_proofs(all in heads(), other in heads()) {
        let (mut here, mut there) = (Heads::default(), Heads::default());
        put_all(&mut here, &all);
        put_all(&mut there, &other);
        let union: Vec<_> = here.iter().chain(there.iter()).collect();
        let merge = |from: &Heads| {
            let mut heads = from.clone();
            heads.put_together(union.iter().copied());
            heads
        };
        let (a, b) = (merge(&here), merge(&there));
        prop_assert_eq!(&a, &b);
        prop_assert_eq!(a.iter().collect::<BTreeSet<_>>(), kept_of(&union));
    }

    #[test]
    fn a_head_taken_out_is_as_if_it_never_came(all in heads(), which in any::<prop::sample::Index>()) {
        let mut heads = Heads::default();
        put_all(&mut heads, &all);
        let kept: Vec<_> = heads.iter().collect();
        if !kept.is_empty() {
            let (position, id) = kept[which.index(kept.len())];
            let mut without = heads.clone();
            without.take(&id);
            prop_assert!(without.iter().all(|(_, other)| other != id));
            without.put(position, id);
            prop_assert_eq!(without, heads);
        }
    }
}

/// Two of three must sign; these did. The others are named in it.
fn shared(head: Head, signers: &[u8]) -> Verified<Record> {
    shared_among(head, &[ONLINE, NEXT, THIRD], signers)
}

fn shared_among(head: Head, issuers: &[u8], signers: &[u8]) -> Verified<Record> {
    let body = head.by(&[MALLORY]).body.clone();
    let issuers = issuers.iter().chain(signers).map(|seed| public(*seed));
    let draft = Draft::new(issuers, Some(name("physics")), NOW, &body).unwrap();
    signers.iter().fold(draft, |draft, seed| draft.sign(&key(*seed)).unwrap()).seal().verify().unwrap()
}

impl Site {
    /// The places of what waits, and whether it should be signed.
    fn waiting(&self) -> Vec<(u64, Option<PendingFlaw>)> {
        let found = self.pending();
        found.iter().map(|head| (head.position.sequence, head.flaw)).collect()
    }

    fn pending(&self) -> Vec<Pending> {
        self.known(|known, is_revoked| pending(known, is_revoked, self.now))
    }
}

#[test]
fn a_head_waits_for_the_keys_that_must_sign_it_too_and_for_nobody_elses() {
    let two = || signed(&delegation(1, &[ONLINE, NEXT, THIRD], 2, "*", NOW + 90 * DAY), &[ROOT]);
    let one = || shared(head(1, 5, 5), &[ONLINE]);
    let found = site([two(), one()]).pending();
    assert_eq!((found.len(), found[0].threshold, found[0].flaw), (1, 2, None));
    assert_eq!(found[0].signed, [public(ONLINE)]);
    assert_eq!(found[0].wanted.iter().copied().collect::<BTreeSet<_>>(), [public(NEXT), public(THIRD)].into());
    // With the signature of another of them it counts, and waits no more.
    let both = one().merge(&shared(head(1, 5, 5), &[NEXT])).unwrap().unwrap();
    let done = site([two(), both]);
    assert_eq!((done.waiting(), done.fresh()), (vec![], Some(5)));
    for (why, site) in [
        ("nobody who may has signed it", site([two(), shared(head(1, 5, 5), &[MALLORY])])),
        ("signed by the publisher, whose keys these are not", site([two(), shared(head(1, 5, 5), &[ROOT])])),
        ("of an earlier delegation", site([delegated(2, &[NEXT]), two(), one()])),
        ("of the publisher's own epoch", site([two(), shared(head(0, 5, 5), &[ONLINE])])),
        ("the publisher's key was revoked", site([two(), one()]).that_knows_revoked(&[ROOT])),
        ("its only signer's key was revoked", site([two(), one()]).that_knows_revoked(&[ONLINE])),
        ("below what counts", site([two(), one(), shared(head(1, 6, 6), &[ONLINE, THIRD])])),
        ("below what was seen", site([two(), one()]).that_saw(1, 5, 1)),
        ("the delegation is not here", site([one()])),
        ("a later delegation was seen", site([two(), one()]).that_saw(1, 1, 7)),
        ("it has expired", site([two(), one()]).at(NOW + 7 * DAY)),
        (
            "the delegation has expired",
            site([two(), shared(Head { expires: NOW + 99 * DAY, ..head(1, 5, 5) }, &[ONLINE])]).at(NOW + 90 * DAY),
        ),
    ] {
        assert_eq!(site.waiting(), [], "{why}");
    }
}

#[test]
fn what_nobody_should_sign_comes_last_and_says_why() {
    let two = || signed(&delegation(1, &[ONLINE, NEXT, THIRD], 2, "*", NOW + 90 * DAY), &[ROOT]);
    let at = |sequence, release| shared(head(1, sequence, release), &[ONLINE]);
    // A stolen key that offers any number of heads hides none that can be signed.
    let ahead = (0..40).map(|n| at(u64::MAX - n, 9));
    let found = site([two(), at(NOW, 5)].into_iter().chain(ahead)).waiting();
    assert_eq!((found.len(), found[0]), (41, (NOW, None)));
    assert!(found[1..].iter().all(|(_, flaw)| *flaw == Some(PendingFlaw::FarAhead)));
    // Where all are ahead already, the next number is no farther.
    let counts = shared(head(1, NOW * 2, 5), &[ONLINE, NEXT]);
    assert_eq!(site([two(), counts, at(NOW * 2 + 1, 5)]).waiting(), [(NOW * 2 + 1, None)]);
    // Two with one number: neither.
    let rivals = site([two(), at(5, 5), at(5, 6), at(4, 4)]).waiting();
    assert_eq!(rivals[0], (4, None));
    assert!(rivals[1..].iter().all(|(at, flaw)| *at == 5 && matches!(flaw, Some(PendingFlaw::Rival(_)))), "{rivals:?}");
    let alone = shared_among(head(1, 5, 5), &[], &[ONLINE]);
    assert_eq!(site([two(), alone]).waiting(), [(5, Some(PendingFlaw::TooFewIssuers))]);
}

fn lent(sequence: u64, keys: &[u8], threshold: u32, names: &str, expires: UnixSeconds) -> Verified<Record> {
    let keys = keys.iter().map(|seed| public(*seed));
    let names = vec![names.try_into().unwrap()];
    let role = DelegatedRole::Release;
    let body = Delegation::new(public(ROOT), role, keys, threshold, names, sequence, expires).unwrap();
    signed(&Body::Delegation(body), &[ROOT])
}

fn release_by(signers: &[u8]) -> Verified<Record> {
    let disk = crate::record::Disk {
        image: crate::ids::ImageId::of(b"disk"),
        format: crate::record::DiskFormat::Raw,
        bytes: 4096,
        blake3: crate::ids::Hash::of(b"disk"),
        sha256: crate::ids::Sha256([1; 32]),
    };
    let disks = crate::bounded::List::try_from(vec![disk]).unwrap();
    let (version, summary) = ("1".try_into().unwrap(), "It works".try_into().unwrap());
    let release = crate::record::Release::minimal(public(ROOT), name("hello"), version, disks, summary);
    let draft =
        Draft::new(signers.iter().map(|seed| public(*seed)), None, NOW, &Body::Release(Box::new(release))).unwrap();
    signers.iter().fold(draft, |draft, seed| draft.sign(&key(*seed)).unwrap()).seal().verify().unwrap()
}

#[test]
fn a_release_is_its_publishers_by_its_own_key_or_by_those_that_it_lent_its_releases_to() {
    let long = NOW + 90 * DAY;
    let one = lent(1, &[ONLINE, NEXT], 1, "*", long);
    let two = lent(2, &[ONLINE, NEXT, THIRD], 2, "hel*", long);
    let check = |signers: &[u8], delegations: &[&Verified<Record>], seen, revoked: &[u8], now| {
        let is_revoked = |key: &PublicKey| revoked.iter().any(|seed| public(*seed) == *key);
        published(&release_by(signers), delegations, seen, is_revoked, now)
    };
    let by = |delegation: &Verified<Record>, keys: &[u8]| {
        let keys: BTreeSet<_> = keys.iter().map(|seed| public(*seed)).collect();
        let threshold = delegation.body.delegation().unwrap().threshold();
        Ok(Published::ByDelegates { record: delegation.id, keys: keys.into_iter().collect(), threshold })
    };
    assert_eq!(check(&[ROOT], &[], 0, &[], NOW), Ok(Published::ByPublisher));
    assert_eq!(
        check(&[ROOT, MALLORY], &[&one], 9, &[], long),
        Ok(Published::ByPublisher),
        "the publisher's word is its own"
    );
    assert_eq!(check(&[ONLINE], &[&one], 1, &[], NOW), by(&one, &[ONLINE]));
    assert_eq!(check(&[ONLINE, THIRD], &[&one, &two], 2, &[], NOW), by(&two, &[ONLINE, THIRD]));
    let too_few = |signed| Err(Unpublished::TooFewSignatures { signed, threshold: 2, record: two.id });
    let revoked = |keys: &[u8]| Err(Unpublished::KeysRevoked { keys: keys.iter().map(|seed| public(*seed)).collect() });
    for (why, found, expected) in [
        ("a stranger", check(&[MALLORY], &[&one], 1, &[], NOW), Err(Unpublished::NotSigned)),
        ("nothing was lent", check(&[ONLINE], &[], 0, &[], NOW), Err(Unpublished::NotSigned)),
        ("what was seen is not here", check(&[ONLINE], &[&one], 2, &[], NOW), Err(Unpublished::Missing { seen: 2 })),
        ("it expired", check(&[ONLINE], &[&one], 1, &[], long), Err(Unpublished::Expired { record: one.id })),
        ("a later one asks for two", check(&[ONLINE], &[&one, &two], 2, &[], NOW), too_few(1)),
        ("a stranger makes no second", check(&[ONLINE, MALLORY], &[&two], 2, &[], NOW), too_few(1)),
        ("revoked", check(&[ONLINE], &[&one], 1, &[ONLINE], NOW), revoked(&[ONLINE])),
        ("one of two revoked", check(&[ONLINE, NEXT], &[&two], 2, &[NEXT], NOW), revoked(&[NEXT])),
        ("never enough", check(&[ONLINE], &[&two], 2, &[ONLINE], NOW), too_few(1)),
    ] {
        assert_eq!(found, expected, "{why}");
    }
    let replaced = lent(3, &[THIRD], 1, "*", long);
    assert_eq!(
        check(&[ONLINE], &[&one, &replaced], 3, &[], NOW),
        Err(Unpublished::NotSigned),
        "a newer one is in force"
    );
    let elsewhere = lent(3, &[THIRD], 1, "other", long);
    assert_eq!(check(&[ONLINE], &[&one, &elsewhere], 1, &[], NOW), by(&one, &[ONLINE]), "for other names");
    let channels = delegated(4, &[ONLINE]);
    assert_eq!(check(&[ONLINE], &[&channels], 0, &[], NOW), Err(Unpublished::NotSigned), "channels are no releases");
    let forged = {
        let keys = [public(MALLORY)];
        let body =
            Delegation::new(public(ROOT), DelegatedRole::Release, keys, 1, vec!["*".try_into().unwrap()], 9, long);
        signed(&Body::Delegation(body.unwrap()), &[MALLORY])
    };
    assert_eq!(
        check(&[MALLORY], &[&forged], 0, &[], NOW),
        Err(Unpublished::NotSigned),
        "nobody lends what is not theirs"
    );
    let twin = lent(1, &[THIRD], 1, "*", long);
    assert!(matches!(
        check(&[ONLINE], &[&one, &twin], 1, &[], NOW),
        Err(Unpublished::Contradicted { sequence: 1, .. })
    ));
}
