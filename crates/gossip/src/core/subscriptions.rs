//! Which topics we and our peers follow.

use std::time::Instant;

use super::{Core, Event, peers::PeerKey, topics::TopicKey};
use crate::{Subscription, Topic};

impl Core {
    /// Follows a topic: tells every peer, and grafts those that make a mesh (JOIN). Whether it was not followed yet.
    pub fn subscribe(&mut self, name: &Topic, now: Instant) -> bool {
        let key = self.topics.intern(name);
        let Some(topic) = self.topics.get_mut(key) else { return false };
        if topic.subscribed {
            return false;
        }
        topic.subscribed = true;
        topic.ours = true;
        let fanout = topic.fanout.take();
        let followers = topic.peers.clone();
        self.topics.note_active(key);
        followers.iter().for_each(|peer| self.discharge(peer, key));
        self.stir();
        self.announce(name, true);

        let n = self.config.mesh_of(name).n;
        // Those that we publish to already come first.
        let known = fanout
            .iter()
            .flat_map(|fanout| fanout.peers.iter())
            .filter(|peer| self.may_graft(key, *peer, now));
        let mut chosen: Vec<PeerKey> = known.take(n).collect();
        let more = self.pick(key, n - chosen.len(), |core, peer| {
            !chosen.contains(&peer) && core.may_graft(key, peer, now)
        });
        chosen.extend(more);
        for peer in chosen {
            self.graft(key, peer, now);
        }
        true
    }

    /// Follows a topic no longer: prunes its mesh and tells every peer (LEAVE). Whether it was followed.
    pub fn unsubscribe(&mut self, name: &Topic, now: Instant) -> bool {
        let Some(key) = self.topics.followed(name.as_str()) else { return false };
        self.announce(name, false);
        let mesh = self.topics.get(key).map(|topic| topic.mesh.clone()).unwrap_or_default();
        for peer in mesh.iter() {
            self.prune(key, peer, self.config.peer_exchange, self.config.unsubscribe_backoff, now);
        }
        if let Some(topic) = self.topics.get_mut(key) {
            topic.subscribed = false;
        }
        self.topics.note_active(key);
        self.note_left(name.clone(), now);
        self.forget_unused_topic(key);
        true
    }

    fn announce(&mut self, name: &Topic, subscribe: bool) {
        for key in self.peers.all() {
            let Some(peer) = self.peers.get(key) else { continue };
            // A peer that is not greeted yet hears it then.
            if peer.carrier.is_some_and(|carrier| carrier.open) {
                peer.outbox.lock().subscription(name.clone(), subscribe);
                self.flush(key);
            }
        }
    }

    pub(super) fn on_subscriptions(&mut self, key: PeerKey, subscriptions: Vec<Subscription>, now: Instant) {
        for Subscription { topic, subscribe } in subscriptions {
            if subscribe {
                self.on_subscribe(key, &topic, now);
            } else {
                self.on_unsubscribe(key, &topic, now);
            }
        }
    }

    fn on_subscribe(&mut self, key: PeerKey, name: &Topic, now: Instant) {
        let Some(peer) = self.peers.get(key) else { return };
        let id = peer.id;
        let known = self.topics.key(name.as_str()).is_some_and(|topic| peer.topics.contains(topic));
        let ours = self.topics.followed(name.as_str()).is_some();
        if !known && !ours && !self.admit_topic(key, name) {
            return;
        }
        let topic = self.topics.intern(name);
        if let (Some(peer), Some(state)) = (self.peers.get_mut(key), self.topics.get_mut(topic))
            && peer.topics.insert(topic)
        {
            if !ours {
                peer.strange.insert(topic);
            }
            state.peers.insert(key);
            self.report(Event::Subscribed { peer: id, topic: name.clone() });
        }
        let low = self.config.mesh_of(name).n_low;
        let wanted = self
            .topics
            .get(topic)
            .is_some_and(|state| state.subscribed && state.mesh.len() < low && !state.mesh.contains(key));
        if wanted && self.may_graft(topic, key, now) {
            self.graft(topic, key, now);
        }
    }

    fn on_unsubscribe(&mut self, key: PeerKey, name: &Topic, now: Instant) {
        let Some(topic) = self.topics.key(name.as_str()) else { return };
        let Some(peer) = self.peers.get(key).filter(|peer| peer.topics.contains(topic)) else { return };
        let id = peer.id;
        if self.leave_mesh(topic, key) {
            // It says how long to keep away in the prune that follows; if none does, it is as if we had left.
            self.backoffs.extend(topic, id, self.config.unsubscribe_backoff, now);
        }
        self.no_longer_follows(key, topic);
        self.report(Event::Unsubscribed { peer: id, topic: name.clone() });
    }

    pub(super) fn forget_unused_topic(&mut self, key: TopicKey) {
        let backoffs = &self.backoffs;
        self.topics.forget_unused(key, || backoffs.any(key));
    }
}
