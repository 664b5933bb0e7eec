//! What a node reports: events, each of which is also a line of its log.
//!
//! An event is reported once: [`Event`]'s `Display` is the line an operator greps for, fixed wording
//! first, values after (DESIGN's "log lines" are a contract), and the same value goes to those
//! that listen through [`Client::events`](super::Client::events).

use std::{fmt, sync::Arc, time::Duration};

use libp2p::{Multiaddr, PeerId};
use log::Level;

use super::{catchup::Position, listeners::Missed};
use crate::{
    dialer::{Notice, SAME_KEY},
    gossip::Shed,
    logging, mdns,
};

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

/// What was larger than this node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Oversize {
    /// A message.
    Message {
        /// Bytes of its payload.
        bytes: usize,
        /// `gossip.max_message`.
        limit: usize,
    },
    /// A frame of a gossip stream, with whatever it held.
    Frame {
        /// Its bytes.
        bytes: u64,
        /// What is read at most (docs/limits.md).
        limit: usize,
    },
}

impl fmt::Display for Oversize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message { bytes, limit } => {
                write!(f, "a message of {bytes} bytes: gossip.max_message = {limit} bytes here")
            }
            Self::Frame { bytes, limit } => {
                write!(f, "a frame of {bytes} bytes: {limit} are read here, as gossip.max_message has it")
            }
        }
    }
}

impl Receipt {
    /// Of a message without a peer to hand it to, which did not have to wait for one.
    pub(crate) fn to_nobody() -> Self {
        Self { id: String::new(), peers: 0, local: 0, confirmed: Vec::new() }
    }
}

/// Something that happened to a node.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A listener is up.
    Listening(Multiaddr),
    /// An address is no longer listened on.
    NotListening(Multiaddr, String),
    /// A configured address cannot be listened on now.
    CannotListen {
        /// Which.
        address: Multiaddr,
        /// Why.
        reason: String,
        /// When it is tried again; sooner if the interfaces change.
        retry_in: Duration,
        /// Whether it failed in the same way before.
        repeated: bool,
    },
    /// The first connection to a peer stands.
    Connected {
        /// The peer.
        peer: PeerId,
        /// Where.
        address: Multiaddr,
        /// Whether we dialed.
        outbound: bool,
    },
    /// A peer of a private mesh closed a connection because this node does not know its key; said once a peer.
    NotAdmitted {
        /// The peer.
        peer: PeerId,
    },
    /// A peer said what it calls itself, or calls itself something else now. It may call itself anything.
    Named {
        /// The peer.
        peer: PeerId,
        /// Its name.
        name: Arc<str>,
    },
    /// The last connection to a peer ended.
    Disconnected {
        /// The peer.
        peer: PeerId,
        /// Why.
        reason: String,
    },
    /// A connection to a peer came up through a relay.
    Relayed {
        /// The peer.
        peer: PeerId,
        /// Where: the relay's address, and the peer behind it.
        address: Multiaddr,
        /// Whether we dialed.
        outbound: bool,
    },
    /// A relay holds a slot for this node: it can be reached there.
    Reserved {
        /// Which relay.
        relay: PeerId,
    },
    /// A relay that is connected holds no slot for this node.
    NotReserved {
        /// Which relay.
        relay: PeerId,
        /// Why.
        reason: String,
        /// When it is asked again.
        retry_in: Duration,
        /// Whether it was refused before.
        repeated: bool,
    },
    /// A direct connection to a peer that was reached through a relay stands, whatever NATs are between.
    Punched {
        /// The peer.
        peer: PeerId,
    },
    /// No direct connection came of it; the relayed one stays.
    NotPunched {
        /// The peer.
        peer: PeerId,
        /// Why.
        reason: String,
    },
    /// Others can reach this node at this address; it is announced from now on.
    Reachable(Multiaddr),
    /// The routing table took in addresses of a peer: at most 16, and those said too often are left out here.
    Routable {
        /// The peer.
        peer: PeerId,
        /// Where, the best first.
        addresses: Vec<Multiaddr>,
    },
    /// A peer, or one address of it, was forgotten.
    Forgotten {
        /// The peer.
        peer: PeerId,
        /// Where; everywhere if `None`.
        address: Option<Multiaddr>,
    },
    /// A peer is in our mesh of a topic.
    JoinedMesh {
        /// Which topic.
        topic: String,
        /// The peer.
        peer: PeerId,
    },
    /// A peer is no longer in our mesh of a topic.
    LeftMesh {
        /// Which topic.
        topic: String,
        /// The peer.
        peer: PeerId,
    },
    /// A connected peer subscribed to a topic.
    Subscribed {
        /// Which topic.
        topic: String,
        /// The peer.
        peer: PeerId,
    },
    /// A message arrived from another node.
    Message(Message),
    /// A message of ours was handed to peers, or given to subscribers at this node.
    Published {
        /// What can be said of it.
        receipt: Receipt,
        /// Its topic.
        topic: String,
    },
    /// A peer cannot take messages as fast as they come.
    SlowPeer(PeerId),
    /// Gossip gave something up to stay within its bounds; said once, and again after an hour in which it still did. So
    /// much it was since the start.
    Shedding(Shed),
    /// A peer is connected, speaks gossip, and its gossip is not up.
    GossipOff {
        /// The peer.
        peer: PeerId,
        /// What is amiss.
        reason: String,
        /// How many times it was so in a row.
        attempt: u32,
        /// Whether it is connected anew for that; if not, its address is not known.
        again: bool,
    },
    /// Gossip with a peer is up again.
    GossipBack {
        /// The peer.
        peer: PeerId,
    },
    /// A peer sent something that is larger than this node takes; it was dropped. Reported every 10 s at most.
    Oversized {
        /// The peer that sent it, or passed it on.
        peer: PeerId,
        /// What it was.
        what: Oversize,
        /// How many more there were, of any peer, since the last report.
        others: u64,
    },
    /// A message in a topic of values by key was none, and was kept out. Reported every 10 s at most.
    KeptOut {
        /// The topic.
        topic: String,
        /// Who sent it.
        author: PeerId,
        /// What is amiss.
        why: String,
        /// How many more there were, in any topic, since the last report.
        others: u64,
    },
    /// A value gave way: there are more than the topic's bounds, or `limits.kept`, let be. Reported every 10 s at most.
    GaveWay {
        /// The topic.
        topic: String,
        /// Its key.
        key: Arc<[u8]>,
        /// How many more there were, in any topic, since the last report.
        others: u64,
    },
    /// This node was away for longer than deletions are remembered: its copy of a topic's values was thrown away, but for
    /// what was set since, and is fetched again from those who were there.
    ThrownAway {
        /// The topic.
        topic: String,
        /// How many keys.
        keys: usize,
    },
    /// A peer answered a ping.
    Ping {
        /// The peer.
        peer: PeerId,
        /// The round-trip time.
        rtt: Duration,
    },
    /// The dialer has something to say about names, records and dials.
    Dialer(Notice),
    /// Discovery on the local network has something to say.
    Mdns(mdns::Notice),
    /// What is stored could not be written to the disk.
    NotStored {
        /// Why.
        why: String,
        /// When it is tried again.
        retry_in: Duration,
        /// Whether it failed in the same way before.
        repeated: bool,
    },
    /// What is stored was written to the disk, after it could not be for a while.
    StoredAgain {
        /// How often it had failed.
        failures: u32,
    },
    /// What topics with `durable` remember cannot be written to the disk: it is in memory only.
    NotSaved {
        /// Why.
        why: String,
        /// When it is tried again.
        retry_in: Duration,
        /// Whether it failed in the same way before.
        repeated: bool,
    },
    /// It was written, after it could not be for a while.
    SavedAgain {
        /// How often it had failed.
        failures: u32,
    },
    /// The node is about to end.
    Stopping,
}

impl Event {
    pub(crate) fn missed(Missed { address, why: reason, retry_in, repeated }: Missed) -> Self {
        Self::CannotListen { address, reason, retry_in, repeated }
    }

    /// The peer that this event is about, whose name stands at the end of its line.
    pub(crate) fn peer(&self) -> Option<&PeerId> {
        match self {
            Self::Connected { peer, .. }
            | Self::NotAdmitted { peer }
            | Self::Disconnected { peer, .. }
            | Self::Relayed { peer, .. }
            | Self::Punched { peer }
            | Self::NotPunched { peer, .. }
            | Self::Routable { peer, .. }
            | Self::JoinedMesh { peer, .. }
            | Self::LeftMesh { peer, .. }
            | Self::Subscribed { peer, .. }
            | Self::SlowPeer(peer)
            | Self::GossipOff { peer, .. }
            | Self::GossipBack { peer }
            | Self::Oversized { peer, .. }
            | Self::Ping { peer, .. }
            | Self::Reserved { relay: peer }
            | Self::NotReserved { relay: peer, .. } => Some(peer),
            _ => None,
        }
    }

    /// The target under which this event is logged: messages have one of their own, which says nothing unless it is
    /// asked for.
    pub(crate) fn target(&self) -> &'static str {
        match self {
            Self::Message(_) | Self::Published { .. } => logging::MESSAGES,
            _ => "smidge",
        }
    }

    /// The level at which this event is logged.
    pub(crate) fn level(&self) -> Level {
        match self {
            Self::Subscribed { .. } | Self::Ping { .. } => Level::Debug,
            Self::NotStored { repeated: true, .. }
            | Self::NotSaved { repeated: true, .. }
            | Self::NotReserved { repeated: true, .. }
            | Self::CannotListen { repeated: true, .. }
            | Self::GossipOff { attempt: 2.., again: false, .. } => Level::Debug,
            Self::GossipOff { .. }
            | Self::SlowPeer(_)
            | Self::Shedding(_)
            | Self::Oversized { .. }
            | Self::KeptOut { .. }
            | Self::GaveWay { .. }
            | Self::ThrownAway { .. }
            | Self::NotListening(..)
            | Self::CannotListen { .. }
            | Self::NotAdmitted { .. }
            | Self::NotStored { .. }
            | Self::NotSaved { .. } => Level::Warn,
            Self::Dialer(notice) => match notice {
                Notice::Resolved { changed: false, recovered: false, .. }
                | Notice::PartlyResolved { repeated: true, .. }
                | Notice::NotResolved { repeated: true, .. }
                | Notice::Dialing { repeated: true, .. }
                | Notice::DialFailed { repeated: true, .. } => Level::Debug,
                Notice::TooManyRecords { .. } | Notice::SameKey { .. } => Level::Warn,
                _ => Level::Info,
            },
            Self::Mdns(notice) => match notice {
                mdns::Notice::DialFailed { repeated: true, .. } => Level::Debug,
                mdns::Notice::Trouble { .. } | mdns::Notice::Flood(_) | mdns::Notice::SameKey { .. } => {
                    Level::Warn
                }
                _ => Level::Info,
            },
            _ => Level::Info,
        }
    }
}

/// What happened beside what a line is about.
fn beside(f: &mut fmt::Formatter<'_>, others: u64) -> fmt::Result {
    match others {
        0 => Ok(()),
        n => write!(f, " ({n} others since this was said last)"),
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening(address) => write!(f, "listening on {address}"),
            Self::NotListening(address, reason) => write!(f, "no longer listening on {address}: {reason}"),
            Self::CannotListen { address, reason, retry_in, .. } => {
                write!(f, "retrying in {} ms: not listening on {address}: {reason}", retry_in.as_millis())
            }
            Self::Connected { peer, address, outbound } => {
                write!(
                    f,
                    "connected to {peer} at {address} ({})",
                    if *outbound { "dialed" } else { "accepted" }
                )
            }
            Self::NotAdmitted { peer } => write!(
                f,
                "not admitted by {peer}: it is of a private mesh, and this node knows none of its keys (network.key_file)"
            ),
            Self::Named { peer, name } => write!(f, "name of {peer}: {name}"),
            Self::Disconnected { peer, reason } => write!(f, "disconnected from {peer}: {reason}"),
            Self::Relayed { peer, address, outbound } => {
                write!(
                    f,
                    "reached by relay {peer} at {address} ({})",
                    if *outbound { "dialed" } else { "accepted" }
                )
            }
            Self::Reserved { relay } => write!(f, "reserved at {relay}"),
            Self::NotReserved { relay, reason, retry_in, .. } => {
                write!(f, "retrying in {} ms: nothing is reserved at {relay}: {reason}", retry_in.as_millis())
            }
            Self::Punched { peer } => write!(f, "punched through to {peer}"),
            Self::NotPunched { peer, reason } => write!(f, "hole punch to {peer} failed: {reason}"),
            Self::Reachable(address) => write!(f, "reachable at {address}"),
            Self::Routable { peer, addresses } => {
                write!(f, "added to kademlia {peer} at ")?;
                for (n, address) in addresses.iter().enumerate() {
                    write!(f, "{}{address}", if n == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Forgotten { peer, address: Some(address) } => write!(f, "forgot {peer} at {address}"),
            Self::Forgotten { peer, address: None } => write!(f, "forgot {peer}"),
            Self::JoinedMesh { topic, peer } => write!(f, "joined mesh {topic} with {peer}"),
            Self::LeftMesh { topic, peer } => write!(f, "left mesh {topic} with {peer}"),
            Self::Subscribed { topic, peer } => write!(f, "subscribed to {topic}: {peer}"),
            Self::Message(m) => {
                write!(f, "message {} from ", m.id)?;
                match m.source {
                    Some(source) => write!(f, "{source}")?,
                    None => f.write_str("nobody")?,
                }
                write!(f, " on {}, {} bytes{}", m.topic, m.data.len(), if m.late { ", late" } else { "" })?;
                m.name.as_ref().map_or(Ok(()), |name| write!(f, " [{name}]"))
            }
            Self::Published { receipt, topic } => {
                write!(f, "published {} to {} peers on {topic}", receipt.id, receipt.peers)?;
                match receipt.local {
                    0 => Ok(()),
                    1 => f.write_str(", and to 1 subscriber here"),
                    n => write!(f, ", and to {n} subscribers here"),
                }
            }
            Self::SlowPeer(peer) => write!(f, "slow peer {peer}: it takes messages slower than they come"),
            Self::Shedding(Shed { ids, payloads, messages, forwards }) => write!(
                f,
                "gossip is at its bounds (limits.memory, gossip.seen_ids, history, queue): {ids} ids and {payloads} \
                 messages were forgotten early, {messages} dropped, {forwards} not passed on to slow peers"
            ),
            Self::Oversized { peer, what, others } => {
                write!(f, "too large from {peer}, and dropped: {what}")?;
                beside(f, *others)
            }
            Self::KeptOut { topic, author, why, others } => {
                write!(f, "kept out of {topic}, a message of {author}: {why}")?;
                beside(f, *others)
            }
            Self::GaveWay { topic, key, others } => {
                write!(
                    f,
                    "gave way in {topic}, the value of \"{}\": there are more than its keep.keys and keep.bytes, or \
                     limits.kept, let be",
                    key.escape_ascii()
                )?;
                beside(f, *others)
            }
            Self::ThrownAway { topic, keys } => write!(
                f,
                "threw away {keys} values of {topic}: this node was alone for longer than keep.marks, and cannot know \
                 what was deleted meanwhile; they are fetched from those who were there"
            ),
            Self::GossipOff { peer, reason, attempt, again } => {
                let then = if *again { "it is connected anew" } else { "it cannot be dialed from here" };
                write!(f, "gossip with {peer} is off: {reason}; {then} (attempt {attempt})")
            }
            Self::GossipBack { peer } => write!(f, "gossip with {peer} is up again"),
            Self::Ping { peer, rtt } => write!(f, "ping {peer} {rtt:?}"),
            Self::Dialer(notice) => notice.fmt(f),
            Self::Mdns(notice) => notice.fmt(f),
            Self::NotStored { why, retry_in, .. } => write!(
                f,
                "retrying in {} ms: records are not on the disk, and no new ones are taken: {why}",
                retry_in.as_millis()
            ),
            Self::StoredAgain { failures } => {
                write!(f, "records are on the disk again, after {failures} failures")
            }
            Self::NotSaved { why, retry_in, .. } => write!(
                f,
                "retrying in {} ms: what topics remember is in memory only: {why}",
                retry_in.as_millis()
            ),
            Self::SavedAgain { failures } => {
                write!(f, "what topics remember is on the disk again, after {failures} failures")
            }
            Self::Stopping => f.write_str("stopping"),
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolved { target, records, .. } => write!(f, "resolved {target} to {records} records"),
            Self::NotResolved { target, reason, retry_in, .. } => {
                write!(f, "retrying in {} ms: {target} is not resolved: {reason}", retry_in.as_millis())
            }
            Self::PartlyResolved { target, reason, kept: 0, .. } => {
                write!(f, "resolved {target} in part: {reason}")
            }
            Self::PartlyResolved { target, reason, kept, .. } => {
                write!(f, "resolved {target} in part, {kept} records stand unconfirmed: {reason}")
            }
            Self::LetGo { target, addresses, after } => {
                let list = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                write!(
                    f,
                    "let go of {} records of {target}: for {after:?} (dial.stale) no name server confirmed them, and \
                     nobody answered there: {list}",
                    addresses.len()
                )
            }
            Self::TooManyRecords { target, found, followed } => {
                write!(f, "resolved {target} to {found} records: only the first {followed} are followed")
            }
            Self::Dialing { address, .. } => write!(f, "dialing {address}"),
            Self::DialFailed { address, reason, retry_in, .. } => {
                write!(f, "retrying in {} ms: {address} is not connected: {reason}", retry_in.as_millis())
            }
            Self::SameKey { address } => write!(f, "this node's own key answers at {address}: {SAME_KEY}"),
            Self::Own { address } => write!(f, "skipping {address}: it is this node"),
            Self::Replaced { address, old, new } => {
                write!(f, "replaced at {address}: {new} is there, {old} was")
            }
        }
    }
}

impl fmt::Display for mdns::Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Looking(segment) => write!(f, "looking for peers by mdns on {segment}"),
            Self::Discovered { peer, address } => write!(f, "discovered {peer} at {address} by mdns"),
            Self::SameKey { address } => {
                write!(
                    f,
                    "this node's own peer id is announced by mdns at {address}: another node has this node's key"
                )
            }
            Self::Expired { peer, address } => write!(f, "expired {peer} at {address} by mdns"),
            Self::DialFailed { peer, reason, retry_in, .. } => write!(
                f,
                "retrying in {} ms: {peer}, discovered by mdns, is not connected: {reason}",
                retry_in.as_millis()
            ),
            Self::Trouble { segment: Some(segment), why } => {
                write!(f, "nobody is found by mdns on {segment}: {why}")
            }
            Self::Trouble { segment: None, why } => write!(f, "mdns: {why}"),
            Self::Recovered(segment) => write!(f, "mdns works again on {segment}"),
            Self::Flood(what) => write!(f, "not all that mdns announces is taken in: {what}"),
        }
    }
}
