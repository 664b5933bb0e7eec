//! A message as it is kept: as its author signed it, to be verified again by whoever gets it.

use bytes::Bytes;
use libp2p::PeerId;
use smidge_catchup::{Id, Item, Memory, Store};

use super::{
    maps::Values,
    number::{Place, place},
};
use crate::gossip::{Message, Topic, Validation, WireMessage};

/// A signed message with its place. The signature is not looked at here.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) place: Place,
    pub(crate) author: PeerId,
    pub(crate) sequence: u64,
    pub(crate) wire: WireMessage,
}

impl Record {
    /// `None` for what nobody could verify or put in its place: without signature, author or number.
    pub(crate) fn of(wire: &WireMessage) -> Option<Self> {
        let claims = Validation::Strict.claims(wire).ok()?;
        let (author, sequence) = claims.source.zip(claims.sequence)?;
        Some(Self { place: place(&author, sequence), author, sequence, wire: wire.clone() })
    }

    pub(crate) fn decode(record: &[u8]) -> Option<Self> {
        Self::of(&WireMessage::decode(&Bytes::copy_from_slice(record))?)
    }

    pub(crate) fn item(&self) -> Item {
        self.place.item
    }

    /// What stands for its author in a memory.
    pub(crate) fn author_id(&self) -> Id {
        Id::of(&self.author.to_bytes())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.wire.encoded()
    }

    pub(crate) fn message(&self) -> Message {
        Message {
            source: Some(self.author),
            sequence: Some(self.sequence),
            topic: Topic::from(self.wire.topic()),
            data: self.wire.data_bytes(),
        }
    }

    /// Its id where ids are by source.
    pub(crate) fn id(&self) -> String {
        format!("{}{}", self.author, self.sequence)
    }
}

/// The memory of a topic as a session sees it.
pub(crate) struct Shelf<'a> {
    pub(super) topic: &'a str,
    pub(super) memory: &'a Memory,
}

impl Store for Shelf<'_> {
    fn record(&self, item: &Item) -> Option<&[u8]> {
        self.memory.get(item)
    }

    fn item(&self, record: &[u8]) -> Option<Item> {
        // A message of another topic, however well signed, is none of this one's.
        Record::decode(record).filter(|record| record.wire.topic() == self.topic).map(|record| record.item())
    }
}

/// What is kept of a topic, of either kind.
pub(crate) enum Shelves<'a> {
    Messages(Shelf<'a>),
    Values(Values<'a>),
}

impl Store for Shelves<'_> {
    fn record(&self, item: &Item) -> Option<&[u8]> {
        match self {
            Self::Messages(shelf) => shelf.record(item),
            Self::Values(values) => values.record(item),
        }
    }

    fn item(&self, record: &[u8]) -> Option<Item> {
        match self {
            Self::Messages(shelf) => shelf.item(record),
            Self::Values(values) => values.item(record),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::{Authenticity, Author};

    fn signed(topic: &str) -> WireMessage {
        let key = libp2p::identity::Keypair::generate_ed25519();
        let mut author = Author::new(Authenticity::Signed(key), 7);
        author.compose(&Topic::from(topic), b"data", &mut fastrand::Rng::new()).unwrap()
    }

    #[test]
    fn a_record_is_read_back_as_it_was_signed_and_is_of_its_topic_alone() {
        let wire = signed("t");
        let record = Record::decode(wire.encoded()).unwrap();
        assert_eq!((record.bytes(), record.message().data.as_ref()), (&wire.encoded()[..], &b"data"[..]));
        assert!(crate::gossip::Verifier::default().verify(&record.wire));
        let memory = Memory::new(Default::default());
        assert_eq!(Shelf { topic: "t", memory: &memory }.item(wire.encoded()), Some(record.item()));
        assert_eq!(Shelf { topic: "u", memory: &memory }.item(wire.encoded()), None);
        let mut longer = wire.encoded().to_vec();
        longer.extend_from_slice(&[0x3a, 0]);
        assert!(Record::decode(&longer).is_none(), "an unknown field, which the signature does not cover");
        let parts = crate::gossip::MessageParts { signature: None, ..wire.parts() };
        assert!(Record::of(&WireMessage::new(&parts)).is_none());
    }
}
