//! When to ask and when to answer on one segment: pure timing.
//!
//! RFC 6762: questions back off (5.2), what somebody else just asked is not asked again (7.3), answers that
//! many give are spread a little (6), none is given twice within a second (6), a new one is said twice (8.3).

use std::time::{Duration, Instant};

use crate::dialer::backoff::Backoff;

/// The pause after the first question; the next ones double up to `mdns.query_interval`.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Answers to one question are given this much later, at random: many have one.
const SPREAD: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(120));
/// Nothing is answered sooner than this after it was.
const ANSWER_PAUSE: Duration = Duration::from_secs(1);
/// How often what is new about this node is said without having been asked for.
const ANNOUNCEMENTS: u8 = 2;
/// What a node sends comes back to itself at once. If nothing has after this, nothing passes.
const DEAF_AFTER: Duration = Duration::from_secs(5);
/// Packets from one segment that are read at once, and in a second from then on; more are dropped unread.
const BURST: u32 = 512;
const PER_SECOND: u32 = 128;

/// So much at once, and so much in a second from then on.
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

    /// Takes one out, if there is one.
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

/// What is to be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    Question,
    Answer,
    Types,
}

/// How a segment carries what is said there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Well,
    /// It was told that nothing comes back: what comes mends that.
    Deaf,
    /// It was told that nothing can be sent: what is sent mends that.
    Mute,
}

/// What became known about how a segment carries what is said there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing comes back.
    Deaf,
    /// It works again.
    Well,
}

/// The timing of one segment.
#[derive(Debug)]
pub(super) struct Voice {
    questions: Backoff,
    /// Questions asked since the segment was there.
    asked: u32,
    ask_at: Instant,
    answer_at: Option<Instant>,
    answered: Option<Instant>,
    announcements: u8,
    types_at: Option<Instant>,
    types_answered: Option<Instant>,
    budget: Bucket,
    /// Since when something was sent and nothing has come back.
    unheard: Option<Instant>,
    health: Health,
}

impl Voice {
    pub(super) fn new(query_interval: Duration, now: Instant, rng: &mut fastrand::Rng) -> Self {
        Self {
            questions: Backoff::steady(FIRST_PAUSE, query_interval),
            asked: 0,
            ask_at: now + spread(rng),
            answer_at: None,
            answered: None,
            announcements: 0,
            types_at: None,
            types_answered: None,
            budget: Bucket::new(BURST, PER_SECOND, now),
            unheard: None,
            health: Health::Well,
        }
    }

    /// Starts over: the segment is another one than it was.
    pub(super) fn restart(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        self.asked = 0;
        self.ask_at = now + spread(rng);
        self.unheard = None;
    }

    /// A packet came; says whether it is to be read, and whether that is news.
    pub(super) fn on_packet(&mut self, now: Instant) -> (bool, Option<Turn>) {
        self.unheard = None;
        (self.budget.take(now), self.mend(Health::Deaf))
    }

    /// Somebody asked who is there.
    pub(super) fn on_question(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        // Everybody hears the answers: there is no need to ask the same.
        self.ask_at = self.ask_at.max(now + self.questions.delay(self.asked.max(1), rng));
        schedule(&mut self.answer_at, self.answered, now, rng);
    }

    /// Somebody asked which services there are.
    pub(super) fn on_types_question(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        schedule(&mut self.types_at, self.types_answered, now, rng);
    }

    /// This node has something new to say.
    pub(super) fn announce(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        self.announcements = ANNOUNCEMENTS;
        schedule(&mut self.answer_at, self.answered, now, rng);
    }

    /// Asks soon: something known here is about to expire.
    pub(super) fn ask_soon(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        self.ask_at = self.ask_at.min(now + spread(rng));
    }

    /// What is to be said at `now`, if anything.
    pub(super) fn poll(&mut self, now: Instant, rng: &mut fastrand::Rng) -> Option<Say> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.answer_at) {
            self.answered = Some(now);
            self.announcements = self.announcements.saturating_sub(1);
            self.answer_at = (self.announcements > 0).then_some(now + ANSWER_PAUSE);
            return Some(Say::Answer);
        }
        if is_due(self.types_at) {
            (self.types_at, self.types_answered) = (None, Some(now));
            return Some(Say::Types);
        }
        if self.ask_at > now {
            return None;
        }
        self.asked = self.asked.saturating_add(1);
        self.ask_at = now + self.questions.delay(self.asked, rng);
        Some(Say::Question)
    }

    /// Something was sent, and may come back from now on; says whether it is news that it was.
    pub(super) fn on_sent(&mut self, now: Instant) -> Option<Turn> {
        self.unheard = self.unheard.or(Some(now));
        self.mend(Health::Mute)
    }

    /// Something could not be sent; says whether that is news.
    pub(super) fn on_not_sent(&mut self) -> bool {
        let is_news = self.health == Health::Well;
        self.health = Health::Mute;
        is_news
    }

    /// Whether it is news that nothing comes back.
    pub(super) fn check(&mut self, now: Instant) -> Option<Turn> {
        let is_deaf = self.health == Health::Well && self.unheard.is_some_and(|at| at + DEAF_AFTER <= now);
        if is_deaf {
            self.health = Health::Deaf;
        }
        is_deaf.then_some(Turn::Deaf)
    }

    fn mend(&mut self, illness: Health) -> Option<Turn> {
        let was_ill = self.health == illness;
        if was_ill {
            self.health = Health::Well;
        }
        was_ill.then_some(Turn::Well)
    }

    /// When there is something to do next.
    pub(super) fn deadline(&self) -> Instant {
        let deaf = self.unheard.filter(|_| self.health == Health::Well).map(|at| at + DEAF_AFTER);
        [self.answer_at, self.types_at, deaf].into_iter().flatten().fold(self.ask_at, Instant::min)
    }
}

fn spread(rng: &mut fastrand::Rng) -> Duration {
    SPREAD.0 + (SPREAD.1 - SPREAD.0).mul_f64(rng.f64())
}

/// Has something said a moment from now, and not too soon after `last`.
fn schedule(at: &mut Option<Instant>, last: Option<Instant>, now: Instant, rng: &mut fastrand::Rng) {
    let soon = now + spread(rng);
    let allowed = last.map_or(soon, |last| soon.max(last + ANSWER_PAUSE));
    *at = Some(at.map_or(allowed, |at| at.min(allowed)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// What is said from `now` until `end`, and when, if nobody else says anything.
    fn play(
        voice: &mut Voice,
        start: Instant,
        end: Duration,
        rng: &mut fastrand::Rng,
    ) -> Vec<(Duration, Say)> {
        let mut said = Vec::new();
        loop {
            let now = voice.deadline().max(start);
            if now > start + end {
                return said;
            }
            while let Some(say) = voice.poll(now, rng) {
                said.push((now - start, say));
            }
            assert!(said.len() < 10_000, "it never stops");
            voice.check(now);
        }
    }

    #[test]
    fn questions_back_off_from_half_a_second_to_the_interval() {
        let (start, mut rng) = (Instant::now(), fastrand::Rng::with_seed(1));
        let mut voice = Voice::new(MS(60_000), start, &mut rng);
        let said = play(&mut voice, start, MS(600_000), &mut rng);
        let pauses: Vec<_> = said.windows(2).map(|w| w[1].0 - w[0].0).collect();
        assert!(said[0].0 <= MS(120), "{said:?}");
        for (pause, bound) in pauses.iter().zip([500, 1000, 2000, 4000, 8000, 16_000, 32_000]) {
            assert!(*pause <= MS(bound) && *pause >= MS(bound * 3 / 4), "{pauses:?}");
        }
        assert!(pauses[7..].iter().all(|p| *p <= MS(60_000) && *p >= MS(45_000)), "{pauses:?}");
    }

    #[test]
    fn however_often_it_is_asked_it_answers_once_a_second_and_asks_no_question_of_its_own() {
        let (start, mut rng) = (Instant::now(), fastrand::Rng::with_seed(2));
        let mut voice = Voice::new(MS(60_000), start, &mut rng);
        let (mut answers, mut questions) = (Vec::new(), 0);
        for ms in 0..10_000 {
            let now = start + MS(ms);
            voice.on_question(now, &mut rng);
            while let Some(say) = voice.poll(now, &mut rng) {
                match say {
                    Say::Answer => answers.push(ms),
                    Say::Question => questions += 1,
                    Say::Types => unreachable!(),
                }
            }
        }
        assert!((9..=11).contains(&answers.len()), "{answers:?}");
        assert!(answers.windows(2).all(|w| w[1] - w[0] >= 1000), "{answers:?}");
        assert_eq!(questions, 0);
    }

    #[test]
    fn what_is_new_is_said_twice_a_second_apart() {
        let (start, mut rng) = (Instant::now(), fastrand::Rng::with_seed(3));
        let mut voice = Voice::new(MS(3_600_000), start, &mut rng);
        voice.announce(start, &mut rng);
        voice.announce(start, &mut rng);
        let said = play(&mut voice, start, MS(60_000), &mut rng);
        let answers: Vec<_> = said.iter().filter(|(_, say)| *say == Say::Answer).map(|(at, _)| *at).collect();
        let [first, second] = answers.as_slice() else { panic!("{answers:?}") };
        assert!(*first <= MS(120) && *second - *first == ANSWER_PAUSE, "{answers:?}");
    }

    #[test]
    fn silence_after_what_was_sent_is_told_once_and_so_is_its_end() {
        let (start, mut rng) = (Instant::now(), fastrand::Rng::with_seed(4));
        let mut voice = Voice::new(MS(60_000), start, &mut rng);
        assert_eq!(voice.check(start + MS(60_000)), None, "nothing was sent");
        voice.on_sent(start);
        voice.on_sent(start + MS(4000));
        assert_eq!(voice.check(start + MS(4999)), None);
        assert_eq!(voice.check(start + MS(5000)), Some(Turn::Deaf));
        assert_eq!(voice.check(start + MS(9000)), None);
        assert_eq!(voice.on_sent(start + MS(9000)), None);
        assert_eq!(voice.on_packet(start + MS(9000)), (true, Some(Turn::Well)));
        assert_eq!(voice.on_packet(start + MS(9001)), (true, None));
        assert!(voice.on_not_sent() && !voice.on_not_sent());
        assert_eq!(voice.on_packet(start + MS(9002)), (true, None), "others are heard, and do not hear");
        assert_eq!(voice.on_sent(start + MS(9003)), Some(Turn::Well));
    }

    #[test]
    fn of_a_flood_of_packets_only_so_many_are_read() {
        let (start, mut rng) = (Instant::now(), fastrand::Rng::with_seed(5));
        let mut voice = Voice::new(MS(60_000), start, &mut rng);
        let read =
            (0..100_000).filter(|us| voice.on_packet(start + Duration::from_micros(us * 100)).0).count();
        let bound = (BURST + 10 * PER_SECOND) as usize;
        assert!((bound - 2..=bound).contains(&read), "{read} of 100000 in 10 s");
    }
}
