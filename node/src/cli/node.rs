//! `rialto node`: the daemon, in the foreground.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use rialto_web::api::ApiError;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::output::Outcome;
use crate::config::Config;
use crate::dir::NodeDir;
use crate::{node, systemd};

/// What is logged when RIALTO_LOG says nothing: what an administrator would want to read.
const DEFAULT_LOG: &str = "info,libp2p=warn,libp2p_gossipsub=error,libp2p_kad=error,sled=warn";

/// How long threads that are busy with files may go on after the node has ended.
const LAST_THREADS: Duration = Duration::from_secs(3);

pub(super) fn run(dir: NodeDir) -> Outcome {
    start_logging()?;
    dir.check_format()?;
    let config = Config::load(&dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("rialto")
        .build()
        .map_err(|error| ApiError::failed(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(async move {
        let shutdown = CancellationToken::new();
        stop_on_signals(&shutdown)?;
        let ended = Box::pin(node::run(dir, config, shutdown, Box::new(say_ready))).await;
        ended.map_err(ApiError::from)
    });
    // Threads that still read or write a large file end with the process: what they were at is taken up again, or left.
    runtime.shutdown_timeout(LAST_THREADS);
    outcome
}

/// To stderr, so that stdout has the line `ready` and nothing else. The journal has its own clock.
fn start_logging() -> Outcome {
    let filter = match std::env::var("RIALTO_LOG") {
        Ok(words) if !words.is_empty() => EnvFilter::try_new(&words).map_err(|error| {
            ApiError::usage(format!("RIALTO_LOG is '{words}', which is not a log filter: {error}"))
                .with_hint("for example RIALTO_LOG=debug, or RIALTO_LOG=info,rialto_node::net=trace")
        })?,
        _ => EnvFilter::new(DEFAULT_LOG),
    };
    let has_colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(has_colour)
        // A log that cannot be written must not end the node.
        .log_internal_errors(false);
    let started =
        if std::env::var_os("JOURNAL_STREAM").is_some() { log.without_time().try_init() } else { log.try_init() };
    started.map_err(|error| ApiError::failed(format!("cannot start logging: {error}")))
}

/// The first SIGTERM or SIGINT asks the node to stop in order, the second ends it at once.
fn stop_on_signals(shutdown: &CancellationToken) -> Outcome {
    let listen = |kind| signal(kind).map_err(|error| ApiError::failed(format!("cannot listen for signals: {error}")));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let mut stops_at_once = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stops_at_once {
                tracing::warn!("stopping at once");
                std::process::exit(1);
            }
            stops_at_once = true;
            tracing::info!("shutting down; once more stops at once");
            if let Err(error) = systemd::notify_stopping() {
                tracing::warn!("cannot tell systemd: {error}");
            }
            shutdown.cancel();
        }
    });
    Ok(())
}

/// A line for scripts, a datagram for systemd. Whoever closed stdout does not wait for the line.
fn say_ready() {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(b"ready\n").and_then(|()| stdout.flush());
    if let Err(error) = systemd::notify_ready() {
        tracing::warn!("cannot tell systemd that the node is ready: {error}");
    }
}
