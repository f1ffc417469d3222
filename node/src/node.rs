//! Wires the rooms of one node together, and takes them down in order.

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::dir::NodeDir;

/// Why a node cannot run, or stopped running.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The rooms are not wired yet.
    #[error("this build of rialto has no node in it")]
    NotWired,
}

/// Runs a node until `shutdown` is cancelled. Claims the directory ([`NodeDir::lock`]), listens, and calls `on_ready` once
/// other sites and the API are served.
///
/// # Errors
/// The directory is in use, an address is taken, or a file of the node cannot be opened.
pub async fn run(
    _dir: NodeDir,
    _config: Config,
    _shutdown: CancellationToken,
    _on_ready: Box<dyn FnOnce() + Send>,
) -> Result<(), NodeError> {
    Err(NodeError::NotWired)
}
