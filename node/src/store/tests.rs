use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use rialto_protocol::ids::{Hash, Sha256};
use rialto_protocol::image::encoding::Encoding;
use sha2::Digest as _;
use tempfile::TempDir;

use super::*;

const OPTIONS: Options = Options { free_space_floor_bytes: 0, quota_bytes: None, segment_bytes: 4 << 20 };

/// Bytes that do not compress: the BLAKE3 output stream of a seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Bytes that do.
fn text(seed: u64, length: usize) -> Vec<u8> {
    noise(seed, length.div_ceil(2)).iter().flat_map(|byte| [b'a' + byte % 16, b' ']).take(length).collect()
}

fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), OPTIONS).unwrap();
    (folder, store)
}

fn reopen(folder: &TempDir, store: Store) -> Store {
    drop(store);
    Store::open(folder.path(), OPTIONS).unwrap()
}

fn export(store: &Store, image: &ImageId) -> Result<Vec<u8>, StoreError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flat");
    store.export(image, &path, None, &mut |_, _| (), &|| false)?;
    Ok(std::fs::read(path).unwrap())
}

fn add(store: &Store, content: &[u8]) -> Added {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("content");
    std::fs::write(&path, content).unwrap();
    store.add_file(&path, Digests::Take, &[], &mut |_, _| (), &|| false).unwrap()
}

/// Moves an image from one store to another as a download does, and returns how many chunks went over.
fn fetch(from: &Store, to: &Store, image: &ImageId) -> u64 {
    to.begin_fetch(image).unwrap();
    loop {
        let missing = to.survey(image).unwrap().missing;
        if missing.is_empty() {
            break;
        }
        for page in missing {
            assert!(to.put_page(&page.hash(), &from.read_page(&page.hash()).unwrap()).unwrap());
        }
    }
    let (manifest, mut moved) = (to.manifest(image).unwrap(), 0);
    for index in to.missing_chunks(image).unwrap() {
        let chunk = manifest.chunks[index as usize];
        let Encoded { encoding, plain_length, bytes } = from.read_encoded(&chunk.hash).unwrap();
        moved += u64::from(to.put_encoded(chunk.hash, plain_length, encoding, &bytes).unwrap());
    }
    to.record_fetched(image).unwrap();
    moved
}

fn segments(folder: &TempDir) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder.path().join("segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn content_comes_back_whole_with_its_digests() {
    let (_folder, store) = store();
    let content = [noise(1, 700_001), vec![0; 900_000], text(2, 3_000_000), vec![0; 70_000]].concat();
    let (mut last, mut calls) = (0, 0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("content");
    std::fs::write(&path, &content).unwrap();
    let mut progress = |done, total| {
        assert!(done >= last && total == content.len() as u64);
        (last, calls) = (done, calls + 1);
    };
    let added = store.add_file(&path, Digests::Take, &[], &mut progress, &|| false).unwrap();
    assert_eq!((last, calls > 1), (content.len() as u64, true));
    assert_eq!(added.bytes, content.len() as u64);
    let sha256 = Sha256(sha2::Sha256::digest(&content).into());
    assert_eq!(added.digests, Some(FlatDigests { blake3: Hash::of(&content), sha256 }));
    assert_eq!(added.chunks, added.new_chunks);
    assert!(added.stored_bytes < 700_001 + 3_000_000 / 3 * 2, "text is compressed: {}", added.stored_bytes);
    assert_eq!(export(&store, &added.image).unwrap(), content);

    let again = store.add_bytes(&content).unwrap();
    assert_eq!((again.image, again.new_chunks, again.stored_bytes), (added.image, 0, 0));
    let undigested = store.add_file(&path, Digests::Skip, &[], &mut |_, _| (), &|| false).unwrap();
    assert_eq!((undigested.image, undigested.digests), (added.image, None));
    let listed = store.image(&added.image).unwrap();
    assert!(listed.is_complete && !listed.is_pinned && listed.origin == Origin::Local);
    assert!(listed.data_bytes < listed.bytes && listed.chunks == added.chunks);
}

#[test]
fn a_sparse_and_a_dense_copy_have_one_id() {
    let (_folder, store) = store();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(9_000_001).unwrap();
    file.write_all_at(&noise(1, 200_000), 1 << 20).unwrap();
    file.write_all_at(&noise(2, 5000), 6_000_123).unwrap();
    let sparse = store.add_file(&path, Digests::Take, &[], &mut |_, _| (), &|| false).unwrap();
    let dense = add(&store, &std::fs::read(&path).unwrap());
    assert_eq!((sparse.image, sparse.digests), (dense.image, dense.digests));
    assert_eq!(dense.new_chunks, 0);

    let flat = folder.path().join("flat");
    store.export(&sparse.image, &flat, None, &mut |_, _| (), &|| false).unwrap();
    assert_eq!(std::fs::read(&flat).unwrap(), std::fs::read(&path).unwrap());
    let allocated = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&flat).unwrap()) * 512;
    assert!(allocated < 1 << 20, "the exported file has {allocated} bytes allocated");
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn a_block_device_is_added_like_the_file_behind_it() {
    let (folder, store) = store();
    let path = folder.path().join("disk");
    std::fs::write(&path, [noise(1, 700_000), vec![0; 324_000], text(2, 1 << 20 | 512)].concat()).unwrap();
    let losetup = |arguments: &[&str]| std::process::Command::new("losetup").args(arguments).output();
    let attached = losetup(&["--find", "--show", "--read-only", path.to_str().unwrap()]);
    let Some(device) = attached.ok().filter(|output| output.status.success()) else {
        eprintln!("skipped: this machine makes no loop devices");
        return;
    };
    let device = String::from_utf8(device.stdout).unwrap().trim().to_owned();
    let added = store.add_file(Path::new(&device), Digests::Take, &[], &mut |_, _| (), &|| false);
    losetup(&["--detach", &device]).unwrap();
    let (added, file) = (added.unwrap(), add(&store, &std::fs::read(&path).unwrap()));
    assert_eq!((added.image, added.digests), (file.image, file.digests));
}

#[test]
fn an_empty_image_and_one_of_holes_only() {
    let (folder, store) = store();
    let empty = add(&store, &[]);
    let hole = add(&store, &[0; 1 << 20]);
    let store = reopen(&folder, store);
    assert_eq!(export(&store, &empty.image).unwrap(), [0u8; 0]);
    assert_eq!(export(&store, &hole.image).unwrap(), vec![0; 1 << 20]);
    assert_eq!((hole.chunks, hole.bytes), (0, 1 << 20));
}

#[test]
fn what_is_not_a_file_is_refused() {
    let (folder, store) = store();
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for path in [folder.path(), &pipe, &socket, Path::new("/dev/null")] {
        let found = store.add_file(path, Digests::Skip, &[], &mut |_, _| (), &|| false);
        assert!(matches!(found, Err(StoreError::NotAFile { .. })), "{found:?}");
    }
    let found = store.add_file(&folder.path().join("absent"), Digests::Skip, &[], &mut |_, _| (), &|| false);
    assert!(matches!(found, Err(StoreError::Io { .. })), "{found:?}");

    let image = store.add_bytes(b"content").unwrap().image;
    for path in [folder.path(), &pipe, Path::new("/dev/null")] {
        let found = store.export(&image, path, None, &mut |_, _| (), &|| false);
        assert!(matches!(found, Err(StoreError::NotAFile { .. })), "{found:?}");
    }
}

#[test]
fn a_cancelled_addition_lists_nothing() {
    let (_folder, store) = store();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("content");
    std::fs::write(&path, noise(1, 30 << 20)).unwrap();
    let done = std::cell::Cell::new(0);
    let result = store.add_file(&path, Digests::Take, &[], &mut |now, _| done.set(now), &|| done.get() > 5 << 20);
    assert!(matches!(result, Err(StoreError::Cancelled)));
    assert!(done.get() < 20 << 20);
    assert_eq!(store.images().unwrap(), []);
    assert!(store.gc(&BTreeSet::new()).unwrap().removed > 0);
    assert!(store.stored_bytes() < 1000);
}

#[test]
fn a_fetch_resumes_after_a_restart() {
    let ((_a, seed), (folder, leech)) = (store(), store());
    let content = [noise(1, 2_000_000), text(2, 1_000_000)].concat();
    let image = add(&seed, &content).image;
    leech.begin_fetch(&image).unwrap();
    let listed = leech.image(&image).unwrap();
    assert_eq!((listed.bytes, listed.chunks, listed.is_complete), (0, 0, false));
    assert!(matches!(leech.manifest(&image), Err(StoreError::MissingPages { missing: 1, .. })));
    assert!(matches!(leech.record_fetched(&image), Err(StoreError::MissingPages { .. })));

    let manifest = seed.manifest(&image).unwrap();
    leech.put_page(&image.hash(), &seed.read_page(&image.hash()).unwrap()).unwrap();
    for chunk in &manifest.chunks[..20] {
        let Encoded { encoding, plain_length, bytes } = seed.read_encoded(&chunk.hash).unwrap();
        assert!(leech.put_encoded(chunk.hash, plain_length, encoding, &bytes).unwrap());
        assert!(!leech.put_encoded(chunk.hash, plain_length, encoding, &bytes).unwrap(), "the second time");
        assert_eq!(leech.read_encoded(&chunk.hash).unwrap().bytes, bytes, "before any commit");
    }
    leech.gc(&BTreeSet::new()).unwrap();
    assert!(matches!(leech.record_fetched(&image), Err(StoreError::MissingChunks { .. })));
    assert!(matches!(export(&leech, &image), Err(StoreError::MissingChunks { .. })));

    let leech = reopen(&folder, leech);
    let expected: Vec<u32> = (20..manifest.chunks.len() as u32).collect();
    assert_eq!(leech.missing_chunks(&image).unwrap(), expected);
    assert_eq!(leech.image(&image).unwrap().missing_chunks, expected.len() as u64);
    assert_eq!(fetch(&seed, &leech, &image), expected.len() as u64);
    assert_eq!(export(&leech, &image).unwrap(), content);
    let listed = leech.image(&image).unwrap();
    assert!(listed.is_complete && listed.origin == Origin::Fetched);
}

#[test]
fn lies_of_peers_are_told_apart_and_store_nothing() {
    let (_folder, store) = store();
    let content = text(1, 100_000);
    let (hash, packed) = (Hash::of(&content), coding::compress(&content).unwrap());
    let refused = |length, encoding, bytes: &[u8]| {
        let error = store.put_encoded(hash, length, encoding, bytes).unwrap_err();
        assert!(error.is_peer_fault(), "{error}");
        match error {
            StoreError::Peer(fault) => fault,
            other => panic!("{other}"),
        }
    };
    assert!(matches!(refused(100_000, Encoding::Raw, &text(2, 100_000)), PeerFault::WrongHash { .. }));
    assert!(matches!(refused(99_999, Encoding::Raw, &content), PeerFault::WrongLength { .. }));
    assert!(matches!(refused(99_999, Encoding::Zstd, &packed), PeerFault::BadEncoding { .. }));
    assert!(matches!(refused(100_001, Encoding::Zstd, &packed), PeerFault::BadEncoding { .. }));
    assert!(matches!(refused(100_000, Encoding::Zstd, &noise(1, 5000)), PeerFault::BadEncoding { .. }));
    assert!(matches!(refused(100_000, Encoding::Zstd, &packed[..1000]), PeerFault::BadEncoding { .. }));
    assert!(matches!(refused(131_073, Encoding::Raw, &noise(1, 131_073)), PeerFault::Oversized { .. }));
    assert!(matches!(refused(100_000, Encoding::Zstd, &noise(1, 100_000)), PeerFault::Oversized { .. }));
    assert!(matches!(store.put_page(&hash, &content), Err(StoreError::Peer(PeerFault::Oversized { .. }))));
    assert!(matches!(store.put_page(&hash, b"other"), Err(StoreError::Peer(PeerFault::WrongHash { .. }))));
    assert!(!store.has_chunk(&hash).unwrap());
    assert!(store.put_encoded(hash, 100_000, Encoding::Zstd, &packed).unwrap());
    assert_eq!(store.read_chunk(&hash).unwrap(), content);
}

#[test]
fn a_page_that_fits_its_name_and_lies_is_noticed() {
    let (_folder, store) = store();
    let page = b"not a manifest";
    let image = ImageId::of(page);
    store.begin_fetch(&image).unwrap();
    store.put_page(&image.hash(), page).unwrap();
    assert!(matches!(store.survey(&image), Err(StoreError::Manifest { .. })));
    assert!(!store.is_complete(&image).unwrap());
    assert!(!store.images().unwrap()[0].is_complete);
    store.gc(&BTreeSet::new()).unwrap();
    store.remove(&image).unwrap();
    assert_eq!(store.images().unwrap(), []);
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let (folder, store) = store();
    let content = noise(1, 1 << 20);
    let image = add(&store, &content).image;
    store.set_free_space_floor(u64::MAX);
    let error = store.add_bytes(&noise(2, 1 << 20)).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { floor: u64::MAX, .. }) && !error.is_peer_fault(), "{error}");
    let chunk = noise(3, 10_000);
    let put = store.put_encoded(Hash::of(&chunk), 10_000, Encoding::Raw, &chunk);
    assert!(matches!(put, Err(StoreError::DiskFull { .. })));
    assert!(matches!(store.reserve(1, 1), Err(StoreError::DiskFull { .. })));
    assert_eq!(export(&store, &image).unwrap(), content);
    assert!(store.gc(&BTreeSet::new()).is_ok());

    // Room for a part of it, then for none: what came before the refusal is still there.
    store.set_free_space_floor(store.free_bytes().unwrap().saturating_sub(8 << 20));
    let result = (4..100).try_for_each(|seed| store.add_bytes(&noise(seed, 1 << 20)).map(drop));
    assert!(matches!(result, Err(StoreError::DiskFull { .. })), "{result:?}");
    let listed = store.images().unwrap();
    assert!(listed.len() >= 2 && listed.iter().all(|image| image.is_complete));

    store.set_free_space_floor(0);
    let store = reopen(&folder, store);
    assert_eq!(export(&store, &image).unwrap(), content);
    assert_eq!(store.images().unwrap(), listed);
    store.add_bytes(&noise(2, 1 << 20)).unwrap();
}

#[test]
fn a_quota_and_what_others_have_set_aside_bound_the_store() {
    let (_folder, store) = store();
    let image = store.add_bytes(&noise(1, 1 << 20)).unwrap().image;
    store.set_quota(Some(4 << 20));
    let reservation = store.reserve(40, 2 << 20).unwrap();
    assert!(matches!(store.reserve(40, 2 << 20), Err(StoreError::OverQuota { reserved: 1.., .. })));
    // An addition leaves alone what is set aside, and the fetch has it.
    let error = store.add_bytes(&noise(2, 2 << 20)).unwrap_err();
    assert!(matches!(error, StoreError::OverQuota { reserved: 1.., .. }) && !error.is_peer_fault(), "{error}");
    store.gc(&BTreeSet::new()).unwrap();
    for seed in 0..20 {
        let chunk = noise(100 + seed, 100_000);
        assert!(store.put_encoded(Hash::of(&chunk), 100_000, Encoding::Raw, &chunk).unwrap());
        reservation.spend_chunk(100_000);
    }
    let left = store.reserved_bytes();
    assert!(left > 0 && left < 200_000, "{left}");
    drop(reservation);
    assert_eq!(store.reserved_bytes(), 0);
    // Up to the quota, and not beyond it.
    let refused = (200..300).find_map(|seed| store.add_bytes(&noise(seed, 100_000)).err()).unwrap();
    assert!(matches!(refused, StoreError::OverQuota { .. }), "{refused}");
    assert!(store.stored_bytes() <= (4 << 20) + 10_000, "{}", store.stored_bytes());
    store.set_quota(Some(0));
    store.gc(&BTreeSet::new()).unwrap();
    assert!(store.is_complete(&image).unwrap());
    store.set_quota(None);
    store.add_bytes(&noise(2, 2 << 20)).unwrap();
}

#[test]
fn images_say_what_only_they_keep() {
    let (_folder, store) = store();
    let (shared, a, b) = (noise(1, 2 << 20), noise(2, 1 << 20), noise(3, 3 << 20));
    let hole = vec![0; 1 << 20];
    let first = store.add_bytes(&[&shared[..], &hole, &a, &hole, &a].concat()).unwrap();
    let alone = store.usage().unwrap()[&first.image];
    assert_eq!((alone.own_bytes, alone.shared_bytes), (first.stored_bytes, 0));
    let second = store.add_bytes(&[&shared[..], &hole, &b].concat()).unwrap();
    let usage = store.usage().unwrap();
    let (of_first, of_second) = (usage[&first.image], usage[&second.image]);
    assert_eq!(of_first.shared_bytes, of_second.shared_bytes);
    assert!(of_first.shared_bytes > 2 << 20 && of_first.own_bytes > 1 << 20 && of_first.own_bytes < 2 << 20);
    assert_eq!(of_first.own_bytes + of_first.shared_bytes, first.stored_bytes);
    assert_eq!(of_second.own_bytes, second.stored_bytes);
    // What it says that removing frees is freed.
    let before = store.stored_bytes();
    store.remove(&second.image).unwrap();
    assert_eq!(store.usage().unwrap()[&first.image], alone);
    store.gc(&BTreeSet::new()).unwrap();
    let freed = before - store.stored_bytes();
    assert!(freed.abs_diff(of_second.own_bytes) < 1000, "{freed} and {}", of_second.own_bytes);
}

#[test]
fn a_scrub_finds_what_is_damaged_and_nothing_else() {
    let ((_a, seed), (folder, leech)) = (store(), store());
    let images = [1, 2, 3].map(|number| add(&seed, &noise(number, 3 << 20)).image);
    for image in &images {
        fetch(&seed, &leech, image);
    }
    let scrub = |store: &Store| {
        let (mut place, mut bytes, mut damaged, mut steps) = (ScrubPlace::default(), 0, 0, 0);
        loop {
            let step = store.scrub(place, 1 << 20).unwrap();
            (bytes, damaged, steps) = (bytes + step.bytes, damaged + step.damaged, steps + 1);
            let Some(next) = step.next else { break };
            assert!(next > place, "it gets ahead");
            assert_eq!(ScrubPlace::parse(&next.to_text()), Some(next));
            place = next;
        }
        assert_eq!(bytes, store.scrub_bytes(), "everything is read once");
        assert!(steps > 5);
        damaged
    };
    assert_eq!(scrub(&leech), 0);
    assert_eq!(leech.incomplete_by_loss().unwrap(), []);
    // In the middle of two entries, and the last byte of the first segment.
    let paths = segments(&folder);
    let last = std::fs::metadata(&paths[0]).unwrap().len() - 1;
    flip(&paths[0], 1 << 20);
    flip(&paths[0], last);
    flip(&paths[1], 2 << 20);
    assert_eq!(scrub(&leech), 3);
    assert_eq!(scrub(&leech), 0, "what was dropped is not found again");
    let lost = leech.incomplete_by_loss().unwrap();
    assert!(!lost.is_empty());
    let moved: u64 = lost.iter().map(|image| fetch(&seed, &leech, image)).sum();
    assert_eq!(moved, 3);
    assert_eq!(leech.incomplete_by_loss().unwrap(), []);
    images.iter().for_each(|image| assert_eq!(export(&leech, image).unwrap(), export(&seed, image).unwrap()));
    // A stretch of zeros as long as several steps.
    let file = OpenOptions::new().write(true).open(&paths[0]).unwrap();
    file.write_all_at(&vec![0; 3 << 20], 100_000).unwrap();
    assert!(scrub(&leech) > 10);
    assert_eq!(scrub(&leech), 0);
    for image in &images {
        fetch(&seed, &leech, image);
    }
    images.iter().for_each(|image| assert_eq!(export(&leech, image).unwrap(), export(&seed, image).unwrap()));
}

#[test]
fn pins_hold_and_collection_frees_what_no_image_needs() {
    let (folder, store) = store();
    let (shared, only_a, only_b) = (noise(1, 3 << 20), noise(2, 3 << 20), noise(3, 3 << 20));
    let hole = vec![0; 1 << 20];
    let a = add(&store, &[&shared[..], &hole, &only_a].concat()).image;
    let b = add(&store, &[&shared[..], &hole, &only_b].concat()).image;
    store.pin(&a).unwrap();
    assert!(matches!(store.remove(&a), Err(StoreError::Pinned(_))));
    let store = reopen(&folder, store);
    assert!(store.image(&a).unwrap().is_pinned);
    assert_eq!(store.gc(&BTreeSet::new()).unwrap().removed, 0);

    store.remove(&b).unwrap();
    assert!(matches!(store.remove(&b), Err(StoreError::NoSuchImage(_))));
    assert_eq!(store.gc(&BTreeSet::from([b])).unwrap().removed, 0, "kept on request");
    assert!(store.is_complete(&b).unwrap());
    let collected = store.gc(&BTreeSet::new()).unwrap();
    assert!(collected.freed_bytes > 3_000_000, "{collected:?}");
    assert!(store.stored_bytes() < 7 << 20);
    assert_eq!(export(&store, &a).unwrap(), [&shared[..], &hole, &only_a].concat());
    assert!(!store.is_complete(&b).unwrap());

    let store = reopen(&folder, store);
    assert_eq!(export(&store, &a).unwrap(), [&shared[..], &hole, &only_a].concat());
    store.unpin(&a).unwrap();
    store.remove(&a).unwrap();
    store.gc(&BTreeSet::new()).unwrap();
    assert!(store.stored_bytes() < 2000, "{}", store.stored_bytes());
}

#[test]
fn damage_is_found_dropped_and_can_be_fetched_again() {
    let ((_a, seed), (folder, leech)) = (store(), store());
    let content = noise(1, 3 << 20);
    let image = add(&seed, &content).image;
    fetch(&seed, &leech, &image);
    flip(&segments(&folder)[0], 2 << 20);
    let well = Verification { chunks: 0, bytes: 0, damaged: vec![], missing: 0 };
    let found = leech.verify(&image, &mut |_, _| (), &|| false).unwrap();
    assert_eq!((found.damaged.len(), found.missing), (1, 0), "{found:?}");
    assert_eq!(leech.verify(&image, &mut |_, _| (), &|| false).unwrap().missing, 1);
    assert!(!leech.is_complete(&image).unwrap());
    assert!(matches!(export(&leech, &image), Err(StoreError::MissingChunks { missing: 1, .. })));
    assert_eq!(fetch(&seed, &leech, &image), 1);
    let found = leech.verify(&image, &mut |_, _| (), &|| false).unwrap();
    assert_eq!(Verification { chunks: 0, bytes: 0, ..found }, well);
    assert_eq!((found.chunks, found.bytes), (leech.manifest(&image).unwrap().chunks.len() as u64, 3 << 20));
    let leech = reopen(&folder, leech);
    assert_eq!(export(&leech, &image).unwrap(), content);
}

#[test]
fn a_segment_with_damage_in_it_loses_no_more_than_that_in_a_collection() {
    let (folder, store) = store();
    let kept = noise(1, 2 << 20);
    let (a, b) = (add(&store, &kept).image, add(&store, &noise(2, 1 << 20)).image);
    flip(&segments(&folder)[0], 1 << 20);
    store.remove(&b).unwrap();
    store.gc(&BTreeSet::new()).unwrap();
    let found = store.verify(&a, &mut |_, _| (), &|| false).unwrap();
    assert_eq!((found.damaged.len(), found.missing), (1, 0));
    store.gc(&BTreeSet::new()).unwrap();
    assert_eq!(store.missing_chunks(&a).unwrap().len(), 1);
}

#[test]
fn the_index_is_rebuilt_when_it_is_missing_garbage_or_not_ours() {
    let (folder, store) = store();
    let contents: Vec<_> = (0..4).map(|seed| noise(seed, 3 << 20)).collect();
    let images: Vec<_> = contents.iter().map(|content| add(&store, content).image).collect();
    let index = folder.path().join("index");
    let mut store = store;
    for damage in 0..5 {
        drop(store);
        match damage {
            0 => std::fs::remove_dir_all(&index).unwrap(),
            1 => std::fs::write(index.join("recent/db"), noise(9, 100_000)).unwrap(),
            2 => std::fs::write(index.join("recent/conf"), b"garbage").unwrap(),
            3 => OpenOptions::new().write(true).open(index.join("recent/db")).unwrap().set_len(1000).unwrap(),
            _ => {
                let (other, other_store) = self::store();
                add(&other_store, &noise(99, 3 << 20));
                drop(other_store);
                std::fs::remove_dir_all(&index).unwrap();
                std::fs::rename(other.path().join("index"), &index).unwrap();
            }
        }
        store = Store::open(folder.path(), OPTIONS).unwrap();
        for (image, content) in images.iter().zip(&contents) {
            assert_eq!(&export(&store, image).unwrap(), content, "damage {damage}");
        }
    }
}

/// Cuts and flips in what was written after the last commit, with and without the index: what was committed stays.
#[test]
fn a_torn_tail_costs_only_what_was_not_committed() {
    let (folder, store) = store();
    let content = noise(1, 1 << 20);
    let image = add(&store, &content).image;
    let path = segments(&folder)[0].clone();
    let committed = std::fs::metadata(&path).unwrap().len();
    let late: Vec<_> = (10..20).map(|seed| noise(seed, 20_000)).collect();
    for chunk in &late {
        store.put_encoded(Hash::of(chunk), 20_000, Encoding::Raw, chunk).unwrap();
    }
    store.commit().unwrap();
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    // As if the process had been killed after the bytes were written and before they were indexed.
    for has_index in [true, false] {
        for at in (committed..whole.len() as u64).step_by(12_347) {
            for is_cut in [true, false] {
                std::fs::write(&path, &whole).unwrap();
                if is_cut {
                    OpenOptions::new().write(true).open(&path).unwrap().set_len(at).unwrap();
                } else {
                    flip(&path, at);
                }
                if !has_index {
                    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
                }
                let store = Store::open(folder.path(), OPTIONS).unwrap();
                assert_eq!(export(&store, &image).unwrap(), content);
                let held = late.iter().filter(|chunk| store.read_chunk(&Hash::of(chunk)).is_ok()).count() as u64;
                let expected = if is_cut { (at - committed) / 20_056 } else { 9 };
                assert_eq!(held, expected, "cut {is_cut} at {at}, index {has_index}");
                // It goes on.
                store.put_encoded(Hash::of(&late[9]), 20_000, Encoding::Raw, &late[9]).unwrap();
                assert_eq!(store.read_chunk(&Hash::of(&late[9])).unwrap(), late[9]);
            }
        }
    }
}

#[test]
fn a_segment_that_was_only_begun_does_not_hinder() {
    let (folder, store) = store();
    let image = store.add_bytes(b"content").unwrap().image;
    drop(store);
    std::fs::write(folder.path().join("segments/00000002.segment"), b"rialto seg").unwrap();
    std::fs::write(folder.path().join("segments/notes.txt"), b"not ours").unwrap();
    let store = Store::open(folder.path(), OPTIONS).unwrap();
    assert_eq!(export(&store, &image).unwrap(), b"content");
    add(&store, &noise(1, 9 << 20));
    assert_eq!(export(&store, &image).unwrap(), b"content");
}

#[test]
fn a_later_format_is_refused_and_left_alone() {
    let (folder, store) = store();
    store.add_bytes(b"content").unwrap();
    drop(store);
    let path = segments(&folder)[0].clone();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"3", 15).unwrap();
    assert!(matches!(Store::open(folder.path(), OPTIONS), Err(StoreError::Newer(_))));
    file.write_all_at(b"2", 15).unwrap();
    Store::open(folder.path(), OPTIONS).unwrap();
}

#[test]
fn one_process_at_a_time() {
    let (folder, store) = store();
    assert!(matches!(Store::open(folder.path(), OPTIONS), Err(StoreError::InUse(_))));
    let _again = reopen(&folder, store);
}

#[test]
fn a_collection_beside_a_fetch_and_an_addition_loses_nothing() {
    let ((_a, seed), (_b, leech)) = (store(), store());
    let contents: Vec<_> = (0..6).map(|seed| noise(seed % 4, 2 << 20)).map(|content| content.repeat(2)).collect();
    let images: Vec<_> = contents.iter().map(|content| add(&seed, content).image).collect();
    let (running, is_over) = std::sync::mpsc::sync_channel::<()>(0);
    std::thread::scope(|scope| {
        // Dropped at the end, and by a panic.
        let running = running;
        let leech = &leech;
        let collector = scope.spawn(move || {
            while is_over.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                leech.gc(&BTreeSet::new()).unwrap();
            }
        });
        let adder = scope.spawn(|| {
            for seed in 50..56 {
                let content = noise(seed, 1 << 20);
                let image = add(leech, &content).image;
                assert_eq!(export(leech, &image).unwrap(), content);
                leech.remove(&image).unwrap();
            }
        });
        for (image, content) in images.iter().zip(&contents) {
            // Garbage of the same content, which must not be taken for what the fetch needs.
            let own = add(leech, content).image;
            leech.remove(&own).unwrap();
            fetch(&seed, leech, image);
            assert_eq!(&export(leech, image).unwrap(), content);
        }
        adder.join().unwrap();
        drop(running);
        collector.join().unwrap();
    });
    for (image, content) in images.iter().zip(&contents) {
        assert_eq!(&export(&leech, image).unwrap(), content);
    }
}

mod damage;
mod dependent;
mod model;
mod reflink;
mod sealed;
