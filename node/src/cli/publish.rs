//! `rialto publish FILE.toml --key NAME`

use std::path::PathBuf;

use clap::Args;
use rialto_web::api::{PublishRequest, Published};

use super::output::{Cell, Face, Outcome, Tone};
use super::sign::{KeyChoice, Signing};
use super::{existing, job};
use crate::client::Client;
use crate::dir::NodeDir;

/// What to publish.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The description; the files it names are added as images
    file: PathBuf,
    /// The key to sign with, as the publisher: a name of keys/, the file of a key, or agent:NAME for one of an ssh-agent
    #[arg(long, value_name = "KEY")]
    key: KeyChoice,
}

pub(super) async fn run(face: &Face, dir: &NodeDir, client: &Client, arguments: Arguments) -> Outcome {
    let file = existing(&arguments.file)?;
    let signing = Signing::prepare(dir, client, "release", [arguments.key])?;
    let request = PublishRequest { file, key: signing.name() };
    let publishing = async {
        let started = client.post("publish", &request).await?;
        job::follow(face, client, started, "nothing was published; images that were added stay until image gc").await
    };
    let result = signing.during(publishing).await?;
    face.print_result(&result, |page, published: Published| {
        page.line(Cell::new(published.release, Tone::Strong));
        for image in published.images {
            page.fields([("image", image.to_string().into())]);
        }
    })
}
