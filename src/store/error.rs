//! Why records cannot be kept on disk, in words.

use std::{io, path::PathBuf};

use super::{
    disk::{Failed, directory},
    journal::{Fault, VERSION},
};

/// Why the file of `kad.store` is not opened. It stays as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the file open.
    #[error("{}: another node has this file open", .0.display())]
    InUse(PathBuf),
    /// Something else than records is there.
    #[error("{}: holds something else than records of smidge", .0.display())]
    Foreign(PathBuf),
    /// A later version of smidge wrote the file.
    #[error("{}: has format {format}, and this version of smidge knows none above {VERSION}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// The file is not as it was written.
    #[error("{}: is damaged at byte {at}: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The offset of the first thing that is wrong.
        at: u64,
        /// What is wrong.
        why: String,
    },
    /// The operating system said no.
    #[error("{}: cannot {doing}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What it said.
        error: io::Error,
    },
}

impl StoreError {
    pub(super) fn fault(path: PathBuf, fault: Fault) -> Self {
        match fault {
            Fault::Foreign => Self::Foreign(path),
            Fault::Newer(format) => Self::Newer { path, format },
            Fault::Damaged { at, why } => Self::Damaged { path, at, why },
            Fault::Io(error) => Self::Io { path, doing: "read it", error },
        }
    }

    pub(super) fn failed(path: PathBuf, (doing, error): Failed) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock => Self::InUse(path),
            _ => Self::Io { path, doing, error },
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::InUse(_) => "give each node a kad.store of its own".into(),
            Self::Foreign(_) => "set kad.store to a path where nothing is yet".into(),
            Self::Newer { .. } => "run the version that wrote it, or set kad.store to another path".into(),
            Self::Damaged { path, .. } => format!(
                "restore it from a backup, or move it away: mv {0} {0}.damaged; the node starts with no records \
                 then, and others that hold them send them again",
                path.display()
            ),
            Self::Io { error, .. } if is_full(error) => "make room on that disk".into(),
            Self::Io { path, .. } => format!(
                "put a volume that this user may write to at {}, or set kad.store = \"memory\"",
                directory(path).display()
            ),
        }
    }

    /// Whether the configuration or what it points to must be mended by a person first; otherwise the
    /// disk has failed or is full.
    pub fn is_config(&self) -> bool {
        match self {
            Self::Io { error, .. } => !is_full(error) && error.raw_os_error() != Some(EIO),
            _ => true,
        }
    }
}

const EIO: i32 = rustix::io::Errno::IO.raw_os_error();

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
