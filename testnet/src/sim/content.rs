//! The images of a simulation: small, but with real chunks, real pages and real hashes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::chunker::{BLOCK_BYTES, Chunker, MIN_HOLE_BYTES, Piece};
use rialto_protocol::image::manifest::{
    self, Entry, MAX_PAGE_ENTRIES, Manifest, ManifestBuilder, ManifestError, Survey,
};

use super::SimError;

/// Bytes that sites share.
pub(super) type Bytes = Arc<[u8]>;

/// What an image looks like inside.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// Data of about this many bytes, of which a part occurs twice, and one hole.
    Dense(usize),
    /// So many single blocks of data between holes that one page does not list them.
    Sparse,
}

/// An image, whole.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) manifest: Arc<Manifest>,
    pub(super) pages: BTreeMap<Hash, Bytes>,
    pub(super) chunks: BTreeMap<Hash, Bytes>,
}

impl Content {
    /// Draws an image and cuts it as a node would.
    pub(super) fn draw(shape: Shape, random: &mut fastrand::Rng) -> Result<Self, SimError> {
        let broken = |error: ManifestError| SimError::Broken(error.to_string());
        let (mut entries, mut chunks) = (Vec::new(), BTreeMap::<Hash, Bytes>::new());
        let mut sink = |piece: Piece<'_>| {
            entries.push(match piece {
                Piece::Data { bytes, .. } => {
                    let hash = Hash::of(bytes);
                    chunks.entry(hash).or_insert_with(|| bytes.into());
                    Entry::Chunk { hash, length: bytes.len() as u32 }
                }
                Piece::Hole { length, .. } => Entry::Hole { length },
            });
            Ok::<(), Infallible>(())
        };
        let mut chunker = Chunker::new();
        // Nothing in here can fail: the sink cannot.
        let Ok(()) = write(shape, random, &mut chunker, &mut sink);
        let Ok(_) = chunker.finish(&mut sink);
        let mut builder = ManifestBuilder::new();
        for entry in entries {
            builder.push(entry).map_err(broken)?;
        }
        let mut pages = builder.take_pages();
        let (id, _, rest) = builder.finish().map_err(broken)?;
        pages.extend(rest);
        let pages: BTreeMap<Hash, Bytes> = pages.into_iter().map(|page| (page.hash, page.bytes.into())).collect();
        let manifest = survey(&id, &pages)?.into_manifest(id);
        let manifest = manifest.ok_or_else(|| SimError::Broken("a page was not written".to_owned()))?;
        Ok(Self { manifest: Arc::new(manifest), pages, chunks })
    }

    pub(super) fn id(&self) -> ImageId {
        self.manifest.id
    }

    /// Bytes of its distinct chunks: what one copy of it costs to send.
    pub(super) fn copy_bytes(&self) -> u64 {
        self.chunks.values().map(|chunk| chunk.len() as u64).sum()
    }
}

/// What these pages say of an image.
pub(super) fn survey(id: &ImageId, pages: &BTreeMap<Hash, Bytes>) -> Result<Survey, SimError> {
    let survey = manifest::survey::<ManifestError>(id, |hash| Ok(pages.get(hash).map(|page| page.to_vec())));
    survey.map_err(|error| SimError::Broken(error.to_string()))
}

fn write(
    shape: Shape,
    random: &mut fastrand::Rng,
    chunker: &mut Chunker,
    sink: &mut impl FnMut(Piece<'_>) -> Result<(), Infallible>,
) -> Result<(), Infallible> {
    let mut drawn = |bytes: usize| {
        let mut drawn = vec![0; bytes];
        random.fill(&mut drawn);
        drawn
    };
    match shape {
        Shape::Dense(bytes) => {
            let (once, twice) = (drawn(bytes - bytes / 4), drawn(bytes / 4));
            chunker.push(&once, sink)?;
            chunker.push(&twice, sink)?;
            chunker.push_zeros(2 * MIN_HOLE_BYTES, sink)?;
            chunker.push(&twice, sink)
        }
        Shape::Sparse => {
            for _ in 0..=MAX_PAGE_ENTRIES / 2 {
                chunker.push(&drawn(BLOCK_BYTES), sink)?;
                chunker.push_zeros(MIN_HOLE_BYTES, sink)?;
            }
            Ok(())
        }
    }
}
