//! OVA, by DMTF DSP0243: a tar archive of plain files, read by the narrow letter of POSIX ustar.
//!
//! An OVF package is flat and holds regular files only, so everything else that tar can say is refused: links, folders,
//! devices, sparse and extended entries, names that lead elsewhere, and one name twice.

use std::collections::BTreeSet;

use super::{Content, Refusal, Shown, SourceFormat, foreign};

const BLOCK_BYTES: u64 = 512;
/// Files of an archive: an OVF description, its manifest and certificate, and a few disks.
const MAX_MEMBERS: usize = 64;
const MAGIC_AT: usize = 257;
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// A file of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    /// Where its content starts, in bytes.
    pub(super) start: u64,
    /// In bytes.
    pub(super) length: u64,
}

/// The disk called `wanted`, or the only one.
pub(super) fn disk(content: &impl Content, wanted: Option<&str>) -> Result<Member, Refusal> {
    let mut disks: Vec<Member> = members(content)?.into_iter().filter(|member| is_disk(&member.name)).collect();
    let shown = |disks: &[Member]| disks.iter().map(|disk| Shown::new(disk.name.as_bytes())).collect();
    let at = match wanted {
        Some(wanted) => disks
            .iter()
            .position(|disk| disk.name == wanted)
            .ok_or_else(|| Refusal::NoMember { wanted: Shown::new(wanted.as_bytes()), found: shown(&disks) })?,
        None if disks.len() > 1 => return Err(Refusal::Several(shown(&disks))),
        None if disks.is_empty() => return Err(Refusal::Archive("it holds no disk whose name ends in .vmdk".into())),
        None => 0,
    };
    Ok(disks.swap_remove(at))
}

fn is_disk(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, extension)| extension.eq_ignore_ascii_case("vmdk"))
}

/// The files of the archive, in order.
pub(super) fn members(content: &impl Content) -> Result<Vec<Member>, Refusal> {
    let (mut members, mut names) = (Vec::new(), BTreeSet::new());
    let mut at = 0;
    while at + BLOCK_BYTES <= content.length() {
        let head: [u8; BLOCK_BYTES as usize] = content.bytes(at)?;
        if head.iter().all(|&byte| byte == 0) {
            break;
        }
        if at == 0 && !head[MAGIC_AT..].starts_with(b"ustar") {
            let said = SourceFormat::Ova;
            return Err(foreign(&head).map_or(Refusal::Unmarked(said), |found| Refusal::Other { said, found }));
        }
        if members.len() == MAX_MEMBERS {
            return Err(Refusal::Archive(format!("it holds more than {MAX_MEMBERS} files")));
        }
        let member = member(&head, at + BLOCK_BYTES, content.length())?;
        if !names.insert(member.name.to_lowercase()) {
            let name = Shown::new(member.name.as_bytes());
            return Err(Refusal::Archive(format!("it holds two files called {name}")));
        }
        at = member.start + member.length.next_multiple_of(BLOCK_BYTES);
        members.push(member);
    }
    Ok(members)
}

fn member(head: &[u8; BLOCK_BYTES as usize], start: u64, end: u64) -> Result<Member, Refusal> {
    let refused = |why: &str| Err(Refusal::Archive(why.to_owned()));
    if !head[MAGIC_AT..].starts_with(b"ustar") {
        return refused("it is no tar archive throughout");
    }
    let sum = head.iter().enumerate().map(|(at, &byte)| if CHECKSUM.contains(&at) { 32 } else { u64::from(byte) });
    if number(&head[CHECKSUM]) != Some(sum.sum()) {
        return refused("a checksum in it is wrong");
    }
    let name = text(&head[..100]);
    let Some(name) = std::str::from_utf8(name).ok().filter(|name| is_plain(name) && head[345] == 0) else {
        let name = Shown::new(name);
        return Err(Refusal::Archive(format!("a file in it is called {name}, which is no plain name")));
    };
    match head[156] {
        b'0' | 0 => {}
        b'x' | b'g' | b'L' | b'K' => {
            return refused("it has extended entries. Pack it anew: tar --format=ustar -cf");
        }
        b'S' => return refused("it has a sparse entry. Pack it anew: tar --format=ustar -cf"),
        b'1' | b'2' => return refused("it has a link"),
        b'5' => return refused("it has a folder, and an OVF package is flat"),
        _ => return refused("it has an entry that is no file"),
    }
    match number(&head[124..136]) {
        Some(length) if length <= end.saturating_sub(start) => Ok(Member { name: name.to_owned(), start, length }),
        Some(_) => Err(Refusal::Damaged("a file in it goes beyond its end; it may have been cut short")),
        None => refused("the length of a file in it is no number"),
    }
}

fn is_plain(name: &str) -> bool {
    let is_harmless = |c: char| !c.is_control() && !matches!(c, '/' | '\\');
    !name.is_empty() && !matches!(name, "." | "..") && name.chars().all(is_harmless)
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// An octal number, or GNU's binary one for what is too long for that.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if *first == 0x80 {
        let (high, low) = rest.split_at(rest.len().checked_sub(8)?);
        return high.iter().all(|&byte| byte == 0).then(|| low.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)));
    }
    let digits = text(field).trim_ascii();
    if digits.is_empty() || !digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}
