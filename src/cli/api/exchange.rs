//! Answers that go on: a request that is answered while it is written, and an event stream.

use super::MAX_ANSWER;
use crate::http::{Body, Framing, Wire, WireError};

/// A request that is being made and answered.
pub(in crate::cli) struct Exchange {
    wire: Wire,
    keeps_alive: bool,
    answer: Body,
    /// To be written.
    out: Vec<u8>,
    is_ending: bool,
    /// The beginning of a line of the answer.
    said: Vec<u8>,
}

impl Exchange {
    pub(super) fn new(wire: Wire, framing: Framing, keeps_alive: bool) -> Self {
        let answer = Body::new(Some(framing), u64::MAX);
        Self { wire, keeps_alive, answer, out: Vec::new(), is_ending: false, said: Vec::new() }
    }

    /// The connection, if it may be used again now that the answer was read to its end.
    pub(super) fn into_reusable(self) -> Option<Wire> {
        self.keeps_alive.then_some(self.wire)
    }

    /// Adds to the body.
    pub(in crate::cli) fn say(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
            self.out.extend_from_slice(bytes);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// Ends the body.
    pub(in crate::cli) fn end(&mut self) {
        if !std::mem::replace(&mut self.is_ending, true) {
            self.out.extend_from_slice(b"0\r\n\r\n");
        }
    }

    pub(in crate::cli) fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Bytes that the node has not taken yet.
    pub(in crate::cli) fn queued(&self) -> usize {
        self.out.len()
    }

    /// Writes some of what is queued, and reads nothing. May be dropped and called again.
    pub(in crate::cli) async fn write(&mut self) -> Result<(), WireError> {
        let n = self.wire.write(&self.out).await?;
        self.out.drain(..n);
        Ok(())
    }

    /// Writes and reads whatever can be: the lines of the answer that have come, and whether it is at its end. May be
    /// dropped and called again.
    pub(in crate::cli) async fn turn(&mut self) -> Result<(Vec<u8>, bool), WireError> {
        let is_done = self.wire.decode(&mut self.answer, &mut self.said)?;
        let whole = self.said.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        if is_done || whole > 0 {
            let rest = self.said.split_off(whole);
            return Ok((std::mem::replace(&mut self.said, rest), is_done));
        }
        if self.said.len() > MAX_ANSWER {
            return Err(WireError::BodyTooLarge);
        }
        self.wire.both_ways(&mut self.out).await?;
        Ok((Vec::new(), false))
    }
}

/// An event stream.
pub(in crate::cli) struct Follow {
    wire: Wire,
    /// What has come of the next event.
    event: SseEvent,
}

/// One event of it.
#[derive(Default)]
pub(in crate::cli) struct SseEvent {
    pub(in crate::cli) name: String,
    pub(in crate::cli) data: String,
}

impl Follow {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, event: SseEvent::default() }
    }

    /// The next event; `None` when the stream ended. May be dropped and called again.
    pub(in crate::cli) async fn next(&mut self) -> Option<SseEvent> {
        let mut is_whole = false;
        while !is_whole {
            let event = &mut self.event;
            let take = |line: &str| {
                if let Some(data) = line.strip_prefix("data: ") {
                    event.data.push_str(data);
                } else if let Some(name) = line.strip_prefix("event: ") {
                    event.name = name.into();
                } else {
                    is_whole = line.is_empty() && !event.name.is_empty();
                }
            };
            // A broken stream is one that ended.
            self.wire.line(MAX_ANSWER, take).await.ok().flatten()?;
        }
        Some(std::mem::take(&mut self.event))
    }
}
