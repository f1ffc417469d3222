//! The records this site knows: an append-only log, and an index that can be rebuilt from it.
