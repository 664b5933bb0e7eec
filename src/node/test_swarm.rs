//! Swarms over QUIC on loopback, for the tests of single behaviours. Never in a build that is not a test.

use std::time::Duration;

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport as _,
    core::muxing::StreamMuxerBox,
    identity::Keypair,
    swarm::{self, NetworkBehaviour, SwarmEvent},
};

use crate::{
    runtime::{Executor, Handle},
    transport::quic::{self, Transport},
};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn swarm<B: NetworkBehaviour>(rt: &Handle, key: &Keypair, behaviour: B) -> Swarm<B> {
    let transport = Transport::new(quic::Config::new(key).unwrap(), rt.clone())
        .unwrap()
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed();
    let spawner = rt.clone();
    let config =
        swarm::Config::with_executor(move |task| spawner.spawn(task)).with_idle_connection_timeout(PATIENCE);
    Swarm::new(transport, behaviour, PeerId::from(key.public()), config)
}

pub(crate) async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    swarm.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address.with_p2p(*swarm.local_peer_id()).unwrap();
        }
    }
}

pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce(Handle) -> F) {
    Executor::default()
        .block_on(1, |rt| async move { rt.clone().timeout(PATIENCE, test(rt)).await.expect("in time") })
        .unwrap();
}
