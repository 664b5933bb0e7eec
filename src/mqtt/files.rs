//! Users and access rules, from the files that `mqtt.users` and `mqtt.acl` name.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use smidge_mqtt::{Access, Acl, AclError, Users, UsersError};

use crate::config::Mqtt;

/// The largest file that is read, in bytes: some ten thousand users.
const LARGEST: u64 = 1 << 20;

/// What is wrong with one of the files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{key}: cannot read {}", path.display())]
    Read { key: &'static str, path: PathBuf, source: io::Error },
    #[error("{key}: {} is larger than {LARGEST} bytes, or no text", path.display())]
    Size { key: &'static str, path: PathBuf },
    #[error("mqtt.users")]
    Users(#[from] UsersError),
    #[error("mqtt.acl")]
    Acl(#[from] AclError),
}

/// Who may do what, as the files say now. Blocks.
pub(crate) fn access(config: &Mqtt) -> Result<Access, FileError> {
    let users = config.users.as_ref().map(|path| {
        Users::parse(&path.display().to_string(), &read("mqtt.users", path)?).map_err(FileError::from)
    });
    let acl = config.acl.as_ref().map(|path| {
        Acl::parse(&path.display().to_string(), &read("mqtt.acl", path)?).map_err(FileError::from)
    });
    // Who can reach a listener of this machine needs no name, unless there are some.
    Ok(Access {
        anonymous: config.anonymous || (config.users.is_none() && !config.is_exposed()),
        users: users.transpose()?.map(Arc::new),
        acl: acl.transpose()?.map(Arc::new),
    })
}

fn read(key: &'static str, path: &Path) -> Result<String, FileError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| {
        // A pipe or a device may never end.
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
        }
        file.take(LARGEST + 1).read_to_string(&mut text)
    });
    match read {
        Ok(bytes) if bytes as u64 <= LARGEST => Ok(text),
        Ok(_) => Err(FileError::Size { key, path: path.into() }),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(FileError::Size { key, path: path.into() }),
        Err(source) => Err(FileError::Read { key, path: path.into(), source }),
    }
}
