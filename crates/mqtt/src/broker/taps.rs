//! Programs beside the broker that are no clients of it: they publish, and follow a filter, without a session, without
//! acknowledgements, and past the access rules, which are for clients.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use mqtt_proto::TopicName;

use super::{Action, Broker, connect::is_reserved};
use crate::{
    message::Message,
    retained::{Rejected, Step},
    topic,
};

/// Taps that may be open.
const TAPS: usize = 256;
/// Messages that wait for one tap.
const WAITING: usize = 1024;
/// Retained messages that are looked at in one go.
const LOOKS: usize = 512;

/// One who follows a filter, until [`Broker::close_tap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TapId(usize);

/// Why something is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Clients may not publish there.
    #[error("not a topic that can be published on")]
    Topic,
    /// Nothing can be subscribed to like that, or only by a member of a group.
    #[error("not a filter that can be followed")]
    Filter,
    /// As many as may be.
    #[error("{TAPS} filters are followed already")]
    Taps,
    /// It would be retained, and there is no room for it.
    #[error(transparent)]
    Retained(#[from] Rejected),
}

/// What a tap got.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tapped {
    /// Messages, the oldest first, and of each whether it was there already (retained).
    pub messages: Vec<(Arc<Message>, bool)>,
    /// Messages that it was too slow for.
    pub lost: u64,
}

#[derive(Debug)]
pub(super) struct Tap {
    filter: String,
    queue: VecDeque<Arc<Message>>,
    bytes: usize,
    lost: u64,
    woken: bool,
    /// How far the look through what is retained came; none when that is over.
    scan: Option<Option<TopicName>>,
}

impl Broker {
    /// Publishes a message, as if a client had.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn publish_here(&mut self, message: Message, now: Instant) -> Result<(), Refused> {
        if is_reserved(&message.topic) || topic::levels(&message.topic) > self.limits.levels {
            return Err(Refused::Topic);
        }
        let one_more = message.retain && !message.payload.is_empty();
        if one_more && !self.retained.has_room(&message.topic, message.payload.len(), &self.limits) {
            return Err(Refused::Retained(Rejected::Messages(self.limits.retained_messages)));
        }
        self.send_out(Arc::new(message), None, (None, None), now);
        Ok(())
    }

    /// Follows a filter: with what is retained first, if that is wanted.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn open_tap(&mut self, filter: &str, retained: bool) -> Result<TapId, Refused> {
        let shared = topic::shared(filter).is_some();
        if shared || !topic::is_filter(filter) || topic::levels(filter) > self.limits.levels {
            return Err(Refused::Filter);
        }
        if self.taps.len() >= TAPS {
            return Err(Refused::Taps);
        }
        let scan = retained.then_some(None);
        let (filter, queue) = (filter.to_owned(), VecDeque::new());
        Ok(TapId(self.taps.insert(Tap { filter, queue, bytes: 0, lost: 0, woken: false, scan })))
    }

    /// What there is for a tap; nothing until [`Action::Tap`] says so. To be called again until there is nothing.
    pub fn take_tap(&mut self, TapId(id): TapId, now: Instant) -> Tapped {
        let Some(tap) = self.taps.get_mut(id) else { return Tapped::default() };
        let mut tapped = Tapped { lost: std::mem::take(&mut tap.lost), ..Tapped::default() };
        let mut budget = LOOKS;
        while let Some(after) = &mut tap.scan {
            match self.retained.next(&tap.filter, after.as_ref(), &mut budget, now) {
                Step::Found(message) => {
                    *after = Some(message.topic.clone());
                    tapped.messages.push((message, true));
                }
                Step::Pause(at) => *after = Some(at),
                Step::End => tap.scan = None,
            }
            if budget == 0 {
                // The rest when it is asked again.
                tap.woken = true;
                self.actions.push_back(Action::Tap(TapId(id)));
                return tapped;
            }
        }
        tap.woken = false;
        tap.bytes = 0;
        tapped.messages.extend(tap.queue.drain(..).map(|message| (message, false)));
        tapped
    }

    /// The end of a tap.
    pub fn close_tap(&mut self, TapId(id): TapId) {
        self.taps.try_remove(id);
    }

    /// Gives a message to all who follow a filter that it matches. One that is slow loses its oldest.
    pub(super) fn feed_taps(&mut self, message: &Arc<Message>) {
        for (id, tap) in &mut self.taps {
            if !topic::matches(&tap.filter, &message.topic) {
                continue;
            }
            let cost = message.cost();
            while tap.queue.len() >= WAITING
                || (tap.bytes + cost > self.limits.queue_bytes && !tap.queue.is_empty())
            {
                let Some(oldest) = tap.queue.pop_front() else { break };
                tap.bytes -= oldest.cost();
                tap.lost += 1;
            }
            tap.bytes += cost;
            tap.queue.push_back(message.clone());
            if !std::mem::replace(&mut tap.woken, true) {
                self.actions.push_back(Action::Tap(TapId(id)));
            }
        }
    }
}
