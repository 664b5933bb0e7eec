//! The hash table where a stranger makes peers up: what is put and what is there is answered for all that.

use std::{pin::pin, time::Duration};

use futures::future::{Either, select};
use smidge::{Client, PutOptions, Quorum};

use crate::{
    strangers_claims::{Bait, liar, node},
    support::{Network, run},
};

const ONE: PutOptions = PutOptions { quorum: Quorum::One, ttl: None };
const ALL: PutOptions = PutOptions { quorum: Quorum::All, ttl: None };

/// A node that knows a liar, and where the peers are that the liar makes up: nobody answers there.
fn misled(net: &Network) -> (Client, Bait) {
    let bait = Bait::at(net.ip(200), 200);
    liar(&net.rt, &net.addr(2), &bait.addresses());
    let mut config = node(net, 3, net.addr(2));
    config.quic.handshake_timeout = Duration::from_secs(60);
    (net.spawn(config), bait)
}

/// What is asked for has an answer while the search that goes on for `node` has none.
async fn overtakes<T>(net: &Network, node: &Client, what: &str, asked: impl Future<Output = T>) -> T {
    let (search, asked) = (pin!(node.get("nothing", 1)), pin!(asked));
    match net.patiently(what, select(asked, search)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((found, _)) => panic!("the search was through before {what}: {found:?}"),
    }
}

#[test]
fn a_put_does_not_wait_for_peers_that_were_made_up() {
    run(async |net| {
        let (node, _bait) = misled(&net);
        net.table(&node, 1).await;
        let puts = async {
            for n in 0..10 {
                let stored = node.put(format!("key-{n}"), "value", ONE).await.unwrap();
                assert_eq!(stored.confirmed, 1);
            }
        };
        overtakes(&net, &node, "ten puts", puts).await;
    });
}

#[test]
fn a_get_of_what_a_neighbor_has_does_not_wait_for_peers_that_were_made_up() {
    run(async |net| {
        let (node, _bait) = misled(&net);
        let [one, other] = [4, 5].map(|n| net.spawn(self::node(&net, n, net.addr(3))));
        for neighbor in [&one, &other] {
            net.connected(&node, [neighbor.peer_id()]).await;
        }
        net.table(&node, 3).await;
        net.table(&one, 1).await;
        let stored = one.put("theirs", "value", ALL).await.unwrap();
        assert!(stored.confirmed >= 1);
        let found = overtakes(&net, &node, "a get", node.get("theirs", 1)).await;
        assert_eq!(found.unwrap(), b"value");
    });
}

#[test]
fn a_put_that_was_answered_does_not_undo_a_later_one() {
    run(async |net| {
        let (node, _bait) = misled(&net);
        let [one, other] = [4, 5].map(|n| net.spawn(self::node(&net, n, net.addr(3))));
        net.table(&node, 3).await;
        net.table(&one, 3).await;
        overtakes(&net, &node, "a put", node.put("key", "old", ONE)).await.unwrap();
        net.patiently("another put", one.put("key", "new", ALL)).await.unwrap();
        // This search began after that of the first put, and is not over before it.
        assert!(net.patiently("the end of a search", node.get("nothing", 1)).await.is_err());
        for (client, who) in [(&node, "who put the old one"), (&one, "who put it"), (&other, "another")] {
            let held = net.patiently("a get", client.get("key", 1)).await;
            assert_eq!(String::from_utf8(held.unwrap()).unwrap(), "new", "{who}");
        }
    });
}
