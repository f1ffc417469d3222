//! The records log: the truth about what this site knows, in one file that is only ever appended to.
//!
//! ```text
//! header  "rialto-records-2\n"
//! frame   length: u32 LE │ crc32 of the body: u32 LE │ body
//! body    1 │ length of source: u8 │ source │ envelope              a record, of a log that did not keep arrivals
//!         2 │ sync id: 32 bytes │ signers: n × 32 bytes             that version was evicted
//!         3 │ length of source: u8 │ source │ arrivals │ envelope   a record, or a version of it with more signatures
//! ```
//!
//! The source is whom the record is charged to; how arrivals are written, [`super::arrival`] says.
//!
//! Frames are appended in batches and fsynced once a batch. What an interrupted write left at the end is cut off at the
//! next open, with a warning. Damage anywhere else costs the frames that it hit: behind it, the next place where a sound
//! frame begins is looked for, so that not even a damaged length cuts off what follows.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rialto_protocol::ids::{Hash, PublicKey};
use rialto_protocol::signed::{MAX_ENVELOPE_BYTES, MAX_ISSUERS};

use super::CatalogError;
use super::arrival::{self, Arrival, MAX_ARRIVALS_BYTES};

const HEADER: &[u8] = b"rialto-records-2\n";
/// The header of a log without arrivals. It is read; an earlier version would take what is appended to it for damage, and
/// so the header is made a new one first.
const FIRST_HEADER: &[u8] = b"rialto-records-1\n";
/// Where the first frame begins.
pub(super) const START: u64 = HEADER.len() as u64;
const FRAME_HEAD_BYTES: usize = 8;
const RECORD_WITHOUT_ARRIVALS: u8 = 1;
const EVICTED: u8 = 2;
const RECORD: u8 = 3;
/// A body is at most this long: an envelope with the longest source and arrivals, or (less) a full list of signers.
const MAX_BODY_BYTES: usize = MAX_ENVELOPE_BYTES + 2 + MAX_SOURCE_BYTES + MAX_ARRIVALS_BYTES;
/// The text form of a libp2p peer id has 46 to 52 characters; anything longer is none.
pub(super) const MAX_SOURCE_BYTES: usize = 128;
/// Frames handed over at once while the log is read.
const BATCH: usize = 1_024;
/// Bytes looked through at once for the next sound frame.
const SEARCH_BYTES: usize = 1 << 20;

/// Where a frame lies in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Where it begins.
    pub(super) at: u64,
    /// Its length, its head included.
    pub(super) bytes: u32,
}

/// What one frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// `arrivals` are empty where the log did not keep them.
    Record {
        source: Option<String>,
        arrivals: Vec<Arrival>,
        envelope: Vec<u8>,
    },
    Evicted {
        sync_id: Hash,
        signers: Vec<PublicKey>,
    },
}

impl Frame {
    /// Appends the frame's bytes; gives their number.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> u64 {
        match self {
            Self::Record { source, arrivals, envelope } => {
                Self::encode_record(source.as_deref(), arrivals, envelope, out)
            }
            Self::Evicted { sync_id, signers } => encode_frame(out, |body| {
                body.push(EVICTED);
                body.extend_from_slice(&sync_id.0);
                signers.iter().for_each(|key| body.extend_from_slice(&key.0));
            }),
        }
    }

    /// How many bytes the frame of something evicted has that so many keys signed.
    pub(super) fn evicted_bytes(signers: usize) -> u64 {
        (FRAME_HEAD_BYTES + 1 + 32 + 32 * signers) as u64
    }

    /// Appends a record's frame without copying it into a [`Frame`] first.
    pub(super) fn encode_record(source: Option<&str>, arrivals: &[Arrival], envelope: &[u8], out: &mut Vec<u8>) -> u64 {
        let source = source.unwrap_or_default().as_bytes();
        let source = &source[..source.len().min(MAX_SOURCE_BYTES)];
        encode_frame(out, |body| {
            body.extend_from_slice(&[RECORD, source.len() as u8]);
            body.extend_from_slice(source);
            arrival::encode(arrivals, body);
            body.extend_from_slice(envelope);
        })
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let (&kind, rest) = body.split_first()?;
        match kind {
            RECORD | RECORD_WITHOUT_ARRIVALS => {
                let (&length, rest) = rest.split_first()?;
                let (source, rest) = rest.split_at_checked(length.into())?;
                let source = String::from_utf8(source.to_vec()).ok()?;
                let (arrivals, envelope) = match kind {
                    RECORD => arrival::decode(rest)?,
                    _ => (Vec::new(), rest),
                };
                Some(Self::Record {
                    source: Some(source).filter(|source| !source.is_empty()),
                    arrivals,
                    envelope: envelope.into(),
                })
            }
            EVICTED => {
                let (sync_id, keys) = rest.split_first_chunk::<32>()?;
                let (keys, rest) = keys.as_chunks::<32>();
                let is_whole = rest.is_empty() && keys.len() <= MAX_ISSUERS;
                is_whole.then(|| Self::Evicted {
                    sync_id: Hash(*sync_id),
                    signers: keys.iter().copied().map(PublicKey).collect(),
                })
            }
            _ => None,
        }
    }
}

/// Appends a frame whose body `write` appends.
fn encode_frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> u64 {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
    write(out);
    let (head, body) = out[start..].split_at_mut(FRAME_HEAD_BYTES);
    head[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    (out.len() - start) as u64
}

/// The open log. Every method blocks on the disk.
#[derive(Debug)]
pub(super) struct Log {
    file: Arc<File>,
    path: PathBuf,
    /// Bytes that are known to be good; whatever lies behind them is cut off before the next append.
    length: u64,
    is_dirty: bool,
    /// The length from which on another attempt to write it anew is worth it.
    try_again_at: u64,
}

impl Log {
    /// Opens or creates the log, hands over its frames in order, and cuts off a torn tail.
    ///
    /// # Errors
    /// The file cannot be read or written, or is of a newer format.
    pub(super) fn open(directory: &Path, mut each: impl FnMut(Vec<(Place, Frame)>)) -> Result<Self, CatalogError> {
        let path = directory.join("records.log");
        // What an interrupted compaction left; the log itself is still whole.
        let _ = std::fs::remove_file(unfinished(&path));
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|error| CatalogError::io("open", &path, error))?;
        let mut log = Self { file: Arc::new(file), path, length: 0, is_dirty: false, try_again_at: 0 };
        let size = log.file.metadata().map_err(|error| log.failed("read", error))?.len();
        log.read_header(size)?;
        log.replay(size, &mut each)?;
        if log.length < size {
            log.set_tail_aside(size);
            tracing::warn!(
                file = %log.path.display(), bytes = size - log.length,
                "the end of the records log was not written completely (a crash or power loss); it is cut off, and \
                 what it held comes back by catch-up"
            );
            log.file
                .set_len(log.length)
                .and_then(|()| log.file.sync_all())
                .map_err(|error| log.failed("cut", error))?;
        }
        Ok(log)
    }

    /// Copies a long tail beside the log before it is cut off: more than one frame may be damage, not interruption.
    fn set_tail_aside(&self, size: u64) {
        if size - self.length <= MAX_BODY_BYTES as u64 {
            return;
        }
        let aside = self.path.with_extension("log.cut");
        let copied = File::open(&self.path).and_then(|mut from| {
            from.seek(SeekFrom::Start(self.length))?;
            std::io::copy(&mut from, &mut File::create(&aside)?)
        });
        match copied {
            Ok(bytes) => tracing::warn!(file = %aside.display(), bytes, "what is cut off the records log is kept here"),
            Err(error) => {
                tracing::warn!(file = %aside.display(), %error, "what is cut off the records log was not kept")
            }
        }
    }

    fn read_header(&mut self, size: u64) -> Result<(), CatalogError> {
        let mut header = Vec::new();
        let wanted = HEADER.len() as u64;
        (&*self.file).take(wanted).read_to_end(&mut header).map_err(|error| self.failed("read", error))?;
        if header == FIRST_HEADER {
            // Not through the log's own handle, which only ever appends.
            let file = OpenOptions::new().write(true).open(&self.path).map_err(|error| self.failed("open", error))?;
            file.write_all_at(HEADER, 0)
                .and_then(|()| file.sync_data())
                .map_err(|error| self.failed("write to", error))?;
            HEADER.clone_into(&mut header);
        }
        if header == HEADER {
            self.length = wanted;
            return Ok(());
        }
        if size >= wanted || !(HEADER.starts_with(&header) || FIRST_HEADER.starts_with(&header)) {
            return Err(CatalogError::Format { path: self.path.clone() });
        }
        // New, or interrupted while it was new.
        self.file.set_len(0).map_err(|error| self.failed("create", error))?;
        self.append(HEADER)?;
        sync_directory(&self.path)
    }

    fn replay(&mut self, size: u64, each: &mut impl FnMut(Vec<(Place, Frame)>)) -> Result<(), CatalogError> {
        let file = self.file.try_clone().map_err(|error| self.failed("read", error))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        reader.seek(SeekFrom::Start(self.length)).map_err(|error| self.failed("read", error))?;
        let (mut at, mut batch, mut body) = (self.length, Vec::with_capacity(BATCH), Vec::new());
        while at < size {
            let read = read_frame(&mut reader, size - at, &mut body).map_err(|error| self.failed("read", error))?;
            match read.and_then(|bytes| Some((Frame::decode(&body)?, bytes))) {
                Some((frame, bytes)) => {
                    batch.push((Place { at, bytes: bytes as u32 }, frame));
                    at += bytes;
                    self.length = at;
                }
                None => {
                    let next = self.next_sound(at, size).map_err(|error| self.failed("read", error))?;
                    // Nothing sound behind it: the torn end.
                    let Some(next) = next else { break };
                    tracing::warn!(
                        file = %self.path.display(), at, bytes = next - at,
                        "a damaged part of the records log is skipped; what it held comes back by catch-up"
                    );
                    at = next;
                    reader.seek(SeekFrom::Start(at)).map_err(|error| self.failed("read", error))?;
                }
            }
            if batch.len() == BATCH {
                each(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)));
            }
        }
        each(batch);
        Ok(())
    }

    /// Where the first sound frame behind a damaged one begins.
    ///
    /// First where the damaged frame's own length says that it ends: that is right wherever only its body is damaged, and
    /// nothing that a record holds can then pass for a frame. Else wherever length, kind and checksum fit.
    fn next_sound(&self, damaged: u64, size: u64) -> std::io::Result<Option<u64>> {
        let mut window = Vec::new();
        let mut look_at = |from: u64, wanted: usize| -> std::io::Result<Option<u64>> {
            let room = (SEARCH_BYTES.min(wanted) + FRAME_HEAD_BYTES + MAX_BODY_BYTES) as u64;
            // `size` was the file's: what is left fits memory where `room` does.
            window.resize(size.saturating_sub(from).min(room) as usize, 0);
            self.file.read_exact_at(&mut window, from)?;
            let found = (0..window.len().min(wanted)).find(|start| is_sound_frame(&window[*start..]));
            Ok(found.map(|start| from + start as u64))
        };
        let mut head = [0; 4];
        if size - damaged > FRAME_HEAD_BYTES as u64 {
            self.file.read_exact_at(&mut head, damaged)?;
            let end = damaged + FRAME_HEAD_BYTES as u64 + u64::from(u32::from_le_bytes(head));
            if end < size && u32::from_le_bytes(head) as usize <= MAX_BODY_BYTES {
                let next = look_at(end, 1)?;
                if next.is_some() {
                    return Ok(next);
                }
            }
        }
        let mut from = damaged + 1;
        while from < size {
            let next = look_at(from, SEARCH_BYTES)?;
            if next.is_some() {
                return Ok(next);
            }
            from += SEARCH_BYTES as u64;
        }
        Ok(None)
    }

    /// Appends whole frames and fsyncs. When it fails, the log is as before.
    ///
    /// # Errors
    /// The disk is full or broken.
    pub(super) fn append(&mut self, frames: &[u8]) -> Result<(), CatalogError> {
        if frames.is_empty() {
            return Ok(());
        }
        if self.is_dirty {
            self.file.set_len(self.length).map_err(|error| self.failed("mend", error))?;
        }
        self.is_dirty = true;
        if let Err(error) = (&*self.file).write_all(frames).and_then(|()| self.file.sync_data()) {
            // Cut off what was written of it. Where even that fails, the next append or open does it.
            self.is_dirty = self.file.set_len(self.length).is_err();
            return Err(self.failed("append to", error));
        }
        self.is_dirty = false;
        self.length += frames.len() as u64;
        Ok(())
    }

    /// Replaces the log by one with these encoded frames only, one behind the other. A crash leaves the old one or the new
    /// one. Who still reads the old one can go on.
    ///
    /// # Errors
    /// The disk is full or broken, or a frame could not be had; the old log is still in use.
    pub(super) fn rewrite(
        &mut self,
        frames: impl Iterator<Item = std::io::Result<Vec<u8>>>,
    ) -> Result<(), CatalogError> {
        let unfinished = unfinished(&self.path);
        let written = write_whole(&unfinished, frames).and_then(|(file, length)| {
            std::fs::rename(&unfinished, &self.path)?;
            Ok((file, length))
        });
        match written {
            Ok((file, length)) => {
                (self.file, self.length, self.is_dirty, self.try_again_at) = (Arc::new(file), length, false, 0);
                // It is the log from here on. Should the power fail before the disk knows, the old one is still whole.
                if let Err(error) = sync_directory(&self.path) {
                    tracing::warn!(%error, "the compacted records log may not be in its place after a power loss");
                }
                Ok(())
            }
            Err(error) => {
                let _ = std::fs::remove_file(&unfinished);
                Err(CatalogError::io("write", &unfinished, error))
            }
        }
    }

    /// Whether it may be tried to write it anew: not soon after that failed.
    pub(super) fn may_be_rewritten(&self) -> bool {
        self.length >= self.try_again_at
    }

    /// Lets it grow by a quarter before it is tried again.
    pub(super) fn was_not_rewritten(&mut self) {
        self.try_again_at = self.length + self.length / 4;
    }

    /// Reads from the log as it is now.
    pub(super) fn reader(&self) -> Reader {
        Reader { file: Arc::clone(&self.file), path: Arc::from(self.path.as_path()) }
    }

    /// Bytes of the file: where the next frame will begin.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Writes to another file from now on: for tests of a disk that fails.
    #[cfg(test)]
    pub(super) fn use_file(&mut self, file: File) {
        self.file = Arc::new(file);
    }

    fn failed(&self, what: &'static str, error: std::io::Error) -> CatalogError {
        CatalogError::io(what, &self.path, error)
    }
}

/// Reads single frames, while others write. What a compaction replaced stays readable for who has it.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    file: Arc<File>,
    path: Arc<Path>,
}

impl Reader {
    /// The bytes of a frame.
    pub(super) fn bytes(&self, place: Place) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; place.bytes as usize];
        self.file.read_exact_at(&mut bytes, place.at)?;
        match is_sound_frame(&bytes) {
            true => Ok(bytes),
            false => Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the frame is damaged")),
        }
    }

    /// A frame; `None`, with a warning in the log, where it cannot be read any more.
    pub(super) fn frame(&self, place: Place) -> Option<Frame> {
        match self.bytes(place) {
            Ok(bytes) => Frame::decode(&bytes[FRAME_HEAD_BYTES..]),
            Err(error) => {
                tracing::error!(
                    file = %self.path.display(), at = place.at, %error,
                    "a record cannot be read from the records log; after a restart it comes back by catch-up"
                );
                None
            }
        }
    }
}

/// Reads one frame into `body` and gives its length, its head included; `None` where no sound frame begins here.
fn read_frame(reader: &mut impl Read, left: u64, body: &mut Vec<u8>) -> std::io::Result<Option<u64>> {
    if left < FRAME_HEAD_BYTES as u64 {
        return Ok(None);
    }
    let mut head = [0; FRAME_HEAD_BYTES];
    reader.read_exact(&mut head)?;
    let (length, crc) = read_head(head);
    let bytes = (FRAME_HEAD_BYTES + length) as u64;
    if length == 0 || length > MAX_BODY_BYTES || bytes > left {
        return Ok(None);
    }
    body.resize(length, 0);
    reader.read_exact(body)?;
    Ok((crc32fast::hash(body) == crc).then_some(bytes))
}

/// Whether a whole frame with the right checksum, of a kind that there is, begins here.
fn is_sound_frame(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>() else { return false };
    let (length, crc) = read_head(*head);
    // Cheap questions first: this is asked of every byte of the log behind a damaged one.
    let is_plausible = (1..=MAX_BODY_BYTES).contains(&length)
        && matches!(rest.first(), Some(&(RECORD_WITHOUT_ARRIVALS | EVICTED | RECORD)));
    is_plausible && rest.get(..length).is_some_and(|body| crc32fast::hash(body) == crc)
}

/// The length of a frame's body, and its checksum.
fn read_head(head: [u8; FRAME_HEAD_BYTES]) -> (usize, u32) {
    let [a, b, c, d, e, f, g, h] = head;
    (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]))
}

fn write_whole(path: &Path, frames: impl Iterator<Item = std::io::Result<Vec<u8>>>) -> std::io::Result<(File, u64)> {
    let file = OpenOptions::new().read(true).append(true).create_new(true).open(path)?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    writer.write_all(HEADER)?;
    let mut length = START;
    for frame in frames {
        let frame = frame?;
        length += frame.len() as u64;
        writer.write_all(&frame)?;
    }
    let file = writer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok((file, length))
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("log.new")
}

fn sync_directory(path: &Path) -> Result<(), CatalogError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| CatalogError::io("sync", directory, error))
}
