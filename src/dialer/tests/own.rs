//! Records that lead to the node itself, or to another one with its key.

use super::*;

#[test]
fn we_ourselves_among_the_records_are_skipped() {
    let mut world = World::new(3);
    let peer = name("peer");
    world.reconciler.on_own_addresses([at(1)], world.now);
    world.mirrors.insert(at(2));
    world.names.insert(peer.clone(), records([1, 2, 3]));
    world.start_replica(3);
    world.watch(&peer);
    world.run(S(40));
    assert_eq!((world.dials_of(1).len(), world.dials_of(2).len()), (0, 1));
    assert_eq!(world.states()[&at(1)].0, RecordState::Own);
    assert_eq!(world.states()[&at(2)].0, RecordState::Own);
    assert!(world.is_connected(3));
    // The record goes and comes back with another peer.
    world.names.insert(peer.clone(), records([3]));
    world.run(S(7));
    world.mirrors.clear();
    world.names.insert(peer, records([2, 3]));
    world.start_replica(2);
    world.run(S(7));
    assert!(world.is_connected(2));
}

#[test]
fn our_own_key_at_an_address_that_is_not_ours_is_said_once_asked_again_and_believed_no_longer_than_it_is_so()
{
    let mut world = World::new(3);
    let peer = name("peer");
    let here = |n: u32| std::net::IpAddr::from(Ipv4Addr::from(0x0a00_0b00 + n));
    let Some((_, first)) = crate::config::TransportKind::and_socket(&at(1)) else { panic!("no socket") };
    assert_eq!(first.ip(), here(1));
    world.reconciler.on_host_addresses([here(1)], world.now);
    world.reconciler.on_external_addresses([at(4)]);
    world.mirrors.extend([at(1), at(2), at(4)]);
    world.names.insert(peer.clone(), records([1, 2, 4]));
    world.watch(&peer);
    world.run(S(600));
    let said = |world: &World, wanted: &Notice| world.notices.iter().filter(|(_, n)| n == wanted).count();
    assert_eq!(said(&world, &Notice::SameKey { address: at(2) }), 1, "said once");
    for quiet in [1, 4] {
        assert_eq!(
            said(&world, &Notice::Own { address: at(quiet) }),
            1,
            "this host's own, or known to lead here"
        );
    }
    assert_eq!(world.reconciler.same_key().collect::<Vec<_>>(), [&at(2)]);
    let asked = world.dials_of(2).len();
    assert!((8..=13).contains(&asked), "asked about once a minute: {asked}");
    assert_eq!(world.states()[&at(2)].0, RecordState::Own);
    // Another peer has the address now.
    world.mirrors.remove(&at(2));
    world.start_replica(2);
    world.run(S(80));
    assert!(world.is_connected(2) && world.reconciler.same_key().next().is_none());
    // The host's addresses change: what was ours is asked immediately.
    world.mirrors.remove(&at(1));
    world.start_replica(1);
    world.reconciler.on_host_addresses([here(9)], world.now);
    world.run(S(1));
    assert!(world.is_connected(1));
}

#[test]
fn listening_on_a_record_later_makes_it_our_own() {
    let mut world = World::new(3);
    let peer = name("peer");
    world.names.insert(peer.clone(), records([1]));
    world.watch(&peer);
    world.run(S(3));
    world.reconciler.on_own_addresses([at(1).with(Protocol::P2p(PeerId::random()))], world.now);
    assert_eq!(world.states()[&at(1)].0, RecordState::Own);
}
