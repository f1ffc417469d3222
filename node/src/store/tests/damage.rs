//! Random damage to any file of a store: it opens or says why not, nothing wrong is read, and what was not hit is there.

use std::fs;

use proptest::prelude::*;
use proptest::sample::Index;

use super::dependent::edition;
use super::*;

const SMALL: Options = Options { free_space_floor_bytes: 0, quota_bytes: None, segment_bytes: 1 << 20 };
/// What stands before the payload of an entry at most: its head and features.
const BEFORE_PAYLOAD: u64 = 56 + 32;

#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip,
    Zeros,
    Cut,
    Remove,
}

fn damage() -> impl Strategy<Value = (Index, Index, Damage)> {
    let kind = prop_oneof![4 => Just(Damage::Flip), 2 => Just(Damage::Zeros), 2 => Just(Damage::Cut), 1 => Just(Damage::Remove)];
    (any::<Index>(), any::<Index>(), kind)
}

/// Every file below a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
}

/// Damages a file, and returns which bytes of it are not to be counted on.
fn spoil(path: &Path, at: Index, damage: Damage) -> std::ops::Range<u64> {
    let mut bytes = fs::read(path).unwrap();
    if bytes.is_empty() {
        return 0..0;
    }
    let at = at.index(bytes.len());
    let hit = match damage {
        Damage::Flip => {
            bytes[at] ^= 1 << (at % 8);
            at..at + 1
        }
        Damage::Zeros => {
            let end = bytes.len().min(at + 4096);
            bytes[at..end].fill(0);
            at..end
        }
        Damage::Cut => {
            bytes.truncate(at);
            at..usize::MAX
        }
        Damage::Remove => 0..usize::MAX,
    };
    match damage {
        Damage::Remove => fs::remove_file(path).unwrap(),
        _ => fs::write(path, bytes).unwrap(),
    }
    hit.start as u64..hit.end as u64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn damage_costs_what_it_hits_and_nothing_else(damages in prop::collection::vec(damage(), 1..5)) {
        let original = tempfile::tempdir().unwrap();
        let store = Store::open(original.path(), SMALL).unwrap();
        // Two of them are editions of one text, so that chunks of one depend on the other's.
        let noises = (0..3).map(|seed| noise(seed, 900_000));
        let contents: Vec<_> = noises.chain((0..2).map(|edits| edition(9, 900_000, edits))).collect();
        let images: Vec<_> = contents.iter().map(|content| store.add_bytes(content).unwrap().image).collect();
        let mut chunks = BTreeMap::new();
        for image in &images {
            for chunk in &store.manifest(image).unwrap().chunks {
                let location = store.0.index.find(&segment::Key::chunk(chunk.hash)).unwrap().unwrap();
                let names = store.0.names_at(&location).unwrap().unwrap_or_default();
                let place = |name: &Hash| store.0.index.find(&segment::Key::chunk(*name)).unwrap().unwrap();
                let places: Vec<_> = names.iter().map(place).chain([location]).collect();
                chunks.insert(chunk.hash, (places, store.read_chunk(&chunk.hash).unwrap()));
            }
        }
        prop_assert!(chunks.values().any(|(places, _)| places.len() > 1));
        drop(store);

        let folder = tempfile::tempdir().unwrap();
        copy(original.path(), folder.path());
        let mut hits = Vec::new();
        for (file, at, damage) in damages {
            let files = files(folder.path());
            let path = &files[file.index(files.len())];
            let hit = spoil(path, at, damage);
            hits.push((path.clone(), hit));
        }
        let path_of = |segment: u32| folder.path().join(format!("segments/{segment:08}.segment"));
        let store = match Store::open(folder.path(), SMALL) {
            Ok(store) => store,
            // A flipped version says that the file is another one's.
            Err(StoreError::Newer(path)) => {
                prop_assert!(hits.iter().any(|(hit, _)| *hit == path));
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        for (hash, (places, content)) in &chunks {
            // It, or one that it depends on.
            let is_hit = places.iter().any(|location| {
                let start = u64::from(location.offset).saturating_sub(BEFORE_PAYLOAD);
                let end = u64::from(location.offset) + u64::from(location.stored);
                hits.iter().any(|(path, hit)| *path == path_of(location.segment) && hit.start < end && start < hit.end)
            });
            match store.read_chunk(hash) {
                Ok(read) => prop_assert_eq!(&read, content),
                Err(StoreError::NotHeld { .. } | StoreError::Damaged { .. }) => prop_assert!(is_hit, "{places:?} of {hits:?}"),
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
        // It goes on: what is lost comes again.
        for content in &contents {
            let image = store.add_bytes(content).unwrap().image;
            prop_assert_eq!(&export(&store, &image).unwrap(), content);
        }
        store.gc(&BTreeSet::new()).unwrap();
        drop(store);
        let store = Store::open(folder.path(), SMALL).unwrap();
        for (image, content) in images.iter().zip(&contents) {
            prop_assert_eq!(&export(&store, image).unwrap(), content);
        }
    }
}

#[test]
fn a_damaged_page_was_taken_for_held_when_its_image_was_added_again() {
    let (folder, store) = store();
    let content = noise(1, 300_000);
    let image = store.add_bytes(&content).unwrap().image;
    let page = store.manifest(&image).unwrap().pages[0];
    let location = store.0.index.find(&segment::Key::page(page)).unwrap().unwrap();
    drop(store);
    let segment = folder.path().join(format!("segments/{:08}.segment", location.segment));
    let file = fs::OpenOptions::new().write(true).open(segment).unwrap();
    file.write_all_at(&[0; 8], u64::from(location.offset)).unwrap();

    let store = Store::open(folder.path(), Options::default()).unwrap();
    store.add_bytes(&content).unwrap();
    drop(store);
    let store = Store::open(folder.path(), Options::default()).unwrap();
    assert_eq!(export(&store, &image).unwrap(), content);
}
