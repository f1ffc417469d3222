//! Chunks encoded against what the fetcher holds: which bases are known here, and what was encoded before.
//!
//! A base is learned once, by its chunks' features, and kept while it is among those used last. What was encoded is kept
//! too, within bounds: sites that update to one release from the same older one get the same bytes. Encoding costs
//! processor time; a holder that has none left sends chunks as they are stored.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::manifest::Manifest;
use rialto_protocol::swarm::{ChunkHeader, Finder, MAX_BASES, Reference, ReferencedHeader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Offers;
use super::traffic::{self, Traffic};
use crate::recent::Recent;
use crate::store::{Encoded, KnownBase, RecentChunks, Store, StoreError, Stored, encode_against};

/// Bases kept in mind.
const MAX_KNOWN: usize = 8;
/// Chunks of all bases kept in mind: about 100 MB for the largest.
const MAX_KNOWN_CHUNKS: usize = 1 << 20;
/// Bases of one fetcher that are used.
const MAX_USED: usize = 4;
/// Encoded bytes that are kept.
const MAX_KEPT_BYTES: usize = 64 << 20;
/// A chunk that is stored against others probably takes such a part of its length by itself; encoding it so to see would
/// cost more than it can save.
const LIKELY_SHRINKING: usize = 3;
/// A reference has to save so many bytes, or the chunk is sent as it is stored.
const MIN_SAVING_BYTES: usize = 64;

/// What this node knows about bases, for all uploads.
#[derive(Clone)]
pub(super) struct References {
    known: Arc<Mutex<VecDeque<KnownBase>>>,
    kept: Arc<Mutex<Recent<Name>>>,
    encoders: Arc<Semaphore>,
}

/// A chunk, and what it was encoded against: an image and a run of its chunks.
type Name = (Hash, ImageId, u32, u8);

impl References {
    pub(super) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            known: Arc::default(),
            kept: Arc::new(Mutex::new(Recent::new(MAX_KEPT_BYTES))),
            encoders: Arc::new(Semaphore::new(cores)),
        }
    }

    /// Leave to encode one batch, unless every processor is at it.
    pub(super) fn processor(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.encoders).try_acquire_owned().ok()
    }

    /// An encoder of chunks of an image for a fetcher that holds `bases`. Blocks on disk and processor.
    pub(super) fn encoder(&self, store: &Store, bases: &[ImageId], may_be_used: impl Fn(&ImageId) -> bool) -> Encoder {
        let held = (0..).zip(bases.iter().take(MAX_BASES)).filter(|(_, base)| may_be_used(base));
        let known = held.filter_map(|(number, base)| Some((number, self.known(store, base)?))).take(MAX_USED);
        Encoder { references: self.clone(), finder: Finder::new(known), runs: RecentChunks::new(store.clone()) }
    }

    /// A base that this node holds whole. One that it does not hold, or cannot read, is as good as none.
    fn known(&self, store: &Store, image: &ImageId) -> Option<KnownBase> {
        let bases = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = bases().iter().find(|known| known.manifest.id == *image) {
            return Some(known.clone());
        }
        let known = store.known_base(image, MAX_KNOWN_CHUNKS).ok()??;
        let mut bases = bases();
        bases.retain(|other| other.manifest.id != *image);
        bases.push_back(known.clone());
        let mut chunks: usize = bases.iter().map(|known| known.base.chunks()).sum();
        while (bases.len() > MAX_KNOWN || chunks > MAX_KNOWN_CHUNKS)
            && let Some(oldest) = bases.pop_front()
        {
            chunks -= oldest.base.chunks();
        }
        Some(known)
    }

    fn kept(&self, name: &Name) -> Option<Arc<[u8]>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(name)
    }

    fn keep(&self, name: Name, encoded: &Arc<[u8]>) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).keep(name, encoded);
    }
}

/// What it takes to make frames of the chunks of one upload, off the async threads.
pub(super) struct Framing {
    pub(super) store: Store,
    pub(super) references: References,
    pub(super) offers: Offers,
    pub(super) manifest: Arc<Manifest>,
    /// Images that the fetcher holds.
    pub(super) bases: Vec<ImageId>,
    pub(super) traffic: Traffic,
}

impl Framing {
    /// The frames of chunks of so many plain bytes. Gives the encoder back, or the one that it made. What cannot be read
    /// is left out: the fetcher asks somebody else when it does not come.
    pub(super) fn frames(
        self,
        batch: &[(u32, Hash)],
        bytes: usize,
        encoder: Option<Encoder>,
    ) -> (Vec<u8>, Option<Encoder>) {
        let mut frames = Vec::with_capacity(bytes + batch.len() * 16);
        let processor = if self.bases.is_empty() { None } else { self.references.processor() };
        let mut encoder = match processor {
            Some(_) if encoder.is_none() => {
                Some(self.references.encoder(&self.store, &self.bases, |base| (self.offers)(base)))
            }
            _ => encoder,
        };
        for (index, hash) in batch {
            let encoder = encoder.as_mut().filter(|_| processor.is_some());
            if let Err(error) = self.frame(*index, hash, encoder, &mut frames) {
                tracing::warn!(chunk = %hash, %error, "a chunk cannot be served");
            }
        }
        (frames, encoder)
    }

    fn frame(
        &self,
        index: u32,
        hash: &Hash,
        encoder: Option<&mut Encoder>,
        frames: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let stored = self.store.read_stored(hash)?;
        let referenced = encoder.and_then(|encoder| {
            encoder.encode(&self.store, &self.manifest, index, &stored).unwrap_or_else(|error| {
                tracing::warn!(chunk = %hash, %error, "a chunk is sent as it is stored, because it or its base cannot be read");
                None
            })
        });
        match referenced {
            Some((header, bytes)) => {
                self.traffic.sent_chunk(traffic::REFERENCED);
                frames.extend_from_slice(&header.frame(bytes.len()));
                frames.extend_from_slice(&bytes);
            }
            None => {
                let stored = match stored {
                    Stored::Alone(encoded) => encoded,
                    Stored::Against { .. } => self.store.read_encoded(hash)?,
                };
                let Encoded { encoding, bytes, .. } = stored;
                self.traffic.sent_chunk(traffic::name(encoding));
                frames.extend_from_slice(&ChunkHeader { index, encoding }.frame(bytes.len()));
                frames.extend_from_slice(&bytes);
            }
        }
        Ok(())
    }
}

/// A chunk that is encoded against a base, and what says how.
type Referenced = (ReferencedHeader, Arc<[u8]>);

/// Encodes the chunks of one upload against what its fetcher holds.
pub(super) struct Encoder {
    references: References,
    finder: Finder<KnownBase>,
    runs: RecentChunks,
}

impl Encoder {
    /// Chunk `index` encoded against a similar run of a base; `None` where sending it as it is `stored` is about as well.
    ///
    /// # Errors
    /// As [`Store::read_chunk`].
    pub(super) fn encode(
        &mut self,
        store: &Store,
        manifest: &Manifest,
        index: u32,
        stored: &Stored,
    ) -> Result<Option<Referenced>, StoreError> {
        if self.finder.is_empty() {
            return Ok(None);
        }
        let Some(chunk) = manifest.chunks.get(index as usize) else { return Ok(None) };
        let features = store.features(&chunk.hash)?;
        let Some(reference) = self.finder.find(&manifest.chunks, index, &features) else { return Ok(None) };
        let Reference { base, first, count } = reference;
        let Some(base) = self.finder.base(base) else { return Ok(None) };
        let header = ReferencedHeader { index, reference };
        let name = (chunk.hash, base.manifest.id, first, count);
        if let Some(kept) = self.references.kept(&name) {
            return Ok((!kept.is_empty()).then_some((header, kept)));
        }
        let Ok(run) = reference.run(&base.manifest.chunks) else { return Ok(None) };
        let length = chunk.length as usize;
        let encoded = match stored {
            Stored::Against { names, frame } if names.iter().eq(run.iter().map(|chunk| &chunk.hash)) => {
                Some(frame.clone())
            }
            Stored::Against { .. } => {
                encode_against(&self.runs.read(run)?, &store.read_chunk(&chunk.hash)?, length / LIKELY_SHRINKING)
            }
            Stored::Alone(stored) => {
                let limit = stored.bytes.len().min(length).saturating_sub(MIN_SAVING_BYTES);
                encode_against(&self.runs.read(run)?, &stored.plain(&chunk.hash)?, limit)
            }
        };
        // That it does not pay is kept too.
        let encoded: Arc<[u8]> = encoded.unwrap_or_default().into();
        self.references.keep(name, &encoded);
        Ok((!encoded.is_empty()).then_some((header, encoded)))
    }
}
