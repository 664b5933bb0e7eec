//! What other nodes of the hash table say of peers, cut down to what may be dialed; and what this node says, cut
//! down to what everybody can read.
//!
//! Pure. libp2p's kad takes and gives any number of addresses, wherever they lead.

use libp2p::{Multiaddr, kad::KadPeer};

use crate::{
    node::claims::PER_PEER,
    transport::multiaddr::{is_circuit, over},
};

/// Bytes of an answer that every libp2p node reads, whatever its own limits are (libp2p/specs kad-dht).
const WIRE: usize = 16 * 1024;
/// Of these, for what is not an address or a record: type, key, lengths.
const FRAME: usize = 512;
/// Bytes for peers beside a record, however large that is.
const BESIDE_RECORD: usize = 2 * 1024;
/// Peers taken from one answer that are closer to what was asked for: as many as Kademlia wants.
const CLOSER: usize = 20;
/// Providers taken from one answer.
const PROVIDERS: usize = 64;

/// Leaves of an answer what may be believed: of each peer [`PER_PEER`] addresses that `may_tell` lets through, and that
/// there is a transport for.
pub(super) fn believe(
    closer: &mut Vec<KadPeer>,
    providers: &mut Vec<KadPeer>,
    may_tell: impl Fn(&Multiaddr) -> bool,
) {
    closer.truncate(CLOSER);
    providers.truncate(PROVIDERS);
    for peer in closer.iter_mut().chain(providers) {
        believe_peer(&mut peer.multiaddrs, &may_tell);
    }
}

/// The same for one peer.
pub(super) fn believe_peer(addresses: &mut Vec<Multiaddr>, may_tell: impl Fn(&Multiaddr) -> bool) {
    addresses.retain(|address| over(address).is_some() && may_tell(address));
    // Through a relay only where there is no other way.
    addresses.sort_by_key(is_circuit);
    addresses.truncate(PER_PEER);
}

/// Makes an answer fit what everybody reads, beside a record of `record` bytes: the last addresses of those peers go
/// that have the most, then the last peers.
pub(super) fn fit(closer: &mut Vec<KadPeer>, providers: &mut Vec<KadPeer>, record: usize) {
    let room = (WIRE - FRAME).saturating_sub(record).max(BESIDE_RECORD);
    let mut total: usize = closer.iter().chain(providers.iter()).map(size).sum();
    while total > room {
        let longest = closer.iter_mut().chain(providers.iter_mut()).max_by_key(|peer| peer.multiaddrs.len());
        match longest {
            Some(peer) if peer.multiaddrs.len() > 1 => {
                total -= peer.multiaddrs.pop().map_or(0, |address| address.len() + LENGTHS);
            }
            _ => match providers.pop().or_else(|| closer.pop()) {
                Some(peer) => total -= size(&peer),
                None => return,
            },
        }
    }
}

/// Bytes that name a field and its length, at most.
const LENGTHS: usize = 4;

/// Bytes of a peer in an answer, at most.
fn size(peer: &KadPeer) -> usize {
    let addresses: usize = peer.multiaddrs.iter().map(|address| address.len() + LENGTHS).sum();
    // The type of the connection is two more.
    LENGTHS + peer.node_id.to_bytes().len() + LENGTHS + addresses + 2
}

#[cfg(test)]
mod tests {
    use libp2p::{PeerId, kad::ConnectionType};

    use super::*;

    fn peer(addresses: usize) -> KadPeer {
        let node_id = PeerId::random();
        let at = |n| format!("/ip6/2a00::{n:x}/udp/4001/quic-v1/p2p/{node_id}").parse().unwrap();
        let multiaddrs = (1..=addresses).map(at).collect();
        KadPeer { node_id, multiaddrs, connection_ty: ConnectionType::Connected }
    }

    fn peers(count: usize, addresses: usize) -> Vec<KadPeer> {
        (0..count).map(|_| peer(addresses)).collect()
    }

    /// The bytes of a message of kad with these peers, written out as protobuf does.
    fn encoded(closer: &[KadPeer], providers: &[KadPeer]) -> usize {
        let varint = |n: usize| 1 + (n.max(1).ilog2() / 7) as usize;
        let field = |n: usize| 1 + varint(n) + n;
        let whole = |peer: &KadPeer| {
            let addresses = peer.multiaddrs.iter().map(|a| field(a.len())).sum::<usize>();
            field(field(peer.node_id.to_bytes().len()) + addresses + 2)
        };
        closer.iter().chain(providers).map(whole).sum()
    }

    #[test]
    fn every_answer_fits_and_names_as_many_peers_as_it_can() {
        for (closer, providers, addresses, record) in [
            (20, 0, 16, 0),
            (20, 20, 16, 0),
            (20, 20, 300, 0),
            (20, 0, 3, 0),
            (20, 0, 16, 12_000),
            (20, 0, 16, 64_000),
            (200, 200, 1, 0),
        ] {
            let (mut near, mut have) = (peers(closer, addresses), peers(providers, addresses));
            fit(&mut near, &mut have, record);
            let bytes = encoded(&near, &have);
            let room = (WIRE - FRAME).saturating_sub(record).max(BESIDE_RECORD);
            assert!(bytes <= room, "{bytes} bytes");
            if closer == 20 && record == 0 {
                assert_eq!((near.len(), have.len()), (closer, providers), "addresses go before peers");
            }
            assert!(near.iter().chain(&have).all(|peer| !peer.multiaddrs.is_empty()));
            if (closer, addresses) == (20, 3) {
                assert!(near.iter().all(|peer| peer.multiaddrs.len() == 3), "what fits is left alone");
            }
        }
    }

    #[test]
    fn of_each_peer_that_is_told_of_eight_addresses_are_believed_those_that_can_be_dialed() {
        let (mut closer, mut providers) = (peers(300, 100), peers(300, 100));
        let relayed: Multiaddr = "/ip4/10.0.0.1/tcp/1/p2p-circuit".parse().unwrap();
        closer[0].multiaddrs = ["/ip4/10.0.0.1/tcp/1/ws", "/dns4/x/tcp/1", "/ip4/10.0.0.2/tcp/1"]
            .map(|a| a.parse().unwrap())
            .to_vec();
        closer[0].multiaddrs.insert(0, relayed.clone());
        let last: Multiaddr = "/ip4/10.0.0.2/tcp/1".parse().unwrap();
        believe(&mut closer, &mut providers, |_| true);
        assert_eq!((closer.len(), providers.len()), (CLOSER, PROVIDERS));
        assert_eq!(closer[0].multiaddrs, [last, relayed]);
        assert!(closer[1..].iter().chain(&providers).all(|peer| peer.multiaddrs.len() == PER_PEER));
        believe(&mut closer, &mut providers, |_| false);
        assert!(closer.iter().chain(&providers).all(|peer| peer.multiaddrs.is_empty()));
    }
}
