//! The line of the log of each event: fixed wording first, values after.

use std::fmt;

use super::Event;
use crate::{
    dialer::{Notice, SAME_KEY},
    gossip::Shed,
    mdns,
};

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
