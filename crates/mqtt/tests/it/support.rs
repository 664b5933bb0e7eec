//! A broker, its clients, and the time.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mqtt_proto::{
    Pid, Protocol, QoS, QosPid, TopicFilter, TopicName, v3,
    v5::{self, ConnectReasonCode, DisconnectReasonCode, Packet},
};
use smidge_mqtt::{
    Access, Action, Broker, ConnectionId, Credentials, Limits, Map, Message, SessionId, TapId, Ticket,
    Verdict, mesh,
};

pub(crate) struct Client {
    pub(crate) id: ConnectionId,
    protocol: Protocol,
    buffer: Vec<u8>,
    /// Reads nothing for now.
    pub(crate) stalled: bool,
    pub(crate) closed: bool,
}

pub(crate) struct World {
    pub(crate) broker: Broker,
    pub(crate) now: Instant,
    pub(crate) clients: Vec<Client>,
    by_id: BTreeMap<ConnectionId, usize>,
    /// What went to other brokers.
    pub(crate) mesh: Vec<(Arc<Message>, u64)>,
    /// Of those whose acknowledgement waits.
    pub(crate) tickets: Vec<Ticket>,
    /// The same, as it travels.
    pub(crate) out: Vec<Bytes>,
    /// What is to be kept by all brokers.
    pub(crate) kept: Vec<(Map, Vec<u8>, Option<Vec<u8>>)>,
    /// What it says of itself.
    pub(crate) said: Option<Vec<u8>>,
    pub(crate) replays: Vec<(SessionId, u64)>,
    pub(crate) asked: Vec<(ConnectionId, Credentials)>,
    pub(crate) tapped: Vec<TapId>,
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn pid(pid: u16) -> Pid {
    Pid::try_from(pid).unwrap()
}

pub(crate) fn publish(topic: &str, qos: u8, id: u16, payload: impl Into<Bytes>) -> v5::Publish {
    let qos_pid = match qos {
        0 => QosPid::Level0,
        1 => QosPid::Level1(pid(id)),
        _ => QosPid::Level2(pid(id)),
    };
    v5::Publish::new(qos_pid, TopicName::try_from(topic).unwrap(), payload.into())
}

pub(crate) fn subscribe(filter: &str, qos: u8) -> v5::Subscribe {
    let mut options = v5::SubscriptionOptions::new(QoS::from_u8(qos).unwrap());
    options.retain_as_published = false;
    v5::Subscribe::new(pid(1), vec![(TopicFilter::try_from(filter).unwrap(), options)])
}

pub(crate) fn will(topic: &str, payload: &'static str, delay: u32) -> v5::LastWill {
    let topic = TopicName::try_from(topic).unwrap();
    let mut will = v5::LastWill::new(QoS::Level1, topic, Bytes::from_static(payload.as_bytes()));
    will.properties.delay_interval = Some(delay);
    will
}

impl World {
    pub(crate) fn new(limits: Limits) -> Self {
        Self::with(limits, Access::open())
    }

    pub(crate) fn with(limits: Limits, access: Access) -> Self {
        Self::of_node(1, Instant::now(), limits, access)
    }

    /// One of several.
    pub(crate) fn of_node(node: u64, now: Instant, limits: Limits, access: Access) -> Self {
        let mut random = fastrand::Rng::with_seed(6 + node);
        let broker = Broker::new(limits, access, node, (now, 1_000_000_000), move || random.u64(..));
        Self {
            broker,
            now,
            clients: Vec::new(),
            by_id: BTreeMap::new(),
            mesh: Vec::new(),
            out: Vec::new(),
            tickets: Vec::new(),
            kept: Vec::new(),
            said: None,
            replays: Vec::new(),
            asked: Vec::new(),
            tapped: Vec::new(),
        }
    }

    /// Does what the broker asks for, until it asks for nothing.
    pub(crate) fn run(&mut self) {
        while let Some(action) = self.broker.next_action() {
            match action {
                Action::Wake(id) => {
                    let Some(client) = self.by_id.get(&id).copied() else { continue };
                    self.write(client);
                }
                Action::Authenticate(id, credentials) => self.asked.push((id, credentials)),
                Action::Tap(tap) => self.tapped.push(tap),
                Action::Publish { message, stamp, will, ticket } => {
                    self.tickets.extend(ticket);
                    self.out.push(mesh::encode_will(&message, stamp, will, self.now).into());
                    self.mesh.push((message, stamp));
                }
                Action::Say(said) => self.said = Some(said),
                Action::Replay { session, since } => self.replays.push((session, since)),
                Action::Keep { map, key, value } => self.kept.push((map, key, value)),
            }
        }
    }

    fn write(&mut self, client: usize) {
        // The id of a connection that is gone stands for another.
        if self.clients[client].stalled || self.clients[client].closed {
            return;
        }
        let id = self.clients[client].id;
        loop {
            let output = self.broker.take(id, self.now);
            self.clients[client].buffer.extend_from_slice(&output.bytes);
            if output.close {
                self.clients[client].closed = true;
                self.by_id.remove(&id);
                self.broker.closed(id, self.now);
                return;
            }
            if output.bytes.is_empty() {
                return;
            }
        }
    }

    pub(crate) fn open(&mut self) -> usize {
        let id = self.broker.connect(self.now).unwrap();
        let client =
            Client { id, protocol: Protocol::V500, buffer: Vec::new(), stalled: false, closed: false };
        self.clients.push(client);
        self.by_id.insert(id, self.clients.len() - 1);
        self.clients.len() - 1
    }

    pub(crate) fn bytes(&mut self, client: usize, bytes: &[u8]) {
        if !self.clients[client].closed {
            self.broker.received(self.clients[client].id, bytes, self.now);
        }
        self.run();
    }

    pub(crate) fn send(&mut self, client: usize, packet: impl Into<Packet>) {
        let packet = packet.into();
        self.bytes(client, packet.encode().unwrap().as_ref());
    }

    pub(crate) fn send_3(&mut self, client: usize, packet: impl Into<v3::Packet>) {
        let packet = packet.into();
        self.bytes(client, packet.encode().unwrap().as_ref());
    }

    /// The connection breaks.
    pub(crate) fn cut(&mut self, client: usize) {
        let id = self.clients[client].id;
        if !self.clients[client].closed && self.by_id.remove(&id).is_some() {
            self.clients[client].closed = true;
            self.broker.closed(id, self.now);
        }
        self.run();
    }

    pub(crate) fn resume(&mut self, client: usize) {
        self.clients[client].stalled = false;
        self.write(client);
        self.run();
    }

    /// Lets time pass, and what is due happen in it.
    pub(crate) fn sleep(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(due) = self.broker.deadline(self.now).filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.broker.tick(self.now);
            self.run();
        }
        self.now = end;
    }

    /// The next packet that came, as bytes.
    fn frame(&mut self, client: usize) -> Option<Vec<u8>> {
        let buffer = &mut self.clients[client].buffer;
        if buffer.len() < 2 {
            return None;
        }
        let header = v5::Header::decode(buffer).unwrap_or_else(|e| panic!("{e}: {buffer:?}"));
        // Of this codec, `total_len` is the number of bytes that the length takes.
        let end = 1 + header.total_len as usize + header.remaining_len as usize;
        (buffer.len() >= end).then(|| buffer.drain(..end).collect())
    }

    fn frames(&mut self, client: usize) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.frame(client)).collect()
    }

    /// The next packet that came; those behind it are left.
    fn first(&mut self, client: usize) -> Option<Packet> {
        self.frame(client).map(|frame| Packet::decode(&frame).unwrap().unwrap())
    }

    pub(crate) fn got(&mut self, client: usize) -> Vec<Packet> {
        let frames = self.frames(client);
        frames.iter().map(|frame| Packet::decode(frame).unwrap().unwrap()).collect()
    }

    pub(crate) fn got_3(&mut self, client: usize) -> Vec<v3::Packet> {
        let frames = self.frames(client);
        frames.iter().map(|frame| v3::Packet::decode(frame).unwrap().unwrap()).collect()
    }

    pub(crate) fn raw(&mut self, client: usize) -> Vec<u8> {
        std::mem::take(&mut self.clients[client].buffer)
    }

    /// The payloads of PUBLISH packets that came; others are left out.
    pub(crate) fn heard(&mut self, client: usize) -> Vec<String> {
        let text = |payload: &Bytes| String::from_utf8_lossy(payload).into_owned();
        if self.clients[client].protocol == Protocol::V500 {
            let packets = self.got(client).into_iter();
            packets
                .filter_map(
                    |packet| if let Packet::Publish(p) = packet { Some(text(&p.payload)) } else { None },
                )
                .collect()
        } else {
            let packets = self.got_3(client).into_iter();
            packets
                .filter_map(
                    |packet| if let v3::Packet::Publish(p) = packet { Some(text(&p.payload)) } else { None },
                )
                .collect()
        }
    }

    /// CONNECT, and the answer.
    pub(crate) fn hello(&mut self, connect: v5::Connect) -> (usize, v5::Connack) {
        let client = self.open();
        self.send(client, connect);
        match self.first(client) {
            Some(Packet::Connack(connack)) => (client, connack),
            other => panic!("no CONNACK but {other:?}"),
        }
    }

    pub(crate) fn client(&mut self, id: &str) -> usize {
        self.client_with(id, |_| {})
    }

    pub(crate) fn client_with(&mut self, id: &str, change: impl FnOnce(&mut v5::Connect)) -> usize {
        let mut connect = v5::Connect::new(id.into(), 0);
        change(&mut connect);
        let (client, connack) = self.hello(connect);
        assert_eq!(connack.reason_code, ConnectReasonCode::Success);
        client
    }

    /// With a session that lasts.
    pub(crate) fn lasting(&mut self, id: &str) -> (usize, bool) {
        let mut connect = v5::Connect::new(id.into(), 0);
        connect.clean_start = false;
        connect.properties.session_expiry_interval = Some(3600);
        let (client, connack) = self.hello(connect);
        (client, connack.session_present)
    }

    /// A client of MQTT 3.1.1, or 3.1.
    pub(crate) fn client_3(&mut self, protocol: Protocol, id: &str, clean: bool) -> (usize, v3::Connack) {
        let client = self.open();
        self.clients[client].protocol = protocol;
        let mut connect = v3::Connect::new(id.into(), 0);
        (connect.protocol, connect.clean_session) = (protocol, clean);
        self.send_3(client, connect);
        match self.frame(client).map(|frame| v3::Packet::decode(&frame).unwrap().unwrap()) {
            Some(v3::Packet::Connack(connack)) => (client, connack),
            other => panic!("no CONNACK but {other:?}"),
        }
    }

    pub(crate) fn subscriber(&mut self, id: &str, filter: &str, qos: u8) -> usize {
        let client = self.client(id);
        self.send(client, subscribe(filter, qos));
        assert!(matches!(self.first(client), Some(Packet::Suback(_))));
        client
    }

    /// What a connection was closed with.
    pub(crate) fn farewell(&mut self, client: usize) -> Option<DisconnectReasonCode> {
        assert!(self.clients[client].closed, "it is not closed");
        match self.got(client).pop() {
            Some(Packet::Disconnect(disconnect)) => Some(disconnect.reason_code),
            _ => None,
        }
    }

    pub(crate) fn decide(&mut self, verdict: Verdict) {
        let (id, _) = self.asked.remove(0);
        self.broker.authenticated(id, verdict, self.now);
        self.run();
    }
}
