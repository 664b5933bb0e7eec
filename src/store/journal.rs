//! A file of keys and values that only grows at its end: each commit is one frame and one fsync, and a
//! frame is there whole or not at all.
//!
//! ```text
//! header  magic 16 | version u32 | salt 16 | check 16 | zeros 12 | floor slot 32 | floor slot 32
//! frame   sync 4 | length u32 | check of these 8 | check of the payload 16 | payload
//! payload (0 | key length u32 | key)  a key that is gone, or
//!         (1 | key length u32 | value length u32 | key | value), any number of them
//! ```
//!
//! Numbers are little-endian. Checks are the first bytes of SHA-256 over the salt, the offset and what is
//! checked: an author of records cannot know the salt, so no value can pass for a frame.
//!
//! A frame that is not right at the very end is what a crash leaves behind: its commit was never
//! confirmed, and it is left out. One with another frame behind it, or below the *floor* (a length known
//! to have been on the disk), is damage: then nothing is opened and nothing is written. When most of
//! the file is out of date it is written anew beside itself and renamed.
//!
//! Knows nothing of what keys and values mean, and blocks: it belongs where blocking work is done.

use std::{collections::HashMap, io};

use super::{Change, error::VERSION};

mod bytes;

#[cfg(any(test, fuzzing))]
pub(super) use bytes::file_of;
pub(super) use bytes::{FIRST, FRAME};
use bytes::{
    MAGIC, SLOTS, SYNC, check, entries, four, frame, frame_head, header, new_salt, payload, read_slot, slot,
};

/// The file is written anew when it is larger than this and than twice what it holds.
const REWRITE: u64 = 1 << 20;
/// Payload of a frame in a file that is written anew.
const CHUNK: usize = 256 << 10;

/// A file as the journal needs it.
pub(super) trait Disk: Sized + Send + 'static {
    fn len(&self) -> io::Result<u64>;
    /// Fills `buf` from offset `at`.
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<()>;
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Returns when everything written is on the disk.
    fn sync(&mut self) -> io::Result<()>;
    /// An empty file that can take this one's place.
    fn fresh(&self) -> io::Result<Self>;
    /// Puts a [`fresh`](Self::fresh) and synced file in its place.
    fn install(&mut self) -> io::Result<()>;
    /// Returns when an [`install`](Self::install) is on the disk, too.
    fn settle(&mut self) -> io::Result<()>;
}

/// Why a file is not opened.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is something else.
    Foreign,
    /// A later version wrote it.
    Newer(u32),
    /// It is not as it was written.
    Damaged {
        at: u64,
        why: String,
    },
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What a file held when it was opened.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) entries: HashMap<Vec<u8>, Vec<u8>>,
    /// Bytes of an unfinished commit at the end, which were left out.
    pub(super) torn: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    at: u64,
    size: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Journal<D> {
    disk: D,
    salt: [u8; 16],
    /// Where the next frame goes.
    end: u64,
    live: HashMap<Vec<u8>, Place>,
    live_bytes: u64,
    /// Something failed in a way that leaves it open what is on the disk: only a new file will do.
    suspect: bool,
    /// The floor slot written last.
    slot: usize,
}

impl<D: Disk> Journal<D> {
    /// A journal in an empty file, which takes its place when it is written.
    pub(super) fn create(mut disk: D) -> io::Result<Self> {
        let salt = new_salt()?;
        disk.write_at(0, &header(&salt))?;
        disk.sync()?;
        disk.install()?;
        disk.settle()?;
        Ok(Self { disk, salt, end: FIRST, live: HashMap::new(), live_bytes: 0, suspect: false, slot: 0 })
    }

    /// Reads a file. Nothing is written unless all of it is right but perhaps an unfinished commit at its end.
    pub(super) fn open(disk: D) -> Result<(Self, Contents), Fault> {
        let len = disk.len()?;
        let damaged = |at, why: String| Fault::Damaged { at, why };
        if len == 0 {
            return Err(damaged(0, "is empty".into()));
        }
        let mut head = vec![0; FIRST.min(len) as usize];
        disk.read_at(0, &mut head)?;
        if !head.starts_with(&MAGIC[..MAGIC.len().min(head.len())]) {
            return Err(Fault::Foreign);
        }
        if len < FIRST {
            return Err(damaged(len, format!("is cut off after {len} bytes")));
        }
        let mut salt = [0; 16];
        salt.copy_from_slice(&head[20..36]);
        if check(&[&head[..36]]) != head[36..52] {
            return Err(damaged(0, "its header is not as it was written".into()));
        }
        match u32::from_le_bytes(four(&head[16..])) {
            VERSION => {}
            newer => return Err(Fault::Newer(newer)),
        }
        let floors = SLOTS.map(|at| read_slot(&salt, at, &head));
        let floor = floors.iter().flatten().copied().max().unwrap_or(FIRST);
        if len < floor {
            let why = format!("is cut off: {floor} bytes had been written, {len} are there");
            return Err(damaged(len, why));
        }
        let slot = usize::from(floors[1] > floors[0]);
        let (live, live_bytes) = (HashMap::new(), 0);
        let mut journal = Self { disk, salt, end: FIRST, live, live_bytes, suspect: false, slot };
        let mut contents = Contents::default();
        while journal.end < len {
            let Some(payload) = journal.frame(journal.end, len)? else {
                contents.torn = len - journal.end;
                break;
            };
            let at = journal.end + FRAME as u64;
            let Some(entries) = entries(&payload) else {
                return Err(damaged(journal.end, "a commit cannot be read".into()));
            };
            for (offset, size, key, value) in entries {
                journal.note(key, at + offset as u64, size as u64, value.is_some());
                match value {
                    Some(value) => contents.entries.insert(key.to_vec(), value.to_vec()),
                    None => contents.entries.remove(key),
                };
            }
            journal.end = at + payload.len() as u64;
        }
        if contents.torn > 0 {
            if journal.end < floor {
                return Err(damaged(journal.end, "a commit is not as it was written".into()));
            }
            if let Some(at) = journal.frame_begins(journal.end + 1, len)? {
                let why = format!("a commit is not as it was written, and another begins at {at}");
                return Err(damaged(journal.end, why));
            }
            journal.disk.truncate(journal.end)?;
        }
        journal.raise_floor()?;
        Ok((journal, contents))
    }

    /// The file itself.
    #[cfg(any(test, fuzzing))]
    pub(super) fn into_disk(self) -> D {
        self.disk
    }

    /// Length of the file, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.end
    }

    /// Makes `changes` last: when this returns they are on the disk, all of them; after an error, all or
    /// none, and they have to be given again. A key may come only once.
    pub(super) fn commit(&mut self, changes: &[Change]) -> io::Result<()> {
        if self.suspect {
            return self.rewrite(changes);
        }
        if self.end > REWRITE && self.end > 2 * self.live_bytes {
            let rewritten = self.rewrite(changes);
            // A disk that is too full for a new file may have room for one more frame.
            if rewritten.is_ok() || self.suspect {
                return rewritten;
            }
        }
        let payload = payload(changes);
        if let Err(error) = self.disk.write_at(self.end, &frame(&self.salt, self.end, &payload)) {
            // A part of the frame may be there.
            self.suspect = self.suspect || self.disk.truncate(self.end).is_err();
            return Err(error);
        }
        if let Err(error) = self.disk.sync() {
            // The kernel forgets what it could not write: asking again would be answered with "done".
            self.suspect = true;
            return Err(error);
        }
        let at = self.end + FRAME as u64;
        self.note_all(&payload, at);
        self.end = at + payload.len() as u64;
        Ok(())
    }

    /// Notes how long the file is, so that it is noticed when it comes back shorter.
    pub(super) fn raise_floor(&mut self) -> io::Result<()> {
        self.slot = 1 - self.slot;
        self.disk.write_at(SLOTS[self.slot], &slot(&self.salt, SLOTS[self.slot], self.end))?;
        self.disk.sync()
    }

    /// Writes what is live, and `changes`, to a new file that takes this one's place.
    pub(super) fn rewrite(&mut self, changes: &[Change]) -> io::Result<()> {
        let (disk, salt) = (self.disk.fresh()?, new_salt()?);
        let (live, live_bytes) = (HashMap::with_capacity(self.live.len()), 0);
        let mut new = Self { disk, salt, end: FIRST, live, live_bytes, suspect: false, slot: 1 };
        let mut chunk = Vec::new();
        let mut at = FIRST;
        while at < self.end {
            let Ok(Some(old)) = self.frame(at, self.end) else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("damaged at byte {at}")));
            };
            at += FRAME as u64;
            for (offset, size, key, value) in entries(&old).unwrap_or_default() {
                if value.is_some() && self.live.get(key).is_some_and(|p| p.at == at + offset as u64) {
                    chunk.extend_from_slice(&old[offset..offset + size]);
                }
            }
            at += old.len() as u64;
            if chunk.len() >= CHUNK {
                new.write(&std::mem::take(&mut chunk))?;
            }
        }
        new.write(&chunk)?;
        new.write(&payload(changes))?;
        new.disk.write_at(0, &header(&new.salt))?;
        new.disk.write_at(SLOTS[1], &slot(&new.salt, SLOTS[1], new.end))?;
        new.disk.sync()?;
        new.disk.install()?;
        *self = new;
        // Until it is sure which of the two is found after a crash, nothing is confirmed.
        self.suspect = true;
        self.disk.settle()?;
        self.suspect = false;
        Ok(())
    }

    /// Writes a frame without waiting for the disk.
    fn write(&mut self, payload: &[u8]) -> io::Result<()> {
        if payload.is_empty() {
            return Ok(());
        }
        self.disk.write_at(self.end, &frame(&self.salt, self.end, payload))?;
        let at = self.end + FRAME as u64;
        self.note_all(payload, at);
        self.end = at + payload.len() as u64;
        Ok(())
    }

    fn note_all(&mut self, payload: &[u8], at: u64) {
        for (offset, size, key, value) in entries(payload).unwrap_or_default() {
            self.note(key, at + offset as u64, size as u64, value.is_some());
        }
    }

    fn note(&mut self, key: &[u8], at: u64, size: u64, is_value: bool) {
        let old = match is_value {
            true => {
                self.live_bytes += size;
                self.live.insert(key.to_vec(), Place { at, size })
            }
            false => self.live.remove(key),
        };
        self.live_bytes -= old.map_or(0, |place| place.size);
    }

    /// The payload of the frame at `at` in a file of `len` bytes; `None` if there is none that is right.
    fn frame(&self, at: u64, len: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(size) = self.head(at, len)? else { return Ok(None) };
        let mut bytes = vec![0; 16 + size];
        self.disk.read_at(at + 16, &mut bytes)?;
        let payload = bytes.split_off(16);
        Ok((check(&[&self.salt, &at.to_le_bytes(), &payload]) == *bytes).then_some(payload))
    }

    /// The length of the payload of the frame at `at`, if a frame begins there and fits into the file.
    fn head(&self, at: u64, len: u64) -> io::Result<Option<usize>> {
        if len.saturating_sub(at) < FRAME as u64 {
            return Ok(None);
        }
        let mut head = [0; 16];
        self.disk.read_at(at, &mut head)?;
        let size = u32::from_le_bytes(four(&head[4..]));
        let right = head == frame_head(&self.salt, at, size) && u64::from(size) <= len - at - FRAME as u64;
        Ok(right.then_some(size as usize))
    }

    /// The first offset from `at` on where a frame begins.
    fn frame_begins(&self, mut at: u64, len: u64) -> io::Result<Option<u64>> {
        let mut window = vec![0; 64 << 10];
        while at + SYNC.len() as u64 <= len {
            let size = (window.len() as u64).min(len - at) as usize;
            self.disk.read_at(at, &mut window[..size])?;
            for (i, sync) in window[..size].windows(SYNC.len()).enumerate() {
                if sync == SYNC && self.head(at + i as u64, len)?.is_some() {
                    return Ok(Some(at + i as u64));
                }
            }
            at += (size - SYNC.len() + 1) as u64;
        }
        Ok(None)
    }
}
