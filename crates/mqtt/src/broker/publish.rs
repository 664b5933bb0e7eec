//! PUBLISH of clients, and what they acknowledge.

use std::{sync::Arc, time::Instant};

use mqtt_proto::{Protocol, QosPid, v5};

use super::{Broker, connect::is_reserved};
use crate::{
    acl::Operation,
    codec::{self, Ack, Fault, Reason, fault},
    message::Message,
    session::State,
    topic,
};

/// A refusal, as the reason code of PUBACK and PUBREC, in words.
pub(super) type Refusal = (u8, &'static str);

const NOT_AUTHORIZED: Refusal = (0x87, "not allowed to publish there");
const NAME_INVALID: Refusal = (0x90, "not a topic for clients");
const QUOTA: Refusal = (0x97, "no more messages are retained");
const PID_NOT_FOUND: u8 = 0x92;

impl Broker {
    pub(super) fn publish(
        &mut self,
        id: usize,
        session: usize,
        mut publish: v5::Publish,
        now: Instant,
    ) -> Result<(), Fault> {
        self.stats.received += 1;
        if let Some(connection) = self.connections.get_mut(id) {
            connection.publishes = true;
        }
        if let Some(alias) = publish.properties.topic_alias {
            self.resolve(id, alias, &mut publish)?;
        }
        if !topic::is_name(&publish.topic_name) {
            return Err(fault(Reason::ProtocolError, "no topic"));
        }
        let Some(state) = self.sessions.get_mut(session) else { return Ok(()) };
        if let QosPid::Level2(pid) = publish.qos_pid {
            let pid = pid.value();
            if state.incoming.contains(&pid) {
                // It was taken already ([MQTT-4.3.3-10]).
                if !self.is_unconfirmed(session, pid) {
                    self.ack(id, Ack::Pubrec, pid, None);
                }
                return Ok(());
            }
            if state.incoming.len() >= usize::from(self.limits.receive_maximum) {
                return Err(fault(Reason::ReceiveMaximumExceeded, "more than Receive Maximum"));
            }
        }
        let refusal = self.judge(session, &publish);
        let qos_pid = publish.qos_pid;
        let mut ticket = None;
        if refusal.is_some() {
            self.stats.refused += 1;
        } else {
            let mut message = Message::from_publish(publish, now);
            message.user = self.sessions.get(session).and_then(|session| session.user.clone());
            let message = Arc::new(message);
            self.note_birth(session, &message);
            ticket = match qos_pid {
                QosPid::Level0 => None,
                QosPid::Level1(pid) => self.wait_for_others(session, Ack::Puback, pid.value()),
                QosPid::Level2(pid) => self.wait_for_others(session, Ack::Pubrec, pid.value()),
            };
            self.send_out(message, Some(session), (None, ticket), now);
        }
        match qos_pid {
            QosPid::Level0 => {}
            QosPid::Level1(_) if ticket.is_some() => {}
            QosPid::Level1(pid) => self.ack(id, Ack::Puback, pid.value(), refusal),
            QosPid::Level2(pid) => {
                // With a refusal the exchange is over, in MQTT 5.
                let is_over = refusal.is_some() && self.protocol(id) == Some(Protocol::V500);
                if let Some(state) = self.sessions.get_mut(session).filter(|_| !is_over) {
                    state.incoming.insert(pid.value());
                }
                self.touch_progress(session, now);
                if ticket.is_none() {
                    self.ack(id, Ack::Pubrec, pid.value(), refusal);
                }
            }
        }
        Ok(())
    }

    /// What a client retains on the topic of its will is what is to stand there while it is there.
    fn note_birth(&mut self, session: usize, message: &Arc<Message>) {
        let Some(session) = self.sessions.get_mut(session).filter(|_| message.retain) else { return };
        if session.will.as_ref().is_some_and(|will| will.message.topic == message.topic) {
            session.birth = Some(message.clone());
        }
    }

    /// The topic that an alias stands for, or the alias that a topic gets.
    fn resolve(&mut self, id: usize, alias: u16, publish: &mut v5::Publish) -> Result<(), Fault> {
        // [MQTT-3.3.2-8] and -9
        if alias == 0 || alias > self.limits.aliases {
            return Err(fault(Reason::TopicAliasInvalid, "a topic alias that is not offered"));
        }
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let place = usize::from(alias) - 1;
        if connection.aliases.len() <= place {
            connection.aliases.resize(place + 1, None);
        }
        let known = &mut connection.aliases[place];
        if publish.topic_name.is_empty() {
            let unknown = fault(Reason::ProtocolError, "a topic alias that stands for nothing");
            publish.topic_name = known.clone().ok_or(unknown)?;
        } else {
            *known = Some(publish.topic_name.clone());
        }
        Ok(())
    }

    /// Why a message is not taken.
    fn judge(&self, session: usize, publish: &v5::Publish) -> Option<Refusal> {
        let topic = &*publish.topic_name;
        if is_reserved(topic) || topic::levels(topic) > self.limits.levels {
            return Some(NAME_INVALID);
        }
        let session = self.sessions.get(session)?;
        if !self.access.may(Operation::Write, session.user.as_deref(), &session.client, topic) {
            return Some(NOT_AUTHORIZED);
        }
        let one_more = publish.retain && !publish.payload.is_empty();
        let full =
            one_more && !self.retained.has_room(&publish.topic_name, publish.payload.len(), &self.limits);
        full.then_some(QUOTA)
    }

    pub(super) fn protocol(&self, id: usize) -> Option<Protocol> {
        self.connections.get(id).map(|connection| connection.protocol)
    }

    pub(super) fn ack(&mut self, id: usize, ack: Ack, pid: u16, refusal: Option<Refusal>) {
        let Some(connection) = self.connections.get(id) else { return };
        let (protocol, wants) = (connection.protocol, connection.wants_reasons);
        let refusal = refusal.map(|(code, why)| (code, Some(why).filter(|why| wants && !why.is_empty())));
        self.write(id, |out| codec::put_ack(out, protocol, ack, pid, refusal));
    }

    /// PUBACK: a message at QoS 1 has arrived, or was refused, which is the same here.
    pub(super) fn acknowledged(&mut self, session: usize, pid: u16, now: Instant) {
        self.forget(session, pid, |state| matches!(state, State::Publish(_)), now);
    }

    /// PUBCOMP: a message at QoS 2 was released.
    pub(super) fn completed(&mut self, session: usize, pid: u16, now: Instant) {
        self.forget(session, pid, |state| matches!(state, State::Release(_)), now);
    }

    fn forget(&mut self, id: usize, pid: u16, ends: impl Fn(&State) -> bool, now: Instant) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let Some(place) = session.position(pid).filter(|place| ends(&session.inflight[*place].state)) else {
            return;
        };
        if let Some(inflight) = session.inflight.remove(place)
            && let State::Publish(pending) = inflight.state
        {
            let cost = pending.message.cost();
            session.bytes -= cost;
            self.queued -= cost;
            session.note_done(pending.rank);
        }
        self.touch_progress(id, now);
        self.pump(id, now);
    }

    /// PUBREC: a message at QoS 2 has arrived, or was refused.
    pub(super) fn pubrec(&mut self, id: usize, session: usize, pid: u16, code: u8, now: Instant) {
        if code >= 0x80 {
            return self.forget(session, pid, |_| true, now);
        }
        let Some(state) = self.sessions.get_mut(session) else { return };
        let refusal = match state.position(pid) {
            None => Some((PID_NOT_FOUND, "")),
            Some(place) => {
                let rank = match &state.inflight[place].state {
                    State::Publish(pending) => pending.rank,
                    State::Release(rank) => *rank,
                };
                if let State::Publish(pending) =
                    std::mem::replace(&mut state.inflight[place].state, State::Release(rank))
                {
                    state.note_done(rank);
                    let cost = pending.message.cost();
                    state.bytes -= cost;
                    self.queued -= cost;
                }
                None
            }
        };
        self.ack(id, Ack::Pubrel, pid, refusal);
        self.touch_progress(session, now);
    }

    /// PUBREL: a client's message at QoS 2 is released, and its packet id is free.
    pub(super) fn pubrel(&mut self, id: usize, session: usize, pid: u16, now: Instant) {
        self.touch_progress(session, now);
        let known = self.sessions.get_mut(session).is_some_and(|session| session.incoming.remove(&pid));
        let refusal = (!known).then_some((PID_NOT_FOUND, ""));
        self.ack(id, Ack::Pubcomp, pid, refusal);
    }
}
