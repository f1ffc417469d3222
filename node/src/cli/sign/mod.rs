//! Signing where the key is: keys with a passphrase and keys in an ssh-agent, which the node cannot use by itself.
//!
//! `--key` takes the name of a key of this node, the file of a key, or `agent:` and what an ssh-agent calls one. A key
//! that lies open in `keys/` signs in the node. For any other the node writes the record and waits for a signature
//! (`rialto_web::api::AwayKey`), which is made here, once the record is what the command was to make.

mod agent;
pub(super) mod passphrase;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer as _, SigningKey};
use rialto_protocol::bounded::Name;
use rialto_protocol::ids::{PublicKey, Signature};
use rialto_protocol::signed::{Header, signed_bytes};
use rialto_web::api::{ApiError, AwayKey, ErrorCode, SigningAnswer, SigningAsk, SigningNext};

use super::output::Outcome;
use crate::client::Client;
use crate::dir::NodeDir;
use crate::keys::{self, Found, KeyError, Keys, Locked};
use agent::{Agent, AgentError, Identity};
use passphrase::Source;

/// How often a terminal is asked for a passphrase: as ssh-add does.
const ATTEMPTS: usize = 3;
const AGENT_PREFIX: &str = "agent:";

/// Which key is to sign, as given with `--key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyChoice {
    /// A key of this node.
    Named(Name),
    /// A file: a private key, or a public one whose other half an ssh-agent has.
    File(PathBuf),
    /// A key of the ssh-agent: the comment it has there, its fingerprint, or a name of `keys/`.
    Agent(String),
}

impl FromStr for KeyChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(wanted) = text.strip_prefix(AGENT_PREFIX) {
            return match wanted {
                "" => Err("agent: goes before what ssh-add -l shows of a key: its comment, or its fingerprint".into()),
                wanted => Ok(Self::Agent(wanted.into())),
            };
        }
        if text.contains('/') || text.ends_with(".pub") {
            return Ok(Self::File(text.into()));
        }
        text.parse().map(Self::Named).map_err(|error| format!("{error}; a file is given with its directory: ./{text}"))
    }
}

/// The keys that a command signs with.
pub(super) struct Signing<'a> {
    client: &'a Client,
    session: String,
    /// The kind of record that the command makes: nothing else is signed.
    kind: &'static str,
    keys: Vec<Ready>,
}

enum Ready {
    /// The node signs with it.
    OfTheNode(Name),
    /// It signs here.
    Away(PublicKey, Holder),
}

#[derive(Clone)]
enum Holder {
    Unlocked(Box<SigningKey>),
    Agent(Agent),
}

impl<'a> Signing<'a> {
    /// Finds the keys, and asks for the passphrases of those that no ssh-agent has.
    ///
    /// # Errors
    /// There is no such key, it cannot be read, or its passphrase is not known.
    pub(super) fn prepare(
        dir: &NodeDir,
        client: &'a Client,
        kind: &'static str,
        choices: impl IntoIterator<Item = KeyChoice>,
    ) -> Outcome<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(KeyError::Entropy)?;
        let keys = Keys::of(dir);
        let keys = choices.into_iter().map(|choice| find(&keys, choice)).collect::<Outcome<_>>()?;
        Ok(Self { client, session: HEXLOWER.encode(&random), kind, keys })
    }

    /// The keys, as requests name them.
    pub(super) fn names(&self) -> Vec<String> {
        let name = |key: &Ready| match key {
            Ready::OfTheNode(name) => name.to_string(),
            Ready::Away(key, _) => AwayKey { session: self.session.clone(), key: *key }.to_string(),
        };
        self.keys.iter().map(name).collect()
    }

    /// The first of them, for commands that take one.
    pub(super) fn name(&self) -> String {
        self.names().into_iter().next().unwrap_or_default()
    }

    /// Whether the node can sign with all of them again, by itself.
    pub(super) fn node_has_all(&self) -> bool {
        self.keys.iter().all(|key| matches!(key, Ready::OfTheNode(_)))
    }

    /// Does what needs signatures, and makes them meanwhile.
    ///
    /// # Errors
    /// Those of `work`; the node is gone.
    pub(super) async fn during<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        if self.node_has_all() {
            return work.await;
        }
        tokio::select! {
            biased;
            done = work => done,
            Err(error) = self.serve() => Err(error),
        }
    }

    async fn serve(&self) -> Outcome {
        let path = format!("signing/{}", self.session);
        loop {
            let next: SigningNext = self.client.get(&path).await?;
            let Some(ask) = next.ask else { continue };
            let answer = match self.sign(&ask).await {
                Ok(signature) => {
                    SigningAnswer { number: ask.number, signature: Some(HEXLOWER.encode(&signature.0)), refusal: None }
                }
                Err(why) => SigningAnswer { number: ask.number, signature: None, refusal: Some(why) },
            };
            match self.client.post::<()>(&path, &answer).await {
                // Whoever asked has given up meanwhile.
                Err(error) if error.code == ErrorCode::NotFound => {}
                answered => answered?,
            }
        }
    }

    async fn sign(&self, ask: &SigningAsk) -> Result<Signature, String> {
        let payload = HEXLOWER.decode(ask.payload.as_bytes()).map_err(|_| "that is no record".to_owned())?;
        let header = Header::of_payload(&payload).map_err(|error| error.to_string())?;
        if header.kind != self.kind {
            return Err(format!("a {} was to be signed, and not a {}", self.kind, header.kind));
        }
        let holders = self.keys.iter().filter_map(|key| match key {
            Ready::Away(public, holder) => Some((*public, holder)),
            Ready::OfTheNode(_) => None,
        });
        let wanted = holders.into_iter().find(|(public, _)| public.to_string() == ask.key);
        let (public, holder) =
            wanted.filter(|(public, _)| header.issuers.contains(public)).ok_or("it is not to be signed by this key")?;
        let message = signed_bytes(&payload);
        match holder.clone() {
            Holder::Unlocked(key) => Ok(Signature(key.sign(&message).to_bytes())),
            Holder::Agent(agent) => tokio::task::spawn_blocking(move || agent.sign(&public, &message))
                .await
                .map_err(|error| error.to_string())?
                .map_err(|error| error.to_string()),
        }
    }
}

fn find(keys: &Keys, choice: KeyChoice) -> Outcome<Ready> {
    match choice {
        KeyChoice::Named(name) => match keys.look(&name) {
            Ok(Found::Open(_)) => Ok(Ready::OfTheNode(name)),
            Ok(found) => away(found, &format!("keys/{name}")),
            // The node may be another user, who can.
            Err(KeyError::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Ok(Ready::OfTheNode(name))
            }
            Err(error) => Err(error.into()),
        },
        KeyChoice::File(path) => {
            let found = match is_public(&path) {
                true => Found::PublicOnly(keys::read_public_file(&path).map_err(|error| missing(error, &path))?),
                false => keys::read_private_file(&path).map_err(|error| missing(error, &path))?,
            };
            away(found, &path.display().to_string())
        }
        KeyChoice::Agent(wanted) => {
            let agent = Agent::of_session().map_err(refused)?;
            let identities = agent.identities().map_err(refused)?;
            let named = Name::try_from(wanted.as_str()).ok().and_then(|name| keys.public(&name).ok());
            Ok(Ready::Away(choose(&identities, &wanted, named)?, Holder::Agent(agent)))
        }
    }
}

fn is_public(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "pub")
}

/// A key that does not lie open in `keys/`: an ssh-agent's, where it has it, as ssh does it.
fn away(found: Found, shown: &str) -> Outcome<Ready> {
    let public = found.public();
    if let Found::Open(key) = found {
        return Ok(Ready::Away(public, Holder::Unlocked(Box::new(key))));
    }
    let agent = Agent::of_session();
    let of_agent = agent.as_ref().ok().map(|agent| agent.identities());
    if let (Ok(agent), Some(Ok(identities))) = (&agent, &of_agent)
        && identities.iter().any(|identity| identity.key == public)
    {
        return Ok(Ready::Away(public, Holder::Agent(agent.clone())));
    }
    match found {
        Found::Locked(locked) => Ok(Ready::Away(public, Holder::Unlocked(Box::new(unlock(&locked, shown)?)))),
        Found::PublicOnly(_) | Found::Open(_) => {
            let why = match (agent, of_agent) {
                (Err(error), _) | (_, Some(Err(error))) => error.to_string(),
                _ => "the ssh-agent does not have the private half".into(),
            };
            Err(ApiError::failed(format!("{shown} is the public half of a key only, and {why}"))
                .with_hint("load the private half with: ssh-add FILE"))
        }
    }
}

fn unlock(locked: &Locked, shown: &str) -> Outcome<SigningKey> {
    let mut source = Source::open()?;
    let mut left = if source.can_be_asked_again() { ATTEMPTS } else { 1 };
    loop {
        let passphrase = source.ask(&format!("Passphrase of {shown}: "))?;
        left -= 1;
        match locked.unlock(&passphrase) {
            Err(KeyError::WrongPassphrase(_)) if left > 0 => {}
            unlocked => return Ok(unlocked?),
        }
    }
}

/// The agent's key that this means.
fn choose(identities: &[Identity], wanted: &str, named: Option<PublicKey>) -> Outcome<PublicKey> {
    let is_meant = |identity: &&Identity| {
        let key = &identity.key;
        identity.comment == wanted
            || named == Some(*key)
            || key.fingerprint() == wanted
            || key.to_string() == wanted
            || sha256(key).as_deref() == Some(wanted)
            || keys::from_openssh(wanted).ok() == Some(*key)
    };
    let mut meant: Vec<PublicKey> = identities.iter().filter(is_meant).map(|identity| identity.key).collect();
    meant.sort();
    meant.dedup();
    let has: Vec<&str> = identities.iter().map(|identity| identity.comment.as_str()).collect();
    match meant.as_slice() {
        [one] => Ok(*one),
        [] => Err(ApiError::not_found(format!("the ssh-agent has no ed25519 key '{wanted}'")).with_hint(
            match has.len() {
                0 => "it has none at all: load one with ssh-add FILE".to_owned(),
                _ => format!("it has: {}", has.join(", ")),
            },
        )),
        _ => Err(ApiError::usage(format!("the ssh-agent has several keys called '{wanted}'"))
            .with_hint("name it by its fingerprint, as ssh-add -l shows it: agent:SHA256:…")),
    }
}

/// As `ssh-add -l` shows it.
fn sha256(key: &PublicKey) -> Option<String> {
    let line = keys::to_openssh(key, "").ok()?;
    let key = ssh_key::PublicKey::from_openssh(line.trim()).ok()?;
    Some(key.fingerprint(ssh_key::HashAlg::Sha256).to_string())
}

fn refused(error: AgentError) -> ApiError {
    let hint = match error {
        AgentError::NotThere => Some("start one with: eval \"$(ssh-agent)\" && ssh-add FILE"),
        _ => None,
    };
    let failed = ApiError::failed(error.to_string());
    hint.map_or(failed.clone(), |hint| failed.with_hint(hint))
}

fn missing(error: KeyError, path: &Path) -> ApiError {
    match error {
        KeyError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            ApiError::not_found(format!("there is no file {}", path.display()))
        }
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_in_three_ways() {
        let read = |text: &str| text.parse::<KeyChoice>();
        assert_eq!(read("alice"), Ok(KeyChoice::Named("alice".parse().unwrap())));
        assert_eq!(read("agent:alice@desk"), Ok(KeyChoice::Agent("alice@desk".into())));
        assert_eq!(read("alice.pub"), Ok(KeyChoice::File("alice.pub".into())));
        assert_eq!(read("./alice"), Ok(KeyChoice::File("./alice".into())));
        assert!(read("agent:").is_err() && read("Alice!").is_err() && read("").is_err());
    }

    #[test]
    fn a_key_of_the_agent_is_meant_by_comment_fingerprint_or_name_and_never_by_luck() {
        let key = |seed: u8| PublicKey(SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes());
        let identity = |seed: u8, comment: &str| Identity { key: key(seed), comment: comment.into() };
        let identities = [identity(1, "me"), identity(2, "twice"), identity(3, "twice")];
        assert_eq!(choose(&identities, "me", None).unwrap(), key(1));
        assert_eq!(choose(&identities, &sha256(&key(2)).unwrap(), None).unwrap(), key(2));
        assert_eq!(choose(&identities, &key(3).fingerprint(), None).unwrap(), key(3));
        assert_eq!(choose(&identities, "alice", Some(key(2))).unwrap(), key(2));
        assert_eq!(choose(&identities, "twice", None).unwrap_err().code, ErrorCode::Usage);
        let unknown = choose(&identities, "you", None).unwrap_err();
        assert_eq!((unknown.code, unknown.hint.unwrap()), (ErrorCode::NotFound, "it has: me, twice, twice".into()));
    }
}
