use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use proptest::prelude::*;

use super::*;

/// Made by `ssh-keygen -t ed25519 -N '' -C fixture`, and its public half.
const OPENSSH_PRIVATE: &str = include_str!("../../tests/fixtures/ed25519");
const OPENSSH_PUBLIC: &str = include_str!("../../tests/fixtures/ed25519.pub");
/// Made by `ssh-keygen -t ed25519 -N secret -C fixture`.
const OPENSSH_ENCRYPTED: &str = include_str!("../../tests/fixtures/ed25519-encrypted");
/// Made by `ssh-keygen -t ecdsa -N '' -C fixture`.
const OPENSSH_ECDSA: &str = include_str!("../../tests/fixtures/ecdsa");
const OPENSSH_ECDSA_PUBLIC: &str = include_str!("../../tests/fixtures/ecdsa.pub");

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
    assert!(listed.iter().all(|key| key.public_key.is_err() == (&*key.name != "encrypted") && !key.is_usable));
}

#[test]
fn a_key_with_a_passphrase_opens_with_it_alone() {
    let (_temp, keys) = fresh();
    put(&keys, "theirs", OPENSSH_ENCRYPTED, 0o600);
    let public = keys.create_with(&name("ours"), Some("geheim ß")).unwrap();
    assert_eq!(keys.public(&name("ours")).unwrap(), public);
    for (key, passphrase) in [("theirs", "secret"), ("ours", "geheim ß")] {
        let Found::Locked(locked) = keys.look(&name(key)).unwrap() else { panic!("{key} is not locked") };
        assert!(matches!(locked.unlock("Secret"), Err(KeyError::WrongPassphrase(_))));
        assert!(matches!(locked.unlock(""), Err(KeyError::WrongPassphrase(_))));
        let key = locked.unlock(passphrase).unwrap();
        assert_eq!(key.verifying_key().to_bytes(), locked.public().0);
    }
    let error = keys.load(&name("ours")).unwrap_err();
    assert!(error.hint().unwrap().contains("agent:NAME"), "{error}");
}

#[test]
fn the_public_half_alone_is_a_key_that_signs_elsewhere() {
    let (_temp, keys) = fresh();
    put(&keys, "away.pub", OPENSSH_PUBLIC, 0o644);
    assert_eq!(keys.public(&name("away")).unwrap(), from_openssh(OPENSSH_PUBLIC).unwrap());
    assert!(matches!(keys.load(&name("away")), Err(KeyError::PublicOnly(_))));
    let listed = keys.list().unwrap();
    assert_eq!(listed.iter().map(|key| (&*key.name, key.is_usable)).collect::<Vec<_>>(), [("away", false)]);
}

#[test]
fn a_passphrase_that_takes_hours_is_not_tried() {
    let (_temp, keys) = fresh();
    // The rounds stand 20 bytes after the name of the derivation: salt length, salt, rounds.
    let mut lines: Vec<&str> = OPENSSH_ENCRYPTED.lines().collect();
    let (first, last) = (lines.remove(0), lines.pop().unwrap());
    let mut bytes = data_encoding::BASE64.decode(lines.concat().as_bytes()).unwrap();
    let at = bytes.windows(6).position(|window| window == b"bcrypt").unwrap() + 6 + 4 + 4 + 16;
    bytes[at..at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
    let body = data_encoding::BASE64.encode(&bytes);
    let body: Vec<&str> = body.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
    put(&keys, "slow", &format!("{first}\n{}\n{last}\n", body.join("\n")), 0o600);
    let error = keys.look(&name("slow")).unwrap_err().to_string();
    assert!(error.contains("rounds of work"), "{error}");
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
        let _ = private::read(Path::new("key"), &text);
    }
}
