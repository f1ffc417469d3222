//! A bare libp2p stream between two processes: TCP, TLS and yamux, and nothing that makes sense of the bytes. What it
//! carries is what a node could carry if verifying and storing cost nothing.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use clap::Subcommand;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, StreamProtocol, Swarm, tcp, tls, yamux};

use super::{BenchError, Result, peers};
use crate::wait;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/rialto/bench/raw/1");
/// What is written and read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// The two ends.
#[derive(Debug, Subcommand)]
pub enum RawArguments {
    /// Prints its address, and sends as many bytes as it is asked for, until it is killed
    Source,
    /// Asks a source for bytes, and prints how many seconds they took
    Sink {
        /// The source's address
        address: Multiaddr,
        /// How many
        bytes: u64,
    },
}

/// Plays one end of the stream.
///
/// # Errors
/// The network, or the other end.
pub fn run(arguments: &RawArguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments {
            RawArguments::Source => source().await,
            RawArguments::Sink { address, bytes } => sink(address.clone(), *bytes).await,
        }
    })
}

/// Copies so many bytes between two processes, and returns MB/s.
pub(super) fn megabytes_per_second(bytes: u64) -> Result<f64> {
    let program = std::env::current_exe()?;
    let mut source = Source(Command::new(&program).args(["raw", "source"]).stdout(Stdio::piped()).spawn()?);
    let mut address = String::new();
    let said = source.0.stdout.take().ok_or_else(|| BenchError::Peer("the raw source is mute".into()))?;
    BufReader::new(said).read_line(&mut address)?;
    let sunk = peers::run(Command::new(&program).args(["raw", "sink", address.trim(), &bytes.to_string()]))?;
    let seconds: f64 = String::from_utf8_lossy(&sunk.stdout)
        .trim()
        .parse()
        .map_err(|_| BenchError::Peer("the raw sink names no seconds".into()))?;
    Ok(bytes as f64 / 1e6 / seconds)
}

struct Source(Child);

impl Drop for Source {
    fn drop(&mut self) {
        wait::end(&mut self.0);
    }
}

async fn source() -> Result<()> {
    let mut swarm = swarm()?;
    let mut incoming = swarm.behaviour().new_control().accept(PROTOCOL).map_err(failed)?;
    swarm
        .listen_on(Multiaddr::empty().with(std::net::Ipv4Addr::LOCALHOST.into()).with(Protocol::Tcp(0)))
        .map_err(failed)?;
    tokio::spawn(async move {
        while let Some((_, mut stream)) = incoming.next().await {
            tokio::spawn(async move { send(&mut stream).await });
        }
    });
    let peer = *swarm.local_peer_id();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            let mut out = io::stdout().lock();
            writeln!(out, "{}", address.with(Protocol::P2p(peer)))?;
            out.flush()?;
        }
    }
}

async fn send(stream: &mut libp2p::Stream) -> io::Result<()> {
    let mut asked = [0; 8];
    stream.read_exact(&mut asked).await?;
    let mut left = u64::from_be_bytes(asked);
    let mut buffer = vec![0; BUFFER_BYTES];
    fastrand::Rng::with_seed(7).fill(&mut buffer);
    while left > 0 {
        let now = left.min(BUFFER_BYTES as u64);
        stream.write_all(&buffer[..now as usize]).await?;
        left -= now;
    }
    stream.close().await
}

async fn sink(address: Multiaddr, bytes: u64) -> Result<()> {
    let mut swarm = swarm()?;
    let source = address.iter().find_map(|part| match part {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    });
    let source = source.ok_or_else(|| BenchError::Peer(format!("{address} does not end with /p2p/PEER")))?;
    let mut control = swarm.behaviour().new_control();
    swarm.dial(address).map_err(failed)?;
    while !swarm.is_connected(&source) {
        if let SwarmEvent::OutgoingConnectionError { error, .. } = swarm.select_next_some().await {
            return Err(failed(error));
        }
    }
    let driver = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    let started = Instant::now();
    let mut stream = control.open_stream(source, PROTOCOL).await.map_err(failed)?;
    stream.write_all(&bytes.to_be_bytes()).await?;
    stream.flush().await?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut left = bytes;
    while left > 0 {
        match stream.read(&mut buffer).await? {
            0 => return Err(BenchError::Peer(format!("the raw source ended {left} bytes early"))),
            read => left = left.saturating_sub(read as u64),
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    driver.abort();
    Ok(writeln!(io::stdout(), "{seconds}")?)
}

fn swarm() -> Result<Swarm<libp2p_stream::Behaviour>> {
    Ok(libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), tls::Config::new, yamux::Config::default)
        .map_err(failed)?
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .map_err(failed)?
        .with_swarm_config(|config| config.with_idle_connection_timeout(std::time::Duration::from_secs(60)))
        .build())
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Peer(format!("the raw stream: {error}"))
}
