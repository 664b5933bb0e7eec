//! The local HTTP API: what a program that is not written in Rust, or a person with curl, asks of a
//! node.
//!
//! One task accepts, one task serves each connection; each knows the node through its
//! [`Client`] only, so that a slow or hostile caller holds up only itself. What a
//! caller may cost has a bound in `[api]`. Nothing here decides what the node does.

mod answer;
mod connection;
mod context;
mod events;
mod follow;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod guard;
mod handlers;
mod json_string;
mod metrics;
mod mqtt;
mod page;
mod process;
mod publish_many;
mod slots;
mod split;
mod state;
mod target;

use std::{fmt, io, sync::Arc, time::Duration};

use futures::{
    channel::oneshot,
    future::{Either, select},
};
use prometheus_client::registry::Registry;

use crate::{
    config::{ApiListen, Config},
    error::remedy,
    logging::Repeats,
    mqtt::Local,
    node::{Client, yield_now},
    runtime::{Handle, Listener, TcpOptions},
};
use context::Context;
pub(crate) use target::encode;

/// How long is waited when the system has no descriptor for another connection.
const BREATHE: Duration = Duration::from_millis(100);

/// Why the API does not listen.
#[derive(Debug, thiserror::Error)]
#[error("api.listen: cannot listen on {listen}")]
pub struct GatewayError {
    /// Where it was to listen.
    pub listen: String,
    /// What the system says.
    pub source: io::Error,
}

impl GatewayError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                "another node on this host? each needs its own: --set api.listen=127.0.0.1:0 picks a free \
                 port and logs it, --set api.listen=off does without"
            }
            io::ErrorKind::AlreadyExists => "remove the file if nobody needs it, or name another path",
            _ => "name another address, or do without: --set api.listen=off",
        }
    }
}

/// A listener that is bound and does not answer yet.
pub struct Bound {
    listener: Listener,
    /// Where it listens, as `--api` takes it.
    url: String,
    /// What else `/metrics` has.
    figures: Option<Arc<Registry>>,
    /// The way into MQTT, where that is on.
    mqtt: Option<Local>,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Bound {
    /// Takes the address of `api.listen`; `None` if it is off.
    ///
    /// # Errors
    /// [`GatewayError`], for instance when the address is in use.
    pub fn open(config: &Config, runtime: &Handle) -> Result<Option<Self>, GatewayError> {
        let fail = |listen: String| move |source| GatewayError { listen, source };
        Ok(Some(match &config.api.listen {
            ApiListen::Off => return Ok(None),
            ApiListen::Tcp(addr) => {
                let listener =
                    runtime.bind_tcp(*addr, TcpOptions::default()).map_err(fail(addr.to_string()))?;
                let url = format!("http://{}", listener.local_addr());
                Self { listener: Listener::Tcp(listener), url, figures: None, mqtt: None }
            }
            ApiListen::Unix(path) => {
                let url = format!("unix:{}", path.display());
                let listener = runtime.bind_unix(path.clone()).map_err(fail(url.clone()))?;
                Self { listener: Listener::Unix(listener), url, figures: None, mqtt: None }
            }
        }))
    }

    /// Where it listens, as `--api` takes it: `http://127.0.0.1:4080` or `unix:/run/smidge.sock`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Has `/metrics` say what is counted elsewhere, too.
    pub fn figures(&mut self, figures: Arc<Registry>) {
        self.figures = Some(figures);
    }

    /// Has `/v1/mqtt` lead there.
    pub fn mqtt(&mut self, mqtt: Local) {
        self.mqtt = Some(mqtt);
    }

    /// Answers for `client`'s node until the [`Gateway`] is dropped.
    pub fn serve(self, client: Client, config: &Config, runtime: &Handle) -> Gateway {
        let Self { listener, url, figures, mqtt } = self;
        log::info!(target: "smidge", "api listening on {url}");
        let context = Arc::new(Context::new(client, config, runtime.clone(), figures, mqtt));
        let (open, closed) = oneshot::channel();
        let (task, ended) = oneshot::channel();
        runtime.spawn(async move {
            accept(listener, context, closed).await;
            // The gateway may have been dropped.
            let _ = task.send(());
        });
        Gateway { url, open, ended }
    }
}

/// A running API. Dropped, it takes no more connections; those that stand end with the node.
#[derive(Debug)]
pub struct Gateway {
    url: String,
    /// Dropped with this: then the accepting task ends.
    open: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Gateway {
    /// Where it listens, as `--api` takes it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Takes no more connections, and returns when the listener is closed (and its socket file, if it
    /// has one, removed).
    pub async fn close(self) {
        drop(self.open);
        // An error says that the task is gone already.
        let _ = self.ended.await;
    }
}

async fn accept(listener: Listener, context: Arc<Context>, mut closed: oneshot::Receiver<()>) {
    let mut failures = Repeats::default();
    loop {
        let accepted = match select(std::pin::pin!(listener.accept()), &mut closed).await {
            Either::Left((accepted, _)) => accepted,
            Either::Right(_) => return,
        };
        match accepted {
            Ok(stream) => {
                connection::start(&context, stream);
                // Each is heard before the next one is taken in.
                yield_now().await;
            }
            Err(e) => {
                // Out of descriptors, for instance: for as long as it lasts, it happens at each attempt.
                let text =
                    format!("the API could not take a connection, and keeps trying: {e}{}", remedy(&e));
                if let Some(text) = failures.say(&text, context.runtime.now()) {
                    log::warn!("{text}");
                }
                context.runtime.sleep(BREATHE).await;
            }
        }
    }
}
