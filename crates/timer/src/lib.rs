//! [`Delay`], as the crate futures-timer 3.0.3 has it, on the alarms of `smidge-runtime`.
//!
//! libp2p's behaviours take their timers from futures-timer, whose one thread is woken for each delay that is made,
//! reset or dropped. By `[patch.crates-io]` this crate takes its place in a program: a delay that is polled on a
//! thread of a runtime of ours is one of that runtime's timers, and wakes no thread unless it is due before all others.
//! Elsewhere one thread keeps all delays of the process, as futures-timer's does.
//!
//! Never here: a clock or a thread of its own; those are [`smidge_runtime::Alarm`]'s.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use smidge_runtime::Alarm;

/// A future that is ready once a duration has passed.
pub struct Delay {
    alarm: Alarm,
    elapsed: bool,
}

impl Delay {
    /// A delay that ends `dur` from now. One past the end of the clock never ends (futures-timer panics).
    #[inline]
    pub fn new(dur: Duration) -> Self {
        Self { alarm: Alarm::after(dur), elapsed: false }
    }

    /// Starts the delay anew: it ends `dur` from now. A task that waits for it is woken then, without polling it
    /// again.
    #[inline]
    pub fn reset(&mut self, dur: Duration) {
        self.elapsed = false;
        self.alarm.set_after(dur);
    }
}

impl Future for Delay {
    type Output = ();

    /// Once ready, it is so again each time until it is [`reset`](Delay::reset).
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.elapsed {
            ready!(self.alarm.poll(cx));
            self.elapsed = true;
        }
        Poll::Ready(())
    }
}

impl fmt::Debug for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delay").finish_non_exhaustive()
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
