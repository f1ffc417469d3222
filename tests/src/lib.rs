//! What the black-box tests of whole nodes share; the tests themselves are in the files under `tests/`.

pub mod forge;
pub mod held;
pub mod hostile;
pub mod scene;
pub mod stage;
