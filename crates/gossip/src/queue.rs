//! What waits to be sent to one peer, bounded in bytes.
//!
//! Control goes before our own messages, and those before what is forwarded. A peer that reads slowly loses the oldest
//! forwarded messages first, counted, then announcements; our own messages are refused before they are lost, and what
//! the state of a mesh or a subscription is, is never lost: only its newest state waits. What is due goes out in as few
//! frames as fit.

mod control;

use std::collections::{HashSet, VecDeque};

use crate::{
    Choke, Extensions, IHave, MessageId, Prune, Topic, WireMessage,
    budget::Budget,
    fingerprint::{BuildFingerprintHasher, Fingerprint},
    rpc::{self, FrameWriter},
};

use control::ControlQueue;

/// What a queue takes and how it is cut into frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Bytes of messages that wait, our own and forwarded together.
    pub messages: usize,
    /// Bytes of announcements that wait: IHAVE, IWANT and IDONTWANT.
    pub announcements: usize,
    /// Bytes of one frame, its length not counted: a message that does not fit by itself is refused.
    pub frame: usize,
    /// Bytes up to which several things go into one frame; one message alone may be larger.
    pub coalesce: usize,
    /// Bytes of subscriptions and control messages in one frame.
    pub control: usize,
    /// Subscriptions in one frame.
    pub subscriptions: usize,
    /// Messages in one frame.
    pub batch: usize,
}

impl Default for QueueLimits {
    /// What stock rust-libp2p 0.57 takes by its defaults: frames of 64 KiB, of which 16 KiB may be control, and 500
    /// messages; of subscriptions no more than a hundred, or none of them is taken in. It holds against the 64 KiB what it has read of the frames behind as well, up to 8 KiB.
    fn default() -> Self {
        Self {
            messages: 1024 * 1024,
            announcements: 128 * 1024,
            frame: 64 * 1024,
            coalesce: 16 * 1024,
            control: 16 * 1024,
            subscriptions: 100,
            batch: 256,
        }
    }
}

/// One control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlItem {
    /// Messages of a topic that can be had.
    IHave(IHave),
    /// Messages asked for.
    IWant(Vec<MessageId>),
    /// Into the mesh.
    Graft(Topic),
    /// Out of the mesh.
    Prune(Prune),
    /// Messages not to send.
    IDontWant(Vec<MessageId>),
    /// What else we speak. Goes first.
    Extensions(Extensions),
    /// Announce messages of a topic, or send them again.
    Choke(Choke),
}

/// A message on its way to one peer.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Its id's, so that IDONTWANT can take it back.
    pub fingerprint: Fingerprint,
    /// Itself, shared with everybody who gets it.
    pub message: WireMessage,
}

/// Why a message of ours was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The peer reads too slowly: `waiting` bytes wait already.
    #[error("{waiting} bytes wait for the peer already")]
    Full {
        /// Bytes of messages that wait and are not to be dropped.
        waiting: usize,
    },
    /// No frame may be so large.
    #[error("{bytes} bytes are more than a frame's {limit}")]
    TooLarge {
        /// Bytes of the frame it would take.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// What has been written into a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes, the frame's length included.
    pub bytes: usize,
    /// Messages in it.
    pub messages: usize,
    /// Control messages and subscriptions in it.
    pub control: usize,
}

/// What waits for one peer.
#[derive(Debug)]
pub struct Queue {
    limits: QueueLimits,
    control: ControlQueue,
    own: Messages,
    forwarded: Messages,
    dropped: u64,
    taken: u64,
    /// Bytes of messages.
    taken_bytes: u64,
}

#[derive(Debug, Default)]
struct Messages {
    waiting: VecDeque<Outgoing>,
    bytes: usize,
    /// Where these bytes count among those of other queues.
    all: Budget,
}

impl Queue {
    /// An empty one.
    pub fn new(limits: QueueLimits) -> Self {
        let control = ControlQueue::new(limits.announcements, limits.control);
        let (own, forwarded) = (Messages::default(), Messages::default());
        Self { limits, control, own, forwarded, dropped: 0, taken: 0, taken_bytes: 0 }
    }

    /// An empty one whose messages count in `all` as well.
    pub(crate) fn sharing(limits: QueueLimits, all: Budget) -> Self {
        let messages = || Messages { waiting: VecDeque::new(), bytes: 0, all: all.clone() };
        Self { own: messages(), forwarded: messages(), ..Self::new(limits) }
    }

    /// Says that we joined or left a topic. Of one topic, the newest waits.
    pub fn subscription(&mut self, topic: Topic, subscribe: bool) {
        self.control.subscription(topic, subscribe);
    }

    /// Says something else. Of GRAFT and PRUNE of one topic, and of CHOKE and UNCHOKE, the newest waits. Returns how many announcements had to
    /// go for it.
    pub fn control(&mut self, item: ControlItem) -> usize {
        self.control.push(item)
    }

    /// Sends a message of our own. Forwarded messages make room for it.
    ///
    /// # Errors
    /// When it does not fit, even so: nothing was changed then.
    pub fn publish(&mut self, message: Outgoing) -> Result<(), Refused> {
        let cost = self.fits(&message)?;
        if self.own.bytes + cost > self.limits.messages {
            return Err(Refused::Full { waiting: self.own.bytes });
        }
        self.make_room(cost);
        self.own.push(message);
        Ok(())
    }

    /// Whether a message of our own would be taken.
    ///
    /// # Errors
    /// What [`Self::publish`] would say.
    pub fn would_publish(&self, message: &WireMessage) -> Result<(), Refused> {
        let cost = self.fits_message(message)?;
        if self.own.bytes + cost > self.limits.messages {
            return Err(Refused::Full { waiting: self.own.bytes });
        }
        Ok(())
    }

    /// Forwards a message; returns how many forwarded messages were lost by it, this one included where it does not fit.
    pub fn forward(&mut self, message: Outgoing) -> usize {
        let Ok(cost) = self.fits(&message) else {
            self.dropped += 1;
            return 1;
        };
        if self.own.bytes + cost > self.limits.messages {
            self.dropped += 1;
            return 1;
        }
        let dropped = self.make_room(cost);
        self.forwarded.push(message);
        dropped
    }

    /// The peer has these already (IDONTWANT): what waits of them is not sent. Returns how many that were.
    pub fn forget(&mut self, have: &HashSet<Fingerprint, BuildFingerprintHasher>) -> usize {
        if have.is_empty() {
            return 0;
        }
        self.forwarded.forget(have) + self.own.forget(have)
    }

    /// Nobody reads any more: nothing waits from now on. Returns how many of our own messages were lost.
    pub fn clear(&mut self) -> usize {
        let lost = self.own.waiting.len();
        let fresh = Self::sharing(self.limits.clone(), self.own.all.clone());
        let Self { dropped, taken, taken_bytes, .. } = *self;
        *self = Self { dropped, taken, taken_bytes, ..fresh };
        lost
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.own.waiting.is_empty() && self.forwarded.waiting.is_empty()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.control.bytes() + self.own.bytes + self.forwarded.bytes
    }

    /// Messages that wait.
    pub fn messages(&self) -> usize {
        self.own.waiting.len() + self.forwarded.waiting.len()
    }

    /// Bytes of forwarded messages that wait.
    pub(crate) fn forwarded_bytes(&self) -> usize {
        self.forwarded.bytes
    }

    /// Drops the oldest forwarded messages until `bytes` of them are gone; returns how many.
    pub(crate) fn shed(&mut self, bytes: usize) -> usize {
        let (most, mut dropped) = (self.forwarded.bytes.saturating_sub(bytes), 0);
        while self.forwarded.bytes > most && self.forwarded.pop().is_some() {
            dropped += 1;
        }
        self.dropped += dropped as u64;
        dropped
    }

    /// Frames written since the beginning.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes of messages written since the beginning.
    pub(crate) fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// The same, if there is no room for `bytes` more of our own because others of them wait.
    pub(crate) fn full_of_own(&self, bytes: usize) -> Option<u64> {
        (self.own.bytes > 0 && self.own.bytes + bytes > self.limits.messages).then_some(self.taken_bytes)
    }

    /// Bytes of our own messages that wait.
    pub(crate) fn own_bytes(&self) -> usize {
        self.own.bytes
    }

    /// Drops our own messages; returns how many.
    pub(crate) fn shed_own(&mut self) -> usize {
        let mut dropped = 0;
        while self.own.pop().is_some() {
            dropped += 1;
        }
        dropped
    }

    /// Forwarded messages lost since the beginning.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Appends the next frame to `out`; `None` where nothing waits.
    pub fn next_frame(&mut self, out: &mut Vec<u8>) -> Option<Written> {
        if self.is_empty() {
            return None;
        }
        self.taken += 1;
        let before = out.len();
        let control =
            self.control.take(self.limits.control.min(self.limits.frame), self.limits.subscriptions);
        let messages = self.take_messages(control.len());
        let messages_len = messages.iter().map(|m| rpc::message_len(&m.message)).sum::<usize>();
        self.taken_bytes += messages_len as u64;
        let len = control.len() + messages_len;
        FrameWriter::begin(len, out);
        control.write(out);
        for message in &messages {
            rpc::put_message(&message.message, out);
        }
        Some(Written { bytes: out.len() - before, messages: messages.len(), control: control.count() })
    }

    /// Messages for a frame that has `used` bytes of control already.
    fn take_messages(&mut self, used: usize) -> Vec<Outgoing> {
        let (mut taken, mut bytes) = (Vec::new(), used);
        for queue in [&mut self.own, &mut self.forwarded] {
            while let Some(next) = queue.waiting.front() {
                let len = rpc::message_len(&next.message);
                let alone = bytes == 0;
                if !alone && bytes + len > self.limits.coalesce || taken.len() >= self.limits.batch {
                    return taken;
                }
                bytes += len;
                taken.extend(queue.pop());
            }
        }
        taken
    }

    fn fits(&self, message: &Outgoing) -> Result<usize, Refused> {
        self.fits_message(&message.message)
    }

    fn fits_message(&self, message: &WireMessage) -> Result<usize, Refused> {
        let (bytes, limit) = (rpc::message_len(message), self.limits.frame);
        if bytes > limit { Err(Refused::TooLarge { bytes, limit }) } else { Ok(cost(message)) }
    }

    /// Drops the oldest forwarded messages until `cost` fits; returns how many.
    fn make_room(&mut self, cost: usize) -> usize {
        let mut dropped = 0;
        while self.own.bytes + self.forwarded.bytes + cost > self.limits.messages
            && self.forwarded.pop().is_some()
        {
            dropped += 1;
        }
        self.dropped += dropped as u64;
        dropped
    }
}

/// What a waiting message counts for. Its buffer is shared with other queues, but if this peer is the slow one, then it
/// is this queue that keeps it.
pub(crate) fn cost(message: &WireMessage) -> usize {
    message.encoded().len() + size_of::<Outgoing>()
}

impl Messages {
    fn push(&mut self, message: Outgoing) {
        let cost = cost(&message.message);
        self.bytes += cost;
        self.all.take(cost);
        self.waiting.push_back(message);
    }

    fn pop(&mut self) -> Option<Outgoing> {
        let message = self.waiting.pop_front()?;
        let cost = cost(&message.message);
        self.bytes -= cost;
        self.all.give_back(cost);
        if self.waiting.is_empty() {
            // What a burst took is given back.
            self.waiting = VecDeque::new();
        }
        Some(message)
    }

    fn forget(&mut self, have: &HashSet<Fingerprint, BuildFingerprintHasher>) -> usize {
        let before = self.waiting.len();
        let mut gone = 0;
        self.waiting.retain(|waiting| {
            let keep = !have.contains(&waiting.fingerprint);
            gone += if keep { 0 } else { cost(&waiting.message) };
            keep
        });
        self.bytes -= gone;
        self.all.give_back(gone);
        before - self.waiting.len()
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.all.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests;
