//! The listeners for MQTT clients, and their tasks.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{
    channel::oneshot,
    future::{Either, select},
};
use futures_rustls::rustls::ServerConfig;
use prometheus_client::registry::Registry;
use smidge_mqtt::{Access, Broker, Limits, Map};

use super::{
    connection,
    door::Door,
    figures,
    files::{self, FileError},
    kept,
    local::Local,
    mesh,
    shared::{Shared, clock},
    tls::{self, Offer, Tls, TlsError},
    websocket::Pages,
};
use crate::{
    config::{ApiListen, Config, Mqtt, mqtt_topics::NODES},
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
    #[error("{key}: cannot listen on {listen}")]
    Listen {
        /// Which key asks for it.
        key: &'static str,
        /// Where it was to listen.
        listen: String,
        /// What the system says.
        source: io::Error,
    },
    /// A file of users or of access rules cannot be used.
    #[error("{0}")]
    File(String),
    /// A file of certificates, or of a key, cannot be used.
    #[error("{0}")]
    Tls(String),
}

impl MqttError {
    /// Whether the configuration is to blame.
    pub fn is_config(&self) -> bool {
        matches!(self, Self::File(_) | Self::Tls(_))
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                "another broker on this host? stop it, or give this one another port: --set mqtt.listen=127.0.0.1:1884"
            }
            Self::Listen { .. } => "name another address, or do without: \"off\"",
            Self::Tls(_) => "docs/mqtt.md has the commands that make a certificate and its key",
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

impl From<TlsError> for MqttError {
    fn from(error: TlsError) -> Self {
        Self::Tls(chain(&error))
    }
}

/// A place where clients are taken.
struct Place {
    listener: Listener,
    url: String,
    /// TLS goes before MQTT, or before HTTP.
    tls: bool,
    pages: Option<Pages>,
}

impl Place {
    fn open(
        key: &'static str,
        listen: &ApiListen,
        has_tls: bool,
        pages: Option<Pages>,
        runtime: &Handle,
    ) -> Result<Option<Self>, MqttError> {
        let fail = |listen: String| move |source| MqttError::Listen { key, listen, source };
        let (listener, url, tls) = match listen {
            ApiListen::Off => return Ok(None),
            ApiListen::Tcp(addr) => {
                let listener =
                    runtime.bind_tcp(*addr, TcpOptions::default()).map_err(fail(addr.to_string()))?;
                let (scheme, path) = if pages.is_some() { ("ws", "/mqtt") } else { ("mqtt", "") };
                let s = if has_tls { "s" } else { "" };
                let url = format!("{scheme}{s}://{}{path}", listener.local_addr());
                (Listener::Tcp(listener), url, has_tls)
            }
            ApiListen::Unix(path) => {
                let url = format!("unix:{}", path.display());
                let listener = runtime.bind_unix(path.clone()).map_err(fail(url.clone()))?;
                (Listener::Unix(listener), url, false)
            }
        };
        Ok(Some(Self { listener, url, tls, pages }))
    }
}

/// Listeners that are bound and answer nobody yet.
pub struct Bound {
    places: Vec<Place>,
    access: Access,
    tls: Option<Arc<Tls>>,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.places.iter().map(|place| &place.url)).finish()
    }
}

impl Bound {
    /// Takes the addresses of `mqtt.listen` and `mqtt.websocket`, and reads users, access rules and certificates; `None` if
    /// both are off.
    ///
    /// # Errors
    /// [`MqttError`], for instance when an address is in use.
    pub fn open(config: &Config, runtime: &Handle) -> Result<Option<Self>, MqttError> {
        let mqtt = &config.mqtt;
        if !mqtt.is_on() {
            return Ok(None);
        }
        let offer = tls::read(mqtt)?;
        let has_tls = offer.is_some();
        let pages = Some(Pages::new(mqtt));
        let places = [
            Place::open("mqtt.listen", &mqtt.listen, has_tls, None, runtime)?,
            Place::open("mqtt.websocket", &mqtt.websocket, has_tls, pages, runtime)?,
        ];
        let tls = offer.map(|offer| Arc::new(Tls::new(warned(offer))));
        Ok(Some(Self { places: places.into_iter().flatten().collect(), access: files::access(mqtt)?, tls }))
    }

    /// Takes clients in until the [`Server`] is closed.
    pub fn serve(self, client: Client, config: &Config, runtime: &Handle) -> Server {
        let Self { places, access, tls } = self;
        let urls: Vec<_> = places.iter().map(|place| place.url.clone()).collect();
        for url in &urls {
            log::info!(target: "smidge", "mqtt listening on {url}, topic {}", config.mqtt.topic);
        }
        let users = access.users.clone();
        let node = mesh::number(client.peer_id());
        let mut broker = Broker::new(limits(config), access, node, clock(runtime), || fastrand::u64(..));
        let plain: Vec<Arc<str>> = config.mqtt.plain.iter().map(|topic| topic.as_str().into()).collect();
        let confirm = mesh::Confirm { nodes: config.mqtt.confirm, timeout: config.mqtt.confirm_timeout };
        broker.set_confirms(confirm.nodes > 0);
        broker.share(runtime.now());
        broker.set_elsewhere(plain.iter().map(|topic| topic.to_string()).collect());
        let shared = Shared::new(broker, users, plain.clone(), config.mqtt.write_timeout, runtime.clone());
        let (topic, (done, flushed)) = (config.mqtt.topic.clone(), oneshot::channel());
        let refused = Arc::new(AtomicU64::new(0));
        let mut open = Vec::new();
        for Place { listener, tls: has_tls, pages, .. } in places {
            let (handle, closed) = oneshot::channel();
            let tls = tls.clone().filter(|_| has_tls);
            let (patience, refused) = (config.mqtt.connect_timeout, refused.clone());
            let door = Arc::new(Door { tls, pages, patience, refused });
            runtime.spawn(accept(listener, shared.clone(), door, closed));
            open.push(handle);
        }
        runtime.spawn(shared.clone().mind_the_time());
        let (publishing, publisher) = (shared.clone(), client.clone());
        let to = topic.clone();
        let (writing, writer, maps) = (shared.clone(), client.clone(), topic.clone());
        let (speaking, speaker, nodes) = (shared.clone(), client.clone(), nodes_topic(&topic));
        runtime.spawn(async move {
            let write = kept::write(writing, writer, maps);
            let say = mesh::say(speaking, speaker, nodes);
            futures::join!(mesh::publish(publishing, publisher, to, confirm), write, say);
            // The server may have been dropped.
            let _ = done.send(());
        });
        for map in Map::ALL {
            runtime.spawn(kept::watch(shared.clone(), client.clone(), topic.clone(), map));
        }
        runtime.spawn(mesh::hear_nodes(shared.clone(), client.clone(), nodes_topic(&topic)));
        runtime.spawn(mesh::replay(shared.clone(), client.clone(), topic.clone()));
        runtime.spawn(mesh::hear(shared.clone(), client.clone(), topic));
        for topic in plain {
            runtime.spawn(mesh::hear_plain(shared.clone(), client.clone(), topic));
        }
        Server { urls, shared, open, flushed, tls, refused, config: config.mqtt.clone() }
    }
}

/// A running server for MQTT clients.
pub struct Server {
    urls: Vec<String>,
    shared: Arc<Shared>,
    /// Dropped with this: then the accepting tasks end.
    open: Vec<oneshot::Sender<()>>,
    /// Nothing waits for the mesh any more.
    flushed: oneshot::Receiver<()>,
    tls: Option<Arc<Tls>>,
    /// Connections that ended before MQTT began.
    refused: Arc<AtomicU64>,
    config: Mqtt,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("urls", &self.urls).finish_non_exhaustive()
    }
}

impl Server {
    /// Where it listens: `mqtt://127.0.0.1:1883`, `mqtts://…` or `unix:/run/smidge-mqtt.sock`, and behind that, where that is,
    /// `ws://127.0.0.1:9001/mqtt` or `wss://…`.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The first of these.
    pub fn url(&self) -> &str {
        self.urls.first().map_or("", String::as_str)
    }

    /// A way in for what is no MQTT client, for [`gateway::Bound::mqtt`](crate::gateway::Bound::mqtt).
    pub fn local(&self) -> Local {
        Local { shared: self.shared.clone(), urls: self.urls.clone().into() }
    }

    /// Its counters, for [`gateway::Bound::figures`](crate::gateway::Bound::figures).
    pub fn figures(&self) -> Arc<Registry> {
        figures::registry(&self.shared, &self.refused)
    }

    /// Reads users, access rules and certificates again; where that fails, they stay as they were.
    pub async fn reload(&self) {
        let (config, has_access) =
            (self.config.clone(), self.config.users.is_some() || self.config.acl.is_some());
        if !has_access && self.tls.is_none() {
            return;
        }
        let read = move || (has_access.then(|| files::access(&config)), tls::read(&config));
        let (access, offer) = match self.shared.runtime.unblock(read).await {
            Ok(read) => read,
            Err(e) => return log::error!(target: "smidge", "MQTT's files stay as they were: {e}"),
        };
        match access {
            None => {}
            Some(Ok(access)) => self.shared.set_access(access),
            Some(Err(e)) => {
                log::error!(target: "smidge", "MQTT's users and access stay as they were: {}", chain(&e));
            }
        }
        match (offer, &self.tls) {
            (Ok(Some(offer)), Some(tls)) => tls.replace(warned(offer)),
            (Ok(_), _) => {}
            (Err(e), _) => {
                log::error!(target: "smidge", "MQTT's certificates stay as they were: {}", chain(&e));
            }
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

/// Says what is odd about certificates.
fn warned(Offer { config, warnings, .. }: Offer) -> ServerConfig {
    for warning in warnings {
        log::warn!(target: "smidge", "{warning}");
    }
    config
}

async fn accept(listener: Listener, shared: Arc<Shared>, door: Arc<Door>, mut closed: oneshot::Receiver<()>) {
    let mut failures = Repeats::default();
    loop {
        let accepted = match select(std::pin::pin!(listener.accept()), &mut closed).await {
            Either::Left((accepted, _)) => accepted,
            Either::Right(_) => return,
        };
        match accepted {
            Ok(stream) => {
                shared.runtime.spawn(connection::serve(shared.clone(), stream, door.clone()));
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

/// Where nodes with MQTT say that they are there.
fn nodes_topic(topic: &str) -> String {
    format!("{topic}/{NODES}")
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
