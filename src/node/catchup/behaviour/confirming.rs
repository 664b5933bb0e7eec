//! Which messages others keep: this node asks about its own, and answers about what it keeps (docs/CATCHUP.md, "Confirming").

use std::time::{Duration, Instant};

use libp2p::PeerId;
use smidge_catchup::{
    Item,
    frame::{Frame, Refusal},
};

use super::{
    super::{
        confirm::{Confirmed, Question, Ticket, WAIT},
        handler::{self, StreamId},
        scheduler::Outcome,
        session::Key,
    },
    Behaviour, Event,
};
use libp2p::swarm::ToSwarm;

/// Questions that wait for something to be kept, of all peers.
const HELD: usize = 64;
/// How long one may wait, whatever its peer says.
const LONGEST: Duration = Duration::from_secs(5);
/// How often it is looked whether what was asked about is kept by now.
const LOOK: Duration = Duration::from_millis(10);

/// A question of a peer that waits.
pub(super) struct Held {
    peer: PeerId,
    topic: String,
    items: Vec<Item>,
    until: Instant,
}

impl Behaviour {
    /// `count` others are to say by then that they keep a message; what comes of it is an event.
    pub(crate) fn confirm(&mut self, topic: &str, item: Item, count: usize, until: Instant) -> Ticket {
        let ticket = self.confirms.add(topic, item, count, until, self.runtime.now());
        // What is published in one turn is asked about together.
        self.asks_soon = true;
        self.wake();
        ticket
    }

    /// What was not confirmed when the node ends.
    pub(crate) fn give_up_confirms(&mut self) -> Vec<Confirmed> {
        self.confirms.give_up()
    }

    /// Asks what is due.
    pub(super) fn ask(&mut self, now: Instant) {
        let (book, peers, scheduler) = (&self.book, &self.peers, &self.scheduler);
        let may_confirm = |topic: &str| {
            let all = scheduler.peers(topic).filter(|peer| {
                peers.contains_key(*peer) && book.may_read(topic, peer) && !scheduler.is_wary(peer, now)
            });
            all.copied().collect()
        };
        for Question { peer, topic, items } in self.confirms.due(now, may_confirm) {
            let connection = self.peers.get(&peer).and_then(|peer| peer.connections.last()).copied();
            let Some(connection) = connection else { continue };
            let wait = WAIT.as_millis() as u64;
            let frame = Frame::Ask { topic: topic.as_bytes(), wait, items }.encode(0);
            // One stream for all questions about a topic, one after the other.
            let open = self
                .asking
                .iter()
                .find(|(_, asked)| asked.0 == peer && asked.1 == topic)
                .map(|(key, _)| *key);
            match open {
                Some(key) => self.command(key, peer, handler::Command::Send { stream: key.1, frame }),
                None => {
                    let stream = self.next;
                    self.next += 1;
                    let key = (connection, StreamId::Ours(stream));
                    self.asking.insert(key, (peer, topic));
                    self.command(key, peer, handler::Command::Open { stream, frame });
                }
            }
        }
    }

    /// The answer to a question of ours, if the stream is one of those.
    pub(super) fn on_answer(&mut self, key: Key, frame: &[u8], now: Instant) -> bool {
        let Some((peer, topic)) = self.asking.get(&key).cloned() else { return false };
        let confirmed = match Frame::decode(frame, 0) {
            Ok(Frame::Kept(kept)) => self.confirms.answered(peer, &topic, &kept),
            Ok(Frame::Refused(_)) => {
                self.not_answered(key, now);
                return true;
            }
            _ => None,
        };
        match confirmed {
            Some(confirmed) => self.confirmed(confirmed),
            None => {
                log::debug!("{peer} says more of {topic} than it was asked");
                self.scheduler.ended(&peer, &topic, Outcome::Hostile, now);
                self.not_answered(key, now);
            }
        }
        if self.confirms.asks(&topic) {
            self.asks_soon = true;
            self.wake();
        } else {
            self.close_asking(key);
        }
        true
    }

    fn confirmed(&mut self, confirmed: Vec<Confirmed>) {
        self.actions.extend(confirmed.into_iter().map(|one| ToSwarm::GenerateEvent(Event::Confirmed(one))));
    }

    fn close_asking(&mut self, key: Key) {
        if let Some((peer, _)) = self.asking.remove(&key) {
            self.command(key, peer, handler::Command::Finish { stream: key.1, frame: None });
        }
    }

    /// A question of ours came to nothing.
    fn not_answered(&mut self, key: Key, now: Instant) {
        if let Some((peer, topic)) = self.asking.get(&key).cloned() {
            self.confirms.failed(peer, &topic, now);
            self.close_asking(key);
        }
    }

    /// A stream is gone; whether it was one of these.
    pub(super) fn lost_asking(&mut self, key: Key, now: Instant) -> bool {
        let was_held = self.held.remove(&key).is_some();
        let Some((peer, topic)) = self.asking.remove(&key) else { return was_held };
        self.confirms.failed(peer, &topic, now);
        self.wake();
        true
    }

    /// A connection closed.
    pub(super) fn forget_asking(&mut self, connection: libp2p::swarm::ConnectionId, now: Instant) {
        let is_gone = |key: &&Key| key.0 == connection;
        let gone: Vec<_> = self.asking.keys().chain(self.held.keys()).filter(is_gone).copied().collect();
        for key in gone {
            self.lost_asking(key, now);
        }
    }

    /// A peer asks what is kept.
    pub(super) fn asked(&mut self, key: Key, peer: PeerId, frame: &[u8], now: Instant) {
        let refuse = |refusal| {
            let frame = Some(Frame::Refused(refusal).encode(0));
            handler::Command::Finish { stream: key.1, frame }
        };
        let Ok(Frame::Ask { topic, wait, items }) = Frame::decode(frame, 0) else {
            let close = handler::Command::Finish { stream: key.1, frame: None };
            return self.command(key, peer, close);
        };
        let topic = String::from_utf8_lossy(topic).into_owned();
        let refusal = if !self.book.keeps(&topic) {
            Some(Refusal::NotKept)
        } else if !self.book.may_read(&topic, &peer) {
            Some(Refusal::NotAllowed)
        } else {
            let is_full = self.held.len() >= HELD || self.scheduler.is_wary(&peer, now);
            is_full.then_some(Refusal::Busy)
        };
        if let Some(refusal) = refusal {
            return self.command(key, peer, refuse(refusal));
        }
        let until = now + Duration::from_millis(wait).min(LONGEST);
        self.held.insert(key, Held { peer, topic, items, until });
        self.answer_held(now);
    }

    /// Answers what is kept by now, and what has waited long enough.
    pub(super) fn answer_held(&mut self, now: Instant) {
        self.looked = now;
        let mut answers = Vec::new();
        for (key, held) in &self.held {
            let is_kept = |item: &Item| match &self.durable {
                Some(durable) => durable.is_kept(&self.book, &held.topic, item),
                None => self.book.is_kept(&held.topic, item, None),
            };
            let kept: Vec<u32> =
                (0..).zip(&held.items).filter(|(_, item)| is_kept(item)).map(|(index, _)| index).collect();
            if !kept.is_empty() || held.until <= now {
                answers.push((*key, held.peer, Frame::Kept(kept).encode(0)));
            }
        }
        for (key, peer, frame) in answers {
            self.held.remove(&key);
            self.command(key, peer, handler::Command::Send { stream: key.1, frame });
        }
    }

    /// When something is due here.
    pub(super) fn confirming_deadline(&mut self, now: Instant) -> Option<Instant> {
        let look = (!self.held.is_empty()).then(|| self.looked + LOOK);
        [look, self.confirms.deadline(now)].into_iter().flatten().min()
    }

    /// Does what is due.
    pub(super) fn on_confirming_timer(&mut self, now: Instant) {
        if !self.held.is_empty() && now >= self.looked + LOOK {
            self.answer_held(now);
        }
        for (peer, topic) in self.confirms.silent(now) {
            let key = self
                .asking
                .iter()
                .find(|(_, asked)| asked.0 == peer && asked.1 == topic)
                .map(|(key, _)| *key);
            match key {
                Some(key) => self.not_answered(key, now),
                None => self.confirms.failed(peer, &topic, now),
            }
        }
        let late = self.confirms.expire(now);
        self.confirmed(late);
        if self.confirms.is_empty() {
            let open: Vec<_> = self.asking.keys().copied().collect();
            open.into_iter().for_each(|key| self.close_asking(key));
        } else {
            self.ask(now);
        }
    }
}
