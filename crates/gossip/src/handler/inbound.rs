//! A substream that the peer opened.

use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use futures::AsyncRead;
use libp2p::swarm::Stream;

use super::FromHandler;
use crate::{Frame, Framer, Limits, PeerKind, Rpc, budget::Budget, decode};

/// Bytes read at a time. The block is the thread's, not the connection's: idle connections cost none.
const BLOCK: usize = 64 * 1024;
/// Bytes read in one turn, so that nobody keeps the others waiting.
const TURN: usize = 64 * 1024;
/// Bytes of a frame that is read although other frames, not read to their end, take all there is.
const SMALL: usize = 16 * 1024;

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; BLOCK]);
}

#[derive(Debug)]
pub(super) struct Inbound {
    stream: Stream,
    framer: Framer,
    kind: PeerKind,
    /// What frames that are not read to their end take, of all connections.
    partial: Budget,
    /// What this one takes of it.
    taken: usize,
}

/// Where to put what was heard.
pub(super) struct Heard<'a> {
    pub(super) rpcs: &'a mut Vec<Rpc>,
    pub(super) events: &'a mut VecDeque<FromHandler>,
}

impl Inbound {
    pub(super) fn new(stream: Stream, kind: PeerKind, frame: usize, partial: Budget) -> Self {
        Self { stream, framer: Framer::new(frame), kind, partial, taken: 0 }
    }

    pub(super) fn kind(&self) -> PeerKind {
        self.kind
    }

    /// Ready once the substream is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, limits: &Limits, heard: &mut Heard<'_>) -> Poll<()> {
        READ.with_borrow_mut(|block| {
            let mut turn = 0;
            while turn < TURN {
                match Pin::new(&mut self.stream).poll_read(cx, block) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(()),
                    Poll::Ready(Ok(n)) => {
                        turn += n;
                        let room = self.partial.has_room(limits.frame);
                        self.framer.set_limit(if room { limits.frame } else { limits.frame.min(SMALL) });
                        let taken = self.take(&block[..n], limits, heard);
                        self.note_begun();
                        if let Err(e) = taken {
                            log::debug!("a gossip substream ends: {e}");
                            return Poll::Ready(());
                        }
                    }
                    Poll::Ready(Err(e)) => {
                        log::debug!("a gossip substream broke: {e}");
                        return Poll::Ready(());
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    fn note_begun(&mut self) {
        let begun = self.framer.begun();
        self.partial.take(begun);
        self.partial.give_back(std::mem::replace(&mut self.taken, begun));
    }

    fn take(
        &mut self,
        mut bytes: &[u8],
        limits: &Limits,
        heard: &mut Heard<'_>,
    ) -> Result<(), crate::FramingError> {
        while let Some(frame) = self.framer.next(&mut bytes)? {
            match frame {
                Frame::Rpc(frame) => match decode(&frame, limits) {
                    Ok(rpc) => heard.rpcs.push(rpc),
                    Err(e) => {
                        log::debug!("a frame is no RPC: {e}");
                        heard.events.push_back(FromHandler::Malformed);
                    }
                },
                Frame::TooLarge { bytes } => heard.events.push_back(FromHandler::TooLarge(bytes)),
            }
        }
        Ok(())
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.partial.give_back(self.taken);
    }
}
