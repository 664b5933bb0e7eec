//! Subscriptions and control messages that wait: of what has a state, the newest; of what only announces, as much as
//! fits.

use std::collections::{BTreeMap, VecDeque, btree_map::Entry};

use super::ControlItem;
use crate::{
    Choke, Extensions, IHave, MessageId, Topic,
    rpc::{self, FrameWriter},
};

#[derive(Debug)]
pub(super) struct ControlQueue {
    /// Bytes of announcements that may wait.
    most: usize,
    /// Bytes that one item may have, so that it fits a frame.
    largest: usize,
    extensions: Option<Extensions>,
    subscriptions: Latest<bool>,
    /// GRAFTs and PRUNEs.
    links: Latest<ControlItem>,
    chokes: Latest<bool>,
    idontwant: VecDeque<MessageId>,
    iwant: VecDeque<MessageId>,
    ihave: VecDeque<IHave>,
    /// Bytes of these three.
    bytes: usize,
}

/// By topic the newest that was said, in the order in which topics were first mentioned.
#[derive(Debug)]
struct Latest<T> {
    numbers: BTreeMap<Topic, u64>,
    waiting: BTreeMap<u64, (Topic, T)>,
    next: u64,
}

/// What goes into one frame.
#[derive(Debug, Default)]
pub(super) struct Taken {
    subscriptions: Vec<(Topic, bool)>,
    items: Vec<ControlItem>,
    chokes: Vec<(Topic, bool)>,
    subscriptions_len: usize,
    chokes_len: usize,
    items_len: usize,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self { numbers: BTreeMap::new(), waiting: BTreeMap::new(), next: 0 }
    }
}

impl<T> Latest<T> {
    fn set(&mut self, topic: Topic, value: T) {
        match self.numbers.entry(topic) {
            Entry::Occupied(known) => {
                if let Some(waiting) = self.waiting.get_mut(known.get()) {
                    waiting.1 = value;
                }
            }
            Entry::Vacant(new) => {
                self.waiting.insert(self.next, (new.key().clone(), value));
                new.insert(self.next);
                self.next += 1;
            }
        }
    }

    fn first(&self) -> Option<&(Topic, T)> {
        self.waiting.first_key_value().map(|(_, first)| first)
    }

    fn pop(&mut self) -> Option<(Topic, T)> {
        let (_, first) = self.waiting.pop_first()?;
        self.numbers.remove(&first.0);
        Some(first)
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl ControlQueue {
    pub(super) fn new(most: usize, largest: usize) -> Self {
        Self {
            most,
            largest,
            extensions: None,
            subscriptions: Latest::default(),
            links: Latest::default(),
            chokes: Latest::default(),
            idontwant: VecDeque::new(),
            iwant: VecDeque::new(),
            ihave: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(super) fn subscription(&mut self, topic: Topic, subscribe: bool) {
        self.subscriptions.set(topic, subscribe);
    }

    /// Returns how many announced ids had to go.
    pub(super) fn push(&mut self, item: ControlItem) -> usize {
        match item {
            ControlItem::Extensions(extensions) => self.extensions = Some(extensions),
            ControlItem::Graft(ref topic) => self.links.set(topic.clone(), item),
            ControlItem::Prune(ref prune) => self.links.set(prune.topic.clone(), item),
            ControlItem::Choke(Choke { topic, choked }) => self.chokes.set(topic, choked),
            ControlItem::IDontWant(ids) => {
                self.bytes += ids.iter().map(id_cost).sum::<usize>();
                self.idontwant.extend(ids);
            }
            ControlItem::IWant(ids) => {
                self.bytes += ids.iter().map(id_cost).sum::<usize>();
                self.iwant.extend(ids);
            }
            ControlItem::IHave(IHave { topic, ids }) => {
                let room = self.largest.saturating_sub(2 * HEADS + topic.as_str().len());
                for ids in split(ids, room) {
                    let ihave = IHave { topic: topic.clone(), ids };
                    self.bytes += ihave_cost(&ihave);
                    self.ihave.push_back(ihave);
                }
            }
        }
        self.drop_oldest()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.extensions.is_none()
            && self.subscriptions.is_empty()
            && self.links.is_empty()
            && self.chokes.is_empty()
            && self.idontwant.is_empty()
            && self.iwant.is_empty()
            && self.ihave.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        let subscriptions =
            self.subscriptions.waiting.values().map(|(topic, _)| rpc::subscription_len(topic));
        let links = self.links.waiting.values().map(|(_, item)| rpc::control_len(item));
        let chokes = self.chokes.waiting.values().map(|(topic, _)| rpc::choke_len(topic));
        self.bytes + subscriptions.sum::<usize>() + links.sum::<usize>() + chokes.sum::<usize>()
    }

    /// As much as fits in `room` bytes, with at most as many subscriptions, and at least one item.
    pub(super) fn take(&mut self, room: usize, subscriptions: usize) -> Taken {
        let mut taken = Taken::default();
        if let Some(extensions) = self.extensions.take() {
            taken.add(ControlItem::Extensions(extensions));
        }
        while let Some((topic, _)) = self.subscriptions.first() {
            let full = taken.subscriptions.len() >= subscriptions.max(1);
            if full || !taken.has_room(rpc::subscription_len(topic), 0, room) {
                return taken;
            }
            if let Some((topic, subscribe)) = self.subscriptions.pop() {
                taken.subscriptions_len += rpc::subscription_len(&topic);
                taken.subscriptions.push((topic, subscribe));
            }
        }
        while let Some((_, item)) = self.links.first() {
            if !taken.has_room(0, rpc::control_len(item), room) {
                return taken;
            }
            if let Some((_, item)) = self.links.pop() {
                taken.add(item);
            }
        }
        while let Some((topic, _)) = self.chokes.first() {
            let len = rpc::choke_len(topic);
            if taken.count() > 0 && taken.len() + HEADS + len > room {
                return taken;
            }
            taken.chokes_len += len;
            taken.chokes.extend(self.chokes.pop());
        }
        for (ids, item) in [
            (&mut self.idontwant, ControlItem::IDontWant as fn(_) -> _),
            (&mut self.iwant, ControlItem::IWant as fn(_) -> _),
        ] {
            let left = room.saturating_sub(taken.len() + HEADS);
            let fit = take_ids(ids, left, taken.count() == 0);
            self.bytes -= fit.iter().map(id_cost).sum::<usize>();
            if !fit.is_empty() {
                taken.add(item(fit));
            }
            if !ids.is_empty() {
                return taken;
            }
        }
        while let Some(ihave) = self.ihave.front() {
            if !taken.has_room(0, ihave_cost(ihave), room) {
                return taken;
            }
            self.bytes -= ihave_cost(ihave);
            taken.items_and(self.ihave.pop_front().map(ControlItem::IHave));
        }
        // What a burst took is given back.
        (self.idontwant, self.iwant, self.ihave) = Default::default();
        taken
    }

    /// Announcements are hints: of too many, the oldest IHAVE goes first, for they come again with the next heartbeat.
    fn drop_oldest(&mut self) -> usize {
        let mut dropped = 0;
        while self.bytes > self.most {
            if let Some(ihave) = self.ihave.pop_front() {
                self.bytes -= ihave_cost(&ihave);
                dropped += ihave.ids.len();
            } else if let Some(id) = self.idontwant.pop_front().or_else(|| self.iwant.pop_front()) {
                self.bytes -= id_cost(&id);
                dropped += 1;
            } else {
                break;
            }
        }
        dropped
    }
}

/// At least the bytes of the heads of control message and item.
const HEADS: usize = 16;

/// At least the bytes of an id as a field.
fn id_cost(id: &MessageId) -> usize {
    id.len() + 4
}

/// At least the bytes of an IHAVE as a field.
fn ihave_cost(ihave: &IHave) -> usize {
    HEADS + ihave.topic.as_str().len() + ihave.ids.iter().map(id_cost).sum::<usize>()
}

/// Ids from the front that fit in `room` bytes; one in any case where `any`.
fn take_ids(ids: &mut VecDeque<MessageId>, room: usize, any: bool) -> Vec<MessageId> {
    let mut bytes = 0;
    let fit = ids.iter().take_while(|id| {
        bytes += id_cost(id);
        bytes <= room
    });
    let fit = fit.count().max(usize::from(any && !ids.is_empty()));
    ids.drain(..fit).collect()
}

/// Ids in pieces of at most `room` bytes.
fn split(ids: Vec<MessageId>, room: usize) -> Vec<Vec<MessageId>> {
    let (mut pieces, mut piece, mut bytes) = (Vec::new(), Vec::new(), 0);
    for id in ids {
        let len = id.len() + 4;
        if bytes + len > room && !piece.is_empty() {
            pieces.push(std::mem::take(&mut piece));
            bytes = 0;
        }
        bytes += len;
        piece.push(id);
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

impl Taken {
    /// Bytes of all of it.
    pub(super) fn len(&self) -> usize {
        self.subscriptions_len
            + FrameWriter::control_len(self.items_len)
            + FrameWriter::choke_len(self.chokes_len)
    }

    pub(super) fn count(&self) -> usize {
        self.subscriptions.len() + self.items.len() + self.chokes.len()
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for (topic, subscribe) in &self.subscriptions {
            rpc::put_subscription(topic, *subscribe, out);
        }
        if self.items_len > 0 {
            FrameWriter::control(self.items_len, out);
            for item in &self.items {
                rpc::put_control_item(item, out);
            }
        }
        rpc::put_choke(self.chokes.iter().map(|(topic, choked)| (topic, *choked)), out);
    }

    fn has_room(&self, subscription: usize, item: usize, room: usize) -> bool {
        let items = FrameWriter::control_len(self.items_len + item);
        let chokes = FrameWriter::choke_len(self.chokes_len);
        self.count() == 0 || self.subscriptions_len + subscription + items + chokes <= room
    }

    fn items_and(&mut self, item: Option<ControlItem>) {
        if let Some(item) = item {
            self.add(item);
        }
    }

    fn add(&mut self, item: ControlItem) {
        self.items_len += rpc::control_len(&item);
        self.items.push(item);
    }
}
