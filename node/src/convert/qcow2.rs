//! qcow2, by QEMU's `docs/interop/qcow2.txt`: the header and its extensions.

use super::{Content, Refusal, Shown, SourceFormat, expect_mark};

const MAGIC: &[u8] = b"QFI\xfb";
/// Header bytes of version 2.
const SHORT_HEAD_BYTES: u64 = 72;
/// Header bytes of version 3, without what later ones add.
const LONG_HEAD_BYTES: u64 = 104;
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// The longest name of a backing file that the format allows, in bytes.
const MAX_NAME_BYTES: u32 = 1023;
/// Extensions looked at: a header has one cluster, and QEMU writes five.
const MAX_EXTENSIONS: usize = 64;

// Incompatible features.
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

// Header extensions.
const END: u32 = 0;
const EXTERNAL_DATA_NAME: u32 = 0x4441_5441;
const ENCRYPTION: u32 = 0x0537_be77;

/// Length of the disk, in bytes.
pub(super) fn inspect(content: &impl Content) -> Result<u64, Refusal> {
    let mut head = vec![0; content.length().min(LONG_HEAD_BYTES) as usize];
    content.exact(0, &mut head)?;
    expect_mark(&head, MAGIC, SourceFormat::Qcow2)?;
    let head: [u8; SHORT_HEAD_BYTES as usize] = content.bytes(0)?;
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));

    let (version, cluster_bits, virtual_bytes) = (word(4), word(20), long(24));
    if !matches!(version, 2 | 3) {
        return Err(Refusal::Unknown(format!("version {version}")));
    }
    if !CLUSTER_BITS.contains(&cluster_bits) {
        return Err(Refusal::Damaged("its cluster size is none that the format has"));
    }
    let cluster_bytes = 1u64 << cluster_bits;
    if long(8) != 0 {
        let length = word(16).min(MAX_NAME_BYTES);
        let mut name = vec![0; length as usize];
        // Where the name cannot be read, that there is one is enough.
        let name = content.exact(long(8), &mut name).map(|()| name).unwrap_or_default();
        return Err(Refusal::Backing(Shown::new(&name)));
    }
    match word(32) {
        0 => {}
        1 | 2 => return Err(Refusal::Encrypted),
        method => return Err(Refusal::Unknown(format!("encryption method {method}"))),
    }
    let head_bytes = if version == 2 { SHORT_HEAD_BYTES } else { features(content, cluster_bytes)? };
    extensions(content, head_bytes, cluster_bytes.min(content.length()))?;
    Ok(virtual_bytes)
}

/// What version 3 adds. Returns the length of the header, in bytes.
fn features(content: &impl Content, cluster_bytes: u64) -> Result<u64, Refusal> {
    let incompatible = u64::from_be_bytes(content.bytes(72)?);
    if incompatible & EXTERNAL_DATA != 0 {
        return Err(Refusal::Elsewhere(Shown::new(b"an external data file")));
    }
    if incompatible & CORRUPT != 0 {
        return Err(Refusal::Damaged("QEMU has marked it as corrupt. Repair it first: qemu-img check -r all"));
    }
    if incompatible & DIRTY != 0 {
        return Err(Refusal::Damaged("it was not closed cleanly. Repair it first: qemu-img check -r all"));
    }
    let unknown = incompatible & !(COMPRESSION_TYPE | EXTENDED_L2);
    if unknown != 0 {
        return Err(Refusal::Unknown(format!("incompatible features ({unknown:#x})")));
    }
    let head_bytes = u64::from(u32::from_be_bytes(content.bytes(100)?));
    if head_bytes < LONG_HEAD_BYTES || head_bytes > cluster_bytes || !head_bytes.is_multiple_of(8) {
        return Err(Refusal::Damaged("its header has a length that no header has"));
    }
    Ok(head_bytes)
}

fn extensions(content: &impl Content, mut at: u64, end: u64) -> Result<(), Refusal> {
    for _ in 0..MAX_EXTENSIONS {
        if at + 8 > end {
            return Ok(());
        }
        let head: [u8; 8] = content.bytes(at)?;
        let [a, b, c, d, e, f, g, h] = head;
        let (kind, length) = (u32::from_be_bytes([a, b, c, d]), u64::from(u32::from_be_bytes([e, f, g, h])));
        if length > end - at - 8 {
            return Err(Refusal::Damaged("an extension of its header is longer than the header"));
        }
        match kind {
            END => return Ok(()),
            EXTERNAL_DATA_NAME => {
                let mut name = vec![0; length.min(u64::from(MAX_NAME_BYTES)) as usize];
                content.exact(at + 8, &mut name)?;
                return Err(Refusal::Elsewhere(Shown::new(&name)));
            }
            ENCRYPTION => return Err(Refusal::Encrypted),
            // Compatible by definition: who does not know it ignores it.
            _ => at += 8 + length.next_multiple_of(8),
        }
    }
    Err(Refusal::Damaged("its header has more extensions than any tool writes"))
}
