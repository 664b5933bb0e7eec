//! What is proved: knowledge of a key, by this peer, in this role, to that peer, in this very session.
//!
//! Pure: bytes in, bytes out. Comparing takes the same time whatever is compared.

use aws_lc_rs::{constant_time, hmac};
use libp2p::PeerId;

use super::keys::NetworkKey;

/// The version that a message begins with.
pub(super) const VERSION: u8 = 1;
/// The length of either message: the version, then HMAC-SHA256.
pub(super) const LENGTH: usize = 33;

/// Which end of the session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The one that began the handshake; proves first.
    Initiator,
    /// The other one.
    Responder,
}

/// What both ends know of their session.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// What only the two ends know.
    pub(super) binding: [u8; 32],
    pub(super) initiator: PeerId,
    pub(super) responder: PeerId,
}

impl Session {
    /// The message by which `role` proves that it knows `key`.
    pub(super) fn prove(&self, key: &NetworkKey, role: Role) -> [u8; LENGTH] {
        let tag = self.tag(key, role);
        let mut message = [VERSION; LENGTH];
        message[1..].copy_from_slice(tag.as_ref());
        message
    }

    /// The key that `message` proves `role` to know, of these. All are tried, whichever it is.
    pub(super) fn verify<'a>(
        &self,
        keys: &'a [NetworkKey],
        role: Role,
        message: &[u8],
    ) -> Option<&'a NetworkKey> {
        let (version, tag) = message.split_first()?;
        if message.len() != LENGTH || *version != VERSION {
            return None;
        }
        let mut found = None;
        for key in keys {
            let right = self.tag(key, role);
            if constant_time::verify_slices_are_equal(right.as_ref(), tag).is_ok() {
                found = Some(key);
            }
        }
        found
    }

    /// HMAC-SHA256 under the key derived with the info `proof`, over: the role as a byte, the binding,
    /// and both peer ids as multihash bytes, each after its length as a byte, the initiator's first.
    fn tag(&self, key: &NetworkKey, role: Role) -> hmac::Tag {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*key.derive(b"proof"));
        let mut mac = hmac::Context::with_key(&key);
        mac.update(&[match role {
            Role::Initiator => 1,
            Role::Responder => 2,
        }]);
        mac.update(&self.binding);
        for peer in [&self.initiator, &self.responder] {
            let bytes = peer.to_bytes();
            // A peer id is a multihash of at most 42 bytes.
            mac.update(&[u8::try_from(bytes.len()).unwrap_or(u8::MAX)]);
            mac.update(&bytes);
        }
        mac.sign()
    }
}
