//! A small MQTT client of the tests' own, on the codec alone.

use std::{net::SocketAddr, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt};
use mqtt_proto::{
    Pid, QoS, QosPid, TopicFilter, TopicName,
    v5::{self, ConnectReasonCode, Packet},
};
use smidge::{
    Client, Config,
    config::ApiListen,
    mqtt::{Bound, Server},
    runtime::{TcpOptions, TcpStream},
};

use super::Network;

/// A server on a free port, and its address.
pub(crate) fn serve(net: &Network, node: &Client, config: &Config) -> Server {
    let mut config = config.clone();
    config.mqtt.listen = ApiListen::Tcp(([127, 0, 0, 1], 0).into());
    Bound::open(&config, &net.rt).unwrap().unwrap().serve(node.clone(), &config, &net.rt)
}

pub(crate) struct Mqtt {
    stream: Box<dyn TcpStream>,
    buffer: Vec<u8>,
}

impl Mqtt {
    /// Connects, and says CONNECT as it is changed; the reason that CONNACK gives.
    pub(crate) async fn try_connect(
        net: &Network,
        server: &Server,
        id: &str,
        change: impl FnOnce(&mut v5::Connect),
    ) -> (Self, ConnectReasonCode) {
        let addr = server.url().strip_prefix("mqtt://").unwrap().parse().unwrap();
        Self::connect_to(net, addr, id, change).await
    }

    pub(crate) async fn connect_to(
        net: &Network,
        addr: SocketAddr,
        id: &str,
        change: impl FnOnce(&mut v5::Connect),
    ) -> (Self, ConnectReasonCode) {
        let stream = net.rt.connect_tcp(addr, TcpOptions::default()).await.unwrap();
        let mut client = Self { stream, buffer: Vec::new() };
        let mut connect = v5::Connect::new(id.into(), 0);
        change(&mut connect);
        client.send(connect).await;
        match client.next(net).await {
            Some(Packet::Connack(connack)) => (client, connack.reason_code),
            other => panic!("no CONNACK but {other:?}"),
        }
    }

    pub(crate) async fn connect(net: &Network, server: &Server, id: &str) -> Self {
        let (client, reason) = Self::try_connect(net, server, id, |_| {}).await;
        assert_eq!(reason, ConnectReasonCode::Success);
        client
    }

    pub(crate) async fn send(&mut self, packet: impl Into<Packet>) {
        let packet = packet.into().encode().unwrap();
        self.raw(packet.as_ref()).await;
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next packet; `None` when the connection is closed.
    pub(crate) async fn next(&mut self, net: &Network) -> Option<Packet> {
        loop {
            if self.buffer.len() >= 2 {
                let header = v5::Header::decode(&self.buffer);
                let end = header.map(|header| 1 + header.total_len as usize + header.remaining_len as usize);
                if let Ok(end) = end
                    && self.buffer.len() >= end
                {
                    let packet: Vec<_> = self.buffer.drain(..end).collect();
                    return Some(Packet::decode(&packet).unwrap().unwrap());
                }
            }
            let mut bytes = [0; 4096];
            match net.patiently("a packet", self.stream.read(&mut bytes)).await {
                Ok(n) if n > 0 => self.buffer.extend_from_slice(&bytes[..n]),
                _ => return None,
            }
        }
    }

    /// The next message, acknowledged.
    pub(crate) async fn message(&mut self, net: &Network) -> v5::Publish {
        loop {
            match self.next(net).await.expect("it is still connected") {
                Packet::Publish(publish) => {
                    match publish.qos_pid {
                        QosPid::Level0 => {}
                        QosPid::Level1(pid) => self.send(v5::Puback::new_success(pid)).await,
                        QosPid::Level2(pid) => self.send(v5::Pubrec::new_success(pid)).await,
                    }
                    return publish;
                }
                Packet::Pubrel(pubrel) => self.send(v5::Pubcomp::new_success(pubrel.pid)).await,
                _ => {}
            }
        }
    }

    /// The next message's topic and payload.
    pub(crate) async fn heard(&mut self, net: &Network) -> (String, String) {
        let message = self.message(net).await;
        (message.topic_name.to_string(), String::from_utf8_lossy(&message.payload).into_owned())
    }

    pub(crate) async fn subscribe(&mut self, net: &Network, filter: &str, qos: QoS) {
        let options = v5::SubscriptionOptions::new(qos);
        let filter = TopicFilter::try_from(filter).unwrap();
        self.send(v5::Subscribe::new(Pid::default(), vec![(filter, options)])).await;
        self.until(net, |packet| matches!(packet, Packet::Suback(_))).await;
    }

    pub(crate) async fn publish(&mut self, topic: &str, qos: u8, payload: &str, retain: bool) {
        let mut publish = message(topic, qos, 1, payload);
        publish.retain = retain;
        self.send(publish).await;
    }

    /// Publishes until a client that `heard` at another node hears it: their meshes have found each other.
    pub(crate) async fn until_heard(&mut self, net: &Network, other: &mut Self, topic: &str) {
        other.subscribe(net, topic, QoS::Level0).await;
        for n in 0.. {
            self.publish(topic, 0, &n.to_string(), false).await;
            let heard = other.next(net);
            if net.rt.timeout(Duration::from_millis(500), heard).await.is_ok() {
                break;
            }
        }
        // What is still on its way is not heard any more.
        other.send(v5::Unsubscribe::new(Pid::default(), vec![TopicFilter::try_from(topic).unwrap()])).await;
        other.until(net, |packet| matches!(packet, Packet::Unsuback(_))).await;
    }

    /// Passes over packets up to one like this.
    async fn until(&mut self, net: &Network, is_it: impl Fn(&Packet) -> bool) {
        while !is_it(&self.next(net).await.expect("it is still connected")) {}
    }
}

pub(crate) fn message(topic: &str, qos: u8, pid: u16, payload: &str) -> v5::Publish {
    let pid = Pid::try_from(pid).unwrap();
    let qos_pid = [QosPid::Level0, QosPid::Level1(pid), QosPid::Level2(pid)][usize::from(qos)];
    v5::Publish::new(qos_pid, TopicName::try_from(topic).unwrap(), payload.as_bytes().to_vec().into())
}
