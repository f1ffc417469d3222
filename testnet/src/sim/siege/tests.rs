//! Ten federations of a hundred sites hold; and whatever is planted in them is found.

use super::*;

/// A federation with one signer for each story: what the tests have time for. By command, there is more of everything.
fn small(seed: u64, sites: usize) -> Siege {
    Siege { signers: 6, opinions: 24, flood: 8, partitions: 1, deadline_seconds: 400, ..Siege::new(seed, sites) }
}

fn hold(seeds: std::ops::Range<u64>) {
    let (mut rollbacks, mut doubts) = (0, 0);
    for seed in seeds {
        let summary = run(&small(seed, 100)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        // Each of these happened.
        assert!(summary.hostile == 20 && summary.refused > 0, "seed {seed}: forgers forged: {summary}");
        assert!(summary.evicted > 0, "seed {seed}: floods were evicted: {summary}");
        assert!(summary.superseded > 0 && summary.caught_up > 0, "seed {seed}: {summary}");
        assert!(summary.crashes > 0 && summary.bad_clocks > 5, "seed {seed}: {summary}");
        assert!(summary.accepted > 100 && summary.accepted < summary.verdicts, "seed {seed}: {summary}");
        assert!(summary.judges > 60, "seed {seed}: most sites are connected: {summary}");
        rollbacks += summary.rollbacks_refused;
        doubts += summary.doubts;
    }
    assert!(rollbacks > 0, "no floor was ever needed");
    assert!(doubts > 0, "no clock was ever in doubt");
}

#[test]
fn verdicts_are_true_whatever_the_seed() {
    hold(0..5);
}

#[test]
fn verdicts_are_true_whatever_the_other_seed() {
    hold(5..10);
}

#[test]
fn same_seed_same_trace() {
    let once = run(&small(3, 30)).unwrap();
    assert_eq!(once, run(&small(3, 30)).unwrap());
    assert_ne!(once.trace, run(&small(4, 30)).unwrap().trace);
}

/// What a weakness comes to within a few seeds.
fn found(weakness: Weakness) -> SiegeError {
    let found = (0..6).find_map(|seed| run(&Siege { weakness, deadline_seconds: 200, ..small(seed, 50) }).err());
    found.unwrap_or_else(|| panic!("{weakness:?} was never found"))
}

#[test]
fn a_site_that_forgets_its_floors_is_found() {
    assert!(matches!(found(Weakness::ForgetsFloors), SiegeError::RolledBack { .. }));
}

#[test]
fn a_site_that_trusts_the_forger_is_found() {
    assert!(matches!(found(Weakness::TrustsForger), SiegeError::WrongVerdict { .. }));
}

#[test]
fn a_site_that_believes_its_clock_is_found() {
    assert!(matches!(found(Weakness::BelievesClock), SiegeError::Misled { .. }));
}

#[test]
fn a_site_that_drops_revocations_is_found() {
    assert!(matches!(found(Weakness::DropsRevocations), SiegeError::WrongVerdict { .. }));
}
