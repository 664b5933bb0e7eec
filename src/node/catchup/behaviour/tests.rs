//! Two swarms over QUIC: this behaviour, and a neighbour that keeps to the protocol or does not.

use std::future::poll_fn;

use futures::StreamExt;
use libp2p::{Swarm, identity::Keypair, swarm::SwarmEvent};
use smidge_catchup::frame::{Frame, Verdict};

use super::{sessions::SIGNATURES, *};
use crate::{
    config::{Keep, TopicRules},
    gossip::{Authenticity, Author, Topic},
    node::{
        catchup::number::Numbers,
        test_swarm::{listen, run, swarm},
    },
};

/// Somebody who says things.
struct Said(Author, Numbers);

impl Said {
    fn new() -> Self {
        Self(Author::new(Authenticity::Signed(Keypair::generate_ed25519()), 0), Numbers::default())
    }

    fn record(&mut self, topic: &str) -> Record {
        self.0.number_above(self.1.next(wall() - 60_000) - 1);
        let wire = self.0.compose(&Topic::from(topic), &[7; 100], &mut fastrand::Rng::new()).unwrap();
        Record::of(&wire).unwrap()
    }
}

/// The behaviour of a node that keeps "t", with `count` messages in it.
fn keeping(rt: &Handle, key: &Keypair, count: usize) -> Behaviour {
    let settings = Settings { max_message: 1000, kept: 64 << 20 };
    let mut behaviour = Behaviour::new(settings, key.public().to_peer_id(), rt.clone(), fastrand::Rng::new());
    let rules = TopicRules { keep: Some(Keep::default()), ..TopicRules::default() };
    behaviour.book_mut().configure(&[("t".to_owned(), rules)].into(), wall());
    let mut said = Said::new();
    for _ in 0..count {
        behaviour.book_mut().insert(&said.record("t"), wall()).unwrap();
    }
    behaviour
}

/// What happens at a node whose neighbour keeps the topic, until `done`; how many messages it was given.
async fn drive(
    (swarm, other): (&mut Swarm<Behaviour>, &mut Swarm<impl NetworkBehaviour>),
    mut done: impl FnMut(&mut Behaviour) -> bool,
) -> usize {
    let mut given = 0;
    poll_fn(|cx| {
        while other.poll_next_unpin(cx).is_ready() {}
        while let Poll::Ready(Some(event)) = swarm.poll_next_unpin(cx) {
            match event {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                    swarm.behaviour_mut().follows(peer_id, "t");
                }
                SwarmEvent::Behaviour(Event::Recovered { records, .. }) => {
                    given += records.len();
                    assert!(records.len() <= SIGNATURES);
                    for record in &records {
                        swarm.behaviour_mut().book_mut().insert(record, wall());
                    }
                }
                _ => {}
            }
            if done(swarm.behaviour_mut()) {
                return Poll::Ready(());
            }
        }
        if done(swarm.behaviour_mut()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    given
}

#[test]
fn a_node_that_meets_another_has_all_that_it_remembered_a_moment_later() {
    run(|rt| async move {
        let keys = [(); 2].map(|()| Keypair::generate_ed25519());
        let mut old = swarm(&rt, &keys[0], keeping(&rt, &keys[0], 500));
        let mut new = swarm(&rt, &keys[1], keeping(&rt, &keys[1], 0));
        let address = listen(&mut old).await;
        new.dial(address).unwrap();
        let given = drive((&mut new, &mut old), |new| new.book().held().0 == 500).await;
        assert_eq!(given, 500, "each once");
    });
}

/// A neighbour that answers frames as it likes.
struct Hostile<F> {
    answer: F,
    frames: usize,
    actions: VecDeque<ToSwarm<(), handler::Command>>,
    waker: Option<Waker>,
}

impl<F: FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static> NetworkBehaviour for Hostile<F> {
    type ConnectionHandler = Handler;
    type ToSwarm = ();

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(1 << 20))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(1 << 20))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        peer_id: PeerId,
        connection: ConnectionId,
        report: handler::Report,
    ) {
        let handler::Report::Frame { stream, frame } = report else { return };
        self.frames += 1;
        if let Some(frame) = (self.answer)(&frame) {
            let event = handler::Command::Send { stream, frame };
            let handler = NotifyHandler::One(connection);
            self.actions.push_back(ToSwarm::NotifyHandler { peer_id, handler, event });
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<(), handler::Command>> {
        self.waker = Some(cx.waker().clone());
        self.actions.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// A welcome to whatever is greeted with, that finds everything different.
fn welcome(greeting: &[u8]) -> Option<Vec<u8>> {
    let Ok(Frame::Greeting { span, .. }) = Frame::decode(greeting, 0) else { return None };
    Some(Frame::Welcome { span, verdict: Verdict::Differs }.encode(0))
}

/// Meets a neighbour that answers so, until the session is over; how many frames it was sent, and what was taken of it.
async fn meet(rt: &Handle, answer: impl FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> (usize, usize) {
    let mut keys = [(); 2].map(|()| Keypair::generate_ed25519());
    keys.sort_by_key(|key| key.public().to_peer_id());
    let mut node = swarm(rt, &keys[0], keeping(rt, &keys[0], 100));
    let hostile = Hostile { answer, frames: 0, actions: VecDeque::new(), waker: None };
    let mut hostile = swarm(rt, &keys[1], hostile);
    let address = listen(&mut hostile).await;
    node.dial(address).unwrap();
    let (peer, mut began) = (*hostile.local_peer_id(), false);
    let taken = drive((&mut node, &mut hostile), |node| {
        began |= !node.sessions.is_empty();
        began && node.sessions.is_empty()
    })
    .await;
    let node = node.behaviour();
    assert!(node.scheduler.is_wary(&peer, rt.now()), "it is not asked again soon");
    assert_eq!(node.book().held().0, 100);
    (hostile.behaviour().frames, taken)
}

#[test]
fn who_breaks_the_protocol_gets_nothing_in_and_is_not_asked_again_soon() {
    run(|rt| async move {
        assert_eq!(meet(&rt, |_| Some(vec![0xff; 1000])).await, (1, 0), "no frame");
        let endless = |frame: &[u8]| welcome(frame).or(Some(vec![4, 0xff, 0xff, 3]));
        assert_eq!(meet(&rt, endless).await, (2, 0), "more verdicts than ranges");
        // It gives a message whose signature is another's, where it was listed as missing.
        let (mut first, mut second) = (Said::new(), Said::new());
        let forged = move |frame: &[u8]| {
            let (mine, other) = (first.record("t"), second.record("t"));
            let parts =
                crate::gossip::MessageParts { signature: other.wire.signature(), ..mine.wire.parts() };
            let forged = crate::gossip::WireMessage::new(&parts);
            welcome(frame).or_else(|| match Frame::decode(frame, 0).ok()? {
                Frame::Compare(ranges) => {
                    let differs = Verdict::Differs;
                    Some(Frame::Verdicts(vec![differs; ranges.len()]).encode(0))
                }
                Frame::List(ranges) => {
                    let lacks = vec![Vec::new(); ranges.len()];
                    Some(Frame::Answer { lacks, records: vec![forged.encoded()], stopped: None }.encode(0))
                }
                _ => None,
            })
        };
        assert_eq!(meet(&rt, forged).await.1, 0, "a forged signature");
    });
}

#[test]
fn who_reads_only_does_not_get_what_it_may_not_read() {
    run(|rt| async move {
        let keys = [(); 2].map(|()| Keypair::generate_ed25519());
        let mut closed = keeping(&rt, &keys[0], 10);
        let rules = TopicRules {
            keep: Some(Keep::default()),
            read: Some([PeerId::random()].into()),
            ..TopicRules::default()
        };
        closed.book_mut().configure(&[("t".to_owned(), rules)].into(), wall());
        let mut closed = swarm(&rt, &keys[0], closed);
        let mut new = swarm(&rt, &keys[1], keeping(&rt, &keys[1], 0));
        let address = listen(&mut closed).await;
        new.dial(address).unwrap();
        let mut began = false;
        let given = drive((&mut new, &mut closed), |new| {
            began |= !new.sessions.is_empty();
            began && new.sessions.is_empty()
        })
        .await;
        assert_eq!((given, new.behaviour().book().held().0), (0, 0));
    });
}
