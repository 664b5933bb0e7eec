//! What peers say to each other: the RPC of libp2p/specs `pubsub/README.md` and `pubsub/gossipsub` v1.0 to v1.3.
//!
//! Decoding is bounded before it allocates, copies no payload and never panics; encoding writes into a buffer of the
//! caller's. Nothing here knows a peer, a signature's worth or the time.

mod decode;
mod encode;
mod framer;
mod wire;

use std::time::Duration;

use bytes::Bytes;
use libp2p::PeerId;

pub use decode::{DecodeError, decode};
pub use framer::{Frame, Framer, FramingError};
pub(crate) use wire::SIGNING_PREFIX;
pub use wire::{MessageParts, WireMessage};

pub(crate) use encode::{
    FrameWriter, choke_len, control_len, message_len, put_choke, put_control_item, put_message,
    put_subscription, subscription_len,
};

use crate::{MessageId, Topic};

/// The longest back-off that a PRUNE can ask for: a day. What asks for more gets this much.
pub const MAX_BACKOFF: Duration = Duration::from_secs(24 * 3600);

/// One RPC.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rpc {
    /// Topics joined and left, in the order they were said.
    pub subscriptions: Vec<Subscription>,
    /// Messages.
    pub publish: Vec<WireMessage>,
    /// Gossipsub's control messages.
    pub control: Control,
    /// Items that [`Limits`] did not allow or that make no sense (a topic that is not UTF-8, an id of no bytes): they
    /// were left out, the rest holds. Always 0 in what we send.
    pub ignored: u32,
}

/// A topic joined or left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Which one.
    pub topic: Topic,
    /// Joined, or else left.
    pub subscribe: bool,
}

/// Control messages. Several of one kind are said one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Messages the sender has.
    pub ihave: Vec<IHave>,
    /// Messages the sender asks for.
    pub iwant: Vec<MessageId>,
    /// Topics whose mesh the sender takes us into.
    pub graft: Vec<Topic>,
    /// Topics out of whose mesh the sender takes us.
    pub prune: Vec<Prune>,
    /// Messages the sender has already (v1.2).
    pub idontwant: Vec<MessageId>,
    /// What else the sender speaks (v1.3); only ever in the first RPC of a stream.
    pub extensions: Option<Extensions>,
    /// Topics of which the sender wants announcements in the place of messages, and those of which it wants messages
    /// again (our extension, `CHOKE.md`): the last word on a topic holds.
    pub choke: Vec<Choke>,
}

/// Whether messages of a topic are to be announced (`CHOKE.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choke {
    /// The topic.
    pub topic: Topic,
    /// Announced, or else sent.
    pub choked: bool,
}

/// Messages that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IHave {
    /// The topic they are of.
    pub topic: Topic,
    /// Their ids.
    pub ids: Vec<MessageId>,
}

/// A mesh link taken down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prune {
    /// The topic.
    pub topic: Topic,
    /// Others to try in its place (v1.1, peer exchange).
    pub peers: Vec<PeerInfo>,
    /// How long not to graft again, in whole seconds on the wire; at most [`MAX_BACKOFF`].
    pub backoff: Option<Duration>,
}

/// A peer to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its id.
    pub peer: PeerId,
    /// Its addresses, signed by itself: an envelope of libp2p/specs RFC 0002, not looked into here.
    pub record: Option<Bytes>,
}

/// The extensions that a peer announces (`extensions/extensions.proto`): each a field number that says true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions(Vec<u32>);

impl Extensions {
    /// Partial messages.
    pub const PARTIAL_MESSAGES: u32 = 10;
    /// Links that come late are choked (`CHOKE.md`): the flag's field number, and that of the message in an RPC.
    pub const CHOKE: u32 = 0x2c_40ce;
    /// The test extension, which does nothing.
    pub const TEST: u32 = 6_492_434;
    /// Extensions of one peer that are kept.
    pub const MOST: usize = 32;

    /// These too. Beyond [`Self::MOST`] nothing is added.
    #[must_use]
    pub fn with(mut self, field: u32) -> Self {
        self.add(field);
        self
    }

    /// Whether that one is announced.
    pub fn has(&self, field: u32) -> bool {
        self.0.contains(&field)
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    fn add(&mut self, field: u32) -> bool {
        match self.0.binary_search(&field) {
            Err(at) if self.0.len() < Self::MOST => self.0.insert(at, field),
            Err(_) => return false,
            Ok(_) => {}
        }
        true
    }
}

impl Rpc {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.subscriptions.is_empty() && self.publish.is_empty() && self.control.is_empty()
    }

    /// Appends it as one frame: its length, then itself.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode::rpc(self, out);
    }
}

impl Control {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.ihave.is_empty()
            && self.iwant.is_empty()
            && self.graft.is_empty()
            && self.prune.is_empty()
            && self.idontwant.is_empty()
            && self.extensions.is_none()
            && self.choke.is_empty()
    }
}

/// How much of an RPC is taken in. What is beyond `frame` refuses the frame; beyond any other bound the item is left
/// out and counted ([`Rpc::ignored`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one RPC without its length prefix.
    pub frame: usize,
    /// Subscriptions in one RPC.
    pub subscriptions: usize,
    /// Messages in one RPC.
    pub messages: usize,
    /// Message ids in one RPC, of each of IHAVE, IWANT and IDONTWANT.
    pub ids: usize,
    /// GRAFTs in one RPC, PRUNEs, IHAVEs, and CHOKEs with UNCHOKEs.
    pub topics: usize,
    /// Peers in one PRUNE.
    pub peers: usize,
    /// Bytes of a topic's name.
    pub topic: usize,
    /// Bytes of a message id.
    pub id: usize,
    /// Bytes of a signed peer record.
    pub record: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame: 64 * 1024,
            subscriptions: 5_000,
            messages: 5_000,
            ids: 5_000,
            topics: 5_000,
            peers: 64,
            topic: 256,
            id: 256,
            record: 8 * 1024,
        }
    }
}

#[cfg(test)]
mod tests;
