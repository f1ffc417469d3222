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
    let told = reachable(&status.listen);
    let bootstrap: String = told.iter().map(|address| format!(" \\\n    --bootstrap {address}")).collect();
    let command = format!("rialto init --name NAME --federation {}{bootstrap}", status.federation);
    let value = json!({
        "name": status.name,
        "federation": status.federation,
        "bootstrap": told,
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

/// An address of this machine's loopback is of use to this machine only: it is told where there is no other.
fn reachable(listen: &[String]) -> Vec<&String> {
    let is_loopback = |address: &String| address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/");
    let others: Vec<&String> = listen.iter().filter(|address| !is_loopback(address)).collect();
    if others.is_empty() { listen.iter().collect() } else { others }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_only_where_there_is_nothing_else() {
        let (near, far) = ("/ip4/127.0.0.1/tcp/1".to_owned(), "/dns4/uni.example/tcp/1".to_owned());
        assert_eq!(reachable(&[near.clone(), far.clone()]), [&far]);
        assert_eq!(reachable(std::slice::from_ref(&near)), [&near]);
    }
}
