//! The `rialto-testnet` command.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use rialto_testnet::appliance::{self, Appliance};

#[derive(Parser)]
#[command(name = "rialto-testnet", version, about = "Many Rialto sites at once.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds the small appliance of the demo and the tests, where it is not built already
    Appliance {
        /// Where to [default: $RIALTO_APPLIANCE_DIR, else target/appliance]
        #[arg(long, value_name = "DIRECTORY")]
        out: Option<PathBuf>,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Appliance { out } => {
            let appliance = Appliance::built_in(&out.unwrap_or_else(appliance::default_directory))?;
            #[allow(clippy::print_stdout)]
            {
                println!("{}", appliance.directory().display());
            }
            Ok(())
        }
    }
}
