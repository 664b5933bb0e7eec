//! A message that arrived, and what can be said of one that was sent.

use std::sync::Arc;

use libp2p::PeerId;

use crate::node::catchup::Position;

/// A message that arrived on a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The message's id: text where it is printable, hexadecimal otherwise.
    pub id: String,
    /// Its topic.
    pub topic: String,
    /// What its author calls itself, if it is connected to this node and has a name. Anybody may call itself anything.
    pub name: Option<Arc<str>>,
    /// Its author; `None` for anonymous messages, which only `validation = "permissive"` lets in.
    pub source: Option<PeerId>,
    /// The peer that handed it to us.
    pub from: PeerId,
    /// What it says.
    pub data: Arc<[u8]>,
    /// Whether it was published at this node; `from` is this node then.
    pub local: bool,
    /// When it was sent, in milliseconds since 1970, as its author has signed. `None` where authors' programs do not
    /// say it: all but smidge.
    pub sent: Option<u64>,
    /// Whether it was missed when it was live: it comes from a memory, a neighbour's or this node's. Those of one author are in
    /// order among themselves as far as one memory gave them.
    pub late: bool,
    /// Where it is in the memory of a topic that is kept.
    pub position: Option<Position>,
}

/// What a publish can honestly say.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Receipt {
    /// The message's id; empty where nobody was there at all, neither a peer nor a subscriber here, and its topic is not kept.
    pub id: String,
    /// How many peers the message was handed to. They have it soon or, if their connection breaks,
    /// never: it is not a confirmation of delivery.
    pub peers: usize,
    /// How many subscribers at this node it was given to.
    pub local: usize,
    /// Who said that they keep it ([`PublishOptions::confirm`](crate::PublishOptions)): in memory, or, where they keep the
    /// topic on disk, there. None unless that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "texts")]
    pub confirmed: Vec<PeerId>,
}

fn texts<S: serde::Serializer>(peers: &[PeerId], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(peers.iter().map(PeerId::to_string))
}

impl Receipt {
    /// Of a message without a peer to hand it to, which did not have to wait for one.
    pub(crate) fn to_nobody() -> Self {
        Self { id: String::new(), peers: 0, local: 0, confirmed: Vec::new() }
    }
}
