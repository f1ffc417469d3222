//! `rialto-cdc-1`: cuts content into holes and chunks, alike at every site and however the bytes arrive.
//!
//! A run of at least [`HOLE_BLOCKS`] blocks of zeros, each of [`BLOCK_BYTES`] and aligned to that, is a hole, whether or
//! not the file system keeps it as one. What lies between holes is a run of data, and each run is cut by itself with
//! FastCDC (Xia et al., IEEE TPDS 2020; the `v2020` module of the `fastcdc` crate) with normalisation level 1 and seed
//! 0. A short block at the end of the content is data, even where it is all zeros.

use std::convert::Infallible;

use fastcdc::v2020::{Normalization, cut, select_masks};

/// The chunker's name, as manifests state it.
pub const CHUNKER: &str = "rialto-cdc-1";
/// The grid on which holes lie: the block size of common file systems, and of a sparse file's own holes.
pub const BLOCK_BYTES: usize = 4096;
/// Fewer zero blocks than this in a row (64 KiB) stay data: an entry of the manifest costs about as much as such a chunk.
pub const HOLE_BLOCKS: u64 = 16;
/// The shortest hole, in bytes.
pub const MIN_HOLE_BYTES: u64 = HOLE_BLOCKS * BLOCK_BYTES as u64;
/// No chunk is shorter, unless a hole or the end of the content follows it. In bytes.
pub const MIN_CHUNK_BYTES: usize = 8 * 1024;
/// What cut points aim at, in bytes.
pub const AVERAGE_CHUNK_BYTES: usize = 32 * 1024;
/// No chunk is longer, in bytes.
pub const MAX_CHUNK_BYTES: usize = 128 * 1024;

/// The buffer is moved to its front once this many bytes of it are done with, so that moving costs little per byte.
const COMPACT_BYTES: usize = 1 << 20;
/// Bytes of the input that are looked at before chunks are cut off, so that the buffer stays small.
const STEP_BYTES: usize = 256 * 1024;
static ZERO_BLOCK: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// One piece of the content, in order and without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A chunk.
    Data {
        /// Where it starts in the content, in bytes.
        offset: u64,
        /// Its 1 to [`MAX_CHUNK_BYTES`] bytes.
        bytes: &'a [u8],
    },
    /// Zeros that are not stored.
    Hole {
        /// Where it starts in the content, in bytes; a multiple of [`BLOCK_BYTES`].
        offset: u64,
        /// How long it is, in bytes; a multiple of [`BLOCK_BYTES`], at least [`MIN_HOLE_BYTES`].
        length: u64,
    },
}

/// Cuts a stream of bytes. Memory is bounded (about 1.5 MiB) whatever is pushed.
#[derive(Debug)]
pub struct Chunker {
    masks: (u64, u64),
    /// Bytes of the current run of data from `start` on; what lies before was cut off already.
    run: Vec<u8>,
    start: usize,
    /// Where `run[start]` lies in the content, or the hole begins.
    offset: u64,
    /// The block that is being filled.
    block: Vec<u8>,
    /// Whole zero blocks after `run`, of which it is not yet known whether they become a hole.
    zero_blocks: u64,
}

impl Default for Chunker {
    fn default() -> Self {
        Self::new()
    }
}

impl Chunker {
    /// A chunker at the start of some content.
    pub fn new() -> Self {
        Self {
            masks: select_masks(AVERAGE_CHUNK_BYTES, Normalization::Level1),
            run: Vec::new(),
            start: 0,
            offset: 0,
            block: Vec::with_capacity(BLOCK_BYTES),
            zero_blocks: 0,
        }
    }

    /// Takes the next bytes, and gives the pieces that are now certain to `sink`.
    ///
    /// # Errors
    /// Whatever `sink` returns; the chunker is of no further use then.
    pub fn push<E>(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        if !self.block.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            self.close_block(sink)?;
        }
        for step in bytes.chunks(STEP_BYTES) {
            let mut blocks = step.chunks_exact(BLOCK_BYTES);
            for block in &mut blocks {
                self.whole_block(block, sink)?;
            }
            self.cut_off(false, sink)?;
            self.block.extend_from_slice(blocks.remainder());
        }
        Ok(())
    }

    /// Takes `length` zero bytes, in time that does not depend on their number: what a sparse file's holes are.
    ///
    /// # Errors
    /// Whatever `sink` returns; the chunker is of no further use then.
    pub fn push_zeros<E>(
        &mut self,
        mut length: u64,
        sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.block.is_empty() {
            let filling = length.min((BLOCK_BYTES - self.block.len()) as u64);
            self.block.resize(self.block.len() + filling as usize, 0);
            length -= filling;
            self.close_block(sink)?;
        }
        self.zero_blocks(length / BLOCK_BYTES as u64, sink)?;
        // Only non-zero where no block is being filled: the remainder of the length starts one.
        let rest = (length % BLOCK_BYTES as u64) as usize;
        self.block.resize(self.block.len() + rest, 0);
        Ok(())
    }

    /// Ends the content, and gives what is left to `sink`. Returns its length in bytes.
    ///
    /// # Errors
    /// Whatever `sink` returns.
    pub fn finish<E>(mut self, sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<u64, E> {
        let block = std::mem::take(&mut self.block);
        if !block.is_empty() {
            self.data(&block, sink)?;
        }
        if self.zero_blocks >= HOLE_BLOCKS {
            self.end_hole(sink)?;
        } else {
            self.keep_zeros();
        }
        self.cut_off(true, sink)?;
        Ok(self.offset)
    }

    fn close_block<E>(&mut self, sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        if self.block.len() == BLOCK_BYTES {
            let block = std::mem::take(&mut self.block);
            self.whole_block(&block, sink)?;
            self.block = block;
            self.block.clear();
        }
        Ok(())
    }

    fn whole_block<E>(&mut self, block: &[u8], sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        if block == ZERO_BLOCK { self.zero_blocks(1, sink) } else { self.data(block, sink) }
    }

    fn zero_blocks<E>(&mut self, blocks: u64, sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        let was_hole = self.zero_blocks >= HOLE_BLOCKS;
        self.zero_blocks += blocks;
        if self.zero_blocks >= HOLE_BLOCKS && !was_hole {
            // Now it is certain that the run of data before the zeros has ended.
            self.cut_off(true, sink)?;
        }
        Ok(())
    }

    fn data<E>(&mut self, bytes: &[u8], sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        if self.zero_blocks >= HOLE_BLOCKS {
            self.end_hole(sink)?;
        } else {
            self.keep_zeros();
        }
        self.run.extend_from_slice(bytes);
        Ok(())
    }

    fn end_hole<E>(&mut self, sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        let length = std::mem::take(&mut self.zero_blocks) * BLOCK_BYTES as u64;
        let offset = self.offset;
        self.offset += length;
        sink(Piece::Hole { offset, length })
    }

    fn keep_zeros(&mut self) {
        // Fewer than HOLE_BLOCKS, so this fits memory.
        let zeros = std::mem::take(&mut self.zero_blocks) as usize * BLOCK_BYTES;
        self.run.resize(self.run.len() + zeros, 0);
    }

    /// Cuts chunks off the run: all that no further byte can change or, where the run has ended, all.
    fn cut_off<E>(&mut self, has_ended: bool, sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        let (strict, relaxed) = self.masks;
        while self.run.len() - self.start >= if has_ended { 1 } else { MAX_CHUNK_BYTES } {
            let rest = &self.run[self.start..];
            let (_, length) = cut(
                rest,
                MIN_CHUNK_BYTES,
                AVERAGE_CHUNK_BYTES,
                MAX_CHUNK_BYTES,
                strict,
                relaxed,
                strict << 1,
                relaxed << 1,
            );
            sink(Piece::Data { offset: self.offset, bytes: &rest[..length] })?;
            self.start += length;
            self.offset += length as u64;
        }
        if has_ended {
            self.run.clear();
            self.start = 0;
        } else if self.start >= COMPACT_BYTES {
            self.run.drain(..self.start);
            self.start = 0;
        }
        Ok(())
    }
}

/// Cuts content that lies in memory whole.
pub fn cut_whole(content: &[u8], mut sink: impl FnMut(Piece<'_>)) {
    let mut sink = |piece: Piece<'_>| -> Result<(), Infallible> {
        sink(piece);
        Ok(())
    };
    let mut chunker = Chunker::new();
    let Ok(()) = chunker.push(content, &mut sink);
    let Ok(_) = chunker.finish(&mut sink);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Owned {
        Data(u64, Vec<u8>),
        Hole(u64, u64),
    }

    #[derive(Debug, Clone)]
    enum Part {
        Random(u64, usize),
        Byte(u8, usize),
        Zeros(usize),
    }

    fn random(seed: u64, length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = vec![0; length];
        random.fill(&mut bytes);
        bytes
    }

    fn content(parts: &[Part]) -> Vec<u8> {
        let mut content = Vec::new();
        for part in parts {
            match *part {
                Part::Random(seed, length) => content.extend(random(seed, length)),
                Part::Byte(byte, length) => content.resize(content.len() + length, byte),
                Part::Zeros(length) => content.resize(content.len() + length, 0),
            }
        }
        content
    }

    fn pieces(feed: impl FnOnce(Chunker, &mut dyn FnMut(Piece<'_>) -> Result<(), Infallible>)) -> Vec<Owned> {
        let mut pieces = Vec::new();
        feed(Chunker::new(), &mut |piece| {
            pieces.push(match piece {
                Piece::Data { offset, bytes } => Owned::Data(offset, bytes.to_vec()),
                Piece::Hole { offset, length } => Owned::Hole(offset, length),
            });
            Ok(())
        });
        pieces
    }

    fn whole(content: &[u8]) -> Vec<Owned> {
        pieces(|mut chunker, mut sink| {
            let Ok(()) = chunker.push(content, &mut sink);
            let Ok(length) = chunker.finish(&mut sink);
            assert_eq!(length, content.len() as u64);
        })
    }

    /// The rule of the module's documentation, said a second time without any streaming.
    fn reference(content: &[u8]) -> Vec<Owned> {
        let blocks: Vec<bool> =
            content.chunks(BLOCK_BYTES).map(|block| block.len() == BLOCK_BYTES && block == ZERO_BLOCK).collect();
        let (mut pieces, mut data, mut at) = (Vec::new(), 0, 0);
        while at <= blocks.len() {
            let zeros = blocks[at..].iter().take_while(|&&is_zero| is_zero).count();
            let is_end = at == blocks.len();
            if zeros >= HOLE_BLOCKS as usize || is_end {
                let end = (at * BLOCK_BYTES).min(content.len());
                let run = &content[data..end];
                let cuts = fastcdc::v2020::FastCDC::with_level_and_seed(
                    run,
                    MIN_CHUNK_BYTES,
                    AVERAGE_CHUNK_BYTES,
                    MAX_CHUNK_BYTES,
                    Normalization::Level1,
                    0,
                );
                pieces.extend(cuts.map(|cut| {
                    Owned::Data((data + cut.offset) as u64, run[cut.offset..cut.offset + cut.length].to_vec())
                }));
                if is_end {
                    break;
                }
                pieces.push(Owned::Hole(end as u64, (zeros * BLOCK_BYTES) as u64));
                data = end + zeros * BLOCK_BYTES;
            }
            at += zeros.max(1);
        }
        pieces
    }

    #[test]
    fn small_and_empty_content() {
        assert_eq!(whole(&[]), []);
        assert_eq!(whole(b"x"), [Owned::Data(0, b"x".to_vec())]);
        assert_eq!(whole(&[0; 65535]), [Owned::Data(0, vec![0; 65535])]);
        assert_eq!(whole(&[0; 65536]), [Owned::Hole(0, 65536)]);
        assert_eq!(whole(&[0; 65537]), [Owned::Hole(0, 65536), Owned::Data(65536, vec![0])]);
    }

    #[test]
    fn zeros_off_the_grid_make_a_shorter_hole() {
        let content = content(&[Part::Byte(1, 100), Part::Zeros(17 * BLOCK_BYTES), Part::Byte(1, 1)]);
        let found = whole(&content);
        assert!(found.contains(&Owned::Hole(4096, 65536)), "{found:?}");
        assert_eq!(found, reference(&content));
    }

    #[test]
    fn a_huge_hole_takes_no_time() {
        let found = pieces(|mut chunker, mut sink| {
            let Ok(()) = chunker.push_zeros(1 << 50, &mut sink);
            let Ok(length) = chunker.finish(&mut sink);
            assert_eq!(length, 1 << 50);
        });
        assert_eq!(found, [Owned::Hole(0, 1 << 50)]);
    }

    fn part() -> impl Strategy<Value = Part> {
        let near_a_block =
            (0usize..40, -2isize..3).prop_map(|(blocks, more)| (blocks * BLOCK_BYTES).saturating_add_signed(more));
        prop_oneof![
            (any::<u64>(), 0usize..300_000).prop_map(|(seed, length)| Part::Random(seed, length)),
            (any::<u64>(), near_a_block.clone()).prop_map(|(seed, length)| Part::Random(seed, length)),
            (1u8.., 0usize..200_000).prop_map(|(byte, length)| Part::Byte(byte, length)),
            near_a_block.prop_map(Part::Zeros),
            (0usize..400_000).prop_map(Part::Zeros),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pieces_follow_the_rule_however_the_bytes_arrive(
            parts in prop::collection::vec(part(), 0..6),
            steps in prop::collection::vec(prop_oneof![1usize..100, 4000usize..4200, 1usize..500_000], 1..12),
        ) {
            let content = content(&parts);
            let expected = reference(&content);
            prop_assert_eq!(&whole(&content), &expected);

            let chopped = pieces(|mut chunker, mut sink| {
                let (mut rest, mut steps) = (&content[..], steps.iter().cycle());
                while !rest.is_empty() {
                    let (now, later) = rest.split_at(rest.len().min(*steps.next().unwrap()).max(rest.len().min(50)));
                    let Ok(()) = chunker.push(now, &mut sink);
                    rest = later;
                }
                let Ok(_) = chunker.finish(&mut sink);
            });
            prop_assert_eq!(&chopped, &expected);

            let hinted = pieces(|mut chunker, mut sink| {
                for part in &parts {
                    let Ok(()) = match part {
                        Part::Zeros(length) => chunker.push_zeros(*length as u64, &mut sink),
                        other => chunker.push(&super::tests::content(std::slice::from_ref(other)), &mut sink),
                    };
                }
                let Ok(_) = chunker.finish(&mut sink);
            });
            prop_assert_eq!(&hinted, &expected);

            let mut joined = Vec::new();
            for piece in &expected {
                match piece {
                    Owned::Data(offset, bytes) => {
                        prop_assert_eq!(*offset, joined.len() as u64);
                        prop_assert!(bytes.len() <= MAX_CHUNK_BYTES);
                        joined.extend_from_slice(bytes);
                    }
                    Owned::Hole(offset, length) => {
                        prop_assert_eq!(*offset, joined.len() as u64);
                        joined.resize(joined.len() + *length as usize, 0);
                    }
                }
            }
            prop_assert_eq!(joined, content);
        }
    }
}
