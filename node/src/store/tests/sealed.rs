//! The index of sealed segments: that it is used, and that no damage to it costs anything but time.

use std::fs;

use super::*;

/// The least there are, so that a few MiB make many.
const SMALL: Options = Options { free_space_floor_bytes: 0, quota_bytes: None, segment_bytes: 1 << 20 };

fn open(folder: &TempDir) -> Store {
    Store::open(folder.path(), SMALL).unwrap()
}

/// A store of a dozen segments, and the chunks it holds.
fn filled() -> (TempDir, Store, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let chunks: Vec<_> = (0..200).map(|seed| noise(seed, 60_000)).collect();
    for chunk in &chunks {
        put(&store, chunk);
        if chunk[0].is_multiple_of(8) {
            store.commit().unwrap();
        }
    }
    store.commit().unwrap();
    (folder, store, chunks)
}

fn put(store: &Store, chunk: &[u8]) -> bool {
    store.put_encoded(Hash::of(chunk), chunk.len() as u32, Encoding::Raw, chunk).unwrap()
}

fn runs(folder: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.path().join("index")).unwrap().map(|entry| entry.unwrap().path());
    let mut runs: Vec<_> = entries.filter(|path| path.extension().is_some_and(|suffix| suffix == "run")).collect();
    runs.sort();
    runs
}

/// Pages of a run, as its head says.
fn pages(run: &Path) -> u64 {
    u64::from_le_bytes(fs::read(run).unwrap()[24..32].try_into().unwrap())
}

/// Of these chunks, how many are held; each that is has the right bytes.
fn held(store: &Store, chunks: &[Vec<u8>]) -> usize {
    let hashes: Vec<_> = chunks.iter().map(|chunk| Hash::of(chunk)).collect();
    let mut keys: Vec<_> = hashes.iter().map(|&hash| segment::Key::chunk(hash)).collect();
    keys.sort();
    let together = store.0.index.are_held(&keys).unwrap().into_iter().filter(|&is_held| is_held).count();
    let one_by_one = hashes.iter().zip(chunks).filter(|(hash, chunk)| {
        let is_held = store.has_chunk(hash).unwrap();
        assert!(!is_held || store.read_chunk(hash).unwrap() == **chunk);
        is_held
    });
    assert_eq!(one_by_one.count(), together);
    together
}

#[test]
fn few_runs_speak_for_all_segments_but_the_last() {
    let (folder, store, chunks) = filled();
    let segments = segments(&folder).len();
    assert!(segments >= 12, "{segments}");
    assert_eq!(store.0.index.sealed().len(), segments - 1);
    assert!(runs(&folder).len() <= 5, "{:?}", runs(&folder));
    let in_tree = store.0.index.marks();
    assert_eq!(in_tree.len(), 1, "{in_tree:?}");
    assert_eq!(held(&store, &chunks), 200);
    drop(store);
    // Nothing has to be read again.
    let (inner, rebuilt) = open::open(folder.path(), SMALL).unwrap();
    assert_eq!(rebuilt, Rebuilt::default());
    let store = Store(Arc::new(inner));
    assert_eq!(held(&store, &chunks), 200);
    assert!(!put(&store, &chunks[0]));
    assert!(put(&store, &noise(999, 1000)));
}

#[test]
fn whatever_happens_to_a_run_is_mended_when_the_store_is_opened() {
    let (folder, store, chunks) = filled();
    drop(store);
    for damage in 0..16 {
        let all = runs(&folder);
        let run = &all[damage % all.len()];
        let length = fs::metadata(run).unwrap().len();
        let at = length * (damage as u64 * 7 % 16) / 16;
        match damage % 4 {
            0 => fs::remove_file(run).unwrap(),
            1 => flip(run, at),
            2 => OpenOptions::new().write(true).open(run).unwrap().set_len(at).unwrap(),
            _ => {
                // One of which nobody knows, and what a crash has left.
                fs::copy(run, folder.path().join("index/99999999.run")).unwrap();
                fs::write(folder.path().join("index/00000042.new"), b"rialto index 1").unwrap();
                fs::write(folder.path().join("index/00000043.part"), noise(1, 10_000)).unwrap();
            }
        }
        let store = open(&folder);
        assert_eq!(held(&store, &chunks), 200, "damage {damage}");
        store.gc(&BTreeSet::from([ImageId::of(b"none")])).map(|_| ()).unwrap();
        // All was garbage.
        assert_eq!(held(&store, &chunks), 0, "damage {damage}");
        chunks.iter().for_each(|chunk| assert!(put(&store, chunk)));
        store.commit().unwrap();
    }
}

#[test]
fn a_page_that_turns_out_damaged_in_use_is_mended_at_once() {
    let (folder, store, chunks) = filled();
    for run in runs(&folder) {
        for page in 1..=pages(&run).min(3) {
            flip(&run, page * 4096 + 100);
        }
    }
    assert_eq!(held(&store, &chunks), 200);
    // While segments are counted for a collection too.
    runs(&folder).iter().filter(|run| pages(run) > 0).for_each(|run| flip(run, 4096 + 2000));
    assert_eq!(store.gc(&BTreeSet::new()).unwrap().removed, 200);
    assert_eq!(held(&store, &chunks), 0);
}

#[test]
fn a_segment_that_is_not_the_one_that_was_indexed_is_read_again() {
    let (folder, store, chunks) = filled();
    drop(store);
    let all = segments(&folder);
    OpenOptions::new().write(true).open(&all[2]).unwrap().set_len(300_000).unwrap();
    let store = open(&folder);
    let left = held(&store, &chunks);
    assert!((180..200).contains(&left), "{left}");
    chunks.iter().for_each(|chunk| {
        put(&store, chunk);
    });
    assert_eq!(held(&reopen(&folder, store), &chunks), 200);
}

#[test]
fn a_store_of_an_earlier_version_gets_a_new_index() {
    let (folder, store, chunks) = filled();
    drop(store);
    let index = folder.path().join("index");
    runs(&folder).iter().for_each(|run| fs::remove_file(run).unwrap());
    for entry in fs::read_dir(index.join("recent")).unwrap() {
        let entry = entry.unwrap();
        fs::rename(entry.path(), index.join(entry.file_name())).unwrap();
    }
    let store = open(&folder);
    assert_eq!(held(&store, &chunks), 200);
    assert!(!index.join("conf").exists() && !runs(&folder).is_empty());
}

#[test]
fn a_damaged_chunk_of_a_sealed_segment_stays_forgotten_until_it_comes_again() {
    let (folder, store, chunks) = filled();
    flip(&segments(&folder)[0], 100_000);
    let bad: Vec<_> = chunks
        .iter()
        .filter(|chunk| matches!(store.read_chunk(&Hash::of(chunk)), Err(StoreError::Damaged { .. })))
        .collect();
    assert_eq!(bad.len(), 1);
    assert_eq!(held(&store, &chunks), 199);
    drop(store);
    let store = open(&folder);
    assert_eq!(held(&store, &chunks), 199);
    assert!(put(&store, bad[0]));
    store.commit().unwrap();
    assert_eq!(held(&store, &chunks), 200);
    drop(store);
    let store = open(&folder);
    assert_eq!(held(&store, &chunks), 200);
    // Also after the runs were written anew, and with an index built from nothing.
    store.put_page(&Hash::of(b"page"), b"page").unwrap();
    store.gc(&BTreeSet::new()).unwrap();
    chunks.iter().for_each(|chunk| assert!(put(&store, chunk)));
    drop(store);
    let rebuilt = Store::rebuild(folder.path(), SMALL).unwrap();
    assert_eq!((rebuilt.damaged_bytes, rebuilt.cut_bytes, rebuilt.unknown), (0, 0, 0));
    assert_eq!(held(&open(&folder), &chunks), 200);
}

#[test]
fn building_the_index_anew_says_what_was_found() {
    let (folder, store, chunks) = filled();
    assert!(matches!(Store::rebuild(folder.path(), SMALL), Err(StoreError::InUse(_))));
    store.put_page(&Hash::of(b"page"), b"page").unwrap();
    let bytes = store.stored_bytes();
    drop(store);
    let all = segments(&folder);
    flip(&all[1], 500_000);
    let last = all.last().unwrap();
    let length = fs::metadata(last).unwrap().len();
    OpenOptions::new().write(true).open(last).unwrap().set_len(length - 1).unwrap();
    let rebuilt = Store::rebuild(folder.path(), SMALL).unwrap();
    assert_eq!((rebuilt.segments, rebuilt.chunks, rebuilt.pages), (all.len() as u64, 199, 0), "{rebuilt:?}");
    assert_eq!(rebuilt.damaged_bytes, 60_056);
    assert_eq!(rebuilt.cut_bytes, 59);
    assert_eq!(rebuilt.bytes, bytes - 1 - 24 * all.len() as u64);
    assert_eq!(held(&open(&folder), &chunks), 199);
}

/// Tiny chunks fill a segment by their number, not by their bytes.
#[test]
fn a_segment_is_sealed_when_its_entries_are_many() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options { segment_bytes: 1 << 30, ..SMALL }).unwrap();
    let count = writer::SEGMENT_ENTRIES + 100;
    for number in 0..count {
        assert!(put(&store, &number.to_le_bytes()));
    }
    store.commit().unwrap();
    assert_eq!((segments(&folder).len(), store.0.index.sealed()), (2, vec![1]));
    drop(store);
    let store = Store::open(folder.path(), Options { segment_bytes: 1 << 30, ..SMALL }).unwrap();
    assert!((0..count).step_by(501).all(|number| store.has_chunk(&Hash::of(&number.to_le_bytes())).unwrap()));
    assert!(!store.has_chunk(&Hash::of(&count.to_le_bytes())).unwrap());
}
