//! Whole nodes in one simulated world: started, crashed and started again, on hosts with clocks and links of their own, with a
//! name that a simulated name server answers. Notes what each of them heard and what its receipts said.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use smidge::{
    Client, Config, Error, Node, PublishOptions, PutOptions, Receipt,
    config::{Keep, Store, TopicRules},
    dns::NameServer,
    identity::Identity,
    runtime::{
        Handle,
        sim::{Host, Link, World},
    },
};

/// The topic that nothing is remembered of, and the one that all nodes remember.
pub(crate) const TOPICS: [&str; 2] = ["live", "kept"];
/// The name behind which all nodes are.
pub(crate) const NAME: &str = "peers.sim";
/// Records behind one name, at most: what fits into an answer over UDP.
const RECORDS: usize = 24;
/// Messages that are remembered of a kept topic: more than are ever said in one world.
const KEPT: usize = 20_000;
pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// How long a whole run may take, in simulated time.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// A fault that is put into what a node hears, so that a check has something to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// One message in five hundred is delivered twice.
    DeliveredTwice,
    /// Of twenty thousand wake-ups of tasks, one is lost.
    LostWakeUp,
    /// One message in five hundred is not delivered.
    NotDelivered,
    /// Receipts say one peer too many.
    LyingReceipt,
    /// One acknowledged message in fifty was never sent.
    NeverSent,
}

impl Sabotage {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "twice" => Self::DeliveredTwice,
            "missing" => Self::NotDelivered,
            "wake-up" => Self::LostWakeUp,
            "receipt" => Self::LyingReceipt,
            "unsent" => Self::NeverSent,
            _ => return None,
        })
    }
}

/// What a world is made of.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) sabotage: Option<Sabotage>,
    /// Every third node keeps its records in a file.
    pub(crate) files: bool,
    /// Records behind one name, at most.
    pub(crate) records: usize,
    /// Clocks jump by up to two weeks, past what is promised.
    pub(crate) wild_clocks: bool,
    /// All nodes are behind one name, in a hosts file: what is simulated has no TCP for a long answer.
    pub(crate) is_one_name: bool,
}

impl Setup {
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        Self {
            seed,
            nodes,
            sabotage: None,
            files: true,
            records: RECORDS,
            wild_clocks: false,
            is_one_name: false,
        }
    }
}

/// A message, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) topic: usize,
    pub(crate) node: usize,
    pub(crate) life: u64,
    pub(crate) at: Duration,
    /// Nodes that were connected when it was published, at most.
    pub(crate) others: usize,
    /// `None` while it is not acknowledged, or when its node ended before.
    pub(crate) receipt: Option<Result<Receipt, Error>>,
}

/// Of one message: by node and life, when it was heard first, and how often.
type Deliveries = BTreeMap<(usize, u64), (Duration, u32)>;

/// What happened in a world so far.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) said: Vec<Said>,
    /// By message: in which life of which node it was heard, when, and how often.
    pub(crate) heard: BTreeMap<u64, Deliveries>,
    /// Acknowledged records: key and value, by the node that put them, in which life.
    pub(crate) records: Vec<(usize, u64, String)>,
    /// What broke an invariant.
    pub(crate) broken: Vec<String>,
    /// Messages that a subscriber was too slow for.
    pub(crate) lost: u64,
}

pub(crate) struct Member {
    pub(crate) host: Host,
    pub(crate) ip: String,
    /// How often it was started.
    pub(crate) life: u64,
    pub(crate) client: Option<Client>,
    /// How often it was given a new key.
    keys: u64,
    files: Option<PathBuf>,
}

/// Nodes in a world.
pub(crate) struct Nodes {
    pub(crate) setup: Setup,
    pub(crate) world: World,
    pub(crate) rng: fastrand::Rng,
    pub(crate) names: NameServer,
    pub(crate) members: Vec<Member>,
    notes: Arc<Mutex<Notes>>,
    /// Time and tasks of nobody's node.
    pub(crate) rt: Handle,
    lives: u64,
    dir: tempfile::TempDir,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whatever the base link is, it is a good one: what is worse is a fault.
fn base(rng: &mut fastrand::Rng) -> Link {
    let millis = Duration::from_millis;
    Link {
        latency: millis(rng.u64(1..40)),
        jitter: millis(rng.u64(0..8)),
        loss: rng.f64() * 0.01,
        duplicate: rng.f64() * 0.01,
        ..Link::default()
    }
}

/// Runs `scenario` in a world with `setup.nodes` hosts, and gives back what it noted.
pub(crate) fn run(setup: Setup, scenario: impl AsyncFnOnce(&mut Nodes)) -> Notes {
    // What has no random source of its own takes it from this thread's.
    fastrand::seed(setup.seed);
    let mut rng = fastrand::Rng::with_seed(setup.seed);
    let world = World::new(rng.u64(..), base(&mut rng));
    let notes = {
        let mut nodes = Nodes::new(setup, &world, rng);
        world.block_on(LIMIT, scenario(&mut nodes));
        nodes.notes
    };
    world.end();
    std::mem::take(&mut *lock(&notes))
}

impl Nodes {
    fn new(setup: Setup, world: &World, rng: fastrand::Rng) -> Self {
        let server = world.host(&["10.0.255.53"]);
        let address = (server.ip(), 53).into();
        let names = NameServer::start(&server.handle(), address).expect("nothing else is on that host");
        let files = tempfile::tempdir().expect("a folder for files");
        let members = (0..setup.nodes).map(|n| {
            let ip = format!("10.0.{}.{}", n / 200, n % 200 + 1);
            let path = files.path().join(format!("{n}.records"));
            let files = (setup.files && n % 3 == 0).then_some(path);
            Member { host: world.host(&[&ip]), ip, life: 0, client: None, keys: 0, files }
        });
        let members = members.collect();
        let rt = server.handle();
        let world = world.clone();
        let nodes =
            Self { setup, world, rng, names, members, notes: Arc::default(), rt, lives: 0, dir: files };
        if let Some(Sabotage::LostWakeUp) = nodes.setup.sabotage {
            nodes.world.lose_wake_ups(20_000);
        }
        nodes
    }

    pub(crate) fn notes(&self) -> MutexGuard<'_, Notes> {
        lock(&self.notes)
    }

    pub(crate) fn break_with(&self, what: String) {
        log::error!(target: "seeds", "BROKEN: {what}");
        self.notes().broken.push(what);
    }

    pub(crate) async fn pause(&self, time: Duration) {
        self.rt.sleep(time).await;
    }

    /// Which names there are, each with as many records as fit into an answer.
    fn name_of(part: usize) -> String {
        if part == 0 { NAME.into() } else { format!("peers-{part}.sim") }
    }

    /// The name server says what is true now: where there is a node.
    pub(crate) fn tell_names(&self) {
        let up: Vec<IpAddr> = (self.members.iter().filter(|m| m.client.is_some()))
            .filter_map(|member| member.ip.parse().ok())
            .collect();
        self.lie(&up);
    }

    /// The name server says that there are nodes at these addresses.
    pub(crate) fn lie(&self, addresses: &[IpAddr]) {
        let most = self.setup.records;
        for part in 0..self.members.len().div_ceil(most) {
            let records = addresses.iter().skip(part * most).take(most).copied().collect();
            self.names.set(&Self::name_of(part), records).expect("a name");
        }
    }

    /// All nodes are behind the name from the beginning, and stay there.
    pub(crate) fn write_hosts(&self) {
        let lines: String = self.members.iter().map(|member| format!("{} {NAME}\n", member.ip)).collect();
        std::fs::write(self.hosts(), lines).expect("a file of this world's own");
    }

    fn hosts(&self) -> PathBuf {
        self.dir.path().join("hosts")
    }

    fn config(&self, number: usize) -> Config {
        let mut config = Config::default();
        config.listen.addresses = vec!["/ip4/0.0.0.0/udp/4001/quic-v1".parse().expect("an address")];
        // Of many names, two: everybody dials some, and is dialed by some.
        let parts = self.members.len().div_ceil(self.setup.records);
        let own = BTreeSet::from([number % parts, (number * 7 + 1) % parts]);
        let named = |part: &usize| format!("{}:4001", Self::name_of(*part)).parse().expect("a name");
        config.dial.names = own.iter().map(named).collect();
        config.dns.servers = vec![self.names.addr()];
        config.dns.hosts = None;
        config.dns.resolv_conf = None;
        config.gossip.topics = TOPICS.map(str::to_owned).into();
        config.gossip.seen_ids = 1 << 16;
        // All of them are one process.
        config.limits.memory = 64 << 30;
        let keep = Keep { messages: Some(KEPT), ..Keep::default() };
        let rules = TopicRules { keep: Some(keep), ..TopicRules::default() };
        config.topics.insert(TOPICS[1].to_owned(), rules);
        if self.setup.is_one_name {
            config.dial.names = vec![format!("{NAME}:4001").parse().expect("a name")];
            config.dns.hosts = Some(self.hosts());
            config.gossip.topics = vec![TOPICS[0].to_owned()];
            config.topics.clear();
        }
        if let Some(path) = &self.members[number].files {
            config.kad.store = Store::File(path.clone());
        }
        config
    }

    /// Starts a node that does not run, with its key or a new one.
    pub(crate) async fn start(&mut self, number: usize, new_key: bool) {
        let member = &mut self.members[number];
        if member.client.is_some() {
            return;
        }
        self.lives += 1;
        member.life = self.lives;
        member.keys += u64::from(new_key);
        let name = format!("{number}-{}", member.keys);
        let secret = format!("the secret of world {}", self.setup.seed);
        let identity = Identity::derive(secret.as_bytes(), &name).expect("a long secret");
        let config = self.config(number);
        let member = &mut self.members[number];
        let host = member.host.clone();
        log::info!(target: "seeds", "{number} starts at {} as {}", member.ip, identity.peer_id());
        let spawned = host.run(|| Node::new(config, identity.keypair().clone()).spawn(&host.handle()));
        match spawned {
            Ok(client) => member.client = Some(client),
            Err(e) => return self.break_with(format!("{number} does not start: {e}")),
        }
        let topics = if self.setup.is_one_name { 1 } else { TOPICS.len() };
        for topic in 0..topics {
            self.listen(number, topic).await;
        }
    }

    /// Notes what a node hears of a topic.
    async fn listen(&self, number: usize, topic: usize) {
        let member = &self.members[number];
        let (host, life, notes) = (member.host.clone(), member.life, self.notes.clone());
        let Some(client) = &member.client else { return };
        let mut subscription = match client.subscribe(TOPICS[topic]).await {
            Ok(subscription) => subscription,
            Err(e) => return self.break_with(format!("{number} cannot subscribe: {e}")),
        };
        let (rt, sabotage) = (host.handle(), self.setup.sabotage);
        let (start, mut dice) = (rt.now() - self.world.elapsed(), fastrand::Rng::with_seed(life));
        host.handle().spawn(async move {
            while let Some(delivery) = subscription.next_delivery().await {
                let mut notes = lock(&notes);
                let message = match delivery {
                    smidge::Delivery::Item(message) => message,
                    smidge::Delivery::Lost(count) => {
                        notes.lost += count;
                        continue;
                    }
                    smidge::Delivery::Gone => {
                        notes.broken.push(format!("{number} is told that something is gone"));
                        continue;
                    }
                };
                let times = match sabotage {
                    Some(Sabotage::DeliveredTwice) if dice.u32(..500) == 0 => 2,
                    Some(Sabotage::NotDelivered) if dice.u32(..500) == 0 => 0,
                    _ => 1,
                };
                let id = message.data.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
                let now = rt.now() - start;
                match id.filter(|id| notes.said.get(*id as usize).is_some_and(|said| said.topic == topic)) {
                    Some(id) if times > 0 => {
                        let heard = notes.heard.entry(id).or_default().entry((number, life));
                        heard.or_insert((now, 0)).1 += times;
                    }
                    Some(_) => {}
                    None => {
                        notes.broken.push(format!("{number} hears what nobody said on {:?}", message.topic));
                    }
                }
            }
        });
    }

    /// Ends a node without a word.
    pub(crate) fn crash(&mut self, number: usize) {
        let member = &mut self.members[number];
        if member.client.take().is_some() {
            log::info!(target: "seeds", "{number} crashes");
            member.host.crash();
        }
    }

    /// Ends a node in good order, and looks that nothing of it is left.
    pub(crate) async fn stop(&mut self, number: usize) {
        let member = &mut self.members[number];
        let Some(client) = member.client.take() else { return };
        log::info!(target: "seeds", "{number} stops");
        let (host, rt) = (member.host.clone(), self.rt.clone());
        match rt.timeout(6 * SECOND, client.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => self.break_with(format!("{number} does not stop in good order: {e}")),
            Err(_) => self.break_with(format!("{number} has not stopped after 6 s")),
        }
        drop(client);
        rt.sleep(SECOND).await;
        let left = host.tasks();
        if left > 0 {
            self.break_with(format!("{number} stopped, and {left} of its tasks run on"));
        }
        host.crash();
    }

    /// Moves a node that does not run to another address.
    pub(crate) fn move_to(&mut self, number: usize, ip: String) {
        let member = &mut self.members[number];
        log::info!(target: "seeds", "{number} moves from {} to {ip}", member.ip);
        member.host.set_addrs(&[&ip]);
        member.ip = ip;
    }

    /// Publishes a message at a node, and notes the receipt when it comes.
    pub(crate) fn say(&mut self, number: usize, topic: usize) {
        let size = 8 + if self.rng.u8(..8) == 0 { self.rng.usize(..20_000) } else { self.rng.usize(..300) };
        let member = &self.members[number];
        let Some(client) = member.client.clone() else { return };
        let (at, life, notes) = (self.world.elapsed(), member.life, self.notes.clone());
        let id = {
            let mut notes = self.notes();
            notes.said.push(Said { topic, node: number, life, at, others: 0, receipt: None });
            notes.said.len() - 1
        };
        let mut data = vec![self.rng.u8(..); size];
        data[..8].copy_from_slice(&(id as u64).to_le_bytes());
        let (sabotage, dice) = (self.setup.sabotage, self.rng.u32(..));
        member.host.handle().spawn(async move {
            let peers = async || client.peers().await.map_or(0, |peers| peers.len());
            let before = peers().await;
            let options =
                PublishOptions { wait_peers: Some(0), timeout: 10 * SECOND, ..PublishOptions::default() };
            let receipt = match sabotage {
                Some(Sabotage::NeverSent) if dice % 50 == 0 => {
                    Ok(Receipt { id: "sabotage".into(), peers: before, local: 1, confirmed: Vec::new() })
                }
                Some(Sabotage::LyingReceipt) if dice % 50 == 0 => {
                    let told = client.publish(TOPICS[topic], data, options).await;
                    told.map(|receipt| Receipt { peers: receipt.peers + 1, ..receipt })
                }
                _ => client.publish(TOPICS[topic], data, options).await,
            };
            let others = before.max(peers().await);
            let said = &mut lock(&notes).said[id];
            (said.others, said.receipt) = (others, Some(receipt));
        });
    }

    /// Stores a record at a node, and notes it when it is acknowledged.
    pub(crate) fn put(&mut self, number: usize) {
        let member = &self.members[number];
        let Some(client) = member.client.clone() else { return };
        let (life, notes, key) = (member.life, self.notes.clone(), format!("key {}", self.rng.u64(..)));
        member.host.handle().spawn(async move {
            let value = format!("value of {key}");
            if client.put(key.clone(), value, PutOptions::default()).await.is_ok() {
                lock(&notes).records.push((number, life, key));
            }
        });
    }

    /// Nodes that run.
    pub(crate) fn up(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|n| self.members[*n].client.is_some()).collect()
    }
}
