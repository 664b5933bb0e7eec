//! Whose a client is: what all brokers keep of each, so that it takes its session over wherever it connects, and goes on
//! with it there.
//!
//! A record is written by the broker that the client is connected to, and by another one only where that one is gone. Of two
//! the one with the later epoch is right; whoever is connected to the client and sees an earlier one writes again.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Action, Broker, Map, SessionId};
use crate::{
    codec::{Reason, fault},
    mesh,
    message::Qos,
    nodes,
    record::{Record, Sent, Testament},
    retained::Rank,
    session::{Inflight, Session, State, Will},
    topic,
};

/// How long changes of a session are gathered before they are written.
const SOON: Duration = Duration::from_millis(50);
/// The same of a client that leaves nothing behind: one that only says something and goes leaves no trace.
const LATER: Duration = Duration::from_millis(300);
/// The same of what a client has acknowledged.
const PROGRESS: Duration = Duration::from_secs(1);
/// Within which a broker writes again that sees an earlier record of its client.
const MEND: Duration = Duration::from_millis(500);
/// How long a message may be on its way between brokers: what was acknowledged within it is listed one by one.
const UNDER_WAY: u64 = 5_000_000;
/// For how long what a session that came from elsewhere gets is compared with what it has.
const REPEATS: Duration = Duration::from_secs(30);
/// Records that are written in one call.
const WRITES: usize = 256;
/// Records of other brokers that are kept at most.
const MOST: usize = 1 << 20;

/// A client, as all brokers keep it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) record: Record,
    /// Since when this broker knows that.
    pub(super) since: Instant,
}

/// All clients that brokers keep, and which of this one's are to be written.
#[derive(Debug, Default)]
pub(super) struct Roster {
    pub(super) records: HashMap<Arc<str>, Known>,
    due: BTreeSet<(Instant, Arc<str>)>,
    due_at: HashMap<Arc<str>, Instant>,
}

impl Roster {
    fn arm(&mut self, client: &Arc<str>, at: Instant) {
        if let Some(before) = self.due_at.get(client) {
            if *before <= at {
                return;
            }
            self.due.remove(&(*before, client.clone()));
        }
        self.due.insert((at, client.clone()));
        self.due_at.insert(client.clone(), at);
    }

    fn next(&mut self, now: Instant) -> Option<Arc<str>> {
        let (at, client) = self.due.first().filter(|(at, _)| *at <= now).cloned()?;
        self.due.remove(&(at, client.clone()));
        self.due_at.remove(&client);
        Some(client)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    pub(super) fn insert(&mut self, client: Arc<str>, record: Record, now: Instant) {
        if self.records.len() < MOST || self.records.contains_key(&client) {
            self.records.insert(client, Known { record, since: now });
        }
    }
}

/// The id of a will: the same whichever broker publishes it, and another one for each connection.
pub(super) fn will_id(client: &str, epoch: u64) -> u128 {
    let low = nodes::hash(client.as_bytes());
    u128::from(nodes::lot(low, epoch)) << 64 | u128::from(low ^ epoch)
}

impl Broker {
    /// Something of a client has changed that others are to know.
    pub(super) fn touch(&mut self, session: usize, now: Instant) {
        let Some(state) = self.sessions.get(session).filter(|_| self.shares) else { return };
        let after = if state.expiry > 0 || state.will.is_some() { SOON } else { LATER };
        // Nobody else can have an id that was made here.
        if state.is_assigned && after == LATER {
            return;
        }
        self.roster.arm(&state.client.clone(), now + after);
    }

    /// A client that has a session has acknowledged something.
    pub(super) fn touch_progress(&mut self, session: usize, now: Instant) {
        let Some(state) = self.sessions.get(session).filter(|state| self.shares && state.expiry > 0) else {
            return;
        };
        self.roster.arm(&state.client.clone(), now + PROGRESS);
    }

    /// A session has ended: its record with it, if there is one.
    pub(super) fn touch_ended(&mut self, client: &Arc<str>, now: Instant) {
        if self.shares {
            self.roster.arm(client, now);
        }
    }

    /// Writes the records that are due.
    pub(super) fn save_clients(&mut self, now: Instant) {
        for _ in 0..WRITES {
            let Some(client) = self.roster.next(now) else { return };
            let value = match self.by_client.get(&client).copied() {
                Some(session) => {
                    let Some(record) = self.record(session, now) else { continue };
                    let Some(value) = record.encode() else { continue };
                    self.roster.insert(client.clone(), record, now);
                    Some(value)
                }
                None => {
                    let own = |known: &Known| known.record.owner == self.node;
                    if !self.roster.records.get(&client).is_some_and(own) {
                        continue;
                    }
                    self.roster.records.remove(&client);
                    None
                }
            };
            self.actions.push_back(Action::Keep {
                map: Map::Clients,
                key: client.as_bytes().to_vec(),
                value,
            });
        }
    }

    /// Writes all records that have changed, before this broker ends.
    pub(super) fn save_all(&mut self, now: Instant) {
        let end = now + LATER + PROGRESS;
        while self.roster.deadline().is_some_and(|at| at <= end) {
            self.save_clients(end);
        }
    }

    /// The map let a client go, because there are too many.
    pub(super) fn client_gave_way(&mut self, key: &[u8]) {
        if let Ok(client) = std::str::from_utf8(key) {
            self.roster.records.remove(client);
        }
    }

    fn record(&mut self, id: usize, now: Instant) -> Option<Record> {
        let changed = self.stamp(now);
        let settled = self.time(now).saturating_sub(UNDER_WAY);
        let session = self.sessions.get_mut(id)?;
        let connected = session.connection.is_some();
        if !connected && session.expiry == 0 {
            return None;
        }
        let will = session.will.as_ref().map(|will| Testament {
            delay: u32::try_from(will.delay.as_secs()).unwrap_or(u32::MAX),
            lifetime: will
                .lifetime
                .map_or(u32::MAX, |lifetime| u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)),
            packet: mesh::packet(&will.message, now),
        });
        let mut record = Record {
            owner: self.node,
            epoch: session.epoch,
            changed,
            connected,
            left: if connected { 0 } else { session.left },
            expiry: session.expiry,
            user: session.user.clone(),
            will,
            ..Record::default()
        };
        if session.expiry == 0 {
            return Some(record);
        }
        let inflight = session.inflight.iter().filter_map(|inflight| match &inflight.state {
            State::Publish(pending) => Some(pending),
            State::Release(_) => None,
        });
        let waiting =
            inflight.chain(&session.queue).map(|pending| pending.rank.stamp).filter(|stamp| *stamp > 0);
        let first = waiting.map(|stamp| stamp - 1).min().unwrap_or(u64::MAX);
        if !session.is_replaying {
            session.position = settled.max(session.position).min(first);
        }
        record.position = session.position;
        let position = Rank { stamp: record.position, node: u64::MAX };
        session.done = session.done.split_off(&position);
        record.done = session.done.iter().copied().collect();
        record.incoming = session.incoming.iter().copied().collect();
        record.inflight = session
            .inflight
            .iter()
            .filter_map(|inflight| {
                let (released, rank) = match &inflight.state {
                    State::Release(rank) => (true, *rank),
                    State::Publish(pending) if pending.qos == Qos::ExactlyOnce => (false, pending.rank),
                    State::Publish(_) => return None,
                };
                Some(Sent { pid: inflight.pid, released, rank })
            })
            .collect();
        record.subscriptions =
            session.subscriptions.iter().map(|(filter, options)| (filter.clone(), *options)).collect();
        Some(record)
    }

    /// What the map has of a client, and which broker wrote that, and when.
    pub(super) fn learn_client(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        (by, sent): (u64, u64),
        now: Instant,
    ) -> bool {
        // Later than what another one may have said for a client of this one.
        self.heed(sent.saturating_add(999), now);
        let Ok(client) = std::str::from_utf8(key) else { return false };
        let client: Arc<str> = client.into();
        let Some(value) = value else {
            if by != self.node {
                self.roster.records.remove(&client);
                self.let_go(&client, now);
            }
            return true;
        };
        let Some(record) = Record::decode(value) else { return false };
        self.heed(record.changed, now);
        if record.owner != self.node {
            self.nodes.meet(record.owner, now);
        }
        let (owner, epoch, fallen) = (record.owner, record.epoch, record.fallen);
        self.roster.insert(client.clone(), record, now);
        let Some(id) = self.by_client.get(&client).copied() else { return true };
        let Some(session) = self.sessions.get(id) else { return true };
        let own = (session.epoch, self.node);
        if (owner, epoch) == (self.node, session.epoch) {
            if fallen && session.connection.is_some() {
                self.stand_up(id, now);
            }
        } else if (epoch, owner) > own {
            self.give_over(id, now);
        } else if session.connection.is_some() || session.expiry > 0 {
            let at = now + self.within(MEND);
            self.roster.arm(&client, at);
        }
        true
    }

    /// Another broker has deleted the record of a client.
    fn let_go(&mut self, client: &Arc<str>, now: Instant) {
        let Some(id) = self.by_client.get(client).copied() else { return };
        match self.sessions.get(id) {
            Some(session) if session.connection.is_some() => self.stand_up(id, now),
            // It went on elsewhere, and ended there.
            Some(_) => self.give_over(id, now),
            None => {}
        }
    }

    /// Others took this broker for gone, and have perhaps published the will of a client that is connected: what it said
    /// last in the place of that comes again, and its record.
    fn stand_up(&mut self, id: usize, now: Instant) {
        let epoch = self.stamp(now);
        let Some(session) = self.sessions.get_mut(id) else { return };
        // Its next will is another one.
        session.epoch = epoch;
        if let Some(birth) = session.birth.clone() {
            self.send_out(birth, Some(id), (None, None), now);
        }
        self.touch(id, now);
    }

    /// A client has connected to another broker: its session is there.
    fn give_over(&mut self, id: usize, now: Instant) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        // It is not gone, so its will is not due.
        (session.will, session.expiry, session.has_moved) = (None, 0, true);
        match session.connection {
            Some(connection) => {
                self.stats.taken_over += 1;
                self.farewell(connection, fault(Reason::SessionTakenOver, "connected elsewhere"), now);
            }
            None => self.end(id, now),
        }
    }

    /// Whether a client id is one that another user has a session under, at whatever broker.
    pub(super) fn is_anothers(&self, client: &str, user: Option<&Arc<str>>, now: Instant) -> bool {
        let Some(known) = self.roster.records.get(client) else { return false };
        (known.record.connected || known.record.lasts(self.time(now))) && known.record.user.as_ref() != user
    }

    /// A session that a client has elsewhere, or had here before this broker was started, as a session of this broker.
    pub(super) fn fetch_session(&mut self, client: &Arc<str>, serial: u64, now: Instant) -> Option<usize> {
        let time = self.time(now);
        let known = self.roster.records.get(client).filter(|known| known.record.lasts(time))?;
        if self.sessions.len() >= self.limits.sessions {
            return None;
        }
        let record = known.record.clone();
        let mut session = Session::new(client.clone(), record.user, serial);
        session.position = record.position;
        session.done = record.done.into_iter().collect();
        session.incoming = record.incoming.into_iter().collect();
        session.is_replaying = true;
        session.repeats_until = Some(now + REPEATS);
        for Sent { pid, released, rank } in record.inflight {
            if released {
                let state = State::Release(rank);
                session.inflight.push_back(Inflight { pid, state, sent: false });
            } else {
                session.known.insert(rank, pid);
            }
        }
        let id = self.sessions.insert(session);
        self.by_client.insert(client.clone(), id);
        for (filter, options) in record.subscriptions.into_iter().take(self.limits.subscriptions) {
            if topic::levels(&filter) > self.limits.levels {
                continue;
            }
            self.subscriptions.insert(&filter, id, options);
            if let Some(session) = self.sessions.get_mut(id) {
                session.subscriptions.insert(filter, options);
            }
        }
        self.stats.roamed += 1;
        // Authors' clocks, and what was on its way.
        let since = record.position.saturating_sub(UNDER_WAY) / 1000;
        self.actions.push_back(Action::Replay { session: SessionId(id, serial), since });
        Some(id)
    }

    /// What the memory of the space has for a session that [`Action::Replay`] named.
    ///
    /// # Errors
    /// When it is no message.
    pub fn replay(
        &mut self,
        SessionId(id, serial): SessionId,
        node: u64,
        data: &Bytes,
        now: Instant,
    ) -> Result<(), mesh::Unreadable> {
        let (message, stamp) = mesh::decode(data, now)?;
        let rank = Rank { stamp, node };
        let session =
            self.sessions.get(id).filter(|session| session.serial == serial && session.is_replaying);
        let Some(session) = session else { return Ok(()) };
        if stamp <= session.position
            || session.has(rank)
            || message.qos == Qos::AtMostOnce
            || message.has_expired(now)
        {
            return Ok(());
        }
        self.deliver_to(id, &Arc::new(message), rank, now);
        Ok(())
    }

    /// That was all that the memory has for a session.
    pub fn replayed(&mut self, SessionId(id, serial): SessionId, now: Instant) {
        let session = self.sessions.get_mut(id).filter(|session| session.serial == serial);
        let Some(session) = session else { return };
        session.is_replaying = false;
        session.known.clear();
        session.queue.make_contiguous().sort_by_key(|pending| pending.rank);
        self.pump(id, now);
    }

    /// The will of a record, to be published by another broker.
    pub(super) fn to_will(&self, testament: &Testament, now: Instant) -> Option<Will> {
        let seconds = |secs: u32| Duration::from_secs(secs.into());
        Some(Will {
            message: mesh::unpack(&testament.packet, now).ok()?,
            lifetime: (testament.lifetime != u32::MAX).then(|| seconds(testament.lifetime)),
            delay: seconds(testament.delay),
        })
    }
}
