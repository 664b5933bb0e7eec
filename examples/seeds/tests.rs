//! That the checks find what is wrong, and that seeds which found something once find nothing any more.

use super::*;

/// What the first broken seed of 200 broke.
fn found(fault: &str) -> String {
    let sabotage = Sabotage::named(fault);
    let worlds = (1..=200).map(|seed| one(Setup { sabotage, ..Setup::new(seed, 6) }, None));
    worlds.flat_map(|outcome| outcome.broken).next().expect("200 seeds break nothing")
}

/// What broke in these worlds of six nodes.
fn broken(seeds: impl IntoIterator<Item = u64>) -> Vec<(u64, Vec<String>)> {
    let outcomes = seeds.into_iter().map(|seed| one(Setup::new(seed, 6), None));
    outcomes.filter(|outcome| !outcome.broken.is_empty()).map(|o| (o.seed, o.broken)).collect()
}

#[test]
fn a_few_seeds_break_nothing() {
    assert_eq!(broken([1, 2]), []);
}

#[test]
fn every_twin_keeps_its_promises_once() {
    for twin in twins::TWINS {
        assert_eq!(one(Setup::new(1, 0), Some(twin)).broken, [""; 0], "{twin}");
    }
}

#[test]
fn a_message_that_comes_twice_is_found() {
    let what = found("twice");
    assert!(what.contains("came 2 times"), "{what}");
}

#[test]
fn a_wake_up_that_is_lost_is_found() {
    found("wake-up");
}

#[test]
fn a_message_that_does_not_come_is_found() {
    let what = found("missing");
    assert!(what.contains("is not at") || what.contains("missing"), "{what}");
}

#[test]
fn a_receipt_that_lies_is_found() {
    let what = found("receipt");
    assert!(what.contains("the receipt"), "{what}");
}

#[test]
fn an_acknowledged_message_that_nobody_sent_is_found() {
    let what = found("unsent");
    assert!(what.contains("is not at") || what.contains("missing"), "{what}");
}

#[test]
fn of_clocks_that_go_back_by_hours_nothing_comes_twice() {
    for seed in [4, 12] {
        let setup = Setup { wild_clocks: true, ..Setup::new(seed, 6) };
        assert_eq!(one(setup, None).broken, [""; 0], "seed {seed}");
    }
}
