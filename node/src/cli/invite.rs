//! `rialto invite`: what another site needs to know to join the federation through this one.

use rialto_web::api::{ApiError, Status};
use serde_json::json;

use super::output::{Face, Outcome};
use crate::client::Client;
use crate::dir::NodeDir;
use crate::keys::{self, Keys};

pub(super) async fn run(face: &Face, dir: &NodeDir, client: &Client) -> Outcome {
    let status: Status = client.get("status").await?;
    let site_key = keys::to_openssh(&Keys::of(dir).public(&keys::site_name()?)?, &status.name)?;
    if status.listen.is_empty() {
        return Err(ApiError::failed("this node can be reached nowhere, so nobody can join through it")
            .with_hint(format!("name an address as 'listen' or 'announce' in {}", dir.config_file().display())));
    }
    let bootstrap: String = status.listen.iter().map(|address| format!(" \\\n    --bootstrap {address}")).collect();
    let command = format!("rialto init --name NAME --federation {}{bootstrap}", status.federation);
    let value = json!({
        "name": status.name,
        "federation": status.federation,
        "bootstrap": status.listen,
        "public_key": site_key,
        "command": command,
    });
    face.print(&value, |page| {
        page.heading("The other site runs, with a NAME of its own:");
        page.paragraph(&command);
        page.heading("This site's key, for the other's list of members, if it keeps one:");
        page.paragraph(&site_key);
        page.heading("If this node keeps a list of members, it needs the other site's key on it:");
        page.paragraph("rialto key show site");
    })
}
