//! Who signs: a key of this node, or one whose holder waits at the other end of the API for what it is to sign.
//!
//! The node writes every record. A private key that lies open in `keys/` signs here; one with a passphrase, or in an
//! ssh-agent, signs where its holder is, and what comes back counts once it verifies.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use rialto_protocol::bounded::Name;
use rialto_protocol::ids::{PublicKey, Signature};
use rialto_protocol::signed::{Draft, Envelope};
use rialto_web::api::{ApiError, AwayKey, SigningAnswer, SigningAsk, SigningNext};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

/// How long a holder may take to sign: an ssh-agent may ask a person, who may have to look for a token.
const SIGN_WITHIN: Duration = Duration::from_secs(120);
/// How long a holder waits for an answer of "nothing yet".
const NEXT_WITHIN: Duration = Duration::from_secs(20);
/// Records that wait for signatures at one time. Each is at most 48 KiB long.
const MAX_WAITING: usize = 64;
/// A refusal is cut to this many characters.
const MAX_REFUSAL_CHARS: usize = 500;

/// A key that signs.
#[derive(Clone)]
pub(crate) enum Signer {
    /// One of this node's own.
    Here {
        /// Its name.
        name: Name,
        /// Itself.
        key: SigningKey,
    },
    /// One that is held elsewhere.
    Away(AwayKey),
}

impl Signer {
    /// Its public half.
    pub(crate) fn public(&self) -> PublicKey {
        match self {
            Self::Here { key, .. } => PublicKey(key.verifying_key().to_bytes()),
            Self::Away(away) => away.key,
        }
    }

    /// Its name, where this node can sign with it again.
    pub(crate) fn name(&self) -> Option<&Name> {
        match self {
            Self::Here { name, .. } => Some(name),
            Self::Away(_) => None,
        }
    }
}

/// Records that wait for signatures from elsewhere.
#[derive(Debug)]
pub(crate) struct SigningDesk {
    /// Never held across an await.
    waiting: Mutex<Waiting>,
    /// The number of the last record that came.
    came: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    asks: BTreeMap<u64, Ask>,
}

#[derive(Debug)]
struct Ask {
    key: AwayKey,
    payload: Vec<u8>,
    reply: oneshot::Sender<Result<Signature, String>>,
}

impl Default for SigningDesk {
    fn default() -> Self {
        Self { waiting: Mutex::default(), came: watch::Sender::new(0) }
    }
}

impl SigningDesk {
    /// Has a record signed by all of these, one after the other.
    ///
    /// # Errors
    /// A holder refuses, does not answer in time, or answers with what is no signature of its key over this record.
    pub(crate) async fn sign(
        &self,
        mut draft: Draft,
        signers: impl IntoIterator<Item = &Signer>,
    ) -> Result<Envelope, ApiError> {
        let unsignable = |error: rialto_protocol::signed::EnvelopeError| ApiError::usage(error.to_string());
        for signer in signers {
            draft = match signer {
                Signer::Here { key, .. } => draft.sign(key).map_err(unsignable)?,
                Signer::Away(away) => {
                    let signature = self.ask(away, draft.payload().to_vec()).await?;
                    draft.attach(away.key, signature).map_err(unsignable)?
                }
            };
        }
        Ok(draft.seal())
    }

    async fn ask(&self, key: &AwayKey, payload: Vec<u8>) -> Result<Signature, ApiError> {
        let shown = key.key.fingerprint();
        let (reply, answer) = oneshot::channel();
        let number = {
            let mut waiting = self.lock();
            if waiting.asks.len() >= MAX_WAITING {
                return Err(ApiError::failed(format!("{MAX_WAITING} records wait for signatures already")));
            }
            waiting.last += 1;
            let number = waiting.last;
            waiting.asks.insert(number, Ask { key: key.clone(), payload, reply });
            number
        };
        // Whatever becomes of this request, nobody is asked for it afterwards.
        let _forgotten = Forget { desk: self, number };
        self.came.send_replace(number);
        match timeout(SIGN_WITHIN, answer).await {
            Ok(Ok(Ok(signature))) => Ok(signature),
            Ok(Ok(Err(refusal))) => Err(ApiError::failed(format!("key {shown} did not sign: {refusal}"))),
            Ok(Err(_)) | Err(_) => Err(ApiError::failed(format!(
                "key {shown} did not sign within {} s; nothing was made public",
                SIGN_WITHIN.as_secs()
            ))),
        }
    }

    /// What a session is to sign next; nothing where nothing came for a while.
    pub(crate) async fn next(&self, session: &str) -> SigningNext {
        let mut came = self.came.subscribe();
        let waited = timeout(NEXT_WITHIN, async {
            loop {
                if let Some(ask) = self.first_of(session) {
                    return ask;
                }
                if came.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        });
        SigningNext { ask: waited.await.ok() }
    }

    fn first_of(&self, session: &str) -> Option<SigningAsk> {
        let waiting = self.lock();
        let (number, ask) = waiting.asks.iter().find(|(_, ask)| ask.key.session == session)?;
        let (key, payload) = (ask.key.key.to_string(), HEXLOWER.encode(&ask.payload));
        Some(SigningAsk { number: *number, key, payload })
    }

    /// Takes a holder's answer.
    ///
    /// # Errors
    /// No record of this session waits under this number, or the answer is neither a signature nor a refusal.
    pub(crate) fn answer(&self, session: &str, answer: SigningAnswer) -> Result<(), ApiError> {
        let outcome = match (&answer.signature, answer.refusal) {
            (Some(signature), None) => {
                let bytes = HEXLOWER.decode(signature.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
                Ok(Signature(bytes.ok_or_else(|| ApiError::usage("a signature is 128 lower-case hexadecimal digits"))?))
            }
            (None, Some(refusal)) => Err(crate::deploy::note(&refusal).chars().take(MAX_REFUSAL_CHARS).collect()),
            _ => return Err(ApiError::usage("an answer is a signature or a refusal")),
        };
        let mut waiting = self.lock();
        let is_theirs = waiting.asks.get(&answer.number).is_some_and(|ask| ask.key.session == session);
        let Some(ask) = is_theirs.then(|| waiting.asks.remove(&answer.number)).flatten() else {
            return Err(ApiError::not_found(format!("no record waits for this signature ({})", answer.number)));
        };
        // Who asked may have gone.
        ask.reply.send(outcome).ok();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Forget<'a> {
    desk: &'a SigningDesk,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.desk.lock().asks.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::Signer as _;
    use rialto_protocol::record::{Body, Revocation, RevocationSubject};
    use rialto_protocol::signed::signed_bytes;

    use super::*;

    const SESSION: &str = "0123456789abcdef0123456789abcdef";

    fn draft(key: &SigningKey) -> (Draft, AwayKey) {
        let public = PublicKey(key.verifying_key().to_bytes());
        let body = Body::Revocation(Revocation {
            subject: RevocationSubject::Key(public),
            reason: "lost".try_into().unwrap(),
        });
        let federation = Some("f".try_into().unwrap());
        (Draft::new([public], federation, 1, &body).unwrap(), AwayKey { session: SESSION.into(), key: public })
    }

    async fn answered(
        desk: &SigningDesk,
        key: &SigningKey,
        answer: impl FnOnce(SigningAsk) -> SigningAnswer,
    ) -> Result<Envelope, ApiError> {
        let (draft, away) = draft(key);
        let signers = [Signer::Away(away)];
        let answering = async {
            let ask = desk.next(SESSION).await.ask.unwrap();
            desk.answer(SESSION, answer(ask)).unwrap();
        };
        tokio::join!(desk.sign(draft, &signers), answering).0
    }

    #[tokio::test]
    async fn what_a_holder_signs_verifies_and_what_it_does_not_is_refused() {
        let (desk, key) = (SigningDesk::default(), SigningKey::from_bytes(&[3; 32]));
        let sign = |ask: &SigningAsk, by: &SigningKey| {
            let payload = HEXLOWER.decode(ask.payload.as_bytes()).unwrap();
            Some(HEXLOWER.encode(&by.sign(&signed_bytes(&payload)).to_bytes()))
        };
        let good = answered(&desk, &key, |ask| SigningAnswer {
            number: ask.number,
            signature: sign(&ask, &key),
            refusal: None,
        });
        assert!(good.await.unwrap().verify().is_ok());
        let other = SigningKey::from_bytes(&[4; 32]);
        let forged = answered(&desk, &key, |ask| SigningAnswer {
            number: ask.number,
            signature: sign(&ask, &other),
            refusal: None,
        });
        assert!(forged.await.unwrap_err().message.contains("does not verify"));
        let refused = answered(&desk, &key, |ask| SigningAnswer {
            number: ask.number,
            signature: None,
            refusal: Some("the agent is locked".into()),
        });
        assert!(refused.await.unwrap_err().message.ends_with("did not sign: the agent is locked"));
        assert!(desk.lock().asks.is_empty());
    }

    #[tokio::test]
    async fn a_session_sees_its_own_records_only_and_a_request_that_is_gone_waits_no_more() {
        let (desk, key) = (SigningDesk::default(), SigningKey::from_bytes(&[3; 32]));
        let (draft, away) = draft(&key);
        let signers = [Signer::Away(away)];
        {
            let signing = desk.sign(draft, &signers);
            tokio::pin!(signing);
            assert!(futures::poll!(&mut signing).is_pending());
            let number = desk.next(SESSION).await.ask.unwrap().number;
            let other = "f".repeat(32);
            assert!(desk.first_of(&other).is_none());
            let stolen = SigningAnswer { number: number + 1, signature: None, refusal: Some("no".into()) };
            assert!(desk.answer(SESSION, stolen).is_err());
        }
        assert!(desk.first_of(SESSION).is_none());
    }
}
