//! A node: one event loop that owns the swarm, and the handles that talk to it.
//!
//! Knows nothing of signals, command lines or HTTP: those are clients.

mod access;
mod alone;
mod autonat;
mod behaviour;
mod blame;
mod boxed_handler;
mod catchup;
mod claims;
mod client;
mod command;
mod confirmations;
mod dcutr;
mod dial_budget;
mod dial_guard;
mod dial_requests;
mod error;
mod event;
mod event_loop;
mod feed;
mod forward;
mod gossip_setup;
mod history;
mod listeners;
mod metrics;
mod name;
mod peers;
mod pending_publishes;
mod ping;
mod places;
mod publish_policy;
mod pushes;
mod puts;
mod queries;
mod reachable;
mod relay_circuits;
mod relay_server;
mod relay_slots;
mod replay;
mod reservations;
mod seldom;
mod setup;
mod state;
mod status;
mod subscription;
mod surplus;
mod table;
mod tally;
#[cfg(test)]
mod test_swarm;
mod topic_discovery;
mod topics;
mod turn;
mod watch;

use std::{fmt, sync::Arc};

use libp2p::{Multiaddr, PeerId, identity::Keypair};
use rustix::io::Errno;

pub use catchup::Position;
pub use client::Client;
pub use command::{PublishOptions, PutOptions, Quorum, Stored};
pub use error::Error;
pub use event::{Event, Message, Oversize, Receipt};
pub use feed::{Delivery, Feed};
pub use history::{Series, TrafficHistory};
pub use listeners::NotListening;
pub use peers::{ConnectionStatus, PeerStatus};
pub use replay::Start;
pub(crate) use setup::{dns_config, quic_config, targets, tcp_config};
pub use state::{MAX_STATE_KEY, StateEntry, StateEvent, StateWatch};
pub use status::{Remembered, StateHeld, Status, Traffic};
pub use subscription::Subscription;
pub use topics::Events;
pub(crate) use turn::yield_now;
pub use watch::GossipState;

use self::listeners::{Listeners, Missed};

use crate::{
    config::Config,
    dns,
    error::{chain, errno},
    runtime::Handle,
    transport::admission::{KeyFileError, Keyring},
};

/// What an application says of a message before it is forwarded and delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is delivered here and forwarded.
    Accept,
    /// It is dropped, and no peer is to blame: for instance too old, or not understood.
    Ignore,
    /// It is dropped, and the peer that sent it loses score: it must have known better.
    Reject,
}

/// An application's check on messages, called by the event loop: it has to answer immediately.
pub trait Validator: Send + Sync + 'static {
    /// What to do with `message`.
    fn validate(&self, message: &Message) -> Verdict;
}

impl<F: Fn(&Message) -> Verdict + Send + Sync + 'static> Validator for F {
    fn validate(&self, message: &Message) -> Verdict {
        self(message)
    }
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// None of the configured addresses can be listened on; this is the first of them.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// Which.
        address: Multiaddr,
        /// What the system says.
        why: String,
        /// What to do about it; empty where there is no telling.
        hint: &'static str,
    },
    /// No resolver can be made as configured.
    #[error("cannot resolve names")]
    Dns(#[from] dns::ConfigError),
    /// The gossip engine refuses its parameters.
    #[error("the gossip engine refuses its parameters: {0}")]
    Gossip(String),
    /// The transport cannot be set up.
    #[error("cannot set up the QUIC transport")]
    Quic(#[from] crate::transport::quic::Error),
    /// The TCP transport cannot be set up.
    #[error("cannot set up the TCP transport")]
    Tcp(#[from] crate::transport::tcp::Error),
    /// The network's keys cannot be read.
    #[error("cannot read the network's keys")]
    NetworkKey(#[from] KeyFileError),
    /// Records cannot be kept where the config says.
    #[error("cannot keep records")]
    Store(#[from] crate::store::StoreError),
    /// The network interfaces cannot be watched.
    #[error("cannot watch the network interfaces")]
    Interfaces(#[source] std::io::Error),
}

/// Listens on all `addresses` that can be listened on now.
fn listen(
    swarm: &mut libp2p::Swarm<boxed_handler::BoxedHandlers<behaviour::Behaviour>>,
    addresses: &[Multiaddr],
    runtime: &Handle,
) -> Result<(Listeners, Vec<Missed>), SpawnError> {
    let (mut listeners, mut missed, mut first) = (Listeners::default(), Vec::new(), None);
    for address in addresses {
        let outcome = swarm.listen_on(address.clone()).map_err(|e| {
            let why = chain(&e);
            first.get_or_insert_with(|| (address.clone(), why.clone(), cannot_listen(&e)));
            why
        });
        missed.extend(listeners.tried(address.clone(), outcome, runtime.now()));
    }
    match first {
        Some((address, why, hint)) if !listeners.serves() => Err(SpawnError::Listen { address, why, hint }),
        _ => Ok((listeners, missed)),
    }
}

/// What to do about an address that cannot be listened on.
fn cannot_listen(error: &(dyn std::error::Error + 'static)) -> &'static str {
    match errno(error) {
        Some(Errno::ADDRINUSE) => {
            "another node on this host? each needs a port of its own: `--listen 0.0.0.0:0` picks one, and the log says which"
        }
        Some(Errno::ADDRNOTAVAIL) => {
            "no interface of this host has that address now: /ip4/0.0.0.0/… and /ip6/::/… take all that there are"
        }
        Some(Errno::AFNOSUPPORT) => "the kernel has no IPv6: listen on an address of IPv4",
        Some(Errno::ACCESS | Errno::PERM) => "ports below 1024 are for root: take a higher one",
        _ => "`smidge doctor` tells more",
    }
}

/// A node that is about to start.
#[derive(Clone)]
pub struct Node {
    config: Config,
    key: Keypair,
    validator: Option<Arc<dyn Validator>>,
    keyring: Option<Keyring>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("peer", &PeerId::from(self.key.public())).finish_non_exhaustive()
    }
}

impl Node {
    /// A node with this config and key.
    pub fn new(config: Config, key: Keypair) -> Self {
        Self { config, key, validator: None, keyring: None }
    }

    /// Asks `validator` about every message before it is forwarded and delivered; of what this node publishes, before its own
    /// subscribers hear it.
    pub fn validator(mut self, validator: impl Validator) -> Self {
        self.validator = Some(Arc::new(validator));
        self
    }

    /// DialRequests only to those who know a key of `keyring`, and proves the same to them. Without it,
    /// `network.key_file` of the config is read when the node starts. The ring's keys may be replaced while
    /// the node runs.
    pub fn network(mut self, keyring: Keyring) -> Self {
        self.keyring = Some(keyring);
        self
    }

    /// Starts the node on `runtime`; it runs until [`Client::shutdown`] or until the last client is
    /// dropped.
    ///
    /// # Errors
    /// [`SpawnError`]: nothing runs then.
    pub fn spawn(self, runtime: &Handle) -> Result<Client, SpawnError> {
        let Self { config, key, validator, keyring } = self;
        let config = config.with_mqtt_topics();
        let keyring = match (keyring, &config.network.key_file) {
            (None, Some(file)) => {
                let keyring = Keyring::read(file)?;
                if let Some(left_out) = keyring.left_out() {
                    log::warn!("the network's keys: {left_out}");
                }
                Some(keyring)
            }
            (given, _) => given,
        };
        let (mut swarm, closed) = setup::swarm(&config, &key, keyring.clone(), runtime)?;
        let (listeners, missed) = listen(&mut swarm, &config.listen.addresses, runtime)?;
        for address in &config.listen.external {
            swarm.add_external_address(address.clone());
        }
        let interfaces = runtime.interfaces().map_err(SpawnError::Interfaces)?;
        let commands = async_channel::bounded(config.limits.commands);
        let events = feed::queue(topics::bounds(&config.limits), &feed::Budget::default());
        let (metrics, registry) = metrics::Metrics::new();
        let lost = metrics.lost.events.clone();
        let client = Client::new(*swarm.local_peer_id(), commands.0.clone(), events.opener(), registry, lost);
        let parts = event_loop::Parts {
            swarm,
            closed,
            commands,
            events,
            runtime: runtime.clone(),
            interfaces,
            validator,
            keyring,
            config,
            metrics,
            listeners,
            missed,
        };
        // The loop keeps no strong sender: it ends when the last client is gone.
        let event_loop = Box::new(event_loop::EventLoop::new(parts));
        runtime.spawn(event_loop.run());
        Ok(client)
    }
}
