//! Work that takes a while, and changes as they happen.

use serde::{Deserialize, Serialize};

use super::ApiError;

/// A long piece of work: follow it at `/api/v1/jobs/<id>/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStarted {
    /// Its id.
    pub job: String,
}

/// What a job says of itself. `Done` and `Failed` end it; who asks after the end is told the end again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum JobEvent {
    /// Under way.
    Progress {
        /// What it is doing: `reading`, `fetching`, `starting`, …
        stage: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all; 0 while unknown.
        total: u64,
    },
    /// The end: the result, in the JSON of its command.
    Done {
        /// The value that the command prints with `--json`.
        result: serde_json::Value,
    },
    /// The end: it did not work.
    Failed {
        /// Why.
        error: ApiError,
    },
}

/// What changed in the node, for pages that are open. Pages ask for the details again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "changed", rename_all = "lowercase")]
pub enum Change {
    /// Records came or went.
    Catalog,
    /// The policy in force is another one.
    Policy,
    /// An instance changed its state.
    Instances,
    /// Images came or went.
    Store,
    /// Peers came or went.
    Peers,
}
