//! CONNECT, and the end of connections and sessions.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mqtt_proto::{Protocol, v5, v5::ConnectReasonCode as Code};

use super::{
    Action, Broker, ConnectionId, Credentials, Stage, Ticket, Verdict, Whence, clients::will_id,
    timers::Timer,
};
use crate::{
    acl::Operation,
    codec::{self, Fault, NoConnect, Reason, fault},
    message::{Message, Qos},
    retained::Rank,
    session::{Session, Will},
    topic,
};

/// What stands for "for ever" in a session's expiry (MQTT 5, 3.1.2.11.2).
const FOR_EVER: u32 = u32::MAX;

impl Broker {
    /// A CONNECT packet.
    pub(super) fn hello(&mut self, id: usize, body: &[u8], now: Instant) {
        let connect = match codec::connect(body) {
            Ok(connect) => connect,
            Err(why) => {
                if matches!(why, NoConnect::Version) {
                    // What every client understands, whatever it speaks ([MQTT-3.1.2-2] of 3.1.1).
                    self.refuse(id, Code::UnsupportedProtocolVersion, "", now);
                } else {
                    self.stats.faults += 1;
                    self.shut(id, now);
                }
                return;
            }
        };
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.protocol = connect.protocol;
        connection.wants_reasons = connect.properties.request_problem_info != Some(false);
        if connect.properties.auth_method.is_some() {
            return self.refuse(id, Code::BadAuthMethod, "no authentication method is offered", now);
        }
        if connect.client_id.len() > self.limits.client_id {
            return self.refuse(id, Code::ClientIdentifierNotValid, "the client id is too long", now);
        }
        // [MQTT-3.1.3-8] of 3.1.1; MQTT 3.1 has no empty ones.
        let is_3 = connect.protocol != Protocol::V500;
        if connect.client_id.is_empty()
            && is_3
            && (!connect.clean_start || connect.protocol == Protocol::V310)
        {
            return self.refuse(id, Code::ClientIdentifierNotValid, "a client id is needed", now);
        }
        if let Some(will) = &connect.last_will
            && (!topic::is_name(&will.topic_name)
                || topic::levels(&will.topic_name) > self.limits.levels
                || is_reserved(&will.topic_name))
        {
            return self.refuse(id, Code::TopicNameInvalid, "not a topic for a will", now);
        }
        match (&self.access.users, &connect.username) {
            (Some(_), Some(user)) => {
                let password = connect.password.clone().unwrap_or_default();
                let credentials = Credentials { user: user.clone(), password };
                let Some(connection) = self.connections.get_mut(id) else { return };
                connection.stage = Stage::Authenticating(connect);
                self.actions.push_back(Action::Authenticate(ConnectionId(id), credentials));
            }
            _ if self.access.anonymous => self.welcome(id, *connect, None, now),
            _ => self.refuse(id, Code::NotAuthorized, "a user name and a password are needed", now),
        }
    }

    /// What became of the credentials that [`Action::Authenticate`] named.
    pub fn authenticated(&mut self, ConnectionId(id): ConnectionId, verdict: Verdict, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !matches!(connection.stage, Stage::Authenticating(_)) {
            return;
        }
        let Stage::Authenticating(connect) = std::mem::replace(&mut connection.stage, Stage::New) else {
            return;
        };
        connection.heard = now;
        match verdict {
            Verdict::Accepted => {
                let user = connect.username.clone();
                self.welcome(id, *connect, user, now);
                // What came meanwhile.
                self.received(ConnectionId(id), &[], now);
            }
            Verdict::Refused => self.refuse(id, Code::BadUserNameOrPassword, "not the user's password", now),
        }
    }

    /// CONNACK that says no, and the end of the connection.
    fn refuse(&mut self, id: usize, code: Code, why: &str, now: Instant) {
        let Some(connection) = self.connections.get(id) else { return };
        let protocol = connection.protocol;
        let mut connack = v5::Connack::new(false, code);
        if connection.wants_reasons && !why.is_empty() {
            connack.properties.reason_string = Some(why.into());
        }
        self.write(id, |out| codec::put_connack(out, protocol, connack));
        self.shut(id, now);
    }

    fn welcome(&mut self, id: usize, connect: v5::Connect, user: Option<Arc<str>>, now: Instant) {
        let is_5 = connect.protocol == Protocol::V500;
        let assigned: Option<Arc<str>> = connect
            .client_id
            .is_empty()
            .then(|| format!("auto-{:016x}{:016x}", (self.random)(), (self.random)()).into());
        let client = assigned.clone().unwrap_or_else(|| connect.client_id.clone());
        let known = self.by_client.get(&client).copied();
        if known.is_none() && self.is_anothers(&client, user.as_ref(), now) {
            return self.refuse(id, Code::NotAuthorized, "the client id is another user's", now);
        }
        if let Some(known) = known {
            if self.sessions.get(known).is_some_and(|session| session.user != user) {
                return self.refuse(id, Code::NotAuthorized, "the client id is another user's", now);
            }
            if let Some(other) = self.sessions.get(known).and_then(|session| session.connection) {
                // [MQTT-3.1.4-3]
                let why = fault(Reason::SessionTakenOver, "the client id has connected again");
                // One that was not to outlive its connection does not outlive it now either.
                let ends = self.sessions.get(known).is_some_and(|session| session.expiry == 0);
                if connect.clean_start || ends {
                    self.farewell(other, why, now);
                } else {
                    self.give_way(known, other, why, now);
                }
            }
            if connect.clean_start && self.by_client.contains_key(&client) {
                self.end(known, now);
            }
        }
        let mut resumed = self.by_client.get(&client).copied();
        if resumed.is_none() && !connect.clean_start {
            let serial = self.serial();
            resumed = self.fetch_session(&client, serial, now);
        }
        if resumed.is_none() && self.sessions.len() >= self.limits.sessions {
            return self.refuse(id, Code::QuotaExceeded, "as many clients as are taken", now);
        }
        let serial = self.serial();
        let session = resumed.unwrap_or_else(|| {
            let session = self.sessions.insert(Session::new(client.clone(), user, serial));
            self.by_client.insert(client, session);
            session
        });
        let expiry = self.expiry(&connect);
        let largest = connect.properties.max_packet_size.and_then(|size| usize::try_from(size).ok());
        let (keep_alive, ours) = match self.limits.keep_alive {
            0 => (connect.keep_alive, None),
            most if is_5 && (connect.keep_alive == 0 || connect.keep_alive > most) => (most, Some(most)),
            _ => (connect.keep_alive, None),
        };
        if let Some(connection) = self.connections.get_mut(id) {
            connection.stage = Stage::Open(session);
            connection.largest = largest.unwrap_or(usize::MAX);
            // One and a half times as long ([MQTT-3.1.2-22] of MQTT 5).
            connection.patience = Duration::from_secs(u64::from(keep_alive)) * 3 / 2;
            let (patience, serial) = (connection.patience, connection.serial);
            self.arm(now, patience, Timer::Silence(id, serial));
        }
        let epoch = self.stamp(now);
        let window = connect.properties.receive_max.unwrap_or(u16::MAX).min(self.limits.inflight);
        if let Some(session) = self.sessions.get_mut(session) {
            session.connection = Some(id);
            session.expiry = expiry;
            (session.ends, session.will_at) = (None, None);
            (session.epoch, session.is_assigned, session.birth) = (epoch, assigned.is_some(), None);
            if resumed.is_none() {
                session.position = epoch;
            }
            session.will = connect.last_will.map(|will| to_will(will, now));
            session.window = usize::from(window);
            session.inflight.iter_mut().for_each(|inflight| inflight.sent = false);
        }
        let mut connack = v5::Connack::new(resumed.is_some(), Code::Success);
        if is_5 {
            let asked = connect.properties.session_expiry_interval.unwrap_or(0);
            connack.properties = v5::ConnackProperties {
                session_expiry_interval: (asked != expiry).then_some(expiry),
                receive_max: Some(self.limits.receive_maximum),
                max_packet_size: u32::try_from(self.limits.packet).ok(),
                topic_alias_max: Some(self.limits.aliases),
                assigned_client_id: assigned,
                server_keep_alive: ours,
                ..v5::ConnackProperties::default()
            };
        }
        let protocol = connect.protocol;
        self.write(id, |out| codec::put_connack(out, protocol, connack));
        self.begin_figures(now);
        self.touch(session, now);
        self.count_groups_of(session, now);
        self.pump(session, now);
    }

    /// How long a session is to outlive its connection.
    fn expiry(&self, connect: &v5::Connect) -> u32 {
        let most = u32::try_from(self.limits.session_expiry.as_secs()).unwrap_or(FOR_EVER);
        let asked = match connect.protocol {
            Protocol::V500 => connect.properties.session_expiry_interval.unwrap_or(0),
            _ if connect.clean_start => 0,
            _ => FOR_EVER,
        };
        asked.min(most)
    }

    /// DISCONNECT of a client.
    pub(super) fn disconnect(
        &mut self,
        id: usize,
        session: usize,
        disconnect: &v5::Disconnect,
        now: Instant,
    ) -> Result<(), Fault> {
        let most = u32::try_from(self.limits.session_expiry.as_secs()).unwrap_or(FOR_EVER);
        if let Some(session) = self.sessions.get_mut(session) {
            if let Some(expiry) = disconnect.properties.session_expiry_interval {
                // [MQTT-3.1.2-23]
                if session.expiry == 0 && expiry != 0 {
                    return Err(fault(Reason::ProtocolError, "a session that was to end is to be kept"));
                }
                session.expiry = expiry.min(most);
            }
            if disconnect.reason_code == Reason::NormalDisconnect {
                // [MQTT-3.14.4-3]
                session.will = None;
            }
        }
        self.shut(id, now);
        Ok(())
    }

    /// A connection gives way to another of the same session, which goes on: a will that waits for longer is not due.
    fn give_way(&mut self, session: usize, other: usize, why: Fault, now: Instant) {
        let kept =
            self.sessions.get_mut(session).map(|session| std::mem::replace(&mut session.expiry, FOR_EVER));
        self.farewell(other, why, now);
        if let (Some(session), Some(kept)) = (self.sessions.get_mut(session), kept) {
            session.expiry = kept;
        }
    }

    /// The connection of a session is gone.
    pub(super) fn leave(&mut self, id: usize, now: Instant) {
        let time = self.time(now);
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.connection = None;
        session.left = time;
        session.scans.clear();
        let expiry = Duration::from_secs(session.expiry.into());
        session.ends = (session.expiry != FOR_EVER).then(|| now.checked_add(expiry)).flatten();
        let serial = session.serial;
        // [MQTT-3.1.3-9]: after the delay or with the session, whichever is first.
        let delay = session.will.as_ref().map(|will| will.delay.min(expiry));
        self.touch(id, now);
        self.count_groups_of(id, now);
        if let Some(delay) = delay {
            if delay.is_zero() {
                self.publish_will(id, now);
            } else {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.will_at = now.checked_add(delay);
                }
                self.arm(now, delay, Timer::Away(id, serial));
            }
        }
        if expiry.is_zero() {
            self.end(id, now);
        } else if self.sessions.get(id).is_some_and(|session| session.ends.is_some()) {
            self.arm(now, expiry, Timer::Away(id, serial));
        }
    }

    /// The end of a session that has no connection; its will, if it still waits, is due now.
    pub(super) fn end(&mut self, id: usize, now: Instant) {
        self.publish_will(id, now);
        let Some(session) = self.sessions.try_remove(id) else { return };
        self.by_client.remove(&session.client);
        self.disarm(session.armed, Timer::Away(id, session.serial));
        for filter in session.subscriptions.keys() {
            self.subscriptions.remove(filter, id);
            self.count_group(filter, now);
        }
        if !session.has_moved {
            self.touch_ended(&session.client, now);
        }
        self.queued -= session.bytes;
    }

    pub(super) fn publish_will(&mut self, id: usize, now: Instant) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let Some(will) = session.will.take() else { return };
        session.will_at = None;
        let mut message = will.message;
        if !self.access.may(Operation::Write, session.user.as_deref(), &session.client, &message.topic) {
            self.stats.refused += 1;
            return;
        }
        let id_of_will = will_id(&session.client, session.epoch);
        message.expires = will.lifetime.and_then(|lifetime| now.checked_add(lifetime));
        message.user.clone_from(&session.user);
        self.send_out(Arc::new(message), Some(id), (Some(id_of_will), None), now);
    }

    /// A message of a client, for the clients here and the other brokers.
    pub(super) fn send_out(
        &mut self,
        message: Arc<Message>,
        from: Option<usize>,
        (will, ticket): (Option<u128>, Option<Ticket>),
        now: Instant,
    ) {
        if will.is_some_and(|will| self.shares && !self.is_new_will(will)) {
            return;
        }
        let rank = Rank { stamp: self.stamp(now), node: self.node };
        if !self.elsewhere.contains(&*message.topic) {
            self.take_in(message.clone(), from, rank, Whence::Client, now);
        }
        self.actions.push_back(Action::Publish { message, stamp: rank.stamp, will, ticket });
    }
}

/// Topics that clients may not publish on.
pub(super) fn is_reserved(topic: &str) -> bool {
    topic.starts_with("$SYS/") || topic.starts_with("$share/")
}

fn to_will(will: v5::LastWill, now: Instant) -> Will {
    let v5::LastWill { qos, retain, topic_name, payload, properties } = will;
    let publish = v5::Publish {
        dup: false,
        retain,
        qos_pid: Qos::from(qos).with(mqtt_proto::Pid::default()),
        topic_name,
        payload,
        properties: v5::PublishProperties {
            payload_is_utf8: properties.payload_is_utf8,
            message_expiry_interval: properties.message_expiry_interval,
            topic_alias: None,
            response_topic: properties.response_topic,
            correlation_data: properties.correlation_data,
            user_properties: properties.user_properties,
            subscription_id: None,
            content_type: properties.content_type,
        },
    };
    let seconds = |interval: u32| Duration::from_secs(interval.into());
    Will {
        message: Message::from_publish(publish, now),
        lifetime: properties.message_expiry_interval.map(seconds),
        delay: seconds(properties.delay_interval.unwrap_or(0)),
    }
}
