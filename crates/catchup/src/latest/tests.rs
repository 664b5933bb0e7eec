use proptest::prelude::*;

use super::*;

fn version(key: &[u8], millis: u64, author: u8, value: &[u8]) -> Version {
    let (stamp, author) = (Stamp::at(millis), Id([author; 16]));
    let record: Arc<[u8]> =
        [&stamp.0.to_le_bytes()[..], &author.0, &[key.len() as u8], key, value].concat().into();
    Version { stamp, author, id: Id::of(&record), mark: value.is_empty(), record }
}

fn state(latest: &Latest) -> Vec<(Arc<[u8]>, Version)> {
    latest.iter().map(|(key, version)| (Arc::clone(key), version.clone())).collect()
}

/// All that one has is merged into the other, as a session does it.
fn catch_up(to: &mut Latest, from: &Latest) {
    for (key, version) in state(from) {
        to.merge(&key, version);
    }
}

fn consistent(latest: &Latest) {
    assert_eq!(latest.keys.len(), latest.ranks.len());
    assert_eq!(latest.keys.len(), latest.items.len());
    assert_eq!(latest.bytes, latest.keys.iter().map(|(key, version)| size(key, version.record.len())).sum());
    assert!(latest.keys.len() <= latest.bounds.keys && latest.bytes <= latest.bounds.bytes);
    assert_eq!(latest.marks.len(), latest.keys.values().filter(|version| version.mark).count());
}

#[test]
fn the_later_stamp_wins_and_between_equal_ones_the_author_decides() {
    let mut latest = Latest::new(Bounds::default());
    assert!(latest.merge(b"k", version(b"k", 2, 1, b"a")).newest);
    assert!(!latest.merge(b"k", version(b"k", 1, 9, b"b")).newest);
    assert!(latest.merge(b"k", version(b"k", 2, 2, b"c")).newest);
    assert!(!latest.merge(b"k", version(b"k", 2, 2, b"c")).newest, "once");
    assert_eq!(latest.get(b"k"), Some(&version(b"k", 2, 2, b"c")));
    consistent(&latest);
}

#[test]
fn what_was_deleted_is_not_revived_by_who_missed_it_within_the_time_of_a_mark() {
    let hour = 3_600_000;
    let bounds = Bounds { marks: Duration::from_secs(24 * 3600), ..Bounds::default() };
    let mut here = Latest::new(bounds);
    here.merge(b"k", version(b"k", hour, 1, b"a"));
    let mut away = Latest::new(bounds);
    catch_up(&mut away, &here);
    here.merge(b"k", version(b"k", 2 * hour, 1, b""));
    assert_eq!(here.get(b"k"), None);
    here.expire(25 * hour);
    catch_up(&mut here, &away);
    assert_eq!(here.get(b"k"), None, "the mark is newer");

    let mark = version(b"k", 2 * hour, 1, b"");
    here.expire(27 * hour);
    assert!(here.is_empty() && here.is_forgotten(mark.stamp));
    // Who was away for longer throws its copy away, but for what it wrote since.
    away.merge(b"new", version(b"new", hour + 1, 1, b"b"));
    assert_eq!(away.throw_away(hour), vec![b"k"[..].into()]);
    catch_up(&mut here, &away);
    assert_eq!(here.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>(), [b"new"]);
    // A mark that others still have deletes what is older, and is not kept again.
    here.merge(b"k", version(b"k", hour, 1, b"a"));
    assert!(here.merge(b"k", mark.clone()).newest && !here.merge(b"k", mark).newest);
    assert_eq!((here.version(b"k"), here.marks(), here.len()), (None, 0, 1));
    consistent(&here);
    consistent(&away);
}

#[test]
fn over_a_bound_a_set_is_refused_where_it_is_made_and_others_make_the_oldest_give_way() {
    let mut latest = Latest::new(Bounds { keys: 2, bytes: 1000, ..Bounds::default() });
    latest.merge(b"a", version(b"a", 1, 1, b"x"));
    latest.merge(b"b", version(b"b", 2, 1, b"x"));
    assert_eq!(latest.admits(b"c", 1), Err(Full::Keys(2)));
    assert_eq!(latest.admits(b"a", 25), Ok(()), "no key more");
    assert_eq!(latest.admits(b"a", 900), Err(Full::Bytes(1000)));
    let change = latest.merge(b"c", version(b"c", 3, 1, b"x"));
    assert_eq!((change.newest, change.gave_way), (true, vec![b"a"[..].into()]));
    let change = latest.merge(b"a", version(b"a", 1, 1, b"x"));
    assert_eq!((change.newest, change.gave_way), (false, vec![b"a"[..].into()]), "and does not come back");
    consistent(&latest);
}

/// A commit to a file of rows; `between` is what happens while it is under way.
fn commit(
    latest: &mut Latest,
    file: &mut BTreeMap<Id, Arc<[u8]>>,
    room: usize,
    between: impl FnOnce(&mut Latest),
) {
    let taken = latest.take_unwritten(room);
    for Unsaved { id, key, is_kept } in &taken {
        match latest.version(key) {
            Some(version) => drop(file.insert(*id, version.record.clone())),
            None => assert!(file.remove(id).is_some(), "nothing is taken out that was never there"),
        }
        assert_eq!(latest.version(key).is_some(), *is_kept);
    }
    between(latest);
    latest.written(&taken);
}

proptest! {
    #[test]
    fn what_is_taken_makes_a_file_of_what_is_kept(
        versions in versions(), keys in 1usize..6, steps in proptest::collection::vec(0u8..5, 60),
    ) {
        let bounds = Bounds { keys, marks: Duration::from_millis(5), ..Bounds::default() };
        let (mut latest, mut file) = (Latest::new(bounds), BTreeMap::new());
        latest.track(false);
        for (n, ((key, version), step)) in versions.into_iter().zip(steps).enumerate() {
            let merge = |latest: &mut Latest| drop(latest.merge(&[key], version));
            match step {
                0 => commit(&mut latest, &mut file, 1, merge),
                1 => commit(&mut latest, &mut file, usize::MAX, merge),
                // It fails.
                2 => {
                    let taken = latest.take_unwritten(500);
                    merge(&mut latest);
                    latest.restore_unwritten(&taken);
                }
                3 => {
                    merge(&mut latest);
                    latest.expire(n as u64);
                }
                _ => merge(&mut latest),
            }
            prop_assert!(latest.unwritten() <= keys + file.len());
        }
        commit(&mut latest, &mut file, usize::MAX, |_| {});
        let kept: BTreeMap<_, _> = latest.iter().map(|(key, v)| (Id::of(key), v.record.clone())).collect();
        prop_assert_eq!(&file, &kept);
        prop_assert_eq!(latest.unwritten(), 0);
        prop_assert_eq!(latest.untrack().len(), kept.len());
    }
}

fn versions() -> impl Strategy<Value = Vec<(u8, Version)>> {
    let one = (0u8..12, 0u64..20, 0u8..3, proptest::collection::vec(any::<u8>(), 0..40));
    let one = one.prop_map(|(key, millis, author, value)| (key, version(&[key], millis, author, &value)));
    proptest::collection::vec(one, 0..60)
}

fn merged(bounds: Bounds, versions: &[(u8, Version)]) -> Latest {
    let mut latest = Latest::new(bounds);
    versions.iter().for_each(|(key, version)| {
        latest.merge(&[*key], version.clone());
        consistent(&latest);
    });
    latest
}

proptest! {
    #[test]
    fn any_order_and_any_repetition_leave_the_same(
        versions in versions(), again in versions(), seed in any::<u64>(), keys in 1usize..12,
    ) {
        let bounds = Bounds { keys, ..Bounds::default() };
        let mut all: Vec<_> = versions.iter().chain(&again).cloned().collect();
        let expected = state(&merged(bounds, &all));
        all.extend(versions);
        fastrand::Rng::with_seed(seed).shuffle(&mut all);
        prop_assert_eq!(state(&merged(bounds, &all)), expected);
    }

    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        a in versions(), b in versions(), c in versions(), keys in 1usize..12,
    ) {
        let bounds = Bounds { keys, ..Bounds::default() };
        let of = |versions: &[(u8, Version)]| merged(bounds, versions);
        let join = |one: &[(u8, Version)], others: &[&Latest]| {
            let mut joined = of(one);
            others.iter().for_each(|other| catch_up(&mut joined, other));
            joined
        };
        prop_assert_eq!(state(&join(&a, &[&of(&b)])), state(&join(&b, &[&of(&a)])));
        prop_assert_eq!(state(&join(&a, &[&of(&b), &of(&c)])), state(&join(&a, &[&join(&b, &[&of(&c)])])));
        prop_assert_eq!(state(&join(&a, &[&of(&a)])), state(&of(&a)));
    }

    /// With a bound in bytes what gives way depends on how large values were that are no more; once all have met, none
    /// of that is left.
    #[test]
    fn nodes_that_meet_end_the_same_under_a_bound_in_bytes(
        nodes in proptest::collection::vec(versions(), 2..5), bytes in 400usize..3000,
    ) {
        let bounds = Bounds { bytes, ..Bounds::default() };
        let mut nodes: Vec<_> = nodes.iter().map(|versions| merged(bounds, versions)).collect();
        for _ in 0..nodes.len() + 1 {
            for n in 0..nodes.len() {
                let (before, rest) = nodes.split_at_mut(n);
                let Some((node, behind)) = rest.split_first_mut() else { continue };
                for other in before.iter_mut().chain(behind) {
                    catch_up(node, other);
                    catch_up(other, node);
                }
            }
        }
        for node in &nodes {
            consistent(node);
            prop_assert_eq!(state(node), state(&nodes[0]));
        }
    }
}
