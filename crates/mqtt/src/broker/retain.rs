//! Retained messages in what all brokers keep: one map that the nodes of a space share, by topic.
//!
//! A message is heard live by its rank; the map is for those that were not there. Whoever has something newer than the map
//! writes it: the broker of its client soon, any other one later, in case that one is gone. So all have the same in the
//! end, whichever of two writers the map itself prefers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mqtt_proto::TopicName;

use super::{Action, Broker, Map, Whence};
use crate::{
    mesh,
    message::Message,
    retained::{self, Rank},
};

/// How long a topic is gathered before it is written: what changes often is written as often at most.
const SOON: Duration = Duration::from_millis(100);
/// How long the broker of a client has before others write what it said, and how much longer some of them wait.
const OTHERS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));
/// Within which brokers that know something newer than the map write it.
const MEND: Duration = Duration::from_secs(2);

impl Broker {
    /// A retained message, or a deletion, is the newest of its topic: it is to be written.
    pub(super) fn note_retained(&mut self, message: &Message, whence: Whence, now: Instant) {
        if !self.shares {
            return;
        }
        let at = match whence {
            // Not put off by what follows.
            Whence::Client => self.retained.save_at(&message.topic).into_iter().chain([now + SOON]).min(),
            Whence::Mesh => now.checked_add(OTHERS.0 + self.within(OTHERS.1)),
            Whence::Map | Whence::Again => None,
        };
        self.retained.save(&message.topic, at);
    }

    /// A moment up to so long.
    pub(super) fn within(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros((self.random)() % most)
    }

    /// Forgets what has expired, and has it deleted from the map.
    pub(super) fn expire_retained(&mut self, now: Instant) {
        let most = u64::try_from(OTHERS.1.as_micros()).unwrap_or(u64::MAX);
        let random = &mut self.random;
        let after = move || Duration::from_micros(random() % most);
        self.retained.expire(now, self.shares.then_some(after));
    }

    /// Writes what is due.
    pub(super) fn save_retained(&mut self, now: Instant) {
        while let Some(unsaved) = self.retained.next_unsaved(now) {
            let key = retained::key(&unsaved.topic);
            let value = unsaved.message.map(|message| {
                let node = unsaved.rank.node.to_be_bytes();
                [&node[..], &mesh::encode(&message, unsaved.rank.stamp, now)].concat()
            });
            self.actions.push_back(Action::Keep { map: Map::Retained, key, value });
        }
    }

    /// What the map has of a topic, written at `sent` (microseconds since 1970); whether it is what brokers write.
    pub(super) fn learn_retained(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        sent: u64,
        now: Instant,
    ) -> bool {
        let Some(value) = value else {
            self.learn_deletion(key, sent, now);
            return true;
        };
        let Some((node, data)) = value.split_first_chunk::<8>() else { return false };
        let Ok((mut message, stamp)) = mesh::decode(&Bytes::copy_from_slice(data), now) else { return false };
        if !message.retain || message.payload.is_empty() || retained::key(&message.topic) != key {
            return false;
        }
        // Its lifetime is from when it was written.
        let age = Duration::from_micros(self.time(now).saturating_sub(sent));
        message.expires = message.expires.map(|at| at.checked_sub(age).unwrap_or(now));
        self.heed(stamp, now);
        let rank = Rank { stamp, node: u64::from_be_bytes(*node) };
        let topic = message.topic.clone();
        let known = self.retained.get(&topic).map(|(rank, message)| (rank, message.is_some()));
        match known {
            Some((known, is_there)) if known == rank => {
                if is_there {
                    self.retained.save(&topic, None);
                }
            }
            Some((known, _)) if known > rank => self.mend(&topic, now),
            _ => {
                // Two that act for one that is gone may say the same: that is no news.
                let known = self.retained.get(&topic).and_then(|(_, message)| message);
                let repeats = known.is_some_and(|known| known.payload == message.payload);
                let whence = if repeats { Whence::Again } else { Whence::Map };
                self.take_in(Arc::new(message), None, rank, whence, now);
            }
        }
        true
    }

    fn learn_deletion(&mut self, key: &[u8], sent: u64, now: Instant) {
        // What is said from now on is later.
        self.heed(sent.saturating_add(999), now);
        let Some(topic) = self.retained.topic(key) else { return };
        let Some((rank, message)) = self.retained.get(&topic) else { return };
        let Some(message) = message.cloned() else { return self.retained.save(&topic, None) };
        // Of its millisecond the last: whoever deleted knew what was there.
        let deletion = Rank { stamp: sent.saturating_add(999), node: u64::MAX };
        if rank > deletion {
            return self.mend(&topic, now);
        }
        let mut gone = Message::clone(&message);
        (gone.payload, gone.properties, gone.expires) = (Bytes::new(), None, None);
        self.take_in(Arc::new(gone), None, deletion, Whence::Map, now);
    }

    /// The map has something older than is known here.
    fn mend(&mut self, topic: &TopicName, now: Instant) {
        // Else it is on its way.
        if self.retained.save_at(topic).is_none() {
            let at = now.checked_add(self.within(MEND));
            self.retained.save(topic, at);
        }
    }

    /// The map let a topic go: there were too many.
    pub(super) fn retained_gave_way(&mut self, key: &[u8]) {
        if let Some(topic) = self.retained.topic(key) {
            self.retained.remove(&topic);
        }
    }
}
