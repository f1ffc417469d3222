//! Reading the administrator's TOML files strictly: what is wrong, where, and which word was probably meant.

use std::fmt;

use serde::de::DeserializeOwned;

/// Longest word of a file that an error repeats, in characters.
const MAX_SHOWN: usize = 80;

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TomlError {
    /// Line, counted from 1; 0 where the error belongs to the file as a whole.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// What is wrong, with the nearest known word where one is near.
    pub message: String,
}

impl fmt::Display for TomlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for TomlError {}

/// Reads a TOML text into a type that denies unknown fields.
///
/// # Errors
/// Text that is not TOML, unknown or missing keys, and values of the wrong form, each with its place.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, TomlError> {
    toml::from_str(text).map_err(|error| {
        let (line, column) = error.span().map_or((0, 0), |span| place(text, span.start));
        TomlError { line, column, message: in_our_words(error.message()) }
    })
}

fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Serde says "unknown field `membres`, expected one of `name`, …": people want the one that they meant.
fn in_our_words(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (Some(given), known) = (quoted.next(), quoted.collect::<Vec<_>>()) else {
        return message.to_owned();
    };
    let shown: String = given.chars().take(MAX_SHOWN).collect();
    if message.starts_with("unknown field") {
        return match nearest(given, known.iter().copied()) {
            Some(word) => format!("unknown key '{shown}'; did you mean '{word}'?"),
            None => format!("unknown key '{shown}'; known here: {}", known.join(", ")),
        };
    }
    if message.starts_with("unknown variant") {
        return format!("'{shown}' is not one of {}", known.join(", "));
    }
    if message.starts_with("missing field") {
        return format!("the key '{shown}' is missing");
    }
    message.to_owned()
}

/// The word that differs from `given` in the fewest letters, if that is at most a third of them.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if given.len() > MAX_SHOWN {
        return None;
    }
    let limit = (given.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|word| (distance(given, word), word))
        .min()
        .filter(|&(distance, _)| distance <= limit)
        .map(|(_, word)| word)
}

/// Levenshtein's edit distance, with neighbours swapped counting as one edit.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[allow(dead_code)]
        federation: String,
        #[allow(dead_code)]
        #[serde(default)]
        peers: u8,
    }

    fn refusal(text: &str) -> String {
        read::<File>(text).unwrap_err().to_string()
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_place_and_the_word_meant() {
        assert_eq!(
            refusal("# first\nfedreation = \"x\"\n"),
            "line 2, column 1: unknown key 'fedreation'; did you mean 'federation'?"
        );
        assert_eq!(
            refusal("federation = \"x\"\nzebra = 1\n"),
            "line 2, column 1: unknown key 'zebra'; known here: federation, peers"
        );
    }

    #[test]
    fn wrong_values_have_a_place() {
        assert!(refusal("federation = 7").starts_with("line 1, column 14: "));
        assert!(refusal("federation = \"x\"\npeers = 999").starts_with("line 2, column 9: "));
        assert!(refusal("federation = ").starts_with("line 1, "));
        assert!(refusal("peers = 1").ends_with("the key 'federation' is missing"));
    }

    #[test]
    fn far_words_are_not_suggested() {
        assert_eq!(nearest("sevre", ["serve", "store"]), Some("serve"));
        assert_eq!(nearest("x", ["serve", "store"]), None);
    }
}
