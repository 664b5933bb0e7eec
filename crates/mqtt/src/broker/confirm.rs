//! Acknowledgements that wait until others have confirmed a message.
//!
//! Only where [`Broker::set_confirms`] asks for it. A client is acknowledged by the broker alone otherwise: there are some that
//! say and hear nothing until they are.

use std::time::Instant;

use super::{Broker, publish::Refusal};
use crate::codec::{Ack, Reason, fault};

/// A message whose acknowledgement waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// Who waits for what.
#[derive(Debug)]
pub(super) struct Unconfirmed {
    session: usize,
    serial: u64,
    ack: Ack,
    pid: u16,
}

/// Implementation specific error: MQTT has no code for this one.
const NOT_CONFIRMED: Refusal = (0x83, "too few nodes have confirmed that they keep it");

impl Broker {
    /// Whether messages of clients at QoS 1 and 2 are acknowledged when [`confirmed`](Self::confirmed) says so.
    pub fn set_confirms(&mut self, confirms: bool) {
        self.confirms = confirms;
    }

    /// An acknowledgement that waits for others, if it is to.
    pub(super) fn wait_for_others(&mut self, session: usize, ack: Ack, pid: u16) -> Option<Ticket> {
        if !self.confirms {
            return None;
        }
        let serial = self.sessions.get(session)?.serial;
        let ticket = Ticket(self.serial());
        self.unconfirmed.insert(ticket, Unconfirmed { session, serial, ack, pid });
        Some(ticket)
    }

    /// Whether a message at QoS 2 waits for others.
    pub(super) fn is_unconfirmed(&self, session: usize, pid: u16) -> bool {
        self.confirms
            && self.unconfirmed.values().any(|waiting| {
                (waiting.session, waiting.pid) == (session, pid) && matches!(waiting.ack, Ack::Pubrec)
            })
    }

    /// What became of a message of [`Action::Publish`](super::Action::Publish). Where it was not confirmed, its client hears that; one of
    /// MQTT 3, which has no word for it, is closed, so that it comes back and says it again.
    pub fn confirmed(&mut self, ticket: Ticket, confirmed: bool, now: Instant) {
        let Some(Unconfirmed { session, serial, ack, pid }) = self.unconfirmed.remove(&ticket) else {
            return;
        };
        self.stats.not_confirmed += u64::from(!confirmed);
        let Some(state) = self.sessions.get_mut(session).filter(|state| state.serial == serial) else {
            return;
        };
        if !confirmed && matches!(ack, Ack::Pubrec) {
            state.incoming.remove(&pid);
        }
        // It says it again over its next connection.
        let Some(connection) = state.connection else { return };
        if confirmed {
            self.ack(connection, ack, pid, None);
        } else if self.protocol(connection) == Some(mqtt_proto::Protocol::V500) {
            self.ack(connection, ack, pid, Some(NOT_CONFIRMED));
        } else {
            self.farewell(connection, fault(Reason::UnspecifiedError, NOT_CONFIRMED.1), now);
        }
    }
}
