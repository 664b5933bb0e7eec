//! What a peer hears of a close, in simulated time.

use super::{simulated::pair, *};
use smidge_runtime::sim::Link;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn a_peer_that_missed_the_close_and_goes_on_sending_hears_of_it() {
    let mut pair = pair(41, Link { latency: ms(20), ..Link::default() }, |_| {});
    let (a, b) = pair.connect();
    let rt = pair.hosts[1].handle();
    // Long enough for acknowledgements of the handshake to have arrived.
    pair.world.block_on(ms(2000), rt.sleep(ms(500)));
    pair.world.set_partitioned("10.0.0.1", true);
    drop(a);
    pair.world.set_partitioned("10.0.0.1", false);
    assert_eq!((pair.dialer.transport.open_connections(), pair.dialer.transport.closing()), (0, 1));
    let ended = pair.world.block_on(ms(2000), async {
        let mut stream = b.open().await.unwrap();
        stream.write_all(b"still here").await.unwrap();
        b.ended().await
    });
    assert!(ended.contains("closed by peer"), "{ended}");
    // Nothing stays behind on either side.
    drop(b);
    pair.world.block_on(ms(5000), async {
        while pair.dialer.transport.closing() + pair.listener.transport.closing() > 0 {
            rt.sleep(ms(50)).await;
        }
    });
}

#[test]
fn a_close_is_told_at_once_although_what_was_written_has_to_wait() {
    let mut pair = pair(43, Link { latency: ms(100), ..Link::default() }, |_| {});
    let (a, b) = pair.connect();
    let rt = pair.hosts[0].handle();
    let mut stream = pair.world.block_on(ms(2000), a.open()).unwrap();
    // The peer's window is open by then: what limits is ours.
    pair.world.block_on(ms(2000), rt.sleep(ms(1000)));
    pair.world.block_on(ms(2000), async {
        // The first flight fills the congestion window; the rest waits for acknowledgements.
        let wrote = rt.timeout(ms(50), stream.write_all(&[7; 8 << 20])).await;
        assert!(wrote.is_err(), "all of it fitted");
    });
    let blocked = a.with_state(|state| state.quic.stats().path.cwnd);
    assert!(blocked < 1 << 20, "a window of {blocked} bytes would have taken it all");
    let (began, dropped) = (pair.world.elapsed(), (stream, a));
    drop(dropped);
    let ended = pair.world.block_on(ms(2000), b.ended());
    assert!(ended.contains("closed by peer"), "{ended}");
    assert!(pair.world.elapsed() - began < ms(150), "not with the first packet");
}

#[test]
fn a_connection_that_the_peer_closed_is_forgotten_without_a_word() {
    let mut pair = pair(47, Link { latency: ms(5), ..Link::default() }, |_| {});
    let (a, b) = pair.connect();
    let rt = pair.hosts[1].handle();
    pair.world.block_on(ms(2000), rt.sleep(ms(500)));
    drop(a);
    assert!(pair.world.block_on(ms(2000), b.ended()).contains("closed by peer"));
    drop(b);
    assert_eq!(pair.listener.transport.open_connections(), 0);
    pair.world.block_on(ms(5000), async {
        while pair.listener.transport.closing() > 0 {
            rt.sleep(ms(50)).await;
        }
    });
}
