//! Images: which are listed, what their manifests say, and which of their chunks are missing.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::SystemTime;

use rialto_protocol::UnixSeconds;
use rialto_protocol::ids::ImageId;
use rialto_protocol::image::manifest::{ChunkRef, Manifest, ManifestError, Survey, survey};

use super::journal::{Event, Listed, Origin};
use super::segment::Key;
use super::{Inner, Store, StoreError};

/// Chunks of the manifests kept in memory: 16 MiB. The one used last is kept whatever its size.
const CACHED_CHUNKS: usize = (16 << 20) / 48;

/// Chunks that are looked up together, sorted: 20 MiB of memory.
const LOOKED_UP_CHUNKS: usize = 256 * 1024;

/// One image of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// Its id.
    pub image: ImageId,
    /// Length of its content, in bytes; 0 until its root page is here.
    pub bytes: u64,
    /// Bytes that no hole covers, as far as the pages at hand tell.
    pub data_bytes: u64,
    /// Chunks, holes not counted; 0 until its root page is here.
    pub chunks: u64,
    /// Chunks still missing, those of missing pages included.
    pub missing_chunks: u64,
    /// Whether every page and chunk is here.
    pub is_complete: bool,
    /// Whether it cannot be removed.
    pub is_pinned: bool,
    /// How it came here.
    pub origin: Origin,
    /// When it was added, or its fetch begun.
    pub added: UnixSeconds,
}

impl Store {
    /// The whole manifest of an image, verified.
    ///
    /// # Errors
    /// [`StoreError::MissingPages`]; [`StoreError::Manifest`] where the id names something that is no manifest.
    pub fn manifest(&self, image: &ImageId) -> Result<Arc<Manifest>, StoreError> {
        if let Some(manifest) = self.0.cached(image) {
            return Ok(manifest);
        }
        let survey = self.survey(image)?;
        let missing = survey.missing.len();
        let manifest = survey.into_manifest(*image).ok_or(StoreError::MissingPages { image: *image, missing })?;
        Ok(self.0.cache(manifest))
    }

    /// What is known of an image from the pages at hand, and which pages are to be asked for next.
    ///
    /// # Errors
    /// [`StoreError::Manifest`] where a page is not what its parent promised.
    pub fn survey(&self, image: &ImageId) -> Result<Survey, StoreError> {
        let found = survey(image, |hash| match self.read_page(hash) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::NotHeld { .. } | StoreError::Damaged { .. }) => Ok(None),
            Err(error) => Err(Stop::Store(error)),
        });
        found.map_err(|stop| match stop {
            Stop::Store(error) => error,
            Stop::Manifest(source) => StoreError::Manifest { image: *image, source },
        })
    }

    /// The indices, in [`Manifest::chunks`], of the chunks that are not here.
    ///
    /// # Errors
    /// As [`Store::manifest`].
    pub fn missing_chunks(&self, image: &ImageId) -> Result<Vec<u32>, StoreError> {
        let manifest = self.manifest(image)?;
        self.0.drop_doubtful()?;
        let losses = {
            let complete = self.0.complete();
            if complete.contains(image) {
                return Ok(Vec::new());
            }
            complete.losses
        };
        let missing = self.missing_of(&manifest.chunks)?;
        if missing.is_empty() {
            self.0.complete().note(*image, losses);
        }
        Ok(missing)
    }

    /// The indices of the chunks that are not here, in order.
    fn missing_of(&self, chunks: &[ChunkRef]) -> Result<Vec<u32>, StoreError> {
        let mut missing = Vec::new();
        for (block, chunks) in chunks.chunks(LOOKED_UP_CHUNKS).enumerate() {
            let mut sorted: Vec<(Key, u32)> =
                chunks.iter().zip(0..).map(|(chunk, at)| (Key::chunk(chunk.hash), at)).collect();
            sorted.sort_unstable();
            let keys: Vec<Key> = sorted.iter().map(|(key, _)| *key).collect();
            let held = self.0.index.are_held(&keys)?;
            let start = missing.len();
            // At most MAX_CHUNKS, which fits 32 bits.
            let first = (block * LOOKED_UP_CHUNKS) as u32;
            let lacking = sorted.iter().zip(held).filter(|(_, is_held)| !is_held);
            missing.extend(lacking.map(|((_, at), _)| first + at));
            missing[start..].sort_unstable();
        }
        Ok(missing)
    }

    /// Whether every page and chunk of the image is here, whether or not it is listed.
    ///
    /// # Errors
    /// A failing disk or index; an image that is not here is no error.
    pub fn is_complete(&self, image: &ImageId) -> Result<bool, StoreError> {
        if self.0.complete().contains(image) {
            return Ok(true);
        }
        match self.missing_chunks(image) {
            Ok(missing) => Ok(missing.is_empty()),
            Err(StoreError::MissingPages { .. } | StoreError::Manifest { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lists an image before its pages and chunks come, so that a restart and garbage collection know of it. Does
    /// nothing where it is listed already.
    ///
    /// # Errors
    /// A full or failing disk.
    pub fn begin_fetch(&self, image: &ImageId) -> Result<(), StoreError> {
        let _reachable = self.0.reachable.read().unwrap_or_else(PoisonError::into_inner);
        let mut journal = self.0.journal();
        if journal.images().contains_key(image) {
            return Ok(());
        }
        journal.record(Event::Begun { image: *image, origin: Origin::Fetched, time: now() })
    }

    /// Commits, and lists the image as fetched.
    ///
    /// # Errors
    /// [`StoreError::MissingPages`] and [`StoreError::MissingChunks`] where it is not here whole; nothing is recorded then.
    pub fn record_fetched(&self, image: &ImageId) -> Result<(), StoreError> {
        let missing = self.missing_chunks(image)?.len() as u64;
        if missing > 0 {
            return Err(StoreError::MissingChunks { image: *image, missing });
        }
        self.commit()?;
        self.list(image, Origin::Fetched)
    }

    /// The listed images, in the order of their ids.
    ///
    /// # Errors
    /// A failing disk or index.
    pub fn images(&self) -> Result<Vec<StoredImage>, StoreError> {
        let listed = self.0.journal().images().clone();
        listed.iter().map(|(image, listed)| self.describe(image, listed)).collect()
    }

    /// One listed image.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`], or a failing disk or index.
    pub fn image(&self, image: &ImageId) -> Result<StoredImage, StoreError> {
        let listed = self.0.journal().listed(image)?;
        self.describe(image, &listed)
    }

    /// Keeps an image from being removed.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`], or a full or failing disk.
    pub fn pin(&self, image: &ImageId) -> Result<(), StoreError> {
        let mut journal = self.0.journal();
        if journal.listed(image)?.is_pinned {
            return Ok(());
        }
        journal.record(Event::Pinned { image: *image, time: now() })
    }

    /// Lets an image be removed again.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`], or a full or failing disk.
    pub fn unpin(&self, image: &ImageId) -> Result<(), StoreError> {
        let mut journal = self.0.journal();
        if !journal.listed(image)?.is_pinned {
            return Ok(());
        }
        journal.record(Event::Unpinned { image: *image, time: now() })
    }

    /// Takes an image off the list. Its chunks go with the next [`Store::gc`], unless another image has them too.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`], [`StoreError::Pinned`], or a full or failing disk.
    pub fn remove(&self, image: &ImageId) -> Result<(), StoreError> {
        let mut journal = self.0.journal();
        if journal.listed(image)?.is_pinned {
            return Err(StoreError::Pinned(*image));
        }
        journal.record(Event::Removed { image: *image, time: now() })?;
        drop(journal);
        self.0.manifests().retain(|manifest| manifest.id != *image);
        self.0.complete().forget(image);
        Ok(())
    }

    /// Lists an image whose bytes are committed.
    pub(super) fn list(&self, image: &ImageId, origin: Origin) -> Result<(), StoreError> {
        let mut journal = self.0.journal();
        if journal.images().get(image).is_some_and(|listed| !listed.is_partial) {
            return Ok(());
        }
        journal.record(Event::Added { image: *image, origin, time: now() })
    }

    fn describe(&self, image: &ImageId, listed: &Listed) -> Result<StoredImage, StoreError> {
        let mut stored = StoredImage {
            image: *image,
            bytes: 0,
            data_bytes: 0,
            chunks: 0,
            missing_chunks: 0,
            is_complete: false,
            is_pinned: listed.is_pinned,
            origin: listed.origin,
            added: listed.added,
        };
        match self.manifest(image) {
            Ok(manifest) => {
                stored.bytes = manifest.bytes;
                stored.data_bytes = manifest.data_bytes;
                stored.chunks = manifest.chunks.len() as u64;
                stored.missing_chunks = self.missing_chunks(image)?.len() as u64;
                stored.is_complete = stored.missing_chunks == 0;
            }
            Err(StoreError::MissingPages { .. }) => {
                let survey = self.survey(image)?;
                if let Some(root) = survey.root {
                    (stored.bytes, stored.chunks) = (root.bytes, root.chunks);
                }
                stored.data_bytes = survey.chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
                let held = survey.chunks.len() - self.missing_of(&survey.chunks)?.len();
                stored.missing_chunks = stored.chunks.saturating_sub(held as u64);
            }
            // It stays on the list, so that it can be seen and removed.
            Err(StoreError::Manifest { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(stored)
    }
}

impl Inner {
    fn cached(&self, image: &ImageId) -> Option<Arc<Manifest>> {
        let mut manifests = self.manifests();
        let at = manifests.iter().position(|manifest| manifest.id == *image)?;
        let manifest = manifests.remove(at)?;
        manifests.push_back(Arc::clone(&manifest));
        Some(manifest)
    }

    fn cache(&self, manifest: Manifest) -> Arc<Manifest> {
        let manifest = Arc::new(manifest);
        let mut manifests = self.manifests();
        manifests.retain(|other| other.id != manifest.id);
        manifests.push_back(Arc::clone(&manifest));
        let mut chunks: usize = manifests.iter().map(|manifest| manifest.chunks.len()).sum();
        while chunks > CACHED_CHUNKS
            && manifests.len() > 1
            && let Some(oldest) = manifests.pop_front()
        {
            chunks -= oldest.chunks.len();
        }
        manifest
    }

    pub(super) fn manifests(&self) -> MutexGuard<'_, std::collections::VecDeque<Arc<Manifest>>> {
        self.manifests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Stop {
    Store(StoreError),
    Manifest(ManifestError),
}

impl From<ManifestError> for Stop {
    fn from(error: ManifestError) -> Self {
        Self::Manifest(error)
    }
}

fn now() -> UnixSeconds {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
