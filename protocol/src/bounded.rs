//! Text and lists that carry their bound in their type, so that nothing longer can be decoded, built or sent.

use std::fmt;
use std::ops::Deref;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Why a text or list is outside its bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoundError {
    /// Longer than its type allows.
    #[error("{length} bytes of text where at most {max} are allowed")]
    TextTooLong {
        /// Length found, in bytes.
        length: usize,
        /// Length allowed, in bytes.
        max: usize,
    },
    /// More items than its type allows.
    #[error("{length} items where at most {max} are allowed")]
    TooMany {
        /// Number found.
        length: usize,
        /// Number allowed.
        max: usize,
    },
    /// A name outside `[a-z0-9][a-z0-9._-]{0,63}`.
    #[error("'{0}' is not a name: 1 to 64 of a-z, 0-9, '.', '_' and '-', the first a letter or digit")]
    NotAName(String),
    /// A version outside `[A-Za-z0-9][A-Za-z0-9.+~_-]{0,63}`.
    #[error("'{0}' is not a version: 1 to 64 letters, digits, '.', '+', '~', '_' and '-', the first a letter or digit")]
    NotAVersion(String),
    /// A pattern of names outside its alphabet.
    #[error(
        "'{0}' is not a pattern of names: 1 to 64 of a-z, 0-9, '.', '_', '-', '*' (any characters) and '?' (any one)"
    )]
    NotAPattern(String),
    /// A control character other than a line feed or a tab.
    #[error("text has the control character U+{0:04X}")]
    ControlCharacter(u32),
}

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl TryFrom<String> for $name {
            type Error = BoundError;
            fn try_from(text: String) -> Result<Self, BoundError> {
                #[allow(clippy::redundant_closure_call)]
                ($check)(text.as_str())?;
                Ok(Self(text))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = BoundError;
            fn try_from(text: &str) -> Result<Self, BoundError> {
                text.to_owned().try_into()
            }
        }

        impl std::str::FromStr for $name {
            type Err = BoundError;
            fn from_str(text: &str) -> Result<Self, BoundError> {
                text.try_into()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_text!(
    /// The name of an appliance, channel, component, signer, role or context input: `[a-z0-9][a-z0-9._-]{0,63}`.
    Name,
    |text: &str| {
        let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = text.as_bytes();
        let is_name = (1..=64).contains(&bytes.len())
            && fits(bytes[0])
            && bytes.iter().all(|&c| fits(c) || matches!(c, b'.' | b'_' | b'-'));
        if is_name { Ok(()) } else { Err(BoundError::NotAName(text.chars().take(80).collect())) }
    }
);

checked_text!(
    /// The version of a release: `[A-Za-z0-9][A-Za-z0-9.+~_-]{0,63}`. Versions are labels; order comes from `sequence`.
    Version,
    |text: &str| {
        let bytes = text.as_bytes();
        let is_version = (1..=64).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes.iter().all(|&c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'+' | b'~' | b'_' | b'-'));
        if is_version { Ok(()) } else { Err(BoundError::NotAVersion(text.chars().take(80).collect())) }
    }
);

checked_text!(
    /// A pattern of names, 1 to 64 characters: `*` stands for any characters, `?` for any one.
    NamePattern,
    |text: &str| {
        let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'_' | b'-' | b'*' | b'?');
        let is_pattern = (1..=64).contains(&text.len()) && text.bytes().all(fits);
        if is_pattern { Ok(()) } else { Err(BoundError::NotAPattern(text.chars().take(80).collect())) }
    }
);

impl NamePattern {
    /// Whether the whole of `name` fits.
    pub fn fits(&self, name: &str) -> bool {
        fits_pattern(&self.0, name)
    }
}

/// Whether the whole of `name` fits `pattern`. Takes at most the product of their lengths in steps, and no memory.
pub fn fits_pattern(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where the last `*` was, and up to where in the name it has been stretched.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, stretched)) => {
                    star = Some((at, stretched + 1));
                    p = at + 1;
                    n = stretched + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// Text of at most `MAX` bytes without control characters (line feeds and tabs are allowed).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> TryFrom<String> for Text<MAX> {
    type Error = BoundError;

    fn try_from(text: String) -> Result<Self, BoundError> {
        if text.len() > MAX {
            return Err(BoundError::TextTooLong { length: text.len(), max: MAX });
        }
        match text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
            Some(c) => Err(BoundError::ControlCharacter(c.into())),
            None => Ok(Self(text)),
        }
    }
}

impl<const MAX: usize> TryFrom<&str> for Text<MAX> {
    type Error = BoundError;

    fn try_from(text: &str) -> Result<Self, BoundError> {
        text.to_owned().try_into()
    }
}

impl<const MAX: usize> From<Text<MAX>> for String {
    fn from(text: Text<MAX>) -> String {
        text.0
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A list of at most `MAX` items; decoding stops at the first item too many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct List<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> List<T, MAX> {
    /// The items, owned.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MAX: usize> TryFrom<Vec<T>> for List<T, MAX> {
    type Error = BoundError;

    fn try_from(items: Vec<T>) -> Result<Self, BoundError> {
        if items.len() > MAX {
            return Err(BoundError::TooMany { length: items.len(), max: MAX });
        }
        Ok(Self(items))
    }
}

impl<T, const MAX: usize> Deref for List<T, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MAX: usize>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX} items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == MAX {
                        return Err(A::Error::invalid_length(MAX + 1, &self));
                    }
                    items.push(item);
                }
                Ok(items)
            }
        }

        deserializer.deserialize_seq(Items::<T, MAX>(std::marker::PhantomData)).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_held_to_their_alphabet() {
        for good in ["a", "hello", "batch-worker_2.0", &"x".repeat(64)] {
            assert!(Name::try_from(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "Hello", "a/b", "a b", "ü", &"x".repeat(65)] {
            assert!(Name::try_from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn text_is_bounded_in_bytes_and_has_no_control_characters() {
        assert!(Text::<4>::try_from("üü").is_ok());
        assert!(Text::<3>::try_from("üü").is_err());
        assert!(Text::<9>::try_from("a\u{1b}[0m").is_err());
    }
}
