//! The fuzz targets of the policy file and of expectations of it over their seeds and kept corpus, and what is kept of all targets. The others' replay is a test
//! of `protocol/`.

use std::fs;
use std::path::Path;

#[allow(unreachable_pub)]
#[path = "../fuzz/src/expectations.rs"]
mod expectations;
#[allow(unreachable_pub)]
#[path = "../fuzz/src/policy.rs"]
mod policy;
#[allow(unreachable_pub)]
#[path = "../fuzz/src/replay.rs"]
mod replay;
#[allow(dead_code, unreachable_pub)]
#[path = "../fuzz/src/seeds.rs"]
mod seeds;
#[allow(dead_code, unreachable_pub)]
#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

/// The corpora together are at most this large: they are for seconds, not for hours.
const MAX_CORPORA_BYTES: usize = 300 * 1024;

#[test]
fn what_the_fuzzer_found_interesting_in_policies_holds() {
    let corpora = replay::corpora(env!("CARGO_MANIFEST_DIR"));
    replay::replay(&corpora.join("policy"), &seeds::all()["policy"], policy::policy);
}

#[test]
fn what_the_fuzzer_found_interesting_in_expectations_holds() {
    let corpora = replay::corpora(env!("CARGO_MANIFEST_DIR"));
    replay::replay(&corpora.join("expectations"), &seeds::all()["expectations"], expectations::expectations);
}

fn names() -> Vec<&'static str> {
    targets::TARGETS.into_iter().map(|(name, _)| name).chain(["policy", "expectations"]).collect()
}

/// A corpus that was never pruned, or of a target that is gone, is noise.
#[test]
fn the_kept_corpora_are_small_and_of_targets_that_there_are() {
    let corpora = replay::corpora(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(&corpora).expect("the corpora") {
        let name = entry.expect("an entry").file_name();
        assert!(names().iter().any(|known| name == *known), "{} is the corpus of no target", name.display());
    }
    let kept = names().into_iter().flat_map(|name| replay::kept(&corpora.join(name)));
    let bytes: usize = kept.map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes <= MAX_CORPORA_BYTES, "{bytes} bytes: `tests/fuzz/run --keep` prunes");
}

#[test]
fn each_target_has_a_program_that_fuzzes_it() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("its manifest");
    for name in names() {
        let path = format!("fuzz_targets/{name}.rs");
        assert!(manifest.contains(&format!("path = \"{path}\"")) && fuzz.join(&path).is_file(), "{path}");
    }
    assert_eq!(manifest.matches("path = \"fuzz_targets/").count(), names().len());
}
