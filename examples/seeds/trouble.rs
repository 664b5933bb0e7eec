//! Random trouble from a seed, and what must hold while it lasts and after it.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use smidge::{dns::Fault, runtime::sim::Link};

use crate::{
    invariants::{CAUGHT_UP, DELIVERED, MESHED, WHOLE},
    world::{self, Nodes, Notes, SECOND, Setup, TOPICS},
};

/// Things that happen, beside what is said.
const STEPS: usize = 60;

/// How far clocks are wrong, in milliseconds, at most: messages whose time is two hours ahead of a node's clock are not kept
/// there (docs/CATCHUP.md), and nothing is promised of them.
const CLOCKS: i64 = 50 * 60 * 1000;

/// What is wrong, and when it ends.
struct Wrong {
    until: Duration,
    what: What,
}

enum What {
    Down {
        number: usize,
        new_key: bool,
    },
    /// Addresses: nodes may move meanwhile.
    Divided(Vec<String>),
    Deaf(String, String),
    BadLink(String),
    Names,
    /// The name server does not know what changed.
    Stale,
}

/// How long healing took, in simulated time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Healed {
    pub(crate) whole: Duration,
    pub(crate) meshed: Duration,
    pub(crate) caught_up: Duration,
}

/// Trouble among nodes, from the beginning to the end.
pub(crate) fn trouble(setup: Setup) -> (Notes, Healed) {
    let mut healed = Healed::default();
    let notes = world::run(setup, async |nodes| healed = nodes.live().await);
    (notes, healed)
}

impl Nodes {
    /// Starts all nodes, and waits until they are one.
    pub(crate) async fn begin(&mut self) {
        for number in 0..self.members.len() {
            let pause = Duration::from_millis(self.rng.u64(..100));
            self.pause(pause).await;
            self.start(number, false).await;
            self.tell_names();
        }
        self.whole(WHOLE).await;
        self.meshed(MESHED).await;
    }

    /// What must hold when all that was wrong has ended.
    pub(crate) async fn end(&mut self) -> Healed {
        let whole = self.whole(WHOLE).await;
        let meshed = self.meshed(MESHED).await;
        let caught_up = self.caught_up(CAUGHT_UP).await;
        self.all_hear_all().await;
        self.caught_up(DELIVERED).await;
        self.check_notes();
        self.check_records().await;
        self.check_bounds().await;
        Healed { whole, meshed, caught_up }
    }

    async fn live(&mut self) -> Healed {
        self.begin().await;
        if !self.notes().broken.is_empty() {
            return Healed::default();
        }
        let nodes = self.members.len();
        let mut all: Vec<usize> = (0..nodes).collect();
        self.rng.shuffle(&mut all);
        let steady: BTreeSet<usize> = all.into_iter().take(nodes.div_ceil(3)).collect();
        let from = self.notes().said.len();
        let mut wrong = Vec::new();
        for _ in 0..STEPS {
            self.step(&steady, &mut wrong).await;
            let until = self.world.elapsed() + Duration::from_millis(self.rng.u64(100..1500));
            while self.world.elapsed() < until {
                self.mend(&mut wrong, false).await;
                self.pause(SECOND / 4).await;
            }
        }
        self.mend(&mut wrong, true).await;
        if self.setup.wild_clocks {
            // Of a clock that stays wrong by weeks nothing is promised.
            self.members.iter().for_each(|member| member.host.set_wall_skew(0));
        }
        log::info!(target: "seeds", "nothing is wrong any more");
        let healed = self.end().await;
        self.check_steady(&steady, from);
        for number in self.up().into_iter().take(2) {
            self.stop(number).await;
        }
        healed
    }

    async fn step(&mut self, steady: &BTreeSet<usize>, wrong: &mut Vec<Wrong>) {
        let nodes = self.members.len();
        let now = self.world.elapsed();
        let mut until =
            |least: u64, most: u64| now + Duration::from_millis(self.rng.u64(least * 1000..most * 1000));
        let until = [until(0, 12), until(5, 30), until(3, 20)];
        let number = self.rng.usize(..nodes);
        let is_steady = steady.contains(&number);
        match self.rng.u8(..22) {
            0 | 1 if !is_steady && self.members[number].client.is_some() => {
                if self.rng.u8(..3) == 0 {
                    self.stop(number).await;
                } else {
                    self.crash(number);
                }
                if self.rng.u8(..4) == 0 {
                    let ip = format!("10.0.100.{}", self.rng.u8(1..250));
                    if self.members.iter().all(|member| member.ip != ip) {
                        self.move_to(number, ip);
                    }
                }
                let new_key = self.rng.bool();
                wrong.push(Wrong { until: until[0], what: What::Down { number, new_key } });
                self.news(wrong);
            }
            2 if !wrong.iter().any(|w| matches!(w.what, What::Divided(_))) => {
                let share = self.rng.usize(1..=nodes);
                let others = (0..nodes).filter(|n| !steady.contains(n)).take(share);
                let side: Vec<String> = others.map(|n| self.members[n].ip.clone()).collect();
                log::info!(target: "seeds", "{side:?} are cut off");
                side.iter().for_each(|ip| self.world.set_side(ip, 1));
                wrong.push(Wrong { until: until[1], what: What::Divided(side) });
            }
            3 if !is_steady => {
                let other = self.rng.usize(..nodes);
                if !steady.contains(&other) && other != number {
                    log::info!(target: "seeds", "{other} does not hear {number} any more");
                    let [from, to] = [number, other].map(|n| self.members[n].ip.clone());
                    self.world.set_deaf(&from, &to, true);
                    wrong.push(Wrong { until: until[2], what: What::Deaf(from, to) });
                }
            }
            4 if !is_steady => {
                let millis = Duration::from_millis;
                let link = Link {
                    latency: millis(self.rng.u64(..600)),
                    jitter: millis(self.rng.u64(..300)),
                    loss: self.rng.f64() * 0.3,
                    mtu: self.rng.choice([1280, 1472]).unwrap_or(1280),
                    ..Link::default()
                };
                log::info!(target: "seeds", "{number}'s link is bad: {link:?}");
                let ip = self.members[number].ip.clone();
                self.world.set_link_of(&ip, Some(link));
                wrong.push(Wrong { until: until[2], what: What::BadLink(ip) });
            }
            5 => {
                let delay = Fault::Delay(Duration::from_millis(self.rng.u64(100..6000)));
                let faults = [
                    Fault::ServFail,
                    Fault::Refused,
                    Fault::Silent,
                    Fault::Garbage,
                    Fault::WrongId,
                    delay,
                    delay,
                ];
                let fault = self.rng.choice(faults);
                log::info!(target: "seeds", "the name server fails: {fault:?}");
                self.names.set_fault(fault);
                wrong.push(Wrong { until: until[1], what: What::Names });
            }
            6 => {
                // Nobody, or somebody who is not there, or some of those who are.
                let lie: Vec<IpAddr> = match self.rng.u8(..3) {
                    0 => Vec::new(),
                    1 => (1..10).map(|n| IpAddr::from([10, 0, 200, n])).collect(),
                    _ => self.members.iter().step_by(3).filter_map(|member| member.ip.parse().ok()).collect(),
                };
                log::info!(target: "seeds", "the name server lies: {lie:?}");
                self.lie(&lie);
                wrong.push(Wrong { until: until[1], what: What::Stale });
            }
            7 => {
                log::info!(target: "seeds", "the name server hears nothing new");
                wrong.push(Wrong { until: until[1], what: What::Stale });
            }
            8 => {
                let reach = self.rng.choice([5_i64, 600, 3 * 3600, 15 * 24 * 3600]).unwrap_or(5) * 1000;
                let most = if self.setup.wild_clocks { i64::MAX } else { CLOCKS };
                let skew = self.rng.i64(-reach..reach).clamp(-most, most);
                log::info!(target: "seeds", "{number}'s clock jumps to {skew} ms from the right time");
                self.members[number].host.set_wall_skew(skew);
            }
            9 => self.put(number),
            _ => {
                let topic = self.rng.usize(..TOPICS.len());
                self.say(number, topic);
            }
        }
    }

    /// The name server learns what changed, unless it does not.
    fn news(&self, wrong: &[Wrong]) {
        if !wrong.iter().any(|wrong| matches!(wrong.what, What::Stale)) {
            self.tell_names();
        }
    }

    /// Ends what is wrong and has been for long enough, or all of it.
    async fn mend(&mut self, wrong: &mut Vec<Wrong>, all: bool) {
        let now = self.world.elapsed();
        let (done, rest) = std::mem::take(wrong).into_iter().partition(|wrong| all || wrong.until <= now);
        *wrong = rest;
        for Wrong { what, .. } in done {
            match what {
                What::Down { number, new_key } => {
                    self.start(number, new_key).await;
                    self.news(wrong);
                }
                What::Divided(side) => {
                    log::info!(target: "seeds", "{side:?} are back");
                    side.iter().for_each(|ip| self.world.set_side(ip, 0));
                }
                What::Deaf(from, to) => {
                    log::info!(target: "seeds", "{to} hears {from} again");
                    self.world.set_deaf(&from, &to, false);
                }
                What::BadLink(ip) => {
                    log::info!(target: "seeds", "{ip}'s link is good again");
                    self.world.set_link_of(&ip, None);
                }
                What::Names => {
                    log::info!(target: "seeds", "the name server works");
                    self.names.set_fault(None);
                }
                What::Stale => self.news(wrong),
            }
        }
    }
}
