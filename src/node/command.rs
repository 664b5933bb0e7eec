//! What a [`Client`](super::Client) asks of the event loop, and what it can answer.

use std::{collections::BTreeMap, time::Duration};

use futures::channel::oneshot;
use libp2p::{Multiaddr, PeerId, kad};

use super::{
    error::Error,
    event::Receipt,
    history::TrafficHistory,
    peers::PeerStatus,
    pending_publishes::Outcome,
    replay::{Cursor, Page, Start},
    state::{Listed, StateEntry, StateWatch},
    status::Status,
    subscription::Subscription,
};
use crate::{
    config::{Config, Target},
    dialer::NameStatus,
};

/// A reply that a client awaits, or has stopped awaiting.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

pub(crate) enum Command {
    Dial {
        target: Target,
        reply: Reply<()>,
    },
    Subscribe {
        topic: String,
        start: Start,
        reply: Reply<Subscription>,
    },
    /// A page of what is remembered of a topic.
    Page {
        topic: String,
        cursor: Cursor,
        reply: oneshot::Sender<Page>,
    },
    Unsubscribe {
        topic: String,
        reply: Reply<bool>,
    },
    /// A subscription was dropped: its topic may be left.
    Unfollow {
        topic: String,
    },
    /// Of at least one message.
    Publish {
        topic: String,
        messages: Vec<Vec<u8>>,
        options: PublishOptions,
        reply: Reply<Vec<Outcome>>,
    },
    /// The value of a key.
    StateGet {
        topic: String,
        key: Vec<u8>,
        reply: Reply<Option<StateEntry>>,
    },
    /// Sets a key, or deletes it.
    StateSet {
        topic: String,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
        reply: Reply<Receipt>,
    },
    StateList {
        topic: String,
        reply: Reply<Listed>,
    },
    StateWatch {
        topic: String,
        reply: Reply<StateWatch>,
    },
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
        options: PutOptions,
        reply: Reply<Stored>,
    },
    Get {
        key: Vec<u8>,
        quorum: usize,
        reply: Reply<Vec<u8>>,
    },
    Provide {
        key: Vec<u8>,
        reply: Reply<()>,
    },
    StopProviding {
        key: Vec<u8>,
        reply: Reply<()>,
    },
    Providers {
        key: Vec<u8>,
        reply: Reply<Vec<PeerId>>,
    },
    FindPeer {
        peer: PeerId,
        reply: Reply<Vec<Multiaddr>>,
    },
    Ping {
        peer: PeerId,
        reply: Reply<Duration>,
    },
    Connect {
        address: Multiaddr,
        reply: Reply<PeerId>,
    },
    Peers {
        reply: Reply<Vec<PeerStatus>>,
    },
    Mesh {
        reply: Reply<BTreeMap<String, Vec<PeerId>>>,
    },
    Names {
        reply: Reply<Vec<NameStatus>>,
    },
    Status {
        reply: Reply<Status>,
    },
    History {
        reply: Reply<TrafficHistory>,
    },
    Apply {
        config: Box<Config>,
        reply: Reply<()>,
    },
    Shutdown {
        reply: Reply<()>,
    },
}

/// How a message is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishOptions {
    /// Peers to wait for that have subscribed to the topic. `None`: one, or a subscriber at this node, whichever is first;
    /// 0: nobody has to be there, and the receipt may say that the message was handed to no peer.
    pub wait_peers: Option<usize>,
    /// How long they are waited for, and how long others have to confirm.
    pub timeout: Duration,
    /// How many other nodes have to say that they keep the message, in a topic that is kept: on their disks, where they keep it
    /// there. The receipt names them.
    pub confirm: usize,
}

impl Default for PublishOptions {
    /// One subscriber, here or elsewhere, and ten seconds for it to come; nobody has to confirm.
    fn default() -> Self {
        Self { wait_peers: None, timeout: Duration::from_secs(10), confirm: 0 }
    }
}

/// How a record is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOptions {
    /// How many other nodes have to confirm the record before the put succeeds.
    pub quorum: Quorum,
    /// How long the record lives; `None`: as long as `kad.record_ttl` says.
    pub ttl: Option<Duration>,
}

impl Default for PutOptions {
    fn default() -> Self {
        Self { quorum: Quorum::Majority, ttl: None }
    }
}

/// How many other nodes have to confirm a record, of the `kad.replication` closest to its key. On a node that
/// knows no other, a record is stored here alone, unless a number asks for more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quorum {
    /// One, if there is any.
    One,
    /// More than half of those that there are.
    #[default]
    Majority,
    /// All that there are.
    All,
    /// This many, whether they are there or not.
    Count(std::num::NonZeroUsize),
}

impl From<Quorum> for kad::Quorum {
    fn from(quorum: Quorum) -> Self {
        match quorum {
            Quorum::One => Self::One,
            Quorum::Majority => Self::Majority,
            Quorum::All => Self::All,
            Quorum::Count(n) => Self::N(n),
        }
    }
}

/// A put that succeeded: this node keeps the record, on its disk if it has one for records, and
/// `confirmed` others said that they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Stored {
    /// Other nodes that confirmed the record.
    pub confirmed: usize,
}
