//! `keys/NAME{,.pub}`: OpenSSH ed25519 key files.
