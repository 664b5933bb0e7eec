//! What a topic's memory gives to a subscriber that begins in the past, a page at a time.
//!
//! Whoever subscribes hears what is live from then on, and first what the memory has up to then: the number of the last
//! message that came before is the mark between the two, so that nothing comes twice or is left out.

use std::{
    collections::VecDeque,
    fmt,
    task::{Context, Poll, ready},
};

use futures::{FutureExt, channel::oneshot, future::BoxFuture};
use smidge_catchup::Item;

use super::{catchup::Position, command::Command, event::Message, feed::Delivery};

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    #[default]
    Now,
    /// With what is remembered of what was sent at that time or later, by authors' clocks: milliseconds since 1970. In
    /// authors' order.
    At(u64),
    /// With the newest messages that are remembered, so many at most, in authors' order.
    Last(usize),
    /// Behind a message that was heard before ([`Message::position`]), in the order in which messages came. Where that
    /// was from another node, or before this one was started, with what was sent at its time or later: some of it again.
    Behind(Position),
}

/// Up to where a memory was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In authors' order: all before an item.
    Item(Item),
    /// In the order of arrival: all up to a number.
    Number(u64),
}

/// The next page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) place: Place,
    /// What came later is live.
    pub(crate) mark: u64,
    /// Messages at its beginning that are left out: of a bundle, those that were heard.
    pub(crate) skip: usize,
    /// Something is missing before it for a reason that the memory does not know.
    pub(crate) gone: bool,
}

impl Cursor {
    /// What came behind a message, up to a mark.
    pub(crate) fn behind(position: &Position, mark: u64) -> Self {
        // The rest of a bundle comes with all of it.
        let heard = position.part.checked_add(1).and_then(|heard| usize::try_from(heard).ok());
        let (number, skip) = match heard.filter(|_| position.number > 0) {
            Some(heard) => (position.number - 1, heard),
            None => (position.number, 0),
        };
        Self { place: Place::Number(number), mark, skip, gone: false }
    }

    /// What came between two live messages of one memory.
    pub(crate) fn between(last: &Position, next: &Position) -> Self {
        Self::behind(last, next.number.saturating_sub(1))
    }
}

/// Some of what is remembered.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) messages: Vec<Message>,
    /// Something before them was let go.
    pub(crate) gone: bool,
    pub(crate) next: Option<Cursor>,
}

type Asked = BoxFuture<'static, Option<Page>>;

/// A subscriber's way through a memory.
pub(crate) struct Replay {
    topic: String,
    commands: async_channel::WeakSender<Command>,
    next: Option<Cursor>,
    ready: VecDeque<Delivery<Message>>,
    asked: Option<Asked>,
}

impl Replay {
    pub(crate) fn new(topic: String, commands: async_channel::WeakSender<Command>, from: Cursor) -> Self {
        Self { topic, commands, next: Some(from), ready: VecDeque::new(), asked: None }
    }

    /// The next of what is remembered; `None` when that was all.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery<Message>>> {
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                return Poll::Ready(Some(delivery));
            }
            let Some(asked) = &mut self.asked else {
                let Some(cursor) = self.next.take() else { return Poll::Ready(None) };
                self.asked = Some(ask(self.commands.clone(), self.topic.clone(), cursor));
                continue;
            };
            let page = ready!(asked.poll_unpin(cx));
            self.asked = None;
            // Without an answer the node has ended, and the live stream says so.
            let Page { messages, gone, next } = page.unwrap_or_default();
            self.next = next;
            self.ready.extend(gone.then_some(Delivery::Gone));
            self.ready.extend(messages.into_iter().map(Delivery::Item));
        }
    }
}

fn ask(commands: async_channel::WeakSender<Command>, topic: String, cursor: Cursor) -> Asked {
    async move {
        let (reply, page) = oneshot::channel();
        // Not held while it is waited for: a subscription does not keep the node running.
        let sent = commands.upgrade()?.send(Command::Page { topic, cursor, reply }).await;
        sent.ok()?;
        page.await.ok()
    }
    .boxed()
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("topic", &self.topic).field("next", &self.next).finish_non_exhaustive()
    }
}
