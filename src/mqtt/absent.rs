//! What stands for MQTT where it was left out: no listener, ever.

use std::{convert::Infallible, sync::Arc};

use prometheus_client::registry::Registry;

use crate::{config::Config, node::Client, runtime::Handle};

/// Why MQTT clients cannot be taken: without the feature `mqtt` it is not tried.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {}

impl MqttError {
    /// Whether the configuration is to blame.
    pub fn is_config(&self) -> bool {
        match *self {}
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match *self {}
    }
}

/// A listener that is never there.
#[derive(Debug)]
pub struct Bound(Infallible);

impl Bound {
    /// `None`.
    ///
    /// # Errors
    /// None.
    pub fn open(_: &Config, _: &Handle) -> Result<Option<Self>, MqttError> {
        Ok(None)
    }

    /// Never called.
    pub fn serve(self, _: Client, _: &Config, _: &Handle) -> Server {
        Server(self.0)
    }
}

/// A server that is never there.
#[derive(Debug)]
pub struct Server(Infallible);

impl Server {
    /// Never called.
    pub fn urls(&self) -> &[String] {
        match self.0 {}
    }

    /// Never called.
    pub fn url(&self) -> &str {
        match self.0 {}
    }

    /// Never called.
    pub fn figures(&self) -> Arc<Registry> {
        match self.0 {}
    }

    /// Never called.
    pub fn local(&self) -> super::Local {
        match self.0 {}
    }

    /// Never called.
    pub async fn reload(&self) {}

    /// Never called.
    pub async fn close(self) {}
}
