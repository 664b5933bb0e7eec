//! What happens by itself: silent clients are closed, wills published, sessions ended, retained messages looked through.

use std::time::{Duration, Instant};

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
    /// Has a connection or session looked at then, or sooner.
    pub(super) fn arm(&mut self, now: Instant, after: Duration, timer: Timer) {
        let Some(at) = now.checked_add(after) else { return };
        let armed = match timer {
            Timer::Silence(id, _) => self.connections.get_mut(id).map(|connection| &mut connection.armed),
            Timer::Away(id, _) => self.sessions.get_mut(id).map(|session| &mut session.armed),
        };
        let Some(armed) = armed.filter(|armed| armed.is_none_or(|armed| at < armed)) else { return };
        if let Some(later) = armed.replace(at) {
            self.timers.remove(&(later, timer));
        }
        self.timers.insert((at, timer));
    }

    /// What was armed is gone.
    pub(super) fn disarm(&mut self, armed: Option<Instant>, timer: Timer) {
        if let Some(at) = armed {
            self.timers.remove(&(at, timer));
        }
    }

    /// When [`tick`](Self::tick) is to be called; a moment that has passed: now.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        if !self.scanning.is_empty() {
            return Some(now);
        }
        let timer = self.timers.first().map(|(at, _)| *at);
        let rest = [self.retained.deadline(), self.figures_at, self.roster.deadline(), self.others.beat];
        timer.into_iter().chain(rest.into_iter().flatten()).min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Silence(id, serial) => self.silence(id, serial, now),
                Timer::Away(session, serial) => self.away(session, serial, now),
            }
        }
        self.expire_retained(now);
        self.save_retained(now);
        self.save_clients(now);
        self.beat(now);
        self.say_figures(now);
        for _ in 0..SCANS {
            let Some((session, serial)) = self.scanning.pop_front() else { break };
            if self.sessions.get(session).is_some_and(|session| session.serial == serial) {
                self.pump(session, now);
            }
        }
    }

    fn silence(&mut self, id: usize, serial: u64, now: Instant) {
        let connection = self.connections.get_mut(id).filter(|connection| connection.serial == serial);
        let Some(connection) = connection else { return };
        connection.armed = None;
        let patience = connection.patience;
        let left = patience.saturating_sub(now.saturating_duration_since(connection.heard));
        match connection.stage {
            Stage::Closing => {}
            _ if patience.is_zero() => {}
            // A password that is looked at is no silence of the client's.
            Stage::Authenticating(_) => self.arm(now, patience, Timer::Silence(id, serial)),
            _ if !left.is_zero() => self.arm(now, left, Timer::Silence(id, serial)),
            // [MQTT-3.1.2-22] of MQTT 5
            _ => self.farewell(id, fault(Reason::KeepAliveTimeout, "nothing was heard for too long"), now),
        }
    }

    /// A client is away, or was: what is due of its session?
    fn away(&mut self, id: usize, serial: u64, now: Instant) {
        let session = self.sessions.get_mut(id).filter(|session| session.serial == serial);
        let Some(session) = session else { return };
        session.armed = None;
        if session.connection.is_some() {
            return;
        }
        if session.will_at.is_some_and(|at| at <= now) {
            self.publish_will(id, now);
        }
        let Some(session) = self.sessions.get(id) else { return };
        if session.ends.is_some_and(|at| at <= now) {
            return self.end(id, now);
        }
        if let Some(next) = session.will_at.into_iter().chain(session.ends).min() {
            self.arm(now, next - now, Timer::Away(id, serial));
        }
    }
}
