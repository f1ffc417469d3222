//! Features by which chunks that share much of their content are found without comparing them.
//!
//! About one window of eight bytes in 256 is kept, by a sum over its first bytes that a compiler can compute for many
//! windows at once; and of the hashes of those, the least under each of eight orders are the chunk's features (min-wise
//! hashing, Broder 1997; sampled before it is ordered, as in Odess, Zou et al. 2021). Two chunks agree in a feature about as likely as a window of one is in the other. Eight
//! short features find more than four long ones in as many bytes: of a security update, 6 % less has to be sent.
//! Features are hints: what is found by them is only ever used to make bytes smaller.

/// The version of this way of computing features, as the store keeps it beside them.
pub const FEATURES_VERSION: u8 = 1;
/// Features of a chunk.
pub const FEATURES: usize = 8;

/// Bytes that a window spans.
const WINDOW_BYTES: usize = 8;
/// Factors of the sum over a window's first bytes, modulo 256: odd, so that each byte tells.
const FACTORS: [u8; 4] = [0x9d, 0x35, 0xe3, 0x6b];
/// A window is kept where the sum is this. Windows of one repeated byte, which are in most chunks, have sums that are
/// multiples of 32, and are never kept.
const KEPT_SUM: u8 = 0x5c;
/// Windows that are looked at together.
const BLOCK: usize = 64;
/// Spreads a window's bytes over the leading bits: an odd number without a pattern.
const SPREAD: u64 = 0x9fb2_1c65_1e98_df25;
/// The orders: odd numbers without a pattern.
const ORDERS: [u64; FEATURES] = [
    0x9e37_79b9_7f4a_7c15,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0xd6e8_feb8_6659_fd93,
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
    0x8ebc_6af0_9c88_c6e3,
    0x5899_65cc_7537_4cc3,
];

/// What a chunk looks like, in 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Features(pub [u32; FEATURES]);

impl Features {
    /// Bytes of the features as they are kept.
    pub const BYTES: usize = 4 * FEATURES;
    /// Those of content that is too short, or too uniform, to have any.
    pub const NONE: Self = Self([u32::MAX; FEATURES]);

    /// The features of a chunk.
    pub fn of(chunk: &[u8]) -> Self {
        let mut least = Self::NONE.0;
        let mut take = |window: &[u8; WINDOW_BYTES]| {
            let hash = u64::from_le_bytes(*window).wrapping_mul(SPREAD);
            let hash = hash ^ hash >> 29;
            for (least, order) in least.iter_mut().zip(ORDERS) {
                *least = (*least).min((hash.wrapping_mul(order) >> 32) as u32);
            }
        };
        let mut rest = chunk;
        while let Some(block) = rest.first_chunk::<{ BLOCK + WINDOW_BYTES - 1 }>() {
            let sums = sums(block);
            if sums.contains(&KEPT_SUM) {
                let windows = sums.iter().zip(block.array_windows());
                windows.filter(|&(&sum, _)| sum == KEPT_SUM).for_each(|(_, window)| take(window));
            }
            rest = &rest[BLOCK..];
        }
        let windows = rest.array_windows();
        windows.filter(|window| sum(window[0], window[1], window[2], window[3]) == KEPT_SUM).for_each(take);
        Self(least)
    }

    /// As they are kept: little-endian, one after the other.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (place, feature) in bytes.chunks_exact_mut(4).zip(self.0) {
            place.copy_from_slice(&feature.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Features::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let mut features = Self::NONE.0;
        for (feature, bytes) in features.iter_mut().zip(bytes.as_chunks().0) {
            *feature = u32::from_le_bytes(*bytes);
        }
        Self(features)
    }
}

/// The sums of the windows of a block: without a branch, so that they are computed many at a time.
fn sums(block: &[u8; BLOCK + WINDOW_BYTES - 1]) -> [u8; BLOCK] {
    let mut sums = [0; BLOCK];
    for (at, place) in sums.iter_mut().enumerate() {
        *place = sum(block[at], block[at + 1], block[at + 2], block[at + 3]);
    }
    sums
}

fn sum(a: u8, b: u8, c: u8, d: u8) -> u8 {
    let [p, q, r, s] = FACTORS;
    let first = a.wrapping_mul(p).wrapping_add(b.wrapping_mul(q));
    first.wrapping_add(c.wrapping_mul(r)).wrapping_add(d.wrapping_mul(s))
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

    fn shared(a: &Features, b: &Features) -> usize {
        a.0.iter().zip(b.0).filter(|&(&a, b)| a == b).count()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn features_come_back(features: [u32; FEATURES]) {
            prop_assert_eq!(Features::from_bytes(&Features(features).to_bytes()), Features(features));
        }

        #[test]
        fn content_that_moved_keeps_its_features(seed: u64, moved in 0..500usize) {
            let content = noise(seed, 32_000);
            let inserted = [noise(!seed, moved), content.clone()].concat();
            let (before, after) = (Features::of(&content), Features::of(&inserted));
            // What was put before it, and the seven windows across, can only win by having a lesser hash.
            prop_assert!(shared(&before, &after) >= FEATURES / 2, "{moved} bytes before it left {}", shared(&before, &after));
        }
    }

    #[test]
    fn chunks_are_alike_as_far_as_they_share_content() {
        let (mut similar, mut other) = (0, 0);
        for seed in 0..200 {
            let content = noise(seed, 32_000);
            // A quarter is replaced.
            let changed = [&content[..12_000], &noise(seed + 1000, 8_000), &content[20_000..]].concat();
            similar += shared(&Features::of(&content), &Features::of(&changed));
            other += shared(&Features::of(&content), &Features::of(&noise(seed + 2000, 32_000)));
        }
        // Windows in common: 3/4 of 5/4 of all, so three in five of 1,600.
        assert!((800..1120).contains(&similar), "{similar}");
        assert_eq!(other, 0);
    }

    #[test]
    fn content_without_windows_has_no_features() {
        assert_eq!(Features::of(b""), Features::NONE);
        assert_eq!(Features::of(b"seven b"), Features::NONE);
    }

    #[test]
    fn padding_is_no_likeness() {
        for byte in [0x00, 0xff, 0x20, 0x90, 0xcc] {
            let padded = |seed| [noise(seed, 20_000), vec![byte; 4_000]].concat();
            let (a, b) = (Features::of(&padded(1)), Features::of(&padded(2)));
            assert!(shared(&a, &b) <= 1, "{byte:#x}: {}", shared(&a, &b));
        }
    }

    #[test]
    fn features_are_alike_at_every_site() {
        // Golden: they are stored, and a change of the computation needs another version.
        let chunk: Vec<u8> = (0u32..8192).flat_map(|number| number.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect();
        let golden = [22_224_443, 14_253_134, 14_916_912, 9_402_848, 2_732_806, 33_404_463, 17_575_856, 1_996_350];
        assert_eq!(Features::of(&chunk), Features(golden));
    }
}
