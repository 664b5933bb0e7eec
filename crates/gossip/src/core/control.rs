//! Control messages, each to where it belongs.

use std::time::Instant;

use super::{Core, peers::PeerKey};
use crate::Control;

impl Core {
    pub(super) fn on_control(&mut self, key: PeerKey, control: Control, now: Instant) {
        let Control { ihave, iwant, graft, prune, idontwant, extensions, choke } = control;
        if let Some(extensions) = extensions
            && let Some(peer) = self.peers.get_mut(key)
        {
            // It is to be said once; whoever says it again is not heard.
            peer.extensions.get_or_insert(extensions);
        }
        if !idontwant.is_empty() {
            self.on_idontwant(key, &idontwant, now);
        }
        if !iwant.is_empty() {
            self.on_iwant(key, iwant);
        }
        if !ihave.is_empty() {
            self.on_ihave(key, ihave, now);
        }
        if !graft.is_empty() {
            self.on_graft(key, graft, now);
        }
        if !prune.is_empty() {
            self.on_prune(key, prune, now);
        }
        if !choke.is_empty() {
            self.on_choke(key, choke);
        }
    }
}
