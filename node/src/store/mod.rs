//! The chunks this node holds: append-only segments, and an index that can be rebuilt from them.
