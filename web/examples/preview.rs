//! Serves the pages over a node that exists in memory only, to look at them: prints a one-time link for each argument
//! (`rich`, `empty`, `broken`, `hostile`; all four without arguments) and stays up until Ctrl-C.

#![allow(clippy::print_stdout, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use rialto_web::Sessions;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[path = "../tests/fake/mod.rs"]
mod fake;
use fake::Fake;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut kinds: Vec<String> = std::env::args().skip(1).collect();
    if kinds.is_empty() {
        kinds = ["rich", "empty", "broken", "hostile"].map(Into::into).into();
    }
    let shutdown = CancellationToken::new();
    for kind in kinds {
        let mut node = match kind.as_str() {
            "rich" => Fake::rich(),
            "empty" => Fake::empty(),
            "hostile" => Fake::hostile(),
            "broken" => {
                let mut node = Fake::rich();
                node.status.policy.error =
                    Some("policy.toml:14:9: 'reviewrs' is not a role; the roles are reviewers and publishers".into());
                node.status.warnings = vec![
                    "the store's file system has 1.2 GiB left, below the floor of 2 GiB: nothing is fetched".into(),
                ];
                node
            }
            other => return Err(format!("'{other}' is none of rich, empty, broken, hostile").into()),
        };
        node.pace = Some(Duration::from_millis(200));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let sessions = Sessions::new()?;
        println!("{kind}: {}", sessions.mint_link(port)?);
        tokio::spawn(rialto_web::serve_tcp(listener, Arc::new(node), sessions, shutdown.clone()));
    }
    tokio::signal::ctrl_c().await?;
    shutdown.cancel();
    Ok(())
}
