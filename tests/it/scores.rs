//! What peers' scores are made of, as the configuration has it.

use crate::support::{Network, run};
use libp2p::Multiaddr;
use smidge::Client;

/// A node at replica 2's address, on any port, that dials `to`.
fn beside(net: &Network, to: &Multiaddr) -> Client {
    let mut config = net.config(2, &[]);
    config.listen.addresses = vec![format!("/ip4/{}/udp/0/quic-v1", net.ip(2)).parse().unwrap()];
    config.dial.addresses = vec![to.clone()];
    net.spawn(config)
}

#[test]
fn more_peers_at_one_address_than_gossip_colocated_lose_score_and_so_many_do_not() {
    run(async |net| {
        for (colocated, suffer) in [(1, true), (2, false)] {
            let n = 3 + colocated as u8;
            let mut config = net.config(n, &[]);
            config.gossip.colocated = colocated;
            let judge = net.spawn(config);
            let two = [beside(&net, &net.addr(n)), beside(&net, &net.addr(n))];
            net.connected(&judge, two.iter().map(Client::peer_id)).await;
            let scores: Vec<_> = judge.peers().await.unwrap().iter().map(|p| p.score.unwrap()).collect();
            assert_eq!((scores.len(), scores.iter().all(|s| *s < 0.0)), (2, suffer), "{scores:?}");
        }
    });
}
