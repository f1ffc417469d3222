//! The network: one task owns the libp2p swarm, others hold a handle.
