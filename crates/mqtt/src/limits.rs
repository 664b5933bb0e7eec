//! What a broker keeps and takes at most.

use std::time::Duration;

/// Bounds of a [`Broker`](crate::Broker). A client that runs into one gets the reason code made for it, where its
/// version of MQTT has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections; one more is closed without a word.
    pub connections: usize,
    /// Sessions, of connected clients and of those that may come back; one more client is refused.
    pub sessions: usize,
    /// Subscriptions of one client.
    pub subscriptions: usize,
    /// Messages at QoS 1 and 2 that are on their way to one client and not acknowledged.
    pub inflight: u16,
    /// Messages at QoS 2 on their way from one client; announced to MQTT 5 clients (Receive Maximum).
    pub receive_maximum: u16,
    /// Messages at QoS 1 and 2 that wait for one client beyond those; further ones are dropped, and counted.
    pub queue_messages: usize,
    /// Bytes of those, and bytes written and not taken by one client. A client that reads slowly loses messages at QoS 0
    /// first.
    pub queue_bytes: usize,
    /// Bytes that wait for all clients together.
    pub queued_bytes: usize,
    /// Retained messages, those deleted lately included.
    pub retained_messages: usize,
    /// Bytes of retained messages.
    pub retained_bytes: usize,
    /// The largest packet that is taken; announced to MQTT 5 clients (Maximum Packet Size).
    pub packet: usize,
    /// Levels of a topic name or filter.
    pub levels: usize,
    /// Bytes of a client id.
    pub client_id: usize,
    /// Topic aliases of one client; announced to MQTT 5 clients (Topic Alias Maximum).
    pub aliases: u16,
    /// How long a session is kept after its client went, at most, and that of an MQTT 3 client without a clean session.
    pub session_expiry: Duration,
    /// How long a connection may take to say CONNECT.
    pub connect_timeout: Duration,
    /// The longest keep-alive; announced to MQTT 5 clients that ask for more (Server Keep Alive). 0: any, none included.
    pub keep_alive: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            sessions: 2048,
            subscriptions: 256,
            inflight: 100,
            receive_maximum: 100,
            queue_messages: 1000,
            queue_bytes: 1 << 20,
            queued_bytes: 16 << 20,
            retained_messages: 10_000,
            retained_bytes: 4 << 20,
            packet: 128 << 10,
            levels: 200,
            client_id: 256,
            aliases: 10,
            session_expiry: Duration::from_secs(86_400),
            connect_timeout: Duration::from_secs(10),
            keep_alive: 0,
        }
    }
}
