//! References: the run of a base image's chunks that an encoder knew, and how one is chosen.
//!
//! A fetcher names images that it holds whole. A holder that has one of them too can encode a chunk against a run of the
//! base's chunks that is similar to it: what both have need not be sent. The run is found by [`Features`], or, where the
//! content has none in common, by where the chunks before it lie in the base. It is a hint either way: the decoded bytes
//! are bounded, and must hash to the name that the manifest gives.

use crate::ids::Hash;
use crate::image::manifest::ChunkRef;
use crate::image::similarity::{FEATURES, Features};

/// Chunks in a reference, at most.
pub const MAX_REFERENCE_CHUNKS: u8 = 32;
/// Plain bytes that a reference stands for, at most: what a receiver must read to decode one chunk.
pub const MAX_REFERENCE_BYTES: u64 = 256 * 1024;

/// Plain bytes that an encoder aims at: more costs time and gains little.
const AIM_BYTES: u64 = 128 * 1024;
/// Chunks before the similar one that are taken too: content moves towards the end more often than towards the start.
const CHUNKS_BEFORE: u32 = 1;
/// Chunks of one base that share a feature and are looked at: more are content that is everywhere, such as padding.
const MAX_CANDIDATES: usize = 16;
/// So far from where it was expected, a chunk's place says nothing any more.
const FAR_CHUNKS: u32 = 512;
/// So many chunks after the last one that was found, the next is still expected in its place.
const REACH_CHUNKS: u32 = 8;

/// A run of chunks of one of the bases that a fetcher named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Which of the bases, as they were named.
    pub base: u8,
    /// The first chunk of the run, holes not counted.
    pub first: u32,
    /// Chunks in the run.
    pub count: u8,
}

/// Why a reference means nothing. The peer that sent it misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// No base of that number was named.
    #[error("base {base} was not named; there are {named}")]
    NoSuchBase {
        /// The number.
        base: u8,
        /// Bases that were named.
        named: usize,
    },
    /// The base has no such run.
    #[error("{count} chunks from {first} on are no run of a base of {chunks} chunks")]
    NoSuchRun {
        /// Its first chunk.
        first: u32,
        /// Its chunks.
        count: u8,
        /// Chunks of the base.
        chunks: usize,
    },
    /// It stands for more than [`MAX_REFERENCE_CHUNKS`] or [`MAX_REFERENCE_BYTES`].
    #[error("a reference of {count} chunks and {bytes} bytes is too long")]
    TooLong {
        /// Its chunks.
        count: u8,
        /// Their plain bytes.
        bytes: u64,
    },
}

impl Reference {
    /// The chunks of its base, whose chunks these are, that it stands for; at most [`MAX_REFERENCE_BYTES`] of them.
    ///
    /// # Errors
    /// It is empty, or the base has no such run, or the run is too long.
    pub fn run<'a>(&self, chunks: &'a [ChunkRef]) -> Result<&'a [ChunkRef], ReferenceError> {
        let Self { first, count, .. } = *self;
        let no_such_run = ReferenceError::NoSuchRun { first, count, chunks: chunks.len() };
        if count == 0 {
            return Err(no_such_run);
        }
        let start = first as usize;
        let run = chunks.get(start..start.saturating_add(count.into())).ok_or(no_such_run)?;
        let bytes = run.iter().map(|chunk| u64::from(chunk.length)).sum();
        if count > MAX_REFERENCE_CHUNKS || bytes > MAX_REFERENCE_BYTES {
            return Err(ReferenceError::TooLong { count, bytes });
        }
        Ok(run)
    }
}

/// A base as an encoder knows it: where its chunks lie by name and by feature. About 100 bytes a chunk.
#[derive(Debug, Clone, Default)]
pub struct Base {
    lengths: Vec<u32>,
    /// The first eight bytes of each chunk's name and where it lies, in order.
    names: Vec<(u64, u32)>,
    /// Each chunk's features and where it lies, in order.
    features: [Vec<(u32, u32)>; FEATURES],
}

impl Base {
    /// Learns the chunks of a base, in their order, with their features where they have any.
    pub fn new(chunks: impl IntoIterator<Item = (ChunkRef, Features)>) -> Self {
        let mut base = Self::default();
        for (place, (chunk, features)) in (0..).zip(chunks) {
            base.lengths.push(chunk.length);
            base.names.push((name(&chunk.hash), place));
            if features != Features::NONE {
                for (list, feature) in base.features.iter_mut().zip(features.0) {
                    list.push((feature, place));
                }
            }
        }
        base.names.sort_unstable();
        base.features.iter_mut().for_each(|list| list.sort_unstable());
        base
    }

    /// Chunks it has.
    pub fn chunks(&self) -> usize {
        self.lengths.len()
    }

    /// Where a chunk of that name lies, first.
    pub fn place_of(&self, hash: &Hash) -> Option<u32> {
        let name = name(hash);
        let at = self.names.partition_point(|&(other, _)| other < name);
        self.names.get(at).filter(|&&(other, _)| other == name).map(|&(_, place)| place)
    }

    /// The chunk that shares most features; among equals the one that lies nearest to where it is expected. With how
    /// many it shares.
    pub fn most_similar(&self, features: &Features, expected: Option<u32>) -> Option<(u32, usize)> {
        if *features == Features::NONE {
            return None;
        }
        let mut candidates: Vec<u32> = Vec::new();
        for (list, feature) in self.features.iter().zip(features.0) {
            let from = list.partition_point(|&(other, _)| other < feature);
            let same = list[from..].iter().take_while(|&&(other, _)| other == feature);
            candidates.extend(same.take(MAX_CANDIDATES).map(|&(_, place)| place));
        }
        candidates.sort_unstable();
        let distance = |place: u32| expected.map_or(0, |expected| expected.abs_diff(place).min(FAR_CHUNKS));
        let best = candidates.chunk_by(|a, b| a == b).map(|same| (same[0], same.len()));
        best.max_by_key(|&(place, shared)| (shared, std::cmp::Reverse(distance(place)), std::cmp::Reverse(place)))
    }

    /// The run around a chunk that a reference should stand for: its first chunk and how many.
    pub fn around(&self, place: u32) -> Option<(u32, u8)> {
        let length = |place: u32| self.lengths.get(place as usize).map(|&length| u64::from(length));
        let (mut first, mut end, mut bytes) = (place, place + 1, length(place)?);
        while let Some(before) = first.checked_sub(1)
            && place - before <= CHUNKS_BEFORE
            && let Some(more) = length(before).filter(|more| bytes + more <= AIM_BYTES)
        {
            (first, bytes) = (before, bytes + more);
        }
        while end - first < MAX_REFERENCE_CHUNKS.into()
            && let Some(more) = length(end).filter(|more| bytes + more <= AIM_BYTES)
        {
            (end, bytes) = (end + 1, bytes + more);
        }
        u8::try_from(end - first).ok().map(|count| (first, count))
    }
}

/// Chooses references for the chunks of one image, as they are asked for.
///
/// It remembers where in each base the last chunk was found: content without features of its own is expected to lie
/// where it lay, and among chunks that are equally similar the one nearest to there is meant.
#[derive(Debug)]
pub struct Finder<B> {
    bases: Vec<Known<B>>,
}

#[derive(Debug)]
struct Known<B> {
    /// As the fetcher named it.
    number: u8,
    base: B,
    /// A chunk of the image, and where something like it lies in the base.
    last: Option<(u32, u32)>,
}

impl<B: AsRef<Base>> Finder<B> {
    /// Over bases by the numbers under which the fetcher named them, those that it prefers first.
    pub fn new(bases: impl IntoIterator<Item = (u8, B)>) -> Self {
        let known = |(number, base)| Known { number, base, last: None };
        Self { bases: bases.into_iter().map(known).collect() }
    }

    /// Whether there is anything to choose from.
    pub fn is_empty(&self) -> bool {
        self.bases.is_empty()
    }

    /// A base by its number.
    pub fn base(&self, number: u8) -> Option<&B> {
        self.bases.iter().find(|known| known.number == number).map(|known| &known.base)
    }

    /// The reference for chunk `index` of the image whose chunks these are; `None` where no base has anything like it.
    pub fn find(&mut self, chunks: &[ChunkRef], index: u32, features: &Features) -> Option<Reference> {
        let mut best: Option<(usize, usize, u32)> = None;
        for (at, known) in self.bases.iter().enumerate() {
            let expected = known.expected(chunks, index);
            let similar = known.base.as_ref().most_similar(features, expected);
            let found = similar.map(|(place, shared)| (shared, place)).or(expected.map(|place| (0, place)));
            if let Some((shared, place)) = found
                && best.is_none_or(|(most, ..)| shared > most)
            {
                best = Some((shared, at, place));
            }
        }
        let (_, at, place) = best?;
        let known = self.bases.get_mut(at)?;
        known.last = Some((index, place));
        let (first, count) = known.base.as_ref().around(place)?;
        Some(Reference { base: known.number, first, count })
    }
}

impl<B: AsRef<Base>> Known<B> {
    /// Where a chunk should lie, to judge by the one before it.
    fn expected(&self, chunks: &[ChunkRef], index: u32) -> Option<u32> {
        let base = self.base.as_ref();
        let before = index.checked_sub(1).and_then(|before| chunks.get(before as usize));
        let place = match before.and_then(|before| base.place_of(&before.hash)) {
            Some(place) => place + 1,
            None => {
                let (last, place) = self.last?;
                place.checked_add(index.checked_sub(last).filter(|&since| since <= REACH_CHUNKS)?)?
            }
        };
        ((place as usize) < base.chunks()).then_some(place)
    }
}

fn name(hash: &Hash) -> u64 {
    hash.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        bytes
    }

    fn base(contents: &[Vec<u8>]) -> (Vec<ChunkRef>, Base) {
        let mut offset = 0;
        let mut chunks = Vec::new();
        for content in contents {
            chunks.push(ChunkRef { hash: Hash::of(content), offset, length: content.len() as u32 });
            offset += content.len() as u64;
        }
        let base = Base::new(chunks.iter().copied().zip(contents.iter().map(|content| Features::of(content))));
        (chunks, base)
    }

    #[test]
    fn a_changed_chunk_finds_what_it_was() {
        let contents: Vec<Vec<u8>> = (0..50).map(|seed| noise(seed, 20_000 + 100 * seed as usize)).collect();
        let (chunks, base) = base(&contents);
        for (place, content) in (0..).zip(&contents) {
            let changed = [&content[..9_000], b"a security update", &content[9_000..]].concat();
            let (found, shared) = base.most_similar(&Features::of(&changed), None).unwrap();
            assert_eq!(found, place);
            assert!(shared >= 2);
            assert_eq!(base.place_of(&chunks[place as usize].hash), Some(place));
        }
        assert_eq!(base.most_similar(&Features::of(&noise(1000, 30_000)), None), None);
        assert_eq!(base.most_similar(&Features::NONE, None), None);
        assert_eq!(base.place_of(&Hash::of(b"elsewhere")), None);
    }

    #[test]
    fn among_equals_the_nearest_is_taken() {
        let same = noise(1, 30_000);
        let contents: Vec<Vec<u8>> =
            (0..60).map(|place| if place % 10 == 0 { same.clone() } else { noise(100 + place, 10_000) }).collect();
        let (_, base) = base(&contents);
        let features = Features::of(&same);
        assert_eq!(base.most_similar(&features, Some(33)), Some((30, FEATURES)));
        assert_eq!(base.most_similar(&features, Some(47)), Some((50, FEATURES)));
        assert_eq!(base.most_similar(&features, None), Some((0, FEATURES)));
    }

    proptest! {
        #[test]
        fn what_is_chosen_is_always_allowed(lengths in prop::collection::vec(1..=131_072u32, 1..80), place in 0..90u32) {
            let mut offset = 0;
            let chunks: Vec<ChunkRef> = lengths.iter().map(|&length| {
                let chunk = ChunkRef { hash: Hash::of(&offset.to_string().into_bytes()), offset, length };
                offset += u64::from(length);
                chunk
            }).collect();
            let base = Base::new(chunks.iter().map(|&chunk| (chunk, Features::NONE)));
            match base.around(place) {
                None => prop_assert!(place as usize >= chunks.len()),
                Some((first, count)) => {
                    let run = Reference { base: 0, first, count }.run(&chunks).unwrap();
                    prop_assert!(run.contains(&chunks[place as usize]));
                }
            }
        }

        #[test]
        fn no_reference_stands_for_more_than_is_allowed(
            lengths in prop::collection::vec(1..=131_072u32, 0..80), first: u32, count: u8, near in any::<bool>()
        ) {
            let chunk = |&length: &u32| ChunkRef { hash: Hash::of(b""), offset: 0, length };
            let chunks: Vec<ChunkRef> = lengths.iter().map(chunk).collect();
            let first = if near { first % 80 } else { first };
            if let Ok(run) = (Reference { base: 0, first, count }).run(&chunks) {
                prop_assert!(!run.is_empty() && run.len() <= usize::from(MAX_REFERENCE_CHUNKS));
                prop_assert!(run.iter().map(|chunk| u64::from(chunk.length)).sum::<u64>() <= MAX_REFERENCE_BYTES);
            }
        }
    }
}
