//! The process's signals as a stream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use async_signal::Signal as Os;
use futures::Stream;

/// A signal that a node acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: drain and end; a second one ends immediately.
    Stop,
    /// SIGHUP: read the config again.
    Reload,
}

/// SIGTERM, SIGINT and SIGHUP from the moment this is made.
#[derive(Debug)]
pub struct Signals(async_signal::Signals);

impl Signals {
    /// Takes over the signals of the process.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn new() -> io::Result<Self> {
        async_signal::Signals::new([Os::Term, Os::Int, Os::Hup]).map(Self)
    }
}

impl Stream for Signals {
    type Item = Signal;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Signal>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.0).poll_next(cx)) {
                Some(Ok(Os::Hup)) => Some(Signal::Reload),
                Some(Ok(_)) => Some(Signal::Stop),
                Some(Err(e)) => {
                    log::warn!("a signal could not be read: {e}");
                    continue;
                }
                None => None,
            });
        }
    }
}
