//! What goes over the wire, by hand: multistream-select 1.0, kad's messages, and how frames and protobuf are read.

use std::io;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::muxing::SubstreamBox;

pub(crate) use crate::encode::{field, framed, line, varint};

const MULTISTREAM: &str = "/multistream/1.0.0";
/// The longest proposal of a protocol that is read.
const PROPOSAL: usize = 1024;

/// Asks for `protocol` (multistream-select 1.0) and takes whatever answer for a yes.
pub(crate) async fn ask_for(stream: &mut SubstreamBox, protocol: &str) -> io::Result<()> {
    stream.write_all(&[line(MULTISTREAM), line(protocol)].concat()).await?;
    stream.flush().await?;
    stream.read_exact(&mut [0; 20]).await
}

/// A message of kad (libp2p/specs `kad-dht/README.md`) with `rest` behind its type and key.
pub(crate) fn message(kind: u64, key: &[u8], rest: &[u8]) -> Vec<u8> {
    [&[8][..], &varint(kind), &field(2, key), rest].concat()
}

/// Answers proposals until one of `protocols` is among them, and returns that.
pub(crate) async fn agree<'a>(stream: &mut SubstreamBox, protocols: &[&'a str]) -> io::Result<&'a str> {
    loop {
        let proposed = framed(&read_frame(stream, PROPOSAL).await?);
        let found = protocols.iter().find(|protocol| line(protocol) == proposed);
        let answer = if found.is_some() || proposed == line(MULTISTREAM) { proposed } else { line("na") };
        stream.write_all(&answer).await?;
        stream.flush().await?;
        if let Some(protocol) = found {
            return Ok(*protocol);
        }
    }
}

/// A frame of at most `most` bytes.
pub(crate) async fn read_frame(stream: &mut SubstreamBox, most: usize) -> io::Result<Vec<u8>> {
    let mut length = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        length.extend(byte);
        if byte[0] < 0x80 {
            break;
        }
    }
    match take_varint(&mut &length[..]) {
        Some(length) if length <= most as u64 => {
            let mut frame = vec![0; length as usize];
            stream.read_exact(&mut frame).await?;
            Ok(frame)
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The fields of bytes that a protobuf message begins with, with their numbers. Numbers are passed over.
pub(crate) fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let mut found = Vec::new();
    while let Some(tag) = take_varint(&mut bytes)
        && let Some(n) = take_varint(&mut bytes)
    {
        match tag & 7 {
            0 => {}
            2 if n <= bytes.len() as u64 => {
                let (field, rest) = bytes.split_at(n as usize);
                found.push((tag >> 3, field));
                bytes = rest;
            }
            _ => break,
        }
    }
    found
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}
