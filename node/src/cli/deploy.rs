//! `rialto deploy RELEASE [--set K=V]… [--publish HOST:GUEST]…`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use rialto_web::api::{ApiError, DeployRequest, Deployed, PortForward};

use super::output::{Cell, Face, Outcome, Tone};
use super::{existing, job};
use crate::client::Client;
use crate::dir::read_bounded;

/// Longest value that a file may hold, in bytes: the schema's own bounds are tighter.
const MAX_VALUE_BYTES: u64 = 64 * 1024;

/// What to deploy, and how it is finished.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A record id, a unique beginning of at least 12 characters, PUBLISHER/NAME@VERSION or PUBLISHER/NAME:CHANNEL
    release: String,
    /// The value of a context input (`rialto show` lists them)
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// The value of a context input, from a file: for secrets, which would show in the list of processes
    #[arg(long, value_name = "NAME=FILE", value_parser = parse_setting)]
    set_file: Vec<(String, String)>,
    /// A port on this machine's loopback that leads to one of the guest; 0 picks a free one
    #[arg(long, value_name = "HOST:GUEST", value_parser = parse_ports)]
    publish: Vec<PortForward>,
}

pub(super) async fn run(face: &Face, client: &Client, arguments: Arguments) -> Outcome {
    let request = DeployRequest {
        release: arguments.release,
        set: settings(arguments.set, arguments.set_file)?,
        publish: arguments.publish,
    };
    let started = client.post("deploy", &request).await?;
    let result =
        job::follow(face, client, started, "what was fetched stays; rialto ps shows whether an instance came of it")
            .await?;
    face.print_result(&result, |page, deployed: Deployed| {
        page.fields([
            ("instance", Cell::new(&deployed.instance, Tone::Strong)),
            ("state", (&deployed.state).into()),
            ("ports", ports(&deployed.ports).into()),
        ]);
        page.line(Cell::new(format!("rialto logs -f {} shows its console", deployed.instance), Tone::Faint));
    })
}

/// `127.0.0.1:8080 → 80, …`
pub(super) fn ports(ports: &[PortForward]) -> String {
    let shown: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{} → {}", port.host, port.guest)).collect();
    shown.join(", ")
}

fn settings(values: Vec<(String, String)>, files: Vec<(String, String)>) -> Outcome<BTreeMap<String, String>> {
    let mut set = BTreeMap::new();
    let files = files.into_iter().map(|(name, file)| read_value(&PathBuf::from(file)).map(|value| (name, value)));
    for setting in values.into_iter().map(Ok).chain(files) {
        let (name, value) = setting?;
        if set.contains_key(&name) {
            return Err(ApiError::usage(format!("'{name}' is set twice; give it one value")));
        }
        set.insert(name, value);
    }
    Ok(set)
}

/// The text of a file, without the line feed that editors put at its end.
fn read_value(path: &Path) -> Outcome<String> {
    existing(path)?;
    let text = read_bounded(path, MAX_VALUE_BYTES)
        .map_err(|error| ApiError::failed(format!("cannot read {}: {error}", path.display())))?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".into()),
    }
}

fn parse_ports(text: &str) -> Result<PortForward, String> {
    let parsed = text.split_once(':').and_then(|(host, guest)| Some((host.parse().ok()?, guest.parse().ok()?)));
    match parsed {
        Some((host, guest)) if guest > 0 => Ok(PortForward { host, guest }),
        _ => Err("write HOST:GUEST, two port numbers, for example 8080:80".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_two_numbers() {
        assert_eq!(parse_ports("8080:80"), Ok(PortForward { host: 8080, guest: 80 }));
        assert_eq!(parse_ports("0:22"), Ok(PortForward { host: 0, guest: 22 }));
        for text in ["80", "80:", ":80", "80:0", "65536:80", "127.0.0.1:80:80", "a:b"] {
            assert!(parse_ports(text).is_err(), "{text}");
        }
    }

    #[test]
    fn settings_keep_their_equal_signs_and_are_given_once() {
        assert_eq!(parse_setting("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(parse_setting("a="), Ok(("a".into(), String::new())));
        assert!(parse_setting("=b").is_err());
        assert!(parse_setting("a").is_err());
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("secret");
        std::fs::write(&file, "two words\n").unwrap();
        let from_file = || vec![("b".to_owned(), file.to_str().unwrap().to_owned())];
        let set = settings(vec![("a".into(), "1".into())], from_file()).unwrap();
        assert_eq!(set, BTreeMap::from([("a".into(), "1".into()), ("b".into(), "two words".into())]));
        assert_eq!(settings(vec![("b".into(), "1".into())], from_file()).unwrap_err().code.exit_code(), 2);
        assert_eq!(settings(Vec::new(), vec![("a".into(), "/nonexistent".into())]).unwrap_err().code.exit_code(), 3);
    }
}
