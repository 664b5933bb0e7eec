//! What the tests of whole nodes share: a network of its own for each test, nodes on it, and waiting
//! for events with an answer to "what for" when it takes too long.

pub(crate) mod bare;
pub(crate) mod daemon;
pub(crate) mod hosts;
pub(crate) mod http;
pub(crate) mod mqtt;
pub(crate) mod process;
pub(crate) mod sandbox;
pub(crate) mod text;
pub(crate) mod wire;

use std::{
    collections::BTreeSet,
    fmt::Debug,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU8, Ordering},
    thread,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::join_all};
use libp2p::{Multiaddr, PeerId, identity::Keypair, multiaddr::Protocol};
use smidge::{
    Client, Config, Event, Message, Node, SpawnError, Subscription,
    dns::NameServer,
    runtime::{Executor, Handle},
    store::StoreError,
};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The topic of most tests.
pub(crate) const TOPIC: &str = "some_topic";

/// Runs a test on the default runtime.
pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce(Network) -> F) {
    let _ = env_logger::builder().is_test(true).try_init();
    sandbox::run(|| Executor::default().block_on(1, |rt| test(Network::new(rt))).unwrap());
}

/// Whether what the node wants for itself, an address or its store, belongs to another process.
fn is_in_use(error: &SpawnError) -> bool {
    match error {
        SpawnError::Listen { why, .. } => why.contains("Address already in use"),
        SpawnError::Store(error) => matches!(error, StoreError::InUse(_)),
        _ => false,
    }
}

/// A loopback network with a name server, where replicas have an address each and one port.
pub(crate) struct Network {
    pub(crate) rt: Handle,
    pub(crate) names: NameServer,
    net: [u8; 3],
    pub(crate) port: u16,
}

impl Network {
    fn new(rt: Handle) -> Self {
        let (net, port) = free_net();
        let names = NameServer::start(&rt, sandbox::server(SocketAddr::new(ip(net, 1), 0))).unwrap();
        Self { rt, names, net, port }
    }

    /// The address of replica `n`, from 2 to 249.
    pub(crate) fn ip(&self, n: u8) -> IpAddr {
        ip(self.net, n)
    }

    pub(crate) fn addr(&self, n: u8) -> Multiaddr {
        Multiaddr::from(self.ip(n)).with(Protocol::Udp(self.port)).with(Protocol::QuicV1)
    }

    /// Makes `name` lead to these replicas; to none, it exists and is empty.
    pub(crate) fn set(&self, name: &str, replicas: impl IntoIterator<Item = u8>) {
        self.names.set(name, replicas.into_iter().map(|n| self.ip(n)).collect()).unwrap();
    }

    /// The config of replica `n`, which is to dial `names`.
    pub(crate) fn config(&self, n: u8, names: &[&str]) -> Config {
        let mut config = Config::default();
        config.listen.addresses = vec![self.addr(n)];
        config.dial.names =
            names.iter().map(|name| format!("{name}:{}", self.port).parse().unwrap()).collect();
        if !sandbox::is_needed() {
            config.dns.servers = vec![self.names.addr()];
            config.dns.hosts = None;
            config.dns.resolv_conf = None;
        }
        config.gossip.topics = vec![TOPIC.into()];
        // Many nodes share this process and its memory.
        config.limits.memory = 4 << 30;
        config
    }

    pub(crate) fn spawn(&self, config: Config) -> Client {
        self.spawn_as(config, &Keypair::generate_ed25519())
    }

    pub(crate) fn spawn_as(&self, config: Config, key: &Keypair) -> Client {
        let node = Node::new(config, key.clone());
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match node.clone().spawn(&self.rt) {
                // The child of another test, forked and not its own program yet, has this process's sockets and files open, too:
                // also those that a node has just closed.
                Err(error) if is_in_use(&error) && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(10));
                }
                spawned => return spawned.unwrap(),
            }
        }
    }

    /// Stops replica `n`, and waits until its address can be bound again.
    pub(crate) async fn stop(&self, node: &Client, n: u8) {
        node.shutdown().await.unwrap();
        self.vacated(n).await;
    }

    /// Waits until the address of replica `n` can be bound: a busy machine may take longer to close a socket than a
    /// node that ends waits for that.
    pub(crate) async fn vacated(&self, n: u8) {
        let addr = SocketAddr::new(self.ip(n), self.port);
        self.patiently(("a closed socket", addr), async {
            while UdpSocket::bind(addr).is_err() {
                self.rt.sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// A node that dials `names`.
    pub(crate) fn node(&self, n: u8, names: &[&str]) -> Client {
        self.spawn(self.config(n, names))
    }

    /// What `future` gives; panics with `what` if that takes too long.
    pub(crate) async fn patiently<T>(&self, what: impl Debug, future: impl Future<Output = T>) -> T {
        match self.rt.timeout(PATIENCE, future).await {
            Ok(output) => output,
            Err(_) => panic!("waited {PATIENCE:?} in vain for {what:?}"),
        }
    }

    /// Waits until `done` holds for the node's state, looking again whenever something happened to it.
    pub(crate) async fn until<F: Future<Output = bool>>(
        &self,
        what: &str,
        client: &Client,
        done: impl Fn(Client) -> F,
    ) {
        let mut events = client.events();
        self.patiently(what, async {
            while !done(client.clone()).await {
                // Some state, such as a routing table, changes without an event: look again soon.
                let tick = self.rt.sleep(Duration::from_millis(50));
                futures::future::select(events.next(), tick).await;
            }
        })
        .await;
    }

    /// Waits until `client` listens.
    pub(crate) async fn listening(&self, client: &Client) {
        let up = |c: Client| async move { !c.status().await.unwrap().listening.is_empty() };
        self.until("an address that is listened on", client, up).await;
    }

    /// Waits until `client` is connected to all of `peers`.
    pub(crate) async fn connected(&self, client: &Client, peers: impl IntoIterator<Item = PeerId>) {
        let wanted: &BTreeSet<_> = &peers.into_iter().collect();
        self.until("connections", client, |c| async move {
            let there: BTreeSet<_> = c.peers().await.unwrap().into_iter().map(|p| p.peer).collect();
            wanted.is_subset(&there)
        })
        .await;
    }

    /// Waits until `client` is not connected to `peer`.
    pub(crate) async fn disconnected(&self, client: &Client, peer: PeerId) {
        self.until("a disconnection", client, |c| async move {
            c.peers().await.unwrap().iter().all(|p| p.peer != peer)
        })
        .await;
    }

    /// Waits until the mesh of [`TOPIC`] at `client` has `members` or more.
    pub(crate) async fn meshed(&self, client: &Client, members: usize) {
        self.until("a mesh", client, |c| async move {
            c.mesh().await.unwrap().get(TOPIC).map_or(0, Vec::len) >= members
        })
        .await;
    }

    /// Waits until `client` has `size` peers in its routing table.
    pub(crate) async fn table(&self, client: &Client, size: usize) {
        self.until("a routing table", client, |c| async move { c.status().await.unwrap().table >= size })
            .await;
    }

    /// Waits until everyone is connected to everyone.
    pub(crate) async fn everyone(&self, nodes: &[Client]) {
        let ids: Vec<_> = nodes.iter().map(Client::peer_id).collect();
        join_all(nodes.iter().map(|node| {
            let others: Vec<_> = ids.iter().copied().filter(|id| *id != node.peer_id()).collect();
            self.connected(node, others)
        }))
        .await;
    }

    /// The next message.
    pub(crate) async fn message(&self, subscription: &mut Subscription) -> Message {
        let message = self.patiently("a message", subscription.next()).await;
        assert_eq!(subscription.lost(), 0, "messages were lost");
        message.unwrap_or_else(|| panic!("a message was expected, and the node ended"))
    }

    /// The first event that `pick` takes.
    pub(crate) async fn event<T>(
        &self,
        events: &mut smidge::Events,
        what: &str,
        pick: impl Fn(&Event) -> Option<T>,
    ) -> T {
        self.patiently(what, async {
            loop {
                let event = events.next().await.unwrap_or_else(|| panic!("the node ended before {what}"));
                assert_eq!(events.lost(), 0, "events were lost");
                if let Some(found) = pick(&event) {
                    return found;
                }
            }
        })
        .await
    }
}

/// The first three bytes of a loopback network that no other test uses, and a port that is free there. It lies below
/// those that the kernel picks: a socket bound to any address could take one of them while a replica restarts.
pub(crate) fn free_net() -> ([u8; 3], u16) {
    static NETS: AtomicU8 = AtomicU8::new(0);
    let pid = std::process::id();
    let nth = NETS.fetch_add(1, Ordering::Relaxed);
    let net = [127, 1 + (pid % 60) as u8, nth.wrapping_add((pid / 60) as u8)];
    let is_free = |port: &u16| UdpSocket::bind((ip(net, 250), *port)).is_ok();
    (net, (10_000 + u16::from(nth)..30_000).find(is_free).unwrap())
}

/// What is there already, without waiting.
pub(crate) fn now(subscription: &mut Subscription) -> Option<Message> {
    subscription.next().now_or_never().flatten()
}

pub(crate) fn ip([a, b, c]: [u8; 3], d: u8) -> IpAddr {
    Ipv4Addr::new(a, b, c, d).into()
}

/// The payload as text.
pub(crate) fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.data).into_owned()
}
