#!/usr/bin/env bash
# libp2p-gossipsub 0.50.1 (rust-libp2p 0.57.1): `Behaviour::new` has MaxCountSubscriptionFilter as its default type
# parameter, not AllowAllSubscriptionFilter, and that takes 100 subscriptions in a frame and 100 topics of a peer. A peer
# that follows one more is not cut to 100: the whole frame is refused, so that it is known to follow nothing, and no
# message reaches it. It is logged where the frame is refused; the peer that follows the topics learns nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "topics"
version = "0.0.0"
edition = "2024"
[dependencies]
futures = "=0.3.32"
libp2p = { version = "=0.57.1", features = ["gossipsub", "macros", "noise", "tcp", "tokio", "yamux"] }
tokio = { version = "1", features = ["rt", "time", "macros"] }
TOML
cat >src/main.rs <<'RUST'
use futures::StreamExt;
use libp2p::{Swarm, gossipsub::*, noise, swarm::SwarmEvent, tcp, yamux};
use std::time::Duration;

fn node() -> Swarm<Behaviour> {
    libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| Behaviour::new(MessageAuthenticity::Signed(key.clone()), Config::default()).unwrap())
        .unwrap()
        .build()
}

/// Of how many topics the other side hears that somebody follows them.
async fn heard(topics: usize) -> usize {
    let (mut follower, mut other) = (node(), node());
    for n in 0..topics {
        follower.behaviour_mut().subscribe(&IdentTopic::new(format!("topic-{n}"))).unwrap();
    }
    other.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let mut count = 0;
    let quiet = tokio::time::sleep(Duration::from_secs(4));
    tokio::pin!(quiet);
    loop {
        tokio::select! {
            event = other.select_next_some() => match event {
                SwarmEvent::NewListenAddr { address, .. } => follower.dial(address).unwrap(),
                SwarmEvent::Behaviour(Event::Subscribed { .. }) => count += 1,
                _ => {}
            },
            _ = follower.select_next_some() => {}
            _ = &mut quiet => return count,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for topics in [100, 101] {
        println!("{topics} topics followed: {} heard of", heard(topics).await);
    }
}
RUST
cargo run --quiet >said
cat said
[ "$(cat said)" = "100 topics followed: 100 heard of
101 topics followed: 0 heard of" ]
echo "as found"
