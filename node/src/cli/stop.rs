//! `rialto stop INSTANCE [--force]`

use clap::Args;
use rialto_web::api::{InstanceChanged, StopRequest};

use super::output::{Face, Outcome};
use crate::client::{Client, segment};

/// Which instance.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Its id
    instance: String,
    /// Stop it the hard way, without asking the guest to shut down
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(face: &Face, client: &Client, arguments: Arguments) -> Outcome {
    let path = format!("instances/{}/stop", segment(&arguments.instance));
    let changed: InstanceChanged = client.post(&path, &StopRequest { force: arguments.force }).await?;
    face.print(&changed, |page| page.line(format!("{} is {}", changed.instance, changed.state)))
}
