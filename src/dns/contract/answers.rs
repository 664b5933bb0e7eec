//! A table of answers by what is believed of them: code, family, size, TC, order, silence.
//!
//! Believed is an answer to the question that was asked. Everything else leaves open what the name has:
//! it is never taken for "there are none".

use futures::StreamExt;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, NS},
    },
};

use super::{
    super::{Backend, Family, LookupError, Silence},
    addresses,
    harness::{Harness, IMPATIENCE, PATIENCE, kind},
    ip,
    packets::{add, address, code, kind_of, reply},
};

type Script = fn(&[u8]) -> Vec<Vec<u8>>;

fn alias(reply: &mut Message, owner: Name, target: &str) {
    let target = CNAME(Name::from_ascii(target).unwrap());
    reply.add_answer(Record::from_rdata(owner, 60, RData::CNAME(target)));
}

fn name_of(question: &[u8]) -> String {
    let name = Message::from_vec(question).unwrap().queries[0].name.to_ascii();
    name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase()
}

/// A reply with `count` addresses in one datagram, however long, and without the TC bit.
fn many(question: &[u8], count: u16) -> Vec<u8> {
    reply(question, |reply, name, kind| {
        let family = if kind == RecordType::A { Family::V4 } else { Family::V6 };
        addresses(family, count).iter().for_each(|addr| add(reply, name.clone(), &addr.to_string()));
    })
}

#[test]
fn what_is_believed_of_each_answer() {
    let rows: &[(&str, Script, &str)] = &[
        (
            "records in their order",
            |q| {
                vec![reply(q, |r, name, _| {
                    ["10.0.0.2", "10.0.0.1", "10.0.0.2"].iter().for_each(|a| add(r, name.clone(), a));
                })]
            },
            "10.0.0.2 10.0.0.1",
        ),
        ("no records", |q| vec![code(q, ResponseCode::NoError)], "NoRecords"),
        ("NXDOMAIN", |q| vec![code(q, ResponseCode::NXDomain)], "NoSuchName"),
        ("SERVFAIL", |q| vec![code(q, ResponseCode::ServFail)], "ServerFailure SERVFAIL"),
        ("REFUSED", |q| vec![code(q, ResponseCode::Refused)], "ServerFailure REFUSED"),
        ("FORMERR with and without EDNS", |q| vec![code(q, ResponseCode::FormErr)], "ServerFailure FORMERR"),
        ("NOTIMP with and without EDNS", |q| vec![code(q, ResponseCode::NotImp)], "ServerFailure NOTIMP"),
        ("NOTAUTH", |q| vec![code(q, ResponseCode::NotAuth)], "ServerFailure"),
        ("a code that nobody knows", |q| vec![code(q, ResponseCode::Unknown(11))], "ServerFailure"),
        (
            "a referral",
            |q| {
                vec![reply(q, |r, _, _| {
                    let ns = NS(Name::from_ascii("ns.example.").unwrap());
                    r.add_authority(Record::from_rdata(
                        Name::from_ascii("example.").unwrap(),
                        60,
                        RData::NS(ns),
                    ));
                })]
            },
            "BadAnswer",
        ),
        (
            "records of another name",
            |q| vec![reply(q, |r, _, _| add(r, Name::from_ascii("other.").unwrap(), "10.6.6.1"))],
            "NoRecords",
        ),
        ("TC, and no TCP", |q| vec![reply(q, |r, _, _| r.metadata.truncation = true)], "Unreachable"),
        (
            "TC beside records, and no TCP",
            |q| {
                vec![reply(q, |r, name, _| {
                    add(r, name, "10.0.0.1");
                    r.metadata.truncation = true;
                })]
            },
            "Unreachable",
        ),
        ("half a datagram", |q| vec![many(q, 10)[..80].to_vec()], "BadAnswer"),
        ("silence", |_| vec![], "TimedOut"),
        (
            "an alias of a name that is refused",
            |q| {
                if name_of(q) == "peer" {
                    vec![reply(q, |r, name, _| alias(r, name, "target.example."))]
                } else {
                    vec![code(q, ResponseCode::Refused)]
                }
            },
            "ServerFailure REFUSED",
        ),
    ];
    for (what, script, expected) in rows {
        let harness = Harness::direct(Backend::Hickory);
        let server = harness.raw_server(move |question, _| script(question));
        harness.configure(&[server.addr()], "");
        if *expected == "TimedOut" {
            harness.wait_for(IMPATIENCE);
        }
        let outcome = harness.outcome("peer", Family::V4);
        assert!(outcome.starts_with(expected), "{what}: {outcome}");
        if let Err(error) = harness.resolve("peer", Family::V4) {
            let says_none = ["NoRecords", "NoSuchName"].contains(expected);
            assert_eq!(error.is_absence(), says_none, "{what}: {error}");
            assert_eq!(
                error.to_string().contains("alias of target.example"),
                what.contains("alias"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_datagram_of_any_size_is_read_though_the_server_has_no_tcp() {
    for count in [1, 74, 75, 76, 100, 250, 1000, 2000] {
        let harness = Harness::direct(Backend::Hickory);
        let server = harness.raw_server(move |question, _| vec![many(question, count)]);
        harness.configure(&[server.addr()], "");
        let found = harness.settle("peer", Family::Any).unwrap();
        let expected = [addresses(Family::V4, count), addresses(Family::V6, count)].concat();
        assert!(found.addresses == expected, "{count} of each: {}, {:?}", found.addresses.len(), found.open);
    }
}

#[test]
fn a_long_datagram_that_is_not_the_answer_is_passed_over() {
    let harness = Harness::direct(Backend::Hickory);
    let server = harness.raw_server(|question, _| {
        let mut other_id = many(question, 100);
        other_id[1] ^= 1;
        let mut other_name = many(question, 100);
        other_name[13] = b'x';
        let broken = [&many(question, 1)[..12], &[0xff; 2000]].concat();
        vec![other_id, other_name, broken, address(question, "10.0.0.1", "fd00::1")]
    });
    harness.configure(&[server.addr()], "");
    harness.expect("peer", Family::Any, "10.0.0.1 fd00::1", "the true answer comes last");
    // One under the right id and question, with nonsense behind: nothing is believed.
    let server = harness.raw_server(|question, _| {
        let mut long = many(question, 100);
        long[60..].fill(0xff);
        vec![long]
    });
    harness.configure(&[server.addr()], "");
    harness.wait_for(IMPATIENCE);
    let error = harness.resolve("peer", Family::V4).unwrap_err();
    assert!(!error.is_absence(), "{error}");
}

#[test]
fn what_one_family_does_not_answer_is_left_open() {
    let others: &[(&str, Script, Option<&str>)] = &[
        ("no records", |q| vec![code(q, ResponseCode::NoError)], None),
        ("NXDOMAIN", |q| vec![code(q, ResponseCode::NXDomain)], None),
        ("SERVFAIL", |q| vec![code(q, ResponseCode::ServFail)], Some("ServerFailure SERVFAIL")),
        ("REFUSED", |q| vec![code(q, ResponseCode::Refused)], Some("ServerFailure REFUSED")),
        ("garbage", |q| vec![[&q[..2], &[0xff; 30]].concat()], Some("BadAnswer")),
        ("silence", |_| vec![], Some("TimedOut")),
    ];
    for failing in [RecordType::A, RecordType::AAAA] {
        for (how, script, expected) in others {
            let harness = Harness::direct(Backend::Hickory);
            let server = harness.raw_server(move |question, _| match kind_of(question) {
                kind if kind == failing => script(question),
                _ => vec![address(question, "10.0.0.1", "fd00::1")],
            });
            harness.configure(&[server.addr()], "");
            if *expected == Some("TimedOut") {
                harness.wait_for(IMPATIENCE * 4);
            }
            let found = harness.settle("peer", Family::Any).unwrap();
            assert_eq!(
                found.addresses,
                ip(if failing == RecordType::A { "fd00::1" } else { "10.0.0.1" }),
                "{how}"
            );
            let family = if failing == RecordType::A { Family::V4 } else { Family::V6 };
            let open = found.open.map(|open| (open.family, kind(&open.why.expect("it is settled"))));
            assert_eq!(open, expected.map(|why| (family, why.to_owned())), "{how} for {failing}");
        }
    }
}

#[test]
fn the_family_that_answers_is_not_held_back_by_the_one_that_does_not() {
    let harness = Harness::direct(Backend::Hickory);
    let server = harness.raw_server(|question, _| match kind_of(question) {
        RecordType::A => vec![address(question, "10.0.0.1", "")],
        _ => vec![],
    });
    harness.configure(&[server.addr()], "");
    harness.wait_for(PATIENCE);
    let mut answers = harness.resolver().addresses("peer", Family::Any);
    let first = harness.wait(async move { answers.next().await }).unwrap().unwrap();
    assert_eq!(first.addresses, ip("10.0.0.1"));
    let open = first.open.unwrap();
    assert_eq!((open.family, open.why), (Family::V6, None), "the other is still waited for");
}

#[test]
fn a_search_domain_that_is_not_answered_does_not_hide_the_names_behind_it() {
    let harness = Harness::direct(Backend::Hickory);
    let server = harness.raw_server(|question, _| match name_of(question).as_str() {
        "peer" | "early.good" => vec![address(question, "10.0.0.1", "fd00::1")],
        name if name.ends_with(".silent") || name == "alone" => vec![],
        _ => vec![code(question, ResponseCode::NXDomain)],
    });
    harness.wait_for(IMPATIENCE);
    for (search, host, found, open) in [
        ("silent", "peer", "10.0.0.1 fd00::1", true),
        ("good silent other", "peer", "10.0.0.1 fd00::1", true),
        ("other", "peer", "10.0.0.1 fd00::1", false),
        // What comes first in the list is asked for first, and nothing else is then.
        ("good silent", "early", "10.0.0.1 fd00::1", false),
        ("silent", "nobody", "TimedOut", false),
        ("other", "alone", "TimedOut", false),
    ] {
        harness.configure(&[server.addr()], &format!("search {search}\n"));
        let settled = harness.settle(host, Family::Any);
        let is_open =
            settled.as_ref().is_ok_and(|found| found.open.as_ref().is_some_and(|o| o.family == Family::Any));
        assert_eq!(is_open, open, "{host} with search {search}: {settled:?}");
        let outcome = match settled {
            Ok(all) => all.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(e) => kind(&e),
        };
        assert_eq!(outcome, found, "{host} with search {search}");
    }
}

#[test]
fn silence_for_one_name_is_told_from_silence_for_all() {
    let harness = Harness::direct(Backend::Hickory);
    let server = harness.raw_server(|question, _| match name_of(question).as_str() {
        "known" => vec![code(question, ResponseCode::Refused)],
        _ => vec![],
    });
    harness.configure(&[server.addr()], "");
    harness.wait_for(IMPATIENCE);
    let silence = |host| match harness.resolve(host, Family::V4) {
        Err(LookupError::TimedOut { silence, .. }) => Some(silence),
        _ => None,
    };
    assert_eq!(silence("peer"), Some(Silence::All));
    assert_eq!(silence("known"), None);
    assert_eq!(silence("peer"), Some(Silence::ThisName));
    assert_eq!(silence("known.or.not"), Some(Silence::ThisName));
}
