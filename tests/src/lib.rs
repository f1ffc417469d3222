//! Black-box tests of whole nodes; the tests themselves are in the files beside this one.

pub mod held;
pub mod hostile;
pub mod scene;
