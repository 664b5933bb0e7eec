//! A private mesh: whoever connects has to prove that it knows the network's key before the swarm sees
//! the connection, and we prove the same to it.
//!
//! docs/ADMISSION.md specifies the messages, the derivations and what this does and does not protect
//! from. A transport is wrapped ([`Admitted`]); its connections have to be sessions that both ends can
//! tell from any other ([`ChannelBinding`]). What is not admitted is closed, costs no memory afterwards,
//! and counts against the address it came from, whichever transport it came by ([`Gate`]).
//!
//! Never encrypts anything, never learns who a peer is (TLS or Noise does both), and never tells a remote
//! why it was not admitted.

mod exchange;
mod keys;
mod proof;
#[cfg(test)]
mod tests;
mod throttle;
mod transport;

pub use exchange::NotAdmitted;
pub use keys::{KeyFileError, Keyring, NetworkKey};
pub use transport::{Admitted, Error, Gate, Rules};

/// A session whose two ends know something of it that no other session has (a channel binding, RFC 5056).
pub trait ChannelBinding {
    /// 32 bytes that both ends of this session compute alike, and that no other session shares. For TLS 1.3:
    /// the exporter of RFC 8446, section 7.5, with the label `EXPORTER-smidge-admission-v1` and an empty
    /// context. For Noise: the handshake as it was on the wire (docs/ADMISSION.md).
    ///
    /// # Errors
    /// `None` when the session can give none, or not yet: nobody is admitted then.
    fn binding(&self) -> Option<[u8; 32]>;

    /// Whether this end began the handshake (TLS: it is the client; Noise: the initiator). Who dialed whom can be the other
    /// way round, when a hole is punched through NATs.
    fn is_initiator(&self) -> bool;
}
