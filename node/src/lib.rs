//! One Rialto site: catalog, trust, store, network, deployment.
//!
//! Data flows left to right, and a stage knows the one before it by its output type, never by calling back into it:
//!
//! ```text
//! publish ─► gossip ─► catalog ─► policy ─► fetch ─► store ─► deploy
//! ```

mod api;
pub mod catalog;
pub mod cli;
pub mod client;
pub mod config;
pub mod convert;
pub mod deploy;
pub mod dir;
pub mod jobs;
pub mod keys;
pub mod net;
pub mod node;
pub mod publish;
mod recent;
pub mod schedule;
mod signing;
pub mod store;
pub mod strict_toml;
pub mod systemd;
pub mod trust;
pub mod units;
