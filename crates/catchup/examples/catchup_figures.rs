//! What comparing costs with other parameters: `cargo run --release -p smidge-catchup --example catchup_figures`.

#![allow(clippy::print_stdout, reason = "figures are what it is for")]

#[path = "../tests/it/support.rs"]
mod support;

use std::{collections::HashSet, time::Instant};

use smidge_catchup::{End, Limits, Params};
use support::{Memory, Side as _, session, span};

fn main() {
    let whole = Memory::of(100_000, 1);
    let began = Instant::now();
    let snapshot = whole.snapshot([1; 16]);
    println!("a snapshot of {}: {:?}", snapshot.items().len(), began.elapsed());
    let mut random = fastrand::Rng::with_seed(2);
    let mut scattered = |count| -> HashSet<usize> {
        std::iter::repeat_with(|| random.usize(..100_000)).take(count).collect()
    };
    let (ten, thousand, many) = (scattered(10), scattered(1000), scattered(20_000));
    let cases: [(&str, Memory); 4] = [
        ("1,000 in a row", whole.without(|n| (50_000..51_000).contains(&n))),
        ("10 scattered", whole.without(|n| ten.contains(&n))),
        ("1,000 scattered", whole.without(|n| thousand.contains(&n))),
        ("20,000 scattered", whole.without(|n| many.contains(&n))),
    ];
    println!("bytes a missing message beyond its record (answers), missing at the responder:");
    println!("| split | list | {} |", cases.each_ref().map(|(name, _)| *name).join(" | "));
    println!("|---|---|---|---|---|---|");
    for (split, list) in [
        (2, 2),
        (2, 4),
        (4, 2),
        (4, 4),
        (4, 8),
        (8, 2),
        (8, 4),
        (8, 8),
        (8, 16),
        (16, 4),
        (16, 8),
        (16, 16),
        (16, 32),
        (64, 16),
    ] {
        let limits = Limits { params: Params { split, list, ..Params::default() }, ..Limits::default() };
        print!("| {split} | {list} ");
        for (_, less) in &cases {
            let missing = (whole.0.len() - less.0.len()) as u64;
            let outcome = session(&mut whole.clone(), &mut less.clone(), (span(), span()), limits, [3; 16]);
            assert_eq!((&outcome.ends.0, outcome.responder.fetched), (&End::Done, missing));
            let each = (outcome.bytes() - 100 * missing).div_ceil(missing);
            print!("| {each} ({}) ", outcome.initiator.frames);
        }
        println!("|");
    }
}
