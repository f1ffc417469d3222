//! Signatures by keys that the node does not have: whoever holds such a key waits for what it is to sign.
//!
//! A request that signs names its key. Instead of one of the node's own it may name an [`AwayKey`]: a key, and a session
//! that its holder has thought up. The node writes the record, the holder asks for it at `signing/SESSION`, looks at it,
//! signs and answers; the request goes on. No private key or passphrase ever passes through the API.

use std::fmt;
use std::str::FromStr;

use rialto_protocol::ids::PublicKey;
use serde::{Deserialize, Serialize};

use super::ApiError;

/// Characters of a session: 16 random bytes in lower-case hexadecimal.
const SESSION_CHARS: usize = 32;
const PREFIX: &str = "away:";

/// A key whose holder signs over the API: `away:SESSION:KEY` wherever a request names a key to sign with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AwayKey {
    /// Where its holder asks for what to sign.
    pub session: String,
    /// The key.
    pub key: PublicKey,
}

impl AwayKey {
    /// Reads `away:SESSION:KEY`; `None` for what does not begin so, such as the name of a key.
    ///
    /// # Errors
    /// `usage`: it begins so, and goes on otherwise.
    pub fn read(text: &str) -> Result<Option<Self>, ApiError> {
        text.starts_with(PREFIX).then(|| text.parse()).transpose()
    }
}

impl fmt::Display for AwayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}:{}", self.session, self.key)
    }
}

impl FromStr for AwayKey {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let refused = || ApiError::usage("a key that is held elsewhere is named away:SESSION:KEY");
        let (session, key) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':')).ok_or_else(refused)?;
        check_session(session)?;
        Ok(Self { session: session.to_owned(), key: key.parse().map_err(|_| refused())? })
    }
}

/// Whether this may be a session.
///
/// # Errors
/// `usage`: not 32 lower-case hexadecimal digits.
pub fn check_session(session: &str) -> Result<(), ApiError> {
    let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    match session.len() == SESSION_CHARS && session.bytes().all(is_hex) {
        true => Ok(()),
        false => Err(ApiError::usage("a signing session is named by 32 lower-case hexadecimal digits")),
    }
}

/// What a session is to sign next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningNext {
    /// A record, where one waits; nothing where none came within the time of an answer: ask again.
    pub ask: Option<SigningAsk>,
}

/// A record that waits for a signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningAsk {
    /// Its number, for the answer.
    pub number: u64,
    /// The key that is to sign: 52 characters of base32.
    pub key: String,
    /// The record's payload, in hexadecimal.
    pub payload: String,
}

/// The answer of a key's holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningAnswer {
    /// Which record this is about.
    pub number: u64,
    /// The signature's 64 bytes in hexadecimal.
    #[serde(default)]
    pub signature: Option<String>,
    /// Why it is not signed, where it is not.
    #[serde(default)]
    pub refusal: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_away_comes_back_from_its_text() {
        let key = AwayKey { session: "0123456789abcdef0123456789abcdef".into(), key: PublicKey([7; 32]) };
        assert_eq!(AwayKey::read(&key.to_string()).unwrap(), Some(key.clone()));
        assert_eq!(AwayKey::read("alice").unwrap(), None);
        for bad in ["away:", "away:x", "away:0123:aaaa", &key.to_string().to_uppercase().replace("AWAY", "away")] {
            assert!(AwayKey::read(bad).is_err(), "{bad}");
        }
    }
}
