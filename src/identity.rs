//! A node's identity: an Ed25519 key, in a file or in memory.
//!
//! The file holds the key in libp2p's protobuf encoding of private keys (libp2p/specs
//! peer-ids), as bytes, 68 of them, as go-libp2p and rust-libp2p write it; the base64 of the same
//! is read, too, so that a key can come as a secret out of a text field. A file that cannot be
//! read as a key is never overwritten, and a key's bytes never reach a log or a `Debug`.
//!
//! Where there is no volume, a key can be derived from a secret that all nodes share and a name that
//! each has for itself ([`Identity::derive`]).

use std::{
    fmt,
    fs::{DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use libp2p::{
    PeerId,
    identity::{KeyType, Keypair},
};
use ring::hkdf;
use zeroize::Zeroizing;

/// The largest key file read, in bytes: four times an Ed25519 key in base64.
const LARGEST: u64 = 512;
/// The shortest secret that keys are derived from, in bytes.
pub(crate) const SHORTEST_SECRET: usize = 16;
/// Keeps what is derived here apart from whatever else is derived from the same secret.
const DERIVATION: &[u8] = b"smidge/identity/ed25519/v1";

/// Where a key came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Made for this run, kept nowhere.
    Ephemeral,
    /// Made now, and written to this file.
    Created(PathBuf),
    /// Read from this file.
    Loaded(PathBuf),
    /// Derived from a secret for this name.
    Derived(String),
}

/// A node's key. Clones share no file, but are the same node.
#[derive(Clone)]
pub struct Identity {
    keypair: Keypair,
    origin: Origin,
    warnings: Vec<String>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("peer_id", &self.peer_id()).field("origin", &self.origin).finish()
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No such file.
    #[error("{}: no such key file", .0.display())]
    Missing(PathBuf),
    /// A new key would have replaced an old one.
    #[error("{}: a key is there already", .0.display())]
    Exists(PathBuf),
    /// The secret or the name that a key should be derived from will not do.
    #[error("no key is derived: {0}")]
    Underivable(&'static str),
    /// Something that is no file is there.
    #[error("{}: is {what}, not a key file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there, with its article.
        what: &'static str,
    },
    /// The file is there, but holds no Ed25519 key.
    #[error("{}: {why}", path.display())]
    Damaged {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An error of the operating system.
    #[error("{}: cannot {doing}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The error.
        source: io::Error,
    },
}

impl IdentityError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing(path) => format!("make one: smidge key generate {}", path.display()),
            Self::Exists(path) => {
                format!("see whose it is: smidge key show {}; or choose another file", path.display())
            }
            Self::Underivable(_) => "set identity.derive_secret and identity.derive_name".into(),
            Self::NotAFile { .. } => "set identity.key_file to the path of a file".into(),
            Self::Damaged { .. } => {
                "restore it from a backup, or move it away: a new key (and peer id) is made then".into()
            }
            Self::Io { path, .. } => format!(
                "put a volume that this user may write to at {}, or set identity.ephemeral = true",
                directory(path).display()
            ),
        }
    }

    /// Whether the configuration or what it points to must be mended by a person first.
    pub fn is_config(&self) -> bool {
        matches!(self, Self::NotAFile { .. } | Self::Damaged { .. } | Self::Underivable(_))
    }
}

impl Identity {
    /// The key that `secret` gives to `name`: always the same one. The Ed25519 seed is HKDF-SHA256
    /// (RFC 5869) of the secret, with the salt `smidge/identity/ed25519/v1`, the name as info, and 32
    /// bytes long.
    ///
    /// The secret gives the key of every name. Two nodes that use one name at a time are one
    /// peer to all others: nothing here can notice that.
    ///
    /// # Errors
    /// [`IdentityError::Underivable`] where the secret has less than 16 bytes or the name none.
    pub fn derive(secret: &[u8], name: &str) -> Result<Self, IdentityError> {
        if secret.len() < SHORTEST_SECRET {
            return Err(IdentityError::Underivable("the secret has less than 16 bytes"));
        }
        if name.is_empty() {
            return Err(IdentityError::Underivable("the name is empty"));
        }
        let mut seed = Zeroizing::new([0; 32]);
        let info = [name.as_bytes()];
        hkdf::Salt::new(hkdf::HKDF_SHA256, DERIVATION)
            .extract(secret)
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|key| key.fill(&mut *seed))
            .map_err(|_| IdentityError::Underivable("HKDF failed"))?;
        let keypair = Keypair::ed25519_from_bytes(&mut *seed)
            .map_err(|_| IdentityError::Underivable("the seed is no Ed25519 key"))?;
        Ok(Self { keypair, origin: Origin::Derived(name.into()), warnings: Vec::new() })
    }

    /// A new key in memory.
    pub fn ephemeral() -> Self {
        Self { keypair: Keypair::generate_ed25519(), origin: Origin::Ephemeral, warnings: Vec::new() }
    }

    /// Reads the key in `path`, or makes one there. Of two processes that do so simultaneously, one
    /// makes the key and both have it.
    ///
    /// # Errors
    /// When a key can be neither read nor written. What is in the file stays as it is.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        match Self::load(path) {
            Err(IdentityError::Missing(_)) => match Self::create(path) {
                Err(IdentityError::Exists(_)) => Self::load(path),
                created => created,
            },
            loaded => loaded,
        }
    }

    /// Reads the key in `path`.
    ///
    /// # Errors
    /// [`IdentityError::Missing`], or why it is no key.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let failed = |doing| {
            move |error: io::Error| match error.kind() {
                io::ErrorKind::NotFound => IdentityError::Missing(path.into()),
                _ => IdentityError::Io { path: path.into(), doing, source: error },
            }
        };
        let damaged = |why: String| IdentityError::Damaged { path: path.into(), why };
        // Looked at before it is opened: opening a pipe would wait for its writer.
        let metadata = path.metadata().map_err(failed("look at it"))?;
        if let Some(what) = no_file(&metadata) {
            return Err(IdentityError::NotAFile { path: path.into(), what });
        }
        let file = File::open(path).map_err(failed("open it"))?;
        // Room for all of it from the start: a buffer that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST as usize + 64));
        file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed("read it"))?;
        let keypair = decode(&bytes).map_err(damaged)?;
        let mode = metadata.mode() & 0o777;
        let warnings = match mode & 0o077 {
            0 => Vec::new(),
            _ => vec![format!(
                "{}: the key can be read by others (mode {mode:03o}): chmod 600 it",
                path.display()
            )],
        };
        Ok(Self { keypair, origin: Origin::Loaded(path.into()), warnings })
    }

    /// Makes a key and writes it to `path`, where there must be nothing yet. Directories on the
    /// way are made.
    ///
    /// # Errors
    /// [`IdentityError::Exists`], or what the operating system says.
    pub fn create(path: &Path) -> Result<Self, IdentityError> {
        if path.symlink_metadata().is_ok() {
            return Err(IdentityError::Exists(path.into()));
        }
        let keypair = Keypair::generate_ed25519();
        let bytes = Zeroizing::new(keypair.to_protobuf_encoding().map_err(|e| IdentityError::Damaged {
            path: path.into(),
            why: format!("the new key cannot be encoded: {e}"),
        })?);
        write_new(path, &bytes).map_err(|(doing, error)| match error.kind() {
            io::ErrorKind::AlreadyExists => IdentityError::Exists(path.into()),
            _ => IdentityError::Io { path: path.into(), doing, source: error },
        })?;
        Ok(Self { keypair, origin: Origin::Created(path.into()), warnings: Vec::new() })
    }

    /// The key, for the transport and for signing.
    pub fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    /// The peer id of the key.
    pub fn peer_id(&self) -> PeerId {
        self.keypair.public().to_peer_id()
    }

    /// Where the key came from.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What an operator should hear about the key file, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn no_file(metadata: &Metadata) -> Option<&'static str> {
    match metadata.file_type() {
        kind if kind.is_file() => None,
        kind if kind.is_dir() => Some("a directory"),
        _ => Some("a device, pipe or socket"),
    }
}

/// Reads the protobuf encoding of an Ed25519 private key, or the base64 of it.
fn decode(bytes: &[u8]) -> Result<Keypair, String> {
    if bytes.is_empty() {
        return Err("the key file is empty".into());
    }
    if bytes.len() as u64 > LARGEST {
        return Err(format!("is larger than {LARGEST} bytes, no Ed25519 key"));
    }
    let as_text = std::str::from_utf8(bytes).ok().map(str::trim);
    let from_text = as_text.and_then(|text| data_encoding::BASE64.decode(text.as_bytes()).ok());
    let from_text = from_text.map(Zeroizing::new);
    let encoded = from_text.as_deref().map_or(bytes, Vec::as_slice);
    let garbage = || match as_text {
        Some(text) if text.starts_with("-----BEGIN") => "holds a PEM key, not a libp2p one".to_owned(),
        _ => format!("holds no libp2p key ({} bytes, damaged or cut off)", bytes.len()),
    };
    // libp2p's own error would do, but it does not promise never to quote the bytes.
    let keypair = Keypair::from_protobuf_encoding(encoded).map_err(|_| garbage())?;
    match keypair.key_type() {
        KeyType::Ed25519 => Ok(keypair),
        other => Err(format!("holds a key of type {other:?}, not Ed25519")),
    }
}

pub(crate) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes a file that was not there, whole or not at all, for its owner's eyes only.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), (&'static str, io::Error)> {
    let dir = directory(path);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| ("make its directory", e))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temp = dir.join(format!(".{name}.{:016x}.tmp", fastrand::u64(..)));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
        file.write_all(bytes)?;
        file.sync_all()
    })();
    let placed =
        written.map_err(|e| ("write it", e)).and_then(|()| place(&temp, path).map_err(|e| ("write it", e)));
    // Gone already where it was renamed.
    let _ = std::fs::remove_file(&temp);
    placed?;
    // The name is safe once the directory is on the disk; some file systems cannot say so.
    let _ = File::open(dir).and_then(|dir| dir.sync_all());
    Ok(())
}

/// Gives `temp` the name `path`, unless something has it.
fn place(temp: &Path, path: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, temp, CWD, path, RenameFlags::NOREPLACE) {
            // The file system (or the kernel) does not know the flag.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            done => return done.map_err(io::Error::from),
        }
    }
    std::fs::hard_link(temp, path)
}

#[cfg(test)]
mod tests;
