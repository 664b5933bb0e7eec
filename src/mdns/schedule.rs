//! When to query and when to respond on one segment: pure timing. Never sends, and never reads a clock.
//!
//! RFC 6762: queries back off (5.2), a query that another host just sent is suppressed (7.3), responses to a shared
//! question are spread at random (6), none is repeated within a second (6), new records are announced twice (8.3).

use std::time::{Duration, Instant};

use crate::dialer::backoff::Backoff;

/// The pause after the first query; each further one doubles it, up to `mdns.query_interval`.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Random delay of a response: every node on the link has one to give.
const SPREAD: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(120));
/// Least time between two responses.
const RESPONSE_PAUSE: Duration = Duration::from_secs(1);
/// How often new records are announced unsolicited.
const ANNOUNCEMENTS: u8 = 2;
/// A multicast packet loops back to its sender immediately. If none has after this, the segment passes none.
const NO_RECEIVE_AFTER: Duration = Duration::from_secs(5);
/// Packets of one segment that are parsed: a burst, and a rate per second. Any beyond are dropped unparsed.
const BURST: u32 = 512;
const PER_SECOND: u32 = 128;

/// A token bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    left: f64,
    burst: f64,
    per_second: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self { left: burst.into(), burst: burst.into(), per_second: per_second.into(), at: now }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.left = (self.left + passed * self.per_second).min(self.burst);
        let has = self.left >= 1.0;
        if has {
            self.left -= 1.0;
        }
        has
    }
}

/// A packet that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    Query,
    Response,
    ServiceTypes,
}

/// Whether multicast works on the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Ok,
    /// Reported as not receiving; the next packet clears it.
    NoReceive,
    /// Reported as not sending; the next packet sent clears it.
    NoSend,
}

/// A change of health that is worth a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HealthChange {
    /// Not even what this node sends is received.
    NoReceive,
    /// It works again.
    Recovered,
}

/// The timing of one segment.
#[derive(Debug)]
pub(super) struct Schedule {
    query_backoff: Backoff,
    /// Queries sent since the segment came up.
    queries: u32,
    query_at: Instant,
    respond_at: Option<Instant>,
    responded: Option<Instant>,
    announcements: u8,
    types_at: Option<Instant>,
    types_responded: Option<Instant>,
    budget: Bucket,
    /// When the first packet was sent that nothing has been received after.
    unheard: Option<Instant>,
    health: Health,
}

impl Schedule {
    pub(super) fn new(query_interval: Duration, now: Instant, rng: &mut fastrand::Rng) -> Self {
        Self {
            query_backoff: Backoff::steady(FIRST_PAUSE, query_interval),
            queries: 0,
            query_at: now + spread(rng),
            respond_at: None,
            responded: None,
            announcements: 0,
            types_at: None,
            types_responded: None,
            budget: Bucket::new(BURST, PER_SECOND, now),
            unheard: None,
            health: Health::Ok,
        }
    }

    /// Starts over: the addresses of the segment changed.
    pub(super) fn restart(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        self.queries = 0;
        self.query_at = now + spread(rng);
        self.unheard = None;
    }

    /// A packet was received: whether to parse it, and whether the health changed.
    pub(super) fn on_packet(&mut self, now: Instant) -> (bool, Option<HealthChange>) {
        self.unheard = None;
        (self.budget.take(now), self.clear(Health::NoReceive))
    }

    /// Another host queried for peers.
    pub(super) fn on_query(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        // The responses are multicast: there is no need to send the same query.
        self.query_at = self.query_at.max(now + self.query_backoff.delay(self.queries.max(1), rng));
        schedule_response(&mut self.respond_at, self.responded, now, rng);
    }

    /// Another host enumerated service types (RFC 6763, section 9).
    pub(super) fn on_types_query(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        schedule_response(&mut self.types_at, self.types_responded, now, rng);
    }

    /// The records of this node changed.
    pub(super) fn announce(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        self.announcements = ANNOUNCEMENTS;
        schedule_response(&mut self.respond_at, self.responded, now, rng);
    }

    /// Queries soon: a record learned here is about to expire.
    pub(super) fn query_soon(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        self.query_at = self.query_at.min(now + spread(rng));
    }

    /// The next packet due at `now`, if any.
    pub(super) fn poll(&mut self, now: Instant, rng: &mut fastrand::Rng) -> Option<Outgoing> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.respond_at) {
            self.responded = Some(now);
            self.announcements = self.announcements.saturating_sub(1);
            self.respond_at = (self.announcements > 0).then_some(now + RESPONSE_PAUSE);
            return Some(Outgoing::Response);
        }
        if is_due(self.types_at) {
            (self.types_at, self.types_responded) = (None, Some(now));
            return Some(Outgoing::ServiceTypes);
        }
        if self.query_at > now {
            return None;
        }
        self.queries = self.queries.saturating_add(1);
        self.query_at = now + self.query_backoff.delay(self.queries, rng);
        Some(Outgoing::Query)
    }

    /// A packet was sent, and should loop back; whether the health changed.
    pub(super) fn on_sent(&mut self, now: Instant) -> Option<HealthChange> {
        self.unheard = self.unheard.or(Some(now));
        self.clear(Health::NoSend)
    }

    /// A packet could not be sent; whether the health changed.
    pub(super) fn on_not_sent(&mut self) -> bool {
        let is_news = self.health == Health::Ok;
        self.health = Health::NoSend;
        is_news
    }

    /// Whether the segment has just been found not to receive.
    pub(super) fn check(&mut self, now: Instant) -> Option<HealthChange> {
        let receives_nothing =
            self.health == Health::Ok && self.unheard.is_some_and(|at| at + NO_RECEIVE_AFTER <= now);
        if receives_nothing {
            self.health = Health::NoReceive;
        }
        receives_nothing.then_some(HealthChange::NoReceive)
    }

    fn clear(&mut self, problem: Health) -> Option<HealthChange> {
        let had_it = self.health == problem;
        if had_it {
            self.health = Health::Ok;
        }
        had_it.then_some(HealthChange::Recovered)
    }

    /// When to call [`poll`](Self::poll) and [`check`](Self::check) next.
    pub(super) fn deadline(&self) -> Instant {
        let no_receive = self.unheard.filter(|_| self.health == Health::Ok).map(|at| at + NO_RECEIVE_AFTER);
        [self.respond_at, self.types_at, no_receive].into_iter().flatten().fold(self.query_at, Instant::min)
    }
}

fn spread(rng: &mut fastrand::Rng) -> Duration {
    SPREAD.0 + (SPREAD.1 - SPREAD.0).mul_f64(rng.f64())
}

/// Schedules a response a moment from now, and not too soon after the last one.
fn schedule_response(at: &mut Option<Instant>, last: Option<Instant>, now: Instant, rng: &mut fastrand::Rng) {
    let soon = now + spread(rng);
    let allowed = last.map_or(soon, |last| soon.max(last + RESPONSE_PAUSE));
    *at = Some(at.map_or(allowed, |at| at.min(allowed)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// What is sent from `start` until `end`, and when, on an otherwise silent segment.
    fn play(
        schedule: &mut Schedule,
        start: Instant,
        end: Duration,
        rng: &mut fastrand::Rng,
    ) -> Vec<(Duration, Outgoing)> {
        let mut sent = Vec::new();
        loop {
            let now = schedule.deadline().max(start);
            if now > start + end {
                return sent;
            }
            while let Some(packet) = schedule.poll(now, rng) {
                sent.push((now - start, packet));
            }
            assert!(sent.len() < 10_000, "it never stops");
            schedule.check(now);
        }
    }

    #[test]
    fn queries_back_off_from_half_a_second_to_the_interval() {
        let (start, mut rng) = (Instant::now(), fastrand::Rng::with_seed(1));
        let mut schedule = Schedule::new(MS(60_000), start, &mut rng);
        let sent = play(&mut schedule, start, MS(600_000), &mut rng);
        let pauses: Vec<_> = sent.windows(2).map(|w| w[1].0 - w[0].0).collect();
        assert!(sent[0].0 <= MS(120), "{sent:?}");
        for (pause, bound) in pauses.iter().zip([500, 1000, 2000, 4000, 8000, 16_000, 32_000]) {
            assert!(*pause <= MS(bound) && *pause >= MS(bound * 3 / 4), "{pauses:?}");
        }
        assert!(pauses[7..].iter().all(|p| *p <= MS(60_000) && *p >= MS(45_000)), "{pauses:?}");
    }

    #[test]
    fn however_often_it_is_queried_it_responds_once_a_second_and_sends_no_query_of_its_own() {
        let (start, mut rng) = (Instant::now(), fastrand::Rng::with_seed(2));
        let mut schedule = Schedule::new(MS(60_000), start, &mut rng);
        let (mut answers, mut questions) = (Vec::new(), 0);
        for ms in 0..10_000 {
            let now = start + MS(ms);
            schedule.on_query(now, &mut rng);
            while let Some(packet) = schedule.poll(now, &mut rng) {
                match packet {
                    Outgoing::Response => answers.push(ms),
                    Outgoing::Query => questions += 1,
                    Outgoing::ServiceTypes => unreachable!(),
                }
            }
        }
        assert!((9..=11).contains(&answers.len()), "{answers:?}");
        assert!(answers.windows(2).all(|w| w[1] - w[0] >= 1000), "{answers:?}");
        assert_eq!(questions, 0);
    }

    #[test]
    fn new_records_are_announced_twice_a_second_apart() {
        let (start, mut rng) = (Instant::now(), fastrand::Rng::with_seed(3));
        let mut schedule = Schedule::new(MS(3_600_000), start, &mut rng);
        schedule.announce(start, &mut rng);
        schedule.announce(start, &mut rng);
        let sent = play(&mut schedule, start, MS(60_000), &mut rng);
        let answers: Vec<_> =
            sent.iter().filter(|(_, packet)| *packet == Outgoing::Response).map(|(at, _)| *at).collect();
        let [first, second] = answers.as_slice() else { panic!("{answers:?}") };
        assert!(*first <= MS(120) && *second - *first == RESPONSE_PAUSE, "{answers:?}");
    }

    #[test]
    fn silence_after_a_packet_was_sent_is_reported_once_and_so_is_its_end() {
        let (start, mut rng) = (Instant::now(), fastrand::Rng::with_seed(4));
        let mut schedule = Schedule::new(MS(60_000), start, &mut rng);
        assert_eq!(schedule.check(start + MS(60_000)), None, "nothing was sent");
        schedule.on_sent(start);
        schedule.on_sent(start + MS(4000));
        assert_eq!(schedule.check(start + MS(4999)), None);
        assert_eq!(schedule.check(start + MS(5000)), Some(HealthChange::NoReceive));
        assert_eq!(schedule.check(start + MS(9000)), None);
        assert_eq!(schedule.on_sent(start + MS(9000)), None);
        assert_eq!(schedule.on_packet(start + MS(9000)), (true, Some(HealthChange::Recovered)));
        assert_eq!(schedule.on_packet(start + MS(9001)), (true, None));
        assert!(schedule.on_not_sent() && !schedule.on_not_sent());
        assert_eq!(schedule.on_packet(start + MS(9002)), (true, None), "others are heard, and do not hear");
        assert_eq!(schedule.on_sent(start + MS(9003)), Some(HealthChange::Recovered));
    }

    #[test]
    fn of_a_flood_of_packets_a_bounded_number_is_parsed() {
        let (start, mut rng) = (Instant::now(), fastrand::Rng::with_seed(5));
        let mut schedule = Schedule::new(MS(60_000), start, &mut rng);
        let read =
            (0..100_000).filter(|us| schedule.on_packet(start + Duration::from_micros(us * 100)).0).count();
        let bound = (BURST + 10 * PER_SECOND) as usize;
        assert!((bound - 2..=bound).contains(&read), "{read} of 100000 in 10 s");
    }
}
