//! Settings of the TCP transport.

use std::{fmt, time::Duration};

use libp2p::{PeerId, identity::Keypair, noise};
use smidge_runtime::KeepAlive;

use super::Error;

/// What Yamux lets a remote send on every stream before anybody has read (its specification).
pub(super) const STREAM_CREDIT: usize = 256 * 1024;

/// Limits and times of a TCP [`Transport`](super::Transport).
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// How long a connection may take to be made: TCP, Noise and Yamux together.
    pub handshake_timeout: Duration,
    /// A connection that is silent for this long is probed (whole seconds, at least one).
    pub keep_alive: Duration,
    /// The connection is lost when nothing was acknowledged for this long.
    pub idle_timeout: Duration,
    /// Streams of both sides that may be open simultaneously on a connection.
    pub max_concurrent_streams: usize,
    /// Connections that the system keeps for a listener until they are accepted.
    pub backlog: u32,
    /// Incoming connections that are not made yet; one more, and the oldest of them is cut.
    pub max_half_made: usize,
    pub(super) noise: noise::Config,
    pub(super) local_peer: PeerId,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("local_peer", &self.local_peer)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("keep_alive", &self.keep_alive)
            .field("idle_timeout", &self.idle_timeout)
            .field("max_half_made", &self.max_half_made)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// The defaults, authenticated as `keypair`.
    ///
    /// # Errors
    /// [`Error::Noise`] when the key cannot sign.
    pub fn new(keypair: &Keypair) -> Result<Self, Error> {
        Ok(Self {
            handshake_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(8),
            max_concurrent_streams: 256,
            backlog: 1024,
            max_half_made: 32,
            noise: noise::Config::new(keypair).map_err(|e| Error::Noise { source: Box::new(e) })?,
            local_peer: keypair.public().to_peer_id(),
        })
    }

    /// Which value is out of range, if one is.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |field, value: String, expected| Err(Error::Config { field, value, expected });
        if self.keep_alive < Duration::from_secs(1) {
            return refuse("keep_alive", format!("{:?}", self.keep_alive), "at least 1s");
        }
        if self.keep_alive >= self.idle_timeout {
            return refuse("keep_alive", format!("{:?}", self.keep_alive), "less than idle_timeout");
        }
        for (field, value) in [
            ("max_concurrent_streams", self.max_concurrent_streams),
            ("backlog", self.backlog as usize),
            ("max_half_made", self.max_half_made),
        ] {
            if value == 0 {
                return refuse(field, "0".into(), "at least 1");
            }
        }
        if self.max_concurrent_streams > usize::MAX / STREAM_CREDIT {
            let value = self.max_concurrent_streams.to_string();
            return refuse("max_concurrent_streams", value, "less than the memory there can be");
        }
        Ok(())
    }

    pub(super) fn alive(&self) -> KeepAlive {
        KeepAlive { after: self.keep_alive, lost_after: self.idle_timeout }
    }

    pub(super) fn yamux(&self) -> yamux::Config {
        let mut yamux = yamux::Config::default();
        // In this order: each of the two is checked against the other. `check` has excluded overflow.
        yamux
            .set_max_connection_receive_window(None)
            .set_max_num_streams(self.max_concurrent_streams)
            .set_max_connection_receive_window(Some(self.max_concurrent_streams * STREAM_CREDIT));
        yamux
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_notice_a_dead_peer_within_ten_seconds() {
        let config = Config::new(&Keypair::generate_ed25519()).unwrap();
        assert!(config.keep_alive + config.idle_timeout <= Duration::from_secs(10));
        config.check().unwrap();
        let _ = config.yamux();
    }

    #[test]
    fn values_that_cannot_work_are_refused_by_name() {
        let base = Config::new(&Keypair::generate_ed25519()).unwrap();
        let mut config = base.clone();
        config.keep_alive = config.idle_timeout;
        let error = config.check().unwrap_err().to_string();
        assert_eq!(error, "TCP configuration: keep_alive = 8s is out of range: less than idle_timeout");
        let mut config = base.clone();
        config.max_concurrent_streams = usize::MAX;
        assert!(config.check().unwrap_err().to_string().contains("max_concurrent_streams"));
        let mut config = base;
        config.max_half_made = 0;
        let error = config.check().unwrap_err().to_string();
        assert_eq!(error, "TCP configuration: max_half_made = 0 is out of range: at least 1");
    }
}
