//! The end of a node: topics are left, connections closed, and then it is over.

use std::time::{Duration, Instant};

use futures::{FutureExt, future::BoxFuture};

use super::{EventLoop, answer};
use crate::{
    node::{command::Reply, error::Error, event::Event, feed::Sender},
    runtime::Handle,
};

/// How long the last messages and the news that we leave have to go out.
const FLUSH: Duration = Duration::from_millis(150);
/// How long connections have to close after that.
const CLOSE: Duration = Duration::from_secs(3);
/// How long the sockets, and the disk, have after that; and what connections left of their time.
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
                self.leave(&topic);
            }
            for publish in self.pending_publishes.take_all() {
                self.give_up(publish, &Error::ShuttingDown);
            }
            for confirmed in self.swarm.behaviour_mut().catchup.give_up_confirms() {
                self.on_confirmed(confirmed);
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

    /// Drops the loop, and waits for what that leaves to do.
    pub(super) fn finish(mut self: Box<Self>) -> impl Future<Output = ()> + Send {
        let behaviour = self.swarm.behaviour_mut();
        let (records, remembered) = (behaviour.kad.store_mut().close(), behaviour.catchup.close());
        let stored = futures::future::join(records, remembered).map(|((), ())| ()).boxed();
        let this = *self;
        // From here on every call is answered that the node has stopped.
        drop(this.inbox);
        // Connections that are still open, and the listeners, go with the swarm. A task that still
        // holds one is not waited for long.
        drop(this.swarm);
        let left = |drain: &Drain| drain.deadline.saturating_duration_since(this.runtime.now());
        let limit = SOCKETS + this.drain.as_ref().map_or(Duration::ZERO, left);
        let replies = this.drain.map(|d| d.replies).unwrap_or_default();
        finished(this.runtime, limit, this.closed, stored, replies, this.events)
    }
}

/// Waits until all is closed, at most for `limit`, and says so; `events` end then, too.
async fn finished(
    runtime: Handle,
    limit: Duration,
    closed: BoxFuture<'static, ()>,
    stored: BoxFuture<'static, ()>,
    replies: Vec<Reply<()>>,
    events: Sender<Event>,
) {
    let limit = |task| runtime.timeout(limit, task);
    let (closed, stored) = futures::join!(limit(closed), limit(stored));
    if closed.is_err() {
        log::warn!(target: "smidge", "a socket is still open: its address cannot be bound again yet");
    }
    if stored.is_err() {
        log::warn!(target: "smidge", "the disk is slow: what was stored last may not be on it");
    }
    for reply in replies {
        answer(reply, Ok(()));
    }
    drop(events);
}
