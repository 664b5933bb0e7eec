//! What goes over the wire, by hand: numbers, frames with their length in front, protobuf's fields, and the lines of
//! multistream-select. The hostile peer (`bench/src/bin/hostile`) is compiled with this file, too.

pub(crate) fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n > 0x7f {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

pub(crate) fn framed(bytes: &[u8]) -> Vec<u8> {
    [&varint(bytes.len() as u64)[..], bytes].concat()
}

/// A protobuf field of bytes.
pub(crate) fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [&varint(number << 3 | 2)[..], &framed(bytes)].concat()
}

/// A line of multistream-select 1.0.
pub(crate) fn line(text: &str) -> Vec<u8> {
    framed(format!("{text}\n").as_bytes())
}
