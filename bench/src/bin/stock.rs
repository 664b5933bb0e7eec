//! A stock node as a program of its own, for the scenarios that measure whole processes.
//!
//! `stock [ADDRESS…]`: rust-libp2p as published with identify, ping, the hash table and gossipsub, on
//! tokio as `#[tokio::main]` starts it; it dials the addresses. What happens is told on stderr, in the
//! words of smidge's own log. It runs until it is killed.

use std::io::{self, Write};

use futures::{FutureExt, StreamExt, future::poll_fn};
use libp2p::{
    Multiaddr, Swarm,
    gossipsub::{self, IdentTopic},
    identity::Keypair,
    swarm::{Config, SwarmEvent},
};
use smidge_bench::{
    Tuning,
    nodes::{Whole, gossip_config},
    stock_transport,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let dials: Vec<Multiaddr> = std::env::args().skip(1).map(|a| a.parse()).collect::<Result<_, _>>()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(dials))
}

async fn run(dials: Vec<Multiaddr>) -> Result<(), Failure> {
    let key = Keypair::generate_ed25519();
    let tuning = Tuning::default();
    let mut whole = Whole::new(&key, gossip_config().build()?);
    whole.gossip.with_peer_score(gossipsub::PeerScoreParams::default(), Default::default())?;
    whole.gossip.subscribe(&IdentTopic::new("bench"))?;
    let config =
        Config::with_tokio_executor().with_idle_connection_timeout(std::time::Duration::from_secs(3600));
    let mut swarm = Swarm::new(stock_transport(&key, &tuning), whole, key.public().to_peer_id(), config);
    swarm.listen_on(tuning.loopback().parse()?)?;
    for address in dials {
        swarm.dial(address)?;
    }
    loop {
        // Twice: libp2p-gossipsub 0.50.1 sets its heartbeat's timer anew without polling it, so that an idle
        // swarm that is polled once a wake-up never beats again.
        let event = poll_fn(|cx| match swarm.poll_next_unpin(cx) {
            std::task::Poll::Pending => swarm.poll_next_unpin(cx),
            ready => ready,
        });
        match event.fuse().await {
            Some(SwarmEvent::NewListenAddr { address, .. }) => say(&format!("listening on {address}"))?,
            Some(SwarmEvent::ConnectionEstablished { peer_id, .. }) => {
                say(&format!("connected to {peer_id}"))?;
            }
            Some(_) => {}
            None => return Err("the swarm ended".into()),
        }
    }
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stderr(), "{line}")
}
