use proptest::prelude::*;

use super::*;

const WIDE: fn() -> Limits = || Limits { frame: 1 << 20, ..Limits::default() };

/// The bytes of a frame without their length.
fn encoded(rpc: &Rpc) -> Bytes {
    let mut out = Vec::new();
    rpc.encode(&mut out);
    let mut framer = Framer::new(1 << 20);
    let mut input = &out[..];
    match framer.next(&mut input) {
        Ok(Some(Frame::Rpc(frame))) if input.is_empty() => frame,
        other => panic!("{other:?}, {} bytes left", input.len()),
    }
}

fn arb_bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

fn arb_topic() -> impl Strategy<Value = Topic> {
    "[a-zä]{1,40}".prop_map(Topic::from)
}

fn arb_ids() -> impl Strategy<Value = Vec<MessageId>> {
    let id = prop::collection::vec(any::<u8>(), 1..60).prop_map(MessageId::from);
    prop::collection::vec(id, 1..8)
}

prop_compose! {
    fn arb_message()(
        from in prop::option::of(prop::collection::vec(1u8.., 0..40)),
        data in prop::option::of(arb_bytes(300)),
        seqno in prop::option::of(arb_bytes(10)),
        topic in arb_topic(),
        signature in prop::option::of(arb_bytes(70)),
        key in prop::option::of(arb_bytes(50)),
    ) -> WireMessage {
        WireMessage::new(&MessageParts {
            from: from.as_deref(),
            data: data.as_deref(),
            seqno: seqno.as_deref(),
            topic: topic.as_str(),
            signature: signature.as_deref(),
            key: key.as_deref(),
        })
    }
}

fn arb_prune() -> impl Strategy<Value = Prune> {
    let record = prop::option::of(arb_bytes(100).prop_map(Bytes::from));
    let info = record.prop_map(|record| PeerInfo { peer: PeerId::random(), record });
    let backoff = prop::option::of((0u64..100_000).prop_map(|s| Duration::from_secs(s).min(MAX_BACKOFF)));
    (arb_topic(), prop::collection::vec(info, 0..4), backoff).prop_map(|(topic, peers, backoff)| Prune {
        topic,
        peers,
        backoff,
    })
}

prop_compose! {
    fn arb_control()(
        ihave in prop::collection::vec((arb_topic(), arb_ids()).prop_map(|(topic, ids)| IHave { topic, ids }), 0..4),
        iwant in prop::option::of(arb_ids()),
        graft in prop::collection::vec(arb_topic(), 0..4),
        prune in prop::collection::vec(arb_prune(), 0..3),
        idontwant in prop::option::of(arb_ids()),
        extensions in prop::option::of(prop::collection::vec(1u32..7_000_000, 0..4)),
        choke in prop::collection::vec((arb_topic(), any::<bool>()), 0..4),
    ) -> Control {
        let extensions = extensions.map(|all| all.into_iter().fold(Extensions::default(), Extensions::with));
        let (iwant, idontwant) = (iwant.unwrap_or_default(), idontwant.unwrap_or_default());
        let choke = choke.into_iter().map(|(topic, choked)| Choke { topic, choked });
        let choke = choke.collect();
        Control { ihave, iwant, graft, prune, idontwant, extensions, choke }
    }
}

prop_compose! {
    fn arb_rpc()(
        subscriptions in prop::collection::vec(
            (arb_topic(), any::<bool>()).prop_map(|(topic, subscribe)| Subscription { topic, subscribe }),
            0..6,
        ),
        publish in prop::collection::vec(arb_message(), 0..5),
        control in arb_control(),
    ) -> Rpc {
        Rpc { subscriptions, publish, control, ignored: 0 }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(rpc in arb_rpc()) {
        let again = decode(&encoded(&rpc), &WIDE()).unwrap();
        prop_assert_eq!(&again, &rpc);
        for (a, b) in again.publish.iter().zip(&rpc.publish) {
            prop_assert_eq!(a.encoded(), b.encoded());
            prop_assert_eq!(a.signed(), b.signed());
        }
    }

    #[test]
    fn any_bytes_are_an_rpc_or_an_error_and_what_is_an_rpc_can_be_said(bytes in arb_bytes(400)) {
        if let Ok(mut rpc) = decode(&Bytes::from(bytes), &WIDE()) {
            rpc.ignored = 0;
            // A key that nobody needs is not passed on.
            rpc.publish.iter_mut().for_each(WireMessage::compact);
            prop_assert_eq!(decode(&encoded(&rpc), &WIDE()).unwrap(), rpc);
        }
    }

    #[test]
    fn a_bent_frame_is_an_rpc_or_an_error(rpc in arb_rpc(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = encoded(&rpc).to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        let cut = at_most(&bytes, to);
        let _ = decode(&Bytes::from(cut), &WIDE());
        let _ = decode(&Bytes::from(bytes), &WIDE());
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
        frames in prop::collection::vec(arb_bytes(300), 0..12),
        cuts in prop::collection::vec(1usize..80, 1..40),
        limit in 50usize..300,
    ) {
        let mut stream = Vec::new();
        for frame in &frames {
            encode::put_varint(frame.len() as u64, &mut stream);
            stream.extend_from_slice(frame);
        }
        let mut framer = Framer::new(limit);
        let mut out = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            let (mut block, later) = rest.split_at((*cut).min(rest.len()));
            while let Some(frame) = framer.next(&mut block).unwrap() {
                out.push(frame);
            }
            prop_assert!(block.is_empty());
            prop_assert!(framer.buffered() <= limit);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(framer.is_between());
        let expected: Vec<Frame> = frames
            .into_iter()
            .map(|frame| match frame.len() {
                len if len > limit => Frame::TooLarge { bytes: len as u64 },
                _ => Frame::Rpc(frame.into()),
            })
            .collect();
        prop_assert_eq!(out, expected);
    }
}

fn at_most(bytes: &[u8], len: u8) -> Vec<u8> {
    bytes[..bytes.len().min(usize::from(len))].to_vec()
}

/// A field with a one-byte tag.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    encode::put_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

fn one_message(fields: &[Vec<u8>]) -> WireMessage {
    let rpc = decode(&Bytes::from(field(2, &fields.concat())), &WIDE()).unwrap();
    assert_eq!((rpc.publish.len(), rpc.ignored), (1, 0));
    rpc.publish.into_iter().next().unwrap()
}

#[test]
fn a_canonical_message_is_a_share_of_its_frame() {
    let message = field(4, b"topic");
    let frame = Bytes::from(field(2, &[field(1, b"from"), field(2, b"data"), message].concat()));
    let rpc = decode(&frame, &WIDE()).unwrap();
    let message = &rpc.publish[0];
    let within = frame.as_ptr_range();
    assert!(within.contains(&message.encoded().as_ptr()));
    assert!(within.contains(&message.data_bytes().as_ptr()));
    assert_eq!(
        (message.from(), message.data(), message.topic()),
        (Some(&b"from"[..]), &b"data"[..], "topic")
    );
    assert_eq!((message.seqno(), message.signature(), message.key()), (None, None, None));
    assert_eq!(message.signed(), &frame[2..]);
}

#[test]
fn what_nobody_signed_is_not_passed_on() {
    let clean = one_message(&[field(1, b"from"), field(2, b"data"), field(4, b"t"), field(5, b"sig")]);
    for dirty in [
        // Unknown fields.
        vec![field(1, b"from"), field(2, b"data"), field(4, b"t"), field(5, b"sig"), field(9, &[7; 500])],
        // Another order.
        vec![field(5, b"sig"), field(4, b"t"), field(2, b"data"), field(1, b"from")],
        // Said twice: the last one counts.
        vec![
            field(1, b"fr"),
            field(1, b"from"),
            field(2, b"data"),
            field(4, b"x"),
            field(4, b"t"),
            field(5, b"sig"),
        ],
        // A length that takes more bytes than it needs.
        vec![
            field(1, b"from"),
            vec![2 << 3 | 2, 0x84, 0],
            b"data".to_vec(),
            field(4, b"t"),
            field(5, b"sig"),
        ],
    ] {
        let message = one_message(&dirty);
        assert_eq!(message.encoded(), clean.encoded());
        assert_eq!(message.signed(), clean.signed());
    }
}

#[test]
fn a_key_that_the_author_contains_is_looked_at_and_not_passed_on() {
    let inline = [&[0, 36][..], &[8, 1, 18, 32], &[5; 32]].concat();
    let without = one_message(&[field(1, &inline), field(4, b"t"), field(5, b"sig")]);
    let with = one_message(&[field(1, &inline), field(4, b"t"), field(5, b"sig"), field(6, &[9; 4000])]);
    assert_eq!(with.key(), Some(&[9; 4000][..]));
    assert_eq!(with.encoded(), without.encoded());
    assert_ne!(with, without);
    let mut kept = with;
    kept.compact();
    assert!(kept.retained() < 200, "{} bytes retained", kept.retained());
    // An author that is a hash needs the key.
    let hashed = one_message(&[field(1, &[0x12; 34]), field(4, b"t"), field(5, b"sig"), field(6, b"key")]);
    assert_eq!(hashed.key(), Some(&b"key"[..]));
    assert!(hashed.encoded().ends_with(b"key"));
}

#[test]
fn a_small_message_lets_go_of_a_large_frame() {
    let small = field(2, &[field(2, b"data"), field(4, b"t")].concat());
    let frame = [small, field(2, &[field(2, &[1; 5000]), field(4, b"t")].concat())].concat();
    let mut message = decode(&Bytes::from(frame), &WIDE()).unwrap().publish.remove(0);
    assert!(message.retained() > 5000);
    let before = message.clone();
    message.compact();
    assert_eq!(message, before);
    assert!(message.retained() < 20);
    assert_eq!(message.data(), b"data");
}

#[test]
fn unknown_fields_are_skipped_whatever_their_type() {
    let mut bytes = vec![15 << 3, 0x85, 1]; // a varint
    bytes.extend([15 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8]); // eight bytes
    bytes.extend([15 << 3 | 5, 1, 2, 3, 4]); // four
    bytes.extend(field(10, b"partial"));
    bytes.extend(field(1, &[&[8, 1][..], &field(2, b"t"), &field(7, b"?")].concat()));
    let rpc = decode(&Bytes::from(bytes), &WIDE()).unwrap();
    let topic = Topic::from("t");
    assert_eq!(rpc, Rpc { subscriptions: vec![Subscription { topic, subscribe: true }], ..Rpc::default() });
}

#[test]
fn what_is_no_protobuf_message_says_where() {
    let at = |bytes: &[u8]| decode(&Bytes::copy_from_slice(bytes), &WIDE()).unwrap_err();
    assert_eq!(at(&[2 << 3 | 2, 5, 1]), DecodeError::Truncated { at: 0 });
    assert_eq!(at(&[0x0a]), DecodeError::Truncated { at: 1 });
    assert_eq!(at(&[0]), DecodeError::NoField { at: 0 });
    assert_eq!(at(&[1 << 3 | 3]), DecodeError::NoField { at: 0 }); // a group
    assert_eq!(at(&[0xff; 11]), DecodeError::NoField { at: 0 });
    assert_eq!(at(&[2 << 3, 1]), DecodeError::WrongType { field: 2, at: 0 });
    // A length that would wrap around.
    let mut huge = vec![2 << 3 | 2];
    encode::put_varint(u64::MAX, &mut huge);
    assert_eq!(at(&huge), DecodeError::Truncated { at: 0 });
    // An inner field does not reach out of what it is in.
    let inner = [field(2, &[1 << 3 | 2, 3, 1]), vec![0; 9]].concat();
    assert!(matches!(at(&inner), DecodeError::Truncated { at: 2 }), "{:?}", at(&inner));
}

#[test]
fn what_is_too_much_or_makes_no_sense_is_left_out_and_counted() {
    let limits = Limits {
        subscriptions: 2,
        messages: 1,
        ids: 3,
        topics: 1,
        peers: 1,
        topic: 5,
        id: 4,
        record: 3,
        ..Limits::default()
    };
    let read = |bytes: Vec<u8>| decode(&Bytes::from(bytes), &limits).unwrap();
    let subscription = |topic: &[u8]| field(1, &[&[8, 1][..], &field(2, topic)].concat());
    let rpc = read([&b"a"[..], b"too long", b"", b"\xff", b"b", b"c"].map(subscription).concat());
    assert_eq!((rpc.subscriptions.len(), rpc.ignored), (2, 4));

    let message = |topic: &[u8]| field(2, &[field(2, b"x"), field(4, topic)].concat());
    let rpc = read([&b"too long"[..], b"\xff\xfe", b"a", b"b"].map(message).concat());
    assert_eq!((rpc.publish.len(), rpc.ignored), (1, 3));
    assert_eq!(read(field(2, &field(2, b"no topic"))).ignored, 1);

    let ids = |number: u8, ids: &[&[u8]]| ids.iter().flat_map(|id| field(number, id)).collect::<Vec<u8>>();
    let iwant = field(2, &ids(1, &[b"1", b"too long", b"", b"2"]));
    let rpc = read(field(3, &[iwant, field(2, &ids(1, &[b"3", b"4"]))].concat()));
    assert_eq!((rpc.control.iwant.len(), rpc.ignored), (3, 3));
    let rpc = read(field(3, &field(5, &ids(1, &[b"1", b"2", b"3", b"4"]))));
    assert_eq!((rpc.control.idontwant.len(), rpc.ignored), (3, 1));
    let ihave = field(1, &[field(1, b"a"), ids(2, &[b"1", b"2"])].concat());
    let rpc = read(field(3, &[ihave.clone(), ihave].concat()));
    assert_eq!((rpc.control.ihave.len(), rpc.control.ihave[0].ids.len(), rpc.ignored), (1, 2, 2));

    let graft = field(3, &field(1, b"a"));
    let rpc = read(field(3, &[graft.clone(), graft].concat()));
    assert_eq!((rpc.control.graft.len(), rpc.ignored), (1, 1));

    let peer = field(2, &[field(1, &PeerId::random().to_bytes()), field(2, b"long")].concat());
    let nobody = field(2, &field(1, b"no peer id"));
    let mut prune = [field(1, b"a"), nobody, peer.clone(), peer].concat();
    prune.push(3 << 3);
    encode::put_varint(u64::MAX, &mut prune);
    let rpc = read(field(3, &field(4, &prune)));
    let [prune] = &rpc.control.prune[..] else { panic!("{rpc:?}") };
    assert_eq!((prune.peers.len(), prune.peers[0].record.as_ref(), rpc.ignored), (1, None, 2));
    assert_eq!(prune.backoff, Some(MAX_BACKOFF));
}

#[test]
fn a_frame_beyond_the_limit_is_refused_before_it_is_looked_at() {
    let limits = Limits { frame: 10, ..Limits::default() };
    let error = decode(&Bytes::from_static(&[0xff; 11]), &limits).unwrap_err();
    assert_eq!(error, DecodeError::TooLarge { bytes: 11, limit: 10 });
}

#[test]
fn ids_of_no_bytes_cost_no_memory() {
    let ids: Vec<u8> = (0..30_000).flat_map(|_| [1 << 3 | 2, 0]).collect();
    let rpc = decode(&Bytes::from(field(3, &field(2, &ids))), &Limits::default()).unwrap();
    assert_eq!((rpc.control.iwant.capacity(), rpc.ignored), (0, 30_000));
}

#[test]
fn extensions_are_field_numbers_that_say_true() {
    let mut bytes = vec![10 << 3, 1, 11 << 3, 0];
    encode::put_varint(u64::from(Extensions::TEST) << 3, &mut bytes);
    bytes.push(1);
    let rpc = decode(&Bytes::from(field(3, &field(6, &bytes))), &WIDE()).unwrap();
    let extensions = rpc.control.extensions.unwrap();
    assert_eq!(extensions.iter().collect::<Vec<_>>(), [Extensions::PARTIAL_MESSAGES, Extensions::TEST]);
    assert!(!extensions.has(11));
    let many = (1..100).fold(Extensions::default(), Extensions::with);
    assert_eq!(many.iter().count(), Extensions::MOST);
}

#[test]
fn an_announced_frame_costs_nothing_before_it_comes() {
    let mut framer = Framer::new(1 << 20);
    let mut head = Vec::new();
    encode::put_varint(1 << 20, &mut head);
    assert_eq!(framer.next(&mut &head[..]), Ok(None));
    assert_eq!(framer.buffered(), 0);
    assert_eq!(framer.next(&mut &[0; 10][..]), Ok(None));
    assert!(framer.buffered() <= 4096);
    assert!(!framer.is_between());
}

#[test]
fn a_frame_that_begins_while_there_is_no_room_is_skipped_and_what_comes_after_it_is_read() {
    let frame = |len: usize| {
        let mut bytes = Vec::new();
        encode::put_varint(len as u64, &mut bytes);
        bytes.resize(bytes.len() + len, 7);
        bytes
    };
    let mut framer = Framer::new(64 << 10);
    let large = frame(20_000);
    assert_eq!(framer.next(&mut &large[..10_000]), Ok(None));
    assert_eq!(framer.begun(), 20_000);
    framer.set_limit(16 << 10);
    let whole = framer.next(&mut &large[10_000..]).unwrap();
    assert!(matches!(whole, Some(Frame::Rpc(bytes)) if bytes.len() == 20_000), "it had room when it began");
    assert_eq!(framer.begun(), 0);
    let rest = [frame(20_000), frame(100)].concat();
    let mut rest = &rest[..];
    assert_eq!(framer.next(&mut rest), Ok(Some(Frame::TooLarge { bytes: 20_000 })));
    assert!(matches!(framer.next(&mut rest), Ok(Some(Frame::Rpc(bytes))) if bytes.len() == 100));
}

#[test]
fn a_length_that_is_none_ends_the_stream_for_good() {
    let mut framer = Framer::new(100);
    assert_eq!(framer.next(&mut &[0xff; 12][..]), Err(FramingError::NoLength));
    assert_eq!(framer.next(&mut &[0][..]), Err(FramingError::NoLength));
    let mut framer = Framer::new(100);
    let mut head = Vec::new();
    encode::put_varint(1 << 40, &mut head);
    assert_eq!(framer.next(&mut &head[..]), Err(FramingError::Endless { bytes: 1 << 40 }));
}

#[test]
fn a_varint_takes_as_many_bytes_as_it_says() {
    for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), 1 << 62, u64::MAX] {
        let mut out = Vec::new();
        encode::put_varint(value, &mut out);
        assert_eq!(out.len(), encode::varint_len(value), "{value}");
    }
}
