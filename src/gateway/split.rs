//! Many messages in one body: lines, or frames with their length in front. Pure, and bounded whatever comes.
//!
//! A line ends in `\n`, or `\r\n`, or with the body; empty ones are left out. A frame is its length in bytes as a 32-bit
//! big-endian number, and then as many bytes, which may be none.

/// How a body is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    Lines,
    Frames,
}

/// Bytes in front of a frame.
const LENGTH: usize = 4;

/// A message, or that it is larger than it may be; its bytes are passed over.
pub(super) type Piece = Result<Vec<u8>, TooLarge>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// The body ends within a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unfinished;

/// See the module's documentation. Holds what was pushed and not taken yet, and at most one unfinished message.
#[derive(Debug)]
pub(super) struct Splitter {
    split: Split,
    /// The largest message, in bytes.
    limit: usize,
    buf: Vec<u8>,
    /// Of `buf`: what was given out, and how far no line ends.
    at: usize,
    seen: usize,
    passing: Passing,
}

/// What is left of a message that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passing {
    Nothing,
    Line,
    Bytes(usize),
}

impl Splitter {
    pub(super) fn new(split: Split, limit: usize) -> Self {
        Self { split, limit, buf: Vec::new(), at: 0, seen: 0, passing: Passing::Nothing }
    }

    /// Room for more of the body.
    pub(super) fn input(&mut self) -> &mut Vec<u8> {
        if self.at > 0 {
            self.buf.drain(..self.at);
            self.seen = self.seen.saturating_sub(self.at);
            self.at = 0;
        }
        &mut self.buf
    }

    /// The next message of what was put in.
    pub(super) fn next(&mut self) -> Option<Piece> {
        if !self.passed() {
            return None;
        }
        match self.split {
            Split::Lines => self.line(),
            Split::Frames => self.frame(),
        }
    }

    /// The rest, when the body has ended: a line without an end.
    ///
    /// # Errors
    /// [`Unfinished`].
    pub(super) fn finish(&mut self) -> Result<Option<Piece>, Unfinished> {
        match (self.split, self.passing) {
            (Split::Lines, Passing::Nothing) => {
                let line = self.bounded(trimmed(&self.buf[self.at..]));
                self.at = self.buf.len();
                Ok(Some(line).filter(|line| *line != Ok(Vec::new())))
            }
            (Split::Frames, Passing::Nothing) if self.at == self.buf.len() => Ok(None),
            (Split::Lines, _) => Ok(None),
            (Split::Frames, _) => Err(Unfinished),
        }
    }

    fn line(&mut self) -> Option<Piece> {
        loop {
            self.seen = self.seen.max(self.at);
            let Some(end) = self.buf[self.seen..].iter().position(|b| *b == b'\n') else {
                self.seen = self.buf.len();
                // A carriage return may be its last byte.
                if self.seen - self.at <= self.limit + 1 {
                    return None;
                }
                self.passing = Passing::Line;
                self.at = self.buf.len();
                return Some(Err(TooLarge));
            };
            let piece = self.bounded(trimmed(&self.buf[self.at..self.seen + end]));
            self.at = self.seen + end + 1;
            if piece != Ok(Vec::new()) {
                return Some(piece);
            }
        }
    }

    fn bounded(&self, message: &[u8]) -> Piece {
        if message.len() > self.limit { Err(TooLarge) } else { Ok(message.to_vec()) }
    }

    fn frame(&mut self) -> Option<Piece> {
        let (length, rest) = self.buf[self.at..].split_first_chunk::<LENGTH>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > self.limit {
            self.at += LENGTH;
            self.passing = Passing::Bytes(length);
            return Some(Err(TooLarge));
        }
        let frame = rest.get(..length)?.to_vec();
        self.at += LENGTH + length;
        Some(Ok(frame))
    }

    /// Passes over what is too large, as far as it has come; whether it is at its end.
    fn passed(&mut self) -> bool {
        match self.passing {
            Passing::Nothing => {}
            Passing::Line => match self.buf[self.at..].iter().position(|b| *b == b'\n') {
                Some(end) => {
                    self.at += end + 1;
                    self.passing = Passing::Nothing;
                }
                None => self.at = self.buf.len(),
            },
            Passing::Bytes(left) => {
                let n = left.min(self.buf.len() - self.at);
                self.at += n;
                self.passing = if n == left { Passing::Nothing } else { Passing::Bytes(left - n) };
            }
        }
        self.passing == Passing::Nothing
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes of a body that arrives in parts of these sizes.
    fn split(kind: Split, limit: usize, body: &[u8], sizes: &[usize]) -> (Vec<Piece>, bool) {
        let (mut splitter, mut pieces, mut rest) = (Splitter::new(kind, limit), Vec::new(), body);
        let mut sizes = sizes.iter().copied().cycle();
        while !rest.is_empty() {
            let (part, more) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
            splitter.input().extend_from_slice(part);
            rest = more;
            while let Some(piece) = splitter.next() {
                pieces.push(piece);
            }
            assert!(splitter.input().len() <= limit + LENGTH, "{} bytes are kept", splitter.input().len());
        }
        let finished = splitter.finish();
        pieces.extend(finished.clone().ok().flatten());
        (pieces, finished.is_ok())
    }

    #[test]
    fn lines_end_where_they_end_and_empty_ones_are_left_out() {
        let text = |pieces: Vec<Piece>| -> Vec<String> {
            let shown = |p: Piece| p.map_or("!".into(), |p| String::from_utf8(p).unwrap());
            pieces.into_iter().map(shown).collect()
        };
        for (body, expected) in [
            ("", &[][..]),
            ("\n\r\n\n", &[]),
            ("a", &["a"]),
            ("a\n", &["a"]),
            ("a\r\nb\n\nc", &["a", "b", "c"]),
            ("a\rb\n", &["a\rb"]),
            ("12345\n123456\n1\n", &["12345", "!", "1"]),
            ("1234567890\nx", &["!", "x"]),
            ("1234567890", &["!"]),
        ] {
            for size in 1..6 {
                let (pieces, is_whole) = split(Split::Lines, 5, body.as_bytes(), &[size]);
                assert_eq!(
                    (text(pieces), is_whole),
                    (expected.iter().map(|s| s.to_string()).collect(), true),
                    "{body:?}"
                );
            }
        }
    }

    #[test]
    fn a_frame_that_is_cut_off_is_no_message() {
        for (body, pieces, is_whole) in [
            (&b""[..], vec![], true),
            (b"\0\0\0\0", vec![Ok(vec![])], true),
            (b"\0\0\0\x01a\0\0\0\x02bc", vec![Ok(b"a".to_vec()), Ok(b"bc".to_vec())], true),
            (b"\0\0", vec![], false),
            (b"\0\0\0\x02b", vec![], false),
            (b"\0\0\0\x06123456\0\0\0\x01a", vec![Err(TooLarge), Ok(b"a".to_vec())], true),
            (b"\xff\xff\xff\xff12", vec![Err(TooLarge)], false),
        ] {
            for size in 1..8 {
                assert_eq!(split(Split::Frames, 5, body, &[size]), (pieces.clone(), is_whole), "{body:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn however_a_body_arrives_the_same_messages_come_of_it(
            body in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(0), any::<u8>()], 0..200),
            sizes in prop::collection::vec(1..40_usize, 1..8),
            frames in any::<bool>(),
        ) {
            let kind = if frames { Split::Frames } else { Split::Lines };
            let (pieces, is_whole) = split(kind, 8, &body, &sizes);
            let once = {
                let mut splitter = Splitter::new(kind, 8);
                splitter.input().extend_from_slice(&body);
                let mut pieces: Vec<_> = std::iter::from_fn(|| splitter.next()).collect();
                let finished = splitter.finish();
                pieces.extend(finished.clone().ok().flatten());
                (pieces, finished.is_ok())
            };
            prop_assert_eq!((pieces, is_whole), once);
        }

        #[test]
        fn what_was_framed_comes_out_again(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..20)) {
            let body: Vec<u8> = messages
                .iter()
                .flat_map(|m| [&(m.len() as u32).to_be_bytes()[..], m].concat())
                .collect();
            prop_assert_eq!(split(Split::Frames, 8, &body, &[3]), (messages.into_iter().map(Ok).collect(), true));
        }
    }
}
