//! `rialto key`: OpenSSH ed25519 keys of this node. They need no running node.

use clap::Subcommand;
use rialto_protocol::bounded::Name;
use rialto_web::api::ApiError;
use serde_json::{Value, json};

use super::delegate::RotateArguments;
use super::output::{Cell, Face, Outcome, Tone};
use super::sign::passphrase::Source;
use crate::dir::NodeDir;
use crate::keys::{self, Keys, SITE_KEY};

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key pair; none is ever overwritten
    New {
        /// What to call it
        name: Name,
        /// Protect it with a passphrase, which is asked for: the key then signs for who knows it, not for the node alone
        #[arg(long)]
        passphrase: bool,
    },
    /// List the keys
    List,
    /// Show a key's public half, for the policy files of others
    Show {
        /// Its name
        #[arg(default_value = SITE_KEY)]
        name: Name,
    },
    /// Put a new key in the place of an old one that moves channels; asks the running node
    Rotate(RotateArguments),
}

pub(super) fn run(face: &Face, dir: &NodeDir, command: Command) -> Outcome {
    dir.check_format()?;
    let keys = Keys::of(dir);
    match command {
        Command::New { name, passphrase } => {
            let passphrase = passphrase.then(|| new_passphrase(&keys, &name)).transpose()?;
            let public_key = keys::to_openssh(&keys.create_with(&name, passphrase.as_deref())?, &name)?;
            face.print(&json!({"name": name, "public_key": public_key}), |page| page.line(public_key.as_str()))
        }
        Command::Show { name } => show(face, &keys, &name),
        Command::List => list(face, &keys),
        // The running node does this.
        Command::Rotate(_) => Ok(()),
    }
}

fn new_passphrase(keys: &Keys, name: &Name) -> Outcome<String> {
    if **name == *SITE_KEY {
        return Err(ApiError::usage("the site key cannot have a passphrase: the node needs it whenever it starts"));
    }
    // Before anyone types for nothing.
    keys.check_new(name)?;
    Source::open()?.ask_new(&format!("key '{name}'"))
}

fn show(face: &Face, keys: &Keys, name: &Name) -> Outcome {
    let key = keys.public(name)?;
    let public_key = keys::to_openssh(&key, name)?;
    let peer_id = keys::peer_id(&key)?.to_string();
    let value = json!({"name": name, "public_key": public_key, "fingerprint": key.fingerprint(), "peer_id": peer_id});
    face.print(&value, |page| page.line(public_key.as_str()))
}

fn list(face: &Face, keys: &Keys) -> Outcome {
    let mut values: Vec<Value> = Vec::new();
    let mut rows: Vec<[Cell; 2]> = Vec::new();
    for key in keys.list()? {
        match &key.public_key {
            Ok(public) => {
                let line = keys::to_openssh(public, &key.name)?;
                values.push(json!({"name": key.name, "public_key": line}));
                rows.push([(&*key.name).into(), line.into()]);
            }
            Err(error) => {
                values.push(json!({"name": key.name, "public_key": null, "error": error}));
                rows.push([(&*key.name).into(), Cell::new(error, Tone::Bad)]);
            }
        }
    }
    face.print(&values, |page| page.table(["NAME", "PUBLIC KEY"], rows))
}
