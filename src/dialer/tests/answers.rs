//! What is kept, let go and said when name servers answer in part, refuse, fail or are silent.

use std::net::Ipv6Addr;

use super::*;
use crate::{config::Family, dialer::Open};

fn at6(n: u16) -> Multiaddr {
    Multiaddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n))
        .with(Protocol::Udp(4001))
        .with(Protocol::QuicV1)
}

fn part(addresses: Vec<Multiaddr>, family: Family, why: Option<&str>, refused: bool) -> Answer {
    Answer::Part(addresses, Open { family, why: why.map(str::to_owned), refused })
}

fn both(of: std::ops::Range<u32>) -> Vec<Multiaddr> {
    of.flat_map(|n| [at(n), at6(n as u16)]).collect()
}

impl World {
    fn records_of(&self, target: &Target) -> BTreeSet<Multiaddr> {
        let status = self.reconciler.status(self.now).into_iter().find(|s| s.name == target.to_string());
        status.unwrap().records.into_iter().map(|r| r.address).collect()
    }

    fn count(&self, what: impl Fn(&Notice) -> bool) -> usize {
        self.notices.iter().filter(|(_, notice)| what(notice)).count()
    }
}

#[test]
fn what_nobody_answered_stands_and_is_said_once() {
    let mut world = World::new(1);
    let peer = name("peer");
    world.names.insert(peer.clone(), both(1..4));
    world.watch(&peer);
    world.run(S(30));
    world.answers.insert(peer.clone(), part(records(1..4), Family::V6, Some("silence"), false));
    world.run(S(60));
    assert_eq!(world.records_of(&peer), both(1..4).into_iter().collect());
    let status = world.reconciler.status(world.now).remove(0);
    assert_eq!(status.last_error.as_deref(), Some("silence"));
    let news = |notice: &Notice| matches!(notice, Notice::PartlyResolved { repeated: false, kept: 3, .. });
    assert_eq!(world.count(news), 1, "{:?}", world.notices);
    // An answer for the other family takes its records away.
    world.answers.insert(peer.clone(), part(records(1..3), Family::V6, Some("silence"), false));
    world.run(S(30));
    let expected: BTreeSet<_> = records(1..3).into_iter().chain((1..4).map(at6)).collect();
    assert_eq!(world.records_of(&peer), expected);
    world.answers.insert(peer.clone(), Answer::Records(records(1..3)));
    world.run(S(30));
    assert_eq!(world.records_of(&peer), records(1..3).into_iter().collect(), "an answer decides");
    assert_eq!(world.reconciler.status(world.now).remove(0).last_error, None);
}

#[test]
fn one_bad_target_or_known_peer_does_not_spoil_the_others() {
    let mut world = World::new(1);
    let [good, refused, gone] = ["good", "refused", "gone"].map(name);
    let dead: Target = at(9).to_string().parse().unwrap();
    world.names.insert(good.clone(), records([1, 2]));
    world.names.insert(gone.clone(), vec![]);
    let known = [(world.start_replica(3), at(3)), (PeerId::random(), at(8))];
    (1..3).for_each(|n| {
        world.start_replica(n);
    });
    for target in [&refused, &dead, &gone, &good] {
        world.watch(target);
    }
    world.reconciler.try_known(known, world.now);
    world.run(S(5));
    assert!(world.is_connected(1) && world.is_connected(2), "{:?}", world.states());
    assert_eq!(world.connections.len(), 3, "the known peer that is there, too");
}

#[test]
fn the_first_dial_does_not_wait_for_the_rest_of_the_answer() {
    let mut world = World::new(1);
    let peer = name("peer");
    world.watch(&peer);
    assert_eq!(world.reconciler.poll(world.now), Some(Action::Lookup(peer.clone())));
    world.reconciler.on_lookup(&peer, part(vec![at(1)], Family::V6, None, false), world.now);
    assert_eq!(world.reconciler.poll(world.now), Some(Action::Dial(at(1), None)));
    let later = world.now + S(30);
    while let Some(action) = world.reconciler.poll(later) {
        assert!(!matches!(action, Action::Lookup(_)), "it is still being asked");
    }
    world.reconciler.on_lookup(&peer, Answer::Records(vec![at(1), at6(1)]), later);
    assert_eq!(world.reconciler.poll(later), Some(Action::Dial(at6(1), None)));
}

#[test]
fn a_family_that_a_name_never_had_may_be_refused_without_a_word() {
    let mut world = World::new(1);
    let peer = name("peer");
    world.answers.insert(peer.clone(), part(vec![at(1)], Family::V6, Some("REFUSED"), true));
    world.start_replica(1);
    world.watch(&peer);
    world.run(S(60));
    assert!(world.is_connected(1));
    assert_eq!(world.count(|n| matches!(n, Notice::PartlyResolved { .. })), 0);
    assert_eq!(world.reconciler.status(world.now).remove(0).last_error, None);
}

#[test]
fn records_that_neither_answer_nor_are_confirmed_are_let_go_after_a_good_while() {
    let stale = Policy::default().stale;
    let mut world = World::new(3);
    let peer = name("peer");
    world.names.insert(peer.clone(), records([1, 2]));
    let gone = world.start_replica(1);
    world.start_replica(2);
    world.watch(&peer);
    world.run(S(30));
    // The name servers refuse from now on, and one of the two dies.
    world.names.remove(&peer);
    world.run(S(600));
    assert!(world.is_connected(1) && world.is_connected(2), "who is connected is not let go, however long");
    world.kill(1, S(5));
    world.run(stale - S(30));
    let dials = world.dials_of(1).len();
    assert!(world.states().contains_key(&at(1)) && dials > 10, "{dials}: it is dialed for a good while");
    world.run(S(60));
    assert_eq!(world.records_of(&peer), [at(2)].into());
    assert!(world.is_connected(2));
    let let_go = |n: &Notice| matches!(n, Notice::LetGo { addresses, .. } if *addresses == [at(1)]);
    assert_eq!(world.count(let_go), 1);
    assert!(world.forgotten.contains(&(gone, None)), "{:?}", world.forgotten);
    let dials = world.dials_of(1).len();
    world.run(S(600));
    assert_eq!(world.dials_of(1).len(), dials, "nor dialed");
    // A name server that answers again is believed.
    world.start_replica(1);
    world.names.insert(peer, records([1, 2]));
    world.run(S(5));
    assert!(world.is_connected(1));
}

#[test]
fn records_that_answers_confirm_are_dialed_for_ever() {
    let mut world = World::new(3);
    let peer = name("peer");
    world.answers.insert(peer.clone(), part(vec![at(1)], Family::V6, Some("silence"), false));
    world.watch(&peer);
    world.run(S(3600));
    assert_eq!(world.records_of(&peer), [at(1)].into());
    assert_eq!(world.count(|n| matches!(n, Notice::LetGo { .. })), 0);
}

#[test]
fn a_family_that_is_refused_for_a_good_while_is_let_go_unless_it_answers() {
    let mut world = World::new(3);
    let peer = name("peer");
    world.names.insert(peer.clone(), vec![at(1), at6(1), at6(2)]);
    world.start_replica(1);
    let alive = PeerId::random();
    world.replicas.insert(at6(2), alive);
    world.watch(&peer);
    world.run(S(5));
    world.answers.insert(peer.clone(), part(vec![at(1)], Family::V6, Some("REFUSED"), true));
    world.run(S(700));
    assert_eq!(world.records_of(&peer), [at(1), at6(2)].into());
}

#[test]
fn names_that_are_answered_again_are_said_to_be_with_the_same_records_too() {
    let mut world = World::new(3);
    let peer = name("peer");
    world.names.insert(peer.clone(), records([1]));
    world.start_replica(1);
    world.watch(&peer);
    world.run(S(30));
    let recovered = |n: &Notice| matches!(n, Notice::Resolved { recovered: true, changed: false, .. });
    assert_eq!(world.count(recovered), 0);
    let records = world.names.remove(&peer).unwrap();
    world.run(S(30));
    world.names.insert(peer, records);
    world.run(S(30));
    assert_eq!(world.count(recovered), 1);
}

proptest! {
    /// Whatever is answered: a record goes by an answer that leaves it out, or because it was not confirmed.
    #[test]
    fn no_record_goes_without_a_reason(answers in prop::collection::vec(0_usize..7, 1..40)) {
        let mut world = World::new(5);
        let peer = name("peer");
        world.watch(&peer);
        let all = vec![at(1), at(2), at6(1), at6(2)];
        for kind in answers {
            let before = if world.now == world.start { BTreeSet::new() } else { world.records_of(&peer) };
            let answer = match kind {
                0 => Answer::Records(all.clone()),
                1 => Answer::Records(vec![at(1), at6(1)]),
                2 => Answer::Nothing("none".into()),
                3 => Answer::Failed("silence".into()),
                4 => part(vec![at(1)], Family::V6, Some("silence"), false),
                5 => part(vec![at6(1)], Family::V4, Some("REFUSED"), true),
                _ => part(vec![at(3)], Family::Any, Some("a search domain is silent"), false),
            };
            world.reconciler.on_lookup(&peer, answer, world.now);
            let after = world.records_of(&peer);
            let stands = |address: &Multiaddr| match kind {
                3 | 6 => true,
                4 => matches!(address.iter().next(), Some(Protocol::Ip6(_))),
                5 => matches!(address.iter().next(), Some(Protocol::Ip4(_))),
                _ => false,
            };
            for address in before.iter().filter(|a| stands(a)) {
                prop_assert!(after.contains(address), "{address} went with answer {kind}");
            }
            world.now += S(1);
        }
    }
}
