//! The words of the policy file: which there are, which are only planned, and which one a misspelt word was meant to be.

use rialto_protocol::UnixSeconds;
use rialto_protocol::bounded::fits_pattern;

use crate::units::ByteSize;

/// The words that may stand in one place of the file.
pub(super) struct Words {
    /// Where, for messages: `in [[rule]]`.
    pub(super) place: &'static str,
    /// Words that mean something.
    pub(super) known: &'static [&'static str],
    /// Words that will mean something, and must not be taken for mistakes or, worse, for nothing.
    pub(super) planned: &'static [&'static str],
}

pub(super) const TABLES: Words =
    Words { place: "at the top of the file", known: &["signers", "roles", "rule", "default"], planned: &[] };
pub(super) const ROLE: Words =
    Words { place: "in a role", known: &["signers", "threshold", "max-age", "delegated"], planned: &[] };
pub(super) const RULE: Words = Words {
    place: "in [[rule]]",
    known: &["name", "match", "require", "then", "otherwise", "on-revoke", "update"],
    planned: &["lease", "class"],
};
pub(super) const MATCH: Words = Words {
    place: "in `match`",
    known: &["publisher", "name", "arch", "tags", "size", "federation"],
    planned: &["channel", "component", "licence", "license", "recipe", "requirements", "summary", "version"],
};
pub(super) const REQUIREMENT: Words = Words {
    place: "in `require`",
    known: &[
        "signed-by",
        "endorsed-by",
        "not-revoked-by",
        "channel-fresh",
        "max-age",
        "sbom",
        "max-size",
        "max-memory",
        "max-vcpus",
        "provenance",
        "rebuilt-by",
        "no-advisory",
        "licence",
    ],
    planned: &[],
};
pub(super) const SEVERITY: Words =
    Words { place: "in `no-advisory`", known: &["low", "medium", "high", "critical"], planned: &[] };
pub(super) const DEFAULT: Words = Words { place: "in [default]", known: &["then"], planned: &["on-revoke", "update"] };
pub(super) const THEN: Words = Words { place: "as `then`", known: &["accept", "hold", "reject"], planned: &[] };
pub(super) const OTHERWISE: Words = Words { place: "as `otherwise`", known: &["hold", "reject"], planned: &[] };
pub(super) const ON_REVOKE: Words =
    Words { place: "as `on-revoke`", known: &["warn", "block-new", "suspend", "stop"], planned: &[] };
pub(super) const UPDATE: Words = Words { place: "as `update`", known: &["never", "propose", "auto"], planned: &[] };
pub(super) const ARCH: Words = Words { place: "as `arch`", known: &["x86_64", "aarch64"], planned: &[] };

/// Other people's names for the words of this file, which no edit distance leads to.
const ALIASES: [(&str, &str); 12] = [
    ("license", "licence"),
    ("moderate", "medium"),
    ("important", "high"),
    ("amd64", "x86_64"),
    ("x64", "x86_64"),
    ("arm64", "aarch64"),
    ("allow", "accept"),
    ("deny", "reject"),
    ("block", "block-new"),
    ("else", "otherwise"),
    ("when", "match"),
    ("requires", "require"),
];

/// The word of `known` that `found` was most likely meant to be, if any is near enough.
pub(super) fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer than any word of the file: comparing more would only cost time.
    const LONGEST: usize = 80;
    if found.chars().count() > LONGEST {
        return None;
    }
    let folded = found.to_lowercase().replace(['_', ' '], "-");
    let alias = ALIASES.iter().find(|(other, _)| *other == folded).map(|(_, ours)| *ours);
    known
        .into_iter()
        .map(|word| {
            let is_alias = alias == Some(word);
            (if is_alias { 0 } else { distance(&folded, &word.replace('_', "-")) }, word)
        })
        // A third of the word may be wrong: more, and the suggestion is a guess.
        .filter(|(distance, word)| *distance <= (word.chars().count().max(folded.chars().count()) / 3).max(1))
        .min_by_key(|(distance, word)| (*distance, !folded.starts_with(word) && !word.starts_with(&folded)))
        .map(|(_, word)| word)
}

/// Edits that turn one word into the other: a letter more, less, wrong, or swapped with the next one (optimal string
/// alignment distance).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let differs = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + differs);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// A length of time as the file writes it: `90d`, `12h`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Age {
    /// At least 1.
    pub(super) seconds: UnixSeconds,
    written: String,
}

impl Age {
    /// Reads a whole number with the suffix `s`, `m`, `h`, `d` or `w`; `Err` says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let shown = shown(text);
        let form = || {
            format!(
                "'{shown}' is not a length of time: write a whole number and one of s, m, h, d or w, such as \"90d\""
            )
        };
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit: UnixSeconds = match &text[digits.len()..] {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            "w" => 7 * 24 * 60 * 60,
            _ => return Err(form()),
        };
        if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
            return Err(form());
        }
        let seconds = digits.parse::<UnixSeconds>().ok().and_then(|count| count.checked_mul(unit));
        match seconds {
            Some(0) => Err(format!("'{shown}' is no time at all, so nothing would ever be young enough")),
            Some(seconds) => Ok(Self { seconds, written: text.to_owned() }),
            None => Err(format!("'{shown}' is longer than this program can count")),
        }
    }
}

impl std::fmt::Display for Age {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.written)
    }
}

/// A number of bytes as the file writes it: `20 GiB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Size {
    /// At least 1.
    pub(super) bytes: u64,
    written: String,
}

impl Size {
    /// Reads a number with a unit; `Err` says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<ByteSize>() {
            Ok(ByteSize(0)) => Err("nothing is so small that it has no bytes, so nothing would ever fit".to_owned()),
            Ok(ByteSize(bytes)) => Ok(Self { bytes, written: text.to_owned() }),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.written)
    }
}

/// Bounds of a size as the file writes them: `<= 20 GiB`, `>= 1 GiB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SizeRange {
    is_most: bool,
    bound: Size,
}

impl SizeRange {
    /// Reads `<=` or `>=` and a size; `Err` says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let most = text.strip_prefix("<=").map(|rest| (true, rest));
        let Some((is_most, rest)) = most.or_else(|| text.strip_prefix(">=").map(|rest| (false, rest))) else {
            return Err(format!(
                "'{}' is no bound: write \"<= 20 GiB\" for at most, or \">= 1 GiB\" for at least",
                shown(text)
            ));
        };
        Ok(Self { is_most, bound: Size::parse(rest.trim())? })
    }

    /// Whether so many bytes are within it.
    pub(super) fn holds(&self, bytes: u64) -> bool {
        if self.is_most { bytes <= self.bound.bytes } else { bytes >= self.bound.bytes }
    }
}

impl std::fmt::Display for SizeRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", if self.is_most { "at most" } else { "at least" }, self.bound)
    }
}

/// A pattern for names: `*` stands for any characters, `?` for any one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob(String);

impl Glob {
    /// Reads a pattern; `Err` says why no name could ever fit it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let is_of_names = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        match text.chars().find(|&c| !is_of_names(c) && !matches!(c, '*' | '?')) {
            _ if text.is_empty() => Err("an empty pattern fits no name".into()),
            Some(c) => Err(format!(
                "no name has the character '{}', so '{}' would never fit: names have a-z, 0-9, '.', '_' and '-', and only `*` and `?` are wild",
                c.escape_debug(),
                shown(text)
            )),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// Whether the whole of `name` fits.
    pub(super) fn fits(&self, name: &str) -> bool {
        fits_pattern(&self.0, name)
    }
}

impl std::fmt::Display for Glob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Somebody else's text, fit for one line of a message: at most 80 characters, all of them plain.
pub(super) fn shown(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    let mut line: String = text.chars().take(MAX_CHARS).map(|c| if is_plain(c) { c } else { ' ' }).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        line.push('…');
    }
    line
}

/// Whether a character neither moves the cursor, nor hides, nor turns the direction of writing.
pub(super) fn is_plain(c: char) -> bool {
    let is_invisible =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    !c.is_control() && !is_invisible
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_misspelt_word_finds_its_neighbour() {
        let rule = || RULE.known.iter().copied();
        for (found, meant) in [
            ("otherwse", "otherwise"),
            ("on_revoke", "on-revoke"),
            ("Match", "match"),
            ("requrie", "require"),
            ("requires", "require"),
            ("hten", "then"),
        ] {
            assert_eq!(nearest(found, rule()), Some(meant), "{found}");
        }
        assert_eq!(nearest("amd64", ARCH.known.iter().copied()), Some("x86_64"));
        assert_eq!(nearest("flavour", rule()), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), rule()), None);
    }

    #[test]
    fn lengths_of_time() {
        let seconds = |text: &str| Age::parse(text).map(|age| age.seconds);
        assert_eq!(seconds("90d"), Ok(90 * 86_400));
        assert_eq!(seconds("12h"), Ok(43_200));
        assert_eq!(seconds("2w"), Ok(1_209_600));
        assert_eq!(seconds("5m"), Ok(300));
        assert_eq!(seconds("1s"), Ok(1));
        for bad in
            ["", "d", "90", "90 d", "-1d", "+1d", "1.5d", "0d", "1D", "1y", "99999999999999999999d", "９d", "1dd", "d1"]
        {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        assert!(seconds("18446744073709551615w").is_err());
    }

    /// What a pattern means, said as simply as possible.
    fn fits_slowly(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), None) => fits_slowly(rest, name),
            (Some((b'*', rest)), Some((_, tail))) => fits_slowly(rest, name) || fits_slowly(pattern, tail),
            (Some((&p, rest)), Some((&n, tail))) => (p == b'?' || p == n) && fits_slowly(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_fit_what_they_say(pattern in "[ab*?]{1,8}", name in "[ab]{0,10}") {
            let glob = Glob::parse(&pattern).unwrap();
            prop_assert_eq!(glob.fits(&name), fits_slowly(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn no_length_of_time_panics(text in ".{0,12}") {
            let _ = Age::parse(&text);
        }
    }

    #[test]
    fn a_pattern_of_stars_takes_no_time() {
        let glob = Glob::parse(&format!("{}b", "a*".repeat(30))).unwrap();
        assert!(!glob.fits(&"a".repeat(64)));
    }

    #[test]
    fn a_pattern_that_fits_nothing_is_refused() {
        for bad in ["", "Batch-*", "batch-[0-9]", "a b", "cern/batch"] {
            assert!(Glob::parse(bad).is_err(), "{bad}");
        }
    }
}
