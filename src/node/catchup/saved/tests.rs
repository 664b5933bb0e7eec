//! A book that is written, and read again by the next run: whatever was on the disk by then.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    config::{Keep, TopicRules},
    gossip::{Authenticity, Author, Topic},
    node::catchup::{Judgement, Position, number::Numbers},
};

const NOW: u64 = 1_795_000_000_000;
const HOUR: u64 = 3_600_000;

struct Said(Author, Numbers, PeerId);

impl Said {
    fn new() -> Self {
        let key = libp2p::identity::Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        Self(Author::new(Authenticity::Signed(key), 0), Numbers::default(), peer)
    }

    fn at(&mut self, now: u64) -> Record {
        self.0.number_above(self.1.next(now) - 1);
        let wire = self.0.compose(&Topic::from("t"), &[7; 100], &mut fastrand::Rng::new()).unwrap();
        Record::of(&wire).unwrap()
    }
}

fn rules(keep: Keep) -> BTreeMap<String, TopicRules> {
    [("t".to_owned(), TopicRules { keep: Some(keep), ..TopicRules::default() })].into()
}

fn keep(messages: usize) -> Keep {
    Keep { messages: Some(messages), durable: true, ..Keep::default() }
}

/// The next run of a node, with what is on the disk.
fn run(name: u32, keep: Keep, rows: &Rows, now: u64) -> Book {
    let mut book = Book::new(name, 1 << 20);
    book.configure(&rules(keep), now);
    book.load(rows.clone(), true, &PeerId::random(), now);
    book
}

fn write(rows: &mut Rows, changes: Vec<Change>) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(rows.insert(key, value)),
            None => drop(rows.remove(&key)),
        }
    }
}

/// A run that could write its heads.
fn started(name: u32, keep: Keep, rows: &mut Rows) -> Book {
    let mut book = run(name, keep, rows, NOW);
    write(rows, book.heads());
    book.heads_written();
    book
}

fn commit(book: &mut Book, rows: &mut Rows) {
    while book.unwritten() > 0 {
        let mut batch = book.take();
        write(rows, std::mem::take(&mut batch.changes));
        book.written(batch);
    }
}

fn items(book: &Book) -> Vec<Item> {
    book.memory("t").unwrap().from(Item::at(0)).map(|kept| kept.item).collect()
}

fn behind(book: &Book, position: &Position) -> usize {
    book.memory("t").unwrap().behind(position.number, usize::MAX).len()
}

#[test]
fn a_run_that_ended_in_good_order_goes_on_as_if_it_had_not() {
    let (mut rows, mut said) = (Rows::new(), Said::new());
    let mut book = started(1, keep(10), &mut rows);
    let positions: Vec<_> = (0..15).map(|n| book.insert(&said.at(NOW + n), NOW).unwrap()).collect();
    write(&mut rows, book.take_all().changes);
    let mut again = started(2, keep(10), &mut rows);
    assert_eq!(items(&again), items(&book));
    assert!(positions.iter().all(|position| again.is_own("t", position)));
    assert_eq!(behind(&again, &positions[11]), 3);
    assert_eq!(again.memory("t").unwrap().gone_number(), 5, "as it was");
    let next = again.insert(&said.at(NOW + 20), NOW).unwrap();
    assert_eq!((next.memory, next.number), (positions[0].memory, positions[14].number + 1));
}

#[test]
fn a_run_that_was_killed_tells_of_a_gap_and_gives_no_number_out_twice() {
    let (mut rows, mut said) = (Rows::new(), Said::new());
    let mut book = started(1, keep(10), &mut rows);
    let kept: Vec<_> = (0..5).map(|n| book.insert(&said.at(NOW + n), NOW).unwrap()).collect();
    commit(&mut book, &mut rows);
    let lost = book.insert(&said.at(NOW + 9), NOW).unwrap();
    let mut again = started(2, keep(10), &mut rows);
    assert_eq!(items(&again).len(), 5);
    assert!(again.is_own("t", &lost) && behind(&again, &kept[1]) == 3);
    let memory = again.memory("t").unwrap();
    assert!(memory.gone_number() > lost.number, "what came last may be missing");
    let next = again.insert(&said.at(NOW + 10), NOW).unwrap();
    assert!(next.number > lost.number, "{next:?}");
    assert_eq!(behind(&again, &lost), 1);
}

#[test]
fn positions_do_not_outlive_a_run_that_could_write_nothing() {
    let (rows, mut said) = (Rows::new(), Said::new());
    let mut book = run(1, keep(10), &rows, NOW);
    let position = book.insert(&said.at(NOW), NOW).unwrap();
    assert!(book.is_own("t", &position));
    assert!(!run(2, keep(10), &rows, NOW).is_own("t", &position));
}

#[test]
fn no_old_message_is_new_again_in_the_next_run() {
    let (mut rows, mut said) = (Rows::new(), Said::new());
    let mut book = started(1, keep(3), &mut rows);
    let records: Vec<_> = (0..10).map(|n| said.at(NOW + n)).collect();
    for record in &records {
        book.insert(record, NOW).unwrap();
    }
    commit(&mut book, &mut rows);
    let again = started(2, keep(3), &mut rows);
    let judged: Vec<_> = records.iter().map(|record| again.judge(record, NOW)).collect();
    assert_eq!(judged[..7], [Judgement::Old; 7]);
    assert_eq!(judged[7..], [Judgement::Known; 3]);
    assert_eq!(again.judge(&said.at(NOW + 10), NOW), Judgement::New);
    // Another author has a floor of its own.
    assert_eq!(again.judge(&Said::new().at(NOW), NOW), Judgement::New);
}

#[test]
fn authors_whose_clocks_are_an_hour_off_keep_their_own_floors_over_a_restart() {
    let mut rows = Rows::new();
    let mut book = started(1, keep(4), &mut rows);
    let (mut slow, mut fast) = (Said::new(), Said::new());
    let early: Vec<_> = (0..3).map(|n| slow.at(NOW - HOUR + n)).collect();
    let late: Vec<_> = (0..6).map(|n| fast.at(NOW + HOUR + n)).collect();
    early
        .iter()
        .chain(&late)
        .for_each(|record| assert!(book.insert(record, NOW).is_some() || record.item().time < NOW));
    commit(&mut book, &mut rows);
    let mut again = started(2, keep(4), &mut rows);
    for record in early.iter().chain(&late[..2]) {
        assert_eq!(again.judge(record, NOW), Judgement::Old);
    }
    // There is no room for it beside what is dated later: it is delivered once, and then it is old.
    let next = slow.at(NOW - HOUR + 10);
    assert_eq!(again.judge(&next, NOW), Judgement::New);
    assert!(again.insert(&next, NOW).is_none());
    assert_eq!(again.judge(&next, NOW), Judgement::Old);
    commit(&mut again, &mut rows);
    assert_eq!(started(3, keep(4), &mut rows).judge(&next, NOW), Judgement::Old);
    assert_eq!(items(&again).len(), 4);
}

#[test]
fn more_authors_than_are_told_apart_share_the_floor_of_the_oldest() {
    let mut rows = Rows::new();
    let mut book = started(1, keep(1), &mut rows);
    let count = smidge_catchup::Keep::default().authors as u64 + 50;
    let records: Vec<_> = (0..count).map(|n| Said::new().at(NOW + n)).collect();
    for record in &records {
        book.insert(record, NOW).unwrap();
        commit(&mut book, &mut rows);
    }
    let floors = rows.keys().filter(|key| key[0] == b'f').count();
    assert_eq!(floors, smidge_catchup::Keep::default().authors + 2, "that of all others, and of who is kept");
    let again = started(2, keep(1), &mut rows);
    assert!(records[..records.len() - 1].iter().all(|record| again.judge(record, NOW) == Judgement::Old));
    // Whoever was never heard is taken for one of those, up to the last of them that was let go.
    assert_eq!(again.judge(&Said::new().at(NOW), NOW), Judgement::Old);
    assert_eq!(again.judge(&Said::new().at(NOW + count), NOW), Judgement::New);
}

#[test]
fn a_topic_that_is_durable_no_more_leaves_nothing_and_begins_again() {
    let (mut rows, mut said) = (Rows::new(), Said::new());
    let mut book = started(1, keep(10), &mut rows);
    (0..5).for_each(|n| assert!(book.insert(&said.at(NOW + n), NOW).is_some()));
    commit(&mut book, &mut rows);
    book.configure(&rules(Keep { durable: false, ..keep(10) }), NOW);
    book.configure(&rules(keep(10)), NOW);
    commit(&mut book, &mut rows);
    assert_eq!(items(&started(2, keep(10), &mut rows)).len(), 5, "it was one for a moment only");
    book.configure(&rules(Keep { durable: false, ..keep(10) }), NOW);
    commit(&mut book, &mut rows);
    assert!(rows.is_empty() && items(&book).len() == 5);
    // What a file has of topics that are none is taken out at the next start.
    rows.insert(b"nonsense".to_vec(), Vec::new());
    rows.insert(rows::key(&rows::tag("other"), &Row::Topic), vec![1; 30]);
    rows.insert(rows::key(&rows::tag("t"), &Row::Message(Item::at(7))), vec![1; 30]);
    let mut again = started(3, keep(10), &mut rows);
    commit(&mut again, &mut rows);
    assert_eq!(rows.len(), 1, "the head of t");
}

#[test]
fn a_file_that_opens_late_and_a_memory_that_has_something_are_one() {
    let (mut rows, mut said) = (Rows::new(), Said::new());
    let mut book = started(1, keep(10), &mut rows);
    let old: Vec<_> = (0..3).map(|n| said.at(NOW + n)).collect();
    old.iter().for_each(|record| assert!(book.insert(record, NOW).is_some()));
    commit(&mut book, &mut rows);
    let mut other = Book::new(2, 1 << 20);
    other.configure(&rules(keep(10)), NOW);
    other.insert(&old[2], NOW).unwrap();
    other.insert(&said.at(NOW + 5), NOW).unwrap();
    assert!(!other.is_kept("t", &old[2].item(), None), "nothing is on the disk");
    other.load(rows.clone(), false, &PeerId::random(), NOW);
    assert_eq!(items(&other).len(), 4);
    commit(&mut other, &mut rows);
    assert!(other.is_kept("t", &old[2].item(), None));
    assert_eq!(items(&started(3, keep(10), &mut rows)), items(&other));
}

#[test]
fn a_message_is_kept_when_its_commit_is_done_and_not_before() {
    let mut rows = Rows::new();
    let (mut book, mut said) = (started(1, keep(10), &mut rows), Said::new());
    let record = said.at(NOW);
    book.insert(&record, NOW).unwrap();
    assert!(!book.is_kept("t", &record.item(), None));
    let batch = book.take();
    assert!(!book.is_kept("t", &record.item(), Some(&batch)), "it is on its way");
    book.not_written(batch);
    assert!(!book.is_kept("t", &record.item(), None));
    commit(&mut book, &mut rows);
    assert!(book.is_kept("t", &record.item(), None));
    assert!(!book.is_kept("t", &said.at(NOW).item(), None));
}

#[test]
fn numbers_of_this_node_are_above_those_of_the_run_before_where_its_clock_went_back() {
    let (mut rows, mut own) = (Rows::new(), Said::new());
    let mut book = started(1, keep(10), &mut rows);
    let said = own.at(NOW + HOUR);
    book.insert(&said, NOW).unwrap();
    commit(&mut book, &mut rows);
    let mut again = Book::new(2, 1 << 20);
    again.configure(&rules(keep(10)), NOW);
    again.load(rows.clone(), true, &own.2, NOW);
    assert!(again.next_number(NOW) > said.sequence);
    // Nobody would keep what is dated a day ahead.
    let mut much_later = Book::new(2, 1 << 20);
    much_later.configure(&rules(keep(10)), NOW);
    much_later.load(rows, true, &own.2, NOW - 24 * HOUR);
    assert!(much_later.next_number(NOW - 24 * HOUR) < said.sequence);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes when, is written when, fails, and is killed when: what is on the disk is all there in the next run,
    /// what was let go is old, and what never was there is new.
    #[test]
    fn what_is_on_the_disk_is_what_the_next_run_has(
        steps in proptest::collection::vec((0u64..40, 0usize..3, 0u8..12), 1..60),
        most in 1usize..12,
    ) {
        let (mut rows, mut authors) = (Rows::new(), [Said::new(), Said::new(), Said::new()]);
        let mut book = started(0, keep(most), &mut rows);
        let (mut on_disk, mut dropped, mut runs) = (Vec::new(), Vec::new(), 0);
        for (time, author, what) in steps {
            let record = authors[author].at(NOW + time);
            let _ = book.insert(&record, NOW);
            match what {
                0 => {
                    let batch = book.take();
                    book.not_written(batch);
                }
                1..4 => {
                    commit(&mut book, &mut rows);
                    let kept = items(&book);
                    dropped.extend(on_disk.into_iter().filter(|record: &Record| !kept.contains(&record.item())));
                    on_disk = book.memory("t").unwrap().from(Item::at(0)).map(|kept| Record::decode(kept.record).unwrap()).collect();
                }
                4 => {
                    runs += 1;
                    book = started(runs, keep(most), &mut rows);
                    let expected: Vec<_> = on_disk.iter().map(Record::item).collect();
                    prop_assert_eq!(items(&book), expected);
                }
                _ => {}
            }
            for record in &dropped {
                prop_assert_eq!(book.judge(record, NOW), Judgement::Old);
            }
        }
        prop_assert!(book.unwritten() <= 3 * most + 8);
        let age = Duration::from_secs(1);
        book.configure(&rules(Keep { age: Some(age), ..keep(most) }), NOW + HOUR);
        commit(&mut book, &mut rows);
        prop_assert!(rows.keys().all(|key| key[0] != b'm'), "what is too old is taken out");
    }
}
