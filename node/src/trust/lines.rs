//! A file of lines that are only ever appended, each with a checksum, each on disk before it counts.
//!
//! ```text
//! {"crc32":"89abcdef","decision":{…}}        crc32 of the bytes of the value as they stand; the second word says what it is
//! ```
//!
//! What a crash leaves behind the last whole line is cut off when the file is opened.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A line is at most this long: a decision that rested on some ten thousand records.
pub(super) const MAX_LINE_BYTES: usize = 1024 * 1024;
const BEFORE_CRC: &str = "{\"crc32\":\"";
const AFTER_VALUE: &str = "}";

/// The end of a file, where lines are appended.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    /// Where the last whole line ends, in bytes.
    end: u64,
    /// BLAKE3 of that line, its line feed included; `None` where there is no line.
    last: Option<[u8; 32]>,
    /// Whether something may stand behind `end`, from a write that failed.
    is_torn: bool,
}

impl Tail {
    /// Opens the file, or begins one, and cuts off what is not a whole line. Blocks on the disk.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let is_new = !path.try_exists()?;
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if is_new && let Some(parent) = path.parent() {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            File::open(parent)?.sync_all()?;
        }
        let length = file.metadata()?.len();
        let end = end_of_last_line(&mut file, length)?;
        if end < length {
            tracing::warn!(path = %path.display(), bytes = length - end, "the file ends in half a line, which is cut off");
            file.set_len(end)?;
            file.sync_all()?;
        }
        let last = hash_of_last_line(&mut file, end)?;
        Ok(Self { file, end, last, is_torn: false })
    }

    /// BLAKE3 of the last line, its line feed included; `None` where there is no line.
    pub(super) fn last(&self) -> Option<[u8; 32]> {
        self.last
    }

    /// Bytes of whole lines.
    pub(super) fn length(&self) -> u64 {
        self.end
    }

    /// Appends whole lines, and returns once they are on disk. Where it fails, nothing was appended.
    pub(super) fn append(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.end)?;
        }
        self.is_torn = true;
        self.file.seek(SeekFrom::Start(self.end))?;
        let written = self.file.write_all(line).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Tidied up at once where that works, else before the next line or at the next start.
            self.is_torn = self.file.set_len(self.end).is_err();
            return Err(error);
        }
        self.is_torn = false;
        self.end += line.len() as u64;
        self.last = Some(hash_of_last(line));
        Ok(())
    }
}

/// Where the last line feed stands, plus one. Reads backwards, so that a long log opens at once.
fn end_of_last_line(file: &mut File, length: u64) -> std::io::Result<u64> {
    const STEP: u64 = 64 * 1024;
    let mut end = length;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.take(end - start).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// BLAKE3 of the line that ends, with its line feed, at `end`, whatever it says.
fn hash_of_last_line(file: &mut File, end: u64) -> std::io::Result<Option<[u8; 32]>> {
    let Some(before) = end.checked_sub(1) else { return Ok(None) };
    let start = end_of_last_line(file, before)?;
    file.seek(SeekFrom::Start(start))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.take(end - start))?;
    Ok(Some(hasher.finalize().into()))
}

/// BLAKE3 of the last of some whole lines.
fn hash_of_last(lines: &[u8]) -> [u8; 32] {
    let before = lines.len().saturating_sub(1);
    let start = lines[..before].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    blake3::hash(&lines[start..]).into()
}

/// A value as one line, called `word`.
pub(super) fn line_of<T: Serialize>(word: &str, value: &T) -> std::io::Result<String> {
    let value = serde_json::to_string(value)?;
    let crc = crc32fast::hash(value.as_bytes());
    Ok(format!("{BEFORE_CRC}{crc:08x}\",\"{word}\":{value}{AFTER_VALUE}\n"))
}

/// The value of a line, where the line is sound.
pub(super) fn value_of<T: DeserializeOwned>(word: &str, line: &[u8]) -> Option<T> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (crc, rest) = line.strip_prefix(BEFORE_CRC)?.split_once("\",\"")?;
    let value = rest.strip_prefix(word)?.strip_prefix("\":")?.strip_suffix(AFTER_VALUE)?;
    if crc != format!("{:08x}", crc32fast::hash(value.as_bytes())) {
        return None;
    }
    serde_json::from_str(value).ok()
}

/// Reads a file from its beginning, a line at a time: the value, or `None` where the line is damaged.
pub(super) fn read<T: DeserializeOwned>(
    file: impl Read,
    word: &'static str,
) -> impl Iterator<Item = std::io::Result<Option<T>>> {
    read_hashed(file, word).map(|line| line.map(|(value, _)| value))
}

/// As [`read`], each with BLAKE3 of its line, the line feed included.
pub(super) fn read_hashed<T: DeserializeOwned>(
    file: impl Read,
    word: &'static str,
) -> impl Iterator<Item = std::io::Result<(Option<T>, [u8; 32])>> {
    let mut lines = BufReader::new(file);
    let mut has_failed = false;
    std::iter::from_fn(move || {
        if has_failed {
            return None;
        }
        match next_line(&mut lines) {
            Ok(line) => line.map(|line| Ok((value_of(word, &line), blake3::hash(&line).into()))),
            Err(error) => {
                has_failed = true;
                Some(Err(error))
            }
        }
    })
}

/// The next line with its line feed, cut short where it is longer than any that was written; `None` at the end, and for
/// a last line that is still being written.
fn next_line(lines: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = MAX_LINE_BYTES as u64;
    lines.by_ref().take(limit).read_until(b'\n', &mut line)?;
    if line.len() == MAX_LINE_BYTES && !line.ends_with(b"\n") {
        lines.skip_until(b'\n')?;
        return Ok(Some(line));
    }
    Ok(line.ends_with(b"\n").then_some(line))
}
