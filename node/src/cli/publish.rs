//! `rialto publish FILE.toml --key NAME`

use std::path::PathBuf;

use clap::Args;
use rialto_protocol::bounded::Name;
use rialto_web::api::{PublishRequest, Published};

use super::output::{Cell, Face, Outcome, Tone};
use super::{existing, job};
use crate::client::Client;

/// What to publish.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The description; the files it names are added as images
    file: PathBuf,
    /// The key to sign with, as the publisher
    #[arg(long, value_name = "NAME")]
    key: Name,
}

pub(super) async fn run(face: &Face, client: &Client, arguments: Arguments) -> Outcome {
    let request = PublishRequest { file: existing(&arguments.file)?, key: arguments.key.to_string() };
    let started = client.post("publish", &request).await?;
    let result =
        job::follow(face, client, started, "nothing was published; images that were added stay until image gc").await?;
    face.print_result(&result, |page, published: Published| {
        page.line(Cell::new(published.release, Tone::Strong));
        for image in published.images {
            page.fields([("image", image.to_string().into())]);
        }
    })
}
