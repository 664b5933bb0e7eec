//! A small file that is read again when it has changed.
//!
//! Blocks on the disk: called where blocking is allowed, never from a task.

use std::{
    fmt, fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// A file younger than this may change again without its time stamp telling.
const RACY: Duration = Duration::from_secs(2);

/// A parsed file and when it was read.
pub(super) struct Watched<T> {
    path: PathBuf,
    /// Bytes that are read at most, in whole lines; the rest is as if it were not there.
    limit: u64,
    parse: fn(&[u8]) -> T,
    last: Mutex<Option<(Stamp, Arc<T>)>>,
}

/// What tells one state of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
    /// Whether the file was so young when it was read that a later change may look the same.
    racy: bool,
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<T> Watched<T> {
    pub(super) fn new(path: PathBuf, limit: u64, parse: fn(&[u8]) -> T) -> Self {
        Self { path, limit, parse, last: Mutex::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file as it is now, or nothing if there is none.
    ///
    /// # Errors
    /// When there is something that cannot be read; a pipe or a device is never opened.
    pub(super) fn read(&self) -> io::Result<Option<Arc<T>>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let meta = match fs::metadata(&self.path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                *last = None;
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let modified = meta.modified().ok();
        let racy =
            modified.is_none_or(|m| SystemTime::now().duration_since(m).map_or(true, |age| age < RACY));
        let stamp = Stamp { modified, len: meta.len(), inode: meta.ino(), racy };
        if let Some((old, parsed)) = &*last
            && *old == stamp
            && !old.racy
        {
            return Ok(Some(parsed.clone()));
        }
        let mut content = Vec::new();
        fs::File::open(&self.path)?.take(self.limit.saturating_add(1)).read_to_end(&mut content)?;
        if content.len() as u64 > self.limit {
            // Half a line says something else than the whole: another name, another address.
            let whole = content[..content.len() - 1].iter().rposition(|byte| *byte == b'\n');
            content.truncate(whole.map_or(0, |end| end + 1));
        }
        let parsed = Arc::new((self.parse)(&content));
        *last = Some((stamp, parsed.clone()));
        Ok(Some(parsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(path: &Path) -> Watched<String> {
        Watched::new(path.into(), 8, |bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    #[test]
    fn a_change_is_seen_even_within_the_same_tick_and_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = watch(&path);
        assert_eq!(file.read().unwrap(), None);
        let tick = SystemTime::now() + Duration::from_secs(60);
        for n in 0..200 {
            let content = format!("{n:03}");
            fs::write(&path, &content).unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_modified(tick).unwrap();
            assert_eq!(*file.read().unwrap().unwrap(), content);
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(file.read().unwrap(), None);
    }

    #[test]
    fn an_old_file_is_read_once_and_again_when_its_stamp_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "one").unwrap();
        let age = |seconds| {
            let time = SystemTime::now() - Duration::from_secs(seconds);
            fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        age(100);
        let file = watch(&path);
        let (first, second) = (file.read().unwrap().unwrap(), file.read().unwrap().unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        age(50);
        assert!(!Arc::ptr_eq(&first, &file.read().unwrap().unwrap()));
    }

    #[test]
    fn a_huge_file_is_cut_at_a_line_and_a_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (content, read) in [
            ("0123456\n", "0123456\n"),
            ("01\n34\n67", "01\n34\n67"),
            ("01\n34\n678", "01\n34\n"),
            ("0123456789", ""),
        ] {
            fs::write(&path, content).unwrap();
            assert_eq!(*watch(&path).read().unwrap().unwrap(), read, "{content:?}");
        }
        assert!(watch(dir.path()).read().unwrap_err().to_string().contains("not a regular file"));
    }
}
