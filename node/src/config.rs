//! `config.toml`: what the administrator of a node sets.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use rialto_protocol::bounded::{List, Name};
use rialto_web::api::{ApiError, ErrorCode};
use serde::{Deserialize, Deserializer};

use crate::dir::{NodeDir, read_bounded};
use crate::keys;
use crate::schedule::SwarmConfig;
use crate::strict_toml::{self, TomlError};
use crate::units::{ByteSize, deserialize_duration};

/// Addresses of one kind in one file: more than any machine has, and few enough to try them all.
const MAX_ADDRESSES: usize = 64;
/// Characters of a site's name: it stands in a line with others.
const MAX_NAME_CHARS: usize = 64;
/// Sites on the allow-list of one node.
const MAX_MEMBERS: usize = 4096;
/// Room for [`MAX_MEMBERS`] OpenSSH keys with comments.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Where the web UI is when nothing is said.
const DEFAULT_WEB: &str = "127.0.0.1:7878";
/// Where the node listens when nothing is said: the customary port of libp2p, over TCP and QUIC.
const DEFAULT_LISTEN: [&str; 2] = ["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"];
/// Peers to keep when nothing is said: gossip needs 6 in its mesh, and half of them may be away.
const DEFAULT_PEERS: u32 = 12;
/// More connections than this to keep on purpose help nobody.
const MAX_PEERS: u32 = 200;

/// Why `config.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its content is wrong.
    #[error("{}: {error}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What, and where.
        error: TomlError,
    },
}

impl ConfigError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("create a node with: rialto init".into())
            }
            Self::Unreadable { .. } => None,
            Self::Wrong { path, .. } => Some(format!("correct {} and start the node again", path.display())),
        }
    }
}

impl From<ConfigError> for ApiError {
    fn from(error: ConfigError) -> Self {
        Self { code: ErrorCode::Failed, message: error.to_string(), hint: error.hint() }
    }
}

/// What the administrator sets. Read once, when the node starts.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// What this site calls itself; others know it by its key. One line of 1 to 64 characters.
    #[serde(deserialize_with = "site_name")]
    pub name: String,
    /// The federation: sites with another name here are never heard.
    pub federation: Name,
    /// Where to listen for other sites.
    #[serde(default = "default_listen", deserialize_with = "addresses")]
    pub listen: Vec<Multiaddr>,
    /// Where others reach this site, if that is not where it listens (NAT, port forwarding).
    #[serde(default, deserialize_with = "addresses")]
    pub announce: Vec<Multiaddr>,
    /// Sites to ask first for others.
    #[serde(default, deserialize_with = "addresses")]
    pub bootstrap: Vec<Multiaddr>,
    /// Who may connect.
    #[serde(default)]
    pub membership: Membership,
    /// The sites that may connect when membership is `members`.
    #[serde(default, deserialize_with = "members")]
    pub members: BTreeSet<PeerId>,
    /// Peers to look for and keep, 1 to 200.
    #[serde(default = "default_peers", deserialize_with = "peers")]
    pub peers: u32,
    /// Whether to find sites on the local network by multicast DNS.
    #[serde(default)]
    pub mdns: bool,
    /// Where the web UI and API listen beside the UNIX socket: a loopback address, or nowhere.
    #[serde(default = "default_web", deserialize_with = "web")]
    pub web: Option<SocketAddr>,
    /// Which images other sites may fetch from this one.
    #[serde(default)]
    pub serve: Serve,
    /// The store of images.
    #[serde(default)]
    pub store: StoreConfig,
    /// How much may be sent and received.
    #[serde(default)]
    pub swarm: SwarmConfig,
    /// Channels that this node keeps fresh.
    #[serde(default)]
    pub channels: ChannelsConfig,
    /// How instances run.
    #[serde(default)]
    pub deploy: DeployConfig,
}

/// Who may connect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Membership {
    /// Every site of the federation.
    #[default]
    Open,
    /// The sites on the list of members.
    Members,
}

/// Which images other sites may fetch from this one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Serve {
    /// Those that a release in the catalog names.
    #[default]
    Published,
    /// Every image in the store, also those that were only added here.
    All,
    /// None.
    None,
}

impl fmt::Display for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Published => "published",
            Self::All => "all",
            Self::None => "none",
        })
    }
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Space on the file system that the store leaves free, in bytes: nothing is added or fetched below it.
    #[serde(alias = "free_space_floor")]
    pub free_space_floor: ByteSize,
    /// What the store may take, in bytes; no bound where it is not set.
    pub quota: Option<ByteSize>,
    /// How much of the store is read over again each second, in bytes; 0 for only on request.
    #[serde(alias = "scrub_rate")]
    pub scrub_rate: ByteSize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { free_space_floor: ByteSize::gib(1), quota: None, scrub_rate: ByteSize(8 << 20) }
    }
}

/// `[channels]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ChannelsConfig {
    /// How long after its last signing a head is signed again, and at most two thirds of its lifetime; a third of it where
    /// it is not set.
    #[serde(alias = "renew_every", deserialize_with = "some_duration")]
    pub renew_every: Option<Duration>,
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    deserialize_duration(deserializer).map(Some)
}

/// `[deploy]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct DeployConfig {
    /// How long a guest has to shut down once it is asked to, before it is stopped the hard way.
    #[serde(alias = "stop_grace", deserialize_with = "deserialize_duration")]
    pub stop_grace: Duration,
    /// How long a release that takes an instance's place has to run before the one that it replaces is given up.
    #[serde(alias = "update_trial", deserialize_with = "deserialize_duration")]
    pub update_trial: Duration,
    /// Memory that all guests may have together, in bytes; no bound where it is not set.
    pub memory: Option<ByteSize>,
}

impl Default for DeployConfig {
    fn default() -> Self {
        Self { stop_grace: Duration::from_secs(20), update_trial: Duration::from_secs(30), memory: None }
    }
}

impl Config {
    /// Reads the node's `config.toml`.
    ///
    /// # Errors
    /// The file cannot be read or is longer than 1 MiB; an unknown key; a value outside its bounds.
    pub fn load(dir: &NodeDir) -> Result<Self, ConfigError> {
        let path = dir.config_file();
        let text = read_bounded(&path, MAX_FILE_BYTES)
            .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        Self::parse(&text).map_err(|error| ConfigError::Wrong { path, error })
    }

    /// Reads the text of a `config.toml`.
    ///
    /// # Errors
    /// An unknown key; a value outside its bounds.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        let config: Self = strict_toml::read(text)?;
        if config.membership == Membership::Open && !config.members.is_empty() {
            return Err(TomlError {
                line: 0,
                column: 0,
                message: "there is a list of members, but membership is \"open\", so it would keep nobody out; \
                          set membership = \"members\" or remove the list"
                    .into(),
            });
        }
        Ok(config)
    }

    /// Checks that this text reads as a configuration and names the path in the error.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn check(path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::parse(text).map_err(|error| ConfigError::Wrong { path: path.to_owned(), error })
    }
}

/// What `init` knows of a new node; [`NewConfig::render`] makes the commented file of it.
#[derive(Debug, Clone)]
pub struct NewConfig {
    /// The site's name.
    pub name: String,
    /// The federation.
    pub federation: Name,
    /// Where to listen; the default where empty.
    pub listen: Vec<Multiaddr>,
    /// Where others reach it.
    pub announce: Vec<Multiaddr>,
    /// Sites to ask first.
    pub bootstrap: Vec<Multiaddr>,
    /// Where the web UI listens; the default where `None`.
    pub web: Option<String>,
    /// Which images are offered.
    pub serve: Serve,
}

impl NewConfig {
    /// The text of a `config.toml` with a comment for every setting.
    pub fn render(&self) -> String {
        let listen = if self.listen.is_empty() { default_listen() } else { self.listen.clone() };
        format!(
            r#"# The settings of this node. It reads them when it starts.

# What this site calls itself. Others know it by its key.
name = {name}

# Sites with another federation name are never heard.
federation = {federation}

# Where to listen for other sites, as libp2p multiaddresses.
listen = {listen}

# Where others reach this site, if that is not where it listens: behind NAT, with a forwarded port.
# For example ["/dns4/node.example.org/tcp/4001"]
announce = {announce}

# Sites to ask first for others, each with its peer id at the end: "/ip4/192.0.2.7/tcp/4001/p2p/12D3Koo…"
bootstrap = {bootstrap}

# Who may connect: "open" is every site of the federation, "members" only those listed
# (peer ids, or public keys as `rialto key show site` prints them).
membership = "open"
# members = ["12D3Koo…", "ssh-ed25519 AAAA…"]

# Peers to look for and keep.
peers = {DEFAULT_PEERS}

# Find sites on the local network by multicast DNS.
mdns = false

# Where the web UI listens: a loopback address, or "off". From elsewhere use ssh -L; `rialto web` prints a link.
web = {web}

# Which images other sites may fetch from here: "published" (those that a release names), "all" or "none".
serve = "{serve}"

[store]
# Space that the store leaves free on its file system; nothing is added or fetched below it.
free-space-floor = "1 GiB"
# What the store may take; nothing is added or fetched beyond it.
# quota = "200 GiB"
# How much of it is read over again each second, to find damage and fetch what was lost; "0" for only on request.
# scrub-rate = "8 MiB"

[swarm]
# What may be sent and received: "10 MB/s", "100 Mbit/s" or "unlimited"; to and from all sites together, and to one.
# `rialto rates` changes it until the node is restarted.
upload = "unlimited"
upload-per-peer = "unlimited"
download = "unlimited"
# Other limits at other hours, by this machine's clock:
# [[swarm.schedule]]
# from = "22:00"
# to = "06:00"
# upload = "100 MB/s"

[channels]
# Channels that were set here are signed again before they expire: each time a third of their lifetime has gone, or
# renew-every = "1d"

[deploy]
# How long a guest has to shut down before it is stopped the hard way.
stop-grace = "20s"
# How long a release that takes an instance's place (update = "auto" in policy.toml) has to run before the one that it
# replaces is given up.
update-trial = "30s"
# Memory that all guests may have together.
# memory = "8 GiB"
"#,
            name = quoted(&self.name),
            federation = quoted(&self.federation),
            listen = quoted_list(&listen),
            announce = quoted_list(&self.announce),
            bootstrap = quoted_list(&self.bootstrap),
            web = quoted(self.web.as_deref().unwrap_or(DEFAULT_WEB)),
            serve = self.serve,
        )
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_list(addresses: &[Multiaddr]) -> String {
    let items: Vec<_> = addresses.iter().map(|address| quoted(&address.to_string())).collect();
    match items.as_slice() {
        [] | [_] => format!("[{}]", items.concat()),
        items => format!("[\n    {},\n]", items.join(",\n    ")),
    }
}

fn site_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    parse_site_name(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Reads what a site calls itself.
///
/// # Errors
/// Nothing, more than 64 characters, or characters that don't show.
pub fn parse_site_name(text: &str) -> Result<String, String> {
    let name = text.trim();
    match name.chars().count() {
        1..=MAX_NAME_CHARS if !name.contains(char::is_control) => Ok(name.to_owned()),
        _ => Err(format!("a site's name is one line of 1 to {MAX_NAME_CHARS} characters")),
    }
}

/// The addresses to listen on when nothing is said.
pub fn default_listen() -> Vec<Multiaddr> {
    DEFAULT_LISTEN.iter().filter_map(|address| address.parse().ok()).collect()
}

fn default_peers() -> u32 {
    DEFAULT_PEERS
}

fn default_web() -> Option<SocketAddr> {
    DEFAULT_WEB.parse().ok()
}

/// A multiaddress, with an error that shows one.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Address(Multiaddr);

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_address(&text).map(Self)
    }
}

/// Reads a multiaddress that a node can listen on or dial.
///
/// # Errors
/// Not a multiaddress, in words that show what one looks like.
pub fn parse_address(text: &str) -> Result<Multiaddr, String> {
    let shown: String = text.chars().take(120).collect();
    match text.parse::<Multiaddr>() {
        Ok(address) if address.iter().next().is_some() => Ok(address),
        Ok(_) => Err("an empty address; one looks like /ip4/192.0.2.7/tcp/4001".into()),
        Err(error) => Err(format!("'{shown}' is not a multiaddress ({error}); one looks like /ip4/192.0.2.7/tcp/4001")),
    }
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Multiaddr>, D::Error> {
    let addresses = List::<Address, MAX_ADDRESSES>::deserialize(deserializer)?;
    Ok(addresses.into_vec().into_iter().map(|address| address.0).collect())
}

/// A site in any of its forms.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Member(PeerId);

impl TryFrom<String> for Member {
    type Error = keys::KeyError;

    fn try_from(text: String) -> Result<Self, keys::KeyError> {
        keys::parse_site(&text).map(Self)
    }
}

fn members<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<PeerId>, D::Error> {
    let members = List::<Member, MAX_MEMBERS>::deserialize(deserializer)?;
    Ok(members.into_vec().into_iter().map(|member| member.0).collect())
}

fn peers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let peers = u32::deserialize(deserializer)?;
    if (1..=MAX_PEERS).contains(&peers) {
        return Ok(peers);
    }
    Err(serde::de::Error::custom(format!("{peers} peers: the number to keep is 1 to {MAX_PEERS}")))
}

fn web<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    parse_web(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Reads the address of the web UI: `127.0.0.1:7878`, `[::1]:7878`, `localhost:7878`, or `off` or nothing for nowhere.
///
/// # Errors
/// Not an address with a port, or not a loopback one.
pub fn parse_web(text: &str) -> Result<Option<SocketAddr>, String> {
    if matches!(text, "" | "off") {
        return Ok(None);
    }
    let shown: String = text.chars().take(120).collect();
    let numeric = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    let address: SocketAddr = numeric
        .parse()
        .map_err(|_| format!("'{shown}' is not an address and port; write \"{DEFAULT_WEB}\", or \"off\""))?;
    if !address.ip().is_loopback() {
        return Err(format!(
            "'{shown}' can be reached from other machines; the web UI listens on loopback only (\"{DEFAULT_WEB}\"): \
             reach it from elsewhere with ssh -L"
        ));
    }
    Ok(Some(address))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALLEST: &str = "name = \"uni\"\nfederation = \"demo\"\n";

    fn refusal(more: &str) -> String {
        Config::parse(&format!("{SMALLEST}{more}\n")).unwrap_err().to_string()
    }

    fn new_config() -> NewConfig {
        NewConfig {
            name: "uni".into(),
            federation: Name::try_from("demo").unwrap(),
            listen: Vec::new(),
            announce: Vec::new(),
            bootstrap: Vec::new(),
            web: None,
            serve: Serve::Published,
        }
    }

    #[test]
    fn a_fresh_file_says_the_defaults() {
        let written = Config::parse(&new_config().render()).unwrap();
        assert_eq!(written, Config::parse(SMALLEST).unwrap());
        assert_eq!(written.listen, default_listen());
        assert_eq!(written.listen.len(), DEFAULT_LISTEN.len());
        assert_eq!(written.web, Some("127.0.0.1:7878".parse().unwrap()));
        assert_eq!(written.store.free_space_floor, ByteSize::gib(1));
        assert_eq!(written.deploy.stop_grace, Duration::from_secs(20));
    }

    #[test]
    fn what_init_is_told_comes_back() {
        let address = |text: &str| text.parse::<Multiaddr>().unwrap();
        let told = NewConfig {
            listen: vec![address("/ip4/127.0.0.1/tcp/0"), address("/ip6/::1/udp/0/quic-v1")],
            announce: vec![address("/dns4/node.example.org/tcp/4001")],
            bootstrap: vec![address("/ip4/192.0.2.7/tcp/4001")],
            web: Some("off".into()),
            serve: Serve::None,
            ..new_config()
        };
        let config = Config::parse(&told.render()).unwrap();
        assert_eq!((config.listen, config.announce, config.bootstrap), (told.listen, told.announce, told.bootstrap));
        assert_eq!((config.web, config.serve), (None, Serve::None));
    }

    #[test]
    fn misspelt_keys_are_refused_with_their_line() {
        assert_eq!(refusal("sevre = \"all\""), "line 3, column 1: unknown key 'sevre'; did you mean 'serve'?");
        assert_eq!(
            refusal("[store]\nfree-space-flor = \"1 GiB\""),
            "line 4, column 1: unknown key 'free-space-flor'; did you mean 'free-space-floor'?"
        );
    }

    #[test]
    fn values_outside_their_bounds_are_refused_with_their_line() {
        for (line, expected) in [
            ("serve = \"some\"", "'some' is not one of published, all, none"),
            ("peers = 0", "1 to 200"),
            ("listen = [\"127.0.0.1:4001\"]", "is not a multiaddress"),
            ("members = [\"nobody\"]", "'nobody' is not the peer id of a site"),
            ("web = \"0.0.0.0:80\"", "listens on loopback only"),
            ("web = \"here\"", "is not an address and port"),
            ("[deploy]\nstop-grace = \"soon\"", "is not a duration"),
            ("[store]\nfree-space-floor = \"plenty\"", "is not a size"),
            ("[store]\nfree-space-floor = 7", "expected a string"),
            ("[swarm]\nupload = \"fast\"", "is not a rate"),
            ("[swarm]\nschedule = [{ from = \"25:00\", to = \"06:00\" }]", "is not a time of the day"),
        ] {
            let refused = refusal(line);
            assert!(refused.contains(expected), "{line}: {refused}");
            assert!(refused.starts_with("line 3, ") || refused.starts_with("line 4, "), "{line}: {refused}");
        }
        let many = format!("bootstrap = [{}]", "\"/ip4/127.0.0.1/tcp/1\",".repeat(MAX_ADDRESSES + 1));
        assert!(refusal(&many).contains("at most 64"), "{}", refusal(&many));
    }

    #[test]
    fn a_site_has_a_name_of_one_line() {
        assert_eq!(parse_site_name(" Universität A "), Ok("Universität A".into()));
        for text in ["", " ", "two\nlines", "\u{1b}[31m", &"x".repeat(MAX_NAME_CHARS + 1)] {
            assert!(parse_site_name(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_member_list_that_keeps_nobody_out_is_refused() {
        let site = keys::peer_id(&rialto_protocol::ids::PublicKey(
            ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes(),
        ))
        .unwrap();
        let list = format!("members = [\"{site}\"]\n");
        assert!(refusal(&list).contains("membership is \"open\""));
        let config = Config::parse(&format!("{SMALLEST}membership = \"members\"\n{list}")).unwrap();
        assert_eq!(config.members, BTreeSet::from([site]));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
            let _ = Config::parse(&text);
            let _ = parse_web(&text);
            let _ = parse_address(&text);
        }
    }
}
