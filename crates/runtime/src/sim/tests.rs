use std::io::IoSliceMut;

use futures::future::FutureExt;

use super::*;
use crate::{RecvMeta, Runtime, Transmit, UdpOptions, UdpSocket};

fn datagram(to: SocketAddr, contents: &[u8]) -> Transmit<'_> {
    Transmit { destination: to, ecn: None, contents, segment_size: None, src_ip: None }
}

async fn receive(socket: &Arc<dyn UdpSocket>) -> (Vec<u8>, SocketAddr) {
    let mut buf = [0; 2048];
    let mut meta = [RecvMeta::default()];
    let polled =
        futures::future::poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buf)], &mut meta));
    polled.await.unwrap();
    (buf[..meta[0].len].to_vec(), meta[0].addr)
}

#[test]
fn an_hour_passes_in_no_time_and_in_order() {
    let world = World::new(1, Link::default());
    let rt = world.host(&["10.0.0.1"]).handle();
    let began = Instant::now();
    let order = Arc::new(Mutex::new(Vec::new()));
    for minutes in [60, 20, 40] {
        let (rt2, order) = (rt.clone(), order.clone());
        rt.spawn(async move {
            rt2.sleep(Duration::from_secs(60 * minutes)).await;
            order.lock().unwrap().push(minutes);
        });
    }
    world.block_on(Duration::from_secs(7200), rt.sleep(Duration::from_secs(3601)));
    assert_eq!(*order.lock().unwrap(), [20, 40, 60]);
    assert_eq!(world.elapsed(), Duration::from_secs(3601));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
#[should_panic(expected = "stuck after")]
fn waiting_for_nothing_is_found_out() {
    World::new(1, Link::default()).block_on(Duration::from_secs(1), futures::future::pending::<()>());
}

#[test]
fn datagrams_arrive_after_the_latency_and_too_large_ones_never() {
    let link = Link { latency: Duration::from_millis(30), mtu: 1200, ..Link::default() };
    let world = World::new(1, link);
    let (a, b) = (world.host(&["10.0.0.1"]), world.host(&["10.0.0.2"]));
    let to: SocketAddr = "10.0.0.2:9".parse().unwrap();
    let sender = a.bind_udp("0.0.0.0:0".parse().unwrap(), UdpOptions::default()).unwrap();
    let receiver = b.bind_udp(to, UdpOptions::default()).unwrap();
    sender.try_send(&datagram(to, &[7; 1300])).unwrap();
    sender.try_send(&datagram(to, b"hello")).unwrap();
    let (bytes, from) = world.block_on(Duration::from_secs(1), receive(&receiver));
    assert_eq!((bytes.as_slice(), from.ip()), (&b"hello"[..], "10.0.0.1".parse().unwrap()));
    assert_eq!(world.elapsed(), Duration::from_millis(30));
}

#[test]
fn the_same_seed_loses_the_same_datagrams() {
    let arrivals = |seed| {
        let link = Link { loss: 0.3, duplicate: 0.1, jitter: Duration::from_millis(5), ..Link::default() };
        let world = World::new(seed, link);
        let (a, b) = (world.host(&["10.0.0.1"]), world.host(&["10.0.0.2"]));
        let to: SocketAddr = "10.0.0.2:9".parse().unwrap();
        let sender = a.bind_udp("10.0.0.1:1".parse().unwrap(), UdpOptions::default()).unwrap();
        let receiver = b.bind_udp(to, UdpOptions::default()).unwrap();
        for n in 0..100 {
            sender.try_send(&datagram(to, &[n])).unwrap();
        }
        let rt = a.handle();
        world.block_on(Duration::from_secs(1), async move {
            let mut got = Vec::new();
            while let Ok((bytes, _)) = rt.timeout(Duration::from_millis(100), receive(&receiver)).await {
                got.push(bytes[0]);
            }
            got
        })
    };
    let (first, again, other) = (arrivals(5), arrivals(5), arrivals(6));
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert!(first.len() > 50 && first.len() < 100, "{}", first.len());
    assert!(!first.is_sorted(), "jitter reorders");
}

#[test]
fn a_crash_says_nothing_and_leaves_the_host_as_new() {
    /// Says goodbye when it is dropped.
    struct Polite(Arc<dyn UdpSocket>, SocketAddr);
    impl Drop for Polite {
        fn drop(&mut self) {
            self.0.try_send(&datagram(self.1, b"goodbye")).unwrap();
        }
    }
    let world = World::new(1, Link::default());
    let (a, b) = (world.host(&["10.0.0.1"]), world.host(&["10.0.0.2"]));
    let to: SocketAddr = "10.0.0.2:9".parse().unwrap();
    let receiver = b.bind_udp(to, UdpOptions::default()).unwrap();
    let bind = || a.bind_udp("10.0.0.1:1".parse().unwrap(), UdpOptions::default());
    let (polite, kept) = (Polite(bind().unwrap(), to), bind());
    assert_eq!(kept.err().map(|e| e.kind()), Some(io::ErrorKind::AddrInUse));
    let outside = polite.0.clone();
    a.handle().spawn(async move {
        let _polite = polite;
        futures::future::pending::<()>().await;
    });
    let rt = b.handle();
    world.block_on(Duration::from_secs(1), rt.sleep(Duration::from_millis(1)));
    assert_eq!(a.tasks(), 1);
    a.crash();
    assert_eq!(a.tasks(), 0);
    let again = bind().unwrap();
    drop(outside); // the socket that was there before takes nothing with it
    again.try_send(&datagram(to, b"hello")).unwrap();
    let (bytes, _) = world.block_on(Duration::from_secs(1), receive(&receiver));
    assert_eq!(bytes, b"hello");
}

#[test]
fn sides_and_links_are_each_hosts_own() {
    let world = World::new(1, Link::default());
    let ips = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    let hosts = ips.map(|ip| world.host(&[ip]));
    let sockets: Vec<_> = (ips.iter().zip(&hosts))
        .map(|(ip, host)| host.bind_udp(format!("{ip}:9").parse().unwrap(), UdpOptions::default()).unwrap())
        .collect();
    let rt = hosts[0].handle();
    let heard = |from: usize, to: usize| {
        sockets[from].try_send(&datagram(sockets[to].local_addr(), b"x")).unwrap();
        let before = world.elapsed();
        let heard = rt.timeout(Duration::from_secs(1), receive(&sockets[to]));
        let heard = world.block_on(Duration::from_secs(2), heard).is_ok();
        heard.then(|| (world.elapsed() - before).as_millis())
    };
    world.set_side(ips[2], 1);
    assert_eq!([heard(0, 1), heard(0, 2), heard(2, 0)], [Some(1), None, None]);
    world.set_side(ips[2], 0);
    world.set_deaf(ips[0], ips[1], true);
    assert_eq!([heard(0, 1), heard(1, 0), heard(0, 2)], [None, Some(1), Some(1)]);
    world.set_deaf(ips[0], ips[1], false);
    let slow = Link { latency: Duration::from_millis(300), ..Link::default() };
    world.set_link_of(ips[1], Some(slow));
    assert_eq!([heard(0, 1), heard(1, 0), heard(0, 2)], [Some(300), Some(300), Some(1)]);
}

#[test]
fn each_host_has_a_clock_on_its_wall() {
    let world = World::new(1, Link::default());
    let (a, b) = (world.host(&["10.0.0.1"]), world.host(&["10.0.0.2"]));
    b.set_wall_skew(-3_600_000);
    let read = |host: &Host| {
        let (sender, receiver) = futures::channel::oneshot::channel();
        host.spawn(async { sender.send((crate::wall(), here().unwrap().host)).unwrap() }.boxed());
        world.block_on(Duration::from_secs(1), receiver).unwrap()
    };
    let rt = a.handle();
    world.block_on(Duration::from_secs(100), rt.sleep(Duration::from_secs(50)));
    let ((one, first), (other, second)) = (read(&a), read(&b));
    assert_eq!(one, SystemTime::UNIX_EPOCH + EPOCH + Duration::from_secs(50));
    assert_eq!(one.duration_since(other).unwrap(), Duration::from_secs(3600));
    assert_eq!((first, second), (Some(a.number()), Some(b.number())));
    let now = world.block_on(Duration::from_secs(1), async { crate::now() });
    assert_eq!((now, here()), (rt.now(), None));
}

#[test]
#[should_panic(expected = "tasks wake each other without end")]
fn tasks_that_go_in_circles_are_found_out() {
    let world = World::new(1, Link::default());
    world.host(&["10.0.0.1"]).handle().spawn(futures::future::poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::Pending
    }));
    world.block_on(Duration::from_secs(1), futures::future::pending::<()>());
}
