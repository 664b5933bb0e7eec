//! The project's sources as text, for tests of what no compiler checks.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The Rust files below `dirs`, in order: their paths from the project's root, and what is in them.
pub(crate) fn sources(dirs: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    dirs.iter().for_each(|dir| collect(&root.join(dir), &mut files));
    files.sort();
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        (file.strip_prefix(root).unwrap().display().to_string(), text)
    };
    files.into_iter().map(read).collect()
}

/// `text` without unit tests, which come last in a file.
pub(crate) fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}
