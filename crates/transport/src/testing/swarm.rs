//! A transport under libp2p's own swarm.

use libp2p::{
    Swarm, ping,
    swarm::{self, SwarmEvent},
};

use super::*;

/// A swarm that pings.
fn swarm<T: Tested>(rt: &Handle) -> Swarm<ping::Behaviour> {
    let transport = T::with(T::config(), rt);
    let peer = transport.peer_id();
    let behaviour = ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_millis(20)));
    let spawner = rt.clone();
    let config =
        swarm::Config::with_executor(move |task| spawner.spawn(task)).with_idle_connection_timeout(PATIENCE);
    Swarm::new(transport.boxed_muxer(), behaviour, peer, config)
}

/// Two swarms, and where the first listens.
async fn pair<T: Tested>(rt: &Handle) -> (Swarm<ping::Behaviour>, Swarm<ping::Behaviour>, Multiaddr) {
    let (mut a, b) = (swarm::<T>(rt), swarm::<T>(rt));
    a.listen_on(T::LOOPBACK.parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = a.select_next_some().await {
            return (a, b, address);
        }
    }
}

pub(crate) fn two_swarms_ping_each_other_and_part_in_peace<T: Tested>() {
    real(|rt| async move {
        let (mut a, mut b, addr) = pair::<T>(&rt).await;
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

pub(crate) fn a_swarm_that_dials_the_wrong_peer_is_told_who_answered<T: Tested>() {
    real(|rt| async move {
        let (mut a, mut b, addr) = pair::<T>(&rt).await;
        b.dial(addr.with_p2p(PeerId::random()).unwrap()).unwrap();
        let found = a.local_peer_id().to_string();
        loop {
            futures::select! {
                _ = a.select_next_some() => {}
                event = b.select_next_some() => if let SwarmEvent::OutgoingConnectionError { error, .. } = event {
                    assert!(format!("{error:?}").contains(&found), "{error:?}");
                    break;
                }
            }
        }
    });
}
