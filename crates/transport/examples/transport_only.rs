//! Any rust-libp2p program on smol: libp2p's own swarm and ping on smidge's QUIC and TCP transports,
//! with no other part of smidge and no tokio. `cargo run -p smidge-transport --example transport_only`

#![allow(clippy::print_stdout, reason = "an example that says what it saw")]

use std::{error::Error, time::Duration};

use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm, Transport,
    identity::Keypair,
    ping,
    swarm::{Config, SwarmEvent},
};
use smidge_runtime::{Executor, Handle};
use smidge_transport::{SideBySide, quic, tcp};

fn swarm(runtime: &Handle) -> Result<Swarm<ping::Behaviour>, Box<dyn Error>> {
    let key = Keypair::generate_ed25519();
    let quic = quic::Transport::new(quic::Config::new(&key)?, runtime.clone())?;
    let tcp = tcp::Transport::new(tcp::Config::new(&key)?, runtime.clone())?;
    let spawner = runtime.clone();
    let config = Config::with_executor(move |task| spawner.spawn(task))
        .with_idle_connection_timeout(Duration::from_secs(60));
    let transport = SideBySide::new(quic, tcp).boxed();
    Ok(Swarm::new(transport, ping::Behaviour::default(), key.public().to_peer_id(), config))
}

/// Listens on `address` in one swarm, dials that from another, and waits for a ping.
async fn ping_over(runtime: &Handle, address: &str) -> Result<(Multiaddr, Duration), Box<dyn Error>> {
    let (mut listener, mut dialer) = (swarm(runtime)?, swarm(runtime)?);
    listener.listen_on(address.parse()?)?;
    let at = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = listener.select_next_some().await {
            break address;
        }
    };
    dialer.dial(at.clone())?;
    loop {
        futures::select! {
            _ = listener.select_next_some() => {}
            event = dialer.select_next_some() => match event {
                SwarmEvent::Behaviour(ping::Event { result, .. }) => return Ok((at, result?)),
                SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
                _ => {}
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    Executor::default().block_on(1, |runtime| async move {
        for address in ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"] {
            let pinged = runtime.timeout(Duration::from_secs(20), ping_over(&runtime, address));
            let (at, rtt) = pinged.await??;
            println!("a ping to {at} took {rtt:?}");
        }
        Ok(())
    })?
}
