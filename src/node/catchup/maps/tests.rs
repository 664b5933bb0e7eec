use super::*;
use crate::{
    gossip::{Authenticity, Author, Topic},
    node::catchup::number::Numbers,
};

const NOW: u64 = 1_795_000_000_000;
const HOUR: u64 = 3_600_000;

/// Somebody who writes values.
struct Writer(Author, Numbers);

impl Writer {
    fn new() -> Self {
        let key = libp2p::identity::Keypair::generate_ed25519();
        Self(Author::new(Authenticity::Signed(key), 0), Numbers::default())
    }

    fn say(&mut self, topic: &str, payload: &[u8]) -> Record {
        self.0.number_above(self.1.next(NOW) - 1);
        let wire = self.0.compose(&Topic::from(topic), payload, &mut fastrand::Rng::new()).unwrap();
        Record::of(&wire).unwrap()
    }

    fn write(&mut self, key: &[u8], value: Option<&[u8]>, at: u64) -> Record {
        self.say("t", &Keyed { stamp: Stamp::at(at), key, value }.encode())
    }
}

fn times(now: u64) -> Times {
    Times { own: now, common: now }
}

fn maps(latest: config::Latest) -> Maps {
    let mut maps = Maps::new(1 << 20);
    let rules = TopicRules { latest: Some(latest), ..TopicRules::default() };
    maps.configure(&[("t".to_owned(), rules)].into(), false, times(NOW));
    maps
}

impl Maps {
    fn map_mut(&mut self, topic: &str) -> &mut Latest {
        &mut self.topics.get_mut(topic).unwrap().map
    }
}

fn value(entry: &Entry) -> &[u8] {
    entry.value.clone().map_or(b"deleted", |range| &entry.record[range])
}

#[test]
fn the_newest_of_a_key_is_kept_and_older_ones_are_not_new_again() {
    let (mut maps, mut writer) = (maps(config::Latest::default()), Writer::new());
    let long = vec![7; 300];
    let [first, second] = [(&b"a"[..], 1), (&long, 2)].map(|(v, at)| writer.write(b"k", Some(v), NOW + at));
    assert_eq!(maps.judge(&first, true, times(NOW)), Value::New);
    assert_eq!(value(&maps.merge(&first, times(NOW)).entries[0]), b"a");
    assert_eq!(maps.judge(&first, true, times(NOW)), Value::Known);
    assert_eq!(maps.judge(&second, true, times(NOW)), Value::New);
    maps.merge(&second, times(NOW));
    assert_eq!(maps.judge(&first, true, times(NOW)), Value::Old);
    let entry = maps.get("t", b"k").unwrap();
    assert_eq!((value(&entry), entry.author, entry.at), (&long[..], second.author, NOW + 2));
    assert_eq!(maps.list("t").unwrap(), [entry]);
    // Its deletion, and that of what never was.
    let gone = maps.merge(&writer.write(b"k", None, NOW + 3), times(NOW));
    assert_eq!((gone.entries.len(), value(&gone.entries[0])), (1, &b"deleted"[..]));
    assert!(maps.merge(&writer.write(b"other", None, NOW + 3), times(NOW)).entries.is_empty());
    assert_eq!((maps.get("t", b"k"), maps.held().0, maps.held().1), (None, 0, 2));
}

#[test]
fn what_has_no_key_or_is_of_tomorrow_or_of_before_all_deletions_is_none() {
    let marks = Duration::from_secs(3600);
    let (mut maps, mut writer) = (maps(config::Latest { marks, ..config::Latest::default() }), Writer::new());
    let foreign = writer.say("t", b"hello");
    assert_eq!(maps.judge(&foreign, true, times(NOW)), Value::None(Unkeyed::Foreign));
    assert!(maps.merge(&foreign, times(NOW)).entries.is_empty());
    let tomorrow = writer.write(b"k", Some(b"v"), NOW + 24 * HOUR);
    assert_eq!(maps.judge(&tomorrow, false, times(NOW)), Value::Ahead);
    // An hour ahead is none of that, whichever clock is wrong.
    let wrong = Times { own: NOW - 24 * HOUR, common: NOW };
    let soon = writer.write(b"k", Some(b"v"), NOW + HOUR);
    assert_eq!(maps.judge(&soon, true, wrong), Value::New);
    maps.merge(&writer.write(b"x", Some(b"v"), NOW), times(NOW));
    let old = writer.write(b"k", Some(b"v"), NOW - 2 * HOUR);
    assert_eq!(maps.judge(&old, true, times(NOW)), Value::Old, "nobody says that live");
    assert_eq!(maps.judge(&old, false, times(NOW)), Value::New, "a neighbour may have kept it");
    assert_eq!(maps.judge(&writer.say("u", foreign.wire.data()), true, times(NOW)), Value::Old);
}

#[test]
fn what_is_not_taken_is_compared_as_if_it_were_there_until_its_time_has_come() {
    let (mut maps, mut writer) = (maps(config::Latest::default()), Writer::new());
    let kept: Vec<_> = (0..5).map(|n| writer.write(&[n], Some(b"v"), NOW + u64::from(n) * 3)).collect();
    kept.iter().for_each(|record| drop(maps.merge(record, times(NOW))));
    let refused = writer.write(b"no", Some(b"v"), NOW + 4);
    let ahead = writer.write(b"soon", Some(b"v"), NOW + 3 * HOUR);
    maps.refuse(&refused, false);
    maps.refuse(&ahead, true);
    let mut expected: Vec<_> = kept.iter().chain([&refused, &ahead]).map(|r| item(r).unwrap()).collect();
    expected.sort_unstable();
    for slice in [2, 3, 100] {
        let mut snapshot = Snapshot::new(smidge_catchup::Key::new([0; 16]));
        while !maps.fill("t", &mut snapshot, slice) {}
        assert_eq!(snapshot.items(), expected);
    }
    maps.span("t", 1000, times(NOW + 2 * HOUR)).unwrap();
    let mut snapshot = Snapshot::new(smidge_catchup::Key::new([0; 16]));
    maps.fill("t", &mut snapshot, 100);
    assert_eq!(snapshot.items().len(), 6, "it is asked for again");
}

#[test]
fn what_is_deleted_makes_room_once_that_is_forgotten() {
    let marks = Duration::from_secs(3600);
    let (mut maps, mut writer) =
        (maps(config::Latest { keys: 1, marks, ..config::Latest::default() }), Writer::new());
    maps.merge(&writer.write(b"k", Some(b"v"), NOW), times(NOW));
    maps.merge(&writer.write(b"k", None, NOW + 1), times(NOW));
    assert_eq!(maps.admits("t", b"other", 100, times(NOW + HOUR)), Err(Full::Keys(1)));
    assert_eq!(maps.admits("t", b"other", 100, times(NOW + HOUR + 2)), Ok(()));
}

#[test]
fn a_greeting_about_values_is_none_about_messages() {
    let maps = maps(config::Latest::default());
    let name = maps.name("t", times(NOW)).unwrap();
    assert_eq!(read_name(name), (Some(NOW), "t".to_owned()));
    assert_eq!(read_name(b"t".to_vec()), (None, "t".to_owned()));
    for odd in [&b"\0"[..], b"\0short", b"", b"\xff"] {
        assert!(read_name(odd.to_vec()).0.is_none(), "{odd:?}");
    }
}

#[test]
fn a_record_that_is_cut_anywhere_is_none() {
    let record = Writer::new().write(b"key", Some(b"value"), NOW);
    let whole = entry(b"key", Arc::from(record.bytes())).unwrap();
    assert_eq!(value(&whole), b"value");
    for length in 0..record.bytes().len() {
        let cut = entry(b"key", Arc::from(&record.bytes()[..length]));
        assert!(cut.is_none_or(|cut| value(&cut) == b"value"), "{length}");
    }
    assert_eq!(field(0x0a, &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
}

/// What a file has, written by what is taken; whether each commit succeeded is up to the caller.
type File = BTreeMap<Vec<u8>, Vec<u8>>;

fn commit(maps: &mut Maps, file: &mut File, is_end: bool) {
    let mut changes = Vec::new();
    let taken = maps.take(&mut usize::MAX.clone(), is_end, &mut changes);
    for (key, value) in changes {
        match value {
            Some(value) => drop(file.insert(key, value)),
            None => drop(file.remove(&key)),
        }
    }
    maps.written(&taken);
}

/// Another run, with that file.
fn again(file: &File, latest: config::Latest, now: u64) -> (Maps, Vec<Vec<u8>>) {
    let mut maps = maps(latest);
    let mut found = maps.found();
    for (key, value) in file {
        let (tag, row) = rows::read_key(key).unwrap();
        found.get_mut(&tag).unwrap().add(row, key.clone(), value);
    }
    let stale = found.into_values().flat_map(|found| maps.restore(found, true, times(now))).collect();
    (maps, stale)
}

#[test]
fn a_run_has_the_values_marks_and_presence_of_the_one_before() {
    let latest = config::Latest { durable: true, ..config::Latest::default() };
    let (mut maps, mut writer, mut file) = (again(&File::new(), latest, NOW).0, Writer::new(), File::new());
    for n in 0..5u8 {
        maps.merge(&writer.write(&[n], Some(b"v"), NOW + u64::from(n)), times(NOW));
        commit(&mut maps, &mut file, false);
    }
    maps.merge(&writer.write(&[1], None, NOW + 10), times(NOW));
    maps.merge(&writer.write(&[2], Some(b"w"), NOW + 11), times(NOW));
    assert!(maps.unwritten() >= 2);
    maps.presence("t").unwrap().met(Some(NOW - HOUR), NOW + 20);
    commit(&mut maps, &mut file, false);
    assert_eq!((maps.unwritten(), file.len()), (0, 6), "five keys, and how it stands");
    let (mut second, stale) = again(&file, latest, NOW + 30);
    assert_eq!((second.list("t"), second.held(), stale), (maps.list("t"), maps.held(), vec![]));
    assert_eq!(second.presence("t").unwrap().state(), (NOW - HOUR, Some(NOW + 20)));
    assert_eq!(second.unwritten(), 0);
    // What this node writes next is newer than all that it finds, whatever its clock says.
    assert!(second.stamp("t", times(NOW - HOUR)).unwrap() > Stamp::at(NOW + 11));
    // A mark that is forgotten is taken out, and a damaged row, and one of another topic.
    let mut damaged = file.clone();
    let row = rows::key(&rows::tag("t"), &Row::Value(Id::of(&[3])));
    damaged.get_mut(&row).unwrap()[20] ^= 1;
    damaged.get_mut(&row).unwrap().pop();
    let (third, stale) = again(&damaged, latest, NOW + 8 * 24 * HOUR);
    let forgotten = rows::key(&rows::tag("t"), &Row::Value(Id::of(&[1])));
    let gone: BTreeSet<_> = stale.into_iter().collect();
    assert_eq!(gone, [row, forgotten].into());
    assert_eq!(third.held().0, 3);
    // No longer durable: nothing of it stays.
    let rules = TopicRules { latest: Some(config::Latest::default()), ..TopicRules::default() };
    let stale = second.configure(&[("t".to_owned(), rules)].into(), true, times(NOW));
    assert_eq!(stale.into_iter().collect::<BTreeSet<_>>(), file.into_keys().collect());
    assert!(!second.is_durable());
}

#[test]
fn a_commit_that_failed_is_made_again() {
    let latest = config::Latest { durable: true, ..config::Latest::default() };
    let (mut maps, mut writer, mut file) = (again(&File::new(), latest, NOW).0, Writer::new(), File::new());
    maps.merge(&writer.write(b"a", Some(b"v"), NOW), times(NOW));
    let taken = maps.take(&mut usize::MAX.clone(), false, &mut Vec::new());
    assert_eq!(maps.unwritten(), 0);
    maps.not_written(&taken);
    maps.merge(&writer.write(b"b", Some(b"v"), NOW), times(NOW));
    assert_eq!(maps.unwritten(), 2);
    commit(&mut maps, &mut file, true);
    assert_eq!(again(&file, latest, NOW).0.list("t"), maps.list("t"));
    // A file that is opened late has nothing that this run does not.
    let mut late = self::maps(latest);
    late.merge(&writer.write(b"a", None, NOW + 1), times(NOW));
    let mut found = late.found();
    for (key, value) in &file {
        let (tag, row) = rows::read_key(key).unwrap();
        found.get_mut(&tag).unwrap().add(row, key.clone(), value);
    }
    found.into_values().for_each(|found| assert!(late.restore(found, false, times(NOW)).is_empty()));
    // Before it is written, what was in the file is gone.
    late.map_mut("t").throw_away(NOW + HOUR);
    commit(&mut late, &mut file, true);
    assert_eq!(again(&file, latest, NOW).0.held(), (0, 0, 0));
}
