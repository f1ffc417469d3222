//! The `rialto` command.

fn main() -> std::process::ExitCode {
    rialto_node::cli::main()
}
