//! What hickory makes of packets that no well-behaved server sends.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::future::join_all;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME},
    },
};
use proptest::{prelude::*, test_runner::TestRunner};

use super::{
    super::{Backend, Family},
    harness::{Harness, IMPATIENCE},
    ip,
};

/// A reply to `question`, as `fill` completes it.
pub(super) fn reply(question: &[u8], fill: impl FnOnce(&mut Message, Name, RecordType)) -> Vec<u8> {
    let mut reply = Message::from_vec(question).unwrap().into_response();
    let query = reply.queries[0].clone();
    fill(&mut reply, query.name, query.query_type);
    reply.to_vec().unwrap()
}

pub(super) fn add(reply: &mut Message, owner: Name, addr: &str) {
    reply.add_answer(Record::from_rdata(owner, 60, RData::from(ip(addr)[0])));
}

/// A reply with one address of the family that is asked for.
pub(super) fn address(question: &[u8], v4: &str, v6: &str) -> Vec<u8> {
    reply(question, |reply, name, kind| add(reply, name, if kind == RecordType::A { v4 } else { v6 }))
}

pub(super) fn code(question: &[u8], code: ResponseCode) -> Vec<u8> {
    reply(question, |reply, _, _| reply.metadata.response_code = code)
}

pub(super) fn kind_of(question: &[u8]) -> RecordType {
    Message::from_vec(question).unwrap().queries[0].query_type
}

#[test]
fn one_family_that_fails_does_not_hide_the_other() {
    for failing in [RecordType::A, RecordType::AAAA] {
        for (how, answer) in [
            ("SERVFAIL", (|q| vec![code(q, ResponseCode::ServFail)]) as fn(&[u8]) -> Vec<Vec<u8>>),
            ("REFUSED", |q| vec![code(q, ResponseCode::Refused)]),
            ("NXDOMAIN", |q| vec![code(q, ResponseCode::NXDomain)]),
            ("silence", |_| vec![]),
            ("garbage", |q| vec![[&q[..2], &[0xff; 30]].concat()]),
        ] {
            let harness = Harness::direct(Backend::Hickory);
            let server = harness.raw_server(move |question, _| {
                if kind_of(question) == failing {
                    answer(question)
                } else {
                    vec![address(question, "10.0.0.1", "fd00::1")]
                }
            });
            harness.configure(&[server.addr()], "");
            if how == "silence" {
                harness.wait_for(IMPATIENCE * 4);
            }
            let expected = if failing == RecordType::A { "fd00::1" } else { "10.0.0.1" };
            harness.expect("peer", Family::Any, expected, &format!("{how} for {failing}"));
        }
    }
}

#[test]
fn a_failing_family_is_told_rather_than_an_empty_one() {
    let harness = Harness::direct(Backend::Hickory);
    let server = harness.raw_server(|question, _| match kind_of(question) {
        RecordType::A => vec![code(question, ResponseCode::ServFail)],
        _ => vec![code(question, ResponseCode::NoError)],
    });
    harness.configure(&[server.addr()], "");
    harness.expect("peer", Family::Any, "ServerFailure SERVFAIL", "SERVFAIL for A, nothing for AAAA");
}

#[test]
fn answers_from_elsewhere_or_to_another_question_are_ignored() {
    let harness = Harness::direct(Backend::Hickory);
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = harness.raw_server(move |question, client: SocketAddr| {
        stranger.send_to(&address(question, "10.6.6.1", "fd66::1"), client).unwrap();
        let mut other_id = address(question, "10.6.6.2", "fd66::2");
        other_id[1] ^= 1;
        let other_name = reply(question, |reply, _, _| {
            let name = Name::from_ascii("other.").unwrap();
            reply.queries[0].name = name.clone();
            add(reply, name, "10.6.6.3");
        });
        vec![vec![], vec![1], other_id, other_name, address(question, "10.0.0.1", "fd00::1")]
    });
    harness.configure(&[server.addr()], "");
    harness.expect("peer", Family::Any, "10.0.0.1 fd00::1", "the true answer comes last");
}

#[test]
fn records_of_other_names_and_types_are_not_believed() {
    let harness = Harness::direct(Backend::Hickory);
    let server = harness.raw_server(|question, _| {
        let answer = reply(question, |reply, name, _| {
            let alias = Name::from_ascii("alias.").unwrap();
            add(reply, Name::from_ascii("other.").unwrap(), "10.6.6.1");
            reply.add_answer(Record::from_rdata(name.clone(), 60, RData::CNAME(CNAME(alias.clone()))));
            add(reply, alias.clone(), "10.0.0.1");
            add(reply, alias, "10.0.0.1");
            let stray =
                Record::from_rdata(Name::from_ascii("more.").unwrap(), 60, RData::A(A::new(10, 6, 6, 2)));
            reply.add_additional(stray);
            let v6 = AAAA(ip("fd66::1")[0].to_string().parse().unwrap());
            reply.add_authority(Record::from_rdata(name, 60, RData::AAAA(v6)));
        });
        vec![answer]
    });
    harness.configure(&[server.addr()], "");
    harness.expect("peer", Family::V4, "10.0.0.1", "one of its own among others");
}

#[test]
fn a_chain_of_aliases_without_end_is_given_up() {
    let harness = Harness::direct(Backend::Hickory);
    let asked = Arc::new(AtomicUsize::new(0));
    let server = harness.raw_server({
        let asked = asked.clone();
        move |question, _| {
            let next = Name::from_ascii(format!("n{}.", asked.fetch_add(1, Ordering::Relaxed))).unwrap();
            vec![reply(question, |reply, name, _| {
                reply.add_answer(Record::from_rdata(name, 60, RData::CNAME(CNAME(next))));
            })]
        }
    });
    harness.configure(&[server.addr()], "");
    harness.expect("peer", Family::V4, "NoRecords", "an alias of an alias of…");
    assert!(asked.load(Ordering::Relaxed) <= 10, "{} questions", asked.load(Ordering::Relaxed));
}

#[test]
fn a_server_without_edns_or_tcp_is_coped_with() {
    let harness = Harness::direct(Backend::Hickory);
    let server = harness.raw_server(|question, _| {
        let edns = Message::from_vec(question).unwrap().edns.is_some();
        vec![if edns {
            code(question, ResponseCode::FormErr)
        } else {
            address(question, "10.0.0.1", "fd00::1")
        }]
    });
    harness.configure(&[server.addr()], "");
    harness.expect("peer", Family::Any, "10.0.0.1 fd00::1", "FORMERR to EDNS");
    let server =
        harness.raw_server(|question, _| vec![reply(question, |r, _, _| r.metadata.truncation = true)]);
    harness.configure(&[server.addr()], "");
    harness.expect("peer", Family::V4, "Unreachable", "truncated, and no TCP port");
}

#[test]
fn a_lost_question_is_asked_again() {
    let harness = Harness::direct(Backend::Hickory);
    let mut seen = 0;
    let server = harness.raw_server(move |question, _| {
        seen += 1;
        if seen < 2 { vec![] } else { vec![address(question, "10.0.0.1", "fd00::1")] }
    });
    harness.configure(&[server.addr()], "");
    harness.wait_for(IMPATIENCE);
    harness.attempts(5);
    harness.expect("peer", Family::V4, "10.0.0.1", "the second try is answered");
}

#[test]
fn many_questions_at_once_are_all_answered() {
    let harness = Harness::direct(Backend::Hickory);
    let server = harness.server();
    server.set("peer", super::addresses(Family::V4, 200)).unwrap();
    harness.configure(&[server.addr()], "");
    harness.attempts(5);
    let resolver = harness.resolver();
    let all =
        harness.wait(async move { join_all((0..100).map(|_| resolver.settled("peer", Family::Any))).await });
    for found in all {
        assert_eq!(found.map(|found| found.addresses.len()), Ok(200));
    }
}

#[test]
fn any_bytes_may_come_under_the_right_id() {
    let harness = Harness::direct(Backend::Hickory);
    let (sender, receiver) = std::sync::mpsc::channel::<Vec<u8>>();
    let server = harness.raw_server(move |question, _| {
        let mut datagrams = vec![];
        if let Ok(tail) = receiver.try_recv() {
            let header = [question[0], question[1], 0x80, 0];
            let end = Message::from_vec(question).unwrap().queries[0].name.len() + 16;
            datagrams.push([&header, &tail[..]].concat());
            datagrams.push([&header, &question[4..end.min(question.len())], &tail].concat());
        }
        // Whatever became of those, this ends the question.
        datagrams.push(code(question, ResponseCode::Refused));
        datagrams
    });
    harness.configure(&[server.addr()], "");
    let mut runner = TestRunner::default();
    let ran = runner.run(&any::<Vec<u8>>(), |tail| {
        sender.send(tail).unwrap();
        harness.outcome("peer", Family::V4);
        Ok(())
    });
    ran.unwrap();
}
