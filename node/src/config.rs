//! `config.toml`: what the administrator of a node sets.
