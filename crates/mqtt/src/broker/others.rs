//! The other brokers of the space: what this one says of itself, what it does for one that is gone, and which messages of
//! shared subscriptions are for members here.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Action, Broker, Map,
    clients::{Known, will_id},
};
use crate::{
    acl::Operation,
    message::Message,
    nodes::{self, BEAT, Groups, Members, SILENCE, Said},
    retained::Rank,
    topic,
};

/// How much later each next broker acts for one that is gone, and how many take turns.
const TURN: (Duration, usize) = (Duration::from_secs(2), 2);
/// How long a change of groups is gathered before it is said.
const SOON: Duration = Duration::from_millis(20);
/// How long a broker that was started has until its clients of before are taken for gone.
const RETURN: Duration = Duration::from_secs(5);
/// Messages of groups that went to members elsewhere and may have to go to others: how many, and for how long.
const RECENT: (usize, Duration) = (1024, Duration::from_secs(15));
/// How much of that is given again where a member went in good order.
const LAG: Duration = Duration::from_secs(2);
/// Wills that are remembered, so that each is heard once.
const WILLS: usize = 8192;

/// A message at QoS 1 or 2 that went to a member of a group at another broker.
#[derive(Debug)]
pub(super) struct Recent {
    at: Instant,
    filter: Arc<str>,
    node: u64,
    message: Arc<Message>,
    rank: Rank,
    /// What decides where it goes.
    lot: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// When this broker next looks at the others; `None`: it shares nothing.
    pub(super) beat: Option<Instant>,
    /// When it says next that it is there, and when it looked last.
    say: Option<Instant>,
    last: Option<Instant>,
    pub(super) groups: Groups,
    recent: VecDeque<Recent>,
    wills: VecDeque<u128>,
}

impl Broker {
    /// What another broker says of itself; whether it is that.
    pub fn hear_node(&mut self, node: u64, data: &[u8], now: Instant) -> bool {
        let Some(said) = Said::decode(data) else { return false };
        if node == self.node {
            return true;
        }
        let fewer = self.nodes.hear(node, said, now);
        for filter in fewer {
            self.reassign(node, Some(&filter), now.checked_sub(LAG), now);
        }
        true
    }

    /// What is due of it.
    pub(super) fn beat(&mut self, now: Instant) {
        if self.others.beat.is_none_or(|at| at > now) {
            return;
        }
        if self.others.last.is_some_and(|last| now.saturating_duration_since(last) > 2 * BEAT) {
            self.nodes.forgive(now);
        }
        self.others.last = Some(now);
        if self.others.say.is_none_or(|at| at <= now) {
            self.others.say = now.checked_add(BEAT);
            self.actions.push_back(Action::Say(Said::encode(false, &self.others.groups)));
        }
        for (node, heard) in self.nodes.lose(now) {
            self.reassign(node, None, heard.checked_sub(LAG), now);
        }
        while self.others.recent.front().is_some_and(|recent| recent.at + RECENT.1 < now) {
            self.others.recent.pop_front();
        }
        let soon = self.act_for_others(now).then(|| now + Duration::from_secs(1));
        let next = [self.others.say, self.nodes.next_loss(), soon];
        self.others.beat = next.into_iter().flatten().min();
    }

    /// Other brokers learn that this one ends in good order.
    pub(super) fn say_goodbye(&mut self) {
        if self.shares {
            self.others.beat = None;
            self.actions.push_back(Action::Say(Said::encode(true, &Groups::new())));
        }
    }

    /// Publishes the wills of clients whose broker is gone, and ends sessions that nobody else does. Whether more is due
    /// soon.
    fn act_for_others(&mut self, now: Instant) -> bool {
        let time = self.time(now);
        let mut soon = false;
        let mut due = Vec::new();
        for (client, Known { record, since }) in &self.roster.records {
            let own = record.owner == self.node;
            // What this broker owns is looked after elsewhere, but for what it had before it was started.
            if own && self.by_client.contains_key(client) {
                continue;
            }
            let ended = !record.connected && !record.lasts(time);
            if own {
                let waited = now.saturating_duration_since(*since);
                if (record.connected || ended) && waited >= RETURN {
                    due.push(client.clone());
                }
                continue;
            }
            if !record.connected && !ended {
                continue;
            }
            let Some(gone) = self.nodes.gone_for(record.owner, now) else { continue };
            // A record that comes when a partition ends may be heard before its broker is.
            let gone = gone.min(now.saturating_duration_since(*since));
            let place = self.nodes.place(nodes::hash(client.as_bytes()), self.node).min(TURN.1);
            let turn = TURN.0 * u32::try_from(place).unwrap_or(u32::MAX);
            // [MQTT-3.1.3-9]
            let delay = record.will.as_ref().map_or(0, |will| will.delay.min(record.expiry));
            let delay = if record.connected { Duration::from_secs(delay.into()) } else { Duration::ZERO };
            if gone >= SILENCE + delay + turn {
                due.push(client.clone());
            } else {
                soon = true;
            }
        }
        for client in due {
            self.act_for(&client, now);
        }
        soon
    }

    fn act_for(&mut self, client: &Arc<str>, now: Instant) {
        let Some(known) = self.roster.records.remove(client) else { return };
        let mut record = known.record;
        if let Some(will) = record.will.take().filter(|_| record.connected)
            && let Some(will) = self.to_will(&will, now)
        {
            let mut message = will.message;
            message.user.clone_from(&record.user);
            message.expires = will.lifetime.and_then(|lifetime| now.checked_add(lifetime));
            if self.access.may(Operation::Write, record.user.as_deref(), client, &message.topic) {
                self.stats.wills_of_others += 1;
                let id = will_id(client, record.epoch);
                self.send_out(Arc::new(message), None, (Some(id), None), now);
            }
        }
        let value = if record.connected && record.expiry > 0 {
            let gone = self.nodes.gone_for(record.owner, now).unwrap_or_default();
            let ago = u64::try_from(gone.as_micros()).unwrap_or(u64::MAX);
            record.left = self.time(now).saturating_sub(ago);
            (record.connected, record.fallen, record.changed) = (false, true, self.stamp(now));
            let value = record.encode();
            self.roster.insert(client.clone(), record, now);
            value
        } else {
            None
        };
        self.actions.push_back(Action::Keep { map: Map::Clients, key: client.as_bytes().to_vec(), value });
    }

    /// Whether a will is heard for the first time.
    pub(super) fn is_new_will(&mut self, id: u128) -> bool {
        let wills = &mut self.others.wills;
        if wills.contains(&id) {
            return false;
        }
        if wills.len() >= WILLS {
            wills.pop_front();
        }
        wills.push_back(id);
        true
    }

    /// Members of groups here may have come or gone.
    pub(super) fn count_group(&mut self, filter: &str, now: Instant) {
        if !self.shares || topic::shared(filter).is_none() {
            return;
        }
        let mut members = Members::default();
        let subscribed = self.subscriptions.members(filter);
        for session in subscribed {
            members.all = members.all.saturating_add(1);
            let is_there = self.sessions.get(session).is_some_and(|session| session.connection.is_some());
            members.connected = members.connected.saturating_add(u16::from(is_there));
        }
        let before = if members.all == 0 {
            self.others.groups.remove(filter)
        } else {
            self.others.groups.insert(filter.into(), members)
        };
        if before.unwrap_or_default() != members {
            let at = now + SOON;
            self.others.say = self.others.say.map(|say| say.min(at));
            self.others.beat = self.others.beat.map(|beat| beat.min(at));
        }
    }

    pub(super) fn count_groups_of(&mut self, session: usize, now: Instant) {
        let Some(state) = self.sessions.get(session).filter(|_| self.shares) else { return };
        let shared = state.subscriptions.keys().filter(|filter| topic::shared(filter).is_some());
        for filter in shared.cloned().collect::<Vec<_>>() {
            self.count_group(&filter, now);
        }
    }

    /// What decides where a message of a group goes, the same at all brokers.
    pub(super) fn lot(&self, message: &Message, rank: Rank) -> u64 {
        // What is injected has a rank of its own at each broker.
        let is_injected = self.elsewhere.contains(&*message.topic);
        if is_injected { nodes::hash(&message.payload) } else { rank.lot() }
    }

    /// Notes which groups a message went to elsewhere.
    pub(super) fn note_elsewhere(
        &mut self,
        groups: Vec<(Arc<str>, u64)>,
        message: &Arc<Message>,
        rank: Rank,
        now: Instant,
    ) {
        let lot = self.lot(message, rank);
        for (filter, node) in groups {
            if self.others.recent.len() >= RECENT.0 {
                self.others.recent.pop_front();
            }
            let message = message.clone();
            self.others.recent.push_back(Recent { at: now, filter, node, message, rank, lot });
        }
    }

    /// A broker has fewer members, or is gone: what went to it lately goes where it would go now.
    fn reassign(&mut self, node: u64, filter: Option<&str>, since: Option<Instant>, now: Instant) {
        let mut ours = Vec::new();
        for recent in &mut self.others.recent {
            let concerns = recent.node == node
                && filter.is_none_or(|filter| *recent.filter == *filter)
                && since.is_none_or(|since| recent.at >= since);
            if !concerns {
                continue;
            }
            let own = self.others.groups.get(&recent.filter).copied().unwrap_or_default();
            recent.node = self.nodes.choose(&recent.filter, recent.lot, (self.node, own));
            if recent.node == self.node && own.all > 0 {
                ours.push((recent.filter.clone(), recent.message.clone(), recent.rank));
            }
        }
        for (filter, message, rank) in ours {
            self.deliver_to_group(&filter, &message, rank, now);
        }
    }
}
