//! `rialto web`: a link to the web UI that works once.

use serde::{Deserialize, Serialize};

use super::output::{Face, Outcome};
use crate::client::Client;

#[derive(Debug, Serialize, Deserialize)]
struct Link {
    url: String,
}

pub(super) async fn run(face: &Face, client: &Client) -> Outcome {
    let link: Link = client.post_empty("web/link").await?;
    face.print(&link, |page| page.line(&link.url))
}
