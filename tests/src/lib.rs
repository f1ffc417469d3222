//! What the black-box tests of whole nodes share; the tests themselves are in the files under `tests/`.

pub mod channels;
pub mod forge;
pub mod liars;
pub mod scene;
pub mod stage;

pub use rialto_testnet::{held, hostile};
