//! What the fuzzer runs: the targets, and a bound on the memory that they take.

#[cfg(feature = "policy")]
pub mod expectations;
mod memory;
#[cfg(feature = "policy")]
pub mod policy;
pub mod seeds;
pub mod targets;

pub use memory::within_memory;
