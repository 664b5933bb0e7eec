//! What all brokers of a space know of a client: whose it is, its will, and what of its session another broker needs to go on
//! with it.
//!
//! ```text
//! record  = version flags owner epoch changed left position expiry user will
//!           subscriptions done incoming inflight
//! version = 01
//! flags   = 1 byte: 1 connected, 2 its broker was gone and another spoke for it, 4 a user, 8 a will
//! ```
//!
//! Numbers are big endian; a text or packet is behind its length in 2 or 4 bytes, a list behind its count in 2.

use std::sync::Arc;

use crate::{message::Qos, retained::Rank, trie::Options};

const VERSION: u8 = 1;
const CONNECTED: u8 = 1;
const FALLEN: u8 = 2;
const USER: u8 = 4;
const WILL: u8 = 8;

/// The largest record that is written: with the client id it has to fit into a message of gossip.
const LARGEST: usize = 48 << 10;

/// A will as it travels: a PUBLISH packet of MQTT 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Testament {
    /// Seconds.
    pub(crate) delay: u32,
    /// Seconds that its message lives; all ones: for ever.
    pub(crate) lifetime: u32,
    pub(crate) packet: Vec<u8>,
}

/// A message at QoS 2 that was sent and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) pid: u16,
    /// Received, and to be released.
    pub(crate) released: bool,
    pub(crate) rank: Rank,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// The broker that it is, or was, connected to.
    pub(crate) owner: u64,
    /// When it connected: a stamp, later than all that its broker had heard.
    pub(crate) epoch: u64,
    /// When this was written.
    pub(crate) changed: u64,
    pub(crate) connected: bool,
    /// Its broker was gone, and another one has published its will.
    pub(crate) fallen: bool,
    /// When its connection ended, microseconds since 1970.
    pub(crate) left: u64,
    /// It has all messages up to here, but for those that are not `done`.
    pub(crate) position: u64,
    /// Seconds that its session outlives its connection.
    pub(crate) expiry: u32,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) will: Option<Testament>,
    pub(crate) subscriptions: Vec<(Arc<str>, Options)>,
    /// Messages behind `position` that it has.
    pub(crate) done: Vec<Rank>,
    /// Packet ids at QoS 2 that it has not released.
    pub(crate) incoming: Vec<u16>,
    pub(crate) inflight: Vec<Sent>,
}

impl Record {
    /// Whether the session may be gone on with at that time, microseconds since 1970.
    pub(crate) fn lasts(&self, time: u64) -> bool {
        self.expiry > 0
            && (self.connected
                || self.expiry == u32::MAX
                || self.left.saturating_add(u64::from(self.expiry) * 1_000_000) > time)
    }

    /// `None` where it is too large.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let mut out = vec![VERSION];
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        out.push(
            flag(self.connected, CONNECTED)
                | flag(self.fallen, FALLEN)
                | flag(self.user.is_some(), USER)
                | flag(self.will.is_some(), WILL),
        );
        for number in [self.owner, self.epoch, self.changed, self.left, self.position] {
            out.extend(number.to_be_bytes());
        }
        out.extend(self.expiry.to_be_bytes());
        if let Some(user) = &self.user {
            put_text(&mut out, user)?;
        }
        if let Some(will) = &self.will {
            out.extend(will.delay.to_be_bytes());
            out.extend(will.lifetime.to_be_bytes());
            out.extend(u32::try_from(will.packet.len()).ok()?.to_be_bytes());
            out.extend_from_slice(&will.packet);
        }
        put_count(&mut out, self.subscriptions.len())?;
        for (filter, options) in &self.subscriptions {
            out.push(options.qos as u8 | flag(options.no_local, 4) | flag(options.retain_as_published, 8));
            out.extend(options.id.to_be_bytes());
            put_text(&mut out, filter)?;
        }
        put_count(&mut out, self.done.len())?;
        self.done.iter().for_each(|rank| put_rank(&mut out, *rank));
        put_count(&mut out, self.incoming.len())?;
        self.incoming.iter().for_each(|pid| out.extend(pid.to_be_bytes()));
        put_count(&mut out, self.inflight.len())?;
        for sent in &self.inflight {
            out.extend(sent.pid.to_be_bytes());
            out.push(u8::from(sent.released));
            put_rank(&mut out, sent.rank);
        }
        (out.len() <= LARGEST).then_some(out)
    }

    /// `None` of what is none, or of another version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        if from.u8()? != VERSION {
            return None;
        }
        let flags = from.u8().filter(|flags| *flags < 16)?;
        let mut record = Self {
            connected: flags & CONNECTED != 0,
            fallen: flags & FALLEN != 0,
            owner: from.u64()?,
            epoch: from.u64()?,
            changed: from.u64()?,
            left: from.u64()?,
            position: from.u64()?,
            expiry: from.u32()?,
            ..Self::default()
        };
        if flags & USER != 0 {
            record.user = Some(from.text()?);
        }
        if flags & WILL != 0 {
            let (delay, lifetime) = (from.u32()?, from.u32()?);
            let length = usize::try_from(from.u32()?).ok()?;
            record.will = Some(Testament { delay, lifetime, packet: from.take(length)?.to_vec() });
        }
        for _ in 0..from.u16()? {
            let bits = from.u8().filter(|bits| *bits < 16 && bits & 3 != 3)?;
            let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(bits & 3)];
            let id = from.u32()?;
            let filter = from.text().filter(|filter| crate::topic::is_filter(filter))?;
            let (no_local, retain_as_published) = (bits & 4 != 0, bits & 8 != 0);
            record.subscriptions.push((filter, Options { qos, no_local, retain_as_published, id }));
        }
        for _ in 0..from.u16()? {
            record.done.push(from.rank()?);
        }
        for _ in 0..from.u16()? {
            record.incoming.push(from.u16()?);
        }
        for _ in 0..from.u16()? {
            let (pid, released) = (from.u16().filter(|pid| *pid > 0)?, from.u8()? != 0);
            record.inflight.push(Sent { pid, released, rank: from.rank()? });
        }
        from.0.is_empty().then_some(record)
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) -> Option<()> {
    out.extend(u16::try_from(count).ok()?.to_be_bytes());
    Some(())
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) -> Option<()> {
    put_count(out, text.len())?;
    out.extend_from_slice(text.as_bytes());
    Some(())
}

fn put_rank(out: &mut Vec<u8>, rank: Rank) {
    out.extend(rank.stamp.to_be_bytes());
    out.extend(rank.node.to_be_bytes());
}

/// What is left to be read.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn text(&mut self) -> Option<Arc<str>> {
        let length = self.u16()?;
        std::str::from_utf8(self.take(length.into())?).ok().map(Into::into)
    }

    fn rank(&mut self) -> Option<Rank> {
        Some(Rank { stamp: self.u64()?, node: self.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_what_is_cut_off_is_none() {
        let options = Options { qos: Qos::ExactlyOnce, no_local: true, retain_as_published: false, id: 7 };
        let rank = |stamp| Rank { stamp, node: 9 };
        let record = Record {
            owner: 1,
            epoch: 2,
            changed: 3,
            connected: true,
            fallen: false,
            left: 4,
            position: 5,
            expiry: 6,
            user: Some("ada".into()),
            will: Some(Testament { delay: 1, lifetime: u32::MAX, packet: vec![1, 2, 3] }),
            subscriptions: vec![("$share/g/a/#".into(), options), ("b".into(), options)],
            done: vec![rank(1), rank(2)],
            incoming: vec![1, 65_535],
            inflight: vec![Sent { pid: 3, released: true, rank: rank(3) }],
        };
        let bytes = record.encode().unwrap();
        assert_eq!(Record::decode(&bytes), Some(record.clone()));
        for length in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..length]), None);
        }
        assert_eq!(Record::decode(&[&bytes[..], &[0]].concat()), None);
        let large = (0..256).map(|n| (format!("{n}/{}", "x".repeat(300)).into(), options)).collect();
        assert_eq!(Record { subscriptions: large, ..record }.encode(), None, "too large");
    }

    #[test]
    fn a_session_lasts_as_long_as_its_expiry_says() {
        let mut record = Record { connected: true, ..Record::default() };
        assert!(!record.lasts(0), "it ends with its connection");
        record.expiry = 2;
        assert!(record.lasts(u64::MAX));
        (record.connected, record.left) = (false, 1_000_000);
        assert!(record.lasts(2_999_999) && !record.lasts(3_000_000));
        record.expiry = u32::MAX;
        assert!(record.lasts(u64::MAX));
    }
}
