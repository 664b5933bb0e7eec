//! The records of a name server, and the answer to one packet.
//!
//! Pure: bytes in, bytes out. Follows RFC 1035, RFC 2308 (a name without the wanted records is
//! not a name that does not exist) and RFC 6891 (EDNS). Negative answers carry no SOA, so that
//! they are not cached.

use std::{collections::HashMap, net::IpAddr};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{CNAME, TXT},
    },
};

use crate::dns::name::HostName;

pub(super) const SERVFAIL: ResponseCode = ResponseCode::ServFail;
pub(super) const REFUSED: ResponseCode = ResponseCode::Refused;

/// The largest datagram that every client takes (RFC 1035, 4.2.1).
const MIN_PAYLOAD: u16 = 512;
/// The largest datagram that is sent, however much the client takes.
const MAX_PAYLOAD: u16 = 1232;
/// Aliases that are followed within one answer.
const MAX_ALIASES: usize = 8;
/// Records are for now only.
const TTL: u32 = 0;

/// How a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    Udp,
    Tcp,
}

/// The records of one name.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) texts: Vec<String>,
    pub(super) alias: Option<Name>,
}

/// All records, by name; names are equal in any case.
#[derive(Debug, Default)]
pub(super) struct Zone(HashMap<Name, Records>);

/// `name` as packets hold it.
pub(super) fn wire_name(name: &HostName) -> Name {
    // Cannot fail: a HostName has labels of 1 to 63 bytes and is short enough. The root, which
    // no HostName is, would stand for nothing.
    Name::from_labels(name.as_str().split('.').map(str::as_bytes)).unwrap_or_else(|_| Name::root())
}

impl Zone {
    /// The records of `name`, which exists from now on.
    pub(super) fn entry(&mut self, name: &HostName) -> &mut Records {
        self.0.entry(wire_name(name)).or_default()
    }

    /// Forgets `name`; whether it was there.
    pub(super) fn remove(&mut self, name: &HostName) -> bool {
        self.0.remove(&wire_name(name)).is_some()
    }

    /// The answer to `packet`, or nothing if it is not a question.
    pub(super) fn answer(&self, packet: &[u8], via: Via) -> Option<Vec<u8>> {
        let request = match read(packet) {
            Ok(request) => request,
            Err(refusal) => return refusal,
        };
        let mut response = reply(&request);
        match request.queries.as_slice() {
            _ if request.metadata.op_code != OpCode::Query => {
                response.metadata.response_code = ResponseCode::NotImp;
            }
            [query] if query.query_class != DNSClass::IN => response.metadata.response_code = REFUSED,
            [query] => self.look_up(query, &mut response),
            _ => response.metadata.response_code = ResponseCode::FormErr,
        }
        let limit = match via {
            Via::Tcp => usize::from(u16::MAX),
            Via::Udp => {
                let asked = request.edns.as_ref().map_or(MIN_PAYLOAD, Edns::max_payload);
                asked.clamp(MIN_PAYLOAD, MAX_PAYLOAD).into()
            }
        };
        match response.to_vec() {
            Ok(bytes) if bytes.len() <= limit && !is_cut(&bytes) => Some(bytes),
            // Too much even for TCP, or a text that cannot be encoded.
            _ if via == Via::Tcp => refusal(packet, SERVFAIL),
            _ => response.truncate().to_vec().ok(),
        }
    }

    fn look_up(&self, query: &Query, response: &mut Message) {
        let mut name = query.name.clone();
        for _ in 0..MAX_ALIASES {
            let Some(records) = self.0.get(&name) else {
                if !self.0.keys().any(|below| name.zone_of(below)) {
                    response.metadata.response_code = ResponseCode::NXDomain;
                }
                return;
            };
            let alias = records.alias.clone().filter(|_| query.query_type != RecordType::CNAME);
            let found = records.of_type(query.query_type).into_iter();
            response.add_answers(found.map(|data| Record::from_rdata(name.clone(), TTL, data)));
            let Some(alias) = alias else {
                return;
            };
            response.add_answer(Record::from_rdata(name, TTL, RData::CNAME(CNAME(alias.clone()))));
            name = alias;
        }
    }
}

impl Records {
    fn of_type(&self, kind: RecordType) -> Vec<RData> {
        match kind {
            RecordType::CNAME => self.alias.iter().map(|name| RData::CNAME(CNAME(name.clone()))).collect(),
            // Beside an alias there are no other records.
            _ if self.alias.is_some() => Vec::new(),
            RecordType::A | RecordType::AAAA => {
                let data = self.addresses.iter().map(|addr| RData::from(*addr));
                data.filter(|data| data.record_type() == kind).collect()
            }
            RecordType::TXT => {
                let texts = self.texts.iter();
                texts.map(|t| RData::TXT(TXT::from_bytes(t.as_bytes().chunks(255).collect()))).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// An answer to `packet` with nothing but `code`, or nothing if it is not a question.
pub(super) fn refusal(packet: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    let mut response = match read(packet) {
        Ok(request) => reply(&request),
        Err(refusal) => return refusal,
    };
    response.metadata.response_code = code;
    response.to_vec().ok()
}

/// Whether the encoder set the TC bit: there was more than any message holds.
fn is_cut(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// The question in `packet`, or what to answer to something else: a reply and what is shorter
/// than a header get no answer, since it could go back and forth for ever.
fn read(packet: &[u8]) -> Result<Message, Option<Vec<u8>>> {
    match (Message::from_vec(packet), packet.first_chunk::<12>()) {
        (Ok(message), _) if message.metadata.message_type == MessageType::Query => Ok(message),
        (Err(_), Some([high, low, flags, ..])) if flags & 0x80 == 0 => {
            let id = u16::from_be_bytes([*high, *low]);
            Err(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok())
        }
        _ => Err(None),
    }
}

fn reply(request: &Message) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.authoritative = true;
    response.add_queries(request.queries.iter().cloned());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_PAYLOAD);
        response.set_edns(edns);
    }
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(entries: &[(&str, usize)]) -> Zone {
        let mut zone = Zone::default();
        for (name, addresses) in entries {
            zone.entry(&HostName::parse(name).unwrap()).addresses =
                (0..*addresses).map(|n| IpAddr::from([10, 0, (n >> 8) as u8, n as u8])).collect();
        }
        zone
    }

    fn ask(zone: &Zone, name: &str, kind: RecordType, via: Via, payload: Option<u16>) -> (Message, usize) {
        let mut request = Message::new(7, MessageType::Query, OpCode::Query);
        request.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            request.set_edns(edns);
        }
        let bytes = zone.answer(&request.to_vec().unwrap(), via).unwrap();
        (Message::from_vec(&bytes).unwrap(), bytes.len())
    }

    #[test]
    fn a_missing_name_is_told_from_a_name_without_records() {
        let zone = zone(&[("peer", 1), ("empty", 0), ("a.b.c", 1)]);
        for (name, kind, code, answers) in [
            ("peer.", RecordType::A, ResponseCode::NoError, 1),
            ("PEER.", RecordType::A, ResponseCode::NoError, 1),
            ("peer.", RecordType::AAAA, ResponseCode::NoError, 0),
            ("peer.", RecordType::TXT, ResponseCode::NoError, 0),
            ("empty.", RecordType::A, ResponseCode::NoError, 0),
            ("b.c.", RecordType::A, ResponseCode::NoError, 0),
            ("other.", RecordType::A, ResponseCode::NXDomain, 0),
            ("x.peer.", RecordType::A, ResponseCode::NXDomain, 0),
        ] {
            let (answer, _) = ask(&zone, name, kind, Via::Udp, None);
            assert_eq!(
                (answer.metadata.response_code, answer.answers.len()),
                (code, answers),
                "{name} {kind}"
            );
            assert_eq!(answer.metadata.id, 7);
        }
    }

    #[test]
    fn an_answer_too_long_for_the_datagram_is_cut_and_complete_over_tcp() {
        let zone = zone(&[("peer", 200)]);
        for (via, payload, truncated) in [
            (Via::Udp, None, true),
            (Via::Udp, Some(100), true),
            (Via::Udp, Some(65535), true),
            (Via::Tcp, None, false),
        ] {
            let (answer, len) = ask(&zone, "peer.", RecordType::A, via, payload);
            assert_eq!(answer.metadata.truncation, truncated, "{via:?} {payload:?}");
            assert!(via == Via::Tcp || len <= 512, "{len}");
            assert_eq!(answer.answers.len(), if truncated { 0 } else { 200 });
        }
        assert!(!ask(&zone_of(20), "peer.", RecordType::A, Via::Udp, None).0.metadata.truncation);
        assert!(ask(&zone_of(40), "peer.", RecordType::A, Via::Udp, None).0.metadata.truncation);
        assert!(!ask(&zone_of(40), "peer.", RecordType::A, Via::Udp, Some(1232)).0.metadata.truncation);
    }

    fn zone_of(addresses: usize) -> Zone {
        zone(&[("peer", addresses)])
    }

    #[test]
    fn more_records_than_a_message_holds_are_a_failure_and_no_panic() {
        let (answer, _) = ask(&zone_of(5000), "peer.", RecordType::A, Via::Tcp, None);
        assert_eq!(answer.metadata.response_code, SERVFAIL);
    }

    #[test]
    fn aliases_are_followed_and_a_loop_of_them_ends() {
        let mut zone = zone(&[("end", 2)]);
        for (name, target) in [("start", "middle"), ("middle", "end"), ("round", "about"), ("about", "round")]
        {
            zone.entry(&HostName::parse(name).unwrap()).alias =
                Some(wire_name(&HostName::parse(target).unwrap()));
        }
        assert_eq!(ask(&zone, "start.", RecordType::A, Via::Udp, None).0.answers.len(), 4);
        assert_eq!(ask(&zone, "start.", RecordType::CNAME, Via::Udp, None).0.answers.len(), 1);
        assert_eq!(ask(&zone, "round.", RecordType::A, Via::Udp, None).0.answers.len(), MAX_ALIASES);
    }

    #[test]
    fn what_is_not_a_question_gets_an_error_or_no_answer() {
        let zone = zone_of(1);
        let code = |packet: &[u8]| {
            let answer = zone.answer(packet, Via::Udp)?;
            Some(Message::from_vec(&answer).unwrap().metadata.response_code)
        };
        let mut reply = Message::response(1, OpCode::Query);
        reply.add_query(Query::query(Name::from_ascii("peer.").unwrap(), RecordType::A));
        assert_eq!(code(b""), None);
        assert_eq!(code(b"short"), None);
        assert_eq!(code(&reply.to_vec().unwrap()), None);
        assert_eq!(code(&[0; 12]), Some(ResponseCode::FormErr));
        assert_eq!(code(&[0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0xc0]), Some(ResponseCode::FormErr));
        let update = Message::new(1, MessageType::Query, OpCode::Update).to_vec().unwrap();
        assert_eq!(code(&update), Some(ResponseCode::NotImp));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_asked(packet in any::<Vec<u8>>(), tail in any::<Vec<u8>>()) {
            let zone = zone_of(3);
            zone.answer(&packet, Via::Udp);
            zone.answer(&packet, Via::Tcp);
            let header = [1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
            zone.answer(&[&header[..], &tail].concat(), Via::Udp);
        }
    }
}
