//! Protobuf, written by hand: sizes first, so that a frame is written once and in one piece.

use super::{
    Choke, Extensions, IHave, MessageParts, PeerInfo, Prune, Rpc, Subscription, WireMessage,
    wire::{Part, Places},
};
use crate::{MessageId, Topic, queue::ControlItem};

pub(super) const VARINT: u8 = 0;
pub(super) const LEN: u8 = 2;

/// Bytes of a number as a varint.
pub(super) fn varint_len(value: u64) -> usize {
    // Seven bits to a byte, and one byte for 0.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of a field with one-byte tag that holds `len` bytes; also those of a frame, less one.
fn field_len(len: usize) -> usize {
    1 + delimited_len(len)
}

/// Bytes of something of `len` bytes behind its length.
fn delimited_len(len: usize) -> usize {
    varint_len(len as u64) + len
}

fn put_key(field: u8, wire_type: u8, out: &mut Vec<u8>) {
    out.push(field << 3 | wire_type);
}

fn put_head(field: u8, len: usize, out: &mut Vec<u8>) {
    put_key(field, LEN, out);
    put_varint(len as u64, out);
}

fn put_bytes(field: u8, bytes: &[u8], out: &mut Vec<u8>) -> Part {
    put_head(field, bytes.len(), out);
    let start = out.len();
    out.extend_from_slice(bytes);
    Part::new(start, out.len())
}

/// Bytes of a message's encoding.
pub(super) fn parts_len(parts: &MessageParts<'_>) -> usize {
    let MessageParts { from, data, seqno, topic, signature, key } = parts;
    let optional = [from, data, seqno, signature, key].into_iter().flatten();
    optional.map(|field| field_len(field.len())).sum::<usize>() + field_len(topic.len())
}

/// Appends a signature, and the key that it is checked with.
pub(super) fn signature(signature: &[u8], key: Option<&[u8]>, out: &mut Vec<u8>) -> (Part, Part) {
    (put_bytes(5, signature, out), key.map_or(Part::NONE, |key| put_bytes(6, key, out)))
}

/// Appends a message's encoding; the places are counted from the buffer's beginning.
pub(super) fn parts(parts: &MessageParts<'_>, out: &mut Vec<u8>) -> Places {
    let mut put = |field, bytes: Option<&[u8]>| match bytes {
        Some(bytes) => put_bytes(field, bytes, out),
        None => Part::NONE,
    };
    Places {
        from: put(1, parts.from),
        data: put(2, parts.data),
        seqno: put(3, parts.seqno),
        topic: put(4, Some(parts.topic.as_bytes())),
        signature: put(5, parts.signature),
        key: put(6, parts.key),
    }
}

/// Bytes of a message as a field of an RPC.
pub(crate) fn message_len(message: &WireMessage) -> usize {
    field_len(message.encoded().len())
}

pub(crate) fn put_message(message: &WireMessage, out: &mut Vec<u8>) {
    put_bytes(2, message.encoded(), out);
}

/// Bytes of a subscription as a field of an RPC.
pub(crate) fn subscription_len(topic: &Topic) -> usize {
    field_len(2 + field_len(topic.as_str().len()))
}

pub(crate) fn put_subscription(topic: &Topic, subscribe: bool, out: &mut Vec<u8>) {
    put_head(1, 2 + field_len(topic.as_str().len()), out);
    put_key(1, VARINT, out);
    out.push(u8::from(subscribe));
    put_bytes(2, topic.as_str().as_bytes(), out);
}

fn ids_len(ids: &[MessageId]) -> usize {
    ids.iter().map(|id| field_len(id.len())).sum()
}

fn put_ids(field: u8, ids: &[MessageId], out: &mut Vec<u8>) {
    for id in ids {
        put_bytes(field, id.as_bytes(), out);
    }
}

fn ihave_len(ihave: &IHave) -> usize {
    field_len(ihave.topic.as_str().len()) + ids_len(&ihave.ids)
}

fn peer_len(info: &PeerInfo) -> usize {
    // An inlined key or a hash of 32 bytes: 36 to 44 bytes.
    let record = info.record.as_ref().map_or(0, |record| field_len(record.len()));
    field_len(info.peer.to_bytes().len()) + record
}

fn prune_len(prune: &Prune) -> usize {
    field_len(prune.topic.as_str().len())
        + prune.peers.iter().map(|info| field_len(peer_len(info))).sum::<usize>()
        + prune.backoff.map_or(0, |backoff| 1 + varint_len(backoff.as_secs()))
}

fn extensions_len(extensions: &Extensions) -> usize {
    extensions.iter().map(|field| varint_len(u64::from(field) << 3) + 1).sum()
}

/// Bytes of one control message as a field of `ControlMessage`.
pub(crate) fn control_len(item: &ControlItem) -> usize {
    field_len(match item {
        ControlItem::IHave(ihave) => ihave_len(ihave),
        ControlItem::IWant(ids) | ControlItem::IDontWant(ids) => ids_len(ids),
        ControlItem::Graft(topic) => field_len(topic.as_str().len()),
        ControlItem::Prune(prune) => prune_len(prune),
        ControlItem::Extensions(extensions) => extensions_len(extensions),
        // It has a place of its own in an RPC.
        ControlItem::Choke(_) => return 0,
    })
}

pub(crate) fn put_control_item(item: &ControlItem, out: &mut Vec<u8>) {
    match item {
        ControlItem::IHave(ihave) => {
            put_head(1, ihave_len(ihave), out);
            put_bytes(1, ihave.topic.as_str().as_bytes(), out);
            put_ids(2, &ihave.ids, out);
        }
        ControlItem::IWant(ids) => {
            put_head(2, ids_len(ids), out);
            put_ids(1, ids, out);
        }
        ControlItem::Graft(topic) => {
            put_head(3, field_len(topic.as_str().len()), out);
            put_bytes(1, topic.as_str().as_bytes(), out);
        }
        ControlItem::Prune(prune) => put_prune(prune, out),
        ControlItem::IDontWant(ids) => {
            put_head(5, ids_len(ids), out);
            put_ids(1, ids, out);
        }
        ControlItem::Extensions(extensions) => {
            put_head(6, extensions_len(extensions), out);
            for field in extensions.iter() {
                put_varint(u64::from(field) << 3 | u64::from(VARINT), out);
                out.push(1);
            }
        }
        ControlItem::Choke(_) => {}
    }
}

fn put_prune(prune: &Prune, out: &mut Vec<u8>) {
    put_head(4, prune_len(prune), out);
    put_bytes(1, prune.topic.as_str().as_bytes(), out);
    for info in &prune.peers {
        put_head(2, peer_len(info), out);
        put_bytes(1, &info.peer.to_bytes(), out);
        if let Some(record) = &info.record {
            put_bytes(2, record, out);
        }
    }
    if let Some(backoff) = prune.backoff {
        put_key(3, VARINT, out);
        put_varint(backoff.as_secs(), out);
    }
}

/// Bytes of one topic in the message of [`Extensions::CHOKE`].
pub(crate) fn choke_len(topic: &Topic) -> usize {
    field_len(topic.as_str().len())
}

/// Appends that message as a field of an RPC, and nothing where there are no topics.
pub(crate) fn put_choke<'a>(chokes: impl Iterator<Item = (&'a Topic, bool)> + Clone, out: &mut Vec<u8>) {
    let len: usize = chokes.clone().map(|(topic, _)| choke_len(topic)).sum();
    if len == 0 {
        return;
    }
    put_varint(CHOKE_KEY, out);
    put_varint(len as u64, out);
    for (topic, choked) in chokes {
        put_bytes(if choked { 1 } else { 2 }, topic.as_str().as_bytes(), out);
    }
}

const CHOKE_KEY: u64 = (Extensions::CHOKE as u64) << 3 | LEN as u64;

/// Writes a frame of a size that is known beforehand: [`FrameWriter::begin`], then fields of the RPC.
pub(crate) enum FrameWriter {}

impl FrameWriter {
    /// Begins a frame whose fields are `len` bytes altogether.
    pub(crate) fn begin(len: usize, out: &mut Vec<u8>) {
        out.reserve(delimited_len(len));
        put_varint(len as u64, out);
    }

    /// Begins the control message, whose items are `len` bytes altogether.
    pub(crate) fn control(len: usize, out: &mut Vec<u8>) {
        put_head(3, len, out);
    }

    /// Bytes of the message of [`Extensions::CHOKE`], whose topics are `len` bytes altogether.
    pub(crate) fn choke_len(len: usize) -> usize {
        if len == 0 { 0 } else { varint_len(CHOKE_KEY) + delimited_len(len) }
    }

    /// Bytes of a control message whose items are `len` bytes.
    pub(crate) fn control_len(len: usize) -> usize {
        if len == 0 { 0 } else { field_len(len) }
    }
}

/// Appends `rpc` behind its length.
pub(super) fn rpc(rpc: &Rpc, out: &mut Vec<u8>) {
    let control = &rpc.control;
    let ids = |ids: &Vec<MessageId>, item: fn(Vec<MessageId>) -> ControlItem| {
        (!ids.is_empty()).then(|| item(ids.clone()))
    };
    let items: Vec<ControlItem> = (control.extensions.iter().cloned().map(ControlItem::Extensions))
        .chain(control.ihave.iter().cloned().map(ControlItem::IHave))
        .chain(ids(&control.iwant, ControlItem::IWant))
        .chain(control.graft.iter().cloned().map(ControlItem::Graft))
        .chain(control.prune.iter().cloned().map(ControlItem::Prune))
        .chain(ids(&control.idontwant, ControlItem::IDontWant))
        .collect();
    let items_len = items.iter().map(control_len).sum();
    let chokes = control.choke.iter().map(|Choke { topic, choked }| (topic, *choked));
    let choke_len = FrameWriter::choke_len(chokes.clone().map(|(topic, _)| choke_len(topic)).sum());
    let len = rpc.subscriptions.iter().map(|s| subscription_len(&s.topic)).sum::<usize>()
        + rpc.publish.iter().map(message_len).sum::<usize>()
        + FrameWriter::control_len(items_len)
        + choke_len;
    FrameWriter::begin(len, out);
    for Subscription { topic, subscribe } in &rpc.subscriptions {
        put_subscription(topic, *subscribe, out);
    }
    for message in &rpc.publish {
        put_message(message, out);
    }
    if items_len > 0 {
        FrameWriter::control(items_len, out);
        for item in &items {
            put_control_item(item, out);
        }
    }
    put_choke(chokes, out);
}
