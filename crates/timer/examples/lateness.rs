//! How late delays end under load: `cargo run -p futures-timer --release --example lateness [SECONDS]`
//!
//! On one worker thread, tasks keep the executor busy as requests do (each makes, resets and drops delays that never
//! end, and computes for some 20 µs), while probes measure how late their delays
//! ring: wake their task, which then waits for its turn. Then the same without load,
//! and without a runtime.

#![allow(clippy::print_stdout, reason = "a measurement")]

use std::{
    error::Error,
    future::Future,
    hint, mem,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use futures::{
    executor::block_on,
    future::{poll_fn, poll_immediate},
    task::AtomicWaker,
};
use futures_timer::Delay;
use smidge_runtime::Executor;

/// Tasks that keep the executor busy.
const BUSY: usize = 64;
/// Tasks that measure.
const PROBES: u64 = 8;

type Lateness = Arc<Mutex<Vec<Duration>>>;

/// Notes when a delay rings, which is not yet when its task runs, and passes it on.
struct Rang {
    at: Mutex<Option<Instant>>,
    task: AtomicWaker,
}

impl Wake for Rang {
    fn wake(self: Arc<Self>) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.task.wake();
    }
}

async fn probe(period: Duration, until: Instant, late: Lateness) {
    while Instant::now() < until {
        let due = Instant::now() + period;
        let mut delay = Delay::new(period);
        let rang = Arc::new(Rang { at: Mutex::new(None), task: AtomicWaker::new() });
        let waker = Waker::from(rang.clone());
        poll_fn(|cx| {
            rang.task.register(cx.waker());
            Pin::new(&mut delay).poll(&mut Context::from_waker(&waker))
        })
        .await;
        let rang = rang.at.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A delay may be over before it is polled first.
        let by = rang.unwrap_or(due).saturating_duration_since(due);
        late.lock().unwrap_or_else(PoisonError::into_inner).push(by);
    }
}

async fn busy(until: Instant) {
    while Instant::now() < until {
        let mut timeout = pin!(Delay::new(Duration::from_secs(10)));
        poll_immediate(&mut timeout).await;
        timeout.reset(Duration::from_secs(20));
        let began = Instant::now();
        while began.elapsed() < Duration::from_micros(20) {
            hint::spin_loop();
        }
        yield_now().await;
    }
}

/// Has the task polled again after the others.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn report(what: &str, late: &Lateness) {
    let mut late = late.lock().unwrap_or_else(PoisonError::into_inner);
    late.sort_unstable();
    let at = |part: f64| late.get(((late.len() as f64 * part) as usize).min(late.len().saturating_sub(1)));
    println!(
        "{what}: {} delays, late by p50 {:?}, p99 {:?}, most {:?}",
        late.len(),
        at(0.5).copied().unwrap_or_default(),
        at(0.99).copied().unwrap_or_default(),
        late.last().copied().unwrap_or_default(),
    );
}

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(5), |text| text.parse())?;
    let time = Duration::from_secs(seconds);
    for (what, tasks) in [("busy runtime", BUSY), ("idle runtime", 0)] {
        let late = Lateness::default();
        Executor::Smol.block_on(1, |runtime| async move {
            let until = Instant::now() + time;
            for _ in 0..tasks {
                runtime.spawn(busy(until));
            }
            for n in 0..PROBES {
                runtime.spawn(probe(Duration::from_millis(1 + 3 * n), until, late.clone()));
            }
            runtime.sleep(time + Duration::from_millis(100)).await;
            report(what, &late);
        })?;
    }
    let late = Lateness::default();
    let until = Instant::now() + time;
    let probes = (0..PROBES).map(|n| {
        let late = late.clone();
        thread::spawn(move || block_on(probe(Duration::from_millis(1 + 3 * n), until, late)))
    });
    for probe in probes.collect::<Vec<_>>() {
        probe.join().map_err(|_| "a probe panicked")?;
    }
    report("no runtime", &late);
    Ok(())
}
