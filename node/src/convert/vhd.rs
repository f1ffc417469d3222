//! VHD, by Microsoft's "Virtual Hard Disk Image Format Specification" 1.0: fixed and dynamic disks.

use super::{Content, Foreign, Refusal, Shown, SourceFormat, foreign};

const MARK: &[u8] = b"conectix";
const DYNAMIC_MARK: &[u8] = b"cxsparse";
const FOOTER_BYTES: u64 = 512;
const DYNAMIC_HEAD_BYTES: usize = 1024;
const CHECKSUM_AT: usize = 64;
const DYNAMIC_CHECKSUM_AT: usize = 36;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;

/// Length of the disk, in bytes.
pub(super) fn inspect(content: &impl Content) -> Result<u64, Refusal> {
    let at = content.length().checked_sub(FOOTER_BYTES).ok_or(Refusal::Unmarked(SourceFormat::Vhd))?;
    let head: [u8; FOOTER_BYTES as usize] = content.bytes(0)?;
    let footer: [u8; FOOTER_BYTES as usize] = content.bytes(at)?;
    let begins_as = foreign(&head);
    if !footer.starts_with(MARK) {
        return Err(match begins_as {
            Some(Foreign::Vhd) => Refusal::Damaged("its footer is missing; it may have been cut short"),
            Some(found) => Refusal::Other { said: SourceFormat::Vhd, found },
            None => Refusal::Unmarked(SourceFormat::Vhd),
        });
    }
    if checksum(&footer, CHECKSUM_AT) != word(&footer, CHECKSUM_AT) {
        return Err(Refusal::Damaged("the checksum of its footer is wrong"));
    }
    if word(&footer, 12) >> 16 != 1 {
        return Err(Refusal::Unknown(format!("version {}", word(&footer, 12) >> 16)));
    }
    let virtual_bytes = long(&footer, 48);
    match (word(&footer, 60), begins_as) {
        // A fixed disk begins with its content; were that a VHD again, tools would take it for the disk.
        (FIXED, Some(found)) => return Err(Refusal::Polyglot { said: SourceFormat::Vhd, found }),
        (FIXED, None) if virtual_bytes > at => {
            return Err(Refusal::Damaged("it is shorter than its footer says"));
        }
        (FIXED, None) => {}
        (DYNAMIC, Some(Foreign::Vhd)) if head == footer => dynamic(content, &footer)?,
        (DYNAMIC, _) => return Err(Refusal::Damaged("its header is not the copy of its footer that it should be")),
        (DIFFERENCING, _) => return Err(Refusal::Backing(Shown::new(b"it is a differencing disk"))),
        (kind, _) => return Err(Refusal::Unknown(format!("disk type {kind}"))),
    }
    Ok(virtual_bytes)
}

/// Whether the last sector is a footer: then it is a fixed VHD, whoever calls it raw.
pub(super) fn has_footer(content: &impl Content) -> bool {
    let at = content.length().checked_sub(FOOTER_BYTES);
    let footer = at.and_then(|at| content.bytes::<{ FOOTER_BYTES as usize }>(at).ok());
    footer
        .is_some_and(|footer| footer.starts_with(MARK) && checksum(&footer, CHECKSUM_AT) == word(&footer, CHECKSUM_AT))
}

fn dynamic(content: &impl Content, footer: &[u8]) -> Result<(), Refusal> {
    let head: [u8; DYNAMIC_HEAD_BYTES] = content.bytes(long(footer, 16))?;
    if !head.starts_with(DYNAMIC_MARK) {
        return Err(Refusal::Damaged("its dynamic header is missing"));
    }
    if checksum(&head, DYNAMIC_CHECKSUM_AT) != word(&head, DYNAMIC_CHECKSUM_AT) {
        return Err(Refusal::Damaged("the checksum of its dynamic header is wrong"));
    }
    // The name of a parent counts for nothing in a disk that is not a differencing one; a well-made one has none.
    if head[64..576].iter().any(|&byte| byte != 0) {
        return Err(Refusal::Backing(Shown::new(b"its header names a parent")));
    }
    Ok(())
}

/// The ones' complement of the sum of all bytes but the checksum's own.
fn checksum(bytes: &[u8], at: usize) -> u32 {
    let without = bytes.iter().enumerate().filter(|(index, _)| !(at..at + 4).contains(index));
    !without.fold(0u32, |sum, (_, &byte)| sum.wrapping_add(byte.into()))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) << 32 | u64::from(word(bytes, at + 4))
}
