//! Why something could not be done with an instance.

use std::io;

use rialto_protocol::ids::ImageId;
use rialto_protocol::record::ContextError;
use rialto_web::api::{ApiError, ErrorCode};

use super::hypervisor::HypervisorError;
use super::instance::State;
use super::ports::PortError;

/// Why something could not be done with an instance.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The operator's values do not fit the release.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// Ports cannot be published as asked.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The release cannot run here at all.
    #[error("this release cannot be deployed here: {0}")]
    Unfit(String),
    /// The hypervisor did not do its part.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// An image could not be made a file.
    #[error("cannot export image {image}: {source}")]
    Export {
        /// The image.
        image: ImageId,
        /// The store's or the disk's answer.
        source: io::Error,
    },
    /// A disk is not as long as its release says.
    #[error("image {image} has {found} bytes, but its release says {expected}; the release contradicts itself")]
    WrongLength {
        /// The image.
        image: ImageId,
        /// What the release says, in bytes.
        expected: u64,
        /// What the image has, in bytes.
        found: u64,
    },
    /// A disk's content has other digests than its release says.
    #[error(
        "image {0} is not what its release says: the SHA-256 or BLAKE3 of its content is another, and what has been said \
         of that content was not said of this"
    )]
    WrongDigests(ImageId),
    /// It was stopped while it was being made.
    #[error("the deployment was cancelled")]
    Cancelled,
    /// Whoever asked for it does not want it any more.
    #[error("it is not started: {0}")]
    Refused(String),
    /// No instance has this id.
    #[error("no instance is called '{0}'; 'rialto ps' lists them")]
    NotFound(String),
    /// Several instances' ids begin like this.
    #[error("several instances begin with '{0}'; give more of the id")]
    Ambiguous(String),
    /// It must be over first.
    #[error("instance {instance} is {}; stop it first", .state.as_str())]
    NotOver {
        /// The instance.
        instance: String,
        /// Its state.
        state: State,
    },
    /// It is in another state than this needs.
    #[error("instance {instance} is {}, not {wanted}", .state.as_str())]
    OtherState {
        /// The instance.
        instance: String,
        /// Its state.
        state: State,
        /// What it would have to be.
        wanted: &'static str,
    },
    /// It was deployed by a version of this program that did not note what resuming takes.
    #[error("instance {0} was deployed by an earlier version, and cannot be suspended; deploy it anew")]
    Earlier(String),
    /// The node is going.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The operating system refused.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
}

impl From<DeployError> for ApiError {
    fn from(error: DeployError) -> Self {
        let code = match &error {
            DeployError::Context(_)
            | DeployError::Port(_)
            | DeployError::Ambiguous(_)
            | DeployError::NotOver { .. }
            | DeployError::OtherState { .. } => ErrorCode::Usage,
            DeployError::NotFound(_) => ErrorCode::NotFound,
            DeployError::ShuttingDown => ErrorCode::NotRunning,
            DeployError::Refused(_) => ErrorCode::Refused,
            _ => ErrorCode::Failed,
        };
        let hint = match &error {
            DeployError::WrongDigests(_) | DeployError::WrongLength { .. } => {
                Some("do not deploy it; tell its publisher, who has to publish it anew")
            }
            DeployError::Context(_) => Some("'rialto show' lists what the release asks for"),
            DeployError::Hypervisor(HypervisorError::Missing { .. }) => {
                Some("'rialto doctor' checks the whole machine")
            }
            DeployError::Hypervisor(HypervisorError::DidNotStart(_)) => {
                Some("'rialto logs' shows what the guest wrote; 'rialto rm' removes the instance")
            }
            DeployError::Hypervisor(HypervisorError::NotSaved(_)) => {
                Some("a memory needs as much space on disk as the guest has touched of it")
            }
            DeployError::NotOver { .. } => Some("'rialto stop' ends it, with --force at once"),
            _ => None,
        };
        let answer = Self::new(code, error.to_string());
        match hint {
            Some(hint) => answer.with_hint(hint),
            None => answer,
        }
    }
}
