use std::{
    future::poll_fn,
    io::{IoSliceMut, Read, Write, pipe},
    task::Poll,
    thread,
};

use futures::{channel::oneshot, future::FutureExt};

use super::*;
use crate::{RecvMeta, Runtime, Smol, Transmit, UdpOptions, UdpSocket, udp};

async fn sleep(poller: &Arc<Poller>, ms: u64) -> Duration {
    let began = Instant::now();
    let mut timer = poller.timer();
    timer.set(Some(began + Duration::from_millis(ms)));
    poll_fn(|cx| timer.poll(cx)).await;
    began.elapsed()
}

fn socket(poller: &Arc<Poller>) -> Arc<dyn UdpSocket> {
    udp::bind_with("127.0.0.1:0".parse().unwrap(), UdpOptions::default(), |socket| {
        socket.set_nonblocking(true)?;
        poller.register(socket)
    })
    .unwrap()
}

async fn receive(socket: &dyn UdpSocket) -> usize {
    let (mut bytes, mut meta) = ([0; 2048], [RecvMeta::default(); 2]);
    poll_fn(|cx| {
        // Room for two: a datagram alone tells that the queue is empty behind it.
        let (one, two) = bytes.split_at_mut(1024);
        socket.poll_recv(cx, &mut [IoSliceMut::new(one), IoSliceMut::new(two)], &mut meta)
    })
    .await
    .unwrap()
}

fn send(from: &dyn UdpSocket, to: &dyn UdpSocket) {
    let destination = to.local_addr();
    let transmit = Transmit { destination, ecn: None, contents: b"hello", segment_size: None, src_ip: None };
    from.try_send(&transmit).unwrap();
}

#[test]
fn another_thread_wakes_the_one_that_waits() {
    let poller = Poller::new().unwrap();
    for _ in 0..100 {
        let (sender, receiver) = oneshot::channel();
        let other = thread::spawn(move || sender.send(7).unwrap());
        assert_eq!(poller.block_on(receiver), Ok(7));
        other.join().unwrap();
    }
}

async fn is_pending(timer: &mut dyn Timer) -> bool {
    poll_fn(|cx| Poll::Ready(timer.poll(cx).is_pending())).await
}

#[test]
fn a_timer_rings_at_its_moment_wherever_it_is_moved() {
    let poller = Poller::new().unwrap();
    poller.block_on(async {
        assert!(sleep(&poller, 5).await >= Duration::from_millis(5));
        let began = Instant::now();
        let at = |ms| Some(began + Duration::from_millis(ms));
        let mut timer = poller.timer();
        for ms in [60_000, 5, 30] {
            timer.set(at(ms));
            assert!(is_pending(&mut *timer).await);
        }
        poll_fn(|cx| timer.poll(cx)).await;
        assert!(began.elapsed() >= Duration::from_millis(30));
        assert!(is_pending(&mut *timer).await, "it rings once");
        timer.set(at(0));
        timer.set(None);
        assert!(is_pending(&mut *timer).await, "it is off");
    });
    assert_eq!(lock(&poller.alarms).next(), None, "a timer that is gone leaves nothing");
}

#[test]
fn the_thread_that_waits_does_so_for_all_and_another_one_takes_over_when_it_leaves() {
    let poller = Poller::new().unwrap();
    let (leave, left) = oneshot::channel::<()>();
    let (first, second) = (poller.clone(), poller);
    let first = thread::spawn(move || first.block_on(left));
    let second = thread::spawn(move || {
        second.block_on(async {
            sleep(&second, 20).await;
            drop(leave);
            sleep(&second, 20).await;
        });
    });
    assert!(first.join().unwrap().is_err(), "it waited until the other one let go");
    second.join().unwrap();
}

#[test]
fn every_datagram_is_noticed_whether_it_comes_before_or_while_somebody_waits() {
    let poller = Poller::new().unwrap();
    let (near, far) = (socket(&poller), socket(&poller));
    poller.block_on(async {
        for _ in 0..100 {
            send(&*near, &*far);
            assert_eq!(receive(&*far).await, 1);
            let (there, back) = (receive(&*far), async {
                sleep(&poller, 0).await;
                send(&*near, &*far);
            });
            assert_eq!(futures::join!(there, back).0, 1);
        }
    });
}

#[test]
fn any_number_of_tasks_hear_that_a_socket_can_be_written() {
    let poller = Poller::new().unwrap();
    let socket = socket(&poller);
    poller.block_on(async {
        for _ in 0..3 {
            let waiting = (0..5).map(|_| socket.clone().writable());
            futures::future::try_join_all(waiting).await.unwrap();
            // Given up while waiting: it costs the others nothing.
            assert!(socket.clone().writable().now_or_never().is_none());
        }
    });
    let sources = lock(&poller.sources).len();
    drop(socket);
    assert_eq!((sources, lock(&poller.sources).len()), (1, 0));
}

#[test]
fn a_pipe_that_is_watched_says_when_there_is_more_and_when_its_writer_is_gone() {
    let (mut reader, mut writer) = pipe().unwrap();
    let smol = Smol::start(1).unwrap();
    let watch = smol.watch(reader.try_clone().unwrap().into()).unwrap();
    let readable = || futures::executor::block_on(poll_fn(|cx| watch.poll_readable(cx))).unwrap();
    let mut bytes = [0; 8];
    for word in [b"one", b"two"] {
        writer.write_all(word).unwrap();
        readable();
        assert_eq!(reader.read(&mut bytes).unwrap(), 3);
        assert_eq!(&bytes[..3], word);
    }
    drop(writer);
    readable();
    assert_eq!(reader.read(&mut bytes).unwrap(), 0);
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    assert!(smol.watch(file.into()).is_err(), "a file is always ready");
}
