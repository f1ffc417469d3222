//! The `rialto-testnet` command.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rialto_testnet::appliance::{self, Appliance};
use rialto_testnet::{bench, demo, pictures, sim, wait};
use tokio::signal::unix::{SignalKind, signal};

/// That of the node, of which this measures parts.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The exit code of a program that Ctrl-C ended, as shells have it.
const INTERRUPTED: u8 = 130;

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
    /// Shows the whole way of an appliance: three sites, from publishing to a guest that answers
    Demo {
        /// End once everything has been shown; the last line is `demo: ready in SECONDS s`
        #[arg(long)]
        once: bool,
        /// Leave the sites' directories and logs behind
        #[arg(long)]
        keep: bool,
        /// The rialto binary [default: the one beside this program]
        #[arg(long, value_name = "FILE", env = "RIALTO_BIN")]
        bin: Option<PathBuf>,
    },
    /// Takes the pictures of the web interface that the README shows, with a real browser
    Pictures {
        /// Where to
        #[arg(long, value_name = "DIRECTORY", default_value = "web/pictures")]
        out: PathBuf,
    },
    /// Measures real nodes on this machine
    Bench(bench::BenchArguments),
    /// One end of the bare stream that `bench` compares with
    #[command(subcommand, hide = true)]
    Raw(bench::raw::RawArguments),
    /// What the benchmark `index` does in processes of its own
    #[command(subcommand, hide = true)]
    IndexStep(bench::index::Step),
    /// What the benchmark `catalog` does in processes of its own
    #[command(subcommand, hide = true)]
    CatalogStep(bench::catalog::Step),
    /// Simulates sites in virtual time and checks what must hold among them
    Sim(sim::command::SimArguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Appliance { out } => build_appliance(out),
        Command::Demo { once, keep, bin } => run_demo(&demo::Options { once, keep, binary: bin }),
        Command::Pictures { out } => take_pictures(&out),
        Command::Bench(arguments) => run_bench(&arguments),
        Command::Raw(arguments) => bench::raw::run(&arguments).map_err(Into::into),
        Command::IndexStep(step) => run_index_step(&step),
        Command::CatalogStep(step) => run_catalog_step(&step),
        Command::Sim(arguments) => sim::command::run(&arguments).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if wait::is_interrupted() => ExitCode::from(INTERRUPTED),
        Err(error) => {
            // Nothing is left to be done where even standard error is closed.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn build_appliance(out: Option<PathBuf>) -> anyhow::Result<()> {
    let appliance = Appliance::built_in(&out.unwrap_or_else(appliance::default_directory))?;
    writeln!(io::stdout(), "{}", appliance.directory().display())?;
    Ok(())
}

fn run_index_step(step: &bench::index::Step) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{}", bench::index::run(step)?)?;
    Ok(())
}

fn run_catalog_step(step: &bench::catalog::Step) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{}", bench::catalog::run(step)?)?;
    Ok(())
}

fn take_pictures(out: &Path) -> anyhow::Result<()> {
    listen_for_signals()?;
    Ok(pictures::take(out)?)
}

fn run_demo(options: &demo::Options) -> anyhow::Result<()> {
    listen_for_signals()?;
    Ok(demo::run(options)?)
}

fn run_bench(arguments: &bench::BenchArguments) -> anyhow::Result<()> {
    listen_for_signals()?;
    Ok(bench::run(arguments)?)
}

/// From now on Ctrl-C, SIGTERM and a closed terminal make every wait give up, so that what was started is ended in order.
fn listen_for_signals() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let (mut interrupt, mut terminate, mut hang_up) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    drop(guard);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        wait::interrupt();
    });
    Ok(())
}
