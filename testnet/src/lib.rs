//! Many sites at once: real ones as processes, or simulated ones in virtual time.

pub mod sim;
