//! One immutable, sorted file of the index: where the entries of some sealed segments lie.
//!
//! ```text
//! run      = head pages fences covered filter                          integers are little-endian
//! head     = "rialto index 1\0\0" entries:8 pages:8 covered:4 filter-lines:4 tail-crc:4 filter-crc:4 head-crc:4
//!            and zeros up to 4 KiB
//! page     = crc:4 entries:2 entry*                                    4 KiB, the rest of it zeros
//! entry    = hash:32 kind:1 packing:1 features-length:1 segment:4 offset:4 stored:4 plain:4 payload-crc:4
//! fence    = the first 8 bytes of the first hash of each page, big-endian
//! covered  = segment:4 nonce:8 length:8                                for each segment whose entries are all here
//! filter   = lines of 64 bytes                                         says which hashes are certainly not here
//! ```
//!
//! Files are read with `pread` and not mapped. A mapping needs `unsafe`, and a file that becomes shorter under it kills
//! the process; both are worse than the microsecond that a system call costs. Fences and filter are in memory, so a
//! look-up that finds reads one page, and one that does not reads none. What is read is checked by its checksum each time.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rialto_protocol::ids::Hash;

use super::filter::{Filter, LINE_BYTES};
use super::gc::print;
use super::segment::{Key, Kind, Location, Packing, position};

/// What the name of a run ends in.
pub(super) const SUFFIX: &str = ".run";
/// What it ends in while the run is written.
pub(super) const UNFINISHED_SUFFIX: &str = ".new";

const MAGIC: &[u8; 16] = b"rialto index 1\0\0";
const HEAD_BYTES: usize = 60;
const PAGE_BYTES: usize = 4096;
const PAGE_HEAD_BYTES: usize = 6;
pub(super) const ENTRY_BYTES: usize = 55;
/// Entries of a full page.
const PAGE_ENTRIES: usize = (PAGE_BYTES - PAGE_HEAD_BYTES) / ENTRY_BYTES;
const FENCE_BYTES: usize = 8;
const COVERED_BYTES: usize = 20;
/// Bits of the filter for each entry: 1 in 120 look-ups in vain reads a page.
const FILTER_BITS: u64 = 12;
/// Pages read at once by whoever reads all.
const AHEAD_PAGES: usize = 16;
/// Bytes collected before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// A segment that is sealed, and how it was when it was indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Covered {
    pub(super) segment: u32,
    /// Tells a segment from another that had its number before.
    pub(super) nonce: u64,
    /// In bytes.
    pub(super) length: u64,
}

/// What sorts the entries of a run.
pub(super) fn order(key: &Key) -> (Hash, Kind) {
    (key.hash, key.kind)
}

/// Which of two places of one entry is the later one.
pub(super) fn place(location: &Location) -> u64 {
    position(location.segment, location.offset.into())
}

/// A run that cannot be read, or not be believed.
#[derive(Debug)]
pub(super) struct Broken {
    /// Its number.
    pub(super) run: u64,
    pub(super) why: io::Error,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) number: u64,
    pub(super) entries: u64,
    pub(super) covered: Vec<Covered>,
    path: PathBuf,
    file: File,
    fences: Vec<u64>,
    filter: Option<Filter>,
}

impl Run {
    /// Opens a run. Its filter is left on disk where it takes more than `filter_bytes`.
    pub(super) fn open(path: PathBuf, number: u64, filter_bytes: u64) -> io::Result<Self> {
        let file = File::open(&path)?;
        let length = file.metadata()?.len();
        let mut head = [0; HEAD_BYTES];
        file.read_exact_at(&mut head, 0)?;
        let (checked, crc) = head.split_at(HEAD_BYTES - 4);
        if !head.starts_with(MAGIC) || crc32fast::hash(checked) != word(crc, 0) {
            return Err(damaged("its head is damaged, or of another version"));
        }
        let [entries, pages] = [16, 24].map(|at| long(&head, at));
        let [covered, lines, tail_crc, filter_crc] = [32, 36, 40, 44].map(|at| word(&head, at));
        let is_not_so_long = || damaged("it is not as long as its head says");
        // Before anything is allocated for it.
        if pages > length / PAGE_BYTES as u64 {
            return Err(is_not_so_long());
        }
        let tail_at = (pages + 1) * PAGE_BYTES as u64;
        let tail_bytes = pages * FENCE_BYTES as u64 + u64::from(covered) * COVERED_BYTES as u64;
        let lines_bytes = u64::from(lines) * LINE_BYTES as u64;
        if tail_at + tail_bytes + lines_bytes != length {
            return Err(is_not_so_long());
        }
        let read = |at, bytes: u64, crc| -> io::Result<Vec<u8>> {
            let mut found = vec![0; bytes as usize];
            file.read_exact_at(&mut found, at)?;
            if crc32fast::hash(&found) == crc { Ok(found) } else { Err(damaged("its tail is damaged")) }
        };
        let tail = read(tail_at, tail_bytes, tail_crc)?;
        let (fences, rest) = tail.split_at(pages as usize * FENCE_BYTES);
        let fences = fences.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        let row = |row: &[u8]| Covered { segment: word(row, 0), nonce: long(row, 4), length: long(row, 12) };
        let covered = rest.chunks_exact(COVERED_BYTES).map(row).collect();
        let filter = match lines_bytes <= filter_bytes {
            true => Filter::from_bytes(&read(tail_at + tail_bytes, lines_bytes, filter_crc)?),
            false => None,
        };
        Ok(Self { number, entries, covered, path, file, fences, filter })
    }

    /// Memory that its filter takes, in bytes.
    pub(super) fn filter_bytes(&self) -> u64 {
        self.filter.as_ref().map_or(0, |filter| filter.bytes() as u64)
    }

    /// Leaves its filter on disk where that takes more than so many bytes of memory.
    pub(super) fn bound_filter(&mut self, bytes: u64) {
        if self.filter_bytes() > bytes {
            self.filter = None;
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the entry lies. `page` may be one of an earlier look-up in this run, which saves reading it again.
    pub(super) fn find(&self, key: &Key, page: &mut Page) -> Result<Option<Location>, Broken> {
        if self.filter.as_ref().is_some_and(|filter| !filter.may_hold(print(key))) {
            return Ok(None);
        }
        let wanted = fence(&key.hash);
        // Of pages that begin with the same eight bytes, it may be on any, and on the one before.
        let after = self.fences.partition_point(|&fence| fence < wanted);
        let first = after.saturating_sub(1);
        for number in first..self.fences.len() {
            if number > first && self.fences.get(number).is_none_or(|&fence| fence > wanted) {
                break;
            }
            if page.number != Some(number) {
                page.number = None;
                let at = (number as u64 + 1) * PAGE_BYTES as u64;
                let read = self.file.read_exact_at(&mut page.bytes[..], at);
                read.and_then(|()| check_page(&page.bytes[..])).map_err(|why| self.broken(why))?;
                page.number = Some(number);
            }
            if let Some(entry) = search(&page.bytes[..], key) {
                return entry_of(entry).map(|(_, location)| Some(location)).map_err(|why| self.broken(why));
            }
        }
        Ok(None)
    }

    /// All its entries in order.
    pub(super) fn entries(&self) -> Entries<'_> {
        Entries { run: self, bytes: Vec::new(), next_page: 0, page: 0, entry: 0 }
    }

    fn broken(&self, why: io::Error) -> Broken {
        Broken { run: self.number, why }
    }
}

/// The page that was read last in a series of look-ups.
#[derive(Debug)]
pub(super) struct Page {
    number: Option<usize>,
    bytes: Box<[u8; PAGE_BYTES]>,
}

impl Page {
    pub(super) fn new() -> Self {
        Self { number: None, bytes: Box::new([0; PAGE_BYTES]) }
    }

    /// Forgets what was read, because another run comes.
    pub(super) fn forget(&mut self) {
        self.number = None;
    }
}

/// Reads a run from its beginning to its end.
pub(super) struct Entries<'a> {
    run: &'a Run,
    /// Whole pages.
    bytes: Vec<u8>,
    /// The page after those in `bytes`.
    next_page: usize,
    /// Where we are in `bytes`: which page, and which of its entries.
    page: usize,
    entry: usize,
}

impl Iterator for Entries<'_> {
    type Item = Result<(Key, Location), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let page = self.bytes.get(self.page * PAGE_BYTES..(self.page + 1) * PAGE_BYTES);
            if let Some(page) = page {
                if self.entry < count(page) {
                    let at = PAGE_HEAD_BYTES + self.entry * ENTRY_BYTES;
                    self.entry += 1;
                    return Some(entry_of(&page[at..at + ENTRY_BYTES]).map_err(|why| self.run.broken(why)));
                }
                (self.page, self.entry) = (self.page + 1, 0);
                continue;
            }
            let pages = (self.run.fences.len() - self.next_page).min(AHEAD_PAGES);
            if pages == 0 {
                return None;
            }
            self.bytes.resize(pages * PAGE_BYTES, 0);
            let read = self.run.file.read_exact_at(&mut self.bytes, (self.next_page as u64 + 1) * PAGE_BYTES as u64);
            let checked = read.and_then(|()| self.bytes.chunks_exact(PAGE_BYTES).try_for_each(check_page));
            if let Err(why) = checked {
                self.bytes.clear();
                self.next_page = self.run.fences.len();
                return Some(Err(self.run.broken(why)));
            }
            (self.next_page, self.page, self.entry) = (self.next_page + pages, 0, 0);
        }
    }
}

/// Writes a run, entry by entry.
pub(super) struct RunWriter {
    /// Its name once it is finished; until then it has another.
    path: PathBuf,
    number: u64,
    file: BufWriter<File>,
    page: Vec<u8>,
    entries: u64,
    fences: Vec<u64>,
    filter: Filter,
}

impl RunWriter {
    /// Begins a run of at most about so many entries.
    pub(super) fn create(path: PathBuf, number: u64, entries: u64) -> io::Result<Self> {
        // Readable too: it is read as soon as it is finished.
        let file = File::options().read(true).write(true).create(true).truncate(true).open(unfinished(&path))?;
        let mut file = BufWriter::with_capacity(WRITE_BYTES, file);
        file.write_all(&[0; PAGE_BYTES])?;
        let filter = Filter::new(entries, FILTER_BITS);
        let page = Vec::with_capacity(PAGE_BYTES);
        Ok(Self { path, number, file, page, entries: 0, fences: Vec::new(), filter })
    }

    /// Adds the next entry; each key is greater than the one before.
    pub(super) fn push(&mut self, key: &Key, location: &Location) -> io::Result<()> {
        if self.page.is_empty() {
            self.page.resize(PAGE_HEAD_BYTES, 0);
            self.fences.push(fence(&key.hash));
        }
        push_entry(&mut self.page, key, location);
        self.filter.insert(print(key));
        self.entries += 1;
        if self.page.len() + ENTRY_BYTES > PAGE_BYTES { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> io::Result<()> {
        if self.page.is_empty() {
            return Ok(());
        }
        let count = ((self.page.len() - PAGE_HEAD_BYTES) / ENTRY_BYTES) as u16;
        self.page[4..6].copy_from_slice(&count.to_le_bytes());
        self.page.resize(PAGE_BYTES, 0);
        let crc = crc32fast::hash(&self.page[4..]);
        self.page[..4].copy_from_slice(&crc.to_le_bytes());
        self.file.write_all(&self.page)?;
        self.page.clear();
        Ok(())
    }

    /// Ends the run and gives it its name. It survives a crash when this returns, if `is_to_last`.
    pub(super) fn finish(mut self, covered: Vec<Covered>, is_to_last: bool) -> io::Result<Run> {
        self.end_page()?;
        let mut tail: Vec<u8> = self.fences.iter().flat_map(|fence| fence.to_le_bytes()).collect();
        for row in &covered {
            tail.extend_from_slice(&row.segment.to_le_bytes());
            tail.extend_from_slice(&row.nonce.to_le_bytes());
            tail.extend_from_slice(&row.length.to_le_bytes());
        }
        let lines = self.filter.to_bytes();
        self.file.write_all(&tail)?;
        self.file.write_all(&lines)?;
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&self.entries.to_le_bytes());
        head.extend_from_slice(&(self.fences.len() as u64).to_le_bytes());
        // One row for each segment, and a line for some 40 entries of 55 bytes in a file: they fit.
        for word in [covered.len() as u32, (lines.len() / LINE_BYTES) as u32] {
            head.extend_from_slice(&word.to_le_bytes());
        }
        head.extend_from_slice(&crc32fast::hash(&tail).to_le_bytes());
        head.extend_from_slice(&crc32fast::hash(&lines).to_le_bytes());
        head.resize(HEAD_BYTES - 4, 0);
        head.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&head)?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        if is_to_last {
            file.sync_all()?;
        }
        fs::rename(unfinished(&self.path), &self.path)?;
        if is_to_last && let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        let (number, entries) = (self.number, self.entries);
        Ok(Run { number, entries, covered, path: self.path, file, fences: self.fences, filter: Some(self.filter) })
    }
}

/// The name of a run that is not finished.
fn unfinished(path: &Path) -> PathBuf {
    path.with_extension(&UNFINISHED_SUFFIX[1..])
}

fn fence(hash: &Hash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn check_page(page: &[u8]) -> io::Result<()> {
    if crc32fast::hash(&page[4..]) != word(page, 0) || count(page) > PAGE_ENTRIES {
        return Err(damaged("a page is damaged"));
    }
    Ok(())
}

fn count(page: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([page[4], page[5]]))
}

/// The entry of that name on a checked page.
fn search<'a>(page: &'a [u8], key: &Key) -> Option<&'a [u8]> {
    let entries = &page[PAGE_HEAD_BYTES..PAGE_HEAD_BYTES + count(page) * ENTRY_BYTES];
    let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
    let wanted = (&key.hash.0[..], key.kind as u8);
    let found = entries.binary_search_by(|entry| (&entry[..32], entry[32]).cmp(&wanted)).ok()?;
    entries.get(found).map(|entry| &entry[..])
}

/// Adds the [`ENTRY_BYTES`] bytes of an entry.
pub(super) fn push_entry(bytes: &mut Vec<u8>, key: &Key, location: &Location) {
    bytes.extend_from_slice(&key.hash.0);
    bytes.extend_from_slice(&[key.kind as u8, location.packing.code(), location.features_length]);
    for word in [location.segment, location.offset, location.stored, location.plain, location.crc] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
}

/// Reads [`ENTRY_BYTES`] bytes.
pub(super) fn entry_of(bytes: &[u8]) -> io::Result<(Key, Location)> {
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[..32]);
    let kind = [Kind::Chunk, Kind::Page].into_iter().find(|&kind| kind as u8 == bytes[32]);
    let (Some(kind), Some(packing)) = (kind, Packing::of_code(bytes[33])) else {
        return Err(damaged("it has an entry of a later version"));
    };
    let [segment, offset, stored, plain, crc] = [35, 39, 43, 47, 51].map(|at| word(bytes, at));
    let location = Location { segment, offset, stored, plain, crc, packing, features_length: bytes[34] };
    Ok((Key { kind, hash: Hash(hash) }, location))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

fn damaged(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(number: u64) -> Key {
        let kind = if number.is_multiple_of(7) { Kind::Page } else { Kind::Chunk };
        Key { kind, hash: Hash::of(&number.to_le_bytes()) }
    }

    fn location(number: u64) -> Location {
        let word = number as u32;
        let packing = [Packing::Raw, Packing::Zstd, Packing::Dependent][number as usize % 3];
        let (stored, plain, crc) = (word / 3, word / 5, !word);
        Location { segment: word % 9, offset: word, stored, plain, crc, packing, features_length: word as u8 }
    }

    fn sorted(numbers: impl IntoIterator<Item = u64>) -> BTreeMap<(Hash, Kind), (Key, Location)> {
        numbers.into_iter().map(|number| (order(&key(number)), (key(number), location(number)))).collect()
    }

    fn write(path: &Path, entries: &BTreeMap<(Hash, Kind), (Key, Location)>) -> Run {
        let mut writer = RunWriter::create(path.to_owned(), 1, entries.len() as u64).unwrap();
        entries.values().for_each(|(key, location)| writer.push(key, location).unwrap());
        writer.finish(vec![Covered { segment: 3, nonce: 4, length: 5 }], true).unwrap()
    }

    #[test]
    fn a_run_finds_what_was_put_in_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.run");
        for entries in [0, 1, 74, 75, 5000] {
            let expected = sorted(0..entries);
            write(&path, &expected);
            for filter_bytes in [0, u64::MAX] {
                let run = Run::open(path.clone(), 1, filter_bytes).unwrap();
                assert_eq!(run.covered, [Covered { segment: 3, nonce: 4, length: 5 }]);
                assert_eq!((run.entries, run.filter_bytes() > 0), (entries, filter_bytes > 0));
                let mut page = Page::new();
                for number in 0..entries {
                    assert_eq!(run.find(&key(number), &mut page).unwrap(), Some(location(number)));
                    let other_kind = if key(number).kind == Kind::Page { Kind::Chunk } else { Kind::Page };
                    assert_eq!(run.find(&Key { kind: other_kind, ..key(number) }, &mut page).unwrap(), None);
                }
                assert!((entries..entries + 500).all(|other| run.find(&key(other), &mut page).unwrap().is_none()));
                let all: Vec<_> = run.entries().map(Result::unwrap).collect();
                assert_eq!(all, expected.values().copied().collect::<Vec<_>>());
            }
        }
    }

    /// Hashes that begin alike by the thousand do not come by chance, but they may come.
    #[test]
    fn hashes_with_one_beginning_are_all_found() {
        let folder = tempfile::tempdir().unwrap();
        let alike = |number: u64| {
            let mut hash = [7; 32];
            hash[24..].copy_from_slice(&number.to_be_bytes());
            Key::chunk(Hash(hash))
        };
        let entries: BTreeMap<_, _> =
            (0..500).map(|number| (order(&alike(number)), (alike(number), location(number)))).collect();
        let run = write(&folder.path().join("1.run"), &entries);
        for number in 0..500 {
            assert_eq!(run.find(&alike(number), &mut Page::new()).unwrap(), Some(location(number)));
        }
        assert_eq!(run.find(&alike(500), &mut Page::new()).unwrap(), None);
    }

    proptest! {
        /// Whatever happens to the file: what is found is true, or it is said that the run is broken.
        #[test]
        fn a_damaged_run_never_says_what_is_not_so(
            at in any::<prop::sample::Index>(), bit in 0u8..8, is_cut in any::<bool>(), has_filter in any::<bool>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("1.run");
            write(&path, &sorted(0..300));
            let mut bytes = fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            if is_cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            fs::write(&path, &bytes).unwrap();
            let Ok(run) = Run::open(path, 1, if has_filter { u64::MAX } else { 0 }) else { return Ok(()) };
            for number in 0..300 {
                let found = run.find(&key(number), &mut Page::new());
                prop_assert!(found.is_err() || found.unwrap() == Some(location(number)));
            }
            let all: Result<Vec<_>, _> = run.entries().collect();
            prop_assert!(all.is_err() || all.unwrap().len() == 300);
        }
    }
}
