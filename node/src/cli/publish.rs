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
    /// The key to sign with, as the publisher: a name of keys/, the file of a key, or agent:NAME for one of an ssh-agent;
    /// several times, where a publisher lent its releases to several keys together
    #[arg(long = "key", value_name = "KEY", required = true)]
    keys: Vec<KeyChoice>,
    /// Whose release it is, where the keys are lent (rialto delegate --role release): a name of the policy, a fingerprint or a key
    #[arg(long)]
    publisher: Option<String>,
}

pub(super) async fn run(face: &Face, dir: &NodeDir, client: &Client, arguments: Arguments) -> Outcome {
    let file = existing(&arguments.file)?;
    let signing = Signing::prepare(dir, client, "release", arguments.keys)?;
    let with_keys = signing.names().into_iter().skip(1).collect();
    let request = PublishRequest { file, key: signing.name(), with_keys, publisher: arguments.publisher };
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
