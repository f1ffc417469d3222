//! Segment files: the truth about what the store holds. Appended to, fsynced, and never changed.
//!
//! ```text
//! segment = "rialto segment 2" nonce:8 entry*
//! entry   = "RCE1" kind:1 packing:1 features-version:1 features-length:1 plain:4 stored:4 hash:32 payload-crc:4
//!           header-crc:4 features payload                                    integers are little-endian
//! payload = the bytes of a page, or of a chunk as its packing says: 0 raw, 1 zstd,
//!           2 count:1 hash:32*count zstd, against the chunks of these names       (dependent)
//! ```
//!
//! Segments of version 1, whose chunks are all raw or zstd, are read as well, and not appended to.
//!
//! The header checksum covers all before it, and the features. An entry can be recognised anywhere, so one that is
//! damaged hides nothing but itself.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rialto_protocol::ids::Hash;
use rialto_protocol::image::chunker::MAX_CHUNK_BYTES;
use rialto_protocol::image::encoding::Encoding;
use rialto_protocol::image::similarity::{FEATURES_VERSION, Features};

use super::error::StoreError;

/// Length of a segment's own head, in bytes.
pub(super) const SEGMENT_HEAD_BYTES: u64 = 24;
const SEGMENT_MAGIC: &[u8; 16] = b"rialto segment 2";
/// What a segment of the earlier version begins with.
const EARLIER_MAGIC: &[u8; 16] = b"rialto segment 1";
const ENTRY_MAGIC: &[u8; 4] = b"RCE1";
const ENTRY_HEAD_BYTES: usize = 56;
/// What an entry takes beside its payload, at most: its head, and the features it can have. In bytes.
pub(super) const MAX_ENTRY_OVERHEAD_BYTES: u64 = ENTRY_HEAD_BYTES as u64 + u8::MAX as u64;
/// Read ahead while scanning, in bytes; several of the largest entries fit.
const SCAN_WINDOW_BYTES: usize = 1 << 20;
/// Files kept open, so that a large store does not use up the process's file descriptors.
const MAX_OPEN_FILES: usize = 64;

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(super) enum Kind {
    /// A chunk of content.
    Chunk = 0,
    /// A page of a manifest.
    Page = 1,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Chunk => "chunk",
            Self::Page => "page",
        }
    }
}

/// How an entry's payload stands for its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Packing {
    /// The bytes themselves.
    Raw = 0,
    /// Zstd frames.
    Zstd = 1,
    /// A zstd frame against other chunks, after their names.
    Dependent = 2,
}

impl Packing {
    pub(super) fn code(self) -> u8 {
        self as u8
    }

    pub(super) fn of_code(code: u8) -> Option<Self> {
        [Self::Raw, Self::Zstd, Self::Dependent].into_iter().find(|packing| packing.code() == code)
    }

    /// As it is sent; `None` where it cannot be read without other chunks.
    pub(super) fn encoding(self) -> Option<Encoding> {
        match self {
            Self::Raw => Some(Encoding::Raw),
            Self::Zstd => Some(Encoding::Zstd),
            Self::Dependent => None,
        }
    }
}

impl From<Encoding> for Packing {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Raw => Self::Raw,
            Encoding::Zstd => Self::Zstd,
        }
    }
}

/// The name of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) hash: Hash,
}

impl Key {
    pub(super) fn chunk(hash: Hash) -> Self {
        Self { kind: Kind::Chunk, hash }
    }

    pub(super) fn page(hash: Hash) -> Self {
        Self { kind: Kind::Page, hash }
    }

    pub(super) fn not_held(self) -> StoreError {
        StoreError::NotHeld { what: self.kind.name(), hash: self.hash }
    }

    pub(super) fn damaged(self) -> StoreError {
        StoreError::Damaged { what: self.kind.name(), hash: self.hash }
    }
}

/// Where an entry's payload lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: u32,
    /// Of the payload, in bytes from the start of the file.
    pub(super) offset: u32,
    pub(super) stored: u32,
    pub(super) plain: u32,
    pub(super) crc: u32,
    pub(super) packing: Packing,
    pub(super) features_length: u8,
}

impl Location {
    /// Bytes that the whole entry takes.
    pub(super) fn entry_bytes(&self) -> u64 {
        (ENTRY_HEAD_BYTES + usize::from(self.features_length)) as u64 + u64::from(self.stored)
    }

    /// A number that grows with every byte appended to the store: where the payload ends.
    pub(super) fn end(&self) -> u64 {
        position(self.segment, u64::from(self.offset) + u64::from(self.stored))
    }
}

/// A place in the store as one number, in the order in which bytes are appended.
pub(super) fn position(segment: u32, offset: u64) -> u64 {
    u64::from(segment) << 32 | offset
}

/// An entry as it is written and scanned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) key: Key,
    pub(super) plain: u32,
    pub(super) packing: Packing,
    /// 0: none. Those of other versions are kept as they are.
    pub(super) features_version: u8,
    pub(super) features: &'a [u8],
    pub(super) payload: &'a [u8],
    pub(super) crc: u32,
}

impl<'a> Entry<'a> {
    /// An entry without features.
    pub(super) fn new(key: Key, plain: u32, packing: impl Into<Packing>, payload: &'a [u8]) -> Self {
        let (crc, packing) = (crc32fast::hash(payload), packing.into());
        Self { key, plain, packing, features_version: 0, features: &[], payload, crc }
    }

    /// The same with similarity features, [`Features::to_bytes`], unless these are none.
    pub(super) fn with_features(self, features: &'a [u8; Features::BYTES]) -> Self {
        if Features::from_bytes(features) == Features::NONE {
            return self;
        }
        Self { features_version: FEATURES_VERSION, features, ..self }
    }

    /// Bytes that the whole entry takes.
    pub(super) fn bytes(&self) -> u64 {
        (ENTRY_HEAD_BYTES + self.features.len() + self.payload.len()) as u64
    }

    /// Writes it to the end of `buffer`, whose first byte lies at `start` of `segment`.
    pub(super) fn append_to(&self, buffer: &mut Vec<u8>, segment: u32, start: u64) -> Location {
        let head = buffer.len();
        buffer.extend_from_slice(ENTRY_MAGIC);
        // At most 32 bytes of features and one chunk of payload, so these fit their fields.
        let features_length = self.features.len() as u8;
        let stored = self.payload.len() as u32;
        buffer.extend_from_slice(&[self.key.kind as u8, self.packing.code(), self.features_version, features_length]);
        buffer.extend_from_slice(&self.plain.to_le_bytes());
        buffer.extend_from_slice(&stored.to_le_bytes());
        buffer.extend_from_slice(&self.key.hash.0);
        buffer.extend_from_slice(&self.crc.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&buffer[head..]);
        crc.update(self.features);
        buffer.extend_from_slice(&crc.finalize().to_le_bytes());
        buffer.extend_from_slice(self.features);
        // Segments are rolled long before 4 GiB.
        let offset = (start + buffer.len() as u64) as u32;
        buffer.extend_from_slice(self.payload);
        let (plain, crc, packing) = (self.plain, self.crc, self.packing);
        Location { segment, offset, stored, plain, crc, packing, features_length }
    }
}

/// What scanning a segment found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scan {
    /// Where the last good entry ends, in bytes.
    pub(super) good_end: u64,
    /// Damaged bytes between good entries.
    pub(super) damaged: u64,
    /// Entries of kinds or packings of a later version.
    pub(super) unknown: u64,
}

/// Reads the entries of a segment from `from` to `end`, checking every checksum.
fn scan(
    file: &File,
    path: &Path,
    segment: u32,
    (from, end): (u64, u64),
    mut sink: impl FnMut(Location, Entry<'_>) -> Result<(), StoreError>,
) -> Result<Scan, StoreError> {
    let refused = || StoreError::io("read", path);
    let mut window = Window { file, bytes: Vec::new(), start: 0, end };
    let mut found = Scan { good_end: from, ..Scan::default() };
    let mut at = from;
    while at < end {
        match parse(&mut window, at).map_err(refused())? {
            Parsed::Nothing => at = window.next_magic(at + 1).map_err(refused())?,
            parsed @ (Parsed::Entry(_) | Parsed::Unknown(_)) => {
                found.damaged += at - found.good_end;
                let (Parsed::Entry(head) | Parsed::Unknown(head)) = parsed else { continue };
                let length = head.entry_bytes();
                if let (Parsed::Entry(_), Some(kind), Some(bytes)) =
                    (parsed, head.kind, window.get(at, length as usize).map_err(refused())?)
                {
                    let (features, payload) = bytes[ENTRY_HEAD_BYTES..].split_at(usize::from(head.features_length));
                    let key = Key { kind, hash: head.hash };
                    let packing = head.packing.unwrap_or(Packing::Raw);
                    let (plain, crc, features_version) = (head.plain, head.crc, head.features_version);
                    let location = Location {
                        segment,
                        offset: (at + length - u64::from(head.stored)) as u32,
                        stored: head.stored,
                        plain,
                        crc,
                        packing,
                        features_length: head.features_length,
                    };
                    sink(location, Entry { key, plain, packing, features_version, features, payload, crc })?;
                } else {
                    found.unknown += 1;
                }
                at += length;
                found.good_end = at;
            }
        }
    }
    Ok(found)
}

#[derive(Clone, Copy)]
struct Head {
    kind: Option<Kind>,
    packing: Option<Packing>,
    features_version: u8,
    features_length: u8,
    plain: u32,
    stored: u32,
    hash: Hash,
    crc: u32,
}

impl Head {
    fn entry_bytes(&self) -> u64 {
        (ENTRY_HEAD_BYTES + usize::from(self.features_length)) as u64 + u64::from(self.stored)
    }
}

#[derive(Clone, Copy)]
enum Parsed {
    Entry(Head),
    Unknown(Head),
    Nothing,
}

fn parse(window: &mut Window<'_>, at: u64) -> io::Result<Parsed> {
    let Some(bytes) = window.get(at, ENTRY_HEAD_BYTES)? else { return Ok(Parsed::Nothing) };
    if !bytes.starts_with(ENTRY_MAGIC) {
        return Ok(Parsed::Nothing);
    }
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[16..48]);
    let head = Head {
        kind: [Kind::Chunk, Kind::Page].into_iter().find(|&kind| kind as u8 == bytes[4]),
        packing: Packing::of_code(bytes[5]),
        features_version: bytes[6],
        features_length: bytes[7],
        plain: word(8),
        stored: word(12),
        hash: Hash(hash),
        crc: word(48),
    };
    let header_crc = word(52);
    if head.stored as usize > MAX_CHUNK_BYTES || head.plain as usize > MAX_CHUNK_BYTES {
        return Ok(Parsed::Nothing);
    }
    let Some(bytes) = window.get(at, head.entry_bytes() as usize)? else { return Ok(Parsed::Nothing) };
    let (features, payload) = bytes[ENTRY_HEAD_BYTES..].split_at(usize::from(head.features_length));
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..52]);
    crc.update(features);
    if crc.finalize() != header_crc || crc32fast::hash(payload) != head.crc {
        return Ok(Parsed::Nothing);
    }
    Ok(if head.kind.is_some() && head.packing.is_some() { Parsed::Entry(head) } else { Parsed::Unknown(head) })
}

struct Window<'a> {
    file: &'a File,
    bytes: Vec<u8>,
    start: u64,
    end: u64,
}

impl Window<'_> {
    /// `length` bytes at `at`, or `None` where the file ends before.
    fn get(&mut self, at: u64, length: usize) -> io::Result<Option<&[u8]>> {
        if at + length as u64 > self.end {
            return Ok(None);
        }
        let holds = at >= self.start && at + length as u64 <= self.start + self.bytes.len() as u64;
        if !holds {
            let ahead = (self.end - at).min(SCAN_WINDOW_BYTES.max(length) as u64);
            self.bytes.resize(ahead as usize, 0);
            self.file.read_exact_at(&mut self.bytes, at)?;
            self.start = at;
        }
        let from = (at - self.start) as usize;
        Ok(Some(&self.bytes[from..from + length]))
    }

    /// Where the next entry may begin, at `at` or after; the end where none does.
    fn next_magic(&mut self, mut at: u64) -> io::Result<u64> {
        let overlap = ENTRY_MAGIC.len() as u64 - 1;
        while at + overlap < self.end {
            let length = (self.end - at).min(SCAN_WINDOW_BYTES as u64 / 2) as usize;
            let Some(bytes) = self.get(at, length)? else { break };
            if let Some(found) = bytes.windows(ENTRY_MAGIC.len()).position(|bytes| bytes == ENTRY_MAGIC) {
                return Ok(at + found as u64);
            }
            at += length as u64 - overlap;
        }
        Ok(self.end)
    }
}

/// The folder of segment files. Reading takes no lock but the one on the list of open files.
#[derive(Debug)]
pub(super) struct Segments {
    folder: PathBuf,
    open: Mutex<Vec<(u32, Arc<File>)>>,
}

/// A segment as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: u32,
    pub(super) nonce: u64,
    pub(super) length: u64,
}

impl Segments {
    pub(super) fn open(folder: PathBuf) -> Result<Self, StoreError> {
        fs::create_dir_all(&folder).map_err(StoreError::io("create", &folder))?;
        Ok(Self { folder, open: Mutex::new(Vec::new()) })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn path(&self, id: u32) -> PathBuf {
        self.folder.join(format!("{id:08}.segment"))
    }

    /// Every segment of the folder, in the order in which they were begun.
    pub(super) fn list(&self) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::new();
        let refused = || StoreError::io("list", &self.folder);
        for entry in fs::read_dir(&self.folder).map_err(refused())? {
            let name = entry.map_err(refused())?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".segment")).and_then(|id| id.parse().ok());
            if let Some(id) = id {
                found.push(self.inspect(id)?);
            }
        }
        found.sort_by_key(|found| found.id);
        Ok(found)
    }

    fn inspect(&self, id: u32) -> Result<Found, StoreError> {
        let path = self.path(id);
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let length = file.metadata().map_err(StoreError::io("read", &path))?.len();
        let mut head = [0; SEGMENT_HEAD_BYTES as usize];
        // A segment that was begun and never written to is as long as it got.
        if length >= SEGMENT_HEAD_BYTES {
            file.read_exact_at(&mut head, 0).map_err(StoreError::io("read", &path))?;
        }
        let (magic, nonce) = head.split_at(SEGMENT_MAGIC.len());
        let family = SEGMENT_MAGIC.len() - 1;
        let is_known = magic == SEGMENT_MAGIC || magic == EARLIER_MAGIC;
        if magic[..family] == SEGMENT_MAGIC[..family] && !is_known {
            return Err(StoreError::Newer(path));
        }
        if length >= SEGMENT_HEAD_BYTES && !is_known {
            tracing::warn!(segment = %path.display(), "the head of this segment is damaged; its entries are read all the same");
        }
        let nonce = nonce.try_into().map(u64::from_le_bytes).unwrap_or_default();
        Ok(Found { id, nonce, length })
    }

    /// Whether the segment is of this version, so that it may be appended to.
    pub(super) fn is_of_this_version(&self, id: u32) -> Result<bool, StoreError> {
        let mut magic = [0; SEGMENT_MAGIC.len()];
        self.file(id)?.read_exact_at(&mut magic, 0).map_err(StoreError::io("read", &self.path(id)))?;
        Ok(magic != *EARLIER_MAGIC)
    }

    /// Begins a segment; its name is on disk when this returns.
    pub(super) fn create(&self, id: u32) -> Result<(Arc<File>, u64), StoreError> {
        let path = self.path(id);
        let refused = || StoreError::io("create", &path);
        let nonce = getrandom::u64().map_err(|error| refused()(error.into()))?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        let file = Arc::new(file.map_err(refused())?);
        let mut head = SEGMENT_MAGIC.to_vec();
        head.extend_from_slice(&nonce.to_le_bytes());
        file.write_all_at(&head, 0).map_err(refused())?;
        self.sync_folder()?;
        self.remember(id, &file);
        Ok((file, nonce))
    }

    /// The file of a segment, opened if it is not.
    pub(super) fn file(&self, id: u32) -> Result<Arc<File>, StoreError> {
        if let Some(file) = self.opened(id) {
            return Ok(file);
        }
        let path = self.path(id);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(StoreError::io("open", &path))?;
        let file = Arc::new(file);
        self.remember(id, &file);
        Ok(file)
    }

    /// The payload at `location`, unchecked.
    pub(super) fn read(&self, location: &Location) -> Result<Vec<u8>, StoreError> {
        let file = self.file(location.segment)?;
        let mut bytes = vec![0; location.stored as usize];
        file.read_exact_at(&mut bytes, location.offset.into())
            .map_err(|error| StoreError::io("read", &self.path(location.segment))(error))?;
        Ok(bytes)
    }

    /// The features of the entry at `location`, if it has any of the version in use. Unchecked, as they are hints.
    pub(super) fn features(&self, location: &Location) -> Option<Features> {
        if usize::from(location.features_length) != Features::BYTES {
            return None;
        }
        let mut bytes = [0; ENTRY_HEAD_BYTES + Features::BYTES];
        let start = u64::from(location.offset).checked_sub(bytes.len() as u64)?;
        self.file(location.segment).ok()?.read_exact_at(&mut bytes, start).ok()?;
        let is_ours = bytes.starts_with(ENTRY_MAGIC) && bytes[6] == FEATURES_VERSION;
        bytes.last_chunk().filter(|_| is_ours).map(Features::from_bytes)
    }

    /// Reads the entries of a segment from `from` to `end`, checking every checksum.
    pub(super) fn scan(
        &self,
        id: u32,
        (from, end): (u64, u64),
        sink: impl FnMut(Location, Entry<'_>) -> Result<(), StoreError>,
    ) -> Result<Scan, StoreError> {
        scan(&*self.file(id)?, &self.path(id), id, (from, end), sink)
    }

    /// Cuts off what lies after `length`.
    pub(super) fn truncate(&self, id: u32, length: u64) -> Result<(), StoreError> {
        let file = self.file(id)?;
        file.set_len(length).and_then(|()| file.sync_all()).map_err(StoreError::io("truncate", &self.path(id)))
    }

    /// Makes what is in the file survive a crash.
    pub(super) fn sync(&self, id: u32) -> Result<(), StoreError> {
        self.file(id)?.sync_data().map_err(StoreError::io("sync", &self.path(id)))
    }

    /// Removes a segment that nothing points at any more.
    pub(super) fn remove(&self, id: u32) -> Result<(), StoreError> {
        let path = self.path(id);
        fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).retain(|(open, _)| *open != id);
        self.sync_folder()
    }

    fn sync_folder(&self) -> Result<(), StoreError> {
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", &self.folder))
    }

    fn opened(&self, id: u32) -> Option<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|(open, _)| *open == id)?;
        let entry = open.remove(at);
        let file = Arc::clone(&entry.1);
        open.push(entry);
        Some(file)
    }

    fn remember(&self, id: u32, file: &Arc<File>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(open, _)| *open != id);
        if open.len() == MAX_OPEN_FILES {
            open.remove(0);
        }
        open.push((id, Arc::clone(file)));
    }
}
