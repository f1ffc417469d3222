//! Rialto's local faces: the REST API and the web UI, over a trait that the node implements.

pub mod api;
