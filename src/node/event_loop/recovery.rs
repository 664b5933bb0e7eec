//! What topics with `keep` remember: what goes into their memories, and what comes from those of neighbours.

use libp2p::PeerId;
use smidge_catchup::{Id, Item, Memory};

use super::EventLoop;
use crate::{
    gossip::{self, Topic, WireMessage, bundle::Bundle},
    node::{
        Position, Verdict,
        catchup::{self, Judgement, Record, wall},
        event::{Event, Message},
        publish_policy::check_author,
        replay::{Cursor, Page, Place, Start},
        subscription::Subscription,
    },
};

/// Records in a page, and about as many bytes.
const PAGE: usize = 128;
const PAGE_BYTES: usize = 256 << 10;

impl EventLoop {
    /// What is kept, and which peers it is learned from, after the rules changed.
    pub(super) fn keep_configured(&mut self) {
        let behaviour = self.swarm.behaviour_mut();
        let before: Vec<String> = behaviour.catchup.book().topics().cloned().collect();
        behaviour.catchup.book_mut().configure(&self.config.topics, wall());
        behaviour.catchup.configured();
        self.watchers.retain(|topic| behaviour.catchup.book().is_by_key(topic));
        let fresh: Vec<String> =
            behaviour.catchup.book().topics().filter(|topic| !before.contains(topic)).cloned().collect();
        for topic in fresh {
            for peer in behaviour.gossip.core().subscribers(&Topic::from(topic.as_str())) {
                behaviour.catchup.follows(peer, &topic);
            }
        }
    }

    /// Whether messages of a topic are kept.
    pub(super) fn keeps(&self, topic: &str) -> bool {
        self.swarm.behaviour().catchup.book().memory(topic).is_some()
    }

    /// What is to be remembered of a live message, if anything; or what becomes of one that is not new.
    pub(super) fn judge(&self, wire: &WireMessage) -> Result<Option<Record>, gossip::Verdict> {
        let book = self.swarm.behaviour().catchup.book();
        if !book.keeps(wire.topic()) {
            return Ok(None);
        }
        let Some(record) = Record::of(wire) else { return Ok(None) };
        match book.judge(&record, wall()) {
            Judgement::New => Ok(Some(record)),
            // Others may lack it.
            Judgement::Known => Err(gossip::Verdict::Accept),
            Judgement::Old => {
                let (id, topic) = (record.id(), wire.topic());
                log::debug!(
                    "message {id} on {topic} is dropped: it is older than what is remembered of its author"
                );
                self.metrics.refused(Verdict::Ignore);
                Err(gossip::Verdict::Ignore)
            }
        }
    }

    /// The next message of this node has the present moment as its number.
    pub(super) fn number_next(&mut self) {
        let behaviour = self.swarm.behaviour_mut();
        let number = behaviour.catchup.book_mut().next_number(wall());
        behaviour.gossip.core_mut().number_above(number - 1);
    }

    /// Remembers a message of this node, where its topic is kept; when it was sent, its position, and its place.
    pub(super) fn keep_own(&mut self, wire: &WireMessage) -> (Option<u64>, Option<Position>, Option<Item>) {
        let number = wire.seqno().and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
        let sent = number.and_then(catchup::sent);
        let record = self.keeps(wire.topic()).then(|| Record::of(wire)).flatten();
        let (book, item) = (self.swarm.behaviour_mut().catchup.book_mut(), record.as_ref().map(Record::item));
        (sent, record.and_then(|record| book.insert_delivered(&record, wall())), item)
    }

    /// A message of this node as its own subscribers get it.
    pub(super) fn own(
        &self,
        id: &str,
        topic: &str,
        data: &[u8],
        sent: Option<u64>,
        position: Option<Position>,
    ) -> Message {
        let own = *self.swarm.local_peer_id();
        let (id, topic, data) = (id.to_owned(), topic.to_owned(), data.into());
        let name = self.name_of(&own);
        Message {
            id,
            topic,
            name,
            source: Some(own),
            from: own,
            data,
            local: true,
            sent,
            late: false,
            position,
        }
    }

    pub(super) fn on_catchup_event(&mut self, event: catchup::Event) {
        match event {
            catchup::Event::Recovered { from, records } => self.on_recovered(from, records),
            catchup::Event::ThrownAway { topic, keys } => self.on_thrown_away(topic, keys),
            catchup::Event::Confirmed(confirmed) => self.on_confirmed(confirmed),
            catchup::Event::Saved(catchup::Report::Written { after: 0 }) => {}
            catchup::Event::Saved(catchup::Report::Written { after }) => {
                self.emit(Event::SavedAgain { failures: after });
            }
            catchup::Event::Saved(catchup::Report::Failed { why, retry_in, repeated }) => {
                self.emit(Event::NotSaved { why, retry_in, repeated });
            }
        }
    }

    /// What a neighbour remembered: the rules hold as they are now, and each message is delivered once.
    fn on_recovered(&mut self, from: PeerId, records: Vec<Record>) {
        for record in records {
            let topic = record.wire.topic();
            if self.is_by_key(topic) {
                self.on_value_recovered(from, &record);
                continue;
            }
            if self.swarm.behaviour_mut().catchup.book_mut().was_passed(&record, wall()) {
                continue;
            }
            if !self.keeps(topic) || self.judge(&record.wire).is_err() {
                continue;
            }
            let message = record.message();
            let (mut messages, is_broken) = self.unpack(from, &record.id(), &message);
            let access = self.swarm.behaviour().access.access();
            // The neighbour may have other rules, and its memory those of before: nobody is to blame.
            let refused = check_author(access, &self.config.topics, topic, message.source.as_ref()).err();
            let is_large = message.data.len() > self.config.gossip.max_message;
            messages.iter_mut().for_each(|message| message.late = true);
            let refused = is_broken || is_large || refused.is_some();
            if refused || self.validate(&mut messages) != Verdict::Accept {
                log::debug!("message {} on {topic} is not taken from {from}'s memory", record.id());
                self.swarm.behaviour_mut().catchup.book_mut().refuse(&record);
                continue;
            }
            let catchup = &mut self.swarm.behaviour_mut().catchup;
            let position = catchup.book_mut().insert(&record, wall());
            if position.is_some() {
                catchup.learned(&from, &record);
            }
            // What is not kept would be given again, and be new again. What this node said itself, in a life before this
            // one, is kept for others.
            if position.is_none() || message.source.as_ref() == Some(self.swarm.local_peer_id()) {
                continue;
            }
            place_all(&mut messages, position);
            self.deliver_all(messages);
        }
    }
}

impl EventLoop {
    /// A subscription to a topic with what is remembered of it, if it is kept.
    pub(super) fn remembering(&self, subscription: Subscription, start: Start) -> Subscription {
        let book = self.swarm.behaviour().catchup.book();
        let Some(memory) = book.memory(subscription.topic()) else {
            // What was heard before is gone, all of it.
            let gone = Cursor { place: Place::Number(0), mark: 0, skip: 0, gone: true };
            let from = matches!(start, Start::Behind(_)).then_some(gone);
            return subscription.remembering(None, from);
        };
        let mark = memory.last_number();
        let at = |item: Item, gone| Cursor { place: Place::Item(item), mark, skip: 0, gone };
        let from = match start {
            Start::Now => None,
            Start::At(time) => Some(at(Item::at(time), false)),
            Start::Last(count) => Some(last(memory, count, mark)),
            Start::Behind(position) if book.is_own(subscription.topic(), &position) => {
                Some(Cursor::behind(&position, mark))
            }
            // Of another memory nobody knows what this one never had.
            Start::Behind(position) => Some(at(Item::at(position.time), true)),
        };
        let mark = book.position(subscription.topic(), 0, mark, u32::MAX);
        subscription.remembering(Some(mark), from)
    }

    /// A page of what is remembered: judged as live, by the rules of now.
    pub(super) fn page(&self, topic: &str, cursor: Cursor) -> Page {
        let book = self.swarm.behaviour().catchup.book();
        let Some(memory) = book.memory(topic) else { return Page { gone: true, ..Page::default() } };
        let Cursor { place, mark, mut skip, gone } = cursor;
        let (found, gap): (Vec<_>, bool) = match place {
            Place::Item(item) => {
                let behind = memory.from(item).filter(|kept| kept.item != item && kept.number <= mark);
                (behind.take(PAGE).collect(), memory.since(item).gap)
            }
            Place::Number(number) => {
                let mut found = memory.behind(number, PAGE);
                found.retain(|kept| kept.number <= mark);
                // The first is the one of which some was heard, or it is there no more.
                if found.first().is_none_or(|first| first.number != number + 1) {
                    skip = 0;
                }
                let heard = number + u64::from(cursor.skip > 0);
                (found, memory.gone_number() > heard)
            }
        };
        let (mut page, mut bytes, mut read) = (Page { gone: gone || gap, ..Page::default() }, 0, 0);
        for kept in &found {
            let Some(record) = Record::decode(kept.record) else { continue };
            bytes += kept.record.len();
            let mut messages = self.remembered(&record);
            let time = record.place.item.time;
            place_all(&mut messages, Some(book.position(topic, time, kept.number, 0)));
            page.messages.extend(messages.into_iter().skip(std::mem::take(&mut skip)));
            read += 1;
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        let more = found.len() == PAGE || read < found.len();
        page.next = found.get(read.wrapping_sub(1)).filter(|_| more).map(|last| Cursor {
            place: match place {
                Place::Item(_) => Place::Item(last.item),
                Place::Number(_) => Place::Number(last.number),
            },
            mark,
            skip: 0,
            gone: false,
        });
        page
    }

    /// The messages of a record, if the rules let them in.
    fn remembered(&self, record: &Record) -> Vec<Message> {
        let message = record.message();
        let (topic, own) = (message.topic.as_str(), *self.swarm.local_peer_id());
        let access = self.swarm.behaviour().access.access();
        if check_author(access, &self.config.topics, topic, message.source.as_ref()).is_err() {
            return Vec::new();
        }
        // Who brought it is not remembered.
        let (mut messages, _) = self.unpack(own, &record.id(), &message);
        messages.iter_mut().for_each(|message| message.late = true);
        self.validate(&mut messages);
        messages
    }
}

/// From where on the newest messages are, so many of them.
fn last(memory: &Memory, count: usize, mark: u64) -> Cursor {
    let newest: Vec<_> = memory.last(count).collect();
    let (mut messages, mut from) = (0, None);
    for (item, record) in newest.iter().rev() {
        if messages >= count {
            break;
        }
        let message = Record::decode(record).map(|record| record.message());
        let bundle = message.and_then(|message| Bundle::decode(&message.data));
        messages += bundle.and_then(Result::ok).map_or(1, |bundle| bundle.messages.len());
        from = Some(**item);
    }
    let place = from.map_or(Item { time: u64::MAX, id: Id([0xff; 16]) }, |from| from.before());
    Cursor { place: Place::Item(place), mark, skip: messages.saturating_sub(count), gone: false }
}

/// Gives messages the position of their record; those of what is not kept have none.
pub(super) fn place_all(messages: &mut [Message], position: Option<Position>) {
    for message in messages {
        let part = message.position.map_or(0, |position| position.part);
        message.position = position.map(|position| Position { part, ..position });
    }
}
