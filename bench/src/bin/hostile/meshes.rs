//! Peers that follow and take nothing: they sit in a mesh and never read, or follow names without end.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use async_io::Timer;
use futures::AsyncWriteExt;
use libp2p::{Multiaddr, core::muxing::SubstreamBox};
use smidge_bench::{
    Side, Tuning,
    link::{Endpoint, Link, start},
};

use crate::{
    Count, Failure, TOPIC,
    wire::{agree, ask_for, field, framed},
    within,
};

/// Gossipsub's protocol (libp2p/specs, `pubsub/gossipsub`).
const MESHSUB: &str = "/meshsub/1.1.0";
/// Topics that a peer follows, and bytes of each name.
const NAMES: usize = 1024;
const NAME: usize = 15_000;
/// Names in a frame: below gossipsub's 64 KiB.
const FRAME: usize = 4;
/// Unread bytes that a stream and a connection hold: little, so that it shows soon that nobody reads.
const WINDOWS: (u32, u32) = (64 << 10, 256 << 10);
/// Between two dials that are refused.
const PAUSE: Duration = Duration::from_millis(200);

/// Peers that join the mesh of the topic, one beside the other, agree to be sent its messages, and never read any.
pub(crate) async fn deaf(
    side: &dyn Side,
    victim: &Multiaddr,
    amount: u64,
    count: &Arc<Count>,
) -> Result<(), Failure> {
    let (stream_window, connection_window) = WINDOWS;
    let tuning = Tuning { stream_window, connection_window, ..Tuning::default() };
    let mut held = Vec::new();
    for _ in 0..amount {
        let endpoint = Endpoint::new(side, &tuning);
        count.tried.fetch_add(1, Relaxed);
        let Ok(link) = endpoint.dial(victim.clone()).await else {
            Timer::after(PAUSE).await;
            continue;
        };
        let link = Arc::new(link);
        start(&side.spawner(), keep_shut(link.clone()));
        let follows = field(1, &[&[8, 1][..], &field(2, TOPIC.as_bytes())].concat());
        let grafts = field(3, &field(3, &field(1, TOPIC.as_bytes())));
        if let Ok(stream) = say(&link, &[follows, grafts].concat()).await {
            count.succeeded.fetch_add(1, Relaxed);
            held.push((endpoint, link, stream));
        }
    }
    count.finish();
    futures::future::pending().await
}

/// Takes the victim's streams and reads nothing of what comes on them.
async fn keep_shut(link: Arc<Link>) {
    let mut held = Vec::new();
    while let Ok(mut stream) = link.accept().await {
        if within(agree(&mut stream, &[MESHSUB])).await.is_ok() {
            held.push(stream);
        }
    }
}

/// Follows names of [`NAME`] bytes on one connection, and again on the next.
pub(crate) async fn names(link: &Link, amount: u64, count: &Count) -> io::Result<()> {
    let name = |n: usize| format!("{n:0NAME$}");
    let mut stream = say(link, &[]).await?;
    for n in (0..NAMES).step_by(FRAME) {
        let follows = |n| field(1, &[&[8, 1][..], &field(2, name(n).as_bytes())].concat());
        let frame: Vec<u8> = (n..n + FRAME).flat_map(follows).collect();
        count.tried.fetch_add(FRAME as u64, Relaxed);
        within(stream.write_all(&framed(&frame))).await?;
        within(stream.flush()).await?;
        count.succeeded.fetch_add(FRAME as u64, Relaxed);
    }
    // It stays for a while, with all it follows.
    if count.tried.load(Relaxed) < amount {
        Timer::after(5 * PAUSE).await;
    }
    Ok(())
}

/// A stream of gossipsub with this frame on it.
async fn say(link: &Link, frame: &[u8]) -> io::Result<SubstreamBox> {
    let mut stream = within(link.open()).await?;
    within(ask_for(&mut stream, MESHSUB)).await?;
    within(stream.write_all(&framed(frame))).await?;
    within(stream.flush()).await?;
    Ok(stream)
}
