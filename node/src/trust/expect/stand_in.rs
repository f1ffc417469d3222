//! Keys that stand in for those of a policy, so that anything can be said in anybody's name while a policy is tried.
//!
//! A verdict asks of keys only whether they are the same. So a policy is read again with another key in the place of each of its
//! own, one whose secret half is known here; what is signed with these is verified like everything else. Nothing that is
//! signed so counts anywhere else: the keys follow from public ones, and nobody has them in a policy.

use ed25519_dalek::SigningKey;
use rialto_protocol::ids::PublicKey;

/// What keys are derived for (BLAKE3's key derivation, so that nothing else comes to the same ones).
const FOR_KEYS: &str = "rialto 2026 a stand-in for a key while a policy is tried";
/// The same for somebody who has no key, only a name in the file.
const FOR_STRANGERS: &str = "rialto 2026 a stranger while a policy is tried";

/// The key that stands in for one of a policy.
pub(super) fn secret(of: &PublicKey) -> SigningKey {
    SigningKey::from_bytes(&blake3::derive_key(FOR_KEYS, &of.0))
}

/// Its public half.
pub(super) fn public(of: &PublicKey) -> PublicKey {
    public_half(&secret(of))
}

/// The key of somebody whom no policy names.
pub(super) fn stranger(name: &str) -> SigningKey {
    SigningKey::from_bytes(&blake3::derive_key(FOR_STRANGERS, name.as_bytes()))
}

pub(super) fn public_half(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}
