//! Strangers at the door: connections that are not negotiated yet, counted by where they come from.
//!
//! Whoever connects and says nothing holds a place until a time-out. There are only so many places in all
//! ([`libp2p::connection_limits`]), so that one machine must not be able to take every one of them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, ListenFailure, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

/// Connections from one address that may be negotiated at once: each takes well under a second, so that sites behind
/// one address do not get in each other's way.
const MAX_PENDING_PER_ADDRESS: usize = 16;

/// Refuses connections from an address that has too many unfinished ones.
#[derive(Debug, Default)]
pub(super) struct Door {
    pending: HashMap<ConnectionId, Origin>,
}

/// Where a connection comes from: an IPv4 address, or the 64 bits of an IPv6 address that one host has to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin(u64);

impl Origin {
    fn of(address: &Multiaddr) -> Option<Self> {
        address.iter().find_map(|part| match part {
            Protocol::Ip4(address) => Some(Self::of_ip(address.into())),
            Protocol::Ip6(address) => Some(Self::of_ip(address.into())),
            _ => None,
        })
    }

    fn of_ip(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u32::from(address).into()),
            IpAddr::V6(address) => Self((u128::from(address) >> 64) as u64),
        }
    }
}

/// Too many from one address.
#[derive(Debug, thiserror::Error)]
#[error("{MAX_PENDING_PER_ADDRESS} connections from this address are being negotiated already")]
struct Crowded;

impl NetworkBehaviour for Door {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(origin) = Origin::of(remote) else { return Ok(()) };
        if self.pending.values().filter(|&&other| other == origin).count() >= MAX_PENDING_PER_ADDRESS {
            return Err(ConnectionDenied::new(Crowded));
        }
        self.pending.insert(connection, origin);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending.remove(&connection);
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) = event {
            self.pending.remove(&connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_crowd_the_door() {
        let mut door = Door::default();
        let local: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let mut next = 0;
        let mut knock = |door: &mut Door, from: &str| {
            next += 1;
            let id = ConnectionId::new_unchecked(next);
            door.handle_pending_inbound_connection(id, &local, &from.parse().unwrap()).map(|()| id).ok()
        };
        let held: Vec<_> =
            (0..40).filter_map(|port| knock(&mut door, &format!("/ip4/192.0.2.7/tcp/{}", port + 1))).collect();
        assert_eq!(held.len(), MAX_PENDING_PER_ADDRESS);
        assert!(knock(&mut door, "/ip6/::ffff:192.0.2.7/tcp/1").is_none(), "the same address, written otherwise");
        assert!(knock(&mut door, "/ip4/192.0.2.8/tcp/1").is_some());
        let hosts = (0..40).filter_map(|host| knock(&mut door, &format!("/ip6/2001:db8::{host}/udp/1/quic-v1")));
        assert_eq!(hosts.count(), MAX_PENDING_PER_ADDRESS, "a host has a whole /64 to itself");

        let peer = PeerId::random();
        door.handle_established_inbound_connection(held[0], peer, &local, &local).unwrap();
        assert!(knock(&mut door, "/ip4/192.0.2.7/tcp/1").is_some(), "who came in stands at the door no more");
    }
}
