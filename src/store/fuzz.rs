//! Files of records that this program did not write.

#![allow(clippy::unwrap_used, reason = "a broken promise is a panic")]

use std::io;

use libp2p::PeerId;

use super::{
    Limits, Memtable, Moment,
    journal::{Disk, FIRST, Fault, Journal, file_of},
};

/// A file in memory.
#[derive(Clone, Default)]
struct Ram(Vec<u8>);

impl Disk for Ram {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.get(at as usize..at as usize + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let end = at as usize + bytes.len();
        self.0.resize(self.0.len().max(end), 0);
        self.0[at as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len as usize);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn fresh(&self) -> io::Result<Self> {
        Ok(Self::default())
    }

    fn install(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The file as it is (first byte even), or its commits with all checks right, so that what they hold is
/// looked at, each a length of two bytes and a payload. What is opened once is opened again as the same.
pub fn file(bytes: &[u8]) {
    let Some((kind, mut rest)) = bytes.split_first() else { return };
    let file = match kind % 2 {
        0 => rest.to_vec(),
        _ => {
            let mut payloads = Vec::new();
            while let Some((length, tail)) = rest.split_first_chunk::<2>() {
                let (payload, tail) = tail.split_at(tail.len().min(u16::from_le_bytes(*length).into()));
                payloads.push(payload);
                rest = tail;
            }
            file_of(&payloads)
        }
    };
    let contents = match Journal::open(Ram(file)) {
        Ok((journal, contents)) => {
            assert!(journal.len() >= FIRST);
            let (again, same) = Journal::open(journal.into_disk()).expect("what was opened is right");
            assert!(same.entries == contents.entries && same.torn == 0 && again.len() >= FIRST);
            contents
        }
        Err(Fault::Io(error)) => panic!("memory does not fail: {error}"),
        Err(_) => return,
    };
    let limits = Limits { records: 64, value: 1024, bytes: 1 << 16, providers: 8, peers: 8 };
    let _ = Memtable::new(PeerId::random(), limits, true).load(contents.entries, Moment::now());
}
