//! Trust: the site's policy, and what it says of a release.

mod accepted;

pub use accepted::Accepted;
