//! What sessions do: they begin when they are due, fill a snapshot slice by slice, go on frame by frame, and end.

use std::time::{Duration, Instant};

use libp2p::{PeerId, swarm::ToSwarm};
use ring::rand::SecureRandom;
use smidge_catchup::{
    End, Key as SnapshotKey, Output, Responder, Snapshot,
    frame::{Refusal, is_ask},
};

use super::{
    super::{
        handler::{self, StreamId},
        maps,
        scheduler::Outcome,
        session::{Key, Machine, Session, outcome},
        wall,
    },
    Behaviour, Event,
};

/// Items put into a snapshot, and signatures checked, in one turn: what is live goes in between.
const ITEMS: usize = 2048;
pub(super) const SIGNATURES: usize = 32;
/// Sessions at a time, of ours and of others.
const SESSIONS: usize = 4;
/// A session whose peer says nothing for so long keeps no other one waiting.
const STALLED: Duration = Duration::from_secs(1);
/// Sessions of one peer that are answered in a window of time.
const SERVED: u32 = 50;
const WINDOW: Duration = Duration::from_secs(10);

impl Behaviour {
    /// When a topic is free for a session: when the one about it ends, or has not moved for a while.
    pub(super) fn free(&self, topic: &str, now: Instant) -> Option<Instant> {
        if self.sessions.values().filter(|session| session.is_ours()).count() >= SESSIONS {
            return None;
        }
        let busy = self.sessions.values().filter(|session| session.topic == topic);
        Some(busy.map(|session| session.moved + STALLED).max().unwrap_or(now))
    }

    /// Begins what is due.
    pub(super) fn begin(&mut self, now: Instant) {
        while let Some((peer, topic, settled)) =
            self.scheduler.due(now, |topic| self.free(topic, now).is_some_and(|at| at <= now))
        {
            self.scheduler.began(&peer, &topic, now);
            let connection = self.peers.get(&peer).and_then(|peer| peer.connections.last());
            let Some(connection) = connection.copied() else {
                self.scheduler.gone(&peer);
                continue;
            };
            let mut salt = [0; 16];
            let record = self.limits().record;
            let span = self.book.greeting(&topic, settled, record, wall());
            let Some(span) = span.filter(|_| self.random.fill(&mut salt).is_ok()) else { continue };
            let filling = Some((Snapshot::new(SnapshotKey::new(salt)), span));
            let key = (connection, StreamId::Ours(self.next));
            self.next += 1;
            let mut session = Session::new(peer, topic, Machine::Beginning { salt }, filling, now);
            session.name = self.book.maps.name(&session.topic, self.book.times(wall()));
            self.sessions.insert(key, session);
        }
    }

    /// `theirs` is how far back the peer's copy goes, if it is one of values by key.
    fn refusal(&mut self, peer: &PeerId, topic: &str, theirs: Option<u64>, now: Instant) -> Option<Refusal> {
        if !self.book.keeps(topic) || self.book.maps.keeps(topic) != theirs.is_some() {
            return Some(Refusal::NotKept);
        }
        if !self.book.may_read(topic, peer) {
            return Some(Refusal::NotAllowed);
        }
        let theirs = self.sessions.values().filter(|session| !session.is_ours());
        let is_full = theirs.clone().count() >= SESSIONS || theirs.filter(|s| s.peer == *peer).count() >= 2;
        let is_busy = self.sessions.values().any(|s| s.topic == topic && now < s.moved + STALLED);
        let state = self.peers.entry(*peer).or_default();
        if state.since.is_none_or(|since| now >= since + WINDOW) {
            (state.since, state.served) = (Some(now), 0);
        }
        let refused = is_full || is_busy || state.served >= SERVED || self.scheduler.is_wary(peer, now);
        if !refused {
            state.served += 1;
        }
        refused.then_some(Refusal::Busy)
    }

    /// A session that a peer begins.
    fn greeted(&mut self, key: Key, peer: PeerId, frame: &[u8], now: Instant) {
        let close = handler::Command::Finish { stream: key.1, frame: None };
        let (mut responder, request) = match Responder::new(frame, self.limits(), now) {
            Ok(begun) => begun,
            Err(e) => {
                log::debug!("{peer} begins no session: {e}");
                return self.command(key, peer, close);
            }
        };
        let (theirs, topic) = maps::read_name(request.topic);
        let times = self.book.times(wall());
        let mut refusal = self.refusal(&peer, &topic, theirs, now);
        if let Some(theirs) = theirs.filter(|_| refusal.is_none())
            && self.book.maps.presence(&topic).is_some_and(|ours| ours.goes_before(theirs, times.common))
            && self.scheduler.hurry(&peer, &topic, now)
        {
            refusal = Some(Refusal::Busy);
            self.wake();
        }
        if let Some(refusal) = refusal {
            responder.refuse(refusal);
            let frame = match responder.poll(now) {
                Output::Send(frame) => Some(frame),
                _ => None,
            };
            return self.command(key, peer, handler::Command::Finish { stream: key.1, frame });
        }
        let gone = theirs.map(|theirs| self.book.maps.greeted(&topic, theirs, times)).unwrap_or_default();
        if !gone.is_empty() {
            self.actions
                .push_back(ToSwarm::GenerateEvent(Event::ThrownAway { topic: topic.clone(), keys: gone }));
        }
        let record = self.limits().record;
        let Some(span) = self.book.span(&topic, false, record, wall()) else {
            return self.command(key, peer, close);
        };
        self.scheduler.began(&peer, &topic, now);
        let filling = Some((Snapshot::new(SnapshotKey::new(request.salt)), span));
        let mut session = Session::new(peer, topic, Machine::Responder(responder), filling, now);
        (session.is_open, session.theirs) = (true, theirs);
        self.sessions.insert(key, session);
        self.wake();
    }

    pub(super) fn on_frame(&mut self, key: Key, peer: PeerId, frame: &[u8]) {
        let now = self.runtime.now();
        let Some(session) = self.sessions.get_mut(&key) else {
            return match key.1 {
                StreamId::Theirs(_) if is_ask(frame) => self.asked(key, peer, frame, now),
                StreamId::Theirs(_) => self.greeted(key, peer, frame, now),
                StreamId::Ours(_) => drop(self.on_answer(key, frame, now)),
            };
        };
        (session.moved, session.wake) = (now, None);
        let topic = session.topic.clone();
        let Some(shelf) = self.book.shelf(&topic) else { return };
        match session.receive(frame, &shelf) {
            Ok(()) if session.fetched.is_empty() => self.drive(key, now),
            Ok(()) => self.wake(),
            Err(end) => self.end(key, &end, None),
        }
    }

    /// Does what a session wants.
    pub(super) fn drive(&mut self, key: Key, now: Instant) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let topic = session.topic.clone();
        let Some(shelf) = self.book.shelf(&topic) else { return };
        match session.poll(&shelf, now) {
            None => {}
            Some(Output::Wait(at)) => session.wake = Some(at),
            Some(Output::Ended(end)) => self.end(key, &end, None),
            // Whether it is the last frame, the next poll says.
            Some(Output::Send(frame)) => match session.poll(&shelf, now) {
                Some(Output::Ended(end)) => self.end(key, &end, Some(frame)),
                next => {
                    if let Some(Output::Wait(at)) = next {
                        session.wake = Some(at);
                    }
                    let (peer, is_open) = (session.peer, std::mem::replace(&mut session.is_open, true));
                    let command = match key.1 {
                        StreamId::Ours(stream) if !is_open => handler::Command::Open { stream, frame },
                        stream => handler::Command::Send { stream, frame },
                    };
                    self.command(key, peer, command);
                }
            },
        }
        self.wake();
    }

    fn end(&mut self, key: Key, end: &End, last: Option<Vec<u8>>) {
        if let Some(session) = self.sessions.get(&key) {
            log::debug!(
                "a session with {} about {}: {end}, {:?}",
                session.peer,
                session.topic,
                session.summary()
            );
        }
        self.finish(key, last, outcome(end));
    }

    pub(super) fn finish(&mut self, key: Key, last: Option<Vec<u8>>, outcome: Outcome) {
        let Some(session) = self.sessions.remove(&key) else { return };
        let now = self.runtime.now();
        let (peer, summary) = (session.peer, session.summary());
        let is_done = matches!(outcome, Outcome::Done { .. });
        if is_done && summary.frames > 0 {
            self.book.heard(peer, summary.skew, wall());
            let now = self.book.times(wall()).common;
            if let Some(presence) = self.book.maps.presence(&session.topic) {
                presence.met(session.theirs, now);
            }
        }
        // A session of theirs that did not come to its end says nothing of when to compare with them.
        if session.is_ours() || is_done || outcome == Outcome::Hostile {
            self.scheduler.ended(&peer, &session.topic, outcome, now);
        }
        if self.sessions.is_empty() {
            self.verifier.rest();
        }
        if outcome != Outcome::Broke || last.is_some() || session.is_open {
            self.command(key, peer, handler::Command::Finish { stream: key.1, frame: last });
        }
    }

    /// Adds to a snapshot that is not whole; whether there was one.
    pub(super) fn fill(&mut self, now: Instant) -> bool {
        let limits = self.limits();
        let filling = self.sessions.iter_mut().find(|(_, session)| session.filling.is_some());
        let Some((key, session)) = filling else { return false };
        let key = *key;
        let Some((snapshot, _)) = &mut session.filling else { return false };
        if self.book.fill(&session.topic, snapshot, ITEMS) {
            session.begin(limits, now);
            self.drive(key, now);
        }
        true
    }

    /// Checks signatures of what was fetched; whether there was any.
    pub(super) fn verify(&mut self, now: Instant) -> bool {
        let fetched = self.sessions.iter_mut().find(|(_, session)| !session.fetched.is_empty());
        let Some((key, session)) = fetched else { return false };
        let (key, peer) = (*key, session.peer);
        let count = session.fetched.len().min(SIGNATURES);
        let records: Vec<_> = session.fetched.drain(..count).collect();
        let wires: Vec<_> = records.iter().map(|(_, record)| record.wire.clone()).collect();
        let holds = self.verifier.verify_batch(&wires);
        session.moved = now;
        let is_whole = session.fetched.is_empty();
        let all = holds.iter().all(|holds| *holds);
        let good = records.into_iter().zip(holds).filter(|(_, holds)| *holds);
        let records: Vec<_> = good.map(|((_, record), _)| record).collect();
        if !records.is_empty() {
            self.actions.push_back(ToSwarm::GenerateEvent(Event::Recovered { from: peer, records }));
        }
        if !all {
            log::debug!("{peer} gave what its author did not sign");
            self.finish(key, None, Outcome::Hostile);
        } else if is_whole {
            self.drive(key, now);
        }
        true
    }
}
