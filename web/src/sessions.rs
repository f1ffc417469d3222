//! Who may use the loopback listener: one-time links, and the sessions that they open.
//!
//! A link is minted by whoever can reach the node's UNIX socket, works once within ten minutes, and is exchanged for a
//! cookie. Only hashes are kept, so a memory dump or a debug print shows no secret, and comparing hashes takes the same
//! time whatever was guessed. Nothing is written to disk: a restart of the node ends all sessions.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

/// Entropy of a token and of a session: out of reach of guessing, online or off.
const SECRET_BYTES: usize = 32;
/// How long a link waits to be opened: long enough to copy it through a terminal and an `ssh` tunnel.
const TOKEN_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// How long a session lasts without a request.
const SESSION_IDLE: Duration = Duration::from_secs(12 * 60 * 60);
/// How long a session lasts in all.
const SESSION_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Links waiting to be opened; the oldest goes first.
const MAX_TOKENS: usize = 16;
/// Open sessions; the one unused for longest goes first.
const MAX_SESSIONS: usize = 64;

/// Why no link or session could be made.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The machine gives no random bytes.
    #[error("the system gives no random bytes ({0}); a secret cannot be made")]
    NoEntropy(getrandom::Error),
}

/// The one-time links and sessions of one node. Clones share them.
#[derive(Clone)]
pub struct Sessions {
    cookie: Arc<str>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Sessions {
    /// No links, no sessions.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new() -> Result<Self, SessionError> {
        let mut name = [0; 4];
        getrandom::fill(&mut name).map_err(SessionError::NoEntropy)?;
        // Cookies know no ports: two nodes on one host, or behind two tunnels, must not overwrite each other's.
        let cookie = format!("rialto-{}", HEXLOWER.encode(&name)).into();
        Ok(Self { cookie, ledger: Arc::default() })
    }

    /// A fresh link to the node's pages at this port of the loopback interface. It works once, within ten minutes.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn mint_link(&self, port: u16) -> Result<String, SessionError> {
        let secret = Secret::fresh()?;
        self.ledger().mint(secret.digest(), Instant::now());
        Ok(format!("http://127.0.0.1:{port}/login?token={}", secret.0))
    }

    /// Spends a token; a session's secret comes back when the token was good.
    pub(crate) fn redeem(&self, token: &str) -> Result<Option<String>, SessionError> {
        let secret = Secret::fresh()?;
        let is_good = self.ledger().redeem(digest(token), secret.digest(), Instant::now());
        Ok(is_good.then_some(secret.0))
    }

    /// Whether this is the secret of an open session; using it keeps it open.
    pub(crate) fn is_open(&self, secret: &str) -> bool {
        self.ledger().touch(digest(secret), Instant::now())
    }

    /// Ends a session.
    pub(crate) fn close(&self, secret: &str) {
        self.ledger().close(digest(secret));
    }

    /// The name of the cookie that carries a session.
    pub(crate) fn cookie(&self) -> &str {
        &self.cookie
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A panic while it was held leaves two lists of plain values: nothing in them can be half done.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("cookie", &self.cookie).finish_non_exhaustive()
    }
}

struct Secret(String);

impl Secret {
    fn fresh() -> Result<Self, SessionError> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(SessionError::NoEntropy)?;
        Ok(Self(BASE64URL_NOPAD.encode(&bytes)))
    }

    fn digest(&self) -> blake3::Hash {
        digest(&self.0)
    }
}

/// `blake3::Hash` compares in constant time, and what is compared is a hash anyway.
fn digest(secret: &str) -> blake3::Hash {
    blake3::hash(secret.as_bytes())
}

/// The pure part: time is an argument.
#[derive(Default)]
struct Ledger {
    /// Oldest first.
    tokens: VecDeque<Token>,
    /// Unused for longest first.
    sessions: VecDeque<Session>,
}

struct Token {
    digest: blake3::Hash,
    minted: Instant,
}

struct Session {
    digest: blake3::Hash,
    opened: Instant,
    used: Instant,
}

impl Ledger {
    fn mint(&mut self, digest: blake3::Hash, now: Instant) {
        self.expire(now);
        while self.tokens.len() >= MAX_TOKENS {
            self.tokens.pop_front();
        }
        self.tokens.push_back(Token { digest, minted: now });
    }

    fn redeem(&mut self, token: blake3::Hash, session: blake3::Hash, now: Instant) -> bool {
        self.expire(now);
        let before = self.tokens.len();
        self.tokens.retain(|held| held.digest != token);
        if self.tokens.len() == before {
            return false;
        }
        while self.sessions.len() >= MAX_SESSIONS {
            self.sessions.pop_front();
        }
        self.sessions.push_back(Session { digest: session, opened: now, used: now });
        true
    }

    fn touch(&mut self, digest: blake3::Hash, now: Instant) -> bool {
        self.expire(now);
        let found = self.sessions.iter().position(|session| session.digest == digest);
        let Some(mut session) = found.and_then(|at| self.sessions.remove(at)) else { return false };
        session.used = now;
        self.sessions.push_back(session);
        true
    }

    fn close(&mut self, digest: blake3::Hash) {
        self.sessions.retain(|session| session.digest != digest);
    }

    fn expire(&mut self, now: Instant) {
        let age = |then| now.saturating_duration_since(then);
        self.tokens.retain(|token| age(token.minted) < TOKEN_LIFETIME);
        self.sessions.retain(|session| age(session.used) < SESSION_IDLE && age(session.opened) < SESSION_LIFETIME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> blake3::Hash {
        digest(text)
    }

    #[test]
    fn a_token_opens_one_session_and_then_none() {
        let sessions = Sessions::new().unwrap();
        let link = sessions.mint_link(7070).unwrap();
        let token = link.strip_prefix("http://127.0.0.1:7070/login?token=").unwrap();
        assert_eq!(token.len(), 43, "256 bits of base64");
        let secret = sessions.redeem(token).unwrap().expect("a fresh token is good");
        assert!(sessions.is_open(&secret));
        assert_eq!(sessions.redeem(token).unwrap(), None, "a token is spent");
        assert!(!sessions.is_open(token), "a token is not a session");
        sessions.close(&secret);
        assert!(!sessions.is_open(&secret));
    }

    #[test]
    fn tokens_and_sessions_end() {
        let start = Instant::now();
        let mut ledger = Ledger::default();
        ledger.mint(name("a"), start);
        assert!(!ledger.redeem(name("a"), name("s"), start + TOKEN_LIFETIME));
        ledger.mint(name("b"), start);
        assert!(ledger.redeem(name("b"), name("s"), start));
        assert!(ledger.touch(name("s"), start + SESSION_IDLE - Duration::from_secs(1)));
        assert!(!ledger.touch(name("s"), start + 2 * SESSION_IDLE));
        ledger.mint(name("c"), start);
        assert!(ledger.redeem(name("c"), name("t"), start));
        let mut now = start;
        while now + SESSION_IDLE / 2 < start + SESSION_LIFETIME {
            now += SESSION_IDLE / 2;
            assert!(ledger.touch(name("t"), now));
        }
        assert!(!ledger.touch(name("t"), start + SESSION_LIFETIME), "even a session in use ends");
    }

    #[test]
    fn both_lists_are_bounded_and_drop_the_oldest() {
        let now = Instant::now();
        let mut ledger = Ledger::default();
        for at in 0..=MAX_TOKENS {
            ledger.mint(name(&at.to_string()), now);
        }
        assert_eq!(ledger.tokens.len(), MAX_TOKENS);
        assert!(!ledger.redeem(name("0"), name("s"), now));
        assert!(ledger.redeem(name("1"), name("s"), now));
        for at in 0..=MAX_SESSIONS {
            let text = format!("more {at}");
            ledger.mint(name(&text), now);
            assert!(ledger.redeem(name(&text), name(&text), now));
        }
        assert_eq!(ledger.sessions.len(), MAX_SESSIONS);
        assert!(!ledger.touch(name("s"), now));
    }
}
