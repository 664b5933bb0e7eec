//! Packets from the local network.

use super::wire::{Packet, read};

/// No claim is shorter: `dnsaddr=`, an address, and a peer id.
const SHORTEST: usize = 40;

/// Any bytes: what is read claims no more than a packet can hold.
pub fn packet(bytes: &[u8]) {
    match read(bytes) {
        Ok(Packet::Answer(claims)) => assert!(claims.len() * SHORTEST <= bytes.len()),
        Ok(Packet::Question { .. }) => {}
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
}
