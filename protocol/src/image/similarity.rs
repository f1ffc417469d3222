//! Features by which chunks that share much of their content are found without comparing them.
//!
//! From every window of eight bytes comes a hash; those of about one window in 128 are kept, and of these the least under
//! each of four orders are the chunk's features (min-wise hashing, Broder 1997; sampled before it is ordered, as in
//! Odess, Zou et al. 2021). Two chunks agree in a feature about as likely as a window of one is in the other.
//! Features are hints: what is found by them is only ever used to make bytes smaller.

/// The version of this way of computing features, as the store keeps it beside them.
pub const FEATURES_VERSION: u8 = 1;
/// Features of a chunk.
pub const FEATURES: usize = 4;

/// Bytes that a window spans.
const WINDOW_BYTES: usize = 8;
/// A window is kept where so many leading bits of its hash are zero: one in 128.
const SAMPLE_BITS: u32 = 7;
/// Spreads a window's bytes over the leading bits: an odd number without a pattern.
const SPREAD: u64 = 0x9fb2_1c65_1e98_df25;
/// The four orders: odd numbers without a pattern.
const ORDERS: [u64; FEATURES] =
    [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9, 0xd6e8_feb8_6659_fd93];

/// What a chunk looks like, in 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Features(pub [u64; FEATURES]);

impl Features {
    /// Bytes of the features as they are kept.
    pub const BYTES: usize = 8 * FEATURES;
    /// Those of content that is too short, or too uniform, to have any.
    pub const NONE: Self = Self([u64::MAX; FEATURES]);

    /// The features of a chunk.
    pub fn of(chunk: &[u8]) -> Self {
        let mut least = Self::NONE.0;
        let kept = |window: &[u8; WINDOW_BYTES]| {
            let hash = u64::from_le_bytes(*window).wrapping_mul(SPREAD);
            (hash >> (64 - SAMPLE_BITS) == 0).then_some(hash)
        };
        for hash in chunk.array_windows().filter_map(kept) {
            let hash = hash ^ hash >> 29;
            for (least, order) in least.iter_mut().zip(ORDERS) {
                let place = hash.wrapping_mul(order);
                *least = (*least).min(place ^ place >> 32);
            }
        }
        Self(least)
    }

    /// As they are kept: little-endian, one after the other.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (place, feature) in bytes.chunks_exact_mut(8).zip(self.0) {
            place.copy_from_slice(&feature.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Features::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let mut features = Self::NONE.0;
        for (feature, bytes) in features.iter_mut().zip(bytes.as_chunks().0) {
            *feature = u64::from_le_bytes(*bytes);
        }
        Self(features)
    }
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
        fn features_come_back(features: [u64; FEATURES]) {
            prop_assert_eq!(Features::from_bytes(&Features(features).to_bytes()), Features(features));
        }

        #[test]
        fn content_that_moved_keeps_its_features(seed: u64, moved in 0..500usize) {
            let content = noise(seed, 32_000);
            let inserted = [noise(!seed, moved), content.clone()].concat();
            let (before, after) = (Features::of(&content), Features::of(&inserted));
            // What was put before it, and the seven windows across, can only win by having a lesser hash.
            prop_assert!(shared(&before, &after) >= 2, "{moved} bytes before it left {}", shared(&before, &after));
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
        // Windows in common: 3/4 of 5/4 of all, so three in five of 800.
        assert!((400..560).contains(&similar), "{similar}");
        assert_eq!(other, 0);
    }

    #[test]
    fn content_without_windows_has_no_features() {
        assert_eq!(Features::of(b""), Features::NONE);
        assert_eq!(Features::of(b"seven b"), Features::NONE);
        let uniform = Features::of(&[7; 10_000]);
        assert!(uniform == Features::NONE || uniform == Features::of(&[7; 20_000]));
    }

    #[test]
    fn features_are_alike_at_every_site() {
        // Golden: they are stored, and a change of the computation needs another version.
        let chunk: Vec<u8> = (0u32..8192).flat_map(|number| number.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect();
        let golden = [0x033b_e2d7_060c_f63b, 0x01fc_7e5a_fc35_2b3f, 0x00e0_9504_f720_65a8, 0x00f6_26a8_e850_6e3f];
        assert_eq!(Features::of(&chunk), Features(golden));
    }
}
