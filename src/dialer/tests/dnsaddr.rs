//! The entries of a `/dnsaddr`, some of which are of no use.

use std::sync::Arc;

use futures::{
    StreamExt,
    executor::block_on,
    future::{BoxFuture, FutureExt, ready},
    stream::{self, BoxStream},
};

use super::*;
use crate::{
    config::{Family, TransportKind},
    dialer::{Open, lookup},
    dns::{self, Found, LookupError, Resolve},
};

/// Texts for every name, and addresses for `good`; `silent` is not answered, and nothing else exists.
#[derive(Debug)]
struct Names(Vec<String>);

fn asked(host: &str) -> Box<dns::Asked> {
    let what = dns::What::Addresses(dns::Family::Any);
    Box::new(dns::Asked { host: host.into(), what, names: Vec::new(), servers: Vec::new(), alias: None })
}

impl Resolve for Names {
    fn addresses(&self, host: &str, _: dns::Family) -> BoxStream<'static, Result<Found, LookupError>> {
        let found = match host {
            "good" => Ok(Found::all(vec!["10.0.11.1".parse().unwrap()])),
            "silent" => Err(LookupError::Unreachable { asked: asked(host), why: "silence".into() }),
            _ => Err(LookupError::NoSuchName(asked(host))),
        };
        stream::once(ready(found)).boxed()
    }

    fn texts(&self, _: &str) -> BoxFuture<'static, Result<Vec<String>, LookupError>> {
        ready(Ok(self.0.clone())).boxed()
    }
}

#[test]
fn one_bad_entry_does_not_spoil_the_others_and_one_that_is_not_answered_leaves_the_rest_open() {
    let entry = |host: &str| format!("dnsaddr=/dns4/{host}/udp/4001/quic-v1");
    let good = vec![at(1)];
    for (entries, expected) in [
        (vec![entry("good")], Answer::Records(good.clone())),
        (vec![entry("gone"), entry("good")], Answer::Records(good.clone())),
        (
            vec!["nonsense".into(), "dnsaddr=/ip4/300".into(), entry("good"), entry("a b")],
            Answer::Records(good.clone()),
        ),
        (
            vec![entry("silent"), entry("good")],
            Answer::Part(
                good,
                Open {
                    family: Family::Any,
                    why: Some(
                        "`silent`: this host cannot be reached when asked for addresses: silence".into(),
                    ),
                    refused: false,
                },
            ),
        ),
    ] {
        let target: Target = "/dnsaddr/peers".parse().unwrap();
        let transports = Arc::from([TransportKind::Quic]);
        let answers = lookup(Arc::new(Names(entries.clone())), target, transports).collect::<Vec<_>>();
        assert_eq!(block_on(answers), [expected], "{entries:?}");
    }
    let none = Names(vec![entry("gone"), entry("silent")]);
    let answers = lookup(Arc::new(none), "/dnsaddr/peers".parse().unwrap(), Arc::from([TransportKind::Quic]));
    assert!(
        matches!(block_on(answers.collect::<Vec<_>>()).as_slice(), [Answer::Failed(_)]),
        "nothing is concluded"
    );
}
