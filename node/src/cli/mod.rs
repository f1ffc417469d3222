//! The command line: a file per command.
//!
//! Everything but `init`, `node`, `key` (`key rotate` apart), `policy check` and `test`, `decisions`, `store`, `doctor` and
//! `completions` asks the running node over its UNIX socket, so that a script, the web UI and this program can never disagree.

mod advisory;
mod channel;
mod completions;
mod decisions;
mod delegate;
mod deploy;
mod doctor;
mod endorse;
mod export;
mod fetch;
mod image;
mod init;
mod invite;
mod job;
mod key;
mod logs;
mod node;
mod output;
mod peers;
mod policy;
mod ps;
mod publish;
mod rates;
mod replay;
mod resume;
mod revoke;
mod rm;
mod search;
mod show;
mod sign;
mod status;
mod stop;
mod store;
mod suspend;
mod web;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use output::{Face, Outcome};
use rialto_web::api::ApiError;

use crate::client::Client;
use crate::dir::NodeDir;

/// What stands above the options that every command has.
const COMMON: &str = "Options of every command";

/// What stands below the list of commands.
const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  not found
  4  refused by policy
  5  the node is not running

Environment:
  RIALTO_DIR  the node's directory, where --dir does not say it
  RIALTO_LOG  what `rialto node` logs: debug, or info,rialto_node::net=trace
  NO_COLOR    no colours, if it is set
  SSH_AUTH_SOCK
              the ssh-agent that signs for --key agent:NAME, and for keys that it has
  RIALTO_PASSPHRASE_FILE
              a file whose first line is the passphrase of a key, where no terminal can be asked";

/// A peer-to-peer, federated marketplace for virtual appliances.
///
/// All commands but init, node, key, policy check, test and reference, decisions, store, doctor and completions ask the running node.
#[derive(Debug, Parser)]
#[command(name = "rialto", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// The node's directory [default: $RIALTO_DIR, or $XDG_STATE_HOME/rialto, or ~/.local/state/rialto]
    // Not by clap's `env`: a variable that is set and empty says nothing, and is no error.
    #[arg(long, global = true, value_name = "DIR", help_heading = COMMON)]
    dir: Option<PathBuf>,
    /// Print one JSON value on stdout; on failure the last line of stderr is {"error": {code, message, hint}}
    #[arg(long, global = true, help_heading = COMMON)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set up a node: its key, its settings and its policy
    Init(init::Arguments),
    /// Run the node, in the foreground
    Node,
    /// Show the node at a glance
    Status,
    /// Look for what is wrong or missing on this machine, and say what fixes it
    Doctor(doctor::Arguments),
    /// List the sites this node is connected to and those that it keeps away from, or forgive one
    Peers(peers::Arguments),
    /// Show how much may be sent and received, or change it until the node is restarted
    Rates(rates::Arguments),
    /// Say what another site needs to join the federation through this one
    Invite,
    /// Make and show keys
    #[command(subcommand)]
    Key(key::Command),
    /// Add, list, check and write images
    #[command(subcommand)]
    Image(image::Command),
    /// Mend the store's own files, while the node is stopped
    #[command(subcommand)]
    Store(store::Command),
    /// Publish a release that a TOML file describes
    Publish(publish::Arguments),
    /// List releases
    Search(search::Arguments),
    /// Show everything about one release
    Show(show::Arguments),
    /// Make names that move with new releases, and show what they are worth
    #[command(subcommand)]
    Channel(channel::Command),
    /// Let other keys move a publisher's channels or sign its releases, so that its own key can stay offline
    Delegate(delegate::Arguments),
    /// Say something of a release: that it was tested, for example
    Endorse(endorse::Arguments),
    /// Say that packages have a flaw, and list who says so
    #[command(subcommand)]
    Advisory(advisory::Command),
    /// Write out an in-toto statement that an endorsement carries, as it was brought here
    Export(export::Arguments),
    /// Withdraw a release, an endorsement, an advisory or a key
    Revoke(revoke::Arguments),
    /// Check the policy, and explain what it says of a release
    #[command(subcommand)]
    Policy(policy::Command),
    /// List what this site decided, and check that nobody changed it since
    Decisions(decisions::Arguments),
    /// Fetch an image, or the images of a release
    Fetch(fetch::Arguments),
    /// Boot a release that policy accepts
    Deploy(deploy::Arguments),
    /// List instances
    Ps,
    /// Save an instance's memory to disk, and end its process until it is resumed
    Suspend(suspend::Arguments),
    /// Let a suspended instance go on where it stood still
    Resume(resume::Arguments),
    /// Stop an instance
    Stop(stop::Arguments),
    /// Remove a stopped instance, and what its guest wrote
    Rm(rm::Arguments),
    /// Show what an instance wrote to its console
    Logs(logs::Arguments),
    /// Print a one-time link to the web UI
    Web,
    /// Print shell completions
    Completions(completions::Arguments),
}

/// The `rialto` program: reads the command line, does it, and says how it went.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return unparsed(&error, &arguments),
    };
    let face = Face::new(cli.json);
    match run(cli, &face) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            face.complain(&error);
            ExitCode::from(error.code.exit_code())
        }
    }
}

/// Help and version go to stdout and are no errors; the rest is wrong usage.
fn unparsed(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    // Nothing can be done about a terminal that is gone.
    let _ = error.print();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ExitCode::SUCCESS;
    }
    if arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json") {
        Face::new(true).complain(&usage_error(error));
    }
    ExitCode::from(2)
}

fn usage_error(error: &clap::Error) -> ApiError {
    let text = error.to_string();
    // The first paragraph: which arguments are missing stands below the line that says that some are.
    let lines: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let message = lines.join(" ");
    ApiError::usage(message.strip_prefix("error: ").unwrap_or(&message))
        .with_hint("rialto help, or rialto help COMMAND")
}

fn run(cli: Cli, face: &Face) -> Outcome {
    if let Command::Completions(arguments) = &cli.command {
        return completions::run(face, arguments);
    }
    let path = cli.dir.map_or_else(NodeDir::default_path, Ok)?;
    let dir = NodeDir::new(path)?;
    match cli.command {
        Command::Init(arguments) => init::run(face, &dir, arguments),
        Command::Node => node::run(dir),
        Command::Key(command) if !matches!(command, key::Command::Rotate(_)) => key::run(face, &dir, command),
        Command::Store(command) => store::run(face, &dir, command),
        Command::Policy(policy::Command::Check { file }) => policy::check(face, &dir, file),
        Command::Policy(policy::Command::Test { file, policy }) => policy::test(face, &dir, &file, policy),
        Command::Policy(policy::Command::Reference) => policy::reference(face),
        Command::Decisions(arguments) => decisions::run(face, &dir, arguments),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| ApiError::failed(format!("cannot start: {error}")))?;
            runtime.block_on(Box::pin(ask(command, face, &dir)))
        }
    }
}

/// The commands that the running node does.
async fn ask(command: Command, face: &Face, dir: &NodeDir) -> Outcome {
    if let Command::Doctor(arguments) = command {
        return doctor::run(face, dir, arguments).await;
    }
    let client = &Client::new(dir)?;
    match command {
        Command::Status => status::run(face, client).await,
        Command::Peers(arguments) => peers::run(face, client, arguments).await,
        Command::Rates(arguments) => rates::run(face, client, arguments).await,
        Command::Invite => invite::run(face, dir, client).await,
        Command::Image(command) => image::run(face, client, command).await,
        Command::Publish(arguments) => publish::run(face, dir, client, arguments).await,
        Command::Search(arguments) => search::run(face, client, arguments).await,
        Command::Show(arguments) => show::run(face, client, arguments).await,
        Command::Channel(command) => channel::run(face, dir, client, command).await,
        Command::Delegate(arguments) => delegate::run(face, dir, client, arguments).await,
        Command::Key(key::Command::Rotate(arguments)) => delegate::rotate(face, dir, client, arguments).await,
        Command::Endorse(arguments) => endorse::run(face, dir, client, arguments).await,
        Command::Advisory(command) => advisory::run(face, dir, client, command).await,
        Command::Export(arguments) => export::run(face, client, arguments).await,
        Command::Revoke(arguments) => revoke::run(face, dir, client, arguments).await,
        Command::Policy(policy::Command::Explain { release }) => policy::explain(face, client, &release).await,
        Command::Policy(policy::Command::Replay(arguments)) => replay::run(face, client, arguments).await,
        Command::Policy(policy::Command::Diff { files }) => policy::diff(face, client, &files).await,
        Command::Fetch(arguments) => fetch::run(face, client, arguments).await,
        Command::Deploy(arguments) => deploy::run(face, client, arguments).await,
        Command::Ps => ps::run(face, client).await,
        Command::Suspend(arguments) => suspend::run(face, client, arguments).await,
        Command::Resume(arguments) => resume::run(face, client, arguments).await,
        Command::Stop(arguments) => stop::run(face, client, arguments).await,
        Command::Rm(arguments) => rm::run(face, client, arguments).await,
        Command::Logs(arguments) => logs::run(face, client, arguments).await,
        Command::Web => web::run(face, client).await,
        // `run` has done these.
        Command::Doctor(_)
        | Command::Init(_)
        | Command::Node
        | Command::Key(_)
        | Command::Store(_)
        | Command::Policy(policy::Command::Check { .. } | policy::Command::Test { .. } | policy::Command::Reference)
        | Command::Decisions(_)
        | Command::Completions(_) => Ok(()),
    }
}

/// A path as the node sees it, whatever directory it runs in.
///
/// # Errors
/// The path is empty or not UTF-8, which JSON cannot carry.
fn absolute(path: &Path) -> Outcome<String> {
    let absolute = std::path::absolute(path)
        .map_err(|error| ApiError::usage(format!("'{}' is not a path: {error}", path.display())))?;
    absolute
        .into_os_string()
        .into_string()
        .map_err(|path| ApiError::usage(format!("{} is not UTF-8; rename it", PathBuf::from(path).display())))
}

/// As [`absolute`], for a file that must be there: what is missing is said before the node is asked.
///
/// # Errors
/// No such file, or not a path that JSON can carry.
fn existing(path: &Path) -> Outcome<String> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(ApiError::usage(format!("{} is a directory, not a file", path.display()))),
        Ok(_) => absolute(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(ApiError::not_found(format!("there is no file {}", path.display())))
        }
        Err(error) => Err(ApiError::failed(format!("cannot read {}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_scripts_rely_on_is_read() {
        for line in [
            "rialto --dir D init --name N --federation f --listen /ip4/127.0.0.1/tcp/0 --listen /ip4/127.0.0.1/udp/0/quic-v1 \
             --announce /dns4/x/tcp/1 --bootstrap /ip4/1.2.3.4/tcp/1 --web 127.0.0.1:0 --serve all",
            "rialto --dir D node",
            "rialto --dir D status --json",
            "rialto --dir D rates --upload 10MB/s --per-peer unlimited --json",
            "rialto --dir D peers --json",
            "rialto --dir D peers bans --json",
            "rialto --dir D peers lift 12D3KooWX --json",
            "rialto --dir D invite --json",
            "rialto --dir D key new name --json",
            "rialto --dir D key new name --passphrase",
            "rialto --dir D endorse RELEASE --key agent:me@desk",
            "rialto --dir D endorse RELEASE --key /home/me/.ssh/id_ed25519.pub",
            "rialto --dir D image add FILE --json",
            "rialto --dir D fetch RELEASE --held --json",
            "rialto --dir D image get bafy -o FILE",
            "rialto --dir D publish FILE.toml --key name --json",
            "rialto --dir D endorse RELEASE --key name --type https://example.org/x --body FILE --json",
            "rialto --dir D endorse RELEASE --key name --dsse FILE --json",
            "rialto --dir D export RECORD -o FILE --json",
            "rialto --dir D revoke ID --key name --reason TEXT --json",
            "rialto --dir D advisory publish FILE.toml --key name --json",
            "rialto --dir D advisory publish --id DSA-1 --severity high --ecosystem debian-12 --package openssl --fixed 3.0.2-1 \
             --summary TEXT --key name",
            "rialto --dir D advisory ls --strangers --json",
            "rialto --dir D advisory show openssl --json",
            "rialto --dir D channel set cern/batch stable RELEASE --key name --expires 7d --json",
            "rialto --dir D channel set cern/batch stable RELEASE --key one --key other",
            "rialto --dir D channel set cern/batch stable RELEASE --key one --propose",
            "rialto --dir D channel cosign cern/batch:stable --key other --renewals --json",
            "rialto --dir D channel cosign cern/batch:stable --stop",
            "rialto --dir D channel ls cern/batch --json",
            "rialto --dir D channel show cern/batch:stable --json",
            "rialto --dir D delegate online --key name --names batch-* --names web --threshold 1 --expires 90d --json",
            "rialto --dir D delegate online --key name --role release --json",
            "rialto --dir D publish FILE.toml --key online --key other --publisher cern --json",
            "rialto --dir D key rotate online next --key name --json",
            "rialto --dir D doctor --accept-clock",
            "rialto --dir D policy check FILE",
            "rialto --dir D policy check",
            "rialto --dir D policy reference",
            "rialto --dir D policy test EXPECTATIONS.toml --json",
            "rialto policy test EXPECTATIONS.toml --policy FILE.toml",
            "rialto --dir D decisions --limit 7 --json",
            "rialto --dir D policy replay --decision 3 --json",
            "rialto --dir D policy replay --at 2026-03-01T12:00:00Z --json",
            "rialto --dir D policy replay --at 1772366400 cern/a@1 cern/b:stable --policy FILE",
            "rialto --dir D policy diff NEW.toml",
            "rialto --dir D policy diff OLD.toml NEW.toml --json",
            "rialto --dir D decisions verify --head 0000000000000000000000000000000000000000000000000000000000000000",
            "rialto --dir D policy explain RELEASE --json",
            "rialto --dir D deploy RELEASE --set a=1 --set b=x=y --publish 8080:80 --publish 0:22 --json",
            "rialto --dir D store rebuild --json",
            "rialto --dir D ps --json",
            "rialto --dir D suspend I --json",
            "rialto --dir D resume I --json",
            "rialto --dir D stop I --json",
            "rialto --dir D rm I --json",
            "rialto --dir D logs I -f",
            "rialto completions bash",
        ] {
            let parsed = Cli::try_parse_from(line.split_whitespace());
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn wrong_usage_is_told_in_one_line() {
        let error = Cli::try_parse_from(["rialto", "fetch", "--json"]).unwrap_err();
        let told = usage_error(&error);
        assert_eq!(told.code.exit_code(), 2);
        assert_eq!(told.message, "the following required arguments were not provided: <IMAGE|RELEASE>");
    }
}
