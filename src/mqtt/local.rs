//! MQTT for what is no client: the HTTP API publishes and follows filters here. It may do what the node's operator may: users
//! and access rules are for clients.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

use futures::task::AtomicWaker;
use smidge_mqtt::{Message, Qos, Refused, TapId};

use super::{ClientStatus, Heard, MqttStatus, Publish, Said, shared::Shared};

/// Clients that are listed.
const LISTED: usize = 1000;

/// Why something is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// It cannot be published or followed like that.
    #[error("{0}")]
    Malformed(String),
    /// There is no room for it.
    #[error("{0}")]
    Full(String),
}

impl From<Refused> for NotTaken {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Topic | Refused::Filter => Self::Malformed(refused.to_string()),
            Refused::Taps | Refused::Retained(_) => Self::Full(refused.to_string()),
        }
    }
}

/// MQTT at this node.
#[derive(Clone)]
pub struct Local {
    pub(super) shared: Arc<Shared>,
    /// Where clients are taken.
    pub(super) urls: Arc<[String]>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Local")
    }
}

impl Local {
    /// Publishes a message to clients here and at the other nodes. Waits while the way to those is full.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub async fn publish(&self, topic: &str, payload: Vec<u8>, how: Publish) -> Result<(), NotTaken> {
        let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(how.qos.min(2))];
        let mut message = Message::new(topic, payload, qos, how.retain)
            .map_err(|_| NotTaken::Malformed(Refused::Topic.to_string()))?;
        let task = Arc::new(AtomicWaker::new());
        poll_fn(|cx| {
            task.register(cx.waker());
            if self.shared.state().mesh_is_full(&task) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        self.shared.with(|state, now| {
            message.expires = how.expiry.and_then(|expiry| now.checked_add(expiry));
            state.broker.publish_here(message, now)
        })?;
        Ok(())
    }

    /// Follows a filter, with what is retained first if that is wanted.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn follow(&self, filter: &str, retained: bool) -> Result<Followed, NotTaken> {
        let task = Arc::new(AtomicWaker::new());
        let tap = self.shared.with(|state, _| {
            let tap = state.broker.open_tap(filter, retained)?;
            state.taps.insert(tap, task.clone());
            Ok::<_, Refused>(tap)
        })?;
        Ok(Followed { shared: self.shared.clone(), tap, task, taken: VecDeque::new() })
    }

    /// Who is connected here.
    pub fn status(&self) -> MqttStatus {
        let state = self.shared.state();
        let stats = state.broker.stats();
        let mut clients: Vec<_> = state
            .broker
            .clients()
            .map(|client| ClientStatus {
                id: client.id.to_string(),
                user: client.user.map(|user| user.to_string()),
                version: match client.version {
                    3 => "3.1",
                    4 => "3.1.1",
                    _ => "5",
                },
                subscriptions: client.subscriptions,
                waiting: client.waiting,
            })
            .collect();
        clients.sort_by(|a, b| a.id.cmp(&b.id));
        clients.truncate(LISTED);
        MqttStatus {
            listening: self.urls.to_vec(),
            connections: stats.connections,
            sessions: stats.sessions,
            subscriptions: stats.subscriptions,
            retained: stats.retained,
            received: stats.received,
            sent: stats.sent,
            dropped: stats.dropped_slow + stats.dropped_full + stats.dropped_large,
            clients,
        }
    }
}

/// The messages that match a filter, until it is dropped.
pub struct Followed {
    shared: Arc<Shared>,
    tap: TapId,
    task: Arc<AtomicWaker>,
    taken: VecDeque<Heard>,
}

impl std::fmt::Debug for Followed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Followed").field("tap", &self.tap).finish_non_exhaustive()
    }
}

impl Followed {
    /// The next one; `None` when the node ends.
    pub async fn next(&mut self) -> Option<Heard> {
        poll_fn(|cx| {
            self.task.register(cx.waker());
            if self.taken.is_empty() {
                let tapped = self.shared.with(|state, now| state.broker.take_tap(self.tap, now));
                if tapped.lost > 0 {
                    self.taken.push_back(Heard::Lost(tapped.lost));
                }
                let messages = tapped.messages.into_iter();
                self.taken
                    .extend(messages.map(|(message, retained)| Heard::Message(said(&message, retained))));
            }
            match self.taken.pop_front() {
                Some(heard) => Poll::Ready(Some(heard)),
                None if self.shared.closing.load(Ordering::Acquire) => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.shared.with(|state, _| {
            state.taps.remove(&self.tap);
            state.broker.close_tap(self.tap);
        });
    }
}

fn said(message: &Message, retained: bool) -> Said {
    let mut said = Said {
        topic: message.topic.to_string(),
        payload: message.payload.to_vec(),
        qos: message.qos as u8,
        retained,
        ..Said::default()
    };
    if let Some(properties) = &message.properties {
        said.content_type = properties.content_type.as_ref().map(|kind| kind.to_string());
        said.response_topic = properties.response_topic.as_ref().map(|topic| topic.to_string());
        said.user = properties
            .user_properties
            .iter()
            .map(|one| (one.name.to_string(), one.value.to_string()))
            .collect();
    }
    said
}
