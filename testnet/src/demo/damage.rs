//! Spoils known content in a site's store, as a failing disk would: wherever the bytes lie, and whatever the format is
//! that they are stored in, as long as it keeps them as they are (what does not compress, zstd stores plainly).

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that are compared to recognise content.
const NEEDLE: usize = 16;
/// One byte is flipped for each run of this many: less than the shortest chunk, so that every chunk is hit.
const EVERY: usize = 4096;

/// Flips one byte in every 4 KiB of `content` that any file below `directory` holds, and returns how many it flipped.
///
/// # Errors
/// Files that cannot be read or written.
pub fn flip(directory: &Path, content: &[u8]) -> io::Result<u64> {
    let needles = Needles::new(content);
    let mut flipped = 0;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                flipped += flip_in_file(&entry.path(), &needles)?;
            }
        }
    }
    Ok(flipped)
}

fn flip_in_file(path: &Path, needles: &Needles<'_>) -> io::Result<u64> {
    let bytes = fs::read(path)?;
    let found = needles.positions_in(&bytes);
    if found.is_empty() {
        return Ok(0);
    }
    let file = fs::File::options().write(true).open(path)?;
    for position in &found {
        file.write_all_at(&[bytes[*position] ^ 0xff], *position as u64)?;
    }
    file.sync_all()?;
    Ok(found.len() as u64)
}

/// The beginnings of each 4 KiB of some content, ready to be searched for.
struct Needles<'a> {
    whole: HashSet<&'a [u8]>,
    /// Whether any of them begins with these two bytes: rules out nearly every position at the cost of one look.
    beginnings: Vec<bool>,
}

impl<'a> Needles<'a> {
    fn new(content: &'a [u8]) -> Self {
        let whole: HashSet<&[u8]> = content.chunks(EVERY).filter_map(|run| run.get(..NEEDLE)).collect();
        let mut beginnings = vec![false; 1 << 16];
        for needle in &whole {
            beginnings[beginning(needle)] = true;
        }
        Self { whole, beginnings }
    }

    fn positions_in(&self, bytes: &[u8]) -> Vec<usize> {
        let windows = bytes.windows(NEEDLE).enumerate();
        let found = windows.filter(|(_, window)| self.beginnings[beginning(window)] && self.whole.contains(window));
        found.map(|(position, _)| position).collect()
    }
}

/// The first two bytes as a number.
fn beginning(window: &[u8]) -> usize {
    usize::from(window[0]) << 8 | usize::from(window[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_content_is_spoiled_wherever_it_lies_and_nothing_else() {
        let content = crate::appliance::Appliance::data("a test");
        let content = &content[..3 * EVERY];
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("store");
        fs::create_dir(&inner).unwrap();
        let before = [b"some header", content, b"some trailer"].concat();
        fs::write(inner.join("segment"), &before).unwrap();
        fs::write(directory.path().join("config"), "name = 'x'").unwrap();

        assert_eq!(flip(directory.path(), content).unwrap(), 3);

        let after = fs::read(inner.join("segment")).unwrap();
        let changed: Vec<usize> = (0..after.len()).filter(|at| before[*at] != after[*at]).collect();
        assert_eq!(changed, [11, 11 + EVERY, 11 + 2 * EVERY]);
        assert_eq!(fs::read(directory.path().join("config")).unwrap(), b"name = 'x'");
        assert_eq!(flip(directory.path(), b"short").unwrap(), 0);
    }
}
