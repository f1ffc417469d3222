//! A site's expectations of its policy: people write them, and a mistake must not make a policy look better than it is.

use std::sync::LazyLock;

use rialto_node::trust::{Expectations, Policy};

use crate::policy::shows_its_place;

/// When cases are judged.
const NOW: u64 = 1_790_000_000;
/// Longer files say the same again: each case is signed for, and that takes its time.
const MAX_BYTES: usize = 8 * 1024;

/// The policy that is tried: the one of the cautious site, which asks for nearly everything.
static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    Policy::parse(include_str!("../../../node/policy/cautious-site.toml")).expect("the example can be read")
});

/// A file is read, or its first mistake is shown where it is; every case that is read can be judged, and comes out the same tomorrow.
pub fn expectations(bytes: &[u8]) {
    let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_BYTES) else { return };
    let read = match Expectations::parse(text, &POLICY) {
        Ok(read) => read,
        Err(error) => return shows_its_place(text, &error),
    };
    let tried = read.run(NOW).expect("what can be said of a release can be signed");
    assert!(!tried.is_empty(), "a file that tries nothing must not pass");
    for tried in &tried {
        let is_met = tried.missing().is_empty();
        assert!(tried.verdict.as_str() != "accept" || is_met, "accepted for want of something: {tried:?}");
        assert!(!tried.is_as_expected || tried.verdict == tried.expected.verdict, "{tried:?}");
        assert!(
            tried.line >= 1 && text.split('\n').nth(tried.line - 1).is_some_and(|line| line.contains("case")),
            "{tried:?}"
        );
    }
    assert_eq!(read.run(NOW).expect("as before"), tried, "the same tomorrow");
}
