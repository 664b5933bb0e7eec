//! The listener for MQTT clients, and its tasks.

use std::{
    fmt, io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{
    channel::oneshot,
    future::{Either, select},
};
use prometheus_client::registry::Registry;
use smidge_mqtt::{Access, Broker, Limits};

use super::{
    connection, figures,
    files::{self, FileError},
    mesh,
    shared::{Shared, clock},
};
use crate::{
    config::{ApiListen, Config, Mqtt},
    error::{chain, remedy},
    logging::Repeats,
    node::{Client, yield_now},
    runtime::{Handle, Listener, TcpOptions},
};

/// How long is waited when the system has no descriptor for another connection.
const BREATHE: Duration = Duration::from_millis(100);
/// How long the last of what clients said has to reach the mesh when the node ends.
const FLUSH: Duration = Duration::from_millis(500);

/// Why MQTT clients cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// There is no listener.
    #[error("mqtt.listen: cannot listen on {listen}")]
    Listen {
        /// Where it was to listen.
        listen: String,
        /// What the system says.
        source: io::Error,
    },
    /// A file of users or of access rules cannot be used.
    #[error("{0}")]
    File(String),
}

impl MqttError {
    /// Whether the configuration is to blame.
    pub fn is_config(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                "another broker on this host? stop it, or give this one another port: --set mqtt.listen=127.0.0.1:1884"
            }
            Self::Listen { .. } => "name another address, or do without: --set mqtt.listen=off",
            Self::File(_) => {
                "mosquitto_passwd makes mqtt.users; mqtt.acl has the form of mosquitto's acl_file"
            }
        }
    }
}

impl From<FileError> for MqttError {
    fn from(error: FileError) -> Self {
        Self::File(chain(&error))
    }
}

/// A listener that is bound and answers nobody yet.
pub struct Bound {
    listener: Listener,
    url: String,
    access: Access,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Bound {
    /// Takes the address of `mqtt.listen`, and reads users and access rules; `None` if it is off.
    ///
    /// # Errors
    /// [`MqttError`], for instance when the address is in use.
    pub fn open(config: &Config, runtime: &Handle) -> Result<Option<Self>, MqttError> {
        let fail = |listen: String| move |source| MqttError::Listen { listen, source };
        let (listener, url) = match &config.mqtt.listen {
            ApiListen::Off => return Ok(None),
            ApiListen::Tcp(addr) => {
                let listener =
                    runtime.bind_tcp(*addr, TcpOptions::default()).map_err(fail(addr.to_string()))?;
                let url = format!("mqtt://{}", listener.local_addr());
                (Listener::Tcp(listener), url)
            }
            ApiListen::Unix(path) => {
                let url = format!("unix:{}", path.display());
                let listener = runtime.bind_unix(path.clone()).map_err(fail(url.clone()))?;
                (Listener::Unix(listener), url)
            }
        };
        Ok(Some(Self { listener, url, access: files::access(&config.mqtt)? }))
    }

    /// Takes clients in until the [`Server`] is closed.
    pub fn serve(self, client: Client, config: &Config, runtime: &Handle) -> Server {
        let Self { listener, url, access } = self;
        log::info!(target: "smidge", "mqtt listening on {url}, topic {}", config.mqtt.topic);
        let users = access.users.clone();
        let node = mesh::number(client.peer_id());
        let mut broker = Broker::new(limits(config), access, node, clock(runtime), || fastrand::u64(..));
        let plain: Vec<Arc<str>> = config.mqtt.plain.iter().map(|topic| topic.as_str().into()).collect();
        broker.set_elsewhere(plain.iter().map(|topic| topic.to_string()).collect());
        let shared = Shared::new(broker, users, plain.clone(), config.mqtt.write_timeout, runtime.clone());
        let (topic, (open, closed), (done, flushed)) =
            (config.mqtt.topic.clone(), oneshot::channel(), oneshot::channel());
        runtime.spawn(accept(listener, shared.clone(), closed));
        runtime.spawn(shared.clone().mind_the_time());
        let (publishing, publisher) = (shared.clone(), client.clone());
        let to = topic.clone();
        runtime.spawn(async move {
            mesh::publish(publishing, publisher, to).await;
            // The server may have been dropped.
            let _ = done.send(());
        });
        runtime.spawn(mesh::hear(shared.clone(), client.clone(), topic));
        for topic in plain {
            runtime.spawn(mesh::hear_plain(shared.clone(), client.clone(), topic));
        }
        Server { url, shared, open, flushed, config: config.mqtt.clone() }
    }
}

/// A running server for MQTT clients.
pub struct Server {
    url: String,
    shared: Arc<Shared>,
    /// Dropped with this: then the accepting task ends.
    open: oneshot::Sender<()>,
    /// Nothing waits for the mesh any more.
    flushed: oneshot::Receiver<()>,
    config: Mqtt,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Server {
    /// Where it listens: `mqtt://127.0.0.1:1883` or `unix:/run/smidge-mqtt.sock`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its counters, for [`gateway::Bound::figures`](crate::gateway::Bound::figures).
    pub fn figures(&self) -> Arc<Registry> {
        figures::registry(&self.shared)
    }

    /// Reads users and access rules again; where that fails, they stay as they were.
    pub async fn reload(&self) {
        let config = self.config.clone();
        if config.users.is_none() && config.acl.is_none() {
            return;
        }
        match self.shared.runtime.unblock(move || files::access(&config)).await {
            Ok(Ok(access)) => self.shared.set_access(access),
            Ok(Err(e)) => {
                log::error!(target: "smidge", "MQTT's users and access stay as they were: {}", chain(&e));
            }
            Err(e) => log::error!(target: "smidge", "MQTT's users and access stay as they were: {e}"),
        }
    }

    /// Closes all connections, publishes the wills of their clients, and waits half a second at most for what is on its
    /// way to the mesh. Without a DISCONNECT: there are clients that end for good on it.
    pub async fn close(self) {
        drop(self.open);
        self.shared.with(|state, now| state.broker.close_all(now));
        self.shared.end_outgoing();
        self.shared.wake_timer();
        let _ = self.shared.runtime.timeout(FLUSH, self.flushed).await;
    }
}

async fn accept(listener: Listener, shared: Arc<Shared>, mut closed: oneshot::Receiver<()>) {
    let mut failures = Repeats::default();
    loop {
        let accepted = match select(std::pin::pin!(listener.accept()), &mut closed).await {
            Either::Left((accepted, _)) => accepted,
            Either::Right(_) => return,
        };
        match accepted {
            Ok(stream) => {
                shared.runtime.spawn(connection::serve(shared.clone(), stream));
                // Each is heard before the next one is taken in.
                yield_now().await;
            }
            Err(e) => {
                // Out of descriptors, for instance: for as long as it lasts, it happens at each attempt.
                let text = format!("MQTT could not take a connection, and keeps trying: {e}{}", remedy(&e));
                if let Some(text) = failures.say(&text, shared.runtime.now()) {
                    log::warn!("{text}");
                }
                shared.runtime.sleep(BREATHE).await;
            }
        }
        if shared.closing.load(Ordering::Acquire) {
            return;
        }
    }
}

fn limits(config: &Config) -> Limits {
    let mqtt = &config.mqtt;
    let share = |bytes: usize| if bytes == 0 { (config.limits.memory / 8).min(64 << 20) } else { bytes };
    let short = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
    Limits {
        connections: mqtt.connections,
        sessions: mqtt.sessions,
        subscriptions: mqtt.subscriptions,
        inflight: short(mqtt.inflight),
        receive_maximum: short(mqtt.receive_maximum),
        queue_messages: mqtt.queue_messages,
        queue_bytes: mqtt.queue,
        queued_bytes: share(mqtt.queues),
        retained_messages: mqtt.retained_messages,
        retained_bytes: share(mqtt.retained),
        packet: mqtt.max_packet,
        session_expiry: mqtt.session_expiry,
        connect_timeout: mqtt.connect_timeout,
        keep_alive: u16::try_from(mqtt.keep_alive.as_secs()).unwrap_or(u16::MAX),
        ..Limits::default()
    }
}
