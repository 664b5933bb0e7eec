//! smidge and a stock node that know nothing of each other, on one link: each finds the other by mDNS.
//!
//! The stock one leaves loopback alone, so the link is an interface in a network namespace of the test's
//! own, where the test runs again as a process.

use std::{env, process::Command, thread};

use futures::channel::oneshot;
use libp2p::{
    Multiaddr,
    identity::Keypair,
    mdns::{self, tokio::Behaviour},
    swarm::SwarmEvent,
};
use smidge_bench::{Side, Tuning, driven::Driven};

use crate::{
    node::{config, spawn, until},
    patiently, run,
};

/// Set inside.
const INSIDE: &str = "SMIDGE_MDNS_CONFORMANCE";
/// The link: the host's own end of a cable. What it says to the group comes back to it.
const LINK: &str = "ip link set lo up && ip link add wire type veth peer name far && ip link set far up && \
                    ip addr add 10.79.0.1/24 dev wire && ip addr add fd00:79::1/64 dev wire nodad && \
                    ip link set wire up";

fn inside(name: &str, test: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return test();
    }
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let output = Command::new("unshare")
        .args(if is_root { &[][..] } else { &["--user", "--map-root-user"] })
        .args(["--net", "--", "sh", "-c", &format!("{LINK} && exec \"$0\" --exact {name} --nocapture")])
        .arg(env::current_exe().unwrap())
        .env(INSIDE, "1")
        .output()
        .expect("this test needs `unshare` (util-linux), `ip` (iproute2) and `sh`");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{name}: {}\n{out}\n{err}", output.status);
}

/// A stock node that listens at `address`, and its discovery.
async fn stock_node(stock: &dyn Side, address: &str, ipv6: bool) -> Driven<Behaviour> {
    let key = Keypair::generate_ed25519();
    let (made, behaviour) = oneshot::channel();
    let peer = key.public().to_peer_id();
    // tokio's: it has to be made on its runtime.
    stock.spawner()(Box::pin(async move {
        let config = mdns::Config { enable_ipv6: ipv6, ..mdns::Config::default() };
        let _ = made.send(Behaviour::new(config, peer));
    }));
    let behaviour = behaviour.await.unwrap().unwrap();
    let node = Driven::new(stock, &key, &Tuning::default(), behaviour, |_| true);
    let address: Multiaddr = address.parse().unwrap();
    node.call(move |swarm| swarm.listen_on(address)).await.unwrap();
    node
}

fn mutual(ip: &'static str, ipv6: bool) {
    run(async move |sides| {
        let any = format!("{ip}/udp/0/quic-v1");
        let mut stock = stock_node(&*sides.stock, &any, ipv6).await;
        let mut config = config();
        config.mdns.enabled = true;
        config.listen.addresses = vec![any.parse().unwrap()];
        let client = spawn(&sides, config);
        let (ours, theirs) = (client.peer_id(), stock.peer);
        // Theirs hears of ours, at the very address.
        let heard = stock.event(|event| match event {
            SwarmEvent::Behaviour(mdns::Event::Discovered(all)) => {
                all.into_iter().find(|(peer, _)| *peer == ours).map(|(_, address)| address)
            }
            _ => None,
        });
        let at = patiently("the stock node's discovery", heard).await;
        let listening = client.status().await.unwrap().listening;
        let whole = |a: &Multiaddr| a.clone().with_p2p(ours).unwrap();
        assert!(listening.iter().any(|a| whole(a) == at), "{at} of {listening:?}");
        // Ours hears of theirs, and dials it.
        until("the connection", &client, async |c| c.peers().await.unwrap().iter().any(|p| p.peer == theirs))
            .await;
        let names = client.names().await.unwrap();
        let found = names.iter().find(|name| name.name == "mdns").unwrap();
        assert!(found.records.iter().any(|r| r.peer == Some(theirs)), "{found:?}");
        client.shutdown().await.unwrap();
    });
}

#[test]
fn they_find_each_other_by_multicast_dns_over_ipv4_and_ipv6() {
    let name = thread::current().name().unwrap().to_owned();
    inside(&name, || {
        mutual("/ip4/10.79.0.1", false);
        mutual("/ip6/fd00:79::1", true);
    });
}
