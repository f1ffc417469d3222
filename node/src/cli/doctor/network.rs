//! The node's addresses: whether it can listen on its own, and whether anything answers at the others.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use futures::future::join_all;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use rialto_web::api::Status;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::{Check, shown};
use crate::config::{Config, Membership};
use crate::dir::NodeDir;
use crate::keys::{self, Keys};

/// How long another site may take to answer: three retransmissions of a lost first packet take this long.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// Looks at every address that the settings name.
pub(super) async fn examine(dir: &NodeDir, config: &Config, node: Option<&Status>) -> Vec<Check> {
    let mut checks = ports(config, node.is_some());
    checks.extend(reach(dir, config));
    checks.extend(members(dir, config));
    checks.extend(bootstrap(dir, config, node).await);
    checks
}

fn ports(config: &Config, is_running: bool) -> Vec<Check> {
    let listen = config.listen.iter().filter_map(|address| Some((place(address)?, "listen")));
    let web =
        config.web.map(|address| (Place { host: Host::Ip(address.ip()), port: address.port(), is_udp: false }, "web"));
    listen
        .chain(web)
        .filter_map(|(place, setting)| match place.host {
            Host::Ip(ip) if place.port != 0 => Some((SocketAddr::new(ip, place.port), place.is_udp, setting)),
            _ => None,
        })
        .map(|(address, is_udp, setting)| match is_running {
            true => Check::ok("ports", format!("{address} ({}) is the node's", transport(is_udp))),
            false => port(address, is_udp, setting),
        })
        .collect()
}

/// Takes the port for a moment, which nothing but the node that is not running should mind.
fn port(address: SocketAddr, is_udp: bool, setting: &str) -> Check {
    let (port, kind) = (address.port(), transport(is_udp));
    let taken = match is_udp {
        false => TcpListener::bind(address).map(drop),
        true => UdpSocket::bind(address).map(drop),
    };
    let Err(error) = taken else { return Check::ok("ports", format!("{address} ({kind}) is free")) };
    let fix = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "ss -lntup 'sport = :{port}' shows who has it; stop that, or choose another '{setting}' in config.toml"
            )
        }
        io::ErrorKind::PermissionDenied => format!(
            "choose a port from 1024 as '{setting}' in config.toml, or: sysctl net.ipv4.ip_unprivileged_port_start={port}"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!(
                "this machine has no such address (ip address shows those it has); correct '{setting}' in config.toml"
            )
        }
        _ => format!("correct '{setting}' in config.toml"),
    };
    Check::fail("ports", format!("{address} ({kind}) cannot be listened on: {error}"), fix)
}

/// A node that only this machine can reach fetches from others, and nobody finds it first.
fn reach(dir: &NodeDir, config: &Config) -> Option<Check> {
    let is_loopback = |address: &Multiaddr| match place(address).map(|place| place.host) {
        Some(Host::Ip(ip)) => ip.is_loopback(),
        _ => false,
    };
    let told = if config.announce.is_empty() { &config.listen } else { &config.announce };
    if told.is_empty() {
        return Some(Check::ok("reach", "the node listens nowhere: it connects to others, and nobody to it"));
    }
    told.iter().all(is_loopback).then(|| {
        Check::warn(
            "reach",
            "the node listens on loopback only: no other machine can connect to it",
            format!(
                "name other addresses as 'listen' in {}, or as 'announce' where it can be reached",
                shown(dir.config_file())
            ),
        )
    })
}

fn members(dir: &NodeDir, config: &Config) -> Option<Check> {
    if config.membership == Membership::Open {
        return None;
    }
    let own = own_peer_id(dir);
    let others = config.members.iter().filter(|member| Some(**member) != own).count();
    Some(match others {
        0 => Check::warn(
            "members",
            "membership is \"members\", and no other site is listed: nobody can connect",
            format!("list their keys as 'members' in {}", shown(dir.config_file())),
        ),
        1 => Check::ok("members", "1 other site may connect"),
        others => Check::ok("members", format!("{others} other sites may connect")),
    })
}

async fn bootstrap(dir: &NodeDir, config: &Config, node: Option<&Status>) -> Vec<Check> {
    let own = own_peer_id(dir);
    if config.bootstrap.is_empty() {
        let has_peers = node.is_some_and(|status| status.peers > 0);
        let what = if has_peers || config.mdns {
            "no address is named"
        } else {
            "no address is named: this node waits for others to find it"
        };
        return vec![Check::ok("bootstrap", what)];
    }
    let fix =
        || format!("ask that site for its address (rialto status shows it), and correct {}", shown(dir.config_file()));
    let asked = config.bootstrap.iter().map(async |address| {
        let peer = address.iter().find_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None });
        if peer.is_some() && peer == own {
            let what = format!("{address} is this node itself");
            return Check::warn("bootstrap", what, format!("remove it from {}", shown(dir.config_file())));
        }
        let Some(place) = place(address) else {
            let what = format!("{address} begins with no address and port that can be tried");
            return Check::warn("bootstrap", what, fix());
        };
        match answers(&place).await {
            Ok(what) => Check::ok("bootstrap", format!("{address} {what}")),
            Err(why) => Check::warn("bootstrap", format!("{address} does not answer: {why}"), fix()),
        }
    });
    join_all(asked).await
}

/// Connects by TCP. A UDP port that says nothing may be a site all the same, so there only the name is looked up.
async fn answers(place: &Place) -> Result<&'static str, String> {
    let trying = async {
        let addresses: Vec<SocketAddr> = match &place.host {
            Host::Ip(ip) => vec![SocketAddr::new(*ip, place.port)],
            Host::Name(name) => lookup_host((name.as_str(), place.port)).await?.collect(),
        };
        match place.is_udp {
            true => Ok("has an address; whether it answers shows only when the node connects"),
            false => TcpStream::connect(&*addresses).await.map(|_| "answers"),
        }
    };
    match timeout(ANSWER_WITHIN, trying).await {
        Ok(tried) => tried.map_err(|error: io::Error| error.to_string()),
        Err(_) => Err(format!("nothing came back within {} s", ANSWER_WITHIN.as_secs())),
    }
}

fn own_peer_id(dir: &NodeDir) -> Option<PeerId> {
    let key = Keys::of(dir).public(&keys::site_name().ok()?).ok()?;
    keys::peer_id(&key).ok()
}

fn transport(is_udp: bool) -> &'static str {
    if is_udp { "UDP" } else { "TCP" }
}

/// The beginning of a multiaddress.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    host: Host,
    port: u16,
    is_udp: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

fn place(address: &Multiaddr) -> Option<Place> {
    let mut parts = address.iter();
    let host = match parts.next()? {
        Protocol::Ip4(ip) => Host::Ip(ip.into()),
        Protocol::Ip6(ip) => Host::Ip(ip.into()),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => Host::Name(name.into_owned()),
        _ => return None,
    };
    let (port, is_udp) = match parts.next()? {
        Protocol::Tcp(port) => (port, false),
        Protocol::Udp(port) => (port, true),
        _ => return None,
    };
    Some(Place { host, port, is_udp })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_address_is_read() {
        let read = |text: &str| place(&text.parse().unwrap());
        let name = Host::Name("uni.example".into());
        assert_eq!(read("/dns4/uni.example/tcp/4001"), Some(Place { host: name, port: 4001, is_udp: false }));
        let ip = Host::Ip("::1".parse().unwrap());
        assert_eq!(read("/ip6/::1/udp/4001/quic-v1"), Some(Place { host: ip, port: 4001, is_udp: true }));
        assert_eq!(read("/unix/tmp"), None);
    }
}
