//! The head of a message: what its headers say, and how the end of its body is known.

use super::WireError;

/// The first line and the headers of a message. Has no `Debug`: a header may be a secret.
pub(crate) struct Head<Line> {
    pub(crate) line: Line,
    /// Whether the other side speaks HTTP/1.1 and not 1.0.
    pub(crate) is_11: bool,
    /// Names in small letters.
    headers: Vec<(String, String)>,
}

/// The first line of a request.
pub(crate) struct RequestLine {
    pub(crate) method: String,
    pub(crate) target: String,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    /// It ends with the connection; only responses do that.
    UntilClosed,
}

impl<Line> Head<Line> {
    pub(super) fn new(
        line: Line,
        version: Option<u8>,
        raw: &[httparse::Header<'_>],
    ) -> Result<Self, WireError> {
        let header = |h: &httparse::Header<'_>| {
            let value = std::str::from_utf8(h.value)
                .map_err(|_| WireError::Malformed(format!("the header {} is no UTF-8", h.name)))?;
            Ok((h.name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers = raw.iter().map(header).collect::<Result<_, WireError>>()?;
        Ok(Self { line, is_11: version == Some(1), headers })
    }

    pub(crate) fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The only header of this name; several are refused.
    pub(crate) fn one(&self, name: &'static str) -> Result<Option<&str>, WireError> {
        let mut all = self.all(name);
        match (all.next(), all.next()) {
            (_, Some(_)) => Err(WireError::Malformed(format!("more than one header {name}"))),
            (first, None) => Ok(first),
        }
    }

    /// Whether the connection may carry another message after this one.
    pub(crate) fn keeps_alive(&self) -> bool {
        let has = |word: &str| self.all("connection").any(|v| v.to_ascii_lowercase().contains(word));
        if self.is_11 { !has("close") } else { has("keep-alive") }
    }

    /// How the body's end is known (RFC 9112, section 6.3); `None` if there is no body. What two
    /// readers might take differently is refused.
    pub(crate) fn framing(&self) -> Result<Option<Framing>, WireError> {
        let coding = self.one("transfer-encoding")?;
        let length = self.one("content-length")?;
        match (coding, length) {
            (Some(_), Some(_)) => {
                Err(WireError::Malformed("both Content-Length and Transfer-Encoding".into()))
            }
            (Some(_), None) if !self.is_11 => {
                Err(WireError::Malformed("Transfer-Encoding in HTTP/1.0".into()))
            }
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
            (Some(_), None) => Err(WireError::Coding),
            (None, Some(length)) => {
                let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
                match length.parse() {
                    Ok(length) if digits => Ok(Some(Framing::Length(length))),
                    _ => Err(WireError::Malformed("Content-Length is no number".into())),
                }
            }
            (None, None) => Ok(None),
        }
    }
}
