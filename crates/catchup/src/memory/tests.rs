#![allow(clippy::print_stdout, reason = "figures for whoever runs the tests by hand")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_795_000_000_000;

fn item(time: u64, n: u8) -> Item {
    Item { time, id: Id([n; 16]) }
}

fn author(n: u8) -> Id {
    Id([n; 16])
}

fn record(length: usize) -> &'static [u8] {
    &[7; 8192][..length]
}

fn keep(messages: usize) -> Keep {
    Keep { messages, ..Keep::default() }
}

fn times(memory: &Memory) -> Vec<u64> {
    memory.last(usize::MAX).map(|(item, _)| item.time - NOW).collect()
}

#[test]
fn ten_thousand_messages_of_100_bytes_cost_300_bytes_each_all_told() {
    // 100 bytes of payload, signed: a field header of two bytes each for payload, author (a peer id of 38 bytes),
    // sequence number (8) and signature (64). The topic is the memory's.
    let length = 102 + 40 + 10 + 66;
    let mut memory = Memory::new(Keep { messages: 10_000, bytes: 1 << 24, ..Keep::default() });
    let mut random = fastrand::Rng::with_seed(1);
    for n in 0..10_000 {
        // Out of order by up to a second, from 50 authors.
        let mut id = [0; 16];
        random.fill(&mut id);
        let item = Item { time: NOW + n * 10 + random.u64(..1000), id: Id(id) };
        memory.insert(item, author(random.u8(..50)), record(length), NOW + n * 10).unwrap();
    }
    let each = memory.allocated().div_ceil(10_000);
    println!("{each} bytes a message, of which the record {length}");
    assert!(each <= 300, "{each}");
    assert!(memory.bytes() / 10_000 >= each, "the bound in bytes counts what is there");
}

#[test]
fn each_bound_alone_lets_the_oldest_go() {
    let mut memory = Memory::new(keep(2));
    for n in [3, 1, 2] {
        memory.insert(item(NOW + n, 1), author(1), record(9), NOW).unwrap();
    }
    assert_eq!(times(&memory), [2, 3]);

    let bytes = 2 * (Memory::OVERHEAD + 9);
    let mut memory = Memory::new(Keep { bytes, ..keep(100) });
    for n in 1..=3 {
        memory.insert(item(NOW + n, 1), author(1), record(9), NOW).unwrap();
    }
    assert_eq!(times(&memory), [2, 3]);
    assert_eq!(memory.insert(item(NOW + 4, 1), author(1), record(bytes), NOW), Err(Unkept::NoRoom));
    assert_eq!(times(&memory), [2, 3], "what never fits takes nobody's place");

    memory.expire(NOW + 3 + 600_000);
    assert_eq!(times(&memory), [3]);
    memory.set_keep(keep(0), NOW);
    assert!(memory.is_empty());
    assert_eq!(memory.bytes(), 0);
}

#[test]
fn no_old_message_is_new_again() {
    let mut memory = Memory::new(keep(2));
    for n in 1..=3 {
        memory.insert(item(NOW + n, 1), author(1), record(9), NOW).unwrap();
    }
    assert_eq!(memory.admits(&item(NOW + 1, 1), author(1), NOW), Err(Unkept::BelowFloor));
    assert_eq!(memory.insert(item(NOW + 2, 1), author(1), record(9), NOW), Err(Unkept::Known));
    // Another author's clock is behind: it is heard, and no room is left for it in the memory; but only once.
    assert_eq!(memory.admits(&item(NOW, 5), author(2), NOW), Ok(()));
    assert_eq!(memory.insert(item(NOW, 5), author(2), record(9), NOW), Err(Unkept::NoRoom));
    assert_eq!(memory.admits(&item(NOW, 5), author(2), NOW), Err(Unkept::BelowFloor));

    // A restart, with the floors that were kept.
    let mut again = Memory::new(keep(2));
    memory.floors().for_each(|(author, floor)| again.raise_floor(author, floor));
    assert_eq!(again.span(NOW, Duration::ZERO, 9).from, memory.span(NOW, Duration::ZERO, 9).from);
    assert_eq!(again.insert(item(NOW + 1, 1), author(1), record(9), NOW), Err(Unkept::BelowFloor));
    assert_eq!(again.insert(item(NOW + 2, 1), author(1), record(9), NOW), Ok(()));
}

/// A file of a memory: what was written last of each item and floor.
#[derive(Default)]
struct File(BTreeMap<Item, (Id, u64, usize)>, BTreeMap<Option<Id>, Item>);

impl File {
    fn write(&mut self, memory: &Memory, unwritten: &Unwritten, authors: &BTreeMap<Item, Id>) {
        for item in &unwritten.gone {
            assert!(self.0.remove(item).is_some(), "what is taken out was there");
        }
        for item in &unwritten.kept {
            let kept = memory.from(*item).next().unwrap();
            assert_eq!(kept.item, *item);
            self.0.insert(*item, (authors[item], kept.number, kept.record.len()));
        }
        for (author, floor) in &unwritten.floors {
            match floor {
                Some(floor) => drop(self.1.insert(*author, *floor)),
                None => drop(self.1.remove(author)),
            }
        }
    }

    fn read(&self, keep: Keep, last: u64, gone: u64) -> Memory {
        let mut memory = Memory::new(keep);
        memory.resume(last, gone);
        for (item, (author, number, length)) in &self.0 {
            assert!(memory.restore(*item, *author, *number, record(*length)));
        }
        for (author, floor) in self.1.iter().rev() {
            memory.raise_floor(*author, *floor);
        }
        memory.track(true);
        memory
    }
}

proptest! {
    /// Whatever is written when, and fails: a memory that is read back is what it was, its floors and numbers included.
    #[test]
    fn what_a_file_was_given_is_the_memory_again(
        steps in proptest::collection::vec((0u64..60, 0u8..6, 0usize..100, 0u8..10), 0..200),
        most in 1usize..30,
        idle in 0usize..4,
    ) {
        let keep = Keep { messages: most, authors: idle, ..Keep::default() };
        let (mut memory, mut file, mut authors) = (Memory::new(keep), File::default(), BTreeMap::new());
        memory.track(false);
        let mut failed = Vec::new();
        for (time, n, length, what) in steps {
            let item = item(NOW + time, n);
            authors.insert(item, author(n));
            let _ = memory.insert(item, author(n), record(length), NOW);
            if what < 3 {
                let unwritten = memory.take_unwritten(200);
                prop_assert!(unwritten.kept.iter().all(|item| memory.is_taken(item)));
                if what == 0 { failed.push(unwritten) } else { file.write(&memory, &unwritten, &authors) }
            }
            // One commit at a time: a failed one is given back before the next.
            if let Some(unwritten) = failed.pop() {
                let _ = memory.insert(Item { time: NOW + 61 + time, ..item }, author(n), record(1), NOW);
                authors.insert(Item { time: NOW + 61 + time, ..item }, author(n));
                memory.restore_unwritten(&unwritten);
            }
        }
        while memory.unwritten() > 0 {
            let unwritten = memory.take_unwritten(500);
            file.write(&memory, &unwritten, &authors);
        }
        let again = file.read(keep, memory.last_number(), memory.gone_number());
        let all = |memory: &Memory| memory.from(Item::at(0)).map(|kept| (kept.item, kept.number, kept.record.len())).collect::<Vec<_>>();
        prop_assert_eq!(all(&again), all(&memory));
        prop_assert_eq!((again.bytes(), again.last_number()), (memory.bytes(), memory.last_number()));
        let floors = |memory: &Memory| memory.floors().collect::<BTreeMap<_, _>>();
        prop_assert_eq!(floors(&again), floors(&memory));
        prop_assert_eq!(again.span(NOW, Duration::ZERO, 9).from, memory.span(NOW, Duration::ZERO, 9).from);
        prop_assert_eq!(again.unwritten(), 0);
    }
}

#[test]
fn what_cannot_be_written_for_long_is_bounded() {
    let mut memory = Memory::new(Keep { authors: 3, ..keep(5) });
    memory.track(false);
    for n in 0..10_000_u64 {
        let name = Id::of(&n.to_be_bytes());
        memory.insert(item(NOW + n, 1), name, record(9), NOW + n).unwrap();
        if n % 50 == 0 {
            let unwritten = memory.take_unwritten(usize::MAX);
            for more in 0..10 {
                let _ =
                    memory.insert(item(NOW + n, 2 + more), Id::of(&[1, more, n as u8]), record(9), NOW + n);
            }
            memory.restore_unwritten(&unwritten);
        }
        assert!(memory.unwritten() < 50, "{}", memory.unwritten());
    }
}

#[test]
fn floors_of_any_number_of_authors_are_bounded_and_refuse_no_less() {
    let mut memory = Memory::new(Keep { authors: 3, ..keep(1) });
    for n in 0..100 {
        memory.insert(item(NOW + u64::from(n), n), author(n), record(9), NOW).unwrap();
    }
    assert!(memory.floors().count() <= 5);
    for n in 0..99 {
        let seen = memory.admits(&item(NOW + u64::from(n), n), author(n), NOW);
        assert_eq!(seen, Err(Unkept::BelowFloor), "{n}");
    }
}

#[test]
fn clocks_an_hour_apart_are_kept_and_one_of_next_week_is_not() {
    let mut memory = Memory::new(keep(10));
    let hour = 3_600_000;
    assert_eq!(memory.insert(item(NOW + hour, 1), author(1), record(9), NOW), Ok(()));
    assert_eq!(memory.insert(item(NOW + 168 * hour, 1), author(1), record(9), NOW), Err(Unkept::TooFarAhead));
    assert_eq!(memory.insert(item(NOW - hour, 1), author(2), record(9), NOW), Err(Unkept::TooOld));
    assert!(memory.span(NOW, Duration::from_secs(2), 99).until > NOW + hour, "and compared");
}

#[test]
fn who_resumes_is_given_what_is_behind_and_hears_of_a_gap() {
    let mut memory = Memory::new(keep(3));
    for n in 1..=5 {
        memory.insert(item(NOW + n, 1), author(1), record(n as usize), NOW).unwrap();
    }
    let since = memory.since(item(NOW + 4, 1));
    assert_eq!((since.gap, since.messages.count()), (false, 1));
    assert!(!memory.since(item(NOW + 2, 1)).gap, "it has all that was let go");
    let since = memory.since(Item::at(NOW + 1));
    assert_eq!((since.gap, since.messages.count()), (true, 3));
    assert_eq!(memory.last(2).map(|(_, record)| record.len()).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(memory.span(NOW, Duration::ZERO, 9).from, NOW + 3, "nobody needs to offer what was let go");
}

proptest! {
    /// Whatever order they come in, equal bounds keep the same, which is the newest.
    #[test]
    fn the_same_messages_in_any_order_leave_the_same_memory(
        messages in proptest::collection::btree_map((0u64..40, 0u8..4), 0usize..200, 0..120),
        order in any::<u64>(),
        most in 1usize..40,
        bytes in 300usize..8000,
    ) {
        let keep = Keep { messages: most, bytes, age: Duration::from_millis(30), ..Keep::default() };
        let mut shuffled: Vec<_> = messages.iter().collect();
        fastrand::Rng::with_seed(order).shuffle(&mut shuffled);
        let mut memory = Memory::new(keep);
        for ((time, n), length) in shuffled {
            // Each an author of its own, so that no floor is in the way.
            let id = Id::of(&[*time as u8, *n]);
            let _ = memory.insert(item(NOW + time, *n), id, record(*length), NOW + 40);
        }
        let mut newest = BTreeMap::new();
        let mut total = 0;
        for ((time, n), length) in messages.iter().rev().filter(|((time, _), _)| *time >= 10) {
            let size = length + Memory::OVERHEAD;
            if size > bytes {
                continue;
            }
            total += size;
            if newest.len() == most || total > bytes {
                break;
            }
            newest.insert(item(NOW + time, *n), *length);
        }
        let kept: BTreeMap<_, _> = memory.last(usize::MAX).map(|(item, record)| (*item, record.len())).collect();
        prop_assert_eq!(kept, newest);
    }

    #[test]
    fn chunks_hold_what_a_tree_holds(steps in proptest::collection::vec((0u64..2000, any::<bool>()), 0..1500)) {
        let (mut sorted, mut tree) = (Sorted::default(), std::collections::BTreeSet::new());
        for (time, pop) in steps {
            let item = item(time, 1);
            if pop && time % 3 == 0 {
                prop_assert_eq!(sorted.pop_first().map(|entry| entry.item), tree.pop_first());
            } else {
                prop_assert_eq!(sorted.insert(Entry { item, author: 0, number: 0, record: Box::default() }), tree.insert(item));
            }
            prop_assert_eq!(sorted.len(), tree.len());
        }
        let all: Vec<_> = tree.iter().copied().collect();
        for at in [0, 700, 1999, 2000] {
            let behind: Vec<_> = tree.range(item(at, 1)..).copied().collect();
            prop_assert_eq!(sorted.from(item(at, 1)).map(|entry| entry.item).collect::<Vec<_>>(), behind);
            let skipped: Vec<_> = all.iter().skip(at as usize).copied().collect();
            prop_assert_eq!(sorted.skip(at as usize).map(|entry| entry.item).collect::<Vec<_>>(), skipped);
        }
    }
}
