//! `smidge run`: the node, its signals, and what a sender says.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use clap::Args;
use futures::{
    StreamExt,
    future::{Either, select},
    pin_mut,
};

use super::{ConfigArgs, Failure, exit, notify::Notify};
use crate::{
    config::{Config, ConfigError, LoadOptions, Publish},
    error::chain,
    gateway::{Bound, GatewayError},
    identity::{Identity, Origin},
    logging, mqtt,
    node::{Client, Error, Node, PublishOptions, SpawnError},
    runtime::{Handle, Signal, Signals},
    transport::admission::{KeyFileError, Keyring},
};

/// Runs a node until it is stopped.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge run --dial bootstrap:4001 --topic some_topic\n\n\
                        SIGHUP reads the configuration again; SIGTERM and SIGINT stop within 5 seconds,\n\
                        a second one immediately.")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Where the HTTP API listens: IP:PORT, unix:/PATH or off [default: 127.0.0.1:4080]
    #[arg(long, value_name = "ADDR")]
    api: Option<String>,
}

impl RunArgs {
    /// What the configuration is made from: on start, and again on SIGHUP.
    fn options(&self) -> LoadOptions {
        let mut options = self.node.options();
        options.value("--api", "api.listen", self.api.clone());
        options
    }
}

/// What the command line sets of a node's configuration.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// A name (or address) to stay connected to; port 4001 unless given (repeatable)
    #[arg(long, value_name = "NAME[:PORT]")]
    dial: Vec<String>,
    /// An address to listen on, IP:PORT or for instance /ip4/0.0.0.0/tcp/4001 (repeatable)
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Find peers on the local network (multicast DNS)
    #[arg(long)]
    mdns: bool,
    /// A new key in memory: nothing is kept of this node
    #[arg(long, conflicts_with = "data_dir")]
    ephemeral: bool,
    /// Where the key and the stored records are kept
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// What the node calls itself, for people: all its peers get it
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A topic to subscribe to (repeatable)
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
}

impl NodeArgs {
    /// What these arguments say of the configuration, and the process's environment.
    pub(crate) fn options(&self) -> LoadOptions {
        let mut options = self.config.options();
        options.flag("--dial", "dial.names", &self.dial);
        options.flag("--listen", "listen.addresses", &self.listen);
        options.flag("--topic", "gossip.topics", &self.topic);
        options.value("--name", "node.name", self.name.clone());
        options.value("--mdns", "mdns.enabled", self.mdns.then(|| "true".into()));
        options.value("--ephemeral", "identity.ephemeral", self.ephemeral.then(|| "true".into()));
        let within = |name| self.data_dir.as_ref().map(|dir| Path::new(dir).join(name).display().to_string());
        options.value("--data-dir", "identity.key_file", within("key"));
        options.value("--data-dir", "kad.store", within("records"));
        options
    }
}

/// Reads the configuration, sets up the log and the key, and runs the node.
pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    let options = args.options();
    let config = Config::load(&options)?;
    let log = logging::init(&(&config.log).into())?;
    let identity = config.identity.open()?;
    let warnings = [options.warnings(), config.warnings(), config.exposed_secrets()].concat();
    for warning in warnings.iter().chain(identity.warnings()) {
        log::warn!("{warning}");
    }
    let (executor, threads) = (config.runtime.executor, config.runtime.threads);
    let daemon = |runtime| Daemon { args, log, config, runtime, keyring: None }.run(identity);
    executor.block_on(threads, daemon).map_err(|e| Failure::new(exit::FAILED, "runtime", e))?
}

struct Daemon<'a> {
    args: &'a RunArgs,
    log: logging::Control,
    config: Config,
    runtime: Handle,
    /// The keys of a private network, shared with the node.
    keyring: Option<Keyring>,
}

/// A configuration and, of a private network, its keys.
type Read = (Result<Config, ConfigError>, Option<Result<Keyring, KeyFileError>>);

impl Daemon<'_> {
    async fn run(mut self, identity: Identity) -> Result<(), Failure> {
        let mut signals = Signals::new().map_err(|e| Failure::new(exit::FAILED, "signals", e))?;
        log::info!(
            target: "smidge",
            "starting smidge {} as {}{}, peer id {}",
            env!("CARGO_PKG_VERSION"), self.config.role,
            self.config.node.name.as_ref().map(|name| format!(", named {name}")).unwrap_or_default(),
            identity.peer_id()
        );
        if let Origin::Created(file) = identity.origin() {
            log::info!(target: "smidge", "made a new key, {}: keep it, it is who this node is", file.display());
        }
        // Before anything else starts: so that an address in use is reported immediately.
        let mut api = Bound::open(&self.config, &self.runtime)?;
        let mqtt = mqtt::Bound::open(&self.config, &self.runtime)?;
        let mut node = Node::new(self.config.clone(), identity.keypair().clone());
        if let Some(file) = &self.config.network.key_file {
            let keyring = Keyring::read(file)?;
            warn_of_left_out(&keyring);
            log::info!(target: "smidge", "private network: keys {}", keyring.fingerprints().join(", "));
            self.keyring = Some(keyring.clone());
            node = node.network(keyring);
        }
        let client = node.spawn(&self.runtime).map_err(Failure::from)?;
        drop(identity);
        let notify = Notify::from_env();
        let listens = !self.config.listen.addresses.is_empty();
        self.runtime.spawn(notify.clone().follow(client.clone(), listens, self.runtime.clone()));
        let mqtt = mqtt.map(|mqtt| mqtt.serve(client.clone(), &self.config, &self.runtime));
        if let (Some(api), Some(mqtt)) = (&mut api, &mqtt) {
            api.figures(mqtt.figures());
            api.mqtt(mqtt.local());
        }
        // Answers until the node is drained.
        let gateway = api.map(|api| api.serve(client.clone(), &self.config, &self.runtime));
        if self.config.publish.topic.is_some() {
            self.runtime.spawn(say(client.clone(), self.config.publish.clone(), self.runtime.clone()));
        }
        while let Some(signal) = signals.next().await {
            // A file that cannot be read to its end must not keep the node from ending.
            let read = match signal {
                Signal::Stop => None,
                Signal::Reload => {
                    notify.reloading();
                    let stopped = std::pin::pin!(stop_signal(&mut signals));
                    match select(std::pin::pin!(self.read_again()), stopped).await {
                        Either::Left((read, _)) => Some(read),
                        Either::Right(_) => None,
                    }
                }
            };
            if let Some(read) = read {
                self.reload(read, &client).await;
                if let Some(mqtt) = &mqtt {
                    mqtt.reload().await;
                }
                notify.reloaded();
                continue;
            }
            notify.stopping();
            if let Some(mqtt) = mqtt {
                mqtt.close().await;
            }
            let stopped = stop(&client, signals).await;
            if let Some(gateway) = gateway {
                gateway.close().await;
            }
            return stopped;
        }
        Err(Failure::new(exit::FAILED, "signals", "they can no longer be received"))
    }

    /// Reads the configuration, and the network's keys, again; where blocking is allowed.
    async fn read_again(&self) -> io::Result<Read> {
        let (options, keys) = (self.args.options(), self.config.network.key_file.clone());
        let read = move || (Config::load(&options), keys.map(|file| Keyring::read(&file)));
        self.runtime.unblock(read).await
    }

    /// Applies what can be applied while running.
    async fn reload(&mut self, read: io::Result<Read>, client: &Client) {
        let (config, keys) = match read {
            Ok((Ok(config), keys)) => (config, keys),
            Ok((Err(e), _)) => {
                return log::error!(target: "smidge", "reloading failed, nothing was changed: {e}");
            }
            Err(e) => return log::error!(target: "smidge", "reloading failed, nothing was changed: {e}"),
        };
        let changes = self.config.changes(&config);
        if !changes.restart.is_empty() {
            log::warn!(target: "smidge", "reloading: these need a restart: {}", changes.restart.join(", "));
        }
        self.log.apply(&config.log.level);
        if let (Some(keyring), Some(read)) = (&self.keyring, keys) {
            match read {
                Ok(read) => {
                    warn_of_left_out(&read);
                    if keyring.replace(&read) {
                        log::info!(target: "smidge", "private network: keys {}", read.fingerprints().join(", "));
                    }
                }
                Err(e) => {
                    log::error!(target: "smidge", "the network's keys stay as they were: {}", chain(&e));
                }
            }
        }
        if let Err(e) = client.apply(config.clone()).await {
            return log::error!(target: "smidge", "reloading failed: {e}");
        }
        let applied = if changes.live.is_empty() { "nothing".into() } else { changes.live.join(", ") };
        log::info!(target: "smidge", "reloaded: {applied} changed");
        // What needs a restart stays as it was, so that it is reported again next time.
        self.config.dial.names = config.dial.names;
        self.config.dial.addresses = config.dial.addresses;
        self.config.gossip.topics = config.gossip.topics;
        self.config.log.level = config.log.level;
        self.config.peers = config.peers;
        self.config.topics = config.topics;
    }
}

impl From<SpawnError> for Failure {
    fn from(error: SpawnError) -> Self {
        match error {
            SpawnError::Store(e) if e.is_config() => Self::of(exit::CONFIG, "kad.store", &e).hint(e.hint()),
            SpawnError::Store(e) => Self::of(exit::FAILED, "kad.store", &e).hint(e.hint()),
            SpawnError::Listen { hint, .. } => Self::of(exit::FAILED, "node", &error).hint(hint),
            e => Self::of(exit::FAILED, "node", &e),
        }
    }
}

impl From<mqtt::MqttError> for Failure {
    fn from(error: mqtt::MqttError) -> Self {
        let code = if error.is_config() { exit::CONFIG } else { exit::FAILED };
        Self::of(code, "mqtt", &error).hint(error.hint())
    }
}

impl From<GatewayError> for Failure {
    fn from(error: GatewayError) -> Self {
        Self::of(exit::FAILED, "api", &error).hint(error.hint())
    }
}

/// Says which lines of the network's key file give no key.
fn warn_of_left_out(keyring: &Keyring) {
    if let Some(left_out) = keyring.left_out() {
        log::warn!(target: "smidge", "the network's keys: {left_out}");
    }
}

/// Some senders of signals (timeout(1) for one) send each to the process and to its group: what comes
/// this soon after the first is the same signal.
const SAME_SIGNAL: Duration = Duration::from_millis(20);

/// Ready when a signal asks for the end.
async fn stop_signal(signals: &mut Signals) {
    while let Some(signal) = signals.next().await {
        match signal {
            Signal::Stop => return,
            Signal::Reload => {
                log::warn!(target: "smidge", "the configuration is still being read: a file of it does not end");
            }
        }
    }
}

/// Drains the node; a second signal ends it immediately.
async fn stop(client: &Client, mut signals: Signals) -> Result<(), Failure> {
    let drained = client.shutdown();
    let first = Instant::now();
    let impatient = async {
        while let Some(signal) = signals.next().await {
            if signal == Signal::Stop && first.elapsed() > SAME_SIGNAL {
                return;
            }
        }
    };
    pin_mut!(drained, impatient);
    match select(drained, impatient).await {
        Either::Left((done, _)) => done.map_err(|e| Failure::new(exit::FAILED, "stopping", e)),
        Either::Right(_) => {
            Err(Failure::new(exit::FAILED, "stopping", "a second signal came: connections were not closed"))
        }
    }
}

/// Says what `[publish]` asks for: once, or at intervals, for as long as the node runs.
async fn say(client: Client, publish: Publish, runtime: Handle) {
    let Some(topic) = &publish.topic else { return };
    let data = match publish.payload() {
        Ok(data) => data,
        Err(e) => return log::error!(target: "smidge", "publish.data: {e}"),
    };
    let options = PublishOptions {
        wait_peers: Some(publish.wait_peers),
        timeout: publish.wait_timeout,
        ..PublishOptions::default()
    };
    let mut due = Instant::now();
    loop {
        match client.publish(topic, data.clone(), options).await {
            Ok(_) if publish.every.is_zero() => return,
            Ok(_) => {}
            Err(Error::Stopped | Error::ShuttingDown) => return,
            // Published once or regularly, it is published as soon as there is a subscriber.
            Err(e @ Error::NoPeers { .. }) => {
                log::warn!(target: "smidge", "retrying in 0 ms: not published: {e}");
                continue;
            }
            Err(e) if publish.every.is_zero() => return log::error!(target: "smidge", "not published: {e}"),
            Err(e) => log::warn!(target: "smidge", "not published: {e}"),
        }
        let now = Instant::now();
        while due <= now {
            due += publish.every;
        }
        runtime.sleep_until(due).await;
    }
}
