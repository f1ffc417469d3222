//! The shape of the house, held by tests: who may depend on whom, what the pure crate may not touch, and which folders
//! there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{CargoOpt, DependencyKind, MetadataCommand};

/// Each crate of the workspace, and the siblings that it may depend on.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("rialto-protocol", &[]),
    ("rialto-web", &["rialto-protocol"]),
    ("rialto-node", &["rialto-protocol", "rialto-web"]),
    ("rialto-testnet", &["rialto-protocol", "rialto-node"]),
    ("rialto-tests", &["rialto-protocol", "rialto-web", "rialto-node", "rialto-testnet"]),
];

/// What would give the pure crate a clock, a socket or a disk of its own.
const NOT_IN_PROTOCOL: &[&str] = &["tokio", "libp2p", "libp2p-stream", "sled", "warp", "getrandom", "rustix"];

/// What the sources of the pure crate may not say. Order must be deterministic, so no hashed collections either.
const FORBIDDEN_WORDS: &[&str] =
    &["std::fs", "std::net", "std::thread", "Instant::now", "SystemTime", "HashMap", "HashSet"];
/// The modules of `std` in that list, for imports in braces.
const FORBIDDEN_MODULES: &[&str] = &["fs", "net", "thread"];

/// Folders at the top, beside those of tools (`.git`, `.config`, an editor's).
const FOLDERS: &[&str] = &["protocol", "node", "web", "tests", "testnet", "target"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent").to_owned()
}

fn metadata() -> cargo_metadata::Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .features(CargoOpt::AllFeatures)
        .no_deps()
        .exec()
        .expect("cargo metadata")
}

#[test]
fn crates_depend_on_each_other_in_one_direction() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_DEPEND_ON.iter().copied().collect();
    let metadata = metadata();
    let members: BTreeSet<&str> = metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    assert_eq!(members, allowed.keys().copied().collect(), "the crates of the workspace");
    for package in metadata.workspace_packages() {
        let siblings = package.dependencies.iter().map(|dependency| dependency.name.as_str());
        for sibling in siblings.filter(|name| members.contains(name)) {
            let may = allowed[package.name.as_str()];
            assert!(may.contains(&sibling), "{} depends on {sibling}; it may depend on {may:?} only", package.name);
        }
    }
}

#[test]
fn the_protocol_has_no_runtime_network_or_database_in_its_manifest() {
    let metadata = metadata();
    let packages = metadata.workspace_packages();
    let protocol = packages.iter().find(|package| package.name.as_str() == "rialto-protocol").expect("rialto-protocol");
    let dependencies = protocol.dependencies.iter().filter(|found| found.kind != DependencyKind::Development);
    let forbidden: Vec<&str> =
        dependencies.map(|found| found.name.as_str()).filter(|name| NOT_IN_PROTOCOL.contains(name)).collect();
    assert_eq!(forbidden, [""; 0]);
}

#[test]
fn the_protocol_has_no_clock_no_sockets_no_disk_and_no_threads() {
    let sources = sources_below(&root().join("protocol/src"));
    assert!(sources.len() > 10, "the scan found the sources");
    let offences: Vec<String> = sources.iter().flat_map(|(path, text)| offences_in(path, text)).collect();
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn the_scan_of_the_protocol_finds_what_it_looks_for() {
    let bad =
        "use std::fs::File;\nuse std::{io, net};\nlet now = std::time::SystemTime::now();\nlet m: HashMap<u8, u8>;";
    assert_eq!(offences_in(Path::new("x.rs"), bad).len(), 4);
    let good = "// a HashMap would have another order each time\nuse std::{fmt, io};\n/// not std::fs\nlet net = 1;";
    assert_eq!(offences_in(Path::new("x.rs"), good), Vec::<String>::new());
}

#[test]
fn one_file_knows_the_cbor_library() {
    let sources = ["protocol", "node", "web", "testnet", "tests"]
        .iter()
        .flat_map(|folder| sources_below(&root().join(folder)))
        .filter(|(_, text)| {
            code_lines(text).any(|(_, line)| line.contains("serde_cbor::") || line.contains("use serde_cbor"))
        });
    let users: Vec<PathBuf> = sources.map(|(path, _)| path).collect();
    let this_file = Path::new(file!()).file_name().map(|name| root().join("tests/tests").join(name));
    let users: Vec<PathBuf> = users.into_iter().filter(|path| Some(path) != this_file.as_ref()).collect();
    assert_eq!(users, [root().join("protocol/src/codec.rs")]);
}

#[test]
fn there_are_no_other_folders_at_the_top() {
    let entries = fs::read_dir(root()).expect("the workspace").map(|entry| entry.expect("an entry"));
    let folders = entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().into_string());
    let folders: Vec<String> = folders.map(|name| name.expect("a name in UTF-8")).collect();
    let strangers: Vec<&String> =
        folders.iter().filter(|name| !name.starts_with('.') && !FOLDERS.contains(&name.as_str())).collect();
    assert!(strangers.is_empty(), "{strangers:?} belong into one of {FOLDERS:?}");
}

/// Every Rust source below a folder, build output left out.
fn sources_below(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut sources = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the workspace") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                sources.push((path, text));
            }
        }
    }
    sources.sort();
    sources
}

/// Lines with their numbers, comments cut off.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
}

fn offences_in(path: &Path, text: &str) -> Vec<String> {
    let is_offence = |line: &str| {
        FORBIDDEN_WORDS.iter().any(|word| line.contains(word))
            || line.split_once("std::{").is_some_and(|(_, names)| {
                let mut names = names.split(|c: char| !c.is_alphanumeric() && c != '_');
                names.any(|name| FORBIDDEN_MODULES.contains(&name))
            })
    };
    code_lines(text)
        .filter(|(_, line)| is_offence(line))
        .map(|(number, line)| format!("{}:{number}: {}", path.display(), line.trim()))
        .collect()
}
