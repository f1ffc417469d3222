//! Search against a plain look through everything, and the bounds of what it counts.

use std::collections::BTreeMap;

use rialto_protocol::record::Arch;

use super::*;

const NAMES: [&str; 4] = ["batch-worker", "batch", "notebook", "mail-relay"];
const TAGS: [&str; 3] = ["htcondor", "cvmfs", "small"];

/// What a release of these tests is, in place of its record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    publisher: u8,
    name: usize,
    version: u16,
    is_arm: bool,
    tags: Vec<usize>,
    issued: UnixSeconds,
}

impl Said {
    fn envelope(&self) -> Envelope {
        let signer = key(self.publisher);
        let Body::Release(mut release) = release_body(&signer, NAMES[self.name], &format!("1.{}", self.version)) else {
            panic!("a release")
        };
        release.arch = if self.is_arm { Arch::Aarch64 } else { Arch::X86_64 };
        release.summary = "Ready to join a pool".try_into().unwrap();
        release.tags =
            List::try_from(self.tags.iter().map(|tag| TAGS[*tag].try_into().unwrap()).collect::<Vec<_>>()).unwrap();
        seal(&[&signer], &[&signer], self.issued, &Body::Release(release))
    }

    /// By looking at everything that it says.
    fn fits(&self, words: &[&str]) -> bool {
        let version = format!("1.{}", self.version);
        let called = called(&public(&key(self.publisher))).unwrap();
        let mut text: Vec<&str> = vec![&called, NAMES[self.name], &version, "ready", "to", "join", "a", "pool"];
        text.extend(NAMES[self.name].split('-'));
        text.extend(self.tags.iter().map(|tag| TAGS[*tag]));
        words.iter().all(|word| text.iter().any(|of| if word.len() == 1 { of == word } else { of.starts_with(word) }))
    }
}

fn called(key_of: &PublicKey) -> Option<String> {
    (1..=3u8).find(|seed| public(&key(*seed)) == *key_of).map(|seed| format!("site{seed}"))
}

fn said() -> impl Strategy<Value = Said> {
    let tags = prop::collection::btree_set(0..TAGS.len(), 0..3).prop_map(Vec::from_iter);
    (1..=3u8, 0..NAMES.len(), 0..30u16, any::<bool>(), tags, 0..40u64).prop_map(
        |(publisher, name, version, is_arm, tags, age)| Said {
            publisher,
            name,
            version,
            is_arm,
            tags,
            issued: NOW - age,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However releases come and go, over restarts and numberings: the same that a look through all of them finds, newest
    /// first, with the right counts.
    #[test]
    fn search_finds_what_a_look_through_everything_finds(
        releases in prop::collection::vec(said(), 1..40),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        reopens in any::<bool>(),
        questions in prop::collection::vec(
            (
                prop::sample::subsequence(vec!["bat", "batch-w", "worker", "site2", "1.1", "1.2", "cvm", "a", "b", "pool", "no"], 0..3),
                prop::option::of(1..=3u8), prop::option::of(0..TAGS.len()), prop::option::of(any::<bool>()),
                prop::option::of(0..40u64), 0..10usize, 1..10usize,
            ),
            1..12,
        ),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut catalog = open_with(directory.path(), 1 << 30);
        catalog.set_named([]).unwrap();
        let mut model: BTreeMap<RecordId, Said> = BTreeMap::new();
        for said in &releases {
            let envelope = said.envelope();
            put(&catalog, &envelope);
            model.insert(envelope.id(), said.clone());
        }
        if reopens {
            drop(catalog);
            catalog = open_with(directory.path(), 1 << 30);
        }
        // Some leave, in a batch that is written and in one that is not.
        for index in gone {
            let Some(id) = model.keys().nth(index.index(model.len().max(1))).copied() else { continue };
            let slot = catalog.read().index.slot(&id).unwrap();
            let taken = catalog.write().index.take(slot).unwrap();
            if index.index(2) == 0 {
                catalog.write().index.put_back(taken);
            } else {
                model.remove(&id);
            }
        }
        for (words, publisher, tag, is_arm, age, skip, limit) in questions {
            let since = age.map(|age| NOW - age);
            let arch = is_arm.map(|is_arm| if is_arm { Arch::Aarch64 } else { Arch::X86_64 });
            let query = Query {
                words: &words.join(" "),
                petname: Some(&called),
                publishers: publisher.map(|seed| vec![public(&key(seed))]),
                tag: tag.map(|tag| TAGS[tag].try_into().unwrap()),
                arch,
                since,
            };
            let fitting: Vec<(&RecordId, &Said)> = model
                .iter()
                .filter(|(_, said)| {
                    said.fits(&words)
                        && publisher.is_none_or(|publisher| said.publisher == publisher)
                        && tag.is_none_or(|tag| said.tags.contains(&tag))
                        && is_arm.is_none_or(|is_arm| said.is_arm == is_arm)
                        && since.is_none_or(|since| said.issued >= since)
                })
                .collect();
            let found = catalog.search(&query, 0, usize::MAX, 9);
            prop_assert_eq!(found.total, fitting.len(), "{:?}", words);
            let ids: BTreeSet<RecordId> = found.releases.iter().copied().collect();
            prop_assert_eq!(&ids, &fitting.iter().map(|(id, _)| **id).collect());
            let issued: Vec<_> = found.releases.iter().map(|id| model[id].issued).collect();
            prop_assert!(issued.is_sorted_by(|one, other| one >= other), "{:?}", issued);
            let page = catalog.search(&query, skip, limit, 0).releases;
            prop_assert_eq!(&page[..], found.releases.get(skip..).map_or(&[][..], |rest| &rest[..limit.min(rest.len())]));
            for (tag, count) in &found.facets.tags {
                let expected = fitting.iter().filter(|(_, said)| said.tags.iter().any(|of| TAGS[*of] == &**tag)).count();
                prop_assert_eq!(*count, expected as u64);
            }
            let counted: u64 = found.facets.publishers.iter().map(|(_, count)| count).sum();
            prop_assert_eq!(counted, fitting.len() as u64);
            prop_assert_eq!(found.facets.archs.iter().map(|(_, count)| count).sum::<u64>(), fitting.len() as u64);
        }
    }
}

#[test]
fn a_record_that_was_changed_on_the_disk_is_never_handed_out() {
    let directory = tempfile::tempdir().unwrap();
    let envelope = release(&key(1), "batch", "1", NOW);
    put(&open(directory.path()), &envelope);
    // Somebody who can write to the disk makes the checksum fit, too.
    let path = directory.path().join("records.log");
    let mut log = std::fs::read(&path).unwrap();
    let place = log.windows(5).position(|window| window == b"Says ").unwrap();
    log[place] = b'L';
    let body = b"rialto-records-2\n".len() + 8;
    let crc = crc32fast::hash(&log[body..]).to_le_bytes();
    log[body - 4..body].copy_from_slice(&crc);
    std::fs::write(&path, &log).unwrap();
    let catalog = open(directory.path());
    let found = catalog.search(&Query::default(), 0, 9, 9);
    assert_eq!(found.total, 1, "the index goes by what the log says");
    assert!(catalog.get(&found.releases[0]).is_none(), "but nobody gets it as verified");
    assert!(catalog.releases("", no_petname).is_empty());
}
