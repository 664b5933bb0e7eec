//! What the core wants done, and what it reports.

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

use super::peers::PeerKind;
use crate::{Message, MessageId, Topic, WireMessage};

/// Something for whoever drives the core to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Open a substream on this connection, tell [`Core::opened`](super::Core::opened), and send on it what the
    /// peer's [`Outbox`](crate::Outbox) holds from then on.
    Carry {
        /// The peer.
        peer: PeerId,
        /// On which connection.
        connection: ConnectionId,
    },
    /// The greeting is in the outbox: send.
    Start {
        /// The peer.
        peer: PeerId,
        /// On which connection.
        connection: ConnectionId,
    },
    /// Close the substream: another connection carries from now on.
    Release {
        /// The peer.
        peer: PeerId,
        /// On which connection.
        connection: ConnectionId,
    },
    /// There is something new in the outbox.
    Flush {
        /// The peer.
        peer: PeerId,
    },
    /// The connection is in use, or no longer.
    KeepAlive {
        /// The peer.
        peer: PeerId,
        /// Which.
        connection: ConnectionId,
        /// In use.
        keep: bool,
    },
    /// Connect to a peer: an explicit one that is gone, or one from peer exchange.
    Connect {
        /// The peer.
        peer: PeerId,
        /// Where, as itself has signed; empty if it is for others to know.
        addresses: Vec<Multiaddr>,
    },
    /// Tell the application.
    Report(Event),
}

/// What the application hears.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A message in a topic that we follow, delivered once.
    Message {
        /// Who brought it first.
        from: PeerId,
        /// Its id.
        id: MessageId,
        /// The message.
        message: Message,
        /// The same as its author made it, for whoever keeps it to be verified again.
        wire: Box<WireMessage>,
    },
    /// A peer follows a topic.
    Subscribed {
        /// Who.
        peer: PeerId,
        /// What.
        topic: Topic,
    },
    /// A peer follows a topic no longer, and is still connected.
    Unsubscribed {
        /// Who.
        peer: PeerId,
        /// What.
        topic: Topic,
    },
    /// A peer is in our mesh of a topic from now on.
    Joined {
        /// Who.
        peer: PeerId,
        /// Of which topic.
        topic: Topic,
    },
    /// A peer left our mesh of a topic.
    Left {
        /// Who.
        peer: PeerId,
        /// Of which topic.
        topic: Topic,
    },
    /// Gossip with a peer works in both directions, or does no longer while it is connected.
    Link {
        /// The peer.
        peer: PeerId,
        /// What we send is carried.
        outbound: bool,
        /// What it sends is carried.
        inbound: bool,
        /// What the peer speaks, once known.
        kind: Option<PeerKind>,
    },
    /// A peer speaks none of our protocols.
    NotSupported {
        /// Who.
        peer: PeerId,
    },
    /// Messages to a peer were dropped since the last heartbeat, because it takes them too slowly.
    SlowPeer {
        /// Who.
        peer: PeerId,
        /// How many.
        dropped: usize,
    },
    /// A peer sent a frame above our limit. It was skipped; what came after it was not.
    TooLarge {
        /// Who.
        peer: PeerId,
        /// Of how many bytes.
        bytes: u64,
    },
}

/// What the application thinks of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it on.
    Accept,
    /// Do not pass it on, and blame nobody.
    Ignore,
    /// Do not pass it on; whoever brought it loses score (P4).
    Reject,
}

/// What a publish can honestly say.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    /// The message's id.
    pub id: MessageId,
    /// How many peers it was handed to: it is on its way to them, and never more than that.
    pub peers: usize,
    /// The message.
    pub wire: WireMessage,
}

/// Why a message was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The payload is above [`Config::max_message`](super::Config::max_message).
    #[error("a message of {bytes} bytes is above max_message, {limit}")]
    TooLarge {
        /// Of the payload.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A message of this id is known already.
    #[error("the message {0} was published before")]
    Duplicate(MessageId),
    /// Nobody of good standing follows the topic.
    #[error("no connected peer follows the topic")]
    NoPeers,
    /// No queue had room, or one to a peer that reads had none.
    #[error("the queues to {peers} peers are full; publish again in a moment")]
    QueuesFull {
        /// How many peers are waited for.
        peers: usize,
    },
    /// The message could not be signed.
    #[error("signing failed: {0}")]
    Signing(String),
}
