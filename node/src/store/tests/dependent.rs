//! Chunks that are stored against others: what that saves, and that nothing that needs them goes before they do.

use rialto_protocol::image::manifest::ChunkRef;

use super::segment::{Entry, Key, Packing};
use super::writer::Floor;
use super::*;
use crate::store::dependent;

const SMALL: Options = Options { segment_bytes: 1 << 20, ..OPTIONS };

/// Text of sixteen letters, which compresses by half and no better, with so many words put into it.
pub(super) fn edition(seed: u64, length: usize, edits: usize) -> Vec<u8> {
    let digits: Vec<u8> =
        noise(seed, length / 2).iter().flat_map(|byte| [b'a' + byte % 16, b'a' + byte / 16]).collect();
    let step = digits.len() / (edits + 1) + 1;
    digits.chunks(step).flat_map(|piece| [piece, format!("edition {edits}").as_bytes()].concat()).collect()
}

/// The names of the chunks that depend on others, with what they depend on.
pub(super) fn dependents(store: &Store) -> BTreeMap<Hash, Vec<Hash>> {
    let entries = store.0.index.fold(Vec::new, |found, key, location| found.push((key, location))).unwrap();
    let names = |(key, location): (Key, _)| Some((key.hash, store.0.names_at(&location).unwrap()?));
    entries.into_iter().filter_map(names).collect()
}

fn scrub(store: &Store) -> u64 {
    let (mut place, mut damaged) = (ScrubPlace::default(), 0);
    loop {
        let step = store.scrub(place, 1 << 20).unwrap();
        damaged += step.damaged;
        match step.next {
            Some(next) => place = next,
            None => return damaged,
        }
    }
}

fn length_of(store: &Store, name: &Hash) -> u32 {
    store.read_chunk(name).unwrap().len() as u32
}

#[test]
fn a_new_version_takes_little_more_than_what_differs() {
    let (folder, store) = store();
    let editions: Vec<Vec<u8>> = (0..5).map(|edits| edition(1, 3 << 20, edits)).collect();
    let added: Vec<Added> = editions
        .iter()
        .enumerate()
        .map(|(number, content)| if number % 2 == 0 { add(&store, content) } else { store.add_bytes(content).unwrap() })
        .collect();
    for later in &added[1..] {
        assert!(later.new_chunks > 0 && later.stored_bytes < added[0].stored_bytes / 50, "{later:?}");
    }
    let depending = dependents(&store);
    assert!(depending.len() >= 10, "{}", depending.len());
    // Nothing that is depended on depends on others.
    assert!(depending.values().flatten().all(|name| !depending.contains_key(name)));
    let check = |store: &Store| {
        for (added, content) in added.iter().zip(&editions) {
            assert_eq!(&export(store, &added.image).unwrap(), content);
            assert!(store.verify(&added.image, &mut |_, _| (), &|| false).unwrap().damaged.is_empty());
        }
        assert_eq!(scrub(store), 0);
    };
    check(&store);
    let store = reopen(&folder, store);
    check(&store);
    drop(store);
    let rebuilt = Store::rebuild(folder.path(), OPTIONS).unwrap();
    assert_eq!((rebuilt.unknown, rebuilt.damaged_bytes), (0, 0));
    let store = Store::open(folder.path(), OPTIONS).unwrap();
    assert_eq!(dependents(&store), depending);
    check(&store);
    // They are sent to whoever holds nothing as if each were stored by itself.
    let (_other, other) = self::store();
    fetch(&store, &other, &added[4].image);
    assert_eq!(export(&other, &added[4].image).unwrap(), editions[4]);
    assert!(dependents(&other).is_empty());
}

#[test]
fn what_others_depend_on_goes_only_after_they_can_do_without() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), SMALL).unwrap();
    let editions: Vec<Vec<u8>> = (0..4).map(|edits| edition(2, 2 << 20, edits)).collect();
    let images: Vec<ImageId> = editions.iter().map(|content| add(&store, content).image).collect();
    assert!(!dependents(&store).is_empty());
    let before = store.stored_bytes();
    for (gone, image) in images.iter().enumerate() {
        store.remove(image).unwrap();
        let collected = store.gc(&BTreeSet::new()).unwrap();
        if gone < 2 {
            // One of those that depended on what went has its place.
            assert!(
                store.stored_bytes() < before + before / 50,
                "{} after {before}: {collected:?}",
                store.stored_bytes()
            );
            assert!(!dependents(&store).is_empty());
        }
        let check = |store: &Store| {
            let manifests: Vec<_> = images[gone + 1..].iter().map(|image| store.manifest(image).unwrap()).collect();
            let named: BTreeSet<Hash> =
                manifests.iter().flat_map(|manifest| manifest.chunks.iter().map(|chunk| chunk.hash)).collect();
            assert!(dependents(store).values().flatten().all(|name| named.contains(name)));
            for (image, content) in images.iter().zip(&editions).skip(gone + 1) {
                assert_eq!(&export(store, image).unwrap(), content);
            }
        };
        check(&store);
        // It is so on disk.
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join("segments")).unwrap();
        for segment in segments(&folder) {
            std::fs::copy(&segment, copy.path().join("segments").join(segment.file_name().unwrap())).unwrap();
        }
        std::fs::copy(folder.path().join("images.journal"), copy.path().join("images.journal")).unwrap();
        check(&Store::open(copy.path(), SMALL).unwrap());
    }
    assert!(dependents(&store).is_empty());
    assert!(store.stored_bytes() < 2000, "{}", store.stored_bytes());
}

#[test]
fn what_depends_on_a_damaged_chunk_is_damaged_too_and_comes_again() {
    for is_scrubbed in [true, false] {
        let ((_a, seed), (folder, leech)) = (store(), store());
        let (old, new) = (edition(3, 1 << 20, 0), edition(3, 1 << 20, 20));
        let (base, image) = (add(&seed, &old).image, add(&seed, &new).image);
        assert_eq!(add(&leech, &old).image, base);
        assert_eq!(add(&leech, &new).image, image);
        let depending = dependents(&leech);
        let (dependent, bases) = depending.first_key_value().unwrap();
        let location = leech.0.index.find(&Key::chunk(bases[0])).unwrap().unwrap();
        let lost = 1 + depending.values().filter(|names| names.contains(&bases[0])).count() as u64;
        flip(&segments(&folder)[0], u64::from(location.offset) + 5);
        if is_scrubbed {
            assert_eq!(scrub(&leech), lost);
        } else {
            assert!(matches!(leech.read_chunk(dependent), Err(StoreError::Damaged { .. })));
            // The others are noticed when it is asked for what is missing.
            leech.missing_chunks(&base).unwrap();
        }
        assert!(!leech.is_complete(&base).unwrap() && !leech.is_complete(&image).unwrap());
        let moved = fetch(&seed, &leech, &base) + fetch(&seed, &leech, &image);
        assert_eq!(moved, lost);
        assert_eq!((export(&leech, &base).unwrap(), export(&leech, &image).unwrap()), (old, new));
        assert_eq!(scrub(&leech), 0);
    }
}

#[test]
fn what_came_against_held_chunks_is_stored_as_it_came() {
    let (_folder, store) = store();
    let (old, new) = (edition(4, 60_000, 0), edition(4, 60_000, 3));
    let image = store.add_bytes(&old).unwrap().image;
    let chunks = store.manifest(&image).unwrap().chunks.clone();
    let runs = RecentChunks::new(store.clone());
    let bytes = encode_against(&old, &new, new.len()).unwrap();
    let before = store.stored_bytes();
    let length = new.len() as u32;
    let put = |run: &[ChunkRef], bytes: &[u8]| store.put_referenced(Hash::of(&new), length, run, &runs, bytes);
    assert!(put(&chunks, &bytes[..bytes.len() - 1]).unwrap_err().is_peer_fault());
    assert!(put(&chunks[1..], &bytes).unwrap_err().is_peer_fault());
    assert!(put(&chunks, &bytes).unwrap());
    assert!(!put(&chunks, &bytes).unwrap());
    let names: Vec<Hash> = chunks.iter().map(|chunk| chunk.hash).collect();
    let stored = store.read_stored(&Hash::of(&new)).unwrap();
    assert_eq!(stored, Stored::Against { names: names.clone(), frame: bytes.clone() });
    assert!(store.stored_bytes() - before < 1000);
    assert_eq!(store.read_chunk(&Hash::of(&new)).unwrap(), new);

    // Against one that depends on others itself: then on these.
    let (newest, run) = (edition(4, 60_000, 4), [ChunkRef { hash: Hash::of(&new), offset: 0, length }]);
    let bytes = encode_against(&new, &newest, newest.len()).unwrap();
    assert!(store.put_referenced(Hash::of(&newest), newest.len() as u32, &run, &runs, &bytes).unwrap());
    assert_eq!(dependents(&store)[&Hash::of(&newest)], names);
    assert_eq!(store.read_chunk(&Hash::of(&newest)).unwrap(), newest);
    // What has nothing in common is stored by itself, whatever it is said to be like.
    let other = edition(5, 60_000, 0);
    let bytes = encode_against(&old, &other, other.len()).unwrap();
    assert!(store.put_referenced(Hash::of(&other), other.len() as u32, &chunks, &runs, &bytes).unwrap());
    assert!(matches!(store.read_stored(&Hash::of(&other)).unwrap(), Stored::Alone(_)));
}

#[test]
fn entries_that_lie_about_what_they_depend_on_are_damaged_and_nothing_else() {
    let (_folder, store) = store();
    let (old, new) = (edition(6, 100_000, 0), edition(6, 100_000, 2));
    let base = Hash::of(&old);
    store.put_encoded(base, old.len() as u32, Encoding::Raw, &old).unwrap();
    let frame = encode_against(&old, &new, new.len()).unwrap();
    let name = Hash::of(&new);
    let payloads: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![1],
        vec![255; 40],
        dependent::payload(&[], &frame),
        dependent::payload(&[Hash::of(b"not held")], &frame),
        // Itself.
        dependent::payload(&[name], &frame),
        // More than a reference may be.
        dependent::payload(&[base; 3], &frame),
        dependent::payload(&[base; 32], &frame),
        dependent::payload(&[base; 33], &frame),
        dependent::payload(&[base], &frame[..frame.len() - 1]),
        dependent::payload(&[base], &noise(1, 200)),
        dependent::payload(&[base], &[]),
    ];
    for payload in payloads {
        for plain in [new.len() as u32, 1, u32::MAX] {
            // Past the checks, as a disk or another program might have it.
            let entry = Entry::new(Key::chunk(name), plain, Packing::Dependent, &payload);
            assert!(store.put(&entry, Floor::Reserved).unwrap());
            let read = store.read_chunk(&name);
            assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?} of {plain} in {payload:?}");
            assert!(!store.has_chunk(&name).unwrap());
        }
    }
    // One that depends on one that depends on others.
    let good = dependent::payload(&[base], &frame);
    let entry = Entry::new(Key::chunk(name), new.len() as u32, Packing::Dependent, &good);
    assert_eq!(store.put_dependent(&entry, Floor::Reserved).unwrap(), Some(true));
    let newest = edition(6, 100_000, 3);
    let deeper = dependent::payload(&[name], &encode_against(&new, &newest, newest.len()).unwrap());
    let entry = Entry::new(Key::chunk(Hash::of(&newest)), newest.len() as u32, Packing::Dependent, &deeper);
    assert_eq!(store.put_dependent(&entry, Floor::Reserved).unwrap(), None);
    assert!(store.put(&entry, Floor::Reserved).unwrap());
    assert!(matches!(store.read_chunk(&Hash::of(&newest)), Err(StoreError::Damaged { .. })));
    assert_eq!(store.read_chunk(&name).unwrap(), new);
    assert_eq!(length_of(&store, &base), old.len() as u32);
}

/// A crash may leave a segment that was collected; what comes back with it may depend on what does not.
#[test]
fn what_comes_back_with_a_new_index_does_not_lack_what_it_depends_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), SMALL).unwrap();
    let (old, new) = (edition(7, 3 << 20, 0), edition(7, 3 << 20, 30));
    let base = add(&store, &old).image;
    let before = segments(&folder).len();
    let image = add(&store, &new).image;
    // So that the segment that has dependent chunks only is sealed.
    add(&store, &noise(8, 2 << 20));
    let depending = dependents(&store);
    let saved: Vec<(PathBuf, Vec<u8>)> =
        segments(&folder).into_iter().skip(before).map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect();
    for image in [&base, &image] {
        store.remove(image).unwrap();
    }
    store.gc(&BTreeSet::new()).unwrap();
    drop(store);
    for (path, bytes) in &saved {
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let store = Store::open(folder.path(), SMALL).unwrap();
    let back = dependents(&store);
    assert!(back.len() < depending.len());
    assert!(back.keys().all(|name| store.read_chunk(name).is_ok()));
    // Adding it again does not rely on what cannot be read.
    let again = add(&store, &new).image;
    assert_eq!(again, image);
    assert_eq!(export(&store, &image).unwrap(), new);
}

/// An earlier version's store is read, and not written to where an earlier version would misread it.
#[test]
fn a_segment_of_the_earlier_version_is_not_appended_to() {
    let (folder, store) = store();
    let (old, new) = (edition(9, 1 << 20, 0), edition(9, 1 << 20, 2));
    let base = store.add_bytes(&old).unwrap().image;
    assert!(dependents(&store).is_empty());
    drop(store);
    let path = segments(&folder)[0].clone();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"1", 15).unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    for has_index in [true, false] {
        if !has_index {
            std::fs::remove_dir_all(folder.path().join("index")).unwrap();
        }
        let store = Store::open(folder.path(), OPTIONS).unwrap();
        let image = store.add_bytes(&new).unwrap().image;
        assert!(!dependents(&store).is_empty());
        assert_eq!((export(&store, &base).unwrap(), export(&store, &image).unwrap()), (old.clone(), new.clone()));
        assert_eq!((std::fs::metadata(&path).unwrap().len(), segments(&folder).len()), (length, 2));
    }
}

proptest::proptest! {
    #[test]
    fn random_payloads_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        if let Some((names, frame)) = dependent::parse(&bytes) {
            proptest::prop_assert_eq!(dependent::payload(&names, frame), bytes);
        }
    }
}
