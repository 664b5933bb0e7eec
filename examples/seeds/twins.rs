//! Rows of docs/FAULTS.md that need no kernel, with many seeds instead of one: five nodes, the same promises.
//!
//! Beside the base link's few milliseconds and up to one percent of loss, each has what its row says.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use libp2p::PeerId;
use smidge::{dns::Fault, runtime::sim::Link};

use crate::{
    invariants::{DELIVERED, MESHED, WHOLE},
    world::{self, NAME, Nodes, Notes, SECOND, Setup, TOPICS},
};

/// All of them, by the names of `--twin`.
pub(crate) const TWINS: [&str; 15] = [
    "partition",
    "one-way",
    "deaf",
    "silent",
    "restart",
    "new-key",
    "moved",
    "late-names",
    "lying-names",
    "loss",
    "delay",
    "twice",
    "small-packets",
    "mixed",
    "clock",
];
pub(crate) const NODES: usize = 5;
/// Connected again within this, as docs/FAULTS.md has it.
const AGAIN: Duration = Duration::from_secs(35);
/// A dead connection is noticed within this, and within the second where one direction still works.
const NOTICED: Duration = Duration::from_secs(9);
const NOTICED_HALF: Duration = Duration::from_secs(18);

pub(crate) fn run(name: &str, seed: u64) -> Notes {
    world::run(Setup::new(seed, NODES), async |nodes| nodes.twin(name).await)
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Nodes {
    async fn twin(&mut self, name: &str) {
        self.begin().await;
        let from = self.notes().said.len();
        let all: BTreeSet<usize> = (0..NODES).collect();
        let but = |gone: &[usize]| all.iter().copied().filter(|n| !gone.contains(n)).collect::<BTreeSet<_>>();
        let steady = match name {
            "partition" => self.partition().await,
            "one-way" => {
                let [a, b] = [0, 1].map(|n: usize| self.members[n].ip.clone());
                self.world.set_deaf(&a, &b, true);
                self.notice(&[0], &[1], NOTICED_HALF).await;
                self.talk(7 * SECOND).await;
                self.world.set_deaf(&a, &b, false);
                all.clone()
            }
            "deaf" => {
                let ips: Vec<String> = self.members.iter().map(|member| member.ip.clone()).collect();
                ips[1..].iter().for_each(|ip| self.world.set_deaf(ip, &ips[0], true));
                self.talk(20 * SECOND).await;
                ips[1..].iter().for_each(|ip| self.world.set_deaf(ip, &ips[0], false));
                but(&[0])
            }
            "silent" => {
                self.world.set_partitioned(&self.members[0].ip, true);
                self.notice(&[1, 2, 3, 4], &[0], NOTICED).await;
                self.talk(11 * SECOND).await;
                self.world.set_partitioned(&self.members[0].ip, false);
                but(&[0])
            }
            "restart" => {
                for number in [0, 1] {
                    self.crash(number);
                    self.start(number, false).await;
                }
                self.whole(AGAIN).await;
                self.talk(5 * SECOND).await;
                for number in [2, 3] {
                    self.stop(number).await;
                    self.start(number, false).await;
                }
                but(&[0, 1, 2, 3])
            }
            "new-key" => {
                self.crash(0);
                self.talk(3 * SECOND).await;
                self.start(0, true).await;
                but(&[0])
            }
            "moved" => {
                self.crash(0);
                self.tell_names();
                self.talk(SECOND).await;
                self.move_to(0, "10.0.100.1".into());
                self.start(0, false).await;
                self.tell_names();
                but(&[0])
            }
            "late-names" => {
                for delay in [1500, 5000] {
                    self.names.set_fault(Some(Fault::Delay(millis(delay))));
                    self.talk(10 * SECOND).await;
                }
                self.names.set_fault(None);
                all.clone()
            }
            "lying-names" => {
                let faults = [Fault::WrongId, Fault::Garbage, Fault::ServFail, Fault::Refused, Fault::Silent];
                for fault in faults {
                    self.names.set_fault(Some(fault));
                    self.talk(7 * SECOND).await;
                }
                self.names.set_fault(None);
                let nobody: Vec<IpAddr> = (1..6).map(|n| IpAddr::from([10, 0, 200, n])).collect();
                self.names.remove(NAME).expect("a name");
                self.talk(7 * SECOND).await;
                for lie in [nobody, Vec::new()] {
                    self.lie(&lie);
                    self.talk(7 * SECOND).await;
                }
                self.tell_names();
                all.clone()
            }
            "loss" => {
                let loss = self.rng.f64() * 0.1;
                self.over(Link { loss, ..Link::default() }).await
            }
            "delay" => self.over(Link { latency: millis(150), jitter: millis(100), ..Link::default() }).await,
            "twice" => self.over(Link { duplicate: 0.3, ..Link::default() }).await,
            "small-packets" => self.over(Link { mtu: 1280, ..Link::default() }).await,
            "mixed" => {
                let link = Link { latency: millis(40), jitter: millis(80), loss: 0.03, ..Link::default() };
                self.over(Link { duplicate: 0.05, mtu: 1280, ..link }).await
            }
            "clock" => {
                let year = 365 * 24 * 3_600_000_i64;
                for years in [10, -30, -46, 0] {
                    self.members[0].host.set_wall_skew(years * year);
                    self.crash(1);
                    self.start(1, true).await;
                    self.whole(AGAIN).await;
                    for _ in 0..10 {
                        // Not on the kept topic: what comes from ten years ahead is not kept.
                        self.say(0, 0);
                        self.say(2, 0);
                        self.pause(SECOND / 2).await;
                    }
                }
                but(&[1])
            }
            other => return self.break_with(format!("there is no twin {other:?}")),
        };
        self.whole(AGAIN).await;
        // Of the kept topic, what the others said meanwhile.
        self.caught_up(WHOLE).await;
        self.meshed(MESHED).await;
        self.pause(DELIVERED).await;
        self.check_steady(&steady, from);
        self.all_hear_all().await;
        self.check_notes();
        self.check_bounds().await;
    }

    /// Somebody says something twice a second, on each topic.
    async fn talk(&mut self, time: Duration) {
        let until = self.world.elapsed() + time;
        while self.world.elapsed() < until {
            for topic in 0..TOPICS.len() {
                let number = self.rng.usize(..NODES);
                self.say(number, topic);
            }
            self.pause(SECOND / 2).await;
        }
    }

    /// Everything over a link like this, for half a minute: nobody is disconnected, nothing is lost.
    async fn over(&mut self, link: Link) -> BTreeSet<usize> {
        self.world.set_link(link);
        self.talk(30 * SECOND).await;
        (0..NODES).collect()
    }

    /// Waits, talking, until none of `here` is connected with any of `there`.
    async fn notice(&mut self, here: &[usize], there: &[usize], within: Duration) {
        let ids: Vec<PeerId> =
            (there.iter()).filter_map(|n| Some(self.members[*n].client.as_ref()?.peer_id())).collect();
        let start = self.world.elapsed();
        loop {
            let mut connected = 0;
            for number in here {
                let Some(client) = self.members[*number].client.clone() else { continue };
                let peers = client.peers().await.unwrap_or_default();
                connected += peers.iter().filter(|status| ids.contains(&status.peer)).count();
            }
            if connected == 0 {
                return;
            }
            if self.world.elapsed() - start > within {
                return self.break_with(format!(
                    "{connected} connections are not noticed to be dead after {within:?}"
                ));
            }
            self.talk(SECOND / 2).await;
        }
    }

    /// Three and two cannot hear each other for half a minute.
    async fn partition(&mut self) -> BTreeSet<usize> {
        let ips: Vec<String> = self.members.iter().map(|member| member.ip.clone()).collect();
        let from = self.notes().said.len();
        ips[3..].iter().for_each(|ip| self.world.set_side(ip, 1));
        self.notice(&[0, 1, 2], &[3, 4], NOTICED + SECOND).await;
        self.talk(20 * SECOND).await;
        self.pause(DELIVERED).await;
        for side in [BTreeSet::from([0, 1, 2]), BTreeSet::from([3, 4])] {
            self.check_steady(&side, from);
        }
        ips[3..].iter().for_each(|ip| self.world.set_side(ip, 0));
        // What was said on the other side is missing for good, but for what is kept.
        BTreeSet::from([0, 1, 2])
    }
}
