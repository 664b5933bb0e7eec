//! Whether a file could be made somewhere. Looks; never makes one.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// Whether this process may make the file `path`, and the directories on the way to it.
///
/// # Errors
/// Which directory is in the way, and why.
pub(super) fn can_make(path: &Path) -> Result<(), (PathBuf, String)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // What is missing is made in the first that is there.
    let there = parent.ancestors().find(|dir| dir.symlink_metadata().is_ok()).unwrap_or(Path::new("."));
    match there.metadata() {
        Ok(metadata) if !metadata.is_dir() => Err((there.into(), "is no directory".into())),
        Ok(_) => access(there, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|e| (there.into(), format!("cannot be written to: {}", std::io::Error::from(e)))),
        Err(e) => Err((there.into(), e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_directories_are_made_and_files_in_the_way_are_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(can_make(&dir.path().join("a/b/key")), Ok(()));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(can_make(&file.join("key")), Err((file, "is no directory".into())));
        assert_eq!(can_make(Path::new("key")), Ok(()));
        std::os::unix::fs::symlink(dir.path().join("gone"), dir.path().join("link")).unwrap();
        assert!(can_make(&dir.path().join("link/key")).is_err());
    }
}
