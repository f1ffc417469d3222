//! Bad input against real nodes, sent by a peer of the test's own that keeps to no rule, and nodes that die or whose disks
//! fail at bad moments. Each ends with a clear error in the right place, nothing held is lost, and the node goes on.

mod connections;
mod crashes;
mod disk;
mod fetchers;
mod holders;
mod kills;
mod records;
mod shares;
mod sync;
