//! Under libp2p's own swarm.

use libp2p::{
    Swarm,
    core::muxing::StreamMuxerBox,
    ping,
    swarm::{self, SwarmEvent},
};

use super::*;

fn swarm(rt: &Handle) -> Swarm<ping::Behaviour> {
    let config = config();
    let peer = config.local_peer;
    let transport = Transport::new(config, rt.clone())
        .unwrap()
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed();
    let behaviour = ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_millis(20)));
    let spawner = rt.clone();
    let config =
        swarm::Config::with_executor(move |task| spawner.spawn(task)).with_idle_connection_timeout(PATIENCE);
    Swarm::new(transport, behaviour, peer, config)
}

#[test]
fn two_swarms_ping_each_other_and_part_in_peace() {
    real(|rt| async move {
        let (mut a, mut b) = (swarm(&rt), swarm(&rt));
        a.listen_on(ANY_PORT.parse().unwrap()).unwrap();
        let addr = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = a.select_next_some().await {
                break address;
            }
        };
        b.dial(addr.with_p2p(*a.local_peer_id()).unwrap()).unwrap();
        let mut pings = (0, 0);
        while pings.0 < 5 || pings.1 < 5 {
            let (from_a, event) = futures::select! {
                event = a.select_next_some() => (true, event),
                event = b.select_next_some() => (false, event),
            };
            match event {
                SwarmEvent::Behaviour(ping) => {
                    ping.result.expect("a ping over loopback");
                    if from_a { pings.0 += 1 } else { pings.1 += 1 }
                }
                SwarmEvent::ConnectionClosed { cause, .. } => panic!("closed: {cause:?}"),
                SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
        b.disconnect_peer_id(*a.local_peer_id()).unwrap();
        let mut closed = (false, false);
        while closed != (true, true) {
            futures::select! {
                event = a.select_next_some() => closed.0 |= matches!(event, SwarmEvent::ConnectionClosed { .. }),
                event = b.select_next_some() => closed.1 |= matches!(event, SwarmEvent::ConnectionClosed { .. }),
            }
        }
    });
}
