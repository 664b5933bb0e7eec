//! How records, provider entries and known peers are written: the keys and values of the journal.
//!
//! Numbers are little-endian. What expires has the time of its writing and what was left of its life
//! then: a clock that is set back cannot make it live longer than that.

use std::time::{Duration, Instant, UNIX_EPOCH};

use libp2p::{
    Multiaddr, PeerId,
    kad::{ProviderRecord, Record, RecordKey},
};

use crate::runtime;

/// What something is stored under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Row {
    Record(RecordKey),
    Provider(RecordKey, PeerId),
    Peer(PeerId),
}

/// Something stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    Record(Record),
    Provider(ProviderRecord),
    Peer(Known),
}

/// Where a peer was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) addresses: Vec<Multiaddr>,
    /// When, in seconds since 1970.
    pub(super) seen: u64,
}

/// A moment, on the clock that never jumps and on the one that the next run of the node has, too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// Since 1970.
    pub(super) unix: Duration,
}

impl Moment {
    pub(super) fn now() -> Self {
        // A clock before 1970 counts as 1970.
        Self { now: runtime::now(), unix: runtime::wall().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }
}

impl Row {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Record(key) => [b"r", key.as_ref()].concat(),
            Self::Provider(key, peer) => {
                let length = u32::try_from(key.as_ref().len()).unwrap_or(u32::MAX).to_le_bytes();
                [b"p", &length[..], key.as_ref(), &peer.to_bytes()].concat()
            }
            Self::Peer(peer) => [b"k", &peer.to_bytes()[..]].concat(),
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match kind {
            b'r' => Some(Self::Record(rest.to_vec().into())),
            b'p' => {
                let mut input = Input(rest);
                let length = input.u32()? as usize;
                let key = input.take(length)?.to_vec().into();
                Some(Self::Provider(key, PeerId::from_bytes(input.0).ok()?))
            }
            b'k' => Some(Self::Peer(PeerId::from_bytes(rest).ok()?)),
            _ => None,
        }
    }
}

impl Item {
    pub(super) fn encode(&self, at: Moment) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Record(record) => {
                put_life(&mut out, record.expires, at);
                put_bytes(&mut out, &record.publisher.map(PeerId::to_bytes).unwrap_or_default());
                out.extend_from_slice(&record.value);
            }
            Self::Provider(entry) => {
                put_life(&mut out, entry.expires, at);
                put_addresses(&mut out, &entry.addresses);
            }
            Self::Peer(known) => {
                out.extend(known.seen.to_le_bytes());
                put_addresses(&mut out, &known.addresses);
            }
        }
        out
    }

    /// `None` if it is not what `row` has; `Some(None)` if it has expired.
    pub(super) fn decode(row: &Row, bytes: &[u8], at: Moment) -> Option<Option<Self>> {
        let mut input = Input(bytes);
        if let Row::Peer(_) = row {
            // Known peers are a help, and nothing that was promised: one that cannot be read is as if expired.
            let known = input.u64().zip(input.addresses());
            return Some(known.map(|(seen, addresses)| Self::Peer(Known { seen, addresses })));
        }
        let Some(expires) = input.life(at)? else { return Some(None) };
        Some(Some(match row {
            Row::Record(key) => {
                let publisher = match input.bytes()? {
                    [] => None,
                    id => Some(PeerId::from_bytes(id).ok()?),
                };
                let (key, value) = (key.clone(), input.0.to_vec());
                Self::Record(Record { key, value, publisher, expires })
            }
            Row::Provider(key, provider) => {
                let (key, provider, addresses) = (key.clone(), *provider, input.addresses()?);
                Self::Provider(ProviderRecord { key, provider, expires, addresses })
            }
            Row::Peer(_) => return None,
        }))
    }
}

/// Time of writing and life left, both in milliseconds; a life of `u64::MAX` has no end.
fn put_life(out: &mut Vec<u8>, expires: Option<Instant>, at: Moment) {
    let left = expires.map_or(u64::MAX, |expires| millis(expires.saturating_duration_since(at.now)));
    out.extend(millis(at.unix).to_le_bytes());
    out.extend(left.to_le_bytes());
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX - 1)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_addresses(out: &mut Vec<u8>, addresses: &[Multiaddr]) {
    for address in addresses {
        put_bytes(out, address.as_ref());
    }
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    /// An address that this version does not understand is left out; it does not spoil the others.
    fn addresses(&mut self) -> Option<Vec<Multiaddr>> {
        let mut addresses = Vec::new();
        while !self.0.is_empty() {
            addresses.extend(Multiaddr::try_from(self.bytes()?.to_vec()));
        }
        Some(addresses)
    }

    /// When it expires on this run's clock; never; or, with `Some(None)`, it has already.
    fn life(&mut self, at: Moment) -> Option<Option<Option<Instant>>> {
        let (written, left) = (self.u64()?, self.u64()?);
        if left == u64::MAX {
            return Some(Some(None));
        }
        let age = millis(at.unix).saturating_sub(written);
        let Some(left) = left.checked_sub(age).filter(|left| *left > 0) else { return Some(None) };
        // A life past the clock's end has no end.
        Some(Some(at.now.checked_add(Duration::from_millis(left))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn peer(n: u8) -> PeerId {
        libp2p::identity::Keypair::ed25519_from_bytes([n; 32]).unwrap().public().to_peer_id()
    }

    fn items(at: Moment, value: Vec<u8>, left: Option<u64>, with: u8) -> Vec<(Row, Item)> {
        let key = RecordKey::from(value.clone());
        let expires = left.and_then(|left| at.now.checked_add(MS(left)));
        let addresses: Vec<Multiaddr> =
            (0..with % 4).map(|n| format!("/ip4/10.0.0.{n}/udp/4001/quic-v1").parse().unwrap()).collect();
        let publisher = with.is_multiple_of(2).then(|| peer(with));
        let record = Record { key: key.clone(), value, publisher, expires };
        let provider = peer(with);
        let entry = ProviderRecord { key: key.clone(), provider, expires, addresses: addresses.clone() };
        vec![
            (Row::Record(key.clone()), Item::Record(record)),
            (Row::Provider(key, provider), Item::Provider(entry)),
            (Row::Peer(provider), Item::Peer(Known { addresses, seen: 7 })),
        ]
    }

    #[test]
    fn an_address_that_cannot_be_read_does_not_spoil_the_others() {
        let at = Moment { now: Instant::now(), unix: Duration::from_secs(1) };
        let good: [Multiaddr; 2] = ["/ip4/10.0.0.1/udp/4001/quic-v1", "/ip6/fd00::1/tcp/4001"]
            .map(|address| address.parse().unwrap());
        let mut bytes = 7_u64.to_le_bytes().to_vec();
        put_addresses(&mut bytes, &good[..1]);
        put_bytes(&mut bytes, &[0xff; 9]);
        put_addresses(&mut bytes, &good[1..]);
        let row = Row::Peer(peer(1));
        let known = Known { seen: 7, addresses: good.to_vec() };
        assert_eq!(Item::decode(&row, &bytes, at), Some(Some(Item::Peer(known))));
        // A peer that cannot be read at all is forgotten; the store is not refused for it.
        bytes.truncate(bytes.len() - 1);
        assert_eq!(Item::decode(&row, &bytes, at), Some(None));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            value in proptest::collection::vec(any::<u8>(), 0..200),
            left in proptest::option::of(1..u64::from(u32::MAX)),
            with: u8,
        ) {
            let at = Moment { now: Instant::now(), unix: MS(1_700_000_000_000) };
            for (row, item) in items(at, value, left, with) {
                prop_assert_eq!(Row::decode(&row.encode()), Some(row.clone()));
                prop_assert_eq!(Item::decode(&row, &item.encode(at), at), Some(Some(item)));
            }
        }

        #[test]
        fn bytes_of_any_kind_are_read_or_refused(
            key in proptest::collection::vec(any::<u8>(), 0..60),
            value in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let at = Moment { now: Instant::now(), unix: MS(1) };
            if let Some(row) = Row::decode(&key) {
                let _ = Item::decode(&row, &value, at);
            }
        }
    }

    #[test]
    fn a_life_goes_on_while_the_node_is_down_and_never_grows() {
        let start = Moment { now: Instant::now(), unix: MS(1_000_000) };
        let (row, item) = items(start, b"k".to_vec(), Some(10_000), 0).swap_remove(0);
        let bytes = item.encode(start);
        let left = |unix| {
            let at = Moment { now: start.now + MS(77_000), unix: MS(unix) };
            match Item::decode(&row, &bytes, at).unwrap()? {
                Item::Record(record) => Some(record.expires.unwrap() - at.now),
                _ => None,
            }
        };
        assert_eq!(left(1_000_000), Some(MS(10_000)));
        assert_eq!(left(1_004_000), Some(MS(6_000)));
        assert_eq!(left(1_009_999), Some(MS(1)));
        assert_eq!(left(1_010_000), None);
        assert_eq!(left(0), Some(MS(10_000)), "a clock that was set back");
    }
}
