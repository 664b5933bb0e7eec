//! What has to hold whatever happened.

use std::{collections::BTreeSet, time::Duration};

use libp2p::PeerId;
use smidge::{Client, Error};

use crate::world::{Nodes, SECOND, Said, TOPICS};

/// After the last fault all nodes are connected with each other again within this: the longest pause between two dials
/// (`dial.retry_max`, 30 s), a handshake that fails (5 s), and the time until a dead connection is noticed (9 s).
pub(crate) const WHOLE: Duration = Duration::from_secs(50);
/// Meshes are within their bounds again within this: a peer that was pruned comes back after a minute.
pub(crate) const MESHED: Duration = Duration::from_secs(75);
/// A message is everywhere within this where nothing is wrong.
pub(crate) const DELIVERED: Duration = Duration::from_secs(10);
/// What was missed has come within this: two nodes compare what they remember every 30 s, and as soon as they meet.
pub(crate) const CAUGHT_UP: Duration = Duration::from_secs(75);
/// A node answers within this.
const ANSWERED: Duration = Duration::from_secs(2);

impl Nodes {
    /// Asks a node something, which it has to answer soon.
    async fn ask<T>(&self, number: usize, what: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Option<T> {
        let client = self.members[number].client.clone()?;
        match self.rt.timeout(ANSWERED, what(&client)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(e)) => {
                self.break_with(format!("{number} cannot answer: {e}"));
                None
            }
            Err(_) => {
                self.break_with(format!("{number} has not answered for {ANSWERED:?}"));
                None
            }
        }
    }

    /// Who is connected with whom that should not be, and who is not.
    async fn apart(&self) -> Vec<String> {
        let up = self.up();
        let mut found = Vec::new();
        let all: BTreeSet<PeerId> =
            self.members.iter().filter_map(|member| Some(member.client.as_ref()?.peer_id())).collect();
        for number in up {
            let Some(peers) = self.ask(number, async |client| client.peers().await).await else { continue };
            let Some(own) = self.members[number].client.as_ref().map(Client::peer_id) else { continue };
            let peers: BTreeSet<PeerId> = peers.iter().map(|status| status.peer).collect();
            let missing = all.iter().filter(|peer| **peer != own && !peers.contains(peer)).count();
            let ghosts = peers.iter().filter(|peer| !all.contains(peer)).count();
            if missing + ghosts > 0 {
                found.push(format!(
                    "{number} lacks {missing} of {} peers, and has {ghosts} ghosts",
                    all.len() - 1
                ));
            }
        }
        found
    }

    /// Waits until every node is connected with every other one, and with nobody else; how long that took.
    pub(crate) async fn whole(&self, within: Duration) -> Duration {
        let start = self.world.elapsed();
        loop {
            let apart = self.apart().await;
            let took = self.world.elapsed() - start;
            if apart.is_empty() {
                return took;
            }
            if took >= within {
                self.break_with(format!(
                    "not whole after {within:?}: {}",
                    apart[..apart.len().min(3)].join("; ")
                ));
                return took;
            }
            self.pause(SECOND / 2).await;
        }
    }

    async fn unmeshed(&self) -> Vec<String> {
        let mut meshes = Vec::new();
        for number in self.up() {
            let Some(mesh) = self.ask(number, async |client| client.mesh().await).await else { continue };
            let Some(own) = self.members[number].client.as_ref().map(Client::peer_id) else { continue };
            meshes.push((number, own, mesh));
        }
        let (least, most) = (4.min(meshes.len().saturating_sub(1)), 12);
        let mut found = Vec::new();
        for topic in TOPICS {
            for (number, own, mesh) in &meshes {
                let mesh = mesh.get(topic).map(Vec::as_slice).unwrap_or_default();
                if !(least..=most).contains(&mesh.len()) {
                    found.push(format!("{number} has {} in the mesh of {topic}", mesh.len()));
                }
                for peer in mesh {
                    let there = meshes.iter().find(|(_, id, _)| id == peer);
                    match there.map(|(_, _, mesh)| mesh.get(topic).is_some_and(|mesh| mesh.contains(own))) {
                        Some(true) => {}
                        Some(false) => {
                            found.push(format!("{number} has one in the mesh of {topic} that has not it"));
                        }
                        None => found.push(format!("{number} has one in the mesh of {topic} that is gone")),
                    }
                }
            }
        }
        found
    }

    /// Waits until all meshes are within their bounds and seen alike from both ends; how long that took.
    pub(crate) async fn meshed(&self, within: Duration) -> Duration {
        let start = self.world.elapsed();
        loop {
            let unmeshed = self.unmeshed().await;
            let took = self.world.elapsed() - start;
            if unmeshed.is_empty() {
                return took;
            }
            if took >= within {
                let some = unmeshed[..unmeshed.len().min(3)].join("; ");
                self.break_with(format!("meshes have not healed after {within:?}: {some}"));
                return took;
            }
            self.pause(SECOND / 2).await;
        }
    }

    /// Whether `said` has come to a node, in the life that it is in. Its own words a node has whether it heard them or not.
    fn has(&self, id: u64, said: &Said, number: usize) -> bool {
        let life = self.members[number].life;
        // Of a life before this one, what a node said itself is not news to it.
        said.node == number
            || self.notes().heard.get(&id).is_some_and(|heard| heard.contains_key(&(number, life)))
    }

    /// Everybody says something on each topic, and everybody hears it.
    pub(crate) async fn all_hear_all(&mut self) {
        let from = self.notes().said.len();
        for number in self.up() {
            for topic in 0..TOPICS.len() {
                self.say(number, topic);
            }
        }
        self.pause(DELIVERED).await;
        let said: Vec<_> = self.notes().said[from..].to_vec();
        for (n, said) in said.iter().enumerate() {
            let id = (from + n) as u64;
            match &said.receipt {
                Some(Ok(receipt)) if receipt.peers > 0 => {}
                other => {
                    self.break_with(format!("{} could not publish when all was well: {other:?}", said.node));
                }
            }
            let missing: Vec<_> = self.up().into_iter().filter(|to| !self.has(id, said, *to)).collect();
            if !missing.is_empty() {
                let (topic, by) = (TOPICS[said.topic], said.node);
                self.break_with(format!(
                    "message {id} of {by} on {topic}, when all was well, is not at {missing:?}"
                ));
            }
        }
    }

    /// Between nodes that no fault touches nothing is lost, whatever happens to the others.
    pub(crate) fn check_steady(&self, steady: &BTreeSet<usize>, from: usize) {
        let said: Vec<_> = self.notes().said.iter().cloned().enumerate().skip(from).collect();
        for (id, said) in said.iter().filter(|(_, said)| steady.contains(&said.node)) {
            if said.at + DELIVERED > self.world.elapsed() {
                continue;
            }
            match &said.receipt {
                Some(Ok(receipt)) if receipt.peers > 0 => {}
                other => {
                    self.break_with(format!("{} is steady, and could not publish: {other:?}", said.node));
                }
            }
            let missing: Vec<_> = steady.iter().filter(|to| !self.has(*id as u64, said, **to)).collect();
            if !missing.is_empty() {
                let (topic, by) = (TOPICS[said.topic], said.node);
                self.break_with(format!(
                    "message {id} of {by} on {topic} is not at {missing:?}, all of them steady"
                ));
            }
        }
    }

    /// Of a kept topic, what one node has that lives all have: what was said in a life that goes on, or was heard in one.
    async fn behind(&self) -> Vec<String> {
        let lives: BTreeSet<(usize, u64)> =
            self.up().into_iter().map(|number| (number, self.members[number].life)).collect();
        let said: Vec<_> =
            self.notes().said.iter().cloned().enumerate().filter(|(_, s)| s.topic == 1).collect();
        let mut found = Vec::new();
        for (id, said) in &said {
            let id = *id as u64;
            let kept = matches!(&said.receipt, Some(Ok(_))) && lives.contains(&(said.node, said.life));
            let heard = self
                .notes()
                .heard
                .get(&id)
                .is_some_and(|heard| heard.keys().any(|life| lives.contains(life)));
            if !(kept || heard) {
                continue;
            }
            let missing: Vec<_> = self.up().into_iter().filter(|to| !self.has(id, said, *to)).collect();
            if !missing.is_empty() {
                found.push(format!(
                    "message {id} of {} said at {:?} is not at {missing:?}",
                    said.node, said.at
                ));
            }
        }
        found
    }

    /// Waits until of the kept topic everybody has everything; how long that took.
    pub(crate) async fn caught_up(&self, within: Duration) -> Duration {
        let start = self.world.elapsed();
        loop {
            let behind = self.behind().await;
            let took = self.world.elapsed() - start;
            if behind.is_empty() {
                return took;
            }
            if took >= within {
                let some = behind[..behind.len().min(3)].join("; ");
                self.break_with(format!(
                    "{} kept messages are missing after {within:?}: {some}",
                    behind.len()
                ));
                return took;
            }
            self.pause(SECOND / 2).await;
        }
    }

    /// Nothing came twice to one life, and no receipt says more than can be true.
    pub(crate) fn check_notes(&self) {
        let mut found = Vec::new();
        {
            let notes = self.notes();
            for (id, heard) in &notes.heard {
                for ((number, _), (_, times)) in heard.iter().filter(|(_, (_, times))| *times > 1) {
                    found.push(format!("message {id} came {times} times to {number}"));
                }
            }
            for (id, said) in notes.said.iter().enumerate() {
                if let Some(Ok(receipt)) = &said.receipt
                    && receipt.peers > said.others
                {
                    let (by, peers, others) = (said.node, receipt.peers, said.others);
                    found.push(format!(
                        "the receipt for message {id} of {by} says {peers} peers, and it had {others}"
                    ));
                }
            }
            if notes.lost > 0 {
                found.push(format!("subscribers were too slow for {} messages", notes.lost));
            }
        }
        found.into_iter().for_each(|what| self.break_with(what));
    }

    /// What was acknowledged is there, at the node that put it if it remembers, and can be found by another one.
    pub(crate) async fn check_records(&mut self) {
        let records = self.notes().records.clone();
        for (number, life, key) in records {
            let member = &self.members[number];
            let remembers = member.life == life && member.client.is_some();
            let value = format!("value of {key}");
            let other = if remembers { number } else { self.rng.usize(..self.members.len()) };
            let Some(client) = self.members[other].client.clone() else { continue };
            match self.rt.timeout(35 * SECOND, client.get(key.clone(), 1)).await {
                Ok(Ok(got)) if got == value.as_bytes() => {}
                Ok(Ok(_)) => self.break_with(format!("{other} finds another value for {key:?} of {number}")),
                // Without its author, and with those that had it restarted, it may be gone.
                Ok(Err(_)) if !remembers => {}
                Ok(Err(e)) => self.break_with(format!("{number} put {key:?} and does not find it: {e}")),
                Err(_) => self.break_with(format!("{other} has looked for {key:?} for 35 s")),
            }
        }
    }

    /// What nodes keep is within bounds, and they answer.
    pub(crate) async fn check_bounds(&self) {
        let nodes = self.members.len();
        for number in self.up() {
            let Some(status) = self.ask(number, async |client| client.status().await).await else { continue };
            let said = self.notes().said.len();
            let remembered = status.remembered.messages;
            if remembered > said
                || status.table > nodes * 4
                || status.gossip_off > 0
                || status.traffic.lost > 0
            {
                self.break_with(format!(
                    "{number} remembers {remembered} of {said} messages, has {} in its table, gossip off with {}, lost {}",
                    status.table, status.gossip_off, status.traffic.lost
                ));
            }
            // Two for each connection, some for the node itself and what is under way.
            let (tasks, most) = (self.members[number].host.tasks(), nodes * 4 + 40);
            if tasks > most {
                self.break_with(format!("{number} has {tasks} tasks, and {most} are the most"));
            }
        }
    }
}
