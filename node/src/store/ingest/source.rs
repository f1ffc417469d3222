//! Where content comes from: regular files and block devices, read without their holes.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::super::StoreError;

/// A file or block device that is being read.
#[derive(Debug)]
pub(super) struct Source {
    file: File,
    path: PathBuf,
    bytes: u64,
    /// As it was when it was opened; a block device has none that means anything.
    before: Option<Stamp>,
}

type Stamp = (u64, i64, i64);

impl Source {
    /// Opens a regular file, or a block device that nothing else uses.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let refused = || StoreError::io("open", path);
        // Looked at before it is opened, because a socket cannot be; and after, in case it was replaced.
        let is_device = is_block_device(path, &std::fs::metadata(path).map_err(refused())?)?;
        let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        if is_device {
            // Without CREATE: refused where it is mounted, or used by what would write to it meanwhile.
            flags |= OFlags::EXCL;
        }
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
        let mut file = opened.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::BUSY) => StoreError::DeviceInUse(path.to_owned()),
            _ => refused()(error),
        })?;
        let found = file.metadata().map_err(refused())?;
        let is_device = is_block_device(path, &found)?;
        let bytes = match is_device {
            true => file.seek(SeekFrom::End(0)).map_err(StoreError::io("find the length of", path))?,
            false => found.len(),
        };
        Ok(Self { file, path: path.to_owned(), bytes, before: (!is_device).then(|| stamp(&found)) })
    }

    /// Its length when it was opened, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads at most `buffer`'s length at `at`, which is before the end, and returns how much came: at least a byte.
    pub(super) fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, StoreError> {
        loop {
            match self.file.read_at(buffer, at) {
                Ok(0) => return Err(StoreError::Changed(self.path.clone())),
                Ok(read) => return Ok(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::io("read", &self.path)(error)),
            }
        }
    }

    /// The next stretch of data at or after `at`, which is before the end: where it starts and ends.
    pub(super) fn next_data(&self, at: u64) -> Result<(u64, u64), StoreError> {
        let end = self.bytes;
        let refused = |error: Errno| StoreError::io("read", &self.path)(error.into());
        let data = match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data.min(end),
            // Only a hole follows.
            Err(Errno::NXIO) => return Ok((end, end)),
            // It is a device, or the file system does not tell holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((at, end)),
            Err(error) => return Err(refused(error)),
        };
        let hole = match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Hole(data)) {
            Ok(hole) => hole.min(end),
            Err(Errno::NXIO) => end,
            Err(error) => return Err(refused(error)),
        };
        Ok((data, hole.max(data)))
    }

    /// Checks that nothing was written to it while it was read, as far as that shows.
    pub(super) fn check_unchanged(&self) -> Result<(), StoreError> {
        let Some(before) = self.before else { return Ok(()) };
        let after = self.file.metadata().map_err(StoreError::io("read", &self.path))?;
        if before == stamp(&after) { Ok(()) } else { Err(StoreError::Changed(self.path.clone())) }
    }
}

fn stamp(found: &Metadata) -> Stamp {
    (found.len(), found.mtime(), found.mtime_nsec())
}

fn is_block_device(path: &Path, found: &Metadata) -> Result<bool, StoreError> {
    let kind = found.file_type();
    let found = match () {
        () if kind.is_file() => return Ok(false),
        () if kind.is_block_device() => return Ok(true),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () => "a device without blocks",
    };
    Err(StoreError::NotAFile { path: path.to_owned(), found })
}
