//! The end of a node: topics are left, connections closed, and then it is over.

use std::time::{Duration, Instant};

use libp2p::gossipsub::IdentTopic;

use super::{EventLoop, answer};
use crate::node::{command::Reply, error::Error, event::Event};

/// How long the last messages and the news that we leave have to go out.
const FLUSH: Duration = Duration::from_millis(150);
/// How long connections have to close after that.
const CLOSE: Duration = Duration::from_secs(3);
/// How long the sockets have to close when all that is over.
const SOCKETS: Duration = Duration::from_millis(1500);

/// How far a shutdown has come.
pub(super) struct Drain {
    replies: Vec<Reply<()>>,
    /// When connections are closed; already, if `None`.
    pub(super) flushed: Option<Instant>,
    /// When the node ends, whatever is still open.
    pub(super) deadline: Instant,
}

impl EventLoop {
    /// Leaves the topics, takes no more work, and closes what is open a moment later.
    pub(super) fn begin_drain(&mut self, reply: Option<Reply<()>>) {
        if self.drain.is_none() {
            self.emit(Event::Stopping);
            let now = self.runtime.now();
            self.drain = Some(Drain {
                replies: Vec::new(),
                flushed: Some(now + FLUSH),
                deadline: now + FLUSH + CLOSE,
            });
            self.swarm.behaviour_mut().dialer.stop();
            self.swarm.behaviour_mut().mdns.stop();
            let topics: Vec<_> = self.topics.names().cloned().collect();
            for topic in topics {
                self.swarm.behaviour_mut().gossip.unsubscribe(&IdentTopic::new(topic));
            }
            let waiting: Vec<_> = self.publishes.take_all().collect();
            for reply in waiting {
                self.answer_publish(reply, 0, Err(Error::ShuttingDown));
            }
        }
        if let Some(drain) = &mut self.drain {
            drain.replies.extend(reply);
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| {
            drain.flushed.is_none()
                && (self.swarm.network_info().connection_counters().num_connections() == 0
                    || drain.deadline <= self.runtime.now())
        })
    }

    pub(super) async fn finish(mut self) {
        // From here on every call is told that the node has stopped.
        drop(self.inbox);
        let replies = self.drain.map(|d| d.replies).unwrap_or_default();
        // Connections that are still open, and the listeners, go with the swarm. A task that still
        // holds one is not waited for long.
        let stored = self.swarm.behaviour_mut().kad.store_mut().close();
        drop(self.swarm);
        let limit = |task| self.runtime.timeout(SOCKETS, task);
        let (_, stored) = futures::join!(limit(self.closed), limit(stored));
        if stored.is_err() {
            log::warn!(target: "smidge", "the disk is slow: what was stored last may not be on it");
        }
        for reply in replies {
            answer(reply, Ok(()));
        }
    }
}
