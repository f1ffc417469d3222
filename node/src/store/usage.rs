//! What each image takes on disk: what only it keeps, and what it has in common with others.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError};

use rialto_protocol::ids::ImageId;

use super::segment::Key;
use super::{Store, StoreError, gc};

/// Bytes that an image takes on disk, as its chunks and pages are stored. A chunk that is stored against those of another
/// image counts with what it takes so; when that other image goes, it is stored by itself, and takes more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// What no other listed image names: removing it frees this much, less what images whose chunks are stored against these
    /// take more then.
    pub own_bytes: u64,
    /// What other listed images need, too.
    pub shared_bytes: u64,
}

/// What was found last, and what of the store it depends on.
#[derive(Debug, Default)]
pub(super) struct LastUsage {
    of: Option<(Vec<ImageId>, u64, u64)>,
    found: Arc<BTreeMap<ImageId, Usage>>,
}

/// Whose a chunk is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    One(usize),
    Several,
}

impl Store {
    /// What each listed image takes. Looks up every chunk of every image where something changed since the last time, and
    /// takes some 16 bytes of memory for each distinct one meanwhile.
    ///
    /// # Errors
    /// A failing disk or index.
    pub fn usage(&self) -> Result<Arc<BTreeMap<ImageId, Usage>>, StoreError> {
        // Held while it is looked up: who asks meanwhile waits for that, instead of doing it again.
        let mut last = self.0.usage.lock().unwrap_or_else(PoisonError::into_inner);
        let images: Vec<ImageId> = self.0.journal().images().keys().copied().collect();
        let losses = self.0.complete().losses;
        let of = Some((images.clone(), self.stored_bytes(), losses));
        if last.of != of {
            *last = LastUsage { of, found: Arc::new(self.look_up_usage(&images)?) };
        }
        Ok(Arc::clone(&last.found))
    }

    fn look_up_usage(&self, images: &[ImageId]) -> Result<BTreeMap<ImageId, Usage>, StoreError> {
        let mut owners: HashMap<u64, Owner> = HashMap::new();
        for (number, image) in images.iter().enumerate() {
            self.each_key(image, |key| {
                match owners.entry(gc::print(&key)) {
                    Entry::Vacant(free) => drop(free.insert(Owner::One(number))),
                    Entry::Occupied(mut taken) if *taken.get() != Owner::One(number) => {
                        taken.insert(Owner::Several);
                    }
                    Entry::Occupied(_) => {}
                }
                Ok(())
            })?;
        }
        let mut usage = BTreeMap::new();
        for image in images {
            let (mut found, mut seen) = (Usage::default(), HashSet::new());
            self.each_key(image, |key| {
                let print = gc::print(&key);
                if seen.insert(print)
                    && let Some(location) = self.0.index.find(&key)?
                {
                    match owners.get(&print) {
                        Some(Owner::Several) => found.shared_bytes += location.entry_bytes(),
                        _ => found.own_bytes += location.entry_bytes(),
                    }
                }
                Ok(())
            })?;
            usage.insert(*image, found);
        }
        Ok(usage)
    }

    /// Every page and chunk of an image that its pages at hand name, as often as they do.
    fn each_key(
        &self,
        image: &ImageId,
        mut visit: impl FnMut(Key) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let survey = match self.survey(image) {
            Ok(survey) => survey,
            // It is listed, and keeps nothing.
            Err(StoreError::Manifest { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        survey.pages.iter().try_for_each(|&hash| visit(Key::page(hash)))?;
        survey.chunks.iter().try_for_each(|chunk| visit(Key::chunk(chunk.hash)))
    }
}
