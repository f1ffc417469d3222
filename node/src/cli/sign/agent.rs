//! A client of ssh-agent: which keys it has, and signatures by them (draft-ietf-sshm-ssh-agent).
//!
//! Two messages are all that is needed, and they are small; the client crates there are bring a second ed25519 and async
//! runtimes of their own. Nothing that an agent says is believed: what it answers is bounded before it is read, and its
//! signatures are verified before they are used.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rialto_protocol::ids::{PublicKey, Signature};
use rialto_protocol::signed::is_signature_of;

/// Where the agent listens, as every ssh program looks it up.
pub(super) const SOCKET_VARIABLE: &str = "SSH_AUTH_SOCK";
/// Longest message either side sends: OpenSSH's own bound.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// Keys that are looked at: OpenSSH's agents answer with at most 2,048.
const MAX_KEYS: u32 = 2048;
/// How long the agent may take to list its keys.
const LIST_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to sign: it may ask a person (`ssh-add -c`), or wait for a token to be touched.
const SIGN_WITHIN: Duration = Duration::from_secs(110);

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const ED25519: &[u8] = b"ssh-ed25519";

/// Why an agent does not sign.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgentError {
    /// None is known.
    #[error("no ssh-agent is there: {SOCKET_VARIABLE} is not set")]
    NotThere,
    /// It does not answer, or the connection broke.
    #[error("the ssh-agent at {} does not answer: {source}", path.display())]
    Silent {
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It answers, but what is no agent's answer.
    #[error("the ssh-agent answers {0}")]
    Nonsense(&'static str),
    /// It has the key no more, is locked, or its owner said no.
    #[error("the ssh-agent refuses to sign: it does not have the key any more, is locked, or its owner said no")]
    Refused,
    /// Its signature is not one.
    #[error("the ssh-agent's signature does not verify")]
    BadSignature,
}

/// A key that an agent has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) key: PublicKey,
    pub(super) comment: String,
}

/// An agent. Each request is a connection of its own.
#[derive(Debug, Clone)]
pub(super) struct Agent(PathBuf);

impl Agent {
    /// The agent of this session.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn of_session() -> Result<Self, AgentError> {
        let path: OsString = std::env::var_os(SOCKET_VARIABLE).unwrap_or_default();
        if path.is_empty() { Err(AgentError::NotThere) } else { Ok(Self(path.into())) }
    }

    /// Its ed25519 keys; others are left out. Blocks.
    ///
    /// # Errors
    /// It does not answer, or not as an agent does.
    pub(super) fn identities(&self) -> Result<Vec<Identity>, AgentError> {
        identities(&self.ask(&[REQUEST_IDENTITIES], LIST_WITHIN)?)
    }

    /// Its signature, verified. Blocks, for as long as a person may take to agree.
    ///
    /// # Errors
    /// It refuses, does not answer, or answers with what is no signature of this key.
    pub(super) fn sign(&self, key: &PublicKey, message: &[u8]) -> Result<Signature, AgentError> {
        let mut request = vec![SIGN_REQUEST];
        put(&mut request, &blob(key));
        put(&mut request, message);
        // No flags: they choose among hashes of RSA.
        request.extend(0u32.to_be_bytes());
        let signature = signature(&self.ask(&request, SIGN_WITHIN)?)?;
        if is_signature_of(key, message, &signature) { Ok(signature) } else { Err(AgentError::BadSignature) }
    }

    fn ask(&self, request: &[u8], within: Duration) -> Result<Vec<u8>, AgentError> {
        let silent = |source| AgentError::Silent { path: self.0.clone(), source };
        let mut stream = UnixStream::connect(&self.0).map_err(silent)?;
        stream.set_read_timeout(Some(within)).and_then(|()| stream.set_write_timeout(Some(within))).map_err(silent)?;
        let mut message = Vec::new();
        put(&mut message, request);
        stream.write_all(&message).map_err(silent)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length).map_err(silent)?;
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 || length > MAX_MESSAGE_BYTES {
            return Err(AgentError::Nonsense("with a message that is empty or too long"));
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).map_err(silent)?;
        Ok(answer)
    }
}

/// The wire form of a key (RFC 8709 §4).
fn blob(key: &PublicKey) -> Vec<u8> {
    let mut blob = Vec::new();
    put(&mut blob, ED25519);
    put(&mut blob, &key.0);
    blob
}

/// A string of the wire (RFC 4251 §5). All of ours are far below 4 GiB.
fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend((bytes.len() as u32).to_be_bytes());
    to.extend(bytes);
}

fn identities(answer: &[u8]) -> Result<Vec<Identity>, AgentError> {
    const CUT: AgentError = AgentError::Nonsense("with a list of keys that is cut off");
    let mut rest = match answer.split_first() {
        Some((&IDENTITIES_ANSWER, rest)) => rest,
        Some((&FAILURE, _)) => return Ok(Vec::new()),
        _ => return Err(AgentError::Nonsense("something else than a list of keys")),
    };
    let count = number(&mut rest).ok_or(CUT)?;
    let mut found = Vec::new();
    for _ in 0..count.min(MAX_KEYS) {
        let (key, comment) = (string(&mut rest).ok_or(CUT)?, string(&mut rest).ok_or(CUT)?);
        if let Some(key) = ed25519(key) {
            found.push(Identity { key, comment: crate::deploy::note(&String::from_utf8_lossy(comment)) });
        }
    }
    Ok(found)
}

fn ed25519(mut blob: &[u8]) -> Option<PublicKey> {
    let is_ours = string(&mut blob)? == ED25519;
    let key = string(&mut blob)?.try_into().ok()?;
    (is_ours && blob.is_empty()).then_some(PublicKey(key))
}

fn signature(answer: &[u8]) -> Result<Signature, AgentError> {
    const OTHER: AgentError = AgentError::Nonsense("with something else than a signature of ed25519");
    let mut rest = match answer.split_first() {
        Some((&SIGN_RESPONSE, rest)) => rest,
        Some((&FAILURE, _)) => return Err(AgentError::Refused),
        _ => return Err(OTHER),
    };
    let mut signature = string(&mut rest).ok_or(OTHER)?;
    let algorithm = string(&mut signature).ok_or(OTHER)?;
    let bytes = string(&mut signature).and_then(|bytes| bytes.try_into().ok()).ok_or(OTHER)?;
    if algorithm == ED25519 { Ok(Signature(bytes)) } else { Err(OTHER) }
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (number, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_be_bytes(*number))
}

fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(rest)? as usize;
    let (string, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(string)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(keys: &[(Vec<u8>, &str)]) -> Vec<u8> {
        let mut answer = vec![IDENTITIES_ANSWER];
        answer.extend((keys.len() as u32).to_be_bytes());
        for (blob, comment) in keys {
            put(&mut answer, blob);
            put(&mut answer, comment.as_bytes());
        }
        answer
    }

    #[test]
    fn keys_of_other_kinds_are_passed_over_and_comments_cannot_act_on_a_terminal() {
        let mut rsa = Vec::new();
        put(&mut rsa, b"ssh-rsa");
        put(&mut rsa, &[1; 32]);
        let answer = listed(&[(rsa, "rsa"), (blob(&PublicKey([7; 32])), "me\u{1b}[2J")]);
        let found = identities(&answer).unwrap();
        assert_eq!(found, [Identity { key: PublicKey([7; 32]), comment: "me [2J".into() }]);
        assert_eq!(identities(&[FAILURE]).unwrap(), []);
    }

    #[test]
    fn an_agent_that_counts_wrongly_is_not_believed() {
        let mut answer = listed(&[(blob(&PublicKey([7; 32])), "me")]);
        answer[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(identities(&answer), Err(AgentError::Nonsense(_))));
        assert!(matches!(signature(&[FAILURE]), Err(AgentError::Refused)));
        assert!(matches!(signature(&[]), Err(AgentError::Nonsense(_))));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_readers_panic(answer in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..16) {
            let _ = identities(&answer);
            let _ = signature(&answer);
            let of_kind: Vec<u8> = [kind].into_iter().chain(answer).collect();
            let _ = identities(&of_kind);
            let _ = signature(&of_kind);
        }
    }
}
