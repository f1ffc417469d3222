//! What catch-up calls a version of a record: as much of its sync id as tells it from the others.

use std::fmt;
use std::ops::RangeInclusive;

use crate::ids::Hash;

/// The first 16 bytes of a [sync id](crate::signed::Verified::sync_id). Nobody finds a second record to one that there is;
/// two of one's own that begin alike take 2⁶⁴ attempts, and then either may keep the other from being noticed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortId(pub [u8; Self::BYTES]);

impl ShortId {
    /// How long it is.
    pub const BYTES: usize = 16;

    /// The first bytes of it.
    pub fn first_eight(&self) -> Beginning {
        Beginning::Eight(first(&self.0))
    }
}

impl From<&Hash> for ShortId {
    fn from(sync_id: &Hash) -> Self {
        Self(first(&sync_id.0))
    }
}

impl fmt::Display for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShortId({self})")
    }
}

/// The beginning of a sync id, by which a site asks for it: 8 bytes where no other id that it knows of begins with them,
/// which is so unless somebody went to trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Beginning {
    /// The first 8 bytes.
    Eight([u8; 8]),
    /// The first 16 bytes.
    Short(ShortId),
}

impl Beginning {
    /// The bytes: 8 or 16.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Eight(bytes) => bytes,
            Self::Short(ShortId(bytes)) => bytes,
        }
    }

    /// Whether a sync id begins so.
    pub fn fits(&self, sync_id: &Hash) -> bool {
        sync_id.0.starts_with(self.bytes())
    }

    /// The smallest and the largest sync id that begin so: those between are all that do.
    pub fn range(&self) -> RangeInclusive<Hash> {
        Hash(filled(self.bytes(), 0))..=Hash(filled(self.bytes(), 0xff))
    }

    /// The same of short ids.
    pub fn short_range(&self) -> RangeInclusive<ShortId> {
        ShortId(filled(self.bytes(), 0))..=ShortId(filled(self.bytes(), 0xff))
    }
}

impl From<ShortId> for Beginning {
    fn from(id: ShortId) -> Self {
        Self::Short(id)
    }
}

impl From<&Hash> for Beginning {
    /// As much of it as catch-up ever names.
    fn from(sync_id: &Hash) -> Self {
        Self::Short(sync_id.into())
    }
}

impl fmt::Display for Beginning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", data_encoding::HEXLOWER.encode(self.bytes()))
    }
}

/// Short names for these ids, which ascend: of 8 bytes for those that no other of them and nothing `else` begins with, and of
/// all 16 for the others. In order.
pub(super) fn shortest(ids: &[ShortId], mut is_free: impl FnMut(&Beginning) -> bool) -> Vec<Beginning> {
    let alike =
        |one: Option<&ShortId>, other: &ShortId| one.is_some_and(|one| one.first_eight() == other.first_eight());
    let name = |(at, id): (usize, &ShortId)| {
        let is_alone = !alike(at.checked_sub(1).and_then(|before| ids.get(before)), id) && !alike(ids.get(at + 1), id);
        let eight = id.first_eight();
        if is_alone && is_free(&eight) { eight } else { Beginning::Short(*id) }
    };
    let mut names: Vec<_> = ids.iter().enumerate().map(name).collect();
    names.sort_unstable();
    names
}

/// The first bytes; zeros where there are not as many.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

/// These bytes, and as many of that one as are missing.
fn filled<const N: usize>(bytes: &[u8], with: u8) -> [u8; N] {
    std::array::from_fn(|at| bytes.get(at).copied().unwrap_or(with))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_range_holds_what_begins_so_and_nothing_else(id in any::<[u8; 32]>(), other in any::<[u8; 32]>(), alike in 0usize..32) {
            let id = Hash(id);
            let other = Hash(std::array::from_fn(|at| if at < alike { id.0[at] } else { other[at] }));
            let short = ShortId::from(&id);
            for beginning in [Beginning::from(short), short.first_eight()] {
                prop_assert!(beginning.fits(&id) && beginning.range().contains(&id));
                prop_assert!(beginning.short_range().contains(&short));
                prop_assert_eq!(beginning.fits(&other), beginning.range().contains(&other));
                prop_assert_eq!(beginning.fits(&other), beginning.short_range().contains(&ShortId::from(&other)));
            }
        }
    }

    #[test]
    fn ids_that_begin_alike_are_named_in_full() {
        let id = |start: u8, end: u8| {
            let mut bytes = [start; 16];
            bytes[15] = end;
            ShortId(bytes)
        };
        let ids = [id(1, 1), id(2, 1), id(2, 2), id(3, 1), id(4, 1)];
        let names = shortest(&ids, |eight| *eight != id(4, 0).first_eight());
        let expected =
            [id(1, 1).first_eight(), id(3, 1).first_eight(), id(2, 1).into(), id(2, 2).into(), id(4, 1).into()];
        assert_eq!(names, expected);
    }
}
