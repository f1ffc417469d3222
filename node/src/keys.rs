//! `keys/NAME{,.pub}`: OpenSSH ed25519 key files, the site's own and those it signs records with.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use libp2p::PeerId;
use libp2p::identity::{self, Keypair};
use rialto_protocol::bounded::Name;
use rialto_protocol::ids::PublicKey;
use rialto_web::api::{ApiError, ErrorCode};
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{LineEnding, PrivateKey};

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
    #[error("{} is protected by a passphrase, which is not supported yet", .0.display())]
    Encrypted(PathBuf),
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
            Self::Encrypted(path) => {
                Some(format!("it needs a key without passphrase: ssh-keygen -p -N '' -f {}", path.display()))
            }
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
        let path = self.path(name)?;
        let mut seed = [0u8; 32];
        getrandom::fill(&mut seed).map_err(KeyError::Entropy)?;
        let key = SigningKey::from_bytes(&seed);
        let public = PublicKey(key.verifying_key().to_bytes());
        write_private(&path, name, &key)?;
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

    /// Reads a private key.
    ///
    /// # Errors
    /// There is none, others may read it, it has a passphrase, or it is not ed25519.
    pub fn load(&self, name: &Name) -> Result<SigningKey, KeyError> {
        let path = self.path(name)?;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => KeyError::NotFound { name: name.clone(), path: path.clone() },
            _ => KeyError::Io { action: "read", path: path.clone(), source },
        };
        let file = File::open(&path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::TooOpen { path, mode });
        }
        let mut text = String::new();
        file.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
        read_private(&path, &text)
    }

    /// Reads the site key, which is also the libp2p identity.
    ///
    /// # Errors
    /// As [`Keys::load`].
    pub fn site(&self) -> Result<SigningKey, KeyError> {
        self.load(&site_name()?)
    }

    /// The public half of a key.
    ///
    /// # Errors
    /// As [`Keys::load`].
    pub fn public(&self, name: &Name) -> Result<PublicKey, KeyError> {
        self.load(name).map(|key| PublicKey(key.verifying_key().to_bytes()))
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
            names.extend(name.filter(|name| !name.ends_with(".pub") && entry.path().is_file()));
        }
        names.sort();
        Ok(names
            .into_iter()
            .map(|name| ListedKey { public_key: self.public(&name).map_err(|error| error.to_string()), name })
            .collect())
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

fn write_private(path: &Path, name: &Name, key: &SigningKey) -> Result<(), KeyError> {
    let unwritable = |error: ssh_key::Error| KeyError::NotAKey { what: name.to_string(), reason: error.to_string() };
    let pair = Ed25519Keypair {
        public: Ed25519PublicKey(key.verifying_key().to_bytes()),
        private: Ed25519PrivateKey::from_bytes(&key.to_bytes()),
    };
    let text = PrivateKey::new(KeypairData::Ed25519(pair), name.to_string())
        .and_then(|key| key.to_openssh(LineEnding::LF))
        .map_err(unwritable)?;
    write_new(path, text.as_bytes(), 0o600).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists { name: name.clone(), path: path.to_owned() },
        _ => KeyError::Io { action: "write", path: path.to_owned(), source },
    })
}

fn read_private(path: &Path, text: &str) -> Result<SigningKey, KeyError> {
    let refused = |reason: String| KeyError::NotAKey { what: path.display().to_string(), reason };
    let key = PrivateKey::from_openssh(text)
        .map_err(|error| unreadable(&error, path.display().to_string(), "unknown here"))?;
    if key.is_encrypted() {
        return Err(KeyError::Encrypted(path.to_owned()));
    }
    let KeypairData::Ed25519(pair) = key.key_data() else {
        return Err(KeyError::NotEd25519 { what: path.display().to_string(), algorithm: key.algorithm().to_string() });
    };
    let signing = SigningKey::from_bytes(&pair.private.to_bytes());
    // ssh-key checks this only with its own ed25519 feature, which we don't use.
    if signing.verifying_key().to_bytes() != pair.public.0 {
        return Err(refused("its private and public halves do not belong together".into()));
    }
    Ok(signing)
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
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;

    /// Made by `ssh-keygen -t ed25519 -N '' -C fixture`, and its public half.
    const OPENSSH_PRIVATE: &str = include_str!("../tests/fixtures/ed25519");
    const OPENSSH_PUBLIC: &str = include_str!("../tests/fixtures/ed25519.pub");
    /// Made by `ssh-keygen -t ed25519 -N secret -C fixture`.
    const OPENSSH_ENCRYPTED: &str = include_str!("../tests/fixtures/ed25519-encrypted");
    /// Made by `ssh-keygen -t ecdsa -N '' -C fixture`.
    const OPENSSH_ECDSA: &str = include_str!("../tests/fixtures/ecdsa");
    const OPENSSH_ECDSA_PUBLIC: &str = include_str!("../tests/fixtures/ecdsa.pub");

    fn fresh() -> (tempfile::TempDir, Keys) {
        let temp = tempfile::tempdir().unwrap();
        let dir = NodeDir::new(temp.path()).unwrap();
        dir.create().unwrap();
        (temp, Keys::of(&dir))
    }

    fn name(text: &str) -> Name {
        Name::try_from(text).unwrap()
    }

    fn put(keys: &Keys, key: &str, content: &str, mode: u32) {
        let path = keys.0.join(key);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_new_key_is_private_comes_back_and_is_never_overwritten() {
        let (_temp, keys) = fresh();
        let public = keys.create(&name("alice")).unwrap();
        assert_eq!(keys.public(&name("alice")).unwrap(), public);
        assert_eq!(read_public_file(&keys.0.join("alice.pub")).unwrap(), public);
        assert_eq!(fs::metadata(keys.0.join("alice")).unwrap().mode() & 0o777, 0o600);
        let before = fs::read(keys.0.join("alice")).unwrap();
        assert!(matches!(keys.create(&name("alice")), Err(KeyError::Exists { .. })));
        assert_eq!(fs::read(keys.0.join("alice")).unwrap(), before);
        assert!(matches!(keys.create(&name("alice.pub")), Err(KeyError::ReservedName(_))));
        assert!(matches!(keys.load(&name("bob")), Err(KeyError::NotFound { .. })));
    }

    #[test]
    fn keys_made_by_openssh_are_read() {
        let (_temp, keys) = fresh();
        put(&keys, "theirs", OPENSSH_PRIVATE, 0o600);
        assert_eq!(keys.public(&name("theirs")).unwrap(), from_openssh(OPENSSH_PUBLIC).unwrap());
    }

    #[test]
    fn keys_that_others_can_read_are_not_used() {
        let (_temp, keys) = fresh();
        for mode in [0o640, 0o604, 0o620, 0o644] {
            put(&keys, "open", OPENSSH_PRIVATE, mode);
            let error = keys.load(&name("open")).unwrap_err();
            assert!(matches!(error, KeyError::TooOpen { .. }), "{mode:o}");
            assert!(error.hint().unwrap().starts_with("chmod 600 "));
        }
    }

    #[test]
    fn keys_we_cannot_use_say_why() {
        let (_temp, keys) = fresh();
        put(&keys, "encrypted", OPENSSH_ENCRYPTED, 0o600);
        put(&keys, "ecdsa", OPENSSH_ECDSA, 0o600);
        put(&keys, "noise", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", 0o600);
        assert!(matches!(keys.load(&name("encrypted")), Err(KeyError::Encrypted(_))));
        assert!(matches!(keys.load(&name("ecdsa")), Err(KeyError::NotEd25519 { .. })));
        assert!(matches!(keys.load(&name("noise")), Err(KeyError::NotAKey { .. })));
        assert!(matches!(from_openssh(OPENSSH_ECDSA_PUBLIC), Err(KeyError::NotEd25519 { .. })));
        let listed = keys.list().unwrap();
        assert_eq!(listed.iter().map(|key| &*key.name).collect::<Vec<_>>(), ["ecdsa", "encrypted", "noise"]);
        assert!(listed.iter().all(|key| key.public_key.is_err()));
    }

    #[test]
    fn a_site_is_one_key_in_four_forms() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = PublicKey(key.verifying_key().to_bytes());
        let peer = peer_id(&public).unwrap();
        assert_eq!(to_libp2p(&key).unwrap().public().to_peer_id(), peer);
        assert_eq!(public_key_of(&peer).unwrap(), public);
        for text in [peer.to_string(), public.to_string(), to_openssh(&public, "site").unwrap()] {
            assert_eq!(parse_site(&text).unwrap(), peer, "{text}");
        }
        let other = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
        assert!(matches!(parse_site(other), Err(KeyError::NotASite(_))));
        assert!(parse_site("").is_err());
    }

    proptest! {
        #[test]
        fn public_keys_come_back(seed in any::<[u8; 32]>(), comment in "[a-z@ ]{0,20}") {
            let public = PublicKey(SigningKey::from_bytes(&seed).verifying_key().to_bytes());
            prop_assert_eq!(from_openssh(&to_openssh(&public, &comment).unwrap()).unwrap(), public);
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in ".{0,200}") {
            let _ = from_openssh(&text);
            let _ = parse_site(&text);
            let _ = read_private(Path::new("key"), &text);
        }
    }
}
