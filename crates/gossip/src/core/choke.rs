//! Links of a mesh that always come late turn to announcing: the extension that `CHOKE.md` describes.
//!
//! Whoever gets messages decides. Of each link it counts how often it was the first to bring a message and how often it
//! came late; the late ones are choked, and announce from then on. Announcements leave within [`ANNOUNCE_AFTER`], and
//! what was announced and does not come by itself is fetched after [`FETCH_AFTER`], from a link that is unchoked with it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use libp2p::PeerId;

use super::{Core, peers::PeerKey, topics::TopicKey};
use crate::{BuildFingerprintHasher, Choke, ControlItem, Extensions, Fingerprint, IHave, MessageId, Topic};

/// An announcement waits so long for others, unless what it announces comes back meanwhile.
const ANNOUNCE_AFTER: Duration = Duration::from_millis(20);
/// What was announced may take so long to come by itself.
const FETCH_AFTER: Duration = Duration::from_millis(150);
/// Announcements to one peer that wait at most; more leave right away.
const ANNOUNCED_MOST: usize = 256;
/// Announced messages that are waited for, at most; beyond it they are asked for right away.
const EXPECTED_MOST: usize = 16_384;
/// Peers remembered that announced one of them.
const ANNOUNCERS: usize = 4;
/// As many messages of a link say how it is.
const ENOUGH: u16 = 16;
/// As many say it even between two heartbeats, where it is never the first.
const PLENTY: u16 = 32;

/// A part of all messages that is as good as none.
const NEVER: f64 = 1.0 / 16.0;
/// A link that is the first with less than this part of its messages may be choked, and a choked one with more than that
/// part of its announcements is not any more.
const LITTLE: f64 = 0.4;
const MUCH: f64 = 0.6;

/// An author of whose messages as many came from others only does not send them to us itself.
pub(super) const OWN_MISSING: u8 = 8;

/// One link of a mesh.
#[derive(Clone, Debug)]
pub(super) struct Link {
    peer: PeerKey,
    /// It was the first with so many messages; while we choke it, with as many announcements.
    first: u16,
    /// It came after another one.
    late: u16,
    /// We want announcements from it.
    choked: bool,
    /// It wants announcements from us.
    chokes_us: bool,
}

impl Link {
    fn count(&self) -> u16 {
        self.first.saturating_add(self.late)
    }

    /// Which part of its messages it was the first with.
    fn share(&self) -> f64 {
        f64::from(self.first) / f64::from(self.count().max(1))
    }

    fn forget(&mut self) {
        (self.first, self.late) = (0, 0);
    }
}

/// The links of a mesh: a dozen.
#[derive(Debug, Default)]
pub(super) struct Links(Vec<Link>);

impl Links {
    pub(super) fn add(&mut self, peer: PeerKey) {
        self.remove(peer);
        self.0.push(Link { peer, first: 0, late: 0, choked: false, chokes_us: false });
    }

    pub(super) fn remove(&mut self, peer: PeerKey) {
        self.0.retain(|link| link.peer != peer);
    }

    fn get(&self, peer: PeerKey) -> Option<&Link> {
        self.0.iter().find(|link| link.peer == peer)
    }

    fn get_mut(&mut self, peer: PeerKey) -> Option<&mut Link> {
        self.0.iter_mut().find(|link| link.peer == peer)
    }

    /// Whether messages are announced to the peer, not sent.
    pub(super) fn chokes_us(&self, peer: PeerKey) -> bool {
        self.get(peer).is_some_and(|link| link.chokes_us)
    }

    /// Whether the peer tells us of messages, and sends none.
    pub(super) fn is_choked(&self, peer: PeerKey) -> bool {
        self.get(peer).is_some_and(|link| link.choked)
    }

    pub(super) fn choked(&self) -> impl Iterator<Item = PeerKey> {
        self.0.iter().filter(|link| link.choked).map(|link| link.peer)
    }
}

/// What will be announced to a peer.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    waiting: Vec<(TopicKey, Fingerprint, MessageId)>,
    /// What it has shown to have since the first of them.
    has: HashSet<Fingerprint, BuildFingerprintHasher>,
}

impl Announcements {
    /// The peer has a message: it sent or announced it.
    pub(super) fn has(&mut self, id: &Fingerprint) {
        if !self.waiting.is_empty() && self.has.len() < ANNOUNCED_MOST {
            self.has.insert(*id);
        }
    }
}

/// Messages that were announced and have not come.
#[derive(Debug, Default)]
pub(super) struct Expected {
    open: HashMap<Fingerprint, Announced, BuildFingerprintHasher>,
    /// When to fetch them; those that came meanwhile are still in here.
    due: VecDeque<(Instant, Fingerprint)>,
}

#[derive(Debug)]
struct Announced {
    topic: TopicKey,
    id: MessageId,
    by: Vec<PeerKey>,
}

impl Expected {
    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due.front().map(|(at, _)| *at)
    }

    /// It came. Returns who announced it.
    pub(super) fn came(&mut self, id: &Fingerprint) -> Vec<PeerKey> {
        self.open.remove(id).map(|announced| announced.by).unwrap_or_default()
    }

    /// Whether there is room for it.
    fn add(
        &mut self,
        fingerprint: Fingerprint,
        topic: TopicKey,
        id: MessageId,
        by: PeerKey,
        due: Instant,
    ) -> bool {
        if let Some(known) = self.open.get_mut(&fingerprint) {
            if known.by.len() < ANNOUNCERS && !known.by.contains(&by) {
                known.by.push(by);
            }
            return true;
        }
        if self.due.len() >= EXPECTED_MOST {
            return false;
        }
        self.open.insert(fingerprint, Announced { topic, id, by: vec![by] });
        self.due.push_back((due, fingerprint));
        true
    }

    fn pop_due(&mut self, now: Instant) -> Option<Fingerprint> {
        let (at, id) = self.due.front().copied()?;
        if at > now {
            return None;
        }
        self.due.pop_front();
        if self.due.is_empty() {
            // What a burst took is given back.
            self.due.shrink_to(64);
            self.open.shrink_to(64);
        }
        Some(id)
    }
}

impl Core {
    /// The peers of our mesh that announce messages of a topic to us, and send none but their own.
    pub fn choked(&self, topic: &Topic) -> Vec<PeerId> {
        self.topics.named(topic.as_str()).map(|t| self.ids(t.links.choked())).unwrap_or_default()
    }

    /// Whether both sides announced the extension.
    fn speaks_choke(&self, key: PeerKey) -> bool {
        let announced = |peer: &super::peers::Peer| {
            peer.extensions.as_ref().is_some_and(|extensions| extensions.has(Extensions::CHOKE))
        };
        self.config.extensions.has(Extensions::CHOKE) && self.peers.get(key).is_some_and(announced)
    }

    /// A message that was not the peer's own came from it, before all others or after another.
    pub(super) fn note_copy(&mut self, topic: TopicKey, key: PeerKey, first: bool) {
        let Some(link) = self.topics.get_mut(topic).and_then(|state| state.links.get_mut(key)) else {
            return;
        };
        if link.choked {
            return;
        }
        let counter = if first { &mut link.first } else { &mut link.late };
        *counter = counter.saturating_add(1);
        if !first && link.late >= PLENTY && link.share() < NEVER && self.may_choke(topic, key) {
            self.choke(topic, key, true);
        }
    }

    /// A message came for the first time, from `key`. If its author is one of our peers and sends us what it has to say
    /// itself, then nobody else needs to, even if somebody was quicker this time.
    pub(super) fn note_first(&mut self, topic: TopicKey, key: PeerKey, source: Option<PeerId>) {
        let author = source.and_then(|source| self.peers.key(&source));
        if author == Some(key) {
            return self.note_own(key);
        }
        let mut first = true;
        if let Some(author) = author.and_then(|author| self.peers.get_mut(author))
            && author.own_missing < OWN_MISSING
        {
            author.own_missing += 1;
            first = false;
        }
        self.note_copy(topic, key, first);
    }

    /// A peer brought a message of its own.
    pub(super) fn note_own(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.own_missing = 0;
        }
    }

    /// Whoever is scored by what it brings (P3) would lose by obeying.
    fn may_choke(&self, topic: TopicKey, key: PeerKey) -> bool {
        let Some(state) = self.topics.get(topic) else { return false };
        let params = self.score.as_ref().and_then(|score| score.params().topics.get(&state.name));
        params.is_none_or(|params| params.mesh_message_deliveries_weight == 0.0) && self.speaks_choke(key)
    }

    fn choke(&mut self, topic: TopicKey, key: PeerKey, choked: bool) {
        let Some(state) = self.topics.get_mut(topic) else { return };
        let Some(link) = state.links.get_mut(key).filter(|link| link.choked != choked) else { return };
        link.choked = choked;
        // Where it made a difference, who comes first among fewer, or more, is to be seen anew.
        let never_first = choked && link.share() < NEVER;
        link.forget();
        if !never_first {
            state.links.0.iter_mut().for_each(Link::forget);
        }
        let topic = state.name.clone();
        self.control(key, ControlItem::Choke(Choke { topic, choked }));
    }

    /// At a heartbeat: the latest link is choked if it is late with most messages, so that in the end two are left that
    /// bring half of them each, or one that brings all; a choked one whose announcements come first changes back.
    pub(super) fn review_links(&mut self, topic: TopicKey) {
        let Some(state) = self.topics.get(topic) else { return };
        let known = |link: &&Link| link.count() >= ENOUGH;
        let by_share = |a: &&Link, b: &&Link| a.share().total_cmp(&b.share());
        let latest = state.links.0.iter().filter(|link| !link.choked).filter(known).min_by(by_share);
        let latest = latest.filter(|link| link.share() < LITTLE).map(|link| link.peer);
        let soonest = state.links.0.iter().filter(|link| link.choked).filter(known).max_by(by_share);
        let soonest = soonest.filter(|link| link.share() > MUCH).map(|link| link.peer);
        if let Some(key) = soonest {
            self.choke(topic, key, false);
        } else if let Some(key) = latest.filter(|key| self.may_choke(topic, *key)) {
            self.choke(topic, key, true);
        } else if let Some(state) = self.topics.get_mut(topic) {
            // What is long ago counts less.
            for link in state.links.0.iter_mut().filter(|link| link.count() > 8 * ENOUGH) {
                (link.first, link.late) = (link.first / 2, link.late / 2);
            }
        }
    }

    pub(super) fn on_choke(&mut self, key: PeerKey, chokes: Vec<Choke>) {
        if !self.speaks_choke(key) {
            return;
        }
        for Choke { topic, choked } in chokes {
            if let Some(topic) = self.topics.followed(topic.as_str())
                && let Some(link) = self.topics.get_mut(topic).and_then(|state| state.links.get_mut(key))
            {
                link.chokes_us = choked;
            }
        }
    }

    /// The peer begins anew, and says again what still holds.
    pub(super) fn unchoke_by(&mut self, key: PeerKey) {
        let topics = self.peers.get(key).map(|peer| peer.topics.clone()).unwrap_or_default();
        for topic in topics.iter() {
            if let Some(link) = self.topics.get_mut(topic).and_then(|state| state.links.get_mut(key)) {
                link.chokes_us = false;
            }
        }
    }

    /// Tells a peer of a message soon.
    pub(super) fn announce_soon(
        &mut self,
        key: PeerKey,
        topic: TopicKey,
        fingerprint: Fingerprint,
        id: MessageId,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.announcements.waiting.push((topic, fingerprint, id));
        if peer.announcements.waiting.len() >= ANNOUNCED_MOST {
            self.send_announcements(key);
        } else if self.announce_at.is_none() {
            self.announce_at = Some(now + ANNOUNCE_AFTER);
        }
    }

    pub(super) fn send_due_announcements(&mut self, now: Instant) {
        if self.announce_at.is_none_or(|at| at > now) {
            return;
        }
        self.announce_at = None;
        let waits = |(_, peer): &(PeerKey, &super::peers::Peer)| !peer.announcements.waiting.is_empty();
        let keys: Vec<_> = self.peers.iter().filter(waits).map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.send_announcements(key));
    }

    fn send_announcements(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Announcements { waiting, has } = std::mem::take(&mut peer.announcements);
        let mut by_topic: Vec<(TopicKey, Vec<MessageId>)> = Vec::new();
        for (topic, fingerprint, id) in waiting {
            if has.contains(&fingerprint) {
                continue;
            }
            match by_topic.iter_mut().find(|(known, _)| *known == topic) {
                Some((_, ids)) => ids.push(id),
                None => by_topic.push((topic, vec![id])),
            }
        }
        for (topic, ids) in by_topic {
            if let Some(topic) = self.topics.get(topic).map(|state| state.name.clone()) {
                self.control(key, ControlItem::IHave(IHave { topic, ids }));
            }
        }
    }

    /// Whether what a peer says to have is an announcement of this extension: it may well come by itself.
    pub(super) fn announces(&self, key: PeerKey, topic: TopicKey) -> bool {
        self.topics.get(topic).is_some_and(|state| state.mesh.contains(key)) && self.speaks_choke(key)
    }

    /// A link announced a message. Whether it is waited for; if not, it may be asked for.
    pub(super) fn on_announced(
        &mut self,
        key: PeerKey,
        topic: TopicKey,
        fingerprint: Fingerprint,
        id: MessageId,
        now: Instant,
    ) -> bool {
        let known = self.seen.contains(&fingerprint);
        if let Some(peer) = self.peers.get_mut(key) {
            peer.announcements.has(&fingerprint);
        }
        if let Some(link) = self.topics.get_mut(topic).and_then(|state| state.links.get_mut(key))
            && link.choked
        {
            let counter = if known { &mut link.late } else { &mut link.first };
            *counter = counter.saturating_add(1);
        }
        known
            || self.promises.contains(&fingerprint)
            || self.expected.add(fingerprint, topic, id, key, now + FETCH_AFTER)
    }

    /// Asks for what was announced and did not come; from who is asked messages are wanted again.
    pub(super) fn fetch_missing(&mut self, now: Instant) {
        while let Some(fingerprint) = self.expected.pop_due(now) {
            let Some(announced) = self.expected.open.get_mut(&fingerprint) else { continue };
            let key = announced.by.remove(0);
            let (topic, id) = (announced.topic, announced.id.clone());
            if announced.by.is_empty() {
                self.expected.open.remove(&fingerprint);
            } else {
                self.expected.due.push_back((now + FETCH_AFTER, fingerprint));
            }
            let Some(peer) = self.peers.get(key) else { continue };
            if self.score_of(&peer.id) < self.thresholds.gossip_threshold || self.seen.contains(&fingerprint)
            {
                continue;
            }
            self.promises.add(fingerprint, key, now);
            self.control(key, ControlItem::IWant(vec![id]));
            self.choke(topic, key, false);
        }
    }
}
