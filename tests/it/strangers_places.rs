//! Strangers who take all the connections there are, and the node's own, who get theirs all the same.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use futures::StreamExt;
use libp2p::{Multiaddr, multiaddr::Protocol, swarm::SwarmEvent};
use smidge::Client;

use crate::{
    strangers_claims::stranger,
    support::{Network, run},
};

/// Strangers who connect to a node and stay: how many of them were refused.
#[derive(Default)]
struct Crowd(Arc<AtomicUsize>);

impl Crowd {
    /// One more, from replica `n`'s address.
    fn add(&self, net: &Network, n: u8, node: u8) {
        let any_port = Multiaddr::from(net.ip(n)).with(Protocol::Udp(0)).with(Protocol::QuicV1);
        let (mut swarm, _) = stranger(&net.rt, &any_port, Vec::new());
        let (refused, node) = (self.0.clone(), net.addr(node));
        net.rt.spawn(async move {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::NewListenAddr { .. } => swarm.dial(node.clone()).unwrap(),
                    SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. } => {
                        refused.fetch_add(1, Relaxed);
                    }
                    _ => {}
                }
            }
        });
    }

    /// Waits until `all` came, of whom `places` stayed.
    async fn settle(&self, net: &Network, node: &Client, all: usize, places: usize) {
        net.until("strangers, let in and refused", node, |node| async move {
            self.0.load(Relaxed) >= all - places && node.peers().await.unwrap().len() >= places
        })
        .await;
        assert_eq!(node.peers().await.unwrap().len(), places);
    }
}

#[test]
fn strangers_from_one_address_leave_places_to_others() {
    run(async |net| {
        let mut config = net.config(3, &[]);
        config.limits.connections = 16;
        let node = net.spawn(config);
        net.listening(&node).await;
        let crowd = Crowd::default();
        (0..20).for_each(|_| crowd.add(&net, 99, 3));
        // Three quarters of 16 are for strangers, half of these for one address.
        crowd.settle(&net, &node, 20, 6).await;
        crowd.add(&net, 98, 3);
        crowd.settle(&net, &node, 21, 7).await;
    });
}

#[test]
fn replicas_and_known_peers_have_a_place_however_many_strangers_came_first() {
    run(async |net| {
        net.set("all", [3, 4]);
        let mut config = net.config(3, &["all"]);
        config.limits.connections = 16;
        let node = net.spawn(config.clone());
        net.listening(&node).await;
        let crowd = Crowd::default();
        (0..20).for_each(|n| crowd.add(&net, 60 + n, 3));
        crowd.settle(&net, &node, 20, 12).await;
        // Behind a name: dialed, and let in.
        let replica = net.node(4, &["all"]);
        net.everyone(&[node.clone(), replica.clone()]).await;
        // At an address of a name, and not dialed: whoever is there now only dials.
        net.set("all", [3, 4, 5]);
        let mut dials_only = net.config(5, &["all"]);
        dials_only.listen.addresses = vec![net.addr(5).replace(1, |_| Some(Protocol::Udp(0))).unwrap()];
        net.until("another record", &node, |node| async move {
            node.names().await.unwrap().iter().any(|name| name.records.len() == 3)
        })
        .await;
        let other = net.spawn(dials_only);
        net.connected(&other, [node.peer_id()]).await;
        net.connected(&node, [other.peer_id(), replica.peer_id()]).await;
        assert_eq!(node.peers().await.unwrap().len(), 14, "all the strangers are still there");
    });
}
