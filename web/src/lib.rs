//! Rialto's local faces: the REST API and the web UI, over a trait that the node implements.
//!
//! A request comes in through one of two listeners ([`serve_unix`], [`serve_tcp`]), passes the gate (loopback only), is
//! matched against the table of operations or the list of pages, and becomes one call of [`api::Backend`].

pub mod api;
mod assets;
mod gate;
mod openapi;
mod pages;
mod reply;
mod rest;
mod routes;
mod serve;
mod sessions;

pub use serve::{MAX_BODY_BYTES, serve_tcp, serve_unix};
pub use sessions::{SessionError, Sessions};
