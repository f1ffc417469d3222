//! Ports of the host's loopback that lead into guests: which are free, and who has the others.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use rialto_web::api::PortForward;

/// Ports that one instance can publish.
const MAX_FORWARDS: usize = 64;

/// Why ports cannot be published as asked.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// More than an instance may have.
    #[error("{0} ports are to be published; an instance can have {MAX_FORWARDS}")]
    TooMany(usize),
    /// Guest port 0.
    #[error("port 0 of the guest cannot be published; only the host's port may be 0, which picks a free one")]
    GuestPortZero,
    /// The same host port twice in one request.
    #[error("port {0} of this machine is asked for twice")]
    Twice(u16),
    /// One of our own instances has it.
    #[error("port {port} of this machine already leads to instance {instance}; stop that, or publish another port")]
    Ours {
        /// The port.
        port: u16,
        /// Who has it.
        instance: String,
    },
    /// Another program has it, or it may not be opened.
    #[error("port {port} of this machine cannot be opened ({source}); publish another one, or 0 for any that is free")]
    Unavailable {
        /// The port.
        port: u16,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// Replaces host ports of 0 by free ones and checks the others. `taken` tells which of our instances has a port.
///
/// Another program can still take a port between this and the guest's start; then the start fails and says so.
///
/// # Errors
/// The first port that cannot be had.
pub(super) fn settle(
    asked: &[PortForward],
    taken: impl Fn(u16) -> Option<String>,
) -> Result<Vec<PortForward>, PortError> {
    if asked.len() > MAX_FORWARDS {
        return Err(PortError::TooMany(asked.len()));
    }
    // Listeners stay open until all ports are settled, so that no free port is picked twice.
    let mut held = Vec::with_capacity(asked.len());
    let mut settled: Vec<PortForward> = Vec::with_capacity(asked.len());
    for forward in asked {
        if forward.guest == 0 {
            return Err(PortError::GuestPortZero);
        }
        if forward.host != 0 && settled.iter().any(|earlier| earlier.host == forward.host) {
            return Err(PortError::Twice(forward.host));
        }
        let unavailable = |source| PortError::Unavailable { port: forward.host, source };
        let (listener, host) = loop {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, forward.host)).map_err(unavailable);
            let port = match &listener {
                Ok(listener) => listener.local_addr().map_err(unavailable)?.port(),
                Err(_) => forward.host,
            };
            match (taken(port), listener) {
                // One of ours that has not opened it yet; holding it makes the next pick another one.
                (Some(_), Ok(listener)) if forward.host == 0 => held.push(listener),
                (Some(instance), _) => return Err(PortError::Ours { port, instance }),
                (None, listener) => break (listener?, port),
            }
        };
        held.push(listener);
        settled.push(PortForward { host, guest: forward.guest });
    }
    Ok(settled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(host: u16, guest: u16) -> PortForward {
        PortForward { host, guest }
    }

    #[test]
    fn zero_picks_free_ports_that_differ() {
        let settled = settle(&[forward(0, 80), forward(0, 80)], |_| None).unwrap();
        assert!(settled.iter().all(|forward| forward.host != 0 && forward.guest == 80));
        assert_ne!(settled[0].host, settled[1].host);
    }

    #[test]
    fn ports_in_use_are_refused() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        assert!(matches!(settle(&[forward(port, 80)], |_| None), Err(PortError::Unavailable { .. })));
        drop(other);
        let ours = |_| Some("abc".to_owned());
        assert!(matches!(settle(&[forward(port, 80)], ours), Err(PortError::Ours { .. })));
        assert!(matches!(settle(&[forward(port, 80), forward(port, 81)], |_| None), Err(PortError::Twice(_))));
        assert!(matches!(settle(&[forward(0, 0)], |_| None), Err(PortError::GuestPortZero)));
        assert!(matches!(settle(&vec![forward(0, 1); 65], |_| None), Err(PortError::TooMany(65))));
    }
}
