//! How memories are written: the keys and values of a file's rows.
//!
//! A key begins with a letter and the first 8 bytes of the topic's [`Id`]; numbers are little-endian. A topic (`t`) has its
//! head, a message (`m`, and its item) its number and the record, a floor (`f`, and its author, or nothing for that of all
//! others) an item. Of values by key there are the values (`v`, and what the key's [`Id`] is) and since when this node's copy
//! is whole (`p`).

use smidge_catchup::{Id, Item};

use super::record::Record;

/// What a topic's rows begin with, behind the letter.
pub(super) type Tag = [u8; 8];

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    Topic,
    Message(Item),
    Floor(Option<Id>),
    /// Of a key.
    Value(Id),
    Presence,
}

/// What is kept of a topic beside its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The name of the memory, in positions.
    pub(super) name: u32,
    /// The node ended in good order: nothing is missing, and no number above `last` was given out. Otherwise what came
    /// last may be missing, with numbers up to `last`.
    pub(super) is_whole: bool,
    pub(super) last: u64,
    /// The highest number of what was let go.
    pub(super) gone: u64,
}

pub(super) fn tag(topic: &str) -> Tag {
    let mut tag = Tag::default();
    tag.copy_from_slice(&Id::of(topic.as_bytes()).0[..8]);
    tag
}

pub(super) fn key(tag: &Tag, row: &Row) -> Vec<u8> {
    let (letter, rest) = match row {
        Row::Topic => (b't', Vec::new()),
        Row::Message(item) => (b'm', put_item(item).to_vec()),
        Row::Floor(author) => (b'f', author.map(|id| id.0.to_vec()).unwrap_or_default()),
        Row::Value(id) => (b'v', id.0.to_vec()),
        Row::Presence => (b'p', Vec::new()),
    };
    [&[letter], &tag[..], &rest].concat()
}

pub(super) fn read_key(key: &[u8]) -> Option<(Tag, Row)> {
    let (letter, rest) = key.split_first()?;
    let (tag, rest) = rest.split_first_chunk::<8>()?;
    let row = match (letter, rest) {
        (b't', []) => Row::Topic,
        (b'm', item) => Row::Message(read_item(item)?),
        (b'f', []) => Row::Floor(None),
        (b'f', author) => Row::Floor(Some(Id(author.try_into().ok()?))),
        (b'v', id) => Row::Value(Id(id.try_into().ok()?)),
        (b'p', []) => Row::Presence,
        _ => return None,
    };
    Some((*tag, row))
}

pub(super) fn put_item(item: &Item) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&item.time.to_le_bytes());
    bytes[8..].copy_from_slice(&item.id.0);
    bytes
}

pub(super) fn read_item(bytes: &[u8]) -> Option<Item> {
    let (time, id) = bytes.split_first_chunk::<8>()?;
    Some(Item { time: u64::from_le_bytes(*time), id: Id(id.try_into().ok()?) })
}

pub(super) fn put_message(number: u64, record: &[u8]) -> Vec<u8> {
    [&number.to_le_bytes(), record].concat()
}

/// Since when a copy is whole, and when others were there last, 0 if never: milliseconds since 1970.
pub(super) fn put_presence(since: u64, left: Option<u64>) -> Vec<u8> {
    [since.to_le_bytes(), left.unwrap_or(0).to_le_bytes()].concat()
}

pub(super) fn read_presence(bytes: &[u8]) -> Option<(u64, Option<u64>)> {
    let (since, left) = bytes.split_first_chunk::<8>()?;
    let left = u64::from_le_bytes(left.try_into().ok()?);
    Some((u64::from_le_bytes(*since), (left > 0).then_some(left)))
}

/// A message's number and record, if it is what its key says, of that topic.
pub(super) fn read_message(item: &Item, topic: &str, value: &[u8]) -> Option<(u64, Record)> {
    let (number, record) = value.split_first_chunk::<8>()?;
    let record = Record::decode(record)?;
    let is_right = record.item() == *item && record.wire.topic() == topic;
    is_right.then_some((u64::from_le_bytes(*number), record))
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { name, is_whole, last, gone } = self;
        let mut bytes = name.to_le_bytes().to_vec();
        bytes.push(u8::from(*is_whole));
        bytes.extend(last.to_le_bytes());
        bytes.extend(gone.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (name, rest) = bytes.split_first_chunk::<4>()?;
        let (whole, rest) = rest.split_first()?;
        let (last, rest) = rest.split_first_chunk::<8>()?;
        // What a later version has behind it is its own affair.
        let gone = rest.first_chunk::<8>()?;
        Some(Self {
            name: u32::from_le_bytes(*name),
            is_whole: *whole == 1,
            last: u64::from_le_bytes(*last),
            gone: u64::from_le_bytes(*gone),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn rows_are_read_as_they_are_written(time: u64, id: [u8; 16], number: u64, name: u32, is_whole: bool) {
            let item = Item { time, id: Id(id) };
            let tag = tag("prices");
            for row in [Row::Topic, Row::Message(item), Row::Floor(None), Row::Floor(Some(item.id)), Row::Value(item.id), Row::Presence] {
                assert_eq!(read_key(&key(&tag, &row)), Some((tag, row)));
            }
            assert_eq!(read_item(&put_item(&item)), Some(item));
            assert_eq!(read_presence(&put_presence(time, Some(number.max(1)))), Some((time, Some(number.max(1)))));
            assert_eq!(read_presence(&put_presence(time, None)), Some((time, None)));
            let head = Head { name, is_whole, last: number, gone: time };
            assert_eq!(Head::decode(&head.encode()), Some(head));
        }

        #[test]
        fn no_bytes_are_more_than_no_row(key: Vec<u8>, value: Vec<u8>) {
            let _ = (read_key(&key), Head::decode(&value), read_presence(&value));
            let _ = read_message(&Item::at(0), "t", &value);
        }
    }
}
