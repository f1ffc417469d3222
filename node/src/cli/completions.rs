//! `rialto completions SHELL`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;
use super::output::{Face, Outcome};

/// What to print completions for.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The shell, for example: rialto completions bash > ~/.local/share/bash-completion/completions/rialto
    shell: Shell,
}

pub(super) fn run(face: &Face, arguments: &Arguments) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "rialto", &mut script);
    face.write_bytes(&script)
}
