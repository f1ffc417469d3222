//! The fuzz targets over their seeds and kept corpora, in seconds. `tests/fuzz/run` is what makes it hours.

#[path = "../../tests/fuzz/src/replay.rs"]
#[allow(clippy::disallowed_methods, unreachable_pub, reason = "a test reads files; the crate itself never does")]
mod replay;
#[path = "../../tests/fuzz/src/seeds.rs"]
#[allow(dead_code, unreachable_pub)]
mod seeds;
#[path = "../../tests/fuzz/src/targets/mod.rs"]
#[allow(unreachable_pub)]
mod targets;

#[test]
fn what_the_fuzzer_found_interesting_holds() {
    let corpora = replay::corpora(env!("CARGO_MANIFEST_DIR"));
    let seeds = seeds::all();
    for (name, target) in targets::TARGETS {
        let seeds = seeds.get(name).unwrap_or_else(|| panic!("{name} has no seeds"));
        replay::replay(&corpora.join(name), seeds, target);
    }
}
