//! Writes the golden records: `cargo run -p rialto-protocol --example golden`.
//!
//! A difference in these files is a change of the format that other sites do not know of. The test `records` compares.

// An example writes files; the crate itself never does.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code)]
#[path = "../tests/cases/mod.rs"]
mod cases;

fn main() -> std::io::Result<()> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (name, envelope) in cases::golden() {
        std::fs::write(directory.join(format!("{name}.txt")), cases::golden_text(&envelope))?;
    }
    Ok(())
}
