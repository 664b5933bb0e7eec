//! Why records cannot be kept on disk.

use std::{io, path::PathBuf};

use crate::identity::directory;

/// The newest format of the file that is known here.
pub(super) const VERSION: u32 = 1;

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
    /// There is no code for files in this program.
    #[error("{}: this binary was built without the feature store", .0.display())]
    NotCompiled(PathBuf),
    /// An error of the operating system.
    #[error("{}: cannot {doing}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The error.
        source: io::Error,
    },
}

impl StoreError {
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
            Self::NotCompiled(_) => "build it with the feature store, or set kad.store = \"memory\"".into(),
            Self::Io { source, .. } if is_full(source) => "make room on that disk".into(),
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
            Self::Io { source, .. } => !is_full(source) && source.raw_os_error() != Some(EIO),
            _ => true,
        }
    }
}

const EIO: i32 = rustix::io::Errno::IO.raw_os_error();

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
