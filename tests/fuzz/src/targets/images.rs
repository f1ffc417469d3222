//! Manifest pages: alone as a root, and as the last page below one.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rialto_protocol::codec::{self, Value};
use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::chunker::CHUNKER;
use rialto_protocol::image::manifest::{
    Entry, MAX_CHUNKS, MAX_IMAGE_BYTES, MAX_PAGE_ENTRIES, Manifest, ManifestBuilder, ManifestError, NewPage, survey,
};

/// A full page of an honest image, and the chunks that it has.
static FULL: LazyLock<(NewPage, i128, i128)> = LazyLock::new(|| {
    let mut builder = ManifestBuilder::new();
    let length = 32 * 1024;
    for n in 0..=MAX_PAGE_ENTRIES {
        builder.push(Entry::Chunk { hash: Hash::of(&n.to_be_bytes()), length }).expect("a chunk");
    }
    // Finished because another entry followed it.
    let page = builder.take_pages().remove(0);
    (page, MAX_PAGE_ENTRIES as i128 * i128::from(length), MAX_PAGE_ENTRIES as i128)
});

/// A content has one manifest: what is read as one is what a builder makes of the same entries.
pub fn manifest_page(bytes: &[u8]) {
    let id = ImageId::of(bytes);
    if let Some(manifest) = read(&id, [(id.hash(), bytes.to_vec())]) {
        is_the_one_manifest(&manifest);
    }
    let Some((length, chunks)) = sums(bytes) else { return };
    let (full, full_bytes, full_chunks) = &*FULL;
    let last = Hash::of(bytes);
    let entry = |hash: Hash, bytes: i128, chunks: i128| {
        Value::Array(vec![Value::Bytes(hash.0.to_vec()), Value::Integer(bytes), Value::Integer(chunks)])
    };
    let root = [
        ("bytes", Value::Integer(full_bytes + length)),
        ("chunker", Value::Text(CHUNKER.into())),
        ("chunks", Value::Integer(full_chunks + chunks)),
        ("depth", Value::Integer(2)),
        ("entries", Value::Array(vec![entry(full.hash, *full_bytes, *full_chunks), entry(last, length, chunks)])),
    ];
    let root = Value::Map(root.into_iter().map(|(name, value)| (Value::Text(name.into()), value)).collect());
    let Ok(root) = codec::encode(&root) else { return };
    let id = ImageId::of(&root);
    let pages = [(id.hash(), root), (full.hash, full.bytes.clone()), (last, bytes.to_vec())];
    if let Some(manifest) = read(&id, pages) {
        assert_eq!(manifest.bytes, (full_bytes + length) as u64);
        assert_eq!(manifest.chunks.len() as u64, (full_chunks + chunks) as u64);
        is_the_one_manifest(&manifest);
    }
}

/// The whole manifest, where the pages are all of it and agree.
fn read<const N: usize>(id: &ImageId, pages: [(Hash, Vec<u8>); N]) -> Option<Manifest> {
    let pages = BTreeMap::from(pages);
    let survey = survey(id, |hash| Ok::<_, ManifestError>(pages.get(hash).cloned())).ok()?;
    let root = survey.root.expect("the root was at hand");
    assert!(root.bytes <= MAX_IMAGE_BYTES && root.chunks <= MAX_CHUNKS);
    assert!(survey.missing.len() <= MAX_PAGE_ENTRIES);
    let missing: u64 = survey.missing.iter().filter_map(|page| page.chunks()).sum();
    assert!(survey.chunks.len() as u64 + missing <= root.chunks, "pages hold what the root has promised, and no more");
    survey.into_manifest(*id)
}

/// What a page's entries add up to, whatever else is wrong with it.
fn sums(bytes: &[u8]) -> Option<(i128, i128)> {
    let Ok(Value::Map(page)) = codec::decode_any(bytes, bytes.len()) else { return None };
    let Some(Value::Array(entries)) = page.get(&Value::Text("entries".into())) else { return None };
    entries.iter().try_fold((0i128, 0i128), |(bytes, chunks), entry| match entry {
        Value::Integer(length) => Some((bytes + length, chunks)),
        Value::Array(parts) => match parts.get(1) {
            Some(Value::Integer(length)) => Some((bytes + length, chunks + 1)),
            _ => None,
        },
        _ => None,
    })
}

fn is_the_one_manifest(manifest: &Manifest) {
    let mut builder = ManifestBuilder::new();
    let mut offset = 0;
    let hole = |from: u64, to: u64| (from < to).then(|| Entry::Hole { length: to - from });
    for chunk in &manifest.chunks {
        assert!(chunk.offset >= offset, "chunks overlap");
        let entry = Entry::Chunk { hash: chunk.hash, length: chunk.length };
        for entry in hole(offset, chunk.offset).into_iter().chain([entry]) {
            builder.push(entry).expect("an entry that was read can be written");
        }
        offset = chunk.offset + u64::from(chunk.length);
    }
    if let Some(hole) = hole(offset, manifest.bytes) {
        builder.push(hole).expect("an entry that was read can be written");
    }
    let (id, root, _) = builder.finish().expect("pages that were read can be written");
    assert_eq!((id, root.bytes), (manifest.id, manifest.bytes), "another manifest of the same content");
}
