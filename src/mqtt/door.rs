//! What a connection goes through before MQTT begins: TLS, WebSocket, both or neither.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    tls::Tls,
    websocket::{self, Pages},
};
use crate::runtime::{ByteStream, Handle};

/// How a listener's connections begin.
pub(super) struct Door {
    pub(super) tls: Option<Arc<Tls>>,
    /// Set where MQTT is in WebSocket.
    pub(super) pages: Option<Pages>,
    /// How long all of it may take.
    pub(super) patience: Duration,
    /// Connections that did not come through.
    pub(super) refused: Arc<AtomicU64>,
}

impl Door {
    /// The stream that MQTT is in; `None` if the client did not come so far.
    pub(super) async fn enter(
        &self,
        runtime: &Handle,
        stream: Box<dyn ByteStream>,
    ) -> Option<Box<dyn ByteStream>> {
        if self.tls.is_none() && self.pages.is_none() {
            return Some(stream);
        }
        let why = match runtime.timeout(self.patience, Box::pin(self.steps(stream))).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(e)) => e.to_string(),
            Err(late) => late.to_string(),
        };
        self.refused.fetch_add(1, Ordering::Relaxed);
        log::debug!("an MQTT client did not come in: {why}");
        None
    }

    async fn steps(&self, stream: Box<dyn ByteStream>) -> io::Result<Box<dyn ByteStream>> {
        let stream = match &self.tls {
            Some(tls) => tls.accept(stream).await?,
            None => stream,
        };
        match &self.pages {
            Some(pages) => websocket::upgrade(stream, pages).await,
            None => Ok(stream),
        }
    }
}
