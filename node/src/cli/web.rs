//! `rialto web`: a link to the web UI that works once.

use rialto_web::api::WebLink;

use super::output::{Face, Outcome};
use crate::client::Client;

pub(super) async fn run(face: &Face, client: &Client) -> Outcome {
    let link: WebLink = client.post_empty("web/link").await?;
    face.print(&link, |page| page.line(&link.url))
}
