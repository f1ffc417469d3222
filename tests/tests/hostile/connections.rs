//! Connections that nobody speaks on, policy files that nobody can read.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use rialto_testnet::site::Site;
use rialto_tests::scene::{Scene, goes_on, hostile};
use rialto_tests::stage::accepting;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

/// Where the site listens for other sites.
fn endpoint(site: &Site) -> SocketAddr {
    let address = site.address().expect("an address");
    let port = address.split('/').nth(4).and_then(|port| port.parse().ok());
    SocketAddr::from(([127, 0, 0, 1], port.expect("a TCP port")))
}

/// A TCP connection from one of this machine's own addresses.
fn connection(from: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket: OwnedFd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::new(IpAddr::from(from), 0))?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

#[test]
fn peers_that_connect_and_say_nothing_keep_nobody_out() {
    let scene = Scene::new();
    let mut site = scene.site("uni");
    let endpoint = endpoint(&site);
    let before = rialto_tests::scene::resident_bytes(&site);
    // More than the node lets stand at its door, from another host as far as it can see.
    let mut silent: Vec<TcpStream> = Vec::new();
    for _ in 0..300 {
        silent.extend(connection([127, 0, 0, 66], endpoint).ok());
    }
    assert!(silent.len() > 100, "{} connections", silent.len());
    // The honest site comes while they stand there.
    let honest = scene.site_that_knows("shop", &[&site]);
    assert!(honest.status().expect("status")["peers"].as_u64() >= Some(1));
    let grown = rialto_tests::scene::resident_bytes(&site).saturating_sub(before);
    assert!(grown < 32 << 20, "the node grew by {grown} bytes");
    goes_on(&mut site, &scene);
    // Who says nothing is shown out in the end.
    let mut last = silent.remove(0);
    last.set_read_timeout(Some(rialto_testnet::site::SOON)).expect("a timeout");
    let mut bytes = Vec::new();
    last.read_to_end(&mut bytes).ok();
    assert!(last.take_error().is_ok_and(|error| error.is_none()), "the node still holds a silent connection");
}

#[test]
fn a_peer_that_speaks_no_protocol_of_ours_is_shown_out() {
    use std::io::Write as _;
    let scene = Scene::new();
    let mut site = scene.site("uni");
    for garbage in [rialto_tests::held::noise(100_000, 1), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100)] {
        let mut stream = TcpStream::connect(endpoint(&site)).expect("a connection");
        stream.write_all(&garbage).ok();
        stream.set_read_timeout(Some(rialto_testnet::site::SOON)).expect("a timeout");
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let kind = ended.err().map(|error| error.kind());
        assert!(!matches!(kind, Some(std::io::ErrorKind::WouldBlock)), "the node still holds the connection");
    }
    let honest = hostile(&site);
    honest.gossip(vec![0]).expect("an honest peer is heard");
    goes_on(&mut site, &scene);
}

#[test]
fn with_a_typo_in_the_policy_file_nothing_is_deployed() {
    let scene = Scene::new();
    let mut site = scene.site("shop");
    let public = site.new_key("releases").expect("a key");
    let policy = accepting(&public);
    site.write_policy(&policy).expect("a policy");
    let release = scene.published(&site);
    site.verdict(&release, "accept").expect("accepted by the policy without the typo");

    site.write_policy(&policy.replace("[[rule]]", "[[rules]]")).expect("a policy with a typo");
    let refused = site.refused(&["deploy", &release], 4).expect("deploying is refused");
    let message = refused["message"].as_str().expect("a message");
    assert!(message.contains("policy"), "{message}");
    assert!(site.status().expect("status")["policy"]["error"].as_str().is_some_and(|error| error.contains("rules")));
    assert_eq!(site.json(&["ps"]).expect("ps"), serde_json::json!([]));
    goes_on(&mut site, &scene);
}
