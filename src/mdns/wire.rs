//! The packets of libp2p/specs `discovery/mdns.md`: bytes to what they say, and back.
//!
//! Pure. What arrives is read record by record, never further than a bound, and whatever is not ours to
//! understand is passed over. A packet that breaks the rules of DNS anywhere is refused as a whole.

use std::{collections::HashMap, net::SocketAddr};

use hickory_proto::{
    op::{Header, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{PTR, TXT},
    },
    serialize::binary::{BinDecodable, BinDecoder, DecodeError},
};
use libp2p::{Multiaddr, PeerId};

use crate::config::{TransportKind, check_address};

/// What every peer's PTR record stands under.
const SERVICE: [&str; 3] = ["_p2p", "_udp", "local"];
/// Where a browser of services asks which there are (RFC 6763, section 9).
const TYPES: [&str; 4] = ["_services", "_dns-sd", "_udp", "local"];
/// The largest packet that is read (RFC 6762, section 17).
pub(super) const MAX_PACKET: usize = 9000;
/// The largest packet that is sent: it passes every link whole.
pub(super) const MAX_SENT: usize = 1200;
/// Records and questions of a packet that are read; a packet with more is refused.
pub(super) const MAX_RECORDS: usize = 256;
/// The longest string of a TXT record.
const MAX_TEXT: usize = 255;
/// Bytes of a packet beside its TXT records: the header, and a PTR record with its names.
const ENVELOPE: usize = 12 + 17 + 10 + 66;
/// Bytes of a TXT record beside its string: a name that points to the PTR's, and the fixed fields.
const TEXT_RECORD: usize = 2 + 10 + 1;
/// Characters of the name that a peer's records stand under.
const LABEL: usize = 40;

/// What a packet says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// A query for peers.
    Question {
        /// Which peers.
        peers: bool,
        /// Which services.
        types: bool,
    },
    /// A response that announces peers.
    Answer(Vec<Claim>),
}

/// The claim that a peer is at an address. It is not proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The peer.
    pub(super) peer: PeerId,
    /// Over what.
    pub(super) over: TransportKind,
    /// Where.
    pub(super) at: SocketAddr,
    /// For how many seconds this holds; 0: it does not hold any more.
    pub(super) ttl: u32,
}

/// Why a packet is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0} bytes are more than the {MAX_PACKET} of the longest packet")]
    TooLong(usize),
    #[error("more than {MAX_RECORDS} records")]
    TooMany,
    #[error("not a question or an answer without error")]
    Code,
    /// Said without its source, which quotes names as they came.
    #[error("it breaks the rules of DNS")]
    Malformed(#[from] DecodeError),
}

/// A name for this node's records: at random, since a peer id's text may be too long for a label.
pub(super) fn random_label(rng: &mut fastrand::Rng) -> String {
    (0..LABEL).map(|_| rng.alphanumeric().to_ascii_lowercase()).collect()
}

/// Reads a packet.
pub(super) fn read(bytes: &[u8]) -> Result<Packet, Refused> {
    if bytes.len() > MAX_PACKET {
        return Err(Refused::TooLong(bytes.len()));
    }
    let mut decoder = BinDecoder::new(bytes);
    let Header { metadata, counts } = Header::read(&mut decoder)?;
    if metadata.op_code != OpCode::Query || metadata.response_code != ResponseCode::NoError {
        return Err(Refused::Code);
    }
    let records = [counts.answers, counts.authorities, counts.additionals];
    let records = records.into_iter().map(usize::from).sum::<usize>();
    let questions = usize::from(counts.queries);
    if questions + records > MAX_RECORDS {
        return Err(Refused::TooMany);
    }
    let (service, types) = (name(&SERVICE), name(&TYPES));
    let (mut asks_peers, mut asks_types) = (false, false);
    for _ in 0..questions {
        let query = Query::read(&mut decoder)?;
        let of_kind = matches!(query.query_type, RecordType::PTR | RecordType::ANY);
        asks_peers |= of_kind && query.name == service;
        asks_types |= of_kind && query.name == types;
    }
    if metadata.message_type == MessageType::Query {
        // What follows are answers that the asker knows already.
        return Ok(Packet::Question { peers: asks_peers, types: asks_types });
    }
    let (mut instances, mut texts) = (HashMap::new(), Vec::new());
    for _ in 0..records {
        let record = Record::read(&mut decoder)?;
        match record.data {
            RData::PTR(PTR(instance)) if record.name == service => {
                instances.insert(instance, record.ttl);
            }
            RData::TXT(text) => texts.push((record.name, record.ttl, text)),
            _ => {}
        }
    }
    let mut claims = Vec::new();
    for (name, ttl, text) in texts {
        let Some(listed) = instances.get(&name) else { continue };
        let ttl = ttl.min(*listed);
        claims.extend(text.txt_data.iter().filter_map(|text| claim(text, ttl)));
    }
    Ok(Packet::Answer(claims))
}

/// What one string of a TXT record claims, if it is an address that can be dialed as it stands.
fn claim(text: &[u8], ttl: u32) -> Option<Claim> {
    let address = std::str::from_utf8(text).ok()?.strip_prefix("dnsaddr=")?;
    let address: Multiaddr = address.parse().ok()?;
    let (over, at, peer) = check_address(&address).ok()?;
    (at.port() != 0).then_some(Claim { peer: peer?, over, at, ttl })
}

/// The query for peers. Its id is 0, as RFC 6762 wants it (section 18.1).
pub(super) fn question() -> Vec<u8> {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name(&SERVICE), RecordType::PTR));
    encode(&message)
}

/// Says that `peer` is at `addresses` for `ttl` seconds, in as many packets as that takes. An address too
/// long for a string of a TXT record is left out.
pub(super) fn answers<'a>(
    label: &str,
    peer: &PeerId,
    addresses: impl IntoIterator<Item = &'a Multiaddr>,
    ttl: u32,
) -> Vec<Vec<u8>> {
    let service = name(&SERVICE);
    let instance = name(&[label, SERVICE[0], SERVICE[1], SERVICE[2]]);
    let mut packets = Vec::new();
    let (mut texts, mut size) = (Vec::new(), ENVELOPE);
    let packet = |texts: Vec<String>| {
        let mut message = response();
        message.add_answer(Record::from_rdata(service.clone(), ttl, RData::PTR(PTR(instance.clone()))));
        message.add_additionals(
            texts
                .into_iter()
                .map(|text| Record::from_rdata(instance.clone(), ttl, RData::TXT(TXT::new(vec![text])))),
        );
        encode(&message)
    };
    for address in addresses {
        let text = format!("dnsaddr={address}/p2p/{peer}");
        if text.len() > MAX_TEXT {
            log::debug!("{address} is too long to be announced by mdns");
            continue;
        }
        let more = TEXT_RECORD + text.len();
        if size + more > MAX_SENT {
            packets.push(packet(std::mem::take(&mut texts)));
            size = ENVELOPE;
        }
        size += more;
        texts.push(text);
    }
    if !texts.is_empty() {
        packets.push(packet(texts));
    }
    packets
}

/// Says that there is the service of libp2p.
pub(super) fn types(ttl: u32) -> Vec<u8> {
    let mut message = response();
    message.add_answer(Record::from_rdata(name(&TYPES), ttl, RData::PTR(PTR(name(&SERVICE)))));
    encode(&message)
}

fn response() -> Message {
    let mut message = Message::response(0, OpCode::Query);
    message.metadata.authoritative = true;
    message
}

fn encode(message: &Message) -> Vec<u8> {
    // Cannot fail: our names and strings are as long as they may be. An empty packet, which is no DNS message, is
    // what would be sent.
    message.to_vec().unwrap_or_default()
}

fn name(labels: &[&str]) -> Name {
    // Cannot fail: the labels are constants, or 40 letters. The root is no service.
    Name::from_labels(labels.iter().map(|label| label.as_bytes())).unwrap_or_else(|_| Name::root())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz";

    fn peer() -> PeerId {
        PEER.parse().unwrap()
    }

    fn claims(bytes: &[u8]) -> Vec<Claim> {
        match read(bytes) {
            Ok(Packet::Answer(claims)) => claims,
            other => panic!("{other:?}"),
        }
    }

    /// An answer that lists `instance`, with TXT records of these strings under `owner`.
    fn answer_of(instance: &str, owner: &str, texts: &[&[u8]]) -> Vec<u8> {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let mut message = response();
        message.add_answer(Record::from_rdata(name("_P2P._udp.local."), 90, RData::PTR(PTR(name(instance)))));
        message.add_additional(Record::from_rdata(
            name(owner),
            60,
            RData::TXT(TXT::from_bytes(texts.to_vec())),
        ));
        message.to_vec().unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(read(&question()).unwrap(), Packet::Question { peers: true, types: false });
        let addresses: Vec<Multiaddr> = ["/ip4/10.0.0.1/udp/4001/quic-v1", "/ip6/fd00::1/tcp/4001"]
            .iter()
            .map(|a| a.parse().unwrap())
            .collect();
        let packets = answers("abc", &peer(), &addresses, 360);
        let [packet] = packets.as_slice() else { panic!("{} packets", packets.len()) };
        let expected = [
            (TransportKind::Quic, "10.0.0.1:4001".parse().unwrap()),
            (TransportKind::Tcp, "[fd00::1]:4001".parse().unwrap()),
        ]
        .map(|(over, at)| Claim { peer: peer(), over, at, ttl: 360 });
        assert_eq!(claims(packet), expected);
        assert_eq!(claims(&types(60)), [], "the list of services names no peer");
        let ask = |name| {
            let mut message = Message::new(7, MessageType::Query, OpCode::Query);
            message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::PTR));
            read(&message.to_vec().unwrap()).unwrap()
        };
        let types = Packet::Question { peers: false, types: true };
        assert_eq!(ask("_services._dns-sd._udp.local."), types);
        assert_eq!(ask("_ipp._tcp.local."), Packet::Question { peers: false, types: false });
    }

    /// To write such a name fails an assertion of a dependency, where that is compiled in (Cargo.toml).
    #[test]
    fn a_name_that_is_nearly_punycode_is_refused_in_words_that_do_not_quote_it() {
        let label = b"xn--EWkb\x1eh\x04_p\x00\x00\x00\x01\x08\x00\x00\x00\x00\x04_pudp\x05local\x00\x00\x0c\x00\x01baZkpVA\x92\xc0\x9b\xb3x";
        let mut packet = vec![0, 0, 0x84, 0, 0, 0, 0, 0, 0, 0, 0, 1, 51];
        packet.extend(label);
        packet.extend(b"\x05local\0");
        // An OPT record, whose name has to be the root.
        packet.extend([0, 41, 4, 0, 0, 0, 0, 0, 0, 0]);
        let refused = read(&packet).unwrap_err();
        assert!(
            matches!(refused, Refused::Malformed(_)) && !refused.to_string().contains("local"),
            "{refused}"
        );
    }

    proptest! {
        #[test]
        fn any_number_of_addresses_is_split_over_packets_that_fit(count in 0_usize..300, v6: bool, seed: u64) {
            let own: Vec<Multiaddr> = (0..count)
                .map(|n| if v6 {
                    format!("/ip6/fd00:1111:2222:3333:4444:5555:6666:{n:x}/udp/65535/quic-v1")
                } else {
                    format!("/ip4/10.0.{}.{}/tcp/4001", n / 250, n % 250 + 1)
                }.parse().unwrap())
                .collect();
            let label = random_label(&mut fastrand::Rng::with_seed(seed));
            let packets = answers(&label, &peer(), &own, 7);
            let mut found = Vec::new();
            for packet in &packets {
                prop_assert!(packet.len() <= MAX_SENT, "{} bytes", packet.len());
                let said = claims(packet);
                prop_assert!(!said.is_empty());
                found.extend(said.into_iter().map(|claim| claim.over.at(claim.at)));
            }
            prop_assert_eq!(found, own);
        }

        #[test]
        fn any_bytes_are_read_or_refused_and_claim_no_more_than_they_can_hold(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            flip in proptest::collection::vec((0_usize..200, any::<u8>()), 0..4),
        ) {
            let _ = read(&bytes);
            // A packet that is nearly right, too.
            let own = "/ip4/10.0.0.1/udp/4001/quic-v1".parse().unwrap();
            let mut packet = answers("abc", &peer(), [&own], 7).remove(0);
            for (at, byte) in flip {
                let at = at % packet.len();
                packet[at] = byte;
            }
            if let Ok(Packet::Answer(claims)) = read(&packet) {
                prop_assert!(claims.len() <= 1);
            }
        }
    }

    #[test]
    fn an_address_too_long_for_a_string_is_left_out_and_the_others_are_not() {
        let long: Multiaddr = format!("/dns4/{}/tcp/1", "a".repeat(200)).parse().unwrap();
        let short = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        assert_eq!(claims(&answers("abc", &peer(), [&long, &short], 7)[0]).len(), 1);
        assert!(answers("abc", &peer(), [&long], 7).is_empty());
    }

    #[test]
    fn only_addresses_that_can_be_dialed_and_belong_to_a_listed_peer_are_taken_from_an_answer() {
        let at = |text: &str| format!("dnsaddr={text}").into_bytes();
        let good = at(&format!("/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{PEER}"));
        let taken = |text: &[u8]| claims(&answer_of("x.local.", "X.LOCAL.", &[text])).len();
        assert_eq!(taken(&good), 1, "names are equal in any case");
        assert_eq!(claims(&answer_of("x.local.", "x.local.", &[&good]))[0].ttl, 60, "the shorter of the two");
        assert_eq!(claims(&answer_of("x.local.", "x.local.", &[b"noise", &good, &good])).len(), 2);
        assert_eq!(claims(&answer_of("x.local.", "y.local.", &[&good])), [], "not listed");
        for text in [
            "",
            "/ip4/10.0.0.1/udp/4001/quic-v1",
            &format!("/ip4/10.0.0.1/udp/0/quic-v1/p2p/{PEER}"),
            &format!("/ip4/10.0.0.1/udp/4001/p2p/{PEER}"),
            &format!("/ip4/10.0.0.1/tcp/4001/ws/p2p/{PEER}"),
            &format!("/ip4/10.0.0.1/tcp/99999/p2p/{PEER}"),
            &format!("/ip4//tcp/4001/p2p/{PEER}"),
            &format!("/dns4/example.com/tcp/4001/p2p/{PEER}"),
            &format!("/p2p/{PEER}/p2p-circuit"),
            &format!("/ip4/10.0.0.1/tcp/4001/p2p/{PEER}/p2p-circuit/p2p/{PEER}"),
            "/ip4/10.0.0.1/tcp/4001/p2p/nobody",
            "/ip4/１０.0.0.1/tcp/4001/p2p/ünï",
        ] {
            assert_eq!(taken(&at(text)), 0, "{text}");
        }
        for text in [&b""[..], b"dnsaddr=", b"DNSADDR=/ip4", b"dnsaddr=\xff\xfe", &[0; 255], &good[8..]] {
            assert_eq!(taken(text), 0, "{text:?}");
        }
    }

    #[test]
    fn a_packet_that_breaks_the_rules_is_refused() {
        let own = "/ip4/10.0.0.1/udp/4001/quic-v1".parse().unwrap();
        let good = answers("abc", &peer(), [&own], 7).remove(0);
        for end in 0..good.len() {
            assert!(read(&good[..end]).is_err(), "cut after {end} bytes");
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        assert!(matches!(read(&with(2, 0x84 | 0x28)), Err(Refused::Code)), "an update");
        assert!(matches!(read(&with(3, 3)), Err(Refused::Code)), "a response code");
        assert!(matches!(read(&with(6, 0xff)), Err(Refused::TooMany)), "65281 answers");
        assert!(matches!(read(&vec![0; 1 << 16]), Err(Refused::TooLong(65536))));
        // A name that points at itself, two that point at each other, and one that points ahead.
        for name in [&[0xc0, 12][..], &[0xc0, 14, 0xc0, 12], &[0xc0, 40], &[1, b'a', 0xc0, 12], &[0x80, 1]] {
            let mut bytes = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
            bytes.extend(name);
            bytes.extend([0, 12, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12]);
            assert!(matches!(read(&bytes), Err(Refused::Malformed(_))), "{name:?}");
        }
    }
}
