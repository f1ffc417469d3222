//! `channel-fresh`: met by a head that counts, by nothing else, and explained with the records.

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::Name;
use rialto_protocol::channel::{ChannelName, Floor, Position};
use rialto_protocol::ids::RecordId;
use rialto_protocol::record::{Body, Channel, DelegatedRole, Delegation, Record, RevocationSubject};
use rialto_protocol::signed::Verified;
use rialto_web::api::VerdictKind::{Accept, Hold};

use super::testing::{DAY, NOW, Scene, key, public, revoked, signed};
use super::{ChannelFacts, Facts, Policy, Verdict, evaluate, revocation_subjects};

const FRESH: &str = "match = { publisher = \"cern\" }\nrequire = \"channel-fresh\"\nthen = \"accept\"";

struct Head {
    channel: &'static str,
    position: (u64, u64),
    release: RecordId,
    expires: UnixSeconds,
    issued: UnixSeconds,
}

fn head(release: &Verified<Record>, sequence: u64) -> Head {
    Head { channel: "stable", position: (0, sequence), release: release.id, expires: NOW + 7 * DAY, issued: NOW - 60 }
}

fn name(name: &str) -> Name {
    name.try_into().unwrap()
}

impl Head {
    fn by(self, scene: &Scene, signer: &ed25519_dalek::SigningKey) -> Verified<Record> {
        let body = Body::Channel(Channel {
            publisher: public(&scene.cern),
            name: name("batch-worker"),
            channel: name(self.channel),
            epoch: self.position.0,
            sequence: self.position.1,
            release: self.release,
            expires: self.expires,
        });
        signed(&body, &[signer], self.issued)
    }
}

fn delegation(scene: &Scene, sequence: u64, to: &ed25519_dalek::SigningKey) -> Verified<Record> {
    let (role, names) = (DelegatedRole::Channel, vec!["batch-*".try_into().unwrap()]);
    let delegation = Delegation::new(public(&scene.cern), role, [public(to)], 1, names, sequence, NOW + DAY).unwrap();
    signed(&Body::Delegation(delegation), &[&scene.cern], NOW - 90)
}

fn judged(
    policy: &Policy,
    scene: &Scene,
    release: &Verified<Record>,
    records: &[Verified<Record>],
    floor: Floor,
) -> Verdict {
    let channels = ["stable", "testing"].map(|channel| ChannelFacts {
        channel: ChannelName { publisher: public(&scene.cern), name: name("batch-worker"), channel: name(channel) },
        heads: records.iter().collect(),
        floor,
    });
    let mut facts = Facts { channels: channels.into(), delegations: records.iter().collect(), ..Facts::default() };
    let subjects = revocation_subjects(None, release, &facts);
    facts.revocations = records
        .iter()
        .filter(|record| record.body.revocation().is_some_and(|said| subjects.contains(&said.subject)))
        .collect();
    evaluate(policy, release, &facts, NOW)
}

/// Each case: what is known, the verdict, and what the explanation says.
#[test]
fn a_release_is_as_fresh_as_the_channel_that_points_at_it() {
    let scene = Scene::default();
    let policy = scene.policy(FRESH);
    let release = scene.release(|_| {});
    let other = scene.release(|release| release.sequence = 2);
    let (online, next) = (key(50), key(51));
    let seen = |epoch, sequence, delegation| Floor { head: Some(Position { epoch, sequence }), delegation };
    let good = || head(&release, 5).by(&scene, &scene.cern);
    let expired = Head { expires: NOW - 3 * DAY, ..head(&release, 5) }.by(&scene, &scene.cern);
    let under = |epoch, sequence| Head { position: (epoch, sequence), ..head(&release, 0) };
    let revoked_key = |by| revoked(RevocationSubject::Key(public(&online)), by);
    for (case, records, floor, verdict, says) in [
        ("nothing is known", vec![], Floor::default(), Hold, "nobody who may has said where it points"),
        ("it points here", vec![good()], Floor::default(), Accept, "channel stable points at it until"),
        (
            "another channel does",
            vec![Head { channel: "testing", ..head(&release, 1) }.by(&scene, &scene.cern)],
            Floor::default(),
            Accept,
            "channel testing points at it until",
        ),
        (
            "it points elsewhere",
            vec![good(), head(&other, 6).by(&scene, &scene.cern)],
            Floor::default(),
            Hold,
            "channel stable points at release",
        ),
        ("it is frozen", vec![expired], Floor::default(), Hold, "it is frozen"),
        ("it is rolled back", vec![good()], seen(0, 6, 0), Hold, "it was rolled back"),
        ("it is at its floor", vec![good()], seen(0, 5, 0), Accept, "points at it until"),
        (
            "it contradicts itself",
            vec![good(), head(&other, 5).by(&scene, &scene.cern)],
            Floor::default(),
            Hold,
            "it contradicts itself",
        ),
        (
            "a stranger says so",
            vec![head(&release, 9).by(&scene, &scene.mallory)],
            Floor::default(),
            Hold,
            "nobody who may",
        ),
        (
            "a reviewer says so",
            vec![head(&release, 9).by(&scene, &scene.desy)],
            Floor::default(),
            Hold,
            "nobody who may",
        ),
        (
            "a delegated key says so",
            vec![delegation(&scene, 1, &online), under(1, 1).by(&scene, &online)],
            Floor::default(),
            Accept,
            "points at it until",
        ),
        (
            "a delegated key said so, and was revoked",
            vec![delegation(&scene, 1, &online), under(1, 1).by(&scene, &online), revoked_key(&online)],
            Floor::default(),
            Hold,
            "keys that signed its head were revoked",
        ),
        (
            "a delegated key said so, and the publisher revoked it",
            vec![delegation(&scene, 1, &online), under(1, 1).by(&scene, &online), revoked_key(&scene.cern)],
            Floor::default(),
            Hold,
            "keys that signed its head were revoked",
        ),
        (
            "a delegated key said so, and a stranger would have it revoked",
            vec![delegation(&scene, 1, &online), under(1, 1).by(&scene, &online), revoked_key(&scene.mallory)],
            Floor::default(),
            Accept,
            "points at it until",
        ),
        (
            "a delegated key said so, and was replaced",
            vec![delegation(&scene, 1, &online), under(1, 1).by(&scene, &online), delegation(&scene, 2, &next)],
            Floor::default(),
            Hold,
            "delegation 2 replaced",
        ),
        (
            "the delegation that replaced it was seen, and is hidden",
            vec![delegation(&scene, 1, &online), under(1, 1).by(&scene, &online)],
            seen(1, 1, 2),
            Hold,
            "was seen here before, and is not known any more",
        ),
    ] {
        let judged = judged(&policy, &scene, &release, &records, floor);
        let outcome = &judged.requirements()[0];
        assert_eq!(judged.kind(), verdict, "{case}: {}", judged.because());
        assert_eq!(outcome.met, verdict == Accept);
        assert!(outcome.because.contains(says), "{case}: {}", outcome.because);
        assert_eq!(judged.accepted().is_some(), verdict == Accept);
    }
}

#[test]
fn the_records_that_met_it_are_named_and_written_down() {
    let scene = Scene::default();
    let release = scene.release(|_| {});
    let online = key(50);
    let delegated = delegation(&scene, 1, &online);
    let head = Head { position: (1, 1), ..head(&release, 0) }.by(&scene, &online);
    let records = [delegated.clone(), head.clone()];
    let verdict = judged(&scene.policy(FRESH), &scene, &release, &records, Floor::default());
    let mut expected = [delegated.id, head.id];
    expected.sort();
    assert_eq!(verdict.used(), expected);
    assert!(verdict.requirements()[0].because.contains(&head.id.to_string()));
    assert!(expected.iter().all(|id| verdict.considered().contains(id)));
}

#[test]
fn an_age_bounds_how_long_ago_the_head_was_signed() {
    let scene = Scene::default();
    let release = scene.release(|_| {});
    let with_age = |age: &str| scene.policy(&FRESH.replace("channel-fresh", &format!("channel-fresh:{age}")));
    let old = Head { issued: NOW - 2 * DAY, ..head(&release, 1) }.by(&scene, &scene.cern);
    let verdict = |age: &str| judged(&with_age(age), &scene, &release, std::slice::from_ref(&old), Floor::default());
    assert_eq!(verdict("2d").kind(), Accept);
    let held = verdict("1d");
    assert_eq!(held.kind(), Hold);
    assert!(held.because().contains("2 d ago, which counts for 1d"), "{}", held.because());
    assert!(with_age("1d").summary().contains("as said at most 1d ago"));
}

/// Somebody else's head that names this publisher's release is no channel of this publisher's.
#[test]
fn mix_and_match_of_publishers_makes_nothing_fresh() {
    let scene = Scene::default();
    let release = scene.release(|_| {});
    let body = Body::Channel(Channel {
        publisher: public(&scene.mallory),
        name: name("batch-worker"),
        channel: name("stable"),
        epoch: 0,
        sequence: 1,
        release: release.id,
        expires: NOW + DAY,
    });
    let head = signed(&body, &[&scene.mallory], NOW);
    let channel =
        ChannelName { publisher: public(&scene.mallory), name: name("batch-worker"), channel: name("stable") };
    let channels = vec![ChannelFacts { channel, heads: vec![&head], floor: Floor::default() }];
    let facts = Facts { channels, ..Facts::default() };
    let verdict = evaluate(&scene.policy(FRESH), &release, &facts, NOW);
    assert_eq!(verdict.kind(), Hold);
    assert!(verdict.because().contains("no channel of its publisher's points at it"), "{}", verdict.because());
}
