//! `rialto suspend INSTANCE`

use clap::Args;
use rialto_web::api::InstanceChanged;

use super::output::{Face, Outcome};
use crate::client::{Client, segment};

/// Which instance.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Its id
    instance: String,
}

pub(super) async fn run(face: &Face, client: &Client, arguments: Arguments) -> Outcome {
    let path = format!("instances/{}/suspend", segment(&arguments.instance));
    let changed: InstanceChanged = client.post_empty(&path).await?;
    face.print(&changed, |page| page.line(format!("{} is {}", changed.instance, changed.state)))
}
