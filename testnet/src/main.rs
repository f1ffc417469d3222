//! The `rialto-testnet` command.

use anyhow::Result;
use clap::{Parser, Subcommand};
use rialto_testnet::sim;

/// Many Rialto sites at once.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Simulates sites in virtual time and checks what must hold among them.
    Sim(sim::command::SimArguments),
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Sim(arguments) => Ok(sim::command::run(&arguments)?),
    }
}
