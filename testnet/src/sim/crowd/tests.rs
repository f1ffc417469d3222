//! Crowds of many shapes, with bounds on what the seed sends and how long it takes.

use super::*;

const MIB: u64 = 1 << 20;

#[test]
fn eight_fetchers_on_a_lan_cost_the_seed_little_more_than_one_copy() {
    let summary = run(&Crowd::on_a_lan(1, 8, 64 * MIB)).unwrap();
    assert!(summary.seed_copies <= 1.1, "{summary}");
    assert!(summary.slowest_seconds <= 1.4 * summary.ideal_seconds, "{summary}");
    assert!(summary.waste_per_mille <= 10, "{summary}");
}

#[test]
fn a_small_image_is_passed_on_too() {
    for fetchers in [2, 8, 32] {
        let lan = run(&Crowd::on_a_lan(1, fetchers, MIB)).unwrap();
        assert!(lan.seed_copies <= 1.5, "{lan}");
        assert!(lan.slowest_seconds <= 4.0, "{lan}");
        let internet = run(&Crowd::on_the_internet(1, fetchers, MIB)).unwrap();
        assert!(internet.seed_copies <= 3.0, "{internet}");
        assert!(internet.slowest_seconds <= 6.0, "{internet}");
    }
}

#[test]
fn a_hundred_on_the_internet() {
    // The slowest of them need 1.7 seconds for it even alone.
    let summary = run(&Crowd::on_the_internet(1, 100, 2 * MIB)).unwrap();
    assert!(summary.seed_copies <= 8.0, "{summary}");
    assert!(summary.slowest_seconds <= 15.0, "{summary}");
    assert_eq!(summary, run(&Crowd::on_the_internet(1, 100, 2 * MIB)).unwrap(), "same seed, same course");
}

#[test]
fn nine_of_ten_holders_that_lie_stall_or_trickle_cost_little_time() {
    for (liars, stallers, tricklers) in [(3, 3, 3), (9, 0, 0), (0, 9, 0), (0, 0, 9)] {
        let alone = Crowd::on_a_lan(1, 1, 16 * MIB);
        let hostile = run(&Crowd { liars, stallers, tricklers, ..alone.clone() }).unwrap();
        let alone = run(&alone).unwrap();
        assert!(hostile.slowest_seconds <= 1.5 * alone.slowest_seconds, "{alone}\n{hostile}");
        assert!(hostile.waste_per_mille <= 100, "{hostile}");
        assert_eq!(hostile.lies, liars as u64, "each is found out at its first lie: {hostile}");
    }
}
