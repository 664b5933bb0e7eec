//! smidge against rust-libp2p as published: the same protocols on another runtime and another QUIC
//! implementation, over real loopback sockets, dialed both ways where that makes a difference.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod mdns;
mod net;
mod node;
mod raw;
mod relay;
mod streams;
mod tcp;
mod transport;

use std::{fmt::Debug, future::Future, sync::Arc, time::Duration};

use futures::future::{Either, select};
use smidge_bench::{
    Kind, Side, Spawner, Tuning,
    link::{self, Link, Pair},
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One runtime of each kind.
struct Sides {
    ours: Arc<dyn Side>,
    stock: Arc<dyn Side>,
}

impl Sides {
    /// Who dials whom: each of the two orders.
    fn both_ways(&self) -> [(&dyn Side, &dyn Side); 2] {
        [(&*self.ours, &*self.stock), (&*self.stock, &*self.ours)]
    }
}

/// Runs a test from a thread that belongs to neither runtime.
fn run<F: Future<Output = ()>>(test: impl FnOnce(Sides) -> F) {
    let sides = Sides { ours: Kind::Ours.start(1).unwrap(), stock: Kind::Stock.start(1).unwrap() };
    async_io::block_on(test(sides));
}

/// What `future` gives; panics with `what` if that takes too long.
async fn patiently<T>(what: impl Debug, future: impl Future<Output = T>) -> T {
    match select(std::pin::pin!(future), async_io::Timer::after(PATIENCE)).await {
        Either::Left((output, _)) => output,
        Either::Right(_) => panic!("waited {PATIENCE:?} in vain for {what:?}"),
    }
}

/// A connection from one side to the other.
async fn connect(from: &dyn Side, to: &dyn Side, tuning: &Tuning) -> Pair {
    let pair = patiently("a connection", Pair::connect(from, to, tuning)).await.unwrap();
    assert_eq!(pair.dialed.peer, pair.listener.peer, "the dialer knows whom it reached");
    assert_eq!(pair.accepted.peer, pair.dialer.peer, "the listener knows who came");
    pair
}

/// Sends `bytes` over a new stream of `from` and back from `to`, and checks every one.
async fn exchange(from: &Link, to: &Link, bytes: u64) {
    let there = async {
        let mut stream = from.open().await.unwrap();
        link::send_all(&mut stream, bytes).await.unwrap();
        assert_eq!(link::receive_all(&mut stream).await.unwrap(), bytes);
    };
    let back = async {
        let mut stream = to.accept().await.unwrap();
        assert_eq!(link::receive_all(&mut stream).await.unwrap(), bytes);
        link::send_all(&mut stream, bytes).await.unwrap();
    };
    patiently(format!("{bytes} bytes there and back"), async { futures::join!(there, back) }).await;
}

/// Echoes on `link` in the background.
fn echo(spawner: &Spawner, link: Link) -> Arc<Link> {
    let link = Arc::new(link);
    link::start(spawner, link::echo(spawner.clone(), link.clone()));
    link
}
