//! Several federations from fixed seeds: everything holds, the scenarios are no walk in the park, and they repeat.

use super::*;

fn small(seed: u64) -> Scenario {
    Scenario {
        sites: 20,
        records: 90,
        flood: 120,
        images: 3,
        crowd: 4,
        crowd_image_bytes: 4_000_000,
        ..Scenario::new(seed)
    }
}

#[test]
fn everything_holds_whatever_the_seed() {
    let (mut stalled, mut contradictions) = (0, 0);
    for seed in 0..6 {
        let summary = run(&small(seed)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        // Each of these happened.
        assert!(summary.refused > 0, "seed {seed}: liars lied: {summary}");
        assert!(summary.lost > 0 && summary.caught_up > 0, "seed {seed}: catch-up was needed: {summary}");
        assert!(summary.evicted > 0, "seed {seed}: the flood was evicted: {summary}");
        assert!(summary.verdicts > 0 && summary.accepted > 0, "seed {seed}: releases were judged: {summary}");
        assert!(summary.fetched > 4, "seed {seed}: what was accepted was fetched: {summary}");
        assert!(summary.chunks_refused > 0, "seed {seed}: holders lied: {summary}");
        assert!(summary.streams_broken > 0, "seed {seed}: streams failed: {summary}");
        assert!(summary.superseded > 0, "seed {seed}: channels moved on: {summary}");
        stalled += summary.stalled;
        contradictions += summary.contradictions;
        assert!(summary.seed_percent < 600, "seed {seed}: a small image cost its seed many copies: {summary}");
        assert!(summary.crowd_percent >= 100, "seed {seed}: the crowd had nobody else to begin with: {summary}");
    }
    // Whether anybody happens to ask one who stalls depends on the seed.
    assert!(stalled > 0, "no download ever met a holder that stalls");
    assert!(contradictions > 0, "no signer ever contradicted itself");
}

#[test]
fn same_seed_same_trace() {
    let once = run(&small(7)).unwrap();
    assert_eq!(once, run(&small(7)).unwrap());
    assert_ne!(once.trace, run(&small(8)).unwrap().trace);
}

#[test]
fn three_sites_are_enough() {
    let scenario =
        Scenario { sites: 3, records: 5, flood: 0, one_liar_in: 0, one_staller_in: 0, crowd: 0, ..Scenario::new(1) };
    assert_eq!(run(&scenario).unwrap().liars, 0);
}

#[test]
fn catch_up_alone_suffices() {
    // Every gossiped message is lost.
    let scenario = Scenario { loss_per_mille: 1_000, one_liar_in: 0, partitions: 0, crowd: 0, ..small(3) };
    let summary = run(&scenario).unwrap();
    assert_eq!(summary.gossiped, summary.lost);
}

#[test]
fn a_crowd_gets_an_image_over_streams_that_keep_breaking() {
    let scenario = Scenario { records: 1, flood: 0, images: 0, breaks_per_million: 50_000, ..small(5) };
    let summary = run(&scenario).unwrap();
    assert_eq!(summary.fetched, 4);
    assert!(summary.streams_broken > 4, "{summary}");
}
