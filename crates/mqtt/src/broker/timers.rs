//! What happens by itself: silent clients are closed, wills published, sessions ended, retained messages looked through.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use super::{Broker, Stage};
use crate::codec::{Reason, fault};

/// What a moment was set for, with the serial number of the connection or session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Silence(usize, u64),
    /// The end of a session, or its will.
    Away(usize, u64),
}

/// Sessions whose retained messages are looked through in one call.
const SCANS: usize = 16;

impl Broker {
    pub(super) fn set_timer(&mut self, now: Instant, after: Duration, timer: Timer) {
        if let Some(at) = now.checked_add(after) {
            self.timers.push(Reverse((at, timer)));
        }
    }

    /// When [`tick`](Self::tick) is to be called; a moment that has passed: now.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        if !self.scanning.is_empty() {
            return Some(now);
        }
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        timer.into_iter().chain(self.retained.deadline()).min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        while let Some(Reverse((at, timer))) =
            self.timers.peek().copied().filter(|Reverse((at, _))| *at <= now)
        {
            self.timers.pop();
            match timer {
                Timer::Silence(id, serial) => self.silence(id, serial, at, now),
                Timer::Away(session, serial) => self.away(session, serial, now),
            }
        }
        self.retained.expire(now);
        for _ in 0..SCANS {
            let Some((session, serial)) = self.scanning.pop_front() else { break };
            if self.sessions.get(session).is_some_and(|session| session.serial == serial) {
                self.pump(session, now);
            }
        }
    }

    fn silence(&mut self, id: usize, serial: u64, at: Instant, now: Instant) {
        let Some(connection) = self.connections.get(id).filter(|connection| connection.serial == serial)
        else {
            return;
        };
        let patience = connection.patience;
        let since = now.saturating_duration_since(connection.heard);
        match connection.stage {
            Stage::Closing => {}
            _ if patience.is_zero() => {}
            // A password that is looked at is no silence of the client's.
            Stage::Authenticating(_) => self.set_timer(now, patience, Timer::Silence(id, serial)),
            _ if since < patience => self.set_timer(now, patience - since, Timer::Silence(id, serial)),
            _ => {
                debug_assert!(at <= now);
                // [MQTT-3.1.2-22] of MQTT 5
                self.farewell(id, fault(Reason::KeepAliveTimeout, "nothing was heard for too long"), now);
            }
        }
    }

    /// A client is away, or was: what is due of its session?
    fn away(&mut self, id: usize, serial: u64, now: Instant) {
        let Some(session) = self.sessions.get_mut(id).filter(|session| session.serial == serial) else {
            return;
        };
        if session.connection.is_some() {
            return;
        }
        if session.will_at.is_some_and(|at| at <= now) {
            session.will_at = None;
            self.publish_will(id, now);
        }
        let ends = self.sessions.get(id).and_then(|session| session.ends);
        if ends.is_some_and(|at| at <= now) {
            self.end(id, now);
        }
    }
}
