//! What nodes do in their turns: they take frames in, carry out what their cores want done, and send what waits.

use std::{fmt::Write as _, rc::Rc, time::Duration};

use libp2p::PeerId;
use smidge_gossip::{
    Event,
    parts::{Action, Frame, Framer, Rpc, decode},
};

use super::{Conduct, Fault, What, World};

impl World {
    pub(super) fn receive(&mut self, number: usize, from: usize, id: &PeerId, mut bytes: &[u8]) {
        let now = self.start + self.now;
        let conduct = self.nodes.get(&number).map(|node| node.conduct);
        let censored = match conduct {
            Some(Conduct::Censor(author)) => self.nodes.get(&author).map(|node| node.peer.to_bytes()),
            _ => None,
        };
        let Some(node) = self.nodes.get_mut(&number) else { return };
        let Some(end) = node.links.get_mut(&from) else { return };
        loop {
            let mut rpc: Rpc = match end.framer.next(&mut bytes) {
                Ok(Some(Frame::Rpc(frame))) => match decode(&frame, &node.framer_limits) {
                    Ok(rpc) => rpc,
                    Err(e) => return self.broken.push(format!("{number} cannot read {from}'s RPC: {e}")),
                },
                Ok(Some(other)) => {
                    return self.broken.push(format!("{number} skipped a frame of {from}: {other:?}"));
                }
                Ok(None) => return,
                Err(e) => return self.broken.push(format!("{number} cannot frame what {from} sends: {e}")),
            };
            match node.conduct {
                Conduct::Honest => self.copies += rpc.publish.len() as u64,
                Conduct::Silent => rpc.publish.clear(),
                Conduct::Censor(_) => rpc.publish.retain(|m| m.from() != censored.as_deref()),
            }
            node.core.received(id, rpc, now);
        }
    }

    /// Carries out what the core of a node wants done, checks its signatures (all of which hold), and plans its tick.
    pub(super) fn turn(&mut self, number: usize) {
        let now = self.start + self.now;
        loop {
            let Some(node) = self.nodes.get_mut(&number) else { return };
            if let Some(batch) = node.core.unverified(64) {
                let holds = vec![true; batch.messages.len()];
                node.core.verified(batch.ticket, &holds, now);
                continue;
            }
            let Some(action) = node.core.next_action() else { break };
            self.act(number, action);
        }
        let Some(node) = self.nodes.get_mut(&number) else { return };
        let due = node.core.next_deadline().saturating_duration_since(self.start).max(self.now);
        if due < node.tick {
            node.tick = due;
            self.schedule(due, What::Tick(number));
        }
    }

    fn act(&mut self, number: usize, action: Action) {
        match action {
            Action::Carry { peer, connection } => {
                let Some(other) = self.numbers.get(&peer).copied() else { return };
                let at = self.now + self.latency(number, other) * 2;
                self.schedule(at, What::Opened { node: number, peer: other, connection });
            }
            Action::Start { peer, .. } => {
                let Some(other) = self.numbers.get(&peer).copied() else { return };
                if let Some(end) = self.nodes.get_mut(&number).and_then(|n| n.links.get_mut(&other)) {
                    end.open = true;
                }
                self.flush(number, other);
            }
            Action::Flush { peer } => {
                let Some(other) = self.numbers.get(&peer).copied() else { return };
                if self.setup.fault == Some(Fault::LostWakeUp) && self.rng.u32(..100) == 0 {
                    // Nobody is woken until somebody else is: and then never again on this link.
                    if let Some(end) = self.nodes.get_mut(&number).and_then(|n| n.links.get_mut(&other)) {
                        end.open = false;
                    }
                    return;
                }
                self.flush(number, other);
            }
            Action::Release { peer, .. } => {
                let Some(other) = self.numbers.get(&peer).copied() else { return };
                if let Some(end) = self.nodes.get_mut(&number).and_then(|n| n.links.get_mut(&other)) {
                    end.open = false;
                }
            }
            Action::Report(event) => self.note(number, event),
            Action::KeepAlive { .. } | Action::Connect { .. } => {}
        }
    }

    fn note(&mut self, number: usize, event: Event) {
        if self.setup.log {
            let at = self.now.as_micros();
            let _ = match &event {
                Event::Message { message, .. } => {
                    writeln!(self.log, "{at} {number} message {:?}", message.data.get(..8))
                }
                Event::Joined { peer, .. } => {
                    writeln!(self.log, "{at} {number} joined {}", self.numbers[peer])
                }
                Event::Left { peer, .. } => writeln!(self.log, "{at} {number} left {}", self.numbers[peer]),
                _ => Ok(()),
            };
        }
        let Event::Message { message, .. } = event else { return };
        let Some(bytes) = message.data.get(..8).and_then(|b| b.try_into().ok()) else { return };
        let mut times = 1;
        if self.setup.fault == Some(Fault::DeliveredTwice) && self.rng.u32(..1000) == 0 {
            times = 2;
        }
        let Some(life) = self.nodes.get(&number).map(|node| node.life) else { return };
        for _ in 0..times {
            let message = u64::from_le_bytes(bytes);
            let now = self.now;
            let Some(published) = self.published.get_mut(&message) else {
                self.broken.push(format!("{number} delivered message {message}, which nobody published"));
                continue;
            };
            published.delivered.entry(number).or_insert(now);
            if !published.lives.insert(life) {
                self.broken.push(format!("{number} delivered message {message} twice"));
            }
        }
    }

    /// Sends what waits in the outbox of `number` for `other`.
    fn flush(&mut self, number: usize, other: usize) {
        let latency = self.latency(number, other);
        let Some(peer) = self.nodes.get(&other).map(|n| n.peer) else { return };
        let Some(node) = self.nodes.get_mut(&number) else { return };
        let Some(end) = node.links.get_mut(&other).filter(|end| end.open) else { return };
        let Some(outbox) = node.core.outbox(&peer) else { return };
        outbox.wake();
        self.scratch.clear();
        let mut arrival = self.now + latency;
        if self.setup.loss > 0.0 && self.rng.f64() < self.setup.loss {
            arrival += latency * 3 + Duration::from_millis(25);
        }
        loop {
            let before = self.scratch.len();
            if !outbox.next_frame(&mut self.scratch) {
                break;
            }
            if self.setup.fault == Some(Fault::ForgottenPrune) && self.rng.u32(..4) == 0 {
                let mut framer = Framer::new(node.framer_limits.frame);
                let mut frame = &self.scratch[before..];
                if let Ok(Some(Frame::Rpc(frame))) = framer.next(&mut frame)
                    && decode(&frame, &node.framer_limits).is_ok_and(|rpc| !rpc.control.prune.is_empty())
                {
                    self.scratch.truncate(before);
                }
            }
        }
        if self.scratch.is_empty() {
            return;
        }
        arrival = arrival.max(end.last);
        end.last = arrival;
        let bytes = Rc::from(self.scratch.as_slice());
        let connection = end.connection;
        self.schedule(arrival, What::Bytes { node: other, from: number, connection, bytes });
    }
}
