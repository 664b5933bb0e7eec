//! What comparing two memories costs in bytes, all frames of both sides counted.

use crate::support::{Memory, Outcome, session, span};
use smidge_catchup::{End, Limits};

const ALL: u64 = 100_000;

fn compare(a: &Memory, b: &Memory, whole: &Memory) -> Outcome {
    let (mut a, mut b) = (a.clone(), b.clone());
    let outcome = session(&mut a, &mut b, (span(), span()), Limits::default(), [9; 16]);
    assert_eq!(outcome.ends, (End::Done, End::Done));
    assert!(a.0.keys().eq(whole.0.keys()) && b.0.keys().eq(whole.0.keys()), "both have all");
    outcome
}

/// Bytes beyond the records, for each of them, with both of a pair as the one that lacks.
fn beyond(whole: &Memory, less: &Memory, name: &str) -> u64 {
    let missing = (whole.0.len() - less.0.len()) as u64;
    let mut worst = 0;
    for (a, b, which) in [(less, whole, "initiator"), (whole, less, "responder")] {
        let outcome = compare(a, b, whole);
        assert_eq!(
            outcome.initiator.fetched + outcome.responder.fetched,
            missing,
            "none but what was missing"
        );
        let each = (outcome.bytes() - 100 * missing).div_ceil(missing);
        println!(
            "{name}, missing at the {which}: {each} bytes a message, {} answers",
            outcome.initiator.frames
        );
        worst = worst.max(each);
    }
    worst
}

#[test]
fn that_two_memories_of_100_000_are_equal_is_known_after_500_bytes() {
    let whole = Memory::of(ALL, 1);
    let outcome = compare(&whole, &whole, &whole);
    println!("equal: {} bytes, {} answer", outcome.bytes(), outcome.initiator.frames);
    assert!(outcome.bytes() <= 500, "{outcome:?}");

    // A moment later the responder keeps a little less: one comparison more.
    let (mut a, mut b) = (whole.clone(), whole.without(|n| n < 10));
    let mut later = span();
    later.from = b.0.keys().next().unwrap().time;
    let outcome = session(&mut a, &mut b, (span(), later), Limits::default(), [9; 16]);
    println!("equal where both keep: {} bytes, {} answers", outcome.bytes(), outcome.initiator.frames);
    assert!(outcome.bytes() <= 500, "{outcome:?}");
    assert_eq!(b.0.len() + 10, a.0.len(), "what was let go stays away");
}

#[test]
fn a_thousand_in_a_row_cost_40_bytes_each_beyond_the_messages() {
    let whole = Memory::of(ALL, 2);
    for start in [0, 43_210, 99_000] {
        let less = whole.without(|n| (start..start + 1000).contains(&n));
        assert!(beyond(&whole, &less, &format!("1,000 in a row from {start}")) <= 40);
    }
}

#[test]
fn a_thousand_scattered_cost_250_bytes_each_beyond_the_messages() {
    let whole = Memory::of(ALL, 3);
    let mut random = fastrand::Rng::with_seed(4);
    let lost: std::collections::HashSet<_> =
        std::iter::repeat_with(|| random.usize(..ALL as usize)).take(1000).collect();
    assert!(beyond(&whole, &whole.without(|n| lost.contains(&n)), "1,000 scattered") <= 250);
}

#[test]
fn a_node_that_joins_pays_a_few_bytes_a_message() {
    let whole = Memory::of(10_000, 5);
    assert!(beyond(&whole, &Memory::default(), "10,000 to a node that joins") <= 8);
}
