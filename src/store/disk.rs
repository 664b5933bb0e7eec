//! The journal's file: locked, for its owner's eyes only, replaced by renaming.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::journal::Disk;
use crate::identity::directory;

/// How often a file that others make, replace or remove meanwhile is looked for.
const TRIES: usize = 16;

/// A file that no other process has open as one of these.
#[derive(Debug)]
pub(super) struct DiskFile {
    file: File,
    path: PathBuf,
    /// Where it is before it is installed.
    temp: Option<PathBuf>,
}

/// A locked file.
#[derive(Debug)]
pub(super) enum OpenFile {
    /// It existed, possibly empty.
    Existing(DiskFile),
    /// It is new, and not yet at its path.
    Created(DiskFile),
}

/// What was tried when it failed, and how.
pub(super) type Failed = (&'static str, io::Error);

impl DiskFile {
    /// Opens and locks the file at `path`, or a new one that will be there. Directories on the way
    /// are made.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where another process has it.
    pub(super) fn open_or_create(path: &Path) -> Result<OpenFile, Failed> {
        for _ in 0..TRIES {
            match path.metadata() {
                Ok(metadata) if metadata.is_dir() => {
                    return Err(("open it", io::ErrorKind::IsADirectory.into()));
                }
                // Opening a pipe would wait for its other end.
                Ok(metadata) if !metadata.is_file() => {
                    return Err(("open it", io::Error::other("is a device, pipe or socket")));
                }
                Ok(_) => {
                    let mut options = OpenOptions::new();
                    let file = options.read(true).write(true).open(path).map_err(|e| ("open it", e))?;
                    if lock(&file, path).map_err(|e| ("lock it", e))? {
                        return Ok(OpenFile::Existing(Self { file, path: path.into(), temp: None }));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let dir = directory(path);
                    let mut builder = DirBuilder::new();
                    builder.recursive(true).mode(0o700).create(dir).map_err(|e| ("make its directory", e))?;
                    let new = Self::beside(path).map_err(|e| ("make it", e))?;
                    if path.symlink_metadata().is_err() {
                        return Ok(OpenFile::Created(new));
                    }
                    // Another process was faster: its file is examined.
                }
                Err(error) => return Err(("look at it", error)),
            }
        }
        Err(("open it", io::Error::other("it changes all the time, or is a link to nothing")))
    }

    /// An empty file beside `path`, locked.
    fn beside(path: &Path) -> io::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temp = directory(path).join(format!(".{name}.new"));
        loop {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&temp)?;
            if lock(&file, &temp)? {
                // What a crash left behind.
                file.set_len(0)?;
                return Ok(Self { file, path: path.into(), temp: Some(temp) });
            }
        }
    }
}

impl Disk for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, at)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn fresh(&self) -> io::Result<Self> {
        Self::beside(&self.path)
    }

    fn install(&mut self) -> io::Result<()> {
        if let Some(temp) = &self.temp {
            self.file.sync_all()?;
            std::fs::rename(temp, &self.path)?;
            self.temp = None;
        }
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        match File::open(directory(&self.path)).and_then(|dir| dir.sync_all()) {
            // Some file systems cannot sync a directory, and need not be asked to.
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        // Never installed: a rewriting that failed.
        if let Some(temp) = &self.temp {
            let _ = std::fs::remove_file(temp);
        }
    }
}

/// Locks `file` for as long as it is open; says whether it is still what is at `path`.
fn lock(file: &File, path: &Path) -> io::Result<bool> {
    flock(file, FlockOperation::NonBlockingLockExclusive)?;
    let ours = file.metadata()?;
    Ok(path.metadata().is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())))
}
