//! The private half of a key, in OpenSSH's format, with and without a passphrase.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use rialto_protocol::bounded::Name;
use rialto_protocol::ids::PublicKey;
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{Cipher, Kdf, LineEnding, PrivateKey};

use super::{KeyError, MAX_KEY_FILE_BYTES, unreadable};
use crate::dir::write_new;

/// Rounds of bcrypt for new passphrases, as OpenSSH 9.4 and later: about a fifth of a second.
const BCRYPT_ROUNDS: u32 = 24;
/// Rounds that are worked through for a file that is read: an hour of work would be a trap.
const MAX_BCRYPT_ROUNDS: u32 = 1000;
/// OpenSSH's length of a salt, in bytes.
const SALT_BYTES: usize = 16;

/// What is there of a key.
#[derive(Debug, Clone)]
pub enum Found {
    /// A private key that anyone who reads the file can use.
    Open(SigningKey),
    /// One that has a passphrase.
    Locked(Locked),
    /// The public half alone.
    PublicOnly(PublicKey),
}

impl Found {
    /// Its public half.
    pub fn public(&self) -> PublicKey {
        match self {
            Self::Open(key) => PublicKey(key.verifying_key().to_bytes()),
            Self::Locked(locked) => locked.public,
            Self::PublicOnly(public) => *public,
        }
    }
}

/// A private key that has a passphrase.
#[derive(Debug, Clone)]
pub struct Locked {
    path: PathBuf,
    public: PublicKey,
    key: PrivateKey,
}

impl Locked {
    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its public half, which needs no passphrase.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The key itself. Works for a good part of a second.
    ///
    /// # Errors
    /// It is another passphrase, or the file was tampered with.
    pub fn unlock(&self, passphrase: &str) -> Result<SigningKey, KeyError> {
        let wrong = |_| KeyError::WrongPassphrase(self.path.clone());
        let key = signing_key(&self.path, &self.key.decrypt(passphrase).map_err(wrong)?)?;
        // The public half lies open beside the encrypted one: someone may have put another key's there.
        match key.verifying_key().to_bytes() == self.public.0 {
            true => Ok(key),
            false => Err(mismatch(&self.path)),
        }
    }
}

/// Writes a new file with mode 0600.
pub(super) fn write(path: &Path, name: &Name, key: &SigningKey, passphrase: Option<&str>) -> Result<(), KeyError> {
    let unwritable = |error: ssh_key::Error| KeyError::NotAKey { what: name.to_string(), reason: error.to_string() };
    let pair = Ed25519Keypair {
        public: Ed25519PublicKey(key.verifying_key().to_bytes()),
        private: Ed25519PrivateKey::from_bytes(&key.to_bytes()),
    };
    let mut private = PrivateKey::new(KeypairData::Ed25519(pair), name.to_string()).map_err(unwritable)?;
    if let Some(passphrase) = passphrase {
        let mut random = [0; SALT_BYTES + 4];
        getrandom::fill(&mut random).map_err(KeyError::Entropy)?;
        let (salt, check) = random.split_at(SALT_BYTES);
        let kdf = Kdf::Bcrypt { salt: salt.to_vec(), rounds: BCRYPT_ROUNDS };
        let check = u32::from_be_bytes([check[0], check[1], check[2], check[3]]);
        private = private.encrypt_with(Cipher::Aes256Ctr, kdf, check, passphrase).map_err(unwritable)?;
    }
    let text = private.to_openssh(LineEnding::LF).map_err(unwritable)?;
    write_new(path, text.as_bytes(), 0o600).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists { name: name.clone(), path: path.to_owned() },
        _ => KeyError::Io { action: "write", path: path.to_owned(), source },
    })
}

/// Reads a private key's file, which nobody else may read.
pub(super) fn read_file(path: &Path) -> Result<Found, KeyError> {
    let failed = |source: io::Error| KeyError::Io { action: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::TooOpen { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
    read(path, &text)
}

pub(super) fn read(path: &Path, text: &str) -> Result<Found, KeyError> {
    let key = PrivateKey::from_openssh(text)
        .map_err(|error| unreadable(&error, path.display().to_string(), "unknown here"))?;
    if !key.is_encrypted() {
        return signing_key(path, &key).map(Found::Open);
    }
    if let Kdf::Bcrypt { rounds, .. } = key.kdf()
        && *rounds > MAX_BCRYPT_ROUNDS
    {
        let reason = format!("its passphrase takes {rounds} rounds of work; at most {MAX_BCRYPT_ROUNDS} are done");
        return Err(KeyError::NotAKey { what: path.display().to_string(), reason });
    }
    match key.public_key().key_data() {
        KeyData::Ed25519(public) => {
            Ok(Found::Locked(Locked { path: path.to_owned(), public: PublicKey(public.0), key }))
        }
        other => {
            Err(KeyError::NotEd25519 { what: path.display().to_string(), algorithm: other.algorithm().to_string() })
        }
    }
}

fn signing_key(path: &Path, key: &PrivateKey) -> Result<SigningKey, KeyError> {
    let KeypairData::Ed25519(pair) = key.key_data() else {
        return Err(KeyError::NotEd25519 { what: path.display().to_string(), algorithm: key.algorithm().to_string() });
    };
    let signing = SigningKey::from_bytes(&pair.private.to_bytes());
    // ssh-key checks this only with its own ed25519 feature, which we don't use.
    match signing.verifying_key().to_bytes() == pair.public.0 {
        true => Ok(signing),
        false => Err(mismatch(path)),
    }
}

fn mismatch(path: &Path) -> KeyError {
    KeyError::NotAKey {
        what: path.display().to_string(),
        reason: "its private and public halves do not belong together".into(),
    }
}
