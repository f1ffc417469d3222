//! The `rialto` command.

/// Many records and chunks come and go in the life of a node, from all threads.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    rialto_node::cli::main()
}
