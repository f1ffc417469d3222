//! How images move between sites.
