//! Runs a target over its seeds and its kept corpus, without a fuzzer: for the tests, which include this file.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::{fs, panic};

/// Where the kept corpora lie, seen from the folder of a crate of the workspace.
pub fn corpora(manifest_folder: &str) -> PathBuf {
    Path::new(manifest_folder).join("../tests/fuzz/corpus")
}

/// What is kept for a target: each file, and its bytes.
pub fn kept(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}

/// Runs `target` over all of it.
pub fn replay(folder: &Path, seeds: &[Vec<u8>], target: fn(&[u8])) {
    let kept = kept(folder);
    assert!(!kept.is_empty() && !seeds.is_empty(), "{} has no corpus, or no seeds", folder.display());
    for (path, bytes) in kept {
        run(target, &bytes, &path.display());
    }
    for (n, bytes) in seeds.iter().enumerate() {
        run(target, bytes, &format_args!("seed {n} of {}", folder.display()));
    }
}

/// A panic names what does not hold, and this the input.
fn run(target: fn(&[u8]), bytes: &[u8], input: &dyn Display) {
    assert!(panic::catch_unwind(|| target(bytes)).is_ok(), "what is said above does not hold of {input}");
}
