//! One session with a peer: the protocol's state machine, and what surrounds it here.

use std::{collections::VecDeque, time::Instant};

use libp2p::{PeerId, swarm::ConnectionId};
use smidge_catchup::{
    End, Initiator, Item, Limits, Output, Responder, Snapshot, Summary,
    frame::{Refusal, Span},
};

use super::{
    handler::StreamId,
    record::{Record, Shelves},
    scheduler::Outcome,
};

/// A session by its stream.
pub(super) type Key = (ConnectionId, StreamId);

pub(super) enum Machine {
    /// The snapshot of what we begin with is not whole.
    Beginning {
        salt: [u8; 16],
    },
    Initiator(Initiator),
    Responder(Responder),
}

pub(super) struct Session {
    pub(super) peer: PeerId,
    pub(super) topic: String,
    pub(super) machine: Machine,
    /// The snapshot that is being made, and of what.
    pub(super) filling: Option<(Snapshot, Span)>,
    /// What was fetched, and is not verified.
    pub(super) fetched: VecDeque<(Item, Record)>,
    /// When it is to be polled again.
    pub(super) wake: Option<Instant>,
    /// When the peer last said something.
    pub(super) moved: Instant,
    /// The stream is open, or being opened.
    pub(super) is_open: bool,
    /// What the topic is called in our greeting, where that is not its name.
    pub(super) name: Option<Vec<u8>>,
    /// How far back the copy goes of a peer that greeted us about values by key.
    pub(super) theirs: Option<u64>,
}

impl Session {
    pub(super) fn new(
        peer: PeerId,
        topic: String,
        machine: Machine,
        filling: Option<(Snapshot, Span)>,
        now: Instant,
    ) -> Self {
        Self {
            peer,
            topic,
            machine,
            filling,
            fetched: VecDeque::new(),
            wake: None,
            moved: now,
            is_open: false,
            name: None,
            theirs: None,
        }
    }

    pub(super) fn poll(&mut self, shelf: &Shelves<'_>, now: Instant) -> Option<Output> {
        match &mut self.machine {
            Machine::Beginning { .. } => None,
            Machine::Initiator(initiator) => Some(initiator.poll(shelf, now)),
            Machine::Responder(responder) => Some(responder.poll(now)),
        }
    }

    /// Takes a frame; what it fetched waits to be verified.
    pub(super) fn receive(&mut self, frame: &[u8], shelf: &Shelves<'_>) -> Result<(), End> {
        let fetched = match &mut self.machine {
            Machine::Beginning { .. } => return Err(End::Violation(smidge_catchup::Violation::Unexpected)),
            Machine::Initiator(initiator) => initiator.receive(frame, shelf)?,
            Machine::Responder(responder) => responder.receive(frame, shelf)?,
        };
        let read = |(item, record): (Item, &[u8])| Record::decode(record).map(|record| (item, record));
        self.fetched.extend(fetched.into_iter().filter_map(read));
        Ok(())
    }

    /// The snapshot is whole.
    pub(super) fn begin(&mut self, limits: Limits, now: Instant) {
        let Some((snapshot, span)) = self.filling.take() else { return };
        match &mut self.machine {
            Machine::Beginning { salt } => {
                let topic = self.name.as_deref().unwrap_or(self.topic.as_bytes());
                let initiator = Initiator::new(topic, *salt, span, snapshot, limits, now);
                self.machine = Machine::Initiator(initiator);
            }
            Machine::Initiator(_) => {}
            Machine::Responder(responder) => responder.welcome(span, snapshot),
        }
    }

    pub(super) fn is_ours(&self) -> bool {
        !matches!(self.machine, Machine::Responder(_))
    }

    pub(super) fn summary(&self) -> Summary {
        match &self.machine {
            Machine::Beginning { .. } => Summary::default(),
            Machine::Initiator(initiator) => initiator.summary(),
            Machine::Responder(responder) => responder.summary(),
        }
    }
}

/// What the end of a session says of the peer.
pub(super) fn outcome(end: &End) -> Outcome {
    match end {
        End::Done => Outcome::Done { more: false },
        End::Enough => Outcome::Done { more: true },
        End::Refused(Refusal::Busy) => Outcome::Busy,
        End::Refused(Refusal::NotKept | Refusal::NotAllowed) => Outcome::Refused,
        End::Silent => Outcome::Silent,
        End::Decode(_) | End::Violation(_) => Outcome::Hostile,
    }
}
