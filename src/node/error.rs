//! What can go wrong with what a client asks for, in words that can be shown as they are.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId};

/// Why a node could not do what a client asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The event loop ended.
    #[error("the node has stopped")]
    Stopped,
    /// The node drains and takes no new work.
    #[error("the node is shutting down and takes no new work")]
    ShuttingDown,
    /// A topic's name is empty, too long, or has control characters.
    #[error("bad topic {topic:?}: {why}")]
    BadTopic {
        /// The topic, as given.
        topic: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// A bound was met.
    #[error("too many {what} at once (limit {limit}, config key {key})")]
    Limit {
        /// Of what there are too many.
        what: &'static str,
        /// The bound.
        limit: usize,
        /// The config key that sets it.
        key: &'static str,
    },
    /// Too few peers had subscribed to a topic when the time was up.
    #[error("{there} of {wanted} peers wanted had subscribed to {topic:?} within {waited:?}")]
    NoPeers {
        /// The topic.
        topic: String,
        /// How many there were.
        there: usize,
        /// How many were waited for.
        wanted: usize,
        /// How long they were waited for.
        waited: Duration,
    },
    /// A message is larger than `gossip.max_message` lets it be.
    #[error("a message of {bytes} bytes is larger than gossip.max_message = {limit} bytes lets it be")]
    MessageTooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The same message was published before (`gossip.message_id = "content"`).
    #[error(
        "the same message was published before: with gossip.message_id = \"content\" equal payloads are one message"
    )]
    Duplicate,
    /// The queues to so many peers are full, and stayed so for as long as the publish was to wait.
    #[error("the queues to {0} peers are full: publish more slowly, or wait longer")]
    Congested(usize),
    /// A topic's rules do not let this node publish on it.
    #[error("this node may not publish on {0:?}: its peer id is not in the topic's publish list")]
    NotAPublisher(String),
    /// Nothing is remembered of a topic.
    #[error("nothing of {0:?} is remembered here: topics.{0:?}.keep is not set")]
    NotKept(String),
    /// A topic has no values by key.
    #[error("{0:?} has no values by key here: topics.{0:?}.keep is not \"latest\"")]
    NotByKey(String),
    /// A topic takes values by key, and nothing else.
    #[error("{0:?} takes values by key, and nothing else: topics.{0:?}.keep is \"latest\"")]
    ByKey(String),
    /// A key of a value is empty or too long.
    #[error("a key of {length} bytes: it has 1 to 1024")]
    BadKey {
        /// Its length.
        length: usize,
    },
    /// A set would go over the bounds of its topic.
    #[error("the values of {topic:?} are full: {why}")]
    StateFull {
        /// The topic.
        topic: String,
        /// Which bound.
        why: String,
    },
    /// A message went out, and too few others said in time that they keep it. They may have it all the same.
    #[error("message {id} was published, and {} of {wanted} nodes confirmed within {waited:?} that they keep it{}", by.len(), names(by))]
    Unconfirmed {
        /// The message's id.
        id: String,
        /// Who did.
        by: Vec<PeerId>,
        /// How many had to.
        wanted: usize,
        /// How long they had, with what went before.
        waited: Duration,
    },
    /// The gossip engine refused for another reason.
    #[error("the message was not published: {0}")]
    Publish(String),
    /// A record is larger than `kad.max_value` lets it be, or the store is full.
    #[error("the record was not stored: {0}")]
    Store(String),
    /// Too few nodes confirmed a record.
    #[error("{confirmed} nodes confirmed the record, {wanted} had to{}", small_limits(*bytes))]
    Quorum {
        /// How many did.
        confirmed: usize,
        /// How many had to.
        wanted: usize,
        /// Bytes of the record put, key and value; 0 of one that was asked for.
        bytes: usize,
    },
    /// No node has what was asked for.
    #[error("not found: {0}")]
    NotFound(String),
    /// The question took too long.
    #[error("no answer in time: {0}")]
    TimedOut(String),
    /// No peer answers at an address, or another one than expected.
    #[error("cannot connect to {address}: {why}")]
    Connect {
        /// Where.
        address: Multiaddr,
        /// What went wrong.
        why: String,
    },
    /// A ping did not come back.
    #[error("no ping answer from {peer}: {why}")]
    Ping {
        /// The peer that was pinged.
        peer: PeerId,
        /// What went wrong.
        why: String,
    },
}

fn names(peers: &[PeerId]) -> String {
    let names: Vec<_> = peers.iter().map(PeerId::to_string).collect();
    if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) }
}

/// What rust-libp2p reads of a question or answer of the table by default, less what stands around a record.
const SMALL: usize = (16 << 10) - 128;

/// Why a record may be confirmed by no node, if it is a large one.
fn small_limits(bytes: usize) -> String {
    if bytes <= SMALL {
        return String::new();
    }
    format!(
        " (it has {bytes} bytes: nodes with a smaller kad.max_value refuse it, and other programs on \
         rust-libp2p read 16 KiB by default)"
    )
}
