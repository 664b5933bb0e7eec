//! The bytes of the file: its header, frames, and what their payloads say.

use std::io;

use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use crate::store::{Change, error::VERSION};

/// What the file begins with.
pub(super) const MAGIC: [u8; 16] = *b"smidge records\n\0";
/// Where the first frame begins.
pub(in crate::store) const FIRST: u64 = 128;
/// Where the two floor slots are.
pub(super) const SLOTS: [u64; 2] = [64, 96];
pub(super) const SYNC: [u8; 4] = *b"\xa5SF1";
/// A frame without its payload.
pub(in crate::store) const FRAME: usize = 32;

/// What a payload says: offset and size, key, value.
pub(super) type Entry<'a> = (usize, usize, &'a [u8], Option<&'a [u8]>);

/// The entries of a payload; `None` if it does not hold together.
pub(super) fn entries(payload: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut found = Vec::new();
    let mut rest = payload;
    while !rest.is_empty() {
        let start = payload.len() - rest.len();
        let (op, mut tail) = rest.split_first()?;
        let mut length = || {
            let (number, rest) = tail.split_first_chunk::<4>()?;
            tail = rest;
            Some(u32::from_le_bytes(*number) as usize)
        };
        let key = length()?;
        let value = match op {
            0 => None,
            1 => Some(length()?),
            _ => return None,
        };
        let (key, tail) = tail.split_at_checked(key)?;
        let (value, tail) = match value {
            Some(size) => tail.split_at_checked(size).map(|(value, tail)| (Some(value), tail))?,
            None => (None, tail),
        };
        rest = tail;
        found.push((start, payload.len() - rest.len() - start, key, value));
    }
    Some(found)
}

pub(super) fn payload(changes: &[Change]) -> Vec<u8> {
    let size = |(key, value): &Change| 9 + key.len() + value.as_ref().map_or(0, Vec::len);
    let mut bytes = Vec::with_capacity(changes.iter().map(size).sum());
    let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    for (key, value) in changes {
        bytes.push(u8::from(value.is_some()));
        bytes.extend(length(key.len()));
        bytes.extend(value.iter().flat_map(|value| length(value.len())));
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    bytes
}

pub(super) fn frame(salt: &[u8; 16], at: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME + payload.len());
    bytes.extend(frame_head(salt, at, u32::try_from(payload.len()).unwrap_or(u32::MAX)));
    bytes.extend(check(&[salt, &at.to_le_bytes(), payload]));
    bytes.extend_from_slice(payload);
    bytes
}

pub(super) fn frame_head(salt: &[u8; 16], at: u64, size: u32) -> [u8; 16] {
    let mut head = [0; 16];
    head[..4].copy_from_slice(&SYNC);
    head[4..8].copy_from_slice(&size.to_le_bytes());
    let sum = check(&[salt, &at.to_le_bytes(), &head[..8]]);
    head[8..].copy_from_slice(&sum[..8]);
    head
}

pub(super) fn header(salt: &[u8; 16]) -> Vec<u8> {
    let mut head = Vec::with_capacity(FIRST as usize);
    head.extend(MAGIC);
    head.extend(VERSION.to_le_bytes());
    head.extend(salt);
    head.extend(check(&[&head]));
    head.resize(SLOTS[0] as usize, 0);
    for at in SLOTS {
        head.extend(slot(salt, at, FIRST));
    }
    head
}

pub(super) fn slot(salt: &[u8; 16], at: u64, floor: u64) -> Vec<u8> {
    let floor = floor.to_le_bytes();
    let mut slot = floor.to_vec();
    slot.extend(check(&[salt, &at.to_le_bytes(), &floor]));
    slot.resize(32, 0);
    slot
}

/// The floor that a slot tells; `None` if its last writing was cut short.
pub(super) fn read_slot(salt: &[u8; 16], at: u64, head: &[u8]) -> Option<u64> {
    let floor = u64::from_le_bytes(*head.get(at as usize..)?.first_chunk()?);
    (slot(salt, at, floor) == head[at as usize..at as usize + 32]).then_some(floor)
}

pub(super) fn check(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut sum = [0; 16];
    sum.copy_from_slice(&hash.finalize()[..16]);
    sum
}

pub(super) fn new_salt() -> io::Result<[u8; 16]> {
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).map_err(|_| io::Error::other("no random numbers can be had"))?;
    Ok(salt)
}

/// The first four bytes of a slice that has them.
pub(super) fn four(bytes: &[u8]) -> [u8; 4] {
    bytes.first_chunk().copied().unwrap_or_default()
}

/// A file whose commits say this.
#[cfg(any(test, fuzzing))]
pub(in crate::store) fn file_of(payloads: &[&[u8]]) -> Vec<u8> {
    let salt = [7; 16];
    let mut bytes = header(&salt);
    for payload in payloads {
        let at = bytes.len() as u64;
        bytes.extend(frame(&salt, at, payload));
    }
    bytes
}
