//! What is proved: knowledge of a key, by this peer, in this role, to that peer, in this very session.
//!
//! Pure: bytes in, bytes out. Comparing takes the same time whatever is compared.

use libp2p::PeerId;
use ring::hmac;

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
        let tag = hmac::sign(&mac_key(key), &self.bound(role));
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
        let (bound, mut found) = (self.bound(role), None);
        for key in keys {
            if hmac::verify(&mac_key(key), &bound, tag).is_ok() {
                found = Some(key);
            }
        }
        found
    }

    /// What the HMAC is over: the role as a byte, the binding, and both peer ids as multihash bytes, each
    /// after its length as a byte, the initiator's first.
    fn bound(&self, role: Role) -> Vec<u8> {
        let mut bytes = vec![match role {
            Role::Initiator => 1,
            Role::Responder => 2,
        }];
        bytes.extend(self.binding);
        for peer in [&self.initiator, &self.responder] {
            let peer = peer.to_bytes();
            // A peer id is a multihash of at most 42 bytes.
            bytes.push(u8::try_from(peer.len()).unwrap_or(u8::MAX));
            bytes.extend(peer);
        }
        bytes
    }
}

/// HMAC-SHA256 under the key derived with the info `proof`.
fn mac_key(key: &NetworkKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &*key.derive(b"proof"))
}
