//! The `rialto-testnet` command.

fn main() {}
