//! Images that are held and that a new one is like: where to look for what its chunks can be stored against.

use std::sync::{Arc, OnceLock};

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::manifest::{ChunkRef, Manifest};
use rialto_protocol::image::similarity::Features;
use rialto_protocol::swarm::{Base, Finder, Reference};

use super::packed::{self, Packed, pays, pays_unseen};
use super::referenced::{Hold, RecentChunks};
use super::{Store, StoreError, coding};

/// Images that are looked at: learning one takes a tenth of a second for each GiB of data.
const MAX_RELATIVES: usize = 4;
/// Images of which it is looked how long they are: their manifests are read for that.
const MAX_CANDIDATES: usize = 64;
/// Chunks of all of them together, of about 100 bytes of memory each.
const MAX_CHUNKS: usize = 1 << 19;
/// One that is so many times as long as the new one, or as short, is none.
const MAX_RATIO: u64 = 4;

/// An image that is held whole, and in which similar chunks can be found.
#[derive(Debug, Clone)]
pub struct KnownBase {
    /// Its chunks.
    pub manifest: Arc<Manifest>,
    /// Where they lie.
    pub base: Arc<Base>,
}

impl AsRef<Base> for KnownBase {
    fn as_ref(&self) -> &Base {
        &self.base
    }
}

impl Store {
    /// Learns an image that is held, by the features of its chunks: about 100 bytes of memory for each. `None` where it
    /// is not held whole, or has more chunks than `max_chunks`.
    ///
    /// # Errors
    /// A failing disk or index.
    pub fn known_base(&self, image: &ImageId, max_chunks: usize) -> Result<Option<KnownBase>, StoreError> {
        if !self.is_complete(image)? {
            return Ok(None);
        }
        let manifest = self.manifest(image)?;
        if manifest.chunks.len() > max_chunks {
            return Ok(None);
        }
        let features: Result<Vec<_>, StoreError> =
            manifest.chunks.iter().map(|chunk| Ok((*chunk, self.features(&chunk.hash)?))).collect();
        Ok(Some(KnownBase { base: Arc::new(Base::new(features?)), manifest }))
    }
}

/// The relatives of an image that is being added. They are not collected while this lives.
#[derive(Debug)]
pub(super) struct Relatives {
    store: Store,
    images: Vec<ImageId>,
    /// Learnt when the first new chunk comes.
    known: OnceLock<Vec<KnownBase>>,
    runs: RecentChunks,
    _hold: Hold,
}

impl Relatives {
    /// Those of content of so many bytes: `preferred` first, then the newest that is about as long.
    pub(super) fn choose(store: &Store, preferred: &[ImageId], bytes: u64) -> Result<Self, StoreError> {
        let mut looked_at = 0;
        let is_about_as_long = |image: &ImageId, _| {
            looked_at += 1;
            let manifest = if looked_at > MAX_CANDIDATES { None } else { store.manifest(image).ok() };
            manifest.is_some_and(|manifest| {
                let other = manifest.bytes;
                other > 0 && other / MAX_RATIO <= bytes && bytes / MAX_RATIO <= other
            })
        };
        let images = store.bases(preferred, MAX_RELATIVES, is_about_as_long)?;
        // Held before they are looked at, so that nothing is collected between the two.
        let hold = store.hold(images.clone());
        let runs = RecentChunks::new(store.clone());
        Ok(Self { store: store.clone(), images, known: OnceLock::new(), runs, _hold: hold })
    }

    /// Whether there are any.
    pub(super) fn are_none(&self) -> bool {
        self.images.is_empty()
    }

    /// What looks for the chunks of one stretch of the content, in order.
    pub(super) fn search(&self) -> Search<'_> {
        Search { relatives: self, finder: None, chunks: Vec::new() }
    }

    /// One that cannot be read is as good as none.
    fn known(&self) -> &[KnownBase] {
        self.known.get_or_init(|| {
            let (mut known, mut left) = (Vec::new(), MAX_CHUNKS);
            for image in &self.images {
                match self.store.known_base(image, left) {
                    Ok(Some(base)) => {
                        left -= base.manifest.chunks.len();
                        known.push(base);
                    }
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%image, %error, "nothing is stored against it"),
                }
            }
            known
        })
    }
}

/// Looks for what the chunks of one stretch can be stored against.
pub(super) struct Search<'a> {
    relatives: &'a Relatives,
    finder: Option<Finder<KnownBase>>,
    /// The chunks so far.
    chunks: Vec<ChunkRef>,
}

impl Search<'_> {
    /// The next chunk of the stretch, which is held.
    pub(super) fn pass(&mut self, hash: Hash, plain: &[u8]) {
        self.chunks.push(ChunkRef { hash, offset: 0, length: plain.len() as u32 });
    }

    /// The next chunk of the stretch, which is new: as it should be stored. What it takes is at the front of `buffer`, which
    /// is as long as the chunk.
    pub(super) fn pack(&mut self, hash: Hash, plain: &[u8], buffer: &mut [u8]) -> Shape {
        if self.relatives.are_none() {
            let alone = coding::compress_to(plain, buffer);
            return alone.map_or(Shape::Raw, |length| Shape::Zstd(length, Features::of(plain)));
        }
        self.pass(hash, plain);
        let features = Features::of(plain);
        let dependent = self.payload(&hash, plain, &features);
        if let Some(payload) = dependent.as_ref().filter(|payload| pays_unseen(payload.len(), plain.len())) {
            buffer[..payload.len()].copy_from_slice(payload);
            return Shape::Dependent(payload.len(), features);
        }
        let alone = coding::compress_to(plain, buffer);
        match dependent {
            Some(payload) if pays(payload.len(), alone.unwrap_or(plain.len())) => {
                buffer[..payload.len()].copy_from_slice(&payload);
                Shape::Dependent(payload.len(), features)
            }
            _ => alone.map_or(Shape::Raw, |length| Shape::Zstd(length, features)),
        }
    }

    fn payload(&mut self, hash: &Hash, plain: &[u8], features: &Features) -> Option<Vec<u8>> {
        let relatives = self.relatives;
        let finder = self.finder.get_or_insert_with(|| Finder::new((0..).zip(relatives.known().iter().cloned())));
        let index = (self.chunks.len() - 1) as u32;
        let reference = finder.find(&self.chunks, index, features)?;
        let Reference { base, .. } = reference;
        let run = reference.run(&finder.base(base)?.manifest.chunks).ok()?;
        let names: Vec<Hash> = run.iter().map(|chunk| chunk.hash).collect();
        let limit = packed::limit(plain.len());
        relatives.store.pack_against(&relatives.runs, plain, &names, limit).unwrap_or_else(|error| {
            tracing::warn!(chunk = %hash, %error, "a chunk is stored by itself, because what it is like cannot be read");
            None
        })
    }
}

/// How a chunk is to be stored, in so many bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    Raw,
    Zstd(usize, Features),
    Dependent(usize, Features),
}

impl Shape {
    /// Bytes of the buffer that it takes.
    pub(super) fn length(&self) -> usize {
        match *self {
            Self::Raw => 0,
            Self::Zstd(length, _) | Self::Dependent(length, _) => length,
        }
    }

    /// With the bytes.
    pub(super) fn packed<'a>(&self, buffer: &'a [u8]) -> Packed<'a> {
        match *self {
            Self::Raw => Packed::Raw,
            Self::Zstd(length, features) => Packed::Zstd(&buffer[..length], features),
            Self::Dependent(length, features) => Packed::Dependent(&buffer[..length], features),
        }
    }
}
