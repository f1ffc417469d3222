//! The images that a fetch names as bases, and the decoding of what holders encode against them.

use std::sync::Arc;

use rialto_protocol::ids::{Hash, ImageId};
use rialto_protocol::image::manifest::Manifest;
use rialto_protocol::swarm::{MAX_BASES, Reference, ReferenceError};

use crate::net::bulk::Offers;
use crate::store::{Hold, Origin, PeerFault, RecentChunks, Store, StoreError};

/// Chunks of all bases together: their manifests are in memory while the fetch lasts, 48 bytes a chunk.
const MAX_CHUNKS: usize = 1 << 20;

/// Images that this node holds whole, kept from being collected while a fetch may need them.
pub(super) struct Bases {
    manifests: Vec<Arc<Manifest>>,
    runs: RecentChunks,
    _hold: Hold,
}

impl Bases {
    /// Chooses them: `preferred` first, then the newest. An image that was only added here and is not offered to others
    /// is not named to them either. Blocks on the disk.
    ///
    /// # Errors
    /// A failing disk or index.
    pub(super) fn choose(store: &Store, preferred: &[ImageId], offers: &Offers) -> Result<Self, StoreError> {
        let may_be_named = |image: &ImageId, origin| origin == Origin::Fetched || offers(image);
        let bases = store.bases(preferred, MAX_BASES, may_be_named)?;
        // Held before it is looked at, so that nothing is collected between the two.
        let hold = store.hold(bases.clone());
        let mut manifests: Vec<Arc<Manifest>> = Vec::new();
        let mut chunks = 0;
        for base in bases {
            match store.manifest(&base) {
                Ok(manifest) if chunks + manifest.chunks.len() <= MAX_CHUNKS => {
                    chunks += manifest.chunks.len();
                    manifests.push(manifest);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(image = %base, %error, "it cannot serve as a base"),
            }
        }
        Ok(Self { manifests, runs: RecentChunks::new(store.clone()), _hold: hold })
    }

    /// Their ids, in the order of their numbers.
    pub(super) fn ids(&self) -> Vec<ImageId> {
        self.manifests.iter().map(|manifest| manifest.id).collect()
    }

    /// Decodes a chunk that a holder encoded against a run of one of them, checks it and stores it.
    ///
    /// # Errors
    /// [`StoreError::Peer`] where the holder is to blame; [`StoreError::Damaged`] or [`StoreError::NotHeld`] where the
    /// run cannot be read here, and nobody is.
    pub(super) fn put(
        &self,
        store: &Store,
        hash: Hash,
        length: u32,
        reference: Reference,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let run = match self.manifests.get(usize::from(reference.base)) {
            Some(manifest) => reference.run(&manifest.chunks),
            None => Err(ReferenceError::NoSuchBase { base: reference.base, named: self.manifests.len() }),
        };
        let run = run.map_err(|source| PeerFault::Reference { hash, source })?;
        store.put_referenced(hash, length, run, &self.runs, bytes).map(drop)
    }
}
