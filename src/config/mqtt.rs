//! What several keys of `[mqtt]` say together.

use super::{ApiListen, Mqtt};

impl Mqtt {
    /// Whether MQTT clients are taken anywhere.
    pub fn is_on(&self) -> bool {
        self.listen != ApiListen::Off || self.websocket != ApiListen::Off
    }

    /// Whether others than this machine's programs reach one of the listeners.
    pub fn is_exposed(&self) -> bool {
        let is_open = |listen: &ApiListen| matches!(listen, ApiListen::Tcp(at) if !at.ip().is_loopback());
        is_open(&self.listen) || is_open(&self.websocket)
    }
}
