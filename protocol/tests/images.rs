//! The golden cut points and image ids: if one of these moves, every image has another name.
//!
//! They are made by `RIALTO_BLESS=1 cargo test -p rialto-protocol --test images`, which rewrites `tests/golden/`. A
//! change of them is a change of the format, and needs a chunker with another name.

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::chunker::{Piece, cut_whole};
use rialto_protocol::image::manifest::{Entry, ManifestBuilder};

/// Bytes that anyone can make again: the BLAKE3 output stream of the name.
fn content(name: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn image(content: &[u8]) -> (ImageId, u64, u8) {
    let mut builder = ManifestBuilder::new();
    cut_whole(content, |piece| {
        let entry = match piece {
            Piece::Data { bytes, .. } => Entry::Chunk { hash: Hash::of(bytes), length: bytes.len() as u32 },
            Piece::Hole { length, .. } => Entry::Hole { length },
        };
        builder.push(entry).unwrap();
    });
    let (id, root, _) = builder.finish().unwrap();
    (id, root.chunks, root.depth)
}

#[allow(clippy::disallowed_methods, reason = "the command that makes golden files writes them")]
fn check(name: &str, found: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("RIALTO_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&path).unwrap(), "{name} has moved");
}

#[test]
fn golden_cut_points() {
    let mut found = String::new();
    let mixed = [content("head", 300_001), vec![0; 500_000], content("tail", 700_000), vec![7; 300_000]].concat();
    for (name, content) in [("random", content("rialto-cdc-1", 1 << 20)), ("mixed", mixed)] {
        cut_whole(&content, |piece| {
            found += &match piece {
                Piece::Data { offset, bytes } => format!("{name} data {offset} {}\n", bytes.len()),
                Piece::Hole { offset, length } => format!("{name} hole {offset} {length}\n"),
            }
        });
    }
    check("cut-points.txt", &found);
}

#[test]
fn golden_image_ids() {
    let mut found = String::new();
    for (name, content) in [
        ("empty", Vec::new()),
        ("one byte", vec![1]),
        ("1 MiB hole", vec![0; 1 << 20]),
        ("1 MiB", content("1 MiB", 1 << 20)),
        ("1 MiB after 1 MiB of hole", [vec![0; 1 << 20], content("1 MiB", 1 << 20)].concat()),
        ("two levels", content("two levels", 64 << 20)),
    ] {
        let (id, chunks, depth) = image(&content);
        found += &format!("{name}: {id} chunks {chunks} depth {depth}\n");
    }
    check("image-ids.txt", &found);
}
