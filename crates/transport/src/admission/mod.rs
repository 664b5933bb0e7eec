//! A private mesh: whoever connects has to prove that it knows the network's key before the swarm sees
//! the connection, and we prove the same to it.
//!
//! docs/ADMISSION.md specifies the messages, the derivations and what this does and does not protect
//! from. A transport is wrapped ([`Admitted`]); its connections have to be sessions that both ends can
//! tell from any other ([`ChannelBinding`]). What is not admitted is closed, costs no memory afterwards,
//! and counts against the address it came from, whichever transport it came by ([`Gate`]).
//!
//! Never encrypts anything, never learns who a peer is (TLS or Noise does both), and never tells a remote
//! why it was not admitted: it learns only that it was not.

mod exchange;
mod keys;
mod proof;
#[cfg(test)]
mod tests;
mod throttle;
mod transport;

use quinn_proto::{ConnectionError, VarInt};

pub use exchange::NotAdmitted;
pub use keys::{KeyFileError, Keyring, NetworkKey};
pub use transport::{Admitted, Error, Gate, Rules};

use crate::quic;

/// A session whose two ends know something of it that no other session has (a channel binding, RFC 5056).
pub trait ChannelBinding {
    /// 32 bytes that both ends of this session compute alike, and that no other session shares. For TLS 1.3:
    /// the exporter of RFC 8446, section 7.5, with the label `EXPORTER-smidge-admission-v1` and an empty
    /// context. For Noise: the handshake as it was on the wire (docs/ADMISSION.md).
    ///
    /// # Errors
    /// `None` when the session can give none, or not yet: nobody is admitted then.
    fn binding(&self) -> Option<[u8; 32]>;

    /// Whether this end began the handshake (TLS: it is the client; Noise: the initiator). The direction of the dial can be the other
    /// way round, when a hole is punched through NATs.
    fn is_initiator(&self) -> bool;

    /// Ends the session, and says [`REFUSED`] where it has words for that (QUIC has); else the remote sees it end.
    fn refuse(&mut self) {}
}

/// The application error code of QUIC that a connection is closed with which is not admitted: "smid".
pub const REFUSED_CODE: u32 = 0x736d_6964;
/// The reason that is given with it, whatever was wrong.
pub const REFUSED: &str = "not admitted: this is a private mesh";

/// Whether `error` says that the remote did not admit this end, because it is of a private mesh.
pub fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(quic::Error::Lost { source: ConnectionError::ApplicationClosed(close), .. }) =
            error.downcast_ref()
        {
            return close.error_code == VarInt::from_u32(REFUSED_CODE);
        }
        // The source of an I/O error passes over what it wraps.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}
