//! VMDK, by VMware's "Virtual Disk Format 5.0": hosted sparse extents that carry their own descriptor.

use super::{Content, Refusal, Shown, SourceFormat, expect_mark};

const MAGIC: &[u8] = b"KDMV";
const SECTOR_BYTES: u64 = 512;
const HEAD_BYTES: usize = 512;
/// A descriptor is a page of text; VMware reserves 20 sectors. QEMU reads this much at most.
const MAX_DESCRIPTOR_BYTES: u64 = 64 * 1024;
/// Marks a header whose real values stand in a footer, in streamOptimized files.
const AT_END: u64 = u64::MAX;
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=3;

// Flags.
const NEWLINES: u32 = 1 << 0;
const REDUNDANT: u32 = 1 << 1;
const ZEROED: u32 = 1 << 2;
const COMPRESSED: u32 = 1 << 16;
const MARKERS: u32 = 1 << 17;

/// Length of the disk, in bytes.
pub(super) fn inspect(content: &impl Content) -> Result<u64, Refusal> {
    let mut head = [0; HEAD_BYTES];
    let there = content.length().min(HEAD_BYTES as u64) as usize;
    content.exact(0, &mut head[..there])?;
    if head.starts_with(b"# Disk DescriptorFile") {
        let mut text = vec![0; content.length().min(MAX_DESCRIPTOR_BYTES) as usize];
        content.exact(0, &mut text)?;
        let named = extents(&text).next().and_then(|extent| extent.file).unwrap_or(b"unnamed");
        return Err(Refusal::Elsewhere(Shown::new(named)));
    }
    if head.starts_with(b"COWD") {
        return Err(Refusal::Unknown("the form of ESX servers of old (COWD)".into()));
    }
    expect_mark(&head, MAGIC, SourceFormat::Vmdk)?;
    let header = Header::read(&head)?;
    // A stream's footer, which is then what counts, may differ only in where its directory is.
    if header.directory == AT_END {
        // Marker, footer, marker for the end: a sector each.
        let at = content.length().checked_sub(2 * SECTOR_BYTES).ok_or(Refusal::Damaged("it ends too early"))?;
        let footer: [u8; HEAD_BYTES] = content.bytes(at)?;
        if !footer.starts_with(MAGIC) {
            return Err(Refusal::Damaged("its footer is missing; it may have been cut short"));
        }
        let footer = Header::read(&footer)?;
        if (footer.sectors, footer.descriptor, footer.descriptor_sectors)
            != (header.sectors, header.descriptor, header.descriptor_sectors)
        {
            return Err(Refusal::Damaged("its header and its footer contradict each other"));
        }
    }
    let start = header.descriptor.checked_mul(SECTOR_BYTES);
    let length = header.descriptor_sectors.checked_mul(SECTOR_BYTES).filter(|&length| length <= MAX_DESCRIPTOR_BYTES);
    let (Some(start @ 1..), Some(length @ 1..)) = (start, length) else {
        return Err(Refusal::Damaged("it carries no descriptor of a sensible length"));
    };
    let mut text = vec![0; length as usize];
    content.exact(start, &mut text)?;
    check_descriptor(&text, header.sectors)?;
    header.sectors.checked_mul(SECTOR_BYTES).ok_or(Refusal::Absurd(u64::MAX))
}

struct Header {
    sectors: u64,
    descriptor: u64,
    descriptor_sectors: u64,
    directory: u64,
}

impl Header {
    fn read(bytes: &[u8; HEAD_BYTES]) -> Result<Self, Refusal> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let (version, flags, sectors) = (word(4), word(8), long(12));
        if !VERSIONS.contains(&version) {
            return Err(Refusal::Unknown(format!("version {version}")));
        }
        let unknown = flags & !(NEWLINES | REDUNDANT | ZEROED | COMPRESSED | MARKERS);
        if unknown != 0 {
            return Err(Refusal::Unknown(format!("flags {unknown:#x}")));
        }
        // QEMU takes a file without sectors for one that lists others.
        if sectors == 0 {
            return Err(Refusal::Elsewhere(Shown::new(b"its descriptor lists them")));
        }
        Ok(Self { sectors, descriptor: long(28), descriptor_sectors: long(36), directory: long(56) })
    }
}

/// One extent of the file's own, no parent, no key.
fn check_descriptor(text: &[u8], sectors: u64) -> Result<(), Refusal> {
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    for (key, value) in lines(text).filter_map(pair) {
        match &key.to_ascii_lowercase()[..] {
            b"parentfilenamehint" => return Err(Refusal::Backing(Shown::new(value))),
            b"parentcid" if !value.eq_ignore_ascii_case(b"ffffffff") => {
                return Err(Refusal::Backing(Shown::new(value)));
            }
            b"createtype" => match &value.to_ascii_lowercase()[..] {
                b"monolithicsparse" | b"streamoptimized" => {}
                _ => return Err(Refusal::Elsewhere(Shown::new(value))),
            },
            b"encryption.keysafe" | b"encryption.data" => return Err(Refusal::Encrypted),
            _ => {}
        }
    }
    // The parent of a disk is looked for anywhere in the text by some tools, so it is here, too.
    if text.windows(18).any(|part| part.eq_ignore_ascii_case(b"parentFileNameHint")) {
        return Err(Refusal::Backing(Shown::new(b"parentFileNameHint")));
    }
    let mut found = extents(text);
    match (found.next(), found.next()) {
        (Some(Extent { sectors: length, kind, .. }), None)
            if kind.eq_ignore_ascii_case(b"SPARSE") && length == Some(sectors) =>
        {
            Ok(())
        }
        (Some(Extent { kind, .. }), None) if kind.eq_ignore_ascii_case(b"SPARSE") => {
            Err(Refusal::Damaged("its header and its descriptor contradict each other"))
        }
        (Some(first), second) => {
            let elsewhere = second.unwrap_or(first).file.unwrap_or(b"another extent");
            Err(Refusal::Elsewhere(Shown::new(elsewhere)))
        }
        (None, _) => Err(Refusal::Damaged("its descriptor describes nothing")),
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii).filter(|line| !line.starts_with(b"#"))
}

fn pair(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|&byte| byte == b'=')?;
    let (key, value) = (line[..at].trim_ascii(), line[at + 1..].trim_ascii());
    let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Some((key, quoted.unwrap_or(value)))
}

/// `RW 4192256 SPARSE "disk.vmdk"`
struct Extent<'a> {
    sectors: Option<u64>,
    kind: &'a [u8],
    file: Option<&'a [u8]>,
}

fn extents(text: &[u8]) -> impl Iterator<Item = Extent<'_>> {
    lines(text).filter_map(|line| {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let access = words.next()?;
        if ![&b"RW"[..], b"RDONLY", b"NOACCESS"].iter().any(|word| access.eq_ignore_ascii_case(word)) {
            return None;
        }
        let sectors = words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
        let kind = words.next().unwrap_or_default();
        let file = line.split(|&byte| byte == b'"').nth(1);
        Some(Extent { sectors, kind, file })
    })
}
