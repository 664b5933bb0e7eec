//! A swarm that runs in the background and does what it is told between two polls.

use std::fmt;

use futures::{
    FutureExt, SinkExt, StreamExt,
    channel::{mpsc, oneshot},
};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    identity::Keypair,
    swarm::{Config, NetworkBehaviour, SwarmEvent},
};

use crate::{Side, Tuning, side::spawn};

type Call<B> = Box<dyn FnOnce(&mut Swarm<B>) + Send>;

/// Events that wait for whoever reads them; then the swarm waits, too.
const EVENTS: usize = 1024;

/// A handle on a swarm. The swarm ends when it is dropped.
pub struct Driven<B: NetworkBehaviour> {
    /// Who it is.
    pub peer: PeerId,
    loopback: &'static str,
    calls: mpsc::Sender<Call<B>>,
    /// What happens, in order.
    pub events: mpsc::Receiver<SwarmEvent<B::ToSwarm>>,
}

impl<B: NetworkBehaviour> fmt::Debug for Driven<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driven").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl<B: NetworkBehaviour<ToSwarm: Send> + Send> Driven<B> {
    /// A swarm on `side` with `behaviour`. Events that `wanted` turns down are dropped at once.
    pub fn new(
        side: &dyn Side,
        key: &Keypair,
        tuning: &Tuning,
        behaviour: B,
        wanted: impl Fn(&SwarmEvent<B::ToSwarm>) -> bool + Send + 'static,
    ) -> Self {
        let spawner = side.spawner();
        let executor = spawner.clone();
        let config = Config::with_executor(move |task| executor(task))
            .with_idle_connection_timeout(std::time::Duration::from_secs(3600));
        let peer = key.public().to_peer_id();
        let mut swarm = Swarm::new(side.transport(key, tuning), behaviour, peer, config);
        let (calls, mut requests) = mpsc::channel::<Call<B>>(64);
        let (mut sink, events) = mpsc::channel(EVENTS);
        spawn(&spawner, async move {
            loop {
                futures::select! {
                    call = requests.next() => match call {
                        Some(call) => call(&mut swarm),
                        None => return,
                    },
                    event = swarm.next().fuse() => {
                        let Some(event) = event else { return };
                        if wanted(&event) && sink.send(event).await.is_err() {
                            // Nobody reads any more; calls are still done.
                            continue;
                        }
                    }
                }
            }
        });
        Self { peer, loopback: tuning.loopback(), calls, events }
    }

    /// Runs `work` on the swarm and returns what it returned.
    pub async fn call<T: Send + 'static>(&self, work: impl FnOnce(&mut Swarm<B>) -> T + Send + 'static) -> T {
        let (reply, answer) = oneshot::channel();
        let call: Call<B> = Box::new(move |swarm| drop(reply.send(work(swarm))));
        let sent = self.calls.clone().send(call).await;
        assert!(sent.is_ok(), "the swarm takes calls until it is dropped");
        answer.await.expect("the swarm answers until it is dropped")
    }

    /// The first event that `pick` takes; the others are dropped.
    pub async fn event<T>(&mut self, mut pick: impl FnMut(SwarmEvent<B::ToSwarm>) -> Option<T>) -> T {
        loop {
            let event = self.events.next().await.expect("events until the swarm is dropped");
            if let Some(found) = pick(event) {
                return found;
            }
        }
    }

    /// Listens on a free port of loopback. To be called before events are of interest.
    pub async fn listen(&mut self) -> Multiaddr {
        let address = self.loopback.parse().expect("a multiaddr");
        self.call(move |swarm| swarm.listen_on(address)).await.expect("a free port");
        self.event(|event| match event {
            SwarmEvent::NewListenAddr { address, .. } => Some(address),
            _ => None,
        })
        .await
    }

    /// Dials `address` and waits for the connection.
    pub async fn dial(&mut self, address: Multiaddr) -> PeerId {
        self.call(move |swarm| swarm.dial(address)).await.expect("an address that can be dialed");
        self.event(|event| match event {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => Some(peer_id),
            SwarmEvent::OutgoingConnectionError { error, .. } => panic!("the dial failed: {error}"),
            _ => None,
        })
        .await
    }

    /// What has happened already, without waiting.
    pub fn now(&mut self) -> Option<SwarmEvent<B::ToSwarm>> {
        self.events.next().now_or_never().flatten()
    }
}
