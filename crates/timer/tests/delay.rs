//! What futures-timer promises, wherever a delay is polled.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use futures::{executor::block_on, future::poll_fn};
use futures_timer::Delay;
use proptest::prelude::*;
use smidge_runtime::{
    Executor,
    sim::{Link, World},
};

const LONG: Duration = Duration::from_secs(3600);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

async fn poll_once(delay: &mut Delay) -> Poll<()> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *delay).poll(cx))).await
}

/// Wherever delays are polled: elsewhere, on a runtime with one thread and on one with several.
fn everywhere<F: Future<Output = ()>>(test: fn() -> F) {
    block_on(test());
    Executor::Smol.block_on(1, |_| test()).unwrap();
    Executor::Smol.block_on(3, |_| test()).unwrap();
}

#[test]
fn a_delay_ends_after_its_time_and_not_before_and_stays_ended() {
    everywhere(|| async {
        let began = Instant::now();
        let mut delay = Delay::new(ms(10));
        assert_eq!(poll_once(&mut delay).await, Poll::Pending);
        (&mut delay).await;
        assert!(began.elapsed() >= ms(10));
        assert_eq!(poll_once(&mut delay).await, Poll::Ready(()));
        delay.reset(LONG);
        assert_eq!(poll_once(&mut delay).await, Poll::Pending);
        Delay::new(Duration::ZERO).await;
    });
}

#[test]
fn a_delay_past_the_end_of_the_clock_is_never() {
    everywhere(|| async {
        let mut never = Delay::new(Duration::MAX);
        assert_eq!(poll_once(&mut never).await, Poll::Pending);
        never.reset(Duration::ZERO);
        never.await;
    });
}

/// Sends when it is woken.
struct Bell(mpsc::Sender<()>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

#[test]
fn a_delay_that_is_reset_to_an_earlier_time_wakes_its_task_without_being_polled_again() {
    let (woken, wait) = mpsc::channel();
    let waker = Waker::from(Arc::new(Bell(woken)));
    let mut delay = Delay::new(LONG);
    assert!(Pin::new(&mut delay).poll(&mut Context::from_waker(&waker)).is_pending());
    delay.reset(ms(5));
    wait.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(Pin::new(&mut delay).poll(&mut Context::from_waker(&waker)).is_ready());
}

#[test]
fn a_delay_outlives_the_runtime_that_it_was_polled_on() {
    let mut delay = Delay::new(ms(50));
    let (woken, wait) = mpsc::channel();
    let waker = Waker::from(Arc::new(Bell(woken)));
    Executor::Smol
        .block_on(1, |_| {
            let polled = Pin::new(&mut delay).poll(&mut Context::from_waker(&waker));
            async move { assert!(polled.is_pending()) }
        })
        .unwrap();
    // The runtime tells that it no longer looks after it.
    wait.recv_timeout(Duration::from_secs(60)).unwrap();
    block_on(delay);
}

#[test]
fn a_delay_ends_wherever_it_is_moved() {
    let mut delay = Delay::new(ms(30));
    let began = Instant::now();
    assert_eq!(block_on(poll_once(&mut delay)), Poll::Pending);
    Executor::Smol.block_on(1, |_| async { assert_eq!(poll_once(&mut delay).await, Poll::Pending) }).unwrap();
    thread::spawn(|| block_on(delay)).join().unwrap();
    assert!(began.elapsed() >= ms(30));
}

#[test]
fn delays_by_the_thousand_set_and_dropped_on_many_threads_all_end() {
    let runtime = Executor::Smol.start(2).unwrap();
    let (ended, all) = mpsc::channel();
    for n in 0..1000 {
        let (ended, inner) = (ended.clone(), runtime.clone());
        runtime.spawn(async move {
            for _ in 0..10 {
                let mut dropped = Delay::new(LONG);
                assert_eq!(poll_once(&mut dropped).await, Poll::Pending);
                Delay::new(ms(n % 7)).await;
            }
            drop(inner);
            ended.send(()).unwrap();
        });
    }
    for _ in 0..1000 {
        all.recv_timeout(Duration::from_secs(60)).unwrap();
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
enum Op {
    New(usize, u64),
    Reset(usize, u64),
    Drop(usize),
    Poll(usize),
    Pass(u64),
}

const DELAYS: usize = 4;

fn op() -> impl Strategy<Value = Op> {
    let (delay, time) = (0..DELAYS, 0_u64..100);
    prop_oneof![
        (delay.clone(), time.clone()).prop_map(|(n, ms)| Op::New(n, ms)),
        (delay.clone(), time).prop_map(|(n, ms)| Op::Reset(n, ms)),
        delay.clone().prop_map(Op::Drop),
        delay.prop_map(Op::Poll),
        (0_u64..40).prop_map(Op::Pass),
    ]
}

proptest! {
    #[test]
    fn delays_end_as_a_list_of_moments_does_in_simulated_time(ops in prop::collection::vec(op(), 1..60)) {
        let world = World::new(1, Link::default());
        let runtime = world.host(&["10.0.0.1"]).handle();
        world.block_on(LONG, async {
            let mut delays: [Option<Delay>; DELAYS] = Default::default();
            // When each ends, and whether a task waits for it.
            let mut model = [(0, false); DELAYS];
            let flags: [Arc<Flag>; DELAYS] = Default::default();
            let mut now = 0;
            for op in ops {
                match op {
                    Op::New(n, ms) => {
                        delays[n] = Some(Delay::new(Duration::from_millis(ms)));
                        model[n] = (now + ms, false);
                    }
                    Op::Reset(n, ms) => if let Some(delay) = &mut delays[n] {
                        delay.reset(Duration::from_millis(ms));
                        model[n].0 = now + ms;
                    }
                    Op::Drop(n) => {
                        delays[n] = None;
                        model[n].1 = false;
                    }
                    Op::Poll(n) => if let Some(delay) = &mut delays[n] {
                        let waker = Waker::from(flags[n].clone());
                        let polled = Pin::new(delay).poll(&mut Context::from_waker(&waker));
                        assert_eq!(polled.is_ready(), model[n].0 <= now);
                        model[n].1 = polled.is_pending();
                    }
                    Op::Pass(ms) => {
                        // An end of time 0 that is waited for is met at the next step of the clock.
                        let step = ms + 1;
                        runtime.sleep(Duration::from_millis(step)).await;
                        now += step;
                        for (n, (end, waits)) in model.iter_mut().enumerate() {
                            let rings = *waits && *end <= now;
                            assert_eq!(flags[n].0.swap(false, Ordering::Relaxed), rings, "{n} at {now}");
                            *waits &= !rings;
                        }
                    }
                }
            }
        });
    }
}
