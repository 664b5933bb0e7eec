use futures::{StreamExt, future::Either};
use libp2p::{
    identity::Keypair,
    swarm::{self, SwarmEvent},
};

use super::*;
use crate::node::test_swarm::{PATIENCE, listen, run, swarm};

/// A peer with a monitor that pings beside its user, on a stream of its own.
#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "libp2p::ping::Event")]
struct Monitored {
    user: libp2p::ping::Behaviour,
    monitor: libp2p::ping::Behaviour,
}

fn often() -> Config {
    Config { interval: Duration::from_millis(5), ..Config::default() }
}

#[test]
fn two_streams_of_the_other_side_at_a_time_are_both_answered() {
    run(|rt| async move {
        let often = || {
            libp2p::ping::Behaviour::new(libp2p::ping::Config::new().with_interval(Duration::from_millis(5)))
        };
        let mut ours =
            swarm(&rt, &Keypair::generate_ed25519(), Behaviour::new(Config::default(), rt.clone()));
        let mut other =
            swarm(&rt, &Keypair::generate_ed25519(), Monitored { user: often(), monitor: often() });
        other.dial(listen(&mut ours).await).unwrap();
        let mut pings = 0;
        while pings < 100 {
            match futures::future::select(ours.select_next_some(), other.select_next_some()).await {
                Either::Right((SwarmEvent::Behaviour(ping), _)) => {
                    ping.result.expect("neither stream is reset");
                    pings += 1;
                }
                Either::Left((SwarmEvent::ConnectionClosed { cause, .. }, _)) => panic!("{cause:?}"),
                _ => {}
            }
        }
    });
}

#[test]
fn pings_on_request_and_at_an_interval_get_along_with_a_peer_that_answers_one_stream() {
    run(|rt| async move {
        let mut ours = swarm(&rt, &Keypair::generate_ed25519(), Behaviour::new(often(), rt.clone()));
        let mut stock = swarm(&rt, &Keypair::generate_ed25519(), libp2p::ping::Behaviour::default());
        ours.dial(listen(&mut stock).await).unwrap();
        let stock_id = *stock.local_peer_id();
        let (mut connection, mut asked, mut answered) = (None, 0, 0);
        while answered < 100 {
            if let Some(connection) = connection.filter(|_| asked == answered) {
                // Several in one breath.
                for _ in 0..5 {
                    ours.behaviour_mut().ping(stock_id, PATIENCE);
                    ours.behaviour_mut().ask(stock_id, connection, PATIENCE);
                }
                asked += 10;
            }
            match futures::future::select(ours.select_next_some(), stock.select_next_some()).await {
                Either::Left((SwarmEvent::ConnectionEstablished { connection_id, .. }, _)) => {
                    connection = Some(connection_id);
                }
                Either::Left((SwarmEvent::Behaviour(event), _)) => match event {
                    Event::Interval(ping) => drop(ping.result.expect("at an interval")),
                    Event::Answer { result, .. } => {
                        result.expect("on request");
                        answered += 1;
                    }
                },
                _ => {}
            }
        }
    });
}

#[test]
fn who_is_not_connected_is_dialed_and_who_is_not_there_is_said_to_be() {
    run(|rt| async move {
        let mut ours = swarm(&rt, &Keypair::generate_ed25519(), Behaviour::new(often(), rt.clone()));
        let nobody = PeerId::random();
        let request = ours.behaviour_mut().ping(nobody, PATIENCE);
        loop {
            if let SwarmEvent::Behaviour(Event::Answer { request: of, peer, result }) =
                ours.select_next_some().await
            {
                assert_eq!((of, peer), (request, nobody));
                assert!(matches!(result, Err(Failure::NotConnected)), "{result:?}");
                return;
            }
        }
    });
}

#[test]
fn a_connection_that_ends_answers_whoever_waits_for_its_ping() {
    run(|rt| async move {
        let mut ours =
            swarm(&rt, &Keypair::generate_ed25519(), Behaviour::new(Config::default(), rt.clone()));
        let mut mute = swarm(&rt, &Keypair::generate_ed25519(), swarm::dummy::Behaviour);
        ours.dial(listen(&mut mute).await).unwrap();
        let peer = *mute.local_peer_id();
        let mut request = None;
        loop {
            match futures::future::select(ours.select_next_some(), mute.select_next_some()).await {
                Either::Left((SwarmEvent::ConnectionEstablished { connection_id, .. }, _)) => {
                    request = Some(ours.behaviour_mut().ask(peer, connection_id, PATIENCE));
                    ours.close_connection(connection_id);
                }
                Either::Left((SwarmEvent::Behaviour(Event::Answer { request: of, result, .. }), _)) => {
                    assert_eq!(Some(of), request);
                    assert!(matches!(result, Err(Failure::Closed | Failure::Unsupported)), "{result:?}");
                    return;
                }
                _ => {}
            }
        }
    });
}
