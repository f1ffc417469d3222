//! Many sites at once: real ones as processes, or simulated ones in virtual time.

pub mod appliance;
pub mod bench;
pub mod browser;
pub mod cpio;
pub mod demo;
pub mod held;
pub mod hostile;
pub mod http;
pub mod pictures;
pub mod sim;
pub mod site;
pub mod wait;
