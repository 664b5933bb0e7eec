//! What is kept of a client, connected or not: its subscriptions, and what is on its way to and from it.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use mqtt_proto::TopicName;

use crate::{
    message::{Message, Qos},
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
}

#[derive(Debug)]
pub(crate) enum State {
    /// Not acknowledged yet.
    Publish(Pending),
    /// At QoS 2: received, and to be released.
    Release,
}

#[derive(Debug)]
pub(crate) struct Inflight {
    pub(crate) pid: u16,
    pub(crate) state: State,
    /// Sent over the present connection.
    pub(crate) sent: bool,
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
            last_pid: 0,
        }
    }

    /// A packet id that is not in use; there is one, as fewer are in flight than there are.
    pub(crate) fn next_pid(&mut self) -> u16 {
        loop {
            self.last_pid = self.last_pid.checked_add(1).unwrap_or(1);
            if !self.inflight.iter().any(|inflight| inflight.pid == self.last_pid) {
                return self.last_pid;
            }
        }
    }

    /// Whether another message may be sent to the client now.
    pub(crate) fn has_window(&self) -> bool {
        self.inflight.len() < self.window
    }

    pub(crate) fn position(&self, pid: u16) -> Option<usize> {
        self.inflight.iter().position(|inflight| inflight.pid == pid && inflight.sent)
    }
}
