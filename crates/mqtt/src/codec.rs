//! Packets to what a broker is asked for, and back, on mqtt-proto.
//!
//! What that codec lets pass and the specification does not is refused here: bytes behind a packet's end, a password
//! without a user name before MQTT 5, zeros where there may be none, U+0000 in strings. What a client of MQTT 3 sends looks
//! like the same of MQTT 5 afterwards.

use mqtt_proto::{Error, Pid, Protocol, VarBytes, v3, v5};
pub(crate) use v5::DisconnectReasonCode as Reason;

use crate::topic;

/// Why a connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: Reason,
    pub(crate) why: &'static str,
}

pub(crate) const fn fault(reason: Reason, why: &'static str) -> Fault {
    Fault { reason, why }
}

const MALFORMED: Fault = fault(Reason::MalformedPacket, "malformed packet");

/// What a client asks for.
#[derive(Debug)]
pub(crate) enum Incoming {
    Publish(v5::Publish),
    /// With the packet id; acknowledgements say by their reason code whether they refuse.
    Puback(u16),
    Pubrec(u16, u8),
    Pubrel(u16),
    Pubcomp(u16),
    Subscribe(v5::Subscribe),
    Unsubscribe(v5::Unsubscribe),
    Ping,
    Disconnect(v5::Disconnect),
    Auth,
}

/// Why a CONNECT is not understood.
#[derive(Debug)]
pub(crate) enum NoConnect {
    /// MQTT, in a version that is not spoken here.
    Version,
    Malformed,
}

/// Where the first packet in `bytes` is: its first byte, how long its head is, and where it ends. `None` while its head is
/// not complete; its body may still be on its way.
pub(crate) fn frame(bytes: &[u8], most: usize) -> Result<Option<(u8, usize, usize)>, Fault> {
    let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
    let mut length = 0_usize;
    for (n, byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            let head = 2 + n;
            return if *byte == 0 && n > 0 {
                Err(fault(Reason::MalformedPacket, "a length that is not as short as it can be"))
            } else if head + length > most {
                Err(fault(Reason::PacketTooLarge, "a packet above the limit"))
            } else {
                Ok(Some((*first, head, head + length)))
            };
        }
    }
    if rest.len() < 4 { Ok(None) } else { Err(MALFORMED) }
}

/// A CONNECT packet, of any version.
pub(crate) fn connect(body: &[u8]) -> Result<Box<v5::Connect>, NoConnect> {
    let mut at = 0;
    let protocol = match Protocol::decode(body, &mut at) {
        Ok(protocol) => protocol,
        Err(Error::InvalidProtocol(name, _)) if matches!(&*name, "MQTT" | "MQIsdp") => {
            return Err(NoConnect::Version);
        }
        Err(_) => return Err(NoConnect::Malformed),
    };
    let flags = *body.get(at).ok_or(NoConnect::Malformed)?;
    let (has_user, has_password, will) = (flags & 0x80 != 0, flags & 0x40 != 0, flags & 0b11_1100);
    // [MQTT-3.1.2-22] of 3.1.1; [MQTT-3.1.2-11] and [MQTT-3.1.2-13]: nothing about a will that there is not.
    if (protocol != Protocol::V500 && has_password && !has_user) || (will & 0b100 == 0 && will != 0) {
        return Err(NoConnect::Malformed);
    }
    let connect = if protocol == Protocol::V500 {
        let header = v5::Header::new_with(0x10, body.len() as u32, 0).map_err(|_| NoConnect::Malformed)?;
        v5::Connect::decode_buffer_with_protocol(body, &mut at, header, protocol)
            .map_err(|_| NoConnect::Malformed)?
    } else {
        v3::Connect::decode_buffer_with_protocol(body, &mut at, protocol)
            .map(as_5)
            .map_err(|_| NoConnect::Malformed)?
    };
    let properties = &connect.properties;
    let zero = properties.receive_max == Some(0)
        || properties.max_packet_size == Some(0)
        || (properties.auth_data.is_some() && properties.auth_method.is_none());
    let has_nul = connect.client_id.contains('\0')
        || connect.username.as_ref().is_some_and(|user| user.contains('\0'))
        || has_nul(&properties.user_properties);
    if at != body.len() || zero || has_nul {
        return Err(NoConnect::Malformed);
    }
    Ok(Box::new(connect))
}

fn as_5(connect: v3::Connect) -> v5::Connect {
    let last_will = connect.last_will.map(|will| v5::LastWill {
        qos: will.qos,
        retain: will.retain,
        topic_name: will.topic_name,
        payload: will.message,
        properties: v5::WillProperties::default(),
    });
    v5::Connect {
        protocol: connect.protocol,
        clean_start: connect.clean_session,
        keep_alive: connect.keep_alive,
        properties: v5::ConnectProperties::default(),
        client_id: connect.client_id,
        last_will,
        username: connect.username,
        password: connect.password,
    }
}

fn has_nul(properties: &[v5::UserProperty]) -> bool {
    properties.iter().any(|property| property.name.contains('\0') || property.value.contains('\0'))
}

/// Any packet after CONNECT.
pub(crate) fn packet(protocol: Protocol, first: u8, body: &[u8]) -> Result<Incoming, Fault> {
    if protocol == Protocol::V500 { packet_5(first, body) } else { packet_3(protocol, first, body) }
}

fn packet_5(first: u8, body: &[u8]) -> Result<Incoming, Fault> {
    let header = v5::Header::new_with(first, body.len() as u32, 0).map_err(|_| MALFORMED)?;
    let mut at = 0;
    let incoming = match header.typ {
        v5::PacketType::Publish => {
            let publish = v5::Publish::decode(body, &mut at, header).map_err(why)?;
            check_publish(&publish)?;
            Incoming::Publish(publish)
        }
        v5::PacketType::Puback => {
            Incoming::Puback(v5::Puback::decode(body, &mut at, header).map_err(why)?.pid.value())
        }
        v5::PacketType::Pubrec => {
            let pubrec = v5::Pubrec::decode(body, &mut at, header).map_err(why)?;
            Incoming::Pubrec(pubrec.pid.value(), pubrec.reason_code as u8)
        }
        v5::PacketType::Pubrel => {
            Incoming::Pubrel(v5::Pubrel::decode(body, &mut at, header).map_err(why)?.pid.value())
        }
        v5::PacketType::Pubcomp => {
            Incoming::Pubcomp(v5::Pubcomp::decode(body, &mut at, header).map_err(why)?.pid.value())
        }
        v5::PacketType::Subscribe => {
            let subscribe = v5::Subscribe::decode(body, &mut at, header).map_err(why)?;
            if subscribe.properties.subscription_id.is_some_and(|id| id.value() == 0) {
                return Err(fault(Reason::ProtocolError, "a subscription identifier of 0"));
            }
            check_filters(subscribe.topics.iter().map(|(filter, _)| &**filter))?;
            Incoming::Subscribe(subscribe)
        }
        v5::PacketType::Unsubscribe => {
            let unsubscribe = v5::Unsubscribe::decode(body, &mut at, header).map_err(why)?;
            check_filters(unsubscribe.topics.iter().map(|filter| &**filter))?;
            Incoming::Unsubscribe(unsubscribe)
        }
        v5::PacketType::Pingreq => Incoming::Ping,
        v5::PacketType::Disconnect => {
            Incoming::Disconnect(v5::Disconnect::decode(body, &mut at, header).map_err(why)?)
        }
        v5::PacketType::Auth => {
            at = body.len();
            Incoming::Auth
        }
        v5::PacketType::Connect => return Err(fault(Reason::ProtocolError, "a second CONNECT")),
        _ => return Err(fault(Reason::ProtocolError, "a packet that only servers send")),
    };
    if at == body.len() { Ok(incoming) } else { Err(MALFORMED) }
}

fn packet_3(protocol: Protocol, first: u8, body: &[u8]) -> Result<Incoming, Fault> {
    // MQTT 3.1 lets these be sent again with DUP set; 3.1.1 does not.
    let first = if protocol == Protocol::V310 && matches!(first & 0xf7, 0x62 | 0x82 | 0xa2) {
        first & 0xf7
    } else {
        first
    };
    let header = v3::Header::new_with(first, body.len() as u32, 0).map_err(|_| MALFORMED)?;
    let mut at = 0;
    let incoming = match header.typ {
        v3::PacketType::Publish => {
            let publish = v3::Publish::decode(body, &mut at, header).map_err(|_| MALFORMED)?;
            let v3::Publish { dup, retain, qos_pid, topic_name, payload } = publish;
            let publish =
                v5::Publish { dup, retain, qos_pid, topic_name, payload, properties: Default::default() };
            check_publish(&publish)?;
            Incoming::Publish(publish)
        }
        v3::PacketType::Puback => Incoming::Puback(pid(body, &mut at)?),
        v3::PacketType::Pubrec => Incoming::Pubrec(pid(body, &mut at)?, 0),
        v3::PacketType::Pubrel => Incoming::Pubrel(pid(body, &mut at)?),
        v3::PacketType::Pubcomp => Incoming::Pubcomp(pid(body, &mut at)?),
        v3::PacketType::Subscribe => {
            let subscribe = v3::Subscribe::decode(body, &mut at, header).map_err(|_| MALFORMED)?;
            check_filters(subscribe.topics.iter().map(|(filter, _)| &**filter))?;
            let options = |max_qos| v5::SubscriptionOptions {
                max_qos,
                no_local: false,
                retain_as_published: false,
                retain_handling: v5::RetainHandling::SendAtSubscribe,
            };
            let topics = subscribe.topics.into_iter().map(|(filter, qos)| (filter, options(qos))).collect();
            Incoming::Subscribe(v5::Subscribe::new(subscribe.pid, topics))
        }
        v3::PacketType::Unsubscribe => {
            let unsubscribe = v3::Unsubscribe::decode(body, &mut at, header).map_err(|_| MALFORMED)?;
            check_filters(unsubscribe.topics.iter().map(|filter| &**filter))?;
            Incoming::Unsubscribe(v5::Unsubscribe::new(unsubscribe.pid, unsubscribe.topics))
        }
        v3::PacketType::Pingreq => Incoming::Ping,
        v3::PacketType::Disconnect => Incoming::Disconnect(v5::Disconnect::new_normal()),
        _ => {
            return Err(fault(Reason::ProtocolError, "a packet that only servers send, or a second CONNECT"));
        }
    };
    if at == body.len() { Ok(incoming) } else { Err(MALFORMED) }
}

fn pid(body: &[u8], at: &mut usize) -> Result<u16, Fault> {
    let bytes = *body.first_chunk::<2>().ok_or(MALFORMED)?;
    *at = 2;
    match u16::from_be_bytes(bytes) {
        0 => Err(MALFORMED),
        pid => Ok(pid),
    }
}

/// What the codec has against a packet, as a reason code.
fn why(error: v5::ErrorV5) -> Fault {
    match error {
        v5::ErrorV5::InvalidPayloadFormat => fault(Reason::PayloadFormatInvalid, "the payload is no UTF-8"),
        v5::ErrorV5::Common(Error::EmptySubscription) => fault(Reason::ProtocolError, "no topic filter"),
        v5::ErrorV5::Common(Error::InvalidTopicName(_)) | v5::ErrorV5::InvalidResponseTopic => {
            fault(Reason::TopicNameInvalid, "a topic name with a wildcard")
        }
        v5::ErrorV5::Common(Error::InvalidTopicFilter(_)) => {
            fault(Reason::TopicFilterInvalid, "not a topic filter")
        }
        v5::ErrorV5::DuplicatedProperty(_) => fault(Reason::ProtocolError, "a property twice"),
        v5::ErrorV5::InvalidByteProperty(..) => fault(Reason::ProtocolError, "not a value of this property"),
        _ => MALFORMED,
    }
}

fn check_publish(publish: &v5::Publish) -> Result<(), Fault> {
    let properties = &publish.properties;
    // [MQTT-3.3.1-2]
    if publish.dup && publish.qos_pid == mqtt_proto::QosPid::Level0 {
        return Err(MALFORMED);
    }
    // [MQTT-3.3.4-6]
    if properties.subscription_id.is_some() {
        return Err(fault(Reason::ProtocolError, "a subscription identifier from a client"));
    }
    // [MQTT-3.3.2-14], [MQTT-1.5.4-2]
    let response = properties.response_topic.as_ref();
    if response.is_some_and(|topic| !topic::is_name(topic)) || has_nul(&properties.user_properties) {
        return Err(MALFORMED);
    }
    Ok(())
}

fn check_filters<'a>(mut filters: impl Iterator<Item = &'a str>) -> Result<(), Fault> {
    let is_valid = |filter: &str| topic::is_filter(filter) && !matches!(topic::shared(filter), Some(Err(_)));
    if filters.all(is_valid) { Ok(()) } else { Err(fault(Reason::TopicFilterInvalid, "not a topic filter")) }
}

/// What a packet is on the wire. Only a packet of more than 256 MiB has no encoding: nothing is sent in its place.
pub(crate) fn bytes(encoded: Result<VarBytes, Error>) -> Vec<u8> {
    match encoded {
        Ok(VarBytes::Dynamic(bytes)) => bytes,
        Ok(fixed) => fixed.as_ref().to_vec(),
        Err(_) => Vec::new(),
    }
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// A variable byte integer, and what is behind it.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0;
    for (n, byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((length, &bytes[n + 1..]));
        }
    }
    None
}

/// A PUBLISH packet with further subscription identifiers, of which mqtt-proto writes one. Its properties begin so many bytes
/// into its body.
pub(crate) fn with_more_ids(frame: &[u8], properties: usize, ids: &[u32]) -> Option<Vec<u8>> {
    let (first, rest) = frame.split_first()?;
    let (_, body) = length(rest)?;
    let (head, rest) = body.split_at_checked(properties)?;
    let (count, rest) = length(rest)?;
    let (known, payload) = rest.split_at_checked(count)?;
    let mut more = known.to_vec();
    for id in ids {
        more.push(v5::PropertyId::SubscriptionIdentifier as u8);
        put_length(&mut more, *id as usize);
    }
    let mut tail = Vec::with_capacity(more.len() + payload.len() + 4);
    put_length(&mut tail, more.len());
    tail.extend_from_slice(&more);
    tail.extend_from_slice(payload);
    let mut out = vec![*first];
    put_length(&mut out, head.len() + tail.len());
    out.extend_from_slice(head);
    out.extend_from_slice(&tail);
    Some(out)
}

fn put_3(out: &mut Vec<u8>, packet: &v3::Packet) {
    if let Ok(bytes) = packet.encode() {
        out.extend_from_slice(bytes.as_ref());
    }
}

pub(crate) fn put_5(out: &mut Vec<u8>, packet: impl Into<v5::Packet>) {
    if let Ok(bytes) = packet.into().encode() {
        out.extend_from_slice(bytes.as_ref());
    }
}

/// Which acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
}

/// An acknowledgement; a refusal is one of MQTT 5 only, before that all are taken.
pub(crate) fn put_ack(
    out: &mut Vec<u8>,
    protocol: Protocol,
    ack: Ack,
    pid: u16,
    refusal: Option<(u8, Option<&str>)>,
) {
    let Ok(pid) = Pid::try_from(pid) else { return };
    if let Some((code, why)) = refusal.filter(|_| protocol == Protocol::V500) {
        let reason = why.map(Into::into);
        return match ack {
            Ack::Puback => {
                let code =
                    v5::PubackReasonCode::from_u8(code).unwrap_or(v5::PubackReasonCode::UnspecifiedError);
                let mut puback = v5::Puback::new(pid, code);
                puback.properties.reason_string = reason;
                put_5(out, puback);
            }
            Ack::Pubrec => {
                let code =
                    v5::PubrecReasonCode::from_u8(code).unwrap_or(v5::PubrecReasonCode::UnspecifiedError);
                let mut pubrec = v5::Pubrec::new(pid, code);
                pubrec.properties.reason_string = reason;
                put_5(out, pubrec);
            }
            // There is one refusal of these.
            Ack::Pubrel => put_5(out, v5::Pubrel::new(pid, v5::PubrelReasonCode::PacketIdentifierNotFound)),
            Ack::Pubcomp => {
                put_5(out, v5::Pubcomp::new(pid, v5::PubcompReasonCode::PacketIdentifierNotFound));
            }
        };
    }
    // Of success the packets of both versions are the same bytes.
    put_3(
        out,
        &match ack {
            Ack::Puback => v3::Packet::Puback(pid),
            Ack::Pubrec => v3::Packet::Pubrec(pid),
            Ack::Pubrel => v3::Packet::Pubrel(pid),
            Ack::Pubcomp => v3::Packet::Pubcomp(pid),
        },
    );
}

pub(crate) fn put_suback(
    out: &mut Vec<u8>,
    protocol: Protocol,
    pid: Pid,
    codes: Vec<v5::SubscribeReasonCode>,
) {
    if protocol == Protocol::V500 {
        return put_5(out, v5::Suback::new(pid, codes));
    }
    // mqtt-proto 0.4 writes a failure of MQTT 3 as 3.
    let mut body = pid.value().to_be_bytes().to_vec();
    body.extend(codes.into_iter().map(|code| match code as u8 {
        granted @ 0..=2 => granted,
        _ => 0x80,
    }));
    out.push(0x90);
    put_length(out, body.len());
    out.extend(body);
}

pub(crate) fn put_unsuback(
    out: &mut Vec<u8>,
    protocol: Protocol,
    pid: Pid,
    codes: Vec<v5::UnsubscribeReasonCode>,
) {
    if protocol == Protocol::V500 {
        put_5(out, v5::Unsuback::new(pid, codes));
    } else {
        put_3(out, &v3::Packet::Unsuback(pid));
    }
}

pub(crate) fn put_pong(out: &mut Vec<u8>) {
    put_3(out, &v3::Packet::Pingresp);
}

/// `CONNACK`: whether a session was there, or why there is no connection.
pub(crate) fn put_connack(out: &mut Vec<u8>, protocol: Protocol, connack: v5::Connack) {
    if protocol == Protocol::V500 {
        return put_5(out, connack);
    }
    use v3::ConnectReturnCode as Code;
    use v5::ConnectReasonCode as Reason;
    let code = match connack.reason_code {
        Reason::Success => Code::Accepted,
        Reason::UnsupportedProtocolVersion => Code::UnacceptableProtocolVersion,
        Reason::ClientIdentifierNotValid => Code::IdentifierRejected,
        Reason::BadUserNameOrPassword => Code::BadUserNameOrPassword,
        Reason::NotAuthorized | Reason::Banned | Reason::BadAuthMethod => Code::NotAuthorized,
        _ => Code::ServerUnavailable,
    };
    put_3(out, &v3::Packet::Connack(v3::Connack { session_present: connack.session_present, code }));
}

pub(crate) fn put_disconnect(out: &mut Vec<u8>, protocol: Protocol, reason: Reason, why: Option<&str>) {
    if protocol == Protocol::V500 {
        let mut disconnect = v5::Disconnect::new(reason);
        disconnect.properties.reason_string = why.map(Into::into);
        put_5(out, disconnect);
    }
}
