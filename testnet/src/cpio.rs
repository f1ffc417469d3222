//! Writes the `newc` form of cpio archives, which is what the kernel unpacks as its initrd.
//!
//! Format: `Documentation/driver-api/early-userspace/buffer-format.rst` of the Linux sources. Every entry belongs to
//! root and has one time, so that the same content makes the same bytes.

/// Mode bits of the entries that an initrd needs.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// An archive in the making.
#[derive(Debug)]
pub struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
    modified: u32,
}

impl Cpio {
    /// An empty archive whose entries all carry this time (seconds since 1970).
    pub fn new(modified: u32) -> Self {
        Self { bytes: Vec::new(), entries: 0, modified }
    }

    /// Adds a directory with mode 0755.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, b"");
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, REGULAR | mode, content);
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, SYMLINK | 0o777, target.as_bytes());
    }

    /// The whole archive, with its trailer.
    pub fn finish(mut self) -> Vec<u8> {
        self.entries = u32::MAX; // the trailer's inode is 0
        self.entry("TRAILER!!!", 0, b"");
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries = self.entries.wrapping_add(1);
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let modified = if self.entries == 0 { 0 } else { self.modified };
        self.bytes.extend_from_slice(b"070701");
        // Inode, mode, uid, gid, links, time, length, device, device it stands for, length of the name, no checksum.
        let name_length = path.len() as u32 + 1;
        let fields = [self.entries, mode, 0, 0, links, modified, content.len() as u32, 0, 0, 0, 0, name_length, 0];
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    /// Headers and contents start at multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_the_bytes_that_the_kernel_reads() {
        let mut archive = Cpio::new(0x10);
        archive.file("a", 0o644, b"xyz");
        let bytes = archive.finish();
        let entry = b"07070100000001000081A4000000000000000000000001000000100000000300000000000000000000000000000000\
                      0000000200000000a\0xyz\0";
        assert_eq!(bytes[..entry.len()], entry[..]);
        assert_eq!(&bytes[entry.len()..entry.len() + 14], b"07070100000000");
        assert!(bytes.windows(11).any(|window| window == b"TRAILER!!!\0"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
