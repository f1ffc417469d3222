//! What two Rialto sites must agree on: records, images, wire messages, and the state machines that exchange them.
//!
//! This crate is pure. It has no clock, no sockets, no disk, no threads and no randomness of its own: time, seeds and
//! bytes come in as arguments, and what should happen goes out as data. A socket loop in `node`, or a simulator with
//! virtual time in `testnet`, drives the same code.
//!
//! Read it in the order of the flow: [`record`] (what is said) and [`signed`] (who said it), [`image`] (what it is said
//! about), [`channel`] (which release is the latest), [`sync`] (how records are caught up with) and [`swarm`] (how images move).

pub mod attestation;
pub mod bounded;
pub mod channel;
pub mod codec;
pub mod ids;
pub mod image;
pub mod package;
pub mod record;
pub mod signed;
pub mod swarm;
pub mod sync;

/// A time as records carry it: whole seconds since 1970-01-01T00:00:00Z, leap seconds not counted.
pub type UnixSeconds = u64;
