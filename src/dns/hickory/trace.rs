//! What went over the wire for one question: hickory's errors do not tell all of it.
//!
//! Also how an answer gets through that is longer than hickory's buffer (1232 bytes): some servers
//! (aardvark-dns) send one datagram of any size, without the TC bit, and serve no TCP. hickory is shown
//! that the answer was cut, and finds the whole one at the end of what it takes for a TCP connection.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures::io::{AsyncRead, AsyncWrite};
use hickory_resolver::proto::{
    op::Message,
    rr::{Name, RData},
};

/// Answers that are kept for one question: it may lead through so many aliases.
const MAX_ANSWERS: usize = 16;
const HEADER: usize = 12;
/// The bit that says that an answer was cut, in the third byte.
const TC: u8 = 0x02;

/// What was seen on the wire; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// What went wrong last with a socket.
    trouble: Option<String>,
    /// What was asked last.
    question: Vec<u8>,
    answers: Vec<Vec<u8>>,
    /// An answer that is too long for hickory, until it is taken.
    long: Option<Vec<u8>>,
}

impl Trace {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn trouble(&self, words: String) {
        self.seen().trouble = Some(words);
    }

    /// What went wrong last with a socket, once.
    pub(super) fn take_trouble(&self) -> Option<String> {
        self.seen().trouble.take()
    }

    pub(super) fn question(&self, packet: &[u8]) {
        let question = &mut self.seen().question;
        question.clear();
        question.extend_from_slice(packet);
    }

    /// The server sent `datagram`. What hickory, which has room for so many bytes, is to see of it;
    /// nothing of one that is too long and answers something else.
    pub(super) fn answer(&self, datagram: &[u8], room: usize) -> Option<Vec<u8>> {
        let mut seen = self.seen();
        let short = cut(&seen.question, datagram);
        if short.is_some() && seen.answers.len() < MAX_ANSWERS {
            seen.answers.push(datagram.to_vec());
        }
        if datagram.len() <= room {
            return Some(datagram.to_vec());
        }
        seen.long = short.is_some().then(|| datagram.to_vec());
        short
    }

    /// The answer that was too long for hickory, once.
    pub(super) fn take_long(&self) -> Option<Vec<u8>> {
        self.seen().long.take()
    }

    /// What `name` is an alias of in the end, as far as the answers say so.
    pub(super) fn alias(&self, name: &Name) -> Option<Name> {
        let mut at = name.clone();
        for answer in &self.seen().answers {
            let Ok(message) = Message::from_vec(answer) else { continue };
            for record in &message.answers {
                if let RData::CNAME(target) = &record.data
                    && record.name == at
                {
                    at = target.0.clone();
                }
            }
        }
        (at != *name).then_some(at)
    }

    /// The response code of the last answer.
    pub(super) fn code(&self) -> Option<u8> {
        self.seen().answers.last().and_then(|answer| answer.get(3)).map(|flags| flags & 0x0f)
    }
}

/// `answer` without its records and with the TC bit, if it answers `question`: same id, same name, type
/// and class.
fn cut(question: &[u8], answer: &[u8]) -> Option<Vec<u8>> {
    let end = question_end(question)?;
    let same_id = question.first_chunk::<2>() == answer.first_chunk::<2>();
    let (asked, echoed) = (question.get(HEADER..end)?, answer.get(HEADER..end)?);
    let (flags, code) = (*answer.get(2)?, *answer.get(3)?);
    // One question in each; letters may have another case.
    let counts = question.get(4..6)? == [0, 1] && answer.get(4..6)? == [0, 1];
    if !same_id || !counts || flags & 0x80 == 0 || !asked.eq_ignore_ascii_case(echoed) {
        return None;
    }
    Some([&question[..2], &[flags | TC, code, 0, 1, 0, 0, 0, 0, 0, 0], asked].concat())
}

/// Where the question section of a packet of ours ends: its name is not compressed.
fn question_end(packet: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match *packet.get(at)? {
            // Root, type and class.
            0 => return (at + 5 <= packet.len()).then_some(at + 5),
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

/// Stands for a TCP connection whose only answer came as a datagram. The id, by which hickory knows what an
/// answer belongs to, is that of the question that is written.
#[derive(Debug)]
pub(super) struct Replay {
    framed: Vec<u8>,
    /// The first bytes that were written: a length and an id.
    asked: Vec<u8>,
    read: usize,
    reader: Option<Waker>,
}

impl Replay {
    /// `answer` has a header, and fits into a datagram.
    pub(super) fn new(answer: &[u8]) -> Self {
        let length = u16::try_from(answer.len()).unwrap_or(u16::MAX);
        Self {
            framed: [&length.to_be_bytes()[..], answer].concat(),
            asked: Vec::new(),
            read: 0,
            reader: None,
        }
    }
}

impl AsyncWrite for Replay {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wanted = 4_usize.saturating_sub(self.asked.len()).min(buf.len());
        self.asked.extend_from_slice(&buf[..wanted]);
        if self.asked.len() == 4
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Replay {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let (&[_, _, high, low], [_, _, to_high, to_low, ..]) =
            (this.asked.as_slice(), this.framed.as_mut_slice())
        else {
            this.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        (*to_high, *to_low) = (high, low);
        let rest = this.framed.get(this.read..).unwrap_or_default();
        if rest.is_empty() {
            // A server would wait for the next question.
            return Poll::Pending;
        }
        let length = rest.len().min(buf.len());
        buf[..length].copy_from_slice(&rest[..length]);
        this.read += length;
        Poll::Ready(Ok(length))
    }
}

#[cfg(test)]
mod tests {
    use futures::io::{AsyncReadExt, AsyncWriteExt};
    use proptest::prelude::*;

    use super::*;

    /// The header and question of `peer.example`, type A, with this id.
    fn packet(id: u16, flags: [u8; 2]) -> Vec<u8> {
        [&id.to_be_bytes()[..], &flags, &[0, 1, 0, 0, 0, 0, 0, 0], b"\x04peer\x07example\0\0\x01\0\x01"]
            .concat()
    }

    #[test]
    fn a_long_answer_is_shown_as_cut_and_found_over_what_seems_to_be_tcp() {
        let trace = Trace::default();
        trace.question(&packet(7, [1, 0]));
        let long = [packet(7, [0x81, 0x80]), vec![0xc0; 2000]].concat();
        assert_eq!(trace.answer(&long, 1232), Some(packet(7, [0x83, 0x80])));
        let mut stream = Replay::new(&trace.take_long().unwrap());
        assert_eq!(trace.take_long(), None);
        let mut read = vec![0; long.len() + 2];
        futures::executor::block_on(async {
            stream.write_all(&[0, 30, 9, 9, 1, 0]).await.unwrap();
            stream.read_exact(&mut read).await.unwrap();
        });
        assert_eq!(read[..2], (long.len() as u16).to_be_bytes());
        assert_eq!((&read[2..4], &read[4..]), (&[9, 9][..], &long[2..]));
    }

    #[test]
    fn a_long_answer_to_something_else_is_as_if_it_had_not_come() {
        let other_name = |mut packet: Vec<u8>| {
            packet[13] = b'x';
            packet
        };
        for other in
            [packet(8, [0x81, 0]), packet(7, [1, 0]), other_name(packet(7, [0x81, 0])), vec![0, 7], vec![]]
        {
            let trace = Trace::default();
            trace.question(&packet(7, [1, 0]));
            let long = [other, vec![0; 2000]].concat();
            assert_eq!((trace.answer(&long, 1232), trace.take_long()), (None, None), "{:?}", &long[..12]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_may_be_asked_and_answered(question in any::<Vec<u8>>(), answer in any::<Vec<u8>>(), room in 0_usize..50) {
            let trace = Trace::default();
            trace.question(&question);
            let shown = trace.answer(&answer, room);
            prop_assert!(trace.take_long().is_none_or(|long| long == answer && shown.is_some()));
            trace.alias(&Name::root());
            trace.code();
        }
    }
}
