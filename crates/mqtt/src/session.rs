//! What is kept of a client, connected or not: its subscriptions, and what is on its way to and from it.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use mqtt_proto::TopicName;

use crate::{
    message::{Message, Qos},
    retained::Rank,
    trie::Options,
};

/// A will, and who left it.
#[derive(Clone, Debug)]
pub(crate) struct Will {
    pub(crate) message: Message,
    /// How long its message lives from when it is published.
    pub(crate) lifetime: Option<std::time::Duration>,
    pub(crate) delay: std::time::Duration,
}

/// A message that a client is to get at QoS 1 or 2.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// Subscription identifiers.
    pub(crate) ids: Option<Arc<[u32]>>,
    /// What all brokers know it by; none of one that comes with a subscription.
    pub(crate) rank: Rank,
}

/// Acknowledged messages that are remembered one by one.
const MOST_DONE: usize = 256;

#[derive(Debug)]
pub(crate) enum State {
    /// Not acknowledged yet.
    Publish(Pending),
    /// At QoS 2: received, and to be released.
    Release(Rank),
}

#[derive(Debug)]
pub(crate) struct Inflight {
    pub(crate) pid: u16,
    pub(crate) state: State,
    /// Sent over the present connection.
    pub(crate) sent: bool,
}

impl Inflight {
    /// Whether it is this message's.
    pub(crate) fn is(&self, rank: Rank) -> bool {
        match &self.state {
            State::Publish(pending) => pending.rank == rank,
            State::Release(of) => *of == rank,
        }
    }
}

/// Retained messages that a subscription has yet to bring.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) filter: Arc<str>,
    pub(crate) options: Options,
    /// How far it came.
    pub(crate) after: Option<TopicName>,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Arc<str>,
    pub(crate) user: Option<Arc<str>>,
    /// No two sessions of a broker have the same: what was set for one is not taken for another in its place.
    pub(crate) serial: u64,
    pub(crate) connection: Option<usize>,
    /// Seconds that it is kept for without a connection.
    pub(crate) expiry: u32,
    /// When it ends, without a connection.
    pub(crate) ends: Option<Instant>,
    pub(crate) will: Option<Will>,
    /// When it is next looked at.
    pub(crate) armed: Option<Instant>,
    /// When the will is published, without a connection.
    pub(crate) will_at: Option<Instant>,
    pub(crate) subscriptions: HashMap<Arc<str>, Options>,
    /// In the order of their messages.
    pub(crate) inflight: VecDeque<Inflight>,
    pub(crate) window: usize,
    pub(crate) queue: VecDeque<Pending>,
    /// Bytes of messages in flight and queued.
    pub(crate) bytes: usize,
    /// Packet ids at QoS 2 that the client has not released.
    pub(crate) incoming: BTreeSet<u16>,
    pub(crate) scans: VecDeque<Scan>,
    /// When it connected, or when its broker last had to say that it is: a stamp.
    pub(crate) epoch: u64,
    /// When its connection ended, microseconds since 1970.
    pub(crate) left: u64,
    /// Its client id was made here.
    pub(crate) is_assigned: bool,
    /// It goes on at another broker.
    pub(crate) has_moved: bool,
    /// What its client retained on the topic of its will.
    pub(crate) birth: Option<Arc<Message>>,
    /// It has all messages up to this stamp, but for those that wait for it.
    pub(crate) position: u64,
    /// Messages behind that which it has.
    pub(crate) done: BTreeSet<Rank>,
    /// What it missed is being read from memory: what comes meanwhile waits.
    pub(crate) is_replaying: bool,
    /// It came from another broker, so that what is live may have been read from memory, too: until then.
    pub(crate) repeats_until: Option<Instant>,
    /// Packet ids of messages that another broker has sent, at QoS 2.
    pub(crate) known: HashMap<Rank, u16>,
    last_pid: u16,
}

impl Session {
    pub(crate) fn new(client: Arc<str>, user: Option<Arc<str>>, serial: u64) -> Self {
        Self {
            client,
            user,
            serial,
            connection: None,
            expiry: 0,
            ends: None,
            will: None,
            armed: None,
            will_at: None,
            subscriptions: HashMap::new(),
            inflight: VecDeque::new(),
            window: 0,
            queue: VecDeque::new(),
            bytes: 0,
            incoming: BTreeSet::new(),
            scans: VecDeque::new(),
            epoch: 0,
            left: 0,
            is_assigned: false,
            has_moved: false,
            birth: None,
            position: 0,
            done: BTreeSet::new(),
            is_replaying: false,
            repeats_until: None,
            known: HashMap::new(),
            last_pid: 0,
        }
    }

    /// A packet id that is not in use; there is one, as fewer are in flight than there are.
    pub(crate) fn next_pid(&mut self) -> u16 {
        loop {
            self.last_pid = self.last_pid.checked_add(1).unwrap_or(1);
            if !self.inflight.iter().any(|inflight| inflight.pid == self.last_pid)
                && !self.known.values().any(|pid| *pid == self.last_pid)
            {
                return self.last_pid;
            }
        }
    }

    /// The client has acknowledged a message.
    pub(crate) fn note_done(&mut self, rank: Rank) {
        if self.expiry > 0 && rank.stamp > 0 {
            self.done.insert(rank);
            if self.done.len() > MOST_DONE {
                self.done.pop_first();
            }
        }
    }

    /// Whether a message was given to the client, or waits for it.
    pub(crate) fn has(&self, rank: Rank) -> bool {
        self.done.contains(&rank)
            || self.queue.iter().any(|pending| pending.rank == rank)
            || self.inflight.iter().any(|inflight| inflight.is(rank))
    }

    /// Whether another message may be sent to the client now.
    pub(crate) fn has_window(&self) -> bool {
        self.inflight.len() < self.window
    }

    pub(crate) fn position(&self, pid: u16) -> Option<usize> {
        self.inflight.iter().position(|inflight| inflight.pid == pid && inflight.sent)
    }
}
