//! Messages that are counted in the log instead of having a line each: an SD card would be full of them.
//!
//! Pure: time is handed in.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::event::Event;

/// How long messages are counted before a line says how many there were.
const EVERY: Duration = Duration::from_secs(60);

/// The messages since the last line.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counted: Counted,
    /// When the next line is due, if there is anything to say.
    due: Option<Instant>,
    /// Whether there was a line already.
    is_known: bool,
}

/// What a line says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    received: u64,
    bytes: u64,
    published: u64,
    /// The first line of all: it says where the others are.
    is_first: bool,
}

impl Tally {
    /// Counts an event, if it is about a message. The very first one is due now.
    pub(crate) fn note(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Message(message) => {
                self.counted.received += 1;
                self.counted.bytes += message.data.len() as u64;
            }
            Event::Published { .. } => self.counted.published += 1,
            _ => return,
        }
        let wait = if self.is_known { EVERY } else { Duration::ZERO };
        self.due.get_or_insert(now + wait);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// What is to be said now.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Counted> {
        self.due.take_if(|due| *due <= now)?;
        let is_first = !std::mem::replace(&mut self.is_known, true);
        Some(Counted { is_first, ..std::mem::take(&mut self.counted) })
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { received, bytes, published, is_first } = self;
        write!(f, "counted {received} messages received, {bytes} bytes, and {published} published")?;
        match is_first {
            false => Ok(()),
            true => f.write_str(
                "; the next ones are counted once a minute: log.level = \"info,smidge::message=info\" gives each a line",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::PeerId;

    use super::*;
    use crate::node::{Message, Receipt};

    fn message() -> Event {
        let (id, topic, from) = (String::new(), "t".into(), PeerId::random());
        let (data, sent, position) = ([0; 5].into(), None, None);
        let (source, name) = (None, None);
        Event::Message(Message {
            id,
            topic,
            name,
            source,
            from,
            data,
            local: false,
            sent,
            late: false,
            position,
        })
    }

    #[test]
    fn messages_are_counted_once_a_minute_while_there_are_any_and_the_first_says_how_to_see_each() {
        let (mut tally, start) = (Tally::default(), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        tally.note(&Event::Stopping, start);
        assert_eq!((tally.deadline(), tally.take(at(100))), (None, None), "that was no message");
        tally.note(&message(), start);
        let first = tally.take(start).unwrap().to_string();
        assert!(first.starts_with("counted 1 messages received, 5 bytes, and 0 published; "), "{first}");
        assert!(first.contains("smidge::message=info"), "{first}");
        for n in 1..=600 {
            tally.note(&message(), at(n / 60));
        }
        let receipt = Receipt { id: "1".into(), peers: 1, local: 0, confirmed: Vec::new() };
        tally.note(&Event::Published { receipt, topic: "t".into() }, at(20));
        assert_eq!(tally.deadline(), Some(at(60)));
        assert_eq!(tally.take(at(59)), None);
        let said = tally.take(at(60)).unwrap().to_string();
        assert_eq!(said, "counted 600 messages received, 3000 bytes, and 1 published");
        assert_eq!(
            (tally.deadline(), tally.take(at(1000))),
            (None, None),
            "and nothing where there is nothing"
        );
    }
}
