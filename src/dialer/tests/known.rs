//! Peers that an earlier run was connected to: tried on start, and given up in time.

use super::*;

#[test]
fn known_peers_are_found_without_any_name() {
    let mut world = World::new(3);
    let peer = name("peer");
    world.watch(&peer); // no name server answers
    let known: Vec<_> = (0..3).map(|n| (world.start_replica(n), at(n))).collect();
    world.reconciler.try_known(known, world.now);
    world.run(S(1));
    assert_eq!(world.connections.len(), 3);
    world.run(S(600));
    assert_eq!(world.dials.len(), 3, "what is connected is left alone");
    assert_eq!(world.forgotten, []);
}

#[test]
fn a_known_peer_that_starts_late_is_found_and_one_that_never_does_is_forgotten_in_time() {
    let mut world = World::new(3);
    let (late, never) = (PeerId::random(), PeerId::random());
    world.reconciler.try_known([(late, at(1)), (never, at(2))], world.now);
    world.run(S(40));
    world.replicas.insert(at(1), late);
    world.run(S(30));
    assert_eq!(world.connections.values().map(|(_, p)| *p).collect::<Vec<_>>(), [late]);
    assert_eq!(world.forgotten, [(never, Some(at(2)))]);
    let dials = world.dials_of(2).len();
    assert!(dials > 3, "it was tried: {dials}");
    world.run(S(600));
    assert_eq!(world.dials_of(2).len(), dials, "and is not tried any more");
    assert!(world.dialing_peak <= Policy::default().parallel);
}

#[test]
fn somebody_else_at_a_known_address_is_adopted_and_the_peer_that_was_there_is_dropped() {
    let mut world = World::new(3);
    let (old, new) = (PeerId::random(), world.start_replica(1));
    world.reconciler.try_known([(old, at(1))], world.now);
    world.run(S(70));
    assert_eq!(world.connections.values().map(|(_, p)| *p).collect::<Vec<_>>(), [new]);
    assert_eq!(world.forgotten, [(old, Some(at(1)))]);
}

#[test]
fn a_name_that_leads_to_a_known_address_decides_who_is_there() {
    let mut world = World::new(3);
    let peer = name("peer");
    world.reconciler.try_known([(PeerId::random(), at(1))], world.now);
    world.run(S(2));
    world.names.insert(peer.clone(), records([1]));
    world.watch(&peer);
    world.run(S(100));
    assert_eq!(world.forgotten, [], "the name says that somebody is there");
    world.start_replica(1);
    world.run(S(31));
    assert!(world.is_connected(1), "{:?}", world.states());
}

#[test]
fn a_known_address_that_is_our_own_now_is_skipped_and_dropped() {
    let mut world = World::new(3);
    let (old, other) = (PeerId::random(), PeerId::random());
    world.mirrors.insert(at(2));
    world.reconciler.on_own_addresses([at(1)], world.now);
    world.reconciler.try_known([(old, at(1)), (other, at(2))], world.now);
    world.run(S(600));
    assert_eq!((world.dials_of(1).len(), world.dials_of(2).len()), (0, 1));
    assert_eq!(world.forgotten, [(old, Some(at(1))), (other, Some(at(2)))]);
}

#[test]
fn a_known_peer_that_is_lost_is_dialed_again_for_a_while() {
    let mut world = World::new(3);
    let peer = world.start_replica(1);
    world.reconciler.try_known([(peer, at(1))], world.now);
    world.run(S(600));
    world.kill(1, MS(5));
    world.run(S(20));
    world.replicas.insert(at(1), peer);
    world.run(S(40));
    assert_eq!(world.connections.len(), 1, "it came back in time");
    world.kill(1, MS(5));
    world.run(S(70));
    assert_eq!(world.forgotten, [(peer, None)]);
    let dials = world.dials.len();
    world.run(S(600));
    assert_eq!(world.dials.len(), dials);
}

#[test]
fn a_node_that_ends_lets_go_of_known_peers() {
    let mut world = World::new(3);
    world.reconciler.try_known([(PeerId::random(), at(1))], world.now);
    world.run(S(1));
    let dials = world.dials.len();
    world.reconciler.drop_known();
    world.run(S(600));
    assert_eq!(world.dials.len(), dials);
    assert_eq!(world.forgotten, [], "the next run may try them");
}
