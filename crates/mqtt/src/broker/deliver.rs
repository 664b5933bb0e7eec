//! Messages to clients: as soon as they take them, or when they do.

use std::{cell::RefCell, mem, sync::Arc, time::Instant};

use slab::Slab;

use super::{Broker, Connection, HIGH_WATER, Stage, Whence, wake};
use crate::{
    acl::Operation,
    codec::{self, Ack},
    message::{Frames, Message, Qos, Style, put},
    retained::{Rank, Set, Step},
    session::{Inflight, Pending, State},
    trie::{self, Delivery, Match, Pick},
};

/// Retained messages that are looked at before it is another session's turn.
const LOOKS: usize = 512;

/// What can be sent to a client now.
#[derive(Debug)]
enum Room {
    /// Immediately, over this connection.
    Now(usize),
    Later,
}

impl Broker {
    /// Takes a message in: keeps it if it is to be retained, and gives it to all who are subscribed.
    pub(super) fn take_in(
        &mut self,
        message: Arc<Message>,
        from: Option<usize>,
        rank: Rank,
        whence: Whence,
        now: Instant,
    ) {
        if message.retain {
            match self.retained.set(&message, rank, whence != Whence::Client, &self.limits, now) {
                Ok(Set::Newest) => self.note_retained(&message, whence, now),
                // The map had it before it came live.
                Ok(Set::Same) if whence == Whence::Mesh => return,
                Ok(Set::Same | Set::Older) => {}
                Err(_) => self.stats.refused += 1,
            }
        }
        if message.has_expired(now) || whence == Whence::Again {
            return;
        }
        self.feed_taps(&message);
        let mut found = mem::take(&mut self.found);
        let went = self.find(&message, rank, &mut found);
        trie::sort(&mut found, from);
        let mut frames = Frames::default();
        for delivery in found.chunk_by(trie::is_one_copy).filter_map(trie::delivery) {
            self.deliver(&message, delivery, rank, &mut frames, now);
        }
        self.found = found;
        if message.qos > Qos::AtMostOnce && !went.is_empty() {
            self.note_elsewhere(went, &message, rank, now);
        }
    }

    /// Who is to get a message, and which groups' members elsewhere, with their broker.
    fn find(&mut self, message: &Message, rank: Rank, found: &mut Vec<Match>) -> Vec<(Arc<str>, u64)> {
        let went = RefCell::new(Vec::new());
        let topic = &*message.topic;
        let lot = self.lot(message, rank);
        let sessions = &self.sessions;
        let ready = |id: usize| sessions.get(id).is_some_and(|session| session.connection.is_some());
        let is_own = !self.shares || topic.starts_with("$SYS/");
        let (nodes, groups, own) = (&self.nodes, &self.others.groups, self.node);
        let elsewhere = |filter: &Arc<str>| {
            let node = if is_own {
                own
            } else {
                nodes.choose(filter, lot, (own, groups.get(filter).copied().unwrap_or_default()))
            };
            if node != own {
                went.borrow_mut().push((filter.clone(), node));
            }
            node != own
        };
        self.subscriptions.matches(topic, found, Pick { ready: &ready, elsewhere: &elsewhere });
        went.into_inner()
    }

    /// Gives one session a message that was read from memory. What its groups got is none of its own.
    pub(super) fn deliver_to(&mut self, id: usize, message: &Arc<Message>, rank: Rank, now: Instant) {
        let mut found = Vec::new();
        let pick = Pick { ready: &|_| true, elsewhere: &|_| true };
        self.subscriptions.matches(&message.topic, &mut found, pick);
        found.retain(|found| found.session == id);
        if let Some(delivery) = trie::delivery(&found) {
            self.deliver(message, delivery, rank, &mut Frames::default(), now);
        }
    }

    /// Gives a message to a member of a group here.
    pub(super) fn deliver_to_group(
        &mut self,
        filter: &str,
        message: &Arc<Message>,
        rank: Rank,
        now: Instant,
    ) {
        let sessions = &self.sessions;
        let ready = |id: usize| sessions.get(id).is_some_and(|session| session.connection.is_some());
        if let Some(found) = self.subscriptions.turn(filter, &ready)
            && let Some(delivery) = trie::delivery(&[found])
        {
            self.deliver(message, delivery, rank, &mut Frames::default(), now);
        }
    }

    fn deliver(
        &mut self,
        message: &Arc<Message>,
        delivery: Delivery,
        rank: Rank,
        frames: &mut Frames,
        now: Instant,
    ) {
        let Delivery { session: id, qos, retain_as_published, ids } = delivery;
        let Some(session) = self.sessions.get_mut(id) else { return };
        if session.repeats_until.is_some_and(|until| now < until) && session.has(rank) {
            return;
        }
        if !self.access.may(Operation::Read, session.user.as_deref(), &session.client, &message.topic) {
            return;
        }
        let qos = message.qos.min(qos);
        let retain = message.retain && retain_as_published;
        let room = match session.connection {
            Some(connection) if qos == Qos::AtMostOnce => Room::Now(connection),
            Some(connection)
                if session.queue.is_empty()
                    && !session.is_replaying
                    && session.has_window()
                    && has_room(&self.connections, connection) =>
            {
                Room::Now(connection)
            }
            _ => Room::Later,
        };
        let pending = Pending { message: message.clone(), qos, retain, ids, rank };
        match room {
            Room::Now(connection) => {
                self.send(id, connection, pending, false, frames, now);
            }
            // [MQTT-4.5.0-1]: what is at QoS 0 is not kept.
            Room::Later if qos == Qos::AtMostOnce => {}
            Room::Later => {
                if self.hold(id, &pending)
                    && let Some(session) = self.sessions.get_mut(id)
                {
                    match session.known.remove(&rank).filter(|_| qos == Qos::ExactlyOnce) {
                        // Another broker has sent it.
                        Some(pid) => {
                            let state = State::Publish(pending);
                            session.inflight.push_back(Inflight { pid, state, sent: false });
                        }
                        None => session.queue.push_back(pending),
                    }
                }
            }
        }
    }

    /// Counts a message at QoS 1 or 2 among those of a session, if it may have one more.
    fn hold(&mut self, id: usize, pending: &Pending) -> bool {
        let Some(session) = self.sessions.get_mut(id) else { return false };
        let cost = pending.message.cost();
        let fits = session.queue.len() < self.limits.queue_messages
            && (session.bytes == 0 || session.bytes + cost <= self.limits.queue_bytes)
            && self.queued + cost <= self.limits.queued_bytes;
        if fits {
            session.bytes += cost;
            self.queued += cost;
        } else {
            self.stats.dropped_full += 1;
        }
        fits
    }

    /// A message of a session is not held for it any more.
    fn release(&mut self, id: usize, cost: usize) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.bytes -= cost;
            self.queued -= cost;
        }
    }

    /// Sends a message that has its turn. `held` is one that was queued.
    fn send(
        &mut self,
        id: usize,
        connection: usize,
        pending: Pending,
        held: bool,
        frames: &mut Frames,
        now: Instant,
    ) {
        let Some(state) = self.connections.get(connection) else { return };
        let style = Style { protocol: state.protocol, qos: pending.qos, retain: pending.retain };
        let own;
        let frame = match &pending.ids {
            None => frames.get(&pending.message, style, now),
            Some(ids) => {
                own = pending.message.encode(style, ids, now);
                &own
            }
        };
        if frame.is_empty() || frame.len() > state.largest {
            // [MQTT-3.1.2-25]
            self.stats.dropped_large += 1;
            if held {
                self.release(id, pending.message.cost());
            }
            return;
        }
        let topic = pending.message.topic.len();
        if pending.qos == Qos::AtMostOnce {
            let waits = state.out.len() + frame.len();
            if (waits > self.limits.queue_bytes && !state.out.is_empty())
                || self.queued + frame.len() > self.limits.queued_bytes
            {
                self.stats.dropped_slow += 1;
                return;
            }
            self.append(connection, frame, topic, None, false);
        } else if held || self.hold(id, &pending) {
            let Some(session) = self.sessions.get_mut(id) else { return };
            let pid = session.next_pid();
            self.append(connection, frame, topic, Some(pid), false);
            if let Some(session) = self.sessions.get_mut(id) {
                session.inflight.push_back(Inflight { pid, state: State::Publish(pending), sent: true });
            }
        }
    }

    fn append(&mut self, id: usize, frame: &[u8], topic: usize, pid: Option<u16>, dup: bool) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !matches!(connection.stage, Stage::Open(_)) {
            return;
        }
        put(&mut connection.out, frame, topic, pid, dup);
        self.queued += frame.len();
        self.stats.sent += 1;
        wake(connection, &mut self.actions, id);
    }

    /// Sends what waits for a client as far as it goes: what it did not acknowledge over its last connection, what is
    /// queued, and retained messages that it subscribed to.
    pub(super) fn pump(&mut self, id: usize, now: Instant) {
        let Some(connection) = self.sessions.get(id).and_then(|session| session.connection) else { return };
        if !self.send_again(id, connection, now) {
            return;
        }
        while has_room(&self.connections, connection)
            && let Some(session) = self.sessions.get_mut(id)
            && session.has_window()
            && !session.is_replaying
            && let Some(pending) = session.queue.pop_front()
        {
            if pending.message.has_expired(now) {
                self.release(id, pending.message.cost());
            } else {
                self.send(id, connection, pending, true, &mut Frames::default(), now);
            }
        }
        self.look(id, connection, now);
    }

    /// What was in flight when the last connection ended ([MQTT-4.4.0-1]); whether all of it is on its way.
    fn send_again(&mut self, id: usize, connection: usize, now: Instant) -> bool {
        loop {
            let Some(session) = self.sessions.get_mut(id) else { return false };
            let in_flight = session.inflight.iter().filter(|inflight| inflight.sent).count();
            let window = session.window;
            let Some(next) = session.inflight.iter_mut().find(|inflight| !inflight.sent) else { return true };
            if in_flight >= window {
                return false;
            }
            next.sent = true;
            let pid = next.pid;
            match &next.state {
                State::Release(_) => {
                    let Some(state) = self.connections.get(connection) else { return false };
                    let protocol = state.protocol;
                    self.write(connection, |out| codec::put_ack(out, protocol, Ack::Pubrel, pid, None));
                }
                State::Publish(pending) => {
                    let Some(state) = self.connections.get(connection) else { return false };
                    let style = Style { protocol: state.protocol, qos: pending.qos, retain: pending.retain };
                    let topic = pending.message.topic.len();
                    let frame =
                        pending.message.encode(style, pending.ids.as_deref().unwrap_or_default(), now);
                    if frame.len() <= state.largest {
                        self.append(connection, &frame, topic, Some(pid), true);
                    } else {
                        self.stats.dropped_large += 1;
                        let cost = pending.message.cost();
                        session.bytes -= cost;
                        session.inflight.retain(|inflight| inflight.pid != pid);
                        self.queued -= cost;
                    }
                }
            }
        }
    }

    /// Goes on with the retained messages of a session's subscriptions, as far as the client takes them.
    fn look(&mut self, id: usize, connection: usize, now: Instant) {
        let mut budget = LOOKS;
        loop {
            if !has_room(&self.connections, connection) {
                // Goes on when that is written.
                return;
            }
            let Some(session) = self.sessions.get_mut(id) else { return };
            let Some(scan) = session.scans.front_mut() else { return };
            let options = scan.options;
            if options.qos != Qos::AtMostOnce
                && !(session.inflight.len() < session.window && session.queue.is_empty())
            {
                // Goes on with an acknowledgement.
                return;
            }
            match self.retained.next(&scan.filter, scan.after.as_ref(), &mut budget, now) {
                Step::Found(message) => {
                    scan.after = Some(message.topic.clone());
                    if self.access.knows(message.user.as_deref())
                        && self.access.may(
                            Operation::Read,
                            session.user.as_deref(),
                            &session.client,
                            &message.topic,
                        )
                    {
                        let qos = message.qos.min(options.qos);
                        // [MQTT-3.3.1-8]
                        let ids =
                            Some([options.id]).filter(|[id]| *id != 0).map(|id| Arc::from(id.as_slice()));
                        let pending = Pending { message, qos, retain: true, ids, rank: Rank::default() };
                        self.send(id, connection, pending, false, &mut Frames::default(), now);
                    }
                }
                Step::Pause(at) => scan.after = Some(at),
                Step::End => {
                    session.scans.pop_front();
                }
            }
            if budget == 0 {
                if let Some(session) = self.sessions.get(id)
                    && !self.scanning.contains(&(id, session.serial))
                {
                    self.scanning.push_back((id, session.serial));
                }
                return;
            }
        }
    }
}

/// Whether a connection takes more messages at QoS 1 and 2 now.
fn has_room(connections: &Slab<Connection>, id: usize) -> bool {
    connections.get(id).is_some_and(|connection| connection.out.len() < HIGH_WATER)
}
