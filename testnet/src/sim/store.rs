//! A simulated site's store: chunks and pages in memory, each checked before it is kept.

use std::collections::{BTreeMap, BTreeSet};

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::image::manifest::{ChunkRef, Expectation, Manifest};

use super::SimError;
use super::content::{Bytes, Content, survey};

/// The chunks and pages that a site holds.
#[derive(Debug, Default)]
pub(super) struct Store {
    chunks: BTreeMap<Hash, Bytes>,
    pages: BTreeMap<Hash, Bytes>,
}

impl Store {
    /// Puts an image in, as its publisher has it.
    pub(super) fn add(&mut self, content: &Content) {
        self.pages.extend(content.pages.iter().map(|(hash, page)| (*hash, page.clone())));
        self.chunks.extend(content.chunks.iter().map(|(hash, chunk)| (*hash, chunk.clone())));
    }

    /// Puts some chunks of an image in, as a site that has an earlier version of it does.
    pub(super) fn add_some(&mut self, content: &Content, mut is_in: impl FnMut() -> bool) {
        self.chunks.extend(content.chunks.iter().filter(|_| is_in()).map(|(hash, chunk)| (*hash, chunk.clone())));
    }

    /// Keeps a chunk that came from a peer, if it is what it should be; `false` where it is not.
    pub(super) fn put_chunk(&mut self, chunk: &ChunkRef, encoding: Encoding, bytes: &[u8]) -> bool {
        // What honest holders send here is raw; a compressed frame that nobody made would not decompress either.
        let is_right =
            encoding == Encoding::Raw && bytes.len() == chunk.length as usize && Hash::of(bytes) == chunk.hash;
        if is_right {
            self.chunks.entry(chunk.hash).or_insert_with(|| bytes.into());
        }
        is_right
    }

    /// Keeps a page that was asked for by this hash.
    pub(super) fn put_page(&mut self, hash: Hash, page: &[u8]) {
        self.pages.entry(hash).or_insert_with(|| page.into());
    }

    pub(super) fn chunk(&self, hash: &Hash) -> Option<&Bytes> {
        self.chunks.get(hash)
    }

    pub(super) fn page(&self, hash: &Hash) -> Option<&Bytes> {
        self.pages.get(hash)
    }

    pub(super) fn chunks(&self) -> impl Iterator<Item = (&Hash, &Bytes)> {
        self.chunks.iter()
    }

    /// The manifest of an image, where all its pages are here.
    pub(super) fn manifest(&self, image: &ImageId) -> Result<Option<Manifest>, SimError> {
        Ok(survey(image, &self.pages)?.into_manifest(*image))
    }

    /// The pages of an image that are lacking, as far as those that are here name them.
    pub(super) fn missing_pages(&self, image: &ImageId) -> Result<BTreeSet<Hash>, SimError> {
        Ok(survey(image, &self.pages)?.missing.iter().map(Expectation::hash).collect())
    }

    /// Indices of the chunks that are lacking, ascending.
    pub(super) fn missing<'a>(&'a self, manifest: &'a Manifest) -> impl Iterator<Item = u32> + 'a {
        let lacking = |(chunk, index): (&ChunkRef, u32)| (!self.chunks.contains_key(&chunk.hash)).then_some(index);
        manifest.chunks.iter().zip(0..).filter_map(lacking)
    }

    /// Whether no page and no chunk of an image is lacking.
    pub(super) fn is_complete(&self, manifest: &Manifest) -> bool {
        manifest.pages.iter().all(|page| self.pages.contains_key(page)) && self.missing(manifest).next().is_none()
    }

    /// Uses the shared copy of a chunk instead of its own; `false` where they differ.
    pub(super) fn share(&mut self, hash: &Hash, shared: &Bytes) -> bool {
        let Some(own) = self.chunks.get_mut(hash) else { return false };
        let is_same = own == shared;
        if is_same {
            *own = shared.clone();
        }
        is_same
    }
}
