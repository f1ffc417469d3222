//! Flat files that share blocks on disk with an earlier one, where the file system can do so (btrfs, XFS).
//!
//! What is shared is never trusted: an export that begins as a clone reads every chunk of it, and writes those that are not
//! what the image says. Blocks that two versions of an image have in common, at the same place, are then on disk once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rialto_protocol::ids::Hash;
use rialto_protocol::image::manifest::{ChunkRef, Manifest};
use rustix::fs::{FallocateFlags, OFlags};

/// Makes `new` a clone of the file at `like`, as long as the image and with a hole wherever the image has one. `false`, and
/// nothing in `new`, where the file system does not share blocks, or there is no such file.
pub(super) fn clone_into(new: &File, like: &Path, manifest: &Manifest) -> io::Result<bool> {
    let open = || rustix::fs::open(like, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, 0.into());
    let is_cloned = open().and_then(|like| rustix::fs::ioctl_ficlone(new, like)).is_ok();
    if is_cloned && new.set_len(manifest.bytes).and_then(|()| clear_holes(new, manifest)).is_ok() {
        return Ok(true);
    }
    new.set_len(0)?;
    Ok(false)
}

/// Whether the file has this chunk where the image has it.
pub(super) fn has(file: &File, chunk: &ChunkRef) -> bool {
    let mut bytes = vec![0; chunk.length as usize];
    file.read_exact_at(&mut bytes, chunk.offset).is_ok() && Hash::of(&bytes) == chunk.hash
}

/// Frees what lies between the image's chunks: it reads as zeros then.
fn clear_holes(file: &File, manifest: &Manifest) -> io::Result<()> {
    let mut end = 0;
    let ends = manifest.chunks.iter().map(|chunk| (chunk.offset, u64::from(chunk.length)));
    for (offset, length) in ends.chain([(manifest.bytes, 0)]) {
        if offset > end {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(file, flags, end, offset - end)?;
        }
        end = offset + length;
    }
    Ok(())
}
