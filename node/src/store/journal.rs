//! Which images the store lists: an append-only, fsynced log of what was added, pinned and removed.
//!
//! ```text
//! journal = frame*        frame = "RJF1" length:4 crc:4 entry        entry is canonical CBOR, at most 4 KiB
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rialto_protocol::UnixSeconds;
use rialto_protocol::codec;
use rialto_protocol::ids::ImageId;
use serde::{Deserialize, Serialize};

use super::error::StoreError;

const FRAME_MAGIC: &[u8; 4] = b"RJF1";
const FRAME_HEAD_BYTES: usize = 12;
const MAX_ENTRY_BYTES: usize = 4096;
/// A journal longer than this, and mostly about the past, is rewritten when it is opened. In bytes.
const REWRITE_BYTES: u64 = 256 * 1024;

/// How an image came into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Added here.
    Local,
    /// Fetched from peers.
    Fetched,
}

/// What the journal says of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) origin: Origin,
    pub(super) added: UnixSeconds,
    pub(super) is_pinned: bool,
    /// Begun to be fetched, and not known to have been complete yet.
    pub(super) is_partial: bool,
}

/// One thing that happened to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) enum Event {
    Begun { image: ImageId, origin: Origin, time: UnixSeconds },
    Added { image: ImageId, origin: Origin, time: UnixSeconds },
    Pinned { image: ImageId, time: UnixSeconds },
    Unpinned { image: ImageId, time: UnixSeconds },
    Removed { image: ImageId, time: UnixSeconds },
}

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    images: BTreeMap<ImageId, Listed>,
    has_failed: bool,
}

impl Journal {
    /// Reads the journal; a torn tail is cut off, damage elsewhere is skipped, and both are said.
    pub(super) fn open(path: PathBuf) -> Result<Self, StoreError> {
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes.map_err(StoreError::io("read", &path))?,
        };
        let mut images = BTreeMap::new();
        let (mut at, mut good_end, mut damaged) = (0, 0, 0);
        while at < bytes.len() {
            match frame(&bytes[at..]) {
                Some((entry, length)) => {
                    damaged += at - good_end;
                    match codec::decode(entry, MAX_ENTRY_BYTES) {
                        Ok(event) => apply(&mut images, event),
                        // Its checksum holds, so a later version wrote it.
                        Err(_) => return Err(StoreError::Newer(path)),
                    }
                    at += length;
                    good_end = at;
                }
                None => at += 1,
            }
        }
        if damaged > 0 {
            tracing::warn!(journal = %path.display(), bytes = damaged, "skipped damaged entries of the journal of images");
        }
        let length = good_end as u64;
        let is_mostly_past = length > REWRITE_BYTES && length > 64 * 4 * images.len() as u64;
        if is_mostly_past {
            rewrite(&path, &images)?;
            return Self::open(path);
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(StoreError::io("open", &path))?;
        if bytes.len() > good_end {
            tracing::warn!(journal = %path.display(), bytes = bytes.len() - good_end, "cut off an unfinished entry of the journal of images");
            file.set_len(length).map_err(StoreError::io("truncate", &path))?;
        }
        file.sync_all().and_then(|()| sync_parent(&path)).map_err(StoreError::io("sync", &path))?;
        Ok(Self { path, file, length, images, has_failed: false })
    }

    /// Writes an event down; it is on disk when this returns.
    pub(super) fn record(&mut self, event: Event) -> Result<(), StoreError> {
        if self.has_failed {
            return Err(StoreError::Failed(self.path.clone()));
        }
        let bytes = encode(event);
        self.file.write_all_at(&bytes, self.length).map_err(StoreError::io("write", &self.path))?;
        if let Err(error) = self.file.sync_data() {
            self.has_failed = true;
            return Err(StoreError::io("sync", &self.path)(error));
        }
        self.length += bytes.len() as u64;
        apply(&mut self.images, event);
        Ok(())
    }

    pub(super) fn images(&self) -> &BTreeMap<ImageId, Listed> {
        &self.images
    }

    /// What the journal says of an image.
    pub(super) fn listed(&self, image: &ImageId) -> Result<Listed, StoreError> {
        self.images.get(image).copied().ok_or(StoreError::NoSuchImage(*image))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.length
    }
}

fn apply(images: &mut BTreeMap<ImageId, Listed>, event: Event) {
    match event {
        Event::Begun { image, origin, time } => {
            images.entry(image).or_insert(Listed { origin, added: time, is_pinned: false, is_partial: true });
        }
        Event::Added { image, origin, time } => {
            let listed =
                images.entry(image).or_insert(Listed { origin, added: time, is_pinned: false, is_partial: false });
            listed.is_partial = false;
        }
        Event::Pinned { image, .. } => {
            images.entry(image).and_modify(|listed| listed.is_pinned = true);
        }
        Event::Unpinned { image, .. } => {
            images.entry(image).and_modify(|listed| listed.is_pinned = false);
        }
        Event::Removed { image, .. } => {
            images.remove(&image);
        }
    }
}

fn encode(event: Event) -> Vec<u8> {
    // An image id, a word and a number: it has an encoding, of some 80 bytes.
    let entry = codec::encode(&event).unwrap_or_default();
    let mut bytes = FRAME_MAGIC.to_vec();
    bytes.extend_from_slice(&(entry.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&entry).to_le_bytes());
    bytes.extend_from_slice(&entry);
    bytes
}

/// The entry of the frame at the start of `bytes`, and the frame's length.
fn frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let rest = bytes.strip_prefix(FRAME_MAGIC)?;
    let word = |at: usize| rest.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
    let length = usize::try_from(word(0)?).ok().filter(|length| *length <= MAX_ENTRY_BYTES)?;
    let entry = bytes.get(FRAME_HEAD_BYTES..FRAME_HEAD_BYTES + length)?;
    (crc32fast::hash(entry) == word(4)?).then_some((entry, FRAME_HEAD_BYTES + length))
}

fn rewrite(path: &Path, images: &BTreeMap<ImageId, Listed>) -> Result<(), StoreError> {
    let mut bytes = Vec::new();
    for (&image, listed) in images {
        let (origin, time) = (listed.origin, listed.added);
        bytes.extend(encode(match listed.is_partial {
            true => Event::Begun { image, origin, time },
            false => Event::Added { image, origin, time },
        }));
        if listed.is_pinned {
            bytes.extend(encode(Event::Pinned { image, time }));
        }
    }
    let new = path.with_extension("new");
    let refused = |error| StoreError::io("rewrite", path)(error);
    let mut file = File::create(&new).map_err(refused)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(refused)?;
    fs::rename(&new, path).and_then(|()| sync_parent(path)).map_err(refused)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(number: u8) -> ImageId {
        ImageId::of(&[number])
    }

    fn added(number: u8) -> Event {
        Event::Added { image: image(number), origin: Origin::Local, time: 5 }
    }

    #[test]
    fn what_happened_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images.journal");
        let mut journal = Journal::open(path.clone()).unwrap();
        let (image, time) = (image(1), 7);
        journal.record(Event::Begun { image, origin: Origin::Fetched, time }).unwrap();
        journal.record(Event::Pinned { image, time }).unwrap();
        journal.record(added(2)).unwrap();
        journal.record(Event::Removed { image: self::image(2), time }).unwrap();
        let expected = Listed { origin: Origin::Fetched, added: 7, is_pinned: true, is_partial: true };
        assert_eq!(journal.images(), &BTreeMap::from([(image, expected)]));
        assert_eq!(Journal::open(path).unwrap().images(), journal.images());
    }

    #[test]
    fn any_cut_or_flipped_byte_costs_no_more_than_the_entry_it_is_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images.journal");
        let mut journal = Journal::open(path.clone()).unwrap();
        (0..4).for_each(|number| journal.record(added(number)).unwrap());
        let whole = fs::read(&path).unwrap();
        let frame_bytes = whole.len() / 4;
        for at in 0..whole.len() {
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(Journal::open(path.clone()).unwrap().images().len(), at / frame_bytes);
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            assert_eq!(Journal::open(path.clone()).unwrap().images().len(), 3);
        }
    }

    #[test]
    fn a_journal_of_the_past_is_rewritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images.journal");
        let mut journal = Journal::open(path.clone()).unwrap();
        journal.record(added(1)).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let time = 9;
        while (bytes.len() as u64) <= REWRITE_BYTES {
            bytes.extend(encode(Event::Pinned { image: image(1), time }));
        }
        fs::write(&path, &bytes).unwrap();
        let journal = Journal::open(path.clone()).unwrap();
        assert!(journal.listed(&image(1)).unwrap().is_pinned);
        assert!(journal.bytes() < 1000);
    }
}
