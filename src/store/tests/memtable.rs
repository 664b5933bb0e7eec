//! The memtable against its bounds, and against a model of what it has to write.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    kad::{KBucketKey, ProviderRecord, Record, RecordKey, store::Error},
};
use proptest::prelude::*;

use crate::store::{Limits, Source, format::Moment, memtable::Memtable};

const S: fn(u64) -> Duration = Duration::from_secs;
const LIMITS: Limits = Limits { records: 8, value: 100, bytes: 4000, providers: 3, peers: 4 };

fn peer(n: u8) -> PeerId {
    libp2p::identity::Keypair::ed25519_from_bytes([n; 32]).unwrap().public().to_peer_id()
}

fn moment(now: Instant, s: u64) -> Moment {
    Moment { now: now + S(s), unix: S(1_700_000_000 + s) }
}

fn record(key: u8, size: usize, expires: Option<Instant>) -> Record {
    Record { expires, ..Record::new(vec![key], vec![key; size]) }
}

fn entry(key: u8, provider: u8, expires: Option<Instant>) -> ProviderRecord {
    let address: Multiaddr = format!("/ip4/10.0.0.{provider}/udp/1/quic-v1").parse().unwrap();
    ProviderRecord { key: vec![key].into(), provider: peer(provider), expires, addresses: vec![address] }
}

/// What another memtable makes of what this one wrote.
fn read_again(stored: &HashMap<Vec<u8>, Vec<u8>>, at: Moment) -> Memtable {
    let mut memtable = Memtable::new(peer(0), LIMITS, true);
    memtable.load(stored.clone(), at).unwrap();
    memtable
}

fn write(memtable: &mut Memtable, stored: &mut HashMap<Vec<u8>, Vec<u8>>, at: Moment) {
    for (key, value) in memtable.take_changes(at).1 {
        match value {
            Some(value) => stored.insert(key, value),
            None => stored.remove(&key),
        };
    }
}

type Shown = (Vec<Record>, Vec<Vec<ProviderRecord>>, Vec<(PeerId, Vec<Multiaddr>)>);

fn shown(memtable: &Memtable) -> Shown {
    let mut records: Vec<_> = memtable.records().cloned().collect();
    records.sort_by_key(|r| r.key.to_vec());
    let entries = (0..16).map(|key| {
        let mut there = memtable.providers(&RecordKey::from(vec![key]));
        there.sort_by_key(|p| p.provider);
        there
    });
    (records, entries.collect(), memtable.known())
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize, Option<u64>, Source),
    Remove(u8),
    Provide(u8, u8, Option<u64>),
    Unprovide(u8, u8),
    Remember(u8, u8),
    Forget(u8, bool),
    Wait(u64),
    Write,
}

/// A peer that is connected from a network.
fn from(n: u8, network: u8) -> Source {
    Source::remote(peer(n), &format!("/ip4/192.0.2.{network}/udp/1/quic-v1").parse().unwrap())
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![Just(Source::LOCAL), (1..6_u8, 0..3_u8).prop_map(|(n, network)| from(n, network))]
}

fn step() -> impl Strategy<Value = Step> {
    let life = || prop::option::of(1..50_u64);
    prop_oneof![
        (0..12_u8, 0..120_usize, life(), source()).prop_map(|(k, n, l, s)| Step::Put(k, n, l, s)),
        (0..12_u8).prop_map(Step::Remove),
        (0..12_u8, 0..6_u8, life()).prop_map(|(k, p, l)| Step::Provide(k, p, l)),
        (0..12_u8, 0..6_u8).prop_map(|(k, p)| Step::Unprovide(k, p)),
        (0..8_u8, 0..3_u8).prop_map(|(p, a)| Step::Remember(p, a)),
        (0..8_u8, any::<bool>()).prop_map(|(p, all)| Step::Forget(p, all)),
        (0..20_u64).prop_map(Step::Wait),
        Just(Step::Write),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_its_bounds_hold_and_what_it_wrote_is_what_it_holds(
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let start = Instant::now();
        let (mut memtable, mut stored, mut s) = (Memtable::new(peer(0), LIMITS, true), HashMap::new(), 0);
        for step in steps {
            let at = moment(start, s);
            let ends = |life: Option<u64>| life.map(|life| at.now + S(life));
            match step {
                Step::Put(key, size, life, whose) => {
                    let _ = memtable.put(record(key, size, ends(life)), whose, at.now);
                }
                Step::Remove(key) => memtable.remove(&vec![key].into()),
                Step::Provide(key, provider, life) => {
                    // Only this node's own entries have no end.
                    let life = if provider == 0 { life } else { life.or(Some(9)) };
                    let whose = if provider == 0 { Source::LOCAL } else { from(provider, provider / 2) };
                    let _ = memtable.add_provider(entry(key, provider, ends(life)), whose, at.now);
                }
                Step::Unprovide(key, provider) => memtable.remove_provider(&vec![key].into(), &peer(provider)),
                Step::Remember(who, address) => {
                    let address = format!("/ip4/10.0.0.{address}/udp/1/quic-v1").parse().unwrap();
                    memtable.remember(peer(who), &BTreeSet::from([address]), at);
                }
                Step::Forget(who, all) => {
                    let address = "/ip4/10.0.0.1/udp/1/quic-v1".parse().unwrap();
                    memtable.forget(&peer(who), (!all).then_some(&address));
                }
                Step::Wait(more) => s += more,
                Step::Write => write(&mut memtable, &mut stored, at),
            }
            let counts = memtable.counts();
            let summed = (counts.records, counts.entries, counts.bytes);
            prop_assert_eq!(memtable.totals(), summed, "the shares are those of what is there");
            prop_assert!(counts.records <= 8 && counts.bytes <= 4000 && counts.peers <= 4, "{counts:?}");
            let (_, entries, _) = shown(&memtable);
            prop_assert!(entries.iter().filter(|there| !there.is_empty()).count() <= 8);
            prop_assert!(entries.iter().all(|there| there.len() <= 3));
            prop_assert_eq!(counts.entries, entries.iter().map(Vec::len).sum::<usize>());
        }
        let at = moment(start, s);
        memtable.expire(at.now);
        write(&mut memtable, &mut stored, at);
        let again = read_again(&stored, at);
        prop_assert_eq!(shown(&again), shown(&memtable));
        prop_assert_eq!((again.counts().bytes, again.counts().entries), (memtable.counts().bytes, memtable.counts().entries));
        prop_assert_eq!(again.unwritten(), 0, "nothing is left to be written");
        memtable.expire(at.now + S(1000));
        prop_assert!(memtable.records().all(|r| r.expires.is_none()), "what expires is gone");
    }
}

proptest! {
    /// Whoever hands it over, and however often: what is held and what is written stay one, and end when it
    /// was said last that they end, but for a 64th of the life that was left.
    #[test]
    fn a_record_that_is_there_is_written_again_only_where_its_end_moves(
        puts in prop::collection::vec((0..400_u64, 1..4000_u64, source()), 1..40),
    ) {
        let start = Instant::now();
        let (mut memtable, mut stored, mut s) = (Memtable::new(peer(0), LIMITS, true), HashMap::new(), 0);
        for (pause, life, whose) in puts {
            s += pause;
            let at = moment(start, s);
            memtable.expire(at.now);
            let before = memtable.record(&vec![1].into()).map(|r| r.expires.unwrap());
            memtable.put(record(1, 9, Some(at.now + S(life))), whose, at.now).unwrap();
            let (held, asked) = (memtable.record(&vec![1].into()).unwrap().expires.unwrap(), at.now + S(life));
            let slack = before.map_or(S(0), |before| before.saturating_duration_since(at.now) / 64);
            prop_assert!(held <= asked + slack.min(S(2)) && asked <= held + slack, "{held:?} for {asked:?}");
            prop_assert_eq!(memtable.unwritten(), usize::from(before != Some(held)), "written if it moved");
            write(&mut memtable, &mut stored, at);
            prop_assert_eq!(shown(&read_again(&stored, at)), shown(&memtable));
            prop_assert_eq!(memtable.totals(), (1, 0, memtable.counts().bytes));
        }
    }
}

#[test]
fn what_is_there_already_writes_nothing_and_counts_for_whoever_brought_it_last() {
    let now = Instant::now();
    let (mut memtable, mut stored) = (Memtable::new(peer(0), LIMITS, true), HashMap::new());
    let put = |memtable: &mut Memtable, record: Record, n: u8, s: u64| {
        memtable.put(record, from(n, n), now + S(s)).unwrap();
        memtable.unwritten()
    };
    let day = |size: usize, s: u64| record(1, size, Some(now + S(86_400 + s)));
    assert_eq!(put(&mut memtable, day(9, 0), 1, 0), 1);
    write(&mut memtable, &mut stored, moment(now, 0));
    let changes = memtable.changes();
    // Another holder hands it over, the author a moment later, and what is left of it is rounded down.
    assert_eq!(put(&mut memtable, day(9, 0), 2, 5), 0);
    assert_eq!(put(&mut memtable, day(9, 20), 3, 20), 0);
    assert_eq!(put(&mut memtable, Record { expires: Some(now + S(86_399)), ..day(9, 0) }, 2, 30), 0);
    assert_eq!(memtable.changes(), changes);
    for other in [
        day(8, 0),
        Record { publisher: Some(peer(7)), ..day(8, 0) },
        day(8, 0),
        day(8, 2000),
        day(8, 1900),
        record(1, 8, None),
    ] {
        assert_eq!(put(&mut memtable, other.clone(), 2, 40), 1, "{other:?}");
        write(&mut memtable, &mut stored, moment(now, 40));
    }
    // Whoever has them stored first by a network that has more does not have them make room with its own.
    let mut memtable = Memtable::new(peer(0), LIMITS, false);
    let order = by_distance();
    order[10..16].iter().for_each(|key| memtable.put(record(*key, 9, None), from(1, 1), now).unwrap());
    order[14..16].iter().for_each(|key| memtable.put(record(*key, 9, None), from(2, 2), now).unwrap());
    memtable.put(record(order[0], 9, None), from(3, 3), now).unwrap();
    let kept: BTreeSet<_> = [0, 10, 11, 12, 14, 15].map(|nth| order[nth]).into();
    assert_eq!(keys(&memtable), kept);

    let mut memtable = Memtable::new(peer(0), LIMITS, true);
    for (s, expected) in [(0, 1), (60, 0), (1000, 0), (2000, 1)] {
        memtable.add_provider(entry(1, 2, Some(now + S(86_400 + s))), from(2, 2), now + S(s)).unwrap();
        assert_eq!(memtable.unwritten(), expected, "after {s} s");
        write(&mut memtable, &mut stored, moment(now, s));
    }
    let moved = ProviderRecord { addresses: Vec::new(), ..entry(1, 2, Some(now + S(88_400))) };
    memtable.add_provider(moved, from(2, 2), now + S(2000)).unwrap();
    assert_eq!(memtable.unwritten(), 1, "it is elsewhere now");
}

#[test]
fn a_full_store_takes_nothing_new_until_something_expires() {
    let now = Instant::now();
    let mut memtable = Memtable::new(peer(0), LIMITS, false);
    memtable.put(record(0, 1, Some(now + S(5))), Source::LOCAL, now).unwrap();
    (1..8).for_each(|key| memtable.put(record(key, 1, None), Source::LOCAL, now).unwrap());
    assert!(matches!(memtable.put(record(9, 1, None), Source::LOCAL, now), Err(Error::MaxRecords)));
    memtable.put(record(7, 100, None), Source::LOCAL, now).unwrap(); // what is there may change
    assert!(matches!(memtable.put(record(7, 101, None), Source::LOCAL, now), Err(Error::ValueTooLarge)));
    memtable.put(record(9, 1, None), Source::LOCAL, now + S(5)).unwrap();
    assert_eq!(memtable.record(&vec![0].into()), None, "expired");
    assert_eq!(memtable.counts().refused, 2);
    let limits = Limits { bytes: 500, ..LIMITS };
    let mut memtable = Memtable::new(peer(0), limits, false);
    (0..3).for_each(|key| memtable.put(record(key, 30, None), Source::LOCAL, now).unwrap());
    assert!(matches!(memtable.put(record(3, 30, None), Source::LOCAL, now), Err(Error::MaxRecords)));
    assert!(matches!(
        memtable.add_provider(entry(1, 1, None), Source::LOCAL, now),
        Err(Error::MaxProvidedKeys)
    ));
    memtable.put(record(2, 20, None), Source::LOCAL, now).unwrap();
}

#[test]
fn a_flood_of_providers_does_not_drive_the_old_ones_out() {
    let now = Instant::now();
    let mut memtable = Memtable::new(peer(0), LIMITS, false);
    memtable.add_provider(entry(1, 0, Some(now + S(5))), Source::LOCAL, now).unwrap();
    (1..30).for_each(|n| memtable.add_provider(entry(1, n, Some(now + S(100))), from(n, n), now).unwrap());
    let who = |memtable: &Memtable| -> BTreeSet<_> {
        memtable.providers(&vec![1].into()).into_iter().map(|p| p.provider).collect()
    };
    assert_eq!(who(&memtable), [peer(0), peer(1), peer(2)].into());
    assert_eq!(memtable.provided().count(), 1);
    memtable.add_provider(entry(1, 9, None), from(9, 9), now + S(6)).unwrap();
    assert_eq!(who(&memtable), [peer(1), peer(2), peer(9)].into(), "one had expired");
}

fn keys(memtable: &Memtable) -> BTreeSet<u8> {
    memtable.records().map(|r| r.key.to_vec()[0]).collect()
}

/// Keys from the one nearest to peer 0 on.
fn by_distance() -> Vec<u8> {
    let local = KBucketKey::from(peer(0));
    let mut keys: Vec<u8> = (0..=255).collect();
    keys.sort_by_key(|key| local.distance(&KBucketKey::new(RecordKey::from(vec![*key]))));
    keys
}

#[test]
fn who_fills_the_store_takes_nobody_s_share() {
    let now = Instant::now();
    let mut memtable = Memtable::new(peer(0), LIMITS, false);
    // A hundred peers of one address, which cost nothing.
    for n in 1..100 {
        let _ = memtable.put(record(n, 1, None), from(n, 1), now);
    }
    assert_eq!(memtable.counts().records, 6, "a quarter is kept for this node");
    for n in 101..=102 {
        memtable.put(record(n, 1, None), Source::LOCAL, now).unwrap();
    }
    assert_eq!((memtable.counts().records, memtable.counts().displaced), (8, 0));
    for (key, network) in [(103, 2), (104, 3), (105, 2), (106, 3)] {
        memtable.put(record(key, 1, None), from(network, network), now).unwrap();
    }
    let theirs = keys(&memtable);
    assert!((101..=106).all(|key| theirs.contains(&key)), "{theirs:?}");
    // Two each now: nobody has more than the others, and what is nearer stays.
    let [near, .., far] = by_distance()[..] else { panic!() };
    assert!(matches!(memtable.put(record(far, 1, None), from(4, 1), now), Err(Error::MaxRecords)));
    assert_eq!(keys(&memtable), theirs);
    memtable.put(record(near, 1, None), from(9, 9), now).unwrap();
    // This node's own may be more than its quarter where others have more.
    memtable.put(record(107, 1, None), Source::LOCAL, now).unwrap_err();
    assert!(keys(&memtable).is_superset(&[101, 102].into()));
}

#[test]
fn of_one_source_what_lies_farthest_goes_first() {
    let now = Instant::now();
    let mut memtable = Memtable::new(peer(0), LIMITS, false);
    let order = by_distance();
    for key in order[10..16].iter().rev() {
        memtable.put(record(*key, 1, None), from(1, 1), now).unwrap();
    }
    assert!(matches!(memtable.put(record(order[16], 1, None), from(1, 1), now), Err(Error::MaxRecords)));
    for (nth, key) in order[..6].iter().enumerate() {
        memtable.put(record(*key, 1, None), from(1, 1), now).unwrap();
        let kept = order[..=nth].iter().chain(&order[10..15 - nth]).copied().collect();
        assert_eq!(keys(&memtable), kept);
    }
    assert_eq!((memtable.counts().displaced, memtable.counts().refused), (6, 1));
}

#[test]
fn bytes_are_shared_like_records() {
    let now = Instant::now();
    let limits = Limits { records: 100, bytes: 2000, ..LIMITS };
    let mut memtable = Memtable::new(peer(0), limits, false);
    for n in 0..50 {
        let _ = memtable.put(record(n, 90, None), from(1, 1), now);
    }
    let counts = memtable.counts();
    assert!((1200..=1500).contains(&counts.bytes), "{counts:?}");
    memtable.put(record(51, 100, None), from(2, 2), now).unwrap();
    memtable.put(record(52, 100, None), Source::LOCAL, now).unwrap();
    memtable.put(record(53, 100, None), Source::LOCAL, now).unwrap();
    let _ = memtable.put(record(54, 90, None), from(1, 1), now);
    assert!(keys(&memtable).is_superset(&[51, 52, 53].into()));
    assert!(memtable.counts().bytes <= 2000);
}

#[test]
fn providers_share_keys_and_the_places_of_one_key_alike() {
    let now = Instant::now();
    let mut memtable = Memtable::new(peer(0), LIMITS, false);
    for key in 0..100 {
        let _ = memtable.add_provider(entry(key, 1, Some(now + S(9))), from(1, 1), now);
    }
    assert_eq!(memtable.counts().entries, 6);
    memtable.add_provider(entry(200, 2, Some(now + S(9))), from(2, 2), now).unwrap();
    memtable.add_provider(entry(201, 0, None), Source::LOCAL, now).unwrap();
    memtable.add_provider(entry(202, 0, None), Source::LOCAL, now).unwrap();
    assert_eq!(memtable.provided().count(), 2);
    let who = |memtable: &Memtable, key: u8| -> BTreeSet<_> {
        memtable.providers(&vec![key].into()).into_iter().map(|p| p.provider).collect()
    };
    assert_eq!(who(&memtable, 200), [peer(2)].into());
    // One key: three places, all taken by peers of one address.
    for n in 3..9 {
        memtable.add_provider(entry(200, n, Some(now + S(9))), from(n, 1), now).unwrap();
    }
    assert_eq!(who(&memtable, 200), [peer(2), peer(3), peer(4)].into());
    memtable.add_provider(entry(200, 9, Some(now + S(9))), from(9, 9), now).unwrap();
    assert_eq!(who(&memtable, 200).len(), 3, "one and two: nobody gives way");
    memtable.add_provider(entry(200, 0, None), Source::LOCAL, now).unwrap();
    let there = who(&memtable, 200);
    assert!(there.is_superset(&[peer(0), peer(2)].into()) && there.len() == 3, "{there:?}");
}

#[test]
fn what_was_stored_is_kept_when_the_bounds_are_lowered() {
    let now = Instant::now();
    let at = moment(now, 0);
    let (mut memtable, mut stored) = (Memtable::new(peer(0), LIMITS, true), HashMap::new());
    (0..8).for_each(|key| memtable.put(record(key, 50, None), Source::LOCAL, now).unwrap());
    write(&mut memtable, &mut stored, at);
    let limits = Limits { records: 2, bytes: 200, ..LIMITS };
    let mut memtable = Memtable::new(peer(0), limits, true);
    memtable.load(stored, at).unwrap();
    let before = memtable.counts();
    assert_eq!(before.records, 8);
    memtable.put(record(1, 50, None), from(1, 1), now).unwrap(); // as large as it was
    // What is new takes the place of something, and not of more than that.
    memtable.put(record(9, 1, None), from(1, 1), now).unwrap();
    memtable.put(record(10, 1, None), Source::LOCAL, now).unwrap();
    let after = memtable.counts();
    assert_eq!((after.records, after.displaced), (8, 2));
    assert!(after.bytes <= before.bytes);
}

#[test]
fn own_entries_of_a_node_that_has_another_key_now_are_dropped() {
    let at = moment(Instant::now(), 0);
    let (mut memtable, mut stored) = (Memtable::new(peer(1), LIMITS, true), HashMap::new());
    memtable.add_provider(entry(1, 1, None), Source::LOCAL, at.now).unwrap();
    memtable.add_provider(entry(1, 2, Some(at.now + S(9))), from(2, 2), at.now).unwrap();
    write(&mut memtable, &mut stored, at);
    let mut again = read_again(&stored, at); // of peer 0
    assert_eq!(again.providers(&vec![1].into()).len(), 1);
    write(&mut again, &mut stored, at);
    assert_eq!(stored.len(), 1, "and written to be gone");
}

#[test]
fn a_clock_that_was_set_dates_what_expires_anew() {
    let at = moment(Instant::now(), 0);
    let (mut memtable, mut stored) = (Memtable::new(peer(0), LIMITS, true), HashMap::new());
    memtable.put(record(1, 1, Some(at.now + S(100))), Source::LOCAL, at.now).unwrap();
    memtable.put(record(2, 1, None), Source::LOCAL, at.now).unwrap();
    // Written while the clock said 1970.
    write(&mut memtable, &mut stored, Moment { unix: S(5), ..at });
    assert_eq!(read_again(&stored, at).records().count(), 1);
    memtable.redate();
    assert_eq!(memtable.unwritten(), 1);
    write(&mut memtable, &mut stored, at);
    assert_eq!(read_again(&stored, at).records().count(), 2);
}

#[test]
fn of_too_many_known_peers_the_one_not_seen_for_longest_goes() {
    let now = Instant::now();
    let mut memtable = Memtable::new(peer(0), LIMITS, true);
    let address = BTreeSet::from(["/ip4/10.0.0.1/udp/1/quic-v1".parse().unwrap()]);
    memtable.remember(peer(0), &address, moment(now, 0));
    assert_eq!(memtable.known(), [], "not ourselves");
    (1..6).for_each(|n| memtable.remember(peer(n), &address, moment(now, n.into())));
    let known: Vec<_> = memtable.known().into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(known, [peer(5), peer(4), peer(3), peer(2)]);
    memtable.take_changes(moment(now, 9));
    memtable.remember(peer(2), &address, moment(now, 9));
    assert_eq!(memtable.unwritten(), 0, "a peer seen again and again wears no card out");
    memtable.remember(peer(2), &address, moment(now, 7200));
    assert_eq!(memtable.unwritten(), 1);
}
