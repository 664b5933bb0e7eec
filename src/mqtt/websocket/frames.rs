//! What a client's frames say. Decides by the bytes alone, however they are cut.

/// The longest payload of a control frame.
const CONTROL: usize = 125;

/// What is wrong with what a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("a frame that the client did not mask")]
    NotMasked,
    #[error("a frame with bits that no extension has")]
    Reserved,
    #[error("a control frame that is cut, or longer than 125 bytes")]
    Control,
    #[error("a frame of an unknown kind")]
    Opcode,
    #[error("a message within a message, or the middle of none")]
    Order,
    #[error("a frame longer than there can be")]
    Length,
    /// [MQTT-6.0.0-1]
    #[error("a frame of text: MQTT is binary")]
    Text,
}

impl Flaw {
    /// The status code that tells it (RFC 6455, 7.4.1).
    pub(super) fn code(self) -> u16 {
        if self == Self::Text { 1003 } else { 1002 }
    }
}

/// What a client asks for between its data.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// This is to come back.
    Ping(Vec<u8>),
    /// Nothing more comes.
    Close,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: u8,
    mask: [u8; 4],
    /// Bytes of its payload that have come, and those that are to come.
    seen: u64,
    left: u64,
}

/// Where a client is in its frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// A head that is not complete.
    head: Vec<u8>,
    frame: Option<Frame>,
    /// The payload of a control frame.
    control: Vec<u8>,
    /// Whether the message goes on with the next frame.
    goes_on: bool,
}

impl Frames {
    /// Takes in what came: leaves the data in it at its front, unmasked, and says how much that is; and the last of what was
    /// asked for. What comes behind a close frame is passed over.
    pub(super) fn take(&mut self, bytes: &mut [u8]) -> Result<(usize, Option<Control>), Flaw> {
        let (mut at, mut data, mut asked) = (0, 0, None);
        while at < bytes.len() {
            let Some(frame) = &mut self.frame else {
                self.head.push(bytes[at]);
                at += 1;
                self.frame = self.begin()?;
                if self.frame.is_some_and(|frame| frame.left == 0)
                    && let Some(control) = self.end()
                {
                    asked = Some(control);
                }
                if asked == Some(Control::Close) {
                    break;
                }
                continue;
            };
            let some = usize::try_from(frame.left).unwrap_or(usize::MAX).min(bytes.len() - at);
            let part = &mut bytes[at..at + some];
            unmask(part, frame.mask, frame.seen);
            frame.seen += some as u64;
            frame.left -= some as u64;
            let is_over = frame.left == 0;
            if frame.opcode >= 8 {
                self.control.extend_from_slice(part);
            } else {
                bytes.copy_within(at..at + some, data);
                data += some;
            }
            at += some;
            if is_over && let Some(control) = self.end() {
                let is_last = control == Control::Close;
                asked = Some(control);
                if is_last {
                    break;
                }
            }
        }
        Ok((data, asked))
    }

    /// The frame that a complete head begins.
    fn begin(&mut self) -> Result<Option<Frame>, Flaw> {
        let [first, second, rest @ ..] = &self.head[..] else { return Ok(None) };
        let (is_last, opcode, is_control) = (first & 0x80 != 0, first & 0xf, first & 8 != 0);
        let short = u64::from(second & 0x7f);
        if rest.is_empty() {
            if first & 0x70 != 0 {
                return Err(Flaw::Reserved);
            }
            if second & 0x80 == 0 {
                return Err(Flaw::NotMasked);
            }
            match opcode {
                0x0 if !self.goes_on => return Err(Flaw::Order),
                0x1 => return Err(Flaw::Text),
                0x2 if self.goes_on => return Err(Flaw::Order),
                0x0 | 0x2 => {}
                0x8..=0xa if !is_last || short > CONTROL as u64 => return Err(Flaw::Control),
                0x8..=0xa => {}
                _ => return Err(Flaw::Opcode),
            }
        }
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((length, mask)) = rest.split_at_checked(extended) else { return Ok(None) };
        let Ok(mask) = <[u8; 4]>::try_from(mask) else { return Ok(None) };
        let left = match extended {
            0 => short,
            _ => length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        if left >> 63 != 0 {
            return Err(Flaw::Length);
        }
        if !is_control {
            self.goes_on = !is_last;
        }
        self.head.clear();
        Ok(Some(Frame { opcode, mask, seen: 0, left }))
    }

    /// What a frame that is complete asks for.
    fn end(&mut self) -> Option<Control> {
        let frame = self.frame.take()?;
        let payload = std::mem::take(&mut self.control);
        match frame.opcode {
            0x8 => Some(Control::Close),
            0x9 => Some(Control::Ping(payload)),
            _ => None,
        }
    }
}

/// Unmasks the part of a payload that follows `seen` bytes of it.
fn unmask(part: &mut [u8], mut mask: [u8; 4], seen: u64) {
    mask.rotate_left((seen % 4) as usize);
    let mut words = part.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, mask) in word.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= mask;
    }
}
