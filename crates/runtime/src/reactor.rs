//! Timers as async-io has them, shared by the real runtimes.
//!
//! smol and async-std both sit on async-io's reactor; what differs between them is what runs the
//! tasks. This file never spawns anything.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use super::Timer;

/// A timer on async-io's reactor.
///
/// Moving the alarm later costs nothing: the reactor learns of it only when the old alarm has rung
/// (connections push their idle deadline back with every packet).
#[derive(Debug)]
pub(super) struct ReactorTimer {
    inner: async_io::Timer,
    /// When `inner` rings, if it is set.
    armed: Option<Instant>,
    /// When the owner wants to be woken.
    wanted: Option<Instant>,
}

impl ReactorTimer {
    pub(super) fn boxed() -> Box<dyn Timer> {
        Box::new(Self { inner: async_io::Timer::never(), armed: None, wanted: None })
    }
}

impl Timer for ReactorTimer {
    fn set(&mut self, at: Option<Instant>) {
        self.wanted = at;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(wanted) = self.wanted else {
            return Poll::Pending;
        };
        loop {
            if self.armed.is_none_or(|armed| armed > wanted) {
                self.inner.set_at(wanted);
                self.armed = Some(wanted);
            }
            ready!(Pin::new(&mut self.inner).poll(cx));
            let rang = self.armed.take();
            if rang.is_some_and(|rang| rang >= wanted) || Instant::now() >= wanted {
                self.wanted = None;
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_timer_moved_later_rings_once_and_not_before() {
        async_io::block_on(async {
            let start = Instant::now();
            let mut timer = ReactorTimer::boxed();
            timer.set(Some(start + Duration::from_millis(5)));
            futures::future::poll_fn(|cx| {
                // Armed at 5 ms, then pushed back to 30 ms.
                let polled = timer.poll(cx);
                timer.set(Some(start + Duration::from_millis(30)));
                assert!(polled.is_pending());
                Poll::Ready(())
            })
            .await;
            futures::future::poll_fn(|cx| timer.poll(cx)).await;
            assert!(start.elapsed() >= Duration::from_millis(30));
            futures::future::poll_fn(|cx| {
                assert!(timer.poll(cx).is_pending(), "an alarm that rang is off");
                Poll::Ready(())
            })
            .await;
        });
    }

    #[test]
    fn a_timer_switched_off_stays_silent_and_can_be_set_again() {
        async_io::block_on(async {
            let mut timer = ReactorTimer::boxed();
            timer.set(Some(Instant::now()));
            timer.set(None);
            futures::future::poll_fn(|cx| {
                assert!(timer.poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            timer.set(Some(Instant::now()));
            futures::future::poll_fn(|cx| timer.poll(cx)).await;
        });
    }
}
