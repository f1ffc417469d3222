//! The words that a release is found by, and the words of a question.

use std::borrow::Cow;

use rialto_protocol::record::Release;

/// Words of one release: what a description has beyond these is not searched.
const MAX_WORDS: usize = 160;
/// A longer word is cut, in bytes.
const MAX_WORD_BYTES: usize = 40;
/// Words of one question: more are not looked at.
const MAX_ASKED: usize = 16;

/// Tells `each` of the words of a release in lower case: name, version, tags and summary before the description. It says
/// whether the word is one that it was not told of before; how many were is what this gives.
pub(super) fn of_release(release: &Release, mut each: impl FnMut(&str) -> bool) -> usize {
    let mut count = usize::from(each(cut(&lower(&release.version))));
    let tags = release.tags.iter().map(|tag| &**tag);
    let texts = [&*release.name].into_iter().chain(tags).chain([&*release.summary]);
    for text in texts.chain(release.description.as_deref()) {
        for word in text.split_whitespace() {
            with_parts(word, |word| count += usize::from(each(word)));
            if count >= MAX_WORDS {
                return count;
            }
        }
    }
    count
}

/// What has no space in it, and its parts: `batch-worker` is found as such, by `batch` and by `worker`.
fn with_parts(word: &str, mut each: impl FnMut(&str)) {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
    if word.is_empty() {
        return;
    }
    let word = lower(word);
    parts(&word).for_each(|part| each(cut(part)));
    each(cut(&word));
}

fn parts(word: &str) -> impl Iterator<Item = &str> {
    let parts = word.split(|c: char| !c.is_alphanumeric()).filter(|part| part.len() < word.len());
    parts.filter(|part| part.chars().nth(1).is_some()).take(8)
}

/// Most are in lower case already, and need not be copied.
fn lower(word: &str) -> Cow<'_, str> {
    let is_lower = |byte: u8| byte.is_ascii() && !byte.is_ascii_uppercase();
    if word.bytes().all(is_lower) { Cow::Borrowed(word) } else { Cow::Owned(word.to_lowercase()) }
}

/// The words of a question: what lies between spaces, `/` and `@`, so that `cern/batch@1.0` asks for three.
pub(super) fn of_question(text: &str) -> Vec<String> {
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, '/' | '@' | ','));
    let trimmed = words.map(|word| word.trim_matches(|c: char| !c.is_alphanumeric() && c != '~'));
    let mut asked: Vec<String> = Vec::new();
    for word in trimmed.filter(|word| !word.is_empty()) {
        let word = cut_asked(word.to_lowercase());
        if asked.len() < MAX_ASKED && !asked.contains(&word) {
            asked.push(word);
        }
    }
    asked
}

/// Whether what a publisher is called here answers to a word.
pub(super) fn fits_name(called: &str, word: &str) -> bool {
    let called = called.to_lowercase();
    called.starts_with(word) || called.split(|c: char| !c.is_alphanumeric()).any(|part| part.starts_with(word))
}

fn cut(word: &str) -> &str {
    &word[..word.floor_char_boundary(MAX_WORD_BYTES)]
}

/// Fingerprints are longer than what is kept of a word.
fn cut_asked(word: String) -> String {
    if word.starts_with('~') { word } else { cut(&word).to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut words = Vec::new();
        text.split_whitespace().for_each(|word| with_parts(word, |word| words.push(word.to_owned())));
        BTreeSet::from_iter(words).into_iter().collect()
    }

    #[test]
    fn a_word_is_found_as_a_whole_and_by_its_parts() {
        assert_eq!(words("batch-worker, (HTCondor)"), ["batch", "batch-worker", "htcondor", "worker"]);
        assert_eq!(words("A x-y … Grüße! --"), ["a", "grüße", "x-y"]);
        assert_eq!(words(&"ä".repeat(100)), ["ä".repeat(20)]);
    }

    #[test]
    fn a_question_is_cut_where_a_reference_is() {
        assert_eq!(of_question("cern/batch-worker@1.2+b~1 CERN"), ["cern", "batch-worker", "1.2+b~1"]);
        assert_eq!(of_question("~abcd… \"quoted\" - "), ["~abcd", "quoted"]);
        assert_eq!(of_question(&"a b c d e f g h i j k l m n o p q r s t".repeat(9)).len(), MAX_ASKED);
    }

    #[test]
    fn a_petname_answers_to_its_beginning_and_its_parts() {
        assert!(fits_name("CERN-it", "cern") && fits_name("cern-it", "it") && fits_name("~abcd", "~ab"));
        assert!(!fits_name("cern", "ern"));
    }
}
