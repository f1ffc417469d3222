//! `rialto init`: a node's directory, with a key, settings and a policy to start from. Overwrites nothing.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::net::UdpSocket;
use std::path::Path;

use clap::Args;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use rialto_protocol::bounded::Name;
use rialto_protocol::ids::PublicKey;
use rialto_web::api::ApiError;
use serde_json::json;

use super::output::{Cell, Face, Outcome, Tone, plain};
use crate::config::{Config, NewConfig, Serve, parse_address, parse_site_name, parse_web};
use crate::dir::{DirError, NodeDir, write_new};
use crate::keys::{self, KeyError, Keys};
use crate::trust::starter_policy;

/// Longest answer to a prompt, in bytes.
const MAX_ANSWER_BYTES: u64 = 1024;

/// What the new node is to be.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What the site calls itself
    #[arg(long, value_parser = parse_site_name)]
    name: Option<String>,
    /// The federation it belongs to
    #[arg(long)]
    federation: Option<Name>,
    /// Where to listen for other sites [default: port 4001, TCP and QUIC]
    #[arg(long, value_name = "MULTIADDR", value_parser = parse_address)]
    listen: Vec<Multiaddr>,
    /// Where others reach it, if that is not where it listens
    #[arg(long, value_name = "MULTIADDR", value_parser = parse_address)]
    announce: Vec<Multiaddr>,
    /// A site to ask first for others
    #[arg(long, value_name = "MULTIADDR", value_parser = parse_address)]
    bootstrap: Vec<Multiaddr>,
    /// Where the web UI listens: a loopback address, or off [default: 127.0.0.1:7878]
    #[arg(long, value_name = "ADDR", value_parser = web_address)]
    web: Option<String>,
    /// Which images other sites may fetch from it
    #[arg(long, value_enum, default_value_t)]
    serve: Serve,
}

fn web_address(text: &str) -> Result<String, String> {
    parse_web(text).map(|_| text.to_owned())
}

pub(super) fn run(face: &Face, dir: &NodeDir, arguments: Arguments) -> Outcome {
    if dir.is_initialised() {
        return Err(DirError::AlreadyInitialised(dir.path().to_owned()).into());
    }
    let config = NewConfig {
        name: told_or_asked(
            face,
            arguments.name,
            "--name",
            "What does this site call itself (for example its domain)?",
            parse_site_name,
        )?,
        federation: told_or_asked(
            face,
            arguments.federation,
            "--federation",
            "Which federation does it belong to?",
            |text| Name::try_from(text).map_err(|error| error.to_string()),
        )?,
        listen: arguments.listen,
        announce: arguments.announce,
        bootstrap: arguments.bootstrap,
        web: arguments.web,
        serve: arguments.serve,
    };
    dir.create()?;
    let _lock = dir.lock()?;
    let key = site_key(dir)?;
    write_or_keep(face, &dir.config_file(), &config.render())?;
    let config = Config::load(dir)?;
    write_or_keep(face, &dir.policy_file(), &starter_policy(&config.federation, &config.name))?;
    dir.write_format()?;
    report(face, dir, &config, &key)
}

/// An `init` that was cut short has perhaps made the key already; another one would be another site.
fn site_key(dir: &NodeDir) -> Outcome<PublicKey> {
    let (keys, name) = (Keys::of(dir), keys::site_name()?);
    match keys.create(&name) {
        Err(KeyError::Exists { .. }) => Ok(keys.public(&name)?),
        created => Ok(created?),
    }
}

fn write_or_keep(face: &Face, path: &Path, text: &str) -> Outcome {
    match write_new(path, text.as_bytes(), 0o600) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            face.note(format_args!("{} was there already and stays as it is", path.display()));
            Ok(())
        }
        Err(source) => Err(DirError::Io { action: "write", path: path.to_owned(), source }.into()),
        Ok(()) => Ok(()),
    }
}

fn report(face: &Face, dir: &NodeDir, config: &Config, key: &PublicKey) -> Outcome {
    let peer_id = keys::peer_id(key)?;
    let public_key = keys::to_openssh(key, &config.name)?;
    let dial: Vec<String> = dialable(config, peer_id).iter().map(Multiaddr::to_string).collect();
    let directory = dir.path().display().to_string();
    let value = json!({
        "dir": directory,
        "name": config.name,
        "federation": config.federation,
        "peer_id": peer_id.to_string(),
        "public_key": public_key,
        "dial": dial,
    });
    face.print(&value, |page| {
        page.line(Cell::new(
            format!("{} is a site of {} now, in {directory}", config.name, config.federation),
            Tone::Strong,
        ));
        page.fields([("public key", public_key.as_str().into()), ("peer id", peer_id.to_string().into())]);
        page.heading("next");
        page.fields([
            ("start it", format!("rialto --dir {directory} node").into()),
            ("trust others", format!("edit {}", dir.policy_file().display()).into()),
            ("look around", format!("rialto --dir {directory} web").into()),
            ("check", format!("rialto --dir {directory} doctor").into()),
        ]);
        if dial.is_empty() {
            return page.line(Cell::new(
                "rialto status shows the addresses that others can bootstrap from, once it runs",
                Tone::Faint,
            ));
        }
        page.heading("others bootstrap from it with");
        for address in &dial {
            page.paragraph(address);
        }
    })
}

/// Addresses to give to others: those announced, else those listened on, as this machine is seen from outside. None for
/// ports that are only chosen at start.
fn dialable(config: &Config, peer: PeerId) -> Vec<Multiaddr> {
    let addresses = if config.announce.is_empty() { &config.listen } else { &config.announce };
    let has_port =
        |address: &&Multiaddr| !address.iter().any(|part| matches!(part, Protocol::Tcp(0) | Protocol::Udp(0)));
    addresses
        .iter()
        .filter(has_port)
        .map(|address| {
            let seen = address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).map(|part| match part {
                Protocol::Ip4(ip) if ip.is_unspecified() => outward_ip("0.0.0.0:0", "192.0.2.1:9").unwrap_or(part),
                Protocol::Ip6(ip) if ip.is_unspecified() => outward_ip("[::]:0", "[2001:db8::1]:9").unwrap_or(part),
                part => part,
            });
            seen.chain([Protocol::P2p(peer)]).collect()
        })
        .collect()
}

/// The address that the operating system would use towards the world. Connecting a UDP socket sends nothing, and the
/// addresses asked about are reserved for documentation.
fn outward_ip(from: &str, towards: &str) -> Option<Protocol<'static>> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(towards).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then(|| ip.into())
}

/// The value of an option, or the answer to a question where there is somebody to ask.
fn told_or_asked<T>(
    face: &Face,
    told: Option<T>,
    option: &str,
    question: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Outcome<T> {
    if let Some(told) = told {
        return Ok(told);
    }
    if face.is_json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(
            ApiError::usage(format!("{option} is missing")).with_hint("rialto init --name NAME --federation NAME")
        );
    }
    loop {
        // A prompt that cannot be shown is no reason not to read the answer.
        let _ = write!(io::stderr(), "{question} ").and_then(|()| io::stderr().flush());
        let mut answer = String::new();
        let read = io::stdin().lock().take(MAX_ANSWER_BYTES).read_line(&mut answer);
        match read {
            Ok(0) | Err(_) => return Err(ApiError::usage(format!("{option} is missing, and nothing was answered"))),
            Ok(_) => {}
        }
        match parse(answer.trim()) {
            Ok(value) => return Ok(value),
            Err(error) => face.note(plain(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn arguments() -> Arguments {
        Arguments {
            name: Some("uni".into()),
            federation: Name::try_from("demo").ok(),
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap(), "/ip4/127.0.0.1/tcp/4001".parse().unwrap()],
            announce: Vec::new(),
            bootstrap: Vec::new(),
            web: Some("off".into()),
            serve: Serve::All,
        }
    }

    #[test]
    fn a_node_is_set_up_once() {
        let temp = tempfile::tempdir().unwrap();
        let dir = NodeDir::new(temp.path().join("d")).unwrap();
        let face = Face::new(true);
        run(&face, &dir, arguments()).unwrap();
        dir.check_format().unwrap();
        let config = Config::load(&dir).unwrap();
        assert_eq!((&*config.name, config.serve, config.web), ("uni", Serve::All, None));
        let site = Keys::of(&dir).public(&keys::site_name().unwrap()).unwrap();
        let peer = keys::peer_id(&site).unwrap();
        assert_eq!(dialable(&config, peer), [format!("/ip4/127.0.0.1/tcp/4001/p2p/{peer}").parse().unwrap()]);

        let refused = run(&face, &dir, arguments()).unwrap_err();
        assert!(refused.message.ends_with("holds a node already; nothing was changed"), "{refused}");
    }

    #[test]
    fn an_init_that_was_cut_short_is_completed_and_overwrites_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let dir = NodeDir::new(temp.path().join("d")).unwrap();
        let face = Face::new(true);
        run(&face, &dir, arguments()).unwrap();
        let before = fs::read(dir.keys().join("site")).unwrap();
        fs::remove_file(dir.format_file()).unwrap();
        fs::write(dir.policy_file(), "# mine").unwrap();
        run(&face, &dir, arguments()).unwrap();
        assert_eq!(fs::read(dir.keys().join("site")).unwrap(), before);
        assert_eq!(fs::read_to_string(dir.policy_file()).unwrap(), "# mine");
    }

    #[test]
    fn what_is_missing_is_wrong_usage_where_nobody_can_be_asked() {
        let temp = tempfile::tempdir().unwrap();
        let dir = NodeDir::new(temp.path().join("d")).unwrap();
        let refused = run(&Face::new(true), &dir, Arguments { name: None, ..arguments() }).unwrap_err();
        assert_eq!(refused.code.exit_code(), 2);
        assert!(!dir.path().exists());
    }
}
