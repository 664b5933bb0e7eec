use std::{task::Waker, time::Duration};

use libp2p::{
    core::{ConnectedPoint, transport},
    swarm::behaviour::ConnectionEstablished,
};

use super::*;
use crate::{
    runtime::sim::{Link, World},
    store::Limits,
};

const LIMITS: Limits = Limits { records: 8, value: 100, bytes: 4000, providers: 3, peers: 4 };

/// Runs a test where time stands still: half a second after its table changed, kad dials of its own accord.
fn meanwhile(test: impl FnOnce()) {
    World::new(1, Link::default()).block_on(Duration::from_secs(1), async { test() });
}

/// As many peers in one bucket of a node's table as it takes, and one more.
fn too_many(local: PeerId) -> Vec<PeerId> {
    let distance =
        |peer: &PeerId| kad::KBucketKey::from(local).distance(&kad::KBucketKey::from(*peer)).ilog2();
    let farthest = |peer: &PeerId| distance(peer) == Some(255);
    std::iter::repeat_with(PeerId::random).filter(farthest).take(kad::K_VALUE.get() + 1).collect()
}

fn at() -> Multiaddr {
    "/ip4/10.0.0.1/udp/4001/quic-v1".parse().unwrap()
}

/// A peer is connected: kad wants a place for it.
fn connect<B: NetworkBehaviour>(behaviour: &mut B, peer: PeerId) {
    behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id: peer,
        connection_id: ConnectionId::new_unchecked(1),
        endpoint: &ConnectedPoint::Listener { local_addr: at(), send_back_addr: at() },
        failed_addresses: &[],
        other_established: 0,
    }));
}

/// The peers that a behaviour wants dialed.
fn dialed<B: NetworkBehaviour>(behaviour: &mut B) -> Vec<PeerId> {
    let mut dialed = Vec::new();
    while let Poll::Ready(event) = behaviour.poll(&mut Context::from_waker(Waker::noop())) {
        if let ToSwarm::Dial { opts } = event {
            dialed.extend(opts.get_peer_id());
        }
    }
    dialed
}

#[test]
fn kad_dials_a_member_of_a_full_bucket_for_a_new_peer_that_is_connected() {
    meanwhile(|| {
        let local = PeerId::random();
        let (mut kad, peers) =
            (kad::Behaviour::new(local, kad::store::MemoryStore::new(local)), too_many(local));
        connect(&mut kad, peers[peers.len() - 1]);
        let added: Vec<_> = peers.iter().map(|peer| kad.add_address(peer, at())).collect();
        assert_eq!(added.last(), Some(&kad::RoutingUpdate::Pending));
        assert_eq!(dialed(&mut kad), peers[..1], "docs/UPSTREAM.md says otherwise of kad");
    });
}

#[test]
fn a_full_bucket_dials_nobody_and_takes_a_new_peer_for_one_that_could_not_be_reached() {
    meanwhile(|| {
        let local = PeerId::random();
        let kad = kad::Behaviour::new(local, Store::memory(local, LIMITS));
        let (mut table, peers) = (Behaviour::new(kad, DialGuard::default()), too_many(local));
        let (last, members) = peers.split_last().unwrap();
        connect(&mut table, *last);
        for member in members {
            assert_eq!(table.replace(*member, &[], &[at()]), [at()]);
        }
        assert!(table.replace(*last, &[], &[at()]).is_empty());
        assert!(table.addresses(last).is_empty());

        let lost = members[7];
        let refused = transport::TransportError::Other(std::io::ErrorKind::ConnectionRefused.into());
        table.on_swarm_event(FromSwarm::DialFailure(DialFailure {
            peer_id: Some(lost),
            error: &DialError::Transport(vec![(at(), refused)]),
            connection_id: ConnectionId::new_unchecked(2),
        }));
        assert_eq!(table.replace(*last, &[], &[at()]), [at()]);
        assert!(table.addresses(&lost).is_empty());
        assert_eq!(dialed(&mut table), []);
    });
}
