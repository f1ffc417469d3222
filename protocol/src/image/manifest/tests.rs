use std::collections::BTreeMap;

use proptest::prelude::*;

use super::page::{Item, WirePage, WireRoot};
use super::*;
use crate::bounded::List;
use crate::codec;
use crate::image::chunker::{BLOCK_BYTES, CHUNKER, MAX_CHUNK_BYTES};

type Pages = BTreeMap<Hash, Vec<u8>>;

fn build(entries: &[Entry]) -> (ImageId, Root, Pages) {
    let mut builder = ManifestBuilder::new();
    let mut pages = Vec::new();
    for &entry in entries {
        builder.push(entry).unwrap();
        pages.extend(builder.take_pages());
    }
    let (id, root, rest) = builder.finish().unwrap();
    pages.extend(rest);
    (id, root, pages.into_iter().map(|page| (page.hash, page.bytes)).collect())
}

fn read(id: &ImageId, pages: &Pages) -> Result<Survey, ManifestError> {
    survey(id, |hash| Ok(pages.get(hash).cloned()))
}

fn chunk(number: u64, length: u32) -> Entry {
    Entry::Chunk { hash: Hash::of(&number.to_le_bytes()), length }
}

fn many(count: u64) -> Vec<Entry> {
    (0..count).map(|number| chunk(number, 8192 + 4 * (number % 30_000) as u32)).collect()
}

/// A root with whatever it is told to say.
fn root_page(bytes: u64, chunks: u64, depth: u64, items: Vec<Item>) -> (ImageId, Vec<u8>) {
    let entries = List::try_from(items).unwrap();
    let page = codec::encode(&WireRoot { bytes, chunker: CHUNKER.into(), chunks, depth, entries }).unwrap();
    (ImageId::of(&page), page)
}

fn refusal(bytes: u64, chunks: u64, depth: u64, items: Vec<Item>) -> ManifestError {
    let (id, page) = root_page(bytes, chunks, depth, items);
    Page::decode(&page, &Expectation::root(&id)).unwrap_err()
}

fn leaf_refusal(entries: &[Entry]) -> ManifestError {
    let bytes = entries.iter().map(Entry::bytes).fold(0, u64::saturating_add);
    let chunks = entries.iter().map(Entry::chunks).sum();
    let mut builder = ManifestBuilder::new();
    assert!(entries.iter().try_for_each(|&entry| builder.push(entry)).is_err(), "the builder took {entries:?}");
    refusal(bytes, chunks, 1, entries.iter().copied().map(Item::Entry).collect())
}

#[test]
fn a_chunk_takes_48_bytes() {
    assert_eq!(size_of::<ChunkRef>(), 48);
}

#[test]
fn depth_follows_from_the_number_of_entries() {
    for (count, depth, page_count) in [(0, 1, 1), (1, 1, 1), (1024, 1, 1), (1025, 2, 3), (2048, 2, 3), (2049, 2, 4)] {
        let (id, root, pages) = build(&many(count));
        assert_eq!((root.depth, root.chunks, pages.len()), (depth, count, page_count));
        let manifest = read(&id, &pages).unwrap().into_manifest(id).unwrap();
        assert_eq!(manifest.chunks.len() as u64, count);
        assert_eq!(manifest.bytes, manifest.data_bytes);
        assert!(pages.values().all(|page| page.len() <= MAX_PAGE_BYTES));
    }
}

#[test]
fn three_levels() {
    let (id, root, pages) = build(&many(1024 * 1024 + 1));
    assert_eq!((root.depth, pages.len()), (3, 1024 + 1 + 2 + 1));
    let manifest = read(&id, &pages).unwrap().into_manifest(id).unwrap();
    assert_eq!(manifest.chunks.len(), 1024 * 1024 + 1);
}

#[test]
fn a_full_page_of_the_largest_entries_fits() {
    let page = PageRef { hash: Hash([255; 32]), bytes: u64::MAX, chunks: u64::MAX };
    let entries = List::try_from(vec![Item::Page(page); MAX_PAGE_ENTRIES]).unwrap();
    assert!(codec::encode(&WirePage { entries, level: 3 }).unwrap().len() <= MAX_PAGE_BYTES - 1024);
}

#[test]
fn missing_pages_are_named_level_by_level() {
    let (id, _, all) = build(&many(3000));
    let mut have = Pages::new();
    let mut rounds = 0;
    let survey = loop {
        let survey = read(&id, &have).unwrap();
        if survey.missing.is_empty() {
            break survey;
        }
        rounds += 1;
        have.extend(survey.missing.iter().map(|page| (page.hash(), all[&page.hash()].clone())));
    };
    assert_eq!((rounds, have.len()), (2, all.len()));
    assert!(survey.into_manifest(id).is_some());
}

#[test]
fn lies_about_counts_are_refused() {
    let entry = Item::Entry(chunk(1, 100));
    assert!(Page::decode(&root_page(100, 1, 1, vec![entry]).1, &Expectation::root(&ImageId::of(b"x"))).is_err());
    assert!(matches!(refusal(101, 1, 1, vec![entry]), ManifestError::Promise { what: "bytes", .. }));
    assert!(matches!(refusal(100, 2, 1, vec![entry]), ManifestError::Promise { what: "chunks", .. }));
    assert!(matches!(refusal(100, 1, 0, vec![entry]), ManifestError::OutOfRange { what: "a depth of", .. }));
    assert!(matches!(refusal(100, 1, 5, vec![entry]), ManifestError::OutOfRange { what: "a depth of", .. }));
    assert!(matches!(refusal(100, MAX_CHUNKS + 1, 1, vec![entry]), ManifestError::OutOfRange { .. }));
    assert!(matches!(refusal(MAX_IMAGE_BYTES + 1, 1, 1, vec![entry]), ManifestError::OutOfRange { .. }));
    assert!(matches!(refusal(100, 1, 2, vec![entry, entry]), ManifestError::NotCanonical(_)));
    assert!(matches!(refusal(100, 1, 1, vec![]), ManifestError::NotCanonical(_)));
}

#[test]
fn entries_that_no_chunker_makes_are_refused() {
    let hole = |length| Entry::Hole { length };
    for entries in [
        vec![chunk(1, 0)],
        vec![chunk(1, MAX_CHUNK_BYTES as u32 + 1)],
        vec![hole(0)],
        vec![hole(4096)],
        vec![hole(65536 + 1)],
        vec![hole(u64::MAX)],
        vec![hole(65536), hole(65536)],
        vec![chunk(1, 100), hole(65536)],
        vec![chunk(1, 8191), chunk(2, 8192)],
    ] {
        leaf_refusal(&entries);
    }
}

/// A page that lists itself many times over cannot stand for more than the root says, and the root is bounded.
#[test]
fn a_bomb_of_repeated_pages_is_refused() {
    let mut page = PageRef { hash: Hash::of(b"absent"), bytes: 65536, chunks: 0 };
    let mut pages = Pages::new();
    for level in 1..4 {
        let entries = List::try_from(vec![Item::Page(page); MAX_PAGE_ENTRIES]).unwrap();
        let bytes = codec::encode(&WirePage { entries, level }).unwrap();
        page = PageRef { hash: Hash::of(&bytes), bytes: page.bytes * 1024, chunks: page.chunks * 1024 };
        pages.insert(page.hash, bytes);
    }
    let (id, root) = root_page(page.bytes * 2, page.chunks * 2, 4, vec![Item::Page(page); 2]);
    pages.insert(id.hash(), root);
    assert!(matches!(read(&id, &pages), Err(ManifestError::OutOfRange { .. })));
}

#[test]
fn holes_beside_each_other_in_two_pages_are_refused() {
    let mut first: Vec<_> = (0..1023).map(|number| chunk(number, 8192)).collect();
    first.push(Entry::Hole { length: 65536 });
    let second = vec![Entry::Hole { length: 65536 }];
    let mut pages = Pages::new();
    let items = [first, second].map(|entries| {
        let (bytes, chunks) =
            (entries.iter().map(Entry::bytes).sum::<u64>(), entries.iter().map(Entry::chunks).sum::<u64>());
        let entries = List::try_from(entries.into_iter().map(Item::Entry).collect::<Vec<_>>()).unwrap();
        let page = codec::encode(&WirePage { entries, level: 0 }).unwrap();
        let hash = Hash::of(&page);
        pages.insert(hash, page);
        (Item::Page(PageRef { hash, bytes, chunks }), bytes)
    });
    let (id, root) = root_page(items[0].1 + items[1].1, 1023, 2, items.iter().map(|item| item.0).collect());
    pages.insert(id.hash(), root);
    assert_eq!(read(&id, &pages), Err(ManifestError::NotCanonical("two holes beside each other")));
}

#[test]
fn another_chunker_is_named_in_the_refusal() {
    let entries = List::try_from(Vec::new()).unwrap();
    let page =
        codec::encode(&WireRoot { bytes: 0, chunker: "rialto-cdc-2".into(), chunks: 0, depth: 1, entries }).unwrap();
    let found = Page::decode(&page, &Expectation::root(&ImageId::of(&page)));
    assert_eq!(found, Err(ManifestError::Chunker("rialto-cdc-2".into())));
}

/// Entries as a chunker could have made them.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let one = prop_oneof![
        8 => (any::<u64>(), 2u32..=32).prop_map(|(number, blocks)| chunk(number, blocks * BLOCK_BYTES as u32)),
        1 => (16u64..1_000_000).prop_map(|blocks| Entry::Hole { length: blocks * BLOCK_BYTES as u64 }),
    ];
    (prop::collection::vec(one, 0..2600), 1u32..=131_072).prop_map(|(mut entries, tail)| {
        entries.dedup_by(|a, b| matches!((a, b), (Entry::Hole { .. }, Entry::Hole { .. })));
        entries.push(chunk(u64::MAX, tail));
        entries
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_built_is_read_back(entries in entries()) {
        let (id, root, pages) = build(&entries);
        let manifest = read(&id, &pages).unwrap().into_manifest(id).unwrap();
        prop_assert_eq!(manifest.bytes, entries.iter().map(Entry::bytes).sum::<u64>());
        prop_assert_eq!((root.bytes, root.chunks), (manifest.bytes, manifest.chunks.len() as u64));
        let mut offset = 0;
        let mut chunks = manifest.chunks.iter();
        for entry in &entries {
            if let Entry::Chunk { hash, length } = *entry {
                prop_assert_eq!(chunks.next(), Some(&ChunkRef { hash, offset, length }));
            }
            offset += entry.bytes();
        }
    }

    /// Whoever changes anything, the pages above it do not vouch for it any more.
    #[test]
    fn a_changed_byte_is_noticed(entries in entries(), page in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (id, _, mut pages) = build(&entries);
        let hash = *page.get(&pages.keys().copied().collect::<Vec<_>>());
        let bytes = pages.get_mut(&hash).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(read(&id, &pages).is_err());
    }

    /// The hash is made to fit, so that only the form protects.
    #[test]
    fn changed_pages_with_a_fitting_hash_never_panic(entries in entries(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let (id, _, pages) = build(&entries);
        let mut root = pages[&id.hash()].clone();
        for (at, byte) in changes {
            let at = at.index(root.len());
            root[at] = byte;
        }
        let id = ImageId::of(&root);
        if let Ok(page) = Page::decode(&root, &Expectation::root(&id)) {
            for child in page.children() {
                if let Some(bytes) = pages.get(&child.hash()) {
                    let _ = Page::decode(bytes, &child);
                }
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Page::decode(&bytes, &Expectation::root(&ImageId::of(&bytes)));
    }
}
