//! Strict reading of the administrator's TOML: values of the form that is wanted, words that mean something, and for all
//! others an error that stands where they do.

use std::ops::Range;
use std::str::FromStr as _;

use rialto_protocol::bounded::Name;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::policy::PolicyError;
use super::words::{Words, nearest, shown};

/// A value of the file and its place.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// A table whose keys are all known.
pub(super) struct Fields<'a, 't> {
    table: &'a DeTable<'t>,
    /// Where the table stands.
    pub(super) span: Range<usize>,
}

impl<'a, 't> Fields<'a, 't> {
    /// The value of a key, where it is given.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value<'t>> {
        self.table.get(key)
    }
}

/// A text of the file and its place.
pub(super) type Word<'a> = (&'a str, Range<usize>);

/// Reads one file, and says what is wrong with it where it stands.
pub(super) struct Reader<'t> {
    pub(super) text: &'t str,
}

/// Values of the forms that the file has.
impl<'t> Reader<'t> {
    /// The whole file, where it has at most so many bytes.
    pub(super) fn document(&self, max_bytes: usize) -> Result<Spanned<DeTable<'t>>, PolicyError> {
        if self.text.len() > max_bytes {
            let message = format!("the file has {} bytes, and at most {max_bytes} are read", self.text.len());
            return Err(self.refuse(&(0..0), message));
        }
        DeTable::parse(self.text).map_err(|error| {
            self.refuse(&error.span().unwrap_or(0..0), format!("this is not TOML: {}", error.message()))
        })
    }

    pub(super) fn fields<'a>(&self, value: &'a Value<'t>, words: &Words) -> Result<Fields<'a, 't>, PolicyError> {
        match value.get_ref() {
            DeValue::Table(table) => self.fields_of(table, value.span(), words),
            other => Err(self.wrong_form(value, words.place, "a table", other)),
        }
    }

    pub(super) fn fields_of<'a>(
        &self,
        table: &'a DeTable<'t>,
        span: Range<usize>,
        words: &Words,
    ) -> Result<Fields<'a, 't>, PolicyError> {
        let mut keys: Vec<_> = table.iter().map(|(key, _)| (&**key.get_ref(), key.span())).collect();
        // In the order of the file, so that the first mistake is the one reported.
        keys.sort_by_key(|(_, span)| span.start);
        for key in keys {
            self.word(key, words)?;
        }
        Ok(Fields { table, span })
    }

    pub(super) fn entries<'a>(
        &self,
        value: &'a Value<'t>,
        place: &str,
    ) -> Result<Vec<(Word<'a>, &'a Value<'t>)>, PolicyError> {
        match value.get_ref() {
            DeValue::Table(table) => {
                let mut entries: Vec<_> =
                    table.iter().map(|(key, value)| ((&**key.get_ref(), key.span()), value)).collect();
                entries.sort_by_key(|((_, span), _)| span.start);
                Ok(entries)
            }
            other => Err(self.wrong_form(value, place, "a table", other)),
        }
    }

    pub(super) fn string<'a>(&self, value: &'a Value<'t>, place: &str) -> Result<Word<'a>, PolicyError> {
        match value.get_ref() {
            DeValue::String(text) => Ok((text, value.span())),
            other => Err(self.wrong_form(value, place, "a text in quotes", other)),
        }
    }

    /// A list of texts, or one text where a list of one would do. Never empty.
    pub(super) fn strings<'a>(&self, value: &'a Value<'t>, place: &str) -> Result<Vec<Word<'a>>, PolicyError> {
        match value.get_ref() {
            DeValue::String(_) => Ok(vec![self.string(value, place)?]),
            DeValue::Array(listed) if listed.is_empty() => {
                Err(self.refuse(&value.span(), format!("the list {place} is empty, and would fit nothing")))
            }
            DeValue::Array(listed) => listed.iter().map(|value| self.string(value, place)).collect(),
            other => Err(self.wrong_form(value, place, "a text in quotes, or a list of them", other)),
        }
    }

    pub(super) fn name(&self, (text, span): &Word<'_>) -> Result<Name, PolicyError> {
        Name::from_str(text).map_err(|problem| self.refuse(span, problem.to_string()))
    }
}

/// Words, and what to say of those that are none.
impl Reader<'_> {
    pub(super) fn word(&self, (found, span): Word<'_>, words: &Words) -> Result<&'static str, PolicyError> {
        if let Some(word) = words.known.iter().find(|word| **word == found) {
            return Ok(word);
        }
        if words.planned.contains(&found) {
            let message =
                format!("`{found}` is not supported yet {}; for now there is {}", words.place, listed(words.known));
            return Err(self.refuse(&span, message));
        }
        Err(self.unknown((found, span), "word", words.place, words.known.iter().copied()))
    }

    pub(super) fn unknown<'a>(
        &self,
        (found, span): Word<'_>,
        what: &str,
        place: &str,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> PolicyError {
        /// More than these are not listed in a message.
        const SHOWN: usize = 12;
        let suggestion = nearest(found, known.clone()).map(str::to_owned);
        let there: Vec<&str> = known.take(SHOWN + 1).collect();
        let there = match (&suggestion, there.len()) {
            (Some(_), _) => String::new(),
            (None, 0) => ", and there is none".to_owned(),
            (None, 1..=SHOWN) => format!(": there is {}", listed(&there)),
            (None, _) => String::new(),
        };
        let message = format!("there is no {what} `{}` {place}{there}", shown(found));
        PolicyError { suggestion, ..self.refuse(&span, message) }
    }

    pub(super) fn wrong_form(
        &self,
        value: &Value<'_>,
        place: &str,
        expected: &str,
        found: &DeValue<'_>,
    ) -> PolicyError {
        let found = match found {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.refuse(&value.span(), format!("expected {expected} {place}, and found {found}"))
    }

    /// The line that this stands in, from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        before.matches('\n').count() + 1
    }

    pub(super) fn refuse(&self, span: &Range<usize>, message: impl Into<String>) -> PolicyError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        PolicyError {
            line: self.line(span),
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
            suggestion: None,
        }
    }
}

fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
