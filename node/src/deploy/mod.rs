//! Instances: accepted releases, booted.
