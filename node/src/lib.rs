//! One Rialto site: catalog, trust, store, network, deployment.
//!
//! Data flows left to right, and a stage knows the one before it by its output type, never by calling back into it:
//!
//! ```text
//! publish ─► gossip ─► catalog ─► policy ─► fetch ─► store ─► deploy
//! ```

pub mod catalog;
pub mod cli;
pub mod config;
pub mod deploy;
pub mod keys;
pub mod net;
pub mod store;
pub mod trust;
