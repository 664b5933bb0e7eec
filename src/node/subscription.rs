//! A subscriber's end of a topic: what is live, and before it, or where it was lost, what the topic's memory has.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures::Stream;

use super::{
    catchup::Position,
    command::Command,
    event::Message,
    feed::{Delivery, Feed},
    replay::{Cursor, Replay},
};

/// The messages of one topic, as a [`Feed`]. Dropping the last one leaves the topic, unless the config names it. A
/// subscription alone does not keep the node running: a client does.
#[derive(Debug)]
pub struct Subscription {
    /// There until this is dropped.
    messages: Option<Feed<Message>>,
    topic: String,
    commands: async_channel::WeakSender<Command>,
    /// Set where the loop could not be notified that this was dropped.
    unheard: Arc<AtomicBool>,
    /// Whether what is published at this node is left out.
    no_local: bool,
    /// Those of the topic that leave it out.
    deaf: Arc<AtomicUsize>,
    /// What is read from the topic's memory before what is live goes on.
    replay: Option<Replay>,
    /// What was lost as live, of which so much was read from the memory.
    refill: Option<Refill>,
    /// Of what is live, the first behind what is read.
    held: Option<Message>,
    /// The position of the last live message that had one, and of the memory before the first.
    last: Option<Position>,
}

/// What a slow subscriber lost, and how much of it the memory gave again.
#[derive(Debug)]
struct Refill {
    lost: u64,
    given: u64,
}

impl Stream for Subscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        loop {
            match ready!(self.poll_delivery(cx)) {
                Some(Delivery::Item(message)) => return Poll::Ready(Some(message)),
                Some(Delivery::Lost(_) | Delivery::Gone) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Subscription {
    pub(super) fn new(
        messages: Feed<Message>,
        topic: String,
        commands: async_channel::WeakSender<Command>,
        unheard: Arc<AtomicBool>,
        deaf: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            messages: Some(messages),
            topic,
            commands,
            unheard,
            no_local: false,
            deaf,
            replay: None,
            refill: None,
            held: None,
            last: None,
        }
    }

    /// With the position of the last message that came before what is live, if the topic is kept, and what is to be read
    /// first, if anything.
    pub(super) fn remembering(mut self, mark: Option<Position>, from: Option<Cursor>) -> Self {
        self.last = mark;
        self.replay = from.map(|from| Replay::new(self.topic.clone(), self.commands.clone(), from));
        self
    }

    /// How many messages this subscriber was too slow for so far, and did not get from the memory of a topic that is kept
    /// either.
    pub fn lost(&self) -> u64 {
        self.messages.as_ref().map_or(0, Feed::lost)
    }

    /// The next message, or how many were lost before it, or that some are gone; `None` when the node has ended or the
    /// topic was left.
    pub async fn next_delivery(&mut self) -> Option<Delivery<Message>> {
        poll_fn(|cx| self.poll_delivery(cx)).await
    }

    /// The same of what is remembered, of a subscription that [begins in the past](crate::Client::subscribe_from); `None`
    /// when that was all. What is live by then may be the last.
    pub async fn next_remembered(&mut self) -> Option<Delivery<Message>> {
        poll_fn(|cx| {
            if self.replay.is_none() {
                return Poll::Ready(None);
            }
            match self.poll_delivery(cx) {
                Poll::Pending if self.replay.is_none() => Poll::Ready(None),
                next => next,
            }
        })
        .await
    }

    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery<Message>>> {
        loop {
            let next = match ready!(self.poll_all(cx)) {
                Some(Delivery::Item(message)) if self.no_local && message.local => continue,
                next => next,
            };
            return Poll::Ready(next);
        }
    }

    /// What is read from the memory, and then what is live.
    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery<Message>>> {
        loop {
            let Some(messages) = &mut self.messages else { return Poll::Ready(None) };
            if let Some(replay) = &mut self.replay {
                match (ready!(replay.poll_next(cx)), &mut self.refill) {
                    (None, refill) => {
                        let missing =
                            refill.take().map_or(0, |refill| refill.lost.saturating_sub(refill.given));
                        self.replay = None;
                        if missing > 0 {
                            messages.count_lost(missing);
                            return Poll::Ready(Some(Delivery::Lost(missing)));
                        }
                        continue;
                    }
                    // It is counted when all is read.
                    (Some(Delivery::Gone), Some(_)) => continue,
                    (Some(Delivery::Item(message)), refill) => {
                        refill.iter_mut().for_each(|refill| refill.given += 1);
                        return Poll::Ready(Some(Delivery::Item(message)));
                    }
                    (next, _) => return Poll::Ready(next),
                }
            }
            if let Some(held) = self.held.take() {
                self.last = held.position.or(self.last);
                return Poll::Ready(Some(Delivery::Item(held)));
            }
            match ready!(messages.poll_uncounted(cx)) {
                Some(Delivery::Item(message)) => {
                    self.last = message.position.or(self.last);
                    return Poll::Ready(Some(Delivery::Item(message)));
                }
                Some(Delivery::Lost(lost)) => {
                    if let Some(counted) = self.read_again(lost, cx) {
                        return Poll::Ready(Some(counted));
                    }
                }
                next => return Poll::Ready(next),
            }
        }
    }

    /// So many messages were lost as live: they are read from the memory, up to the next that is there. Where there is
    /// none, they are counted.
    fn read_again(&mut self, mut lost: u64, cx: &mut Context<'_>) -> Option<Delivery<Message>> {
        let messages = self.messages.as_mut()?;
        while let Poll::Ready(Some(next)) = messages.poll_uncounted(cx) {
            match next {
                Delivery::Lost(more) => lost += more,
                Delivery::Item(message) => {
                    self.held = Some(message);
                    break;
                }
                Delivery::Gone => {}
            }
        }
        let next = self.held.as_ref().and_then(|held| held.position);
        let (Some(last), Some(next)) =
            (self.last.filter(|last| Some(last.memory) == next.map(|n| n.memory)), next)
        else {
            messages.count_lost(lost);
            return Some(Delivery::Lost(lost));
        };
        let cursor = Cursor::between(&last, &next);
        self.replay = Some(Replay::new(self.topic.clone(), self.commands.clone(), cursor));
        self.refill = Some(Refill { lost, given: 0 });
        None
    }

    /// Without what is published at this node. Such a subscriber is none that a publish here counts, or waits for.
    /// [`lost`](Self::lost) counts what is left out, too, where it was lost.
    #[must_use]
    pub fn no_local(mut self) -> Self {
        if !std::mem::replace(&mut self.no_local, true) {
            self.deaf.fetch_add(1, Ordering::Relaxed);
        }
        self
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Before the loop looks who is left.
        self.messages = None;
        if self.no_local {
            self.deaf.fetch_sub(1, Ordering::Relaxed);
        }
        let Some(commands) = self.commands.upgrade() else { return };
        let sent = || commands.try_send(Command::Unfollow { topic: self.topic.clone() }).is_ok();
        if !sent() {
            // The queue is full: the loop looks at all topics with the next command. There is one, unless it has just
            // taken the last.
            self.unheard.store(true, Ordering::Release);
            sent();
        }
    }
}
