//! `keys/NAME{,.pub}`: OpenSSH ed25519 key files, the site's own and those it signs records with.
//!
//! A key may have a passphrase, or be here by its public half alone while an ssh-agent has the other. The node uses neither:
//! it has nobody to ask. Whoever runs a command has, so such keys sign there (`cli/sign`).

mod private;

use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use libp2p::PeerId;
use libp2p::identity::{self, Keypair};
use rialto_protocol::bounded::Name;
use rialto_protocol::ids::PublicKey;
use rialto_web::api::{ApiError, ErrorCode};
use ssh_key::public::{Ed25519PublicKey, KeyData};

pub use private::{Found, Locked};

use crate::dir::{NodeDir, read_bounded, write_new};

/// The name of the key that is also the node's libp2p identity.
pub const SITE_KEY: &str = "site";
/// An OpenSSH ed25519 key file has about 400 bytes; nothing longer is read.
const MAX_KEY_FILE_BYTES: u64 = 16 * 1024;
/// Key files that are looked at in one directory.
const MAX_KEYS: usize = 1000;

/// Why a key cannot be made, read or converted.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No such file.
    #[error("there is no key '{name}' ({})", path.display())]
    NotFound {
        /// The key's name.
        name: Name,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file of that name is there.
    #[error("there is a key '{name}' already ({}); a key is never overwritten", path.display())]
    Exists {
        /// The key's name.
        name: Name,
        /// Where it is.
        path: PathBuf,
    },
    /// The name would be taken for the public half of another key.
    #[error("a key cannot be called '{0}': '.pub' names the public half of a key")]
    ReservedName(Name),
    /// Others may read the private key.
    #[error("{} has permissions {mode:04o}: others can read this private key, so it is not used", path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key has a passphrase.
    #[error("{} has a passphrase, which the node has nobody to ask for", .0.display())]
    Encrypted(PathBuf),
    /// Only the public half is here.
    #[error("{} is not here, only its public half", .0.display())]
    PublicOnly(PathBuf),
    /// That is not its passphrase.
    #[error("that is not the passphrase of {}", .0.display())]
    WrongPassphrase(PathBuf),
    /// Another algorithm.
    #[error("{what} is a key of type {algorithm}; only ssh-ed25519 keys are used")]
    NotEd25519 {
        /// The file or text.
        what: String,
        /// The algorithm it has.
        algorithm: String,
    },
    /// Not a key.
    #[error("{what} is not an OpenSSH key: {reason}")]
    NotAKey {
        /// The file or text.
        what: String,
        /// Why.
        reason: String,
    },
    /// Not an ed25519 peer id.
    #[error("'{0}' is not the peer id of a site: sites have ed25519 keys, whose peer ids start with 12D3Koo")]
    NotASite(String),
    /// No entropy.
    #[error("the machine gives no random numbers: {0}")]
    Entropy(getrandom::Error),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl KeyError {
    /// What to do next, where something can be done.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { name, .. } => {
                Some(format!("make it with: rialto key new {name} (rialto key list shows those there are)"))
            }
            Self::Exists { .. } => Some("choose another name".into()),
            Self::TooOpen { path, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::Encrypted(path) if path.file_name().is_some_and(|name| name == SITE_KEY) => Some(format!(
                "a node needs its site key whenever it starts: take the passphrase off with ssh-keygen -p -N '' -f {}",
                path.display()
            )),
            Self::Encrypted(_) => Some(
                "sign on the command line, which asks for it; load the key into an ssh-agent and sign with --key agent:NAME; \
                 or let a key without passphrase act for it: rialto delegate KEY --key NAME"
                    .into(),
            ),
            Self::PublicOnly(_) => Some("load it with ssh-add, and sign on the command line with --key agent:NAME".into()),
            Self::NotEd25519 { .. } => Some("make one with: rialto key new NAME, or ssh-keygen -t ed25519".into()),
            _ => None,
        }
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        let code = match error {
            KeyError::NotFound { .. } => ErrorCode::NotFound,
            KeyError::ReservedName(_) | KeyError::NotASite(_) => ErrorCode::Usage,
            _ => ErrorCode::Failed,
        };
        Self { code, message: error.to_string(), hint: error.hint() }
    }
}

/// One line of `key list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// Its name.
    pub name: Name,
    /// Its public half, or why it cannot be read.
    pub public_key: Result<PublicKey, String>,
    /// Whether the node can sign with it, by itself.
    pub is_usable: bool,
}

/// The key files of one node.
#[derive(Debug, Clone)]
pub struct Keys(PathBuf);

impl Keys {
    /// The keys of this node.
    pub fn of(dir: &NodeDir) -> Self {
        Self(dir.keys())
    }

    /// Makes a key pair: NAME with mode 0600 and NAME.pub.
    ///
    /// # Errors
    /// A key of that name is there (it is never overwritten), or the file system refuses.
    pub fn create(&self, name: &Name) -> Result<PublicKey, KeyError> {
        self.create_with(name, None)
    }

    /// The same, with a passphrase.
    ///
    /// # Errors
    /// As [`Keys::create`].
    pub fn create_with(&self, name: &Name, passphrase: Option<&str>) -> Result<PublicKey, KeyError> {
        let path = self.path(name)?;
        let mut seed = [0u8; 32];
        getrandom::fill(&mut seed).map_err(KeyError::Entropy)?;
        let key = SigningKey::from_bytes(&seed);
        let public = PublicKey(key.verifying_key().to_bytes());
        private::write(&path, name, &key, passphrase)?;
        let text = to_openssh(&public, name)? + "\n";
        let public_path = path.with_file_name(format!("{name}.pub"));
        match write_new(&public_path, text.as_bytes(), 0o644) {
            // Left by a key that was moved away: the private key is what counts, and says so in `key list`.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                tracing::warn!("{} was there already and stays as it is", public_path.display());
            }
            Err(source) => return Err(KeyError::Io { action: "write", path: public_path, source }),
            Ok(()) => {}
        }
        Ok(public)
    }

    /// Whether a key of this name can be made.
    ///
    /// # Errors
    /// There is one, or the name is reserved.
    pub fn check_new(&self, name: &Name) -> Result<(), KeyError> {
        let path = self.path(name)?;
        match std::fs::symlink_metadata(&path) {
            Ok(_) => Err(KeyError::Exists { name: name.clone(), path }),
            Err(_) => Ok(()),
        }
    }

    /// Reads a private key that has no passphrase.
    ///
    /// # Errors
    /// There is none, others may read it, it has a passphrase, or it is not ed25519.
    pub fn load(&self, name: &Name) -> Result<SigningKey, KeyError> {
        match self.look(name)? {
            Found::Open(key) => Ok(key),
            Found::Locked(locked) => Err(KeyError::Encrypted(locked.path().to_owned())),
            Found::PublicOnly(_) => Err(KeyError::PublicOnly(self.path(name)?)),
        }
    }

    /// Whatever is here of a key.
    ///
    /// # Errors
    /// Nothing is, others may read its private half, or it is not ed25519.
    pub fn look(&self, name: &Name) -> Result<Found, KeyError> {
        let path = self.path(name)?;
        match private::read_file(&path) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                match read_public_file(&path.with_file_name(format!("{name}.pub"))) {
                    Ok(public) => Ok(Found::PublicOnly(public)),
                    Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                        Err(KeyError::NotFound { name: name.clone(), path })
                    }
                    Err(error) => Err(error),
                }
            }
            found => found,
        }
    }

    /// Reads the site key, which is also the libp2p identity.
    ///
    /// # Errors
    /// As [`Keys::load`].
    pub fn site(&self) -> Result<SigningKey, KeyError> {
        match self.load(&site_name()?) {
            // Its public half is of no use to a node.
            Err(KeyError::PublicOnly(path)) => Err(KeyError::NotFound { name: site_name()?, path }),
            found => found,
        }
    }

    /// The public half of a key, whether or not the private one can be used here.
    ///
    /// # Errors
    /// As [`Keys::look`].
    pub fn public(&self, name: &Name) -> Result<PublicKey, KeyError> {
        self.look(name).map(|found| found.public())
    }

    /// All keys by name, with what is wrong with those that cannot be read. At most 1,000 are listed.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<ListedKey>, KeyError> {
        let failed = |source| KeyError::Io { action: "read", path: self.0.clone(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.0).map_err(failed)?.take(2 * MAX_KEYS) {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_str().and_then(|name| Name::try_from(name).ok());
            let name = name.filter(|_| entry.path().is_file());
            // The public half of a key that an ssh-agent has is a key too.
            let name = name.and_then(|name| match name.strip_suffix(".pub") {
                Some(name) => Name::try_from(name).ok(),
                None => Some(name),
            });
            names.extend(name);
        }
        names.sort();
        names.dedup();
        names.truncate(MAX_KEYS);
        let listed = names.into_iter().map(|name| {
            let found = self.look(&name);
            ListedKey {
                is_usable: matches!(found, Ok(Found::Open(_))),
                public_key: found.map(|found| found.public()).map_err(|error| error.to_string()),
                name,
            }
        });
        Ok(listed.collect())
    }

    fn path(&self, name: &Name) -> Result<PathBuf, KeyError> {
        if name.ends_with(".pub") {
            return Err(KeyError::ReservedName(name.clone()));
        }
        Ok(self.0.join(&**name))
    }
}

/// The name of the site key.
///
/// # Errors
/// None in practice: the name is a constant that fits.
pub fn site_name() -> Result<Name, KeyError> {
    Name::try_from(SITE_KEY).map_err(|error| KeyError::NotAKey { what: SITE_KEY.into(), reason: error.to_string() })
}

/// A key as one line of `authorized_keys`: `ssh-ed25519 AAAA… comment`.
///
/// # Errors
/// The comment has a line feed.
pub fn to_openssh(key: &PublicKey, comment: &str) -> Result<String, KeyError> {
    ssh_key::PublicKey::new(KeyData::Ed25519(Ed25519PublicKey(key.0)), comment)
        .to_openssh()
        .map_err(|error| KeyError::NotAKey { what: key.to_string(), reason: error.to_string() })
}

/// The key of one line of `authorized_keys` or of a `.pub` file.
///
/// # Errors
/// It is not an OpenSSH public key, or not ed25519.
pub fn from_openssh(line: &str) -> Result<PublicKey, KeyError> {
    let what = || format!("'{}'", line.chars().take(60).collect::<String>());
    if line.len() as u64 > MAX_KEY_FILE_BYTES {
        return Err(KeyError::NotAKey { what: what(), reason: "it is too long".into() });
    }
    let algorithm = line.split_whitespace().next().unwrap_or_default();
    let key = ssh_key::PublicKey::from_openssh(line.trim()).map_err(|error| unreadable(&error, what(), algorithm))?;
    match key.key_data() {
        KeyData::Ed25519(key) => Ok(PublicKey(key.0)),
        other => Err(KeyError::NotEd25519 { what: what(), algorithm: other.algorithm().to_string() }),
    }
}

/// A site key as libp2p wants it.
///
/// # Errors
/// None in practice: every 32 bytes are an ed25519 secret key.
pub fn to_libp2p(key: &SigningKey) -> Result<Keypair, KeyError> {
    Keypair::ed25519_from_bytes(key.to_bytes())
        .map_err(|error| KeyError::NotAKey { what: "the site key".into(), reason: error.to_string() })
}

/// The libp2p name of a site.
///
/// # Errors
/// The bytes are not a point of the curve.
pub fn peer_id(key: &PublicKey) -> Result<PeerId, KeyError> {
    let public = identity::ed25519::PublicKey::try_from_bytes(&key.0)
        .map_err(|error| KeyError::NotAKey { what: key.to_string(), reason: error.to_string() })?;
    Ok(PeerId::from_public_key(&identity::PublicKey::from(public)))
}

/// The key inside a site's libp2p name.
///
/// # Errors
/// A peer id of another kind of key, which no site has.
pub fn public_key_of(peer: &PeerId) -> Result<PublicKey, KeyError> {
    let refused = || KeyError::NotASite(peer.to_string());
    // Keys of up to 42 bytes are in the peer id as they are (identity multihash, code 0).
    if peer.as_ref().code() != 0 {
        return Err(refused());
    }
    let key = identity::PublicKey::try_decode_protobuf(peer.as_ref().digest()).map_err(|_| refused())?;
    Ok(PublicKey(key.try_into_ed25519().map_err(|_| refused())?.to_bytes()))
}

/// A site in any of the forms people have at hand: a peer id, an OpenSSH public key, or 52 characters of base32.
///
/// # Errors
/// None of the three.
pub fn parse_site(text: &str) -> Result<PeerId, KeyError> {
    if text.starts_with("ssh-") {
        return peer_id(&from_openssh(text)?);
    }
    if let Ok(key) = text.parse::<PublicKey>() {
        return peer_id(&key);
    }
    let peer: PeerId = text.parse().map_err(|_| KeyError::NotASite(text.chars().take(60).collect()))?;
    public_key_of(&peer)?;
    Ok(peer)
}

/// A private key's file, wherever it is.
///
/// # Errors
/// It cannot be read, others may read it, or it is not an ed25519 private key.
pub fn read_private_file(path: &Path) -> Result<Found, KeyError> {
    private::read_file(path)
}

/// Reads a `.pub` file.
///
/// # Errors
/// It cannot be read, or is not an ed25519 public key.
pub fn read_public_file(path: &Path) -> Result<PublicKey, KeyError> {
    let text = read_bounded(path, MAX_KEY_FILE_BYTES).map_err(|source| KeyError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    from_openssh(&text)
}

fn unreadable(error: &ssh_key::Error, what: String, algorithm: &str) -> KeyError {
    match error {
        ssh_key::Error::AlgorithmUnknown | ssh_key::Error::AlgorithmUnsupported { .. } => {
            KeyError::NotEd25519 { what, algorithm: algorithm.chars().take(60).collect() }
        }
        error => KeyError::NotAKey { what, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests;
